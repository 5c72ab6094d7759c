//! A customer's book: loading it, reading for it, storing what a call changed.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;

use uuid::Uuid;

use super::grants::{self, Grants, StoredGrant};
use super::ids::RandomIds;
use super::statement::Access;
use super::wallets::{self, ChangedWallet, CustomerTime, Head, StoredWallet};
use super::{contracts, holds, ledger, recurring};
use crate::domain::amount::Amount;
use crate::domain::book::{Book, Copy};
use crate::domain::chart::Kind;
use crate::domain::contract::Contract;
use crate::domain::entry::{Recorded, Repayment};
use crate::domain::grant::{Grant, SpendingOrder};
use crate::domain::hold::Hold;
use crate::domain::names::{ContractCode, CustomerId, RecurringCode, TransactionId, WalletCode};
use crate::domain::reader::Reader;
use crate::domain::recurring::RecurringGrant;
use crate::domain::settle;
use crate::domain::time::Timestamp;
use crate::domain::wallet::WalletStatus;
use crate::error::{Error, Result};

/// What is due of one customer until an instant, read together with that of others.
struct Due {
    until: Timestamp,
    grants: Vec<StoredGrant>,
    /// Of all capped recurring grants that are due.
    rolled_over: Vec<StoredGrant>,
    recurring: Vec<RecurringGrant>,
    contracts: Vec<Contract>,
    holds: Vec<Hold>,
    /// The next instant after that.
    next_due_at: Timestamp,
}

impl Due {
    /// Nothing, until an instant.
    fn new(until: Timestamp) -> Self {
        Self {
            until,
            grants: Vec::new(),
            rolled_over: Vec::new(),
            recurring: Vec::new(),
            contracts: Vec::new(),
            holds: Vec::new(),
            next_due_at: Timestamp::NEVER,
        }
    }

    /// Of many customers, in one statement a table.
    fn read(access: Access, customers: &[(&CustomerId, Timestamp)]) -> HashMap<CustomerId, Due> {
        let mut due: HashMap<CustomerId, Due> =
            customers.iter().map(|(customer_id, until)| ((*customer_id).clone(), Due::new(*until))).collect();
        fn sort<T>(due: &mut HashMap<CustomerId, Due>, read: Vec<(CustomerId, T)>, place: impl Fn(&mut Due, T)) {
            for (customer_id, row) in read {
                if let Some(due) = due.get_mut(&customer_id) {
                    place(due, row);
                }
            }
        }
        sort(&mut due, grants::due_until(access, customers), |due, grant| due.grants.push(grant));
        sort(&mut due, grants::rolled_over_due(access, customers), |due, grant| due.rolled_over.push(grant));
        sort(&mut due, recurring::due_until(access, customers), |due, recurring| due.recurring.push(recurring));
        sort(&mut due, contracts::due_until(access, customers), |due, contract| due.contracts.push(contract));
        sort(&mut due, holds::due_until(access, customers), |due, hold| due.holds.push(hold));
        let next: Vec<_> = wallets::next_due_after(access, customers).into_iter().collect();
        sort(&mut due, next, |due, at| due.next_due_at = at);
        due
    }
}

/// The stored rows of one customer.
struct Stored<'a> {
    grants: Grants<'a>,
    /// What was read in advance, to settle: each kind is taken from here once.
    due: Option<RefCell<Due>>,
}

impl Stored<'_> {
    /// What was read in advance until this instant, if it was.
    fn read_until(&self, until: Timestamp) -> Option<RefMut<'_, Due>> {
        self.due.as_ref().map(RefCell::borrow_mut).filter(|due| due.until == until)
    }

    /// The same, read now of this customer.
    fn due<T>(&self, until: Timestamp, read: fn(Access, &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, T)>) -> Vec<T> {
        read(self.grants.access, &[(self.grants.customer_id, until)]).into_iter().map(|(_, row)| row).collect()
    }
}

impl Reader for Stored<'_> {
    fn live_after(&self, wallet: &WalletCode, after: Option<SpendingOrder>, grants_max: usize) -> Vec<Grant> {
        self.grants.live_after(wallet, after, grants_max)
    }

    fn due_until(&self, until: Timestamp) -> Vec<Grant> {
        let due = match self.read_until(until) {
            Some(mut due) => std::mem::take(&mut due.grants),
            None => self.due(until, grants::due_until),
        };
        due.into_iter().map(|grant| self.grants.placed(grant)).collect()
    }

    fn next_due_after(&self, after: Timestamp) -> Timestamp {
        if let Some(due) = self.read_until(after) {
            return due.next_due_at;
        }
        let next = wallets::next_due_after(self.grants.access, &[(self.grants.customer_id, after)]);
        next.into_values().next().unwrap_or(Timestamp::NEVER)
    }

    fn due_after(&self, after: Timestamp, skip: usize, grants_max: usize) -> Vec<Grant> {
        self.grants.due_after(after, skip, grants_max)
    }

    fn expired_since(&self, wallet: &WalletCode, live_at: Timestamp) -> Vec<Grant> {
        self.grants.expired_since(wallet, live_at)
    }

    fn by_id(&self, id: Uuid) -> Option<Grant> {
        self.grants.by_id(id)
    }

    fn transaction(&self, id: &TransactionId) -> Option<Recorded> {
        ledger::transaction(&self.grants, id)
    }

    fn referring(&self, id: &TransactionId) -> Vec<(Kind, Amount)> {
        ledger::referring(self.grants.access, self.grants.customer_id, id)
    }

    fn repayments(&self, wallet: &WalletCode) -> Vec<Repayment> {
        ledger::repayments(self.grants.access, self.grants.customer_id, wallet)
    }

    fn recurring_due_until(&self, until: Timestamp) -> Vec<RecurringGrant> {
        match self.read_until(until) {
            Some(mut due) => std::mem::take(&mut due.recurring),
            None => self.due(until, recurring::due_until),
        }
    }

    fn contracts_due_until(&self, until: Timestamp) -> Vec<Contract> {
        match self.read_until(until) {
            Some(mut due) => std::mem::take(&mut due.contracts),
            None => self.due(until, contracts::due_until),
        }
    }

    fn holds_due_until(&self, until: Timestamp) -> Vec<Hold> {
        match self.read_until(until) {
            Some(mut due) => std::mem::take(&mut due.holds),
            None => self.due(until, holds::due_until),
        }
    }

    fn recurring_grant(&self, code: &RecurringCode) -> Option<RecurringGrant> {
        recurring::by_code(self.grants.access, self.grants.customer_id, code)
    }

    fn recurring_of(&self, wallet: &WalletCode) -> Vec<RecurringGrant> {
        recurring::of_wallet(self.grants.access, self.grants.customer_id, wallet)
    }

    fn contract(&self, code: &ContractCode) -> Option<Contract> {
        contracts::by_code(self.grants.access, self.grants.customer_id, code)
    }

    fn contracts_of(&self, wallet: &WalletCode) -> Vec<Contract> {
        contracts::of_wallet(self.grants.access, self.grants.customer_id, wallet)
    }

    fn hold(&self, id: &TransactionId) -> Option<Hold> {
        holds::by_id(self.grants.access, self.grants.customer_id, id)
    }

    fn rolled_over(&self, code: &RecurringCode) -> Vec<Grant> {
        // Read in advance, those of all codes at once: the book takes each grant once.
        match &self.due {
            Some(due) => due.borrow_mut().rolled_over.drain(..).map(|grant| self.grants.placed(grant)).collect(),
            None => self.grants.rolled_over(code),
        }
    }

    fn instalments(&self, code: &ContractCode) -> Vec<Grant> {
        self.grants.instalments(code)
    }

    fn overage_since(&self, wallet: &WalletCode, from: Timestamp) -> Amount {
        ledger::overage_since(self.grants.access, self.grants.customer_id, wallet, from)
    }
}

/// Entries after which settled books are stored, so that memory is bounded whatever fell due.
const ENTRIES_PER_STORE: usize = 10_000;

/// Entries that settling one customer may write before they are stored and it goes on; each instant is a transaction of its own.
const ENTRIES_PER_SLICE: usize = 100_000;

/// Entries that settling may make in memory, to read.
const ENTRIES_TO_READ_MAX: usize = 1_000_000;

/// Loads the customer's book, settled up to `now`, and lets `work` use it. Under the customer's lock what it did is stored; to read,
/// nothing is, and more than [`ENTRIES_TO_READ_MAX`] entries due are 22003.
pub fn with_settled<T>(
    access: Access,
    customer_id: &CustomerId,
    time: CustomerTime,
    work: impl FnOnce(&mut Book<'_>) -> Result<T>,
) -> Result<T> {
    let entries_max = if access == Access::Write { ENTRIES_PER_SLICE } else { ENTRIES_TO_READ_MAX };
    loop {
        let before = wallets::load(access, customer_id);
        let stored = Stored { grants: Grants::of(customer_id, access, &before), due: None };
        let (mut book, before) = opened(&stored, time, before);
        if time.next_due_at <= time.now && !settle::settle(&mut book, entries_max)? {
            if access == Access::Read {
                return Err(Error::out_of_range(
                    "the time to settle",
                    format!("customer \"{customer_id}\" has more than {entries_max} entries due until {}", time.now),
                    "Ask for an earlier instant, or write what is due with credits.run_maintenance().",
                ));
            }
            store(&[Changes { book, before, time }]);
            continue;
        }
        let result = work(&mut book)?;
        if access == Access::Write {
            store(&[Changes { book, before, time }]);
        }
        return Ok(result);
    }
}

/// A book over stored rows, and its wallets as they are stored, in the same order.
fn opened<'a>(stored: &'a Stored<'a>, time: CustomerTime, mut before: Vec<StoredWallet>) -> (Book<'a>, Vec<StoredWallet>) {
    let wallets = before.iter().map(|stored| stored.wallet.clone()).collect();
    let book = Book::new(stored.grants.customer_id.clone(), time.now, wallets, stored, &RandomIds);
    stored.grants.set_order(book.wallets.iter());
    before.sort_by_key(|stored| book.wallet_index(&stored.wallet.code));
    (book, before)
}

/// Settles some customers that are locked, and stores them together. `settled` sees each book, and whether it is the customer's
/// last; an error is that of one customer, of whom nothing is stored.
pub fn settle_all(
    customers: &[(CustomerId, CustomerTime)],
    settled: &mut impl FnMut(&Book<'_>, bool),
    failed: &mut impl FnMut(&CustomerId, Error),
) {
    let ids: Vec<&CustomerId> = customers.iter().map(|(customer_id, _)| customer_id).collect();
    let until: Vec<(&CustomerId, Timestamp)> = customers.iter().map(|(customer_id, time)| (customer_id, time.now)).collect();
    let mut loaded = wallets::load_many(Access::Write, &ids);
    let mut due = Due::read(Access::Write, &until);
    let stored = customers.iter().map(|(customer_id, _)| {
        let before = loaded.remove(customer_id).unwrap_or_default();
        let grants = Grants::of(customer_id, Access::Write, &before);
        (Stored { grants, due: due.remove(customer_id).map(RefCell::new) }, before)
    });
    let (stored, before): (Vec<_>, Vec<_>) = stored.unzip();
    let mut changes = Vec::new();
    let mut entries = 0;
    let mut unfinished = Vec::new();
    for ((stored, before), (_, time)) in stored.iter().zip(before).zip(customers) {
        let (mut book, before) = opened(stored, *time, before);
        let is_last = match settle::settle(&mut book, ENTRIES_PER_SLICE) {
            Ok(is_last) => is_last,
            Err(error) => {
                failed(&book.customer_id, error);
                continue;
            }
        };
        settled(&book, is_last);
        if !is_last {
            unfinished.push((book.customer_id.clone(), *time));
        }
        entries += book.entries.len();
        changes.push(Changes { book, before, time: *time });
        if entries >= ENTRIES_PER_STORE {
            store(&std::mem::take(&mut changes));
            entries = 0;
        }
    }
    store(&changes);
    if !unfinished.is_empty() {
        settle_all(&unfinished, settled, failed);
    }
}

/// A book with what is stored of its wallets (in the same order), and the due instant that its anchor has.
pub struct Changes<'b> {
    pub book: Book<'b>,
    pub before: Vec<StoredWallet>,
    pub time: CustomerTime,
}

impl Changes<'_> {
    /// When the customer is due next. After settling it is looked up; else it only can have come nearer.
    fn next_due_at(&self) -> Timestamp {
        if self.time.next_due_at <= self.time.now {
            self.book.next_due_at()
        } else {
            self.time.next_due_at.min(self.book.earliest_due())
        }
    }

    /// The grant that rides on its wallet's row from now on, for the plain deductions to come: of the customer's only wallet, the
    /// one which is first in order, if it pays for any usage. Not looked up: known if this call took credits first expiring first.
    /// A call that did nothing leaves the one that rides.
    fn head(&self) -> Option<Head> {
        let [wallet] = self.book.wallets.as_slice() else {
            return None;
        };
        if self.book.entries.is_empty() && self.before.iter().all(|before| before.wallet == *wallet) {
            return self.before.iter().find_map(|before| before.head);
        }
        let first = self.book.first_live_read(0).filter(|grant| grant.terms.applies_to.is_none())?;
        (wallet.status == WalletStatus::Active).then_some(Head { grant: first.id, remaining: first.remaining })
    }

    /// The grants that rode and do not any more. One that changed is stored as it is now, the others go home as they are.
    fn dismounted(&self, head: Option<Head>) -> impl Iterator<Item = Head> {
        let rode = self.before.iter().filter_map(|before| before.head);
        rode.filter(move |rode| head.is_none_or(|head| head.grant != rode.grant))
            .filter(|rode| !self.book.grants.get(&rode.grant).is_some_and(Copy::is_changed))
    }

    /// The wallets to be stored: those that changed, and the anchor with the customer's time.
    fn wallets(&self, head: Option<Head>) -> impl Iterator<Item = ChangedWallet<'_>> {
        let book = &self.book;
        let has_entries = !book.entries.is_empty();
        let next_due_at = self.next_due_at();
        let is_anchor_changed = has_entries || next_due_at != self.time.next_due_at;
        let recorded_at = if has_entries { book.now } else { Timestamp::BEFORE_ALL };
        book.wallets
            .iter()
            .zip(&self.before)
            .filter(move |(after, before)| {
                **after != before.wallet || head != before.head || (before.is_anchor && is_anchor_changed)
            })
            .map(move |(wallet, _)| ChangedWallet { customer_id: &book.customer_id, wallet, head, recorded_at, next_due_at })
    }
}

/// Writes what changed, each row once.
pub fn store(changes: &[Changes<'_>]) {
    let books: Vec<&Book<'_>> = changes.iter().map(|changes| &changes.book).collect();
    let mut dismounted = Vec::new();
    let mut changed = Vec::new();
    for changes in changes {
        let head = changes.head();
        dismounted.extend(changes.dismounted(head).map(|head| (&changes.book.customer_id, head)));
        changed.extend(changes.wallets(head));
    }
    grants::dismount(&dismounted);
    grants::store(&books);
    recurring::store(&books);
    contracts::store(&books);
    holds::store(&books);
    ledger::append(&books);
    wallets::store(&changed);
}

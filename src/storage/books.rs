//! A customer's book: loading it, reading for it, storing what a call changed.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::attempt;
use super::grants::{self, Grants, StoredGrant};
use super::ids::RandomIds;
use super::ledger::StoredLine;
use super::meter_periods::{Places, StoredPeriod};
use super::statement::Access;
use super::wallets::{self, ChangedWallet, CustomerTime, Head, Locked, StoredWallet};
use super::{alerts, contracts, holds, invoice_lines, ledger, meter_periods, outbox, recurring, top_ups};
use crate::domain::amount::Amount;
use crate::domain::book::{Book, Copy};
use crate::domain::chart::Kind;
use crate::domain::contract::Contract;
use crate::domain::entry::{Recorded, Referring, Repayment};
use crate::domain::grant::{Grant, SpendingOrder};
use crate::domain::hold::Hold;
use crate::domain::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};
use crate::domain::names::{ContractCode, CustomerId, RecurringCode, TransactionId, WalletCode};
use crate::domain::overage::OpenOverage;
use crate::domain::reader::Reader;
use crate::domain::recurring::RecurringGrant;
use crate::domain::settle;
use crate::domain::time::Timestamp;
use crate::domain::top_up::{TopUp, TopUpRule};
use crate::domain::wallet::WalletStatus;
use crate::domain::watch::{self, Alert};
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
    top_up_rules: Vec<TopUpRule>,
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
            top_up_rules: Vec::new(),
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
        sort(&mut due, top_ups::due_until(access, customers), |due, rule| due.top_up_rules.push(rule));
        let next: Vec<_> = wallets::next_due_after(access, customers).into_iter().collect();
        sort(&mut due, next, |due, at| due.next_due_at = at);
        due
    }
}

/// What a call will ask for of one customer, to be read together with that of others.
#[derive(Default)]
pub struct Wanted {
    pub transactions: HashSet<TransactionId>,
    pub periods: HashSet<PeriodKey>,
    pub values: HashSet<ValueKey>,
    /// Whether something is due first.
    pub is_due: bool,
    /// Whether usage is asked for that happened earlier, which grants may pay that have expired since.
    pub is_late: bool,
    /// Whether credits may go back to grants: another one than the first may be the first then.
    pub can_give_back: bool,
}

impl Wanted {
    /// The grant that rides on a wallet's row, if what the row says of it is enough.
    fn head(&self, stored: &StoredWallet) -> Option<Head> {
        let is_late = self.is_late && !stored.wallet.settings.late_usage_grace.is_zero();
        stored.head.filter(|_| !self.is_due && !is_late && !self.can_give_back)
    }
}

/// What was read of it, under the customer's lock: what is asked for and not found is not stored.
#[derive(Default)]
struct Ahead {
    wanted: Wanted,
    /// Whether the transactions wanted were looked for.
    looks: bool,
    transactions: HashMap<TransactionId, Vec<StoredLine>>,
    periods: Vec<StoredPeriod>,
    values: Vec<MeterValue>,
    /// The first grant to spend of each wallet.
    live_first: Vec<StoredGrant>,
}

impl Ahead {
    /// Of many customers, in one statement a table; transactions only if `looks`.
    fn read(access: Access, customers: Vec<(&CustomerId, &[StoredWallet], Wanted)>, looks: bool) -> HashMap<CustomerId, Ahead> {
        // Where a grant rides, the wallet's row says enough of it.
        let wallets: Vec<_> = customers
            .iter()
            .flat_map(|(customer_id, wallets, wanted)| wallets.iter().map(move |stored| (*customer_id, stored, wanted)))
            .filter(|(_, stored, wanted)| stored.wallet.status == WalletStatus::Active && wanted.head(stored).is_none())
            .map(|(customer_id, stored, _)| (customer_id, &stored.wallet.code))
            .collect();
        fn keys<'a, K>(
            customers: &'a [(&'a CustomerId, &[StoredWallet], Wanted)],
            of: impl Fn(&'a Wanted) -> Vec<&'a K>,
        ) -> Vec<(&'a CustomerId, &'a K)> {
            customers
                .iter()
                .flat_map(|(customer_id, _, wanted)| of(wanted).into_iter().map(move |key| (*customer_id, key)))
                .collect()
        }
        let looked_for = keys(&customers, |wanted| if looks { wanted.transactions.iter().collect() } else { Vec::new() });
        let lines = read_some(looked_for, |keys| ledger::transactions(access, keys));
        let mut periods =
            read_some(keys(&customers, |wanted| wanted.periods.iter().collect()), |keys| meter_periods::periods(access, keys));
        let mut values =
            read_some(keys(&customers, |wanted| wanted.values.iter().collect()), |keys| meter_periods::values(access, keys));
        let live_first = read_some(wallets, |wallets| grants::live_first(access, wallets));
        let mut ahead: HashMap<CustomerId, Ahead> = HashMap::with_capacity(customers.len());
        for (customer_id, wallets, wanted) in customers {
            let riding = wallets.iter().filter_map(|stored| Some(grants::riding(&stored.wallet.code, wanted.head(stored)?)));
            let live_first = riding.collect();
            let periods = periods.remove(customer_id).unwrap_or_default();
            let values = values.remove(customer_id).unwrap_or_default();
            ahead.insert(customer_id.clone(), Ahead { wanted, looks, periods, values, live_first, ..Ahead::default() });
        }
        for (customer_id, id, line) in lines {
            if let Some(ahead) = ahead.get_mut(&customer_id) {
                ahead.transactions.entry(id).or_default().push(line);
            }
        }
        for (customer_id, grant) in live_first {
            if let Some(ahead) = ahead.get_mut(&customer_id) {
                ahead.live_first.push(grant);
            }
        }
        ahead
    }
}

/// Runs a statement for keys, if there are any.
fn read_some<K, T: Default>(keys: Vec<K>, read: impl FnOnce(&[K]) -> T) -> T {
    if keys.is_empty() { T::default() } else { read(&keys) }
}

/// The stored rows of one customer.
struct Stored<'a> {
    grants: Grants<'a>,
    /// What was read in advance, to settle: each kind is taken from here once.
    due: Option<RefCell<Due>>,
    /// What was read in advance for the call itself.
    ahead: Option<Ahead>,
    /// Of the periods of meters that were read.
    places: Places,
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
        if let Some(ahead) = self.ahead.as_ref().filter(|_| after.is_none() && grants_max == 1) {
            let first = ahead.live_first.iter().find(|grant| grant.wallet == wallet.as_str());
            return first.map(|grant| self.grants.placed(grant.clone())).into_iter().collect();
        }
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
        let Some(ahead) = self.ahead.as_ref().filter(|ahead| ahead.looks && ahead.wanted.transactions.contains(id)) else {
            return ledger::transaction(&self.grants, id);
        };
        let mut recorded = None;
        for line in ahead.transactions.get(id).into_iter().flatten() {
            line.clone().add_to(&mut recorded, id, &self.grants);
        }
        recorded
    }

    fn presumes_new(&self, id: &TransactionId) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| !ahead.looks && ahead.wanted.transactions.contains(id))
    }

    fn referring(&self, id: &TransactionId) -> Vec<Referring> {
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

    fn open_overage(&self, wallet: &WalletCode, after_seq: i64, before: Timestamp) -> Vec<OpenOverage> {
        invoice_lines::open_overage(self.grants.access, self.grants.customer_id, wallet, after_seq, before)
    }

    fn alerts_of(&self, wallet: &WalletCode) -> Vec<Alert> {
        alerts::of_wallet(self.grants.access, self.grants.customer_id, wallet)
    }

    fn alert(&self, id: Uuid) -> Option<Alert> {
        alerts::by_id(self.grants.access, self.grants.customer_id, id)
    }

    fn top_up_rule(&self, wallet: &WalletCode) -> Option<TopUpRule> {
        top_ups::rule(self.grants.access, self.grants.customer_id, wallet)
    }

    fn top_up_rules_due_until(&self, until: Timestamp) -> Vec<TopUpRule> {
        match self.read_until(until) {
            Some(mut due) => std::mem::take(&mut due.top_up_rules),
            None => self.due(until, top_ups::due_until),
        }
    }

    fn open_top_up(&self, wallet: &WalletCode) -> Option<TopUp> {
        top_ups::open(self.grants.access, self.grants.customer_id, wallet)
    }

    fn top_up(&self, id: Uuid) -> Option<TopUp> {
        top_ups::by_id(self.grants.access, self.grants.customer_id, id)
    }

    fn recent_top_ups(&self, wallet: &WalletCode, top_ups_max: i64) -> Vec<TopUp> {
        top_ups::recent(self.grants.access, self.grants.customer_id, wallet, top_ups_max)
    }

    fn meter_period(&self, key: &PeriodKey) -> Option<MeterPeriod> {
        let StoredPeriod { period, place } = match self.ahead.as_ref().filter(|ahead| ahead.wanted.periods.contains(key)) {
            Some(ahead) => ahead.periods.iter().find(|stored| stored.period.key == *key)?.clone(),
            None => {
                let read = meter_periods::periods(self.grants.access, &[(self.grants.customer_id, key)]);
                read.into_values().flatten().next()?
            }
        };
        self.places.borrow_mut().insert(key.clone(), place);
        Some(period)
    }

    fn meter_value(&self, key: &ValueKey) -> Option<MeterValue> {
        if let Some(ahead) = self.ahead.as_ref().filter(|ahead| ahead.wanted.values.contains(key)) {
            return ahead.values.iter().find(|value| value.key == *key).cloned();
        }
        let read = meter_periods::values(self.grants.access, &[(self.grants.customer_id, key)]);
        read.into_values().flatten().next()
    }

    fn last_value(&self, period: &PeriodKey, without: &ValueKey) -> Option<MeterValue> {
        meter_periods::last_value(self.grants.access, self.grants.customer_id, period, without)
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
        let stored =
            Stored { grants: Grants::of(customer_id, access, &before), due: None, ahead: None, places: Places::default() };
        let (mut book, before) = opened(&stored, time, before);
        if time.next_due_at <= time.now && !settle::settle(&mut book, entries_max)? {
            if access == Access::Read {
                return Err(Error::out_of_range(
                    "the time to settle",
                    format!("customer \"{customer_id}\" has more than {entries_max} entries due until {}", time.now),
                    "Ask for an earlier instant, or write what is due with credits.run_maintenance().",
                ));
            }
            watch::look(&mut book)?;
            store(&[Changes { book, before, time, places: &stored.places }]);
            continue;
        }
        if access == Access::Write {
            watch::look(&mut book)?;
        }
        let result = work(&mut book)?;
        if access == Access::Write {
            watch::look(&mut book)?;
            store(&[Changes { book, before, time, places: &stored.places }]);
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

/// Customers whose books are read and stored together.
const CUSTOMERS_PER_CHUNK: usize = 1000;

/// Settles some customers that are locked, lets `work` use each book, and stores them, many in one statement.
///
/// `wanted` says what `work` will ask for, so that it is read together; none if it will only look. `work` sees each book, and whether it is the customer's last:
/// what is due may come in slices, and only the last is settled up to now. `failed` is told of a customer of whom nothing is stored,
/// since settling is an error.
pub fn each_settled(
    customers: Vec<Locked>,
    wanted: &mut dyn FnMut(&Locked) -> Option<Wanted>,
    work: &mut dyn FnMut(&mut Book<'_>, bool),
    failed: &mut dyn FnMut(&CustomerId, Error),
) {
    let mut rest = customers;
    while !rest.is_empty() {
        let later = rest.split_off(rest.len().min(CUSTOMERS_PER_CHUNK));
        let mut chunk = rest;
        while !chunk.is_empty() {
            chunk = chunk_settled(chunk, wanted, work, failed);
        }
        rest = later;
    }
}

thread_local! {
    /// How many of the next chunks look for used keys first: where one was used, more may be.
    static LOOKS: Cell<u32> = const { Cell::new(0) };
}

/// After a chunk with a used key, so many look first.
const LOOKS_AFTER_USED_KEY: u32 = 20;

/// Works on a chunk and returns the customers of whom more is due.
///
/// Used keys are rare, and to look for each costs a fifth of a batch. So keys are presumed to be new, in a subtransaction: if the
/// ledger refuses an entry, one was used, and everything is done again after looking. A refusal, which leaves no entry, looks for
/// itself ([`Reader::presumes_new`]).
fn chunk_settled(
    customers: Vec<Locked>,
    wanted: &mut dyn FnMut(&Locked) -> Option<Wanted>,
    work: &mut dyn FnMut(&mut Book<'_>, bool),
    failed: &mut dyn FnMut(&CustomerId, Error),
) -> Vec<Locked> {
    let mut want = || customers.iter().map(&mut *wanted).collect::<Vec<Option<Wanted>>>();
    let wants = want();
    let has_keys = wants.iter().flatten().any(|wanted| !wanted.transactions.is_empty());
    let looks = LOOKS.get();
    if !has_keys || looks > 0 {
        LOOKS.set(looks.saturating_sub(u32::from(has_keys)));
        return chunk_worked(customers, wants, true, work, failed);
    }
    let presumed = attempt::unless_duplicate(|| chunk_worked(customers.clone(), wants, false, work, failed));
    match presumed {
        Some(unfinished) => unfinished,
        None => {
            LOOKS.set(LOOKS_AFTER_USED_KEY);
            let wants = want();
            chunk_worked(customers, wants, true, work, failed)
        }
    }
}

/// Reads, works on and writes a chunk; keys are looked for if `looks`, else presumed to be new.
fn chunk_worked(
    mut customers: Vec<Locked>,
    wants: Vec<Option<Wanted>>,
    looks: bool,
    work: &mut dyn FnMut(&mut Book<'_>, bool),
    failed: &mut dyn FnMut(&CustomerId, Error),
) -> Vec<Locked> {
    let unread: Vec<&CustomerId> =
        customers.iter().filter(|locked| locked.wallets.is_none()).map(|locked| &locked.customer_id).collect();
    let mut loaded = read_some(unread, |unread| wallets::load_many(Access::Write, unread));
    let until: Vec<(&CustomerId, Timestamp)> = customers
        .iter()
        .filter(|locked| locked.time.next_due_at <= locked.time.now)
        .map(|locked| (&locked.customer_id, locked.time.now))
        .collect();
    let mut due = read_some(until, |until| Due::read(Access::Write, until));
    let before: Vec<Vec<StoredWallet>> = customers
        .iter_mut()
        .map(|locked| locked.wallets.take().or_else(|| loaded.remove(&locked.customer_id)).unwrap_or_default())
        .collect();
    let asked = customers.iter().zip(&before).zip(wants);
    let asked = asked.filter_map(|((locked, before), wanted)| Some((&locked.customer_id, before.as_slice(), wanted?)));
    let mut ahead = Ahead::read(Access::Write, asked.collect(), looks);
    let stored = customers.iter().zip(&before).map(|(locked, before)| Stored {
        grants: Grants::of(&locked.customer_id, Access::Write, before),
        due: due.remove(&locked.customer_id).map(RefCell::new),
        ahead: ahead.remove(&locked.customer_id),
        places: Places::default(),
    });
    let stored: Vec<Stored<'_>> = stored.collect();
    let mut changes = Vec::new();
    let mut entries = 0;
    let mut unfinished = Vec::new();
    for ((stored, before), locked) in stored.iter().zip(before).zip(&customers) {
        let (mut book, before) = opened(stored, locked.time, before);
        let is_due = locked.time.next_due_at <= locked.time.now;
        let is_last = match if is_due { settled(&mut book) } else { Ok(true) } {
            Ok(is_last) => is_last,
            Err(error) => {
                failed(&book.customer_id, error);
                continue;
            }
        };
        work(&mut book, is_last);
        if let Err(error) = watch::look(&mut book) {
            failed(&book.customer_id, error);
            continue;
        }
        if !is_last {
            unfinished.push(locked.clone());
        }
        entries += book.entries.len();
        changes.push(Changes { book, before, time: locked.time, places: &stored.places });
        if entries >= ENTRIES_PER_STORE {
            store(&std::mem::take(&mut changes));
            entries = 0;
        }
    }
    store(&changes);
    unfinished
}

/// Settles a slice and looks at what is watched: one step. Whether it was the last slice.
fn settled(book: &mut Book<'_>) -> Result<bool> {
    let is_last = settle::settle(book, ENTRIES_PER_SLICE)?;
    watch::look(book)?;
    Ok(is_last)
}

/// A book with what is stored of its wallets (in the same order), and the due instant that its anchor has.
pub struct Changes<'b> {
    pub book: Book<'b>,
    pub before: Vec<StoredWallet>,
    pub time: CustomerTime,
    places: &'b Places,
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
        // What makes room for overage helps as credits do.
        let brings = |kind: Kind| kind.effect().balance > 0 || matches!(kind, Kind::OverageRefunded | Kind::OverdraftRefunded);
        let has_credited = book.entries.iter().any(|entry| brings(entry.movement.kind));
        let recorded_at = if has_entries { book.now } else { Timestamp::BEFORE_ALL };
        book.wallets
            .iter()
            .zip(&self.before)
            .filter(move |(after, before)| {
                **after != before.wallet || head != before.head || (before.is_anchor && is_anchor_changed)
            })
            .map(move |(wallet, before)| ChangedWallet {
                customer_id: &book.customer_id,
                wallet,
                before,
                head,
                recorded_at,
                next_due_at,
                has_credited,
            })
    }
}

/// Writes what changed, each row once.
pub fn store(changes: &[Changes<'_>]) {
    let books: Vec<&Book<'_>> = changes.iter().map(|changes| &changes.book).collect();
    let mut dismounted = Vec::new();
    let mut riding = HashSet::new();
    let mut changed = Vec::new();
    for changes in changes {
        let head = changes.head();
        let rode = changes.before.iter().filter_map(|before| before.head).map(|rode| rode.grant);
        riding.extend(rode.filter(|rode| head.is_some_and(|head| head.grant == *rode)));
        dismounted.extend(changes.dismounted(head).map(|head| (&changes.book.customer_id, head)));
        changed.extend(changes.wallets(head));
    }
    grants::dismount(&dismounted);
    grants::store(&books, &riding);
    recurring::store(&books);
    contracts::store(&books);
    holds::store(&books);
    invoice_lines::create(&books);
    alerts::store(&books);
    top_ups::store(&books);
    meter_periods::store(&books, &changes.iter().map(|changes| changes.places).collect::<Vec<_>>());
    ledger::append(&books);
    wallets::store(&changed);
    outbox::write(&books);
}

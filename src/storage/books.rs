//! A customer's book: loading it, settling it, storing what a call changed.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

pub use super::ahead::Wanted;
use super::ahead::{Ahead, read_some};
use super::attempt;
use super::due::Due;
use super::grants::{self, Grants};
use super::ids::RandomIds;
use super::meter_periods::Places;
use super::statement::Access;
use super::stored::Stored;
use super::wallets::{self, ChangedWallet, CustomerTime, Head, Locked, StoredWallet};
use super::{alerts, contracts, holds, invoice_lines, ledger, meter_periods, outbox, recurring, top_ups};
use crate::domain::book::{Book, Copy};
use crate::domain::chart::Kind;
use crate::domain::names::CustomerId;
use crate::domain::settle;
use crate::domain::time::Timestamp;
use crate::domain::wallet::WalletStatus;
use crate::domain::watch;
use crate::error::{Error, Result};

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
            watch::look(&mut book);
            store(&[Changes { book, before, time, places: &stored.places }]);
            continue;
        }
        if access == Access::Write {
            watch::look(&mut book);
        }
        let result = work(&mut book)?;
        if access == Access::Write {
            watch::look(&mut book);
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
/// itself ([`crate::domain::reader::Reader::presumes_new`]).
fn chunk_settled(
    customers: Vec<Locked>,
    wanted: &mut dyn FnMut(&Locked) -> Option<Wanted>,
    work: &mut dyn FnMut(&mut Book<'_>, bool),
    failed: &mut dyn FnMut(&CustomerId, Error),
) -> Vec<Locked> {
    let wants: Vec<Option<Wanted>> = customers.iter().map(&mut *wanted).collect();
    let has_keys = wants.iter().flatten().any(|wanted| !wanted.transactions.is_empty());
    let looks = LOOKS.get();
    if !has_keys || looks > 0 {
        LOOKS.set(looks.saturating_sub(u32::from(has_keys)));
        return chunk_worked(customers, wants, true, work, failed);
    }
    // What a second time needs, if it comes to that.
    let again: Vec<Locked> = customers.iter().map(Locked::without_wallets).collect();
    let presumed = attempt::unless_duplicate(|| chunk_worked(customers, wants, false, work, failed));
    match presumed {
        Some(unfinished) => unfinished,
        None => {
            LOOKS.set(LOOKS_AFTER_USED_KEY);
            let wants = again.iter().map(&mut *wanted).collect();
            chunk_worked(again, wants, true, work, failed)
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
        watch::look(&mut book);
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
    watch::look(book);
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

    /// Whether there are changes besides entries that calls decide by: lines, alerts, top-ups.
    fn has_changed_rows(&self) -> bool {
        let book = &self.book;
        let changed_alert = book.alerts.created().chain(book.alerts.changed()).next();
        let changed_rule = book.top_up_rules.created().chain(book.top_up_rules.changed()).next();
        let changed_top_up = book.top_ups.created().chain(book.top_ups.changed()).next();
        !book.lines.is_empty() || changed_alert.is_some() || changed_rule.is_some() || changed_top_up.is_some()
    }

    /// The wallets to be stored: those that changed, and the anchor with the customer's time.
    fn wallets(&self, head: Option<Head>) -> impl Iterator<Item = ChangedWallet<'_>> {
        let book = &self.book;
        let has_entries = !book.entries.is_empty();
        let next_due_at = self.next_due_at();
        // Whoever locked the customer without an update has to see that something else of it changed: its snapshot may be older.
        let is_anchor_changed = has_entries || next_due_at != self.time.next_due_at || self.has_changed_rows();
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

//! What the tables hold, in vectors: loads a customer's book and stores it as `storage::books` does.
//!
//! Every step checks what the storage layer relies on: a grant that the book does not call changed is unchanged, a transaction id
//! is written once, and the next due instant is never late.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use uuid::Uuid;

use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::chart::Kind;
use crate::domain::contract::Contract;
use crate::domain::entry::{Line, Movement, Recorded, Referring, Repayment};
use crate::domain::event::Event;
use crate::domain::grant::{Grant, GrantStatus, Origin, SpendingOrder};
use crate::domain::hold::Hold;
use crate::domain::invoice::InvoiceLine;
use crate::domain::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};
use crate::domain::metering::Metered;
use crate::domain::names::{ContractCode, CustomerId, EventName, RecurringCode, TransactionId, WalletCode};
use crate::domain::overage::OpenOverage;
use crate::domain::reader::{Ids, Reader};
use crate::domain::recurring::RecurringGrant;
use crate::domain::request::Fingerprint;
use crate::domain::rows::Rows;
use crate::domain::settle;
use crate::domain::time::Timestamp;
use crate::domain::top_up::{TopUp, TopUpRule, TopUpStatus};
use crate::domain::verify::{PostedEntry, Replay, Violation};
use crate::domain::wallet::Wallet;
use crate::domain::watch::{self, Alert};
use crate::error::Result;

/// A row of the ledger.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Index of the stored wallet.
    pub wallet: usize,
    pub seq: i64,
    pub transaction_id: TransactionId,
    pub line: i32,
    pub fingerprint: Fingerprint,
    pub requested: Option<Amount>,
    pub event_name: Option<EventName>,
    pub usage_at: Option<Timestamp>,
    pub refers_to: Option<TransactionId>,
    pub metered: Option<Rc<Metered>>,
    pub movement: Movement,
    pub balance_after: Amount,
}

/// Ids that count up, so that the order of ids is the order of creation.
#[derive(Debug, Default)]
pub struct CountingIds(Cell<u128>);

impl Ids for CountingIds {
    fn uuid(&self, _: Timestamp) -> Uuid {
        self.0.set(self.0.get() + 1);
        Uuid::from_u128(self.0.get())
    }
}

/// One customer's stored rows.
#[derive(Debug)]
pub struct Store {
    /// In the order of creation; a grant's `wallet` is an index into this.
    pub wallets: Vec<Wallet>,
    /// In the order of creation.
    pub grants: Vec<Grant>,
    pub entries: Vec<StoredEntry>,
    pub recurring: BTreeMap<RecurringCode, RecurringGrant>,
    pub contracts: BTreeMap<ContractCode, Contract>,
    pub holds: BTreeMap<TransactionId, Hold>,
    pub lines: Vec<InvoiceLine>,
    pub alerts: BTreeMap<Uuid, Alert>,
    pub top_up_rules: BTreeMap<WalletCode, TopUpRule>,
    pub top_ups: BTreeMap<Uuid, TopUp>,
    pub events: Vec<Event>,
    pub meter_periods: BTreeMap<PeriodKey, MeterPeriod>,
    pub meter_values: BTreeMap<ValueKey, MeterValue>,
    pub next_due_at: Timestamp,
    ids: CountingIds,
}

impl Store {
    pub fn new(wallets: Vec<Wallet>) -> Self {
        Self {
            wallets,
            grants: Vec::new(),
            entries: Vec::new(),
            recurring: BTreeMap::new(),
            contracts: BTreeMap::new(),
            holds: BTreeMap::new(),
            lines: Vec::new(),
            alerts: BTreeMap::new(),
            top_up_rules: BTreeMap::new(),
            top_ups: BTreeMap::new(),
            events: Vec::new(),
            meter_periods: BTreeMap::new(),
            meter_values: BTreeMap::new(),
            next_due_at: Timestamp::NEVER,
            ids: CountingIds::default(),
        }
    }

    fn session(&self) -> Session<'_> {
        let mut order: Vec<usize> = (0..self.wallets.len()).collect();
        order.sort_by_key(|index| (self.wallets[*index].settings.priority, self.wallets[*index].code.clone()));
        Session { store: self, order }
    }

    /// Settles up to `now` in memory, as far as something is due, and lets `work` look.
    pub fn read<T>(&self, now: Timestamp, work: impl FnOnce(&mut Book<'_>) -> T) -> Result<T> {
        let session = self.session();
        let mut book = session.book(now);
        if self.next_due_at <= now {
            assert!(settle::settle(&mut book, usize::MAX)?);
        }
        Ok(work(&mut book))
    }

    /// The same, and stores what `work` did unless it refused.
    pub fn change<T>(&mut self, now: Timestamp, work: impl FnOnce(&mut Book<'_>) -> Result<T>) -> Result<T> {
        let session = self.session();
        let order = session.order.clone();
        let mut book = session.book(now);
        let is_due = self.next_due_at <= now;
        if is_due {
            assert!(settle::settle(&mut book, usize::MAX)?);
            watch::look(&mut book);
        }
        let result = work(&mut book)?;
        watch::look(&mut book);
        let next_due_at = if is_due { book.next_due_at() } else { self.next_due_at.min(book.earliest_due()) };
        let changes = Changes::of(&book, &order);
        self.apply(changes, next_due_at);
        Ok(result)
    }

    fn apply(&mut self, changes: Changes, next_due_at: Timestamp) {
        for (index, wallet) in changes.wallets {
            self.wallets[index] = wallet;
        }
        for (grant, is_new, is_changed) in changes.grants {
            let stored = self.grants.iter_mut().find(|stored| stored.id == grant.id);
            match stored {
                None => {
                    assert!(is_new, "grant {} came from nowhere", grant.id);
                    self.grants.push(grant);
                }
                Some(stored) => {
                    assert!(!is_new, "grant {} was created twice", grant.id);
                    assert!(is_changed || *stored == grant, "a change of grant {} would not be stored", grant.id);
                    stored.status = grant.status;
                    stored.remaining = grant.remaining;
                    stored.expired = grant.expired;
                    assert_eq!(*stored, grant, "something of a grant changed that is not stored");
                }
            }
        }
        for entry in changes.entries {
            let key = (&entry.transaction_id, entry.line);
            let is_taken = self.entries.iter().any(|stored| (&stored.transaction_id, stored.line) == key);
            assert!(!is_taken, "line {} of transaction {} is written twice", entry.line, entry.transaction_id);
            self.entries.push(entry);
        }
        put(&mut self.recurring, changes.recurring);
        put(&mut self.contracts, changes.contracts);
        put(&mut self.holds, changes.holds);
        put(&mut self.meter_periods, changes.meter_periods);
        put(&mut self.meter_values, changes.meter_values);
        self.lines.extend(changes.lines);
        put(&mut self.alerts, changes.alerts);
        put(&mut self.top_up_rules, changes.top_up_rules);
        put(&mut self.top_ups, changes.top_ups);
        self.events.extend(changes.events);
        self.next_due_at = next_due_at;
        let due_at = self.due_at(|_| true);
        assert!(self.next_due_at <= due_at, "next due at {}, but something is due at {due_at}", self.next_due_at);
    }

    /// The earliest due instant of all rows that passes a test.
    fn due_at(&self, counts: impl Fn(&Timestamp) -> bool) -> Timestamp {
        let grants = self.grants.iter().map(Grant::due_at);
        let recurring = self.recurring.values().map(RecurringGrant::due_at);
        let contracts = self.contracts.values().map(Contract::due_at);
        let holds = self.holds.values().map(Hold::due_at);
        let top_ups = self.top_up_rules.values().map(|rule| rule.due_at);
        grants.chain(recurring).chain(contracts).chain(holds).chain(top_ups).filter(counts).min().unwrap_or(Timestamp::NEVER)
    }

    /// A wallet's entries as verification reads them.
    pub fn posted(&self, wallet: usize) -> Vec<PostedEntry> {
        let of_wallet = self.entries.iter().filter(|entry| entry.wallet == wallet);
        of_wallet
            .map(|entry| PostedEntry {
                seq: entry.seq,
                kind: entry.movement.kind,
                credits: entry.movement.credits,
                balance_after: entry.balance_after,
                grant: entry.movement.grant,
                occurred_at: entry.movement.occurred_at,
                usage_at: entry.usage_at,
                event_name: entry.event_name.clone(),
                transaction_id: entry.transaction_id.to_string(),
            })
            .collect()
    }

    /// Replays the entries of a wallet against what is stored of it and its grants.
    pub fn verify(&self, wallet: usize) -> Vec<Violation> {
        replay(&self.wallets[wallet], &self.grants, wallet, &self.posted(wallet))
    }
}

pub fn replay(wallet: &Wallet, grants: &[Grant], index: usize, entries: &[PostedEntry]) -> Vec<Violation> {
    let mut replay = Replay::new("customer", wallet, grants.iter().filter(|grant| grant.wallet == index));
    for entry in entries {
        replay.entry(entry);
    }
    replay.finish(None, Amount::ZERO)
}

fn put<K: Ord, T>(stored: &mut BTreeMap<K, T>, rows: Vec<(K, T)>) {
    stored.extend(rows);
}

/// The rows that a book wants inserted or updated.
fn wanted<K: Ord, T: Clone + PartialEq>(rows: &Rows<K, T>, code: impl Fn(&T) -> K) -> Vec<(K, T)> {
    rows.created().chain(rows.changed()).map(|row| (code(row), row.clone())).collect()
}

/// What a book wants stored, with wallets as the store counts them.
struct Changes {
    wallets: Vec<(usize, Wallet)>,
    grants: Vec<(Grant, bool, bool)>,
    entries: Vec<StoredEntry>,
    recurring: Vec<(RecurringCode, RecurringGrant)>,
    contracts: Vec<(ContractCode, Contract)>,
    holds: Vec<(TransactionId, Hold)>,
    meter_periods: Vec<(PeriodKey, MeterPeriod)>,
    meter_values: Vec<(ValueKey, MeterValue)>,
    lines: Vec<InvoiceLine>,
    alerts: Vec<(Uuid, Alert)>,
    top_up_rules: Vec<(WalletCode, TopUpRule)>,
    top_ups: Vec<(Uuid, TopUp)>,
    events: Vec<Event>,
}

impl Changes {
    fn of(book: &Book<'_>, order: &[usize]) -> Self {
        let grants = book.grants.values().map(|copy| {
            let grant = Grant { wallet: order[copy.grant.wallet], ..copy.grant.clone() };
            (grant, copy.is_new(), copy.is_changed())
        });
        let entries = book.entries.iter().map(|entry| {
            let transaction = &book.transactions[entry.transaction];
            StoredEntry {
                wallet: order[entry.wallet],
                seq: entry.seq,
                transaction_id: transaction.id.clone(),
                line: entry.line,
                fingerprint: transaction.fingerprint,
                requested: transaction.requested,
                event_name: transaction.event_name.clone(),
                usage_at: transaction.usage_at,
                refers_to: entry.movement.refers_to.as_ref().or(transaction.refers_to.as_ref()).cloned(),
                metered: transaction.metered.clone().filter(|_| entry.line == 1),
                movement: entry.movement.clone(),
                balance_after: entry.balance_after,
            }
        });
        Self {
            wallets: book.wallets.iter().zip(order).map(|(wallet, index)| (*index, wallet.clone())).collect(),
            grants: grants.collect(),
            entries: entries.collect(),
            recurring: wanted(&book.recurring, |recurring| recurring.code.clone()),
            contracts: wanted(&book.contracts, |contract| contract.code.clone()),
            holds: wanted(&book.holds, |hold| hold.id.clone()),
            meter_periods: wanted(&book.meter_periods, |period| period.key.clone()),
            meter_values: wanted(&book.meter_values, |value| value.key.clone()),
            lines: book.lines.clone(),
            alerts: wanted(&book.alerts, |alert| alert.id),
            top_up_rules: wanted(&book.top_up_rules, |rule| rule.wallet.clone()),
            top_ups: wanted(&book.top_ups, |top_up| top_up.id),
            events: book.events.clone(),
        }
    }
}

fn due<'a, T: Clone + 'a>(rows: impl Iterator<Item = &'a T>, due_at: fn(&T) -> Timestamp, until: Timestamp) -> Vec<T> {
    rows.filter(|row| due_at(row) <= until && !due_at(row).is_never()).cloned().collect()
}

/// The rows as one call reads them; `order` translates the book's wallets to the stored ones.
struct Session<'a> {
    store: &'a Store,
    order: Vec<usize>,
}

impl Session<'_> {
    fn book(&self, now: Timestamp) -> Book<'_> {
        let wallets = self.store.wallets.clone();
        Book::new(CustomerId::stored("customer".into()), now, wallets, self, &self.store.ids)
    }

    fn book_index(&self, stored: usize) -> usize {
        self.order.iter().position(|index| *index == stored).unwrap()
    }

    fn stored_index(&self, code: &WalletCode) -> usize {
        self.store.wallets.iter().position(|wallet| wallet.code == *code).unwrap()
    }

    fn grants(&self, is_wanted: impl Fn(&Grant) -> bool) -> Vec<Grant> {
        let wanted = self.store.grants.iter().filter(|grant| is_wanted(grant));
        wanted.map(|grant| Grant { wallet: self.book_index(grant.wallet), ..grant.clone() }).collect()
    }
}

impl Reader for Session<'_> {
    fn live_after(&self, wallet: &WalletCode, after: Option<SpendingOrder>, grants_max: usize) -> Vec<Grant> {
        let wallet = self.stored_index(wallet);
        let mut live = self.grants(|grant| {
            let is_after = after.is_none_or(|after| grant.spending_order() > after);
            grant.wallet == wallet && grant.status == GrantStatus::Active && is_after
        });
        live.sort_by_key(Grant::spending_order);
        // As the statement of the first page does.
        live.truncate(if after.is_none() { 1 } else { grants_max });
        live
    }

    fn due_until(&self, until: Timestamp) -> Vec<Grant> {
        self.grants(|grant| grant.due_at() <= until && !grant.due_at().is_never())
    }

    fn due_after(&self, after: Timestamp, skip: usize, grants_max: usize) -> Vec<Grant> {
        let mut due = self.grants(|grant| grant.due_at() > after && !grant.due_at().is_never());
        due.sort_by_key(Grant::due_at);
        due.into_iter().skip(skip).take(grants_max).collect()
    }

    fn expired_since(&self, wallet: &WalletCode, live_at: Timestamp) -> Vec<Grant> {
        let wallet = self.stored_index(wallet);
        self.grants(|grant| {
            let has_expired = grant.status == GrantStatus::Expired && grant.expired.is_positive();
            grant.wallet == wallet && has_expired && grant.is_live_at(live_at)
        })
    }

    fn by_id(&self, id: Uuid) -> Option<Grant> {
        self.grants(|grant| grant.id == id).pop()
    }

    fn transaction(&self, id: &TransactionId) -> Option<Recorded> {
        let entries: Vec<&StoredEntry> = self.store.entries.iter().filter(|entry| entry.transaction_id == *id).collect();
        let first = entries.first()?;
        Some(Recorded {
            id: id.clone(),
            fingerprint: first.fingerprint,
            requested: first.requested,
            event_name: first.event_name.clone(),
            metered: first.metered.clone(),
            lines: entries.iter().map(|entry| Line::of(self.book_index(entry.wallet), entry.seq, &entry.movement)).collect(),
        })
    }

    fn referring(&self, id: &TransactionId) -> Vec<Referring> {
        let entries = self.store.entries.iter().filter(|entry| entry.refers_to.as_ref() == Some(id));
        let referring = entries.map(|entry| Referring {
            kind: entry.movement.kind,
            credits: entry.movement.credits,
            takes_out: matches!(entry.metered.as_deref(), Some(Metered::TakenOut(_))),
        });
        referring.collect()
    }

    fn meter_period(&self, key: &PeriodKey) -> Option<MeterPeriod> {
        self.store.meter_periods.get(key).cloned()
    }

    fn meter_value(&self, key: &ValueKey) -> Option<MeterValue> {
        self.store.meter_values.get(key).cloned()
    }

    fn last_value(&self, period: &PeriodKey, without: &ValueKey) -> Option<MeterValue> {
        let mut of_period = self.store.meter_values.values().filter(|value| value.key.period == *period);
        of_period.rfind(|value| value.events > 0 && value.key != *without).cloned()
    }

    fn next_due_after(&self, after: Timestamp) -> Timestamp {
        self.store.due_at(|at| *at > after)
    }

    fn recurring_due_until(&self, until: Timestamp) -> Vec<RecurringGrant> {
        due(self.store.recurring.values(), RecurringGrant::due_at, until)
    }

    fn contracts_due_until(&self, until: Timestamp) -> Vec<Contract> {
        due(self.store.contracts.values(), Contract::due_at, until)
    }

    fn holds_due_until(&self, until: Timestamp) -> Vec<Hold> {
        due(self.store.holds.values(), Hold::due_at, until)
    }

    fn recurring_grant(&self, code: &RecurringCode) -> Option<RecurringGrant> {
        self.store.recurring.get(code).cloned()
    }

    fn contract(&self, code: &ContractCode) -> Option<Contract> {
        self.store.contracts.get(code).cloned()
    }

    fn contracts_of(&self, wallet: &WalletCode) -> Vec<Contract> {
        self.store.contracts.values().filter(|contract| contract.wallet == *wallet).cloned().collect()
    }

    fn hold(&self, id: &TransactionId) -> Option<Hold> {
        self.store.holds.get(id).cloned()
    }

    fn rolled_over(&self, code: &RecurringCode) -> Vec<Grant> {
        let origin = Some(Origin::PeriodRollover(code.clone()));
        self.grants(|grant| grant.terms.origin == origin && grant.status == GrantStatus::Active)
    }

    fn instalments(&self, code: &ContractCode) -> Vec<Grant> {
        let origin = Some(Origin::Instalment(code.clone()));
        let can_end = [GrantStatus::Active, GrantStatus::Exhausted];
        self.grants(|grant| grant.terms.origin == origin && can_end.contains(&grant.status))
    }

    fn recurring_of(&self, wallet: &WalletCode) -> Vec<RecurringGrant> {
        self.store.recurring.values().filter(|recurring| recurring.wallet == *wallet).cloned().collect()
    }

    fn overage_since(&self, wallet: &WalletCode, from: Timestamp) -> Amount {
        let wallet = self.stored_index(wallet);
        let entries = || self.store.entries.iter().filter(|entry| entry.wallet == wallet);
        let refunded = |seq: i64| -> Amount {
            entries().filter(|entry| entry.movement.reverses_seq == Some(seq)).map(|entry| entry.movement.credits).sum()
        };
        let charged = entries().filter(|entry| entry.movement.kind == Kind::Overage);
        let in_term = charged.filter(|entry| entry.movement.occurred_at >= from);
        in_term.map(|entry| entry.movement.credits - refunded(entry.seq)).sum()
    }

    fn open_overage(&self, wallet: &WalletCode, after_seq: i64, before: Timestamp) -> Vec<OpenOverage> {
        let wallet = self.stored_index(wallet);
        let mut open: Vec<OpenOverage> = Vec::new();
        for entry in self.store.entries.iter().filter(|entry| entry.wallet == wallet && entry.seq > after_seq) {
            let sign = entry.movement.kind.effect().overage;
            let Some((unit_price, currency)) = entry.movement.price.clone().filter(|_| sign != 0) else {
                continue;
            };
            let is_older = entry.movement.occurred_at < before;
            let is_same = |other: &&mut OpenOverage| {
                (other.unit_price, &other.currency, other.is_older) == (unit_price, &currency, is_older)
            };
            match open.iter_mut().find(is_same) {
                Some(open) => {
                    open.quantity += entry.movement.credits.signed(sign);
                    open.last_seq = entry.seq;
                }
                None => open.push(OpenOverage {
                    quantity: entry.movement.credits.signed(sign),
                    from: entry.movement.occurred_at,
                    last_seq: entry.seq,
                    unit_price,
                    currency,
                    is_older,
                }),
            }
        }
        open
    }

    fn alerts_of(&self, wallet: &WalletCode) -> Vec<Alert> {
        self.store.alerts.values().filter(|alert| alert.wallet == *wallet && alert.dropped_at.is_none()).cloned().collect()
    }

    fn alert(&self, id: Uuid) -> Option<Alert> {
        self.store.alerts.get(&id).cloned()
    }

    fn top_up_rule(&self, wallet: &WalletCode) -> Option<TopUpRule> {
        self.store.top_up_rules.get(wallet).cloned()
    }

    fn top_up_rules_due_until(&self, until: Timestamp) -> Vec<TopUpRule> {
        due(self.store.top_up_rules.values(), |rule| rule.due_at, until)
    }

    fn open_top_up(&self, wallet: &WalletCode) -> Option<TopUp> {
        let mut of_wallet = self.store.top_ups.values().filter(|top_up| top_up.wallet == *wallet);
        of_wallet.find(|top_up| top_up.status == TopUpStatus::Open).cloned()
    }

    fn top_up(&self, id: Uuid) -> Option<TopUp> {
        self.store.top_ups.get(&id).cloned()
    }

    fn recent_top_ups(&self, wallet: &WalletCode, top_ups_max: i64) -> Vec<TopUp> {
        let counts = |status: TopUpStatus| matches!(status, TopUpStatus::Open | TopUpStatus::Succeeded);
        let of_wallet = self.store.top_ups.values().filter(|top_up| top_up.wallet == *wallet && counts(top_up.status));
        let mut recent: Vec<TopUp> = of_wallet.cloned().collect();
        recent.sort_by_key(|top_up| std::cmp::Reverse((top_up.requested_at, top_up.id)));
        recent.truncate(top_ups_max as usize);
        recent
    }

    fn repayments(&self, wallet: &WalletCode) -> Vec<Repayment> {
        let wallet = self.stored_index(wallet);
        let of_wallet = || self.store.entries.iter().filter(|entry| entry.wallet == wallet);
        let given_back = |seq: i64| -> Amount {
            let backward = of_wallet().filter(|entry| entry.movement.reverses_seq == Some(seq));
            backward.map(|entry| entry.movement.credits).sum()
        };
        let repaid = of_wallet().rev().filter(|entry| entry.movement.kind as i16 == 22);
        repaid
            .map(|entry| Repayment {
                seq: entry.seq,
                grant: entry.movement.grant.unwrap(),
                left: entry.movement.credits - given_back(entry.seq),
            })
            .filter(|repayment| repayment.left.is_positive())
            .collect()
    }
}

//! The working copy of one customer's books during one call.
//!
//! It is filled under the customer's lock (or from one snapshot, to read), changed only by [`Book::post`], and stored once at the
//! end. Invariants kept here: a wallet's totals and a grant's remaining are the sums of the entries posted, `seq` has no gap, and
//! nothing becomes negative.

mod attempt;
mod grants;
mod meters;
mod rules;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::amount::Amount;
use super::chart::Kind;
use super::contract::Contract;
use super::entry::{Entry, Line, Movement, Recorded, Referring, Repayment, Transaction};
use super::event::Event;
use super::grant::{Grant, GrantStatus, GrantTerms, Origin};
use super::hold::Hold;
use super::invoice::InvoiceLine;
use super::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};
use super::metering::Metered;
use super::names::{ContractCode, CustomerId, RecurringCode, TransactionId, WalletCode};
use super::reader::{Ids, Reader};
use super::recurring::RecurringGrant;
use super::request::Fingerprint;
use super::rows::Rows;
use super::time::Timestamp;
use super::top_up::{TopUp, TopUpRule};
use super::wallet::{Wallet, WalletStatus};
use super::watch::Alert;
use crate::error::{Error, Result};

/// A grant with what is stored of it, to know whether it has to be stored again.
#[derive(Debug)]
pub struct Copy {
    pub grant: Grant,
    /// None for a grant that this call created.
    pub stored: Option<(GrantStatus, Amount, Amount)>,
}

impl Copy {
    pub fn is_new(&self) -> bool {
        self.stored.is_none()
    }

    pub fn is_changed(&self) -> bool {
        self.stored.is_some_and(|stored| stored != (self.grant.status, self.grant.remaining, self.grant.expired))
    }

    /// Whether nothing but what is left of it may have changed.
    pub fn is_same_but_for_remaining(&self) -> bool {
        self.stored.is_some_and(|(status, _, expired)| (status, expired) == (self.grant.status, self.grant.expired))
    }
}

/// What a request led to, now or the first time.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub recorded: Recorded,
    pub replayed: bool,
}

/// A customer's wallets, the grants read so far, and what this call adds to the ledger.
pub struct Book<'a> {
    pub customer_id: CustomerId,
    /// The call's one now: everything up to it is settled.
    pub now: Timestamp,
    /// In the order of spending.
    pub wallets: Vec<Wallet>,
    pub transactions: Vec<Transaction>,
    pub entries: Vec<Entry>,
    /// Every grant read or created, by id.
    pub grants: BTreeMap<Uuid, Copy>,
    pub recurring: Rows<RecurringCode, RecurringGrant>,
    pub contracts: Rows<ContractCode, Contract>,
    pub holds: Rows<TransactionId, Hold>,
    /// The invoice lines that this call makes.
    pub lines: Vec<InvoiceLine>,
    pub alerts: Rows<Uuid, Alert>,
    pub top_up_rules: Rows<WalletCode, TopUpRule>,
    pub top_ups: Rows<Uuid, TopUp>,
    /// What the world outside is told of, but for grants given and expired, which the entries tell.
    pub events: Vec<Event>,
    pub meter_periods: Rows<PeriodKey, MeterPeriod>,
    pub meter_values: Rows<ValueKey, MeterValue>,
    shelves: Vec<grants::Shelf>,
    /// The active grants read so far that a rule gave, in the order of creation.
    active_by_origin: BTreeMap<Origin, BTreeSet<(usize, i64, Uuid)>>,
    /// What each hold set aside, as far as it was asked for.
    held_lines: BTreeMap<TransactionId, Vec<Line>>,
    are_all_holds_read: bool,
    /// The transactions of this call by id, and its entries by the transaction that they refer to.
    transactions_by_id: HashMap<TransactionId, usize>,
    entries_referring: HashMap<TransactionId, Vec<usize>>,
    journal: attempt::Journal,
    watching: watch::Watching,
    reader: &'a dyn Reader,
    ids: &'a dyn Ids,
}

impl<'a> Book<'a> {
    pub fn new(
        customer_id: CustomerId,
        now: Timestamp,
        mut wallets: Vec<Wallet>,
        reader: &'a dyn Reader,
        ids: &'a dyn Ids,
    ) -> Self {
        wallets.sort_by(|a, b| (a.settings.priority, &a.code).cmp(&(b.settings.priority, &b.code)));
        Self {
            customer_id,
            now,
            shelves: wallets.iter().map(|_| grants::Shelf::default()).collect(),
            watching: watch::Watching::of(wallets.iter().map(Wallet::level).collect()),
            wallets,
            transactions: Vec::new(),
            entries: Vec::new(),
            grants: BTreeMap::new(),
            recurring: Rows::default(),
            contracts: Rows::default(),
            holds: Rows::default(),
            lines: Vec::new(),
            alerts: Rows::default(),
            top_up_rules: Rows::default(),
            top_ups: Rows::default(),
            events: Vec::new(),
            meter_periods: Rows::default(),
            meter_values: Rows::default(),
            active_by_origin: BTreeMap::new(),
            held_lines: BTreeMap::new(),
            are_all_holds_read: false,
            transactions_by_id: HashMap::new(),
            entries_referring: HashMap::new(),
            journal: attempt::Journal::default(),
            reader,
            ids,
        }
    }

    pub fn wallet_index(&self, code: &WalletCode) -> Option<usize> {
        self.wallets.iter().position(|wallet| wallet.code == *code)
    }

    /// Opens a transaction under the caller's key, or under a new id. It has no entry yet, and without one leaves no trace.
    pub fn begin(&mut self, key: Option<&TransactionId>, fingerprint: Fingerprint, at: Timestamp) -> usize {
        let id = key.cloned().unwrap_or_else(|| TransactionId::stored(self.ids.uuid(at).to_string().into()));
        self.transactions_by_id.insert(id.clone(), self.transactions.len());
        self.transactions.push(Transaction {
            id,
            fingerprint,
            requested: None,
            event_name: None,
            usage_at: None,
            metadata: None,
            properties: None,
            metered: None,
            refers_to: None,
            lines: 0,
            first_entry: self.entries.len(),
        });
        self.transactions.len() - 1
    }

    /// Appends an entry and applies its effects: the only way anything in the book changes by an amount.
    pub fn post(&mut self, transaction: usize, wallet_index: usize, movement: Movement) -> Result<()> {
        let kind = movement.kind;
        let effect = kind.effect();
        let credits = movement.credits;
        assert!(!credits.is_negative(), "an entry of {credits} credits");
        let wallet = &mut self.wallets[wallet_index];
        let owed = |wallet: &Wallet| if effect.debt != 0 { wallet.debt } else { wallet.overage };
        let owed_before = owed(wallet);
        for (total, sign, what) in [
            (&mut wallet.balance, effect.balance, "balance"),
            (&mut wallet.held, effect.held, "held"),
            (&mut wallet.scheduled, effect.scheduled, "scheduled"),
            (&mut wallet.debt, effect.debt, "debt"),
            (&mut wallet.overage, effect.overage, "overage"),
        ] {
            if sign != 0 {
                *total += credits.signed(sign);
                // What was invoiced may be refunded.
                assert!(!total.is_negative() || what == "overage", "the total {what} would become {total}");
                total.in_range(&format!("the total {what} of wallet \"{}\"", wallet.code))?;
            }
        }
        wallet.fits_more(Amount::ZERO)?;
        wallet.has_open_overage |= effect.overage != 0;
        wallet.last_seq += 1;
        let (seq, balance_after) = (wallet.last_seq, wallet.balance);
        if let Some(id) = movement.grant.filter(|_| effect.is_on_grant()) {
            let grant = &mut self.copy_mut(id).grant;
            grant.remaining = moved(grant.remaining, effect.remaining(), credits);
            grant.expired = moved(grant.expired, effect.expired, credits);
            assert!(grant.remaining <= grant.amount, "grant {id} has more than it was given");
            match grant.status {
                GrantStatus::Active if grant.remaining.is_zero() => self.set_status(id, GrantStatus::Exhausted),
                GrantStatus::Exhausted if grant.remaining.is_positive() => self.set_status(id, GrantStatus::Active),
                _ => {}
            }
        }
        let opened = &mut self.transactions[transaction];
        opened.lines += 1;
        if let Some(id) = movement.refers_to.as_ref().or(opened.refers_to.as_ref()) {
            self.entries_referring.entry(id.clone()).or_default().push(self.entries.len());
        }
        self.entries.push(Entry { wallet: wallet_index, seq, transaction, line: opened.lines, movement, balance_after });
        if kind.is_overage() && !owed_before.is_positive() && owed(&self.wallets[wallet_index]).is_positive() {
            self.tell_of_overage(wallet_index, transaction, credits);
        }
        self.note_credit(transaction, wallet_index, kind);
        Ok(())
    }

    /// Creates a grant with its first entry: of `kind`, `amount` credits, at an instant. One of kind `GrantScheduled` is scheduled,
    /// every other active.
    pub fn add_grant(
        &mut self,
        transaction: usize,
        wallet: usize,
        kind: Kind,
        amount: Amount,
        terms: GrantTerms,
        at: Timestamp,
    ) -> Result<Uuid> {
        let id = self.new_id(at);
        let grant = Grant {
            id,
            wallet,
            created_seq: self.wallets[wallet].last_seq + 1,
            // Its entry fills it, and makes an exhausted grant active.
            status: if kind == Kind::GrantScheduled { GrantStatus::Scheduled } else { GrantStatus::Exhausted },
            amount,
            remaining: Amount::ZERO,
            expired: Amount::ZERO,
            terms,
        };
        self.grants.insert(id, Copy { grant, stored: None });
        self.post(transaction, wallet, Movement::new(kind, amount, Some(id), at))?;
        Ok(id)
    }

    pub fn new_id(&self, at: Timestamp) -> Uuid {
        self.ids.uuid(at)
    }

    /// Gives credits back to the grant they came from. What belongs to a grant that has ended ends with it at once, and both
    /// movements stand in the ledger. A grant has ended too if it expired at or before `ended_until` without anything left to expire.
    pub fn return_credits(&mut self, transaction: usize, wallet: usize, back: Movement, ended_until: Timestamp) -> Result<()> {
        let (Some(id), credits, at) = (back.grant, back.credits, back.occurred_at) else {
            return Ok(());
        };
        let (status, expires_at) = match self.find_grant(id) {
            Some(grant) => (grant.status, grant.terms.expires_at),
            None => panic!("grant {id} of an entry is missing"),
        };
        self.post(transaction, wallet, back)?;
        let end = if status == GrantStatus::Expired || (status != GrantStatus::Voided && expires_at <= ended_until) {
            (Kind::Expiration, GrantStatus::Expired)
        } else if status == GrantStatus::Voided || self.wallets[wallet].status == WalletStatus::Closed {
            (Kind::Void, GrantStatus::Voided)
        } else {
            return Ok(());
        };
        self.end_grant(transaction, id, end, credits, at)
    }

    /// Takes what is left of a grant that ends out of the wallet.
    pub fn end_grant(
        &mut self,
        transaction: usize,
        id: Uuid,
        (kind, ended): (Kind, GrantStatus),
        credits: Amount,
        at: Timestamp,
    ) -> Result<()> {
        let wallet = self.grant(id).wallet;
        if credits.is_positive() {
            self.post(transaction, wallet, Movement::new(kind, credits, Some(id), at))?;
        }
        self.set_status(id, ended);
        Ok(())
    }

    /// Changes what a grant is, and with it whether it can be spent.
    pub fn set_status(&mut self, id: Uuid, status: GrantStatus) {
        let grant = &mut self.copy_mut(id).grant;
        grant.status = status;
        let (wallet, order, origin) = (grant.wallet, grant.spending_order(), grant.terms.origin.clone());
        let live = &mut self.shelves[wallet].live;
        let is_active = status == GrantStatus::Active;
        if is_active {
            live.insert(order, id);
        } else {
            live.remove(&order);
        }
        if let Some(origin) = origin {
            let key = (wallet, order.created_seq, id);
            let active = self.active_by_origin.entry(origin).or_default();
            let _ = if is_active { active.insert(key) } else { active.remove(&key) };
        }
    }

    /// The next instant after `now` at which settling has something to do, over what is stored and what is changed.
    pub fn next_due_at(&self) -> Timestamp {
        self.earliest_due().min(self.reader.next_due_after(self.now))
    }

    /// The earliest due instant of what is in the book.
    pub fn earliest_due(&self) -> Timestamp {
        let grants = self.grants.values().map(|copy| copy.grant.due_at());
        let recurring = self.recurring.values().map(RecurringGrant::due_at);
        let contracts = self.contracts.values().map(Contract::due_at);
        let holds = self.holds.values().map(Hold::due_at);
        let top_ups = self.top_up_rules.values().map(|rule| rule.due_at);
        grants.chain(recurring).chain(contracts).chain(holds).chain(top_ups).min().unwrap_or(Timestamp::NEVER)
    }

    /// Executes a request once: under a key that is recorded already, the record answers and nothing happens (SPEC 4, idempotency).
    ///
    /// The answer is always read from the record, so that a replay cannot differ from the first result.
    pub fn once(
        &mut self,
        key: Option<&TransactionId>,
        fingerprint: Fingerprint,
        execute: impl FnOnce(&mut Self, usize) -> Result<()>,
    ) -> Result<Answer> {
        let presumed_new = key.filter(|key| self.made_now(key).is_none() && self.reader.presumes_new(key));
        if presumed_new.is_none()
            && let Some(recorded) = key.and_then(|key| self.recorded(key))
        {
            return self.replay(recorded, fingerprint);
        }
        let transaction = self.begin(key, fingerprint, self.now);
        let executed = match presumed_new {
            None => execute(self, transaction),
            Some(_) => self.attempt(|book| execute(book, transaction)),
        };
        // What leaves no entry is not refused by the ledger: the key may be used all the same, and then the record answers.
        if (executed.is_err() || self.transactions[transaction].lines == 0)
            && let Some(recorded) = presumed_new.and_then(|key| self.reader.transaction(key))
        {
            self.forget_shortages();
            return self.replay(recorded, fingerprint);
        }
        executed?;
        self.close(transaction)?;
        Ok(Answer { recorded: self.record(transaction), replayed: false })
    }

    fn replay(&self, recorded: Recorded, fingerprint: Fingerprint) -> Result<Answer> {
        if recorded.fingerprint != fingerprint {
            return Err(self.key_reused(&recorded));
        }
        Ok(Answer { recorded, replayed: true })
    }

    fn key_reused(&self, recorded: &Recorded) -> Error {
        let kind = recorded.lines.first().map_or("nothing", |line| line.kind.name());
        let credits = recorded.sum(|other| other.name() == kind);
        let first = format!("{kind} of {credits} credits");
        Error::IdempotencyKeyReused { customer_id: self.customer_id.to_string(), key: recorded.id.to_string(), first }
    }

    /// A transaction of this call as it will stand in the ledger.
    pub fn record(&self, transaction: usize) -> Recorded {
        let opened = &self.transactions[transaction];
        let lines = self.entries[opened.first_entry..].iter().filter(|entry| entry.transaction == transaction);
        Recorded {
            id: opened.id.clone(),
            fingerprint: opened.fingerprint,
            requested: opened.requested,
            event_name: opened.event_name.clone(),
            metered: opened.metered.clone(),
            lines: lines.take(opened.lines as usize).map(|entry| Line::of(entry.wallet, entry.seq, &entry.movement)).collect(),
        }
    }

    /// The transaction recorded under this id, by this call or before.
    pub fn recorded(&self, id: &TransactionId) -> Option<Recorded> {
        match self.made_now(id) {
            Some(transaction) => Some(self.record(transaction)),
            None => self.reader.transaction(id),
        }
    }

    fn made_now(&self, id: &TransactionId) -> Option<usize> {
        self.transactions_by_id.get(id).copied().filter(|transaction| self.transactions[*transaction].lines > 0)
    }

    /// The entries that refer to a transaction, of this call and before.
    pub fn referring(&self, id: &TransactionId) -> Vec<Referring> {
        let mut referring = self.reader.referring(id);
        let made_now = self.entries_referring.get(id).into_iter().flatten().map(|index| &self.entries[*index]);
        referring.extend(made_now.map(|entry| Referring {
            kind: entry.movement.kind,
            credits: entry.movement.credits,
            takes_out: matches!(self.transactions[entry.transaction].metered.as_deref(), Some(Metered::TakenOut(_))),
        }));
        referring
    }

    /// What was given back of usage.
    pub fn refunded(&self, usage: &TransactionId) -> Amount {
        self.referring(usage).iter().filter(|entry| entry.kind.is_refund()).map(|entry| entry.credits).sum()
    }

    /// Every repayment of a wallet's debt that can be given back, the last first.
    pub fn repayments(&self, wallet: usize) -> Vec<Repayment> {
        let in_this_call = || self.entries.iter().rev().filter(|entry| entry.wallet == wallet);
        let mut repayments: Vec<Repayment> = in_this_call()
            .filter(|entry| entry.movement.kind == Kind::OverdraftRepaid)
            .filter_map(|entry| {
                let grant = entry.movement.grant?;
                let (seq, left) = (entry.seq, entry.movement.credits);
                Some(Repayment { seq, grant, left })
            })
            .collect();
        repayments.extend(self.reader.repayments(&self.wallets[wallet].code));
        for entry in in_this_call() {
            let reversed = entry.movement.reverses_seq;
            if let Some(repayment) = repayments.iter_mut().find(|repayment| reversed == Some(repayment.seq)) {
                repayment.left -= entry.movement.credits;
            }
        }
        repayments
    }

    /// Ends a transaction: debts are repaid by the spendable credits it brought, in the order of spending (SPEC 6, debt).
    pub fn close(&mut self, transaction: usize) -> Result<()> {
        for wallet in 0..self.wallets.len() {
            self.repay_debt(transaction, wallet, self.now)?;
        }
        Ok(())
    }

    /// Repays the debt of a wallet from its live grants that pay for any usage.
    pub fn repay_debt(&mut self, transaction: usize, wallet: usize, at: Timestamp) -> Result<()> {
        let mut place = None;
        while self.wallets[wallet].debt.is_positive() {
            let Some(id) = self.next_live(wallet, place) else {
                break;
            };
            let grant = self.grant(id);
            place = Some(grant.spending_order());
            if grant.terms.applies_to.is_none() {
                let credits = grant.remaining.min(self.wallets[wallet].debt);
                self.post(transaction, wallet, Movement::new(Kind::OverdraftRepaid, credits, Some(id), at))?;
            }
        }
        Ok(())
    }

    /// What can be spent now in these wallets: all their live credits.
    pub fn spendable(&self, wallets: &[usize]) -> Amount {
        wallets.iter().map(|wallet| self.wallets[*wallet].balance).sum()
    }
}

fn moved(total: Amount, sign: i8, credits: Amount) -> Amount {
    let total = total + credits.signed(sign);
    assert!(!total.is_negative(), "a total would become {total}");
    total
}

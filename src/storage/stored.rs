//! The stored rows of one customer, as a book reads them.

use std::cell::{RefCell, RefMut};

use uuid::Uuid;

use super::ahead::Ahead;
use super::due::Due;
use super::grants::{self, Grants};
use super::meter_periods::{Places, StoredPeriod};
use super::statement::Access;
use super::{alerts, contracts, holds, invoice_lines, ledger, meter_periods, recurring, top_ups, wallets};
use crate::domain::amount::Amount;
use crate::domain::contract::Contract;
use crate::domain::entry::{Recorded, Referring, Repayment};
use crate::domain::grant::{Grant, SpendingOrder};
use crate::domain::hold::Hold;
use crate::domain::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};
use crate::domain::names::{ContractCode, CustomerId, RecurringCode, TransactionId, WalletCode};
use crate::domain::overage::OpenOverage;
use crate::domain::reader::Reader;
use crate::domain::recurring::RecurringGrant;
use crate::domain::time::Timestamp;
use crate::domain::top_up::{TopUp, TopUpRule};
use crate::domain::watch::Alert;

/// The stored rows of one customer.
pub struct Stored<'a> {
    pub grants: Grants<'a>,
    /// What was read in advance, to settle: each kind is taken from here once.
    pub due: Option<RefCell<Due>>,
    /// What was read in advance for the call itself.
    pub ahead: Option<Ahead>,
    /// Of the periods of meters that were read.
    pub places: Places,
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

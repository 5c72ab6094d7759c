//! What a book needs from outside: the stored rows of its customer, and ids.

use uuid::Uuid;

use super::amount::Amount;
use super::contract::Contract;
use super::entry::{Recorded, Referring, Repayment};
use super::grant::{Grant, SpendingOrder};
use super::hold::Hold;
use super::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};
use super::names::{ContractCode, RecurringCode, TransactionId, WalletCode};
use super::overage::OpenOverage;
use super::recurring::RecurringGrant;
use super::time::Timestamp;
use super::top_up::{TopUp, TopUpRule};
use super::watch::Alert;

/// What is stored of the customer, read as this call needs it.
pub trait Reader {
    /// Up to `grants_max` stored active grants of a wallet after a place in the order of spending, in that order.
    fn live_after(&self, wallet: &WalletCode, after: Option<SpendingOrder>, grants_max: usize) -> Vec<Grant>;
    /// All stored grants of the customer that fall due up to and including an instant.
    fn due_until(&self, until: Timestamp) -> Vec<Grant>;
    /// The next instant after one at which something stored of the customer falls due.
    fn next_due_after(&self, after: Timestamp) -> Timestamp;
    /// Up to `grants_max` stored grants of the customer that fall due after an instant, in the order of those instants.
    fn due_after(&self, after: Timestamp, skip: usize, grants_max: usize) -> Vec<Grant>;
    /// Stored grants of a wallet with expired credits that were live at an instant.
    fn expired_since(&self, wallet: &WalletCode, live_at: Timestamp) -> Vec<Grant>;
    fn by_id(&self, id: Uuid) -> Option<Grant>;
    /// The transaction recorded under an id, which may be an idempotency key.
    fn transaction(&self, id: &TransactionId) -> Option<Recorded>;
    /// Whether an id is presumed to be new, and the ledger refuses what is recorded under it again: then nobody has to look before.
    fn presumes_new(&self, _id: &TransactionId) -> bool {
        false
    }
    /// The stored entries of transactions that refer to one: its refunds, or the ends of a hold.
    fn referring(&self, id: &TransactionId) -> Vec<Referring>;
    /// The stored repayments of a wallet's debt that were not given back in full, the last first.
    fn repayments(&self, wallet: &WalletCode) -> Vec<Repayment>;
    /// The stored recurring grants, contracts and open holds of the customer that fall due up to and including an instant;
    /// [`Timestamp::NEVER`] is all that ever will.
    fn recurring_due_until(&self, until: Timestamp) -> Vec<RecurringGrant>;
    fn contracts_due_until(&self, until: Timestamp) -> Vec<Contract>;
    fn holds_due_until(&self, until: Timestamp) -> Vec<Hold>;
    fn recurring_grant(&self, code: &RecurringCode) -> Option<RecurringGrant>;
    /// All recurring grants of a wallet, those that have ended too.
    fn recurring_of(&self, wallet: &WalletCode) -> Vec<RecurringGrant>;
    fn contract(&self, code: &ContractCode) -> Option<Contract>;
    /// All contracts of a wallet, those that have ended too.
    fn contracts_of(&self, wallet: &WalletCode) -> Vec<Contract>;
    fn hold(&self, id: &TransactionId) -> Option<Hold>;
    /// The stored active grants into which a recurring grant was rolled over.
    fn rolled_over(&self, code: &RecurringCode) -> Vec<Grant>;
    /// The stored active and exhausted grants of a contract's instalments.
    fn instalments(&self, code: &ContractCode) -> Vec<Grant>;
    /// Overage to be invoiced that a wallet was charged since an instant, less what was refunded of it.
    fn overage_since(&self, wallet: &WalletCode, from: Timestamp) -> Amount;
    /// Overage of a wallet that is not on an invoice line: entries after a number, by price, and whether they are older than an instant.
    fn open_overage(&self, wallet: &WalletCode, after_seq: i64, before: Timestamp) -> Vec<OpenOverage>;
    /// The alerts of a wallet that are in use.
    fn alerts_of(&self, wallet: &WalletCode) -> Vec<Alert>;
    fn alert(&self, id: Uuid) -> Option<Alert>;
    fn top_up_rule(&self, wallet: &WalletCode) -> Option<TopUpRule>;
    /// The stored auto top-ups of the customer that are held back until an instant at most.
    fn top_up_rules_due_until(&self, until: Timestamp) -> Vec<TopUpRule>;
    fn open_top_up(&self, wallet: &WalletCode) -> Option<TopUp>;
    fn top_up(&self, id: Uuid) -> Option<TopUp>;
    /// Up to `top_ups_max` open and succeeded top-ups of a wallet, the last first.
    fn recent_top_ups(&self, wallet: &WalletCode, top_ups_max: i64) -> Vec<TopUp>;
    fn meter_period(&self, key: &PeriodKey) -> Option<MeterPeriod>;
    fn meter_value(&self, key: &ValueKey) -> Option<MeterValue>;
    /// The last value of a period, in the order of its keys, that an event counts; without one of them.
    fn last_value(&self, period: &PeriodKey, without: &ValueKey) -> Option<MeterValue>;
}

/// Makes ids that are unique without coordination, ordered by time (UUIDv7).
pub trait Ids {
    fn uuid(&self, at: Timestamp) -> Uuid;
}

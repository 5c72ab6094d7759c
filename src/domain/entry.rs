//! Entries and transactions of the ledger: as this call writes them, and as they were recorded.

use std::rc::Rc;

use uuid::Uuid;

use super::amount::Amount;
use super::chart::Kind;
use super::metering::Metered;
use super::names::{EventName, TransactionId};
use super::request::Fingerprint;
use super::time::Timestamp;

/// What the entries of one transaction have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    pub id: TransactionId,
    pub fingerprint: Fingerprint,
    /// Kept only where the entries do not add up to it.
    pub requested: Option<Amount>,
    pub event_name: Option<EventName>,
    /// The caller's time of late usage.
    pub usage_at: Option<Timestamp>,
    /// JSON text.
    pub metadata: Option<String>,
    /// Of a metered event. JSON text.
    pub properties: Option<String>,
    /// What meters counted, or do not count any more.
    pub metered: Option<Rc<Metered>>,
    /// The transaction this one refunds.
    pub refers_to: Option<TransactionId>,
    pub lines: i32,
    /// Index of its first entry among the book's, if it has one.
    pub first_entry: usize,
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub wallet: usize,
    pub seq: i64,
    /// Index into the book's transactions.
    pub transaction: usize,
    pub line: i32,
    pub movement: Movement,
    pub balance_after: Amount,
}

/// Credits from one account to another; which two, `kind` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Movement {
    pub kind: Kind,
    pub credits: Amount,
    pub grant: Option<Uuid>,
    pub occurred_at: Timestamp,
    /// Price and currency of overage, as in force when it was charged.
    pub price: Option<(Amount, String)>,
    /// The entry of the same wallet that this one takes back.
    pub reverses_seq: Option<i64>,
    /// The transaction this one gives something back of, if that is not the one that its own transaction refers to.
    pub refers_to: Option<TransactionId>,
}

impl Movement {
    pub fn new(kind: Kind, credits: Amount, grant: Option<Uuid>, occurred_at: Timestamp) -> Self {
        Self { kind, credits, grant, occurred_at, price: None, reverses_seq: None, refers_to: None }
    }

    pub fn reversing(self, seq: i64) -> Self {
        Self { reverses_seq: Some(seq), ..self }
    }

    pub fn giving_back(self, usage: &TransactionId) -> Self {
        Self { refers_to: Some(usage.clone()), ..self }
    }
}

/// A transaction as it stands in the ledger: enough to repeat its answer, or to refund it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub id: TransactionId,
    pub fingerprint: Fingerprint,
    pub requested: Option<Amount>,
    pub event_name: Option<EventName>,
    /// Of a metered event, or of the refund that took one out.
    pub metered: Option<Rc<Metered>>,
    pub lines: Vec<Line>,
}

/// One entry of a recorded transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub wallet: usize,
    pub seq: i64,
    pub kind: Kind,
    pub credits: Amount,
    pub grant: Option<Uuid>,
    pub price: Option<(Amount, String)>,
}

impl Line {
    pub fn of(wallet: usize, seq: i64, movement: &Movement) -> Self {
        let Movement { kind, credits, grant, price, .. } = movement.clone();
        Self { wallet, seq, kind, credits, grant, price }
    }
}

impl Recorded {
    pub fn sum(&self, counts: impl Fn(Kind) -> bool) -> Amount {
        self.lines.iter().filter(|line| counts(line.kind)).map(|line| line.credits).sum()
    }

    /// The grant of the first line of one of these kinds.
    pub fn grant(&self, counts: impl Fn(Kind) -> bool) -> Option<Uuid> {
        self.lines.iter().find(|line| counts(line.kind)).and_then(|line| line.grant)
    }
}

/// An entry of a transaction that refers to another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Referring {
    pub kind: Kind,
    pub credits: Amount,
    /// Whether its transaction took a metered event out of what meters count.
    pub takes_out: bool,
}

/// Credits of a grant that repaid debt, as far as no refund gave them back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repayment {
    pub seq: i64,
    pub grant: Uuid,
    pub left: Amount,
}

//! A grant: one block of credits, and its place in the order of spending (SPEC 3 and 4).

use uuid::Uuid;

use super::amount::Amount;
use super::names::{ContractCode, EventName, RecurringCode};
use super::time::Timestamp;
use super::wallet::codes;

codes! {
    /// Why the credits were given. The order is the order of spending on a tie.
    GrantType {
        Promotional = "promotional",
        Committed = "committed",
        Prepaid = "prepaid",
    }
}

codes! {
    /// As last settled. `Active` has something remaining and can be spent; `Exhausted` had, and a refund revives it; the last two
    /// are the end, and whatever comes back to the grant ends with it.
    GrantStatus {
        Scheduled = "scheduled",
        Active = "active",
        Exhausted = "exhausted",
        Expired = "expired",
        Voided = "voided",
    }
}

/// The rule by which a grant was given. It stays with the credits when they are moved to another grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// One period of a recurring grant.
    Period(RecurringCode),
    /// What was left of a period.
    PeriodRollover(RecurringCode),
    /// One instalment of a contract.
    Instalment(ContractCode),
    /// What was left of a contract.
    ContractRollover(ContractCode),
}

/// What a grant is, apart from how much of it is left.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantTerms {
    pub grant_type: GrantType,
    /// Lower is spent first.
    pub priority: i32,
    pub effective_at: Timestamp,
    /// Live before this instant; [`Timestamp::NEVER`] for no expiry.
    pub expires_at: Timestamp,
    /// Price of one credit, in `currency`.
    pub unit_price: Option<Amount>,
    pub currency: Option<String>,
    /// The events whose usage it pays; none is any usage.
    pub applies_to: Option<Vec<String>>,
    /// None: given by hand.
    pub origin: Option<Origin>,
    /// JSON text.
    pub metadata: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    pub id: Uuid,
    /// Index of its wallet in the customer's book.
    pub wallet: usize,
    /// The number of the wallet's entry that created it: the order of creation.
    pub created_seq: i64,
    pub status: GrantStatus,
    pub amount: Amount,
    /// In the wallet, or scheduled to come.
    pub remaining: Amount,
    /// Net amount that expired.
    pub expired: Amount,
    pub terms: GrantTerms,
}

/// The place of a grant within its wallet; a total order, since `created_seq` is unique in a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpendingOrder {
    pub priority: i32,
    pub expires_at: Timestamp,
    /// Grants limited to some events come before the others.
    pub unlimited: bool,
    pub grant_type: GrantType,
    pub effective_at: Timestamp,
    pub created_seq: i64,
}

impl Grant {
    pub fn spending_order(&self) -> SpendingOrder {
        SpendingOrder {
            priority: self.terms.priority,
            expires_at: self.terms.expires_at,
            unlimited: self.terms.applies_to.is_none(),
            grant_type: self.terms.grant_type,
            effective_at: self.terms.effective_at,
            created_seq: self.created_seq,
        }
    }

    /// Whether it may pay usage of this event. Usage without an event name is paid by unlimited grants only.
    pub fn applies_to(&self, event_name: Option<&EventName>) -> bool {
        match &self.terms.applies_to {
            None => true,
            Some(names) => event_name.is_some_and(|event| names.iter().any(|name| name == event.as_str())),
        }
    }

    /// Live on `[effective_at, expires_at)`.
    pub fn is_live_at(&self, at: Timestamp) -> bool {
        self.terms.effective_at <= at && at < self.terms.expires_at
    }

    /// The next instant at which settling has something to do with this grant.
    pub fn due_at(&self) -> Timestamp {
        match self.status {
            GrantStatus::Scheduled => self.terms.effective_at,
            GrantStatus::Active => self.terms.expires_at,
            GrantStatus::Exhausted | GrantStatus::Expired | GrantStatus::Voided => Timestamp::NEVER,
        }
    }
}

//! First expiring, first out: which grants pay a deduction, and how much each (SPEC 4, the order of spending).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::amount::Amount;
use super::book::Book;
use super::chart::Kind;
use super::entry::Movement;
use super::grant::{Grant, Origin, SpendingOrder};
use super::names::EventName;
use super::time::Timestamp;
use crate::error::Result;

/// Credits from one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    pub wallet: usize,
    pub grant: Uuid,
    pub credits: Amount,
    /// The grant had expired and pays late usage under its wallet's grace: its expiry is reversed for this part.
    pub reverses_expiry: bool,
}

/// What the credits are for.
#[derive(Debug, Clone, Copy)]
pub enum Usage<'a> {
    /// Usage, of an event or of none: grants limited to other events do not pay it.
    Event(Option<&'a EventName>),
    /// No usage at all, such as a transfer: every grant serves.
    Any,
}

impl Usage<'_> {
    fn is_paid_by(self, grant: &Grant) -> bool {
        match self {
            Self::Event(event_name) => grant.applies_to(event_name),
            Self::Any => true,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub takes: Vec<Take>,
    /// What the grants do not cover.
    pub shortfall: Amount,
}

impl Plan {
    pub fn covered(&self) -> Amount {
        self.takes.iter().map(|take| take.credits).sum()
    }
}

/// Plans to take `amount` from the wallets, one after the other, each in its order of spending.
///
/// `usage_at` is the time of late usage: grants that were live then and expired less than the wallet's grace ago pay too, in
/// their place. A grant that does not apply to the event is passed over.
pub fn plan(book: &mut Book<'_>, wallets: &[usize], amount: Amount, usage: Usage<'_>, usage_at: Option<Timestamp>) -> Plan {
    let mut takes = Vec::new();
    let mut open = amount;
    for &wallet in wallets {
        let mut expired = usage_at.map(|at| under_grace(book, wallet, at)).unwrap_or_default().into_iter().peekable();
        let mut place = None;
        while open.is_positive() {
            let live = book.next_live(wallet, place);
            let live_order = live.map(|id| book.grant(id).spending_order());
            let reversed = expired.next_if(|(order, _)| live_order.is_none_or(|live| *order < live));
            let Some(id) = reversed.map(|(_, id)| id).or(live) else {
                break;
            };
            let grant = book.grant(id);
            let available = match reversed {
                Some(_) => grant.expired,
                None => {
                    place = live_order;
                    grant.remaining
                }
            };
            if usage.is_paid_by(grant) {
                let credits = available.min(open);
                open -= credits;
                takes.push(Take { wallet, grant: id, credits, reverses_expiry: reversed.is_some() });
            }
        }
    }
    Plan { takes, shortfall: open }
}

/// Takes planned credits from a grant, as usage or for another purpose.
pub fn post_take(book: &mut Book<'_>, transaction: usize, take: &Take, kind: Kind) -> Result<()> {
    let now = book.now;
    if take.reverses_expiry {
        book.post(transaction, take.wallet, Movement::new(Kind::ExpirationReversed, take.credits, Some(take.grant), now))?;
    }
    book.post(transaction, take.wallet, Movement::new(kind, take.credits, Some(take.grant), now))
}

/// Grants of a wallet that still pay usage of `usage_at` though they have expired since. Those that a cancelled contract took with it
/// did not expire, they ended before their time: nothing of them is late.
fn under_grace(book: &mut Book<'_>, wallet: usize, usage_at: Timestamp) -> BTreeMap<SpendingOrder, Uuid> {
    let grace = book.wallets[wallet].settings.late_usage_grace;
    if grace.is_zero() || usage_at >= book.now {
        return BTreeMap::new();
    }
    let now = book.now;
    let mut grants = book.expired_since(wallet, usage_at);
    grants.retain(|order, _| order.expires_at.plus(grace, "late_usage_grace").is_ok_and(|end| now < end));
    grants.retain(|order, id| match book.grant(*id).terms.origin.clone() {
        Some(Origin::Instalment(code)) => {
            let contract = book.find_contract(&code);
            !contract.is_some_and(|contract| contract.ends_early() && contract.end() < order.expires_at)
        }
        _ => true,
    });
    grants
}

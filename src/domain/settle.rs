//! Settling: whatever fell due is written at the instant it was due, in order (SPEC 6).
//!
//! The one mechanism behind both doors, the lazy one before every operation and the scheduled one. Each instant of a wallet is
//! one transaction, so that the ledger reads the same whether a year was settled day by day or at once.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::book::Book;
use super::chart::Kind;
use super::entry::Movement;
use super::grant::{Grant, GrantStatus};
use super::request::{Fingerprint, Operation};
use super::time::Timestamp;
use crate::error::Result;

/// What falls due at one instant happens in this order; debt is repaid last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Expire,
    Activate,
}

type Due = (Timestamp, Phase, usize, i64, Uuid);

fn due(grant: &Grant) -> Due {
    let phase = match grant.status {
        GrantStatus::Scheduled => Phase::Activate,
        _ => Phase::Expire,
    };
    (grant.due_at(), phase, grant.wallet, grant.created_seq, grant.id)
}

/// Applies everything due up to the book's now. Afterwards every grant in it is as the clock says.
pub fn settle(book: &mut Book<'_>) -> Result<()> {
    let until = book.now;
    let mut queue: BTreeSet<Due> = book.read_due(until).into_iter().map(|id| due(book.grant(id))).collect();
    let mut instant = None;
    let mut transactions = BTreeMap::new();
    while let Some(next) = queue.pop_first() {
        let (at, phase, wallet, _, id) = next;
        if instant != Some(at) {
            end_instant(book, instant, &mut transactions)?;
            instant = Some(at);
        }
        // The debt of an earlier instant may have used a grant up since it was queued: nothing of it is left to expire.
        if due(book.grant(id)) != next {
            continue;
        }
        let transaction =
            *transactions.entry(wallet).or_insert_with(|| book.begin(None, Fingerprint::of(Operation::Settle, &[]), at));
        let credits = book.grant(id).remaining;
        match phase {
            Phase::Expire => {
                book.post(transaction, wallet, Movement::new(Kind::Expiration, credits, Some(id), at))?;
                book.set_status(id, GrantStatus::Expired);
            }
            Phase::Activate => {
                book.post(transaction, wallet, Movement::new(Kind::GrantActivated, credits, Some(id), at))?;
                book.set_status(id, GrantStatus::Active);
                let next = due(book.grant(id));
                if next.0 <= until {
                    queue.insert(next);
                }
            }
        }
    }
    end_instant(book, instant, &mut transactions)
}

fn end_instant(book: &mut Book<'_>, instant: Option<Timestamp>, transactions: &mut BTreeMap<usize, usize>) -> Result<()> {
    if let Some(at) = instant {
        for (wallet, transaction) in std::mem::take(transactions) {
            book.repay_debt(transaction, wallet, at)?;
        }
    }
    Ok(())
}

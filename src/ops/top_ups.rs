//! Auto top-ups: defining them, and the life of what they request.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{change, connected};
use crate::domain::amount::Amount;
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::time::{Interval, Timestamp};
use crate::domain::top_up::{self, TopUp, TopUpRule, TopUpStatus};
use crate::error::Result;
use crate::storage::wallets::{self, Contended};
use crate::storage::{books, clock, top_ups};

pub fn set_rule(customer_id: &CustomerId, rule: TopUpRule) -> Result<()> {
    connected(|| change(customer_id, |book| top_up::set_rule(book, rule)))
}

pub fn request(customer_id: &CustomerId, wallet: &WalletCode, amount: Option<Amount>) -> Result<Uuid> {
    connected(|| change(customer_id, |book| top_up::request_by_hand(book, wallet, amount)))
}

/// Claims up to `top_ups_max` open top-ups, what waits longest first, of customers that nobody has locked.
pub fn claim(top_ups_max: i64, lease: Interval) -> Result<Vec<(CustomerId, TopUp)>> {
    connected(|| {
        let now = clock::now()?;
        now.plus(lease, "the end of the lease")?;
        let mut claimed = Vec::new();
        let mut after = (Timestamp::BEFORE_ALL, Uuid::nil());
        // None claimed is the end: what was cancelled instead, or is locked, does not hide what comes after it.
        while claimed.is_empty() {
            let claimable = top_ups::claimable(now, top_ups_max, after);
            let Some((_, last)) = claimable.last() else {
                break;
            };
            after = *last;
            let customers: BTreeSet<&CustomerId> = claimable.iter().map(|(customer_id, _)| customer_id).collect();
            claim_of(customers, top_ups_max, lease, &mut claimed)?;
        }
        Ok(claimed)
    })
}

fn claim_of(
    customers: BTreeSet<&CustomerId>,
    top_ups_max: i64,
    lease: Interval,
    claimed: &mut Vec<(CustomerId, TopUp)>,
) -> Result<()> {
    let locked = wallets::lock_many(&customers.into_iter().collect::<Vec<_>>(), Contended::Skip)?;
    books::each_settled(
        locked,
        &mut |_| None,
        &mut |book, is_last| {
            let left = usize::try_from(top_ups_max).unwrap_or(usize::MAX).saturating_sub(claimed.len());
            if let Ok(until) = book.now.plus(lease, "the end of the lease")
                && is_last
            {
                let customer_id = book.customer_id.clone();
                claimed.extend(top_up::claim(book, until, left).into_iter().map(|top_up| (customer_id.clone(), top_up)));
            }
        },
        &mut |customer_id, error| pgrx::warning!("top-ups of customer \"{customer_id}\" were not claimed: {error}"),
    );
    Ok(())
}

pub fn complete(customer_id: &CustomerId, id: Uuid, payment_reference: &str) -> Result<Uuid> {
    connected(|| change(customer_id, |book| top_up::complete(book, id, payment_reference)))
}

pub fn fail(customer_id: &CustomerId, id: Uuid, reason: &str, retry_after: Option<Interval>) -> Result<TopUpStatus> {
    connected(|| change(customer_id, |book| top_up::fail(book, id, reason, retry_after)))
}

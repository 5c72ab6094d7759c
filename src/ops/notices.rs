//! Telling of grants that will expire: once each, some time before.

use std::collections::HashMap;

use super::connected;
use crate::domain::amount::Amount;
use crate::domain::event::EventType;
use crate::domain::grant::GrantStatus;
use crate::error::Result;
use crate::settings;
use crate::storage::wallets::{self, Contended};
use crate::storage::{books, clock, grants, jobs, outbox};

/// Its name among the tasks of maintenance.
pub const TASK: &str = "notice_expiring";

/// What one call did.
#[derive(Debug, Default)]
pub struct Noticed {
    pub grants: i64,
    pub credits: Amount,
    pub more_due: bool,
}

/// Writes event grant.expiring for up to `grants_max` grants of customers that nobody has locked, if somebody subscribes to it.
pub fn notice_expiring(grants_max: i64) -> Result<Noticed> {
    connected(|| {
        let now = clock::now()?;
        let mut noticed = Noticed::default();
        if outbox::is_subscribed(EventType::GrantExpiring) {
            let until = now.plus(settings::expiring_notice(), "credits.expiring_notice")?;
            let expiring = grants::expiring(now, until, grants_max);
            noticed.more_due = expiring.len() as i64 == grants_max;
            let mut of_customer: HashMap<_, Vec<_>> = HashMap::new();
            for (customer_id, grant) in &expiring {
                of_customer.entry(customer_id.clone()).or_default().push(*grant);
            }
            let mut customers: Vec<_> = of_customer.keys().collect();
            customers.sort_unstable();
            let locked = wallets::lock_many(&customers, Contended::Skip)?;
            // Another session may have told of some before their customers were locked.
            let untold = grants::unnoticed(&expiring);
            let mut told = Vec::new();
            books::each_settled(
                locked,
                &mut |_| None,
                &mut |book, is_last| {
                    let customer_id = book.customer_id.clone();
                    for id in of_customer.get(&customer_id).into_iter().flatten().filter(|id| is_last && untold.contains(*id)) {
                        // It may have been spent or moved before its customer was locked.
                        let live = book.find_grant(*id).filter(|grant| grant.status == GrantStatus::Active);
                        if let Some(remaining) = live.map(|grant| grant.remaining) {
                            noticed.grants += 1;
                            noticed.credits += remaining;
                            book.tell_of_expiry_to_come(*id);
                            told.push((customer_id.clone(), *id));
                        }
                    }
                },
                &mut |customer_id, error| pgrx::warning!("grants of customer \"{customer_id}\" were not told of: {error}"),
            );
            grants::notice(&told);
        }
        jobs::record(now, &[(TASK, noticed.grants)]);
        Ok(noticed)
    })
}

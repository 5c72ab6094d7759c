//! Settling customers that nobody touches: the scheduled door to [`crate::domain::settle`].

use super::connected;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::error::Result;
use crate::storage::books::{self, Changes};
use crate::storage::statement::Access;
use crate::storage::{clock, wallets};

/// What one call settled.
#[derive(Debug, Default)]
pub struct Settled {
    pub customers: i64,
    pub more_due: bool,
    by_kind: Vec<(Kind, Done)>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    pub entries: i64,
    pub credits: Amount,
}

impl Settled {
    /// The entries of one kind that settling wrote.
    pub fn of(&self, kind: Kind) -> Done {
        self.by_kind.iter().find(|(other, _)| *other == kind).map(|(_, done)| *done).unwrap_or_default()
    }

    fn count(&mut self, kind: Kind, credits: Amount) {
        let index = self.by_kind.iter().position(|(other, _)| *other == kind).unwrap_or_else(|| {
            self.by_kind.push((kind, Done::default()));
            self.by_kind.len() - 1
        });
        let done = &mut self.by_kind[index].1;
        done.entries += 1;
        done.credits += credits;
    }
}

/// Settles up to `customers_max` customers with something due, those nobody else has locked, completely.
pub fn settle_due(customers_max: i64) -> Result<Settled> {
    connected(|| {
        let now = clock::now()?;
        let mut settled = Settled::default();
        for (customer_id, time) in wallets::lock_due(now, customers_max) {
            let done = books::with_settled(Access::Write, &customer_id, time, |book, before| {
                books::store(&Changes { book, before, time });
                settled.customers += 1;
                for entry in &book.entries {
                    settled.count(entry.movement.kind, entry.movement.credits);
                }
                Ok(())
            });
            // Nothing of this customer was written; the others must not wait for whoever looks into it.
            if let Err(error) = done {
                pgrx::warning!("customer \"{customer_id}\" was not settled: {error}");
            }
        }
        settled.more_due = wallets::any_due(now);
        Ok(settled)
    })
}

//! The inbox: events that wait to be charged. Each leaves with the transaction that charges it, or stays with its error.

use super::batch::{self, Item, Outcome};
use super::connected;
use crate::domain::amount::Amount;
use crate::domain::names::CustomerId;
use crate::error::Result;
use crate::storage::inbox::{self, Failure, Waiting};
use crate::storage::wallets::Contended;
use crate::storage::{clock, jobs};

/// What one call did.
#[derive(Debug, Default)]
pub struct Processed {
    pub charged: i64,
    pub failed: i64,
    /// Events that had been charged before.
    pub dropped: i64,
    pub credits: Amount,
    pub more_due: bool,
}

/// Its name among the tasks of maintenance.
pub const TASK: &str = "process_inbox";

/// Events read, charged and written together, which bounds memory.
const EVENTS_PER_CHUNK: i64 = 1000;

/// Charges up to `events_max` events in the order of their arrival. Those that another session has taken, or whose customer it has
/// locked, are left for the next call. `checked` says what an event asks for, or what is wrong with it.
pub fn process(events_max: i64, checked: impl Fn(&Waiting) -> Result<Item>) -> Result<Processed> {
    connected(|| {
        let mut processed = Processed::default();
        let mut locked: Vec<CustomerId> = Vec::new();
        let (mut after, mut left) = (0, events_max);
        inbox::rearm(events_max);
        while left > 0 {
            let events = inbox::take(after, left.min(EVENTS_PER_CHUNK), &locked);
            let Some(last) = events.last() else {
                break;
            };
            after = last.inbox_id;
            left -= processed.charge(&events, &checked, &mut locked)?;
        }
        processed.more_due = inbox::is_any_ready();
        jobs::record(clock::now()?, &[(TASK, processed.items())]);
        Ok(processed)
    })
}

impl Processed {
    /// Events that are dealt with.
    pub fn items(&self) -> i64 {
        self.charged + self.failed + self.dropped
    }

    /// Charges some events and returns of how many it is known what becomes of them. `locked` gets the customers of the others.
    fn charge(
        &mut self,
        events: &[Waiting],
        checked: &impl Fn(&Waiting) -> Result<Item>,
        locked: &mut Vec<CustomerId>,
    ) -> Result<i64> {
        let mut items = Vec::with_capacity(events.len());
        let mut ids = Vec::with_capacity(events.len());
        let mut failures = Vec::new();
        for event in events {
            match checked(event) {
                Ok(item) => {
                    items.push(item);
                    ids.push(event.inbox_id);
                }
                Err(error) => failures.push(Failure::of(event.inbox_id, &error, 0)),
            }
        }
        let mut done = Vec::with_capacity(items.len());
        for ((outcome, item), inbox_id) in batch::charge(&items, Contended::Skip)?.into_iter().zip(&items).zip(ids) {
            match outcome {
                Outcome::Charged(deduction) => {
                    done.push(inbox_id);
                    if deduction.replayed {
                        self.dropped += 1;
                    } else {
                        self.charged += 1;
                        self.credits += deduction.deducted + deduction.overage;
                    }
                }
                Outcome::Refused { error, credit_count } => failures.push(Failure::of(inbox_id, &error, credit_count)),
                Outcome::Locked if locked.contains(&item.customer_id) => {}
                Outcome::Locked => locked.push(item.customer_id.clone()),
            }
        }
        self.failed += failures.len() as i64;
        inbox::leave(&done);
        inbox::fail(&failures);
        Ok((done.len() + failures.len()) as i64)
    }
}

/// Makes failed events ready again, of one customer or of all; returns how many.
pub fn retry(customer_id: Option<&CustomerId>) -> i64 {
    connected(|| inbox::retry(customer_id))
}

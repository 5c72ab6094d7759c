//! Charging many items in one call: each customer is locked once, read with the others, and written once, with an entry for each item.
//!
//! A refusal is a value here, never an error raised: it leaves no entry of its item and harms no other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::{connected, no_wallet};
use crate::domain::book::Book;
use crate::domain::meter::{Meter, readings};
use crate::domain::metering::{self, RecordUsage};
use crate::domain::names::{CustomerId, EventName, TransactionId};
use crate::domain::time::Timestamp;
use crate::domain::usage::{self, DeductUsage, Deduction};
use crate::domain::watch;
use crate::error::{Error, Result};
use crate::storage::books::{self, Wanted};
use crate::storage::meters::Catalog;
use crate::storage::statement::Access;
use crate::storage::wallets::{self, Contended, Locked};

/// Usage of one customer.
#[derive(Debug, Clone)]
pub struct Item {
    pub customer_id: CustomerId,
    pub key: Option<TransactionId>,
    pub usage: Usage,
}

#[derive(Debug, Clone)]
pub enum Usage {
    Deduct(DeductUsage),
    Record(RecordUsage),
}

/// What became of an item.
#[derive(Debug)]
pub enum Outcome {
    Charged(Deduction),
    Refused {
        error: Error,
        /// How many calls had brought its customer credits when it was locked.
        credit_count: i64,
    },
    /// Its customer is locked by another session; nothing was done.
    Locked,
}

/// Charges items, waiting for customers that another session has locked.
pub fn charge_all(items: &[Item]) -> Result<Vec<Outcome>> {
    connected(|| charge(items, Contended::Wait))
}

/// Charges items, those of one customer in their order, each seeing the ones before. SPI is connected.
pub fn charge(items: &[Item], contended: Contended) -> Result<Vec<Outcome>> {
    let mut of_customer: BTreeMap<&CustomerId, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        of_customer.entry(&item.customer_id).or_default().push(index);
    }
    // In the order of their ids, so that two batches never wait for each other in a circle.
    let customers: Vec<&CustomerId> = of_customer.keys().copied().collect();
    let locked = wallets::lock_many(&customers, contended)?;
    let mut outcomes: Vec<Outcome> = items.iter().map(|_| Outcome::Locked).collect();
    refuse_unknown(&of_customer, &locked, contended, &mut outcomes);
    let credit_counts = locked.iter().map(|locked| (locked.customer_id.clone(), locked.credit_count)).collect();
    let charging = Charging { items, of_customer, meters: EventMeters::read(items, &locked), credit_counts };
    let mut refused = Vec::new();
    books::each_settled(
        locked,
        &mut |locked| Some(charging.wanted(locked)),
        &mut |book, is_last| {
            if is_last {
                charging.charge(book, &mut outcomes);
            }
        },
        &mut |customer_id, error| refused.push((customer_id.clone(), error)),
    );
    for (customer_id, error) in refused {
        for index in charging.of_customer.get(&customer_id).into_iter().flatten() {
            outcomes[*index] = charging.refused(&customer_id, error.clone());
        }
    }
    Ok(outcomes)
}

/// Of customers that were not locked, those that have no wallet are refused: all of them, if locks were waited for.
fn refuse_unknown(
    of_customer: &BTreeMap<&CustomerId, Vec<usize>>,
    locked: &[Locked],
    contended: Contended,
    outcomes: &mut [Outcome],
) {
    let mut missing = of_customer.clone();
    for locked in locked {
        missing.remove(&locked.customer_id);
    }
    if missing.is_empty() {
        return;
    }
    let customers: Vec<&CustomerId> = missing.keys().copied().collect();
    let known = if contended == Contended::Skip { wallets::known(&customers) } else { HashSet::new() };
    for (customer_id, indexes) in missing.iter().filter(|(customer_id, _)| !known.contains(**customer_id)) {
        for index in indexes {
            outcomes[*index] = Outcome::Refused { error: no_wallet(customer_id), credit_count: 0 };
        }
    }
}

/// The meters of every event of a batch, read under the locks of its customers.
struct EventMeters {
    catalog: Catalog,
    of_event: HashMap<EventName, Rc<[Meter]>>,
}

impl EventMeters {
    fn read(items: &[Item], locked: &[Locked]) -> Option<Self> {
        let mut names: Vec<&EventName> = Vec::new();
        for item in items {
            if let Usage::Record(request) = &item.usage {
                names.push(&request.event.event_name);
            }
        }
        if names.is_empty() {
            return None;
        }
        let customers: Vec<&CustomerId> = locked.iter().map(|locked| &locked.customer_id).collect();
        let catalog = Catalog::open(Access::Write, &customers);
        names.sort_unstable();
        names.dedup();
        let of_event = names.into_iter().map(|name| (name.clone(), catalog.of_event(None, name))).collect();
        Some(Self { catalog, of_event })
    }

    fn of(&self, customer_id: &CustomerId, event_name: &EventName) -> Rc<[Meter]> {
        if self.catalog.has_own_prices(customer_id) {
            return self.catalog.of_event(Some(customer_id), event_name);
        }
        self.of_event.get(event_name).cloned().unwrap_or_else(|| Rc::from([]))
    }
}

struct Charging<'a> {
    items: &'a [Item],
    of_customer: BTreeMap<&'a CustomerId, Vec<usize>>,
    /// None if nothing is metered.
    meters: Option<EventMeters>,
    credit_counts: HashMap<CustomerId, i64>,
}

impl Charging<'_> {
    fn items_of(&self, customer_id: &CustomerId) -> impl Iterator<Item = (usize, &Item)> {
        self.of_customer.get(customer_id).into_iter().flatten().map(|index| (*index, &self.items[*index]))
    }

    fn meters_of(&self, customer_id: &CustomerId, request: &RecordUsage) -> Rc<[Meter]> {
        match &self.meters {
            Some(meters) => meters.of(customer_id, &request.event.event_name),
            None => Rc::from([]),
        }
    }

    /// What charging a customer's items will read.
    fn wanted(&self, locked: &Locked) -> Wanted {
        let mut wanted = Wanted { is_due: locked.time.next_due_at <= locked.time.now, ..Wanted::default() };
        for (_, item) in self.items_of(&locked.customer_id) {
            wanted.transactions.extend(item.key.clone());
            let occurred_at = match &item.usage {
                Usage::Deduct(request) => request.occurred_at,
                Usage::Record(request) => {
                    let meters = self.meters_of(&locked.customer_id, request);
                    want_readings(&mut wanted, request, &meters, locked.time.now);
                    request.occurred_at
                }
            };
            wanted.is_late |= occurred_at.is_some();
        }
        wanted
    }

    fn charge(&self, book: &mut Book<'_>, outcomes: &mut [Outcome]) {
        let customer_id = book.customer_id.clone();
        for (index, item) in self.items_of(&customer_id) {
            let charged = book.attempt(|book| match &item.usage {
                Usage::Deduct(request) => usage::deduct(book, item.key.as_ref(), request),
                Usage::Record(request) => {
                    metering::record(book, item.key.as_ref(), request, &self.meters_of(&customer_id, request))
                }
            });
            // What an item did to a wallet's level is looked at before the next one.
            watch::look(book);
            outcomes[index] = match charged {
                Ok(deduction) => Outcome::Charged(deduction),
                Err(error) => self.refused(&customer_id, error),
            };
        }
    }

    fn refused(&self, customer_id: &CustomerId, error: Error) -> Outcome {
        Outcome::Refused { error, credit_count: self.credit_counts.get(customer_id).copied().unwrap_or_default() }
    }
}

fn want_readings(wanted: &mut Wanted, request: &RecordUsage, meters: &[Meter], now: Timestamp) {
    let event = &request.event;
    // What is wrong with an event is said when its turn comes.
    let readings = readings(meters, &event.event_name, &event.properties, request.occurred_at.unwrap_or(now));
    for reading in readings.into_iter().flatten() {
        wanted.can_give_back |= reading.can_fall();
        // A latest value is a new one each time.
        wanted.values.extend(reading.value_key(1).filter(|key| key.arrival == 0));
        wanted.periods.insert(reading.key);
    }
}

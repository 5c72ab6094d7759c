//! Meters: defining them and their prices, recording events, asking what one would cost.

use std::rc::Rc;

use super::{change, connected, id_of, no_wallet, read};
use crate::domain::entitlement::{self, Asked, Entitlement};
use crate::domain::meter::Meter;
use crate::domain::metering::{self, Event, Quote, RecordUsage};
use crate::domain::names::{CustomerId, EventName, MeterCode, TransactionId};
use crate::domain::time::Timestamp;
use crate::domain::usage::Deduction;
use crate::error::{Error, Result};
use crate::storage::meters::Catalog;
use crate::storage::plain::Documents;
use crate::storage::statement::Access;
use crate::storage::{clock, meters, plain};

/// Defines a meter. `pricing` is the document of its first price list, which holds from the beginning.
pub fn create(meter: &Meter, pricing: &str) -> Result<()> {
    connected(|| {
        meters::lock();
        let others = meters::of_event(&meter.event_name);
        if let Some(other) = others.iter().find(|other| other.scope.unit != meter.scope.unit && other.code != meter.code) {
            return Err(Error::invalid(
                "unit",
                format!(
                    "meter \"{}\" charges event \"{}\" in unit \"{}\", not \"{}\"",
                    other.code, other.event_name, other.scope.unit, meter.scope.unit
                ),
                "All meters of an event charge one unit.",
            ));
        }
        let now = clock::now()?;
        if !meters::create(meter, now) {
            return Err(Error::AlreadyExists {
                what: "meter",
                name: format!("\"{}\"", meter.code),
                hint: "Give it another price with credits.set_meter_pricing, or choose another code.".into(),
            });
        }
        meters::set_pricing(None, &meter.code, Timestamp::BEFORE_ALL, pricing, now);
        Ok(())
    })
}

/// Sets a price list, a customer's own or everybody's, from an instant on; none is now.
pub fn set_pricing(
    code: &MeterCode,
    pricing: &str,
    effective_at: Option<Timestamp>,
    customer_id: Option<&CustomerId>,
) -> Result<()> {
    let not_found = || Error::NotFound {
        what: "meter",
        name: format!("\"{code}\""),
        hint: "Define it with credits.create_meter; credits.meters lists those there are.".into(),
    };
    let set = |now: Timestamp| {
        if !meters::exists(code) {
            return Err(not_found());
        }
        meters::set_pricing(customer_id, code, effective_at.unwrap_or(now), pricing, now);
        Ok(())
    };
    connected(|| match customer_id {
        Some(customer_id) => {
            let now = change(customer_id, |book| Ok(book.now))?;
            set(now)
        }
        None => {
            meters::lock();
            set(clock::now()?)
        }
    })
}

/// Records an event: the plain way if it is plain, else the general one. Both leave the same rows.
pub fn record(
    customer_id: &CustomerId,
    key: Option<TransactionId>,
    request: &RecordUsage,
    documents: Documents,
) -> Result<Deduction> {
    connected(|| {
        let id = id_of(key.as_ref())?;
        if let Some((credits, balance)) = plain::record(customer_id, &id, request, documents) {
            return Ok(Deduction::plain(id, credits, balance));
        }
        change(customer_id, |book| {
            let meters = of_event(Access::Write, Some(customer_id), &request.event.event_name);
            metering::record(book, key.as_ref(), request, &meters)
        })
    })
}

fn of_event(access: Access, customer_id: Option<&CustomerId>, event_name: &EventName) -> Rc<[Meter]> {
    let customers: Vec<&CustomerId> = customer_id.into_iter().collect();
    Catalog::open(access, &customers).of_event(customer_id, event_name)
}

/// What an event would cost, meter by meter: at an instant (none is now), for a customer, or for one who has used nothing.
pub fn price(customer_id: Option<&CustomerId>, event: &Event, at: Option<Timestamp>) -> Result<Vec<Quote>> {
    let of_customer = match customer_id {
        Some(customer_id) => read(customer_id, None, |book| {
            let meters = of_event(Access::Read, Some(customer_id), &event.event_name);
            let at = at.unwrap_or(book.now);
            metering::quote(Some(book), &meters, event, at)
        })?,
        None => None,
    };
    match of_customer {
        Some(quotes) => Ok(quotes),
        None => connected(|| {
            let at = at.map_or_else(clock::now, Ok)?;
            metering::quote(None, &of_event(Access::Read, None, &event.event_name), event, at)
        }),
    }
}

/// Whether usage may happen, as of now.
pub fn check(customer_id: &CustomerId, asked: &Asked) -> Result<Entitlement> {
    let checked = read(customer_id, None, |book| {
        let meters = match asked {
            Asked::Event(event) => of_event(Access::Read, Some(customer_id), &event.event_name),
            Asked::Anything { .. } | Asked::Amount { .. } => Rc::from([]),
        };
        entitlement::check(book, asked, &meters)
    })?;
    match (checked, asked) {
        (Some(checked), _) => Ok(checked),
        (None, Asked::Anything { .. }) => Ok(Entitlement::refused(&no_wallet(customer_id), None)),
        (None, Asked::Amount { amount, .. }) => Ok(Entitlement::refused(&no_wallet(customer_id), Some(*amount))),
        (None, Asked::Event(event)) => {
            let required = price(None, event, None)?.iter().map(|quote| quote.credits).sum();
            Ok(Entitlement::refused(&no_wallet(customer_id), Some(required)))
        }
    }
}

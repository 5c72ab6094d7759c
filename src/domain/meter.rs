//! Meters: what an event counts for, and what the count of a period costs (SPEC 8).
//!
//! A meter keeps one aggregate for each customer, period and matched rate. An event costs what it changes:
//! `price(aggregate after) - price(aggregate before)`, so that the events of a period together cost what their aggregate does, in
//! whatever order they arrive.

use std::cell::Cell;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::amount::Amount;
use super::calendar::Calendar;
use super::names::{EventName, MeterCode, TransactionId};
use super::pricing::{Pricing, QuantityPricing, has_all};
use super::time::Timestamp;
use super::usage::Scope;
use super::wallet::codes;
use crate::error::{Error, Result};

codes! {
    /// How the events of a period make its aggregate.
    Aggregation {
        Sum = "sum",
        Count = "count",
        Max = "max",
        Unique = "unique",
        Latest = "latest",
    }
}

impl Aggregation {
    /// Whether an event adds to the aggregate the same whatever came before. Of the others every value is kept.
    pub fn is_additive(self) -> bool {
        matches!(self, Self::Sum | Self::Count)
    }
}

/// A price list, in force from an instant on.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceList {
    pub effective_at: Timestamp,
    pub pricing: Pricing,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Meter {
    pub code: MeterCode,
    pub event_name: EventName,
    pub aggregation: Aggregation,
    /// The property that is counted; none for [`Aggregation::Count`].
    pub value_property: Option<String>,
    /// Properties that an event must have.
    pub filter: Map<String, Value>,
    pub calendar: Calendar,
    pub scope: Scope,
    /// In the order in which they come into force; the first holds from the beginning.
    pub prices: Vec<PriceList>,
    /// The customer's own, which win; the first may hold from some instant on only.
    pub own_prices: Vec<PriceList>,
    pub last_period: LastPeriod,
}

/// The period that was asked for last, remembered because the next event is most often of the same one. Its start and its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastPeriod(Cell<Option<(Timestamp, Timestamp)>>);

impl Meter {
    /// Refuses (22023) what contradicts itself.
    pub fn check(&self) -> Result<()> {
        match (self.aggregation, &self.value_property) {
            (Aggregation::Count, Some(_)) => Err(Error::invalid(
                "value_property",
                "the aggregation 'count' counts events, not a property",
                "Leave value_property out, or choose sum, max, unique or latest.",
            )),
            (Aggregation::Count, None) => Ok(()),
            (aggregation, None) => Err(Error::invalid(
                "value_property",
                format!("the aggregation '{}' needs one", aggregation.code()),
                "Name the property of the event that is counted, or choose the aggregation 'count'.",
            )),
            (_, Some(_)) => Ok(()),
        }
    }

    /// The price list in force at an instant: the customer's own, else everybody's.
    pub fn pricing_at(&self, at: Timestamp) -> &Pricing {
        let in_force = |lists: &[PriceList]| lists.iter().rposition(|list| list.effective_at <= at);
        if let Some(index) = in_force(&self.own_prices) {
            return &self.own_prices[index].pricing;
        }
        match self.prices.get(in_force(&self.prices).unwrap_or(0)) {
            Some(list) => &list.pricing,
            None => panic!("meter {} has no price list", self.code),
        }
    }
}

/// What a meter keeps an aggregate for, apart from the customer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeriodKey {
    pub meter: MeterCode,
    pub starts_at: Timestamp,
    /// The name of the matched rate; empty without a matrix.
    pub rate: String,
}

/// The aggregate of a period.
#[derive(Debug, Clone, PartialEq)]
pub struct MeterPeriod {
    pub key: PeriodKey,
    pub aggregate: Amount,
    /// Events that make it.
    pub events: i64,
    /// Events that ever came, for the order of arrival.
    pub arrivals: i64,
    /// When the event happened that [`Aggregation::Latest`] goes by.
    pub latest_at: Option<Timestamp>,
    /// What its events paid, less what was given back: no fall of the price leaves less than the price of what is counted.
    pub paid: Amount,
    /// The last event that was charged and may not have got all of it back: where a fall of the price is given back first.
    pub paid_by: Option<TransactionId>,
    /// How much of that charge this meter may still give back; none is all of it.
    pub paid_left: Option<Amount>,
}

impl MeterPeriod {
    pub fn new(key: PeriodKey) -> Self {
        Self {
            key,
            aggregate: Amount::ZERO,
            events: 0,
            arrivals: 0,
            latest_at: None,
            paid: Amount::ZERO,
            paid_by: None,
            paid_left: None,
        }
    }

    /// Takes what the next charge keeps of this one: which it was, and how much of it was left to give back.
    pub fn last_charge(&mut self) -> Option<(TransactionId, Option<Amount>)> {
        let left = self.paid_left.take();
        self.paid_by.take().map(|id| (id, left))
    }
}

/// What one event counts for a meter.
#[derive(Debug, Clone, PartialEq)]
pub enum Counted {
    Number(Amount),
    /// Of [`Aggregation::Unique`].
    Value(String),
}

/// An event as one meter reads it.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    pub meter: &'a Meter,
    pub key: PeriodKey,
    pub counted: Counted,
    pub usage_at: Timestamp,
    pricing: &'a QuantityPricing,
}

/// What an event changed of a period.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub after: MeterPeriod,
    /// The price of what it changed; negative if the price fell: then what may be given back.
    pub credits: Amount,
}

/// What every meter of an event reads in it: those whose filter lets it through. No meter at all is *not found*.
pub fn readings<'a>(
    meters: &'a [Meter],
    event_name: &EventName,
    properties: &Map<String, Value>,
    usage_at: Timestamp,
) -> Result<Vec<Reading<'a>>> {
    if meters.is_empty() {
        return Err(Error::NotFound {
            what: "meter",
            name: format!("of event \"{event_name}\""),
            hint: "Define what the event costs with credits.create_meter(meter, event_name, aggregation, value_property), or charge \
                   credits with credits.deduct_usage."
                .into(),
        });
    }
    let counted = meters.iter().filter(|meter| has_all(properties, &meter.filter));
    counted.map(|meter| Reading::of(meter, properties, usage_at)).collect()
}

impl<'a> Reading<'a> {
    fn of(meter: &'a Meter, properties: &Map<String, Value>, usage_at: Timestamp) -> Result<Self> {
        let counted = meter.count(properties)?;
        let Some((pricing, rate)) = meter.pricing_at(usage_at).select(properties) else {
            return Err(Error::invalid(
                "properties",
                format!("no rate of meter \"{}\" matches them, and its price list has no default", meter.code),
                "Add a rate or a default with credits.set_meter_pricing, or correct the properties.",
            ));
        };
        let key = PeriodKey { meter: meter.code.clone(), starts_at: meter.period_at(usage_at), rate: short(rate) };
        Ok(Self { meter, key, counted, usage_at, pricing })
    }

    /// What the event adds, or is, for people: the number counted, or 1.
    pub fn quantity(&self) -> Amount {
        match self.counted {
            Counted::Number(number) => number,
            Counted::Value(_) => Amount::from_credits(1),
        }
    }

    /// What the event costs whatever was counted before; none if that depends on it, but for rounding.
    pub fn price_by_unit(&self) -> Option<Amount> {
        match self.pricing {
            QuantityPricing::PerUnit { .. } => self.pricing.price(self.quantity()).ok(),
            _ => None,
        }
    }

    /// Whether the event counts in the same period, at the same price, if it happens at another instant.
    pub fn holds_at(&self, at: Timestamp) -> bool {
        let price_list = |at: Timestamp| std::ptr::from_ref(self.meter.pricing_at(at));
        at == self.usage_at || self.meter.period_at(at) == self.key.starts_at && price_list(at) == price_list(self.usage_at)
    }

    /// The event applied to its period; `is_known` says whether [`Aggregation::Unique`] has counted its value.
    pub fn apply(&self, before: &MeterPeriod, is_known: bool) -> Result<Change> {
        let mut after = before.clone();
        after.events += 1;
        after.arrivals += 1;
        let number = self.quantity();
        match self.meter.aggregation {
            Aggregation::Sum | Aggregation::Count => after.aggregate += number,
            Aggregation::Max => after.aggregate = after.aggregate.max(number),
            Aggregation::Unique if is_known => {}
            Aggregation::Unique => after.aggregate += number,
            Aggregation::Latest => {
                if before.latest_at.is_none_or(|latest_at| latest_at <= self.usage_at) {
                    after.aggregate = number;
                    after.latest_at = Some(self.usage_at);
                }
            }
        }
        let too_large = |_| Amount::too_large(&format!("the aggregate of meter \"{}\"", self.meter.code));
        after.aggregate.in_range("").map_err(too_large)?;
        let price = self.pricing.price(after.aggregate)?;
        // What was never paid (a part of a partial charge, a refund, another price list's) is not given back.
        let overpaid = (before.paid - price).max(Amount::ZERO);
        let credits = (price - self.pricing.price(before.aggregate)?).max(-overpaid);
        Ok(Change { after, credits })
    }

    /// Whether the event may let the price fall: any other aggregate only grows, and any other price with it.
    pub fn can_fall(&self) -> bool {
        self.meter.aggregation == Aggregation::Latest || matches!(self.pricing, QuantityPricing::Volume(_))
    }

    /// What is kept of the event's value, to take it out again; none if the aggregate needs no values.
    pub fn value_key(&self, arrival: i64) -> Option<ValueKey> {
        ValueKey::of(self.meter.aggregation, self.key.clone(), &self.counted, self.usage_at, arrival)
    }
}

impl Meter {
    /// Start of the period that contains an instant.
    fn period_at(&self, at: Timestamp) -> Timestamp {
        let LastPeriod(last) = &self.last_period;
        if let Some((start, _)) = last.get().filter(|(start, end)| *start <= at && at < *end) {
            return start;
        }
        let start = self.calendar.start_of_period_at(at);
        last.set(Some((start, self.calendar.end_of_period_at(at, 1))));
        start
    }

    fn count(&self, properties: &Map<String, Value>) -> Result<Counted> {
        let Some(name) = &self.value_property else {
            return Ok(Counted::Number(Amount::from_credits(1)));
        };
        let refusal = |problem: &str| {
            Error::invalid(
                "properties",
                format!("\"{name}\" {problem}, meter \"{}\" counts it", self.code),
                match self.aggregation {
                    Aggregation::Unique => "Pass a string, a number or a boolean.",
                    _ => "Pass a number of zero or more, as a JSON number or a string.",
                },
            )
        };
        let value = properties.get(name).ok_or_else(|| refusal("is missing"))?;
        if self.aggregation == Aggregation::Unique {
            return match value {
                Value::String(text) => Ok(Counted::Value(short(text.clone()))),
                // As text, so that 1 and "1" are one value and 1.0 is another.
                Value::Number(_) | Value::Bool(_) => Ok(Counted::Value(value.to_string())),
                _ => Err(refusal("is no string, number or boolean")),
            };
        }
        let text = match value {
            Value::Number(number) => number.as_str(),
            Value::String(text) => text,
            _ => return Err(refusal("is not a number")),
        };
        let number = Amount::from_decimal(text).map_err(|error| error.error("properties", name))?;
        if number.is_negative() {
            return Err(refusal(&format!("is {number}, below zero")));
        }
        Ok(Counted::Number(number))
    }
}

/// Text that a key may hold: as it is, or its SHA-256 if it is longer than 255 bytes.
fn short(text: String) -> String {
    if text.len() <= 255 {
        return text;
    }
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold("sha256:".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// A value that was counted in a period. In the order of these keys, the last of a period is its maximum, or its latest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueKey {
    pub period: PeriodKey,
    /// Of [`Aggregation::Unique`]: the value; else empty.
    pub value: String,
    /// Of [`Aggregation::Max`]: the value; of [`Aggregation::Latest`]: when it happened, in seconds since 2000.
    pub rank: Amount,
    /// Of [`Aggregation::Latest`]: the order of arrival, from 1; of [`Aggregation::Unique`]: -1; else 0.
    pub arrival: i64,
}

/// How many events of a period counted a value.
#[derive(Debug, Clone, PartialEq)]
pub struct MeterValue {
    pub key: ValueKey,
    pub number: Amount,
    pub events: i64,
}

impl ValueKey {
    fn of(aggregation: Aggregation, period: PeriodKey, counted: &Counted, usage_at: Timestamp, arrival: i64) -> Option<Self> {
        let none = Self { period, value: String::new(), rank: Amount::ZERO, arrival: 0 };
        match (aggregation, counted) {
            (Aggregation::Max, Counted::Number(number)) => Some(Self { rank: *number, ..none }),
            (Aggregation::Latest, _) => Some(Self { rank: rank_of(usage_at), arrival, ..none }),
            (Aggregation::Unique, Counted::Value(value)) => Some(Self { value: value.clone(), arrival: -1, ..none }),
            _ => None,
        }
    }

    /// Whether it is one of the different values that [`Aggregation::Unique`] counts.
    pub fn is_of_unique(&self) -> bool {
        self.arrival < 0
    }

    /// When the event happened, of a value of [`Aggregation::Latest`].
    pub fn happened_at(&self) -> Timestamp {
        Timestamp::from_postgres((self.rank.units() / UNITS_PER_MICROSECOND) as i64)
    }
}

const UNITS_PER_MICROSECOND: i128 = Amount::from_credits(1).units() / 1_000_000;

fn rank_of(at: Timestamp) -> Amount {
    Amount::from_units(i128::from(at.to_postgres()) * UNITS_PER_MICROSECOND)
}

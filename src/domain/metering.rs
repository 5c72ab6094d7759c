//! Recording usage events: each is charged what it changes the price of its meters' aggregates by (SPEC 8).
//!
//! A rise is charged like any usage. A fall (a volume tier reached, a latest value that is lower) is given back in the event's own
//! transaction, to the events that paid this meter in this period, the last first. To find them, every charge names the one before
//! it, and the period the last: what has been given back in full is passed over once and never looked at again.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::{Movement, Recorded};
use super::json;
use super::meter::{Change, Meter, MeterPeriod, MeterValue, PeriodKey, Reading, ValueKey, readings};
use super::names::{EventName, MeterCode, TransactionId};
use super::refund::{give_back_usage, left_of};
use super::request::{Fingerprint, Operation, Part};
use super::time::Timestamp;
use super::usage::{Deduction, OnInsufficient, Scope, Wanted, checked_usage_at, not_covered};
use crate::error::Result;

/// What a transaction changed of what meters count.
#[derive(Debug, Clone, PartialEq)]
pub enum Metered {
    /// An event was counted.
    Counted(Vec<Count>),
    /// An event was refunded in full and does not count any more.
    TakenOut(Vec<Count>),
}

/// What one meter counted of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    pub period: PeriodKey,
    pub quantity: Amount,
    /// Where its value is kept, if the aggregate needs values.
    pub value: Option<ValueKey>,
    /// What was charged for it; negative is what was given back to earlier events.
    pub credits: Amount,
    /// The charge of this meter and period before this one, and how much of it was left to give back (none: all).
    pub previous: Option<(TransactionId, Option<Amount>)>,
}

/// An event as a caller reports it.
#[derive(Debug, Clone)]
pub struct Event {
    pub event_name: EventName,
    pub properties: Map<String, Value>,
    /// The properties as they are stored.
    pub properties_text: String,
}

#[derive(Debug, Clone)]
pub struct RecordUsage {
    pub event: Event,
    /// When the usage happened, if the caller says so.
    pub occurred_at: Option<Timestamp>,
    pub on_insufficient: OnInsufficient,
    /// JSON text.
    pub metadata: Option<String>,
}

impl RecordUsage {
    pub fn fingerprint(&self) -> Fingerprint {
        let properties = json::canonical(&self.event.properties);
        Fingerprint::of(
            Operation::RecordUsage,
            &[Part::Text(Some(self.event.event_name.as_str())), Part::Text(Some(&properties))],
        )
    }
}

/// The scopes that some meters of an event charge, each once: of those that count it, or of the first if none does.
pub fn charged_scopes<'a>(meters: &'a [Meter], counting: impl Iterator<Item = &'a Meter>) -> Vec<&'a Scope> {
    let mut scopes: Vec<&Scope> = Vec::new();
    for meter in counting {
        if !scopes.contains(&&meter.scope) {
            scopes.push(&meter.scope);
        }
    }
    if scopes.is_empty() {
        scopes.extend(meters.first().map(|meter| &meter.scope));
    }
    scopes
}

/// Records once for its key.
pub fn record(book: &mut Book<'_>, key: Option<&TransactionId>, request: &RecordUsage, meters: &[Meter]) -> Result<Deduction> {
    let answer: Answer =
        book.once(key, request.fingerprint(), |book, transaction| execute(book, transaction, request, meters))?;
    let mut wallets: Vec<usize> =
        charged_scopes(meters, meters.iter()).into_iter().flat_map(|scope| scope.wallets(book)).collect();
    wallets.sort_unstable();
    wallets.dedup();
    let balance = book.spendable(&wallets);
    if answer.recorded.lines.is_empty() {
        let at = request.occurred_at.unwrap_or(book.now);
        let requested = quote(Some(book), meters, &request.event, at)?.iter().map(|quote| quote.credits).sum();
        return Ok(Deduction::of(answer, requested, balance));
    }
    let net = Deduction::net(&answer.recorded);
    Ok(Deduction::of(answer, net, balance))
}

/// What one meter makes of the event.
struct Metering<'a> {
    reading: Reading<'a>,
    change: Change,
    value: Option<MeterValue>,
    /// The same as in [`Count::credits`].
    credits: Amount,
}

impl<'a> Metering<'a> {
    fn of(book: &mut Book<'_>, reading: Reading<'a>) -> Result<Self> {
        let before = book.meter_period(&reading.key);
        let value = reading.value_key(before.arrivals + 1).map(|key| {
            // The latest ones are kept one by one.
            let known = if key.arrival > 0 { None } else { book.meter_value(&key) };
            known.unwrap_or_else(|| MeterValue { number: reading.quantity(), events: 0, key })
        });
        let is_known = value.as_ref().is_some_and(|value| value.events > 0);
        let change = reading.apply(&before, is_known)?;
        let value = value.map(|value| MeterValue { events: value.events + 1, ..value });
        Ok(Self { credits: change.credits, reading, change, value })
    }

    /// Makes the event the last one that paid, if it did, and says what was counted.
    fn count(&mut self, transaction: &TransactionId) -> Count {
        let period = &mut self.change.after;
        period.paid = (period.paid + self.credits).max(Amount::ZERO);
        let mut previous = None;
        if self.credits.is_positive() {
            previous = period.last_charge();
            period.paid_by = Some(transaction.clone());
        }
        Count {
            period: self.reading.key.clone(),
            quantity: self.reading.quantity(),
            value: self.value.as_ref().map(|value| value.key.clone()),
            credits: self.credits,
            previous,
        }
    }
}

fn execute(book: &mut Book<'_>, transaction: usize, request: &RecordUsage, meters: &[Meter]) -> Result<()> {
    let Event { event_name, properties, properties_text } = &request.event;
    let usage_at = checked_usage_at(request.occurred_at, book.now)?;
    let readings = readings(meters, event_name, properties, usage_at.unwrap_or(book.now))?;
    let mut metered = readings.into_iter().map(|reading| Metering::of(book, reading)).collect::<Result<Vec<_>>>()?;
    let scopes = charged_scopes(meters, metered.iter().map(|metering| metering.reading.meter));
    let wallets = scopes.iter().map(|scope| scope.active_wallets(book)).collect::<Result<Vec<_>>>()?;

    let opened = &mut book.transactions[transaction];
    opened.event_name = Some(event_name.clone());
    opened.usage_at = usage_at;
    opened.metadata = request.metadata.clone();
    opened.properties = Some(properties_text.clone());

    let mark = book.mark();
    for metering in metered.iter_mut().filter(|metering| metering.credits.is_negative()) {
        let given_back = give_back(book, transaction, &mut metering.change.after, -metering.credits)?;
        metering.credits = -given_back;
    }
    let mut is_partial = false;
    let mut has_paid = false;
    for (scope, wallets) in scopes.iter().zip(&wallets) {
        let charged = || metered.iter().filter(|metering| metering.reading.meter.scope == **scope);
        let amount: Amount = charged().map(|metering| metering.credits.max(Amount::ZERO)).sum();
        if amount.is_zero() {
            continue;
        }
        let on_insufficient = request.on_insufficient;
        let wanted = Wanted { amount, event_name: Some(event_name.clone()), usage_at, on_insufficient };
        let mut open = match wanted.cover(book, wallets) {
            Ok(cover) => {
                is_partial |= cover.is_partial;
                has_paid = true;
                cover.charge(book, transaction)?
            }
            Err(_) if on_insufficient == OnInsufficient::Partial => {
                is_partial = true;
                Amount::ZERO
            }
            Err(covered) => {
                book.undo(mark);
                return not_covered(book, on_insufficient, amount, covered, scope);
            }
        };
        for metering in metered.iter_mut().filter(|metering| metering.reading.meter.scope == **scope) {
            if metering.credits.is_positive() {
                metering.credits = metering.credits.min(open);
                open -= metering.credits;
            }
        }
    }
    if is_partial && !has_paid {
        book.undo(mark);
        return Ok(());
    }
    if is_partial {
        // What was asked for; of a fall, what could be given back.
        let requested = metered.iter().map(|metering| metering.change.credits.max(metering.credits)).sum();
        book.transactions[transaction].requested = Some(requested);
    }
    if book.transactions[transaction].lines == 0 {
        let now = book.now;
        book.post(transaction, wallets[0][0], Movement::new(Kind::Usage, Amount::ZERO, None, now))?;
    }
    let id = book.transactions[transaction].id.clone();
    let counts = metered.iter_mut().map(|metering| metering.count(&id)).collect();
    book.transactions[transaction].metered = Some(Rc::new(Metered::Counted(counts)));
    for metering in metered {
        book.set_meter_period(metering.change.after);
        if let Some(value) = metering.value {
            book.set_meter_value(value);
        }
    }
    Ok(())
}

/// Gives credits back to what paid a meter in a period, the last charge first, and returns how many: no more than were paid.
fn give_back(book: &mut Book<'_>, transaction: usize, period: &mut MeterPeriod, credits: Amount) -> Result<Amount> {
    let mut open = credits;
    while open.is_positive() {
        let Some(usage) = period.paid_by.as_ref().and_then(|id| book.recorded(id)) else {
            break;
        };
        let Some(count) = usage.counts().iter().find(|count| count.period == period.key) else {
            break;
        };
        // What a refund gave back of an event that several meters charged is nobody's share: no meter gives it back again.
        let left = period.paid_left.unwrap_or(count.credits);
        let given_back = left.min(left_of(book, &usage)).min(open);
        if given_back.is_positive() {
            give_back_usage(book, transaction, &usage, given_back)?;
        }
        open -= given_back;
        if open.is_positive() || given_back == left {
            let (paid_by, paid_left) = count.previous.clone().unzip();
            period.paid_by = paid_by;
            period.paid_left = paid_left.flatten();
        } else {
            period.paid_left = Some(left - given_back);
        }
    }
    Ok(credits - open)
}

/// Takes what was refunded of an event off what its meters were paid, the last meter first.
pub fn unpay(book: &mut Book<'_>, usage: &Recorded, refunded: Amount) {
    let mut open = refunded;
    for count in usage.counts().iter().rev() {
        let mut period = book.meter_period(&count.period);
        let share = open.min(count.credits).min(period.paid).max(Amount::ZERO);
        open -= share;
        period.paid -= share;
        book.set_meter_period(period);
    }
}

/// Takes a refunded event out of what its meters count. What other events were charged stays as it is.
pub fn take_out(book: &mut Book<'_>, transaction: usize, usage: &Recorded) {
    for count in usage.counts() {
        let mut period = book.meter_period(&count.period);
        period.events -= 1;
        let Some(key) = &count.value else {
            period.aggregate -= count.quantity;
            book.set_meter_period(period);
            continue;
        };
        if let Some(mut value) = book.meter_value(key) {
            value.events -= 1;
            let is_gone = value.events == 0;
            book.set_meter_value(value);
            if is_gone && key.is_of_unique() {
                period.aggregate -= count.quantity;
            } else if is_gone {
                let last = book.last_value(&count.period, key);
                period.aggregate = last.as_ref().map_or(Amount::ZERO, |last| last.number);
                period.latest_at = last.filter(|last| last.key.arrival > 0).map(|last| last.key.happened_at());
            }
        }
        book.set_meter_period(period);
    }
    book.transactions[transaction].metered = Some(Rc::new(Metered::TakenOut(usage.counts().to_vec())));
}

impl Recorded {
    /// What meters counted of it, if it is a metered event.
    pub fn counts(&self) -> &[Count] {
        match self.metered.as_deref() {
            Some(Metered::Counted(counts)) => counts,
            _ => &[],
        }
    }
}

/// What an event would cost by one meter.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    pub meter: MeterCode,
    pub scope: Scope,
    pub quantity: Amount,
    pub credits: Amount,
}

/// Prices an event of an instant, meter by meter, after what was counted for the customer whose book it is; without one, for a new
/// customer.
pub fn quote(mut book: Option<&mut Book<'_>>, meters: &[Meter], event: &Event, at: Timestamp) -> Result<Vec<Quote>> {
    let quote = |reading: Reading<'_>| {
        let (meter, quantity) = (reading.meter.code.clone(), reading.quantity());
        let scope = reading.meter.scope.clone();
        let credits = match &mut book {
            Some(book) => Metering::of(book, reading)?.credits,
            None => reading.apply(&MeterPeriod::new(reading.key.clone()), false)?.credits,
        };
        Ok(Quote { meter, scope, quantity, credits })
    };
    readings(meters, &event.event_name, &event.properties, at)?.into_iter().map(quote).collect()
}

/// An event that only adds to what its meters count and gives nothing back.
pub struct PlainCharge {
    pub counts: Vec<Count>,
}

impl PlainCharge {
    /// Of additive meters whose periods were read; none if a price falls.
    pub fn of(readings: &[Reading<'_>], before: &[MeterPeriod]) -> Result<Option<Self>> {
        let mut counts = Vec::with_capacity(before.len());
        for (reading, before) in readings.iter().zip(before) {
            let mut change = reading.apply(before, false)?;
            if change.credits.is_negative() {
                return Ok(None);
            }
            let previous = if change.credits.is_positive() { change.after.last_charge() } else { None };
            let MeterPeriod { key: period, .. } = change.after;
            counts.push(Count { period, quantity: reading.quantity(), value: None, credits: change.credits, previous });
        }
        Ok(Some(Self { counts }))
    }

    /// What each meter charges.
    pub fn shares(&self) -> Vec<Amount> {
        self.counts.iter().map(|count| count.credits).collect()
    }
}

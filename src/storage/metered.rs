//! What meters counted of an event, as its entry keeps it: a JSON object, by the meters' codes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Number;

use crate::domain::amount::Amount;
use crate::domain::json::push_text;
use crate::domain::meter::{PeriodKey, ValueKey};
use crate::domain::metering::{Count, Metered};
use crate::domain::names::{MeterCode, TransactionId};
use crate::domain::time::Timestamp;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    quantity: Option<Number>,
    credits: Option<Number>,
    /// As JSON writes times.
    period_start: String,
    rate: String,
    value: Option<Value>,
    /// Of the charge before this one.
    previous: Option<String>,
    previous_left: Option<Number>,
    taken_out: bool,
}

#[derive(Deserialize)]
struct Value {
    value: String,
    rank: Number,
    arrival: i64,
}

fn amount(number: &Number) -> Amount {
    match Amount::from_decimal(number.as_str()) {
        Ok(amount) => amount,
        Err(error) => panic!("a stored number {number}: {error}"),
    }
}

fn instant(text: &str) -> Timestamp {
    match Timestamp::from_rfc3339(text) {
        Some(at) => at,
        None => panic!("a stored time: {text}"),
    }
}

/// As JSON text.
pub fn encode(metered: &Metered) -> String {
    match metered {
        Metered::Counted(counts) => counted(counts),
        Metered::TakenOut(counts) => written(counts, true),
    }
}

/// What was counted of an event, as JSON text.
pub fn counted(counts: &[Count]) -> String {
    written(counts, false)
}

/// By hand: it is written for every event, and numbers stand as they are.
fn written(counts: &[Count], taken_out: bool) -> String {
    let mut out = String::with_capacity(160 * counts.len());
    for count in counts {
        out.push(if out.is_empty() { '{' } else { ',' });
        push_text(&mut out, count.period.meter.as_str());
        out.push_str(":{\"quantity\":");
        out.push_str(&count.quantity.to_string());
        if taken_out {
            out.push_str(",\"taken_out\":true");
        } else {
            out.push_str(",\"credits\":");
            out.push_str(&count.credits.to_string());
        }
        out.push_str(",\"period_start\":");
        push_text(&mut out, &count.period.starts_at.to_rfc3339());
        if !count.period.rate.is_empty() {
            out.push_str(",\"rate\":");
            push_text(&mut out, &count.period.rate);
        }
        if let Some(key) = &count.value {
            out.push_str(",\"value\":{\"value\":");
            push_text(&mut out, &key.value);
            out.push_str(&format!(",\"rank\":{},\"arrival\":{}}}", key.rank, key.arrival));
        }
        if let Some((id, left)) = &count.previous {
            out.push_str(",\"previous\":");
            push_text(&mut out, id.as_str());
            if let Some(left) = left {
                out.push_str(&format!(",\"previous_left\":{left}"));
            }
        }
        out.push('}');
    }
    out.push_str(if counts.is_empty() { "{}" } else { "}" });
    out
}

/// From JSON text that was stored.
pub fn decode(text: &str) -> Metered {
    let documents: BTreeMap<String, Document> = match serde_json::from_str(text) {
        Ok(documents) => documents,
        Err(error) => panic!("what meters counted is stored as {text}: {error}"),
    };
    let taken_out = documents.values().any(|document| document.taken_out);
    let count = |(meter, document): (String, Document)| {
        let period =
            PeriodKey { meter: MeterCode::stored(meter.into()), starts_at: instant(&document.period_start), rate: document.rate };
        let value = document.value.map(|Value { value, rank, arrival }| ValueKey {
            period: period.clone(),
            value,
            rank: amount(&rank),
            arrival,
        });
        let left = document.previous_left.as_ref().map(amount);
        Count {
            quantity: document.quantity.as_ref().map(amount).unwrap_or_default(),
            value,
            credits: document.credits.as_ref().map(amount).unwrap_or_default(),
            previous: document.previous.map(|id| (TransactionId::stored(id.into()), left)),
            period,
        }
    };
    let counts = documents.into_iter().map(count).collect();
    if taken_out { Metered::TakenOut(counts) } else { Metered::Counted(counts) }
}

//! Items of a batch: JSON objects whose keys are the arguments of the function for one. Whatever is wrong with an item is its own
//! error.

use std::ffi::CString;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::arguments as argument;
use super::usage::scope;
use crate::domain::amount::Amount;
use crate::domain::metering::{Event, RecordUsage};
use crate::domain::names::{CustomerId, EventName, TransactionId};
use crate::domain::time::Timestamp;
use crate::domain::usage::{DeductUsage, OnInsufficient};
use crate::error::{Error, Result};
use crate::ops::batch::{Item, Outcome, Usage};
use crate::storage::clock;
use crate::storage::codec::{JSONB_BYTES_MAX, JsonbText};

/// An object whose keys are taken one by one.
pub struct Fields {
    /// The name of the argument that holds the array.
    list: &'static str,
    members: Map<String, Value>,
}

impl Fields {
    fn of(list: &'static str, item: &RawValue) -> Result<Self> {
        let members = serde_json::from_str(item.get()).map_err(|_| {
            Error::invalid(
                list,
                "the element is not a JSON object of at most 127 levels",
                "Each element is an object of arguments.",
            )
        })?;
        Ok(Self { list, members })
    }

    /// The value of a key; none if it is absent, which is its default.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    /// A text, or null.
    fn text(&mut self, name: &'static str, default: Option<&str>) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(default.map(str::to_owned)),
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(name, "it is not a string", "Write it as a JSON string.")),
        }
    }

    fn amount(&mut self, name: &'static str) -> Result<Amount> {
        let amount = match self.take(name) {
            None | Some(Value::Null) => return Err(Error::NullArgument { argument: name }),
            Some(Value::Number(number)) => Amount::from_decimal(number.as_str()),
            Some(Value::String(text)) => Amount::from_decimal(&text),
            Some(_) => return Err(Error::invalid(name, "it is not a number", "Write it as a JSON number, or as a string.")),
        };
        argument::not_negative(name, amount.map_err(|error| error.error(name, ""))?)
    }

    fn instant(&mut self, name: &'static str) -> Result<Option<Timestamp>> {
        let Some(text) = self.text(name, None)? else {
            return Ok(None);
        };
        let as_postgres_reads = || clock::read(&CString::new(text.as_str()).ok()?);
        match Timestamp::from_rfc3339(&text).or_else(as_postgres_reads) {
            Some(at) => at.in_range(name).map(Some),
            None => Err(Error::invalid(name, "it is not a time", "Write it as '2026-01-01T00:00:00Z'.")),
        }
    }

    /// An object as text with what it holds; null is none.
    fn object(&mut self, name: &'static str) -> Result<Option<(Map<String, Value>, String)>> {
        let value = match self.take(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let text = value.to_string();
        let text = argument::object(name, JsonbText(if text.len() > JSONB_BYTES_MAX { Err(text.len()) } else { Ok(text) }))?;
        match value {
            Value::Object(members) => Ok(Some((members, text))),
            _ => Ok(None),
        }
    }

    fn customer_id(&mut self) -> Result<CustomerId> {
        argument::customer_id(self.text("customer_id", None)?.as_deref())
    }

    fn on_insufficient(&mut self) -> Result<OnInsufficient> {
        let mode = argument::required("on_insufficient", self.text("on_insufficient", Some("error"))?)?;
        OnInsufficient::checked("on_insufficient", &mode)
    }

    /// Refuses keys that nobody took.
    fn done(&self) -> Result<()> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let shown: String = unknown.chars().take(60).collect();
                Err(Error::invalid(self.list, format!("the key \"{shown}\" is not known"), "The keys are the arguments' names."))
            }
        }
    }

    fn deduction(mut self, customer_id: CustomerId) -> Result<Item> {
        let request = DeductUsage {
            amount: self.amount("amount")?,
            scope: scope(self.text("wallet", None)?.as_deref(), self.text("unit", Some("credits"))?.as_deref())?,
            event_name: argument::event_name(self.text("event_name", None)?.as_deref())?,
            occurred_at: self.instant("occurred_at")?,
            on_insufficient: self.on_insufficient()?,
            metadata: self.object("metadata")?.map(|(_, text)| text),
        };
        let key = argument::key(self.text("idempotency_key", None)?.as_deref())?;
        self.done()?;
        Ok(Item { customer_id, key, usage: Usage::Deduct(request) })
    }

    fn event(mut self, customer_id: CustomerId) -> Result<Item> {
        let event_name = argument::required("event_name", self.text("event_name", None)?)?;
        let is_null = self.members.get("properties").is_some_and(Value::is_null);
        let (properties, properties_text) = match self.object("properties")? {
            Some(object) => object,
            None if is_null => return Err(Error::NullArgument { argument: "properties" }),
            None => (Map::new(), "{}".to_owned()),
        };
        let request = RecordUsage {
            event: Event { event_name: EventName::checked("event_name", &event_name)?, properties, properties_text },
            occurred_at: self.instant("occurred_at")?,
            on_insufficient: self.on_insufficient()?,
            metadata: self.object("metadata")?.map(|(_, text)| text),
        };
        let (key, event_id) = (self.text("idempotency_key", None)?, self.text("event_id", None)?);
        if key.is_some() && event_id.is_some() {
            return Err(Error::invalid("event_id", "it is the same thing as idempotency_key", "Give one of them."));
        }
        let key = key.or(event_id).map(|id| TransactionId::checked("event_id", &id)).transpose()?;
        self.done()?;
        Ok(Item { customer_id, key, usage: Usage::Record(request) })
    }
}

/// An item, with its customer as far as that is known of a wrong one.
pub struct Line {
    pub customer_id: Option<String>,
    pub item: Result<Item>,
}

impl Line {
    fn of(list: &'static str, element: &RawValue, read: fn(Fields, CustomerId) -> Result<Item>) -> Self {
        let mut fields = match Fields::of(list, element) {
            Ok(fields) => fields,
            Err(error) => return Self { customer_id: None, item: Err(error) },
        };
        let customer_id = fields.customer_id();
        Self {
            customer_id: customer_id.as_ref().ok().map(CustomerId::to_string),
            item: customer_id.and_then(|customer_id| read(fields, customer_id)),
        }
    }
}

/// Items of `deduct_usage_batch`.
pub fn deductions(elements: &[Box<RawValue>]) -> Vec<Line> {
    elements.iter().map(|element| Line::of("items", element, Fields::deduction)).collect()
}

/// Items of `record_usage_batch`.
pub fn events(elements: &[Box<RawValue>]) -> Vec<Line> {
    elements.iter().map(|element| Line::of("events", element, Fields::event)).collect()
}

/// The columns of a batch: those of deduct_usage, with the line before and the error behind them.
pub type BatchRow =
    (i32, Option<String>, Option<String>, String, Option<Amount>, Amount, Amount, Option<Amount>, bool, Option<String>);

/// The rows of a batch, line by line.
pub fn rows(lines: Vec<Line>, charge: impl FnOnce(&[Item]) -> Result<Vec<Outcome>>) -> Result<Vec<BatchRow>> {
    let mut items = Vec::with_capacity(lines.len());
    let mut rows: Vec<BatchRow> = Vec::with_capacity(lines.len());
    let mut charged_rows = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        let failed = |error: Option<String>| {
            let zero = Amount::ZERO;
            (index as i32 + 1, line.customer_id, None, "failed".to_owned(), None, zero, zero, None, false, error)
        };
        match line.item {
            Ok(item) => {
                charged_rows.push(index);
                items.push(item);
                rows.push(failed(None));
            }
            Err(error) => rows.push(failed(Some(error.in_a_line()))),
        }
    }
    for ((outcome, item), index) in charge(&items)?.into_iter().zip(items).zip(charged_rows) {
        let row = &mut rows[index];
        match outcome {
            Outcome::Charged(done) => {
                row.2 = done.transaction_id.map(|id| id.to_string());
                row.3 = done.status.code().to_owned();
                row.4 = Some(done.requested);
                (row.5, row.6) = (done.deducted, done.overage);
                row.7 = Some(done.balance);
                row.8 = done.replayed;
            }
            Outcome::Refused { error, .. } => {
                if let Usage::Deduct(request) = item.usage {
                    row.4 = Some(request.amount);
                }
                row.9 = Some(error.in_a_line());
            }
            // Only the inbox passes over customers that others have locked.
            Outcome::Locked => row.9 = Some("wrong_state: the customer is locked".to_owned()),
        }
    }
    Ok(rows)
}

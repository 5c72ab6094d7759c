//! `deduct_usage_batch`, `record_usage_batch`, `process_inbox`, `retry_inbox`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, JsonbArgument};
use super::items;
use crate::domain::amount::Amount;
use crate::domain::metering::RecordUsage;
use crate::domain::names::{CustomerId, TransactionId};
use crate::domain::usage::OnInsufficient;
use crate::error::Result;
use crate::ops;
use crate::ops::batch::{Item, Usage};
use crate::storage::inbox::Waiting;

#[pg_extern]
fn deduct_usage_batch(
    items: Option<JsonbArgument>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(line, i32),
            name!(customer_id, Option<String>),
            name!(transaction_id, Option<String>),
            name!(status, String),
            name!(requested, Option<Amount>),
            name!(deducted, Amount),
            name!(overage, Amount),
            name!(balance, Option<Amount>),
            name!(replayed, bool),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let lines = items::deductions(&argument::array("items", items)?);
    Ok(TableIterator::new(items::rows(lines, ops::batch::charge_all)?))
}

#[pg_extern]
fn record_usage_batch(
    events: Option<JsonbArgument>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(line, i32),
            name!(customer_id, Option<String>),
            name!(transaction_id, Option<String>),
            name!(status, String),
            name!(requested, Option<Amount>),
            name!(deducted, Amount),
            name!(overage, Amount),
            name!(balance, Option<Amount>),
            name!(replayed, bool),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let lines = items::events(&argument::array("events", events)?);
    Ok(TableIterator::new(items::rows(lines, ops::batch::charge_all)?))
}

#[pg_extern]
fn process_inbox(
    batch_size: default!(Option<i32>, "1000"),
) -> Result<
    TableIterator<
        'static,
        (name!(events_charged, i64), name!(events_failed, i64), name!(credits, Amount), name!(more_due, bool)),
    >,
    ErrorReport,
> {
    let done = ops::inbox::process(argument::batch_size(batch_size)?, item)?;
    Ok(TableIterator::once((done.charged, done.failed, done.credits, done.more_due)))
}

/// What an event of the inbox asks for.
pub fn item(waiting: &Waiting) -> Result<Item> {
    let properties_text = match &waiting.properties {
        Some(json) => argument::object("properties", json.clone())?,
        None => "{}".to_owned(),
    };
    let event = argument::event(waiting.event_name.as_deref(), properties_text)?;
    Ok(Item {
        customer_id: argument::customer_id(waiting.customer_id.as_deref())?,
        key: waiting.event_id.as_deref().map(|id| TransactionId::checked("event_id", id)).transpose()?,
        usage: Usage::Record(RecordUsage {
            event,
            occurred_at: Some(waiting.occurred_at.unwrap_or(waiting.received_at).in_range("occurred_at")?),
            on_insufficient: OnInsufficient::Error,
            metadata: None,
        }),
    })
}

#[pg_extern]
fn retry_inbox(customer_id: default!(Option<&str>, "NULL")) -> Result<i64, ErrorReport> {
    let customer_id = customer_id.map(|id| CustomerId::checked("customer_id", id)).transpose()?;
    Ok(ops::inbox::retry(customer_id.as_ref()))
}

//! `hold_credits`, `capture_hold`, `release_hold`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, IntervalArgument, JsonbArgument, NumericArgument, optional, required};
use super::usage::{deduction_row, scope};
use crate::domain::amount::Amount;
use crate::domain::hold::{CaptureHold, HoldCredits};
use crate::domain::names::TransactionId;
use crate::domain::time::Timestamp;
use crate::domain::usage::OnInsufficient;
use crate::error::Result;
use crate::ops;

fn hold_id(value: Option<&str>) -> Result<TransactionId> {
    TransactionId::checked("hold_id", required("hold_id", value)?)
}

#[pg_extern]
fn hold_credits(
    customer_id: Option<&str>,
    amount: Option<NumericArgument>,
    expires_in: default!(Option<IntervalArgument>, "'15 minutes'"),
    wallet: default!(Option<&str>, "NULL"),
    unit: default!(Option<&str>, "'credits'"),
    event_name: default!(Option<&str>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(hold_id, String),
            name!(held, Amount),
            name!(balance, Amount),
            name!(expires_at, Timestamp),
            name!(replayed, bool),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let request = HoldCredits {
        amount: argument::amount("amount", amount)?,
        expires_in: argument::interval("expires_in", expires_in)?,
        scope: scope(wallet, unit)?,
        event_name: argument::event_name(event_name)?,
        metadata: optional("metadata", metadata, argument::metadata)?,
    };
    let done = ops::holds::hold(&customer_id, key.as_ref(), &request)?;
    Ok(TableIterator::once((done.hold_id.to_string(), done.held, done.balance, done.expires_at, done.replayed)))
}

#[pg_extern]
fn capture_hold(
    customer_id: Option<&str>,
    hold_id: Option<&str>,
    amount: default!(Option<NumericArgument>, "NULL"),
    on_insufficient: default!(Option<&str>, "'partial'"),
    idempotency_key: default!(Option<&str>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(transaction_id, Option<String>),
            name!(status, String),
            name!(requested, Amount),
            name!(deducted, Amount),
            name!(overage, Amount),
            name!(balance, Amount),
            name!(replayed, bool),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let request = CaptureHold {
        hold_id: self::hold_id(hold_id)?,
        amount: optional("amount", amount, argument::amount_or_zero)?,
        on_insufficient: OnInsufficient::checked("on_insufficient", required("on_insufficient", on_insufficient)?)?,
        metadata: optional("metadata", metadata, argument::metadata)?,
    };
    let done = ops::holds::capture(&customer_id, key.as_ref(), &request)?;
    Ok(TableIterator::once(deduction_row(done)))
}

#[pg_extern]
fn release_hold(
    customer_id: Option<&str>,
    hold_id: Option<&str>,
) -> Result<TableIterator<'static, (name!(hold_id, String), name!(released, Amount), name!(balance, Amount))>, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let hold_id = self::hold_id(hold_id)?;
    let done = ops::holds::release(&customer_id, &hold_id)?;
    Ok(TableIterator::once((done.hold_id.to_string(), done.released, done.balance)))
}

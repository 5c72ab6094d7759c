//! `deduct_usage`, `preview_deduction`, `refund_usage`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, JsonbArgument, NumericArgument, TimeArgument, optional, required};
use crate::domain::amount::Amount;
use crate::domain::names::TransactionId;
use crate::domain::refund::RefundUsage;
use crate::domain::usage::{DeductUsage, Deduction, OnInsufficient, Scope};
use crate::error::Result;
use crate::ops;
use crate::storage::plain::Documents;

/// The wallets a call considers.
pub fn scope(wallet: Option<&str>, unit: Option<&str>) -> Result<Scope> {
    let wallet = optional("wallet", wallet, argument::wallet_code)?;
    // With a wallet named the unit is ignored: it may be null then.
    let unit = match (&wallet, unit) {
        (Some(_), None) => String::new(),
        _ => argument::name("unit", unit)?,
    };
    Ok(Scope { wallet, unit })
}

/// The columns of deduct_usage, which capture_hold returns too.
pub fn deduction_row(done: Deduction) -> (Option<String>, String, Amount, Amount, Amount, Amount, bool) {
    (
        done.transaction_id.map(|id| id.to_string()),
        done.status.code().to_owned(),
        done.requested,
        done.deducted,
        done.overage,
        done.balance,
        done.replayed,
    )
}

#[pg_extern]
fn deduct_usage(
    customer_id: Option<&str>,
    amount: Option<NumericArgument>,
    idempotency_key: default!(Option<&str>, "NULL"),
    wallet: default!(Option<&str>, "NULL"),
    unit: default!(Option<&str>, "'credits'"),
    event_name: default!(Option<&str>, "NULL"),
    occurred_at: default!(Option<TimeArgument>, "NULL"),
    on_insufficient: default!(Option<&str>, "'error'"),
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
    let documents = Documents { metadata: metadata.map(JsonbArgument::datum), properties: None };
    let request = DeductUsage {
        amount: argument::amount_or_zero("amount", amount)?,
        scope: scope(wallet, unit)?,
        event_name: argument::event_name(event_name)?,
        occurred_at: optional("occurred_at", occurred_at, argument::instant)?,
        on_insufficient: OnInsufficient::checked("on_insufficient", required("on_insufficient", on_insufficient)?)?,
        metadata: optional("metadata", metadata, argument::metadata)?,
    };
    let done = ops::usage::deduct(&customer_id, key, &request, documents)?;
    Ok(TableIterator::once(deduction_row(done)))
}

#[pg_extern(stable)]
fn preview_deduction(
    customer_id: Option<&str>,
    amount: Option<NumericArgument>,
    wallet: default!(Option<&str>, "NULL"),
    unit: default!(Option<&str>, "'credits'"),
    event_name: default!(Option<&str>, "NULL"),
) -> Result<TableIterator<'static, (name!(wallet, String), name!(grant_id, pgrx::Uuid), name!(credits, Amount))>, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let amount = argument::amount_or_zero("amount", amount)?;
    let scope = scope(wallet, unit)?;
    let event_name = argument::event_name(event_name)?;
    let takes = ops::usage::preview(&customer_id, amount, &scope, event_name.as_ref())?;
    let rows = takes.into_iter().map(|(wallet, grant, credits)| (wallet.to_string(), argument::uuid(grant), credits));
    Ok(TableIterator::new(rows))
}

#[pg_extern]
fn refund_usage(
    customer_id: Option<&str>,
    transaction_id: Option<&str>,
    amount: default!(Option<NumericArgument>, "NULL"),
    reason: default!(Option<&str>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (name!(transaction_id, String), name!(refunded, Amount), name!(balance, Amount), name!(replayed, bool)),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let request = RefundUsage {
        transaction_id: TransactionId::checked("transaction_id", required("transaction_id", transaction_id)?)?,
        amount: optional("amount", amount, argument::amount)?,
        metadata: argument::reason(reason)?,
    };
    let done = ops::usage::refund(&customer_id, key.as_ref(), &request)?;
    Ok(TableIterator::once((done.transaction_id.to_string(), done.refunded, done.balance, done.replayed)))
}

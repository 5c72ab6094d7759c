//! `balance`, `balance_at`, `statement`, `verify_ledger`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, JsonText, TimeArgument, optional};
use crate::domain::amount::Amount;
use crate::domain::names::CustomerId;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::ops;

#[pg_extern(stable)]
fn balance(
    customer_id: Option<&str>,
    wallet: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(wallet, String),
            name!(unit, String),
            name!(balance, Amount),
            name!(held, Amount),
            name!(scheduled, Amount),
            name!(debt, Amount),
            name!(overage, Amount),
            name!(next_expiry_at, Option<Timestamp>),
            name!(next_expiry_credits, Option<Amount>),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = optional("wallet", wallet, argument::wallet_code)?;
    let rows = ops::reading::balances(&customer_id, wallet.as_ref())?.into_iter().map(|(wallet, next_expiry)| {
        let (next_expiry_at, next_expiry_credits) = next_expiry.unzip();
        (
            wallet.code.to_string(),
            wallet.unit,
            wallet.balance,
            wallet.held,
            wallet.scheduled,
            wallet.debt,
            wallet.overage,
            next_expiry_at,
            next_expiry_credits,
        )
    });
    Ok(TableIterator::new(rows))
}

#[pg_extern(stable)]
fn balance_at(customer_id: Option<&str>, wallet: Option<&str>, at: Option<TimeArgument>) -> Result<Amount, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = argument::wallet_code("wallet", wallet)?;
    let at = argument::instant("at", at)?;
    Ok(ops::reading::balance_at(&customer_id, &wallet, at)?)
}

#[pg_extern(stable)]
fn statement(
    customer_id: Option<&str>,
    wallet: Option<&str>,
    from_at: Option<TimeArgument>,
    to_at: Option<TimeArgument>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(seq, Option<i64>),
            name!(occurred_at, Timestamp),
            name!(kind, String),
            name!(amount, Option<Amount>),
            name!(balance, Amount),
            name!(transaction_id, Option<String>),
            name!(grant_id, Option<pgrx::Uuid>),
            name!(event_name, Option<String>),
            name!(metadata, Option<JsonText>),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = argument::wallet_code("wallet", wallet)?;
    let from_at = argument::instant("from_at", from_at)?;
    let to_at = argument::instant("to_at", to_at)?;
    if to_at < from_at {
        return Err(Error::invalid(
            "to_at",
            format!("{to_at} is before from_at, {from_at}"),
            "A statement runs from from_at to just before to_at.",
        )
        .into());
    }
    let statement = ops::reading::statement(&customer_id, &wallet, from_at, to_at)?;
    let frame = |at: Timestamp, kind: &str, balance: Amount| (None, at, kind.to_owned(), None, balance, None, None, None, None);
    let mut rows = vec![frame(from_at, "opening", statement.opening)];
    rows.extend(statement.entries.into_iter().map(|entry| {
        (
            Some(entry.seq),
            entry.occurred_at,
            entry.kind.name().to_owned(),
            Some(entry.amount()),
            entry.balance_after,
            Some(entry.transaction_id),
            entry.grant.map(argument::uuid),
            entry.event_name,
            entry.metadata.map(JsonText),
        )
    }));
    rows.push(frame(to_at, "closing", statement.closing));
    Ok(TableIterator::new(rows))
}

#[pg_extern(stable)]
fn verify_ledger(
    customer_id: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (name!(invariant, i32), name!(customer_id, String), name!(wallet, Option<String>), name!(detail, String)),
    >,
    ErrorReport,
> {
    let customer_id = customer_id.map(|id| CustomerId::checked("customer_id", id)).transpose()?;
    let violations = ops::verification::verify(customer_id.as_ref())?;
    Ok(TableIterator::new(
        violations.into_iter().map(|violation| (violation.invariant, violation.customer_id, violation.wallet, violation.detail)),
    ))
}

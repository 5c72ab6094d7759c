//! `close_overage`, `mark_invoiced`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, TimeArgument, UuidArgument, optional};
use crate::domain::amount::Amount;
use crate::domain::names::CustomerId;
use crate::domain::time::Timestamp;
use crate::ops;
use crate::ops::overage::NewLine;

#[pg_extern]
fn close_overage(
    customer_id: default!(Option<&str>, "NULL"),
    as_of: default!(Option<TimeArgument>, "NULL"),
    batch_size: default!(Option<i32>, "1000"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(line_id, pgrx::Uuid),
            name!(customer_id, String),
            name!(wallet, String),
            name!(kind, String),
            name!(quantity, Amount),
            name!(unit_price, Amount),
            name!(amount, Amount),
            name!(currency, String),
            name!(period_start, Timestamp),
            name!(period_end, Timestamp),
            name!(status, String),
            name!(invoice_reference, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let customer_id = customer_id.map(|id| CustomerId::checked("customer_id", id)).transpose()?;
    let as_of = optional("as_of", as_of, argument::instant)?;
    let lines = ops::overage::close(customer_id.as_ref(), as_of, argument::batch_size(batch_size)?)?;
    let row = |(customer_id, line): NewLine| {
        (
            argument::uuid(line.line_id),
            customer_id.to_string(),
            line.wallet.to_string(),
            line.kind.code().to_owned(),
            line.quantity,
            line.unit_price,
            line.amount,
            line.currency,
            line.period_start,
            line.period_end,
            "open".to_owned(),
            None,
        )
    };
    Ok(TableIterator::new(lines.into_iter().map(row)))
}

#[pg_extern]
fn mark_invoiced(
    customer_id: Option<&str>,
    line_id: Option<UuidArgument>,
    invoice_reference: Option<&str>,
) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let line = argument::id("line_id", line_id)?;
    ops::overage::mark_invoiced(&customer_id, line, &argument::name("invoice_reference", invoice_reference)?)?;
    Ok(argument::uuid(line))
}

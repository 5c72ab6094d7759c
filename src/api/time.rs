//! `clock`, `expire_grants`, `run_maintenance`, `chart_of_accounts`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments as argument;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::domain::time::Timestamp;
use crate::ops;
use crate::storage;

/// Labelled stable so that it can be compared with an index; it is read anew by every statement.
#[pg_extern(stable, parallel_restricted)]
fn clock() -> Result<Timestamp, ErrorReport> {
    Ok(storage::clock::now()?)
}

#[pg_extern]
fn expire_grants(
    batch_size: default!(Option<i32>, "1000"),
) -> Result<
    TableIterator<
        'static,
        (name!(customers_settled, i64), name!(grants_expired, i64), name!(credits_expired, Amount), name!(more_due, bool)),
    >,
    ErrorReport,
> {
    let settled = ops::maintenance::settle_due(argument::batch_size(batch_size)?)?;
    let expired = settled.of(Kind::Expiration);
    Ok(TableIterator::once((settled.customers, expired.entries, expired.credits, settled.more_due)))
}

#[pg_extern]
fn run_maintenance(
    batch_size: default!(Option<i32>, "1000"),
) -> Result<
    TableIterator<'static, (name!(task, String), name!(items, i64), name!(credits, Amount), name!(more_due, bool))>,
    ErrorReport,
> {
    let settled = ops::maintenance::settle_due(argument::batch_size(batch_size)?)?;
    let tasks =
        [("activate_grants", Kind::GrantActivated), ("expire_grants", Kind::Expiration), ("repay_debt", Kind::OverdraftRepaid)];
    Ok(TableIterator::new(tasks.map(|(task, kind)| {
        let done = settled.of(kind);
        (task.to_owned(), done.entries, done.credits, settled.more_due)
    })))
}

#[pg_extern(immutable, parallel_safe)]
fn chart_of_accounts()
-> TableIterator<'static, (name!(kind_id, i16), name!(kind, String), name!(debit_account, String), name!(credit_account, String))>
{
    TableIterator::new(Kind::ALL.iter().map(|kind| {
        let (debit, credit) = kind.accounts();
        (*kind as i16, kind.name().to_owned(), debit.name().to_owned(), credit.name().to_owned())
    }))
}

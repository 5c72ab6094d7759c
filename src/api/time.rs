//! `clock`, `expire_grants`, `renew_grants`, `run_maintenance`, `chart_of_accounts`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments as argument;
use super::batches::item;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::domain::time::Timestamp;
use crate::ops;
use crate::ops::maintenance::Task;
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
    let settled = ops::maintenance::settle_due(argument::batch_size(batch_size)?, Some(Task::ExpireGrants))?;
    let expired = settled.of(Task::ExpireGrants);
    Ok(TableIterator::once((settled.customers, expired.items, expired.credits, settled.more_due)))
}

#[pg_extern]
fn renew_grants(
    batch_size: default!(Option<i32>, "1000"),
) -> Result<
    TableIterator<
        'static,
        (name!(customers_settled, i64), name!(grants_renewed, i64), name!(credits_rolled_over, Amount), name!(more_due, bool)),
    >,
    ErrorReport,
> {
    let settled = ops::maintenance::settle_due(argument::batch_size(batch_size)?, Some(Task::RenewGrants))?;
    let renewed = settled.of(Task::RenewGrants);
    Ok(TableIterator::once((settled.customers, renewed.items, settled.rolled_over.credits, settled.more_due)))
}

#[pg_extern]
fn run_maintenance(
    batch_size: default!(Option<i32>, "1000"),
) -> Result<
    TableIterator<'static, (name!(task, String), name!(items, i64), name!(credits, Amount), name!(more_due, bool))>,
    ErrorReport,
> {
    let batch_size = argument::batch_size(batch_size)?;
    let settled = ops::maintenance::settle_due(batch_size, None)?;
    let inbox = ops::inbox::process(batch_size, item)?;
    let mut rows: Vec<_> = Task::ALL
        .map(|task| {
            let done = settled.of(task);
            (task.code().to_owned(), done.items, done.credits, settled.more_due)
        })
        .into();
    rows.push((ops::inbox::TASK.to_owned(), inbox.items(), inbox.credits, inbox.more_due));
    let noticed = ops::notices::notice_expiring(batch_size)?;
    rows.push((ops::notices::TASK.to_owned(), noticed.grants, noticed.credits, noticed.more_due));
    let purged = ops::webhooks::purge(batch_size)?;
    rows.push((ops::webhooks::TASK.to_owned(), purged, Amount::ZERO, purged == batch_size));
    Ok(TableIterator::new(rows))
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

//! The use cases: lock -> settle -> plan -> apply -> append.
//!
//! [`change`] is the one staircase down for whatever writes: it takes the customer's lock, loads the book, settles what fell due,
//! lets the domain decide, and stores each changed row once. [`read`] is the same without the lock and without the last step, so
//! that what is read is exactly what settling at this instant would leave.

pub mod alerts;
pub mod batch;
pub mod contracts;
pub mod grants;
pub mod holds;
pub mod inbox;
pub mod maintenance;
pub mod metering;
pub mod notices;
pub mod overage;
pub mod reading;
pub mod recurring;
pub mod top_ups;
pub mod usage;
pub mod verification;
pub mod wallets;
pub mod webhooks;

use crate::domain::book::Book;
use crate::domain::names::{CustomerId, TransactionId};
use crate::domain::reader::Ids;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::storage::ids::RandomIds;
use crate::storage::statement::{Access, connected};
use crate::storage::wallets::{self as stored_wallets, CustomerTime};
use crate::storage::{books, clock};

/// Changes a customer's book under its lock.
fn change<T>(customer_id: &CustomerId, work: impl FnOnce(&mut Book<'_>) -> Result<T>) -> Result<T> {
    let time = stored_wallets::lock(customer_id).ok_or_else(|| no_wallet(customer_id))?;
    books::with_settled(Access::Write, customer_id, time, work)
}

/// The id of a call's transaction: its key, or a new one.
fn id_of(key: Option<&TransactionId>) -> Result<TransactionId> {
    Ok(match key {
        Some(key) => key.clone(),
        None => TransactionId::stored(RandomIds.uuid(clock::now()?).to_string().into()),
    })
}

/// Reads a customer's book, settled in memory up to now, or up to a later instant; none if the customer has no wallet.
fn read<T>(
    customer_id: &CustomerId,
    until: Option<Timestamp>,
    work: impl FnOnce(&mut Book<'_>) -> Result<T>,
) -> Result<Option<T>> {
    connected(|| {
        let Some(time) = stored_wallets::glance(customer_id) else {
            return Ok(None);
        };
        let time = CustomerTime { now: until.map_or(time.now, |until| until.max(time.now)), ..time };
        books::with_settled(Access::Read, customer_id, time, work).map(Some)
    })
}

fn no_wallet(customer_id: &CustomerId) -> Error {
    Error::NotFound {
        what: "wallet",
        name: format!("of customer \"{customer_id}\""),
        hint: "A customer exists once it has a wallet: credits.create_wallet(customer_id).".into(),
    }
}

//! Creating and dropping alerts.

use uuid::Uuid;

use super::{change, connected};
use crate::domain::names::CustomerId;
use crate::domain::reader::Ids;
use crate::domain::watch::{self, Alert};
use crate::error::Result;
use crate::storage::ids::RandomIds;

/// The id of an alert to be.
pub fn new_id() -> Result<Uuid> {
    connected(|| Ok(RandomIds.uuid(crate::storage::clock::now()?)))
}

pub fn create(customer_id: &CustomerId, alert: Alert) -> Result<()> {
    connected(|| change(customer_id, |book| watch::create(book, alert)))
}

pub fn drop(customer_id: &CustomerId, id: Uuid) -> Result<()> {
    connected(|| change(customer_id, |book| watch::drop(book, id)))
}

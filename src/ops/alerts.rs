//! Creating and dropping alerts.

use uuid::Uuid;

use super::{change, connected};
use crate::domain::names::CustomerId;
use crate::domain::reader::Ids;
use crate::domain::watch::{self, Alert};
use crate::domain::webhook::{EndpointUrl, Secret};
use crate::error::Result;
use crate::storage::clock;
use crate::storage::endpoints::{self, NewEndpoint};
use crate::storage::ids::RandomIds;

/// The id of an alert to be.
pub fn new_id() -> Result<Uuid> {
    connected(|| Ok(RandomIds.uuid(clock::now()?)))
}

/// Creates an alert; its events go to an endpoint of its own too, if it has one.
pub fn create(customer_id: &CustomerId, alert: Alert, endpoint: Option<&(EndpointUrl, Secret)>) -> Result<()> {
    let id = alert.id;
    connected(|| {
        change(customer_id, |book| {
            watch::create(book, alert)?;
            // Before the book is stored: the alert may fire at once.
            if let Some((url, secret)) = endpoint {
                endpoints::create(&NewEndpoint { url, event_types: None, secret, alert: Some((customer_id, id)) });
            }
            Ok(())
        })
    })
}

/// Drops an alert, and its endpoint.
pub fn drop(customer_id: &CustomerId, id: Uuid) -> Result<()> {
    connected(|| {
        change(customer_id, |book| watch::drop(book, id))?;
        endpoints::drop_of_alert(customer_id, id);
        Ok(())
    })
}

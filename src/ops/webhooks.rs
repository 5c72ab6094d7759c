//! Webhook endpoints: who is told, and with which secret.

use uuid::Uuid;

use super::connected;
use crate::domain::event::EventType;
use crate::domain::time::Interval;
use crate::domain::webhook::{EndpointUrl, Secret};
use crate::error::{Error, Result};
use crate::settings;
use crate::storage::endpoints::{self, NewEndpoint};
use crate::storage::{clock, deliveries, jobs};

/// Subscribes a URL to events of all customers; of some types, or of all.
pub fn create_endpoint(url: &EndpointUrl, event_types: Option<&[EventType]>, secret: &Secret) -> Uuid {
    connected(|| endpoints::create(&NewEndpoint { url, event_types, secret, alert: None }))
}

/// Gives an endpoint another secret; the one it has goes on signing for `overlap`.
pub fn rotate_secret(endpoint_id: Uuid, secret: &Secret, overlap: Interval) -> Result<()> {
    if connected(|| endpoints::rotate(endpoint_id, secret, overlap)) {
        return Ok(());
    }
    Err(Error::NotFound {
        what: "webhook endpoint",
        name: endpoint_id.to_string(),
        hint: "credits.webhook_endpoints lists them.".into(),
    })
}

/// The name of purging among the tasks of maintenance.
pub const TASK: &str = "purge_events";

/// Deletes up to `events_max` events, with their deliveries, that are older than `credits.event_retention`; returns how many.
pub fn purge(events_max: i64) -> Result<i64> {
    const MICROSECONDS_A_DAY: i64 = 86_400_000_000;
    connected(|| {
        let retention = i64::from(settings::EVENT_RETENTION.get()) * MICROSECONDS_A_DAY;
        let purged = deliveries::purge(clock::real().plus_microseconds(-retention), events_max);
        jobs::record(clock::now()?, &[(TASK, purged)]);
        Ok(purged)
    })
}

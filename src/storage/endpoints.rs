//! Webhook endpoints and their secrets.

use pgrx::pg_sys;
use uuid::Uuid;

use super::clock;
use super::codec::{Codec, text, texts};
use super::ids::RandomIds;
use super::statement::{Access, statements};
use crate::domain::event::EventType;
use crate::domain::names::CustomerId;
use crate::domain::reader::Ids as _;
use crate::domain::time::Interval;
use crate::domain::webhook::{EndpointUrl, Secret};

statements! {
    CREATE(UUIDOID, TEXTOID, UUIDOID, TEXTOID, TEXTARRAYOID, TEXTOID) = "
        insert into credits_data.webhook_endpoints (created_at, endpoint_id, customer_id, alert_id, url, event_types, secret)
        values (clock_timestamp(), $1, $2, $3, $4, $5, $6)";

    /// Index scan on webhook_endpoints_pkey.
    ROTATE(UUIDOID, TEXTOID, INTERVALOID) = "
        update credits_data.webhook_endpoints
        set previous_secret = secret,
            previous_secret_until = clock_timestamp() + $3,
            secret = $2
        where endpoint_id = $1";

    /// Removes the endpoint of an alert, and gives up what is pending for it. Index scan on webhook_endpoints_alert.
    DROP_OF_ALERT(TEXTOID, UUIDOID) = "
        with dropped as (
            delete from credits_data.webhook_endpoints
            where customer_id = $1
              and alert_id = $2
            returning endpoint_id
        )
        select credits_data.bury_deliveries(endpoint_id, 'the alert was dropped')
        from dropped";
}

/// An endpoint to be.
#[derive(Debug)]
pub struct NewEndpoint<'a> {
    pub url: &'a EndpointUrl,
    /// None is all.
    pub event_types: Option<&'a [EventType]>,
    pub secret: &'a Secret,
    /// The alert whose events it gets, and only those; none for an endpoint of all customers' events.
    pub alert: Option<(&'a CustomerId, Uuid)>,
}

/// Writes an endpoint and returns its id.
pub fn create(endpoint: &NewEndpoint<'_>) -> Uuid {
    let endpoint_id = RandomIds.uuid(clock::real());
    let types = endpoint.event_types.map(|types| texts(types.iter().map(|event_type| Some(event_type.code()))));
    let parameters = [
        Some(endpoint_id.encode()),
        endpoint.alert.map(|(customer_id, _)| text(customer_id.as_str())),
        endpoint.alert.map(|(_, alert_id)| alert_id.encode()),
        Some(text(endpoint.url.as_str())),
        types,
        Some(text(endpoint.secret.as_str())),
    ];
    CREATE.with(|statement| statement.run(Access::Write, &parameters));
    endpoint_id
}

/// Removes the endpoint of an alert, if it has one.
pub fn drop_of_alert(customer_id: &CustomerId, alert_id: Uuid) {
    let parameters = [Some(text(customer_id.as_str())), Some(alert_id.encode())];
    DROP_OF_ALERT.with(|statement| statement.run(Access::Write, &parameters));
}

/// Gives an endpoint another secret; the one it has goes on signing for `overlap`. Returns whether there is such an endpoint.
pub fn rotate(endpoint_id: Uuid, secret: &Secret, overlap: Interval) -> bool {
    let parameters = [Some(endpoint_id.encode()), Some(text(secret.as_str())), Some(overlap.encode())];
    ROTATE.with(|statement| statement.run(Access::Write, &parameters)).count() > 0
}

impl Secret {
    /// Of 32 bytes from PostgreSQL's strong random source.
    pub fn generate() -> Self {
        let mut key = [0_u8; 32];
        // SAFETY: fills exactly the buffer.
        let filled = unsafe { pg_sys::pg_strong_random(key.as_mut_ptr().cast(), key.len()) };
        assert!(filled, "no random bytes");
        Self::of(key)
    }
}

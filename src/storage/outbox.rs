//! The outbox: events in the transaction of what they tell, and a delivery for each endpoint that subscribes.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::codec::{array, texts};
use super::ids::RandomIds;
use super::statement::{Access, Row, statements};
use crate::domain::book::Book;
use crate::domain::chart::Kind;
use crate::domain::event::{Event, EventType};
use crate::domain::reader::Ids;
use crate::settings;

statements! {
    /// The endpoints in use that get the events of all customers. Index scan on webhook_endpoints_general.
    ENDPOINTS() = "
        select endpoint_id, event_types, alert_id
        from credits_data.webhook_endpoints
        where disabled_at is null
          and alert_id is null
          and endpoint_id >= '00000000-0000-0000-0000-000000000000'";

    /// Those of some alerts. Index scan on webhook_endpoints_alert for each.
    OF_ALERTS(TEXTARRAYOID, UUIDARRAYOID) = "
        select e.endpoint_id, e.event_types, e.alert_id
        from (
            select unnest($1) as customer_id, unnest($2) as alert_id
        ) n
        cross join lateral (
            select i.endpoint_id, i.event_types, i.alert_id
            from credits_data.webhook_endpoints i
            where i.customer_id = n.customer_id
              and i.alert_id = n.alert_id
              and i.disabled_at is null
            offset 0
        ) e";

    /// Appends events in their order.
    APPEND(TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID) = "
        insert into credits_data.events (event_id, type, customer_id, created_at, payload)
        select event_id, type, customer_id, created_at, payload::jsonb
        from (
            select unnest($1) as event_id, unnest($2) as type, unnest($3) as customer_id, unnest($4) as created_at,
                   unnest($5) as payload
        ) n
        returning event_number";

    QUEUE(UUIDARRAYOID, UUIDARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID) = "
        insert into credits_data.webhook_deliveries (delivery_id, endpoint_id, event_number, event_id, customer_id)
        select unnest($1), unnest($2), unnest($3), unnest($4), unnest($5)";
}

struct Endpoint {
    id: Uuid,
    event_types: Option<Vec<String>>,
    alert: Option<Uuid>,
}

impl Endpoint {
    fn subscribes(&self, event: &Event) -> bool {
        match self.alert {
            Some(alert) => event.alert == Some(alert),
            None => self.subscribes_to(event.event_type),
        }
    }

    /// Whether it gets events of a type of all customers.
    fn subscribes_to(&self, event_type: EventType) -> bool {
        let types = self.event_types.as_ref();
        self.alert.is_none() && types.is_none_or(|types| types.iter().any(|code| code == event_type.code()))
    }
}

/// Whether events of a type are written for somebody.
pub fn is_subscribed(event_type: EventType) -> bool {
    settings::PULL_EVENTS.get() || endpoints(&[]).iter().any(|endpoint| endpoint.subscribes_to(event_type))
}

/// Whether an entry may be an event's.
fn is_told(kind: Kind) -> bool {
    matches!(kind, Kind::Grant | Kind::GrantScheduled | Kind::Expiration)
}

/// Writes the events of some books that somebody subscribes to.
pub fn write(books: &[&Book<'_>]) {
    let has_any = |book: &&Book<'_>| !book.events.is_empty() || book.entries.iter().any(|entry| is_told(entry.movement.kind));
    if !books.iter().any(has_any) {
        return;
    }
    let endpoints = endpoints(books);
    let pulls = settings::PULL_EVENTS.get();
    let is_wanted = |event: &Event| event.is_subscribed || pulls || endpoints.iter().any(|endpoint| endpoint.subscribes(event));
    let mut written: Vec<(&Book<'_>, Event, String)> = Vec::new();
    for book in books {
        for event in events(book, pulls, &endpoints).into_iter().filter(is_wanted) {
            let id = format!("evt_{}", RandomIds.uuid(event.at).simple());
            written.push((book, event, id));
        }
    }
    if written.is_empty() {
        return;
    }
    let parameters = [
        Some(texts(written.iter().map(|(_, _, id)| Some(id.as_str())))),
        Some(texts(written.iter().map(|(_, event, _)| Some(event.event_type.code())))),
        Some(texts(written.iter().map(|(book, _, _)| Some(book.customer_id.as_str())))),
        Some(array(written.iter().map(|(_, event, _)| Some(event.at)))),
        Some(array(written.iter().map(|(book, event, _)| Some(event.payload(book))))),
    ];
    let rows = APPEND.with(|statement| statement.run(Access::Write, &parameters));
    let numbers: Vec<i64> = rows.iter().map(|mut row| row.take()).collect();
    queue(&endpoints, &written, &numbers);
}

fn endpoints(books: &[&Book<'_>]) -> Vec<Endpoint> {
    let read = |mut row: Row<'_>| Endpoint { id: row.take(), event_types: row.optional(), alert: row.optional() };
    let rows = ENDPOINTS.with(|statement| statement.run(Access::Write, &[]));
    let mut endpoints: Vec<Endpoint> = rows.iter().map(read).collect();
    let alerts: BTreeSet<(&str, Uuid)> = books
        .iter()
        .flat_map(|book| book.events.iter().filter_map(|event| Some((book.customer_id.as_str(), event.alert?))))
        .collect();
    if !alerts.is_empty() {
        let parameters = [
            Some(texts(alerts.iter().map(|(customer_id, _)| Some(*customer_id)))),
            Some(array(alerts.iter().map(|(_, alert)| Some(*alert)))),
        ];
        endpoints.extend(OF_ALERTS.with(|statement| statement.run(Access::Write, &parameters)).iter().map(read));
    }
    endpoints
}

/// A book's events in the order in which things happened. Those of entries are made only if somebody may want them.
fn events(book: &Book<'_>, pulls: bool, endpoints: &[Endpoint]) -> Vec<Event> {
    let subscribes = |event_type| pulls || endpoints.iter().any(|endpoint| endpoint.subscribes_to(event_type));
    let (created, expired) = (subscribes(EventType::GrantCreated), subscribes(EventType::GrantExpired));
    let mut events = Vec::new();
    for (index, entry) in book.entries.iter().enumerate() {
        let event = match entry.movement.kind {
            Kind::Grant | Kind::GrantScheduled if created => book.grant_created(entry),
            Kind::Expiration if expired && entry.movement.credits.is_positive() => book.grant_expired(entry),
            _ => None,
        };
        if let Some(mut event) = event {
            event.after_entries = index + 1;
            events.push(event);
        }
    }
    events.extend(book.events.iter().cloned());
    events.sort_by_key(|event| event.after_entries);
    events
}

fn queue(endpoints: &[Endpoint], written: &[(&Book<'_>, Event, String)], numbers: &[i64]) {
    let mut deliveries = Vec::new();
    for ((book, event, id), number) in written.iter().zip(numbers) {
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.subscribes(event)) {
            deliveries.push((RandomIds.uuid(event.at), endpoint.id, *number, id.as_str(), book.customer_id.as_str()));
        }
    }
    if deliveries.is_empty() {
        return;
    }
    let parameters = [
        Some(array(deliveries.iter().map(|delivery| Some(delivery.0)))),
        Some(array(deliveries.iter().map(|delivery| Some(delivery.1)))),
        Some(array(deliveries.iter().map(|delivery| Some(delivery.2)))),
        Some(texts(deliveries.iter().map(|delivery| Some(delivery.3)))),
        Some(texts(deliveries.iter().map(|delivery| Some(delivery.4)))),
    ];
    QUEUE.with(|statement| statement.run(Access::Write, &parameters));
}

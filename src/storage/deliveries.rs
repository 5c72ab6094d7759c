//! Deliveries of events to webhook endpoints, for the worker: what is due, and what came of it. All of it goes by real time.

use std::collections::HashSet;

use uuid::Uuid;

use super::codec::{Codec, array, text, texts};
use super::statement::{Access, Row, Statement, statements};
use crate::domain::time::Timestamp;

statements! {
    /// Endpoints in use, of a range, that have something due: a walk over webhook_deliveries_due that takes one step for each endpoint
    /// with pending deliveries, and stops when enough are found.
    DUE_ENDPOINTS(UUIDOID, UUIDOID, UUIDARRAYOID, TIMESTAMPTZOID, INT8OID) = "
        with recursive waiting as (
            (select d.endpoint_id
             from credits_data.webhook_deliveries d
             where d.status = 'pending'
               and d.endpoint_id > $1
               and d.endpoint_id <= $2
             order by d.endpoint_id
             limit 1)
            union all
            select (select d.endpoint_id
                    from credits_data.webhook_deliveries d
                    where d.status = 'pending'
                      and d.endpoint_id > w.endpoint_id
                      and d.endpoint_id <= $2
                    order by d.endpoint_id
                    limit 1)
            from waiting w
            where w.endpoint_id is not null
        )
        select e.endpoint_id,
               e.url,
               e.secret,
               case when e.previous_secret_until > $4 then e.previous_secret end
        from waiting w
        cross join lateral (
            select i.endpoint_id, i.url, i.secret, i.previous_secret, i.previous_secret_until
            from credits_data.webhook_endpoints i
            where i.endpoint_id = w.endpoint_id
              and i.disabled_at is null
            offset 0
        ) e
        cross join lateral (
            select
            from credits_data.webhook_deliveries d
            where d.endpoint_id = e.endpoint_id
              and d.status = 'pending'
              and d.next_attempt_at <= $4
            limit 1
        ) due
        where e.endpoint_id <> all ($3)
        limit $5";

    /// Leases what is longest due of an endpoint. Index scan on webhook_deliveries_due; what another session has locked (a replay)
    /// is left.
    CLAIM(UUIDOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID) = "
        with due as materialized (
            select d.delivery_id
            from credits_data.webhook_deliveries d
            where d.endpoint_id = $1
              and d.status = 'pending'
              and d.next_attempt_at <= $2
            order by d.next_attempt_at, d.event_number
            limit $3
            for update skip locked
        ), leased as (
            update credits_data.webhook_deliveries d
            set next_attempt_at = $4
            from due
            where d.delivery_id = due.delivery_id
            returning d.event_number, d.delivery_id, d.event_id, d.attempts
        )
        select l.event_number, l.delivery_id, l.event_id, l.attempts, e.payload
        from leased l
        cross join lateral (
            select i.payload::text as payload
            from credits_data.events i
            where i.event_number = l.event_number
            offset 0
        ) e";

    /// Those that no other session has locked. Index scan on webhook_endpoints_pkey for each.
    LOCK_ENDPOINTS(UUIDARRAYOID) = "
        select e.endpoint_id
        from unnest($1) as n (endpoint_id)
        cross join lateral (
            select i.endpoint_id
            from credits_data.webhook_endpoints i
            where i.endpoint_id = n.endpoint_id
            for no key update skip locked
        ) e";

    /// Those that there are. Index scan on webhook_endpoints_pkey for each.
    KNOWN_ENDPOINTS(UUIDARRAYOID) = "
        select e.endpoint_id
        from unnest($1) as n (endpoint_id)
        cross join lateral (
            select i.endpoint_id
            from credits_data.webhook_endpoints i
            where i.endpoint_id = n.endpoint_id
            offset 0
        ) e";

    /// A delivery that has meanwhile been given up stays so, unless it did arrive.
    RECORD(UUIDARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID) = "
        update credits_data.webhook_deliveries d
        set status = n.status::credits_data.delivery_status,
            attempts = d.attempts + 1,
            attempted_at = n.attempted_at,
            next_attempt_at = n.next_attempt_at,
            delivered_at = case when n.status = 'delivered' then n.attempted_at end,
            last_status = n.last_status,
            last_error = n.last_error
        from (
            select unnest($1) as delivery_id,
                   unnest($2) as status,
                   unnest($3) as attempted_at,
                   unnest($4) as next_attempt_at,
                   unnest($5) as last_status,
                   unnest($6) as last_error
        ) n
        where d.delivery_id = n.delivery_id
          and (d.status = 'pending' or n.status = 'delivered')";

    RELEASE(UUIDARRAYOID, TIMESTAMPTZOID) = "
        update credits_data.webhook_deliveries d
        set next_attempt_at = $2
        from (
            select unnest($1) as delivery_id
        ) n
        where d.delivery_id = n.delivery_id
          and d.status = 'pending'";

    DISABLE(UUIDOID, TEXTOID) = "
        update credits_data.webhook_endpoints
        set disabled_at = clock_timestamp(),
            disabled_reason = $2
        where endpoint_id = $1
          and disabled_at is null";

    BURY(UUIDOID, TEXTOID) = "select credits_data.bury_deliveries($1, $2)";

    PURGE(TIMESTAMPTZOID, INT8OID) = "select credits_data.purge_events($1, $2)";
}

/// An endpoint that has something due.
#[derive(Debug)]
pub struct Endpoint {
    pub endpoint_id: Uuid,
    pub url: String,
    /// What signs: the current secret, and the previous one during a rotation.
    pub secrets: Vec<String>,
}

/// Up to `endpoints_max` endpoints that have something due, in the order of their ids, of those after `after` and up to `last`,
/// without `busy` ones.
pub fn due_endpoints(after: Uuid, last: Uuid, busy: &[Uuid], now: Timestamp, endpoints_max: usize) -> Vec<Endpoint> {
    let parameters = [
        Some(after.encode()),
        Some(last.encode()),
        Some(array(busy.iter().copied().map(Some))),
        Some(now.encode()),
        Some((endpoints_max as i64).encode()),
    ];
    let read = |mut row: Row<'_>| {
        let (endpoint_id, url, secret) = (row.take(), row.take(), row.take());
        Endpoint { endpoint_id, url, secrets: std::iter::once(secret).chain(row.optional()).collect() }
    };
    DUE_ENDPOINTS.with(|statement| statement.run(Access::Write, &parameters)).iter().map(read).collect()
}

/// A delivery under lease.
#[derive(Debug)]
pub struct Claimed {
    pub event_number: i64,
    pub delivery_id: Uuid,
    pub event_id: String,
    pub attempts: i32,
    /// The payload as text, the same in every attempt.
    pub body: String,
}

/// Takes up to `deliveries_max` deliveries of an endpoint that are due, until `lease_until`; in the order of their events.
pub fn claim(endpoint_id: Uuid, now: Timestamp, deliveries_max: usize, lease_until: Timestamp) -> Vec<Claimed> {
    let parameters =
        [Some(endpoint_id.encode()), Some(now.encode()), Some((deliveries_max as i64).encode()), Some(lease_until.encode())];
    let read = |mut row: Row<'_>| Claimed {
        event_number: row.take(),
        delivery_id: row.take(),
        event_id: row.take(),
        attempts: row.take(),
        body: row.take(),
    };
    let rows = CLAIM.with(|statement| statement.run(Access::Write, &parameters));
    let mut claimed: Vec<Claimed> = rows.iter().map(read).collect();
    claimed.sort_by_key(|delivery| delivery.event_number);
    claimed
}

/// What an attempt came to.
#[derive(Debug)]
pub struct Outcome {
    pub delivery_id: Uuid,
    pub attempted_at: Timestamp,
    /// None if it arrived.
    pub error: Option<String>,
    /// HTTP status; none without an answer.
    pub status: Option<i32>,
    /// Of a failure: when it is attempted again; none if it is given up.
    pub next_attempt_at: Option<Timestamp>,
}

/// Locks endpoints, as whoever changes their deliveries does first, and returns those that another session has locked: nothing of
/// theirs may be changed, and nobody waits for it.
pub fn lock_endpoints(endpoint_ids: &HashSet<Uuid>) -> HashSet<Uuid> {
    let parameters = [Some(array(endpoint_ids.iter().copied().map(Some)))];
    let ids = |statement: &Statement| -> HashSet<Uuid> {
        statement.run(Access::Write, &parameters).iter().map(|mut row| row.take()).collect()
    };
    let locked = LOCK_ENDPOINTS.with(ids);
    if locked.len() == endpoint_ids.len() {
        return HashSet::new();
    }
    KNOWN_ENDPOINTS.with(ids).difference(&locked).copied().collect()
}

/// Records what attempts came to.
pub fn record(outcomes: &[Outcome]) {
    if outcomes.is_empty() {
        return;
    }
    let status = |outcome: &Outcome| match (&outcome.error, outcome.next_attempt_at) {
        (None, _) => "delivered",
        (Some(_), Some(_)) => "pending",
        (Some(_), None) => "dead",
    };
    let parameters = [
        Some(array(outcomes.iter().map(|outcome| Some(outcome.delivery_id)))),
        Some(texts(outcomes.iter().map(|outcome| Some(status(outcome))))),
        Some(array(outcomes.iter().map(|outcome| Some(outcome.attempted_at)))),
        Some(array(outcomes.iter().map(|outcome| Some(outcome.next_attempt_at.unwrap_or(outcome.attempted_at))))),
        Some(array(outcomes.iter().map(|outcome| outcome.status))),
        Some(texts(outcomes.iter().map(|outcome| outcome.error.as_deref()))),
    ];
    RECORD.with(|statement| statement.run(Access::Write, &parameters));
}

/// Gives deliveries back that were not attempted, to be attempted from an instant on.
pub fn release(delivery_ids: &[Uuid], from: Timestamp) {
    if delivery_ids.is_empty() {
        return;
    }
    let parameters = [Some(array(delivery_ids.iter().copied().map(Some))), Some(from.encode())];
    RELEASE.with(|statement| statement.run(Access::Write, &parameters));
}

/// Disables an endpoint and gives up what is pending for it; returns whether it was in use.
pub fn disable(endpoint_id: Uuid, reason: &str) -> bool {
    let parameters = [Some(endpoint_id.encode()), Some(text(reason))];
    let was_enabled = DISABLE.with(|statement| statement.run(Access::Write, &parameters)).count() > 0;
    if was_enabled {
        BURY.with(|statement| statement.run(Access::Write, &parameters));
    }
    was_enabled
}

/// Deletes up to `events_max` events that were written before an instant, with their deliveries, but for those still to be
/// delivered to an endpoint in use; returns how many events.
pub fn purge(written_before: Timestamp, events_max: i64) -> i64 {
    let parameters = [Some(written_before.encode()), Some(events_max.encode())];
    PURGE.with(|statement| statement.run(Access::Write, &parameters)).first().map_or(0, |mut row| row.take())
}

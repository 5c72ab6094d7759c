-- What the world outside hears: events, written in the transaction of what they tell, and their deliveries to webhook endpoints.
-- Leases, attempts and signatures go by real time, whatever clock the ledger is on.
create type credits_data.delivery_status as enum ('pending', 'delivered', 'dead');
comment on type credits_data.delivery_status is 'What became of a delivery: to be attempted (again), answered with 2xx, or given up.';

create table credits_data.webhook_endpoints (
    created_at timestamptz not null,
    disabled_at timestamptz,
    previous_secret_until timestamptz,
    endpoint_id uuid primary key,
    alert_id uuid,
    customer_id text collate "C",
    url text not null,
    event_types text[],
    secret text not null,
    previous_secret text,
    disabled_reason text
);
-- Those of all customers, a handful, however many alerts have one.
create index webhook_endpoints_general on credits_data.webhook_endpoints (endpoint_id) where alert_id is null and disabled_at is null;
create unique index webhook_endpoints_alert on credits_data.webhook_endpoints (customer_id, alert_id) where alert_id is not null;
comment on table credits_data.webhook_endpoints is 'Where events are POSTed to. An endpoint of an alert gets that alert''s events only, every other one those of all customers.';
comment on column credits_data.webhook_endpoints.endpoint_id is 'UUIDv7.';
comment on column credits_data.webhook_endpoints.customer_id is 'Of an alert''s endpoint: the customer.';
comment on column credits_data.webhook_endpoints.alert_id is 'Of an alert''s endpoint: the alert.';
comment on column credits_data.webhook_endpoints.url is 'An https address, of a host that is public or that credits.webhook_allowed_hosts names.';
comment on column credits_data.webhook_endpoints.event_types is 'The types it subscribes to; null is all.';
comment on column credits_data.webhook_endpoints.secret is 'Signs its deliveries: whsec_ and base64, as Standard Webhooks writes it. For the owner only.';
comment on column credits_data.webhook_endpoints.previous_secret is 'The secret before a rotation, which signs too until previous_secret_until.';
comment on column credits_data.webhook_endpoints.previous_secret_until is 'When the previous secret stops signing.';
comment on column credits_data.webhook_endpoints.disabled_at is 'Since when nothing is sent to it; null while it is in use.';
comment on column credits_data.webhook_endpoints.disabled_reason is 'Why.';
comment on column credits_data.webhook_endpoints.created_at is 'When it was created.';

create table credits_data.events (
    event_number bigint generated always as identity primary key,
    created_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    leased_until timestamptz,
    acknowledged_at timestamptz,
    event_id text collate "C" not null unique,
    type text collate "C" not null,
    customer_id text collate "C" not null,
    payload jsonb not null
);
create index events_written on credits_data.events (written_at);
create index events_to_pull on credits_data.events (event_number) where acknowledged_at is null;
comment on table credits_data.events is 'The outbox: what happened, for claim_events and for the endpoints that subscribe.';
comment on column credits_data.events.event_number is 'The order in which events were written; that of one customer is the order in which things happened.';
comment on column credits_data.events.event_id is 'Its constant id, webhook-id of every attempt.';
comment on column credits_data.events.type is 'Such as wallet.balance_low.';
comment on column credits_data.events.customer_id is 'Whose wallet it is about.';
comment on column credits_data.events.payload is 'The body: type, timestamp, data.';
comment on column credits_data.events.created_at is 'When it happened, by credits.clock().';
comment on column credits_data.events.written_at is 'When it was written, in real time.';
comment on column credits_data.events.leased_until is 'Until then whoever claimed it has time to acknowledge it.';
comment on column credits_data.events.acknowledged_at is 'When ack_events was called for it; null if never.';

create table credits_data.webhook_deliveries (
    event_number bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    next_attempt_at timestamptz not null default clock_timestamp(),
    attempted_at timestamptz,
    delivered_at timestamptz,
    attempts integer not null default 0,
    last_status integer,
    status credits_data.delivery_status not null default 'pending',
    delivery_id uuid primary key,
    endpoint_id uuid not null,
    event_id text collate "C" not null,
    customer_id text collate "C" not null,
    last_error text
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index webhook_deliveries_due on credits_data.webhook_deliveries (endpoint_id, next_attempt_at, event_number)
    where status = 'pending';
create index webhook_deliveries_dead on credits_data.webhook_deliveries (endpoint_id) where status = 'dead';
create index webhook_deliveries_event on credits_data.webhook_deliveries (event_id);
comment on table credits_data.webhook_deliveries is 'An event to be delivered to an endpoint: one row for each endpoint that subscribed when it was written.';
comment on column credits_data.webhook_deliveries.delivery_id is 'UUIDv7.';
comment on column credits_data.webhook_deliveries.event_id is 'The event.';
comment on column credits_data.webhook_deliveries.event_number is 'Its number, for the order.';
comment on column credits_data.webhook_deliveries.endpoint_id is 'The endpoint.';
comment on column credits_data.webhook_deliveries.customer_id is 'Whose wallet the event is about.';
comment on column credits_data.webhook_deliveries.status is 'pending, delivered or dead.';
comment on column credits_data.webhook_deliveries.attempts is 'How often it was attempted, since it was last replayed.';
comment on column credits_data.webhook_deliveries.next_attempt_at is 'When it is attempted next; while an attempt runs, when it counts as lost.';
comment on column credits_data.webhook_deliveries.attempted_at is 'When the last attempt ended.';
comment on column credits_data.webhook_deliveries.delivered_at is 'When it was answered with 2xx.';
comment on column credits_data.webhook_deliveries.last_status is 'HTTP status of the last answer; null if there was none.';
comment on column credits_data.webhook_deliveries.last_error is 'What went wrong with the last attempt.';
comment on column credits_data.webhook_deliveries.created_at is 'When it was queued, in real time.';

comment on index credits_data.webhook_endpoints_pkey is 'An endpoint by its id.';
comment on index credits_data.webhook_endpoints_general is 'Endpoints in use that get the events of all customers.';
comment on index credits_data.webhook_endpoints_alert is 'The endpoint of an alert.';
comment on index credits_data.events_pkey is 'Events in the order in which they were written.';
comment on index credits_data.events_event_id_key is 'An event by its id.';
comment on index credits_data.events_to_pull is 'Events that nobody has acknowledged, the oldest first.';
comment on index credits_data.events_written is 'Old events, to be purged.';
comment on index credits_data.webhook_deliveries_pkey is 'A delivery by its id.';
comment on index credits_data.webhook_deliveries_due is 'What is to be attempted next, endpoint by endpoint.';
comment on index credits_data.webhook_deliveries_dead is 'What was given up, endpoint by endpoint.';
comment on index credits_data.webhook_deliveries_event is 'The deliveries of an event.';
comment on sequence credits_data.events_event_number_seq is 'Numbers events as they are written.';
comment on constraint webhook_endpoints_pkey on credits_data.webhook_endpoints is 'An endpoint by its id.';
comment on constraint events_pkey on credits_data.events is 'Events in the order in which they were written.';
comment on constraint events_event_id_key on credits_data.events is 'An event by its id.';
comment on constraint webhook_deliveries_pkey on credits_data.webhook_deliveries is 'A delivery by its id.';

select pg_catalog.pg_extension_config_dump('credits_data.webhook_endpoints', '');
select pg_catalog.pg_extension_config_dump('credits_data.events', '');
select pg_catalog.pg_extension_config_dump('credits_data.events_event_number_seq', '');
select pg_catalog.pg_extension_config_dump('credits_data.webhook_deliveries', '');

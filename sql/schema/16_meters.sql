-- What events cost: meters and their price lists belong to no customer, what they counted does.
create table credits_data.meters (
    anchor timestamptz not null,
    created_at timestamptz not null,
    period interval not null,
    aggregation credits_data.aggregation not null,
    meter credits_data.name primary key,
    event_name credits_data.name not null,
    unit credits_data.name not null,
    wallet text collate "C",
    value_property text collate "C",
    time_zone text collate "C" not null,
    filter jsonb not null
);
create index meters_event on credits_data.meters (event_name, meter);
comment on table credits_data.meters is 'What is counted of which events. A meter is never changed; its price lists are another table.';
comment on column credits_data.meters.meter is 'Its code.';
comment on column credits_data.meters.event_name is 'Name of the events it counts.';
comment on column credits_data.meters.aggregation is 'sum, count, max, unique or latest: how the events of a period make its aggregate.';
comment on column credits_data.meters.value_property is 'The property of an event that is counted; null counts events.';
comment on column credits_data.meters.filter is 'Properties that an event must have to be counted.';
comment on column credits_data.meters.period is 'Length of a period: months, days or hours.';
comment on column credits_data.meters.anchor is 'Start of period 0.';
comment on column credits_data.meters.time_zone is 'The zone whose calendar counts months and days.';
comment on column credits_data.meters.wallet is 'The wallet it charges; null is all of the unit.';
comment on column credits_data.meters.unit is 'The unit of the wallets it charges.';
comment on column credits_data.meters.created_at is 'When it was defined.';

create table credits_data.meter_prices (
    effective_at timestamptz not null,
    created_at timestamptz not null,
    meter credits_data.name not null,
    pricing jsonb not null,
    primary key (meter, effective_at)
);
comment on table credits_data.meter_prices is 'The price lists of a meter, each in force from an instant on.';
comment on column credits_data.meter_prices.meter is 'The meter.';
comment on column credits_data.meter_prices.effective_at is 'Events that happened at or after it are priced by this list; -infinity for the first.';
comment on column credits_data.meter_prices.pricing is 'The document.';
comment on column credits_data.meter_prices.created_at is 'When it was set.';

create table credits_data.customer_prices (
    effective_at timestamptz not null,
    created_at timestamptz not null,
    customer_id credits_data.name not null,
    meter credits_data.name not null,
    pricing jsonb not null,
    primary key (customer_id, meter, effective_at)
);
comment on table credits_data.customer_prices is 'A customer''s own price lists, which win over the meter''s from their instant on.';
comment on column credits_data.customer_prices.customer_id is 'Whose usage they price.';
comment on column credits_data.customer_prices.meter is 'The meter.';
comment on column credits_data.customer_prices.effective_at is 'Events that happened at or after it are priced by this list.';
comment on column credits_data.customer_prices.pricing is 'The document.';
comment on column credits_data.customer_prices.created_at is 'When it was set.';

-- Sessions keep meters in memory as long as the token is the one they were read under. Never a counter: a rolled back change and
-- another one would count the same.
create table credits_data.meter_catalog (
    token uuid not null default pg_catalog.gen_random_uuid(),
    is_one boolean primary key default true check (is_one)
);
insert into credits_data.meter_catalog default values;
comment on table credits_data.meter_catalog is 'One row, whose token is another one after every change of meters or meter_prices.';
comment on column credits_data.meter_catalog.token is 'Names the present state of the catalogue.';
comment on column credits_data.meter_catalog.is_one is 'There is one row.';
comment on constraint meter_catalog_is_one_check on credits_data.meter_catalog is 'There is one row.';

create function credits_data.renew_catalog()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update credits_data.meter_catalog set token = gen_random_uuid();
    return null;
end
$$;
comment on function credits_data.renew_catalog() is 'Gives the catalogue of meters another token, whoever changed it and how.';
create trigger meters_renew_catalog
    after insert or update or delete or truncate on credits_data.meters
    for each statement execute function credits_data.renew_catalog();
alter table credits_data.meters enable always trigger meters_renew_catalog;
create trigger meter_prices_renew_catalog
    after insert or update or delete or truncate on credits_data.meter_prices
    for each statement execute function credits_data.renew_catalog();
alter table credits_data.meter_prices enable always trigger meter_prices_renew_catalog;
comment on trigger meters_renew_catalog on credits_data.meters is 'Sessions must read the meters again.';
comment on trigger meter_prices_renew_catalog on credits_data.meter_prices is 'Sessions must read the price lists again.';

create table credits_data.meter_periods (
    period_start timestamptz not null,
    events bigint not null,
    arrivals bigint not null,
    latest_at timestamptz,
    customer_id text collate "C" not null,
    meter text collate "C" not null,
    rate text collate "C" not null,
    aggregate numeric not null,
    paid numeric not null,
    paid_left numeric,
    paid_by text collate "C",
    primary key (customer_id, meter, period_start, rate)
) with (fillfactor = 50);
comment on table credits_data.meter_periods is 'What a meter counted of a customer in a period, for each rate that matched.';
comment on column credits_data.meter_periods.customer_id is 'Whose usage.';
comment on column credits_data.meter_periods.meter is 'The meter.';
comment on column credits_data.meter_periods.period_start is 'Start of the period.';
comment on column credits_data.meter_periods.rate is 'The properties of the matched rate of a matrix as JSON, from the outer to the inner one; empty without a matrix.';
comment on column credits_data.meter_periods.aggregate is 'Sum, count, maximum, number of different values, or latest value of its events.';
comment on column credits_data.meter_periods.events is 'Events that make it.';
comment on column credits_data.meter_periods.arrivals is 'Events that ever came, those that were refunded in full included.';
comment on column credits_data.meter_periods.latest_at is 'When the event happened that a latest value is of.';
comment on column credits_data.meter_periods.paid is 'Credits that its events paid, less what was given back.';
comment on column credits_data.meter_periods.paid_by is 'Transaction of the last event that was charged and did not get all of it back: a fall of the price is given back there first.';
comment on column credits_data.meter_periods.paid_left is 'How much of its charge this meter may still give back; null is all of it.';

create table credits_data.meter_values (
    period_start timestamptz not null,
    arrival bigint not null,
    events bigint not null,
    customer_id text collate "C" not null,
    meter text collate "C" not null,
    rate text collate "C" not null,
    value text collate "C" not null,
    rank numeric not null,
    number numeric not null,
    primary key (customer_id, meter, period_start, rate, value, rank, arrival)
) with (fillfactor = 80);
comment on table credits_data.meter_values is 'The values behind a maximum, a number of different values or a latest value, so that an event can be taken out again.';
comment on column credits_data.meter_values.customer_id is 'Whose usage.';
comment on column credits_data.meter_values.meter is 'The meter.';
comment on column credits_data.meter_values.period_start is 'Start of the period.';
comment on column credits_data.meter_values.rate is 'As in meter_periods.';
comment on column credits_data.meter_values.value is 'The value, if different ones are counted; else empty.';
comment on column credits_data.meter_values.rank is 'The value, if the maximum is counted; if the latest, when it happened, in seconds since 2000.';
comment on column credits_data.meter_values.arrival is 'If the latest is counted: the order of arrival, from 1; if different values are: -1; else 0.';
comment on column credits_data.meter_values.number is 'What it counts as.';
comment on column credits_data.meter_values.events is 'How many events have it; zero if all of them were refunded in full.';

-- Usage events that wait to be charged. A queue, in schema credits since it may be COPY-ed into: the one table with rights for others.
create table credits.usage_inbox (
    customer_id text collate "C",
    event_id text collate "C",
    event_name text collate "C",
    properties jsonb default '{}',
    occurred_at timestamptz,
    inbox_id bigint generated always as identity primary key,
    received_at timestamptz not null default credits.clock(),
    error text,
    failed_at timestamptz,
    waits_for_credit bigint
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index usage_inbox_ready on credits.usage_inbox (inbox_id) where error is null;
create index usage_inbox_waiting on credits.usage_inbox (customer_id, inbox_id) where waits_for_credit is not null;
comment on table credits.usage_inbox is 'Usage events to be charged by process_inbox. INSERT or COPY the columns customer_id, event_id, event_name, properties and occurred_at; what is charged leaves, what is wrong stays with its error.';
comment on column credits.usage_inbox.customer_id is 'Whose usage.';
comment on column credits.usage_inbox.event_id is 'The idempotency key: an event of the same id and content is charged once. Null gives it an id of its own.';
comment on column credits.usage_inbox.event_name is 'Name of the event; its meters say what it costs.';
comment on column credits.usage_inbox.properties is 'Properties of the event, an object; null is an empty one.';
comment on column credits.usage_inbox.occurred_at is 'When it happened; null is received_at.';
comment on column credits.usage_inbox.inbox_id is 'The order of arrival.';
comment on column credits.usage_inbox.received_at is 'When it arrived.';
comment on column credits.usage_inbox.error is 'Why it could not be charged, as <symbol>: <message>; null if it has not been tried.';
comment on column credits.usage_inbox.failed_at is 'When that was.';
comment on column credits.usage_inbox.waits_for_credit is 'Of an event without credits: it is tried again when the customer''s credit_count is another one.';

comment on index credits_data.meters_pkey is 'A meter by its code.';
comment on index credits_data.meters_event is 'The meters of an event.';
comment on index credits_data.meter_prices_pkey is 'The price lists of a meter in the order in which they come into force.';
comment on index credits_data.customer_prices_pkey is 'A customer''s own price lists in the order in which they come into force.';
comment on index credits_data.meter_catalog_pkey is 'There is one row.';
comment on index credits_data.meter_periods_pkey is 'A period of a meter of a customer.';
comment on index credits_data.meter_values_pkey is 'The values of a period; the last one is its maximum, or its latest.';
comment on index credits.usage_inbox_pkey is 'The order of arrival.';
comment on index credits.usage_inbox_ready is 'What is to be charged, in the order of arrival.';
comment on index credits.usage_inbox_waiting is 'Customers whose events wait for credits.';
comment on sequence credits.usage_inbox_inbox_id_seq is 'Numbers the events of the inbox as they arrive.';
comment on constraint meters_pkey on credits_data.meters is 'A meter by its code.';
comment on constraint meter_prices_pkey on credits_data.meter_prices is 'A meter has one price list from an instant on.';
comment on constraint customer_prices_pkey on credits_data.customer_prices is 'A customer has one price list of a meter from an instant on.';
comment on constraint meter_catalog_pkey on credits_data.meter_catalog is 'There is one row.';
comment on constraint meter_periods_pkey on credits_data.meter_periods is 'A period of a meter of a customer.';
comment on constraint meter_values_pkey on credits_data.meter_values is 'A value of a period.';
comment on constraint usage_inbox_pkey on credits.usage_inbox is 'The order of arrival.';

select pg_catalog.pg_extension_config_dump('credits_data.meters', '');
select pg_catalog.pg_extension_config_dump('credits_data.meter_prices', '');
select pg_catalog.pg_extension_config_dump('credits_data.customer_prices', '');
select pg_catalog.pg_extension_config_dump('credits_data.meter_catalog', 'where false');
select pg_catalog.pg_extension_config_dump('credits_data.meter_periods', '');
select pg_catalog.pg_extension_config_dump('credits_data.meter_values', '');
select pg_catalog.pg_extension_config_dump('credits.usage_inbox', '');
select pg_catalog.pg_extension_config_dump('credits.usage_inbox_inbox_id_seq', '');

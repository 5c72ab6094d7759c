-- Traces of real language-model services, metered and charged call by call, in batches, and through the inbox.
--
-- `make demo TRACE="a.csv b.csv"` runs this in the demo's server. By hand, in a database that has pg_credits:
--
--     scripts/demo.sh rows a.csv b.csv | psql -f examples/trace.sql
--
-- What it reads from its standard input is a row a call: model, time (UTC), context tokens, generated tokens. It makes
-- customers of its own each time, so it can be run again.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null '-'
set client_min_messages = warning;
set timezone = 'UTC';
set datestyle = 'ISO, YMD';
-- Every call below is a transaction of its own, as it would be in an application. Not waiting for the disk keeps the demo short.
set synchronous_commit = off;

create temp table loaded (
    line bigint generated always as identity,
    model text not null,
    called_at timestamptz not null,
    context_tokens int not null,
    generated_tokens int not null
);
\copy loaded (model, called_at, context_tokens, generated_tokens) from pstdin with (format csv)

create temp table trace as
select
    row_number() over (order by called_at, line)::int as call_number,
    'call-' || row_number() over (order by called_at, line) as event_id,
    model,
    called_at,
    jsonb_build_object('model', model, 'input_tokens', context_tokens, 'output_tokens', generated_tokens) as properties
from loaded;
create unique index on trace (call_number);
create unique index on trace (event_id);
analyze trace;
do $$
begin
    if not exists (select from trace) then
        raise exception 'the trace has no calls';
    end if;
end $$;

\echo
\echo 'The trace:'
select
    model,
    count(*) as calls,
    min(called_at)::timestamp(0) as first_call,
    max(called_at)::timestamp(0) as last_call,
    sum(context_tokens) as input_tokens,
    sum(generated_tokens) as output_tokens
from loaded
group by model
order by model;

\echo 'Two meters count the tokens of each call, month by month. What a token costs depends on the model; a model that is'
\echo 'not in the price list has the price of "default".'
select credits.create_meter('llm-input', 'llm.call', 'sum', 'input_tokens', pricing => $$
    {
        "model": "matrix",
        "rates": [
            {"match": {"model": "llm_code"},         "pricing": {"model": "per_unit", "credits": "0.0008"}},
            {"match": {"model": "llm_conversation"}, "pricing": {"model": "per_unit", "credits": "0.0005"}}
        ],
        "default": {"model": "per_unit", "credits": "0.001"}
    }
    $$) as meter
where not exists (select from credits.meters where meter = 'llm-input');
select credits.create_meter('llm-output', 'llm.call', 'sum', 'output_tokens', pricing => $$
    {
        "model": "matrix",
        "rates": [
            {"match": {"model": "llm_code"},         "pricing": {"model": "per_unit", "credits": "0.0024"}},
            {"match": {"model": "llm_conversation"}, "pricing": {"model": "graduated", "tiers": [
                {"up_to": "1000000", "credits": "0.002"},
                {"credits": "0.0015"}
            ]}}
        ],
        "default": {"model": "per_unit", "credits": "0.003"}
    }
    $$) as meter
where not exists (select from credits.meters where meter = 'llm-output');

\echo 'What the first call of each model costs:'
select call.model, price.meter, price.quantity as tokens, price.credits
from (select distinct on (model) * from trace order by model, call_number) as call
cross join lateral credits.price_usage('llm.call', call.properties, at => call.called_at) as price
order by call.model, price.meter;

-- Customers: three that have enough, to charge the same trace in three ways, and one that has not.
select 'trace-' || to_char(clock_timestamp(), 'YYYYMMDD-HH24MISS') as run \gset
create temp table customers (
    number int generated always as identity,
    door text primary key,
    customer_id text not null,
    seconds numeric
);
insert into customers (door, customer_id)
select door, :'run' || '-' || door
from unnest(array['events', 'batches', 'inbox', 'short']) as door;
select count(credits.create_wallet(customer_id, name => 'Trace of model calls')) as wallets from customers \gset
select count(credits.grant_credits(customer_id, 1000000000, idempotency_key => 'purchase-1')) as grants
from customers
where door <> 'short' \gset
select customer_id as events from customers where door = 'events' \gset
select customer_id as batches from customers where door = 'batches' \gset
select customer_id as inbox from customers where door = 'inbox' \gset
select customer_id as short from customers where door = 'short' \gset

create temp table answers (
    customer_id text,
    event_id text,
    status text,
    requested numeric,
    deducted numeric,
    replayed boolean,
    error text
);

-- Event by event, each in its own transaction.
create procedure pg_temp.charge_events(customer text, from_at timestamptz, to_at timestamptz, on_insufficient text)
language plpgsql as $$
declare
    call trace;
begin
    for call in
        select *
        from trace
        where called_at >= from_at
          and called_at < to_at
        order by call_number
    loop
        insert into answers
        select customer, call.event_id, charged.status, charged.requested, charged.deducted, charged.replayed
        from credits.record_usage(
            customer,
            'llm.call',
            call.properties,
            idempotency_key => call.event_id,
            occurred_at => call.called_at,
            on_insufficient => charge_events.on_insufficient
        ) as charged;
        commit;
    end loop;
end $$;

-- In batches of 1,000 events, each in its own transaction.
create procedure pg_temp.charge_batches(customer text)
language plpgsql as $$
declare
    batch record;
begin
    for batch in
        select jsonb_agg(
            jsonb_build_object(
                'customer_id', customer,
                'event_id', event_id,
                'event_name', 'llm.call',
                'properties', properties,
                'occurred_at', called_at
            )
            order by call_number
        ) as events
        from trace
        group by call_number / 1000
        order by call_number / 1000
    loop
        insert into answers
        select customer_id, transaction_id, status, requested, deducted, replayed, error
        from credits.record_usage_batch(batch.events);
        commit;
    end loop;
end $$;

-- Through the inbox: all events put into it at once, then taken out 1,000 at a time, each time in its own transaction.
create procedure pg_temp.charge_inbox(customer text)
language plpgsql as $$
declare
    more_due boolean;
begin
    insert into credits.usage_inbox (customer_id, event_id, event_name, properties, occurred_at)
    select customer, event_id, 'llm.call', properties, called_at
    from trace
    order by call_number;
    commit;
    loop
        select processed.more_due into more_due from credits.process_inbox(1000) as processed;
        commit;
        exit when not more_due;
    end loop;
end $$;

\echo
\echo 'The same trace is charged three times, to three customers who have enough: event by event with record_usage, 1,000'
\echo 'events a call with record_usage_batch, and through the table usage_inbox with process_inbox.'
select clock_timestamp() as stopwatch \gset
call pg_temp.charge_events(:'events', '-infinity', 'infinity', 'error');
update customers set seconds = extract(epoch from clock_timestamp() - :'stopwatch') where door = 'events';
select clock_timestamp() as stopwatch \gset
call pg_temp.charge_batches(:'batches');
update customers set seconds = extract(epoch from clock_timestamp() - :'stopwatch') where door = 'batches';
select clock_timestamp() as stopwatch \gset
call pg_temp.charge_inbox(:'inbox');
update customers set seconds = extract(epoch from clock_timestamp() - :'stopwatch') where door = 'inbox';

create temp view charged as
select
    customers.door,
    events.event_id,
    events.properties ->> 'model' as model,
    events.occurred_at,
    events.deducted as credits
from customers
join credits.usage_events as events using (customer_id);

create temp view totals as
select
    customers.number,
    customers.door,
    charged.calls,
    charged.credits,
    balance.balance,
    (charged.calls / customers.seconds)::int as calls_a_second
from customers
cross join lateral (
    select count(*) as calls, trim_scale(sum(charged.credits)) as credits from charged where charged.door = customers.door
) as charged
cross join lateral credits.balance(customers.customer_id) as balance
where customers.door <> 'short';

select door, calls, credits, balance, calls_a_second from totals order by number;

\echo 'No call costs another price through another door, and every call was charged, to the last decimal:'
do $$
declare
    differences bigint;
begin
    select count(*) into differences
    from trace
    left join (
        select
            event_id,
            count(*) as doors,
            min(credits) as least,
            max(credits) as most
        from charged
        where door <> 'short'
        group by event_id
    ) as charged using (event_id)
    where doors is distinct from 3
       or least is distinct from most;
    if differences > 0 then
        raise exception '% calls were not charged the same through the three doors', differences;
    end if;
    if exists (select from credits.usage_inbox where customer_id in (select customer_id from customers)) then
        raise exception 'events of the trace were left in the inbox';
    end if;
end $$;
select (select count(*) from trace) as calls_compared, 0 as differences;

\echo 'Credits by hour and by model:'
select
    date_trunc('hour', occurred_at)::timestamp as hour,
    model,
    count(*) as calls,
    trim_scale(sum(credits)) as credits,
    round(avg(credits), 4) as credits_a_call
from charged
where door = 'events'
group by hour, model
order by hour, model;

\echo 'What the meters have counted in the month:'
select meter, coalesce(rate, '') as rate, period_start::date as month, aggregate as tokens, events
from credits.meter_usage
where customer_id = :'events'
order by meter, rate, period_start;

\echo 'All of it sent once more, as after a crash: known event ids charge nothing, in a batch and in the inbox.'
call pg_temp.charge_batches(:'batches');
call pg_temp.charge_inbox(:'inbox');
select door, calls, credits, balance from totals where door <> 'events' order by number;

\echo
\echo 'The fourth customer buys two thirds of what the trace costs. At half the time:'
select greatest(trim_scale(round(sum(credits) * 2 / 3, 2)), 0.01) as purchase from charged where door = 'events' \gset
select credits.grant_credits(:'short', :purchase, idempotency_key => 'purchase-1') is not null as bought \gset
select
    min(called_at) as start,
    min(called_at) + (max(called_at) - min(called_at)) / 2 as half,
    max(called_at) as finish
from trace \gset
call pg_temp.charge_events(:'short', '-infinity', :'half', 'report');
select
    :purchase as bought,
    used.credits as used,
    balance.balance,
    round(used.credits / used.minutes, 1) as credits_a_minute,
    round(balance.balance / nullif(used.credits / used.minutes, 0), 1) as runway_minutes,
    round(extract(epoch from :'finish'::timestamptz - :'half'::timestamptz) / 60, 1) as minutes_to_go
from credits.balance(:'short') as balance,
    (
        select
            sum(credits) as credits,
            greatest(extract(epoch from :'half'::timestamptz - :'start'::timestamptz) / 60, 1) as minutes
        from charged
        where door = 'short'
    ) as used;

\echo 'The second half. Each call asks for a report, so a blocked one is an answer, not an error:'
call pg_temp.charge_events(:'short', :'half', 'infinity', 'report');
select status, count(*) as calls, sum(requested) as asked_for, sum(deducted) as charged
from answers
where customer_id = :'short'
group by status
order by status;

-- Slots of such a length that there are at most about twenty of them.
select slot
from unnest(array['1 minute', '5 minutes', '1 hour', '1 day', '30 days']::interval[]) as slot
where slot >= (:'finish'::timestamptz - :'start'::timestamptz) / 20
   or slot = '30 days'
order by slot
limit 1 \gset
\echo 'Over the time, with the calls that were blocked. A small call may still pass where a large one is blocked:'
select
    date_bin(:'slot', trace.called_at, '2000-01-01 00:00+00')::timestamp as from_time,
    count(*) filter (where answers.status = 'charged') as charged,
    trim_scale(sum(answers.deducted)) as credits,
    count(*) filter (where answers.status = 'insufficient') as blocked,
    trim_scale(sum(answers.requested) filter (where answers.status = 'insufficient')) as credits_blocked
from trace
join answers
    on answers.customer_id = :'short'
   and answers.event_id = trace.event_id
group by from_time
order by from_time;

\echo 'May another call like the last one of each model happen, and if not, why not?'
select call.model, entitlement.allowed, entitlement.reason, entitlement.required, entitlement.available
from (
    select distinct on (model) *
    from trace
    order by model, call_number desc
) as call
cross join lateral credits.check_entitlement(:'short', event_name => 'llm.call', properties => call.properties) as entitlement
order by call.model;

\echo 'What the ledger''s own check finds wrong with the four of them (nothing):'
select violation.*
from customers
cross join lateral credits.verify_ledger(customers.customer_id) as violation;

select calls, credits from totals where door = 'events' \gset
\echo
\echo :calls 'calls cost' :credits 'credits event by event, in batches and through the inbox.'

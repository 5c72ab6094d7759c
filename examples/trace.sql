-- An hour of a real language-model service, charged call by call:  psql -v trace=/path/to/trace.csv -f examples/trace.sql
--
-- The file has the columns TIMESTAMP,ContextTokens,GeneratedTokens, one row a call. `make demo TRACE=file.csv` runs this in
-- the demo's server. It makes a customer of its own each time, so it can be run again.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
set client_min_messages = warning;
-- Every call below is a transaction of its own, as it would be in an application. Not waiting for the disk keeps the demo short.
set synchronous_commit = off;

create temp table trace (
    call_number int generated always as identity,
    called_at timestamp not null,
    context_tokens int not null,
    generated_tokens int not null
);
\set load '\\copy trace (called_at, context_tokens, generated_tokens) from ' :'trace' ' with (format csv, header)'
:load

\echo
\echo 'The trace:'
select
    count(*) as calls,
    min(called_at)::timestamp(0) as first_call,
    max(called_at)::timestamp(0) as last_call,
    sum(context_tokens) as context_tokens,
    sum(generated_tokens) as generated_tokens
from trace;

\echo 'A team buys 30,000 credits. A call costs 1 credit per 1,000 context tokens and 3 per 1,000 generated ones.'
select 'trace-' || to_char(clock_timestamp(), 'YYYYMMDD-HH24MISS') as customer \gset
select credits.create_wallet(:'customer', name => 'Trace of model calls') as wallet;
select credits.grant_credits(:'customer', 30000, idempotency_key => 'purchase-1') as grant_id;

create temp table answers (run text, call_number int, status text, deducted numeric, replayed boolean);

create procedure pg_temp.charge(run text, customer text, from_at timestamp, to_at timestamp)
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
        select run, call.call_number, charged.status, charged.deducted, charged.replayed
        from credits.deduct_usage(
            customer,
            call.context_tokens * 0.001 + call.generated_tokens * 0.003,
            idempotency_key => 'call-' || call.call_number,
            event_name => 'model.call',
            occurred_at => call.called_at at time zone 'UTC',
            on_insufficient => 'report'
        ) as charged;
        commit;
    end loop;
end $$;

\echo 'The first half of the time, charged:'
select min(called_at) as start, min(called_at) + (max(called_at) - min(called_at)) / 2 as half from trace \gset
select clock_timestamp() as stopwatch \gset
call pg_temp.charge('first', :'customer', '-infinity', :'half');
select
    count(*) as calls,
    sum(deducted) as credits_used,
    (count(*) / extract(epoch from clock_timestamp() - :'stopwatch'))::int as calls_charged_per_second
from answers;

\echo 'What is left, and how long it lasts at this rate:'
select
    balance.balance,
    round(used.credits / used.minutes, 1) as credits_per_minute,
    round(balance.balance / (used.credits / used.minutes), 1) as runway_minutes
from credits.balance(:'customer'),
    (
        select
            -sum(amount) as credits,
            (extract(epoch from :'half'::timestamp - :'start'::timestamp) / 60) as minutes
        from credits.ledger
        where customer_id = :'customer'
          and event_name = 'model.call'
    ) as used;

\echo 'The second half:'
call pg_temp.charge('first', :'customer', :'half', 'infinity');
select status, count(*) as calls, sum(deducted) as credits
from answers
group by status
order by status;

\echo 'Credits by five minutes, from the ledger, with the calls that were blocked:'
select
    to_char(slot, 'HH24:MI') as from_time,
    calls,
    credits,
    blocked
from (
    select
        date_bin('5 minutes', trace.called_at, '2000-01-01') as slot,
        count(entry.seq) as calls,
        -sum(entry.amount) as credits,
        count(*) filter (where entry.seq is null) as blocked
    from trace
    left join credits.ledger as entry
        on entry.customer_id = :'customer'
       and entry.transaction_id = 'call-' || trace.call_number
    group by slot
) as slots
order by slot;

\echo 'The same trace charged a second time: every call that was paid replays, every blocked one is blocked again.'
select balance as balance_before from credits.balance(:'customer') \gset
select count(*) as entries_before from credits.ledger where customer_id = :'customer' \gset
call pg_temp.charge('second', :'customer', '-infinity', 'infinity');
select status, replayed, count(*) as calls, sum(deducted) as credits
from answers
where run = 'second'
group by status, replayed
order by status;
select
    :balance_before as balance_before,
    balance.balance as balance_after,
    :entries_before as entries_before,
    (select count(*) from credits.ledger where customer_id = :'customer') as entries_after
from credits.balance(:'customer');

\echo 'What the ledger''s own check finds wrong (nothing):'
select * from credits.verify_ledger(:'customer');

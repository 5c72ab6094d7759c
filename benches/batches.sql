-- Events by the thousand: the three ways to charge them in batches, and as the floor the bulk insert of the same rows into a copy of
-- the ledger's table, as long and with the same indexes. Each call of 1,000 events is a transaction; what it is given is made before.
\set ON_ERROR_STOP on
create schema bench;
create table bench.calls (n integer primary key, events jsonb not null);

-- So many calls of 1,000 events each, spread over all customers, or of one.
create procedure bench.prepare(calls integer, customers integer, what text) language plpgsql as $$
begin
    truncate bench.calls;
    insert into bench.calls
    select call, (
        select jsonb_agg(
            jsonb_build_object('customer_id', 'customer-' || (1 + floor(random() * customers))::int, 'idempotency_key', gen_random_uuid()::text)
            || case what
                when 'deduct' then jsonb_build_object('amount', 1)
                else jsonb_build_object('event_name', 'call', 'properties', jsonb_build_object('tokens', (random() * 4000)::int))
            end)
        from generate_series(1, 1000)
        where call > 0
    )
    from generate_series(1, calls) call;
    if what = 'inbox' then
        insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
        select e ->> 'customer_id', e ->> 'idempotency_key', e ->> 'event_name', e -> 'properties'
        from bench.calls
        cross join lateral jsonb_array_elements(events) e;
    end if;
    commit;
end
$$;

-- Events a second of one way.
create procedure bench.run(what text, inout per_second numeric default null) language plpgsql as $$
declare
    call record;
    started timestamptz := clock_timestamp();
    done bigint := 0;
    rows_of_call bigint;
begin
    for call in select n from bench.calls order by n loop
        if what = 'deduct' then
            select count(*) filter (where d.status = 'charged') into rows_of_call
            from bench.calls c cross join lateral credits.deduct_usage_batch(c.events) d where c.n = call.n;
        elsif what = 'record' then
            select count(*) filter (where d.status = 'charged') into rows_of_call
            from bench.calls c cross join lateral credits.record_usage_batch(c.events) d where c.n = call.n;
        elsif what = 'inbox' then
            select events_charged into rows_of_call from credits.process_inbox(1000);
        else
            insert into bench.bulk (
                seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet, transaction_id, credits, balance_after,
                grant_id, event_name, usage_at, requested, unit_price, currency, refers_to, reverses_seq, metadata, properties, metered
            )
            select seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet, transaction_id, credits, balance_after,
                grant_id, event_name, usage_at, requested, unit_price, currency, refers_to, reverses_seq, metadata, properties, metered
            from bench.rows r
            where r.call = call.n
            order by r.place;
            get diagnostics rows_of_call = row_count;
        end if;
        commit;
        done := done + rows_of_call;
    end loop;
    if done <> (select count(*) * 1000 from bench.calls) then
        raise exception '% events of % were charged', done, (select count(*) * 1000 from bench.calls);
    end if;
    per_second := round(done / extract(epoch from clock_timestamp() - started));
end
$$;

-- Before a run: a copy of the ledger. After it: the rows that the run has written, in the order in which it was given them.
create procedure bench.copy_ledger() language plpgsql as $$
begin
    drop table if exists bench.bulk;
    create table bench.bulk (like credits_data.entries including all);
    insert into bench.bulk select * from credits_data.entries;
    commit;
end
$$;
create procedure bench.take_rows() language plpgsql as $$
begin
    drop table if exists bench.rows;
    create table bench.rows as
    select c.n as call, e.place, entry.*
    from bench.calls c
    cross join lateral jsonb_array_elements(c.events) with ordinality e (event, place)
    join credits_data.entries entry
        on entry.customer_id = e.event ->> 'customer_id'
       and entry.transaction_id = e.event ->> 'idempotency_key';
    create index on bench.rows (call, place);
    commit;
end
$$;

-- Charges the inbox for a time and says how many events that were, how many waited at most, and for how many seconds the oldest.
create procedure bench.drain(for_time interval, inout charged bigint default 0, inout most bigint default 0, inout oldest numeric default 0)
language plpgsql as $$
declare
    until timestamptz := clock_timestamp() + for_time;
    batch record;
    waiting record;
begin
    loop
        select * into batch from credits.process_inbox(1000);
        charged := charged + batch.events_charged;
        commit;
        select count(*) as events, coalesce(max(extract(epoch from clock_timestamp() - received_at)), 0) as seconds into waiting
        from credits.usage_inbox;
        most := greatest(most, waiting.events);
        oldest := greatest(oldest, round(waiting.seconds, 1));
        commit;
        exit when clock_timestamp() >= until;
        if batch.events_charged = 0 then
            perform pg_sleep(0.02); -- nothing to do: look again
        end if;
    end loop;
end
$$;

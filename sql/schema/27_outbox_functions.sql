-- Webhook endpoints and deliveries as people see them, and the functions of the outbox that need nothing but SQL.
create view credits.webhook_endpoints as
select
    e.endpoint_id,
    e.url,
    e.event_types,
    e.customer_id,
    e.alert_id,
    e.previous_secret_until,
    e.disabled_at,
    e.disabled_reason,
    e.created_at
from credits_data.webhook_endpoints e;
comment on view credits.webhook_endpoints is 'Where events are POSTed to: endpoints of all customers'' events, and those of alerts. Their secrets are not shown.';

create view credits.webhook_deliveries as
select
    d.delivery_id,
    d.event_id,
    e.type,
    d.customer_id,
    d.endpoint_id,
    w.url,
    d.status::text as status,
    d.attempts,
    case when d.status = 'pending' then d.next_attempt_at end as next_attempt_at,
    d.attempted_at,
    d.delivered_at,
    d.last_status,
    d.last_error,
    d.created_at
from credits_data.webhook_deliveries d
left join credits_data.events e
    on e.event_number = d.event_number
left join credits_data.webhook_endpoints w
    on w.endpoint_id = d.endpoint_id;
comment on view credits.webhook_deliveries is 'Every event to be delivered to an endpoint, and what became of it. Rows of old events are purged.';

comment on column credits.webhook_deliveries.type is 'What the event tells, such as wallet.balance_low.';
comment on column credits.webhook_deliveries.url is 'Where it is sent; null once the endpoint is dropped.';
comment on column credits.webhook_deliveries.next_attempt_at is 'When it is attempted next; while an attempt runs, when it counts as lost. Null unless pending.';

create function credits_data.require_argument(argument text, is_given boolean)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not is_given then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = argument || ' must not be null',
            detail = 'code=null_argument',
            hint = format('Pass a value for %s.', argument);
    end if;
end
$$;
comment on function credits_data.require_argument(text, boolean) is 'Refuses a null argument.';

create function credits_data.no_endpoint(endpoint_id uuid)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'no_data_found',
        message = format('webhook endpoint %s not found', endpoint_id),
        detail = 'code=not_found',
        hint = 'credits.webhook_endpoints lists them.';
end
$$;
comment on function credits_data.no_endpoint(uuid) is 'Raises that there is no such endpoint.';

create function credits_data.bury_deliveries(endpoint uuid, reason text)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    buried bigint;
begin
    update credits_data.webhook_deliveries d
    set status = 'dead',
        last_error = coalesce(d.last_error, reason)
    where d.endpoint_id = endpoint
      and d.status = 'pending';
    get diagnostics buried = row_count;
    return buried;
end
$$;
comment on function credits_data.bury_deliveries(uuid, text) is 'Gives up what is pending for an endpoint, whose row the caller has locked, and returns how much that was.';

create function credits_data.purge_events(written_before timestamptz, events_max bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    old_ids text[];
begin
    -- By events_written, the oldest first.
    old_ids := array(
        select e.event_id
        from credits_data.events e
        where e.written_at < written_before
          and not exists (
              select
              from (
                  select d.endpoint_id, d.status
                  from credits_data.webhook_deliveries d
                  where d.event_id = e.event_id
                  offset 0
              ) d
              cross join lateral (
                  select
                  from credits_data.webhook_endpoints w
                  where w.endpoint_id = d.endpoint_id
                    and w.disabled_at is null
                  offset 0
              ) in_use
              where d.status = 'pending'
          )
        order by e.written_at
        limit events_max
        for update skip locked
    );
    if cardinality(old_ids) > 0 then
        delete from credits_data.webhook_deliveries d where d.event_id = any (old_ids);
        delete from credits_data.events e where e.event_id = any (old_ids);
    end if;
    return cardinality(old_ids);
end
$$;
comment on function credits_data.purge_events(timestamptz, bigint) is 'Deletes up to events_max events written before an instant, with their deliveries, but for those still to be delivered to an endpoint in use. Returns how many events.';

create function credits.enable_webhook_endpoint(endpoint_id uuid)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform credits_data.require_argument('endpoint_id', endpoint_id is not null);
    update credits_data.webhook_endpoints e
    set disabled_at = null,
        disabled_reason = null
    where e.endpoint_id = enable_webhook_endpoint.endpoint_id;
    if not found then
        perform credits_data.no_endpoint(endpoint_id);
    end if;
    return endpoint_id;
end
$$;
comment on function credits.enable_webhook_endpoint(uuid) is 'Puts an endpoint that was disabled, because it answered 410, into use again and returns its id; one that is in use is no error. What was given up when it was disabled stays so until replay_webhook. Error not_found.';

create function credits.drop_webhook_endpoint(endpoint_id uuid)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    alert uuid;
begin
    perform credits_data.require_argument('endpoint_id', endpoint_id is not null);
    select e.alert_id into alert
    from credits_data.webhook_endpoints e
    where e.endpoint_id = drop_webhook_endpoint.endpoint_id
    for update;
    if not found then
        perform credits_data.no_endpoint(endpoint_id);
    end if;
    if alert is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('webhook endpoint %s belongs to alert %s', endpoint_id, alert),
            detail = 'code=wrong_state',
            hint = 'It goes with its alert: credits.drop_alert.';
    end if;
    perform credits_data.bury_deliveries(endpoint_id, 'the endpoint was dropped');
    delete from credits_data.webhook_endpoints e where e.endpoint_id = drop_webhook_endpoint.endpoint_id;
    return endpoint_id;
end
$$;
comment on function credits.drop_webhook_endpoint(uuid) is 'Removes an endpoint and returns its id; what is pending for it is given up. One that belongs to an alert goes with it. Errors: not_found, wrong_state.';

create function credits.replay_webhook(delivery_id uuid)
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    endpoint uuid;
begin
    perform credits_data.require_argument('delivery_id', delivery_id is not null);
    -- The endpoint first, as whoever changes deliveries locks it.
    select d.endpoint_id into endpoint
    from credits_data.webhook_deliveries d
    where d.delivery_id = replay_webhook.delivery_id;
    perform from credits_data.webhook_endpoints e where e.endpoint_id = endpoint for no key update;
    perform from credits_data.webhook_deliveries d where d.delivery_id = replay_webhook.delivery_id for update;
    if not found then
        raise exception using
            errcode = 'no_data_found',
            message = format('webhook delivery %s not found', delivery_id),
            detail = 'code=not_found',
            hint = 'credits.webhook_deliveries lists them; old ones are purged.';
    end if;
    if not exists (select from credits_data.webhook_endpoints e where e.endpoint_id = endpoint and e.disabled_at is null) then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('webhook endpoint %s of delivery %s is disabled or dropped', endpoint, delivery_id),
            detail = 'code=wrong_state',
            hint = 'Put a disabled one into use again with credits.enable_webhook_endpoint.';
    end if;
    update credits_data.webhook_deliveries d
    set status = 'pending',
        attempts = 0,
        next_attempt_at = clock_timestamp(),
        delivered_at = null
    where d.delivery_id = replay_webhook.delivery_id;
    return delivery_id;
end
$$;
comment on function credits.replay_webhook(uuid) is 'Delivers an event to an endpoint once more, whatever became of the delivery before: at once, with all attempts ahead of it, under the same event id. Returns the delivery''s id. Errors: not_found, wrong_state (the endpoint is disabled or dropped).';

create function credits.claim_events(batch_size integer default 100, lease interval default '5 minutes')
returns table (event_id text, type text, customer_id text, created_at timestamptz, payload jsonb)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
    perform credits_data.require_argument('batch_size', batch_size is not null);
    perform credits_data.require_argument('lease', lease is not null);
    if batch_size < 1 then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid batch_size: %s is not positive', batch_size),
            detail = 'code=invalid_argument',
            hint = 'Pass 1 or more.';
    end if;
    if lease <= interval '0' or lease > interval '100 years' then
        raise exception using
            errcode = case when lease <= interval '0' then 'invalid_parameter_value' else 'numeric_value_out_of_range' end,
            message = case when lease <= interval '0' then 'invalid lease: it is not above zero' else 'lease is out of range: it is longer than 100 years' end,
            detail = case when lease <= interval '0' then 'code=invalid_argument' else 'code=out_of_range' end,
            hint = 'Pass the time you need to handle the events and acknowledge them, such as ''5 minutes''.';
    end if;
    return query
    with due as materialized (
        select e.event_number
        from credits_data.events e
        where e.acknowledged_at is null
          and (e.leased_until is null or e.leased_until <= clock_timestamp())
        order by e.event_number
        limit batch_size
        for update skip locked
    ), claimed as (
        update credits_data.events e
        set leased_until = clock_timestamp() + lease
        from due
        where e.event_number = due.event_number
        returning e.event_number, e.event_id, e.type, e.customer_id, e.created_at, e.payload
    )
    select c.event_id, c.type, c.customer_id, c.created_at, c.payload
    from claimed c
    order by c.event_number;
end
$$;
comment on function credits.claim_events(integer, interval) is 'Takes up to batch_size events (1 or more) that nobody has acknowledged or holds, the oldest first, and holds them for lease, in real time; what is not acknowledged by ack_events until then comes again. Several sessions may claim at once: each gets other events.';

create function credits.ack_events(event_ids text[])
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    acknowledged bigint;
begin
    perform credits_data.require_argument('event_ids', event_ids is not null);
    if array_ndims(event_ids) > 1 or exists (select from unnest(event_ids) id where octet_length(id) between 1 and 255 is not true) then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'invalid event_ids: it is not a plain array of ids',
            detail = 'code=invalid_argument',
            hint = 'Pass ids that credits.claim_events has returned.';
    end if;
    with mine as materialized (
        select e.event_number
        from credits_data.events e
        where e.event_id = any (event_ids)
          and e.acknowledged_at is null
        order by e.event_number
        for update
    )
    update credits_data.events e
    set acknowledged_at = clock_timestamp()
    from mine
    where e.event_number = mine.event_number;
    get diagnostics acknowledged = row_count;
    return acknowledged;
end
$$;
comment on function credits.ack_events(text[]) is 'Acknowledges events that were handled, by their ids, so that claim_events does not return them again, and returns how many were not acknowledged before. Ids that are unknown or purged are passed over; a lease that has run out is no hindrance.';

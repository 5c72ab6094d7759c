create view credits.meters as
select
    m.meter::text as meter,
    m.event_name::text as event_name,
    m.aggregation::text as aggregation,
    m.value_property,
    m.filter,
    p.pricing,
    nullif(p.effective_at, '-infinity') as pricing_since,
    n.effective_at as next_pricing_at,
    (select count(distinct o.customer_id) from credits_data.customer_prices o where o.meter = m.meter) as customers_with_own_pricing,
    m.period,
    m.anchor,
    m.time_zone,
    m.wallet,
    m.unit::text as unit,
    m.created_at
from credits_data.meters m
left join lateral (
    select p.pricing, p.effective_at
    from credits_data.meter_prices p
    where p.meter = m.meter
      and p.effective_at <= credits.clock()
    order by p.effective_at desc
    limit 1
) p on true
left join lateral (
    select p.effective_at
    from credits_data.meter_prices p
    where p.meter = m.meter
      and p.effective_at > credits.clock()
    order by p.effective_at
    limit 1
) n on true;
comment on view credits.meters is 'Meters with the price list in force now. What a meter counts never changes; set_meter_pricing gives it another price list.';

create view credits.meter_pricing as
select
    p.meter::text as meter,
    null::text as customer_id,
    nullif(p.effective_at, '-infinity') as effective_at,
    p.pricing,
    p.created_at
from credits_data.meter_prices p
union all
select p.meter::text, p.customer_id::text, p.effective_at, p.pricing, p.created_at
from credits_data.customer_prices p;
comment on view credits.meter_pricing is 'All price lists of meters, past, present and future ones. Those with a customer are that customer''s own and win over the others.';

create view credits.meter_usage as
select
    p.customer_id,
    p.meter,
    p.period_start,
    nullif(p.rate, '') as rate,
    trim_scale(p.aggregate) as aggregate,
    p.events
from credits_data.meter_periods p;
comment on view credits.meter_usage is 'What each meter has counted of each customer, period by period, for each rate that matched.';

create view credits.usage_daily as
select
    e.customer_id,
    e.wallet,
    (coalesce(e.usage_at, e.occurred_at) at time zone 'UTC')::date as day,
    e.event_name,
    count(distinct e.transaction_id) filter (where e.kind in (4, 17, 18, 20) or e.properties is not null) as events,
    trim_scale(coalesce(sum(e.credits) filter (where e.kind in (4, 17)), 0)) as deducted,
    trim_scale(coalesce(sum(e.credits) filter (where e.kind in (18, 20)), 0)) as overage,
    trim_scale(coalesce(sum(e.credits) filter (where e.kind in (5, 19, 21)), 0)) as refunded
from credits_data.entries e
where e.kind in (4, 5, 17, 18, 19, 20, 21)
group by e.customer_id, e.wallet, day, e.event_name;
comment on view credits.usage_daily is 'Usage by day (UTC, of the time the usage happened), wallet and event name: events, credits from grants, overage, and what was given back on that day.';

-- The door for ORMs: a row inserted is an event recorded.
create view credits.usage_events as
select
    e.customer_id,
    e.transaction_id as event_id,
    e.event_name,
    e.properties,
    coalesce(e.usage_at, e.occurred_at) as occurred_at,
    e.transaction_id,
    case
        when t.deducted + t.overage < e.requested then 'partial'
        when t.overage > 0 then 'overage'
        else 'charged'
    end as status,
    trim_scale(coalesce(e.requested, t.deducted + t.overage)) as requested,
    trim_scale(t.deducted) as deducted,
    trim_scale(t.overage) as overage,
    null::numeric as balance,
    null::boolean as replayed
from credits_data.entries e
cross join lateral (
    select
        coalesce(sum(case l.kind when 4 then l.credits when 5 then -l.credits end), 0) as deducted,
        coalesce(sum(case when l.kind in (18, 20) then l.credits when l.kind in (19, 21) then -l.credits end), 0) as overage
    from credits_data.entries l
    where l.customer_id = e.customer_id
      and l.transaction_id = e.transaction_id
) t
where e.line = 1
  and e.properties is not null;
comment on view credits.usage_events is 'Recorded events. An INSERT of customer_id, event_id, event_name, properties and occurred_at records one as record_usage does, and RETURNING has what that returns; an event_id that was recorded before charges nothing.';

create function credits_data.record_event()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    charged record;
begin
    if new.transaction_id is not null or new.status is not null or new.requested is not null or new.deducted is not null
        or new.overage is not null or new.balance is not null or new.replayed is not null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = 'invalid column: only customer_id, event_id, event_name, properties and occurred_at can be inserted',
            detail = 'code=invalid_argument',
            hint = 'The other columns are results: read them with RETURNING.';
    end if;
    select * into strict charged
    from credits.record_usage(
        new.customer_id, new.event_name, coalesce(new.properties, '{}'), new.event_id, new.occurred_at);
    new.event_id := charged.transaction_id;
    new.properties := coalesce(new.properties, '{}');
    select coalesce(e.usage_at, e.occurred_at) into strict new.occurred_at
    from credits_data.entries e
    where e.customer_id = new.customer_id
      and e.transaction_id = charged.transaction_id
      and e.line = 1;
    new.transaction_id := charged.transaction_id;
    new.status := charged.status;
    new.requested := charged.requested;
    new.deducted := charged.deducted;
    new.overage := charged.overage;
    new.balance := charged.balance;
    new.replayed := charged.replayed;
    return new;
end
$$;
comment on function credits_data.record_event() is 'Records the event that is inserted into credits.usage_events.';
create trigger usage_events_record
    instead of insert on credits.usage_events
    for each row execute function credits_data.record_event();
comment on trigger usage_events_record on credits.usage_events is 'An event inserted is recorded and charged.';

comment on column credits.meters.pricing is 'The price list in force now.';
comment on column credits.meters.pricing_since is 'Since when; null is from the beginning.';
comment on column credits.meters.next_pricing_at is 'When the next price list comes into force; null if none is set.';
comment on column credits.meters.customers_with_own_pricing is 'How many customers have price lists of their own.';
comment on column credits.meter_pricing.customer_id is 'Whose own list it is; null is everybody''s.';
comment on column credits.meter_pricing.effective_at is 'Events that happened at or after it are priced by this list; null is from the beginning.';
comment on column credits.meter_usage.rate is 'The properties of the rate that matched, as JSON; null without a matrix.';
comment on column credits.usage_daily.day is 'Day (UTC) on which the usage happened.';
comment on column credits.usage_daily.events is 'Usage events that this wallet had a part in.';
comment on column credits.usage_daily.deducted is 'Credits that came from grants.';
comment on column credits.usage_daily.overage is 'Credits that did not.';
comment on column credits.usage_daily.refunded is 'Credits that were given back on that day, whenever they had been used.';
comment on column credits.usage_events.event_id is 'The idempotency key. Null inserted gives the event an id of its own.';
comment on column credits.usage_events.properties is 'Properties of the event, an object.';
comment on column credits.usage_events.occurred_at is 'When it happened. Null inserted is now.';
comment on column credits.usage_events.status is 'charged (by grants alone), overage or partial.';
comment on column credits.usage_events.requested is 'What the event cost.';
comment on column credits.usage_events.deducted is 'Credits that came from grants; negative if the price fell and earlier events got something back.';
comment on column credits.usage_events.overage is 'Credits that did not come from grants.';
comment on column credits.usage_events.balance is 'After an INSERT: what can be spent now. Else null.';
comment on column credits.usage_events.replayed is 'After an INSERT: whether the event had been recorded before. Else null.';

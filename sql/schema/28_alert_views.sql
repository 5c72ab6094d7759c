create view credits.alerts as
select
    a.customer_id::text as customer_id,
    a.alert_id,
    a.wallet::text as wallet,
    trim_scale(a.threshold_percent) as threshold_percent,
    trim_scale(a.threshold_credits) as threshold_credits,
    trim_scale(a.rearm) as rearm,
    case when a.is_armed then 'armed' else 'fired' end as status,
    a.fired_at,
    e.url as webhook_url,
    a.created_at
from credits_data.alerts a
left join credits_data.webhook_endpoints e
    on e.customer_id = a.customer_id
   and e.alert_id = a.alert_id
where a.dropped_at is null;
comment on view credits.alerts is 'Alerts in use. status: armed (it fires when balance + held falls to its threshold) or fired (it is armed again above rearm, or above the threshold).';

create view credits.auto_top_ups as
select
    r.customer_id::text as customer_id,
    r.wallet::text as wallet,
    trim_scale(r.threshold) as threshold,
    trim_scale(r.amount) as amount,
    trim_scale(r.target_balance) as target_balance,
    r.payment_method_id,
    r.cooldown,
    r.max_per_period,
    r.period,
    r.expires_after,
    r.unit_price::numeric as unit_price,
    r.currency,
    r.enabled,
    r.failures,
    nullif(r.due_at, 'infinity') as held_back_until,
    r.created_at
from credits_data.top_up_rules r;
comment on view credits.auto_top_ups is 'Auto top-ups of wallets. failures: failed payments in a row, the fifth disables it.';

create view credits.top_ups as
select
    t.customer_id::text as customer_id,
    t.top_up_id,
    t.wallet::text as wallet,
    case
        when t.status <> 'open' then t.status::text
        when t.claimed_at is not null and t.available_at > credits.clock() then 'claimed'
        else 'pending'
    end as status,
    trim_scale(t.amount) as amount,
    t.unit_price::numeric as unit_price,
    t.currency,
    t.payment_method_id,
    t.requested_at,
    case when t.status = 'open' then t.available_at end as available_at,
    t.finished_at,
    t.failures,
    t.payment_reference,
    t.grant_id,
    t.reason
from credits_data.top_ups t;
comment on view credits.top_ups is 'Requested top-ups. status: pending (it can be claimed from available_at on), claimed (until available_at), succeeded, failed or cancelled.';

comment on column credits.alerts.status is 'armed or fired.';
comment on column credits.alerts.fired_at is 'When it fired last; null if never.';
comment on column credits.alerts.webhook_url is 'Its own endpoint; null if its events go to those of all customers and to claim_events only.';
comment on column credits.auto_top_ups.held_back_until is 'When the cooldown or the cap that holds a wanted top-up back ends; null if none is held back.';
comment on column credits.top_ups.status is 'pending, claimed, succeeded, failed or cancelled.';
comment on column credits.top_ups.available_at is 'From when it can be claimed (again); null if it has ended.';
comment on column credits.top_ups.failures is 'Failed attempts.';
comment on column credits.top_ups.reason is 'Why the last attempt failed, or why it was cancelled.';

create view credits.metrics as
with health as (
    select h.task, h.backlog, h.oldest_due_at, h.detail
    from credits.job_health h
)
select 'credits_backlog' as name, jsonb_build_object('task', h.task) as labels, h.backlog::numeric as value
from health h
union all
select
    'credits_oldest_due_seconds',
    jsonb_build_object('task', h.task),
    greatest(round(extract(epoch from case when h.task in ('webhooks', 'claim_events', 'snapshots') then clock_timestamp()
        else credits.clock() end - h.oldest_due_at), 3), 0)
from health h
where h.oldest_due_at is not null
union all
select 'credits_unhealthy', jsonb_build_object('task', h.task), (h.detail is not null)::integer
from health h
union all
select 'credits_inbox_failed_events', '{}', count(*)
from credits.usage_inbox i
where i.error is not null
union all
select 'credits_webhook_pending', jsonb_build_object('endpoint_id', e.endpoint_id), count(d.delivery_id)
from credits_data.webhook_endpoints e
left join credits_data.webhook_deliveries d
    on d.endpoint_id = e.endpoint_id
   and d.status = 'pending'
group by e.endpoint_id
union all
select 'credits_webhook_failing', jsonb_build_object('endpoint_id', e.endpoint_id), count(d.delivery_id)
from credits_data.webhook_endpoints e
left join credits_data.webhook_deliveries d
    on d.endpoint_id = e.endpoint_id
   and d.status = 'pending'
   and d.attempts > 0
group by e.endpoint_id
union all
select 'credits_webhook_dead', jsonb_build_object('endpoint_id', e.endpoint_id), count(d.delivery_id)
from credits_data.webhook_endpoints e
left join credits_data.webhook_deliveries d
    on d.endpoint_id = e.endpoint_id
   and d.status = 'dead'
group by e.endpoint_id
union all
select 'credits_webhook_disabled', jsonb_build_object('endpoint_id', e.endpoint_id), (e.disabled_at is not null)::integer
from credits_data.webhook_endpoints e
union all
select 'credits_top_ups_open', jsonb_build_object('state', s.state), count(t.top_up_id)
from (values ('pending', false), ('claimed', true)) s (state, is_claimed)
left join credits_data.top_ups t
    on t.status = 'open'
   and (t.claimed_at is not null and t.available_at > credits.clock()) = s.is_claimed
group by s.state
union all
select 'credits_auto_top_ups_disabled_by_failures', '{}', count(*)
from credits_data.top_up_rules r
where not r.enabled
  and r.failures > 0;
comment on view credits.metrics is 'Gauges for a monitoring system, as Prometheus names them: backlog, age of the oldest item due and whether something is wrong, for each row of credits.job_health; failed events of the inbox; deliveries by endpoint; open top-ups.';
comment on column credits.metrics.name is 'What is measured.';
comment on column credits.metrics.labels is 'Of what: a task, an endpoint, a state.';
comment on column credits.metrics.value is 'A number of items, of seconds where the name says so, or 1 for yes and 0 for no.';

do $$
declare
    view_column record;
begin
    -- Columns of the views that have no comment of their own say what the columns of the tables below say.
    for view_column in
        select v.relname, c.attname, pg_catalog.col_description(t.attrelid, t.attnum) as description
        from (values
            ('wallets', 'wallets'), ('grants', 'grants'), ('ledger', 'entries'), ('journal', 'entries'), ('expiring_grants', 'grants'),
            ('recurring_grants', 'recurring_grants'), ('holds', 'holds'), ('invoice_lines', 'invoice_lines'),
            ('contract_progress', 'contracts'), ('job_health', 'jobs'), ('meters', 'meters'), ('meter_pricing', 'meter_prices'),
            ('meter_usage', 'meter_periods'), ('usage_daily', 'entries'), ('usage_events', 'entries'),
            ('alerts', 'alerts'), ('auto_top_ups', 'top_up_rules'), ('top_ups', 'top_ups'),
            ('webhook_endpoints', 'webhook_endpoints'), ('webhook_deliveries', 'webhook_deliveries')
        ) source (view_name, table_name)
        join pg_catalog.pg_class v
            on v.oid = pg_catalog.format('credits.%I', source.view_name)::regclass
        join pg_catalog.pg_attribute c
            on c.attrelid = v.oid
           and c.attnum > 0
        join pg_catalog.pg_attribute t
            on t.attrelid = pg_catalog.format('credits_data.%I', source.table_name)::regclass
           and t.attname = c.attname
           and t.attnum > 0
        where pg_catalog.col_description(v.oid, c.attnum) is null
    loop
        execute pg_catalog.format('comment on column credits.%I.%I is %L', view_column.relname, view_column.attname, view_column.description);
    end loop;
end
$$;

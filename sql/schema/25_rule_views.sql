create view credits.recurring_grants as
select
    r.customer_id::text as customer_id,
    r.recurring_grant::text as recurring_grant,
    r.wallet::text as wallet,
    case
        when r.period_starts_at is null and r.due_at = 'infinity' then 'ended'
        when r.period_starts_at is null and r.due_at > credits.clock() then 'scheduled'
        when r.ends_at <= credits.clock() and (r.period_starts_at is null or r.next_starts_at <= credits.clock()) then 'ended'
        else 'active'
    end as status,
    trim_scale(r.amount) as amount,
    r.grant_type::text as grant_type,
    r.every,
    r.anchor,
    r.time_zone,
    r.starts_at,
    nullif(r.ends_at, 'infinity') as ends_at,
    r.period_starts_at,
    nullif(r.due_at, 'infinity') as next_period_at,
    r.expires_after,
    trim_scale(r.rollover_percent) as rollover_percent,
    trim_scale(r.rollover_cap) as rollover_cap,
    r.rollover_periods,
    r.prorate,
    r.priority,
    r.unit_price::numeric as unit_price,
    r.currency,
    r.applies_to,
    r.metadata,
    r.created_at
from credits_data.recurring_grants r;
comment on view credits.recurring_grants is 'Recurring grants with their terms, as they hold from the next period on. next_period_at in the past: a renewal is due and not settled yet; credits.balance() counts it.';

create view credits.holds as
select
    h.customer_id::text as customer_id,
    h.hold_id::text as hold_id,
    case when h.status = 'open' and h.expires_at <= credits.clock() then 'lapsed' else h.status::text end as status,
    case when h.status = 'open' and h.expires_at > credits.clock() then trim_scale(coalesce(e.credits, 0)) else 0 end as held,
    h.wallet,
    h.unit,
    h.event_name,
    h.expires_at,
    h.created_at
from credits_data.holds h
cross join lateral (
    select sum(e.credits) as credits
    from credits_data.entries e
    where e.customer_id = h.customer_id
      and e.transaction_id = h.hold_id
      and e.kind = 15
) e;
comment on view credits.holds is 'Holds, and what open ones set aside. status: open, captured, released or lapsed, judged by the clock.';

create view credits.invoice_lines as
select
    l.line_id,
    l.customer_id::text as customer_id,
    l.wallet::text as wallet,
    l.kind::text as kind,
    l.contract,
    trim_scale(l.quantity) as quantity,
    l.unit_price::numeric as unit_price,
    l.amount,
    l.currency,
    l.period_start,
    l.period_end,
    l.status::text as status,
    l.invoice_reference,
    l.created_at
from credits_data.invoice_lines l;
comment on view credits.invoice_lines is 'What is to be invoiced, and what was: credits at a price, as money of a currency.';

create view credits.contract_progress as
select
    k.customer_id::text as customer_id,
    k.contract::text as contract,
    k.wallet::text as wallet,
    case
        when k.has_ended or term.ends_at <= credits.clock() then 'ended'
        when k.starts_at > credits.clock() then 'scheduled'
        else 'active'
    end as status,
    k.starts_at,
    term.ends_at,
    trim_scale(k.committed) as committed,
    trim_scale(k.granted_credits) as granted,
    trim_scale(case
        when k.minimum_spend then coalesce(k.committed - line.quantity, spent.overage)
        else k.granted_credits - g.remaining - held.credits - g.expired - k.rolled_over_credits - g.voided
    end) as consumed,
    trim_scale(g.remaining) as remaining,
    trim_scale(held.credits) as held,
    trim_scale(g.expired) as expired,
    trim_scale(k.rolled_over_credits) as rolled_over,
    trim_scale(line.quantity) as true_up,
    line.amount as true_up_amount,
    trim_scale(round(extract(epoch from greatest(least(credits.clock(), term.ends_at), k.starts_at) - k.starts_at)
        / extract(epoch from k.ends_at - k.starts_at), 6)) as elapsed,
    k.installments,
    k.granted as installments_granted,
    k.minimum_spend,
    k.unit_price::numeric as unit_price,
    k.currency,
    k.metadata
from credits_data.contracts k
cross join lateral (select least(k.ends_at, k.cancelled_at) as ends_at) term
cross join lateral (
    select
        coalesce(sum(left_over.credits) filter (where g.status = 'active' and not is_over), 0) as remaining,
        coalesce(sum(g.expired), 0) + coalesce(sum(left_over.credits) filter (where g.status = 'active' and is_over), 0) as expired,
        coalesce(sum(voided.credits), 0) as voided
    from credits_data.grants g
    join credits_data.wallets w
        on w.customer_id = g.customer_id
       and w.wallet = g.wallet
    cross join lateral (
        select case when g.grant_id = w.head_grant_id then w.head_remaining else g.remaining end as credits
    ) left_over
    cross join lateral (select g.expires_at <= credits.clock() as is_over) clock
    cross join lateral (
        select sum(e.credits) as credits
        from credits_data.entries e
        where e.customer_id = g.customer_id
          and e.grant_id = g.grant_id
          and e.kind = 8
    ) voided
    where g.customer_id = k.customer_id
      and g.contract = k.contract
      and not g.rolled_over
) g
cross join lateral (
    select coalesce(sum(e.credits), 0) as credits
    from credits_data.holds h
    join credits_data.entries e
        on e.customer_id = h.customer_id
       and e.transaction_id = h.hold_id
       and e.kind = 15
    join credits_data.grants held_grant
        on held_grant.customer_id = e.customer_id
       and held_grant.grant_id = e.grant_id
    where h.customer_id = k.customer_id
      and h.due_at < 'infinity'
      and held_grant.contract = k.contract
      and not held_grant.rolled_over
) held
cross join lateral (
    select coalesce(sum(e.credits - coalesce(back.credits, 0)), 0) as overage
    from credits_data.entries e
    left join lateral (
        select sum(r.credits) as credits
        from credits_data.entries r
        where r.customer_id = e.customer_id
          and r.wallet = e.wallet
          and r.reverses_seq = e.seq
    ) back on true
    where k.minimum_spend
      and e.customer_id = k.customer_id
      and e.wallet = k.wallet
      and e.kind = 18
      and e.occurred_at >= k.starts_at
      and (e.occurred_at < term.ends_at or e.occurred_at = k.cancelled_at)
) spent
left join lateral (
    select l.quantity, l.amount
    from credits_data.invoice_lines l
    where l.customer_id = k.customer_id
      and l.contract = k.contract
      and l.kind = 'true_up'
) line on true;
comment on view credits.contract_progress is 'Contracts, and what became of the credits committed: granted = consumed + remaining + held + expired + rolled_over + voided.';

create view credits.job_health as
with due as (
    select a.customer_id
    from credits_data.wallets a
    where a.is_anchor
      and a.next_due_at <= credits.clock()
), items (task, due_at) as (
    select 'lapse_holds', h.due_at
    from due
    join credits_data.holds h on h.customer_id = due.customer_id and h.due_at <= credits.clock() and h.due_at < 'infinity'
    union all
    select case g.status when 'scheduled' then 'activate_grants' else 'expire_grants' end, g.due_at
    from due
    join credits_data.grants g on g.customer_id = due.customer_id and g.due_at <= credits.clock() and g.due_at < 'infinity'
    union all
    select 'renew_grants', r.due_at
    from due
    join credits_data.recurring_grants r
        on r.customer_id = due.customer_id and r.due_at <= credits.clock() and r.due_at < 'infinity'
    union all
    select 'run_contracts', k.due_at
    from due
    join credits_data.contracts k on k.customer_id = due.customer_id and k.due_at <= credits.clock() and k.due_at < 'infinity'
    union all
    select 'queue_top_ups', t.due_at
    from due
    join credits_data.top_up_rules t on t.customer_id = due.customer_id and t.due_at <= credits.clock() and t.due_at < 'infinity'
    union all
    select 'process_inbox', i.received_at
    from credits.usage_inbox i
    where i.error is null
), backlog as (
    select i.task, count(*) as items, min(i.due_at) as oldest_due_at
    from items i
    group by i.task
)
select
    j.task,
    j.last_run_at,
    j.last_items,
    coalesce(b.items, 0) as backlog,
    b.oldest_due_at,
    case
        when b.oldest_due_at < credits.clock() - interval '5 minutes'
            then 'overdue: run credits.run_maintenance() until more_due is false, and schedule it with credits.schedule_jobs()'
        when j.task = 'process_inbox' and failed.events > 0
            then failed.events || ' events could not be charged: correct what column error of credits.usage_inbox says, then run '
                'credits.retry_inbox(); those without credits are tried again after the next credit'
    end as detail
from credits_data.jobs j
left join backlog b
    on b.task = j.task
left join (
    select count(*) as events
    from credits.usage_inbox i
    where i.error is not null
) failed on j.task = 'process_inbox'
union all
select
    'clock',
    null,
    null,
    count(*),
    null,
    'last entry in the future, time stands still there until the real clock has caught up: '
        || string_agg(ahead.name, ', ' order by ahead.name) filter (where ahead.number <= 20)
from (
    select
        format('customer "%s" wallet "%s" (%s)', w.customer_id, w.wallet, e.recorded_at) as name,
        row_number() over (order by w.customer_id, w.wallet) as number
    from credits_data.wallets a
    join credits_data.wallets w
        on w.customer_id = a.customer_id
    join credits_data.entries e
        on e.customer_id = w.customer_id
       and e.wallet = w.wallet
       and e.seq = w.last_seq
    where a.is_anchor
      and a.last_recorded_at > clock_timestamp()
      and e.recorded_at > clock_timestamp()
) ahead
union all
select
    'snapshots',
    null,
    null,
    count(*),
    min(s.xact_start),
    'old snapshots keep dead rows of hot wallets: ' || string_agg(format('pid %s of %s', s.pid, s.usename), ', ' order by s.xact_start)
from pg_catalog.pg_stat_activity s
where s.datname = current_database()
  and s.pid <> pg_backend_pid()
  and s.backend_xmin is not null
  and s.xact_start < clock_timestamp() - interval '1 minute'
union all
select
    'webhooks',
    null,
    null,
    count(d.created_at),
    min(d.created_at),
    nullif(concat_ws('; ',
        case when min(d.created_at) < clock_timestamp() - interval '5 minutes'
            then 'undelivered for more than 5 minutes: see last_error in credits.webhook_deliveries, and whether a worker runs (credits.webhook_database)'
        end,
        case when dead.deliveries > 0
            then dead.deliveries || ' deliveries were given up: credits.replay_webhook() tries one again'
        end,
        case when disabled.endpoints > 0 then disabled.endpoints || ' endpoints are disabled: see credits.webhook_endpoints' end), '')
from (
    select count(*) as deliveries
    from credits_data.webhook_deliveries g
    join credits_data.webhook_endpoints e
        on e.endpoint_id = g.endpoint_id
       and e.disabled_at is null
    where g.status = 'dead'
) dead
cross join (select count(*) as endpoints from credits_data.webhook_endpoints where disabled_at is not null) disabled
left join (
    select p.created_at
    from credits_data.webhook_deliveries p
    join credits_data.webhook_endpoints e
        on e.endpoint_id = p.endpoint_id
       and e.disabled_at is null
    where p.status = 'pending'
) d on true
group by dead.deliveries, disabled.endpoints
union all
select
    'claim_events',
    pulled.acknowledged_at,
    null,
    count(v.event_number),
    min(v.written_at),
    case when pulled.acknowledged_at is not null and min(v.written_at) < clock_timestamp() - interval '5 minutes'
        then 'events are not acknowledged for more than 5 minutes: see whether whoever calls credits.claim_events() runs'
    end
from (select max(acknowledged_at) as acknowledged_at from credits_data.events) pulled
left join credits_data.events v
    on v.acknowledged_at is null
group by pulled.acknowledged_at
union all
select
    'top_ups',
    null,
    null,
    count(t.top_up_id),
    min(t.available_at),
    nullif(concat_ws('; ',
        case when min(t.available_at) < credits.clock() - interval '5 minutes'
            then 'waiting to be claimed for more than 5 minutes: see whether whoever calls credits.claim_top_ups() runs'
        end,
        case when failed.rules > 0
            then failed.rules || ' auto top-ups were disabled after failed payments: see reason in credits.top_ups'
        end), '')
from (select count(*) as rules from credits_data.top_up_rules where not enabled and failures > 0) failed
left join credits_data.top_ups t
    on t.status = 'open'
   and t.available_at <= credits.clock()
group by failed.rules;
comment on view credits.job_health is 'One row for each task of maintenance: when it ran last, how many items are due now, since when. detail is null if all is well. Rows webhooks, claim_events and top_ups: what is to be delivered, acknowledged and claimed, whoever does it. Row clock: wallets that a test clock left in the future; row snapshots: sessions whose old snapshot slows hot wallets down (as far as the reader may see other sessions).';

comment on column credits.recurring_grants.status is 'scheduled (the first period lies ahead), active, or ended (no period runs and none will).';
comment on column credits.recurring_grants.ends_at is 'No period starts at or after it; null for no end.';
comment on column credits.recurring_grants.next_period_at is 'When the next period starts; null if none will.';
comment on column credits.holds.status is 'open, captured, released or lapsed, judged by the clock.';
comment on column credits.holds.held is 'Credits that an open hold sets aside.';
comment on column credits.contract_progress.status is 'scheduled, active or ended, judged by the clock.';
comment on column credits.contract_progress.ends_at is 'When it ends, or ended: as agreed, or when it was cancelled for.';
comment on column credits.contract_progress.granted is 'Credits of the instalments granted so far.';
comment on column credits.contract_progress.consumed is 'Credits of its grants that usage took, a negative adjustment or a debt included; of a minimum spend, overage of the term less refunds.';
comment on column credits.contract_progress.remaining is 'Credits of its grants that can be spent.';
comment on column credits.contract_progress.held is 'Credits of its grants in open holds.';
comment on column credits.contract_progress.expired is 'Credits of its grants that expired.';
comment on column credits.contract_progress.rolled_over is 'Credits that rolled over at its end.';
comment on column credits.contract_progress.true_up is 'Credits charged at the end because they were committed and not spent; null if none were.';
comment on column credits.contract_progress.true_up_amount is 'The money charged for them.';
comment on column credits.contract_progress.elapsed is 'Share of the agreed term that has passed, from 0 to 1.';
comment on column credits.contract_progress.installments_granted is 'How many instalments have been granted.';
comment on column credits.job_health.backlog is 'How many items are due now.';
comment on column credits.job_health.oldest_due_at is 'Since when the oldest of them is due.';
comment on column credits.job_health.detail is 'What is wrong and what to do; null if all is well.';

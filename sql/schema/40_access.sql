-- Who may call what. The levels build on one another: a writer is a reader too, an admin both.
create view credits_data.access_levels as
select level, rank, object_kind, object_name
from (values
    ('reader', 1, 'view', array[
        'wallets', 'grants', 'ledger', 'journal', 'trial_balance', 'expiring_grants', 'recurring_grants', 'contract_progress', 'holds',
        'invoice_lines', 'job_health', 'meters', 'meter_pricing', 'meter_usage', 'usage_daily', 'usage_events', 'usage_inbox',
        'alerts', 'auto_top_ups', 'top_ups', 'metrics',
        'webhook_endpoints', 'webhook_deliveries'
    ]),
    ('reader', 1, 'function', array[
        'clock', 'chart_of_accounts', 'balance', 'balance_at', 'statement', 'preview_deduction', 'price_usage', 'check_entitlement',
        'verify_ledger'
    ]),
    ('writer', 2, 'function', array[
        'create_wallet', 'update_wallet', 'set_wallet_status', 'grant_credits', 'void_grant', 'change_expiry', 'transfer_credits',
        'adjust_credits', 'deduct_usage', 'deduct_usage_batch', 'refund_usage', 'record_usage', 'record_usage_batch', 'process_inbox',
        'retry_inbox', 'hold_credits', 'capture_hold', 'release_hold', 'create_recurring_grant',
        'update_recurring_grant', 'cancel_recurring_grant', 'expire_grants', 'renew_grants', 'run_maintenance',
        'close_overage', 'mark_invoiced', 'request_top_up', 'claim_top_ups', 'complete_top_up', 'fail_top_up',
        'claim_events', 'ack_events'
    ]),
    ('admin', 3, 'function', array[
        'create_contract', 'cancel_contract', 'create_meter', 'set_meter_pricing', 'schedule_jobs', 'unschedule_jobs', 'cron_jobs',
        'set_auto_top_up', 'create_alert', 'drop_alert',
        'create_webhook_endpoint', 'rotate_webhook_secret', 'enable_webhook_endpoint', 'drop_webhook_endpoint', 'replay_webhook'
    ]),
    ('owner', 4, 'function', array['grant_access', 'revoke_access'])
) levels (level, rank, object_kind, object_names)
cross join lateral unnest(object_names) object_name;
comment on view credits_data.access_levels is 'Which level may use which object of schema credits. Every function and view stands in it once.';

comment on column credits_data.access_levels.level is 'Name of the level, as passed to credits.grant_access.';
comment on column credits_data.access_levels.rank is 'A level may use what has its rank or a lower one.';
comment on column credits_data.access_levels.object_kind is 'view (which can be read; usage_inbox is a table) or function.';
comment on column credits_data.access_levels.object_name is 'Name in schema credits.';

create function credits.grant_access(role text, level text)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted_rank integer;
    object record;
begin
    if role is null or level is null then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = case when role is null then 'role' else 'level' end || ' must not be null',
            detail = 'code=null_argument',
            hint = 'Pass a role and one of the levels reader, writer, admin.';
    end if;
    select rank into wanted_rank from credits_data.access_levels a where a.level = grant_access.level and rank <= 3 limit 1;
    if wanted_rank is null then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid level: "%s" is not known', left(level, 60)),
            detail = 'code=invalid_argument',
            hint = 'It is one of: reader, writer, admin.';
    end if;
    perform credits_data.require_role(role);
    perform credits.revoke_access(role);
    execute format('grant usage on schema credits to %I', role);
    for object in
        select a.object_kind, a.object_name from credits_data.access_levels a where a.rank <= wanted_rank
    loop
        if object.object_kind = 'view' then
            execute format('grant select on credits.%I to %I', object.object_name, role);
        else
            execute format('grant execute on function credits.%I to %I', object.object_name, role);
        end if;
    end loop;
    -- The two doors that are no functions.
    if wanted_rank >= 2 then
        execute format('grant insert on credits.usage_events to %I', role);
        execute format(
            'grant insert (customer_id, event_id, event_name, properties, occurred_at) on credits.usage_inbox to %I', role);
    end if;
    return level;
end
$$;
comment on function credits.grant_access(text, text) is 'Gives a role exactly the rights of a level: reader (reads the views and reading functions), writer (also spends, grants and records), admin (also defines rules and schedules jobs). Returns the level.';

create function credits.revoke_access(role text)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if role is null then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = 'role must not be null',
            detail = 'code=null_argument',
            hint = 'Pass the name of a role.';
    end if;
    perform credits_data.require_role(role);
    execute format('revoke all on all tables in schema credits from %I', role);
    execute format('revoke all on all functions in schema credits from %I', role);
    execute format('revoke all on schema credits from %I', role);
    return role;
end
$$;
comment on function credits.revoke_access(text) is 'Takes every right on pg_credits from a role. Returns the role.';

create function credits_data.require_role(role text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pg_roles where rolname = role) then
        raise exception using
            errcode = 'no_data_found',
            message = format('role "%s" not found', left(role, 63)),
            detail = 'code=not_found',
            hint = 'Create it with: create role ...';
    end if;
end
$$;
comment on function credits_data.require_role(text) is 'Refuses a role that does not exist.';

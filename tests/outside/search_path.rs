//! A caller's search path, however full of traps, changes nothing of what the extension does (SPEC 13).

use pgrx_tests::{assert_ledger_is_sound, shared_cluster};

use crate::access::{VIEWS, books_with};
use crate::books::entries;

/// A schema full of traps: whatever the extension calls or reads without naming its schema raises `sprung`.
const TRAPS: &str = "
    create function trap.sprung(anyelement) returns anyelement language plpgsql as $$begin raise 'sprung as %', current_user; end$$;
    create function trap.computed(numeric, numeric) returns numeric language plpgsql
        as $$begin raise 'sprung as %', current_user; end$$;
    create function trap.trim_scale(numeric) returns numeric language sql as 'select trap.sprung($1)';
    create function trap.format(text, text) returns text language sql as 'select trap.sprung($1)';
    create function trap.clock() returns timestamptz language sql as 'select trap.sprung(now())';
    create function trap.left(text, int) returns text language sql as 'select trap.sprung($1)';
    create function trap.current_database() returns name language sql as $$select trap.sprung('x'::name)$$;
    create operator trap.- (leftarg = numeric, rightarg = numeric, function = trap.computed);
    create operator trap.+ (leftarg = numeric, rightarg = numeric, function = trap.computed);
    do $do$
    declare operator text; type text;
    begin
        foreach type in array array['text', 'numeric', 'timestamptz', 'bigint', 'integer', 'uuid', 'name', 'oid', 'smallint'] loop
            execute format('create function trap.compared(%s, %1$s) returns boolean language plpgsql as $f$begin raise $$sprung$$; end$f$', type);
            foreach operator in array array['=', '<>', '<', '<=', '>', '>='] loop
                execute format('create operator trap.%s (leftarg = %s, rightarg = %2$s, function = trap.compared)', operator, type);
            end loop;
        end loop;
    end $do$;
    create table trap.wallets (customer_id text); create table trap.grants (customer_id text); create table trap.entries (seq int);
    create table trap.pg_roles (rolname text); create table trap.pg_extension (extname text); create table trap.access_levels (level text);
    create type trap.grant_type as enum ('free'); create domain trap.amount as numeric check (value = 0);
    create domain trap.text as int; create domain trap.jsonb as int; create domain trap.numeric as int;";

const SHADOWS: &str = "
    create temp table wallets (customer_id text); create temp table grants (customer_id text); create temp table entries (seq int);
    create temp table chart_of_accounts (kind_id int); create temp table access_levels (level text);
    create temp table pg_roles (rolname text); create temp table pg_extension (extname text); create temp table pg_proc (proname text);
    create temp table unnest (n int); create domain pg_temp.text as int; create domain pg_temp.jsonb as int;";

#[test]
fn a_callers_search_path_changes_nothing() {
    let rule = "a_callers_search_path_changes_nothing";
    let mut owner = books_with(rule, "mallory", "writer");
    owner.exec(
        "create schema trap authorization mallory; grant temporary on database a_callers_search_path_changes_nothing to mallory",
    );
    owner.exec("grant set on parameter credits.test_clock to mallory");
    shared_cluster().session_as(rule, "mallory").exec(TRAPS);
    let mut session = shared_cluster().session_as(rule, "mallory");
    session.exec(SHADOWS);
    session.exec("set search_path = trap, pg_temp, pg_catalog");
    let sprung = session.error("select 1::numeric - 1::numeric");
    assert!(sprung.message.contains("sprung"), "the traps are armed: {sprung}");
    session.exec("set credits.test_clock = '2026-01-01 00:00+00'");
    owner.exec("select credits.create_meter('tokens', 'call', 'sum', 'tokens'), credits.create_meter('seats', 'call', 'unique', 'tokens')");
    for call in [
        "create_wallet('acme', 'promo', priority => 1)",
        "update_wallet('acme', 'promo', name => 'Promo', overage_policy => 'overdraft')",
        "grant_credits('acme', 10, 'promo', 'promotional', '2026-02-01 00:00+00', applies_to => array['call'])",
        "deduct_usage('acme', 12, 'split', event_name => 'call')",
        "deduct_usage('acme', 12, 'split', event_name => 'call')",
        "refund_usage('acme', 'split', 5)",
        "transfer_credits('acme', 1, 'default', 'promo')",
        "adjust_credits('acme', -1, 'why')",
        "create_recurring_grant('acme', 'monthly', 10, '1 month', 'promo', time_zone => 'Asia/Tokyo', rollover_percent => 50)",
        "update_recurring_grant('acme', 'monthly', 20, metadata => '{\"plan\": \"pro\"}')",
        "hold_credits('acme', 30, event_name => 'call', idempotency_key => 'captured')",
        "capture_hold('acme', 'captured', 35)",
        "hold_credits('acme', 3, idempotency_key => 'released')",
        "release_hold('acme', 'released')",
        "cancel_recurring_grant('acme', 'monthly')",
        "renew_grants()",
        "preview_deduction('acme', 5)",
        "set_wallet_status('acme', 'promo', 'frozen')",
        "deduct_usage('acme', 1, 'plain')",
        "record_usage('acme', 'call', '{\"tokens\": 3}', 'event')",
        "record_usage_batch('[{\"customer_id\": \"acme\", \"event_name\": \"call\", \"properties\": {\"tokens\": 1}, \"occurred_at\": \"yesterday\"}]')",
        "deduct_usage_batch('[{\"customer_id\": \"acme\", \"amount\": 0}]')",
        "price_usage('call', '{\"tokens\": 3}', 'acme')",
        "check_entitlement('acme', event_name => 'call', properties => '{\"tokens\": 3}')",
        "retry_inbox()",
        "balance('acme')",
        "balance_at('acme', 'default', '2026-01-01 00:00+00')",
        "statement('acme', 'default', '2025-01-01 00:00+00', '2026-02-01 00:00+00')",
        "expire_grants()",
        "run_maintenance()",
        "clock()",
        "chart_of_accounts()",
        "verify_ledger()",
    ] {
        session.exec(&format!("select * from credits.{call}"));
    }
    session.exec(
        "insert into credits.usage_events (customer_id, event_name, properties) values ('acme', 'call', '{\"tokens\": 1}')",
    );
    session.exec("insert into credits.usage_inbox (customer_id, event_name) values ('acme', 'call'), ('acme', 'other')");
    session.exec("select * from credits.process_inbox()");
    for view in VIEWS {
        session.exec(&format!("select * from credits.{view}"));
    }
    owner.exec("set search_path = trap, pg_temp, pg_catalog");
    owner.exec("select credits.create_meter('more', 'other', 'count'), credits.set_meter_pricing('more', '{\"model\": \"per_unit\", \"credits\": 1}', customer_id => 'acme')");
    owner.exec("select credits.grant_access('mallory', 'admin'); select credits.revoke_access('mallory')");
    owner.exec(
        "select credits.create_contract('acme', 'deal', 100, '2026-01-01 00:00+00', '2027-01-01 00:00+00', installments => 4);
         select credits.cancel_contract('acme', 'deal')",
    );
    let error = owner.error("select * from credits.schedule_jobs()");
    assert_eq!(error.symbol(), "wrong_state", "{error}");
    let error = owner.error("update credits_data.entries set seq = seq");
    assert_eq!(error.symbol(), "append_only", "{error}");
    owner.exec("reset search_path");
    assert_eq!(entries(&mut owner, "split"), ["promo usage 10", "default usage 2 bought"]);
    assert_eq!(entries(&mut owner, "plain"), ["default usage 1 bought"]);
    assert_ledger_is_sound(&mut owner);
}

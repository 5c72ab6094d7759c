//! Who may do what, and what no role can talk the extension into (SPEC 2, 5, 11 and 13).

use pgrx_tests::postgres::{Client, NoTls};
use pgrx_tests::{DbErrorInfo, Session, assert_ledger_is_sound, shared_cluster};

use crate::books::{everything, grant, new_books};

pub const VIEWS: &[&str] = &[
    "alerts",
    "auto_top_ups",
    "contract_progress",
    "expiring_grants",
    "grants",
    "holds",
    "invoice_lines",
    "job_health",
    "journal",
    "ledger",
    "meter_pricing",
    "meter_usage",
    "meters",
    "metrics",
    "recurring_grants",
    "top_ups",
    "trial_balance",
    "usage_daily",
    "usage_events",
    "usage_inbox",
    "wallets",
    "webhook_deliveries",
    "webhook_endpoints",
];

/// The functions that each level adds to the one before; the last are the owner's alone.
const FUNCTIONS: [(&str, &[&str]); 4] = [
    (
        "reader",
        &[
            "balance",
            "balance_at",
            "chart_of_accounts",
            "check_entitlement",
            "clock",
            "preview_deduction",
            "price_usage",
            "statement",
            "verify_ledger",
        ],
    ),
    (
        "writer",
        &[
            "ack_events",
            "adjust_credits",
            "cancel_recurring_grant",
            "capture_hold",
            "change_expiry",
            "claim_events",
            "claim_top_ups",
            "close_overage",
            "complete_top_up",
            "create_recurring_grant",
            "create_wallet",
            "deduct_usage",
            "deduct_usage_batch",
            "expire_grants",
            "fail_top_up",
            "grant_credits",
            "hold_credits",
            "mark_invoiced",
            "process_inbox",
            "record_usage",
            "record_usage_batch",
            "refund_usage",
            "release_hold",
            "renew_grants",
            "request_top_up",
            "retry_inbox",
            "run_maintenance",
            "set_wallet_status",
            "transfer_credits",
            "update_recurring_grant",
            "update_wallet",
            "void_grant",
        ],
    ),
    (
        "admin",
        &[
            "cancel_contract",
            "create_alert",
            "create_contract",
            "create_meter",
            "create_webhook_endpoint",
            "cron_jobs",
            "drop_alert",
            "drop_webhook_endpoint",
            "enable_webhook_endpoint",
            "replay_webhook",
            "rotate_webhook_secret",
            "schedule_jobs",
            "set_auto_top_up",
            "set_meter_pricing",
            "unschedule_jobs",
        ],
    ),
    ("owner", &["grant_access", "revoke_access"]),
];

/// A call for each function above, which needs nothing but acme's wallet `default`.
const CALLS: &[(&str, &str)] = &[
    ("ack_events", "'{}'"),
    ("adjust_credits", "'acme', 1, 'gift'"),
    ("balance", "'acme'"),
    ("balance_at", "'acme', 'default', '2026-01-01 00:00+00'"),
    ("chart_of_accounts", ""),
    ("cancel_contract", "'acme', 'no such contract'"),
    ("cancel_recurring_grant", "'acme', 'no such recurring grant'"),
    ("capture_hold", "'acme', 'no such hold'"),
    ("change_expiry", "'acme', '00000000-0000-0000-0000-000000000000', '2027-01-01 00:00+00'"),
    ("check_entitlement", "'acme'"),
    ("claim_events", ""),
    ("claim_top_ups", ""),
    ("clock", ""),
    ("close_overage", ""),
    ("complete_top_up", "'acme', '00000000-0000-0000-0000-000000000000', 'payment'"),
    ("create_alert", "'acme', 'no such wallet', 10"),
    ("create_contract", "'acme', 'deal', 100, '2026-01-01 00:00+00', '2199-01-01 00:00+00', 'no such wallet'"),
    ("create_meter", "'calls', 'call', 'count'"),
    ("create_recurring_grant", "'acme', 'monthly', 1, '1 month', 'no such wallet'"),
    ("create_wallet", "'acme', if_not_exists => true"),
    ("create_webhook_endpoint", "'https://example.com/'"),
    ("cron_jobs", "'schedule', '* * * * *'"),
    ("deduct_usage", "'acme', 1"),
    ("deduct_usage_batch", "'[]'"),
    ("drop_alert", "'acme', '00000000-0000-0000-0000-000000000000'"),
    ("drop_webhook_endpoint", "'00000000-0000-0000-0000-000000000000'"),
    ("enable_webhook_endpoint", "'00000000-0000-0000-0000-000000000000'"),
    ("expire_grants", ""),
    ("fail_top_up", "'acme', '00000000-0000-0000-0000-000000000000', 'declined'"),
    ("grant_access", "'nobody at all', 'reader'"),
    ("grant_credits", "'acme', 1"),
    ("hold_credits", "'acme', 1"),
    ("mark_invoiced", "'acme', '00000000-0000-0000-0000-000000000000', 'invoice'"),
    ("preview_deduction", "'acme', 1"),
    ("price_usage", "'no such event'"),
    ("process_inbox", ""),
    ("record_usage", "'acme', 'no such event'"),
    ("record_usage_batch", "'[]'"),
    ("refund_usage", "'acme', 'no such transaction'"),
    ("release_hold", "'acme', 'no such hold'"),
    ("renew_grants", ""),
    ("replay_webhook", "'00000000-0000-0000-0000-000000000000'"),
    ("request_top_up", "'acme'"),
    ("retry_inbox", ""),
    ("revoke_access", "'nobody at all'"),
    ("rotate_webhook_secret", "'00000000-0000-0000-0000-000000000000'"),
    ("run_maintenance", ""),
    ("schedule_jobs", ""),
    ("set_auto_top_up", "'acme', 'no such wallet', 1, 2"),
    ("set_meter_pricing", "'no such meter', '{\"model\": \"per_unit\", \"credits\": 1}'"),
    ("set_wallet_status", "'acme', 'default', 'active'"),
    ("statement", "'acme', 'default', '2025-01-01 00:00+00', '2026-01-01 00:00+00'"),
    ("transfer_credits", "'acme', 1, 'default', 'no such wallet'"),
    ("unschedule_jobs", ""),
    ("update_recurring_grant", "'acme', 'no such recurring grant'"),
    ("update_wallet", "'acme', 'default', name => 'Main'"),
    ("verify_ledger", ""),
    ("void_grant", "'acme', '00000000-0000-0000-0000-000000000000'"),
];

fn functions_up_to(level: &str) -> Vec<String> {
    let levels =
        FUNCTIONS.iter().take_while(|(name, _)| *name != level).chain(FUNCTIONS.iter().filter(|(name, _)| *name == level));
    let mut functions: Vec<String> = if level == "none" {
        Vec::new()
    } else {
        levels.flat_map(|(_, functions)| functions.iter().map(|name| (*name).to_owned())).collect()
    };
    functions.sort();
    functions
}

/// A database in which the role has the level. Roles belong to the cluster, so each test has its own.
pub fn books_with(rule: &str, role: &str, level: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "bought", "100", "");
    shared_cluster().create_role(role);
    if level != "none" {
        assert_eq!(session.one(&format!("select credits.grant_access('{role}', '{level}')")), level);
    }
    session
}

/// Asserts by the catalog that a role has the rights of a level, and not one more.
#[track_caller]
fn assert_has_exactly(session: &mut Session, role: &str, level: &str) {
    let functions = session.lines(&format!(
        "select proname from pg_proc
         where pronamespace in ('credits'::regnamespace, 'credits_data'::regnamespace)
           and has_function_privilege('{role}', oid, 'execute')
         order by proname collate \"C\""
    ));
    assert_eq!(functions, functions_up_to(level), "functions of {role}");
    let relations = session.lines(&format!(
        "select relname || ' ' || privilege from pg_class
         cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) privilege
         where relnamespace in ('credits'::regnamespace, 'credits_data'::regnamespace)
           and relkind in ('r', 'v', 'm', 'p', 'f')
           and (has_table_privilege('{role}', oid, privilege)
                or privilege in ('select', 'insert', 'update', 'references') and has_any_column_privilege('{role}', oid, privilege))
         order by relname collate \"C\", privilege"
    ));
    let of_view = |view: &&str| {
        // The two doors that are no functions: all columns of the one, five of the other.
        let is_door = ["usage_events", "usage_inbox"].contains(view) && ["writer", "admin"].contains(&level);
        [is_door.then(|| format!("{view} insert")), Some(format!("{view} select"))].into_iter().flatten()
    };
    let views: Vec<String> = VIEWS.iter().filter(|_| level != "none").flat_map(of_view).collect();
    assert_eq!(relations, views, "relations of {role}");
    let schemas = session.lines(&format!(
        "select nspname || ' ' || privilege from pg_namespace cross join unnest(array['create', 'usage']) privilege
         where nspname in ('credits', 'credits_data') and has_schema_privilege('{role}', oid, privilege)"
    ));
    assert_eq!(schemas, if level == "none" { vec![] } else { vec!["credits usage"] }, "schemas of {role}");
}

#[test]
fn nothing_is_granted_to_public() {
    let mut session = new_books("nothing_is_granted_to_public");
    let granted = session.lines(
        "with object (name, acl) as (
             select 'schema ' || nspname, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace
             where nspname in ('credits', 'credits_data')
             union all
             select 'function ' || oid::regprocedure, coalesce(proacl, acldefault('f', proowner)) from pg_proc
             where pronamespace in ('credits'::regnamespace, 'credits_data'::regnamespace)
             union all
             select 'relation ' || oid::regclass, coalesce(relacl, acldefault('r', relowner)) from pg_class
             where relnamespace in ('credits'::regnamespace, 'credits_data'::regnamespace)
             union all
             select 'column ' || attrelid::regclass || '.' || attname, attacl from pg_attribute join pg_class c on c.oid = attrelid
             where relnamespace in ('credits'::regnamespace, 'credits_data'::regnamespace)
             union all
             select 'type ' || oid::regtype, coalesce(typacl, acldefault('T', typowner)) from pg_type
             where typnamespace in ('credits'::regnamespace, 'credits_data'::regnamespace) and typtype in ('e', 'd')
         )
         select name || ': ' || privilege_type from object cross join lateral aclexplode(acl)
         where grantee = 0
         order by 1",
    );
    assert_eq!(granted, [""; 0]);
}

#[test]
fn each_level_has_exactly_its_rights() {
    let mut session = books_with("each_level_has_exactly_its_rights", "level_none", "none");
    assert_has_exactly(&mut session, "level_none", "none");
    for level in ["reader", "writer", "admin"] {
        let role = format!("level_{level}");
        shared_cluster().create_role(&role);
        assert_eq!(session.one(&format!("select credits.grant_access('{role}', '{level}')")), level);
        assert_has_exactly(&mut session, &role, level);
    }
    let grantable = session.one(
        "select count(*) from pg_proc cross join lateral aclexplode(proacl)
         where pronamespace = 'credits'::regnamespace and is_grantable and grantee <> proowner",
    );
    assert_eq!(grantable, "0", "nobody passes a right on");
}

#[test]
fn each_level_can_call_what_it_may_and_nothing_else() {
    let rule = "each_level_can_call_what_it_may";
    let mut owner = books_with(rule, "caller_none", "none");
    for level in ["none", "reader", "writer", "admin"] {
        let role = format!("caller_{level}");
        shared_cluster().create_role(&role);
        if level != "none" {
            owner.exec(&format!("select credits.grant_access('{role}', '{level}')"));
        }
        let allowed = functions_up_to(level);
        let mut session = shared_cluster().session_as(rule, &role);
        for (function, arguments) in CALLS {
            let answer = session.try_rows(&format!("select * from credits.{function}({arguments})"));
            let is_denied = answer.as_ref().is_err_and(|error| error.sqlstate == "42501");
            assert_eq!(is_denied, !allowed.iter().any(|name| name == function), "{role} calls {function}: {answer:?}");
            let is_clean = answer.as_ref().err().is_none_or(|error| is_denied || ["P0002", "55000"].contains(&&*error.sqlstate));
            assert!(is_clean, "{role} calls {function}: {answer:?}");
        }
        for view in VIEWS {
            let answer = session.try_rows(&format!("select * from credits.{view}"));
            assert_eq!(answer.is_ok(), level != "none", "{role} reads {view}: {answer:?}");
        }
    }
    let listed: Vec<&str> = CALLS.iter().map(|(function, _)| *function).collect();
    let mut all = functions_up_to("owner");
    all.sort_by_key(|name| listed.iter().position(|other| other == name));
    assert_eq!(listed, all, "CALLS names every function");
    assert_ledger_is_sound(&mut owner);
}

#[test]
fn nobody_but_the_owner_touches_a_table() {
    let rule = "nobody_but_the_owner_touches_a_table";
    let mut owner = books_with(rule, "table_admin", "admin");
    let tables = owner.lines(
        "select relname from pg_class where relnamespace = 'credits_data'::regnamespace and relkind in ('r', 'v') order by relname",
    );
    assert!(tables.contains(&"entries".to_owned()), "{tables:?}");
    let before = everything(&mut owner);
    let mut session = shared_cluster().session_as(rule, "table_admin");
    for table in &tables {
        let table = format!("credits_data.{table}");
        for statement in [
            format!("select from {table}"),
            format!("table {table}"),
            format!("insert into {table} select * from {table}"),
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("copy {table} to stdout"),
            format!("copy {table} from stdin"),
            format!("do 'begin lock table {table}; end'"),
            format!("drop table {table}"),
            format!("alter table {table} add column mine int"),
            format!(
                "create trigger mine before insert on {table} execute function pg_catalog.suppress_redundant_updates_trigger()"
            ),
        ] {
            let error = session.error(&statement);
            assert_eq!(error.sqlstate, "42501", "{statement}: {error}");
        }
    }
    for statement in [
        "create table credits_data.mine ()",
        "create function credits.mine() returns int language sql as 'select 1'",
        "select 'prepaid'::credits_data.grant_type",
        "select credits_data.require_role('table_admin')",
        "update credits.wallets set name = 'mine'",
        "delete from credits.grants",
        "insert into credits.ledger default values",
        "alter extension pg_credits update",
        "drop extension pg_credits",
        "alter function credits.clock() owner to table_admin",
    ] {
        let error = session.error(statement);
        assert!(["42501", "55000"].contains(&error.sqlstate.as_str()), "{statement}: {error}");
    }
    assert_eq!(everything(&mut owner), before);
}

#[test]
fn a_lower_level_takes_rights_away_and_revoking_takes_all() {
    let mut session = books_with("a_lower_level_takes_rights_away", "mover", "admin");
    for level in ["admin", "reader", "writer", "writer", "reader"] {
        assert_eq!(session.one(&format!("select credits.grant_access('mover', '{level}')")), level);
        assert_has_exactly(&mut session, "mover", level);
    }
    session.exec("grant select (customer_id) on credits.ledger to mover; grant insert on credits.wallets to mover");
    for _ in 0..2 {
        assert_eq!(session.one("select credits.revoke_access('mover')"), "mover");
        assert_has_exactly(&mut session, "mover", "none");
    }
    session.exec("drop role mover");
}

#[test]
fn access_is_given_to_existing_roles_only_however_they_are_called() {
    let mut session = new_books("access_is_given_to_existing_roles");
    for role in ["public", "PUBLIC", "", "nobody_at_all", "current_user", "postgres; drop schema credits"] {
        for call in [format!("grant_access('{role}', 'reader')"), format!("revoke_access('{role}')")] {
            let error = session.error(&format!("select credits.{call}"));
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("P0002", "not_found"), "{call}: {error}");
        }
    }
    for level in ["owner", "", "Reader", "superuser"] {
        let error = session.error(&format!("select credits.grant_access('postgres', '{level}')"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{level}: {error}");
    }
    let odd = "it's a \"role\"; -- %I";
    session.exec("create role \"it's a \"\"role\"\"; -- %I\" login");
    session.rows_text("select credits.grant_access($1, 'writer')", &[odd]);
    assert_eq!(
        session.rows_text("select has_function_privilege($1, 'credits.clock()', 'execute')", &[odd])[0][0].as_deref(),
        Some("t")
    );
    session.rows_text("select credits.revoke_access($1)", &[odd]);
    session.exec("drop role \"it's a \"\"role\"\"; -- %I\"");
}

#[test]
fn the_ledger_is_append_only_for_the_superuser_too() {
    let mut session = new_books("the_ledger_is_append_only");
    grant(&mut session, "bought", "10", "");
    let before = everything(&mut session);
    for role in ["origin", "replica", "local"] {
        session.exec(&format!("set session_replication_role = {role}"));
        for statement in [
            "update credits_data.entries set credits = 0",
            "update credits_data.entries set credits = credits where false",
            "delete from credits_data.entries",
            "truncate credits_data.entries",
            "truncate credits_data.entries, credits_data.wallets, credits_data.grants cascade",
            "merge into credits_data.entries e using (values (1)) v (n) on true when matched then delete",
            "insert into credits_data.entries select * from credits_data.entries
             on conflict (customer_id, transaction_id, line) do update set credits = 0",
        ] {
            let error = session.error(statement);
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("42501", "append_only"), "{role}: {statement}: {error}");
            assert!(!error.hint.is_empty(), "{error}");
        }
    }
    session.exec("reset session_replication_role");
    assert_eq!(everything(&mut session), before);
}

/// Whether the ledger's clock shows real time to this session.
fn is_real_time(session: &mut Session) -> bool {
    session.one("select abs(extract(epoch from credits.clock() - clock_timestamp())) < 60") == "t"
}

const SET: &str = "set credits.test_clock = '2030-01-01 00:00+00'";

#[test]
fn an_ordinary_role_cannot_set_the_test_clock() {
    let rule = "an_ordinary_role_cannot_set_the_clock";
    let mut owner = books_with(rule, "timeless", "admin");
    let mut session = shared_cluster().session_as(rule, "timeless");
    assert!(is_real_time(&mut session), "and the library is loaded");
    for statement in
        [SET, "set local credits.test_clock = ''", "select set_config('credits.test_clock', '2030-01-01 00:00+00', false)"]
    {
        let error = session.error(statement);
        assert_eq!(error.sqlstate, "42501", "{statement}: {error}");
    }
    let alter_role = "alter role timeless set credits.test_clock = '2030-01-01 00:00+00'";
    assert_eq!(session.error(alter_role).sqlstate, "42501");
    // Before the library is loaded anybody can set a placeholder: then it must have no effect.
    for statement in [SET, "select set_config('credits.test_clock', '2030-01-01 00:00+00', false)"] {
        let mut fresh = shared_cluster().session_as(rule, "timeless");
        if let Err(error) = fresh.try_exec(statement) {
            assert_eq!(error.sqlstate, "42501", "{error}");
        }
        assert!(is_real_time(&mut fresh), "{statement}, before the library is loaded");
        fresh.exec("select * from credits.deduct_usage('acme', 1)");
    }
    let connection = shared_cluster().connection_string(rule).replace("user=postgres", "user=timeless");
    let options = "options='-c credits.test_clock=2030-01-01'";
    let answer = Client::connect(&format!("{connection} {options}"), NoTls)
        .and_then(|mut client| client.query_one("select abs(extract(epoch from credits.clock() - now())) < 60", &[]))
        .map(|row| row.get::<_, bool>(0));
    assert!(answer.is_err() || answer.is_ok_and(|is_real| is_real), "as an option of the connection");
    let ahead = owner.one("select count(*) from credits.ledger where recorded_at > clock_timestamp() + interval '1 minute'");
    assert_eq!(ahead, "0");
}

#[test]
fn a_role_that_was_granted_the_test_clock_can_set_it() {
    let rule = "a_role_granted_the_test_clock";
    let mut owner = books_with(rule, "timed", "reader");
    owner.exec("grant set on parameter credits.test_clock to timed");
    let clock = |session: &mut Session| session.one("select credits.clock() at time zone 'UTC'");
    let mut loaded = shared_cluster().session_as(rule, "timed");
    assert!(is_real_time(&mut loaded));
    loaded.exec(SET);
    assert_eq!(clock(&mut loaded), "2030-01-01 00:00:00");
    loaded.exec("set credits.test_clock = ''");
    assert!(is_real_time(&mut loaded));
    let mut fresh = shared_cluster().session_as(rule, "timed");
    fresh.exec(SET);
    assert_eq!(clock(&mut fresh), "2030-01-01 00:00:00", "set before the library was loaded");
    owner.exec("revoke set on parameter credits.test_clock from timed");
    let denied: DbErrorInfo = loaded.error(SET);
    assert_eq!(denied.sqlstate, "42501", "{denied}");
}

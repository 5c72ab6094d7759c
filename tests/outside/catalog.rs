//! What the catalog promises: every object explained, every function callable from any driver, every hot statement by its index
//! (SPEC intro, 11 and 13; DESIGN, facts).

use std::sync::{Arc, Mutex};

use pgrx_tests::postgres::{Client, Config, NoTls};
use pgrx_tests::{Cluster, Session, shared_cluster};

use crate::books::new_books;

const SCHEMAS: &str = "('credits'::regnamespace, 'credits_data'::regnamespace)";

#[track_caller]
fn assert_none(session: &mut Session, what: &str, sql: &str) {
    let found = session.lines(sql);
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_object_has_a_comment() {
    let mut session = new_books("every_object_has_a_comment");
    let objects = format!(
        "select 'schema ' || nspname as name, obj_description(oid, 'pg_namespace') as comment from pg_namespace where oid in {SCHEMAS}
         union all
         select 'function ' || oid::regprocedure, obj_description(oid, 'pg_proc') from pg_proc where pronamespace in {SCHEMAS}
         union all
         select 'relation ' || oid::regclass, obj_description(oid, 'pg_class') from pg_class
         where relnamespace in {SCHEMAS} and relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'i')
         union all
         select 'column ' || c.oid::regclass || '.' || attname, col_description(c.oid, attnum)
         from pg_attribute join pg_class c on c.oid = attrelid
         where relnamespace in {SCHEMAS} and relkind in ('r', 'p', 'v', 'm', 'f', 'c') and attnum > 0 and not attisdropped
         union all
         select 'type ' || t.oid::regtype, obj_description(t.oid, 'pg_type')
         from pg_type t left join pg_class c on c.oid = typrelid
         where typnamespace in {SCHEMAS} and (typtype in ('e', 'd', 'r', 'b') and typcategory <> 'A' or relkind = 'c')
         union all
         select 'constraint ' || conname, obj_description(oid, 'pg_constraint')
         from pg_constraint where connamespace in {SCHEMAS} and contype <> 'n'
         union all
         select 'trigger ' || tgname, obj_description(t.oid, 'pg_trigger')
         from pg_trigger t join pg_class c on c.oid = tgrelid
         where relnamespace in {SCHEMAS} and not tgisinternal"
    );
    let sql = format!("select name from ({objects}) o where coalesce(trim(comment), '') = '' order by 1");
    assert_none(&mut session, "without a comment", &sql);
    let count: u32 = session.one(&format!("select count(*) from ({objects}) o")).parse().expect("a number");
    assert!(count > 150, "only {count} objects were looked at");
}

#[test]
fn columns_that_are_read_by_their_position_stand_there() {
    let mut session = new_books("columns_stand_at_their_positions");
    let columns = |session: &mut Session, table: &str| {
        session.lines(&format!(
            "select attname from pg_attribute where attrelid = 'credits_data.{table}'::regclass and attnum > 0 order by attnum"
        ))
    };
    assert_eq!(columns(&mut session, "meter_catalog")[..1], ["token"]);
    assert_eq!(
        columns(&mut session, "meter_periods")[..11],
        [
            "period_start",
            "events",
            "arrivals",
            "latest_at",
            "customer_id",
            "meter",
            "rate",
            "aggregate",
            "paid",
            "paid_left",
            "paid_by"
        ]
    );
}

#[test]
fn the_extension_owns_objects_of_its_two_schemas_only() {
    let mut session = new_books("objects_of_its_two_schemas_only");
    assert_none(
        &mut session,
        "elsewhere",
        "select a.identity from pg_depend d
         cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) a
         where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
           and d.refobjid = (select oid from pg_extension where extname = 'pg_credits')
           and a.schema is distinct from 'credits' and a.schema is distinct from 'credits_data'
           and (a.type, a.name) is distinct from ('schema', 'credits_data')
           and a.type <> 'trigger'",
    );
}

#[test]
fn every_function_and_view_has_exactly_one_access_level() {
    let mut session = new_books("exactly_one_access_level");
    let objects = "select 'function' as kind, proname::text as name from pg_proc where pronamespace = 'credits'::regnamespace
                   union all
                   select 'view', relname from pg_class where relnamespace = 'credits'::regnamespace and relkind in ('r', 'v', 'm', 'p', 'f')
                   order by 1, 2";
    let objects = session.lines(&format!("select kind, name from ({objects}) o order by kind collate \"C\", name collate \"C\""));
    let listed = session.lines(
        "select object_kind, object_name from credits_data.access_levels
         order by object_kind collate \"C\", object_name collate \"C\"",
    );
    assert_eq!(listed, objects);
}

#[test]
fn no_function_can_be_talked_into_another_search_path() {
    let mut session = new_books("pinned_search_path");
    assert_none(
        &mut session,
        "without security definer or a pinned search path",
        "select p.oid::regprocedure from pg_proc p join pg_language l on l.oid = prolang
         where pronamespace = 'credits'::regnamespace and lanname = 'c' and proname not in ('clock', 'chart_of_accounts')
           and not (prosecdef and coalesce(proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}')",
    );
    assert_none(
        &mut session,
        "without a pinned search path",
        &format!(
            "select p.oid::regprocedure from pg_proc p join pg_language l on l.oid = prolang
             where pronamespace in {SCHEMAS} and (prosecdef or lanname in ('sql', 'plpgsql'))
               and not coalesce(proconfig, '{{}}') @> '{{\"search_path=pg_catalog, pg_temp\"}}'"
        ),
    );
}

#[test]
fn any_driver_can_call_every_function() {
    let mut session = new_books("any_driver_can_call_every_function");
    let functions = "pg_proc p where pronamespace = 'credits'::regnamespace";
    for (what, condition) in [
        ("strict", "proisstrict and pronargs > 0"),
        ("void", "prorettype = 'void'::regtype"),
        ("returns rows of no fixed columns", "prorettype = 'record'::regtype and (proargmodes is null or not 't' = any (proargmodes))"),
        ("no plain function", "prokind <> 'f' or provariadic <> 0"),
        ("arguments without a name", "pronargs > 0 and (proargnames is null or '' = any (proargnames))"),
        ("overloaded", "(select count(*) from pg_proc o where o.pronamespace = p.pronamespace and o.proname = p.proname) > 1"),
        (
            "types of no catalog",
            "exists (select from unnest(coalesce(proallargtypes, proargtypes::oid[]) || prorettype) t (id) join pg_type on oid = id
                     where typnamespace <> 'pg_catalog'::regnamespace)",
        ),
    ] {
        assert_none(&mut session, what, &format!("select p.oid::regprocedure from {functions} and ({condition})"));
    }
    assert_none(
        &mut session,
        "columns of a private type",
        "select attrelid::regclass || '.' || attname from pg_attribute join pg_class c on c.oid = attrelid join pg_type t on t.oid = atttypid
         where relnamespace = 'credits'::regnamespace and attnum > 0 and typnamespace <> 'pg_catalog'::regnamespace",
    );
}

#[test]
fn every_table_and_sequence_is_dumped() {
    let mut session = new_books("every_table_and_sequence_is_dumped");
    assert_none(
        &mut session,
        "not marked with pg_extension_config_dump",
        &format!(
            "select oid::regclass from pg_class where relnamespace in {SCHEMAS} and relkind in ('r', 'p', 'S')
             and oid <> all (select unnest(extconfig) from pg_extension where extname = 'pg_credits')"
        ),
    );
}

#[test]
fn guards_hold_in_every_replication_role() {
    let mut session = new_books("guards_hold_in_every_role");
    assert_none(
        &mut session,
        "not enabled always",
        &format!(
            "select tgname from pg_trigger join pg_class c on c.oid = tgrelid
             where relnamespace in {SCHEMAS} and relkind <> 'v' and not tgisinternal and tgenabled <> 'A'"
        ),
    );
    let triggers =
        "select tgrelid::regclass, tgname, tgenabled from pg_trigger where not tgisinternal order by tgrelid::regclass::text";
    assert_eq!(
        session.lines(triggers),
        [
            "credits.usage_events|usage_events_record|O", // a view's trigger can only be enabled as it is
            "credits_data.entries|entries_append_only|A",
            "credits_data.meter_prices|meter_prices_renew_catalog|A",
            "credits_data.meters|meters_renew_catalog|A"
        ]
    );
}

/// A session that is told the plan of every statement that runs, those inside functions too.
struct Explained {
    client: Client,
    plans: Arc<Mutex<Vec<String>>>,
}

impl Explained {
    fn connect(cluster: &Cluster, database: &str) -> Explained {
        let plans = Arc::new(Mutex::new(Vec::new()));
        let sink = plans.clone();
        let mut config = Config::new();
        config.host_path(cluster.socket()).user("postgres").dbname(database);
        config.notice_callback(move |notice| {
            if let Some((_, plan)) = notice.message().split_once("plan:\n") {
                sink.lock().expect("no thread panics with this lock").push(plan.to_owned());
            }
        });
        let mut client = config.connect(NoTls).expect("the server runs");
        client
            .batch_execute(
                "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;
                 set auto_explain.log_level = notice; set credits.test_clock = '2026-01-01 00:00+00'",
            )
            .expect("a superuser may load it");
        Explained { client, plans }
    }

    /// The plans of the statements that a call runs, without its own.
    fn plans_of(&mut self, call: &str) -> Vec<String> {
        self.plans.lock().expect("no thread panics with this lock").clear();
        let sql = format!("select * from credits.{call}");
        self.client.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
        let mut plans = std::mem::take(&mut *self.plans.lock().expect("no thread panics with this lock"));
        plans.retain(|plan| !plan.contains(&sql));
        plans
    }
}

/// Meters of one event and of several: additive ones, one whose price falls, and ones that keep their values.
const EVENTS: &str = r#"
    select credits.create_meter('calls', 'call', 'count');
    select credits.create_meter('tokens', 'generate', 'sum', 'tokens',
        pricing => '{"model": "graduated", "tiers": [{"up_to": 10, "credits": "0.2"}, {"credits": "0.1"}]}');
    select credits.create_meter('generations', 'generate', 'count');
    select credits.create_meter('mails', 'mail', 'sum', 'n',
        pricing => '{"model": "volume", "tiers": [{"up_to": 20, "credits": "0.2"}, {"credits": "0.05"}]}');
    select credits.create_meter('peak', 'seat', 'max', 'n');
    select credits.create_meter('seats', 'seat', 'unique', 'user');
    select credits.create_meter('level', 'seat', 'latest', 'n');
    select credits.set_meter_pricing('calls', '{"model": "per_unit", "credits": "0.5"}', customer_id => 'pair')"#;

/// Of each customer an item that can be paid and one that may not.
fn batch_of(key: &str, name: &str, small: &str, large: &str) -> String {
    let item = |customer: &str, what: &str, number: usize| {
        format!("{{\"customer_id\": \"{customer}\", \"{key}\": \"batch {name} {number}\", {what}}}")
    };
    let items = ["solo", "pair", "whale"].iter().flat_map(|customer| [item(customer, small, 1), item(customer, large, 2)]);
    format!("'[{}]'", items.collect::<Vec<_>>().join(", "))
}

/// Events of every kind for the inbox: charged, charged twice, wrong, and more than there are credits for.
fn receive(owner: &mut Session, day: &str) {
    owner.exec(&format!(
        "insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
         select customer, '{day} ' || n % 6, case n % 3 when 0 then 'call' when 1 then 'generate' else 'seat' end,
                jsonb_build_object('tokens', case when n = 4 then 1000000000 else n end, 'n', case when n <> 5 then n end, 'user', 'u' || n)
         from unnest(array['solo', 'pair', 'whale', 'nobody']) customer, generate_series(1, 8) n"
    ));
}

/// What a customer does in a day: every hot call by the plain and the general path. `pair` has a second wallet.
fn day_of(customer: &str, day: &str) -> Vec<String> {
    let expiring = "expires_at => '2026-06-01 00:00+00'";
    let mut calls = vec![
        format!("grant_credits('{customer}', 10, {expiring}, idempotency_key => 'grant {day}')"),
        format!("deduct_usage('{customer}', 1, 'plain {day}')"),
        format!("deduct_usage('{customer}', 1, 'plain {day}')"),
        format!("deduct_usage('{customer}', 1, 'named {day}', event_name => 'call')"),
        format!("hold_credits('{customer}', 2, '1 hour', event_name => 'call', idempotency_key => 'captured {day}')"),
        format!("capture_hold('{customer}', 'captured {day}', 1, 'error', 'capture {day}')"),
        format!("hold_credits('{customer}', 2, '1 hour', idempotency_key => 'released {day}')"),
        format!("deduct_usage('{customer}', 1, 'beside {day}')"),
        format!("release_hold('{customer}', 'released {day}')"),
        format!("hold_credits('{customer}', 1, '10 days', idempotency_key => 'lapses {day}')"),
        format!("create_recurring_grant('{customer}', 'monthly {day}', 1, '1 month', rollover_percent => 50)"),
        format!("deduct_usage('{customer}', 12, 'split {day}', on_insufficient => 'partial')"),
        format!("deduct_usage('{customer}', 0, 'free {day}')"),
        format!("deduct_usage('{customer}', 1000000, on_insufficient => 'report')"),
        format!("balance('{customer}')"),
        format!("balance('{customer}', 'default')"),
        format!("preview_deduction('{customer}', 5)"),
        format!("refund_usage('{customer}', 'split {day}', 2, idempotency_key => 'refund {day}')"),
        format!("refund_usage('{customer}', 'split {day}', idempotency_key => 'rest {day}')"),
        format!("balance_at('{customer}', 'default', '2026-01-01 00:00+00')"),
        format!("grant_credits('{customer}', 40, {expiring})"),
        format!("record_usage('{customer}', 'call', '{{}}', 'one meter {day}')"),
        format!("record_usage('{customer}', 'call', '{{}}', 'one meter {day}')"),
        format!("record_usage('{customer}', 'generate', '{{\"tokens\": 6, \"user\": \"u\"}}', 'graduated {day}')"),
        format!("record_usage('{customer}', 'mail', '{{\"n\": 8}}', 'volume {day}')"),
        format!("record_usage('{customer}', 'seat', '{{\"n\": 3, \"user\": \"u{day}\"}}', 'values {day}')"),
        format!("refund_usage('{customer}', 'values {day}', idempotency_key => 'seat refund {day}')"),
        format!("refund_usage('{customer}', 'graduated {day}', idempotency_key => 'token refund {day}')"),
        format!("price_usage('generate', '{{\"tokens\": 6}}', '{customer}')"),
        "price_usage('seat', '{\"n\": 3, \"user\": \"u\"}')".to_owned(),
        format!("check_entitlement('{customer}')"),
        format!("check_entitlement('{customer}', 5, 'call')"),
        format!("check_entitlement('{customer}', event_name => 'seat', properties => '{{\"n\": 9, \"user\": \"new\"}}')"),
        format!("deduct_usage_batch({})", batch_of("idempotency_key", day, "\"amount\": 1", "\"amount\": 1000000")),
        format!("deduct_usage_batch({})", batch_of("idempotency_key", day, "\"amount\": 1", "\"amount\": 1000000")),
        format!(
            "record_usage_batch({})",
            batch_of(
                "event_id",
                &format!("event {day}"),
                "\"event_name\": \"seat\", \"properties\": {\"n\": 2, \"user\": \"v\"}",
                "\"event_name\": \"generate\", \"properties\": {\"tokens\": 2}"
            )
        ),
        "process_inbox(5)".to_owned(),
    ];
    if customer == "pair" {
        calls.push(format!("grant_credits('pair', 10, 'promo', {expiring})"));
        calls.push(format!("deduct_usage('pair', 15, 'wallets {day}')"));
        calls.push(format!("refund_usage('pair', 'wallets {day}', 11)"));
        calls.push("transfer_credits('pair', 1, 'default', 'promo')".to_owned());
    }
    calls
}

/// Every statement that reads more than by index, with the call that ran it.
fn offences(session: &mut Explained, database: &str, calls: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut offences = Vec::new();
    for call in calls {
        let plans = session.plans_of(&call);
        assert!(!plans.is_empty(), "{call} runs no statement");
        for plan in plans {
            // The few lines of one transaction; and the few meters of an event, read once in a session until the catalogue changes.
            let may_sort = call.starts_with("refund_usage")
                || plan.contains("where m.event_name = $1")
                || plan.contains("on m.event_name = $1");
            let is_offence = |line: &str| {
                let is_node = line.contains("(cost=") || line.starts_with("JIT:");
                let forbidden = ["Seq Scan on", "Bitmap", "JIT:"];
                let sorts = line.contains("Sort  (") && !may_sort;
                // It has one row, and no index is shorter.
                let is_of_one_row = line.contains("Seq Scan on meter_catalog ");
                is_node && !is_of_one_row && (sorts || forbidden.iter().any(|word| line.contains(word)))
            };
            // An index that is walked from end to end is a scan of the table by another name; the inbox is taken from its front.
            let lines: Vec<&str> = plan.lines().collect();
            let is_walked = |pair: &[&str]| {
                let is_scan = pair[0].contains("Index Scan using") || pair[0].contains("Index Only Scan using");
                is_scan && !pair[0].contains(" on usage_inbox") && !pair[1].contains("Index Cond:")
            };
            let walked = lines.windows(2).find(|pair| is_walked(pair)).map(|pair| &pair[0]);
            if let Some(line) = lines.iter().find(|line| is_offence(line)).or(walked) {
                offences.push(format!("{database}, {call}: {}\n{plan}", line.trim()));
            }
        }
    }
    offences
}

/// Makes `whale` own nearly all rows: 20,000 entries, 10,000 used up grants, 5,000 live ones. Nothing is analysed.
const SKEW: &str = "
    insert into credits_data.grants (customer_id, grant_id, wallet, created_seq, priority, grant_type, effective_at, expires_at, due_at,
                                     unlimited, rolled_over, status, amount, remaining, expired, metadata)
    select 'whale', gen_random_uuid(), 'default', 1000 + n, 100, 'prepaid', '2025-01-01', expires_at, due_at, true, false,
           status::credits_data.grant_status, 1, remaining, 0, '{}'
    from generate_series(1, 10000) n
    cross join lateral (
        select 'exhausted' as status, 0 as remaining, 'infinity'::timestamptz as expires_at, 'infinity'::timestamptz as due_at
        union all
        select 'active', 1, '2027-01-01'::timestamptz + n * interval '1 hour', '2027-01-01'::timestamptz + n * interval '1 hour'
        where n <= 5000
    ) state;
    insert into credits_data.entries (seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet, transaction_id, credits,
                                      balance_after)
    select last_seq + n, '2026-01-01 00:00+00', '2026-01-01 00:00+00', 1, 1, 4, customer_id, wallet, 'old ' || n, 1, 0
    from generate_series(1, 20000) n
    join credits_data.wallets on customer_id = 'whale';
    insert into credits_data.meter_periods (period_start, events, arrivals, customer_id, meter, rate, aggregate, paid)
    select '2020-01-01'::timestamptz + n * interval '1 hour', 1, 1, 'whale', meter, '', 1, 1
    from generate_series(1, 5000) n, unnest(array['calls', 'tokens', 'seats']) meter;
    insert into credits_data.meter_values (period_start, arrival, events, customer_id, meter, rate, value, rank, number)
    select '2026-01-01 00:00+00', 0, 1, 'whale', 'seats', '', 'old ' || n, 0, 1
    from generate_series(1, 20000) n;
    insert into credits_data.customer_prices (effective_at, created_at, customer_id, meter, pricing)
    select '2020-01-01'::timestamptz + n * interval '1 hour', '2020-01-01', 'other ' || n, 'calls', '{\"model\": \"per_unit\", \"credits\": 1}'
    from generate_series(1, 5000) n;
    insert into credits.usage_inbox (customer_id, event_id, event_name, error, failed_at, waits_for_credit)
    select customer, 'old ' || n, 'call', 'insufficient_credits: so it was', '2020-01-01', -n % 2
    from generate_series(1, 5000) n, unnest(array['whale', 'other ' || n]) customer;
    update credits_data.wallets set balance = balance + 5000, last_seq = last_seq + 20000 where customer_id = 'whale';";

#[test]
fn hot_statements_use_their_index_whatever_the_tables_look_like() {
    let cluster = Cluster::start("plans", &[("autovacuum", "off")]);
    let database = "plans";
    let mut owner = cluster.new_database(database);
    owner.set_clock("2026-01-01 00:00+00");
    let mut kept = Explained::connect(&cluster, database);
    let customers = ["solo", "pair", "whale"];
    for customer in customers {
        owner.exec(&format!("select credits.create_wallet('{customer}')"));
    }
    owner.exec("select credits.create_wallet('pair', 'promo', priority => 1)");
    owner.exec(EVENTS);
    let mut inserting = cluster.session(database);
    inserting.set_clock("2026-01-01 00:00+00");
    let mut day = |day: &str| {
        receive(&mut inserting, day);
        customers.iter().flat_map(|customer| day_of(customer, day)).collect::<Vec<_>>()
    };
    let mut found = offences(&mut kept, "empty", day("1"));
    owner.exec(SKEW);
    found.extend(offences(&mut kept, "never analysed, plans kept", day("2")));
    found.extend(offences(&mut Explained::connect(&cluster, database), "never analysed", day("3")));
    owner.exec("analyze");
    found.extend(offences(&mut kept, "skewed, plans kept", day("4")));
    let mut fresh = Explained::connect(&cluster, database);
    found.extend(offences(&mut fresh, "skewed", day("5")));
    fresh.client.batch_execute("set credits.test_clock = '2026-07-01 00:00+00'").expect("a superuser may set it");
    let due = [
        "balance('solo')",
        "deduct_usage('solo', 1, on_insufficient => 'report')",
        "expire_grants(1)",
        "renew_grants(1)",
        "expire_grants()",
        "renew_grants()",
        "run_maintenance()",
    ];
    found.extend(offences(&mut fresh, "skewed and due", due.map(str::to_owned)));
    assert!(found.is_empty(), "{} plans:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_plain_deduction_is_one_update_and_one_insert() {
    let mut session = new_books("a_plain_deduction_is_two_statements");
    session.exec("select credits.grant_credits('acme', 10)");
    session.exec("select * from credits.deduct_usage('acme', 1, 'first')"); // from now on the grant rides on its wallet's row
    let mut explained = Explained::connect(shared_cluster(), "a_plain_deduction_is_two_statements");
    let plans = explained.plans_of("deduct_usage('acme', 1, 'plain')");
    assert_eq!(plans.len(), 2, "{}", plans.join("\n"));
    assert!(plans[0].contains("Index Scan using wallets_anchor on wallets"), "{}", plans[0]);
    assert!(plans[1].contains("Insert on entries"), "{}", plans[1]);
    assert!(plans[1].contains("Conflict Arbiter Indexes: entries_transaction"), "{}", plans[1]);
    session.exec("select * from credits.hold_credits('acme', 2)");
    session.exec("select * from credits.deduct_usage('acme', 1, 'takes the ride')");
    assert_eq!(explained.plans_of("deduct_usage('acme', 1, 'beside a hold')").len(), 2, "an open hold makes it no slower");
}

#[test]
fn no_call_waits_for_a_just_in_time_compiler() {
    let mut session = new_books("no_call_waits_for_a_compiler");
    session.exec("select credits.grant_credits('acme', 10, expires_at => '2026-01-02 00:00+00')");
    let mut explained = Explained::connect(shared_cluster(), "no_call_waits_for_a_compiler");
    let reads = "statement('acme', 'default', '2025-01-01 00:00+00', '2026-02-01 00:00+00')";
    for call in ["verify_ledger()", "verify_ledger('acme')", reads, "expire_grants()", "renew_grants()", "run_maintenance()"] {
        let plans = explained.plans_of(call);
        let compiled: Vec<&String> = plans.iter().filter(|plan| plan.contains("\nJIT:")).collect();
        assert!(compiled.is_empty(), "{call}: {} of {} statements, such as\n{}", compiled.len(), plans.len(), compiled[0]);
    }
}

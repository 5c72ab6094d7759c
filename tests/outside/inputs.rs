//! Whatever is passed, a function succeeds or refuses with an error of SPEC 11; nothing panics, nothing is rounded (SPEC 2 and 11).

use std::collections::BTreeMap;

use pgrx_tests::{DbErrorInfo, Session, assert_ledger_is_sound, shared_cluster};

use crate::books::{everything, grant, new_books};
use crate::webhooks::emit;

const ENDPOINT: &str = "(select endpoint_id from credits.webhook_endpoints)";

/// A valid call of every function of schema `credits`, with every argument named. `$grant` is the id of a live grant of acme's,
/// `used` a transaction of usage that can be refunded, `monthly` a recurring grant, `deal` a contract, `held` an open hold, `metered` an event
/// that the meter `tokens` counts, `$line`, `$top_up` and `$alert` the ids of the only ones there are.
const CALLS: &[(&str, &[(&str, &str)])] = &[
    ("clock", &[]),
    ("chart_of_accounts", &[]),
    ("balance", &[("customer_id", "'acme'"), ("wallet", "'default'")]),
    ("balance_at", &[("customer_id", "'acme'"), ("wallet", "'default'"), ("at", "'2026-01-02 00:00+00'")]),
    (
        "statement",
        &[
            ("customer_id", "'acme'"),
            ("wallet", "'default'"),
            ("from_at", "'2025-01-01 00:00+00'"),
            ("to_at", "'2026-02-01 00:00+00'"),
        ],
    ),
    (
        "preview_deduction",
        &[("customer_id", "'acme'"), ("amount", "5"), ("wallet", "'default'"), ("unit", "'credits'"), ("event_name", "'call'")],
    ),
    ("verify_ledger", &[("customer_id", "'acme'")]),
    (
        "create_webhook_endpoint",
        &[
            ("url", "'https://example.com/hooks'"),
            ("event_types", "'{wallet.depleted}'"),
            ("secret", "'whsec_dGVzdCBzZWNyZXQgb2YgdGhlIHRlc3RzIG9ubHkuLi4='"),
        ],
    ),
    (
        "rotate_webhook_secret",
        &[("endpoint_id", ENDPOINT), ("secret", "'whsec_dGVzdCBzZWNyZXQgb2YgdGhlIHRlc3RzIG9ubHkuLi4='"), ("overlap", "'1 hour'")],
    ),
    ("enable_webhook_endpoint", &[("endpoint_id", ENDPOINT)]),
    ("drop_webhook_endpoint", &[("endpoint_id", ENDPOINT)]),
    ("replay_webhook", &[("delivery_id", "(select delivery_id from credits.webhook_deliveries limit 1)")]),
    ("claim_events", &[("batch_size", "10"), ("lease", "'1 minute'")]),
    ("ack_events", &[("event_ids", "'{told-1}'")]),
    (
        "create_wallet",
        &[
            ("customer_id", "'acme'"),
            ("wallet", "'new'"),
            ("name", "'New'"),
            ("unit", "'credits'"),
            ("priority", "1"),
            ("expires_after", "'30 days'"),
            ("overage_policy", "'invoice'"),
            ("overage_limit", "10"),
            ("overage_unit_price", "0.5"),
            ("overage_currency", "'USD'"),
            ("late_usage_grace", "'1 day'"),
            ("metadata", "'{\"a\": 1}'"),
            ("if_not_exists", "true"),
        ],
    ),
    (
        "update_wallet",
        &[
            ("customer_id", "'acme'"),
            ("wallet", "'promo'"),
            ("name", "'Promo'"),
            ("priority", "1"),
            ("expires_after", "'30 days'"),
            ("overage_policy", "'invoice'"),
            ("overage_limit", "10"),
            ("overage_unit_price", "0.5"),
            ("overage_currency", "'USD'"),
            ("late_usage_grace", "'1 day'"),
            ("metadata", "'{\"a\": 1}'"),
            ("reset", "'{}'"),
        ],
    ),
    ("set_wallet_status", &[("customer_id", "'acme'"), ("wallet", "'promo'"), ("status", "'frozen'")]),
    (
        "grant_credits",
        &[
            ("customer_id", "'acme'"),
            ("amount", "10"),
            ("wallet", "'default'"),
            ("grant_type", "'prepaid'"),
            ("expires_at", "'2027-01-01 00:00+00'"),
            ("effective_at", "'2026-01-01 00:00+00'"),
            ("priority", "1"),
            ("unit_price", "0.5"),
            ("currency", "'USD'"),
            ("applies_to", "array['call']"),
            ("metadata", "'{\"a\": 1}'"),
            ("idempotency_key", "'new key'"),
        ],
    ),
    (
        "void_grant",
        &[("customer_id", "'acme'"), ("grant_id", "$grant"), ("reason", "'why'"), ("amount", "1"), ("idempotency_key", "'k'")],
    ),
    (
        "change_expiry",
        &[
            ("customer_id", "'acme'"),
            ("grant_id", "$grant"),
            ("expires_at", "'2027-06-01 00:00+00'"),
            ("reason", "'why'"),
            ("idempotency_key", "'new key'"),
        ],
    ),
    (
        "transfer_credits",
        &[
            ("customer_id", "'acme'"),
            ("amount", "5"),
            ("from_wallet", "'default'"),
            ("to_wallet", "'promo'"),
            ("idempotency_key", "'new key'"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    (
        "adjust_credits",
        &[("customer_id", "'acme'"), ("amount", "5"), ("reason", "'why'"), ("wallet", "'default'"), ("idempotency_key", "'k'")],
    ),
    (
        "deduct_usage",
        &[
            ("customer_id", "'acme'"),
            ("amount", "5"),
            ("idempotency_key", "'new key'"),
            ("wallet", "'default'"),
            ("unit", "'credits'"),
            ("event_name", "'call'"),
            ("occurred_at", "'2026-01-01 00:00+00'"),
            ("on_insufficient", "'error'"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    (
        "refund_usage",
        &[
            ("customer_id", "'acme'"),
            ("transaction_id", "'used'"),
            ("amount", "5"),
            ("reason", "'why'"),
            ("idempotency_key", "'k'"),
        ],
    ),
    (
        "create_recurring_grant",
        &[
            ("customer_id", "'acme'"),
            ("recurring_grant", "'new'"),
            ("amount", "10"),
            ("every", "'1 month'"),
            ("wallet", "'default'"),
            ("grant_type", "'prepaid'"),
            ("starts_at", "'2026-01-01 00:00+00'"),
            ("ends_at", "'2027-01-01 00:00+00'"),
            ("anchor", "'2026-01-15 00:00+00'"),
            ("time_zone", "'Europe/Berlin'"),
            ("expires_after", "'10 days'"),
            ("rollover_percent", "0"),
            ("rollover_cap", "100"),
            ("rollover_periods", "1"),
            ("prorate", "true"),
            ("priority", "1"),
            ("unit_price", "0.5"),
            ("currency", "'USD'"),
            ("applies_to", "array['call']"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    (
        "update_recurring_grant",
        &[
            ("customer_id", "'acme'"),
            ("recurring_grant", "'monthly'"),
            ("amount", "20"),
            ("grant_type", "'promotional'"),
            ("ends_at", "'2027-01-01 00:00+00'"),
            ("expires_after", "'10 days'"),
            ("rollover_percent", "0"),
            ("rollover_cap", "100"),
            ("rollover_periods", "1"),
            ("priority", "1"),
            ("unit_price", "0.5"),
            ("currency", "'USD'"),
            ("applies_to", "array['call']"),
            ("metadata", "'{\"a\": 1}'"),
            ("reset", "'{}'"),
        ],
    ),
    ("cancel_recurring_grant", &[("customer_id", "'acme'"), ("recurring_grant", "'monthly'"), ("at", "'2026-01-15 00:00+00'")]),
    (
        "create_contract",
        &[
            ("customer_id", "'acme'"),
            ("contract", "'new'"),
            ("committed_credits", "100"),
            ("starts_at", "'2026-01-01 00:00+00'"),
            ("ends_at", "'2026-07-01 00:00+00'"),
            ("wallet", "'default'"),
            ("unit_price", "0.5"),
            ("currency", "'USD'"),
            ("installments", "3"),
            ("installment_every", "'1 month'"),
            ("on_end", "'rollover'"),
            ("rollover_percent", "50"),
            ("rollover_cap", "100"),
            ("rollover_expires_after", "'30 days'"),
            ("minimum_spend", "false"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    ("cancel_contract", &[("customer_id", "'acme'"), ("contract", "'deal'"), ("at", "'2026-01-15 00:00+00'")]),
    (
        "hold_credits",
        &[
            ("customer_id", "'acme'"),
            ("amount", "5"),
            ("expires_in", "'1 hour'"),
            ("wallet", "'default'"),
            ("unit", "'credits'"),
            ("event_name", "'call'"),
            ("idempotency_key", "'new key'"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    (
        "capture_hold",
        &[
            ("customer_id", "'acme'"),
            ("hold_id", "'held'"),
            ("amount", "5"),
            ("on_insufficient", "'partial'"),
            ("idempotency_key", "'new key'"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    ("release_hold", &[("customer_id", "'acme'"), ("hold_id", "'held'")]),
    ("deduct_usage_batch", &[("items", "'[{\"customer_id\": \"acme\", \"amount\": 5}]'")]),
    (
        "create_meter",
        &[
            ("meter", "'new'"),
            ("event_name", "'call'"),
            ("aggregation", "'sum'"),
            ("value_property", "'n'"),
            ("filter", "'{\"a\": 1}'"),
            ("pricing", "'{\"model\": \"per_unit\", \"credits\": 2}'"),
            ("period", "'1 day'"),
            ("anchor", "'2026-01-01 00:00+00'"),
            ("time_zone", "'Europe/Berlin'"),
            ("wallet", "'default'"),
            ("unit", "'credits'"),
        ],
    ),
    (
        "set_meter_pricing",
        &[
            ("meter", "'tokens'"),
            ("pricing", "'{\"model\": \"per_unit\", \"credits\": 2}'"),
            ("effective_at", "'2026-01-01 00:00+00'"),
            ("customer_id", "'acme'"),
        ],
    ),
    (
        "price_usage",
        &[
            ("event_name", "'metered'"),
            ("properties", "'{\"n\": 5}'"),
            ("customer_id", "'acme'"),
            ("at", "'2026-01-01 00:00+00'"),
        ],
    ),
    (
        "record_usage",
        &[
            ("customer_id", "'acme'"),
            ("event_name", "'metered'"),
            ("properties", "'{\"n\": 5}'"),
            ("idempotency_key", "'new key'"),
            ("occurred_at", "'2026-01-01 00:00+00'"),
            ("on_insufficient", "'error'"),
            ("metadata", "'{\"a\": 1}'"),
        ],
    ),
    (
        "record_usage_batch",
        &[("events", "'[{\"customer_id\": \"acme\", \"event_name\": \"metered\", \"properties\": {\"n\": 5}}]'")],
    ),
    ("process_inbox", &[("batch_size", "10")]),
    ("retry_inbox", &[("customer_id", "'acme'")]),
    (
        "check_entitlement",
        &[
            ("customer_id", "'acme'"),
            ("amount", "5"),
            ("event_name", "'metered'"),
            ("properties", "'{\"n\": 5}'"),
            ("wallet", "'default'"),
            ("unit", "'credits'"),
        ],
    ),
    ("close_overage", &[("customer_id", "'acme'"), ("as_of", "'2026-01-01 00:00+00'"), ("batch_size", "10")]),
    ("mark_invoiced", &[("customer_id", "'acme'"), ("line_id", "$line"), ("invoice_reference", "'invoice'")]),
    (
        "set_auto_top_up",
        &[
            ("customer_id", "'acme'"),
            ("wallet", "'default'"),
            ("threshold", "10"),
            ("amount", "100"),
            ("target_balance", "null"),
            ("payment_method_id", "'card'"),
            ("cooldown", "'1 hour'"),
            ("max_per_period", "3"),
            ("period", "'1 day'"),
            ("expires_after", "'30 days'"),
            ("unit_price", "0.5"),
            ("currency", "'USD'"),
            ("enabled", "true"),
        ],
    ),
    ("request_top_up", &[("customer_id", "'acme'"), ("wallet", "'promo'"), ("amount", "5")]),
    ("claim_top_ups", &[("batch_size", "10"), ("lease", "'1 minute'")]),
    ("complete_top_up", &[("customer_id", "'acme'"), ("top_up_id", "$top_up"), ("payment_reference", "'payment'")]),
    (
        "fail_top_up",
        &[("customer_id", "'acme'"), ("top_up_id", "$top_up"), ("reason", "'declined'"), ("retry_after", "'1 hour'")],
    ),
    (
        "create_alert",
        &[
            ("customer_id", "'acme'"),
            ("wallet", "'default'"),
            ("threshold_percent", "20"),
            ("threshold_credits", "null"),
            ("rearm", "30"),
            ("webhook_url", "'https://example.com/low'"),
            ("secret", "'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE='"),
        ],
    ),
    ("drop_alert", &[("customer_id", "'acme'"), ("alert_id", "$alert")]),
    ("expire_grants", &[("batch_size", "10")]),
    ("renew_grants", &[("batch_size", "10")]),
    ("run_maintenance", &[("batch_size", "10")]),
    ("cron_jobs", &[("action", "'schedule'"), ("wanted_schedule", "'* * * * *'")]),
    ("schedule_jobs", &[("schedule", "'* * * * *'")]),
    ("unschedule_jobs", &[]),
    ("grant_access", &[("role", "'inputs_clerk'"), ("level", "'reader'")]),
    ("revoke_access", &[("role", "'inputs_clerk'")]),
];

/// Without pg_cron these three can only refuse, and say so first.
const NEED_PG_CRON: &[&str] = &["cron_jobs", "schedule_jobs", "unschedule_jobs"];

/// What may become of a hostile value.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Success, or any error of SPEC 11.
    Any,
    /// Out of the limits of SPEC 2: refused, by one of the two codes for it.
    Refused,
}
use Fate::{Any, Refused};

fn hostile_values(sql_type: &str) -> &'static [(&'static str, Fate)] {
    match sql_type {
        "numeric" => &[
            ("null", Any),
            ("'NaN'", Refused),
            ("'Infinity'", Refused),
            ("'-Infinity'", Refused),
            ("-1", Any),
            ("0", Any),
            ("-0.000000000001", Any),
            ("0.000000000001", Any),
            ("0.0000000000001", Refused),
            ("1.2345678901234", Refused),
            ("1e-16383", Refused),
            ("1e15", Any),
            ("9999999999999999.999999999999", Any),
            ("9999999999999999.9999999999999", Refused),
            ("1e16", Refused),
            ("-1e16", Refused),
            ("1e38", Refused),
            ("340282366920938463463374607.431768211456", Refused),
            ("1e400", Refused),
            ("-1e400", Refused),
            ("1e131071", Refused),
        ],
        "text" => &[
            ("null", Any),
            ("''", Any),
            ("' '", Any),
            ("repeat('x', 255)", Any),
            ("repeat('x', 256)", Any),
            ("repeat('ü', 128)", Any),
            ("repeat('x', 1001)", Refused),
            ("repeat('ü', 524288)", Refused),
            ("E'\\x01\\n\\t'", Any),
            ("'%s %I $1 \\ '' \"'", Any),
            ("U&'\\+01F600'", Any),
        ],
        "jsonb" => &[
            ("null", Any),
            ("'null'", Refused),
            ("'1e400'", Refused),
            ("'\"text\"'", Refused),
            ("'[]'", Refused),
            ("'{}'", Any),
            ("'{\"a\": 1e400}'", Any),
            ("'{\"a\": 1.00000000000000000000000000000000000000001}'", Any),
            ("'{\"a\": \"\\u0001 \\\\ \\\" \\ud83d\\ude00\"}'", Any),
            ("(repeat('{\"a\":', 128) || '1' || repeat('}', 128))::jsonb", Any),
            ("(repeat('{\"a\":', 2000) || '1' || repeat('}', 2000))::jsonb", Any),
            ("('{\"a\": ' || repeat('[', 128) || repeat(']', 128) || '}')::jsonb", Any),
            ("jsonb_build_object('a', repeat('x', 60000))", Any),
            ("jsonb_build_object('a', repeat('x', 66000))", Refused),
            ("jsonb_build_object('a', repeat('x', 1048576))", Refused),
            ("('{' || repeat(' ', 70000) || '}')::jsonb", Any),
        ],
        "text[]" => &[
            ("null", Any),
            ("'{}'", Any),
            ("'{null}'", Refused),
            ("array['call', null]", Refused),
            ("'{{a,b},{c,d}}'", Refused),
            ("'{{{a}}}'", Refused),
            ("'{\"\"}'", Refused),
            ("'[5:6]={call,other}'", Any),
            ("'{call,call}'", Any),
            ("array[repeat('x', 256)]", Refused),
            ("array[repeat('x', 1048576)]", Refused),
            ("array_fill('call'::text, array[100000])", Any),
        ],
        "timestamp with time zone" => &[
            ("null", Any),
            ("'infinity'", Any),
            ("'-infinity'", Refused),
            ("'4713-01-01 00:00+00 BC'", Refused),
            ("'1969-12-31 23:59:59.999999+00'", Refused),
            ("'1970-01-01 00:00+00'", Any),
            ("'9999-12-31 23:59:59.999999+00'", Any),
            ("'10000-01-01 00:00+00'", Refused),
            ("'294276-12-31 23:59:59.999999+00'", Refused),
        ],
        "interval" => &[
            ("null", Any),
            ("'0'", Any),
            ("'1 microsecond'", Any),
            ("'-1 microsecond'", Refused),
            ("'-1 day'", Refused),
            ("'-100 years'", Refused),
            ("'1 month -32 days'", Refused),
            ("'100 years'", Any),
            ("'100 years 1 day'", Refused),
            ("'178000000 years'", Refused),
            ("'-178000000 years'", Refused),
            ("'178956970 years 7 months 2147483647 days 2562047788 hours'", Refused),
            ("'-178956970 years -8 months -2147483648 days -2562047788 hours'", Refused),
        ],
        "integer" => &[("null", Any), ("0", Any), ("-1", Any), ("2147483647", Any), ("-2147483648", Any)],
        "boolean" => &[("null", Any), ("true", Any), ("false", Any)],
        "uuid" => &[
            ("null", Any),
            ("'00000000-0000-0000-0000-000000000000'", Any),
            ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", Any),
            ("gen_random_uuid()", Any),
        ],
        other => panic!("no hostile values of type {other} yet"),
    }
}

/// An argument of a function, as the catalog has it.
struct Argument {
    name: String,
    sql_type: String,
    is_required: bool,
}

fn functions(session: &mut Session) -> BTreeMap<String, Vec<Argument>> {
    let mut functions = BTreeMap::new();
    for row in session.lines(
        "select p.proname, p.pronargs, a.name, format_type(a.type, null), a.position <= p.pronargs - p.pronargdefaults
         from pg_proc p
         left join lateral (
             select t.position, t.type, p.proargnames[t.position] as name
             from unnest(p.proargtypes::oid[]) with ordinality t (type, position)
         ) a on true
         where p.pronamespace = 'credits'::regnamespace
         order by p.proname, p.oid, a.position",
    ) {
        let mut cells = row.split('|').map(str::to_owned);
        let mut cell = || cells.next().expect("five columns");
        let (function, count, name, sql_type, is_required) = (cell(), cell(), cell(), cell(), cell());
        let arguments: &mut Vec<Argument> = functions.entry(function).or_default();
        if count != "0" {
            arguments.push(Argument { name, sql_type, is_required: is_required == "t" });
        }
    }
    functions
}

fn new_inputs(rule: &str) -> (Session, String) {
    let mut session = new_books(rule);
    shared_cluster().create_role("inputs_clerk");
    session.exec("select credits.create_wallet('acme', 'promo')");
    let grant_id = grant(&mut session, "bought", "100", "expires_at => '2027-05-01 00:00+00'");
    grant(&mut session, "later", "10", "effective_at => '2026-03-01 00:00+00'");
    session.exec(
        "select * from credits.deduct_usage('acme', 20, 'used', event_name => 'call');
         select credits.create_meter('tokens', 'metered', value_property => 'n');
         select credits.create_recurring_grant('acme', 'monthly', 10, '1 month');
         select credits.create_contract('acme', 'deal', 30, '2026-01-01 00:00+00', '2026-07-01 00:00+00', installments => 3);
         select * from credits.hold_credits('acme', 15, '1 hour', idempotency_key => 'held');
         select credits.create_wallet('acme', 'billed', unit => 'calls', overage_policy => 'invoice', overage_unit_price => 1,
             overage_currency => 'USD');
         select * from credits.deduct_usage('acme', 5, wallet => 'billed');
         select credits.request_top_up('acme', 'default', 5), credits.create_alert('acme', 'default', 10),
             credits.create_webhook_endpoint('https://example.com/')",
    );
    session.set_clock("2026-01-01 00:00:01+00");
    session.exec("select * from credits.close_overage('acme')");
    emit(&mut session, "https://example.com/", "told", 1, 1);
    (session, format!("'{grant_id}'"))
}

fn call(function: &str, arguments: &[(&str, &str)], grant_id: &str) -> String {
    let arguments: Vec<String> = arguments.iter().map(|(name, value)| format!("{name} => {value}")).collect();
    let mut arguments = arguments.join(", ").replace("$grant", grant_id);
    for (name, view) in [("line", "invoice_lines"), ("top_up", "top_ups"), ("alert", "alerts")] {
        arguments = arguments.replace(&format!("${name}"), &format!("(select {name}_id from credits.{view})"));
    }
    format!("select * from credits.{function}({arguments})")
}

fn valid_call(function: &str) -> Vec<(&'static str, &'static str)> {
    CALLS.iter().find(|(name, _)| *name == function).map(|(_, arguments)| arguments.to_vec()).unwrap_or_default()
}

/// Why an error is none of SPEC 11, if so.
fn objection(error: &DbErrorInfo) -> Option<String> {
    let sqlstate = match error.symbol() {
        "insufficient_credits" => "23514",
        "idempotency_key_reused" => "23505",
        "already_exists" => "42710",
        "not_found" => "P0002",
        "wrong_state" => "55000",
        "invalid_argument" => "22023",
        "null_argument" => "22004",
        "out_of_range" => "22003",
        _ => return Some(format!("no symbol of SPEC 11: {error}")),
    };
    let problems = [
        (error.sqlstate != sqlstate, "another SQLSTATE than its symbol's"),
        (error.message.is_empty() || error.hint.is_empty(), "no message or no HINT"),
        (error.message.len() > 1000, "a message longer than 1000 bytes"),
        (error.message.contains("panic") || error.message.contains(".rs:"), "words of the programmer"),
    ];
    problems.iter().find(|(is_one, _)| *is_one).map(|(_, problem)| format!("{problem}: {error:.600}"))
}

/// Makes a call in a transaction that is rolled back, and says what is wrong with its answer.
fn try_call(session: &mut Session, sql: &str) -> (Result<(), DbErrorInfo>, Option<String>) {
    session.exec("begin");
    let answer = session.try_rows(sql).map(|_| ());
    let problem = match &answer {
        Err(error) => objection(error),
        Ok(()) => {
            let violations = session.lines("select invariant, wallet, detail from credits.verify_ledger()");
            (!violations.is_empty()).then(|| format!("accepted, and then {violations:?}"))
        }
    };
    session.exec("rollback");
    (answer, problem)
}

/// Every function with each argument in turn replaced by every hostile value.
fn problems_of(session: &mut Session, grant_id: &str, function: &str, arguments: &[Argument]) -> Vec<String> {
    let mut problems = Vec::new();
    let before = everything(session);
    for (position, argument) in arguments.iter().enumerate() {
        for (value, fate) in hostile_values(&argument.sql_type) {
            let mut hostile = valid_call(function);
            hostile[position].1 = value;
            let sql = call(function, &hostile, grant_id);
            let (answer, problem) = try_call(session, &sql);
            let case = format!("{function}({} => {value})", argument.name);
            problems.extend(problem.map(|problem| format!("{case}: {problem}")));
            let refusal = answer.as_ref().err().map(|error| error.symbol().to_owned());
            if *value == "null" && argument.is_required && refusal.as_deref() != Some("null_argument") {
                problems.push(format!("{case}: a null where a value is needed, answered with {answer:?}"));
            }
            let codes = ["invalid_argument", "out_of_range", "not_found"];
            let is_refused = refusal.is_some_and(|symbol| codes.contains(&symbol.as_str()));
            let is_empty_batch = *value == "'[]'" && function.ends_with("_batch");
            if *fate == Refused && !is_refused && !is_empty_batch && !NEED_PG_CRON.contains(&function) {
                problems.push(format!("{case}: is out of the limits, answered with {answer:?}"));
            }
        }
    }
    if everything(session) != before {
        problems.push(format!("{function}: the tables have changed"));
    }
    problems
}

#[test]
fn every_function_and_argument_has_a_valid_call() {
    let (mut session, grant_id) = new_inputs("every_function_has_a_valid_call");
    let functions = functions(&mut session);
    let catalog: Vec<(&str, Vec<&str>)> = functions
        .iter()
        .map(|(name, arguments)| (name.as_str(), arguments.iter().map(|argument| argument.name.as_str()).collect()))
        .collect();
    let mut listed: Vec<(&str, Vec<&str>)> =
        CALLS.iter().map(|(name, arguments)| (*name, arguments.iter().map(|(name, _)| *name).collect())).collect();
    listed.sort();
    assert_eq!(listed, catalog, "CALLS names every function with every argument");
    for (function, arguments) in CALLS {
        let (answer, problem) = try_call(&mut session, &call(function, arguments, &grant_id));
        assert_eq!(problem, None, "{function}");
        let symbol = answer.as_ref().err().map(DbErrorInfo::symbol);
        assert_eq!(symbol, NEED_PG_CRON.contains(function).then_some("wrong_state"), "{function}: {answer:?}");
    }
}

#[test]
fn any_input_is_accepted_or_refused_cleanly() {
    let (mut session, grant_id) = new_inputs("any_input_is_accepted_or_refused");
    let mut problems = Vec::new();
    for (function, arguments) in functions(&mut session) {
        problems.extend(problems_of(&mut session, &grant_id, &function, &arguments));
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn nulls_everywhere_are_refused_as_null() {
    let (mut session, grant_id) = new_inputs("nulls_everywhere");
    for (function, arguments) in functions(&mut session) {
        let nulls: Vec<(&str, &str)> = arguments.iter().map(|argument| (argument.name.as_str(), "null")).collect();
        let (answer, problem) = try_call(&mut session, &call(&function, &nulls, &grant_id));
        assert_eq!(problem, None, "{function}");
        if arguments.iter().any(|argument| argument.is_required) {
            assert_eq!(answer.err().map(|error| error.symbol().to_owned()).as_deref(), Some("null_argument"), "{function}");
        }
    }
}

#[test]
fn only_an_adjustment_may_be_negative() {
    let (mut session, grant_id) = new_inputs("only_an_adjustment_may_be_negative");
    for (function, arguments) in functions(&mut session) {
        for (position, argument) in arguments.iter().enumerate().filter(|(_, argument)| argument.sql_type == "numeric") {
            let mut negative = valid_call(&function);
            negative[position].1 = "-0.000000000001";
            let (answer, _) = try_call(&mut session, &call(&function, &negative, &grant_id));
            assert_eq!(answer.is_ok(), function == "adjust_credits", "{function}({}): {answer:?}", argument.name);
        }
    }
}

#[test]
fn infinity_is_accepted_for_an_expiry_only() {
    let (mut session, grant_id) = new_inputs("infinity_is_an_expiry_only");
    for (function, arguments) in functions(&mut session) {
        let times = arguments.iter().enumerate().filter(|(_, argument)| argument.sql_type == "timestamp with time zone");
        for (position, argument) in times {
            let mut endless = valid_call(&function);
            endless[position].1 = "'infinity'";
            let (answer, _) = try_call(&mut session, &call(&function, &endless, &grant_id));
            let expected = if argument.name == "expires_at" { None } else { Some("22003".to_owned()) };
            assert_eq!(answer.err().map(|error| error.sqlstate), expected, "{function}({})", argument.name);
        }
    }
}

#[test]
fn ids_codes_keys_and_names_have_1_to_255_bytes() {
    let (mut session, grant_id) = new_inputs("names_have_1_to_255_bytes");
    let names = [
        "customer_id",
        "wallet",
        "name",
        "unit",
        "event_name",
        "idempotency_key",
        "from_wallet",
        "to_wallet",
        "transaction_id",
        "recurring_grant",
        "contract",
        "hold_id",
        "invoice_reference",
        "payment_reference",
    ];
    for (function, arguments) in functions(&mut session) {
        for (position, argument) in arguments.iter().enumerate() {
            if !names.contains(&argument.name.as_str()) {
                continue;
            }
            let mut answers = ["''", "repeat('x', 256)", "repeat('ü', 128)", "repeat('ü', 127) || 'x'"].map(|value| {
                let mut long = valid_call(&function);
                long[position].1 = value;
                try_call(&mut session, &call(&function, &long, &grant_id)).0.err()
            });
            let longest = answers[3].take().map(|error| error.symbol().to_owned());
            let refused = answers[..3].iter().flatten().filter(|error| error.symbol() == "invalid_argument").count();
            assert_eq!(refused, 3, "{function}({}): {answers:?}", argument.name);
            let is_known = longest.is_none_or(|symbol| symbol == "not_found");
            assert!(is_known, "{function}({}): 255 bytes are allowed", argument.name);
        }
    }
}

#[test]
fn metadata_is_kept_as_given_whatever_numbers_and_depth_it_has() {
    let (mut session, _) = new_inputs("metadata_is_kept_as_given");
    let deep = format!("{}1{}", "{\"a\": ".repeat(200), "}".repeat(200));
    let digits = "{\"a\": 0.1234567890123456789012345678901234567890}".to_owned();
    let huge = session.one("select '{\"a\": 1e400}'::jsonb");
    for (number, document) in [deep, digits, huge].iter().enumerate() {
        session.exec(&format!("select * from credits.deduct_usage('acme', 1, 'm{number}', metadata => '{document}')"));
        session.exec(&format!("select * from credits.deduct_usage('acme', 0, 'z{number}', metadata => '{document}')"));
        session
            .exec(&format!("select credits.grant_credits('acme', 1, metadata => '{document}', idempotency_key => 'g{number}')"));
        session.exec(&format!("select credits.update_wallet('acme', 'promo', metadata => '{document}')"));
        let keys = format!("'m{number}', 'z{number}'");
        for source in ["credits.ledger", "credits.statement('acme', 'default', '2025-01-01 00:00+00', '2027-01-01 00:00+00')"] {
            let kept = format!("select metadata from {source} where transaction_id in ({keys})");
            assert_eq!(session.lines(&kept), [document.as_str(), document], "{source}");
        }
        assert_eq!(session.one(&format!("select count(*) from credits.grants where metadata = '{document}'")), "1");
        assert_eq!(session.one("select metadata from credits.wallets where wallet = 'promo'"), *document);
    }
    assert_ledger_is_sound(&mut session);
}

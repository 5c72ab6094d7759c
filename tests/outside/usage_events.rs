//! The view `usage_events`, the door for ORMs: a row inserted is an event recorded, and RETURNING has what it cost (SPEC 8).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{everything, ledger};
use crate::inbox::{copy, metered_books};

const RESULTS: &str = "status, requested, deducted, overage, balance, replayed";

/// Inserts events, rows of customer, id, name and properties as in SQL, and returns the results.
fn insert(session: &mut Session, rows: &str) -> Vec<String> {
    session.lines(&format!(
        "insert into credits.usage_events (customer_id, event_id, event_name, properties) values {rows} returning {RESULTS}"
    ))
}

#[test]
fn a_row_inserted_is_an_event_recorded_and_returns_what_it_cost() {
    let mut session = metered_books("a_row_inserted_is_recorded");
    let inserted = session.lines(
        "insert into credits.usage_events (customer_id, event_id, event_name, properties, occurred_at)
         values ('acme', 'a', 'generate', '{\"tokens\": 8, \"model\": \"x\"}', '2025-12-31 12:00+00') returning *",
    );
    assert_eq!(
        inserted,
        ["acme|a|generate|{\"model\": \"x\", \"tokens\": 8}|2025-12-31 12:00:00+00|a|charged|16|16|0|84|f"],
        "the columns inserted, then those of deduct_usage"
    );
    assert_eq!(ledger(&mut session)[1..], ["default 2 usage -16 84 01-01 00:00"]);
    assert_eq!(
        session.lines("select transaction_id, event_name, usage_at from credits.ledger where kind = 'usage'"),
        ["a|generate|2025-12-31 12:00:00+00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_rows_of_a_statement_see_each_other() {
    let mut session = metered_books("rows_see_each_other");
    session.exec("select credits.create_wallet('owes', overage_policy => 'overdraft')");
    assert_eq!(
        insert(
            &mut session,
            "('acme', 'a', 'generate', '{\"tokens\": 8}'), ('owes', 'a', 'call', '{}'), ('acme', 'b', 'generate', '{\"tokens\": 4}'),
             ('acme', 'a', 'generate', '{\"tokens\": 8.0}'), ('owes', 'b', 'generate', '{\"tokens\": 0}')"
        ),
        ["charged|16|16|0|84|f", "overage|1|0|1|0|f", "charged|6|6|0|78|f", "charged|16|16|0|78|t", "charged|0|0|0|0|f"]
    );
    assert_eq!(
        session.lines(
            "insert into credits.usage_events (customer_id, event_id, event_name, properties)
             select 'acme', 'n' || n, 'generate', jsonb_build_object('tokens', n) from generate_series(1, 3) n returning event_id, deducted, balance"
        ),
        ["n1|1|77", "n2|2|75", "n3|3|72"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_id_that_was_recorded_replays_whatever_the_door() {
    let mut session = metered_books("an_id_that_was_recorded_replays");
    session.exec("select * from credits.record_usage('acme', 'call', idempotency_key => 'by function')");
    assert_eq!(insert(&mut session, "('acme', 'by view', 'call', null)"), ["charged|1|1|0|98|f"]);
    let before = everything(&mut session);
    assert_eq!(
        insert(&mut session, "('acme', 'by function', 'call', '{}'), ('acme', 'by view', 'call', '{}')"),
        ["charged|1|1|0|98|t"; 2]
    );
    assert_eq!(
        session.lines("select deducted, replayed from credits.record_usage('acme', 'call', idempotency_key => 'by view')"),
        ["1|t"]
    );
    assert_eq!(insert(&mut session, "('acme', 'by view', 'call', '{}') on conflict do nothing"), ["charged|1|1|0|98|t"]);
    assert_eq!(everything(&mut session), before, "replays write nothing");
    for row in ["'by view', 'call', '{\"more\": 1}'", "'by view', 'generate', '{\"tokens\": 1}'", "'bought', 'call', '{}'"] {
        let sql =
            format!("insert into credits.usage_events (customer_id, event_id, event_name, properties) values ('acme', {row})");
        let error = session.error(&sql);
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23505", "idempotency_key_reused"), "{row}: {error}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn null_columns_have_their_defaults() {
    let mut session = metered_books("null_columns_of_the_view");
    let returned = session.lines(
        "insert into credits.usage_events (customer_id, event_id, event_name, properties, occurred_at)
         values ('acme', null, 'call', null, null), ('acme', default, 'call', default, default)
         returning event_id = transaction_id, event_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7', properties, deducted, replayed",
    );
    assert_eq!(returned, ["t|t|{}|1|f"; 2]);
    session.exec("insert into credits.usage_events (customer_id, event_name) values ('acme', 'call')");
    assert_eq!(
        session.lines("select count(*), count(distinct event_id), min(properties::text), min(occurred_at), max(occurred_at) from credits.usage_events"),
        ["3|3|{}|2026-01-01 00:00:00+00|2026-01-01 00:00:00+00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn results_cannot_be_inserted() {
    let mut session = metered_books("results_cannot_be_inserted");
    let before = everything(&mut session);
    for (column, value) in [
        ("transaction_id", "'a'"),
        ("status", "'charged'"),
        ("requested", "0"),
        ("deducted", "0"),
        ("overage", "0"),
        ("balance", "0"),
        ("replayed", "false"),
    ] {
        let error = session.error(&format!(
            "insert into credits.usage_events (customer_id, event_name, {column}) values ('acme', 'call', {value})"
        ));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{column}: {error}");
        assert!(!error.hint.is_empty(), "{error}");
    }
    assert_eq!(everything(&mut session), before);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn errors_are_those_of_record_usage_and_take_the_whole_statement_with_them() {
    let mut session = metered_books("errors_of_record_usage");
    session.exec("select credits.create_wallet('frozen'), credits.set_wallet_status('frozen', 'default', 'frozen')");
    let before = everything(&mut session);
    for (customer, event, properties, at) in [
        ("null", "'call'", "'{}'", "null"),
        ("''", "'call'", "'{}'", "null"),
        ("'nobody'", "'call'", "'{}'", "null"),
        ("'acme'", "null", "'{}'", "null"),
        ("'acme'", "'unknown'", "'{}'", "null"),
        ("'acme'", "'generate'", "'{}'", "null"),
        ("'acme'", "'generate'", "'{\"tokens\": \"many\"}'", "null"),
        ("'acme'", "'generate'", "'{\"tokens\": -1}'", "null"),
        ("'acme'", "'generate'", "'{\"tokens\": 1e30}'", "null"),
        ("'acme'", "'generate'", "'{\"tokens\": 500}'", "null"),
        ("'acme'", "'call'", "'[]'", "null"),
        ("'acme'", "'call'", "'null'", "null"),
        ("'acme'", "'call'", "'{}'", "'2026-01-01 00:06+00'"),
        ("'acme'", "'call'", "'{}'", "'infinity'"),
        ("'frozen'", "'call'", "'{}'", "null"),
    ] {
        let recorded =
            session.error(&format!("select * from credits.record_usage({customer}, {event}, {properties}, null, {at})"));
        let inserted = session.error(&format!(
            "insert into credits.usage_events (customer_id, event_name, properties, occurred_at)
             values ('acme', 'call', null, null), ({customer}, {event}, {properties}, {at})"
        ));
        assert_eq!(
            (&inserted.sqlstate, &inserted.detail, &inserted.hint),
            (&recorded.sqlstate, &recorded.detail, &recorded.hint),
            "{customer}, {event}, {properties}, {at}"
        );
        // What can be spent is another number after the first row.
        if recorded.symbol() != "insufficient_credits" {
            assert_eq!(inserted.message, recorded.message);
        }
    }
    assert_eq!(everything(&mut session), before, "not even the first row is recorded");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_view_shows_every_recorded_event_and_nothing_else() {
    let mut session = metered_books("the_view_shows_every_event");
    session.exec(
        "select credits.create_wallet('owes', overage_policy => 'overdraft', overage_limit => 3);
         select credits.create_meter('big', 'filtered', 'count', filter => '{\"size\": \"big\"}');
         select * from credits.deduct_usage('acme', 1, 'no event', event_name => 'call');
         select * from credits.record_usage('acme', 'call', '{\"a\": 1}', 'a', '2025-12-30 00:00+00');
         select * from credits.record_usage('acme', 'filtered', '{\"size\": \"small\"}', 'free');
         select * from credits.record_usage('owes', 'generate', '{\"tokens\": 1}', 'overage');
         select * from credits.record_usage('owes', 'generate', '{\"tokens\": 4}', 'part', on_insufficient => 'partial');
         select * from credits.record_usage('owes', 'call', idempotency_key => 'none', on_insufficient => 'report');
         select * from credits.record_usage('acme', 'generate', '{\"tokens\": 3}', 'refunded');
         select * from credits.refund_usage('acme', 'refunded')",
    );
    assert_eq!(
        session.lines("select * from credits.usage_events order by customer_id, event_id"),
        [
            "acme|a|call|{\"a\": 1}|2025-12-30 00:00:00+00|a|charged|1|1|0||",
            "acme|free|filtered|{\"size\": \"small\"}|2026-01-01 00:00:00+00|free|charged|0|0|0||",
            "acme|refunded|generate|{\"tokens\": 3}|2026-01-01 00:00:00+00|refunded|charged|6|6|0||",
            "owes|overage|generate|{\"tokens\": 1}|2026-01-01 00:00:00+00|overage|overage|2|0|2||",
            "owes|part|generate|{\"tokens\": 4}|2026-01-01 00:00:00+00|part|partial|8|0|1||"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn recorded_events_can_be_neither_changed_nor_deleted() {
    let mut session = metered_books("neither_changed_nor_deleted");
    insert(&mut session, "('acme', 'a', 'call', '{}')");
    let before = everything(&mut session);
    for (statement, sqlstate) in [
        ("update credits.usage_events set event_name = 'other'", "55000"),
        ("update credits.usage_events set properties = properties where false", "55000"),
        ("delete from credits.usage_events", "55000"),
        ("truncate credits.usage_events", "42809"),
    ] {
        assert_eq!(session.error(statement).sqlstate, sqlstate, "{statement}");
    }
    assert_eq!(everything(&mut session), before);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_view_can_be_copied_into_and_inserted_into_by_prepared_statements() {
    let mut session = metered_books("copied_and_prepared");
    session.exec(
        "prepare record (text, text, jsonb) as
         insert into credits.usage_events (customer_id, event_id, event_name, properties) values ('acme', $1, $2, $3)
         returning balance, replayed",
    );
    for mode in ["force_generic_plan", "force_custom_plan"] {
        session.exec(&format!("set plan_cache_mode = {mode}"));
        for number in 0..3 {
            session.lines(&format!("execute record ('{mode} {number}', 'call', '{{}}')"));
        }
    }
    assert_eq!(session.lines("execute record ('force_custom_plan 1', 'call', null)"), ["94|t"]);
    copy_into_the_view(&mut session);
    assert_eq!(
        session.lines("select count(*), (select balance from credits.balance('acme')) from credits.usage_events"),
        ["8|92"]
    );
    // And the inbox beside it.
    copy(&mut session, "customer_id, event_id, event_name", "acme\tcopied 1\tcall\nacme\tcopied 3\tcall\n");
    assert_eq!(session.lines("select events_charged, events_failed from credits.process_inbox()"), ["1|0"]);
    assert_ledger_is_sound(&mut session);
}

fn copy_into_the_view(session: &mut Session) {
    use std::io::Write as _;
    let sql = "copy credits.usage_events (customer_id, event_id, event_name) from stdin";
    let mut copying = session.client().copy_in(sql).expect("it is allowed");
    copying.write_all(b"acme\tcopied 1\tcall\nacme\tcopied 2\tcall\n").expect("the server listens");
    assert_eq!(copying.finish().expect("they are recorded"), 2);
}

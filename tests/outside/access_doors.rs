//! The two doors that are no functions: who may INSERT and COPY into usage_events and usage_inbox (SPEC 8 and 13).

use std::io::Write as _;

use pgrx_tests::{DbErrorInfo, Session, assert_ledger_is_sound, shared_cluster};

use crate::access::books_with;
use crate::books::everything;

/// The columns of usage_inbox that a writer may fill.
const FIVE: &str = "customer_id, event_id, event_name, properties, occurred_at";

fn try_copy(session: &mut Session, target: &str, line: &str) -> Result<u64, DbErrorInfo> {
    let mut copying = session.client().copy_in(&format!("copy {target} from stdin"))?;
    let _ = copying.write_all(line.as_bytes());
    Ok(copying.finish()?)
}

/// The SQLSTATE of a COPY that is denied, in a session of its own: the driver cannot go on with one after that.
fn denied_copy(rule: &str, role: &str, target: &str) -> String {
    let mut session = shared_cluster().session_as(rule, role);
    try_copy(&mut session, target, "acme\n").expect_err("it is denied").sqlstate
}

#[test]
fn a_writer_puts_events_through_both_doors_and_sees_what_became_of_them() {
    let rule = "a_writer_puts_events_through";
    let mut owner = books_with(rule, "door_writer", "writer");
    owner.exec("select credits.create_meter('calls', 'call', 'count')");
    let mut session = shared_cluster().session_as(rule, "door_writer");
    assert_eq!(
        session.lines(
            "insert into credits.usage_events (customer_id, event_id, event_name) values ('acme', 'a', 'call')
             returning event_id, status, replayed"
        ),
        ["a|charged|f"]
    );
    session.exec(&format!(
        "insert into credits.usage_inbox ({FIVE}) values ('acme', 'b', 'call', '{{}}', null), ('acme', 'wrong', null, null, null)"
    ));
    assert_eq!(try_copy(&mut session, &format!("credits.usage_inbox ({FIVE})"), "acme\tc\tcall\t{}\t\\N\n"), Ok(1));
    assert_eq!(try_copy(&mut session, "credits.usage_inbox (event_name, customer_id)", "call\tacme\n"), Ok(1));
    assert_eq!(try_copy(&mut session, "credits.usage_events (customer_id, event_id, event_name)", "acme\td\tcall\n"), Ok(1));
    assert_eq!(session.lines("select events_charged, events_failed, credits from credits.process_inbox()"), ["3|1|3"]);
    assert_eq!(
        session.lines("select inbox_id, event_id, split_part(error, ':', 1) from credits.usage_inbox"),
        ["2|wrong|null_argument"],
        "what failed can be read"
    );
    assert_eq!(session.one("select credits.retry_inbox()"), "1");
    assert_eq!(session.one("select count(*) from credits.usage_events"), "5");
    assert_ledger_is_sound(&mut owner);
}

#[test]
fn a_writer_may_do_nothing_else_to_the_doors() {
    let rule = "nothing_else_to_the_doors";
    let mut owner = books_with(rule, "narrow_writer", "admin");
    owner.exec("select credits.create_meter('calls', 'call', 'count')");
    owner.exec("insert into credits.usage_inbox (customer_id, event_id, event_name) values ('acme', 'a', 'call')");
    let before = everything(&mut owner);
    let mut session = shared_cluster().session_as(rule, "narrow_writer");
    for column in ["inbox_id", "received_at", "error", "failed_at", "waits_for_credit"] {
        let statement =
            format!("insert into credits.usage_inbox (customer_id, {column}) overriding system value values ('acme', null)");
        assert_eq!(session.error(&statement).sqlstate, "42501", "{statement}");
        let target = format!("credits.usage_inbox (customer_id, {column})");
        assert_eq!(denied_copy(rule, "narrow_writer", &target), "42501", "{target}");
    }
    assert_eq!(denied_copy(rule, "narrow_writer", "credits.usage_inbox"), "42501", "not all columns");
    for statement in [
        "insert into credits.usage_inbox overriding system value values ('acme', 'b', 'call', '{}', null, 7)",
        "insert into credits.usage_inbox (customer_id, event_name, inbox_id) overriding system value values ('acme', 'call', 1)",
        "insert into credits.usage_inbox (customer_id) values ('acme') on conflict (inbox_id) do update set error = 'mine'",
        "update credits.usage_inbox set error = null",
        "update credits.usage_inbox set customer_id = 'zoe'",
        "delete from credits.usage_inbox",
        "truncate credits.usage_inbox",
        "select from credits.usage_inbox for update",
        "do 'begin lock table credits.usage_inbox in access exclusive mode; end'",
        "select nextval('credits.usage_inbox_inbox_id_seq')",
        "select setval('credits.usage_inbox_inbox_id_seq', 1)",
        "create trigger mine before insert on credits.usage_inbox execute function pg_catalog.suppress_redundant_updates_trigger()",
        "create trigger mine instead of insert on credits.usage_events for each row execute function pg_catalog.suppress_redundant_updates_trigger()",
        "alter table credits.usage_inbox add column mine int",
        "create index on credits.usage_inbox (customer_id)",
        "drop table credits.usage_inbox",
        "update credits.usage_events set event_name = 'other'",
        "delete from credits.usage_events",
        "select credits_data.record_event()",
        "insert into credits.usage_daily default values",
        "insert into credits.meters (meter) values ('mine')",
        "insert into credits.meter_pricing (meter) values ('mine')",
    ] {
        let error = session.error(statement);
        // A view that cannot be written is said to be so before rights are looked at.
        assert!(["42501", "55000"].contains(&error.sqlstate.as_str()), "{statement}: {error}");
    }
    for table in ["meters", "meter_prices", "customer_prices", "meter_catalog", "meter_periods", "meter_values"] {
        for statement in [
            format!("select from credits_data.{table}"),
            format!("insert into credits_data.{table} default values"),
            format!("update credits_data.{table} set created_at = null"),
            format!("delete from credits_data.{table}"),
            format!("truncate credits_data.{table}"),
        ] {
            assert_eq!(session.error(&statement).sqlstate, "42501", "{statement}");
        }
    }
    assert_eq!(everything(&mut owner), before);
}

#[test]
fn a_reader_sees_the_doors_and_enters_neither() {
    let rule = "a_reader_enters_neither";
    let mut owner = books_with(rule, "door_reader", "reader");
    owner.exec("select credits.create_meter('calls', 'call', 'count')");
    owner.exec("insert into credits.usage_inbox (customer_id, event_id, event_name) values ('acme', 'a', 'call')");
    let before = everything(&mut owner);
    let mut session = shared_cluster().session_as(rule, "door_reader");
    assert_eq!(session.lines("select event_id from credits.usage_inbox"), ["a"]);
    assert_eq!(session.lines("select * from credits.usage_events"), [""; 0]);
    for statement in [
        "insert into credits.usage_inbox (customer_id, event_name) values ('acme', 'call')",
        "insert into credits.usage_events (customer_id, event_name) values ('acme', 'call')",
        "insert into credits.usage_events default values",
        "delete from credits.usage_inbox",
        "select * from credits.process_inbox()",
        "select credits.retry_inbox()",
        "select * from credits.record_usage('acme', 'call')",
        "select credits.create_meter('mine', 'call', 'count')",
    ] {
        assert_eq!(session.error(statement).sqlstate, "42501", "{statement}");
    }
    for target in ["credits.usage_inbox (customer_id)", "credits.usage_events (customer_id)"] {
        assert_eq!(denied_copy(rule, "door_reader", target), "42501", "{target}");
    }
    assert_eq!(everything(&mut owner), before);
    owner.exec("select credits.grant_access('door_reader', 'writer')");
    session.exec("insert into credits.usage_inbox (customer_id, event_name) values ('acme', 'call')");
    owner.exec("select credits.revoke_access('door_reader')");
    assert_eq!(
        session.error("insert into credits.usage_inbox (customer_id) values ('acme')").sqlstate,
        "42501",
        "revoking closes both"
    );
    assert_eq!(session.error("insert into credits.usage_events (customer_id) values ('acme')").sqlstate, "42501");
    assert_ledger_is_sound(&mut owner);
}

/// COPY runs no code of the extension but the clock, whose setting an ordinary role cannot make.
#[test]
fn what_a_writer_copies_is_dated_by_the_clock() {
    let rule = "copied_is_dated_by_the_clock";
    let mut owner = books_with(rule, "punctual_writer", "writer");
    let mut session = shared_cluster().session_as(rule, "punctual_writer");
    assert_eq!(try_copy(&mut session, "credits.usage_inbox (customer_id)", "acme\n"), Ok(1));
    assert_eq!(
        owner.lines("select abs(extract(epoch from received_at - clock_timestamp())) < 60, properties from credits.usage_inbox"),
        ["t|{}"]
    );
    assert_ledger_is_sound(&mut owner);
}

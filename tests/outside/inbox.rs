//! The inbox: events that are inserted or copied are charged once in the order of their arrival, or stay with their error (SPEC 8).

use std::io::Write as _;

use pgrx_tests::{Cluster, Session, assert_ledger_is_sound, shared_cluster};

use crate::books::new_books;
use crate::concurrency::{at_once, sessions};

/// Books in which acme has 100 credits, a `call` costs 1 and a token of `generate` 2, from the 11th of a month on 1.
pub fn metered_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec(METERS);
    session.exec("select credits.grant_credits('acme', 100, idempotency_key => 'bought')");
    session
}

pub const METERS: &str = r#"
    select credits.create_meter('calls', 'call', 'count');
    select credits.create_meter('tokens', 'generate', 'sum', 'tokens',
        pricing => '{"model": "graduated", "tiers": [{"up_to": "10", "credits": "2"}, {"credits": "1"}]}')"#;

/// Puts events into the inbox: rows of customer, id, name and properties as in SQL.
pub fn receive(session: &mut Session, rows: &str) {
    session.exec(&format!("insert into credits.usage_inbox (customer_id, event_id, event_name, properties) values {rows}"));
}

/// Puts events into the inbox as a bulk loader does: lines of COPY's text format.
pub fn copy(session: &mut Session, columns: &str, lines: &str) {
    let sql = format!("copy credits.usage_inbox ({columns}) from stdin");
    let mut copying = session.client().copy_in(&sql).expect("it is allowed");
    copying.write_all(lines.as_bytes()).expect("the server listens");
    copying.finish().unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

/// Charged, failed, credits and whether more is due.
pub fn process(session: &mut Session) -> String {
    session.lines("select * from credits.process_inbox()").concat()
}

/// What is in the inbox: each event's id and its error up to the symbol, in the order of arrival.
fn inbox(session: &mut Session) -> Vec<String> {
    session.lines("select concat_ws(' ', event_id, split_part(error, ':', 1)) from credits.usage_inbox order by inbox_id")
}

/// The usage of a customer: id and effect of each entry, in the order of the ledger.
fn usage(session: &mut Session, customer: &str) -> Vec<String> {
    session.lines(&format!(
        "select transaction_id, amount from credits.ledger
         where customer_id = '{customer}' and (event_name is not null or kind = 'usage') order by wallet, seq"
    ))
}

#[test]
fn events_inserted_and_copied_are_charged_in_the_order_of_their_arrival() {
    let mut session = metered_books("inserted_and_copied");
    copy(
        &mut session,
        "customer_id, event_id, event_name, properties",
        "acme\tz\tgenerate\t{\"tokens\": 8}\nacme\ty\tcall\t{}\n",
    );
    receive(&mut session, "('acme', 'x', 'generate', '{\"tokens\": \"4\"}'), ('acme', 'w', 'call', '{}')");
    copy(
        &mut session,
        "event_name, customer_id, event_id, occurred_at, properties",
        "generate\tacme\tv\t2025-12-31 23:00+00\t{\"tokens\": 3}\n",
    );
    assert_eq!(inbox(&mut session), ["z", "y", "x", "w", "v"]);
    assert_eq!(session.one("select count(*) from credits.ledger"), "1", "nothing is charged before");
    // 8 tokens at 2; then 2 at 2 and 2 at 1; December has tiers of its own
    assert_eq!(process(&mut session), "5|0|30|f");
    assert_eq!(usage(&mut session, "acme"), ["z|-16", "y|-1", "x|-6", "w|-1", "v|-6"]);
    assert_eq!(inbox(&mut session), [""; 0]);
    assert_eq!(
        session.lines("select meter, period_start, aggregate, events from credits.meter_usage order by 1, 2"),
        ["calls|2026-01-01 00:00:00+00|2|2", "tokens|2025-12-01 00:00:00+00|3|1", "tokens|2026-01-01 00:00:00+00|12|2"]
    );
    assert_eq!(process(&mut session), "0|0|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_that_was_charged_through_another_door_is_dropped() {
    let mut session = metered_books("charged_through_another_door");
    session.exec("select * from credits.record_usage('acme', 'call', idempotency_key => 'by function')");
    session.exec("insert into credits.usage_events (customer_id, event_id, event_name) values ('acme', 'by view', 'call')");
    receive(
        &mut session,
        "('acme', 'by function', 'call', '{}'), ('acme', 'by view', 'call', null), ('acme', 'twice', 'generate', '{\"tokens\": 2}'),
         ('acme', 'twice', 'generate', '{\"tokens\": 2.0}'), ('acme', 'by view', 'generate', '{\"tokens\": 2}'), ('acme', 'bought', 'call', '{}')",
    );
    assert_eq!(process(&mut session), "1|2|4|f");
    assert_eq!(inbox(&mut session), ["by view idempotency_key_reused", "bought idempotency_key_reused"]);
    assert_eq!(usage(&mut session, "acme"), ["by function|-1", "by view|-1", "twice|-4"]);
    receive(&mut session, "('acme', 'twice', 'generate', '{\"tokens\": 2}')");
    assert_eq!(process(&mut session), "0|0|0|f");
    assert_eq!(inbox(&mut session), ["by view idempotency_key_reused", "bought idempotency_key_reused"]);
    assert_eq!(
        session
            .lines("select status, deducted, replayed from credits.record_usage('acme', 'generate', '{\"tokens\": 2}', 'twice')"),
        ["charged|4|t"],
        "and the function replays what the inbox charged"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_call_charges_at_most_its_batch() {
    let mut session = metered_books("at_most_its_batch");
    receive(&mut session, "('acme', 'a', 'call', '{}'), ('acme', 'wrong', 'generate', '{}'), ('acme', 'c', 'call', '{}')");
    receive(&mut session, "('acme', 'a', 'call', '{}'), ('acme', 'e', 'call', '{}')");
    let batches: Vec<String> = (0..4).map(|_| session.lines("select * from credits.process_inbox(2)").concat()).collect();
    assert_eq!(batches, ["1|1|1|t", "1|0|1|t", "1|0|1|f", "0|0|0|f"], "the second takes c and what is charged already");
    assert_eq!(inbox(&mut session), ["wrong invalid_argument"]);
    for (batch_size, sqlstate) in [("0", "22023"), ("-1", "22023"), ("null", "22004")] {
        assert_eq!(session.error(&format!("select * from credits.process_inbox({batch_size})")).sqlstate, sqlstate);
    }
    assert_ledger_is_sound(&mut session);
}

/// More than is read and written together: each customer's tiers go on from chunk to chunk.
#[test]
fn a_large_batch_is_charged_as_if_each_event_came_alone() {
    let mut session = metered_books("a_large_batch");
    session.exec("select credits.create_wallet('c' || n), credits.grant_credits('c' || n, 10000) from generate_series(1, 7) n");
    session.exec(
        "insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
         select 'c' || 1 + n % 7, 'e' || n, 'generate', jsonb_build_object('tokens', n % 5) from generate_series(1, 3500) n",
    );
    let done = session.lines("select * from credits.process_inbox(3500)").concat();
    // 500 events of 1,000 tokens a customer, the first ten of which cost one more
    assert_eq!(done, "3500|0|7070|f");
    assert_eq!(
        session.lines(
            "select distinct balance, (select count(*) from credits.ledger l where l.customer_id = w.customer_id)
             from credits.wallets w where customer_id <> 'acme'"
        ),
        ["8990|501"]
    );
    assert_eq!(
        session.lines(
            "select customer_id from credits.ledger where kind = 'usage' group by 1
             having array_agg(substr(transaction_id, 2)::int order by seq)
                 <> array_agg(substr(transaction_id, 2)::int order by substr(transaction_id, 2)::int)"
        ),
        [""; 0],
        "in the order of arrival"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wrong_event_stays_with_its_error_and_harms_no_other() {
    let mut session = metered_books("a_wrong_event_stays");
    session.exec("select credits.create_wallet('frozen'), credits.set_wallet_status('frozen', 'default', 'frozen')");
    receive(
        &mut session,
        r#"(null, 'a', 'call', '{}'), ('', 'b', 'call', '{}'), ('nobody', 'c', 'call', '{}'), ('acme', 'd', null, '{}'),
           ('acme', 'e', 'unknown', '{}'), ('acme', 'f', 'generate', '{}'), ('acme', 'g', 'generate', '{"tokens": "x"}'),
           ('acme', 'h', 'generate', '{"tokens": -1}'), ('acme', 'i', 'call', '[1]'), ('acme', 'j', 'call', 'null'),
           ('acme', '', 'call', '{}'), ('acme', 'l', 'generate', '{"tokens": 1e30}'), ('frozen', 'm', 'call', '{}'),
           ('acme', 'good', 'call', '{}'), ('acme', 'bought', 'call', '{}')"#,
    );
    session.exec(
        "insert into credits.usage_inbox (customer_id, event_id, event_name, occurred_at)
         values ('acme', 'p', 'call', '2026-01-01 00:06+00'), ('acme', 'q', 'call', 'infinity'), ('acme', 'r', 'call', '1969-12-31 00:00+00'),
                ('acme', 's', 'call', '2026-01-01 00:05+00')",
    );
    assert_eq!(process(&mut session), "2|17|2|f");
    let errors = "select event_id, error, failed_at from credits.usage_inbox order by inbox_id";
    let expected = [
        "a|null_argument: customer_id must not be null|2026-01-01 00:00:00+00",
        "b|invalid_argument: invalid customer_id: it is empty|2026-01-01 00:00:00+00",
        "c|not_found: wallet of customer \"nobody\" not found|2026-01-01 00:00:00+00",
        "d|null_argument: event_name must not be null|2026-01-01 00:00:00+00",
        "e|not_found: meter of event \"unknown\" not found|2026-01-01 00:00:00+00",
        "f|invalid_argument: invalid properties: \"tokens\" is missing, meter \"tokens\" counts it|2026-01-01 00:00:00+00",
        "g|invalid_argument: invalid properties: tokens: it is not a number|2026-01-01 00:00:00+00",
        "h|invalid_argument: invalid properties: \"tokens\" is -1, below zero, meter \"tokens\" counts it|2026-01-01 00:00:00+00",
        "i|invalid_argument: invalid properties: it is not a JSON object|2026-01-01 00:00:00+00",
        "j|invalid_argument: invalid properties: it is not a JSON object|2026-01-01 00:00:00+00",
    ];
    let lines = session.lines(errors);
    assert_eq!(lines[..expected.len()], expected);
    assert_eq!(
        inbox(&mut session)[expected.len()..],
        [
            " invalid_argument",
            "l out_of_range",
            "m wrong_state",
            "bought idempotency_key_reused",
            "p invalid_argument",
            "q out_of_range",
            "r out_of_range"
        ]
    );
    assert_eq!(usage(&mut session, "acme"), ["good|-1", "s|-1"]);
    session.set_clock("2026-01-02 00:00+00");
    assert_eq!(process(&mut session), "0|0|0|f", "nothing is tried again by itself");
    assert_eq!(session.lines(errors), lines);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_retry_charges_what_was_corrected() {
    let mut session = metered_books("a_retry_charges");
    receive(
        &mut session,
        "('acme', 'a', 'search', '{}'), ('zoe', 'b', 'call', '{}'), ('acme', 'c', 'generate', '{}'), (null, 'd', 'call', '{}')",
    );
    assert_eq!(process(&mut session), "0|4|0|f");
    session.exec(
        "select credits.create_meter('searches', 'search', 'count', pricing => '{\"model\": \"per_unit\", \"credits\": 3}')",
    );
    session.exec("select credits.create_wallet('zoe'), credits.grant_credits('zoe', 5)");
    assert_eq!(process(&mut session), "0|0|0|f");
    assert_eq!(session.one("select credits.retry_inbox('nobody')"), "0");
    assert_eq!(session.one("select credits.retry_inbox('zoe')"), "1");
    assert_eq!(inbox(&mut session), ["a not_found", "b", "c invalid_argument", "d null_argument"]);
    assert_eq!(process(&mut session), "1|0|1|f");
    assert_eq!(session.one("select credits.retry_inbox()"), "3");
    assert_eq!(
        session.lines("select count(*) from credits.usage_inbox where num_nulls(error, failed_at, waits_for_credit) = 3"),
        ["3"]
    );
    session.exec("update credits.usage_inbox set properties = '{\"tokens\": 1}' where event_id = 'c'");
    session.exec("delete from credits.usage_inbox where event_id = 'd'");
    assert_eq!(process(&mut session), "2|0|5|f");
    assert_eq!(usage(&mut session, "acme"), ["a|-3", "c|-2"]);
    assert_eq!(session.one("select credits.retry_inbox()"), "0");
    assert_eq!(session.error("select credits.retry_inbox('')").symbol(), "invalid_argument");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn null_columns_have_the_defaults_of_record_usage() {
    let mut session = metered_books("null_columns");
    copy(&mut session, "customer_id, event_id, event_name, properties, occurred_at", "acme\t\\N\tcall\t\\N\t\\N\n");
    session.exec("insert into credits.usage_inbox (customer_id, event_name) values ('acme', 'call'), ('acme', 'call')");
    assert_eq!(session.lines("select properties from credits.usage_inbox order by inbox_id"), ["", "{}", "{}"]);
    session.set_clock("2026-01-01 00:10+00");
    assert_eq!(process(&mut session), "3|0|3|f", "without an id each is an event of its own");
    assert_eq!(
        session.lines("select properties, occurred_at, length(event_id) from credits.usage_events"),
        ["{}|2026-01-01 00:00:00+00|36"; 3]
    );
    assert_eq!(
        session.lines("select distinct occurred_at, usage_at from credits.ledger where kind = 'usage'"),
        ["2026-01-01 00:10:00+00|2026-01-01 00:00:00+00"],
        "charged now, used when it arrived"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_stays_in_the_period_and_at_the_price_of_its_arrival() {
    let mut session = metered_books("the_period_of_its_arrival");
    session.set_clock("2026-01-31 23:59:59+00");
    receive(&mut session, "('acme', 'january', 'generate', '{\"tokens\": 10}')");
    session.set_clock("2026-02-01 00:00+00");
    receive(&mut session, "('acme', 'february', 'generate', '{\"tokens\": 10}')");
    session.exec("select credits.set_meter_pricing('tokens', '{\"model\": \"per_unit\", \"credits\": 3}')");
    session.set_clock("2026-02-03 00:00+00");
    assert_eq!(process(&mut session), "2|0|50|f");
    assert_eq!(usage(&mut session, "acme"), ["january|-20", "february|-30"]);
    assert_eq!(
        session.lines("select period_start, aggregate from credits.meter_usage order by 1"),
        ["2026-01-01 00:00:00+00|10", "2026-02-01 00:00:00+00|10"]
    );
    assert_eq!(
        session.lines("select day, events from credits.usage_daily where event_name is not null order by 1"),
        ["2026-01-31|1", "2026-02-01|1"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn several_sessions_at_once_charge_each_event_once() {
    const EVENTS: usize = 3000;
    let mut session = metered_books("several_at_once");
    session.exec("select credits.create_wallet('c' || n), credits.grant_credits('c' || n, 100000) from generate_series(0, 39) n");
    session.exec(&format!(
        "insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
         select 'c' || n % 40, 'e' || n, 'generate', '{{\"tokens\": 1}}' from generate_series(1, {EVENTS}) n"
    ));
    let mut workers = sessions("several_at_once", 6);
    let charged = at_once(&mut workers, |number, worker| {
        worker.set_clock("2026-01-01 00:00+00");
        let mut charged = 0;
        // More may be due that another session has taken.
        while worker.one("select exists (select from credits.usage_inbox)") == "t" {
            let call = format!("select events_charged from credits.process_inbox({})", [7, 50, 400][number % 3]);
            charged += worker.one(&call).parse::<usize>().expect("a number");
        }
        charged
    });
    assert_eq!(charged.iter().sum::<usize>(), EVENTS, "{charged:?}");
    assert_eq!(
        session.lines("select count(*), count(distinct (customer_id, transaction_id)), sum(credits) from credits.ledger where kind = 'usage'"),
        ["3000|3000|3400"],
        "ten tokens of each customer cost one more"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_locked_customer_is_passed_over_and_the_others_go_on() {
    let mut session = metered_books("a_locked_customer_is_passed_over");
    session.exec("select credits.create_wallet('busy'), credits.grant_credits('busy', 10)");
    receive(
        &mut session,
        "('busy', 'a', 'call', '{}'), ('acme', 'b', 'call', '{}'), ('busy', 'c', 'generate', '{}'), ('nobody', 'd', 'call', '{}'),
         ('busy', 'e', 'call', '{}'), ('acme', 'f', 'call', '{}')",
    );
    let mut holder = shared_cluster().session("a_locked_customer_is_passed_over");
    holder.set_clock("2026-01-01 00:00+00");
    holder.exec("begin; select * from credits.deduct_usage('busy', 1)");
    session.exec("set lock_timeout = '10s'");
    assert_eq!(session.lines("select * from credits.process_inbox(3)").concat(), "2|1|2|t", "three whose customer is free");
    assert_eq!(inbox(&mut session), ["a", "c", "d not_found", "e"]);
    assert_eq!(process(&mut session), "0|0|0|t");
    holder.exec("commit");
    assert_eq!(process(&mut session), "2|1|2|f");
    assert_eq!(inbox(&mut session), ["c invalid_argument", "d not_found"]);
    assert_eq!(session.one("select balance from credits.balance('busy')"), "7");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn maintenance_charges_the_inbox_and_job_health_tells_what_is_left() {
    let mut session = metered_books("maintenance_charges_the_inbox");
    let health = "select last_run_at, last_items, backlog, oldest_due_at, split_part(detail, ':', 1)
                  from credits.job_health where task = 'process_inbox'";
    assert_eq!(session.lines(health), ["||0||"]);
    receive(&mut session, "('acme', 'a', 'call', '{}'), ('acme', 'b', 'generate', '{}')");
    session.set_clock("2026-01-01 00:05+00");
    receive(&mut session, "('acme', 'c', 'call', '{}')");
    assert_eq!(session.lines(health), ["||3|2026-01-01 00:00:00+00|"]);
    session.set_clock("2026-01-01 00:06+00");
    assert_eq!(session.lines(health), ["||3|2026-01-01 00:00:00+00|overdue"]);
    let run = "select items, credits, more_due from credits.run_maintenance(2) where task = 'process_inbox'";
    assert_eq!(session.lines(run), ["2|1|t"]);
    assert_eq!(session.lines(health), ["2026-01-01 00:06:00+00|2|1|2026-01-01 00:05:00+00|1 events could not be charged"]);
    session.set_clock("2026-01-01 00:07+00");
    assert_eq!(session.lines(run), ["1|1|f"]);
    assert_eq!(session.lines(health), ["2026-01-01 00:07:00+00|1|0||1 events could not be charged"]);
    session.exec("delete from credits.usage_inbox");
    assert_eq!(session.lines(run), ["0|0|f"]);
    assert_eq!(session.lines(health), ["2026-01-01 00:07:00+00|0|0||"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_dump_keeps_the_inbox_and_its_order() {
    let cluster: &Cluster = shared_cluster();
    for format in ["c", "p"] {
        let (original, copied) = (format!("dumped_inbox_{format}"), format!("restored_inbox_{format}"));
        let mut session = metered_books(&original);
        session.exec("select credits.create_wallet('poor')");
        receive(
            &mut session,
            "('acme', 'first', 'generate', '{\"tokens\": 7}'), ('acme', 'wrong', 'generate', null), ('poor', 'waits', 'call', '{}')",
        );
        assert_eq!(process(&mut session), "1|2|14|f");
        receive(&mut session, "('acme', 'z', 'generate', '{\"tokens\": 5}'), ('acme', 'a', 'generate', '{\"tokens\": 6}')");
        let file = cluster.dump(&original, format);
        cluster.restore(&file, format, &copied);
        let mut restored = cluster.session(&copied);
        let rows = "select * from credits.usage_inbox order by inbox_id";
        assert_eq!(restored.lines(rows), session.lines(rows));
        restored.set_clock("2026-01-01 00:00+00");
        receive(
            &mut restored,
            "('acme', 'last', 'generate', '{\"tokens\": 1}'), ('acme', 'first', 'generate', '{\"tokens\": 7}')",
        );
        assert_eq!(inbox(&mut restored), ["wrong invalid_argument", "waits insufficient_credits", "z", "a", "last", "first"]);
        assert_eq!(process(&mut restored), "3|0|15|f");
        assert_eq!(usage(&mut restored, "acme"), ["first|-14", "z|-8", "a|-6", "last|-1"], "tiers and keys go on");
        restored.exec("select credits.grant_credits('poor', 5)");
        assert_eq!(process(&mut restored), "1|0|1|f", "and what waited for credits still does");
        assert_ledger_is_sound(&mut restored);
        assert_ledger_is_sound(&mut session);
    }
}

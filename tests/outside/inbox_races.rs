//! The inbox processed beside everything else that touches its customers: nobody deadlocks, and each event is charged once (SPEC 8, 12).

use pgrx_tests::assert_ledger_is_sound;

use crate::concurrency::{at_once, sessions};
use crate::inbox::metered_books;
use crate::workload::{Random, seed};

const CUSTOMERS: u64 = 12;
const EVENTS: u64 = 400;

/// The same event whatever the door: customer, id and tokens follow from its number.
fn event(number: u64) -> (String, String, u64) {
    (format!("c{}", number % CUSTOMERS), format!("e{number}"), 1 + number % 5)
}

/// Every event comes through three doors, while credits come in small grants, prices are set, and maintenance and retries run.
#[test]
fn whatever_runs_beside_the_inbox_each_event_is_charged_once() {
    let seed = seed();
    let mut session = metered_books("beside_the_inbox");
    session.exec(&format!(
        "select credits.create_wallet('c' || n), credits.grant_credits('c' || n, 1, expires_at => '2026-01-01 00:01+00') from generate_series(0, {CUSTOMERS} - 1) n"
    ));
    let mut workers = sessions("beside_the_inbox", 8);
    at_once(&mut workers, |number, worker| {
        let mut random = Random::new(seed + number as u64);
        worker.exec("set deadlock_timeout = '10ms'; set credits.test_clock = '2026-01-01 00:02+00'");
        for round in 0..EVENTS {
            let (customer, id, tokens) = event(if number % 2 == 0 { round } else { EVENTS - 1 - round });
            let properties = format!("{{\"tokens\": {tokens}}}");
            let call = match number {
                0 | 1 => format!(
                    "insert into credits.usage_inbox (customer_id, event_id, event_name, properties) values ('{customer}', '{id}', 'generate', '{properties}')"
                ),
                2 => format!(
                    "select * from credits.record_usage('{customer}', 'generate', '{properties}', '{id}', on_insufficient => 'report')"
                ),
                3 => format!(
                    r#"select * from credits.record_usage_batch('[{{"customer_id": "{customer}", "event_name": "generate", "properties": {properties}, "event_id": "{id}"}},
                        {{"customer_id": "c{}", "event_name": "call", "event_id": "call {round}", "on_insufficient": "report"}}]')"#,
                    random.below(CUSTOMERS)
                ),
                4 => format!("select credits.grant_credits('{customer}', {})", random.between(1, 5)),
                5 if random.chance(5) => "select credits.retry_inbox()".to_owned(),
                5 if random.chance(5) => format!(
                    "select credits.set_meter_pricing('calls', '{{\"model\": \"per_unit\", \"credits\": {}}}', customer_id => '{customer}')",
                    random.between(1, 3)
                ),
                5 => "select * from credits.run_maintenance(20)".to_owned(),
                _ => format!("select * from credits.process_inbox({})", random.between(1, 30)),
            };
            worker.exec(&call);
        }
    });
    session.set_clock("2026-01-01 00:03+00");
    session.exec(&format!("select credits.grant_credits('c' || n, 10000) from generate_series(0, {CUSTOMERS} - 1) n"));
    while session.one("select more_due from credits.process_inbox()") == "t" {}
    assert_eq!(session.lines("select event_id, error from credits.usage_inbox"), [""; 0], "SEED={seed}");
    let mut expected: Vec<String> =
        (0..EVENTS).map(event).map(|(customer, id, tokens)| format!("{customer}|{id}|{tokens}")).collect();
    expected.sort();
    let mut found = session
        .lines("select customer_id, event_id, properties ->> 'tokens' from credits.usage_events where event_name = 'generate'");
    found.sort();
    assert_eq!(found, expected, "SEED={seed}");
    // Ten tokens of each customer cost one more, in whatever order they came.
    assert_eq!(
        session.lines(
            "select m.customer_id from credits.meter_usage m
             where m.meter = 'tokens' and m.aggregate + 10 <> (
                 select sum(l.credits) from credits.ledger l
                 where l.customer_id = m.customer_id and l.kind = 'usage' and l.event_name = 'generate')"
        ),
        [""; 0],
        "SEED={seed}"
    );
    assert_ledger_is_sound(&mut session);
}

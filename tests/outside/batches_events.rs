//! Batches of events, large batches, and batches at once: nothing differs from one call an item, and nobody waits in a circle.

use pgrx_tests::{Session, assert_ledger_is_sound, quote_literal, shared_cluster};

use crate::batches::{deduct_batch, record_batch};
use crate::books::{entries, everything, grant, new_books};
use crate::concurrency::{at_once, sessions};
use crate::inbox::metered_books;
use crate::workload::{Random, seed};

#[test]
fn events_are_priced_after_those_before_them_and_a_fall_is_given_back() {
    let mut session = new_books("events_priced_after_those_before");
    session.exec(
        r#"select credits.create_meter('mails', 'mail', 'sum', 'number',
            pricing => '{"model": "volume", "tiers": [{"up_to": 10, "credits": 3}, {"up_to": "100", "credits": "1"}, {"credits": "0.5"}]}')"#,
    );
    grant(&mut session, "bought", "100", "");
    let mail = |id: &str, number: &str| {
        format!(r#"{{"customer_id": "acme", "event_name": "mail", "event_id": "{id}", "properties": {{"number": {number}}}}}"#)
    };
    let events =
        [("a", "4"), ("b", "6"), ("c", "1"), ("d", "\"9\""), ("e", "90"), ("f", "120"), ("g", "10"), ("b", "6.0"), ("b", "7")];
    let events = events.map(|(id, number)| mail(id, number)).join(",");
    assert_eq!(
        record_batch(&mut session, &format!("[{events}]")),
        [
            "1|acme|a|charged|12|12|0|88|f|",
            "2|acme|b|charged|18|18|0|70|f|",
            // 11 cost 1 each instead of 10 at 3, and 110 a half each instead of 20 at 1
            "3|acme|c|charged|-19|-19|0|89|f|",
            "4|acme|d|charged|9|9|0|80|f|",
            "5|acme|e|charged|35|35|0|45|f|",
            "6|acme||failed||0|0||f|insufficient_credits: insufficient credits: customer \"acme\" needs 60, 45 can be spent in wallets of unit \"credits\"",
            "7|acme|g|charged|5|5|0|40|f|",
            "8|acme|b|charged|18|18|0|40|t|",
            "9|acme||failed||0|0||f|idempotency_key_reused: idempotency key \"b\" of customer \"acme\" was used for another request: usage of 18 credits"
        ]
    );
    assert_eq!(
        entries(&mut session, "c"),
        ["default usage_refunded 18 bought", "default usage_refunded 1 bought"],
        "to what paid last"
    );
    assert_eq!(session.lines("select aggregate, events from credits.meter_usage"), ["120|6"]);
    assert_eq!(session.one("select credits from credits.price_usage('mail', '{\"number\": 2}', 'acme')"), "1");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_wrong_with_an_event_is_its_own_error() {
    let mut session = metered_books("an_events_own_error");
    let event = |rest: &str| format!(r#"{{"customer_id": "acme", "event_name": "call", {rest}}}"#);
    let wrong = [
        (r#"{"event_name": "call"}"#.to_owned(), "|null_argument: customer_id must not be null"),
        (r#"{"customer_id": "acme"}"#.to_owned(), "acme|null_argument: event_name must not be null"),
        (event(r#""event_name": 5"#), "acme|invalid_argument: invalid event_name: it is not a string"),
        (event(r#""event_name": "unknown""#), "acme|not_found: meter of event \"unknown\" not found"),
        (event(r#""amount": 5"#), "acme|invalid_argument: invalid events: the key \"amount\" is not known"),
        (event(r#""wallet": "default""#), "acme|invalid_argument: invalid events: the key \"wallet\" is not known"),
        (event(r#""properties": null"#), "acme|null_argument: properties must not be null"),
        (event(r#""properties": []"#), "acme|invalid_argument: invalid properties: it is not a JSON object"),
        (
            event(r#""event_id": "a", "idempotency_key": "a""#),
            "acme|invalid_argument: invalid event_id: it is the same thing as idempotency_key",
        ),
        (
            event(r#""event_name": "generate", "properties": {"tokens": "many"}"#),
            "acme|invalid_argument: invalid properties: tokens: it is not a number",
        ),
        (
            event(r#""event_name": "generate", "properties": {"tokens": -0.5}"#),
            "acme|invalid_argument: invalid properties: \"tokens\" is -0.5, below zero, meter \"tokens\" counts it",
        ),
        (
            r#"{"customer_id": "nobody", "event_name": "call"}"#.to_owned(),
            "nobody|not_found: wallet of customer \"nobody\" not found",
        ),
    ];
    let before = everything(&mut session);
    let events: Vec<String> = wrong.iter().map(|(event, _)| event.clone()).collect();
    let expected = wrong.iter().enumerate().map(|(index, (_, told))| {
        let (customer, error) = told.split_once('|').expect("both");
        format!("{}|{customer}||failed||0|0||f|{error}", index + 1)
    });
    assert_eq!(record_batch(&mut session, &format!("[{}]", events.join(","))), expected.collect::<Vec<_>>());
    assert_eq!(everything(&mut session), before, "what is refused leaves nothing");
    assert_eq!(session.lines("select * from credits.meter_usage"), [""; 0]);

    let right = [
        event(r#""event_id": "a", "properties": {"model": {"name": "x", "size": 1.50}}, "metadata": {"m": 1}"#),
        event(r#""idempotency_key": "a", "properties": {"model": {"size": 15e-1, "name": "x"}}, "event_id": null"#),
        event(
            r#""event_id": "b", "idempotency_key": null, "occurred_at": "2025-12-31T10:00:00+02:00", "on_insufficient": "report""#,
        ),
    ];
    assert_eq!(
        record_batch(&mut session, &format!("[{}]", right.join(","))),
        ["1|acme|a|charged|1|1|0|99|f|", "2|acme|a|charged|1|1|0|99|t|", "3|acme|b|charged|1|1|0|98|f|"]
    );
    assert_eq!(
        session.lines("select event_id, properties, occurred_at, status from credits.usage_events order by event_id"),
        [
            "a|{\"model\": {\"name\": \"x\", \"size\": 1.50}}|2026-01-01 00:00:00+00|charged",
            "b|{}|2025-12-31 08:00:00+00|charged"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

/// Customers of different kinds, the same in every database.
fn population(rule: &str, customers: u64) -> Session {
    let mut session = new_books(rule);
    session.exec(
        r#"select credits.create_meter('calls', 'call', 'count');
           select credits.create_meter('tokens', 'generate', 'sum', 'tokens',
               pricing => '{"model": "graduated", "tiers": [{"up_to": 50, "credits": "0.25"}, {"credits": "0.1"}]}');
           select credits.create_meter('seats', 'seat', 'unique', 'user',
               pricing => '{"model": "volume", "tiers": [{"up_to": 3, "credits": 4}, {"credits": 1}]}');
           select credits.create_meter('peak', 'disk', 'max', 'size', pricing => '{"model": "package", "size": 10, "credits": 2}');
           select credits.create_meter('level', 'disk', 'latest', 'size');
           select credits.create_meter('falls', 'mixed', 'sum', 'n', wallet => 'default',
               pricing => '{"model": "volume", "tiers": [{"up_to": 12, "credits": 2}, {"credits": "0.5"}]}');
           select credits.create_meter('rises', 'mixed', 'count', filter => '{"big": true}', pricing => '{"model": "per_unit", "credits": 3}')"#,
    );
    session.exec(&format!(
        "select credits.create_wallet('c' || n, overage_policy => case when n % 5 = 0 then 'overdraft' else 'block' end,
             overage_limit => case when n % 5 = 0 then 20 end,
             late_usage_grace => '3 days') from generate_series(1, {customers}) n;
         select credits.create_wallet('c' || n, 'promo', priority => 1) from generate_series(1, {customers}, 3) n;
         select credits.grant_credits('c' || n, 15, 'promo', applies_to => array['call', 'seat']) from generate_series(1, {customers}, 3) n;
         select credits.grant_credits('c' || n, 30, expires_at => '2026-01-09 00:00+00') from generate_series(1, {customers}, 2) n;
         select credits.grant_credits('c' || n, 10 * g) from generate_series(1, {customers}) n, generate_series(1, 3) g;
         select credits.create_recurring_grant('c' || n, 'daily', 2, '1 day', starts_at => '2026-01-08 12:00+00') from generate_series(1, {customers}, 4) n"
    ));
    session.set_clock("2026-01-10 00:00+00");
    session
}

/// What both databases must agree on, without ids that are drawn.
fn books_of_all(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', customer_id, wallet, seq, case when length(transaction_id) < 36 then transaction_id end, line, kind, amount,
             balance_after, occurred_at, usage_at, event_name)
         from credits.ledger
         union all select concat_ws(' ', customer_id, wallet, balance, held, debt) from credits.wallets
         union all select concat_ws(' ', customer_id, meter, period_start, rate, aggregate, events) from credits.meter_usage
         order by 1",
    )
}

/// 2,000 random items of `count` customers as SQL calls for one and as elements of a batch.
fn random_items(random: &mut Random, customers: u64, is_metered: bool) -> Vec<(String, String)> {
    (0..2000)
        .map(|_| {
            // Most keys come again, with the same request but for a few.
            let (customer, key) = (random.between(1, customers), random.below(25));
            let other = if random.chance(5) { 1 } else { 0 };
            let mut random = Random::new(1 + other + 2 * (key + 100 * customer));
            let (customer, key) = (format!("c{customer}"), format!("k{key}"));
            let mode = random.pick(&["error", "report", "partial"]);
            let at = random.pick(&["2026-01-10 00:00+00", "2026-01-08 10:00+00", "2025-12-31 10:00+00"]);
            let rest = format!(r#""idempotency_key": "{key}", "on_insufficient": "{mode}", "occurred_at": "{at}""#);
            let named = format!("idempotency_key => '{key}', on_insufficient => '{mode}', occurred_at => '{at}'");
            if is_metered {
                let (event, properties) = match random.below(6) {
                    0 => ("call", "{}".to_owned()),
                    1 => ("generate", format!(r#"{{"tokens": {}}}"#, random.below(40))),
                    2 | 3 => ("mixed", format!(r#"{{"n": {}, "big": {}}}"#, random.below(9), random.chance(70))),
                    4 => ("seat", format!(r#"{{"user": "u{}"}}"#, random.below(6))),
                    _ => ("disk", format!(r#"{{"size": {}}}"#, random.below(30))),
                };
                return (
                    format!("record_usage('{customer}', '{event}', '{properties}', {named})"),
                    format!(r#"{{"customer_id": "{customer}", "event_name": "{event}", "properties": {properties}, {rest}}}"#),
                );
            }
            let amount = random.below(9);
            let event = random.pick(&["call", "other"]);
            (
                format!("deduct_usage('{customer}', {amount}, event_name => '{event}', {named})"),
                format!(r#"{{"customer_id": "{customer}", "amount": {amount}, "event_name": "{event}", {rest}}}"#),
            )
        })
        .collect()
}

/// In one database each item is a call, in the other all are one batch.
fn a_batch_equals_its_items_one_by_one(function: &str, customers: u64) {
    let seed = seed();
    let is_metered = function == "record_usage_batch";
    let mut one_by_one = population(&format!("{function}_one_by_one"), customers);
    let mut at_once = population(&format!("{function}_at_once"), customers);
    let items = random_items(&mut Random::new(seed), customers, is_metered);
    let answers: Vec<String> = items
        .iter()
        .map(|(call, _)| {
            let columns = "status, requested, deducted, overage, balance, replayed";
            match one_by_one.try_rows(&format!("select {columns} from credits.{call}")) {
                Ok(mut rows) => rows.remove(0).into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("|"),
                Err(error) => format!("failed {}: {}", error.symbol(), error.message),
            }
        })
        .collect();
    let batch = items.iter().map(|(_, element)| element.as_str()).collect::<Vec<_>>().join(",");
    let lines = at_once.lines(&format!(
        "select case when error is null then concat_ws('|', status, requested, deducted, overage, balance, case when replayed then 't' else 'f' end)
                else status || ' ' || error end
         from credits.{function}({}) order by line",
        quote_literal(&format!("[{batch}]"))
    ));
    for (number, (line, answer)) in lines.iter().zip(&answers).enumerate() {
        assert_eq!(line, answer, "item {number}: {}, SEED={seed}", items[number].0);
    }
    assert_eq!(lines.len(), answers.len());
    for told in ["charged", "partial", "overage", "insufficient", "failed insufficient_credits", "failed idempotency_key_reused"]
    {
        assert!(lines.iter().any(|line| line.starts_with(told)), "some items are {told}");
    }
    assert!(lines.iter().any(|line| line.ends_with("|t")), "some are replayed");
    let (expected, found) = (books_of_all(&mut one_by_one), books_of_all(&mut at_once));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "SEED={seed}");
    }
    assert_eq!(found.len(), expected.len());
    assert_ledger_is_sound(&mut one_by_one);
    assert_ledger_is_sound(&mut at_once);
}

#[test]
fn two_thousand_deductions_of_many_customers_equal_one_call_each() {
    a_batch_equals_its_items_one_by_one("deduct_usage_batch", 60);
}

#[test]
fn two_thousand_events_of_many_customers_equal_one_call_each() {
    a_batch_equals_its_items_one_by_one("record_usage_batch", 60);
}

#[test]
fn batches_over_the_same_customers_in_opposite_orders_never_deadlock() {
    const CUSTOMERS: u32 = 30;
    let mut session = metered_books("opposite_batches");
    session.exec(&format!(
        "select credits.create_wallet('c' || n), credits.grant_credits('c' || n, 1000) from generate_series(1, {CUSTOMERS}) n"
    ));
    let mut workers = sessions("opposite_batches", 4);
    at_once(&mut workers, |number, worker| {
        worker.exec("set deadlock_timeout = '10ms'");
        for round in 0..25 {
            let mut elements: Vec<String> = (1..=CUSTOMERS)
                .map(|customer| {
                    let key = format!("k-{number}-{round}");
                    match number {
                        0 | 1 => format!(r#"{{"customer_id": "c{customer}", "amount": 2, "idempotency_key": "{key}"}}"#),
                        _ => format!(r#"{{"customer_id": "c{customer}", "event_name": "call", "event_id": "{key}"}}"#),
                    }
                })
                .collect();
            if number % 2 == 1 {
                elements.reverse();
            }
            let batch = format!("[{}]", elements.join(","));
            let lines = if number < 2 { deduct_batch(worker, &batch) } else { record_batch(worker, &batch) };
            assert!(lines.iter().all(|line| line.contains("|charged|")), "{lines:?}");
        }
    });
    assert_eq!(
        session.lines("select distinct balance from credits.wallets where customer_id <> 'acme'"),
        ["850"],
        "25 times two of 2 and two of 1"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_same_batch_by_four_sessions_at_once_charges_once() {
    let mut session = metered_books("the_same_batch");
    session.exec("select credits.create_wallet('c' || n), credits.grant_credits('c' || n, 1000) from generate_series(1, 5) n");
    let mut workers = sessions("the_same_batch", 4);
    for round in 0..20 {
        let elements = |element: &dyn Fn(u32) -> String| format!("[{}]", (1..=10).map(element).collect::<Vec<_>>().join(","));
        let deductions =
            elements(&|n| format!(r#"{{"customer_id": "c{}", "amount": {n}, "idempotency_key": "d-{round}-{n}"}}"#, 1 + n % 5));
        let events = elements(&|n| {
            format!(
                r#"{{"customer_id": "c{}", "event_name": "generate", "properties": {{"tokens": {n}}}, "event_id": "e-{round}-{n}"}}"#,
                1 + n % 5
            )
        });
        let replays = at_once(&mut workers, |_, worker| {
            let lines = [deduct_batch(worker, &deductions), record_batch(worker, &events)].concat();
            assert!(lines.iter().all(|line| line.contains("|charged|")), "{lines:?}");
            lines.iter().filter(|line| line.ends_with("|t|")).count()
        });
        assert_eq!(
            replays.iter().sum::<usize>(),
            60,
            "each of 20 items is charged by one session and replayed by three: {replays:?}"
        );
    }
    assert_eq!(
        session.lines(
            "select substr(transaction_id, 1, 1), count(*), count(distinct transaction_id)
             from credits.ledger where kind = 'usage' group by 1 order by 1"
        ),
        ["d|200|200", "e|200|200"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_serialization_failure_is_the_whole_calls_error() {
    let mut session = metered_books("a_serialization_failure");
    session.exec("select credits.create_wallet('zoe'), credits.grant_credits('zoe', 10)");
    let mut other = shared_cluster().session("a_serialization_failure");
    other.set_clock("2026-01-01 00:00+00");
    let items = r#"[{"customer_id": "acme", "amount": 1, "idempotency_key": "a"}, {"customer_id": "zoe", "amount": 1, "idempotency_key": "a"}]"#;
    let events = r#"[{"customer_id": "acme", "event_name": "call", "event_id": "b"}, {"customer_id": "zoe", "event_name": "call", "event_id": "b"}]"#;
    for level in ["repeatable read", "serializable"] {
        for (call, batch) in [("deduct_usage_batch", items), ("record_usage_batch", events)] {
            session.exec(&format!("begin isolation level {level}; select count(*) from credits.ledger"));
            other.exec("select * from credits.deduct_usage('zoe', 1)");
            let before = everything(&mut other);
            let error = session.error(&format!("select * from credits.{call}({})", quote_literal(batch)));
            assert_eq!(error.sqlstate, "40001", "{level}, {call}: {error}");
            session.exec("rollback");
            assert_eq!(everything(&mut other), before, "{level}, {call}");
        }
    }
    assert_eq!(deduct_batch(&mut session, items), ["1|acme|a|charged|1|1|0|99|f|", "2|zoe|a|charged|1|1|0|5|f|"]);
    assert_eq!(record_batch(&mut session, events), ["1|acme|b|charged|1|1|0|98|f|", "2|zoe|b|charged|1|1|0|4|f|"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_cancelled_batch_leaves_nothing() {
    let mut session = metered_books("a_cancelled_batch");
    session.exec("select credits.create_wallet('zoe'), credits.grant_credits('zoe', 10)");
    let mut other = shared_cluster().session("a_cancelled_batch");
    other.exec("begin; select * from credits.deduct_usage('zoe', 1)");
    session.exec("set statement_timeout = '300ms'");
    let items = r#"[{"customer_id": "acme", "amount": 1, "idempotency_key": "a"}, {"customer_id": "zoe", "amount": 1, "idempotency_key": "a"}]"#;
    let error = session.error(&format!("select * from credits.deduct_usage_batch({})", quote_literal(items)));
    assert_eq!(error.sqlstate, "57014", "{error}");
    other.exec("rollback");
    session.exec("reset statement_timeout");
    assert_eq!(session.one("select count(*) from credits.ledger where transaction_id = 'a'"), "0");
    assert_eq!(deduct_batch(&mut session, items), ["1|acme|a|charged|1|1|0|99|f|", "2|zoe|a|charged|1|1|0|9|f|"]);
    assert_ledger_is_sound(&mut session);
}

//! How metered events are paid: modes, overage, wallets, holds; and what a repeated key answers (SPEC 4, 8 and 9).

use pgrx_tests::assert_ledger_is_sound;

use crate::books::{assert_refused, capture, deduct, entries, everything, grant, hold, ledger, new_books};
use crate::metering_prices::{charges, counted, meter, record, rich_books};
use crate::metering_refunds::{level, level_books};

#[test]
fn an_event_that_is_not_covered_is_not_counted_and_its_key_stays_free() {
    let mut session = level_books("an_event_that_is_not_covered");
    grant(&mut session, "bought", "10", "");
    let before = everything(&mut session);
    let error = session.error(r#"select * from credits.record_usage('acme', 'e', '{"n": 25}', '25')"#);
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23514", "insufficient_credits"), "{error}");
    for value in ["acme", "25", "10"] {
        assert!(error.message.contains(value), "{error}");
    }
    let row = r#"select transaction_id is null, status, requested, deducted, overage, balance, replayed
                 from credits.record_usage('acme', 'e', '{"n": 25}', '25', on_insufficient => 'report')"#;
    assert_eq!(session.lines(row), ["t|insufficient|25|0|0|10|f"]);
    assert_eq!(everything(&mut session), before);
    grant(&mut session, "more", "20", "");
    assert_eq!(level(&mut session, "25"), "charged|25|25|0|5|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_that_is_reported_settles_what_had_fallen_due() {
    let mut session = level_books("reported_settles_what_had_fallen_due");
    grant(&mut session, "expires", "100", "expires_at => '2026-01-02 00:00+00'");
    session.set_clock("2026-01-03 00:00+00");
    assert_eq!(record(&mut session, r#"'e', '{"n": 25}', on_insufficient => 'report'"#), "insufficient|25|0|0|0|f");
    assert_eq!(ledger(&mut session), ["default 1 grant 100 100 01-01 00:00", "default 2 expiration -100 0 01-02 00:00"]);
    assert_eq!(counted(&mut session), [""; 0]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_partly_paid_event_is_counted_whole_and_is_final_for_its_key() {
    let mut session = new_books("a_partly_paid_event");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    let event = r#"'e', '{"n": 25}', 'x', on_insufficient => 'partial'"#;
    let before = everything(&mut session);
    assert_eq!(record(&mut session, event), "insufficient|25|0|0|0|f");
    assert_eq!(everything(&mut session), before, "with nothing to take it is not recorded");
    grant(&mut session, "bought", "10", "");
    assert_eq!(record(&mut session, event), "partial|25|10|0|0|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 25 1"]);
    grant(&mut session, "more", "100", "");
    assert_eq!(record(&mut session, event), "partial|25|10|0|100|t");
    assert_eq!(record(&mut session, r#"'e', '{"n": 25}', 'x'"#), "partial|25|10|0|100|t");
    assert_eq!(session.lines("select refunded, balance from credits.refund_usage('acme', 'x')"), ["10|110"]);
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 0 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_falls_pays_for_what_rises_in_the_same_event() {
    let mut session = new_books("what_falls_pays_for_what_rises");
    meter(&mut session, "'a', 'e', 'latest', 'a'");
    meter(&mut session, "'b', 'e', 'latest', 'b'");
    grant(&mut session, "bought", "10", "");
    assert_eq!(record(&mut session, r#"'e', '{"a": 8, "b": 2}', 'first'"#), "charged|10|10|0|0|f");
    assert_eq!(record(&mut session, r#"'e', '{"a": 1, "b": 9}', 'swapped'"#), "charged|0|0|0|0|f");
    assert_eq!(entries(&mut session, "swapped"), ["default usage_refunded 7 bought", "default usage 7 bought"]);
    assert_eq!(record(&mut session, r#"'e', '{"a": 0, "b": 3}', 'lower'"#), "charged|-7|-7|0|7|f");
    let partly = r#"'e', '{"a": 20, "b": 1}', 'partly', on_insufficient => 'partial'"#;
    assert_eq!(record(&mut session, partly), "partial|18|7|0|0|f");
    // Of the 9 for b, 6 were given back of the second event already.
    assert_eq!(
        entries(&mut session, "partly"),
        ["default usage_refunded 1 bought", "default usage_refunded 1 bought", "default usage 9 bought"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_that_falls_and_can_not_be_paid_gives_nothing_back() {
    for mode in ["report", "partial"] {
        let mut session = new_books(&format!("falls_and_can_not_be_paid_{mode}"));
        session.exec("select credits.create_wallet('acme', 'other', unit => 'other')");
        meter(&mut session, "'a', 'e', 'latest', 'a', wallet => 'default'");
        meter(&mut session, "'b', 'e', 'latest', 'b', wallet => 'other'");
        grant(&mut session, "expires", "5", "expires_at => '2026-01-10 00:00+00'");
        grant(&mut session, "lives", "5", "");
        assert_eq!(record(&mut session, r#"'e', '{"a": 8, "b": 0}', 'first'"#), "charged|8|8|0|2|f");
        session.set_clock("2026-01-20 00:00+00");
        session.exec("select * from credits.deduct_usage('acme', 0)"); // settles
        let before = everything(&mut session);
        let falls = r#"'e', '{"a": 1, "b": 4}', 'falls'"#;
        assert_eq!(record(&mut session, &format!("{falls}, on_insufficient => '{mode}'")), "insufficient|-3|0|0|2|f");
        assert_refused(&mut session, &[(&format!("record_usage('acme', {falls})"), "23514", "insufficient_credits")]);
        assert_eq!(everything(&mut session), before, "{mode}");
        grant(&mut session, "for the other", "10", "wallet => 'other'");
        assert_eq!(record(&mut session, falls), "charged|-3|-3|0|11|f");
        assert_eq!(
            entries(&mut session, "falls"),
            [
                "default usage_refunded 3 lives",
                "default usage_refunded 4 expires",
                "default expiration 4 expires",
                "other usage 4 for the other"
            ]
        );
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn events_go_beyond_the_credits_as_the_wallets_policy_says() {
    for (policy, answer, totals) in [
        ("'block'", "insufficient|25|0|0|10|f", "10|0|0"),
        ("'overdraft'", "overage|25|10|15|0|f", "0|15|0"),
        ("'overdraft', overage_limit => 15", "overage|25|10|15|0|f", "0|15|0"),
        ("'overdraft', overage_limit => 14", "insufficient|25|0|0|10|f", "10|0|0"),
        ("'invoice', overage_unit_price => 2, overage_currency => 'USD'", "overage|25|10|15|0|f", "0|0|15"),
    ] {
        let mut session = level_books(&format!("events_beyond_{}", policy.replace(|c: char| !c.is_ascii_alphanumeric(), "_")));
        session.exec(&format!("select credits.update_wallet('acme', 'default', overage_policy => {policy})"));
        grant(&mut session, "bought", "10", "");
        let event = r#"'e', '{"n": 25}', '25', on_insufficient => 'report'"#;
        assert_eq!(record(&mut session, event), answer, "{policy}");
        assert_eq!(session.lines("select balance, debt, overage from credits.balance('acme')"), [totals], "{policy}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_meter_with_a_wallet_charges_that_one_only() {
    let mut session = new_books("a_meter_with_a_wallet");
    session.exec(
        "select credits.create_wallet('acme', 'gpu', unit => 'seconds', priority => 1); select credits.create_wallet('acme', 'spare')",
    );
    meter(&mut session, "'calls', 'job', 'count'");
    meter(&mut session, "'gpu', 'job', 'sum', 'gpu', wallet => 'gpu'");
    grant(&mut session, "any", "10", "");
    grant(&mut session, "gpu", "100", "wallet => 'gpu'");
    assert_eq!(record(&mut session, r#"'job', '{"gpu": 60}', 'j1'"#), "charged|61|61|0|49|f");
    assert_eq!(entries(&mut session, "j1"), ["default usage 1 any", "gpu usage 60 gpu"]);
    // Neither pays for the other; if one is short, the other is not charged.
    let before = everything(&mut session);
    assert_eq!(record(&mut session, r#"'job', '{"gpu": 60}', 'j2', on_insufficient => 'report'"#), "insufficient|61|0|0|49|f");
    assert_refused(&mut session, &[(r#"record_usage('acme', 'job', '{"gpu": 60}', 'j2')"#, "23514", "insufficient_credits")]);
    assert_eq!(everything(&mut session), before);
    assert_eq!(record(&mut session, r#"'job', '{"gpu": 60}', 'j2', on_insufficient => 'partial'"#), "partial|61|41|0|8|f");
    assert_eq!(entries(&mut session, "j2"), ["default usage 1 any", "gpu usage 40 gpu"]);
    assert_eq!(session.lines("select refunded, balance from credits.refund_usage('acme', 'j2')"), ["41|49"]);
    assert_eq!(counted(&mut session), ["calls 2026-01-01 00:00 1 1", "gpu 2026-01-01 00:00 60 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallet_that_is_missing_or_frozen_takes_no_events() {
    let mut session = new_books("missing_or_frozen_takes_no_events");
    meter(&mut session, "'m', 'e', 'count'");
    meter(&mut session, "'gpu', 'job', 'sum', 'gpu', wallet => 'gpu'");
    meter(&mut session, "'tokens', 'talk', 'count', unit => 'tokens'");
    grant(&mut session, "any", "10", "");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    assert_refused(
        &mut session,
        &[
            ("record_usage('acme', 'e')", "55000", "wrong_state"),
            ("record_usage('acme', 'e', on_insufficient => 'report')", "55000", "wrong_state"),
            (r#"record_usage('acme', 'job', '{"gpu": 0}')"#, "P0002", "not_found"),
            ("record_usage('acme', 'talk')", "P0002", "not_found"),
        ],
    );
    session.exec("select credits.set_wallet_status('acme', 'default', 'active')");
    assert_eq!(record(&mut session, "'e'"), "charged|1|1|0|9|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn grants_limited_to_an_event_pay_for_that_event_only() {
    let mut session = new_books("limited_to_an_event");
    meter(&mut session, "'chat', 'chat', 'sum', 'n'");
    meter(&mut session, "'draw', 'draw', 'sum', 'n'");
    grant(&mut session, "for chat", "10", "applies_to => array['chat']");
    grant(&mut session, "any", "10", "");
    assert_eq!(record(&mut session, r#"'draw', '{"n": 4}', 'd'"#), "charged|4|4|0|16|f");
    assert_eq!(record(&mut session, r#"'chat', '{"n": 12}', 'c'"#), "charged|12|12|0|4|f");
    assert_eq!(entries(&mut session, "d"), ["default usage 4 any"]);
    assert_eq!(entries(&mut session, "c"), ["default usage 10 for chat", "default usage 2 any"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn credits_on_hold_pay_for_no_event() {
    let mut session = level_books("credits_on_hold");
    grant(&mut session, "bought", "100", "");
    assert_eq!(level(&mut session, "10"), "charged|10|10|0|90|f");
    assert_eq!(hold(&mut session, "85, idempotency_key => 'h', event_name => 'e'"), "85|5|f");
    assert_refused(&mut session, &[(r#"record_usage('acme', 'e', '{"n": 15.000000000001}')"#, "23514", "insufficient_credits")]);
    assert_eq!(level(&mut session, "15"), "charged|5|5|0|0|f");
    assert_eq!(level(&mut session, "3"), "charged|-12|-12|0|12|f");
    // What was given back is there for more than was held; a capture is no event and counts for no meter.
    assert_eq!(capture(&mut session, "'h', 90"), "charged|90|90|0|7|f");
    assert_eq!(counted(&mut session), ["level 2026-01-01 00:00 3 3"]);
    assert_eq!(level(&mut session, "0"), "charged|-3|-3|0|10|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_repeated_event_answers_again_and_is_counted_once() {
    let mut session = rich_books("a_repeated_event");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    meter(&mut session, "'who', 'e', 'unique', 'who'");
    meter(&mut session, "'plain', 'p', 'sum', 'n'");
    let first = r#"'e', '{"n": 2, "who": "ann", "more": {"a": [1, {"b": null}], "c": 10}}', 'x'"#;
    assert_eq!(record(&mut session, first), "charged|3|3|0|999997|f");
    assert_eq!(record(&mut session, r#"'p', '{"n": 2}', 'p'"#), "charged|2|2|0|999995|f");
    assert_eq!(record(&mut session, r#"'p', '{"n": 3}', 'p2'"#), "charged|3|3|0|999992|f");
    let before = everything(&mut session);
    for same in [
        first,
        r#"'e', '{"more": {"c": 1e1, "a": [1.0, {"b": null}]}, "who": "ann", "n": 2.00}', 'x'"#,
        r#"'e', '{"n": 20e-1, "who": "ann", "more": {"a": [1, {"b": null}], "c": 10}}', 'x', '2025-12-01', 'partial', '{"try": 2}'"#,
    ] {
        assert_eq!(record(&mut session, same), "charged|3|3|0|999992|t", "{same}");
    }
    assert_eq!(record(&mut session, r#"'p', '{"n": 2.0}', 'p'"#), "charged|2|2|0|999992|t");
    assert_refused(
        &mut session,
        &[
            r#"record_usage('acme', 'e', '{"n": 2, "who": "ann", "more": {"a": [{"b": null}, 1], "c": 10}}', 'x')"#,
            r#"record_usage('acme', 'e', '{"n": "2", "who": "ann", "more": {"a": [1, {"b": null}], "c": 10}}', 'x')"#,
            r#"record_usage('acme', 'e', '{"n": 2, "who": "ann", "more": {"a": [1, {}], "c": 10}}', 'x')"#,
            r#"record_usage('acme', 'e', '{"n": 2, "who": "ann"}', 'x')"#,
            r#"record_usage('acme', 'p', '{"n": 2, "who": "ann", "more": {"a": [1, {"b": null}], "c": 10}}', 'x')"#,
            r#"record_usage('acme', 'p', '{"n": 2.000000000001}', 'p')"#,
            r#"deduct_usage('acme', 3, 'x', event_name => 'e')"#,
            r#"deduct_usage('acme', 2, 'p', event_name => 'p')"#,
            r#"refund_usage('acme', 'x', idempotency_key => 'p')"#,
        ]
        .map(|call| (call, "23505", "idempotency_key_reused")),
    );
    assert_eq!(everything(&mut session), before);
    assert_eq!(session.one("select count(*) from credits.deduct_usage('acme', 1, 'd')"), "1");
    assert_refused(&mut session, &[(r#"record_usage('acme', 'p', '{"n": 1}', 'd')"#, "23505", "idempotency_key_reused")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_repeated_event_answers_before_any_refusal() {
    let mut session = new_books("answers_before_any_refusal");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    grant(&mut session, "bought", "10", "");
    let event = r#"'e', '{"n": 10}', 'x'"#;
    assert_eq!(record(&mut session, event), "charged|10|10|0|0|f");
    assert_eq!(record(&mut session, event), "charged|10|10|0|0|t", "the wallet is empty");
    let by_plan = r#"{"model": "matrix", "rates": [{"match": {"plan": "x"}, "pricing": {"model": "per_unit", "credits": 9}}]}"#;
    session.exec(&format!("select credits.set_meter_pricing('m', '{by_plan}')"));
    assert_refused(&mut session, &[(r#"record_usage('acme', 'e', '{"n": 10}', 'y')"#, "22023", "invalid_argument")]);
    assert_eq!(record(&mut session, event), "charged|10|10|0|0|t", "no rate matches any more");
    assert_eq!(record(&mut session, &format!("{event}, '2030-01-01 00:00+00'")), "charged|10|10|0|0|t", "and in the future");
    session.exec(r#"select credits.create_meter('more', 'e', 'sum', 'tokens')"#);
    assert_eq!(record(&mut session, event), "charged|10|10|0|0|t", "a new meter needs another property");
    for status in ["frozen", "closed"] {
        session.exec(&format!("select credits.set_wallet_status('acme', 'default', '{status}')"));
        assert_eq!(record(&mut session, event), "charged|10|10|0|0|t", "{status}");
    }
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 10 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refunded_event_answers_as_it_was_charged() {
    let mut session = rich_books("a_refunded_event_answers");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    record(&mut session, r#"'e', '{"n": 10}', 'x'"#);
    session.exec("select * from credits.refund_usage('acme', 'x')");
    assert_eq!(record(&mut session, r#"'e', '{"n": 10}', 'x'"#), "charged|10|10|0|1000000|t");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 0 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn events_without_a_key_are_all_counted_under_ids_of_version_7() {
    let mut session = rich_books("events_without_a_key");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    let id = r#"select substr(transaction_id::uuid::text, 15, 1) from credits.record_usage('acme', 'e', '{"n": 2}')"#;
    assert_eq!([session.one(id), session.one(id), session.one(id)], ["7", "7", "7"]);
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 6 3"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_stands_in_the_ledger_with_its_name_time_and_metadata() {
    let mut session = rich_books("an_event_stands_in_the_ledger");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    session.set_clock("2026-01-20 00:00+00");
    charges(
        &mut session,
        &[
            r#"'e', '{"n": 2}', 'a', metadata => '{"trace": 1}'"#,
            r#"'e', '{"n": 2}', 'b', '2026-01-10 12:00+00'"#,
            r#"'e', '{"n": 0}', 'c', metadata => '{"free": true}'"#,
        ],
    );
    assert_eq!(
        session.lines(
            "select transaction_id, kind, amount, event_name, to_char(occurred_at, 'MM-DD'), to_char(usage_at, 'MM-DD HH24:MI'), metadata
             from credits.ledger where kind = 'usage' order by seq"
        ),
        [
            "a|usage|-2|e|01-20||{\"trace\": 1}",
            "b|usage|-2|e|01-20|01-10 12:00|",
            "c|usage|0|e|01-20||{\"free\": true}"
        ]
    );
    assert_eq!(
        session.lines("select day, event_name, events, deducted, overage, refunded from credits.usage_daily order by day"),
        ["2026-01-10|e|1|2|0|0", "2026-01-20|e|2|2|0|0"]
    );
    assert_eq!(deduct(&mut session, "1, event_name => 'e'"), "charged|1|1|0|999995|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 4 3"], "a deduction is no event");
    assert_ledger_is_sound(&mut session);
}

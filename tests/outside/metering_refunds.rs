//! What metered events give back: falling prices and refunds, and what was counted afterwards (SPEC 4 and 8).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, deduct, entries, everything, grant, new_books};
use crate::metering_prices::{GRADUATED, VOLUME, charges, counted, meter, record, rich_books};

/// Events `e` cost their property `n`, as it was last: what falls is given back.
pub fn level_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    meter(&mut session, "'level', 'e', 'latest', 'n'");
    session
}

/// Status, requested, deducted, overage, balance and replayed of an event `e` with this `n`; its key is `n` too.
pub fn level(session: &mut Session, n: &str) -> String {
    record(session, &format!("'e', '{{\"n\": {n}}}', '{n}'"))
}

/// Refunded, balance and replayed of one refund of `acme`.
fn refund(session: &mut Session, arguments: &str) -> String {
    session.lines(&format!("select refunded, balance, replayed from credits.refund_usage('acme', {arguments})")).concat()
}

const TOTALS: &str = "select balance, held, debt, overage from credits.balance('acme', 'default')";

#[test]
fn a_fall_is_given_back_in_its_own_transaction_the_last_taken_first() {
    let mut session = level_books("a_fall_is_given_back");
    grant(&mut session, "second", "100", "");
    grant(&mut session, "first", "10", "expires_at => '2026-02-01 00:00+00'");
    assert_eq!(level(&mut session, "25"), "charged|25|25|0|85|f");
    assert_eq!(entries(&mut session, "25"), ["default usage 10 first", "default usage 15 second"]);
    assert_eq!(level(&mut session, "5"), "charged|-20|-20|0|105|f");
    assert_eq!(entries(&mut session, "5"), ["default usage_refunded 15 second", "default usage_refunded 5 first"]);
    assert_eq!(
        session.lines("select refers_to, event_name, amount from credits.ledger where transaction_id = '5' order by line"),
        ["25|e|15", "25|e|5"]
    );
    assert_eq!(level(&mut session, "5"), "charged|-20|-20|0|105|t");
    assert_eq!(level(&mut session, "0"), "charged|-5|-5|0|110|f");
    assert_eq!(counted(&mut session), ["level 2026-01-01 00:00 0 3"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_deep_fall_is_given_back_to_several_events_the_last_one_first() {
    let mut session = level_books("a_deep_fall");
    for (name, amount, day) in [("a", "4", "02-01"), ("b", "6", "03-01"), ("c", "10", "04-01")] {
        grant(&mut session, name, amount, &format!("expires_at => '2026-{day} 00:00+00'"));
    }
    for (n, row) in [("4", "charged|4|4|0|16|f"), ("10", "charged|6|6|0|10|f"), ("20", "charged|10|10|0|0|f")] {
        assert_eq!(level(&mut session, n), row);
    }
    assert_eq!(level(&mut session, "17"), "charged|-3|-3|0|3|f");
    assert_eq!(level(&mut session, "2"), "charged|-15|-15|0|18|f");
    assert_eq!(
        entries(&mut session, "2"),
        ["default usage_refunded 7 c", "default usage_refunded 6 b", "default usage_refunded 2 a"]
    );
    // A new rise is a new charge, which the next fall meets first; then what is left of the oldest one.
    assert_eq!(level(&mut session, "9"), "charged|7|7|0|11|f");
    assert_eq!(entries(&mut session, "9"), ["default usage 2 a", "default usage 5 b"]);
    assert_eq!(level(&mut session, "1"), "charged|-8|-8|0|19|f");
    assert_eq!(
        entries(&mut session, "1"),
        ["default usage_refunded 5 b", "default usage_refunded 2 a", "default usage_refunded 1 a"]
    );
    assert_eq!(session.lines("select refers_to from credits.ledger where transaction_id = '1' order by line"), ["9", "9", "4"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_volume_tier_that_is_reached_gives_back() {
    let mut session = rich_books("a_volume_tier_that_is_reached");
    let pricing =
        r#"{"model": "volume", "tiers": [{"up_to": 100, "credits": 2}, {"up_to": 1000, "credits": 1}, {"credits": "0.1"}]}"#;
    meter(&mut session, &format!("'m', 'v', 'sum', 'n', pricing => '{pricing}'"));
    let events = ["60", "40", "1", "898", "1", "1"].map(|n| format!("'v', '{{\"n\": {n}}}'"));
    assert_eq!(charges(&mut session, &events.each_ref().map(String::as_str)), ["120", "80", "-99", "898", "1", "-899.9"]);
    assert_eq!(session.lines(TOTALS), ["999899.9|0|0|0"], "1001 at 0.1 each");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_falls_back_to_a_grant_that_has_ended_ends_with_it() {
    let mut session = level_books("falls_back_to_a_grant_that_has_ended");
    grant(&mut session, "expired", "10", "expires_at => '2026-01-10 00:00+00'");
    let voided = grant(&mut session, "voided", "10", "expires_at => '2026-01-20 00:00+00'");
    grant(&mut session, "lives", "10", "");
    assert_eq!(level(&mut session, "23"), "charged|23|23|0|7|f");
    session.exec(&format!("select credits.void_grant('acme', '{voided}')"));
    session.set_clock("2026-01-15 00:00+00");
    assert_eq!(level(&mut session, "1"), "charged|-22|-22|0|10|f");
    assert_eq!(
        entries(&mut session, "1"),
        [
            "default usage_refunded 3 lives",
            "default usage_refunded 10 voided",
            "default void 10 voided",
            "default usage_refunded 9 expired",
            "default expiration 9 expired"
        ]
    );
    assert_eq!(level(&mut session, "1"), "charged|-22|-22|0|10|t");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_fall_gives_back_overage_first() {
    let mut session = level_books("a_fall_gives_back_overage_first");
    session.exec(
        "select credits.update_wallet('acme', 'default', overage_policy => 'invoice', overage_unit_price => 0.02,
             overage_currency => 'USD')",
    );
    grant(&mut session, "bought", "10", "");
    assert_eq!(level(&mut session, "25"), "overage|25|10|15|0|f");
    assert_eq!(level(&mut session, "13"), "charged|-12|0|-12|0|f");
    assert_eq!(entries(&mut session, "13"), ["default overage_refunded 12"]);
    assert_eq!(level(&mut session, "5"), "charged|-8|-5|-3|5|f");
    assert_eq!(entries(&mut session, "5"), ["default overage_refunded 3", "default usage_refunded 5 bought"]);
    assert_eq!(session.lines(TOTALS), ["5|0|0|0"]);
    assert_eq!(level(&mut session, "13"), "charged|-12|0|-12|5|t");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_fall_cancels_open_debt_and_goes_back_to_who_repaid_it() {
    let mut session = level_books("a_fall_cancels_open_debt");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    grant(&mut session, "first", "10", "");
    assert_eq!(level(&mut session, "30"), "overage|30|10|20|0|f");
    assert_eq!(level(&mut session, "25"), "charged|-5|0|-5|0|f");
    assert_eq!(entries(&mut session, "25"), ["default overdraft_refunded 5"]);
    grant(&mut session, "repays", "12", "");
    assert_eq!(session.lines(TOTALS), ["0|0|3|0"]);
    assert_eq!(level(&mut session, "2"), "charged|-23|-20|-3|20|f");
    assert_eq!(
        entries(&mut session, "2"),
        ["default overdraft_refunded 3", "default usage_refunded 12 repays", "default usage_refunded 8 first"]
    );
    assert_eq!(session.lines(TOTALS), ["20|0|0|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_falls_repays_the_debt_of_other_usage_at_once() {
    let mut session = level_books("what_falls_repays_debt");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    grant(&mut session, "bought", "10", "");
    level(&mut session, "10");
    assert_eq!(deduct(&mut session, "4, 'other'"), "overage|4|0|4|0|f");
    assert_eq!(level(&mut session, "3"), "charged|-7|-7|0|3|f");
    assert_eq!(entries(&mut session, "3"), ["default usage_refunded 7 bought", "default overdraft_repaid 4 bought"]);
    assert_eq!(session.lines(TOTALS), ["3|0|0|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_fall_goes_back_to_every_wallet_that_paid() {
    let mut session = level_books("a_fall_goes_back_to_every_wallet");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    grant(&mut session, "bought", "10", "");
    assert_eq!(level(&mut session, "12"), "charged|12|12|0|3|f");
    assert_eq!(level(&mut session, "2"), "charged|-10|-10|0|13|f");
    assert_eq!(entries(&mut session, "2"), ["default usage_refunded 7 bought", "promo usage_refunded 3 free"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_fall_takes_nothing_from_other_meters_periods_and_rates() {
    let mut session = new_books("a_fall_takes_nothing_from_others");
    let by_plan = r#"{"model": "matrix", "rates": [{"match": {"plan": 1}, "pricing": {"model": "per_unit", "credits": 1}}],
                      "default": {"model": "per_unit", "credits": 1}}"#;
    meter(&mut session, &format!("'m', 'e', 'latest', 'n', pricing => '{by_plan}'"));
    meter(&mut session, "'other', 'other', 'latest', 'n'");
    grant(&mut session, "bought", "1000", "");
    session.set_clock("2026-02-10 00:00+00");
    let at = "occurred_at => '2026-01-20 00:00+00'";
    assert_eq!(
        charges(
            &mut session,
            &[
                &format!(r#"'e', '{{"n": 8}}', 'january', {at}"#),
                r#"'e', '{"n": 16}', 'february'"#,
                r#"'e', '{"n": 32, "plan": 1}', 'plan'"#,
                r#"'other', '{"n": 64}', 'other'"#,
                &format!(r#"'e', '{{"n": 1}}', 'fall of january', {at}"#),
                r#"'e', '{"n": 2, "plan": 1}', 'fall of plan'"#,
                r#"'e', '{"n": 3}', 'fall of february'"#,
            ]
        ),
        ["8", "16", "32", "64", "-7", "-30", "-13"]
    );
    assert_eq!(
        session.lines("select transaction_id, refers_to, credits from credits.ledger where refers_to is not null order by seq"),
        ["fall of january|january|7", "fall of plan|plan|30", "fall of february|february|13"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn no_more_is_given_back_than_is_left_of_what_was_paid() {
    let mut session = level_books("no_more_is_given_back_than_is_left");
    grant(&mut session, "bought", "100", "");
    level(&mut session, "5");
    level(&mut session, "25");
    assert_eq!(refund(&mut session, "'25', 12, idempotency_key => 'sorry'"), "12|87|f");
    // Of the 25 credits 12 are back already.
    assert_eq!(level(&mut session, "0"), "charged|-13|-13|0|100|f");
    assert_eq!(entries(&mut session, "0"), ["default usage_refunded 8 bought", "default usage_refunded 5 bought"]);
    for usage in ["5", "25"] {
        assert_refused(&mut session, &[(&format!("refund_usage('acme', '{usage}', 1)"), "22003", "out_of_range")]);
        assert_eq!(refund(&mut session, &format!("'{usage}'")), "0|100|f");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_given_back_can_not_be_refunded_again() {
    let mut session = level_books("given_back_can_not_be_refunded_again");
    grant(&mut session, "bought", "100", "");
    level(&mut session, "25");
    level(&mut session, "7");
    assert_refused(
        &mut session,
        &[
            ("refund_usage('acme', '25', 25)", "22003", "out_of_range"),
            ("refund_usage('acme', '25', 7.000000000001)", "22003", "out_of_range"),
            ("refund_usage('acme', '7', 1)", "22003", "out_of_range"),
        ],
    );
    assert_eq!(refund(&mut session, "'25', 3"), "3|96|f");
    assert_eq!(refund(&mut session, "'25'"), "4|100|f");
    assert_ledger_is_sound(&mut session);
}

/// Records events `e`, in order: the key and the properties; returns what they deduct.
fn keyed(session: &mut Session, events: &[(&str, &str)]) -> Vec<String> {
    let call = |(key, properties): &(&str, &str)| charges(session, &[&format!("'e', '{properties}', '{key}'")]).concat();
    events.iter().map(call).collect()
}

#[test]
fn a_refunded_event_is_taken_out_of_a_sum() {
    let mut session = rich_books("taken_out_of_a_sum");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{GRADUATED}'"));
    assert_eq!(keyed(&mut session, &[("a", r#"{"n": 4}"#), ("b", r#"{"n": 3}"#)]), ["28", "20"]);
    assert_eq!(refund(&mut session, "'b'"), "20|999972|f");
    assert_eq!(keyed(&mut session, &[("c", r#"{"n": 3}"#)]), ["20"], "as before");
    assert_eq!(refund(&mut session, "'a'"), "28|999980|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 3 1"]);
    assert_eq!(keyed(&mut session, &[("d", r#"{"n": 2}"#)]), ["14"], "from 3 to 5");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refunded_event_is_taken_out_of_a_count() {
    let mut session = rich_books("taken_out_of_a_count");
    meter(&mut session, r#"'m', 'e', 'count', pricing => '{"model": "package", "size": 2, "credits": 3}'"#);
    assert_eq!(keyed(&mut session, &[("a", "{}"), ("b", "{}"), ("c", "{}")]), ["3", "0", "3"]);
    assert_eq!(refund(&mut session, "'c'"), "3|999997|f");
    assert_eq!(keyed(&mut session, &[("d", "{}")]), ["3"]);
    assert_eq!(refund(&mut session, "'b'"), "0|999994|f");
    assert_eq!(keyed(&mut session, &[("e", "{}"), ("f", "{}")]), ["3", "0"], "from 2 to 4");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 4 4"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refunded_event_is_taken_out_of_a_maximum() {
    let mut session = rich_books("taken_out_of_a_maximum");
    meter(&mut session, "'m', 'e', 'max', 'n'");
    let events = [("a", r#"{"n": 10}"#), ("b", r#"{"n": 4}"#), ("c", r#"{"n": 15}"#), ("d", r#"{"n": 15}"#)];
    assert_eq!(keyed(&mut session, &events), ["10", "0", "5", "0"]);
    assert_eq!(refund(&mut session, "'d'"), "0|999985|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 15 3"], "another event is as high");
    assert_eq!(refund(&mut session, "'c'"), "5|999990|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 10 2"]);
    assert_eq!(keyed(&mut session, &[("e", r#"{"n": "12.5"}"#)]), ["2.5"]);
    assert_eq!(refund(&mut session, "'a'"), "10|999997.5|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 12.5 2"]);
    assert_eq!(refund(&mut session, "'e'"), "2.5|1000000|f");
    assert_eq!(keyed(&mut session, &[("f", r#"{"n": 5}"#)]), ["1"], "from 4, which is still counted");
    for key in ["b", "f"] {
        refund(&mut session, &format!("'{key}'"));
    }
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 0 0"]);
    assert_eq!(keyed(&mut session, &[("g", r#"{"n": 3}"#)]), ["3"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refunded_event_is_taken_out_of_different_values() {
    let mut session = rich_books("taken_out_of_different_values");
    meter(&mut session, "'m', 'e', 'unique', 'who'");
    let (ann, bob) = (r#"{"who": "ann"}"#, r#"{"who": "bob"}"#);
    assert_eq!(keyed(&mut session, &[("a", ann), ("b", ann), ("c", bob)]), ["1", "0", "1"]);
    assert_eq!(refund(&mut session, "'a'"), "1|999999|f");
    assert_eq!(keyed(&mut session, &[("d", ann)]), ["0"], "she is still counted");
    for key in ["b", "d"] {
        assert_eq!(refund(&mut session, &format!("'{key}'")), "0|999999|f");
    }
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 1 1"]);
    assert_eq!(keyed(&mut session, &[("e", ann), ("f", bob)]), ["1", "0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refunded_event_is_taken_out_of_the_latest_values() {
    let mut session = rich_books("taken_out_of_the_latest_values");
    meter(&mut session, "'m', 'e', 'latest', 'n'");
    session.set_clock("2026-01-20 00:00+00");
    let mut on = |key: &str, n: &str, day: &str| {
        charges(&mut session, &[&format!("'e', '{{\"n\": {n}}}', '{key}', '2026-01-{day} 00:00+00'")]).concat()
    };
    assert_eq!([on("a", "4", "03"), on("b", "10", "05"), on("late", "7", "02"), on("c", "12", "05")], ["4", "6", "0", "2"]);
    assert_eq!(refund(&mut session, "'c'"), "2|999990|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 10 3"], "of two at one instant the first remains");
    assert_eq!(refund(&mut session, "'a'"), "4|999994|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 10 2"]);
    let mut on = |key: &str, n: &str, day: &str| {
        charges(&mut session, &[&format!("'e', '{{\"n\": {n}}}', '{key}', '2026-01-{day} 00:00+00'")]).concat()
    };
    assert_eq!([on("d", "99", "04"), on("e", "11", "06")], ["0", "1"]);
    for (key, refunded) in [("e", "1"), ("b", "6"), ("d", "0")] {
        assert_eq!(session.one(&format!("select refunded from credits.refund_usage('acme', '{key}')")), refunded);
    }
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 7 1"]);
    assert_eq!(keyed(&mut session, &[("f", r#"{"n": 8}"#)]), ["1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_partial_refund_leaves_the_event_until_the_rest_follows() {
    let mut session = rich_books("a_partial_refund_leaves_the_event");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{GRADUATED}'"));
    keyed(&mut session, &[("a", r#"{"n": 4}"#), ("b", r#"{"n": 3}"#)]);
    assert_eq!(refund(&mut session, "'b', 19.999999999999, idempotency_key => 'r1'"), "19.999999999999|999971.999999999999|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 7 2"]);
    assert_eq!(refund(&mut session, "'b', 0.000000000001, idempotency_key => 'r2'"), "0.000000000001|999972|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 4 1"]);
    // Neither a replay nor another refund takes it out again.
    assert_eq!(refund(&mut session, "'b', 0.000000000001, idempotency_key => 'r2'"), "0.000000000001|999972|t");
    assert_eq!(refund(&mut session, "'b'"), "0|999972|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 4 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_free_event_is_refunded_with_nothing_and_taken_out() {
    let mut session = new_books("a_free_event_is_refunded");
    meter(
        &mut session,
        r#"'m', 'e', 'sum', 'n', pricing => '{"model": "graduated", "tiers": [{"up_to": 5, "credits": 0}, {"credits": 1}]}'"#,
    );
    assert_eq!(record(&mut session, r#"'e', '{"n": 4}', 'free'"#), "charged|0|0|0|0|f");
    assert_eq!(refund(&mut session, "'free', idempotency_key => 'r'"), "0|0|f");
    assert_eq!(entries(&mut session, "r"), ["default usage_refunded 0"]);
    assert_eq!(record(&mut session, r#"'e', '{"n": 5}', 'free too'"#), "charged|0|0|0|0|f");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 5 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_of_an_event_of_several_meters_takes_it_out_of_all() {
    let mut session = rich_books("an_event_of_several_meters");
    for (aggregation, value) in [("sum", "'n'"), ("count", "null"), ("max", "'n'"), ("unique", "'n'"), ("latest", "'n'")] {
        meter(&mut session, &format!("'{aggregation}', 'e', '{aggregation}', {value}, pricing => '{VOLUME}'"));
    }
    assert_eq!(keyed(&mut session, &[("a", r#"{"n": 2}"#)]), ["56"], "14 + 7 + 14 + 7 + 14");
    let before = counted(&mut session);
    assert_eq!(keyed(&mut session, &[("b", r#"{"n": 3}"#)]), ["49"], "21 + 7 + 7 + 7 + 7");
    assert_eq!(refund(&mut session, "'b'"), "49|999944|f");
    assert_eq!(counted(&mut session), before);
    assert_eq!(keyed(&mut session, &[("c", r#"{"n": 3}"#)]), ["49"]);
    assert_eq!(everything(&mut session).iter().filter(|row| row.starts_with("period")).count(), 5);
    assert_ledger_is_sound(&mut session);
}

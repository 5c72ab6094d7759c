//! Top-ups that fail, that are requested by hand, that are called wrongly, and of wallets that are frozen or closed (SPEC 3 and 9).

use pgrx_tests::{assert_ledger_is_sound, shared_cluster};

use crate::books::{assert_refused, deduct, grant, new_books, told};
use crate::top_ups::{NOTHING, auto, balance, claim, claim_one, complete, fail, hundred, top_ups};

#[test]
fn a_failure_is_retried_after_longer_and_longer_and_the_fifth_disables_the_rule() {
    let mut session = hundred("a_failure_is_retried", "20, 500");
    deduct(&mut session, "90");
    told(&mut session);
    let id = claim_one(&mut session);
    assert_eq!(fail(&mut session, &id, ""), "open");
    // One minute, then five times as long each time; or what the worker says.
    for (just_before, then, more) in [
        ("2026-01-01 00:00:59.999999+00", "2026-01-01 00:01+00", ""),
        ("2026-01-01 00:05:59.999999+00", "2026-01-01 00:06+00", ", '10 days'"),
        ("2026-01-11 00:05:59.999999+00", "2026-01-11 00:06+00", ""),
        ("2026-01-11 02:10:59.999999+00", "2026-01-11 02:11+00", ""),
    ] {
        session.set_clock(just_before);
        assert_eq!(claim(&mut session), NOTHING, "{just_before}");
        session.set_clock(then);
        let attempt = session.lines("select top_up_id, attempt from credits.claim_top_ups()");
        let failures: i32 = session.one("select failures from credits.auto_top_ups").parse().expect("a number");
        assert_eq!(attempt, [format!("{id}|{}", failures + 1)]);
        assert_eq!(told(&mut session), NOTHING);
        let status = fail(&mut session, &id, more);
        assert_eq!(status, if failures == 4 { "failed" } else { "open" });
    }
    assert_eq!(told(&mut session), ["top_up.failed 500 declined"]);
    assert_eq!(top_ups(&mut session), ["failed 500 5 declined"]);
    assert_eq!(session.lines("select enabled, failures from credits.auto_top_ups"), ["f|5"]);
    assert_eq!(fail(&mut session, &id, ""), "failed");
    assert_eq!(told(&mut session), NOTHING, "once");
    deduct(&mut session, "5");
    deduct(&mut session, "500, on_insufficient => 'report'");
    assert_eq!(claim(&mut session), NOTHING);
    auto(&mut session, "20, 500");
    assert_eq!(session.lines("select enabled, failures from credits.auto_top_ups"), ["t|0"]);
    assert_eq!(top_ups(&mut session)[1..], ["pending 500"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn failures_count_in_a_row_over_several_requests() {
    let mut session = hundred("failures_count_in_a_row", "20, 10");
    deduct(&mut session, "100");
    let first = claim_one(&mut session);
    for _ in 0..4 {
        assert_eq!(fail(&mut session, &first, ", '0'"), "open");
    }
    complete(&mut session, &first, "pi_1");
    assert_eq!(session.one("select failures from credits.auto_top_ups"), "0");
    let second = claim_one(&mut session);
    for _ in 0..3 {
        assert_eq!(fail(&mut session, &second, ", '0'"), "open");
    }
    // Cancelled, since it is not needed: the failures stay.
    grant(&mut session, "by hand", "20", "");
    assert_eq!(claim(&mut session), NOTHING);
    deduct(&mut session, "10");
    let third = claim_one(&mut session);
    assert_ne!(second, third);
    assert_eq!(fail(&mut session, &third, ""), "open");
    assert_eq!(fail(&mut session, &third, ""), "failed");
    assert_eq!(
        top_ups(&mut session),
        ["succeeded 10 4", "cancelled 10 3 the balance is above the threshold again", "failed 10 2 declined"]
    );
    assert_eq!(session.lines("select enabled, failures from credits.auto_top_ups"), ["f|5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_top_up_can_be_requested_by_hand() {
    let mut session = new_books("a_top_up_by_hand");
    let request = |arguments: &str| format!("select credits.request_top_up('acme'{arguments})");
    let id = session.one(&request(", amount => 7"));
    assert_eq!(session.one(&request(", 'default', 9")), id, "the open one");
    assert_eq!(session.one(&request("")), id);
    assert_eq!(top_ups(&mut session), ["pending 7"]);
    assert_eq!(told(&mut session), ["top_up.requested 7"]);
    assert_eq!(claim(&mut session), [id.as_str()], "whatever the balance is");
    assert_eq!(session.one(&request("")), id, "claimed, it is open");
    complete(&mut session, &id, "pi_1");
    assert_eq!(balance(&mut session), "7");
    assert_refused(&mut session, &[("request_top_up('acme')", "P0002", "not_found")]);
    auto(&mut session, "5, target_balance => 50, max_per_period => 1, cooldown => '1 year', unit_price => 2, currency => 'USD'");
    session.one(&request(""));
    assert_eq!(session.lines("select amount, unit_price, currency from credits.claim_top_ups()"), ["43|2|USD"]);
    let second = session.one("select top_up_id from credits.top_ups where status = 'claimed'");
    complete(&mut session, &second, "pi_2");
    assert_refused(&mut session, &[("request_top_up('acme')", "55000", "wrong_state")]);
    let third = session.one(&request(", amount => 1"));
    // Nothing is known of a payment: five failures end it, and the rule.
    for _ in 0..5 {
        fail(&mut session, &third, "");
    }
    assert_eq!(top_ups(&mut session), ["succeeded 7", "succeeded 43", "failed 1 5 declined"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_frozen_wallet_gets_no_new_top_up() {
    let mut session = hundred("a_frozen_wallet_gets_none", "20, 500");
    deduct(&mut session, "70");
    grant(&mut session, "short", "1", "expires_at => '2026-01-02 00:00+00'");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    session.exec("select credits.void_grant('acme', grant_id, amount => 25) from credits.grants where amount = 100");
    session.set_clock("2026-01-03 00:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!((balance(&mut session).as_str(), top_ups(&mut session)), ("5", vec![]));
    let by_hand = "request_top_up('acme', 'default', 7)";
    assert_refused(&mut session, &[(by_hand, "55000", "wrong_state")]);
    session.exec("select credits.set_wallet_status('acme', 'default', 'active')");
    assert_eq!(top_ups(&mut session), ["pending 500"], "what was held back");
    // What was requested before can be paid, and is granted.
    let id = claim_one(&mut session);
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    assert_eq!(session.one(&format!("select credits.{by_hand}")), id, "the open one is no new one");
    complete(&mut session, &id, "pi_1");
    assert_eq!(balance(&mut session), "505");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn nobody_is_given_the_top_up_of_a_frozen_wallet_to_pay() {
    let mut session = hundred("nobody_pays_for_a_frozen_wallet", "200, 500");
    session.exec(
        "select credits.create_wallet('zoe'), credits.request_top_up('zoe', amount => 7);
         select credits.set_wallet_status('acme', 'default', 'frozen')",
    );
    let claim = "select customer_id from credits.claim_top_ups(1, '1 hour')";
    assert_eq!(session.lines(claim), ["zoe"], "what is frozen does not stand in the way of others");
    assert_eq!(session.lines(claim), [""; 0]);
    session.exec("select credits.set_wallet_status('acme', 'default', 'active')");
    session.set_clock("2026-01-01 02:00+00");
    assert_eq!(session.lines("select customer_id from credits.claim_top_ups() order by 1"), ["acme", "zoe"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_by_hand_has_attempts_of_its_own_where_the_rule_is_disabled() {
    let mut session = hundred("by_hand_where_disabled", "200, 500");
    for _ in 0..5 {
        let id = claim_one(&mut session);
        session.exec(&format!("select credits.fail_top_up('acme', '{id}', 'declined', '0')"));
    }
    assert_eq!(session.one("select enabled from credits.auto_top_ups"), "f");
    session.exec("select credits.request_top_up('acme', amount => 7)");
    let id = claim_one(&mut session);
    assert_eq!(session.one(&format!("select credits.fail_top_up('acme', '{id}', 'declined')")), "open");
    assert_eq!(session.one("select failures from credits.auto_top_ups"), "5");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallet_is_not_closed_over_a_claimed_top_up() {
    for (name, setup) in [
        ("auto", "select credits.set_auto_top_up('acme', 'default', 200, 10)"),
        ("by_hand", "select credits.request_top_up('acme', amount => 10)"),
    ] {
        let mut session = new_books(&format!("not_closed_over_a_claimed_top_up_{name}"));
        session.exec(setup);
        let id = claim_one(&mut session);
        let close = "set_wallet_status('acme', 'default', 'closed')";
        assert_refused(&mut session, &[(close, "55000", "wrong_state")]);
        session.set_clock("2026-02-01 00:00+00");
        assert_refused(&mut session, &[(close, "55000", "wrong_state")]);
        fail(&mut session, &id, "");
        session.exec(&format!("select credits.{close}"));
        assert_eq!(top_ups(&mut session), ["cancelled 10 1 the wallet was closed"], "{name}");
        session.set_clock("2026-03-01 00:00+00");
        assert_eq!(claim(&mut session), NOTHING);
        let complete = format!("complete_top_up('acme', '{id}', 'pi')");
        assert_refused(&mut session, &[(complete.as_str(), "55000", "wrong_state")]);
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn closing_a_wallet_cancels_what_is_queued() {
    for (name, setup) in [
        ("auto", "select credits.set_auto_top_up('acme', 'default', 200, 10)"),
        ("by_hand", "select credits.request_top_up('acme', amount => 10)"),
    ] {
        let mut session = new_books(&format!("closing_cancels_{name}"));
        session.exec(setup);
        session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
        assert_eq!(top_ups(&mut session), ["cancelled 10 the wallet was closed"], "{name}");
        assert_eq!(session.lines("select enabled from credits.auto_top_ups where enabled"), NOTHING);
        assert_eq!(claim(&mut session), NOTHING);
        let refused = [
            ("set_auto_top_up('acme', 'default', 1, 1)", "55000", "wrong_state"),
            ("request_top_up('acme', 'default', 1)", "55000", "wrong_state"),
        ];
        assert_refused(&mut session, &refused);
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn wrong_calls_are_refused() {
    let mut session = new_books("wrong_top_up_calls_are_refused");
    session.exec("select credits.create_wallet('other')");
    let id = session.one("select credits.request_top_up('acme', amount => 1)");
    let of_another = format!("complete_top_up('other', '{id}', 'pi')");
    let fails = format!("fail_top_up('other', '{id}', 'declined')");
    let no_reference = format!("complete_top_up('acme', '{id}', null)");
    let no_reason = format!("fail_top_up('acme', '{id}', null)");
    let negative = format!("fail_top_up('acme', '{id}', 'declined', '-1 hour')");
    let invalid = ("22023", "invalid_argument");
    let cases = [
        ("set_auto_top_up('acme', 'default', 10)", invalid),
        ("set_auto_top_up('acme', 'default', 10, 5, 50)", invalid),
        ("set_auto_top_up('acme', 'default', 10, target_balance => 10)", invalid),
        ("set_auto_top_up('acme', 'default', -1, 5)", invalid),
        ("set_auto_top_up('acme', 'default', 1, 0)", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, cooldown => '-1 hour')", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, period => '0')", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, max_per_period => 0)", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, unit_price => 1)", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, currency => 'USD')", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, expires_after => '0')", invalid),
        ("set_auto_top_up('acme', 'default', 1, 5, enabled => null)", ("22004", "null_argument")),
        ("set_auto_top_up('acme', 'default', null, 5)", ("22004", "null_argument")),
        ("set_auto_top_up('acme', 'missing', 1, 5)", ("P0002", "not_found")),
        ("set_auto_top_up('nobody', 'default', 1, 5)", ("P0002", "not_found")),
        ("request_top_up('acme', 'missing', 5)", ("P0002", "not_found")),
        ("request_top_up('acme', 'default', 0)", invalid),
        ("claim_top_ups(0)", invalid),
        ("claim_top_ups(1, '0')", invalid),
        ("claim_top_ups(1, null)", ("22004", "null_argument")),
        ("complete_top_up('acme', '00000000-0000-0000-0000-000000000000', 'pi')", ("P0002", "not_found")),
        (of_another.as_str(), ("P0002", "not_found")),
        (fails.as_str(), ("P0002", "not_found")),
        (no_reference.as_str(), ("22004", "null_argument")),
        (no_reason.as_str(), ("22004", "null_argument")),
        (negative.as_str(), invalid),
    ];
    let refusals: Vec<_> = cases.iter().map(|(call, (sqlstate, symbol))| (*call, *sqlstate, *symbol)).collect();
    assert_refused(&mut session, &refusals);
    complete(&mut session, &id, "pi");
    let succeeded = format!("fail_top_up('acme', '{id}', 'declined')");
    assert_refused(&mut session, &[(succeeded.as_str(), "55000", "wrong_state")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_locked_customer_does_not_hide_what_else_can_be_claimed() {
    let mut session = new_books("a_locked_customer_hides_nothing");
    session.exec("select credits.create_wallet('zoe'), credits.request_top_up('acme', amount => 5)");
    session.set_clock("2026-01-01 00:00:01+00");
    session.exec("select credits.request_top_up('zoe', amount => 7)");
    let mut other = shared_cluster().session("a_locked_customer_hides_nothing");
    other.exec("begin; select credits.grant_credits('acme', 1)");
    session.exec("set lock_timeout = '5s'");
    assert_eq!(session.lines("select customer_id from credits.claim_top_ups(1)"), ["zoe"]);
    other.exec("rollback");
    assert_eq!(session.lines("select customer_id from credits.claim_top_ups(1)"), ["acme"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_new_payment_method_is_used_at_once_and_by_hand_is_not_cancelled() {
    let mut session = new_books("a_new_payment_method_is_used");
    session.exec("select credits.set_auto_top_up('acme', 'default', 10, 5, payment_method_id => 'old')");
    let id = claim_one(&mut session);
    session.exec(&format!("select credits.fail_top_up('acme', '{id}', 'declined')"));
    session.exec("select credits.set_auto_top_up('acme', 'default', 10, 5, payment_method_id => 'new')");
    assert_eq!(session.lines("select payment_method_id, attempt from credits.claim_top_ups()"), ["new|2"]);
    complete(&mut session, &id, "paid");
    session.exec("select credits.create_wallet('zoe'), credits.request_top_up('zoe', amount => 7)");
    session.exec("select credits.set_auto_top_up('zoe', 'default', 10, 5, enabled => false)");
    assert_eq!(session.one("select status from credits.top_ups where customer_id = 'zoe'"), "pending");
    session.exec("select credits.create_wallet('rich'), credits.grant_credits('rich', 5)");
    let too_much = session.error("select credits.request_top_up('rich', amount => 9999999999999999)");
    assert_eq!(too_much.symbol(), "out_of_range", "what could not be granted must not be paid");
    assert_ledger_is_sound(&mut session);
}

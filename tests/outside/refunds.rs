//! Refunds of usage: what they give back, to whom, and in which order (SPEC 4).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, entries, everything, grant, ledger, new_books};

/// Refunded, balance and replayed of one refund of `acme`.
fn refund(session: &mut Session, arguments: &str) -> String {
    let rows = session.lines(&format!("select refunded, balance, replayed from credits.refund_usage('acme', {arguments})"));
    assert_eq!(rows.len(), 1, "always one row");
    rows.concat()
}

/// Name, status and remaining of every grant, by name.
fn grants(session: &mut Session) -> Vec<String> {
    session.lines("select concat_ws(' ', metadata ->> 'name', status, remaining) from credits.grants order by 1")
}

/// `acme` may overdraw its wallet without limit.
fn overdrawn_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    session
}

const DEBT: &str = "select balance, debt, overage from credits.balance('acme', 'default')";

#[test]
fn a_refund_gives_back_overage_first_then_the_last_taken_first() {
    let mut session = new_books("overage_first_then_last_taken");
    session.exec(
        "select credits.update_wallet('acme', 'default', overage_policy => 'invoice', overage_unit_price => 0.02,
             overage_currency => 'USD');
         select credits.create_wallet('acme', 'promo', priority => 1)",
    );
    grant(&mut session, "free", "5", "wallet => 'promo'");
    grant(&mut session, "second", "10", "expires_at => '2026-03-01 00:00+00'");
    grant(&mut session, "first", "10", "expires_at => '2026-02-01 00:00+00'");
    assert_eq!(deduct(&mut session, "28, 'use', event_name => 'chat'"), "overage|28|25|3|0|f");
    assert_eq!(
        entries(&mut session, "use"),
        ["promo usage 5 free", "default usage 10 first", "default usage 10 second", "default overage 3"]
    );
    assert_eq!(refund(&mut session, "'use', idempotency_key => 'all'"), "28|25|f");
    assert_eq!(
        entries(&mut session, "all"),
        [
            "default overage_refunded 3",
            "default usage_refunded 10 second",
            "default usage_refunded 10 first",
            "promo usage_refunded 5 free"
        ]
    );
    assert_eq!(
        session.lines("select wallet, balance, debt, overage from credits.balance('acme') order by wallet"),
        ["default|20|0|0", "promo|5|0|0"]
    );
    assert_eq!(session.lines("select distinct event_name from credits.ledger where transaction_id = 'all'"), ["chat"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn partial_refunds_add_up_to_the_usage_and_never_to_more() {
    let mut session = overdrawn_books("partial_refunds_add_up");
    grant(&mut session, "a", "5", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "b", "10.5", "");
    assert_eq!(deduct(&mut session, "18.5, 'use'"), "overage|18.5|15.5|3|0|f");
    assert_eq!(refund(&mut session, "'use', 4, idempotency_key => 'r1'"), "4|1|f");
    assert_eq!(entries(&mut session, "r1"), ["default overdraft_refunded 3", "default usage_refunded 1 b"]);
    assert_eq!(refund(&mut session, "'use', 0.000000000001, idempotency_key => 'r2'"), "0.000000000001|1.000000000001|f");
    assert_eq!(refund(&mut session, "'use', 9.999999999999, idempotency_key => 'r3'"), "9.999999999999|11|f");
    assert_eq!(entries(&mut session, "r3"), ["default usage_refunded 9.499999999999 b", "default usage_refunded 0.5 a"]);

    let before = everything(&mut session);
    for too_much in ["4.500000000001", "18.5", "9999999999999999"] {
        let error = session.error(&format!("select * from credits.refund_usage('acme', 'use', {too_much})"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{error}");
        assert!(error.message.contains("4.5"), "{error}");
    }
    assert_eq!(everything(&mut session), before);

    assert_eq!(refund(&mut session, "'use', 4.5, idempotency_key => 'r4'"), "4.5|15.5|f");
    assert_eq!(entries(&mut session, "r4"), ["default usage_refunded 4.5 a"]);
    assert_eq!(grants(&mut session), ["a active 5", "b active 10.5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn refunding_all_when_nothing_is_left_refunds_nothing() {
    let mut session = new_books("refunding_when_nothing_is_left");
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "4, 'use'");
    assert_eq!(refund(&mut session, "'use'"), "4|10|f");
    assert_eq!(refund(&mut session, "'use', idempotency_key => 'again'"), "0|10|f");
    assert_eq!(refund(&mut session, "'use', idempotency_key => 'again'"), "0|10|t");
    let error = session.error("select * from credits.refund_usage('acme', 'use', 0.000000000001)");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{error}");
    assert_eq!(grants(&mut session), ["bought active 10"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_free_event_has_nothing_to_refund() {
    let mut session = new_books("a_free_event_has_nothing_to_refund");
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "0, 'ping'");
    assert_eq!(refund(&mut session, "'ping'"), "0|10|f");
    let error = session.error("select * from credits.refund_usage('acme', 'ping', 1)");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{error}");
    assert_eq!(session.one("select sum(credits) from credits.ledger where kind <> 'grant'"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_is_of_a_positive_amount() {
    let mut session = new_books("a_refund_is_of_a_positive_amount");
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "4, 'use'");
    for (amount, sqlstate, symbol) in [
        ("0", "22023", "invalid_argument"),
        ("-1", "22023", "invalid_argument"),
        ("'NaN'", "22023", "invalid_argument"),
        ("0.0000000000001", "22023", "invalid_argument"),
        ("1e16", "22003", "out_of_range"),
    ] {
        let error = session.error(&format!("select * from credits.refund_usage('acme', 'use', {amount})"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), (sqlstate, symbol), "{amount}: {error}");
    }
    assert_eq!(session.lines(DEBT), ["6|0|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn only_usage_of_the_customer_can_be_refunded() {
    let mut session = new_books("only_usage_can_be_refunded");
    grant(&mut session, "bought", "10", "idempotency_key => 'granted'");
    deduct(&mut session, "4, 'use'");
    refund(&mut session, "'use', 1, idempotency_key => 'refunded'");
    session.exec(
        "select * from credits.adjust_credits('acme', -1, 'correction', idempotency_key => 'adjusted');
         select credits.create_wallet('other'); select credits.grant_credits('other', 5);
         select * from credits.deduct_usage('other', 1, 'use of other')",
    );
    let before = everything(&mut session);
    for id in ["nothing", "granted", "refunded", "adjusted", "use of other"] {
        let error = session.error(&format!("select * from credits.refund_usage('acme', '{id}')"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("P0002", "not_found"), "{error}");
        assert!(error.message.contains(id) && error.message.contains("acme"), "{error}");
    }
    let error = session.error("select * from credits.refund_usage('nobody', 'use')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("P0002", "not_found"), "{error}");
    assert_eq!(everything(&mut session), before);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_to_an_expired_grant_ends_at_once() {
    let mut session = new_books("a_refund_to_an_expired_grant");
    grant(&mut session, "used up", "10", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "used in part", "12", "expires_at => '2026-01-11 00:00+00'");
    grant(&mut session, "lives", "10", "");
    assert_eq!(deduct(&mut session, "14, 'use'"), "charged|14|14|0|18|f");
    assert_eq!(deduct(&mut session, "7, 'more'"), "charged|7|7|0|11|f");
    session.set_clock("2026-01-20 00:00+00");
    assert_eq!(refund(&mut session, "'more', idempotency_key => 'r1'"), "7|10|f");
    assert_eq!(refund(&mut session, "'use', idempotency_key => 'r2'"), "14|10|f");
    assert_eq!(
        ledger(&mut session)[6..],
        [
            "default 7 expiration -1 10 01-11 00:00",
            "default 8 usage_refunded 7 17 01-20 00:00",
            "default 9 expiration -7 10 01-20 00:00",
            "default 10 usage_refunded 4 14 01-20 00:00",
            "default 11 expiration -4 10 01-20 00:00",
            "default 12 usage_refunded 10 20 01-20 00:00",
            "default 13 expiration -10 10 01-20 00:00"
        ]
    );
    assert_eq!(grants(&mut session), ["lives active 10", "used in part expired 0", "used up expired 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_to_a_voided_grant_ends_at_once() {
    let mut session = new_books("a_refund_to_a_voided_grant");
    let part = grant(&mut session, "voided with the rest", "10", "");
    let all = grant(&mut session, "voided empty", "10", "expires_at => '2026-02-01 00:00+00'");
    deduct(&mut session, "13, 'use'");
    assert_eq!(session.one(&format!("select credits.void_grant('acme', '{part}')")), "7");
    assert_eq!(session.one(&format!("select credits.void_grant('acme', '{all}')")), "0");
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(refund(&mut session, "'use', 5, idempotency_key => 'r'"), "5|0|f");
    assert_eq!(
        entries(&mut session, "r"),
        [
            "default usage_refunded 3 voided with the rest",
            "default void 3 voided with the rest",
            "default usage_refunded 2 voided empty",
            "default void 2 voided empty"
        ]
    );
    assert_eq!(grants(&mut session), ["voided empty voided 0", "voided with the rest voided 0"]);
    assert_eq!(refund(&mut session, "'use'"), "8|0|f", "the rest of the usage");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_to_an_exhausted_grant_makes_it_spendable_again() {
    let mut session = new_books("a_refund_to_an_exhausted_grant");
    grant(&mut session, "short", "10", "expires_at => '2026-01-10 00:00+00'");
    deduct(&mut session, "10, 'use'");
    assert_eq!(grants(&mut session), ["short exhausted 0"]);
    session.set_clock("2026-01-09 23:59:59.999999+00");
    assert_eq!(refund(&mut session, "'use', 6"), "6|6|f");
    assert_eq!(deduct(&mut session, "1"), "charged|1|1|0|5|f");
    session.set_clock("2026-01-10 00:00+00");
    session.exec("select * from credits.expire_grants()");
    assert_eq!(ledger(&mut session).last().map(String::as_str), Some("default 5 expiration -5 0 01-10 00:00"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_of_overdraft_cancels_open_debt_then_goes_back_to_who_repaid_it_last_first() {
    let mut session = overdrawn_books("a_refund_of_overdraft");
    assert_eq!(deduct(&mut session, "30, 'use'"), "overage|30|0|30|0|f");
    for (name, amount) in [("a", "8"), ("b", "7"), ("c", "5")] {
        grant(&mut session, name, amount, "");
    }
    assert_eq!(session.lines(DEBT), ["0|10|0"]);
    assert_eq!(refund(&mut session, "'use', 4, idempotency_key => 'r1'"), "4|0|f");
    assert_eq!(entries(&mut session, "r1"), ["default overdraft_refunded 4"]);
    assert_eq!(refund(&mut session, "'use', 9, idempotency_key => 'r2'"), "9|3|f");
    assert_eq!(entries(&mut session, "r2"), ["default overdraft_refunded 6", "default usage_refunded 3 c"]);
    assert_eq!(refund(&mut session, "'use', 6, idempotency_key => 'r3'"), "6|9|f");
    assert_eq!(entries(&mut session, "r3"), ["default usage_refunded 2 c", "default usage_refunded 4 b"]);
    assert_eq!(refund(&mut session, "'use', idempotency_key => 'r4'"), "11|20|f");
    assert_eq!(entries(&mut session, "r4"), ["default usage_refunded 3 b", "default usage_refunded 8 a"]);
    assert_eq!(grants(&mut session), ["a active 8", "b active 7", "c active 5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn overdraft_of_several_usages_is_refunded_from_one_debt() {
    let mut session = overdrawn_books("overdraft_of_several_usages");
    for key in ["first", "second", "third"] {
        assert_eq!(deduct(&mut session, &format!("10, '{key}'")), "overage|10|0|10|0|f");
    }
    grant(&mut session, "a", "12", "");
    grant(&mut session, "b", "6", "");
    assert_eq!(session.lines(DEBT), ["0|12|0"]);
    // Whose usage it was does not matter: what is open is cancelled first.
    assert_eq!(refund(&mut session, "'first', idempotency_key => 'r1'"), "10|0|f");
    assert_eq!(entries(&mut session, "r1"), ["default overdraft_refunded 10"]);
    assert_eq!(refund(&mut session, "'third', idempotency_key => 'r2'"), "10|8|f");
    assert_eq!(
        entries(&mut session, "r2"),
        ["default overdraft_refunded 2", "default usage_refunded 6 b", "default usage_refunded 2 a"]
    );
    // What came back repays a new debt and can come back again.
    assert_eq!(deduct(&mut session, "9, 'fourth'"), "overage|9|8|1|0|f");
    grant(&mut session, "c", "1", "");
    assert_eq!(refund(&mut session, "'fourth', idempotency_key => 'r3'"), "9|9|f");
    assert_eq!(
        entries(&mut session, "r3"),
        ["default usage_refunded 1 c", "default usage_refunded 6 b", "default usage_refunded 2 a"]
    );
    assert_eq!(refund(&mut session, "'second', idempotency_key => 'r4'"), "10|19|f");
    assert_eq!(entries(&mut session, "r4"), ["default usage_refunded 10 a"]);
    assert_eq!(grants(&mut session), ["a active 12", "b active 6", "c active 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn overdraft_repaid_by_a_grant_that_has_ended_ends_with_it() {
    let mut session = overdrawn_books("overdraft_repaid_by_an_ended_grant");
    deduct(&mut session, "10, 'use'");
    let voided = grant(&mut session, "voided", "6", "");
    grant(&mut session, "expired", "8", "expires_at => '2026-01-10 00:00+00'");
    assert_eq!(session.one(&format!("select credits.void_grant('acme', '{voided}')")), "0");
    session.set_clock("2026-01-10 00:00+00");
    assert_eq!(refund(&mut session, "'use', idempotency_key => 'r'"), "10|0|f");
    assert_eq!(
        entries(&mut session, "r"),
        [
            "default usage_refunded 4 expired",
            "default expiration 4 expired",
            "default usage_refunded 6 voided",
            "default void 6 voided"
        ]
    );
    assert_eq!(session.lines(DEBT), ["0|0|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn refunded_credits_repay_debt_at_once() {
    let mut session = overdrawn_books("refunded_credits_repay_debt");
    grant(&mut session, "any", "10", "");
    grant(&mut session, "limited", "10", "applies_to => array['chat']");
    deduct(&mut session, "10, 'paid'");
    deduct(&mut session, "10, 'chats', event_name => 'chat'");
    assert_eq!(deduct(&mut session, "7, 'debt'"), "overage|7|0|7|0|f");
    assert_eq!(refund(&mut session, "'chats', idempotency_key => 'r1'"), "10|10|f");
    assert_eq!(entries(&mut session, "r1"), ["default usage_refunded 10 limited"], "what is limited repays nothing");
    assert_eq!(refund(&mut session, "'paid', 4, idempotency_key => 'r2'"), "4|10|f");
    assert_eq!(entries(&mut session, "r2"), ["default usage_refunded 4 any", "default overdraft_repaid 4 any"]);
    assert_eq!(refund(&mut session, "'paid', idempotency_key => 'r3'"), "6|13|f");
    assert_eq!(entries(&mut session, "r3"), ["default usage_refunded 6 any", "default overdraft_repaid 3 any"]);
    assert_eq!(session.lines(DEBT), ["13|0|0"]);
    // The debt is repaid, so its refund goes back to who repaid it, by two repayments.
    assert_eq!(refund(&mut session, "'debt', 5, idempotency_key => 'r4'"), "5|18|f");
    assert_eq!(entries(&mut session, "r4"), ["default usage_refunded 3 any", "default usage_refunded 2 any"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_frozen_wallet_takes_refunds() {
    let mut session = overdrawn_books("a_frozen_wallet_takes_refunds");
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "12, 'use'");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    session.exec("select * from credits.refund_usage('acme', 'use', 5, idempotency_key => 'r')");
    assert_eq!(entries(&mut session, "r"), ["default overdraft_refunded 2", "default usage_refunded 3 bought"]);
    session.exec("select credits.set_wallet_status('acme', 'default', 'active')");
    assert_eq!(deduct(&mut session, "3"), "charged|3|3|0|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_refunded_to_a_closed_wallet_is_voided_at_once() {
    let mut session = overdrawn_books("a_refund_to_a_closed_wallet");
    deduct(&mut session, "4, 'overdrawn'");
    grant(&mut session, "exhausted", "10", "");
    deduct(&mut session, "6, 'use'");
    grant(&mut session, "left over", "5", "");
    deduct(&mut session, "2, 'more'");
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    for (usage, moved) in [("use", "6 exhausted"), ("more", "2 left over"), ("overdrawn", "4 exhausted")] {
        session.exec(&format!("select * from credits.refund_usage('acme', '{usage}', idempotency_key => 'refund of {usage}')"));
        assert_eq!(
            entries(&mut session, &format!("refund of {usage}")),
            [format!("default usage_refunded {moved}"), format!("default void {moved}")]
        );
    }
    assert_eq!(session.lines(DEBT), ["0|0|0"]);
    assert_eq!(grants(&mut session), ["exhausted voided 0", "left over voided 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_grant_that_expired_before_its_wallet_was_closed_stays_expired() {
    let mut session = new_books("expired_before_closing_stays_expired");
    grant(&mut session, "expired", "10", "expires_at => '2026-01-10 00:00+00'");
    deduct(&mut session, "4, 'use'");
    session.set_clock("2026-01-20 00:00+00");
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    session.exec("select * from credits.refund_usage('acme', 'use', idempotency_key => 'r')");
    assert_eq!(entries(&mut session, "r"), ["default usage_refunded 4 expired", "default expiration 4 expired"]);
    assert_eq!(grants(&mut session), ["expired expired 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn overage_of_a_closed_wallet_can_be_refunded() {
    let mut session = new_books("overage_of_a_closed_wallet");
    session.exec(
        "select credits.update_wallet('acme', 'default', overage_policy => 'invoice', overage_unit_price => 1,
             overage_currency => 'USD')",
    );
    deduct(&mut session, "7, 'use'");
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    assert_eq!(refund(&mut session, "'use', 5, idempotency_key => 'r'"), "5|0|f");
    assert_eq!(entries(&mut session, "r"), ["default overage_refunded 5"]);
    assert_eq!(session.lines(DEBT), ["0|0|2"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_that_would_make_a_balance_too_large_is_refused() {
    let mut session = new_books("a_refund_that_is_too_large");
    grant(&mut session, "used", "5e15", "");
    deduct(&mut session, "5e15, 'use'");
    grant(&mut session, "more", "9e15", "");
    let before = everything(&mut session);
    let error = session.error("select * from credits.refund_usage('acme', 'use')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{error}");
    assert_eq!(everything(&mut session), before);
    assert_eq!(
        refund(&mut session, "'use', 999999999999999.999999999999"),
        "999999999999999.999999999999|9999999999999999.999999999999|f"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_reason_of_a_refund_stands_in_the_ledger() {
    let mut session = new_books("the_reason_of_a_refund");
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "4, 'use', event_name => 'chat', metadata => '{\"call\": 1}'");
    refund(&mut session, "'use', 1, 'model \"x\" failed', 'r'");
    assert_eq!(
        session.lines("select kind, refers_to, event_name, metadata ->> 'reason' from credits.ledger where transaction_id = 'r'"),
        ["usage_refunded|use|chat|model \"x\" failed"]
    );
    let error = session.error(&format!("select * from credits.refund_usage('acme', 'use', 1, '{}')", "x".repeat(1001)));
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{error}");
    assert_ledger_is_sound(&mut session);
}

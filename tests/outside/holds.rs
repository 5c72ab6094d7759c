//! Holds: credits set aside for work whose cost is not known yet, captured once or given back (SPEC 7).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{
    assert_refused, capture, deduct, end_of, entries, everything, grant, hold, holds, ledger, new_books, release, takes,
};

const BALANCES: &str = "select wallet, balance, held, debt, overage from credits.balance('acme') order by wallet";

/// Name, status and remaining of every grant, by name.
fn grants(session: &mut Session) -> Vec<String> {
    session.lines("select concat_ws(' ', metadata ->> 'name', status, remaining) from credits.grants order by 1")
}

/// `a` has 10 credits until February, `b` 20 for ever; hold `h` took 12: 10 of `a` and 2 of `b`.
fn held_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "a", "10", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "b", "20", "");
    assert_eq!(hold(&mut session, "12, idempotency_key => 'h'"), "12|18|f");
    session
}

#[test]
fn a_hold_takes_its_credits_off_the_balance_first_expiring_first() {
    let mut session = held_books("a_hold_takes_its_credits_off");
    assert_eq!(entries(&mut session, "h"), ["default hold 10 a", "default hold 2 b"]);
    assert_eq!(
        ledger(&mut session)[2..],
        ["default 3 hold -10 20 01-01 00:00", "default 4 hold -2 18 01-01 00:00"],
        "off the balance at once"
    );
    assert_eq!(session.lines(BALANCES), ["default|18|12|0|0"]);
    assert_eq!(session.lines("select balance, held from credits.wallets"), ["18|12"]);
    assert_eq!(session.lines("select remaining from credits.grants order by metadata ->> 'name'"), ["0", "18"]);
    assert_eq!(
        session.lines(
            "select customer_id, hold_id, status, held, wallet, unit, event_name, expires_at, created_at from credits.holds"
        ),
        ["acme|h|open|12||credits||2026-01-01 00:15:00+00|2026-01-01 00:00:00+00"]
    );
    // What is held cannot be spent.
    assert_eq!(deduct(&mut session, "19, on_insufficient => 'report'"), "insufficient|19|0|0|18|f");
    assert_eq!(takes(&mut session, "18", ""), ["b 18"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn without_a_key_a_hold_and_its_capture_have_ids_of_version_7() {
    let mut session = new_books("a_hold_without_a_key");
    grant(&mut session, "bought", "10", "");
    let row = session.rows("select hold_id, expires_at from credits.hold_credits('acme', 4, '2 days 3 hours')").remove(0);
    let id = row[0].clone().expect("an id");
    assert_eq!(row[1].as_deref(), Some("2026-01-03 03:00:00+00"));
    let captured = session.one(&format!("select transaction_id from credits.capture_hold('acme', '{id}')"));
    for id in [&id, &captured] {
        assert_eq!(session.one(&format!("select substr('{id}'::uuid::text, 15, 1)")), "7");
    }
    assert_ne!(id, captured);
    assert_eq!(entries(&mut session, &captured), ["default hold_captured 4 bought"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_capture_takes_what_was_taken_first_and_gives_back_the_rest() {
    let mut session = held_books("a_capture_in_part");
    session.set_clock("2026-01-01 00:10+00");
    assert_eq!(
        capture(&mut session, "'h', 9.5, idempotency_key => 'c', metadata => '{\"tokens\": 7}'"),
        "charged|9.5|9.5|0|20.5|f"
    );
    let mut moved = entries(&mut session, "c");
    assert_eq!(moved.remove(0), "default hold_captured 9.5 a");
    moved.sort();
    assert_eq!(moved, ["default hold_released 0.5 a", "default hold_released 2 b"]);
    assert_eq!(
        session.lines(
            "select kind, sum(credits), sum(amount), refers_to, metadata, occurred_at from credits.ledger
             where transaction_id = 'c' group by 1, 4, 5, 6 order by 1"
        ),
        [
            "hold_captured|9.5|0|h|{\"tokens\": 7}|2026-01-01 00:10:00+00",
            "hold_released|2.5|2.5|h|{\"tokens\": 7}|2026-01-01 00:10:00+00"
        ]
    );
    assert_eq!(session.lines(BALANCES), ["default|20.5|0|0|0"]);
    assert_eq!(grants(&mut session), ["a active 0.5", "b active 20"]);
    assert_eq!(holds(&mut session), ["h captured"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_capture_of_no_amount_is_of_all_that_is_held() {
    let mut session = held_books("a_capture_of_all");
    assert_eq!(capture(&mut session, "'h', idempotency_key => 'c'"), "charged|12|12|0|18|f");
    assert_eq!(entries(&mut session, "c"), ["default hold_captured 10 a", "default hold_captured 2 b"]);
    assert_eq!(session.lines(BALANCES), ["default|18|0|0|0"]);
    assert_eq!(holds(&mut session), ["h captured"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_capture_of_zero_is_a_release_recorded_as_usage_of_zero() {
    let mut session = held_books("a_capture_of_zero");
    assert_eq!(capture(&mut session, "'h', 0, idempotency_key => 'c'"), "charged|0|0|0|30|f");
    let mut moved = entries(&mut session, "c");
    moved.sort();
    assert_eq!(moved, ["default hold_released 10 a", "default hold_released 2 b", "default usage 0"]);
    assert_eq!(session.lines(BALANCES), ["default|30|0|0|0"]);
    assert_eq!(holds(&mut session), ["h captured"]);
    assert_eq!(session.error("select * from credits.release_hold('acme', 'h')").symbol(), "wrong_state");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_release_gives_everything_back_once() {
    let mut session = held_books("a_release_gives_everything_back");
    session.set_clock("2026-01-01 00:10+00");
    assert_eq!(release(&mut session, "h"), "h|12|30");
    let mut moved = end_of(&mut session, "h");
    moved.sort();
    assert_eq!(moved, ["default hold_released 10 a 01-01 00:10", "default hold_released 2 b 01-01 00:10"]);
    assert_eq!(grants(&mut session), ["a active 10", "b active 20"]);
    assert_eq!(holds(&mut session), ["h released"]);
    deduct(&mut session, "5");
    let before = everything(&mut session);
    assert_eq!(release(&mut session, "h"), "h|12|25", "the first result and the balance of now");
    assert_eq!(everything(&mut session), before);
    assert_ledger_is_sound(&mut session);
}

/// The case: 5 credits renew every hour, 20 are for life.
#[test]
fn a_capture_spends_the_hourly_grant_before_the_one_for_life() {
    for (amount, remain) in [("5", ["hourly 0", "life 20"]), ("0", ["hourly 5", "life 20"]), ("8", ["hourly 0", "life 17"])] {
        let mut session = new_books(&format!("hourly_and_life_{amount}"));
        session
            .exec("select credits.create_recurring_grant('acme', 'hourly', 5, '1 hour', metadata => '{\"name\": \"hourly\"}')");
        grant(&mut session, "life", "20", "");
        assert_eq!(hold(&mut session, "8, idempotency_key => 'h'"), "8|17|f");
        assert_eq!(entries(&mut session, "h"), ["default hold 5 hourly", "default hold 3 life"]);
        session.set_clock("2026-01-01 00:10+00");
        let left = 25 - amount.parse::<i32>().expect("a number");
        assert_eq!(capture(&mut session, &format!("'h', {amount}")), format!("charged|{amount}|{amount}|0|{left}|f"));
        let remaining = "select metadata ->> 'name', remaining from credits.grants where status <> 'expired' order by 1";
        assert_eq!(session.lines(remaining), remain.map(|line| line.replace(' ', "|")), "capture of {amount}");
        // The next hour brings its 5 and takes what is left of the last.
        session.set_clock("2026-01-01 01:00+00");
        let balance = if amount == "8" { "22" } else { "25" };
        assert_eq!(session.lines("select balance, held from credits.balance('acme')"), [format!("{balance}|0")]);
        assert_eq!(deduct(&mut session, "0"), format!("charged|0|0|0|{balance}|f"));
        assert_ledger_is_sound(&mut session);
    }
}

const INVOICE: &str = "overage_policy => 'invoice', overage_unit_price => 0.5, overage_currency => 'EUR'";
const OVERDRAFT: &str = "overage_policy => 'overdraft'";

/// Beyond the 8 held there are 2 credits; 15 are captured.
#[test]
fn what_is_beyond_the_hold_is_usage_by_the_wallets_policy() {
    let limited = format!("{OVERDRAFT}, overage_limit => 3");
    let cases = [
        ("block", "name => 'n'", "partial", "partial|15|10|0|0|f", ""),
        ("invoice_partial", INVOICE, "partial", "overage|15|10|5|0|f", "default overage 5"),
        ("invoice_error", INVOICE, "error", "overage|15|10|5|0|f", "default overage 5"),
        ("overdraft_report", OVERDRAFT, "report", "overage|15|10|5|0|f", "default overdraft 5"),
        ("limit", &limited, "partial", "partial|15|10|3|0|f", "default overdraft 3"),
    ];
    for (name, policy, mode, answer, beyond) in cases {
        let mut session = new_books(&format!("beyond_the_hold_{name}"));
        session.exec(&format!("select credits.update_wallet('acme', 'default', {policy})"));
        grant(&mut session, "bought", "10", "");
        hold(&mut session, "8, idempotency_key => 'h'");
        assert_eq!(capture(&mut session, &format!("'h', 15, '{mode}', 'c'")), answer, "{name}");
        let moved = entries(&mut session, "c");
        assert_eq!(moved[..2], ["default hold_captured 8 bought", "default usage 2 bought"], "{name}");
        assert_eq!(moved[2..].concat(), beyond, "{name}");
        assert_eq!(session.lines("select distinct refers_to from credits.ledger where transaction_id = 'c'"), ["h"]);
        assert_eq!(capture(&mut session, &format!("'h', 15, '{mode}', 'c'")), answer.replace("|f", "|t"), "{name}");
        assert_eq!(holds(&mut session), ["h captured"]);
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn what_cannot_be_captured_leaves_the_hold_open() {
    let mut session = new_books("cannot_be_captured");
    grant(&mut session, "bought", "10", "");
    hold(&mut session, "8, idempotency_key => 'h'");
    let before = everything(&mut session);
    let error = session.error("select * from credits.capture_hold('acme', 'h', 15, 'error', 'c')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23514", "insufficient_credits"), "{error}");
    assert!(error.message.contains("acme") && error.message.contains("15"), "{error}");
    let row = "select transaction_id is null, status, requested, deducted, overage, balance, replayed
               from credits.capture_hold('acme', 'h', 15, 'report', 'c')";
    assert_eq!(session.lines(row), ["t|insufficient|15|0|0|2|f"]);
    assert_eq!(everything(&mut session), before);
    // An overage limit that is too low, and then enough.
    session.exec(&format!("select credits.update_wallet('acme', 'default', {OVERDRAFT}, overage_limit => 4)"));
    assert_refused(&mut session, &[("capture_hold('acme', 'h', 15, 'error', 'c')", "23514", "insufficient_credits")]);
    assert_eq!(holds(&mut session), ["h open 8"]);
    assert_eq!(capture(&mut session, "'h', 14, 'error', 'c'"), "overage|14|10|4|0|f", "the key was free");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_hold_over_two_wallets_is_captured_in_the_order_of_spending() {
    let mut session = new_books("a_hold_over_two_wallets");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    session.exec("select credits.create_wallet('acme', 'other unit', unit => 'minutes', priority => 0)");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    grant(&mut session, "bought", "20", "");
    grant(&mut session, "minutes", "9", "wallet => 'other unit'");
    assert_eq!(hold(&mut session, "8, idempotency_key => 'h'"), "8|17|f");
    assert_eq!(entries(&mut session, "h"), ["promo hold 5 free", "default hold 3 bought"]);
    assert_eq!(session.lines(BALANCES), ["default|17|3|0|0", "other unit|9|0|0|0", "promo|0|5|0|0"]);
    assert_eq!(capture(&mut session, "'h', 6, idempotency_key => 'c'"), "charged|6|6|0|19|f");
    assert_eq!(
        entries(&mut session, "c"),
        ["promo hold_captured 5 free", "default hold_captured 1 bought", "default hold_released 2 bought"]
    );
    hold(&mut session, "4, idempotency_key => 'more'");
    grant(&mut session, "freebie", "1", "wallet => 'promo'");
    assert_eq!(capture(&mut session, "'more', 7, idempotency_key => 'c2'"), "charged|7|7|0|13|f");
    assert_eq!(
        entries(&mut session, "c2"),
        ["default hold_captured 4 bought", "promo usage 1 freebie", "default usage 2 bought"],
        "the rest is usage of the wallets considered"
    );
    hold(&mut session, "3, idempotency_key => 'given back'");
    assert_eq!(release(&mut session, "given back"), "given back|3|13");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_hold_on_a_named_wallet_is_of_that_wallet_alone() {
    let mut session = new_books("a_hold_on_a_named_wallet");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    grant(&mut session, "bought", "10", "");
    assert_eq!(hold(&mut session, "8, wallet => 'default', unit => 'nothing', idempotency_key => 'h'"), "8|2|f");
    assert_eq!(session.lines("select wallet from credits.holds"), ["default"]);
    assert_eq!(capture(&mut session, "'h', 12, idempotency_key => 'c'"), "partial|12|10|0|0|f");
    assert_eq!(entries(&mut session, "c"), ["default hold_captured 8 bought", "default usage 2 bought"]);
    assert_eq!(session.lines(BALANCES), ["default|0|0|0|0", "promo|5|0|0|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_limited_grant_is_held_for_its_events_only() {
    let mut session = new_books("a_limited_grant_is_held");
    grant(&mut session, "limited", "10", "applies_to => array['chat']");
    grant(&mut session, "any", "10", "");
    hold(&mut session, "4, event_name => 'chat', idempotency_key => 'chat'");
    hold(&mut session, "4, event_name => 'image', idempotency_key => 'image'");
    hold(&mut session, "1, idempotency_key => 'unnamed'");
    assert_eq!(entries(&mut session, "chat"), ["default hold 4 limited"]);
    assert_eq!(entries(&mut session, "image"), ["default hold 4 any"]);
    assert_eq!(entries(&mut session, "unnamed"), ["default hold 1 any"]);
    assert_refused(&mut session, &[("hold_credits('acme', 6, event_name => 'image')", "23514", "insufficient_credits")]);
    // What is beyond a hold is usage of its event.
    assert_eq!(capture(&mut session, "'chat', 12, idempotency_key => 'c'"), "charged|12|12|0|3|f");
    assert_eq!(entries(&mut session, "c"), ["default hold_captured 4 limited", "default usage 6 limited", "default usage 2 any"]);
    assert_eq!(session.lines("select distinct event_name from credits.ledger where transaction_id in ('c', 'chat')"), ["chat"]);
    assert_eq!(session.one("select event_name from credits.holds where hold_id = 'image'"), "image");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_hold_takes_grants_only_whatever_the_overage_policy() {
    for (name, policy) in [("block", "overage_limit => 5"), ("invoice", INVOICE), ("overdraft", OVERDRAFT)] {
        let mut session = new_books(&format!("a_hold_takes_grants_only_{name}"));
        session.exec(&format!("select credits.update_wallet('acme', 'default', {policy})"));
        grant(&mut session, "bought", "10", "");
        let before = everything(&mut session);
        let error = session.error("select * from credits.hold_credits('acme', 10.000000000001, idempotency_key => 'h')");
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23514", "insufficient_credits"), "{error}");
        for value in ["acme", "10.000000000001", "10 can"] {
            assert!(error.message.contains(value), "{error}");
        }
        assert!(!error.hint.is_empty());
        assert_eq!(everything(&mut session), before);
        assert_eq!(hold(&mut session, "10, idempotency_key => 'h'"), "10|0|f", "the key was free");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn released_credits_repay_debt_at_once() {
    let mut session = new_books("released_credits_repay_debt");
    session.exec(&format!("select credits.update_wallet('acme', 'default', {OVERDRAFT})"));
    grant(&mut session, "limited", "10", "applies_to => array['chat']");
    grant(&mut session, "any", "10", "");
    hold(&mut session, "4, event_name => 'chat', idempotency_key => 'limited'");
    hold(&mut session, "7, idempotency_key => 'in part'");
    hold(&mut session, "3, idempotency_key => 'whole'");
    assert_eq!(deduct(&mut session, "9"), "overage|9|0|9|6|f");
    assert_eq!(release(&mut session, "limited"), "limited|4|10");
    assert_eq!(session.lines(BALANCES), ["default|10|10|9|0"], "what is limited repays nothing");
    assert_eq!(capture(&mut session, "'in part', 2, idempotency_key => 'c'"), "charged|2|2|0|10|f");
    assert_eq!(
        entries(&mut session, "c"),
        ["default hold_captured 2 any", "default hold_released 5 any", "default overdraft_repaid 5 any"]
    );
    session.set_clock("2026-01-01 00:15+00");
    assert_eq!(session.lines(BALANCES), ["default|10|0|1|0"], "a lapse repays too");
    assert_eq!(release(&mut session, "whole"), "whole|3|10");
    assert_eq!(
        ledger(&mut session).split_off(10),
        ["default 11 hold_released 3 13 01-01 00:15", "default 12 overdraft_repaid -3 10 01-01 00:15"]
    );
    assert_ledger_is_sound(&mut session);
}

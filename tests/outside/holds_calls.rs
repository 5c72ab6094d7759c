//! How holds answer retries, wrong calls and wallets that are frozen or closed (SPEC 3, 4, 7 and 11).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, capture, deduct, end_of, entries, everything, grant, hold, holds, new_books, release};

/// `acme` has 20 credits, 8 of them held by `h` and 3 by `spare`.
fn held_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "bought", "20", "");
    assert_eq!(hold(&mut session, "8, '1 hour', idempotency_key => 'h'"), "8|12|f");
    assert_eq!(hold(&mut session, "3, '1 hour', idempotency_key => 'spare'"), "3|9|f");
    session
}

const HOLD: &str = "select hold_id, held, balance, expires_at, replayed from credits.hold_credits('acme', ";

#[test]
fn a_retried_hold_holds_once() {
    let mut session = held_books("a_retried_hold");
    let before = everything(&mut session);
    session.set_clock("2026-01-01 00:10+00");
    for same in ["8, '1 hour', idempotency_key => 'h'", "8.0, '2 days', null, 'credits', null, 'h', '{\"try\": 2}'"] {
        assert_eq!(session.lines(&format!("{HOLD}{same})")), ["h|8|9|2026-01-01 01:00:00+00|t"], "{same}");
    }
    let reused = [
        "hold_credits('acme', 9, idempotency_key => 'h')",
        "hold_credits('acme', 8, wallet => 'default', idempotency_key => 'h')",
        "hold_credits('acme', 8, unit => 'tokens', idempotency_key => 'h')",
        "hold_credits('acme', 8, event_name => 'chat', idempotency_key => 'h')",
        "deduct_usage('acme', 8, 'h')",
        "capture_hold('acme', 'h', 8, idempotency_key => 'h')",
        "capture_hold('acme', 'spare', idempotency_key => 'h')",
        "grant_credits('acme', 8, idempotency_key => 'h')",
    ];
    assert_refused(&mut session, &reused.map(|call| (call, "23505", "idempotency_key_reused")));
    assert_eq!(everything(&mut session), before);
    // Whatever became of it since.
    assert_eq!(capture(&mut session, "'h', 5"), "charged|5|5|0|12|f");
    assert_eq!(session.lines(&format!("{HOLD}8, idempotency_key => 'h')")), ["h|8|12|2026-01-01 01:00:00+00|t"]);
    session.set_clock("2026-01-01 02:00+00");
    assert_eq!(session.lines(&format!("{HOLD}3, idempotency_key => 'spare')")), ["spare|3|15|2026-01-01 01:00:00+00|t"]);
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    assert_eq!(
        session.lines("select hold_id, held, replayed from credits.hold_credits('acme', 8, idempotency_key => 'h')"),
        ["h|8|t"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_retried_capture_captures_once() {
    let mut session = held_books("a_retried_capture");
    assert_eq!(capture(&mut session, "'h', 9.5, 'error', 'c'"), "charged|9.5|9.5|0|7.5|f");
    let before = everything(&mut session);
    for same in
        ["'h', 9.50, 'error', 'c'", "'h', 9.5, idempotency_key => 'c', metadata => '{\"try\": 2}'", "'h', 9.5, 'report', 'c'"]
    {
        assert_eq!(capture(&mut session, same), "charged|9.5|9.5|0|7.5|t", "{same}");
    }
    for other in
        ["'h', 9, 'partial', 'c'", "'h', null, 'partial', 'c'", "'spare', 9.5, 'partial', 'c'", "'nothing', 9.5, 'error', 'c'"]
    {
        assert_refused(&mut session, &[(&format!("capture_hold('acme', {other})"), "23505", "idempotency_key_reused")]);
    }
    for again in ["'h'", "'h', 9.5", "'h', 9.5, idempotency_key => 'c2'", "'h', 0"] {
        assert_refused(&mut session, &[(&format!("capture_hold('acme', {again})"), "55000", "wrong_state")]);
    }
    assert_eq!(everything(&mut session), before);
    // The first result after years, in a closed wallet.
    session.set_clock("2029-01-01 00:00+00");
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    let replay = "select transaction_id, status, requested, deducted, overage, replayed from credits.capture_hold('acme', 'h', 9.5, 'error', 'c')";
    assert_eq!(session.lines(replay), ["c|charged|9.5|9.5|0|t"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_retried_partial_capture_has_its_first_result() {
    let mut session = held_books("a_retried_partial_capture");
    assert_eq!(capture(&mut session, "'h', 30, 'partial', 'c'"), "partial|30|17|0|0|f");
    grant(&mut session, "more", "100", "");
    assert_eq!(capture(&mut session, "'h', 30, 'error', 'c'"), "partial|30|17|0|100|t");
    assert_eq!(capture(&mut session, "'spare', 0, 'partial', 'zero'"), "charged|0|0|0|103|f");
    assert_eq!(capture(&mut session, "'spare', 0, 'partial', 'zero'"), "charged|0|0|0|103|t");
    assert_ledger_is_sound(&mut session);
}

/// What becomes of a second end of a hold: its first end, the call, and the answer or the symbol of the refusal.
#[test]
fn a_hold_ends_once() {
    let ends = [
        ("capture", "capture_hold('acme', 'h')", "wrong_state"),
        ("capture", "release_hold('acme', 'h')", "wrong_state"),
        ("zero", "capture_hold('acme', 'h', 0)", "wrong_state"),
        ("zero", "release_hold('acme', 'h')", "wrong_state"),
        ("release", "capture_hold('acme', 'h')", "wrong_state"),
        ("release", "capture_hold('acme', 'h', 0)", "wrong_state"),
        ("release", "release_hold('acme', 'h')", "h|8|20"),
        ("lapse", "capture_hold('acme', 'h')", "wrong_state"),
        ("lapse", "capture_hold('acme', 'h', 30, 'report')", "wrong_state"),
        ("lapse", "release_hold('acme', 'h')", "h|8|20"),
    ];
    for (number, (first, second, answer)) in ends.into_iter().enumerate() {
        let mut session = held_books(&format!("a_hold_ends_once_{number}"));
        release(&mut session, "spare");
        match first {
            "capture" => session.exec("select * from credits.capture_hold('acme', 'h', 5)"),
            "zero" => session.exec("select * from credits.capture_hold('acme', 'h', 0)"),
            "release" => session.exec("select * from credits.release_hold('acme', 'h')"),
            _ => {
                session.set_clock("2026-01-01 01:00+00");
                session.exec("select * from credits.run_maintenance()");
            }
        }
        let before = everything(&mut session);
        if answer == "wrong_state" {
            let error = session.error(&format!("select * from credits.{second}"));
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("55000", "wrong_state"), "{first}, {second}: {error}");
            let state = if first == "zero" { "captured" } else { first };
            for word in ["\"h\"", "acme", &state[..5]] {
                assert!(error.message.contains(word), "{first}, {second}: {error}");
            }
            assert!(!error.hint.is_empty());
        } else {
            assert_eq!(session.lines(&format!("select * from credits.{second}")), [answer], "{first}");
        }
        assert_eq!(everything(&mut session), before, "{first}, {second}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn wrong_calls_are_refused_whole() {
    let mut session = held_books("wrong_calls_of_holds");
    session.exec("select credits.create_wallet('other'); select * from credits.deduct_usage('acme', 1, 'usage')");
    let refusals = [
        ("hold_credits(null, 1)", "22004", "null_argument"),
        ("hold_credits('acme', null)", "22004", "null_argument"),
        ("hold_credits('acme', 1, null)", "22004", "null_argument"),
        ("hold_credits('acme', 1, unit => null)", "22004", "null_argument"),
        ("hold_credits('acme', 0)", "22023", "invalid_argument"),
        ("hold_credits('acme', -1)", "22023", "invalid_argument"),
        ("hold_credits('acme', 'NaN')", "22023", "invalid_argument"),
        ("hold_credits('acme', 0.0000000000001)", "22023", "invalid_argument"),
        ("hold_credits('acme', 1e16)", "22003", "out_of_range"),
        ("hold_credits('acme', 1, '0')", "22023", "invalid_argument"),
        ("hold_credits('acme', 1, '-1 hour')", "22023", "invalid_argument"),
        ("hold_credits('acme', 1, '1 month -30 days')", "22023", "invalid_argument"),
        ("hold_credits('acme', 1, '100 years 1 day')", "22003", "out_of_range"),
        ("hold_credits('acme', 1, idempotency_key => '')", "22023", "invalid_argument"),
        ("hold_credits('acme', 1, event_name => '')", "22023", "invalid_argument"),
        ("hold_credits('acme', 1, metadata => '[]')", "22023", "invalid_argument"),
        ("hold_credits('acme', 1, wallet => 'nothing')", "P0002", "not_found"),
        ("hold_credits('acme', 1, unit => 'minutes')", "P0002", "not_found"),
        ("hold_credits('nobody', 1)", "P0002", "not_found"),
        ("hold_credits('other', 1)", "23514", "insufficient_credits"),
        ("capture_hold(null, 'h')", "22004", "null_argument"),
        ("capture_hold('acme', null)", "22004", "null_argument"),
        ("capture_hold('acme', 'h', on_insufficient => null)", "22004", "null_argument"),
        ("capture_hold('acme', 'h', on_insufficient => 'Partial')", "22023", "invalid_argument"),
        ("capture_hold('acme', 'h', -1)", "22023", "invalid_argument"),
        ("capture_hold('acme', 'h', 'Infinity')", "22023", "invalid_argument"),
        ("capture_hold('acme', 'h', 1e16)", "22003", "out_of_range"),
        ("capture_hold('acme', '')", "22023", "invalid_argument"),
        ("capture_hold('acme', 'h', metadata => '1')", "22023", "invalid_argument"),
        ("capture_hold('acme', 'nothing')", "P0002", "not_found"),
        ("capture_hold('acme', 'usage')", "P0002", "not_found"),
        ("capture_hold('other', 'h')", "P0002", "not_found"),
        ("capture_hold('nobody', 'h')", "P0002", "not_found"),
        ("release_hold(null, 'h')", "22004", "null_argument"),
        ("release_hold('acme', null)", "22004", "null_argument"),
        ("release_hold('acme', '')", "22023", "invalid_argument"),
        ("release_hold('acme', 'nothing')", "P0002", "not_found"),
        ("release_hold('acme', 'usage')", "P0002", "not_found"),
        ("release_hold('other', 'h')", "P0002", "not_found"),
        ("release_hold('nobody', 'h')", "P0002", "not_found"),
    ];
    assert_refused(&mut session, &refusals);
    let error = session.error("select * from credits.capture_hold('acme', 'no such hold')");
    assert!(error.message.contains("no such hold") && error.message.contains("acme") && !error.hint.is_empty(), "{error}");
    assert_eq!(holds(&mut session), ["h open 8", "spare open 3"]);
    session.set_clock("9990-01-01 00:00+00");
    assert_refused(&mut session, &[("hold_credits('acme', 1, '100 years')", "22003", "out_of_range")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_frozen_wallet_takes_captures_and_releases_and_no_new_hold() {
    let mut session = held_books("a_frozen_wallet_and_holds");
    session.exec(
        "select credits.update_wallet('acme', 'default', overage_policy => 'overdraft');
         select credits.set_wallet_status('acme', 'default', 'frozen')",
    );
    assert_refused(
        &mut session,
        &[
            ("hold_credits('acme', 1)", "55000", "wrong_state"),
            ("hold_credits('acme', 1, wallet => 'default')", "55000", "wrong_state"),
        ],
    );
    let before = everything(&mut session);
    let error = session.error("select * from credits.capture_hold('acme', 'h', 10, 'error')");
    assert!(["insufficient_credits", "wrong_state"].contains(&error.symbol()), "no usage beyond the hold: {error}");
    assert_eq!(everything(&mut session), before);
    let captured = "select status, requested, deducted, overage from credits.capture_hold('acme', 'h', 10, 'partial', 'c')";
    assert_eq!(session.lines(captured), ["partial|10|8|0"], "the held amount, and no more");
    assert_eq!(entries(&mut session, "c"), ["default hold_captured 8 bought"]);
    assert_eq!(session.lines("select released from credits.release_hold('acme', 'spare')"), ["3"]);
    session.exec("select credits.set_wallet_status('acme', 'default', 'active')");
    assert_eq!(deduct(&mut session, "12"), "charged|12|12|0|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_frozen_wallet_of_two_is_passed_over() {
    let mut session = new_books("one_frozen_wallet_of_two");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    grant(&mut session, "bought", "20", "");
    hold(&mut session, "3, idempotency_key => 'h'");
    session.exec("select credits.set_wallet_status('acme', 'promo', 'frozen')");
    assert_eq!(hold(&mut session, "4, idempotency_key => 'active only'"), "4|16|f");
    assert_eq!(entries(&mut session, "active only"), ["default hold 4 bought"]);
    assert_eq!(capture(&mut session, "'h', 5, 'error', 'c'"), "charged|5|5|0|14|f");
    assert_eq!(
        entries(&mut session, "c"),
        ["promo hold_captured 3 free", "default usage 2 bought"],
        "what is held is captured, the rest is usage of active wallets"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallet_with_an_open_hold_cannot_be_closed() {
    let mut session = held_books("a_wallet_with_an_open_hold");
    session.exec("select credits.create_wallet('acme', 'empty')");
    release(&mut session, "spare");
    assert_refused(&mut session, &[("set_wallet_status('acme', 'default', 'closed')", "55000", "wrong_state")]);
    let error = session.error("select credits.set_wallet_status('acme', 'default', 'closed')");
    assert!(error.message.contains("8 credits are held") && error.message.contains("acme"), "{error}");
    // Another wallet of the customer can, and time ends the hold.
    session.exec("select credits.set_wallet_status('acme', 'empty', 'closed')");
    session.set_clock("2026-01-01 01:00+00");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'closed')"), "closed");
    assert_eq!(end_of(&mut session, "h"), ["default hold_released 8 bought 01-01 01:00"]);
    assert_eq!(release(&mut session, "h"), "h|8|0");
    assert_eq!(session.lines("select kind, credits from credits.ledger where kind = 'void'"), ["void|20"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_ids_of_releases_and_lapses_are_used_keys() {
    let mut session = held_books("ids_of_releases_and_lapses");
    release(&mut session, "h");
    session.set_clock("2026-01-01 02:00+00");
    session.exec("select * from credits.run_maintenance()");
    for id in session.lines("select distinct transaction_id from credits.ledger where kind = 'hold_released'") {
        assert_eq!(session.one(&format!("select substr('{id}'::uuid::text, 15, 1)")), "7");
        let call = format!("deduct_usage('acme', 1, '{id}')");
        assert_refused(&mut session, &[(&call, "23505", "idempotency_key_reused")]);
    }
    assert_ledger_is_sound(&mut session);
}

/// The credits that holds may give back count in the limits: whatever is refused, it is not the settling of a lapse.
#[test]
fn holds_never_make_a_wallet_that_cannot_be_settled() {
    let mut session = new_books("holds_never_make_it_unsettleable");
    grant(&mut session, "most there can be", "9e15", "");
    hold(&mut session, "9e15, '1 hour', idempotency_key => 'h'");
    for again in ["grant_credits('acme', 9e15)", "adjust_credits('acme', 9e15, 'x')"] {
        if let Err(error) = session.try_exec(&format!("select * from credits.{again}")) {
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{again}: {error}");
        }
    }
    session.set_clock("2026-01-01 01:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(holds(&mut session), ["h lapsed"]);
    assert_eq!(session.lines("select status from credits.deduct_usage('acme', 1)"), ["charged"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_rolled_back_was_never_held_nor_captured() {
    let mut session = held_books("what_is_rolled_back_was_never_held");
    let before = everything(&mut session);
    session.exec("begin");
    hold(&mut session, "2, idempotency_key => 'inner'");
    deduct(&mut session, "1");
    session.exec("savepoint s");
    capture(&mut session, "'inner', 1");
    capture(&mut session, "'h', 20");
    session.exec("rollback to s");
    assert_eq!(holds(&mut session), ["h open 8", "inner open 2", "spare open 3"]);
    release(&mut session, "inner");
    session.exec("rollback");
    assert_eq!(everything(&mut session), before);
    assert_eq!(hold(&mut session, "2, idempotency_key => 'inner'"), "2|7|f");
    assert_ledger_is_sound(&mut session);
}

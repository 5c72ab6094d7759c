//! The grant that pays next rides on its wallet's row (a plain deduction touches no other): whatever else happens, nobody can tell.

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use super::books::{grant, new_books};

/// What the stored rows say: the riding grant's credits on the wallet's row and in its own.
fn rides(session: &mut Session) -> Option<String> {
    let rides = session.lines(
        "select trim_scale(w.head_remaining) || ' on the wallet, ' || trim_scale(g.remaining) || ' in its row'
         from credits_data.wallets w join credits_data.grants g on g.grant_id = w.head_grant_id",
    );
    rides.into_iter().next()
}

/// Remaining of each grant as everybody sees it, in the order of spending.
fn remaining(session: &mut Session) -> Vec<String> {
    session.lines(
        "select metadata ->> 'name' || ' ' || remaining || ' ' || status from credits.grants
         where customer_id = 'acme' order by priority, expires_at nulls last, metadata ->> 'name'",
    )
}

fn deduct(session: &mut Session, amount: &str) {
    assert_eq!(session.one(&format!("select status from credits.deduct_usage('acme', {amount})")), "charged");
}

/// A grant of 100 that expires, one of 50 that does not, and two deductions: the second was plain.
fn riding(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "a", "100", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "b", "50", "");
    deduct(&mut session, "1");
    deduct(&mut session, "2.5");
    assert_eq!(rides(&mut session).as_deref(), Some("96.5 on the wallet, 99 in its row"));
    session
}

#[test]
fn what_rides_is_seen_by_everybody_who_reads() {
    let mut session = riding("what_rides_is_seen");
    assert_eq!(remaining(&mut session), ["a 96.5 active", "b 50 active"]);
    assert_eq!(session.lines("select balance, next_expiry_credits from credits.balance('acme')"), ["146.5|96.5"]);
    assert_eq!(session.lines("select credits from credits.preview_deduction('acme', 100)"), ["96.5", "3.5"]);
    assert_eq!(session.one("select remaining from credits.expiring_grants"), "96.5");
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(remaining(&mut session), ["a 0 expired", "b 50 active"]);
    assert_eq!(session.one("select balance from credits.wallets"), "50");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "50");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn every_other_operation_finds_the_whole_grant_in_its_row() {
    let calls = [
        ("grant_credits('acme', 5, metadata => '{\"name\": \"c\"}')", "a 96.5 active"),
        ("adjust_credits('acme', -0.5, 'test')", "a 96 active"),
        ("refund_usage('acme', (select transaction_id from credits.ledger where credits = 2.5))", "a 99 active"),
        (
            "void_grant('acme', (select grant_id from credits.grants where metadata ->> 'name' = 'a'), amount => 6.5)",
            "a 90 active",
        ),
        ("set_wallet_status('acme', 'default', 'frozen')", "a 96.5 active"),
        ("update_wallet('acme', 'default', priority => 7)", "a 96.5 active"),
        ("deduct_usage('acme', 100, 'split')", "a 0 exhausted"),
        ("deduct_usage('acme', 96.5, 'the last')", "a 0 exhausted"),
    ];
    for (number, (call, expected)) in calls.into_iter().enumerate() {
        let mut session = riding(&format!("every_other_operation_{number}"));
        session.exec(&format!("select * from credits.{call}"));
        assert_eq!(remaining(&mut session)[0], expected, "{call}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_grant_that_comes_earlier_takes_the_ride() {
    let mut session = riding("a_grant_that_comes_earlier");
    grant(&mut session, "c", "10", "expires_at => '2026-01-15 00:00+00'");
    assert_eq!(rides(&mut session), None);
    deduct(&mut session, "4");
    deduct(&mut session, "4");
    assert_eq!(remaining(&mut session), ["c 2 active", "a 96.5 active", "b 50 active"]);
    deduct(&mut session, "4");
    deduct(&mut session, "4");
    assert_eq!(remaining(&mut session), ["c 0 exhausted", "a 90.5 active", "b 50 active"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_limited_grant_never_rides() {
    let mut session = new_books("a_limited_grant_never_rides");
    grant(&mut session, "limited", "10", "applies_to => array['chat']");
    grant(&mut session, "any", "10", "");
    deduct(&mut session, "1");
    deduct(&mut session, "1");
    assert_eq!(rides(&mut session), None);
    session.exec("select * from credits.deduct_usage('acme', 3, event_name => 'chat')");
    assert_eq!(remaining(&mut session), ["any 8 active", "limited 7 active"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_used_key_and_a_rollback_leave_the_ride_as_it_was() {
    let mut session = riding("a_used_key_and_a_rollback");
    session.exec("select * from credits.deduct_usage('acme', 1, 'k')");
    assert_eq!(session.lines("select replayed, balance from credits.deduct_usage('acme', 1, 'k')"), ["t|145.5"]);
    assert_eq!(remaining(&mut session), ["a 95.5 active", "b 50 active"]);
    session.exec("begin");
    deduct(&mut session, "1");
    session.exec("savepoint s");
    deduct(&mut session, "10");
    deduct(&mut session, "10");
    session.exec("rollback to s");
    deduct(&mut session, "0.5");
    session.exec("commit");
    assert_eq!(remaining(&mut session), ["a 94 active", "b 50 active"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_second_wallet_ends_the_ride() {
    let mut session = riding("a_second_wallet_ends_the_ride");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    session.exec("select credits.grant_credits('acme', 3, 'promo', metadata => '{\"name\": \"p\"}')");
    deduct(&mut session, "4");
    assert_eq!(rides(&mut session), None);
    assert_eq!(
        session.lines("select wallet, balance from credits.balance('acme') order by wallet"),
        ["default|145.5", "promo|0"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn verify_ledger_sees_a_ride_that_was_tampered_with() {
    let mut session = riding("verify_ledger_sees_a_ride");
    session.exec("update credits_data.wallets set head_remaining = 97");
    let broken = session.lines("select invariant from credits.verify_ledger() order by 1");
    assert_eq!(broken, ["1", "2"]);
}

#[test]
fn verify_ledger_sees_what_is_stored_wrong() {
    let changes = [
        (
            "update credits_data.wallets set head_grant_id = (select grant_id from credits_data.grants where amount = 50), head_remaining = 50",
            "1 2 7",
        ),
        ("update credits_data.wallets set head_grant_id = gen_random_uuid()", "1 2 7"),
        ("update credits_data.wallets set head_remaining = null", "1 1 2"),
        ("update credits_data.wallets set is_anchor = false", "1"),
        ("update credits_data.wallets set last_recorded_at = '-infinity'", "1"),
        ("update credits_data.wallets set next_due_at = 'infinity'", "1"),
        ("update credits_data.grants set due_at = 'infinity'", "1"),
        ("update credits_data.grants set amount = amount * 10", "2 2"),
    ];
    let mut session = riding("verify_ledger_sees_what_is_stored");
    for (change, invariants) in changes {
        session.exec("begin");
        session.exec(change);
        let broken = session.lines("select invariant from credits.verify_ledger() order by 1");
        assert_eq!(broken.join(" "), invariants, "{change}");
        session.exec("rollback");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_expiry_while_the_grant_rides_expires_what_is_left() {
    let mut session = riding("an_expiry_while_the_grant_rides");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(session.lines("select grants_expired, credits_expired from credits.expire_grants()"), ["1|96.5"]);
    assert_eq!(remaining(&mut session), ["a 0 expired", "b 50 active"]);
    deduct(&mut session, "1");
    deduct(&mut session, "1");
    assert_eq!(rides(&mut session).as_deref(), Some("48 on the wallet, 49 in its row"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_rides_survives_dump_and_restore() {
    let mut session = riding("what_rides_survives_dump");
    let file = shared_cluster().dump("what_rides_survives_dump", "c");
    shared_cluster().restore(&file, "c", "what_rides_survives_dump_2");
    let mut restored = shared_cluster().session("what_rides_survives_dump_2");
    restored.set_clock("2026-01-01 00:00+00");
    assert_eq!(remaining(&mut restored), ["a 96.5 active", "b 50 active"]);
    deduct(&mut restored, "1");
    assert_eq!(remaining(&mut restored), ["a 95.5 active", "b 50 active"]);
    assert_ledger_is_sound(&mut restored);
    assert_eq!(remaining(&mut session), ["a 96.5 active", "b 50 active"]);
}

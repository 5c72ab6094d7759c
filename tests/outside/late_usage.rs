//! Late usage: what a grant that has expired since still pays, under its wallet's grace (SPEC 4).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, entries, grant, ledger, new_books};

/// A wallet with a grace of two days, whose grant `expired` of 10 ended on January 10th; `lives` has 100 left, and it is the 11th.
fn after_an_expiry(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '2 days')");
    grant(&mut session, "expired", "10", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "lives", "100", "");
    session.set_clock("2026-01-11 00:00+00");
    session
}

#[test]
fn late_usage_reverses_the_expiry_of_what_it_takes() {
    for settled_before in [true, false] {
        let mut session = after_an_expiry(&format!("late_usage_reverses_{settled_before}"));
        if settled_before {
            session.exec("select * from credits.expire_grants()");
        }
        assert_eq!(deduct(&mut session, "4, 'late', occurred_at => '2026-01-09 23:59:59.999999+00'"), "charged|4|4|0|100|f");
        assert_eq!(entries(&mut session, "late"), ["default expiration_reversed 4 expired", "default usage 4 expired"]);
        assert_eq!(
            ledger(&mut session),
            [
                "default 1 grant 10 10 01-01 00:00",
                "default 2 grant 100 110 01-01 00:00",
                "default 3 expiration -10 100 01-10 00:00",
                "default 4 expiration_reversed 4 104 01-11 00:00",
                "default 5 usage -4 100 01-11 00:00"
            ]
        );
        assert_eq!(
            session.lines("select metadata ->> 'name', status, remaining from credits.grants order by 1"),
            ["expired|expired|0", "lives|active|100"]
        );
        // The rest of it is still there for more late usage, and no more than the rest.
        assert_eq!(deduct(&mut session, "8, 'later', occurred_at => '2026-01-05 00:00+00'"), "charged|8|8|0|98|f");
        assert_eq!(
            entries(&mut session, "later"),
            ["default expiration_reversed 6 expired", "default usage 6 expired", "default usage 2 lives"]
        );
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn usage_after_the_expiry_is_not_paid_by_what_expired() {
    let mut session = after_an_expiry("usage_after_the_expiry");
    for (key, occurred_at) in [("at the expiry", "'2026-01-10 00:00+00'"), ("now", "null"), ("soon", "'2026-01-11 00:05+00'")] {
        deduct(&mut session, &format!("4, '{key}', occurred_at => {occurred_at}"));
        assert_eq!(entries(&mut session, key), ["default usage 4 lives"]);
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_expired_the_grace_ago_or_longer_pays_nothing() {
    let mut session = after_an_expiry("what_expired_the_grace_ago");
    session.set_clock("2026-01-11 23:59:59.999999+00");
    deduct(&mut session, "1, 'in time', occurred_at => '2026-01-09 00:00+00'");
    assert_eq!(entries(&mut session, "in time"), ["default expiration_reversed 1 expired", "default usage 1 expired"]);
    session.set_clock("2026-01-12 00:00+00");
    deduct(&mut session, "1, 'too late', occurred_at => '2026-01-09 00:00+00'");
    assert_eq!(entries(&mut session, "too late"), ["default usage 1 lives"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_grant_that_was_not_live_when_the_usage_happened_pays_nothing_under_grace() {
    let mut session = new_books("not_live_when_the_usage_happened");
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '2 days')");
    grant(&mut session, "from the 5th", "10", "effective_at => '2026-01-05 00:00+00', expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "lives", "100", "");
    session.set_clock("2026-01-11 00:00+00");
    deduct(&mut session, "1, 'before', occurred_at => '2026-01-04 23:59:59.999999+00'");
    assert_eq!(entries(&mut session, "before"), ["default usage 1 lives"]);
    deduct(&mut session, "1, 'at', occurred_at => '2026-01-05 00:00+00'");
    assert_eq!(entries(&mut session, "at"), ["default expiration_reversed 1 from the 5th", "default usage 1 from the 5th"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn without_a_grace_late_usage_is_charged_to_what_is_live_now() {
    let mut session = after_an_expiry("without_a_grace");
    session.exec("select credits.update_wallet('acme', 'default', reset => array['late_usage_grace'])");
    deduct(&mut session, "4, 'late', occurred_at => '2026-01-05 00:00+00'");
    assert_eq!(entries(&mut session, "late"), ["default usage 4 lives"]);
    let error = session.error("select * from credits.deduct_usage('acme', 97, occurred_at => '2026-01-05 00:00+00')");
    assert_eq!(error.symbol(), "insufficient_credits", "{error}");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_expired_is_spent_in_its_place_in_the_order() {
    let mut session = new_books("expired_in_its_place");
    session.exec(
        "select credits.update_wallet('acme', 'default', late_usage_grace => '2 days');
         select credits.create_wallet('acme', 'promo', priority => 1);
         select credits.create_wallet('acme', 'zulu', priority => 200, late_usage_grace => '2 days')",
    );
    grant(&mut session, "promo expired", "1", "wallet => 'promo', expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "promo lives", "1", "wallet => 'promo'");
    grant(&mut session, "urgent", "1", "priority => 1");
    grant(&mut session, "expired first", "1", "expires_at => '2026-01-09 12:00+00'");
    grant(&mut session, "expired second", "1", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "limited to others", "1", "expires_at => '2026-01-10 00:00+00', applies_to => array['other']");
    grant(&mut session, "lives", "1", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "expired and unimportant", "1", "priority => 101, expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "zulu expired", "1", "wallet => 'zulu', expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "zulu lives", "1", "wallet => 'zulu'");
    session.set_clock("2026-01-11 00:00+00");
    deduct(&mut session, "8, 'late', event_name => 'model.call', occurred_at => '2026-01-08 00:00+00'");
    assert_eq!(
        entries(&mut session, "late"),
        [
            "promo usage 1 promo lives",
            "default usage 1 urgent",
            "default expiration_reversed 1 expired first",
            "default usage 1 expired first",
            "default expiration_reversed 1 expired second",
            "default usage 1 expired second",
            "default usage 1 lives",
            "default expiration_reversed 1 expired and unimportant",
            "default usage 1 expired and unimportant",
            "zulu expiration_reversed 1 zulu expired",
            "zulu usage 1 zulu expired",
            "zulu usage 1 zulu lives"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn credits_that_were_spent_or_voided_before_the_expiry_do_not_come_back() {
    let mut session = new_books("spent_before_the_expiry");
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '2 days')");
    let voided = grant(&mut session, "voided", "10", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "used up", "3", "expires_at => '2026-01-09 00:00+00'");
    let id = grant(&mut session, "partly", "10", "expires_at => '2026-01-10 00:00+00'");
    session.exec(&format!("select credits.void_grant('acme', '{voided}')"));
    session.exec(&format!("select credits.void_grant('acme', '{id}', amount => 4)"));
    deduct(&mut session, "5, 'in time'");
    assert_eq!(entries(&mut session, "in time"), ["default usage 3 used up", "default usage 2 partly"]);
    session.set_clock("2026-01-10 12:00+00");
    assert_eq!(
        deduct(&mut session, "5, 'late', occurred_at => '2026-01-08 00:00+00', on_insufficient => 'partial'"),
        "partial|5|4|0|0|f"
    );
    assert_eq!(entries(&mut session, "late"), ["default expiration_reversed 4 partly", "default usage 4 partly"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_of_late_usage_expires_again_at_once() {
    let mut session = after_an_expiry("a_refund_of_late_usage");
    deduct(&mut session, "4, 'late', occurred_at => '2026-01-05 00:00+00'");
    assert_eq!(
        session.lines("select refunded, balance from credits.refund_usage('acme', 'late', 3, idempotency_key => 'back')"),
        ["3|100"]
    );
    assert_eq!(entries(&mut session, "back"), ["default usage_refunded 3 expired", "default expiration 3 expired"]);
    // 9 of the 10 are expired again, and can be reversed again.
    deduct(&mut session, "10, 'again', occurred_at => '2026-01-05 00:00+00'");
    assert_eq!(
        entries(&mut session, "again"),
        ["default expiration_reversed 9 expired", "default usage 9 expired", "default usage 1 lives"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn free_late_usage_reverses_nothing() {
    let mut session = after_an_expiry("free_late_usage");
    assert_eq!(deduct(&mut session, "0, 'free', occurred_at => '2026-01-05 00:00+00'"), "charged|0|0|0|100|f");
    assert_eq!(entries(&mut session, "free"), ["default usage 0"]);
    assert_ledger_is_sound(&mut session);
}

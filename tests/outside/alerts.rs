//! Alerts: when they fire, when they are armed again, and of what their percent is (SPEC 9).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{capture, deduct, grant, hold, new_books, release, told};
use crate::recurring::{recurring, settle};

const NOTHING: [&str; 0] = [];

/// Creates an alert of `acme`'s wallet `default` and returns its id.
pub fn alert(session: &mut Session, threshold: &str) -> String {
    session.one(&format!("select credits.create_alert('acme', 'default', {threshold})"))
}

/// The alerts in use: wallet, threshold and status.
pub fn alerts(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', nullif(wallet, 'default'), threshold_percent || '%', threshold_credits, status)
         from credits.alerts order by wallet, threshold_percent, threshold_credits",
    )
}

/// `acme` with 100 credits in its wallet.
fn hundred(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "bought", "100", "");
    session
}

#[test]
fn an_alert_fires_once_at_its_threshold_and_again_only_after_it_was_above() {
    let mut session = hundred("an_alert_fires_once");
    alert(&mut session, "threshold_credits => 20");
    deduct(&mut session, "79.999999999999");
    assert_eq!(told(&mut session), NOTHING);
    assert_eq!(alerts(&mut session), ["20 armed"]);
    deduct(&mut session, "0.000000000001");
    assert_eq!(told(&mut session), ["wallet.balance_low 20 at 20"], "exactly at the threshold");
    assert_eq!(alerts(&mut session), ["20 fired"]);
    deduct(&mut session, "5");
    deduct(&mut session, "1");
    grant(&mut session, "more", "6", "");
    assert_eq!(told(&mut session), NOTHING, "20 is not above 20");
    grant(&mut session, "more", "0.000000000001", "");
    assert_eq!(told(&mut session), ["wallet.balance_recovered 20 at 20.000000000001"]);
    assert_eq!(alerts(&mut session), ["20 armed"]);
    grant(&mut session, "more", "10", "");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "25");
    assert_eq!(told(&mut session), ["wallet.balance_low 20 at 5.000000000001"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_percent_is_of_what_was_there_after_the_last_credit() {
    let mut session = new_books("a_percent_of_the_last_credit");
    grant(&mut session, "bought", "200", "");
    alert(&mut session, "threshold_percent => 10");
    deduct(&mut session, "179");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "1");
    assert_eq!(told(&mut session), ["wallet.balance_low 10% at 20"]);
    grant(&mut session, "more", "1", "");
    assert_eq!(told(&mut session), ["wallet.balance_recovered 10% at 21"], "2.1 is ten percent now");
    deduct(&mut session, "18.899999999999");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "0.000000000001");
    assert_eq!(told(&mut session), ["wallet.balance_low 10% at 2.1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_a_percent_does_not_divide_is_not_rounded_up() {
    let mut session = new_books("a_percent_is_not_rounded_up");
    grant(&mut session, "bought", "0.000000000010", "");
    alert(&mut session, "threshold_percent => 25");
    deduct(&mut session, "0.000000000007");
    assert_eq!(told(&mut session), NOTHING, "3 is above 2.5");
    deduct(&mut session, "0.000000000001");
    assert_eq!(told(&mut session), ["wallet.balance_low 25% at 0.000000000002"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn within_the_dead_band_an_alert_stays_fired() {
    let mut session = hundred("within_the_dead_band");
    alert(&mut session, "threshold_credits => 20, rearm => 50");
    alert(&mut session, "threshold_percent => 10, rearm => 40");
    deduct(&mut session, "95, 'usage'");
    assert_eq!(told(&mut session), ["wallet.balance_low 20 at 5", "wallet.balance_low 10% at 5"]);
    session.exec("select * from credits.refund_usage('acme', 'usage', 35)");
    deduct(&mut session, "30");
    session.exec("select * from credits.refund_usage('acme', 'usage', 30)");
    assert_eq!(told(&mut session), NOTHING, "40 is in both bands");
    session.exec("select * from credits.refund_usage('acme', 'usage', 10)");
    assert_eq!(told(&mut session), ["wallet.balance_recovered 10% at 50"]);
    session.exec("select * from credits.refund_usage('acme', 'usage', 0.000000000001)");
    assert_eq!(told(&mut session), ["wallet.balance_recovered 20 at 50.000000000001"]);
    deduct(&mut session, "30.000000000001");
    assert_eq!(told(&mut session), ["wallet.balance_low 20 at 20"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_big_deduction_fires_all_that_it_passes_the_highest_first() {
    let mut session = hundred("one_big_deduction_fires_all");
    for threshold in ["threshold_credits => 5", "threshold_percent => 20", "threshold_credits => 50", "threshold_credits => 0"] {
        alert(&mut session, threshold);
    }
    deduct(&mut session, "97");
    assert_eq!(told(&mut session), ["wallet.balance_low 50 at 3", "wallet.balance_low 20% at 3", "wallet.balance_low 5 at 3"]);
    deduct(&mut session, "3");
    assert_eq!(told(&mut session), ["wallet.depleted at 0", "wallet.balance_low 0 at 0"]);
    grant(&mut session, "some", "40", "");
    let mut recovered = told(&mut session);
    recovered.sort();
    assert_eq!(
        recovered,
        ["wallet.balance_recovered 0 at 40", "wallet.balance_recovered 20% at 40", "wallet.balance_recovered 5 at 40"]
    );
    assert_eq!(alerts(&mut session), ["20% armed", "0 armed", "5 armed", "50 fired"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_held_is_still_there() {
    let mut session = hundred("what_is_held_is_still_there");
    alert(&mut session, "threshold_credits => 20");
    hold(&mut session, "95, '1 day', idempotency_key => 'captured'");
    deduct(&mut session, "3");
    hold(&mut session, "2, '1 day', idempotency_key => 'released'");
    assert_eq!(told(&mut session), NOTHING, "nothing can be spent, and 97 are there");
    capture(&mut session, "'captured', 76.999999999999");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "0.000000000001");
    assert_eq!(told(&mut session), ["wallet.balance_low 20 at 20"]);
    release(&mut session, "released");
    hold(&mut session, "20, '1 day'");
    session.set_clock("2026-01-03 00:00+00");
    settle(&mut session);
    assert_eq!(told(&mut session), NOTHING);
    assert_ledger_is_sound(&mut session);
}

/// What 100 percent of the wallet `default` are.
fn base(session: &mut Session) -> String {
    session.one("select trim_scale(credited_level) from credits_data.wallets where customer_id = 'acme' and wallet = 'default'")
}

#[test]
fn credits_that_come_in_make_the_base_of_percents_and_nothing_else_does() {
    let mut session = new_books("the_base_of_percents");
    session.exec(
        "select credits.update_wallet('acme', 'default', late_usage_grace => '10 days');
         select credits.create_wallet('acme', 'promo', priority => 900);
         select credits.grant_credits('acme', 50, 'promo')",
    );
    assert_eq!(base(&mut session), "0");
    let bought = grant(&mut session, "bought", "100", "");
    assert_eq!(base(&mut session), "100");
    let steps: [(&str, &str, &str); 13] = [
        ("a deduction", "* from credits.deduct_usage('acme', 42, 'used')", "100"),
        ("a refund", "* from credits.refund_usage('acme', 'used', 12)", "100"),
        ("a hold", "* from credits.hold_credits('acme', 10, idempotency_key => 'held', wallet => 'default')", "100"),
        ("a release", "* from credits.release_hold('acme', 'held')", "100"),
        ("what is scheduled", "credits.grant_credits('acme', 30, effective_at => '2026-01-05 00:00+00')", "100"),
        ("another expiry", &format!("credits.change_expiry('acme', '{bought}', '2027-01-01 00:00+00')"), "100"),
        ("a transfer in", "* from credits.transfer_credits('acme', 9, 'promo', 'default')", "79"),
        ("a transfer out", "* from credits.transfer_credits('acme', 6, 'default', 'promo')", "79"),
        ("an adjustment up", "* from credits.adjust_credits('acme', 5, 'goodwill')", "78"),
        ("an adjustment down", "* from credits.adjust_credits('acme', -5, 'mistake')", "78"),
        ("a used key", "* from credits.deduct_usage('acme', 42, 'used')", "78"),
        ("a limited grant", "credits.grant_credits('acme', 1, applies_to => array['chat'])", "74"),
        ("a grant elsewhere", "credits.grant_credits('acme', 1, 'promo')", "74"),
    ];
    for (what, call, expected) in steps {
        session.exec(&format!("select {call}"));
        assert_eq!(base(&mut session), expected, "after {what}");
    }
    session.set_clock("2026-01-05 00:00+00");
    settle(&mut session);
    assert_eq!(base(&mut session), "104", "an activation");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_expiry_reversed_for_late_usage_leaves_the_base() {
    let mut session = new_books("a_reversed_expiry_leaves_the_base");
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '10 days')");
    grant(&mut session, "short", "10", "expires_at => '2026-01-02 00:00+00'");
    grant(&mut session, "long", "90", "");
    alert(&mut session, "threshold_percent => 89, rearm => 95");
    session.set_clock("2026-01-03 00:00+00");
    assert_eq!(deduct(&mut session, "4, occurred_at => '2026-01-01 12:00+00'"), "charged|4|4|0|90|f");
    assert_eq!(session.one("select sum(credits) from credits.ledger where kind = 'expiration_reversed'"), "4");
    assert_eq!((base(&mut session).as_str(), told(&mut session)), ("100", vec![]));
    deduct(&mut session, "1");
    assert_eq!(told(&mut session), ["wallet.balance_low 89% at 89"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_renewal_counts_with_what_rolled_over() {
    let mut session = new_books("a_renewal_with_its_rollover");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 50");
    session.exec(
        "select credits.create_contract('acme', 'c', 30, '2026-01-01 00:00+00', '2026-03-10 00:00+00', on_end => 'rollover')",
    );
    alert(&mut session, "threshold_percent => 50");
    assert_eq!(base(&mut session), "130");
    deduct(&mut session, "40");
    session.set_clock("2026-02-01 00:00+00");
    settle(&mut session);
    // 60 are left of January (the contract ends later), of which 30 roll over.
    assert_eq!(base(&mut session), "160");
    deduct(&mut session, "79");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "1");
    assert_eq!(told(&mut session), ["wallet.balance_low 50% at 80"]);
    session.set_clock("2026-03-10 00:00+00");
    settle(&mut session);
    let level = session.one("select balance from credits.balance('acme')");
    assert_eq!(base(&mut session), level, "what a contract rolls over comes in");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_grant_counts_without_the_debt_that_it_repaid() {
    let mut session = new_books("a_grant_without_the_debt");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    deduct(&mut session, "30, 'owed'");
    alert(&mut session, "threshold_percent => 50");
    assert_eq!(told(&mut session), ["wallet.balance_low 50% at 0"]);
    grant(&mut session, "repays a part", "10", "");
    assert_eq!(told(&mut session), NOTHING);
    grant(&mut session, "repays", "120", "");
    assert_eq!((base(&mut session).as_str(), told(&mut session)), ("100", vec!["wallet.balance_recovered 50% at 100".into()]));
    deduct(&mut session, "50");
    assert_eq!(told(&mut session), ["wallet.balance_low 50% at 50"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn settling_is_one_step() {
    let mut session = new_books("settling_is_one_step");
    recurring(&mut session, "plan", "100, '1 month'");
    alert(&mut session, "threshold_credits => 50");
    session.set_clock("2026-04-15 00:00+00");
    settle(&mut session);
    assert_eq!(session.one("select count(*) from credits.ledger where kind = 'expiration'"), "3");
    assert_eq!(told(&mut session), NOTHING, "in between nothing was there");
    session.exec("select credits.cancel_recurring_grant('acme', 'plan')");
    session.set_clock("2026-06-15 00:00+00");
    // What time did is looked at before what the call does.
    grant(&mut session, "late", "60", "");
    assert_eq!(told(&mut session), ["wallet.depleted at 0", "wallet.balance_low 50 at 0", "wallet.balance_recovered 50 at 60"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_alert_created_at_or_below_its_threshold_fires_at_once() {
    let mut session = new_books("created_below_its_threshold");
    alert(&mut session, "threshold_percent => 20");
    assert_eq!(told(&mut session), ["wallet.balance_low 20% at 0"], "of nothing");
    grant(&mut session, "bought", "10", "");
    assert_eq!(told(&mut session), ["wallet.balance_recovered 20% at 10"]);
    alert(&mut session, "threshold_credits => 10");
    assert_eq!(told(&mut session), ["wallet.balance_low 10 at 10"]);
    alert(&mut session, "threshold_credits => 9.999999999999");
    assert_eq!(told(&mut session), NOTHING);
    assert_eq!(alerts(&mut session), ["20% armed", "9.999999999999 armed", "10 fired"]);
    assert_ledger_is_sound(&mut session);
}

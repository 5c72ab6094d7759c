//! Auto top-up: what requests one, and the life of a request from its worker's claim to the grant (SPEC 9).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::alerts::alert;
use crate::batches::deduct_batch;
use crate::books::{assert_refused, deduct, grant, hold, new_books, told};
use crate::inbox::{metered_books, process, receive};

pub const NOTHING: [&str; 0] = [];

/// Defines the auto top-up of `acme`'s wallet `default`.
pub fn auto(session: &mut Session, rule: &str) {
    assert_eq!(session.one(&format!("select credits.set_auto_top_up('acme', 'default', {rule})")), "default");
}

/// `acme` with 100 credits and an auto top-up.
pub fn hundred(rule: &str, auto_top_up: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "bought", "100", "");
    auto(&mut session, auto_top_up);
    session
}

/// The top-ups of `acme`, the first first: status, amount, failures if there were, reason.
pub fn top_ups(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', nullif(wallet, 'default'), status, amount, nullif(failures, 0), reason)
         from credits.top_ups
         join (select payload -> 'data' ->> 'top_up_id' as id, event_number from credits_data.events where type = 'top_up.requested') e
             on e.id = top_up_id::text
         where customer_id = 'acme'
         order by event_number",
    )
}

/// Claims what can be claimed; the ids.
pub fn claim(session: &mut Session) -> Vec<String> {
    session.lines("select top_up_id from credits.claim_top_ups()")
}

/// Claims the one that can be claimed.
pub fn claim_one(session: &mut Session) -> String {
    let mut claimed = claim(session);
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed.remove(0)
}

/// Completes a top-up; the grant.
pub fn complete(session: &mut Session, id: &str, reference: &str) -> String {
    session.one(&format!("select credits.complete_top_up('acme', '{id}', '{reference}')"))
}

pub fn fail(session: &mut Session, id: &str, more: &str) -> String {
    session.one(&format!("select credits.fail_top_up('acme', '{id}', 'declined'{more})"))
}

pub fn balance(session: &mut Session) -> String {
    session.one("select balance from credits.balance('acme', 'default')")
}

#[test]
fn a_request_is_claimed_and_completed_with_the_terms_of_its_rule() {
    let mut session = hundred(
        "a_request_is_claimed_and_completed",
        "20, 500, payment_method_id => 'pm_1', expires_after => '30 days', unit_price => 0.01, currency => 'EUR'",
    );
    deduct(&mut session, "79.999999999999");
    assert_eq!(top_ups(&mut session), NOTHING);
    deduct(&mut session, "0.000000000001");
    assert_eq!(top_ups(&mut session), ["pending 500"]);
    assert_eq!(told(&mut session), ["top_up.requested 500"]);
    deduct(&mut session, "1");
    assert_eq!(top_ups(&mut session), ["pending 500"], "one at a time");
    let id = session.one("select top_up_id from credits.top_ups");
    assert_eq!(
        session.lines("select * from credits.claim_top_ups(1, '1 hour')"),
        [format!("{id}|acme|default|500|pm_1|0.01|EUR|1")]
    );
    assert_eq!(top_ups(&mut session), ["claimed 500"]);
    session.set_clock("2026-01-01 00:30+00");
    let granted = complete(&mut session, &id, "pi_1");
    assert_eq!(
        session.lines(&format!(
            "select wallet, grant_type, status, amount, priority, effective_at, expires_at, unit_price, currency, metadata
             from credits.grants where grant_id = '{granted}'"
        )),
        [format!(
            "default|prepaid|active|500|100|2026-01-01 00:30:00+00|2026-01-31 00:30:00+00|0.01|EUR|\
             {{\"top_up_id\": \"{id}\", \"payment_reference\": \"pi_1\"}}"
        )]
    );
    assert_eq!(session.one(&format!("select sum(credits) from credits.ledger where transaction_id = '{id}'")), "500");
    assert_eq!(told(&mut session), ["top_up.succeeded 500"]);
    assert_eq!(
        session.lines("select status, finished_at, payment_reference, grant_id, available_at is null from credits.top_ups"),
        [format!("succeeded|2026-01-01 00:30:00+00|pi_1|{granted}|t")]
    );
    assert_eq!(claim(&mut session), NOTHING);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_lease_that_runs_out_is_claimed_again_under_the_same_id() {
    let mut session = hundred("a_lease_that_runs_out", "20, 500");
    deduct(&mut session, "90");
    let id = claim_one(&mut session);
    session.set_clock("2026-01-01 00:04:59.999999+00");
    assert_eq!(claim(&mut session), NOTHING);
    session.set_clock("2026-01-01 00:05+00");
    assert_eq!(top_ups(&mut session), ["pending 500"]);
    assert_eq!(session.lines("select top_up_id, attempt from credits.claim_top_ups()"), [format!("{id}|1")]);
    // The first worker was slow, not dead: its payment and the second one's are one, under the request's id.
    let granted = complete(&mut session, &id, "pi_1");
    assert_eq!(complete(&mut session, &id, "pi_1"), granted);
    let another = format!("complete_top_up('acme', '{id}', 'pi_2')");
    assert_refused(&mut session, &[(another.as_str(), "23505", "idempotency_key_reused")]);
    session.set_clock("2027-01-01 00:00+00");
    deduct(&mut session, "510");
    session.exec("select credits.void_grant('acme', grant_id) from credits.grants where status = 'active'");
    assert_eq!(complete(&mut session, &id, "pi_1"), granted, "whatever became of the credits");
    assert_eq!(session.one("select count(*) from credits.ledger where kind = 'grant'"), "2");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_payment_is_accepted_in_any_state_but_cancelled() {
    let mut session = hundred("a_payment_is_accepted", "20, 50");
    deduct(&mut session, "100");
    let pending = session.one("select top_up_id from credits.top_ups");
    complete(&mut session, &pending, "never claimed");
    deduct(&mut session, "50");
    let lost = claim_one(&mut session);
    session.set_clock("2026-01-02 00:00+00");
    complete(&mut session, &lost, "long after the lease");
    deduct(&mut session, "50");
    let failed = claim_one(&mut session);
    for _ in 0..5 {
        fail(&mut session, &failed, "");
    }
    assert_eq!(top_ups(&mut session), ["succeeded 50", "succeeded 50", "failed 50 5 declined"]);
    complete(&mut session, &failed, "after all");
    assert_eq!(top_ups(&mut session), ["succeeded 50", "succeeded 50", "succeeded 50 5"]);
    auto(&mut session, "20, 50");
    deduct(&mut session, "50");
    auto(&mut session, "20, 50, enabled => false");
    assert_eq!(top_ups(&mut session)[3..], ["cancelled 50 auto top-up was disabled"]);
    let cancelled = session.one("select top_up_id from credits.top_ups where status = 'cancelled'");
    let late = format!("complete_top_up('acme', '{cancelled}', 'too late')");
    let fails = format!("fail_top_up('acme', '{cancelled}', 'too late')");
    assert_refused(&mut session, &[(late.as_str(), "55000", "wrong_state"), (fails.as_str(), "55000", "wrong_state")]);
    assert_eq!(balance(&mut session), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn after_a_payment_the_threshold_is_looked_at_again() {
    let mut session = hundred("the_threshold_is_looked_at_again", "20, 15");
    deduct(&mut session, "100");
    let first = claim_one(&mut session);
    complete(&mut session, &first, "pi_1");
    assert_eq!(top_ups(&mut session), ["succeeded 15", "pending 15"]);
    assert_eq!(told(&mut session)[1..], ["top_up.requested 15", "top_up.succeeded 15", "top_up.requested 15"]);
    let second = claim_one(&mut session);
    complete(&mut session, &second, "pi_2");
    assert_eq!(top_ups(&mut session), ["succeeded 15", "succeeded 15"], "30 is enough");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_target_balance_is_reached_with_the_debt_repaid() {
    let mut session = new_books("a_target_balance_is_reached");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    grant(&mut session, "bought", "100", "");
    auto(&mut session, "10, target_balance => 200");
    hold(&mut session, "4, '1 year'");
    deduct(&mut session, "126");
    assert_eq!(session.lines("select balance, held, debt from credits.balance('acme')"), ["0|4|30"]);
    assert_eq!(top_ups(&mut session), ["pending 230"]);
    // The amount was fixed then.
    deduct(&mut session, "5");
    auto(&mut session, "10, target_balance => 1000");
    let id = claim_one(&mut session);
    assert_eq!(top_ups(&mut session), ["claimed 230"]);
    complete(&mut session, &id, "pi_1");
    assert_eq!(session.lines("select balance, held, debt from credits.balance('acme')"), ["195|4|0"]);
    assert_eq!(top_ups(&mut session), ["succeeded 230"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn debt_and_target_beyond_what_a_grant_holds_are_cut_to_it() {
    let mut session = new_books("debt_and_target_beyond_a_grant");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    deduct(&mut session, "6000000000000000");
    auto(&mut session, "0, target_balance => 7000000000000000");
    assert_eq!(top_ups(&mut session), ["pending 9999999999999999.999999999999"]);
    let id = claim_one(&mut session);
    complete(&mut session, &id, "pi_1");
    assert_eq!(session.lines("select balance, debt from credits.balance('acme')"), ["3999999999999999.999999999999|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_big_deduction_past_every_threshold_queues_one_request() {
    let mut session = hundred("one_big_deduction_queues_one", "30, 500");
    for threshold in [80, 30, 10] {
        alert(&mut session, &format!("threshold_credits => {threshold}"));
    }
    deduct(&mut session, "95");
    assert_eq!(
        told(&mut session),
        ["wallet.balance_low 80 at 5", "wallet.balance_low 30 at 5", "wallet.balance_low 10 at 5", "top_up.requested 500"]
    );
    deduct(&mut session, "5");
    assert_eq!(top_ups(&mut session), ["pending 500"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_rule_defined_below_its_threshold_requests_at_once() {
    let mut session = hundred("a_rule_defined_below_its_threshold", "100, 7");
    assert_eq!(top_ups(&mut session), ["pending 7"]);
    session.exec("select credits.create_wallet('acme', 'promo')");
    session.exec("select credits.set_auto_top_up('acme', 'promo', 0, 3)");
    assert_eq!(top_ups(&mut session), ["pending 7", "promo pending 3"]);
    assert_eq!(claim(&mut session).len(), 2);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_attempt_that_does_not_raise_and_is_insufficient_requests_a_top_up() {
    for (name, call) in [
        ("report", "* from credits.deduct_usage('acme', 300, 'k', on_insufficient => 'report')"),
        ("partial", "* from credits.deduct_usage('acme', 300, 'k', on_insufficient => 'partial')"),
        (
            "batch",
            "* from credits.deduct_usage_batch('[{\"customer_id\": \"acme\", \"amount\": 300, \"idempotency_key\": \"k\"}]')",
        ),
        ("capture", "* from credits.capture_hold('acme', 'held', 300, 'report')"),
    ] {
        let mut session = hundred(&format!("insufficient_{name}_requests"), "5, 500");
        hold(&mut session, "10, '1 day', idempotency_key => 'held'");
        session.error("select * from credits.deduct_usage('acme', 300)");
        session.error("select * from credits.hold_credits('acme', 300)");
        assert_eq!(top_ups(&mut session), NOTHING, "what raises leaves nothing");
        session.exec(&format!("select {call}"));
        assert_eq!(top_ups(&mut session), ["pending 500"], "{name}");
        // As long as it would not be enough it is needed.
        assert_eq!(claim(&mut session).len(), 1, "{name}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn an_event_of_the_inbox_without_credits_requests_a_top_up_and_is_charged_by_it() {
    let mut session = metered_books("the_inbox_requests_a_top_up");
    auto(&mut session, "5, 500");
    receive(&mut session, "('acme', 'e1', 'generate', '{\"tokens\": 300}'), ('acme', 'e2', 'call', '{}')");
    assert_eq!(process(&mut session), "1|1|1|f");
    assert_eq!(top_ups(&mut session), ["pending 500"]);
    process(&mut session);
    let id = claim_one(&mut session);
    complete(&mut session, &id, "pi_1");
    assert_eq!(process(&mut session), "1|0|310|f");
    assert_eq!(top_ups(&mut session), ["succeeded 500"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn usage_that_had_been_charged_before_requests_nothing() {
    let mut session = hundred("a_replay_requests_nothing", "5, 500");
    deduct(&mut session, "60, 'k'");
    for mode in ["error", "report", "partial"] {
        assert_eq!(deduct(&mut session, &format!("60, 'k', on_insufficient => '{mode}'")), "charged|60|60|0|40|t");
    }
    let item = r#"{"customer_id": "acme", "amount": 60, "idempotency_key": "k"}"#;
    deduct_batch(&mut session, &format!("[{item}]"));
    deduct_batch(&mut session, &format!("[{item}, {item}]"));
    assert_eq!(top_ups(&mut session), NOTHING);
    deduct_batch(&mut session, &format!("[{item}, {}]", item.replace("\"k\"", "\"new\"")));
    assert_eq!(top_ups(&mut session), ["pending 500"], "this one was new");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_not_needed_any_more_is_cancelled_when_it_would_be_claimed() {
    let mut session = hundred("what_is_not_needed_any_more", "20, 500");
    deduct(&mut session, "80");
    grant(&mut session, "by hand", "0.000000000001", "");
    assert_eq!(claim(&mut session), NOTHING);
    assert_eq!(top_ups(&mut session), ["cancelled 500 the balance is above the threshold again"]);
    assert_eq!(told(&mut session), ["top_up.requested 500"]);
    deduct(&mut session, "0.000000000001");
    assert_eq!(top_ups(&mut session)[1..], ["pending 500"]);
    // Claimed: from now on it may have been paid.
    let id = claim_one(&mut session);
    grant(&mut session, "by hand", "100", "");
    assert_eq!(claim(&mut session), NOTHING);
    session.set_clock("2026-01-01 01:00+00");
    assert_eq!(claim(&mut session), [id.as_str()], "its outcome is unknown");
    // It is known that it was not.
    assert_eq!(fail(&mut session, &id, ""), "open");
    session.set_clock("2026-01-01 02:00+00");
    assert_eq!(claim(&mut session), NOTHING);
    assert_eq!(top_ups(&mut session)[1..], ["cancelled 500 1 the balance is above the threshold again"]);
    assert_ledger_is_sound(&mut session);
}

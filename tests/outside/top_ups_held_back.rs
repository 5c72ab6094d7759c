//! Top-ups that a cooldown or a cap holds back, and that settling queues when it ends (SPEC 9).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, grant, new_books, told};
use crate::recurring::settle;
use crate::top_ups::{NOTHING, auto, claim, claim_one, complete, hundred, top_ups};

fn held_back_until(session: &mut Session) -> String {
    session.lines("select held_back_until from credits.auto_top_ups").concat()
}

/// The next one is claimed and paid at once.
fn pay(session: &mut Session, reference: &str) {
    let id = claim_one(session);
    complete(session, &id, reference);
}

#[test]
fn a_cooldown_begins_when_the_last_top_up_came() {
    let mut session = hundred("a_cooldown_begins", "20, 5, cooldown => '1 hour'");
    deduct(&mut session, "90");
    session.set_clock("2026-01-01 00:30+00");
    pay(&mut session, "pi_1");
    assert_eq!(held_back_until(&mut session), "2026-01-01 01:30:00+00");
    session.set_clock("2026-01-01 01:29:59.999999+00");
    deduct(&mut session, "1");
    deduct(&mut session, "100, on_insufficient => 'report'");
    settle(&mut session);
    assert_eq!(top_ups(&mut session), ["succeeded 5"]);
    session.set_clock("2026-01-01 01:30+00");
    settle(&mut session);
    assert_eq!(top_ups(&mut session), ["succeeded 5", "pending 5"]);
    assert_eq!(held_back_until(&mut session), "");
    assert_eq!(told(&mut session), ["top_up.requested 5", "top_up.succeeded 5", "top_up.requested 5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn whoever_touches_the_customer_queues_what_was_held_back() {
    let mut session = hundred("whoever_touches_the_customer", "20, 5, cooldown => '1 hour'");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1), credits.grant_credits('acme', 1000, 'promo')");
    deduct(&mut session, "90, wallet => 'default'");
    pay(&mut session, "pi_1");
    session.set_clock("2026-01-01 01:00+00");
    assert_eq!(session.lines("select balance from credits.balance('acme', 'default')"), ["15"]);
    assert_eq!(top_ups(&mut session), ["succeeded 5"], "reading writes nothing");
    deduct(&mut session, "1, wallet => 'promo'");
    assert_eq!(top_ups(&mut session), ["succeeded 5", "pending 5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_not_needed_when_the_cooldown_ends_is_not_queued() {
    let mut session = hundred("not_needed_when_the_cooldown_ends", "20, 5, cooldown => '1 hour'");
    deduct(&mut session, "90");
    pay(&mut session, "pi_1");
    grant(&mut session, "by hand", "6", "");
    assert_eq!(held_back_until(&mut session), "", "nothing is wanted");
    session.set_clock("2026-01-01 00:30+00");
    deduct(&mut session, "2");
    assert_eq!(held_back_until(&mut session), "2026-01-01 01:00:00+00");
    grant(&mut session, "by hand", "100", "");
    session.set_clock("2026-01-01 02:00+00");
    settle(&mut session);
    assert_eq!(top_ups(&mut session), ["succeeded 5"]);
    deduct(&mut session, "100");
    assert_eq!(top_ups(&mut session), ["succeeded 5", "pending 5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_usage_wanted_is_kept_while_it_is_held_back() {
    let mut session = hundred("what_usage_wanted_is_kept", "5, 50, cooldown => '1 hour'");
    deduct(&mut session, "150, on_insufficient => 'report'");
    pay(&mut session, "pi_1");
    // 150 are there, above the threshold; 200 were wanted, then 170.
    deduct(&mut session, "200, on_insufficient => 'report'");
    deduct(&mut session, "170, on_insufficient => 'report'");
    assert_eq!(held_back_until(&mut session), "2026-01-01 01:00:00+00");
    grant(&mut session, "by hand", "30", "");
    session.set_clock("2026-01-01 01:00+00");
    settle(&mut session);
    assert_eq!(top_ups(&mut session), ["succeeded 50", "pending 50"]);
    assert_eq!(claim(&mut session).len(), 1, "180 is less than 200");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_cap_counts_within_any_period() {
    let mut session = hundred("a_cap_counts_within_any_period", "20, 1, max_per_period => 2, period => '1 day'");
    deduct(&mut session, "100");
    pay(&mut session, "pi_1");
    session.set_clock("2026-01-01 06:00+00");
    pay(&mut session, "pi_2");
    // The second was requested when the first was paid, at midnight.
    assert_eq!(held_back_until(&mut session), "2026-01-02 00:00:00+00");
    session.set_clock("2026-01-01 23:59:59.999999+00");
    settle(&mut session);
    assert_eq!(claim(&mut session), NOTHING);
    session.set_clock("2026-01-02 00:00+00");
    settle(&mut session);
    assert_eq!(top_ups(&mut session), ["succeeded 1", "succeeded 1", "pending 1"]);
    session.set_clock("2026-01-02 07:00+00");
    pay(&mut session, "pi_3");
    assert_eq!(top_ups(&mut session)[3..], ["pending 1"], "the second is more than a day old");
    pay(&mut session, "pi_4");
    assert_eq!(held_back_until(&mut session), "2026-01-03 00:00:00+00", "a day after the third was requested");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_cancelled_or_failed_does_not_count() {
    let mut session =
        hundred("what_was_cancelled_does_not_count", "20, 50, max_per_period => 1, period => '1 day', cooldown => '1 day'");
    deduct(&mut session, "90");
    grant(&mut session, "by hand", "20", "");
    assert_eq!(claim(&mut session), NOTHING);
    deduct(&mut session, "20");
    assert_eq!(top_ups(&mut session), ["cancelled 50 the balance is above the threshold again", "pending 50"]);
    let id = claim_one(&mut session);
    for _ in 0..5 {
        session.exec(&format!("select credits.fail_top_up('acme', '{id}', 'declined')"));
    }
    auto(&mut session, "20, 50, max_per_period => 1, period => '1 day', cooldown => '1 day'");
    assert_eq!(top_ups(&mut session)[2..], ["pending 50"]);
    pay(&mut session, "pi");
    deduct(&mut session, "50");
    assert_eq!(held_back_until(&mut session), "2026-01-02 00:00:00+00");
    // A new rule without either does not wait.
    auto(&mut session, "20, 50");
    assert_eq!(top_ups(&mut session)[3..], ["pending 50"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn job_health_and_maintenance_know_of_what_is_held_back() {
    let mut session = hundred("maintenance_knows_of_what_is_held_back", "20, 5, cooldown => '1 hour'");
    deduct(&mut session, "90");
    pay(&mut session, "pi_1");
    session.set_clock("2026-01-01 01:00+00");
    settle(&mut session);
    let again = session.lines("select task from credits.run_maintenance() where more_due or items > 0");
    assert_eq!((again, top_ups(&mut session).len()), (vec![], 2));
    pay(&mut session, "pi_2");
    auto(&mut session, "20, 5, enabled => false");
    session.set_clock("2026-01-01 03:00+00");
    settle(&mut session);
    assert_eq!(top_ups(&mut session), ["succeeded 5", "succeeded 5"], "a rule that is disabled wants nothing");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn maintenance_counts_what_was_held_back_so_that_its_loop_goes_on() {
    let mut session = new_books("maintenance_counts_held_back");
    session.exec(
        "select credits.create_wallet('c' || n), credits.set_auto_top_up('c' || n, 'default', 10, 5, cooldown => '1 hour')
         from generate_series(1, 6) n",
    );
    session.exec("select credits.complete_top_up(customer_id, top_up_id, customer_id) from credits.claim_top_ups()");
    session.set_clock("2026-01-01 02:00+00");
    let run = "select items, more_due from credits.run_maintenance(4) where task = 'queue_top_ups'";
    assert_eq!([session.lines(run), session.lines(run), session.lines(run)], [["4|t"], ["2|f"], ["0|f"]]);
    assert_eq!(session.one("select count(*) from credits.top_ups where status = 'pending'"), "6");
    assert_ledger_is_sound(&mut session);
}

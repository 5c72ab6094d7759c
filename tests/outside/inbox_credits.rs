//! Events of the inbox that found no credits: they wait, and are tried again after the next credit to their customer (SPEC 8).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::concurrency::{at_once, sessions};
use crate::inbox::{metered_books, process, receive};

/// Books in which `zoe` has the wallets `default` and `promo` without credits and one event that waits for three.
fn waiting_books(rule: &str) -> Session {
    let mut session = metered_books(rule);
    session.exec("select credits.create_wallet('zoe'), credits.create_wallet('zoe', 'promo', priority => 1, late_usage_grace => '10 days')");
    waits(&mut session, 1);
    session
}

/// Another event of `zoe` over three credits, which she has not.
fn waits(session: &mut Session, number: u32) {
    session.exec(&format!(
        "insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
         values ('zoe', 'event {number}', 'generate', '{{\"tokens\": 1.5}}')"
    ));
    assert_eq!(process(session), "0|1|0|f", "event {number}");
    assert_eq!(
        session.lines("select event_id, split_part(error, ':', 1), waits_for_credit is not null from credits.usage_inbox"),
        [format!("event {number}|insufficient_credits|t")]
    );
}

/// What is left in the inbox and what `zoe` was charged.
fn left_and_charged(session: &mut Session) -> String {
    session.lines(
        "select (select count(*) from credits.usage_inbox),
             (select trim_scale(coalesce(sum(credits), 0)) from credits.ledger where customer_id = 'zoe' and event_name = 'generate')",
    )
    .concat()
}

#[test]
fn a_grant_lets_the_waiting_event_be_charged() {
    let mut session = waiting_books("a_grant_lets_it_be_charged");
    session.exec("select credits.grant_credits('zoe', 2)");
    assert_eq!(process(&mut session), "0|1|0|f", "tried again, and not enough");
    assert_eq!(process(&mut session), "0|0|0|f");
    session.exec("select credits.grant_credits('acme', 10)");
    assert_eq!(process(&mut session), "0|0|0|f", "to another customer");
    session.exec("select credits.grant_credits('zoe', 1)");
    assert_eq!(process(&mut session), "1|0|3|f");
    assert_eq!(left_and_charged(&mut session), "0|3");
    assert_ledger_is_sound(&mut session);
}

/// A grant limited to other events is a credit to the customer, too: the event is tried, and waits again.
#[test]
fn credits_that_may_not_pay_the_event_leave_it_waiting() {
    let mut session = waiting_books("credits_that_may_not_pay");
    session.exec("select credits.grant_credits('zoe', 10, applies_to => array['call'])");
    assert_eq!(process(&mut session), "0|1|0|f");
    session.exec("select credits.grant_credits('zoe', 10, applies_to => array['generate'])");
    assert_eq!(process(&mut session), "1|0|3|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_no_credit_lets_nothing_be_tried_again() {
    let mut session = waiting_books("what_is_no_credit");
    session.exec(
        "select credits.grant_credits('zoe', 50, effective_at => '2026-03-01 00:00+00');
         select credits.update_wallet('zoe', 'default', name => 'Main');
         select credits.set_wallet_status('zoe', 'promo', 'frozen'), credits.set_wallet_status('zoe', 'promo', 'active');
         select * from credits.deduct_usage('zoe', 5, on_insufficient => 'report');
         select * from credits.deduct_usage('zoe', 0);
         select * from credits.record_usage('zoe', 'generate', '{\"tokens\": 0}');
         select credits.create_wallet('zoe', 'third')",
    );
    session.set_clock("2026-01-20 00:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(process(&mut session), "0|0|0|f");
    assert_eq!(
        session.lines("select failed_at, waits_for_credit is not null from credits.usage_inbox"),
        ["2026-01-01 00:00:00+00|t"],
        "it was not looked at"
    );
    session.set_clock("2026-03-01 00:00+00");
    session.exec("select * from credits.expire_grants(); select * from credits.run_maintenance()");
    assert_eq!(left_and_charged(&mut session), "0|3", "the scheduled grant became effective");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn every_kind_of_credit_lets_the_waiting_event_be_charged() {
    let mut session = metered_books("every_kind_of_credit");
    session.exec(
        "select credits.create_wallet('zoe', 'saved', priority => 1), credits.create_wallet('zoe', 'frozen');
         select credits.grant_credits('zoe', 4, 'frozen', idempotency_key => 'moved later');
         select credits.set_wallet_status('zoe', 'frozen', 'frozen');
         select credits.grant_credits('zoe', 9, 'saved');
         select * from credits.deduct_usage('zoe', 3, 'refunded later');
         select * from credits.hold_credits('zoe', 3, '10 days', idempotency_key => 'released later');
         select * from credits.hold_credits('zoe', 3, '20 days', idempotency_key => 'lapses later')",
    );
    for (number, waits_at, at, credit) in [
        (1, "2026-01-02", "2026-01-02", "select * from credits.refund_usage('zoe', 'refunded later')"),
        (2, "2026-01-03", "2026-01-03", "select * from credits.release_hold('zoe', 'released later')"),
        (3, "2026-01-04", "2026-01-04", "select * from credits.adjust_credits('zoe', 3, 'gift', 'saved')"),
        (4, "2026-01-05", "2026-01-05", "select credits.create_recurring_grant('zoe', 'monthly', 3, '1 month', 'saved')"),
        (
            5,
            "2026-01-06",
            "2026-01-06",
            "select credits.create_contract('zoe', 'deal', 3, '2026-01-01 00:00+00', '2026-03-01 00:00+00', 'saved')",
        ),
        // What was held lapses on the 21st, and the period ends on February 5th.
        (6, "2026-01-20", "2026-01-21", "select * from credits.expire_grants(); select * from credits.run_maintenance()"),
        (7, "2026-02-04", "2026-02-05", "select * from credits.renew_grants(); select * from credits.process_inbox()"),
        (8, "2026-02-06", "2026-02-06", "select credits.grant_credits('zoe', 3, 'saved'); select * from credits.process_inbox()"),
    ] {
        session.set_clock(&format!("{waits_at} 00:00+00"));
        waits(&mut session, number);
        session.set_clock(&format!("{at} 00:00+00"));
        session.exec(credit);
        if number < 6 {
            assert_eq!(process(&mut session), "1|0|3|f", "{credit}");
        }
        assert_eq!(left_and_charged(&mut session), format!("0|{}", 3 * number), "{credit}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_transfer_from_a_wallet_that_may_not_pay_lets_the_event_be_charged() {
    let mut session = metered_books("a_transfer_lets_it_be_charged");
    session.exec(
        "select credits.create_wallet('zoe'), credits.create_wallet('zoe', 'reserve');
         select credits.create_meter('from default', 'index', 'count', pricing => '{\"model\": \"per_unit\", \"credits\": 4}', wallet => 'default');
         select credits.grant_credits('zoe', 10, 'reserve')",
    );
    receive(&mut session, "('zoe', 'a', 'index', '{}')");
    assert_eq!(process(&mut session), "0|1|0|f");
    session.exec("select * from credits.transfer_credits('zoe', 5, 'reserve', 'default')");
    assert_eq!(process(&mut session), "1|0|4|f");
    assert_eq!(session.lines("select wallet, balance from credits.balance('zoe')"), ["default|1", "reserve|5"]);
    assert_ledger_is_sound(&mut session);
}

/// What is due comes with the first call that touches the customer: if that is process_inbox itself, the event is paid by it.
#[test]
fn a_renewal_that_nobody_has_settled_pays_an_event_that_is_new() {
    let mut session = waiting_books("a_renewal_nobody_settled");
    session.exec("select credits.create_recurring_grant('zoe', 'monthly', 10, '1 month', starts_at => '2026-02-01 00:00+00')");
    session.set_clock("2026-02-10 00:00+00");
    receive(&mut session, "('zoe', 'new', 'call', '{}')");
    assert_eq!(process(&mut session), "1|0|1|t", "now credits have come for the one that waits");
    assert_eq!(process(&mut session), "1|0|3|f");
    assert_eq!(
        session.lines(
            "select transaction_id, kind, amount, occurred_at
             from credits.ledger where customer_id = 'zoe' and kind = 'usage' order by seq"
        ),
        ["new|usage|-1|2026-02-10 00:00:00+00", "event 1|usage|-3|2026-02-10 00:00:00+00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn several_waiting_events_share_the_credits_that_come_in_the_order_of_their_arrival() {
    let mut session = waiting_books("waiting_events_share");
    receive(
        &mut session,
        "('zoe', 'b', 'call', '{}'), ('acme', 'c', 'call', '{}'), ('zoe', 'd', 'call', '{}'), ('zoe', 'e', 'generate', '{\"tokens\": 2}')",
    );
    assert_eq!(process(&mut session), "1|3|1|f");
    session.exec("select credits.grant_credits('zoe', 4)");
    assert_eq!(session.lines("select * from credits.process_inbox(2)").concat(), "2|0|4|t", "event 1 and b");
    assert_eq!(session.lines("select * from credits.process_inbox(2)").concat(), "0|2|0|f");
    assert_eq!(session.lines("select event_id from credits.usage_inbox order by inbox_id"), ["d", "e"]);
    session.exec("select credits.grant_credits('zoe', 5)");
    assert_eq!(process(&mut session), "2|0|5|f");
    assert_eq!(session.one("select sum(balance) from credits.balance('zoe')"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_that_waits_passes_a_smaller_one_that_can_be_paid() {
    let mut session = waiting_books("a_smaller_one_can_be_paid");
    session.exec("select credits.grant_credits('zoe', 2)");
    receive(&mut session, "('zoe', 'b', 'call', '{}'), ('zoe', 'c', 'call', '{}')");
    assert_eq!(process(&mut session), "2|1|2|f");
    assert_eq!(session.lines("select event_id from credits.usage_inbox"), ["event 1"]);
    assert_ledger_is_sound(&mut session);
}

/// Sessions that grant a credit at a time and sessions that charge: every event is charged in the end without a retry by hand.
#[test]
fn credits_that_come_while_the_inbox_is_processed_are_never_missed() {
    const EVENTS: usize = 60;
    let mut session = waiting_books("credits_never_missed");
    session.exec(&format!(
        "insert into credits.usage_inbox (customer_id, event_id, event_name) select 'zoe', 'e' || n, 'call' from generate_series(1, {EVENTS}) n"
    ));
    let mut workers = sessions("credits_never_missed", 4);
    at_once(&mut workers, |number, worker| {
        worker.set_clock("2026-01-01 00:00+00");
        for round in 0..(EVENTS + 4) / 2 {
            worker.exec(&match number {
                0 | 1 => format!("select credits.grant_credits('zoe', 1, idempotency_key => 'credit {number} {round}')"),
                _ => format!("select * from credits.process_inbox({})", 5 + number),
            });
        }
    });
    while session.one("select more_due from credits.process_inbox()") == "t" {}
    assert_eq!(session.one("select count(*) from credits.usage_inbox"), "0");
    // 64 credits, of which 60 calls and three for the first event are spent
    assert_eq!(session.one("select sum(balance) from credits.balance('zoe')"), "1");
    assert_ledger_is_sound(&mut session);
}

//! What the world outside is told of grants: those that were given, that expired and that will expire, if somebody listens (SPEC 9).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::books::{deduct, grant, hold, new_books, release, told};
use crate::concurrency::{at_once, sessions};
use crate::recurring::settle;

const NOTHING: [&str; 0] = [];

/// Books whose events are pulled.
fn pulled_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec("set credits.pull_events = on");
    session
}

#[test]
fn grants_are_told_of_only_if_somebody_listens() {
    let mut session = new_books("told_only_if_somebody_listens");
    grant(&mut session, "unheard", "5", "expires_at => '2026-01-03 00:00+00'");
    settle(&mut session);
    deduct(&mut session, "5");
    assert_eq!(told(&mut session), NOTHING, "not even that nothing is left");
    grant(&mut session, "short", "7", "expires_at => '2026-01-03 00:00+00'");
    session.exec("set credits.pull_events = on");
    settle(&mut session);
    assert_eq!(told(&mut session), ["grant.expiring 7"]);
    session.set_clock("2026-01-03 00:00+00");
    session.exec("set credits.pull_events = off");
    settle(&mut session);
    assert_eq!(told(&mut session), NOTHING);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_given_and_what_expires_is_told_in_order() {
    let mut session = pulled_books("given_and_expired_in_order");
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '5 days')");
    grant(&mut session, "short", "7", "expires_at => '2026-01-03 00:00+00'");
    grant(&mut session, "later", "9", "effective_at => '2026-01-02 00:00+00', expires_at => '2026-01-04 00:00+00'");
    deduct(&mut session, "2, 'used'");
    assert_eq!(told(&mut session), ["grant.created 7", "grant.created 9"]);
    session.set_clock("2026-01-05 00:00+00");
    deduct(&mut session, "0");
    assert_eq!(told(&mut session), ["grant.expired 5", "grant.expired 9", "wallet.depleted at 0"]);
    session.exec("select * from credits.refund_usage('acme', 'used', 1)");
    assert_eq!(told(&mut session), ["grant.expired 1"], "what came back ended at once");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_grant_is_told_once_that_it_will_expire() {
    let mut session = pulled_books("told_once_that_it_will_expire");
    let id = grant(&mut session, "rides", "10", "expires_at => '2026-01-20 00:00+00'");
    grant(&mut session, "next", "4", "expires_at => '2026-01-20 00:00+00'");
    grant(&mut session, "for ever", "1", "");
    session.set_clock("2026-01-12 23:59:59.999999+00");
    settle(&mut session);
    told(&mut session);
    session.set_clock("2026-01-13 00:00+00");
    deduct(&mut session, "3");
    hold(&mut session, "7, '1 day', idempotency_key => 'held'");
    settle(&mut session);
    assert_eq!(told(&mut session), ["grant.expiring 4"], "nothing is left of the first but what is held");
    release(&mut session, "held");
    assert_eq!(
        session.lines("select items, credits, more_due from credits.run_maintenance() where task = 'notice_expiring'"),
        ["1|7|f"]
    );
    settle(&mut session);
    assert_eq!(told(&mut session), ["grant.expiring 7"]);
    // Another life is another grant.
    session.exec(&format!("select credits.change_expiry('acme', '{id}', '2026-02-20 00:00+00')"));
    settle(&mut session);
    session.set_clock("2026-02-14 00:00+00");
    settle(&mut session);
    settle(&mut session);
    let expiring: Vec<String> = told(&mut session).into_iter().filter(|event| event.contains("expiring")).collect();
    assert_eq!(expiring, ["grant.expiring 7"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_notice_is_as_long_as_its_setting_and_comes_in_batches() {
    let mut session = pulled_books("the_notice_is_as_long_as_its_setting");
    for name in ["a", "b", "c"] {
        grant(&mut session, name, "1", "expires_at => '2026-01-02 00:00+00'");
    }
    told(&mut session);
    session.exec("set credits.expiring_notice = '23 hours'");
    let run = "select items, more_due from credits.run_maintenance(2) where task = 'notice_expiring'";
    assert_eq!(session.lines(run), ["0|f"]);
    session.set_clock("2026-01-01 01:00+00");
    assert_eq!(session.lines(run), ["2|t"]);
    assert_eq!(session.lines(run), ["1|f"]);
    assert_eq!(told(&mut session), ["grant.expiring 1", "grant.expiring 1", "grant.expiring 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn maintenance_side_by_side_tells_of_each_grant_once() {
    const ROUNDS: usize = 20;
    const CUSTOMERS: usize = 60;
    let mut session = shared_cluster().new_database("tells_of_each_grant_once");
    session.exec(&format!("select credits.create_wallet('c' || n) from generate_series(1, {CUSTOMERS}) n"));
    let mut workers = sessions("tells_of_each_grant_once", 8);
    workers.iter_mut().for_each(|worker| worker.exec("set credits.pull_events = on"));
    for _ in 0..ROUNDS {
        session.exec(&format!(
            "select credits.grant_credits('c' || n, 1, expires_at => credits.clock() + '1 day') from generate_series(1, {CUSTOMERS}) n"
        ));
        at_once(&mut workers, |number, worker| {
            for _ in 0..3 {
                worker.exec(&format!("select * from credits.run_maintenance({})", 40 + 40 * number));
            }
        });
    }
    settle(&mut session);
    assert_eq!(
        session.lines(
            "select g.customer_id, g.grant_id, count(event_id) from credits.grants g
             left join credits_data.events e on e.type = 'grant.expiring' and e.payload -> 'data' ->> 'grant_id' = g.grant_id::text
             group by 1, 2 having count(event_id) <> 1"
        ),
        NOTHING
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn overage_starts_when_more_is_open_than_none() {
    let mut session = new_books("overage_starts_once");
    session.exec(
        "set credits.pull_events = on;
         select credits.create_wallet('zoe', overage_policy => 'invoice', overage_unit_price => 1, overage_currency => 'USD');
         select * from credits.deduct_usage('zoe', 100, 'k')",
    );
    session.set_clock("2026-01-02 00:00+00");
    session.exec("select * from credits.close_overage(); select * from credits.refund_usage('zoe', 'k', 3)");
    let started = "select count(*) from credits_data.events where type = 'overage.started'";
    assert_eq!(session.one(started), "1");
    session.exec("select * from credits.deduct_usage('zoe', 1); select * from credits.deduct_usage('zoe', 2)");
    assert_eq!(session.one(started), "1", "less than what is given back");
    session.exec("select * from credits.deduct_usage('zoe', 1); select * from credits.deduct_usage('zoe', 1)");
    assert_eq!(session.one(started), "2");
    assert_ledger_is_sound(&mut session);
}

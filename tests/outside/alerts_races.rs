//! Sixteen sessions at one wallet: exactly one event for each crossing, at the very deduction that crossed (SPEC 9).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::concurrency::{at_once, sessions};

const SESSIONS: usize = 16;
const ROUNDS: usize = 6;

/// Repeats a call that the isolation level made fail.
fn persist(session: &mut Session, call: &str) {
    while let Err(error) = session.try_exec(call) {
        assert_eq!(error.sqlstate, "40001", "{call}\n{error}");
    }
}

/// What was told since the last call: type, threshold and balance.
fn told(session: &mut Session) -> Vec<String> {
    session.lines(
        "with gone as (delete from credits_data.events returning event_number, type, payload -> 'data' as data)
         select concat_ws(' ', type, data ->> 'threshold', 'at', data ->> 'balance') from gone order by event_number",
    )
}

fn one_event_for_each_crossing(database: &str, level: &str, setup: &str) {
    let mut session = shared_cluster().new_database(database);
    session.exec(&format!(
        "select credits.create_wallet('acme'); {setup};
         select credits.grant_credits('acme', 160);
         select credits.create_alert('acme', 'default', threshold_credits => 100),
             credits.create_alert('acme', 'default', threshold_credits => 50, rearm => 60),
             credits.create_alert('acme', 'default', threshold_percent => 25)"
    ));
    let mut workers = sessions(database, SESSIONS);
    for worker in &mut workers {
        worker.exec(&format!("set default_transaction_isolation = '{level}'"));
    }
    for round in 0..ROUNDS {
        at_once(&mut workers, |number, worker| {
            for step in 0..10 {
                persist(worker, &format!("select * from credits.deduct_usage('acme', 1, '{round} {number} {step}', 'default')"));
            }
        });
        assert_eq!(
            told(&mut session),
            [
                "wallet.balance_low 100 at 100",
                "wallet.balance_low 50 at 50",
                "wallet.balance_low 40 at 40",
                "wallet.depleted at 0"
            ],
            "round {round}"
        );
        // Ten credits from each session: up again past each threshold once.
        at_once(&mut workers, |number, worker| {
            persist(worker, &format!("select credits.grant_credits('acme', 10, idempotency_key => 'grant {round} {number}')"));
        });
        assert_eq!(
            told(&mut session),
            // A quarter of what is there after a grant is less than that.
            ["wallet.balance_recovered 2.5 at 10", "wallet.balance_recovered 50 at 70", "wallet.balance_recovered 100 at 110"],
            "round {round}"
        );
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn sixteen_sessions_cross_each_threshold_once() {
    one_event_for_each_crossing("cross_once_plain", "read committed", "select 1");
}

#[test]
fn sixteen_sessions_cross_each_threshold_once_in_one_of_two_wallets() {
    one_event_for_each_crossing("cross_once_two", "read committed", "select credits.create_wallet('acme', 'a', priority => 1)");
}

#[test]
fn sixteen_sessions_that_retry_cross_each_threshold_once() {
    one_event_for_each_crossing("cross_once_repeatable", "repeatable read", "select 1");
    one_event_for_each_crossing("cross_once_serializable", "serializable", "select credits.create_wallet('acme', 'a')");
}

/// Deductions and refunds of 1 at once around one threshold: down and up alternate.
#[test]
fn down_and_up_alternate_whatever_runs_at_once() {
    let mut session = shared_cluster().new_database("down_and_up");
    session.exec(
        "select credits.create_wallet('acme'), credits.create_wallet('acme', 'spare');
         select credits.grant_credits('acme', 1000), credits.grant_credits('acme', 1000, 'spare');
         select credits.create_alert('acme', 'default', threshold_credits => 999)",
    );
    let mut workers = sessions("down_and_up", SESSIONS);
    at_once(&mut workers, |number, worker| {
        for round in 0..25 {
            let key = format!("{number} {round}");
            worker.exec(&format!("select * from credits.deduct_usage('acme', 1, '{key}', 'default')"));
            worker.exec(&format!("select * from credits.refund_usage('acme', '{key}')"));
        }
    });
    let types = session.lines("select type from credits_data.events order by event_number");
    assert!(types.len() >= 2 && types.len().is_multiple_of(2), "{types:?}");
    for pair in types.chunks(2) {
        assert_eq!(pair, ["wallet.balance_low", "wallet.balance_recovered"], "{types:?}");
    }
    // What the ledger says: how often 1000 was left, and come back to.
    let crossings = "select count(*) from (
            select balance_after, lag(balance_after) over (order by seq) as before from credits.ledger where wallet = 'default') l
        where (balance_after > 999) <> (before > 999)";
    assert_eq!(session.one(crossings), types.len().to_string());
    assert_ledger_is_sound(&mut session);
}

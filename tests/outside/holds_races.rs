//! Holds beside everything else: plain deductions from the riding grant, many sessions on one customer, a capture and a release at
//! once (SPEC 4, 7 and 12).

use std::collections::BTreeMap;

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::books::{capture, deduct, grant, hold, holds, new_books, release};
use crate::concurrency::{at_once, sessions};
use crate::workload::{Random, seed};

const SESSIONS: usize = 16;

/// Remaining of each grant as everybody sees it, in the order of spending.
fn remaining(session: &mut Session) -> Vec<String> {
    session.lines(
        "select metadata ->> 'name' || ' ' || remaining from credits.grants
         where customer_id = 'acme' order by priority, expires_at nulls last, metadata ->> 'name'",
    )
}

/// `a` has 100 credits until February, `b` 50 for ever; two deductions of 1 and 2.5, so that `a` rides on the wallet's row.
fn riding(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "a", "100", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "b", "50", "");
    deduct(&mut session, "1");
    deduct(&mut session, "2.5");
    session
}

#[test]
fn plain_deductions_go_on_beside_open_holds() {
    let mut session = riding("plain_beside_open_holds");
    assert_eq!(hold(&mut session, "40, idempotency_key => 'h'"), "40|106.5|f");
    assert_eq!(remaining(&mut session), ["a 56.5", "b 50"]);
    assert_eq!(deduct(&mut session, "1"), "charged|1|1|0|105.5|f");
    assert_eq!(deduct(&mut session, "1.5"), "charged|1.5|1.5|0|104|f");
    assert_eq!(hold(&mut session, "60, idempotency_key => 'over both'"), "60|44|f");
    assert_eq!(remaining(&mut session), ["a 0", "b 44"]);
    assert_eq!(deduct(&mut session, "2"), "charged|2|2|0|42|f");
    assert_eq!(deduct(&mut session, "2"), "charged|2|2|0|40|f");
    // What comes back comes earlier than what rides now.
    assert_eq!(capture(&mut session, "'h', 10"), "charged|10|10|0|70|f");
    assert_eq!(remaining(&mut session), ["a 30", "b 40"]);
    assert_eq!(deduct(&mut session, "3"), "charged|3|3|0|67|f");
    assert_eq!(deduct(&mut session, "3"), "charged|3|3|0|64|f");
    assert_eq!(remaining(&mut session), ["a 24", "b 40"]);
    assert_eq!(release(&mut session, "over both"), "over both|60|124");
    assert_eq!(remaining(&mut session), ["a 78", "b 46"]);
    assert_eq!(deduct(&mut session, "8"), "charged|8|8|0|116|f");
    assert_eq!(deduct(&mut session, "80"), "charged|80|80|0|36|f");
    assert_eq!(remaining(&mut session), ["a 0", "b 36"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_plain_deduction_lets_a_due_hold_lapse_first() {
    let mut session = riding("plain_lets_a_hold_lapse");
    hold(&mut session, "96.5, '1 hour', idempotency_key => 'h'");
    deduct(&mut session, "1");
    assert_eq!(deduct(&mut session, "1"), "charged|1|1|0|48|f");
    session.set_clock("2026-01-01 01:00+00");
    assert_eq!(deduct(&mut session, "1"), "charged|1|1|0|143.5|f");
    assert_eq!(deduct(&mut session, "1"), "charged|1|1|0|142.5|f");
    assert_eq!(remaining(&mut session), ["a 94.5", "b 48"], "from what lapsed");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn captures_of_every_size_leave_the_riding_grant_right() {
    for (number, amount) in ["0", "0.000000000001", "96.499999999999", "96.5", "97", "146.5", "150"].into_iter().enumerate() {
        let mut session = riding(&format!("captures_of_every_size_{number}"));
        hold(&mut session, "96.5, idempotency_key => 'h'");
        deduct(&mut session, "1");
        session.exec(&format!("select * from credits.capture_hold('acme', 'h', {amount})"));
        deduct(&mut session, "0.5, on_insufficient => 'partial'");
        deduct(&mut session, "0.5, on_insufficient => 'partial'");
        let totals = session.lines(
            "select (select trim_scale(sum(remaining)) from credits.grants) = balance, held,
                    balance = 150 - (select sum(credits) from credits.ledger where kind in ('usage', 'hold_captured'))
             from credits.balance('acme')",
        );
        assert_eq!(totals, ["t|0|t"], "capture of {amount}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn verify_ledger_sees_a_hold_that_is_stored_wrong() {
    let mut session = riding("verify_sees_a_hold_stored_wrong");
    hold(&mut session, "10, idempotency_key => 'h'");
    hold(&mut session, "5, idempotency_key => 'captured'");
    capture(&mut session, "'captured'");
    for change in [
        "update credits_data.wallets set held = held - 1",
        "update credits_data.holds set status = 'released', due_at = 'infinity' where hold_id = 'h'",
        "update credits_data.holds set status = 'open', due_at = expires_at where hold_id = 'captured'",
        "update credits_data.holds set due_at = 'infinity' where hold_id = 'h'",
        "delete from credits_data.holds where hold_id = 'h'",
    ] {
        session.exec("begin");
        session.exec(change);
        let broken = session.lines("select invariant from credits.verify_ledger() order by 1");
        assert_eq!(broken, ["1"], "{change}");
        session.exec("rollback");
    }
    assert_ledger_is_sound(&mut session);
}

/// Sixteen sessions hold, capture, release and deduct on one customer, each counting what it was told.
#[test]
fn sixteen_sessions_on_one_customer_account_for_every_credit() {
    const STEPS: usize = 60;
    let seed = seed();
    for (database, wallets) in [("holds_plain", 1), ("holds_pair", 2)] {
        let mut session = shared_cluster().new_database(database);
        session.exec("select credits.create_wallet('acme'); select credits.grant_credits('acme', 3000)");
        if wallets == 2 {
            session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
        }
        for _ in 0..20 {
            let wallet = if wallets == 2 { "promo" } else { "default" };
            session.exec(&format!("select credits.grant_credits('acme', 50, '{wallet}', expires_at => '2199-01-01')"));
        }
        let mut sessions = sessions(database, SESSIONS);
        let spent: Vec<u64> = at_once(&mut sessions, |number, session| {
            let mut random = Random::new(seed + number as u64);
            (0..STEPS).map(|step| step_of_work(session, &mut random, &format!("{number}-{step}"))).sum()
        });
        let spent: u64 = spent.iter().sum();
        assert_eq!(
            session.lines("select sum(balance), sum(held), count(*) from credits.balance('acme')"),
            [format!("{}|0|{wallets}", 4000 - spent)],
            "SEED={seed}"
        );
        let charged = "select sum(credits) from credits.ledger where kind in ('usage', 'hold_captured')";
        assert_eq!(session.one(charged), spent.to_string());
        let open = "select hold_id from credits.holds where status not in ('captured', 'released')";
        assert_eq!(session.lines(open), [""; 0]);
        assert_ledger_is_sound(&mut session);
    }
}

/// A hold that is captured in part, whole, beyond or not at all, or a deduction; returns what was charged.
fn step_of_work(session: &mut Session, random: &mut Random, key: &str) -> u64 {
    let amount = random.between(1, 9);
    let charged = |session: &mut Session, call: &str| {
        let sql = format!("select deducted from credits.{call}");
        match session.try_rows(&sql) {
            Ok(rows) => rows[0][0].as_deref().and_then(|text| text.parse::<u64>().ok()).expect("a whole number"),
            Err(error) => {
                assert_eq!(error.symbol(), "insufficient_credits", "{sql}\n{error}");
                0
            }
        }
    };
    if random.chance(30) {
        return charged(session, &format!("deduct_usage('acme', {amount}, '{key}', on_insufficient => 'partial')"));
    }
    if let Err(error) =
        session.try_rows(&format!("select from credits.hold_credits('acme', {amount}, idempotency_key => '{key}')"))
    {
        assert_eq!(error.symbol(), "insufficient_credits", "{error}");
        return 0;
    }
    let captured = random.below(14);
    if captured > 10 {
        assert_eq!(session.one(&format!("select released from credits.release_hold('acme', '{key}')")), amount.to_string());
        return 0;
    }
    charged(session, &format!("capture_hold('acme', '{key}', {captured}, 'partial', 'of {key}')"))
}

#[test]
fn of_a_capture_and_a_release_at_once_exactly_one_wins() {
    const ROUNDS: usize = 60;
    let mut session = shared_cluster().new_database("capture_or_release");
    session.exec("select credits.create_wallet('acme'); select credits.grant_credits('acme', 1000)");
    let mut sessions = sessions("capture_or_release", 4);
    let mut winners = BTreeMap::new();
    for round in 0..ROUNDS {
        session.exec(&format!("select * from credits.hold_credits('acme', 7, idempotency_key => 'h{round}')"));
        let answers = at_once(&mut sessions, |number, session| {
            let call = match number {
                0 => format!("capture_hold('acme', 'h{round}', 2, idempotency_key => 'c{round}')"),
                1 => format!("capture_hold('acme', 'h{round}', 2, idempotency_key => 'd{round}')"),
                _ => format!("release_hold('acme', 'h{round}')"),
            };
            session.try_rows(&format!("select * from credits.{call}")).map_err(|error| error.symbol().to_owned()).map(|_| number)
        });
        let won: Vec<usize> = answers.iter().filter_map(|answer| answer.clone().ok()).collect();
        assert!([vec![0], vec![1], vec![2, 3]].contains(&won), "a capture, or the release that both repeat: {answers:?}");
        let refused = answers.iter().filter_map(|answer| answer.clone().err());
        assert!(refused.clone().all(|symbol| symbol == "wrong_state"), "{answers:?}");
        assert_eq!(won.len() + refused.count(), 4);
        *winners.entry(won).or_insert(0_u32) += 1;
    }
    println!("winners: {winners:?}");
    let captured: u32 = winners.iter().filter(|(won, _)| won.len() == 1).map(|(_, count)| count).sum();
    assert_eq!(session.lines("select balance, held from credits.balance('acme')"), [format!("{}|0", 1000 - 2 * captured)]);
    assert_eq!(
        session.lines("select refers_to from credits.ledger where refers_to is not null group by 1 having sum(credits) <> 7"),
        [""; 0],
        "each hold ended once"
    );
    assert_ledger_is_sound(&mut session);
}

/// The same capture under one key by all sessions at once, and the same hold.
#[test]
fn a_key_raced_on_by_holds_and_captures_works_once() {
    let mut session = shared_cluster().new_database("raced_holds");
    session.exec("select credits.create_wallet('acme'); select credits.grant_credits('acme', 1000)");
    let mut sessions = sessions("raced_holds", SESSIONS);
    for level in ["read committed", "repeatable read", "serializable"] {
        let key = level.replace(' ', "-");
        for call in [
            format!("select held, replayed from credits.hold_credits('acme', 5, idempotency_key => 'h-{key}')"),
            format!("select deducted, replayed from credits.capture_hold('acme', 'h-{key}', 3, idempotency_key => 'c-{key}')"),
        ] {
            let answers = at_once(&mut sessions, |_, session| {
                session.exec(&format!("set default_transaction_isolation = '{level}'"));
                loop {
                    match session.try_rows(&call) {
                        Ok(rows) => return rows[0].clone().into_iter().flatten().collect::<Vec<String>>().join("|"),
                        Err(error) if error.sqlstate == "40001" && level != "read committed" => {}
                        Err(error) => panic!("{call}\n{error}"),
                    }
                }
            });
            let worked = answers.iter().filter(|answer| answer.ends_with("|f")).count();
            assert_eq!(worked, 1, "{call}: {answers:?}");
            assert!(answers.iter().all(|answer| answer.split('|').next() == answers[0].split('|').next()), "{answers:?}");
        }
    }
    assert_eq!(session.lines("select balance, held from credits.balance('acme')"), ["991|0"]);
    assert_eq!(holds(&mut session), ["h-read-committed captured", "h-repeatable-read captured", "h-serializable captured"]);
    assert_ledger_is_sound(&mut session);
}

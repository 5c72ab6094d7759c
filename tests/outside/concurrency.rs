//! Many sessions at once: nothing is spent twice, nothing acknowledged is lost, nobody deadlocks.

use std::sync::Barrier;
use std::thread;

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::workload::{Random, Work, seed};

const SESSIONS: usize = 16;

/// Runs the same work in all sessions at once and returns what each made of it.
pub fn at_once<T: Send>(sessions: &mut [Session], work: impl Fn(usize, &mut Session) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(sessions.len());
    let (start, work) = (&start, &work);
    thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|(number, session)| {
                scope.spawn(move || {
                    start.wait();
                    work(number, session)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no session failed")).collect()
    })
}

/// So many sessions in a database of the shared cluster.
pub fn sessions(database: &str, count: usize) -> Vec<Session> {
    (0..count).map(|_| shared_cluster().session(database)).collect()
}

/// Sixteen sessions take so many random steps each; `level` gives each its isolation level.
fn work_at_once(database: &str, steps: usize, level: impl Fn(usize) -> &'static str) {
    let seed = seed();
    let work = Work::begin(shared_cluster(), database, seed, false);
    let mut workers: Vec<_> = (0..SESSIONS).map(|number| work.worker(level(number))).collect();
    thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(move || (0..steps).for_each(|_| worker.step()));
        }
    });
    work.assert_books(&mut shared_cluster().session(database));
}

/// Any error but the refusals that the work itself provokes fails it: a deadlock (40P01) too, and at this level also 40001.
#[test]
fn sixteen_sessions_of_mixed_work_leave_exactly_what_was_acknowledged() {
    work_at_once("mixed_work", 500, |_| "read committed");
}

/// Transactions at the stricter levels fail with 40001 and are repeated with the same keys.
#[test]
fn sessions_of_different_isolation_levels_share_the_customers() {
    let levels = ["read committed", "read committed", "repeatable read", "serializable"];
    work_at_once("mixed_levels", 150, |number| levels[number % levels.len()]);
}

#[test]
fn first_wallets_created_at_once_make_one_customer() {
    const ROUNDS: usize = 60;
    let seed = seed();
    let mut session = shared_cluster().new_database("first_wallets");
    let mut sessions = sessions("first_wallets", SESSIONS);
    for round in 0..ROUNDS {
        // Four codes, so four sessions want each; some of them are rolled back, so that another must take over.
        let created = at_once(&mut sessions, |number, session| {
            let mut random = Random::new(seed + (round * SESSIONS + number) as u64);
            let code = number % 4;
            session.exec("begin");
            let result = session.try_exec(&format!("select credits.create_wallet('new-{round}', 'wallet-{code}')"));
            if let Err(error) = result {
                assert_eq!((error.sqlstate.as_str(), error.symbol()), ("42710", "already_exists"), "{error}");
                session.exec("rollback");
                return (code, false);
            }
            session.exec(&format!(
                "select credits.grant_credits('new-{round}', 5, 'wallet-{code}', idempotency_key => 'gift-{number}')"
            ));
            let keeps = random.chance(70);
            session.exec(if keeps { "commit" } else { "rollback" });
            (code, keeps)
        });
        let mut kept: Vec<usize> = created.iter().filter(|(_, keeps)| *keeps).map(|(code, _)| *code).collect();
        kept.sort_unstable();
        let is_once = kept.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(is_once, "each wallet is created once, SEED={seed}: {created:?}");
        assert_eq!(
            session
                .lines(&format!("select wallet, balance from credits.wallets where customer_id = 'new-{round}' order by wallet")),
            kept.iter().map(|code| format!("wallet-{code}|5")).collect::<Vec<_>>(),
            "SEED={seed}"
        );
    }
    assert_eq!(
        session.lines("select customer_id from credits_data.wallets group by 1 having count(*) filter (where is_anchor) <> 1"),
        [""; 0],
        "each customer has one lock"
    );
    assert_ledger_is_sound(&mut session);
}

/// The same call under one key by all sessions at once: one does the work, the others replay it.
fn one_works_the_others_replay(database: &str, level: &str, rounds: usize, setup: &str, call: &str) {
    let mut session = shared_cluster().new_database(database);
    session.exec(setup);
    let mut sessions = sessions(database, SESSIONS);
    for session in &mut sessions {
        session.exec(&format!("set default_transaction_isolation = '{level}'"));
    }
    for round in 0..rounds {
        let call = call.replace("{key}", &format!("key-{round}"));
        let answers = at_once(&mut sessions, |_, session| {
            loop {
                match session.try_rows(&call) {
                    Ok(rows) => return rows,
                    Err(error) if error.sqlstate == "40001" && level != "read committed" => {}
                    Err(error) => panic!("{call}\n{error}"),
                }
            }
        });
        // Each answer: what was done, and whether it was a replay, if the function tells.
        let (done, replayed): (Vec<_>, Vec<_>) = answers.iter().map(|rows| rows[0].split_at(rows[0].len() - 1)).unzip();
        assert!(done.iter().all(|answer| *answer == done[0]), "all get the first result: {answers:?}");
        let worked = replayed.iter().filter(|flag| flag[0].as_deref() != Some("t")).count();
        let expected = if replayed[0][0].is_none() { SESSIONS } else { 1 };
        assert_eq!(worked, expected, "one does the work: {answers:?}");
    }
    let transactions =
        "select count(*) from (select from credits.ledger where transaction_id like 'key-%' group by transaction_id) as t";
    assert_eq!(session.one(transactions), rounds.to_string());
    let twice =
        "select transaction_id from credits.ledger where transaction_id like 'key-%' group by 1 having count(*) <> max(line)";
    assert_eq!(session.lines(twice), [""; 0]);
    assert_ledger_is_sound(&mut session);
}

const ONE_WALLET: &str = "select credits.create_wallet('acme'); select credits.grant_credits('acme', 1000000)";
const TWO_WALLETS: &str = "select credits.create_wallet('acme'); select credits.create_wallet('acme', 'promo', priority => 10);
     select credits.grant_credits('acme', 1000000); select credits.grant_credits('acme', 13, 'promo')";

#[test]
fn a_key_raced_on_by_plain_deductions_is_charged_once() {
    let call = "select transaction_id, status, deducted, replayed from credits.deduct_usage('acme', 3, '{key}')";
    one_works_the_others_replay("raced_plain", "read committed", 40, ONE_WALLET, call);
}

#[test]
fn a_key_raced_on_at_stricter_levels_is_charged_once() {
    let call = "select transaction_id, status, deducted, replayed from credits.deduct_usage('acme', 3, '{key}')";
    one_works_the_others_replay("raced_repeatable", "repeatable read", 15, ONE_WALLET, call);
    one_works_the_others_replay("raced_serializable", "serializable", 15, TWO_WALLETS, call);
}

#[test]
fn a_key_raced_on_over_two_wallets_is_charged_once() {
    let call = "select transaction_id, status, deducted, replayed
                from credits.deduct_usage('acme', 5, '{key}', on_insufficient => 'partial')";
    one_works_the_others_replay("raced_two_wallets", "read committed", 30, TWO_WALLETS, call);
}

#[test]
fn a_key_raced_on_by_grants_grants_once() {
    let call = "select credits.grant_credits('acme', 7, idempotency_key => '{key}'), null";
    one_works_the_others_replay("raced_grants", "read committed", 30, ONE_WALLET, call);
}

#[test]
fn a_key_raced_on_by_transfers_and_refunds_moves_once() {
    let transfer =
        "select transaction_id, transferred, replayed from credits.transfer_credits('acme', 2, 'default', 'promo', '{key}')";
    one_works_the_others_replay("raced_transfers", "read committed", 20, TWO_WALLETS, transfer);
    let used = format!("{TWO_WALLETS}; select * from credits.deduct_usage('acme', 100, 'usage')");
    let refund = "select transaction_id, refunded, replayed from credits.refund_usage('acme', 'usage', 1, null, '{key}')";
    one_works_the_others_replay("raced_refunds", "read committed", 20, &used, refund);
}

/// Sixteen sessions empty one wallet, each asking for more than its share: all of it is spent, and not a credit more.
#[test]
fn the_last_credits_are_spent_once() {
    let mut session = shared_cluster().new_database("last_credits");
    let mut sessions = sessions("last_credits", SESSIONS);
    for (customer, setup) in [("plain", ""), ("two", "select credits.create_wallet('two', 'promo', priority => 10)")] {
        session.exec(&format!("select credits.create_wallet('{customer}'); {setup}"));
        for _ in 0..20 {
            session.exec(&format!("select credits.grant_credits('{customer}', 10)"));
        }
        let charged = at_once(&mut sessions, |number, session| {
            let mode = ["error", "report", "partial"][number % 3];
            let call = format!("select deducted from credits.deduct_usage('{customer}', 3, on_insufficient => '{mode}')");
            let mut deducted: Vec<String> = Vec::new();
            loop {
                match session.try_rows(&call) {
                    Ok(rows) if rows[0][0].as_deref() == Some("0") => return deducted,
                    Ok(rows) => deducted.extend(rows[0][0].clone()),
                    Err(error) => {
                        assert_eq!(error.symbol(), "insufficient_credits", "{error}");
                        return deducted;
                    }
                }
            }
        });
        // 66 times 3, and 2 credits are left for whoever takes a part.
        let mut charged: Vec<String> = charged.into_iter().flatten().collect();
        charged.sort_unstable();
        let mut expected = vec!["2".to_owned()];
        expected.extend(vec!["3".to_owned(); 66]);
        assert_eq!(charged, expected, "{customer}");
        assert_eq!(session.lines(&format!("select sum(balance) from credits.balance('{customer}')")), ["0"]);
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn maintenance_side_by_side_settles_each_due_customer_once() {
    const CUSTOMERS: usize = 300;
    let mut session = shared_cluster().new_database("side_by_side");
    session.set_clock("2026-01-01 00:00+00");
    session.exec(&format!(
        "select credits.create_wallet('c-' || n) from generate_series(1, {CUSTOMERS}) as n;
         select credits.grant_credits('c-' || n, 10, expires_at => '2026-02-01 00:00+00') from generate_series(1, {CUSTOMERS}) as n;
         select credits.grant_credits('c-' || n, 5, effective_at => '2026-02-02 00:00+00') from generate_series(1, {CUSTOMERS}) as n"
    ));
    let mut sessions = sessions("side_by_side", 4);
    let settled = at_once(&mut sessions, |number, session| {
        session.set_clock("2026-02-03 00:00+00");
        let (mut customers, mut expired) = (0, 0);
        loop {
            // The two doors side by side; run_maintenance does not count customers, but each has one activation.
            let call = if number % 2 == 0 {
                "select customers_settled, grants_expired, more_due from credits.expire_grants(7)"
            } else {
                "select sum(items) filter (where task = 'activate_grants'), sum(items) filter (where task = 'expire_grants'), bool_or(more_due)
                 from credits.run_maintenance(7)"
            };
            let row: Vec<String> = session.rows(call).remove(0).into_iter().flatten().collect();
            customers += row[0].parse::<usize>().expect("a number");
            expired += row[1].parse::<usize>().expect("a number");
            if row[2] == "f" {
                return (customers, expired);
            }
        }
    });
    let total = settled.iter().fold((0, 0), |total, done| (total.0 + done.0, total.1 + done.1));
    assert_eq!(total, (CUSTOMERS, CUSTOMERS), "{settled:?}");
    assert_eq!(
        session.lines(
            "select kind, count(*), count(distinct customer_id), sum(credits), min(occurred_at), max(occurred_at)
             from credits.ledger where kind not in ('grant', 'grant_scheduled') group by 1 order by 1"
        ),
        [
            "expiration|300|300|3000|2026-02-01 00:00:00+00|2026-02-01 00:00:00+00",
            "grant_activated|300|300|1500|2026-02-02 00:00:00+00|2026-02-02 00:00:00+00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

/// A session that holds a customer's lock for long holds up nobody else's maintenance.
#[test]
fn maintenance_passes_over_a_locked_customer_and_comes_back() {
    let mut session = shared_cluster().new_database("passes_over");
    session.set_clock("2026-01-01 00:00+00");
    session.exec(
        "select credits.create_wallet(c) from unnest(array['busy', 'idle']) as c;
         select credits.grant_credits(c, 10, expires_at => '2026-02-01 00:00+00') from unnest(array['busy', 'idle']) as c",
    );
    let mut other = shared_cluster().session("passes_over");
    other.set_clock("2026-02-02 00:00+00");
    session.exec("begin; select * from credits.deduct_usage('busy', 1, 'before')");
    let call = "select customers_settled, grants_expired, credits_expired, more_due from credits.expire_grants()";
    other.exec("set lock_timeout = '5s'");
    assert_eq!(other.lines(call), ["1|1|10|t"], "the busy customer is still due");
    session.exec("commit");
    assert_eq!(other.lines(call), ["1|1|9|f"]);
    assert_ledger_is_sound(&mut session);
}

/// Transactions that touch two customers in opposite orders may deadlock, as PostgreSQL says; whoever is told so tries again.
#[test]
fn a_deadlock_of_long_transactions_leaves_the_books_sound() {
    let mut session = shared_cluster().new_database("opposite_orders");
    session.exec(
        "select credits.create_wallet(c) from unnest(array['one', 'two']) as c;
         select credits.grant_credits(c, 1000) from unnest(array['one', 'two']) as c",
    );
    let mut sessions = sessions("opposite_orders", 4);
    let deadlocks = at_once(&mut sessions, |number, session| {
        session.exec("set deadlock_timeout = '10ms'");
        let customers = if number % 2 == 0 { ["one", "two"] } else { ["two", "one"] };
        let mut deadlocks = 0;
        for round in 0..10 {
            loop {
                session.exec("begin");
                let done = customers.iter().try_for_each(|customer| {
                    session.try_exec(&format!("select * from credits.deduct_usage('{customer}', 2, 'k-{number}-{round}')"))
                });
                match done {
                    Ok(()) => break session.exec("commit"),
                    Err(error) => assert_eq!(error.sqlstate, "40P01", "{error}"),
                }
                session.exec("rollback");
                deadlocks += 1;
            }
        }
        deadlocks
    });
    println!("deadlocks: {deadlocks:?}");
    assert_eq!(session.lines("select customer_id, balance from credits.wallets order by 1"), ["one|920", "two|920"]);
    assert_ledger_is_sound(&mut session);
}

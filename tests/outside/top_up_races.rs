//! Workers and usage at once: each request is claimed once, each payment is granted once, one crossing queues one request (SPEC 9).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::concurrency::{at_once, sessions};

const WORKERS: usize = 12;

/// So many customers, each with an open top-up.
fn with_requests(database: &str, customers: usize) -> Session {
    let mut session = shared_cluster().new_database(database);
    session.exec(&format!(
        "select credits.create_wallet('c' || n), credits.request_top_up('c' || n, amount => n) from generate_series(1, {customers}) n"
    ));
    session
}

#[test]
fn many_workers_claim_each_request_once() {
    const CUSTOMERS: usize = 300;
    for (database, level) in [("claim_once", "read committed"), ("claim_once_repeatable", "repeatable read")] {
        let mut session = with_requests(database, CUSTOMERS);
        let mut workers = sessions(database, WORKERS);
        let claimed = at_once(&mut workers, |number, worker| {
            worker.exec(&format!("set default_transaction_isolation = '{level}'"));
            let call = format!("select top_up_id from credits.claim_top_ups({})", 1 + 3 * number);
            let open = "select count(*) from credits.top_ups where status = 'pending'";
            let mut claimed = Vec::new();
            while worker.one(open) != "0" {
                match worker.try_rows(&call) {
                    Ok(rows) => claimed.extend(rows.into_iter().flatten().flatten()),
                    Err(error) => assert_eq!((error.sqlstate.as_str(), level), ("40001", "repeatable read"), "{error}"),
                }
            }
            claimed
        });
        let mut claimed: Vec<String> = claimed.into_iter().flatten().collect();
        claimed.sort();
        assert_eq!(claimed, session.lines("select top_up_id from credits.top_ups order by top_up_id::text collate \"C\""));
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_payment_completed_by_many_at_once_is_granted_once() {
    const ROUNDS: usize = 25;
    let mut session = with_requests("complete_once", ROUNDS);
    let mut workers = sessions("complete_once", WORKERS);
    for (number, level) in ["read committed", "repeatable read", "serializable"].iter().cycle().take(WORKERS).enumerate() {
        workers[number].exec(&format!("set default_transaction_isolation = '{level}'"));
    }
    for round in 1..=ROUNDS {
        let id = session.one(&format!("select top_up_id from credits.top_ups where customer_id = 'c{round}'"));
        let answers = at_once(&mut workers, |number, worker| {
            // Some of them were told another payment by mistake.
            let reference = if number % 4 == 3 { "pi_2" } else { "pi_1" };
            let call = format!("select credits.complete_top_up('c{round}', '{id}', '{reference}')");
            loop {
                match worker.try_rows(&call) {
                    Ok(rows) => return (reference, rows[0][0].clone()),
                    Err(error) if error.sqlstate == "40001" => {}
                    Err(error) => {
                        assert_eq!(error.symbol(), "idempotency_key_reused", "{error}");
                        return (reference, None);
                    }
                }
            }
        });
        let granted =
            session.lines(&format!("select payment_reference, grant_id from credits.top_ups where customer_id = 'c{round}'"));
        let (paid_by, grant) = granted[0].split_once('|').expect("two columns");
        for (reference, answer) in answers {
            assert_eq!(answer.as_deref(), (reference == paid_by).then_some(grant), "round {round}");
        }
    }
    assert_eq!(
        session.lines("select customer_id from credits.ledger where kind = 'grant' group by 1 having count(*) <> 1"),
        [""; 0]
    );
    assert_eq!(session.one("select count(*) from credits.ledger"), ROUNDS.to_string());
    assert_ledger_is_sound(&mut session);
}

/// Sixteen sessions spend while workers claim, lose their leases, fail, and pay under the request's id, as a provider's idempotency
/// key makes them: what was paid is what was granted.
#[test]
fn whatever_workers_do_at_once_what_was_paid_is_granted_once() {
    let mut session = shared_cluster().new_database("paid_is_granted");
    session.exec(
        "select credits.create_wallet(c), credits.grant_credits(c, 50), credits.set_auto_top_up(c, 'default', 20, 40)
         from unnest(array['a', 'b', 'c']) c",
    );
    let mut workers = sessions("paid_is_granted", 16);
    at_once(&mut workers, |number, worker| {
        worker.exec("set deadlock_timeout = '10ms'");
        for round in 0..60 {
            let customer = ["a", "b", "c"][(number + round) % 3];
            if number < 10 {
                let mode = if number % 2 == 0 { "report" } else { "partial" };
                worker.exec(&format!("select * from credits.deduct_usage('{customer}', 3, on_insufficient => '{mode}')"));
                continue;
            }
            // A lease so short that others claim the same again.
            for row in worker.rows("select customer_id, top_up_id from credits.claim_top_ups(2, '1 microsecond')") {
                let (customer, id) = (row[0].clone().expect("a customer"), row[1].clone().expect("an id"));
                let call = match (number + round) % 7 {
                    0 => continue,
                    1 => format!("select credits.fail_top_up('{customer}', '{id}', 'declined', '0')"),
                    _ => format!("select credits.complete_top_up('{customer}', '{id}', 'payment of {id}')"),
                };
                if let Err(error) = worker.try_exec(&call) {
                    assert_eq!(error.symbol(), "wrong_state", "{call}\n{error}");
                }
                if (number + round) % 5 == 0 {
                    worker.exec(&format!("select credits.set_auto_top_up('{customer}', 'default', 20, 40)"));
                }
            }
        }
    });
    // However the machine let them run, all wallets are low in the end, and what is still wanted is paid.
    session.exec("select credits.set_auto_top_up(c, 'default', 20, 40) from unnest(array['a', 'b', 'c']) c");
    session.exec(
        "select credits.complete_top_up(customer_id, top_up_id, 'payment of ' || top_up_id)
         from credits.claim_top_ups(lease => '1 microsecond')",
    );
    assert_ne!(session.one("select count(*) from credits.top_ups where status = 'succeeded'"), "0");
    // One grant for each that succeeded, one open for a wallet at most, one event for each outcome.
    assert_eq!(
        session.lines(
            "select t.top_up_id from credits.top_ups t
             where (t.status = 'succeeded') <> exists (
                 select from credits.ledger l where l.customer_id = t.customer_id and l.transaction_id = t.top_up_id::text)
                or (t.status = 'succeeded') <> (t.grant_id is not null)"
        ),
        [""; 0]
    );
    assert_eq!(
        session.lines(
            "select type, count(*) - (select count(*) from credits.top_ups t
                 where case e.type when 'top_up.requested' then true else t.status = 'succeeded' end)
             from credits_data.events e where type in ('top_up.requested', 'top_up.succeeded') group by 1 order by 1"
        ),
        ["top_up.requested|0", "top_up.succeeded|0"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_crossing_by_many_sessions_queues_one_request() {
    let mut session = shared_cluster().new_database("one_crossing");
    session.exec(
        "select credits.create_wallet('acme'), credits.grant_credits('acme', 160), credits.set_auto_top_up('acme', 'default', 100, 160)",
    );
    let mut workers = sessions("one_crossing", 16);
    for round in 0..6 {
        at_once(&mut workers, |_, worker| {
            for _ in 0..10 {
                worker.exec("select * from credits.deduct_usage('acme', 1, on_insufficient => 'report')");
            }
        });
        let open = session.lines("select top_up_id, amount from credits.claim_top_ups()");
        assert_eq!(open.len(), 1, "round {round}");
        let id = open[0].split_once('|').expect("two columns").0;
        session.exec(&format!("select credits.complete_top_up('acme', '{id}', 'pi')"));
        assert_eq!(session.one("select balance from credits.balance('acme')"), "160");
    }
    assert_eq!(session.one("select count(*) from credits.top_ups"), "6");
    assert_ledger_is_sound(&mut session);
}

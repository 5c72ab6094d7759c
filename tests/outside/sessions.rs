//! How applications call: long sessions, savepoints, prepared statements, functions and triggers of their own, two-phase commit.

use std::time::Duration;

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster, wait_until};

const DEDUCT: &str = "select status, deducted, balance, replayed from credits.deduct_usage";

/// A customer with one wallet, which is charged the plain way, and one with two; each has 100 credits.
fn database(name: &str) -> Session {
    let mut session = shared_cluster().new_database(name);
    session.exec(SETUP);
    session
}

const SETUP: &str = "
    select credits.create_wallet(c) from unnest(array['plain', 'pair']) as c;
    select credits.create_wallet('pair', 'promo', priority => 10);
    select credits.grant_credits(c, 80, idempotency_key => 'bought') from unnest(array['plain', 'pair']) as c;
    select credits.grant_credits('plain', 20, idempotency_key => 'gift');
    select credits.grant_credits('pair', 20, 'promo', idempotency_key => 'gift')";

/// Every function once, so that its plans are made, or made again. Each answer is the same in a new ledger.
fn use_everything(session: &mut Session) -> Vec<String> {
    let mut answers = Vec::new();
    for customer in ["plain", "pair"] {
        let calls = [
            format!("{DEDUCT}('{customer}', 5, 'one')"),
            format!("{DEDUCT}('{customer}', 30, 'two')"),
            format!("{DEDUCT}('{customer}', 5, 'one')"),
            format!("{DEDUCT}('{customer}', 500, on_insufficient => 'report')"),
            format!("select refunded, balance, replayed from credits.refund_usage('{customer}', 'two', 3, null, 'three')"),
            format!("select adjusted, balance from credits.adjust_credits('{customer}', -4, 'test', idempotency_key => 'four')"),
            format!("select balance, next_expiry_at is null from credits.balance('{customer}') order by wallet"),
            format!("select credits.balance_at('{customer}', 'default', clock_timestamp())"),
            format!("select kind, amount, balance from credits.statement('{customer}', 'default', '2020-01-01', '2100-01-01')"),
            format!("select wallet, credits from credits.preview_deduction('{customer}', 7)"),
            format!("select credits.update_wallet('{customer}', 'default', name => 'renamed')"),
        ];
        answers.extend(calls.iter().flat_map(|call| session.lines(call)));
    }
    answers.extend(
        session.lines("select transferred, to_balance from credits.transfer_credits('pair', 6, 'default', 'promo', 'five')"),
    );
    answers.extend(session.lines("select * from credits.expire_grants()"));
    assert_ledger_is_sound(session);
    answers
}

#[test]
fn kept_plans_survive_discard_and_a_new_extension() {
    let mut session = database("kept_plans");
    let first = use_everything(&mut session);
    for disturbance in ["discard plans", "discard all", "analyze", "set plan_cache_mode = force_custom_plan", "reset all"] {
        session.exec(disturbance);
        assert_eq!(session.lines(&format!("{DEDUCT}('plain', 5, 'one')")), ["charged|5|64|t"], "{disturbance}");
        assert_eq!(session.lines(&format!("{DEDUCT}('pair', 0, 'free')"))[0].split('|').next(), Some("charged"), "{disturbance}");
    }
    for _ in 0..2 {
        session.exec("drop extension pg_credits");
        assert_eq!(session.error("select * from credits.balance('plain')").sqlstate, "42883");
        session.exec("create extension pg_credits");
        session.exec(SETUP);
        assert_eq!(use_everything(&mut session), first);
    }
    // Tables that another session changes below the plans.
    let mut other = shared_cluster().session("kept_plans");
    other.exec("drop extension pg_credits; create extension pg_credits");
    other.exec(SETUP);
    assert_eq!(use_everything(&mut session), first);
    for change in [
        "reindex table credits_data.grants",
        "vacuum full credits_data.wallets",
        "cluster credits_data.entries using entries_pkey",
    ] {
        other.exec(change);
    }
    assert_eq!(session.lines(&format!("{DEDUCT}('plain', 5, 'one')")), ["charged|5|64|t"]);
    assert_ledger_is_sound(&mut other);
}

#[test]
fn an_extension_created_and_dropped_in_a_transaction_leaves_working_plans() {
    let mut session = database("recreated");
    let first = use_everything(&mut session);
    session.exec("begin; drop extension pg_credits; create extension pg_credits");
    session.exec(SETUP);
    assert_eq!(use_everything(&mut session), first);
    session.exec("rollback");
    assert_eq!(session.lines(&format!("{DEDUCT}('plain', 5, 'one')")), ["charged|5|64|t"], "the old ledger is back");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn two_databases_have_two_ledgers() {
    let mut one = database("first_ledger");
    let mut two = database("second_ledger");
    assert_eq!(use_everything(&mut one), use_everything(&mut two));
    assert_eq!(one.lines(&format!("{DEDUCT}('plain', 1, 'only here')")), ["charged|1|63|f"]);
    assert_eq!(two.lines("select count(*) from credits.ledger where transaction_id = 'only here'"), ["0"]);
    assert_eq!(two.lines(&format!("{DEDUCT}('plain', 2, 'only here')")), ["charged|2|62|f"]);
    assert_ledger_is_sound(&mut two);
}

#[test]
fn clients_call_by_prepared_statements_generic_or_not() {
    let mut session = database("prepared");
    for mode in ["force_generic_plan", "force_custom_plan", "auto"] {
        session.exec(&format!("set plan_cache_mode = {mode}"));
        session.exec("prepare deduct (text, numeric, text) as select status, replayed from credits.deduct_usage($1, $2, $3)");
        for number in 0..8 {
            let call = format!("execute deduct ('plain', 1, '{mode}-{number}')");
            assert_eq!(session.lines(&call), ["charged|f"], "{call}");
            assert_eq!(session.lines(&call), ["charged|t"], "{call}");
        }
        session.exec("deallocate deduct");
    }
    // A driver that knows no numeric sends text, and reads text.
    let client = session.client();
    let statement = client
        .prepare("select status, deducted::text, balance::text, replayed from credits.deduct_usage($1, $2::text::numeric, $3)")
        .expect("it can be prepared");
    for (number, replayed) in [("1.5", false), ("1.50", true)] {
        let row = client.query_one(&statement, &[&"pair", &number, &"by text"]).expect("it is charged");
        let answer: (&str, &str, &str, bool) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(answer, ("charged", "1.5", "98.5", replayed));
    }
    let star = client.query_one("select * from credits.deduct_usage($1, 2, idempotency_key => $2)", &[&"pair", &"by name"]);
    assert_eq!(star.expect("it is charged").get::<_, &str>("status"), "charged");
    let none = client.query_one("select credits.create_wallet($1)", &[&None::<&str>]).expect_err("null");
    assert_eq!(none.code().map(|code| code.code()), Some("22004"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refusal_in_a_savepoint_leaves_the_transaction_usable() {
    let mut session = database("savepoints");
    for (customer, key) in [("plain", "a"), ("pair", "b")] {
        session.exec("begin");
        assert_eq!(session.lines(&format!("{DEDUCT}('{customer}', 10, '{key}1')")), ["charged|10|90|f"]);
        session.exec("savepoint attempt");
        let error = session.error(&format!("{DEDUCT}('{customer}', 1000, '{key}2')"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23514", "insufficient_credits"), "{error}");
        session.exec("rollback to attempt");
        assert_eq!(session.lines(&format!("{DEDUCT}('{customer}', 20, '{key}2')")), ["charged|20|70|f"]);
        // Also what succeeded is undone by its savepoint, and frees its key.
        session.exec("savepoint second");
        assert_eq!(session.lines(&format!("{DEDUCT}('{customer}', 30, '{key}3')")), ["charged|30|40|f"]);
        session.exec("rollback to second");
        assert_eq!(session.lines(&format!("{DEDUCT}('{customer}', 31, '{key}3')")), ["charged|31|39|f"]);
        session.exec("release attempt; commit");
        let ledger = format!(
            "select transaction_id, sum(amount) from credits.ledger where customer_id = '{customer}' and kind = 'usage' group by 1 order by 1"
        );
        assert_eq!(session.lines(&ledger), [format!("{key}1|-10"), format!("{key}2|-20"), format!("{key}3|-31")]);
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_transaction_that_rolls_back_leaves_nothing_and_frees_its_keys() {
    let mut session = database("rolled_back");
    let before = session.lines("select * from credits.wallets order by customer_id, wallet");
    session.exec("begin");
    use_everything(&mut session);
    session.exec("select credits.grant_credits('plain', 10, idempotency_key => 'ten'); rollback");
    assert_eq!(session.lines("select count(*) from credits.ledger where kind = 'usage'"), ["0"]);
    let without_clock = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.rsplit_once('|').expect("several columns").0.to_owned()).collect()
    };
    assert_eq!(without_clock(session.lines("select * from credits.wallets order by customer_id, wallet")), without_clock(before));
    assert_eq!(session.lines(&format!("{DEDUCT}('plain', 77, 'one')")), ["charged|77|23|f"], "another request under a freed key");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn many_calls_in_one_transaction_see_each_other() {
    let mut session = database("many_calls");
    session.exec("select credits.grant_credits(c, 1000, idempotency_key => 'more') from unnest(array['plain', 'pair']) as c");
    session.exec("begin");
    for number in 0..150 {
        for customer in ["plain", "pair"] {
            let left = 1100 - 3 * (number + 1);
            assert_eq!(session.lines(&format!("{DEDUCT}('{customer}', 3, 'call-{number}')")), [format!("charged|3|{left}|f")]);
        }
    }
    assert_eq!(session.lines(&format!("{DEDUCT}('plain', 3, 'call-7')")), ["charged|3|650|t"]);
    session.exec("commit");
    // And many in one statement.
    let one_statement = "select sum(deducted), min(balance), count(*) filter (where replayed)
         from generate_series(1, 100) as n, credits.deduct_usage('pair', 2, 'row-' || n % 50)";
    assert_eq!(session.lines(one_statement), ["200|550|50"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_exception_block_catches_a_refusal() {
    let mut session = database("exception_block");
    session.exec(
        "create function charge(customer text, credits numeric, key text) returns text language plpgsql as $$
         declare told text;
         begin
             return (select status from credits.deduct_usage(customer, credits, key));
         exception
             when check_violation then
                 get stacked diagnostics told = pg_exception_detail;
                 return told || ', ' || (select status || ' ' || deducted from credits.deduct_usage(customer, credits, key, on_insufficient => 'partial'));
             when unique_violation then return 'used';
         end $$",
    );
    for customer in ["plain", "pair"] {
        let mut charge = |credits: u32, key: &str| session.one(&format!("select charge('{customer}', {credits}, '{key}')"));
        assert_eq!(charge(60, "a"), "charged");
        assert_eq!(charge(50, "b"), "code=insufficient_credits, partial 40");
        assert_eq!(charge(61, "a"), "used");
    }
    assert_eq!(
        session.lines("select charge('plain', 1, 'c-' || n) from generate_series(1, 3) as n"),
        ["code=insufficient_credits, insufficient 0"; 3]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_trigger_charges_an_applications_own_rows() {
    let mut session = database("own_trigger");
    session.exec(
        "create table calls (id bigint generated always as identity primary key, customer text, tokens int, paid numeric);
         create function charge_call() returns trigger language plpgsql as $$
         begin
             select deducted into new.paid from credits.deduct_usage(new.customer, new.tokens, 'call-' || new.id, event_name => 'call');
             return new;
         end $$;
         create trigger charge before insert on calls for each row execute function charge_call()",
    );
    assert_eq!(
        session.lines(
            "insert into calls (customer, tokens) values ('plain', 7), ('pair', 8), ('plain', 9) returning customer, paid"
        ),
        ["plain|7", "pair|8", "plain|9"]
    );
    // The row that is refused takes its whole statement with it.
    let error = session.error("insert into calls (customer, tokens) values ('plain', 1), ('plain', 5000)");
    assert_eq!(error.symbol(), "insufficient_credits", "{error}");
    assert_eq!(session.lines("select count(*) from calls"), ["3"]);
    assert_eq!(session.lines("select balance from credits.balance('plain')"), ["84"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn reading_functions_serve_in_stable_functions_of_the_application() {
    let mut session = database("stable_functions");
    session.exec(
        "create function spendable(customer text) returns numeric stable language plpgsql as $$
         begin return (select sum(balance) from credits.balance(customer)); end $$;
         create function spendable_sql(customer text) returns numeric stable language sql as
         $$ select sum(balance) from credits.balance(customer) $$",
    );
    let both = "select spendable('pair'), spendable_sql('pair')";
    assert_eq!(session.lines(both), ["100|100"]);
    session.exec("begin; select * from credits.deduct_usage('pair', 30)");
    assert_eq!(session.lines(both), ["70|70"], "the transaction's own work is seen");
    session.exec("commit; begin read only");
    assert_eq!(session.lines(both), ["70|70"]);
    assert_eq!(session.error("select * from credits.deduct_usage('pair', 1)").sqlstate, "25006");
    session.exec("rollback");
    // All reading functions of one statement see one state, whatever the statement writes beside.
    assert_eq!(
        session
            .lines("select b.balance, p.credits from credits.balance('plain') as b, credits.preview_deduction('plain', 5) as p"),
        ["100|5"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_prepared_transaction_holds_the_lock_and_keeps_its_promise() {
    let mut session = database("two_phase");
    session.exec("begin");
    assert_eq!(session.lines(&format!("{DEDUCT}('plain', 60, 'sixty')")), ["charged|60|40|f"]);
    assert_eq!(session.lines(&format!("{DEDUCT}('pair', 60, 'sixty')")), ["charged|60|40|f"]);
    session.exec("prepare transaction 'charged'");

    let mut other = shared_cluster().session("two_phase");
    other.exec("set lock_timeout = '100ms'");
    for customer in ["plain", "pair"] {
        assert_eq!(
            other.error(&format!("{DEDUCT}('{customer}', 60, 'more')")).sqlstate,
            "55P03",
            "it waits for the prepared one"
        );
        assert_eq!(
            other.lines(&format!("select sum(balance) from credits.balance('{customer}')")),
            ["100"],
            "readers do not wait"
        );
    }
    assert_eq!(other.lines("select customers_settled from credits.expire_grants()"), ["0"]);
    other.exec("reset lock_timeout");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || other.lines(&format!("{DEDUCT}('plain', 60, 'sixty')")));
        let waits = "select count(*) from pg_stat_activity where datname = 'two_phase' and wait_event_type = 'Lock'";
        wait_until("the retry waits", Duration::from_secs(30), || session.one(waits) == "1");
        session.exec("commit prepared 'charged'");
        assert_eq!(waiting.join().expect("no error"), ["charged|60|40|t"], "and replays what was prepared");
    });

    session.exec("begin; select * from credits.deduct_usage('pair', 40, 'forty'); prepare transaction 'given up'");
    session.exec("rollback prepared 'given up'");
    assert_eq!(session.lines(&format!("{DEDUCT}('pair', 39, 'forty')")), ["charged|39|1|f"]);
    assert_ledger_is_sound(&mut session);
}

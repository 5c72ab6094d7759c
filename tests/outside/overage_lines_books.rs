//! Closing the overage of many customers, beside usage, beside contracts, and after a restore: lines and ledger agree (SPEC 9 and 12).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::books::deduct;
use crate::concurrency::{at_once, sessions};
use crate::contracts::contract;
use crate::overage_lines::{close, invoiced, lines};
use crate::recurring::settle;

const NOTHING: [&str; 0] = [];

/// Customers of these names, each with overage of 1 at 0.02 USD on January 1st; it is February 1st.
fn customers(rule: &str, names: &[&str]) -> Session {
    let mut session = shared_cluster().new_database(rule);
    session.set_clock("2026-01-01 00:00+00");
    for name in names {
        session.exec(&format!(
            "select credits.create_wallet('{name}', overage_policy => 'invoice', overage_unit_price => 0.02, overage_currency => 'USD');
             select * from credits.deduct_usage('{name}', 1, 'first')"
        ));
    }
    session.set_clock("2026-02-01 00:00+00");
    session
}

fn closed(session: &mut Session, arguments: &str) -> Vec<String> {
    session.lines(&format!("select customer_id from credits.close_overage({arguments}) order by 1"))
}

#[test]
fn all_customers_are_closed_in_batches() {
    let mut session = customers("closed_in_batches", &["a", "b", "c", "d", "e"]);
    session.exec("select credits.create_wallet('none'); select * from credits.deduct_usage('b', 1)");
    assert_eq!(closed(&mut session, "batch_size => 2"), ["a", "b"]);
    assert_eq!(closed(&mut session, "batch_size => 2"), ["c", "d"]);
    assert_eq!(closed(&mut session, "batch_size => 2"), ["e"]);
    assert_eq!(closed(&mut session, "batch_size => 2"), NOTHING);
    assert_eq!(session.lines("select customer_id, overage from credits.wallets where overage <> 0"), ["b|1"]);
    assert_ledger_is_sound(&mut session);
}

/// Whoever calls until no line comes has closed all there is.
#[test]
fn no_line_is_returned_only_when_nothing_is_left_to_close() {
    let mut session = customers("no_line_only_when_nothing_is_left", &["a", "b", "c", "d"]);
    session.exec("select * from credits.refund_usage('a', 'first'); select * from credits.refund_usage('b', 'first')");
    session.set_clock("2026-02-02 00:00+00");
    assert_eq!(closed(&mut session, "batch_size => 1"), ["c"], "what came to nothing is closed on the way");
    assert_eq!(closed(&mut session, "batch_size => 1"), ["d"]);
    assert_eq!(closed(&mut session, "batch_size => 1"), NOTHING);
    assert_eq!(session.one("select count(*) from credits_data.wallets where has_open_overage"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_locked_customer_is_left_for_the_next_call() {
    let mut session = customers("a_locked_customer_is_left", &["a", "b"]);
    let mut other = shared_cluster().session("a_locked_customer_is_left");
    other.set_clock("2026-01-31 00:00+00");
    other.exec("begin; select * from credits.deduct_usage('a', 1)");
    session.exec("set lock_timeout = '5s'");
    assert_eq!(closed(&mut session, "batch_size => 1"), ["b"], "nobody waits for it, and it stands in nobody's way");
    assert_eq!(closed(&mut session, ""), NOTHING);
    other.exec("commit");
    assert_eq!(close(&mut session, ""), ["a overage 2 x 0.02 = 0.04 USD 01-01 00:00 to 02-01 00:00 open"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_line_that_cannot_be_made_holds_up_no_other_customer() {
    let mut session = customers("a_line_that_cannot_be_made", &["a", "b", "c"]);
    session.set_clock("2026-01-01 00:00+00");
    session.exec(
        "select credits.update_wallet('a', 'default', overage_unit_price => 1000000000);
         select * from credits.deduct_usage('a', 1000000000000, 'dear')",
    );
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(session.error("select * from credits.close_overage('a')").symbol(), "out_of_range");
    assert_eq!(closed(&mut session, "batch_size => 1"), ["b"]);
    assert_eq!(closed(&mut session, ""), ["c"]);
    assert_eq!(closed(&mut session, ""), NOTHING);
    assert_ledger_is_sound(&mut session);
    session.exec("select * from credits.refund_usage('a', 'dear')");
    session.set_clock("2026-02-02 00:00+00");
    assert_eq!(close(&mut session, ""), ["a overage 1 x 0.02 = 0.02 USD 01-01 00:00 to 02-02 00:00 open"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_minimum_spend_counts_what_is_on_lines_too() {
    let mut session = invoiced("a_minimum_spend_counts_lines_too");
    let terms = "1000, '2026-01-01 00:00+00', '2026-04-01 00:00+00', minimum_spend => true, unit_price => 0.5, currency => 'EUR'";
    contract(&mut session, "c", terms);
    session.set_clock("2026-01-10 00:00+00");
    deduct(&mut session, "400, 'january'");
    session.set_clock("2026-02-01 00:00+00");
    close(&mut session, "'acme'");
    session.exec("select * from credits.refund_usage('acme', 'january', 100)");
    deduct(&mut session, "50");
    session.set_clock("2026-03-01 00:00+00");
    close(&mut session, "'acme'");
    deduct(&mut session, "25");
    session.set_clock("2026-04-05 00:00+00");
    // The true-up is written by settling, and is no line of this closing.
    assert_eq!(close(&mut session, ""), ["overage 25 x 0.02 = 0.5 USD 03-01 00:00 to 04-05 00:00 open"]);
    settle(&mut session);
    assert_eq!(
        lines(&mut session),
        [
            "overage -50 x 0.02 = -1 USD 02-01 00:00 to 03-01 00:00 open",
            "overage 25 x 0.02 = 0.5 USD 03-01 00:00 to 04-05 00:00 open",
            "overage 400 x 0.02 = 8 USD 01-10 00:00 to 02-01 00:00 open",
            "true_up 625 x 0.5 = 312.5 EUR 01-01 00:00 to 04-01 00:00 open"
        ]
    );
    assert_eq!(session.lines("select consumed, true_up from credits.contract_progress"), ["375|625"]);
    let line = session.one("select line_id from credits.invoice_lines where kind = 'true_up'");
    session.exec(&format!("select credits.mark_invoiced('acme', '{line}', 'in_1')"));
    assert_ledger_is_sound(&mut session);
}

/// What was invoiced is no part of a wallet's totals any more, so that over the years there may be more of it than fits one.
#[test]
fn over_the_years_more_is_invoiced_than_a_total_holds() {
    let mut session = invoiced("more_is_invoiced_than_a_total_holds");
    session.exec("select credits.update_wallet('acme', 'default', overage_unit_price => 0)");
    let terms = "5, '2026-01-01 00:00+00', '2026-12-01 00:00+00', minimum_spend => true, unit_price => 0.5, currency => 'EUR'";
    contract(&mut session, "c", terms);
    for (month, key) in [("02", "a"), ("03", "b"), ("04", "c")] {
        deduct(&mut session, &format!("9999999999999999.999999999999, '{key}'"));
        session.set_clock(&format!("2026-{month}-01 00:00+00"));
        assert_eq!(session.lines("select quantity, amount from credits.close_overage()"), ["9999999999999999.999999999999|0"]);
    }
    assert_ledger_is_sound(&mut session);
    session.set_clock("2026-12-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        session.lines("select status, consumed, true_up from credits.contract_progress"),
        ["ended|29999999999999999.999999999997|"]
    );
    // More than one line holds is refunded: it waits until it fits.
    session.exec("select * from credits.refund_usage('acme', 'a')");
    let error = session.error("select * from credits.refund_usage('acme', 'b')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{error}");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn verification_finds_lines_that_do_not_agree_with_the_ledger() {
    let mut session = customers("verification_finds_lines", &["a", "b"]);
    session.exec("select * from credits.close_overage(); select * from credits.deduct_usage('a', 5)");
    assert_ledger_is_sound(&mut session);
    for tampering in [
        "update credits_data.invoice_lines set quantity = quantity + 1 where customer_id = 'a'",
        "update credits_data.invoice_lines set unit_price = 0.03 where customer_id = 'a'",
        "update credits_data.invoice_lines set amount = amount * 1000 where customer_id = 'a'",
        "update credits_data.invoice_lines set currency = 'EUR' where customer_id = 'a'",
        "update credits_data.invoice_lines set wallet = 'missing' where customer_id = 'a'",
        "delete from credits_data.invoice_lines where customer_id = 'a'",
        "insert into credits_data.invoice_lines select (l).* from (
             select jsonb_populate_record(l, jsonb_build_object('line_id', gen_random_uuid())) as l
             from credits_data.invoice_lines l where customer_id = 'a') l",
        "update credits_data.wallets set overage_closed_seq = 0 where customer_id = 'a'",
        "update credits_data.wallets set has_open_overage = false where customer_id = 'a'",
        "update credits_data.wallets set overage = overage + 1 where customer_id = 'a'",
    ] {
        session.exec(&format!("begin; {tampering}"));
        let violations = session.lines("select distinct invariant, customer_id from credits.verify_ledger()");
        assert_eq!(violations, ["9|a"], "{tampering}");
        session.exec("rollback");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn lines_and_what_watches_come_back_from_a_dump() {
    let cluster = shared_cluster();
    let mut session = customers("dumped_lines", &["a", "b"]);
    session.exec(
        "select * from credits.close_overage('a');
         select * from credits.deduct_usage('a', 5);
         select credits.mark_invoiced('a', line_id, 'in_1') from credits.invoice_lines;
         select credits.create_wallet('c'), credits.grant_credits('c', 100);
         select credits.create_alert('c', 'default', 20), credits.set_auto_top_up('c', 'default', 10, 50, cooldown => '1 hour');
         select * from credits.deduct_usage('c', 85);
         select credits.request_top_up('b', amount => 7)",
    );
    let file = cluster.dump("dumped_lines", "c");
    cluster.restore(&file, "c", "restored_lines");
    let mut restored = cluster.session("restored_lines");
    for session in [&mut session, &mut restored] {
        session.set_clock("2026-02-02 00:00+00");
        session.exec(
            "select * from credits.deduct_usage('c', 5);
             select credits.complete_top_up(customer_id, top_up_id, 'pi') from credits.claim_top_ups();
             select * from credits.deduct_usage('c', 55);
             select * from credits.close_overage()",
        );
    }
    for books in [
        "select customer_id, kind, quantity, amount, period_start, period_end, status, invoice_reference from credits.invoice_lines order by 1, 3, 4, 5",
        "select customer_id, status, amount, requested_at, finished_at from credits.top_ups order by 1, 4, 3",
        "select customer_id, threshold_percent, status, fired_at from credits.alerts",
        "select customer_id, threshold, held_back_until from credits.auto_top_ups",
        "select customer_id, type, payload -> 'data' ->> 'balance' from credits_data.events order by event_number",
    ] {
        let expected = session.lines(books);
        assert!(!expected.is_empty(), "{books}");
        assert_eq!(restored.lines(books), expected);
    }
    assert_ledger_is_sound(&mut session);
    assert_ledger_is_sound(&mut restored);
}

/// Usage, refunds and price changes while several sessions close: no entry is on two lines, none is forgotten.
#[test]
fn closings_at_once_put_each_entry_on_one_line() {
    let mut session = shared_cluster().new_database("closings_at_once");
    session.exec(
        "select credits.create_wallet(c, overage_policy => 'invoice', overage_unit_price => 0.01, overage_currency => 'USD')
         from unnest(array['a', 'b', 'c']) c",
    );
    let mut workers = sessions("closings_at_once", 12);
    at_once(&mut workers, |number, worker| {
        if number % 4 == 3 {
            worker.exec("set default_transaction_isolation = 'repeatable read'");
        }
        for round in 0..50 {
            let customer = ["a", "b", "c"][(number + round) % 3];
            let key = format!("{number} {round}");
            let call = match (number, round % 10) {
                (0 | 1, _) => "select * from credits.close_overage(batch_size => 2)".to_owned(),
                (2 | 3, _) => format!("select * from credits.close_overage('{customer}')"),
                (4, _) => {
                    format!("select credits.update_wallet('{customer}', 'default', overage_unit_price => 0.0{})", 1 + round % 4)
                }
                (_, 7) => format!(
                    "select r.* from unnest(array['{number} {}']) k cross join lateral credits.refund_usage('{customer}', k, 1) r
                     where exists (select from credits.ledger where customer_id = '{customer}' and transaction_id = k)",
                    round - 3
                ),
                _ => format!("select * from credits.deduct_usage('{customer}', {}, '{key}')", 1 + round % 5),
            };
            while let Err(error) = worker.try_exec(&call) {
                assert_eq!(error.sqlstate, "40001", "{call}\n{error}");
            }
        }
    });
    let by_price = "select customer_id, unit_price, trim_scale(sum(credits * case kind when 'overage' then 1 else -1 end))
         from credits.ledger where kind in ('overage', 'overage_refunded') group by 1, 2 order by 1, 2";
    assert_eq!(
        session.lines(
            "select customer_id from credits.wallets w where overage + (
             select sum(quantity) from credits.invoice_lines l where l.customer_id = w.customer_id) <> (
             select sum(credits * case kind when 'overage' then 1 when 'overage_refunded' then -1 end) from credits.ledger e
             where e.customer_id = w.customer_id)"
        ),
        NOTHING
    );
    session.exec("select * from credits.close_overage()");
    assert_eq!(
        session.lines(
            "select customer_id, unit_price, trim_scale(sum(quantity)) from credits.invoice_lines group by 1, 2 order by 1, 2"
        ),
        session.lines(by_price)
    );
    // The lines of one price follow each other.
    assert_eq!(
        session.lines(
            "select customer_id from (
                 select customer_id, period_start, lag(period_end) over (partition by customer_id, unit_price order by period_end) as before
                 from credits.invoice_lines) l
             where period_start < before"
        ),
        NOTHING
    );
    assert_ledger_is_sound(&mut session);
}

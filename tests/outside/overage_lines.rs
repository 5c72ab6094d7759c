//! Invoice lines: what overage comes to as money, on which line it stands, and that it stands there once (SPEC 2 and 9).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, deduct, grant, new_books, told};

const NOTHING: [&str; 0] = [];

/// A line: customer but for `acme`, wallet but for `default`, kind, quantity, price, amount, currency, period, status and reference.
const LINE: &str =
    "concat_ws(' ', nullif(customer_id, 'acme'), nullif(wallet, 'default'), kind, quantity, 'x', unit_price, '=', amount,
    currency, to_char(period_start, 'MM-DD HH24:MI'), 'to', to_char(period_end, 'MM-DD HH24:MI'), status, invoice_reference)";

/// `acme` with a wallet whose overage is invoiced at 0.02 USD.
pub fn invoiced(rule: &str) -> Session {
    let mut session = new_books(rule);
    update(&mut session, "overage_policy => 'invoice', overage_unit_price => 0.02, overage_currency => 'USD'");
    session
}

fn update(session: &mut Session, settings: &str) {
    session.exec(&format!("select credits.update_wallet('acme', 'default', {settings})"));
}

/// Closes overage and returns the new lines, sorted.
pub fn close(session: &mut Session, arguments: &str) -> Vec<String> {
    session.lines(&format!("select {LINE} from credits.close_overage({arguments}) order by 1"))
}

/// All lines, sorted.
pub fn lines(session: &mut Session) -> Vec<String> {
    session.lines(&format!("select {LINE} from credits.invoice_lines order by 1"))
}

fn open(session: &mut Session) -> Vec<String> {
    session.lines("select overage from credits.balance('acme') order by wallet")
}

fn refund(session: &mut Session, usage: &str, amount: &str) {
    session.exec(&format!("select * from credits.refund_usage('acme', '{usage}', {amount})"));
}

#[test]
fn there_is_one_line_for_each_wallet_price_and_currency() {
    let mut session = invoiced("one_line_for_each_wallet_and_price");
    session.exec(
        "select credits.create_wallet('acme', 'other', unit => 'minutes', overage_policy => 'invoice', overage_unit_price => 1,
             overage_currency => 'USD')",
    );
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "15");
    session.set_clock("2026-01-10 12:00+00");
    deduct(&mut session, "4, wallet => 'other'");
    update(&mut session, "overage_unit_price => 0.03");
    deduct(&mut session, "7");
    deduct(&mut session, "0.5");
    session.set_clock("2026-01-20 00:00+00");
    update(&mut session, "overage_unit_price => 0.02, overage_currency => 'EUR'");
    deduct(&mut session, "100");
    update(&mut session, "overage_currency => 'USD'");
    deduct(&mut session, "1.25");
    assert_eq!(open(&mut session), ["113.75", "4"]);
    session.set_clock("2026-02-01 00:00+00");
    let expected = [
        "other overage 4 x 1 = 4 USD 01-10 12:00 to 02-01 00:00 open",
        "overage 100 x 0.02 = 2 EUR 01-20 00:00 to 02-01 00:00 open",
        "overage 6.25 x 0.02 = 0.12 USD 01-01 00:00 to 02-01 00:00 open",
        "overage 7.5 x 0.03 = 0.22 USD 01-10 12:00 to 02-01 00:00 open",
    ];
    let mut closed = close(&mut session, "'acme'");
    closed.sort();
    assert_eq!(closed, expected);
    assert_eq!(open(&mut session), ["0", "0"]);
    assert_eq!(close(&mut session, "'acme'"), NOTHING);
    assert_eq!(close(&mut session, ""), NOTHING);
    let mut all = lines(&mut session);
    all.sort();
    assert_eq!(all, expected);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_charged_from_as_of_on_stays_open() {
    let mut session = invoiced("charged_from_as_of_on");
    for (at, amount) in [("01-05 00:00", "1"), ("01-10 00:00", "2"), ("01-15 00:00", "4"), ("01-20 00:00", "8")] {
        session.set_clock(&format!("2026-{at}+00"));
        deduct(&mut session, amount);
    }
    assert_eq!(close(&mut session, "'acme', '2026-01-05 00:00+00'"), NOTHING);
    assert_eq!(
        close(&mut session, "'acme', '2026-01-15 00:00+00'"),
        ["overage 3 x 0.02 = 0.06 USD 01-05 00:00 to 01-15 00:00 open"]
    );
    assert_eq!(open(&mut session), ["12"]);
    // A later call for an earlier instant has nothing left to close.
    assert_eq!(close(&mut session, "'acme', '2026-01-12 00:00+00'"), NOTHING);
    assert_eq!(close(&mut session, "as_of => '2026-01-15 00:00+00'"), NOTHING);
    // The future is now, and what is charged at this very instant is not before it.
    assert_eq!(
        close(&mut session, "'acme', '2030-01-01 00:00+00'"),
        ["overage 4 x 0.02 = 0.08 USD 01-15 00:00 to 01-20 00:00 open"]
    );
    session.set_clock("2026-01-20 00:00:00.000001+00");
    assert_eq!(close(&mut session, ""), ["overage 8 x 0.02 = 0.16 USD 01-20 00:00 to 01-20 00:00 open"]);
    assert_eq!(open(&mut session), ["0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_refunded_before_the_closing_is_on_no_line() {
    let mut session = invoiced("refunded_before_the_closing");
    deduct(&mut session, "5, 'a'");
    refund(&mut session, "a", "1.5");
    update(&mut session, "overage_unit_price => 0.07");
    deduct(&mut session, "6, 'b'");
    refund(&mut session, "b", "6");
    refund(&mut session, "a", "0.5");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(close(&mut session, "'acme'"), ["overage 3 x 0.02 = 0.06 USD 01-01 00:00 to 02-01 00:00 open"]);
    assert_eq!(open(&mut session), ["0"]);
    assert_eq!(close(&mut session, "'acme'"), NOTHING);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_refunded_after_the_closing_is_a_negative_line() {
    let mut session = invoiced("refunded_after_the_closing");
    deduct(&mut session, "5, 'a'");
    update(&mut session, "overage_unit_price => 0.07");
    deduct(&mut session, "6, 'b'");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(close(&mut session, "'acme'").len(), 2);
    session.set_clock("2026-02-10 00:00+00");
    refund(&mut session, "a", "2");
    assert_eq!(open(&mut session), ["-2"]);
    refund(&mut session, "b", "1");
    deduct(&mut session, "4");
    assert_eq!(open(&mut session), ["1"]);
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(
        close(&mut session, ""),
        [
            "overage -2 x 0.02 = -0.04 USD 02-10 00:00 to 03-01 00:00 open",
            "overage 3 x 0.07 = 0.21 USD 02-10 00:00 to 03-01 00:00 open"
        ]
    );
    // What is left of the usage, and not more, can be given back still.
    refund(&mut session, "a", "null");
    let error = session.error("select * from credits.refund_usage('acme', 'a', 0.1)");
    assert_eq!(error.symbol(), "out_of_range", "{error}");
    session.set_clock("2026-03-02 00:00+00");
    assert_eq!(close(&mut session, ""), ["overage -3 x 0.02 = -0.06 USD 03-01 00:00 to 03-02 00:00 open"]);
    assert_eq!(session.one("select sum(quantity) from credits.invoice_lines where unit_price = 0.02"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn money_is_rounded_half_to_even_to_the_currencys_minor_unit() {
    let mut session = invoiced("money_is_rounded_half_to_even");
    for (quantity, price, currency, amount) in [
        ("1", "0.125", "USD", "0.12"),
        ("1", "0.135", "USD", "0.14"),
        ("3", "0.001666666667", "USD", "0.01"),
        ("0.1", "0.01", "USD", "0"),
        ("2.5", "1", "JPY", "2"),
        ("3.5", "1", "JPY", "4"),
        ("3.500000000001", "1", "JPY", "4"),
        ("1", "1.2345", "BHD", "1.234"),
        ("1", "1.2355", "BHD", "1.236"),
        ("9999999999999999", "0.000000000001", "USD", "10000"),
    ] {
        update(&mut session, &format!("overage_unit_price => {price}, overage_currency => '{currency}'"));
        deduct(&mut session, quantity);
        session.exec("select set_config('credits.test_clock', (credits.clock() + '1 hour')::text, false)");
        let closed = session.lines("select quantity, amount, currency from credits.close_overage()");
        assert_eq!(closed, [format!("{quantity}|{amount}|{currency}")], "{quantity} at {price}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_limit_counts_what_is_not_on_a_line() {
    let mut session = invoiced("a_limit_counts_what_is_not_on_a_line");
    update(&mut session, "overage_limit => 10");
    assert_eq!(deduct(&mut session, "10, 'a'"), "overage|10|0|10|0|f");
    let error = session.error("select * from credits.deduct_usage('acme', 1)");
    assert_eq!(error.symbol(), "insufficient_credits", "{error}");
    session.set_clock("2026-02-01 00:00+00");
    close(&mut session, "'acme'");
    refund(&mut session, "a", "4");
    let error = session.error("select * from credits.deduct_usage('acme', 10.1)");
    assert_eq!(error.symbol(), "insufficient_credits", "what was refunded of a line gives no more room: {error}");
    assert_eq!(deduct(&mut session, "7"), "overage|7|0|7|0|f");
    assert_eq!(open(&mut session), ["3"]);
    assert_eq!(deduct(&mut session, "9, on_insufficient => 'partial'"), "partial|9|0|7|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_line_is_invoiced_once() {
    let mut session = invoiced("a_line_is_invoiced_once");
    session.exec("select credits.create_wallet('other')");
    deduct(&mut session, "5, 'a'");
    session.set_clock("2026-02-01 00:00+00");
    let id = session.one("select line_id from credits.close_overage()");
    let mark = format!("mark_invoiced('acme', '{id}', 'in_1')");
    for _ in 0..2 {
        assert_eq!(session.one(&format!("select credits.{mark}")), id);
        assert_eq!(lines(&mut session), ["overage 5 x 0.02 = 0.1 USD 01-01 00:00 to 02-01 00:00 invoiced in_1"]);
    }
    let (another, of_another) = (mark.replace("in_1", "in_2"), mark.replace("acme", "other"));
    let (no_reference, empty) = (mark.replace("'in_1'", "null"), mark.replace("in_1", ""));
    let refused = [
        (another.as_str(), "55000", "wrong_state"),
        (of_another.as_str(), "P0002", "not_found"),
        (no_reference.as_str(), "22004", "null_argument"),
        (empty.as_str(), "22023", "invalid_argument"),
        ("mark_invoiced('acme', '00000000-0000-0000-0000-000000000000', 'in_1')", "P0002", "not_found"),
        ("mark_invoiced('nobody', '00000000-0000-0000-0000-000000000000', 'in_1')", "P0002", "not_found"),
        ("close_overage('nobody')", "P0002", "not_found"),
        ("close_overage(batch_size => 0)", "22023", "invalid_argument"),
        ("close_overage(as_of => 'infinity')", "22003", "out_of_range"),
    ];
    assert_refused(&mut session, &refused);
    // What is given back of an invoiced line is a line of its own.
    refund(&mut session, "a", "5");
    session.set_clock("2026-02-02 00:00+00");
    assert_eq!(close(&mut session, ""), ["overage -5 x 0.02 = -0.1 USD 02-01 00:00 to 02-02 00:00 open"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_overage_of_a_frozen_or_closed_wallet_is_invoiced_too() {
    for status in ["frozen", "closed"] {
        let mut session = invoiced(&format!("the_overage_of_a_{status}_wallet"));
        deduct(&mut session, "5, 'a'");
        session.exec(&format!("select credits.set_wallet_status('acme', 'default', '{status}')"));
        session.set_clock("2026-02-01 00:00+00");
        assert_eq!(close(&mut session, ""), ["overage 5 x 0.02 = 0.1 USD 01-01 00:00 to 02-01 00:00 open"], "{status}");
        refund(&mut session, "a", "1");
        session.set_clock("2026-02-02 00:00+00");
        assert_eq!(close(&mut session, ""), ["overage -1 x 0.02 = -0.02 USD 02-01 00:00 to 02-02 00:00 open"], "{status}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn overage_starts_where_none_was_open() {
    let mut session = invoiced("overage_starts_where_none_was_open");
    session.exec("set credits.pull_events = on");
    grant(&mut session, "bought", "10", "");
    deduct(&mut session, "10");
    assert_eq!(told(&mut session), ["grant.created 10", "wallet.depleted at 0"]);
    deduct(&mut session, "3, 'a'");
    deduct(&mut session, "4");
    assert_eq!(told(&mut session), ["overage.started 3"]);
    session.set_clock("2026-02-01 00:00+00");
    close(&mut session, "");
    refund(&mut session, "a", "1");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "5");
    deduct(&mut session, "6");
    assert_eq!(told(&mut session), ["overage.started 5"], "the next bill");
    session.exec("select * from credits.deduct_usage_batch('[{\"customer_id\": \"acme\", \"amount\": 2}]')");
    assert_eq!(told(&mut session), NOTHING);
    assert_ledger_is_sound(&mut session);
}

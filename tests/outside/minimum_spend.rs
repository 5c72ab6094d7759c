//! Contracts with a minimum spend: usage is invoiced, and one true-up line charges what is missing at the end (SPEC 6 and 9).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, grant, new_books};
use crate::contracts::{cancel, contract};
use crate::recurring::settle;
use crate::recurring_calls::assert_refused_with_help;

const QUARTER: &str = "'2026-01-01 00:00+00', '2026-04-01 00:00+00'";
const MINIMUM: &str = "minimum_spend => true, unit_price => 0.5, currency => 'EUR'";

/// `acme` with a wallet whose overage is invoiced at 0.02 USD.
fn invoiced_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    let settings = "overage_policy => 'invoice', overage_unit_price => 0.02, overage_currency => 'USD'";
    session.exec(&format!("select credits.update_wallet('acme', 'default', {settings})"));
    session
}

/// The invoice lines of `acme`: kind, contract, quantity, price, amount, currency, period and status.
fn lines(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', wallet, kind, contract, quantity, 'x', unit_price, '=', amount, currency,
             to_char(period_start, 'MM-DD'), 'to', to_char(period_end, 'MM-DD'), status, invoice_reference)
         from credits.invoice_lines where customer_id = 'acme' order by period_end, contract",
    )
}

#[test]
fn what_is_missing_at_the_end_is_one_true_up_line() {
    let mut session = invoiced_books("what_is_missing_at_the_end");
    deduct(&mut session, "50, 'on the first day of the term'");
    session.exec("select credits.create_wallet('acme', 'other', overage_policy => 'invoice', overage_unit_price => 1, overage_currency => 'USD')");
    contract(&mut session, "c", &format!("1000, {QUARTER}, {MINIMUM}"));
    assert_eq!(session.lines("select * from credits.grants"), [""; 0], "nothing is granted in advance");
    grant(&mut session, "bought", "30", "");
    session.set_clock("2026-02-10 00:00+00");
    assert_eq!(deduct(&mut session, "430, 'large', wallet => 'default'"), "overage|430|30|400|0|f");
    deduct(&mut session, "70, wallet => 'other'");
    session.exec("select * from credits.refund_usage('acme', 'large', 100)");
    session.set_clock("2026-03-31 23:59:59.999999+00");
    deduct(&mut session, "25, wallet => 'default'");
    settle(&mut session);
    assert_eq!(lines(&mut session), [""; 0]);
    session.set_clock("2026-09-01 00:00+00");
    let before = session.lines("select * from credits.ledger order by wallet, seq");
    settle(&mut session);
    // 50 on the first day, 400 less 100, and 25; neither what the grant paid nor another wallet's.
    assert_eq!(lines(&mut session), ["default true_up c 625 x 0.5 = 312.5 EUR 01-01 to 04-01 open"]);
    assert_eq!(session.lines("select * from credits.ledger order by wallet, seq"), before, "a line moves no credits");
    settle(&mut session);
    deduct(&mut session, "1, wallet => 'default'");
    assert_eq!(session.one("select count(distinct line_id) from credits.invoice_lines"), "1", "once");
    assert_eq!(
        session.lines(
            "select status, committed, granted, consumed, remaining, true_up, minimum_spend from credits.contract_progress"
        ),
        ["ended|1000|0|375|0|625|t"]
    );
    assert_eq!(session.one("select overage from credits.balance('acme', 'default')"), "376", "the overage itself is still open");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_minimum_that_is_reached_has_no_true_up() {
    for (used, line) in [("1000", None), ("1000.000000000001", None), ("999.99", Some("0.01 x 0.5 = 0"))] {
        let mut session = invoiced_books(&format!("a_minimum_reached_with_{used}"));
        contract(&mut session, "c", &format!("1000, {QUARTER}, {MINIMUM}"));
        deduct(&mut session, used);
        session.set_clock("2026-04-01 00:00+00");
        deduct(&mut session, "5000, 'after the term'");
        let line = line.map(|line| format!("default true_up c {line} EUR 01-01 to 04-01 open"));
        assert_eq!(lines(&mut session), line.into_iter().collect::<Vec<_>>(), "{used}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn the_amount_is_money_rounded_half_even_to_the_minor_unit() {
    for (number, (committed, price, amount)) in [
        ("1", "0.005, currency => 'EUR'", "0"),
        ("3", "0.005, currency => 'EUR'", "0.02"),
        ("5", "0.005, currency => 'EUR'", "0.02"),
        ("1234.56789", "1, currency => 'USD'", "1234.57"),
        ("2.5", "1, currency => 'JPY'", "2"),
        ("3.5", "1, currency => 'JPY'", "4"),
        ("1.0015", "1, currency => 'KWD'", "1.002"),
        ("9999999999999999", "0.000000000001, currency => 'EUR'", "10000"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut session = invoiced_books(&format!("rounded_to_the_minor_unit_{number}"));
        contract(&mut session, "c", &format!("{committed}, {QUARTER}, minimum_spend => true, unit_price => {price}"));
        session.set_clock("2026-04-01 00:00+00");
        settle(&mut session);
        assert_eq!(
            session.lines("select quantity, amount from credits.invoice_lines"),
            [format!("{committed}|{amount}")],
            "{price}"
        );
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_cancel_trues_up_at_its_instant_unless_the_term_has_not_begun() {
    let mut session = invoiced_books("a_cancel_trues_up");
    for wallet in ["now", "later", "not begun"] {
        let settings = "overage_policy => 'invoice', overage_unit_price => 0.02, overage_currency => 'USD'";
        session.exec(&format!("select credits.create_wallet('acme', '{wallet}', {settings})"));
    }
    contract(&mut session, "now", &format!("100, {QUARTER}, wallet => 'now', {MINIMUM}"));
    contract(&mut session, "later", &format!("100, {QUARTER}, wallet => 'later', {MINIMUM}"));
    contract(
        &mut session,
        "not begun",
        &format!("100, '2026-02-01 00:00+00', '2026-03-01 00:00+00', wallet => 'not begun', {MINIMUM}"),
    );
    session.set_clock("2026-01-19 23:59:59.999999+00");
    deduct(&mut session, "10, wallet => 'now'");
    deduct(&mut session, "10, wallet => 'later'");
    session.set_clock("2026-01-20 00:00+00");
    cancel(&mut session, "now", "null");
    cancel(&mut session, "later", "'2026-02-10 00:00+00'");
    cancel(&mut session, "not begun", "null");
    assert_eq!(lines(&mut session), ["now true_up now 90 x 0.5 = 45 EUR 01-01 to 01-20 open"]);
    session.set_clock("2026-02-09 00:00+00");
    deduct(&mut session, "5, wallet => 'later'");
    session.set_clock("2026-05-01 00:00+00");
    deduct(&mut session, "7, wallet => 'later'");
    settle(&mut session);
    assert_eq!(
        lines(&mut session),
        ["now true_up now 90 x 0.5 = 45 EUR 01-01 to 01-20 open", "later true_up later 85 x 0.5 = 42.5 EUR 01-01 to 02-10 open"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn terms_of_two_minimums_in_one_wallet_do_not_overlap() {
    let mut session = invoiced_books("terms_do_not_overlap");
    session.exec("select credits.create_wallet('acme', 'other', overage_policy => 'invoice', overage_unit_price => 1, overage_currency => 'USD')");
    contract(&mut session, "q2", &format!("100, '2026-04-01 00:00+00', '2026-07-01 00:00+00', {MINIMUM}"));
    let create = |code: &str, term: &str| format!("create_contract('acme', '{code}', 1, {term}, {MINIMUM})");
    let refused = [
        create("x", "'2026-03-01 00:00+00', '2026-04-01 00:00:00.000001+00'"),
        create("x", "'2026-06-30 23:59:59.999999+00', '2026-08-01 00:00+00'"),
        create("x", "'2026-05-01 00:00+00', '2026-06-01 00:00+00'"),
        create("x", "'2026-01-01 00:00+00', '2027-01-01 00:00+00'"),
    ];
    let refusals: Vec<_> = refused.iter().map(|call| (call.as_str(), "22023", "invalid_argument", "q2")).collect();
    assert_refused_with_help(&mut session, &refusals);
    contract(&mut session, "q1", &format!("100, {QUARTER}, {MINIMUM}"));
    contract(&mut session, "q3", &format!("100, '2026-07-01 00:00+00', '2026-10-01 00:00+00', {MINIMUM}"));
    contract(
        &mut session,
        "elsewhere",
        &format!("100, '2026-01-01 00:00+00', '2027-01-01 00:00+00', wallet => 'other', {MINIMUM}"),
    );
    contract(&mut session, "granted", "100, '2026-01-01 00:00+00', '2027-01-01 00:00+00', wallet => 'other'");
    // What ended early makes room.
    session.set_clock("2026-05-10 00:00+00");
    cancel(&mut session, "q2", "null");
    contract(&mut session, "rest of q2", &format!("50, '2026-05-10 00:00+00', '2026-07-01 00:00+00', {MINIMUM}"));
    deduct(&mut session, "10, wallet => 'default'");
    session.set_clock("2027-01-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        lines(&mut session),
        [
            "default true_up q1 100 x 0.5 = 50 EUR 01-01 to 04-01 open",
            "default true_up q2 100 x 0.5 = 50 EUR 04-01 to 05-10 open",
            "default true_up rest of q2 40 x 0.5 = 20 EUR 05-10 to 07-01 open",
            "default true_up q3 100 x 0.5 = 50 EUR 07-01 to 10-01 open",
            "other true_up elsewhere 100 x 0.5 = 50 EUR 01-01 to 01-01 open"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_minimum_needs_a_price_and_a_wallet_that_is_invoiced() {
    let mut session = invoiced_books("a_minimum_needs_a_price");
    session.exec(
        "select credits.create_wallet('acme', 'blocks'), credits.create_wallet('acme', 'owes', overage_policy => 'overdraft')",
    );
    let create = |more: &str| format!("create_contract('acme', 'c', 1, {QUARTER}, minimum_spend => true{more})");
    let refused = [
        (create(""), "unit_price"),
        (create(", unit_price => 1"), "currency"),
        (create(", currency => 'EUR'"), "unit_price"),
        (create(", unit_price => 1, currency => 'EUR', wallet => 'blocks'"), "invoice"),
        (create(", unit_price => 1, currency => 'EUR', wallet => 'owes'"), "invoice"),
    ];
    let refusals: Vec<_> = refused.iter().map(|(call, named)| (call.as_str(), "22023", "invalid_argument", *named)).collect();
    assert_refused_with_help(&mut session, &refusals);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallet_keeps_the_policy_that_its_minimum_spend_counts_on() {
    let mut session = invoiced_books("a_wallet_keeps_the_policy");
    contract(&mut session, "c", &format!("100, {QUARTER}, {MINIMUM}"));
    let other_policy = "select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')";
    let error = session.error(other_policy);
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("55000", "wrong_state"), "{error}");
    assert!(error.message.contains("\"c\"") && !error.hint.is_empty(), "{error}");
    session.exec("select credits.update_wallet('acme', 'default', overage_unit_price => 0.03)");
    cancel(&mut session, "c", "null");
    session.exec(other_policy);
    assert_ledger_is_sound(&mut session);
}

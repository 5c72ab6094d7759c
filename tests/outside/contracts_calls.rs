//! The calls about contracts: what they refuse, and how they say so (SPEC 6 and 11).

use pgrx_tests::assert_ledger_is_sound;

use crate::books::new_books;
use crate::contracts::{cancel, contract};
use crate::recurring::settle;
use crate::recurring_calls::assert_refused_with_help;

const YEAR: &str = "'2026-01-01 00:00+00', '2027-01-01 00:00+00'";

#[test]
fn a_contract_that_makes_no_sense_is_refused() {
    let mut session = new_books("a_contract_that_makes_no_sense");
    let year = |arguments: &str| arguments.replace("YEAR", YEAR);
    let refusals = [
        ("null, YEAR", "22004", "null_argument", "committed_credits"),
        ("0, YEAR", "22023", "invalid_argument", "committed_credits"),
        ("-1, YEAR", "22023", "invalid_argument", "committed_credits"),
        ("'NaN', YEAR", "22023", "invalid_argument", "committed_credits"),
        ("1e16, YEAR", "22003", "out_of_range", "committed_credits"),
        ("0.0000000000001, YEAR", "22023", "invalid_argument", "committed_credits"),
        ("1, null, '2027-01-01 00:00+00'", "22004", "null_argument", "starts_at"),
        ("1, '2026-01-01 00:00+00', null", "22004", "null_argument", "ends_at"),
        ("1, 'infinity', '2027-01-01 00:00+00'", "22003", "out_of_range", "starts_at"),
        ("1, '2026-01-01 00:00+00', 'infinity'", "22003", "out_of_range", "ends_at"),
        ("1, '2026-06-01 00:00+00', '2026-06-01 00:00+00'", "22023", "invalid_argument", "ends_at"),
        ("1, '2026-06-01 00:00+00', '2026-05-01 00:00+00'", "22023", "invalid_argument", "ends_at"),
        ("1, '2025-01-01 00:00+00', '2026-01-01 00:00+00'", "22023", "invalid_argument", "ends_at"),
        ("1, YEAR, wallet => null", "22004", "null_argument", "wallet"),
        ("1, YEAR, wallet => 'none'", "P0002", "not_found", "none"),
        ("1, YEAR, unit_price => 1", "22023", "invalid_argument", "currency"),
        ("1, YEAR, currency => 'EUR'", "22023", "invalid_argument", "unit_price"),
        ("1, YEAR, unit_price => -1, currency => 'EUR'", "22023", "invalid_argument", "unit_price"),
        ("1, YEAR, unit_price => 1, currency => 'euro'", "22023", "invalid_argument", "currency"),
        ("1, YEAR, installments => null", "22004", "null_argument", "installments"),
        ("1, YEAR, installments => 0", "22023", "invalid_argument", "installments"),
        ("1, YEAR, installments => -1", "22023", "invalid_argument", "installments"),
        ("1, YEAR, installments => 36526", "22023", "invalid_argument", "installments"),
        ("0.000000000002, YEAR, installments => 3", "22023", "invalid_argument", "installments"),
        ("1, YEAR, installments => 2, installment_every => '0'", "22023", "invalid_argument", "installment_every"),
        ("1, YEAR, installments => 2, installment_every => '-1 month'", "22023", "invalid_argument", "installment_every"),
        ("1, YEAR, installments => 2, installment_every => '101 years'", "22003", "out_of_range", "installment_every"),
        ("1, YEAR, installments => 2, installment_every => '1 year'", "22023", "invalid_argument", "installment_every"),
        (
            "1, YEAR, installments => 14, installment_every => '28 days 12 hours'",
            "22023",
            "invalid_argument",
            "installment_every",
        ),
        ("1, YEAR, on_end => null", "22004", "null_argument", "on_end"),
        ("1, YEAR, on_end => 'renew'", "22023", "invalid_argument", "rollover"),
        ("1, YEAR, rollover_percent => null", "22004", "null_argument", "rollover_percent"),
        ("1, YEAR, rollover_percent => 101", "22023", "invalid_argument", "rollover_percent"),
        ("1, YEAR, rollover_percent => -1", "22023", "invalid_argument", "rollover_percent"),
        ("1, YEAR, rollover_cap => -1", "22023", "invalid_argument", "rollover_cap"),
        ("1, YEAR, rollover_expires_after => '0'", "22023", "invalid_argument", "rollover_expires_after"),
        ("1, YEAR, rollover_expires_after => '101 years'", "22003", "out_of_range", "rollover_expires_after"),
        ("1, YEAR, minimum_spend => null", "22004", "null_argument", "minimum_spend"),
        ("1, YEAR, metadata => null", "22004", "null_argument", "metadata"),
        ("1, YEAR, metadata => '[]'", "22023", "invalid_argument", "metadata"),
    ];
    let calls = refusals.map(|(arguments, ..)| year(&format!("create_contract('acme', 'c', {arguments})")));
    let refusals: Vec<_> =
        calls.iter().zip(refusals).map(|(call, (_, sqlstate, symbol, named))| (call.as_str(), sqlstate, symbol, named)).collect();
    assert_refused_with_help(&mut session, &refusals);
    let refusals = [
        ("create_contract(null, 'c', 1, YEAR)", "22004", "null_argument", "customer_id"),
        ("create_contract('nobody', 'c', 1, YEAR)", "P0002", "not_found", "nobody"),
        ("create_contract('acme', null, 1, YEAR)", "22004", "null_argument", "contract"),
        ("create_contract('acme', '', 1, YEAR)", "22023", "invalid_argument", "contract"),
        ("create_contract('acme', repeat('x', 256), 1, YEAR)", "22023", "invalid_argument", "contract"),
        ("cancel_contract('acme', 'none')", "P0002", "not_found", "none"),
        ("cancel_contract('nobody', 'c')", "P0002", "not_found", "nobody"),
        ("cancel_contract('acme', null)", "22004", "null_argument", "contract"),
        ("cancel_contract(null, 'c')", "22004", "null_argument", "customer_id"),
    ];
    let calls = refusals.map(|(call, ..)| year(call));
    let refusals: Vec<_> =
        calls.iter().zip(refusals).map(|(call, (_, sqlstate, symbol, named))| (call.as_str(), sqlstate, symbol, named)).collect();
    assert_refused_with_help(&mut session, &refusals);
    assert_eq!(session.lines("select * from credits.contract_progress"), [""; 0]);
}

#[test]
fn a_contract_at_the_limits_is_made() {
    let mut session = new_books("a_contract_at_the_limits");
    contract(&mut session, "shortest", "1, '2025-01-01 00:00+00', '2026-01-01 00:00:00.000001+00'");
    contract(&mut session, "smallest", &format!("0.000000000003, {YEAR}, installments => 3"));
    contract(
        &mut session,
        "just before its end",
        &format!("2, {YEAR}, installments => 2, installment_every => '364 days 23:59:59.999999'"),
    );
    contract(&mut session, "often", "36525, '2026-01-01 00:00+00', '2026-01-02 00:00+00', installments => 36525");
    session.set_clock("2026-12-31 23:59:59.999999+00");
    settle(&mut session);
    assert_eq!(
        session.lines("select contract, granted, expired, installments_granted from credits.contract_progress order by 1"),
        ["just before its end|2|0|2", "often|36525|36525|36525", "shortest|1|1|1", "smallest|0.000000000003|0|3"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_code_stands_for_one_contract_for_ever() {
    let mut session = new_books("a_code_stands_for_one_contract");
    contract(&mut session, "c", &format!("1, {YEAR}"));
    let again = format!("create_contract('acme', 'c', 1, {YEAR})");
    let refusals = [(again.as_str(), "42710", "already_exists", "c")];
    assert_refused_with_help(&mut session, &refusals);
    cancel(&mut session, "c", "null");
    assert_refused_with_help(&mut session, &refusals);
    session.exec(&format!("select credits.create_wallet('zoe'), credits.create_contract('zoe', 'c', 1, {YEAR})"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn closing_a_wallet_cancels_its_contracts() {
    let mut session = new_books("closing_cancels_contracts");
    session.exec("select credits.create_wallet('acme', 'other')");
    contract(&mut session, "running", &format!("120, {YEAR}, installments => 12, on_end => 'rollover'"));
    contract(&mut session, "not begun", "70, '2026-06-01 00:00+00', '2027-01-01 00:00+00'");
    contract(&mut session, "elsewhere", &format!("120, {YEAR}, installments => 12, wallet => 'other'"));
    session.set_clock("2026-01-20 00:00+00");
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    session.set_clock("2026-08-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        session.lines("select contract, status, granted from credits.contract_progress order by 1"),
        ["elsewhere|active|80", "not begun|ended|0", "running|ended|10"]
    );
    assert_eq!(session.lines("select wallet, balance from credits.balance('acme') order by 1"), ["default|0", "other|80"]);
    let again = format!("create_contract('acme', 'new', 1, {YEAR})");
    assert_refused_with_help(&mut session, &[(again.as_str(), "55000", "wrong_state", "closed")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_frozen_wallet_gets_its_instalments() {
    let mut session = new_books("a_frozen_wallet_gets_instalments");
    contract(&mut session, "c", &format!("120, {YEAR}, installments => 12"));
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    contract(&mut session, "made while frozen", &format!("5, {YEAR}"));
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "35");
    assert_ledger_is_sound(&mut session);
}

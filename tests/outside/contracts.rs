//! Contracts: what was committed is granted in instalments, and what is unused ends with the term (SPEC 6 and 10).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, grant, hold, ledger, new_books, release, takes};
use crate::recurring::settle;

/// Creates a contract of `acme`; `terms` begin with the committed credits, starts_at and ends_at.
pub fn contract(session: &mut Session, code: &str, terms: &str) {
    assert_eq!(session.one(&format!("select credits.create_contract('acme', '{code}', {terms})")), code);
}

pub fn cancel(session: &mut Session, code: &str, at: &str) {
    assert_eq!(session.one(&format!("select credits.cancel_contract('acme', '{code}', {at})")), code);
}

/// The instalments of `acme` as written: contract, amount and due instant.
fn instalments(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', contract, amount, to_char(effective_at, 'YYYY-MM-DD HH24:MI:SS.US'))
         from credits.grants where contract is not null and not rolled_over order by contract, effective_at",
    )
}

/// Where a contract of `acme` stands: its status, what was granted, consumed, is left, held, expired and rolled over, and the share
/// of its term that has passed.
fn progress(session: &mut Session, code: &str) -> String {
    session.one(&format!(
        "select concat_ws(' ', status, granted, consumed, remaining, held, expired, rolled_over, elapsed)
         from credits.contract_progress where contract = '{code}'"
    ))
}

#[test]
fn a_commitment_is_granted_in_equal_instalments_the_last_takes_the_remainder() {
    let mut session = new_books("granted_in_equal_instalments");
    let year = "'2026-01-01 00:00+00', '2027-01-01 00:00+00'";
    contract(&mut session, "1 once", &format!("1000, {year}"));
    contract(&mut session, "2 quarters", &format!("1000, {year}, installments => 4"));
    contract(&mut session, "3 thirds", &format!("1000, {year}, installments => 3"));
    contract(&mut session, "4 two thirds", &format!("200, {year}, installments => 3"));
    contract(&mut session, "5 equal times", &format!("10, {year}, installments => 5"));
    contract(&mut session, "6 own", &format!("3, {year}, installments => 3, installment_every => '10 days'"));
    contract(&mut session, "7 month ends", "2, '2026-01-31 00:00+00', '2026-03-31 00:00+00', installments => 2");
    contract(&mut session, "8 a day", "7, '2026-01-02 00:00+00', '2026-01-03 00:00+00', installments => 7");
    session.set_clock("2026-12-31 00:00+00");
    settle(&mut session);
    let midnights = |lines: &[String]| lines.iter().map(|line| line.replace(" 00:00:00.000000", "")).collect::<Vec<_>>();
    let all = instalments(&mut session);
    assert_eq!(
        midnights(&all[..20]),
        [
            "1 once 1000 2026-01-01",
            "2 quarters 250 2026-01-01",
            "2 quarters 250 2026-04-01",
            "2 quarters 250 2026-07-01",
            "2 quarters 250 2026-10-01",
            "3 thirds 333.333333333333 2026-01-01",
            "3 thirds 333.333333333333 2026-05-01",
            "3 thirds 333.333333333334 2026-09-01",
            "4 two thirds 66.666666666667 2026-01-01",
            "4 two thirds 66.666666666667 2026-05-01",
            "4 two thirds 66.666666666666 2026-09-01",
            "5 equal times 2 2026-01-01",
            "5 equal times 2 2026-03-15",
            "5 equal times 2 2026-05-27",
            "5 equal times 2 2026-08-08",
            "5 equal times 2 2026-10-20",
            "6 own 1 2026-01-01",
            "6 own 1 2026-01-11",
            "6 own 1 2026-01-21",
            "7 month ends 1 2026-01-31"
        ]
    );
    assert_eq!(
        midnights(&all[20..]),
        [
            "7 month ends 1 2026-02-28",
            "8 a day 1 2026-01-02",
            "8 a day 1 2026-01-02 03:25:42.857142",
            "8 a day 1 2026-01-02 06:51:25.714285",
            "8 a day 1 2026-01-02 10:17:08.571428",
            "8 a day 1 2026-01-02 13:42:51.428571",
            "8 a day 1 2026-01-02 17:08:34.285714",
            "8 a day 1 2026-01-02 20:34:17.142857"
        ]
    );
    assert_eq!(
        session.lines(
            "select distinct grant_type, priority, status, expires_at from credits.grants where contract < '7' order by 3"
        ),
        ["committed|100|active|2027-01-01 00:00:00+00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_due_before_the_call_is_granted_now() {
    let mut session = new_books("what_was_due_before_the_call");
    session.set_clock("2026-05-15 00:00+00");
    contract(
        &mut session,
        "late",
        "1000, '2026-01-01 00:00+00', '2027-01-01 00:00+00', installments => 4, unit_price => 0.02, currency => 'USD'",
    );
    contract(&mut session, "ahead", "90, '2026-06-01 00:00+00', '2026-09-01 00:00+00', installments => 3");
    assert_eq!(ledger(&mut session), ["default 1 grant 250 250 05-15 00:00", "default 2 grant 250 500 05-15 00:00"]);
    assert_eq!(
        session.lines("select amount, effective_at, expires_at, unit_price, currency from credits.grants order by 2"),
        [
            "250|2026-01-01 00:00:00+00|2027-01-01 00:00:00+00|0.02|USD",
            "250|2026-04-01 00:00:00+00|2027-01-01 00:00:00+00|0.02|USD"
        ]
    );
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["500|0"]);
    session.set_clock("2026-07-20 00:00+00");
    assert_eq!(deduct(&mut session, "800"), "charged|800|800|0|10|f");
    assert_eq!(
        ledger(&mut session)[2..],
        [
            "default 3 grant 30 530 06-01 00:00",
            "default 4 grant 30 560 07-01 00:00",
            "default 5 grant 250 810 07-01 00:00",
            "default 6 usage -30 780 07-20 00:00",
            "default 7 usage -30 750 07-20 00:00",
            "default 8 usage -250 500 07-20 00:00",
            "default 9 usage -250 250 07-20 00:00",
            "default 10 usage -240 10 07-20 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn at_the_end_the_unused_part_expires_however_late_it_is_settled() {
    let mut session = new_books("at_the_end_the_unused_part_expires");
    contract(&mut session, "a", "100, '2026-01-01 00:00+00', '2026-03-01 00:00+00', installments => 2");
    contract(&mut session, "b", "60, '2026-01-01 00:00+00', '2026-02-01 00:00+00'");
    grant(&mut session, "bought", "5", "");
    deduct(&mut session, "75");
    session.set_clock("2026-08-20 00:00+00");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "5");
    deduct(&mut session, "1");
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 50 50 01-01 00:00",
            "default 2 grant 60 110 01-01 00:00",
            "default 3 grant 5 115 01-01 00:00",
            "default 4 usage -60 55 01-01 00:00",
            "default 5 usage -15 40 01-01 00:00",
            "default 6 grant 50 90 02-01 00:00",
            "default 7 expiration -35 55 03-01 00:00",
            "default 8 expiration -50 5 03-01 00:00",
            "default 9 usage -1 4 08-20 00:00"
        ]
    );
    assert_eq!(progress(&mut session, "a"), "ended 100 15 0 0 85 0 1");
    assert_eq!(progress(&mut session, "b"), "ended 60 60 0 0 0 0 1");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn at_the_end_the_unused_part_rolls_over_under_the_percent_and_the_cap() {
    let term = "'2026-01-01 00:00+00', '2026-03-01 00:00+00', installments => 2, on_end => 'rollover'";
    for (number, (terms, rolled, expired, until)) in [
        ("", "80", "0", ""),
        ("rollover_percent => 50", "40", "40", ""),
        ("rollover_percent => 50, rollover_cap => 30", "30", "50", ""),
        ("rollover_cap => 0", "0", "80", ""),
        ("rollover_percent => 0", "0", "80", ""),
        ("rollover_cap => 79.5, rollover_expires_after => '3 months'", "79.5", "0.5", "2026-06-01 00:00:00+00"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut session = new_books(&format!("the_unused_part_rolls_over_{number}"));
        let more = if terms.is_empty() { String::new() } else { format!(", {terms}") };
        contract(&mut session, "c", &format!("100, {term}, unit_price => 0.5, currency => 'EUR'{more}"));
        deduct(&mut session, "20");
        session.set_clock("2026-05-31 23:59+00");
        settle(&mut session);
        assert_eq!(
            session.lines(
                "select amount, remaining, grant_type, priority, effective_at, expires_at, unit_price, currency, contract
                 from credits.grants where rolled_over"
            ),
            if rolled == "0" {
                vec![]
            } else {
                vec![format!("{rolled}|{rolled}|committed|100|2026-03-01 00:00:00+00|{until}|0.5|EUR|c")]
            },
            "{terms}"
        );
        assert_eq!(
            session.lines(
                "select coalesce(sum(credits) filter (where kind = 'rollover_out'), 0),
                     coalesce(sum(credits) filter (where kind = 'rollover_in'), 0),
                     coalesce(trim_scale(sum(credits) filter (where kind = 'expiration')), 0)
                 from credits.ledger where occurred_at = '2026-03-01 00:00+00'"
            ),
            [format!("{rolled}|{rolled}|{expired}")],
            "{terms}"
        );
        assert_eq!(progress(&mut session, "c"), format!("ended 100 20 0 0 {expired} {rolled} 1"), "{terms}");
        assert_ledger_is_sound(&mut session);
        session.set_clock("2026-06-01 00:00+00");
        let left = if until.is_empty() { rolled } else { "0" };
        assert_eq!(session.one("select balance from credits.balance('acme')"), left, "{terms}");
    }
}

/// Support gave one instalment a longer life. Whatever becomes of it, it must not depend on when it is settled.
#[test]
fn an_instalment_with_another_expiry_ends_the_same_however_late_it_is_settled() {
    let books = |rule: &str, is_settled_meanwhile: bool| {
        let mut session = new_books(rule);
        contract(
            &mut session,
            "c",
            "100, '2026-01-01 00:00+00', '2026-02-01 00:00+00', on_end => 'rollover', rollover_cap => 30",
        );
        session.exec("select credits.change_expiry('acme', grant_id, '2026-03-01 00:00+00') from credits.grants");
        session.set_clock("2026-02-10 00:00+00");
        if is_settled_meanwhile {
            settle(&mut session);
        }
        let balance = session.one("select balance from credits.balance('acme')");
        session.set_clock("2026-04-01 00:00+00");
        settle(&mut session);
        assert_eq!(
            session.one("select credits.balance_at('acme', 'default', '2026-02-10 00:00+00')"),
            balance,
            "the past is as it was"
        );
        assert_ledger_is_sound(&mut session);
        ledger(&mut session)
    };
    assert_eq!(books("another_expiry_settled_early", true), books("another_expiry_settled_late", false));
}

#[test]
fn contracts_stand_side_by_side_in_one_wallet() {
    let mut session = new_books("contracts_side_by_side");
    contract(
        &mut session,
        "b",
        "100, '2026-01-01 00:00+00', '2026-03-01 00:00+00', on_end => 'rollover', rollover_expires_after => '1 month'",
    );
    contract(&mut session, "a", "40, '2026-01-15 00:00+00', '2026-03-01 00:00+00', on_end => 'rollover', rollover_percent => 50");
    contract(&mut session, "c", "30, '2026-02-01 00:00+00', '2026-04-01 00:00+00', metadata => '{\"name\": \"c\"}'");
    session.set_clock("2026-02-10 00:00+00");
    settle(&mut session);
    assert_eq!(takes(&mut session, "110", ""), ["100", "10"], "b, then a: both end in March, b is effective before");
    assert_eq!(progress(&mut session, "a"), "active 40 10 30 0 0 0 0.577778");
    session.set_clock("2026-03-15 00:00+00");
    settle(&mut session);
    assert_eq!(
        ledger(&mut session)[5..],
        [
            "default 6 rollover_out -15 45 03-01 00:00",
            "default 7 expiration -15 30 03-01 00:00",
            "default 8 rollover_in 15 45 03-01 00:00"
        ]
    );
    session.set_clock("2026-04-01 00:00+00");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "15");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_cancel_ends_a_contract_as_its_end_would() {
    let mut session = new_books("a_cancel_ends_a_contract");
    let year = "'2026-01-01 00:00+00', '2027-01-01 00:00+00', installments => 12";
    contract(&mut session, "1 now", &format!("120, {year}"));
    contract(&mut session, "2 past", &format!("120, {year}, on_end => 'rollover', rollover_cap => 15"));
    contract(&mut session, "3 later", &format!("120, {year}"));
    contract(&mut session, "4 at an instalment", &format!("120, {year}"));
    contract(&mut session, "5 not begun", "70, '2026-06-01 00:00+00', '2027-01-01 00:00+00', on_end => 'rollover'");
    contract(&mut session, "6 before it begins", "70, '2026-06-01 00:00+00', '2027-01-01 00:00+00'");
    session.set_clock("2026-02-10 00:00+00");
    cancel(&mut session, "1 now", "null");
    cancel(&mut session, "2 past", "'2026-01-05 00:00+00'");
    cancel(&mut session, "3 later", "'2026-03-15 00:00+00'");
    cancel(&mut session, "4 at an instalment", "'2026-03-01 00:00+00'");
    cancel(&mut session, "5 not begun", "null");
    cancel(&mut session, "6 before it begins", "'2026-05-31 00:00+00'");
    assert_eq!(progress(&mut session, "1 now"), "ended 20 0 0 0 20 0 0.109589", "40 of 365 days");
    assert_eq!(progress(&mut session, "2 past"), "ended 20 0 0 0 5 15 0.109589");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "55", "two times 20, and 15 rolled over");
    cancel(&mut session, "3 later", "'2026-11-01 00:00+00'");
    cancel(&mut session, "1 now", "null");
    session.set_clock("2026-12-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        session.lines("select contract, status, granted, expired, rolled_over, ends_at, installments_granted from credits.contract_progress order by 1"),
        [
            "1 now|ended|20|20|0|2026-02-10 00:00:00+00|2",
            "2 past|ended|20|5|15|2026-02-10 00:00:00+00|2",
            "3 later|ended|30|30|0|2026-03-15 00:00:00+00|3",
            "4 at an instalment|ended|20|20|0|2026-03-01 00:00:00+00|2",
            "5 not begun|ended|0|0|0|2026-02-10 00:00:00+00|0",
            "6 before it begins|ended|0|0|0|2026-05-31 00:00:00+00|0"
        ]
    );
    assert_eq!(
        session.lines(
            "select kind, credits, occurred_at from credits.ledger where occurred_at > '2026-02-10 00:00+00' order by seq"
        ),
        [
            "expiration|10|2026-03-01 00:00:00+00",
            "expiration|10|2026-03-01 00:00:00+00",
            "grant|10|2026-03-01 00:00:00+00",
            "expiration|10|2026-03-15 00:00:00+00",
            "expiration|10|2026-03-15 00:00:00+00",
            "expiration|10|2026-03-15 00:00:00+00"
        ]
    );
    assert_eq!(session.one("select balance from credits.balance('acme')"), "15");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn progress_is_told_at_every_moment() {
    let mut session = new_books("progress_is_told");
    contract(
        &mut session,
        "c",
        "300, '2026-01-11 00:00+00', '2026-04-21 00:00+00', unit_price => 0.25, currency => 'EUR', installments => 2,
         on_end => 'rollover', rollover_percent => 50, metadata => '{\"number\": \"C-17\"}'",
    );
    assert_eq!(progress(&mut session, "c"), "scheduled 0 0 0 0 0 0 0");
    session.set_clock("2026-01-11 00:00+00");
    deduct(&mut session, "30, 'used'");
    assert_eq!(progress(&mut session, "c"), "active 150 30 120 0 0 0 0");
    session.set_clock("2026-01-31 00:00+00");
    hold(&mut session, "20, '60 days', idempotency_key => 'held'");
    session.exec("select * from credits.refund_usage('acme', 'used', 5)");
    assert_eq!(progress(&mut session, "c"), "active 150 25 105 20 0 0 0.2", "20 of 100 days");
    release(&mut session, "held");
    session.set_clock("2026-03-02 00:00+00");
    settle(&mut session);
    assert_eq!(progress(&mut session, "c"), "active 300 25 275 0 0 0 0.5");
    assert_eq!(
        session.lines(
            "select customer_id, contract, wallet, status, starts_at, ends_at, committed, installments, installments_granted,
                 minimum_spend, unit_price, currency, metadata from credits.contract_progress"
        ),
        ["acme|c|default|active|2026-01-11 00:00:00+00|2026-04-21 00:00:00+00|300|2|2|f|0.25|EUR|{\"number\": \"C-17\"}"]
    );
    session.set_clock("2026-04-21 00:00+00");
    settle(&mut session);
    assert_eq!(progress(&mut session, "c"), "ended 300 25 0 0 137.5 137.5 1");
    assert_ledger_is_sound(&mut session);
}

//! Grants: how they begin, what their terms are, how they are voided and given another expiry (SPEC 2 and 3).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, deduct, entries, grant, ledger, new_books, takes};

const TIMES: &str = "select metadata ->> 'name', status, effective_at, expires_at from credits.grants order by 1";
const LEFT: &str = "select metadata ->> 'name', status, amount, remaining from credits.grants order by 1, 3";

fn void(session: &mut Session, id: &str, arguments: &str) -> String {
    session.one(&format!("select credits.void_grant('acme', '{id}'{arguments})"))
}

fn change_expiry(session: &mut Session, id: &str, arguments: &str) -> String {
    session.one(&format!("select credits.change_expiry('acme', '{id}', {arguments})"))
}

#[test]
fn a_grant_has_its_defaults_or_the_terms_asked_for() {
    let mut session = new_books("defaults_or_the_terms_asked_for");
    session.exec("select credits.create_wallet('acme', 'team')");
    let plain = session.one("select credits.grant_credits('acme', 10)");
    let full = session.one(
        "select credits.grant_credits('acme', 25.50, 'team', 'committed', '2026-06-01 02:00+02', '2025-12-31 00:00+00', -3,
             0.0200, 'EUR', array['chat', 'image'], '{\"contract\": \"C-17\"}', 'key')",
    );
    assert_ne!(plain, full);
    assert_eq!(
        session.lines(&format!("select substr('{plain}', 15, 1), substr('{full}', 15, 1)")),
        ["7|7"],
        "UUIDs of version 7"
    );
    let all = "select wallet, grant_id, grant_type, status, amount, remaining, priority, effective_at, expires_at, unit_price,
               currency, applies_to, metadata from credits.grants where customer_id = 'acme' order by wallet";
    assert_eq!(
        session.lines(all),
        [
            format!("default|{plain}|prepaid|active|10|10|100|2026-01-01 00:00:00+00|||||{{}}"),
            format!(
                "team|{full}|committed|active|25.5|25.5|-3|2025-12-31 00:00:00+00|2026-06-01 00:00:00+00|0.02|EUR|{{chat,image}}|\
                 {{\"contract\": \"C-17\"}}"
            )
        ]
    );
    assert_eq!(
        session.lines("select wallet, kind, credits, grant_id, transaction_id = 'key' from credits.ledger order by wallet"),
        [format!("default|grant|10|{plain}|f"), format!("team|grant|25.5|{full}|t")]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_past_effective_time_is_kept_and_the_entry_is_dated_now() {
    let mut session = new_books("a_past_effective_time");
    session.set_clock("2026-01-05 00:00+00");
    grant(&mut session, "past", "10", "effective_at => '2025-11-01 00:00+00'");
    grant(&mut session, "now", "10", "effective_at => '2026-01-05 00:00+00'");
    assert_eq!(session.lines(TIMES), ["now|active|2026-01-05 00:00:00+00|", "past|active|2025-11-01 00:00:00+00|"]);
    assert_eq!(ledger(&mut session), ["default 1 grant 10 10 01-05 00:00", "default 2 grant 10 20 01-05 00:00"]);
    assert_eq!(
        session.one("select credits.balance_at('acme', 'default', '2026-01-04 00:00+00')"),
        "0",
        "the past does not change"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_scheduled_grant_is_written_at_once_and_activates_at_its_instant() {
    let mut session = new_books("written_at_once_activates_later");
    grant(&mut session, "in an instant", "10", "effective_at => '2026-01-01 00:00:00.000001+00'");
    grant(&mut session, "in a month", "5", "effective_at => '2026-02-01 00:00+00', expires_at => '2026-03-01 00:00+00'");
    assert_eq!(
        session.lines(TIMES),
        [
            "in a month|scheduled|2026-02-01 00:00:00+00|2026-03-01 00:00:00+00",
            "in an instant|scheduled|2026-01-01 00:00:00.000001+00|"
        ]
    );
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["0|15"]);
    session.set_clock("2026-01-01 00:00:00.000001+00");
    assert_eq!(takes(&mut session, "4", ""), ["in an instant 4"]);
    session.set_clock("2026-02-15 00:00+00");
    assert_eq!(takes(&mut session, "6", ""), ["in a month 5", "in an instant 1"]);
    assert_eq!(
        session.lines("select kind, amount, balance_after, occurred_at from credits.ledger order by seq"),
        [
            "grant_scheduled|0|0|2026-01-01 00:00:00+00",
            "grant_scheduled|0|0|2026-01-01 00:00:00+00",
            "grant_activated|10|10|2026-01-01 00:00:00.000001+00",
            "usage|-4|6|2026-01-01 00:00:00.000001+00",
            "grant_activated|5|11|2026-02-01 00:00:00+00",
            "usage|-5|6|2026-02-15 00:00:00+00",
            "usage|-1|5|2026-02-15 00:00:00+00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallets_expiry_counts_from_the_effective_time() {
    let mut session = new_books("expires_after_counts_from_effective");
    session.exec("select credits.update_wallet('acme', 'default', expires_after => '1 month')");
    session.set_clock("2026-01-31 12:00+00");
    grant(&mut session, "a now", "1", "");
    grant(&mut session, "b past", "1", "effective_at => '2026-01-10 00:00+00'");
    grant(&mut session, "c future", "1", "effective_at => '2026-03-10 00:00+00'");
    grant(&mut session, "d given", "1", "expires_at => '2030-01-01 00:00+00'");
    grant(&mut session, "e never", "1", "expires_at => 'infinity'");
    assert_eq!(
        session.lines(TIMES),
        [
            "a now|active|2026-01-31 12:00:00+00|2026-02-28 12:00:00+00",
            "b past|active|2026-01-10 00:00:00+00|2026-02-10 00:00:00+00",
            "c future|scheduled|2026-03-10 00:00:00+00|2026-04-10 00:00:00+00",
            "d given|active|2026-01-31 12:00:00+00|2030-01-01 00:00:00+00",
            "e never|active|2026-01-31 12:00:00+00|"
        ]
    );
    // Another setting is for new grants only; the days of the customer's session are not those of the ledger.
    session.exec("set timezone = 'Europe/Berlin'; select credits.update_wallet('acme', 'default', expires_after => '60 days')");
    grant(&mut session, "f over the change of the clocks", "1", "");
    session.exec("set timezone = 'UTC'");
    assert_eq!(
        session.lines(&format!("select * from ({TIMES}) t offset 5")),
        ["f over the change of the clocks|active|2026-01-31 12:00:00+00|2026-04-01 12:00:00+00"]
    );
    let error = session.error("select credits.grant_credits('acme', 1, effective_at => '2025-12-02 12:00+00')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "past by the wallet's rule: {error}");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_expiry_that_leaves_no_life_is_refused() {
    let mut session = new_books("an_expiry_that_leaves_no_life");
    session.set_clock("2026-01-05 00:00+00");
    let refusals = [
        ("expires_at => '2026-01-05 00:00+00'", "22023", "invalid_argument"),
        ("expires_at => '2026-01-04 23:59:59.999999+00', effective_at => '2026-01-01 00:00+00'", "22023", "invalid_argument"),
        ("expires_at => '2026-02-01 00:00+00', effective_at => '2026-02-01 00:00+00'", "22023", "invalid_argument"),
        ("expires_at => '2026-01-10 00:00+00', effective_at => '2026-02-01 00:00+00'", "22023", "invalid_argument"),
        ("expires_at => '-infinity'", "22003", "out_of_range"),
        ("expires_at => '10000-01-01 00:00+00'", "22003", "out_of_range"),
        ("effective_at => 'infinity'", "22003", "out_of_range"),
        ("effective_at => '-infinity'", "22003", "out_of_range"),
        ("effective_at => '1969-12-31 23:59:59.999999+00'", "22003", "out_of_range"),
    ]
    .map(|(times, sqlstate, symbol)| (format!("grant_credits('acme', 1, {times})"), sqlstate, symbol));
    let refusals: Vec<_> = refusals.iter().map(|(call, sqlstate, symbol)| (call.as_str(), *sqlstate, *symbol)).collect();
    assert_refused(&mut session, &refusals);
    grant(&mut session, "the shortest", "1", "expires_at => '2026-01-05 00:00:00.000001+00'");
    grant(
        &mut session,
        "the longest",
        "1",
        "effective_at => '1970-01-01 00:00+00', expires_at => '9999-12-31 23:59:59.999999+00'",
    );
    session.exec("select credits.update_wallet('acme', 'default', expires_after => '100 years')");
    assert_refused(&mut session, &[("grant_credits('acme', 1, effective_at => '9950-01-01 00:00+00')", "22003", "out_of_range")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    let mut session = new_books("terms_that_make_no_sense");
    let refusals = [
        ("grant_credits('acme', 0)", "22023", "invalid_argument"),
        ("grant_credits('acme', -1)", "22023", "invalid_argument"),
        ("grant_credits('acme', 'NaN')", "22023", "invalid_argument"),
        ("grant_credits('acme', 0.0000000000001)", "22023", "invalid_argument"),
        ("grant_credits('acme', 1e16)", "22003", "out_of_range"),
        ("grant_credits('acme', null)", "22004", "null_argument"),
        ("grant_credits('acme', 1, null)", "22004", "null_argument"),
        ("grant_credits('acme', 1, 'none')", "P0002", "not_found"),
        ("grant_credits('nobody', 1)", "P0002", "not_found"),
        ("grant_credits('acme', 1, grant_type => 'free')", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, grant_type => null)", "22004", "null_argument"),
        ("grant_credits('acme', 1, priority => null)", "22004", "null_argument"),
        ("grant_credits('acme', 1, unit_price => 1)", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, currency => 'USD')", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, unit_price => -1, currency => 'USD')", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, unit_price => 1e16, currency => 'USD')", "22003", "out_of_range"),
        ("grant_credits('acme', 1, unit_price => 1, currency => 'euro')", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, applies_to => '{}')", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, applies_to => array[null])", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, applies_to => array[''])", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, metadata => '7')", "22023", "invalid_argument"),
        ("grant_credits('acme', 1, metadata => null)", "22004", "null_argument"),
    ];
    assert_refused(&mut session, &refusals);
    session.exec("select credits.grant_credits('acme', 0.000000000001, unit_price => 0, currency => 'USD')");
    assert_eq!(session.lines("select amount, unit_price, currency from credits.grants"), ["0.000000000001|0|USD"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn every_total_of_a_wallet_stays_below_ten_to_the_sixteenth() {
    let mut session = new_books("every_total_stays_below");
    session.exec("select credits.create_wallet('acme', 'scheduled')");
    let largest = "9999999999999999.999999999999";
    grant(&mut session, "largest", largest, "");
    let later = |amount: &str| format!("grant_credits('acme', {amount}, 'scheduled', effective_at => '2026-02-01 00:00+00')");
    session.exec(&format!("select credits.{}", later("5e15")));
    let refusals = [
        ("grant_credits('acme', 0.000000000001)", "22003", "out_of_range"),
        ("adjust_credits('acme', 1, 'too much')", "22003", "out_of_range"),
        (&later("5e15"), "22003", "out_of_range"),
    ];
    assert_refused(&mut session, &refusals);
    session.exec(&format!("select credits.{}", later("4999999999999999.999999999999")));
    assert_eq!(
        session.lines("select wallet, balance, scheduled from credits.balance('acme') order by wallet"),
        [format!("default|{largest}|0"), format!("scheduled|0|{largest}")]
    );
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(deduct(&mut session, &format!("{largest}, wallet => 'scheduled'")), format!("charged|{largest}|{largest}|0|0|f"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_void_takes_back_a_part_or_what_is_left() {
    let mut session = new_books("a_void_takes_back");
    let id = grant(&mut session, "bought", "10", "");
    deduct(&mut session, "2.5");
    assert_eq!(void(&mut session, &id, ", 'one too many', 1.50, 'v1'"), "1.5");
    assert_eq!(session.lines(LEFT), ["bought|active|10|6"]);
    assert_eq!(
        session.lines(
            "select kind, amount, balance_after, grant_id, metadata ->> 'reason' from credits.ledger
             where transaction_id = 'v1'"
        ),
        [format!("void|-1.5|6|{id}|one too many")]
    );
    let (more, all) =
        (format!("void_grant('acme', '{id}', null, 6.000000000001)"), format!("void_grant('acme', '{id}', null, 0)"));
    assert_refused(&mut session, &[(&more, "22003", "out_of_range"), (&all, "22023", "invalid_argument")]);
    assert_eq!(void(&mut session, &id, ", idempotency_key => 'v2'"), "6");
    assert_eq!(session.lines(LEFT), ["bought|voided|10|0"]);
    assert_eq!(entries(&mut session, "v2"), ["default void 6 bought"]);
    let again = format!("void_grant('acme', '{id}')");
    assert_refused(&mut session, &[(&again, "55000", "wrong_state")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_scheduled_grant_can_be_voided_before_it_begins() {
    let mut session = new_books("a_scheduled_grant_can_be_voided");
    let part = grant(&mut session, "part", "10", "effective_at => '2026-02-01 00:00+00'");
    let all = grant(&mut session, "all", "7", "effective_at => '2026-02-01 00:00+00'");
    let exactly = grant(&mut session, "exactly", "3", "effective_at => '2026-02-01 00:00+00'");
    assert_eq!(void(&mut session, &part, ", null, 4, 'v1'"), "4");
    assert_eq!(void(&mut session, &all, ", idempotency_key => 'v2'"), "7");
    assert_eq!(void(&mut session, &exactly, ", null, 3"), "3");
    assert_eq!(entries(&mut session, "v1"), ["default void_scheduled 4 part"]);
    assert_eq!(entries(&mut session, "v2"), ["default void_scheduled 7 all"]);
    assert_eq!(session.lines(LEFT), ["all|voided|7|0", "exactly|voided|3|0", "part|scheduled|10|6"]);
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["0|6"]);
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(void(&mut session, &part, ", null, 1, 'v3'"), "1");
    assert_eq!(entries(&mut session, "v3"), ["default void 1 part"], "effective since this instant");
    assert_eq!(deduct(&mut session, "5"), "charged|5|5|0|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_has_ended_cannot_be_voided_and_of_what_is_used_up_nothing_is_left() {
    let mut session = new_books("what_has_ended_cannot_be_voided");
    let expired = grant(&mut session, "expired", "10", "expires_at => '2026-01-02 00:00+00'");
    let exhausted = grant(&mut session, "exhausted", "5", "priority => 1");
    deduct(&mut session, "5");
    session.set_clock("2026-01-02 00:00+00");
    let more = format!("void_grant('acme', '{exhausted}', null, 0.000000000001)");
    session.exec("select * from credits.expire_grants()");
    let ended = format!("void_grant('acme', '{expired}')");
    let refusals = [
        (more.as_str(), "22003", "out_of_range"),
        (ended.as_str(), "55000", "wrong_state"),
        ("void_grant('acme', '00000000-0000-7000-8000-000000000000')", "P0002", "not_found"),
        ("void_grant('acme', null)", "22004", "null_argument"),
    ];
    assert_refused(&mut session, &refusals);
    session.exec("select credits.create_wallet('other')");
    let others = format!("void_grant('other', '{exhausted}')");
    assert_refused(&mut session, &[(&others, "P0002", "not_found")]);
    assert_eq!(void(&mut session, &exhausted, ""), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_changed_expiry_moves_the_rest_into_a_new_grant_all_else_equal() {
    let mut session = new_books("a_changed_expiry_moves_the_rest");
    let old = grant(
        &mut session,
        "bought",
        "10",
        "grant_type => 'committed', expires_at => '2026-02-01 00:00+00', effective_at => '2025-12-01 00:00+00', priority => 7, \
         unit_price => 0.5, currency => 'EUR', applies_to => array['chat']",
    );
    deduct(&mut session, "4, event_name => 'chat'");
    session.set_clock("2026-01-31 23:59:59.999999+00");
    let new = change_expiry(&mut session, &old, "'2026-03-01 00:00+00', 'asked support', 'c1'");
    assert_ne!(new, old);
    assert_eq!(
        session.lines(
            "select wallet, kind, amount, balance_after, grant_id, metadata ->> 'reason' from credits.ledger
             where transaction_id = 'c1' order by seq"
        ),
        [format!("default|transfer_out|-6|0|{old}|asked support"), format!("default|transfer_in|6|6|{new}|asked support")]
    );
    assert_eq!(
        session.lines(
            "select grant_id, grant_type, status, amount, remaining, priority, effective_at, expires_at, unit_price, currency,
                 applies_to,
                 metadata ->> 'name' from credits.grants order by amount desc"
        ),
        [
            format!("{old}|committed|exhausted|10|0|7|2025-12-01 00:00:00+00|2026-02-01 00:00:00+00|0.5|EUR|{{chat}}|bought"),
            format!("{new}|committed|active|6|6|7|2025-12-01 00:00:00+00|2026-03-01 00:00:00+00|0.5|EUR|{{chat}}|bought")
        ]
    );
    session.set_clock("2026-02-10 00:00+00");
    assert_eq!(deduct(&mut session, "1, event_name => 'chat'"), "charged|1|1|0|5|f");
    let never = change_expiry(&mut session, &new, "'infinity'");
    assert_eq!(session.lines("select next_expiry_at from credits.balance('acme')"), [""]);
    change_expiry(&mut session, &never, "'2026-02-11 00:00+00'");
    session.set_clock("2026-02-11 00:00+00");
    session.exec("select * from credits.expire_grants()");
    assert_eq!(ledger(&mut session).last().map(String::as_str), Some("default 10 expiration -5 0 02-11 00:00"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_changed_expiry_changes_the_place_in_the_order_of_spending() {
    let mut session = new_books("a_changed_expiry_changes_the_place");
    let first = grant(&mut session, "first", "10", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "second", "10", "expires_at => '2026-03-01 00:00+00'");
    assert_eq!(takes(&mut session, "1", ""), ["first 1"]);
    change_expiry(&mut session, &first, "'2026-04-01 00:00+00'");
    assert_eq!(takes(&mut session, "11", ""), ["second 10", "first 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_scheduled_grant_can_be_given_another_expiry() {
    let mut session = new_books("a_scheduled_grant_another_expiry");
    let old = grant(&mut session, "later", "10", "effective_at => '2026-02-01 00:00+00', expires_at => '2026-03-01 00:00+00'");
    void(&mut session, &old, ", null, 4");
    let too_early = format!("change_expiry('acme', '{old}', '2026-02-01 00:00+00')");
    assert_refused(&mut session, &[(&too_early, "22023", "invalid_argument")]);
    let new = change_expiry(&mut session, &old, "'2026-04-01 00:00+00'");
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["0|6"]);
    assert_eq!(
        session.lines("select grant_id, remaining, effective_at, expires_at from credits.grants where status = 'scheduled'"),
        [format!("{new}|6|2026-02-01 00:00:00+00|2026-04-01 00:00:00+00")]
    );
    assert_eq!(session.lines(&format!("select remaining from credits.grants where grant_id = '{old}'")), ["0"]);
    session.set_clock("2026-03-15 00:00+00");
    assert_eq!(deduct(&mut session, "6"), "charged|6|6|0|0|f");
    assert_eq!(
        session.lines("select kind, grant_id, occurred_at from credits.ledger order by seq offset 4"),
        [format!("grant_activated|{new}|2026-02-01 00:00:00+00"), format!("usage|{new}|2026-03-15 00:00:00+00")]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_expiry_that_cannot_be_changed_is_refused() {
    let mut session = new_books("an_expiry_that_cannot_be_changed");
    let expired = grant(&mut session, "expired", "10", "expires_at => '2026-01-02 00:00+00'");
    let exhausted = grant(&mut session, "exhausted", "5", "priority => 1");
    let voided = grant(&mut session, "voided", "5", "");
    let lives = grant(&mut session, "lives", "5", "expires_at => '2026-02-01 00:00+00'");
    deduct(&mut session, "5");
    void(&mut session, &voided, "");
    session.set_clock("2026-01-02 00:00+00");
    session.exec("select * from credits.expire_grants(); select credits.create_wallet('other')");
    let call = |id: &str, expires_at: &str| format!("change_expiry('acme', '{id}', {expires_at})");
    let refusals = [
        (call(&expired, "'2026-03-01 00:00+00'"), "55000", "wrong_state"),
        (call(&exhausted, "'2026-03-01 00:00+00'"), "55000", "wrong_state"),
        (call(&voided, "'2026-03-01 00:00+00'"), "55000", "wrong_state"),
        (call(&lives, "'2026-01-02 00:00+00'"), "22023", "invalid_argument"),
        (call(&lives, "'2025-01-01 00:00+00'"), "22023", "invalid_argument"),
        (call(&lives, "'10000-01-01 00:00+00'"), "22003", "out_of_range"),
        (call(&lives, "null"), "22004", "null_argument"),
        (call("00000000-0000-7000-8000-000000000000", "'2026-03-01 00:00+00'"), "P0002", "not_found"),
        (format!("change_expiry('other', '{lives}', '2026-03-01 00:00+00')"), "P0002", "not_found"),
        ("change_expiry('acme', null, '2026-03-01 00:00+00')".to_owned(), "22004", "null_argument"),
    ];
    let refusals: Vec<_> = refusals.iter().map(|(call, sqlstate, symbol)| (call.as_str(), *sqlstate, *symbol)).collect();
    assert_refused(&mut session, &refusals);
    assert_ledger_is_sound(&mut session);
}

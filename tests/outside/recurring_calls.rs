//! The calls about recurring grants: what they refuse, how they say so, and what they put back (SPEC 6 and 11).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, everything, new_books};
use crate::recurring::{recurring, settle};

/// Calls that must be refused without a trace: what follows `select * from credits.`, its SQLSTATE, its symbol, and what the message
/// or the hint names.
#[track_caller]
pub fn assert_refused_with_help(session: &mut Session, refusals: &[(&str, &str, &str, &str)]) {
    let before = everything(session);
    for (call, sqlstate, symbol, named) in refusals {
        let error = session.error(&format!("select * from credits.{call}"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), (*sqlstate, *symbol), "{call}\n{error}");
        assert!(error.message.contains(named) || error.hint.contains(named), "{call} does not name {named}\n{error}");
        assert!(!error.hint.is_empty(), "{call} does not say what to do\n{error}");
    }
    assert_eq!(everything(session), before, "what is refused leaves nothing");
}

#[test]
fn a_recurring_grant_that_makes_no_sense_is_refused() {
    let mut session = new_books("a_recurring_grant_that_makes_no_sense");
    let refusals = [
        ("null, '1 month'", "22004", "null_argument", "amount"),
        ("0, '1 month'", "22023", "invalid_argument", "amount"),
        ("-1, '1 month'", "22023", "invalid_argument", "amount"),
        ("'NaN', '1 month'", "22023", "invalid_argument", "amount"),
        ("0.0000000000001, '1 month'", "22023", "invalid_argument", "amount"),
        ("1e16, '1 month'", "22003", "out_of_range", "amount"),
        ("1, null", "22004", "null_argument", "every"),
        ("1, '0'", "22023", "invalid_argument", "every"),
        ("1, '-1 month'", "22023", "invalid_argument", "every"),
        ("1, '59 minutes 59.999999 seconds'", "22023", "invalid_argument", "every"),
        ("1, '1 month 1 day'", "22023", "invalid_argument", "every"),
        ("1, '1 day 1 hour'", "22023", "invalid_argument", "every"),
        ("1, '1 month -1 day'", "22023", "invalid_argument", "every"),
        ("1, '1201 months'", "22003", "out_of_range", "every"),
        ("1, '40000 days'", "22003", "out_of_range", "every"),
        ("1, '1000000 hours'", "22003", "out_of_range", "every"),
        ("1, '1 month', wallet => null", "22004", "null_argument", "wallet"),
        ("1, '1 month', wallet => 'none'", "P0002", "not_found", "none"),
        ("1, '1 month', grant_type => null", "22004", "null_argument", "grant_type"),
        ("1, '1 month', grant_type => 'free'", "22023", "invalid_argument", "promotional"),
        ("1, '1 month', starts_at => 'infinity'", "22003", "out_of_range", "starts_at"),
        ("1, '1 month', starts_at => '1969-12-31 23:59+00'", "22003", "out_of_range", "starts_at"),
        ("1, '1 month', ends_at => '2026-01-01 00:00+00'", "22023", "invalid_argument", "ends_at"),
        (
            "1, '1 month', starts_at => '2025-06-01 00:00+00', ends_at => '2025-12-31 00:00+00'",
            "22023",
            "invalid_argument",
            "ends_at",
        ),
        (
            "1, '1 month', starts_at => '2026-06-01 00:00+00', ends_at => '2026-06-01 00:00+00'",
            "22023",
            "invalid_argument",
            "ends_at",
        ),
        ("1, '1 month', ends_at => '10000-01-01 00:00+00'", "22003", "out_of_range", "ends_at"),
        ("1, '1 month', anchor => '-infinity'", "22003", "out_of_range", "anchor"),
        ("1, '1 month', anchor => '1969-12-31 23:59+00'", "22003", "out_of_range", "anchor"),
        ("1, '1 month', time_zone => null", "22004", "null_argument", "time_zone"),
        ("1, '1 month', time_zone => ''", "22023", "invalid_argument", "time_zone"),
        ("1, '1 month', time_zone => 'Europe/Atlantis'", "22023", "invalid_argument", "Europe/Atlantis"),
        ("1, '1 month', time_zone => '+02:00'", "22023", "invalid_argument", "Europe/Berlin"),
        ("1, '1 month', expires_after => '0'", "22023", "invalid_argument", "expires_after"),
        ("1, '1 month', expires_after => '-1 day'", "22023", "invalid_argument", "expires_after"),
        ("1, '1 month', expires_after => '101 years'", "22003", "out_of_range", "expires_after"),
        ("1, '1 month', expires_after => '1 day', rollover_percent => 1", "22023", "invalid_argument", "rollover_percent"),
        ("1, '1 month', rollover_percent => null", "22004", "null_argument", "rollover_percent"),
        ("1, '1 month', rollover_percent => -1", "22023", "invalid_argument", "rollover_percent"),
        ("1, '1 month', rollover_percent => 100.000000000001", "22023", "invalid_argument", "100"),
        ("1, '1 month', rollover_percent => 'NaN'", "22023", "invalid_argument", "rollover_percent"),
        ("1, '1 month', rollover_cap => -1", "22023", "invalid_argument", "rollover_cap"),
        ("1, '1 month', rollover_cap => 1e16", "22003", "out_of_range", "rollover_cap"),
        ("1, '1 month', rollover_periods => 0", "22023", "invalid_argument", "rollover_periods"),
        ("1, '1 month', rollover_periods => -1", "22023", "invalid_argument", "rollover_periods"),
        ("1, '1 month', prorate => null", "22004", "null_argument", "prorate"),
        ("1, '1 month', priority => null", "22004", "null_argument", "priority"),
        ("1, '1 month', unit_price => 1", "22023", "invalid_argument", "currency"),
        ("1, '1 month', currency => 'USD'", "22023", "invalid_argument", "unit_price"),
        ("1, '1 month', unit_price => 1, currency => 'dollars'", "22023", "invalid_argument", "currency"),
        ("1, '1 month', applies_to => '{}'", "22023", "invalid_argument", "applies_to"),
        ("1, '1 month', applies_to => array[null]", "22023", "invalid_argument", "applies_to"),
        ("1, '1 month', metadata => null", "22004", "null_argument", "metadata"),
        ("1, '1 month', metadata => '[]'", "22023", "invalid_argument", "metadata"),
    ];
    let calls = refusals.map(|(arguments, ..)| format!("create_recurring_grant('acme', 'plan', {arguments})"));
    let refusals: Vec<_> =
        calls.iter().zip(refusals).map(|(call, (_, sqlstate, symbol, named))| (call.as_str(), sqlstate, symbol, named)).collect();
    assert_refused_with_help(&mut session, &refusals);
    let refusals = [
        ("create_recurring_grant(null, 'plan', 1, '1 month')", "22004", "null_argument", "customer_id"),
        ("create_recurring_grant('', 'plan', 1, '1 month')", "22023", "invalid_argument", "customer_id"),
        ("create_recurring_grant('nobody', 'plan', 1, '1 month')", "P0002", "not_found", "nobody"),
        ("create_recurring_grant('acme', null, 1, '1 month')", "22004", "null_argument", "recurring_grant"),
        ("create_recurring_grant('acme', '', 1, '1 month')", "22023", "invalid_argument", "recurring_grant"),
        ("create_recurring_grant('acme', repeat('x', 256), 1, '1 month')", "22023", "invalid_argument", "recurring_grant"),
    ];
    assert_refused_with_help(&mut session, &refusals);
    assert_eq!(session.lines("select * from credits.recurring_grants"), [""; 0]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_just_allowed_is_made() {
    let mut session = new_books("what_is_just_allowed_is_made");
    for (code, arguments) in [
        ("hour", "0.000000000001, '1 hour'"),
        ("largest", "4999999999999999.999999999999, '100 years'"),
        ("percent 100", "1, '1 month', rollover_percent => 100, rollover_cap => 0, rollover_periods => 2147483647"),
        ("both of nothing", "1, '1 month', expires_after => '1 day', rollover_percent => 0"),
        ("free", "1, '1 month', unit_price => 0, currency => 'JPY'"),
        ("ends at once", "1, '1 month', ends_at => '2026-01-01 00:00:00.000001+00'"),
        ("long ago", "1, '1 hour', starts_at => '1970-01-01 00:00+00'"),
        ("far ahead", "1, '1 month', starts_at => '9999-06-01 00:00+00'"),
    ] {
        recurring(&mut session, code, arguments);
    }
    assert_eq!(session.one("select count(*) from credits.grants"), "7");
    session.set_clock("2026-01-01 01:00+00");
    settle(&mut session);
    assert_eq!(session.one("select count(*) from credits.grants"), "9");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_code_stands_for_one_recurring_grant_for_ever() {
    let mut session = new_books("a_code_stands_for_ever");
    recurring(&mut session, "plan", "10, '1 month'");
    let refusals = [
        ("create_recurring_grant('acme', 'plan', 10, '1 month')", "42710", "already_exists", "plan"),
        (
            "create_recurring_grant('acme', 'plan', 20, '1 day', starts_at => '2026-06-01 00:00+00')",
            "42710",
            "already_exists",
            "plan",
        ),
    ];
    assert_refused_with_help(&mut session, &refusals);
    session.exec("select credits.cancel_recurring_grant('acme', 'plan')");
    session.set_clock("2026-06-01 00:00+00");
    settle(&mut session);
    assert_refused_with_help(&mut session, &refusals);
    recurring(&mut session, "Plan", "10, '1 month'");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_change_that_makes_no_sense_is_refused_whole() {
    let mut session = new_books("a_change_that_makes_no_sense");
    recurring(&mut session, "plan", "10, '1 month', rollover_percent => 50");
    recurring(&mut session, "lives", "10, '1 month', expires_after => '5 days'");
    let refusals = [
        ("update_recurring_grant(null, 'plan', 5)", "22004", "null_argument", "customer_id"),
        ("update_recurring_grant('nobody', 'plan', 5)", "P0002", "not_found", "nobody"),
        ("update_recurring_grant('acme', null, 5)", "22004", "null_argument", "recurring_grant"),
        ("update_recurring_grant('acme', 'none', 5)", "P0002", "not_found", "none"),
        ("update_recurring_grant('acme', 'plan', 0)", "22023", "invalid_argument", "amount"),
        ("update_recurring_grant('acme', 'plan', 1e16)", "22003", "out_of_range", "amount"),
        ("update_recurring_grant('acme', 'plan', 5, grant_type => 'free')", "22023", "invalid_argument", "grant_type"),
        ("update_recurring_grant('acme', 'plan', 5, ends_at => '2026-01-01 00:00+00')", "22023", "invalid_argument", "ends_at"),
        ("update_recurring_grant('acme', 'plan', 5, expires_after => '1 day')", "22023", "invalid_argument", "rollover_percent"),
        ("update_recurring_grant('acme', 'lives', 5, rollover_percent => 1)", "22023", "invalid_argument", "expires_after"),
        ("update_recurring_grant('acme', 'plan', 5, rollover_percent => 101)", "22023", "invalid_argument", "rollover_percent"),
        ("update_recurring_grant('acme', 'plan', 5, rollover_cap => -1)", "22023", "invalid_argument", "rollover_cap"),
        ("update_recurring_grant('acme', 'plan', 5, rollover_periods => 0)", "22023", "invalid_argument", "rollover_periods"),
        ("update_recurring_grant('acme', 'plan', 5, unit_price => 1)", "22023", "invalid_argument", "currency"),
        ("update_recurring_grant('acme', 'plan', 5, applies_to => '{}')", "22023", "invalid_argument", "applies_to"),
        ("update_recurring_grant('acme', 'plan', 5, metadata => '7')", "22023", "invalid_argument", "metadata"),
        ("update_recurring_grant('acme', 'plan', 5, reset => null)", "22004", "null_argument", "reset"),
        ("update_recurring_grant('acme', 'plan', 5, reset => array[null])", "22023", "invalid_argument", "reset"),
        ("update_recurring_grant('acme', 'plan', 5, reset => array['every'])", "22023", "invalid_argument", "every"),
        ("update_recurring_grant('acme', 'plan', 5, reset => array['amount'])", "22023", "invalid_argument", "amount"),
        (
            "update_recurring_grant('acme', 'plan', 5, priority => 1, reset => array['priority'])",
            "22023",
            "invalid_argument",
            "priority",
        ),
    ];
    assert_refused_with_help(&mut session, &refusals);
    // What excludes the other can be exchanged for it in one call.
    session.exec(
        "select credits.update_recurring_grant('acme', 'plan', expires_after => '1 day', reset => array['rollover_percent']);
         select credits.update_recurring_grant('acme', 'lives', rollover_percent => 10, reset => array['expires_after'])",
    );
    assert_eq!(
        session.lines("select recurring_grant, expires_after, rollover_percent from credits.recurring_grants order by 1"),
        ["lives||10", "plan|1 day|0"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn every_term_can_be_put_back_to_its_default() {
    let mut session = new_books("every_term_can_be_put_back");
    recurring(
        &mut session,
        "plan",
        "10, '1 month', grant_type => 'committed', ends_at => '2027-01-01 00:00+00', rollover_percent => 50, rollover_cap => 200,
         rollover_periods => null, priority => 7, unit_price => 0.5, currency => 'EUR', applies_to => array['chat'],
         metadata => '{\"a\": 1}'",
    );
    let names =
        ["grant_type", "ends_at", "rollover_percent", "rollover_cap", "rollover_periods", "priority", "applies_to", "metadata"];
    let set = ["committed", "2027-01-01 00:00:00+00", "50", "200", "", "7", "{chat}", "{\"a\": 1}"];
    let default = ["prepaid", "", "0", "", "1", "100", "", "{}"];
    let terms = format!("select {} from credits.recurring_grants", names.join(", "));
    assert_eq!(session.lines(&terms), [set.join("|")]);
    for (index, name) in names.iter().enumerate() {
        session.exec("begin");
        session.exec(&format!("select credits.update_recurring_grant('acme', 'plan', reset => array['{name}'])"));
        let mut expected = set;
        expected[index] = default[index];
        assert_eq!(session.lines(&terms), [expected.join("|")], "{name}");
        session.exec("rollback");
    }
    session.exec(&format!(
        "select credits.update_recurring_grant('acme', 'plan', reset => array['unit_price', 'currency', {}])",
        names.map(|name| format!("'{name}'")).join(", ")
    ));
    assert_eq!(session.lines(&terms), [default.join("|")]);
    assert_eq!(session.lines("select amount, every, unit_price, currency from credits.recurring_grants"), ["10|1 mon||"]);
    session.exec("select credits.update_recurring_grant('acme', 'plan')");
    assert_eq!(session.lines(&terms), [default.join("|")], "nothing given, nothing changed");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_cancel_of_what_is_not_there_is_refused() {
    let mut session = new_books("a_cancel_of_what_is_not_there");
    recurring(&mut session, "plan", "10, '1 month'");
    let refusals = [
        ("cancel_recurring_grant('acme', 'none')", "P0002", "not_found", "none"),
        ("cancel_recurring_grant('nobody', 'plan')", "P0002", "not_found", "nobody"),
        ("cancel_recurring_grant(null, 'plan')", "22004", "null_argument", "customer_id"),
        ("cancel_recurring_grant('acme', null)", "22004", "null_argument", "recurring_grant"),
        ("cancel_recurring_grant('acme', 'plan', 'infinity')", "22003", "out_of_range", "at"),
    ];
    assert_refused_with_help(&mut session, &refusals);
    assert_refused(
        &mut session,
        &[("renew_grants(0)", "22023", "invalid_argument"), ("renew_grants(null)", "22004", "null_argument")],
    );
    assert_ledger_is_sound(&mut session);
}

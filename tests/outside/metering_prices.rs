//! What events cost: aggregations, price lists and their versions, meters and filters, with the numbers in the open (SPEC 8).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{entries, grant, new_books};

/// `acme` has a million credits.
pub fn rich_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "bought", "1000000", "");
    session
}

/// Defines a meter from its arguments as in SQL.
pub fn meter(session: &mut Session, arguments: &str) {
    session.exec(&format!("select credits.create_meter({arguments})"));
}

/// Status, requested, deducted, overage, balance and replayed of one event of `acme`.
pub fn record(session: &mut Session, arguments: &str) -> String {
    let rows = session.lines(&format!(
        "select status, requested, deducted, overage, balance, replayed from credits.record_usage('acme', {arguments})"
    ));
    assert_eq!(rows.len(), 1, "always one row");
    rows.concat()
}

/// What each of these events of `acme` deducts, one after the other.
pub fn charges(session: &mut Session, events: &[&str]) -> Vec<String> {
    events.iter().map(|event| session.one(&format!("select deducted from credits.record_usage('acme', {event})"))).collect()
}

/// What has been counted of `acme`: meter, the day or time its period starts, rate, aggregate and events.
pub fn counted(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', meter, to_char(period_start, 'YYYY-MM-DD HH24:MI'), rate, aggregate, events)
         from credits.meter_usage where customer_id = 'acme' order by meter, period_start, rate",
    )
}

pub const GRADUATED: &str =
    r#"{"model": "graduated", "tiers": [{"up_to": 5, "credits": 7}, {"up_to": 10, "credits": "6.5"}, {"credits": 6}]}"#;
pub const VOLUME: &str =
    r#"{"model": "volume", "tiers": [{"up_to": 5, "credits": 7}, {"up_to": 10, "credits": "6.5"}, {"credits": 6}]}"#;

/// What these quantities of an event `e` whose property `n` is summed would cost somebody new.
fn prices(session: &mut Session, quantities: &[&str]) -> Vec<String> {
    let price = |n: &&str| session.one(&format!("select credits from credits.price_usage('e', '{{\"n\": {n}}}')"));
    quantities.iter().map(price).collect()
}

/// Events `e` with these values of the property `n`.
fn of_e(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| format!("'e', '{{\"n\": {value}}}'")).collect()
}

/// What events `e` with these values of the property `n` deduct, one after the other.
fn charges_of_e(session: &mut Session, values: &[&str]) -> Vec<String> {
    let events = of_e(values);
    charges(session, &events.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn each_unit_costs_what_its_graduated_tier_says() {
    let mut session = rich_books("each_unit_costs_what_its_graduated_tier_says");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{GRADUATED}'"));
    assert_eq!(
        prices(&mut session, &["0", "5", "5.5", "6", "10", "11", "20"]),
        ["0", "35", "38.25", "41.5", "67.5", "73.5", "127.5"]
    );
    assert_eq!(charges_of_e(&mut session, &["5", "1", "4", "1", "9"]), ["35", "6.5", "26", "6", "54"]);
    // Twelve units at once pass through all tiers.
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(charges_of_e(&mut session, &["3", "12"]), ["21", "76.5"], "97.5 for 15");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 20 5", "m 2026-02-01 00:00 15 2"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn all_units_cost_what_the_volume_tier_of_the_whole_says() {
    let mut session = rich_books("all_units_cost_what_the_volume_tier_says");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{VOLUME}'"));
    assert_eq!(
        prices(&mut session, &["0", "5", "5.1", "6", "10", "10.5", "11", "20"]),
        ["0", "35", "33.15", "39", "65", "63", "66", "120"]
    );
    assert_eq!(charges_of_e(&mut session, &["5", "0.1", "4.9", "0.5", "9.5"]), ["35", "-1.85", "31.85", "-2", "57"]);
    assert_eq!(session.one("select balance from credits.balance('acme')"), "999880", "20 at 6 each");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn each_started_package_is_charged_once() {
    let mut session = rich_books("each_started_package_is_charged_once");
    meter(&mut session, r#"'m', 'e', 'sum', 'n', pricing => '{"model": "package", "size": "1000", "credits": "3"}'"#);
    assert_eq!(prices(&mut session, &["0", "0.5", "1000", "1000.000000000001", "1001"]), ["0", "3", "3", "6", "6"]);
    assert_eq!(
        charges_of_e(&mut session, &["0", "1", "999", "0.000000000001", "999.999999999999", "4000.5"]),
        ["0", "3", "0", "3", "0", "15"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn every_aggregation_is_priced_by_every_model() {
    let mut session = rich_books("every_aggregation_by_every_model");
    let per_unit = r#"{"model": "per_unit", "credits": "0.5"}"#;
    let package = r#"{"model": "package", "size": 5, "credits": 3}"#;
    // The aggregates are 4 14 21 31 34, 1 2 3 4 5, 4 10 10 10 10, 1 2 3 3 4 and 4 10 7 10 3.
    for (aggregation, model, pricing, expected) in [
        ("sum", "per_unit", per_unit, ["2", "5", "3.5", "5", "1.5"]),
        ("sum", "package", package, ["3", "6", "6", "6", "0"]),
        ("sum", "graduated", GRADUATED, ["28", "63.5", "42", "60", "18"]),
        ("sum", "volume", VOLUME, ["28", "56", "42", "60", "18"]),
        ("count", "per_unit", per_unit, ["0.5"; 5]),
        ("count", "package", package, ["3", "0", "0", "0", "0"]),
        ("count", "graduated", GRADUATED, ["7"; 5]),
        ("count", "volume", VOLUME, ["7"; 5]),
        ("max", "per_unit", per_unit, ["2", "3", "0", "0", "0"]),
        ("max", "package", package, ["3", "3", "0", "0", "0"]),
        ("max", "graduated", GRADUATED, ["28", "39.5", "0", "0", "0"]),
        ("max", "volume", VOLUME, ["28", "37", "0", "0", "0"]),
        ("unique", "per_unit", per_unit, ["0.5", "0.5", "0.5", "0", "0.5"]),
        ("unique", "package", package, ["3", "0", "0", "0", "0"]),
        ("unique", "graduated", GRADUATED, ["7", "7", "7", "0", "7"]),
        ("unique", "volume", VOLUME, ["7", "7", "7", "0", "7"]),
        ("latest", "per_unit", per_unit, ["2", "3", "-1.5", "1.5", "-3.5"]),
        ("latest", "package", package, ["3", "3", "0", "0", "-3"]),
        ("latest", "graduated", GRADUATED, ["28", "39.5", "-19.5", "19.5", "-46.5"]),
        ("latest", "volume", VOLUME, ["28", "37", "-19.5", "19.5", "-44"]),
    ] {
        let name = format!("{aggregation} by {model}");
        let value = if aggregation == "count" { "null" } else { "'n'" };
        meter(&mut session, &format!("'{name}', '{name}', '{aggregation}', {value}, pricing => '{pricing}'"));
        let events = ["4", "10", "7", "10", "3"].map(|n| format!("'{name}', '{{\"n\": {n}}}'"));
        assert_eq!(charges(&mut session, &events.each_ref().map(String::as_str)), expected, "{name}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn unique_values_are_compared_as_text() {
    let mut session = rich_books("unique_values_are_compared_as_text");
    meter(&mut session, "'m', 'e', 'unique', 'n'");
    let long = format!("\"{}\"", "x".repeat(300));
    let longer = format!("\"{}\"", "x".repeat(301));
    let values =
        ["\"ann\"", "\"bob\"", "\"ann\"", "1", "\"1\"", "1.0", "true", "\"true\"", "\"\"", "\"Ann\"", &long, &longer, &long];
    assert_eq!(charges_of_e(&mut session, &values), ["1", "1", "0", "1", "0", "1", "1", "0", "1", "1", "1", "1", "0"]);
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 9 13"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn all_meters_of_an_event_charge_it_in_one_transaction() {
    let mut session = rich_books("all_meters_of_an_event_charge_it");
    meter(&mut session, r#"'in', 'chat', 'sum', 'input', pricing => '{"model": "per_unit", "credits": "0.0025"}'"#);
    meter(&mut session, r#"'out', 'chat', 'sum', 'output', pricing => '{"model": "per_unit", "credits": 0.01}'"#);
    meter(&mut session, r#"'calls', 'chat', 'count', pricing => '{"model": "package", "size": 2, "credits": 1}'"#);
    let event = r#"'chat', '{"input": 1200, "output": "350"}'"#;
    let quote = format!("select meter, unit, quantity, credits from credits.price_usage({event}, 'acme') order by meter");
    assert_eq!(session.lines(&quote), ["calls|credits|1|1", "in|credits|1200|3", "out|credits|350|3.5"]);
    assert_eq!(record(&mut session, &format!("{event}, 'c1'")), "charged|7.5|7.5|0|999992.5|f");
    assert_eq!(entries(&mut session, "c1"), ["default usage 7.5 bought"]);
    assert_eq!(session.lines(&quote), ["calls|credits|1|0", "in|credits|1200|3", "out|credits|350|3.5"]);
    assert_eq!(record(&mut session, &format!("{event}, 'c2'")), "charged|6.5|6.5|0|999986|f");
    assert_eq!(counted(&mut session), ["calls 2026-01-01 00:00 2 2", "in 2026-01-01 00:00 2400 2", "out 2026-01-01 00:00 700 2"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_meter_counts_what_its_filter_lets_through() {
    let mut session = rich_books("a_meter_counts_what_its_filter_lets_through");
    meter(&mut session, r#"'m', 'e', 'sum', 'n', '{"tier": 2, "region": {"zone": "a", "parts": [1, "b"]}}'"#);
    let region = r#""region": {"parts": [1.0, "b"], "zone": "a"}"#;
    for (properties, expected) in [
        (format!(r#"{{"n": 3, "tier": 2, {region}}}"#), "3"),
        (format!(r#"{{"n": 3, "tier": 2.00, {region}, "more": null}}"#), "3"),
        (format!(r#"{{"n": 3, "tier": 20e-1, {region}}}"#), "3"),
        (format!(r#"{{"n": 3, "tier": "2", {region}}}"#), "0"),
        (format!(r#"{{"n": 3, "tier": 3, {region}}}"#), "0"),
        (format!(r#"{{"n": 3, {region}}}"#), "0"),
        (r#"{"n": 3, "tier": 2, "region": {"zone": "a", "parts": [1]}}"#.to_owned(), "0"),
        (r#"{"n": 3, "tier": 2, "region": {"zone": "a", "parts": [1, "b"], "x": 1}}"#.to_owned(), "0"),
        (r#"{"tier": 1}"#.to_owned(), "0"),
    ] {
        assert_eq!(charges(&mut session, &[&format!("'e', '{properties}'")]), [expected], "{properties}");
    }
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 9 3"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_that_all_filters_exclude_is_recorded_at_zero() {
    let mut session = new_books("an_event_that_all_filters_exclude");
    meter(&mut session, r#"'eu', 'e', 'sum', 'n', '{"region": "eu"}'"#);
    meter(&mut session, r#"'us', 'e', 'sum', 'n', '{"region": "us"}'"#);
    assert_eq!(session.lines(r#"select * from credits.price_usage('e', '{"region": "mars"}', 'acme')"#), [""; 0]);
    assert_eq!(record(&mut session, r#"'e', '{"region": "mars"}', 'far'"#), "charged|0|0|0|0|f");
    assert_eq!(entries(&mut session, "far"), ["default usage 0"]);
    assert_eq!(record(&mut session, r#"'e', '{"region": "mars"}', 'far'"#), "charged|0|0|0|0|t");
    let reused = session.error(r#"select * from credits.record_usage('acme', 'e', '{"region": "venus"}', 'far')"#);
    assert_eq!(reused.symbol(), "idempotency_key_reused", "{reused}");
    assert_eq!(counted(&mut session), [""; 0]);
    assert_ledger_is_sound(&mut session);
}

/// A matrix in a matrix: the outer rates by model, the inner ones by direction.
const MATRIX: &str = r#"{"model": "matrix", "rates": [
    {"match": {"model": "large"}, "pricing": {"model": "matrix", "rates": [
        {"match": {"direction": "in", "cached": true}, "pricing": {"model": "per_unit", "credits": "0.5"}},
        {"match": {"direction": "in"}, "pricing": {"model": "package", "size": 10, "credits": 8}}],
        "default": {"model": "per_unit", "credits": 3}}},
    {"match": {"model": "small"}, "pricing": {"model": "graduated", "tiers": [{"up_to": 10, "credits": 0}, {"credits": 1}]}},
    {"match": {"model": "small", "direction": "in"}, "pricing": {"model": "per_unit", "credits": 1000}}]}"#;

#[test]
fn the_first_rate_that_matches_prices_and_each_rate_counts_for_itself() {
    let mut session = rich_books("the_first_rate_that_matches");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{MATRIX}'"));
    assert_eq!(
        charges(
            &mut session,
            &[
                r#"'e', '{"n": 4, "model": "large", "direction": "in", "cached": true}'"#,
                r#"'e', '{"n": 4, "model": "large", "direction": "in", "cached": false}'"#,
                r#"'e', '{"n": 7, "model": "large", "direction": "in"}'"#,
                r#"'e', '{"n": 2, "model": "large", "direction": "out"}'"#,
                r#"'e', '{"n": 2, "model": "large"}'"#,
                r#"'e', '{"n": 9, "model": "small", "direction": "in"}'"#,
                r#"'e', '{"n": 3, "model": "small", "direction": "out"}'"#,
            ]
        ),
        ["2", "8", "8", "6", "6", "0", "2"]
    );
    assert_eq!(
        session.lines("select rate, aggregate, events from credits.meter_usage order by aggregate, events"),
        [
            r#"{"model":"large"}/{"cached":true,"direction":"in"}|4|1"#,
            r#"{"model":"large"}/default|4|2"#,
            r#"{"model":"large"}/{"direction":"in"}|11|2"#,
            r#"{"model":"small"}|12|2"#,
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn no_rate_and_no_default_is_an_invalid_argument() {
    let mut session = rich_books("no_rate_and_no_default");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{MATRIX}'"));
    let before = crate::books::everything(&mut session);
    for properties in [r#"{"n": 1}"#, r#"{"n": 1, "model": "medium"}"#, r#"{"n": 1, "model": ["large"]}"#] {
        for call in [format!("record_usage('acme', 'e', '{properties}')"), format!("price_usage('e', '{properties}')")] {
            let error = session.error(&format!("select * from credits.{call}"));
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{error}");
            assert!(error.message.contains("\"m\""), "{error}");
        }
    }
    assert_eq!(crate::books::everything(&mut session), before);
    let list = MATRIX.strip_suffix('}').expect("an object");
    session
        .exec(&format!(r#"select credits.set_meter_pricing('m', '{list}, "default": {{"model": "per_unit", "credits": 5}}}}')"#));
    assert_eq!(charges(&mut session, &[r#"'e', '{"n": 2, "model": "medium"}'"#, r#"'e', '{"n": 1}'"#]), ["10", "5"]);
    assert_ledger_is_sound(&mut session);
}

/// A price for each unit.
fn per_unit(credits: &str) -> String {
    format!(r#"{{"model": "per_unit", "credits": "{credits}"}}"#)
}

#[test]
fn an_event_is_priced_by_the_list_in_force_when_it_happened() {
    let mut session = rich_books("the_list_in_force_when_it_happened");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    for (credits, from) in [("5", "2026-03-01 00:00+00"), ("2", "2026-01-10 00:00+00"), ("3", "2026-01-20 00:00+00")] {
        session.exec(&format!("select credits.set_meter_pricing('m', '{}', '{from}')", per_unit(credits)));
    }
    session.set_clock("2026-01-25 00:00+00");
    for (occurred_at, expected) in [
        ("2025-06-01 00:00+00", "1"),
        ("2026-01-09 23:59:59.999999+00", "1"),
        ("2026-01-10 00:00+00", "2"),
        ("2026-01-19 23:59:59.999999+00", "2"),
        ("2026-01-20 00:00+00", "3"),
        ("2026-01-25 00:04+00", "3"),
    ] {
        let event = format!("'e', '{{\"n\": 1}}', occurred_at => '{occurred_at}'");
        assert_eq!(charges(&mut session, &[&event]), [expected], "{occurred_at}");
    }
    let future = r#"select credits from credits.price_usage('e', '{"n": 1}', 'acme', '2026-03-01 00:00+00')"#;
    assert_eq!(session.one(future), "5");
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(charges_of_e(&mut session, &["1"]), ["5"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_new_price_list_re_rates_nothing() {
    let mut session = rich_books("a_new_price_list_re_rates_nothing");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{GRADUATED}'"));
    assert_eq!(charges_of_e(&mut session, &["10"]), ["67.5"]);
    session.exec(&format!("select credits.set_meter_pricing('m', '{}')", per_unit("1")));
    assert_eq!(charges_of_e(&mut session, &["10"]), ["10"], "the difference at the new prices, 20 less 10");
    // What was counted before stands, and the tiers of the next list begin where it is.
    session.exec(&format!("select credits.set_meter_pricing('m', '{GRADUATED}')"));
    assert_eq!(charges_of_e(&mut session, &["10"]), ["60"]);
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 30 3"]);
    assert_eq!(session.one("select balance from credits.balance('acme')"), "999862.5");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_customers_own_list_wins_from_its_instant_on() {
    let mut session = rich_books("a_customers_own_list_wins");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    session.exec(&format!(
        "select credits.create_wallet('other'); select credits.grant_credits('other', 1000);
         select credits.set_meter_pricing('m', '{}', '2026-01-10 00:00+00', 'acme');
         select credits.set_meter_pricing('m', '{}', '2026-01-20 00:00+00');
         select credits.set_meter_pricing('m', '{}', '2026-01-30 00:00+00', 'acme')",
        per_unit("0.5"),
        per_unit("4"),
        per_unit("0.25")
    ));
    session.set_clock("2026-01-31 00:00+00");
    let mut charged = |customer: &str| {
        ["2026-01-09", "2026-01-10", "2026-01-20", "2026-01-30"].map(|day| {
            session.one(&format!(
                r#"select deducted from credits.record_usage('{customer}', 'e', '{{"n": 1}}', occurred_at => '{day} 00:00+00')"#
            ))
        })
    };
    assert_eq!(charged("acme"), ["1", "0.5", "0.5", "0.25"]);
    assert_eq!(charged("other"), ["1", "1", "4", "4"]);
    let quotes = r#"select (select credits from credits.price_usage('e', '{"n": 1}', customer, '2026-01-20 00:00+00'))
                    from unnest(array['acme', 'other', 'nobody', null]) customer"#;
    assert_eq!(session.lines(quotes), ["0.5", "4", "4", "4"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_price_of_an_aggregate_is_rounded_half_to_even() {
    let mut session = rich_books("rounded_half_to_even");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{}'", per_unit("0.000000000001")));
    assert_eq!(
        prices(&mut session, &["0.5", "0.500000000001", "1.5", "2.5", "3.5"]),
        ["0", "0.000000000001", "0.000000000002", "0.000000000002", "0.000000000004"]
    );
    // The aggregate is rounded, not each event, so that nothing is lost or won.
    let one = "0.000000000001";
    assert_eq!(charges_of_e(&mut session, &["0.5"; 8]), ["0", one, one, "0", "0", one, one, "0"]);
    assert_eq!(session.one("select balance from credits.balance('acme')"), "999999.999999999996");
    assert_ledger_is_sound(&mut session);
}

/// All orders of these.
fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let first = |index: usize| {
        let mut rest = items.to_vec();
        let item = rest.remove(index);
        permutations(&rest).into_iter().map(move |tail| [vec![item], tail].concat())
    };
    (0..items.len()).flat_map(first).collect()
}

#[test]
fn events_cost_the_same_in_whatever_order_they_arrive() {
    let mut session = new_books("whatever_order_they_arrive");
    session.exec(&format!("select credits.create_meter('count', 'e', 'count', pricing => '{VOLUME}')"));
    for aggregation in ["sum", "max", "unique", "latest"] {
        meter(&mut session, &format!("'{aggregation}', 'e', '{aggregation}', 'n', pricing => '{VOLUME}'"));
    }
    let events = [("5", "2026-01-02"), ("0.25", "2026-01-20"), ("5", "2026-02-03"), ("11", "2026-01-03")];
    session.set_clock("2026-02-10 00:00+00");
    for order in permutations(&[0, 1, 2, 3]) {
        let customer = format!("{order:?}");
        session.exec(&format!("select credits.create_wallet('{customer}'); select credits.grant_credits('{customer}', 1000)"));
        for index in order {
            let (n, day) = events[index];
            session.exec(&format!(
                r#"select * from credits.record_usage('{customer}', 'e', '{{"n": {n}}}', occurred_at => '{day} 00:00+00')"#
            ));
        }
        // January: 16.25 at 6, 3 events at 7, 11 at 6, 3 values at 7 and the latest of 0.25 at 7; February: 5, 1, 5, 1 and 5 at 7.
        let balance = session.one(&format!("select balance from credits.balance('{customer}')"));
        assert_eq!(balance, "673.75", "1000 - 97.5 - 21 - 66 - 21 - 1.75 - 35 - 7 - 35 - 7 - 35, arriving as {customer}");
        let usage = format!("select meter, aggregate, events from credits.meter_usage where customer_id = '{customer}'");
        assert_eq!(
            session.lines(&format!("{usage} order by meter, period_start")),
            [
                "count|3|3",
                "count|1|1",
                "latest|0.25|3",
                "latest|5|1",
                "max|11|3",
                "max|5|1",
                "sum|16.25|3",
                "sum|5|1",
                "unique|3|3",
                "unique|1|1"
            ]
        );
    }
    assert_ledger_is_sound(&mut session);
}

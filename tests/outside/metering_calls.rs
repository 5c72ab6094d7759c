//! The calls of metering: what they accept and refuse, and the views that show meters, price lists and counts (SPEC 8 and 11).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, everything, new_books};
use crate::metering_prices::{VOLUME, charges, meter, record, rich_books};

/// Event `e` has the meter `m`, which sums `n`.
fn metered_books(rule: &str) -> Session {
    let mut session = rich_books(rule);
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    session
}

#[test]
fn a_meter_is_shown_as_it_was_defined() {
    let mut session = new_books("a_meter_is_shown_as_it_was_defined");
    assert_eq!(session.one("select credits.create_meter('plain', 'e', 'count')"), "plain");
    meter(
        &mut session,
        r#"'full', 'f', 'unique', 'user', '{"a": [1, "b"]}', '{"model": "package", "size": 10, "credits": "2.50"}', '7 days',
           '2026-01-05 00:00+01', 'Europe/Berlin', 'default', 'tokens'"#,
    );
    assert_eq!(
        session.lines("select * from credits.meters order by meter"),
        [
            "full|f|unique|user|{\"a\": [1, \"b\"]}|{\"size\": 10, \"model\": \"package\", \"credits\": \"2.50\"}|||0|7 days|\
             2026-01-04 23:00:00+00|Europe/Berlin|default|tokens|2026-01-01 00:00:00+00",
            "plain|e|count||{}|{\"model\": \"per_unit\", \"credits\": \"1\"}|||0|1 mon|2000-01-01 00:00:00+00|UTC||credits|\
             2026-01-01 00:00:00+00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn create_meter_refuses_what_contradicts_itself() {
    let mut session = metered_books("create_meter_refuses");
    assert_refused(
        &mut session,
        &[
            ("create_meter(null, 'x', 'count')", "22004", "null_argument"),
            ("create_meter('x', null, 'count')", "22004", "null_argument"),
            ("create_meter('x', 'x', null)", "22004", "null_argument"),
            ("create_meter('x', 'x', 'count', filter => null)", "22004", "null_argument"),
            ("create_meter('x', 'x', 'count', pricing => null)", "22004", "null_argument"),
            ("create_meter('x', 'x', 'count', period => null)", "22004", "null_argument"),
            ("create_meter('x', 'x', 'count', anchor => null)", "22004", "null_argument"),
            ("create_meter('x', 'x', 'count', time_zone => null)", "22004", "null_argument"),
            ("create_meter('x', 'x', 'count', unit => null)", "22004", "null_argument"),
            ("create_meter('', 'x', 'count')", "22023", "invalid_argument"),
            ("create_meter(repeat('x', 256), 'x', 'count')", "22023", "invalid_argument"),
            ("create_meter('x', '', 'count')", "22023", "invalid_argument"),
            ("create_meter('x', repeat('x', 256), 'count')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'avg', 'n')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'SUM', 'n')", "22023", "invalid_argument"),
            ("create_meter('x', 'x')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'max')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'unique')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'latest')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', 'n')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'sum', '')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'sum', repeat('x', 256))", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', filter => '[]')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', filter => '1e400')", "22023", "invalid_argument"),
            (
                "create_meter('x', 'x', 'count', filter => jsonb_build_object('a', repeat('x', 66000)))",
                "22023",
                "invalid_argument",
            ),
            ("create_meter('x', 'x', 'count', period => '0')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', period => '-1 month')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', period => '1 month 1 day')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', period => '59 minutes')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', period => '101 years')", "22003", "out_of_range"),
            ("create_meter('x', 'x', 'count', anchor => 'infinity')", "22003", "out_of_range"),
            ("create_meter('x', 'x', 'count', anchor => '1969-12-31 23:59:59+00')", "22003", "out_of_range"),
            ("create_meter('x', 'x', 'count', time_zone => 'Mars/Olympus')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', time_zone => '')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', wallet => '')", "22023", "invalid_argument"),
            ("create_meter('x', 'x', 'count', unit => '')", "22023", "invalid_argument"),
            ("create_meter('m', 'other', 'count')", "42710", "already_exists"),
            ("create_meter('m', 'e', 'sum', 'n')", "42710", "already_exists"),
            ("create_meter('x', 'e', 'count', unit => 'tokens')", "22023", "invalid_argument"),
        ],
    );
    let conflict = session.error("select credits.create_meter('x', 'e', 'count', unit => 'tokens')");
    for name in ["\"m\"", "\"e\"", "\"credits\"", "\"tokens\""] {
        assert!(conflict.message.contains(name), "{conflict}");
    }
    assert_ledger_is_sound(&mut session);
}

/// Price lists that are wrong, and where; the message begins with the path.
const MISTAKES: &[(&str, &str)] = &[
    (r#""per_unit""#, ""),
    ("null", ""),
    ("{}", ""),
    (r#"{"credits": 1}"#, ""),
    (r#"{"model": "flat", "credits": 1}"#, "model: "),
    (r#"{"model": "per_unit"}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": null}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": true}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": ["1"]}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": ""}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": "NaN"}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": "1 "}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": -1}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": "-0.1"}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": 0.0000000000001}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": 1e16}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": 1e400}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": "1e99999999999999999999"}"#, "credits: "),
    (r#"{"model": "per_unit", "credits": 1, "price": 1}"#, "price: "),
    (r#"{"model": "per_unit", "credits": 1, "size": 1}"#, "size: "),
    (r#"{"model": "per_unit", "credits": 1, "default": {"model": "per_unit", "credits": 1}}"#, "default: "),
    (r#"{"model": "package", "credits": 1}"#, "size: "),
    (r#"{"model": "package", "size": 1}"#, "credits: "),
    (r#"{"model": "package", "size": "0.0", "credits": 1}"#, "size: "),
    (r#"{"model": "package", "size": 1, "credits": 1, "tiers": []}"#, "tiers: "),
    (r#"{"model": "graduated"}"#, "tiers: "),
    (r#"{"model": "graduated", "tiers": []}"#, "tiers: "),
    (r#"{"model": "graduated", "tiers": {}}"#, "tiers: "),
    (r#"{"model": "graduated", "tiers": [{"up_to": 1, "credits": 1}]}"#, "tiers[0].up_to: "),
    (r#"{"model": "graduated", "tiers": [{"credits": 1}, {"credits": 1}]}"#, "tiers[0].up_to: "),
    (r#"{"model": "volume", "tiers": [{"up_to": 0, "credits": 1}, {"credits": 1}]}"#, "tiers[0].up_to: "),
    (
        r#"{"model": "volume", "tiers": [{"up_to": 2, "credits": 1}, {"up_to": 2.0, "credits": 1}, {"credits": 1}]}"#,
        "tiers[1].up_to: ",
    ),
    (
        r#"{"model": "volume", "tiers": [{"up_to": 2, "credits": 1}, {"up_to": "x", "credits": 1}, {"credits": 1}]}"#,
        "tiers[1].up_to: ",
    ),
    (r#"{"model": "volume", "tiers": [{"up_to": 2}, {"credits": 1}]}"#, "tiers[0]: "),
    (r#"{"model": "volume", "tiers": [{"credits": -1}]}"#, "tiers[0].credits: "),
    (r#"{"model": "volume", "tiers": [{"credits": 1, "flat": 2}]}"#, "tiers[0].flat: "),
    (r#"{"model": "matrix"}"#, "rates: "),
    (r#"{"model": "matrix", "rates": []}"#, "rates: "),
    (r#"{"model": "matrix", "rates": [{"match": {"a": 1}}]}"#, "rates[0]: "),
    (r#"{"model": "matrix", "rates": [{"pricing": {"model": "per_unit", "credits": 1}}]}"#, "rates[0]: "),
    (r#"{"model": "matrix", "rates": [{"match": "a", "pricing": {"model": "per_unit", "credits": 1}}]}"#, "rates[0].match: "),
    (r#"{"model": "matrix", "rates": [{"match": {}, "pricing": {"model": "per_unit"}}]}"#, "rates[0].pricing.credits: "),
    (
        r#"{"model": "matrix", "rates": [{"match": {}, "pricing": {"model": "matrix", "rates": [],
            "default": {"model": "volume", "tiers": [{"up_to": 3, "credits": 1}]}}}]}"#,
        "rates[0].pricing.default.tiers[0].up_to: ",
    ),
    (r#"{"model": "matrix", "rates": [], "default": {"model": "package", "size": 0, "credits": 1}}"#, "default.size: "),
];

#[test]
fn a_wrong_price_list_is_refused_with_the_path_of_the_mistake() {
    let mut session = metered_books("a_wrong_price_list_is_refused");
    let before = everything(&mut session);
    for (document, path) in MISTAKES {
        for call in [
            format!("create_meter('x', 'x', 'count', pricing => '{document}')"),
            format!("set_meter_pricing('m', '{document}')"),
            format!("set_meter_pricing('m', '{document}', customer_id => 'acme')"),
        ] {
            let error = session.error(&format!("select credits.{call}"));
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{call}\n{error}");
            assert!(error.message.starts_with(&format!("invalid pricing: {path}")), "{call}\n{error}");
            assert!(!error.hint.is_empty(), "{call}");
        }
    }
    let deep = r#"(repeat('{"model": "matrix", "rates": [], "default": ', 200) || '{"model": "per_unit", "credits": 1}' || repeat('}', 200))::jsonb"#;
    let large = r#"jsonb_build_object('model', 'matrix', 'default', '{"model": "per_unit", "credits": 1}'::jsonb, 'rates',
        array_fill(jsonb_build_object('match', '{"a": 1}'::jsonb, 'pricing', '{"model": "per_unit", "credits": 1}'::jsonb), '{1000}'))"#;
    for document in [deep, large] {
        let error = session.error(&format!("select credits.set_meter_pricing('m', {document})"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{error}");
    }
    assert_eq!(everything(&mut session), before, "what is refused leaves nothing");
}

#[test]
fn numbers_of_a_price_list_are_strings_or_json_numbers() {
    let mut session = metered_books("numbers_of_a_price_list");
    for credits in ["2.5", "\"2.5\"", "2.50", "\"2.500000000000000\"", "25e-1", "\"0.25e1\"", "\"+2.5\""] {
        session.exec(&format!("select credits.set_meter_pricing('m', '{{\"model\": \"per_unit\", \"credits\": {credits}}}')"));
        assert_eq!(charges(&mut session, &[r#"'e', '{"n": 2}'"#]), ["5"], "{credits}");
    }
    for credits in ["0", "\"0\"", "-0", "0e500"] {
        session.exec(&format!("select credits.set_meter_pricing('m', '{{\"model\": \"per_unit\", \"credits\": {credits}}}')"));
        assert_eq!(charges(&mut session, &[r#"'e', '{"n": 2}'"#]), ["0"], "{credits}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn set_meter_pricing_refuses_wrong_arguments() {
    let mut session = metered_books("set_meter_pricing_refuses");
    let list = r#"'{"model": "per_unit", "credits": 1}'"#;
    let refusals = [
        (format!("null, {list}"), "22004", "null_argument"),
        ("'m', null".to_owned(), "22004", "null_argument"),
        (format!("'', {list}"), "22023", "invalid_argument"),
        (format!("'x', {list}"), "P0002", "not_found"),
        (format!("'M', {list}"), "P0002", "not_found"),
        (format!("'x', {list}, customer_id => 'acme'"), "P0002", "not_found"),
        (format!("'m', {list}, customer_id => 'nobody'"), "P0002", "not_found"),
        (format!("'m', {list}, customer_id => ''"), "22023", "invalid_argument"),
        (format!("'m', {list}, 'infinity'"), "22003", "out_of_range"),
        (format!("'m', {list}, '-infinity'"), "22003", "out_of_range"),
        (format!("'m', {list}, '10000-01-01 00:00+00'"), "22003", "out_of_range"),
    ]
    .map(|(arguments, sqlstate, symbol)| (format!("set_meter_pricing({arguments})"), sqlstate, symbol));
    assert_refused(&mut session, &refusals.each_ref().map(|(call, sqlstate, symbol)| (call.as_str(), *sqlstate, *symbol)));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn price_lists_are_shown_past_present_and_future() {
    let mut session = metered_books("price_lists_are_shown");
    session.set_clock("2026-01-02 00:00+00");
    let list = |credits: u32| format!(r#"'{{"model": "per_unit", "credits": {credits}}}'"#);
    assert_eq!(session.one(&format!("select credits.set_meter_pricing('m', {})", list(2))), "m");
    for arguments in [
        format!("{}, '2026-02-01 00:00+00'", list(3)),
        format!("{}, '2026-03-01 00:00+00'", list(4)),
        format!("{}, '2026-03-01 00:00+00'", list(5)), // in place of the one before
        format!("{}, customer_id => 'acme'", list(6)),
        format!("{}, '2026-04-01 00:00+00', 'acme'", list(7)),
    ] {
        session.exec(&format!("select credits.set_meter_pricing('m', {arguments})"));
    }
    assert_eq!(
        session.lines(
            "select meter, customer_id, to_char(effective_at, 'MM-DD'), pricing ->> 'credits' from credits.meter_pricing
             order by customer_id nulls first, effective_at nulls first"
        ),
        ["m|||1", "m||01-02|2", "m||02-01|3", "m||03-01|5", "m|acme|01-02|6", "m|acme|04-01|7"]
    );
    let now = "select pricing ->> 'credits', to_char(pricing_since, 'MM-DD'), to_char(next_pricing_at, 'MM-DD'),
                      customers_with_own_pricing from credits.meters";
    for (clock, expected) in [
        ("2026-01-31 23:59:59+00", "2|01-02|02-01|1"),
        ("2026-02-01 00:00+00", "3|02-01|03-01|1"),
        ("2026-05-01 00:00+00", "5|03-01||1"),
    ] {
        session.set_clock(clock);
        assert_eq!(session.lines(now), [expected], "{clock}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn record_usage_refuses_wrong_arguments() {
    let mut session = metered_books("record_usage_refuses");
    assert_refused(
        &mut session,
        &[
            (r#"record_usage(null, 'e', '{"n": 1}')"#, "22004", "null_argument"),
            (r#"record_usage('acme', null, '{"n": 1}')"#, "22004", "null_argument"),
            ("record_usage('acme', 'e', null)", "22004", "null_argument"),
            (r#"record_usage('acme', 'e', '{"n": 1}', on_insufficient => null)"#, "22004", "null_argument"),
            (r#"record_usage('', 'e', '{"n": 1}')"#, "22023", "invalid_argument"),
            (r#"record_usage('nobody', 'e', '{"n": 1}')"#, "P0002", "not_found"),
            (r#"record_usage('acme', '', '{"n": 1}')"#, "22023", "invalid_argument"),
            ("record_usage('acme', 'unknown')", "P0002", "not_found"),
            ("record_usage('acme', 'E')", "P0002", "not_found"),
            ("record_usage('acme', 'e', '[]')", "22023", "invalid_argument"),
            ("record_usage('acme', 'e', 'null')", "22023", "invalid_argument"),
            ("record_usage('acme', 'e', jsonb_build_object('n', 1, 'x', repeat('x', 65530)))", "22023", "invalid_argument"),
            (
                r#"record_usage('acme', 'e', ('{"n": 1, "x": ' || repeat('[', 200) || repeat(']', 200) || '}')::jsonb)"#,
                "22023",
                "invalid_argument",
            ),
            (r#"record_usage('acme', 'e', '{"n": 1}', '')"#, "22023", "invalid_argument"),
            (r#"record_usage('acme', 'e', '{"n": 1}', repeat('x', 256))"#, "22023", "invalid_argument"),
            (r#"record_usage('acme', 'e', '{"n": 1}', occurred_at => '1969-12-31 23:59:59+00')"#, "22003", "out_of_range"),
            (r#"record_usage('acme', 'e', '{"n": 1}', occurred_at => 'infinity')"#, "22003", "out_of_range"),
            (r#"record_usage('acme', 'e', '{"n": 1}', on_insufficient => 'maybe')"#, "22023", "invalid_argument"),
            (r#"record_usage('acme', 'e', '{"n": 1}', metadata => '[]')"#, "22023", "invalid_argument"),
            ("price_usage(null)", "22004", "null_argument"),
            ("price_usage('e', null)", "22004", "null_argument"),
            ("price_usage('unknown')", "P0002", "not_found"),
            (r#"price_usage('e', '{"n": 1}', '')"#, "22023", "invalid_argument"),
            (r#"price_usage('e', '{"n": 1}', at => 'infinity')"#, "22003", "out_of_range"),
        ],
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_value_that_is_no_number_of_zero_or_more_is_refused() {
    let mut session = metered_books("a_value_that_is_no_number");
    for aggregation in ["max", "latest", "unique"] {
        meter(&mut session, &format!("'{aggregation}', '{aggregation}', '{aggregation}', 'n'"));
    }
    let before = everything(&mut session);
    let mut refuse = |event: &str, properties: &str, sqlstate: &str| {
        for call in
            [format!("record_usage('acme', '{event}', '{properties}')"), format!("price_usage('{event}', '{properties}')")]
        {
            let error = session.error(&format!("select * from credits.{call}"));
            let symbol = if sqlstate == "22003" { "out_of_range" } else { "invalid_argument" };
            assert_eq!((error.sqlstate.as_str(), error.symbol()), (sqlstate, symbol), "{call}\n{error}");
            assert!(error.message.contains('n'), "{call}\n{error}");
        }
    };
    for event in ["e", "max", "latest"] {
        for value in [
            "null",
            "true",
            "[1]",
            "{}",
            "\"\"",
            "\"x\"",
            "\"NaN\"",
            "\"Infinity\"",
            "\"-Infinity\"",
            "\" 1\"",
            "\"1 \"",
            "\"0x10\"",
            "\"1_000\"",
            "\"1,5\"",
            "\"１\"",
            "\".\"",
            "\"1e\"",
            "-1",
            "\"-0.5\"",
            "0.0000000000001",
            "\"1e-99999999999999999999\"",
        ] {
            refuse(event, &format!("{{\"n\": {value}}}"), "22023");
        }
        for value in ["1e16", "\"1e16\"", "1e400", "\"1e400\"", "\"1e99999999999999999999\""] {
            refuse(event, &format!("{{\"n\": {value}}}"), "22003");
        }
        refuse(event, r#"{"N": 1}"#, "22023");
    }
    for properties in ["{}", r#"{"n": null}"#, r#"{"n": [1]}"#, r#"{"n": {"a": 1}}"#] {
        refuse("unique", properties, "22023");
    }
    assert_eq!(everything(&mut session), before, "what is refused leaves nothing");
}

#[test]
fn a_value_is_a_json_number_or_a_numeric_string() {
    let mut session = metered_books("a_value_is_a_number_or_a_string");
    for (value, expected) in [
        ("2.5", "2.5"),
        ("\"2.50\"", "2.5"),
        ("\"+2\"", "2"),
        ("\"1e2\"", "100"),
        ("0.000000000001", "0.000000000001"),
        ("-0", "0"),
        ("\"0e99999999999999999999\"", "0"),
        ("1.00000000000000000000000000000000", "1"),
    ] {
        assert_eq!(charges(&mut session, &[&format!("'e', '{{\"n\": {value}}}'")]), [expected], "{value}");
    }
    // 64 kB and 127 levels are allowed, and numbers that nobody counts may be of any size.
    for rest in ["repeat('x', 65000)", "1e400::numeric", "(repeat('[', 126) || repeat(']', 126))::jsonb"] {
        assert_eq!(charges(&mut session, &[&format!("'e', jsonb_build_object('n', 1, 'rest', {rest})")]), ["1"], "{rest}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn sums_and_prices_that_do_not_fit_are_out_of_range() {
    let mut session = new_books("sums_that_do_not_fit");
    meter(&mut session, r#"'free', 'free', 'sum', 'n', pricing => '{"model": "per_unit", "credits": 0}'"#);
    meter(&mut session, r#"'dear', 'dear', 'sum', 'n', pricing => '{"model": "per_unit", "credits": "9999999999999999"}'"#);
    meter(
        &mut session,
        r#"'fine', 'fine', 'sum', 'n', pricing => '{"model": "package", "size": "0.000000000001", "credits": 1e15}'"#,
    );
    assert_eq!(record(&mut session, r#"'free', '{"n": "9999999999999999.999999999999"}'"#), "charged|0|0|0|0|f");
    assert_refused(
        &mut session,
        &[
            (r#"record_usage('acme', 'free', '{"n": 0.000000000001}')"#, "22003", "out_of_range"),
            (r#"record_usage('acme', 'dear', '{"n": 1.1}', on_insufficient => 'partial')"#, "22003", "out_of_range"),
            (r#"record_usage('acme', 'dear', '{"n": 9999999999999999}')"#, "22003", "out_of_range"),
            (r#"record_usage('acme', 'fine', '{"n": 9999999999999999}')"#, "22003", "out_of_range"),
            (r#"record_usage('acme', 'fine', '{"n": 0.00000000001}')"#, "22003", "out_of_range"),
            (r#"price_usage('dear', '{"n": 2}')"#, "22003", "out_of_range"),
        ],
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_quote_is_what_recording_charges_and_changes_nothing() {
    let mut session = rich_books("a_quote_is_what_recording_charges");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{VOLUME}'"));
    for (n, expected) in [("5", "m|credits|5|35"), ("0.1", "m|credits|0.1|-1.85"), ("0", "m|credits|0|0")] {
        let event = format!("'e', '{{\"n\": {n}}}'");
        let before = everything(&mut session);
        session.exec("begin read only");
        assert_eq!(session.lines(&format!("select * from credits.price_usage({event}, 'acme')")), [expected]);
        session.exec("commit");
        assert_eq!(everything(&mut session), before);
        assert_eq!(charges(&mut session, &[&event]), [expected.rsplit_once('|').expect("a row").1]);
    }
    assert_eq!(session.lines("select * from credits.meter_usage"), ["acme|m|2026-01-01 00:00:00+00||5.1|3"]);
    assert_ledger_is_sound(&mut session);
}

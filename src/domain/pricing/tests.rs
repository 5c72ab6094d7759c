//! Worked prices of other billing systems, at the borders of tiers and packages, and every mistake a document can have.

use super::*;

fn pricing(document: &str) -> Pricing {
    Pricing::parse(document).unwrap()
}

fn amount(text: &str) -> Amount {
    Amount::from_decimal(text).unwrap()
}

/// The price of a quantity for an event without properties.
fn price(document: &str, quantity: &str) -> String {
    let pricing = pricing(document);
    let (by_quantity, _) = pricing.select(&Map::new()).unwrap();
    by_quantity.price(amount(quantity)).unwrap().to_string()
}

fn prices(document: &str, expected: &[(&str, &str)]) {
    for (quantity, credits) in expected {
        assert_eq!(price(document, quantity), *credits, "{quantity} by {document}");
    }
}

const TYPOGRAPHIC: &str = r#""tiers":[{"up_to":5,"credits":"7"},{"up_to":10,"credits":"6.5"},{"credits":"6"}]"#;

/// Stripe, "Set up tiered pricing": fonts a month at 7, 6.5 and 6 USD.
#[test]
fn volume_and_graduated_tiers_are_those_of_stripe() {
    prices(
        &format!(r#"{{"model":"volume",{TYPOGRAPHIC}}}"#),
        &[("0", "0"), ("1", "7"), ("5", "35"), ("6", "39"), ("20", "120"), ("25", "150")],
    );
    prices(
        &format!(r#"{{"model":"graduated",{TYPOGRAPHIC}}}"#),
        &[("0", "0"), ("1", "7"), ("5", "35"), ("6", "41.5"), ("10", "67.5"), ("11", "73.5"), ("20", "127.5"), ("25", "157.5")],
    );
}

/// Stripe, "Tiered pricing", the older example with five tiers.
#[test]
fn a_total_by_volume_may_fall() {
    let tiers = r#""tiers":[{"up_to":5,"credits":5},{"up_to":10,"credits":4},{"up_to":15,"credits":3},{"up_to":20,"credits":2},{"credits":1}]"#;
    let volume = format!(r#"{{"model":"volume",{tiers}}}"#);
    prices(&volume, &[("1", "5"), ("5", "25"), ("6", "24"), ("20", "40"), ("25", "25")]);
    prices(&format!(r#"{{"model":"graduated",{tiers}}}"#), &[("5", "25"), ("6", "29")]);
}

/// Zuplo, "Pricing models", and Lago, "Graduated": API calls.
#[test]
fn graduated_and_volume_are_those_of_zuplo_and_lago() {
    let tiers = r#""tiers":[{"up_to":"1000","credits":"0.10"},{"up_to":"10000","credits":"0.05"},{"credits":"0.01"}]"#;
    prices(&format!(r#"{{"model":"graduated",{tiers}}}"#), &[("1000", "100"), ("15000", "600")]);
    prices(&format!(r#"{{"model":"volume",{tiers}}}"#), &[("1000", "100"), ("1000.5", "50.025"), ("15000", "150")]);
    let lago = r#"{"model":"graduated","tiers":[{"up_to":100,"credits":1},{"up_to":200,"credits":0.5},{"credits":0.1}]}"#;
    prices(lago, &[("100", "100"), ("101", "100.5"), ("200", "150"), ("201", "150.1")]);
}

/// Chargebee, "Package pricing": 1.25 a million tokens; but nothing used costs nothing here.
#[test]
fn each_started_package_is_charged() {
    let tokens = r#"{"model":"package","size":"1000000","credits":"1.25"}"#;
    prices(
        tokens,
        &[("0", "0"), ("0.000000000001", "1.25"), ("10", "1.25"), ("1000000", "1.25"), ("1000000.1", "2.5"), ("1500000", "2.5")],
    );
    prices(r#"{"model":"package","size":"0.5","credits":"3"}"#, &[("0.5", "3"), ("0.6", "6"), ("1", "6")]);
}

#[test]
fn a_price_is_exact_and_rounded_once_half_to_even() {
    let each = |credits: &str| format!(r#"{{"model":"per_unit","credits":"{credits}"}}"#);
    prices(
        &each("0.000000000001"),
        &[("0.5", "0"), ("1.5", "0.000000000002"), ("2.5", "0.000000000002"), ("2.6", "0.000000000003")],
    );
    prices(&each("0.1"), &[("0.3", "0.03"), ("9999999999999999.999999999999", "1000000000000000")]);
    // Two halves of the last place make one: the sum is rounded, not the portions.
    let halves = r#"{"model":"graduated","tiers":[{"up_to":"0.5","credits":"0.000000000001"},{"credits":"0.000000000001"}]}"#;
    prices(halves, &[("0.5", "0"), ("1", "0.000000000001")]);
}

#[test]
fn a_price_of_ten_to_the_sixteen_is_refused() {
    for document in [
        r#"{"model":"per_unit","credits":"9999999999999999"}"#,
        r#"{"model":"package","size":"0.000000000001","credits":"9999999999999999"}"#,
        r#"{"model":"volume","tiers":[{"credits":"9999999999999999"}]}"#,
        r#"{"model":"graduated","tiers":[{"up_to":1,"credits":1},{"credits":"9999999999999999"}]}"#,
    ] {
        let pricing = pricing(document);
        let (by_quantity, _) = pricing.select(&Map::new()).unwrap();
        assert_eq!(by_quantity.price(amount("9999999999999999")).unwrap_err().symbol(), "out_of_range", "{document}");
    }
}

fn selected(pricing: &Pricing, properties: &str) -> Option<(String, String)> {
    let properties: Map<String, Value> = serde_json::from_str(properties).unwrap();
    let (by_quantity, rate) = pricing.select(&properties)?;
    Some((by_quantity.price(amount("1")).unwrap().to_string(), rate))
}

#[test]
fn the_first_rate_all_of_whose_properties_are_equal_is_taken() {
    let nested = pricing(
        r#"{"model":"matrix","rates":[
            {"match":{"model":"large"},"pricing":{"model":"matrix","rates":[
                {"match":{"cached":true,"size":1},"pricing":{"model":"per_unit","credits":"1"}},
                {"match":{"cached":true},"pricing":{"model":"per_unit","credits":"2"}}],
             "default":{"model":"per_unit","credits":"3"}}},
            {"match":{"model":"large","cached":false},"pricing":{"model":"per_unit","credits":"4"}},
            {"match":{"model":"small"},"pricing":{"model":"per_unit","credits":"5"}}]}"#,
    );
    let some = |credits: &str, rate: &str| Some((credits.to_owned(), rate.to_owned()));
    let large = |properties: &str| selected(&nested, &format!(r#"{{"model":"large"{properties}}}"#));
    assert_eq!(large(r#","cached":true,"size":1.0"#), some("1", r#"{"model":"large"}/{"cached":true,"size":1}"#));
    assert_eq!(large(r#","cached":true,"size":"1""#), some("2", r#"{"model":"large"}/{"cached":true}"#));
    assert_eq!(large(r#","cached":false"#), some("3", r#"{"model":"large"}/default"#));
    assert_eq!(large(""), some("3", r#"{"model":"large"}/default"#));
    assert_eq!(selected(&nested, r#"{"model":"small"}"#), some("5", r#"{"model":"small"}"#));
    assert_eq!(selected(&nested, r#"{"model":"tiny"}"#), None);
    assert_eq!(selected(&nested, "{}"), None);
}

#[test]
fn a_wrong_document_is_refused_with_the_path_of_the_mistake() {
    for (document, expected) in [
        ("7", "invalid type: integer `7`, expected an object"),
        (r#"["per_unit","1"]"#, "invalid type: sequence, expected an object"),
        (r#"{"model":{"per_unit":null},"credits":1}"#, "model: invalid type: map, expected a string"),
        (r#"{"model":"graduated","tiers":[[5,"7"],[null,"6"]]}"#, "tiers[0]: invalid type: sequence, expected an object"),
        (
            r#"{"model":"matrix","rates":[[{"a":1},{"model":"per_unit","credits":5}]]}"#,
            "rates[0]: invalid type: sequence, expected an object",
        ),
        ("{}", "missing field `model`"),
        (r#"{"model":"flat"}"#, "model: expected one of per_unit, package"),
        (r#"{"model":"per_unit"}"#, "credits: it is missing"),
        (r#"{"model":"per_unit","credits":null}"#, "credits: it is missing"),
        (r#"{"model":"per_unit","credits":"1","price":"1"}"#, "price: unknown field `price`"),
        (r#"{"model":"per_unit","credits":"1","size":"1"}"#, "size: it is no part of this model"),
        (r#"{"model":"per_unit","credits":"-1"}"#, "credits: it is negative"),
        (r#"{"model":"per_unit","credits":"one"}"#, "credits: it is not a number"),
        (r#"{"model":"per_unit","credits":true}"#, "credits: expected a number"),
        (r#"{"model":"per_unit","credits":"0.0000000000001"}"#, "credits: it has more than 12 decimals"),
        (r#"{"model":"per_unit","credits":1e16}"#, "credits: it is too large"),
        (r#"{"model":"package","credits":"1"}"#, "size: it is missing"),
        (r#"{"model":"package","credits":"1","size":0}"#, "size: it is not above zero"),
        (r#"{"model":"graduated"}"#, "tiers: it is missing"),
        (r#"{"model":"graduated","tiers":{}}"#, "tiers: invalid type: map"),
        (r#"{"model":"volume","tiers":[]}"#, "tiers: it is empty"),
        (r#"{"model":"volume","tiers":[{"up_to":1,"credits":1}]}"#, "tiers[0].up_to: the last tier has no end"),
        (r#"{"model":"volume","tiers":[{"credits":1},{"credits":1}]}"#, "tiers[0].up_to: it is missing"),
        (r#"{"model":"volume","tiers":[{"up_to":0,"credits":1},{"credits":1}]}"#, "tiers[0].up_to: 0 is not above 0"),
        (
            r#"{"model":"volume","tiers":[{"up_to":5,"credits":1},{"up_to":5.0,"credits":1},{"credits":1}]}"#,
            "tiers[1].up_to: 5 is not above 5",
        ),
        (r#"{"model":"volume","tiers":[{"up_to":5},{"credits":1}]}"#, "tiers[0]: missing field `credits`"),
        (r#"{"model":"matrix","rates":[]}"#, "rates: it is empty, and there is no default"),
        (r#"{"model":"matrix","default":{"model":"per_unit","credits":"1"}}"#, "rates: it is missing"),
        (
            r#"{"model":"matrix","rates":[{"match":[],"pricing":{"model":"per_unit","credits":1}}]}"#,
            "rates[0].match: invalid type",
        ),
        (
            r#"{"model":"matrix","rates":[{"match":{},"pricing":{"model":"volume","tiers":[{"credits":"x"}]}}]}"#,
            "rates[0].pricing.tiers[0].credits: it is not a number",
        ),
        (r#"{"model":"matrix","rates":[{"match":{},"pricing":{"model":"volume"}}]}"#, "rates[0].pricing.tiers: it is missing"),
        (
            r#"{"model":"matrix","rates":[],"default":{"model":"package","size":1,"credits":1,"tiers":[]}}"#,
            "default.tiers: it is no part of this model",
        ),
    ] {
        let error = Pricing::parse(document).unwrap_err();
        assert_eq!(error.symbol(), "invalid_argument", "{document}");
        let message = error.to_string();
        assert!(message.starts_with(&format!("invalid pricing: {expected}")), "{document}\n{message}");
    }
}

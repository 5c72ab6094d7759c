//! JSON compared by value: an event's properties, in a request's fingerprint, a meter's filter and a price list's rates.

use serde_json::{Map, Value};

use super::amount::Decimal;

/// Whether JSON text has a key by which serde_json would take an object for a number, or for text of its own.
pub fn has_private_keys(text: &str) -> bool {
    text.contains("$serde_json::private::")
}

/// Whether two values are equal: numbers by value, objects whatever the order of their keys.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_str(), b.as_str());
            a == b || Decimal::parse(a) == Decimal::parse(b)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
        }
        (a, b) => a == b,
    }
}

/// The one text of an object: keys in order, numbers as digits and a power of ten. Equal objects have equal texts.
pub fn canonical(object: &Map<String, Value>) -> String {
    let mut out = String::new();
    write_object(&mut out, object);
    out
}

/// Writes a string of JSON. Almost none has a character to escape.
pub fn push_text(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(&Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

fn write_object(out: &mut String, object: &Map<String, Value>) {
    out.push('{');
    // serde_json keeps the keys in order.
    for (index, (key, member)) in object.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_text(out, key);
        out.push(':');
        write(out, member);
    }
    out.push('}');
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => match Decimal::parse(number.as_str()) {
            Some(Decimal { digits, .. }) if digits.is_empty() => out.push('0'),
            Some(Decimal { is_negative, digits, exponent }) => {
                let sign = if is_negative { "-" } else { "" };
                out.push_str(sign);
                out.push_str(&digits);
                if exponent != 0 {
                    out.push('e');
                    out.push_str(&exponent.to_string());
                }
            }
            None => out.push_str(number.as_str()),
        },
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, element);
            }
            out.push(']');
        }
        Value::Object(members) => write_object(out, members),
        Value::String(text) => push_text(out, text),
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    /// The text of an object that has only this.
    fn text(value: &Value) -> String {
        canonical(&Map::from_iter([("x".to_owned(), value.clone())]))
    }

    #[test]
    fn text_is_written_as_serde_json_writes_it() {
        let every_ascii: String = (0..=127_u8).map(char::from).collect();
        for text in ["", "plain", "a \"quoted\" \\ b", "line\n", "\u{7f}\u{2028}\u{e9}\u{1f600}", "\0", &every_ascii] {
            let mut out = String::new();
            push_text(&mut out, text);
            assert_eq!(out, Value::from(text).to_string());
        }
    }

    #[test]
    fn values_are_equal_whatever_the_order_of_keys_and_the_look_of_numbers() {
        for (a, b) in [
            (r#"{"a": 1, "b": [1.50, "x"]}"#, r#"{"b": [15e-1, "x"], "a": 1.0}"#),
            ("[]", " [ ] "),
            ("{}", "{ }"),
            ("-0.0", "0"),
            ("1e400", "10e399"),
        ] {
            assert!(equal(&json(a), &json(b)), "{a} {b}");
            assert_eq!(text(&json(a)), text(&json(b)));
        }
        for (a, b) in [("1", r#""1""#), ("[1,2]", "[2,1]"), ("{}", "[]"), ("null", "{}"), (r#"{"a":null}"#, "{}"), ("0", "false")]
        {
            assert!(!equal(&json(a), &json(b)), "{a} {b}");
            assert_ne!(text(&json(a)), text(&json(b)));
        }
    }
}

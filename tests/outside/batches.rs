//! Batches: many items in one call, each as if it came alone and after those before it (SPEC 4 and 8).

use pgrx_tests::{Session, assert_ledger_is_sound, quote_literal, shared_cluster};

use crate::books::{entries, everything, grant, ledger, new_books};
use crate::inbox::METERS;

/// The columns of a batch without the ids of items that have no key.
const COLUMNS: &str = "line, customer_id, case when length(transaction_id) < 36 then transaction_id end, status, requested, deducted, \
                       overage, balance, replayed, error";

/// All lines of a batch of deductions.
pub fn deduct_batch(session: &mut Session, items: &str) -> Vec<String> {
    session.lines(&format!("select {COLUMNS} from credits.deduct_usage_batch({})", quote_literal(items)))
}

/// All lines of a batch of events.
pub fn record_batch(session: &mut Session, events: &str) -> Vec<String> {
    session.lines(&format!("select {COLUMNS} from credits.record_usage_batch({})", quote_literal(events)))
}

/// Books with a second customer; acme has 100 credits, zoe 5.
fn two_customers(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec("select credits.create_wallet('zoe'), credits.grant_credits('zoe', 5)");
    grant(&mut session, "bought", "100", "");
    session
}

#[test]
fn items_run_in_their_order_and_each_sees_the_ones_before() {
    let mut session = two_customers("items_run_in_their_order");
    let items = r#"[{"customer_id": "zoe", "amount": 4, "idempotency_key": "a"},
        {"customer_id": "acme", "amount": "60.5", "idempotency_key": "a", "metadata": {"tokens": 7}, "event_name": "call"},
        {"customer_id": "zoe", "amount": 1.000000000000},
        {"customer_id": "acme", "amount": 39.5, "idempotency_key": "b", "wallet": "default", "unit": "credits", "on_insufficient": "error"},
        {"customer_id": "zoe", "amount": 0, "idempotency_key": "free"},
        {"customer_id": "zoe", "amount": 1, "idempotency_key": "c"}]"#;
    assert_eq!(
        deduct_batch(&mut session, items),
        [
            "1|zoe|a|charged|4|4|0|1|f|",
            "2|acme|a|charged|60.5|60.5|0|39.5|f|",
            "3|zoe||charged|1|1|0|0|f|",
            "4|acme|b|charged|39.5|39.5|0|0|f|",
            "5|zoe|free|charged|0|0|0|0|f|",
            "6|zoe||failed|1|0|0||f|insufficient_credits: insufficient credits: customer \"zoe\" needs 1, 0 can be spent in wallets of unit \"credits\""
        ]
    );
    assert_eq!(
        session.lines(
            "select transaction_id, amount, event_name, metadata from credits.ledger 
             where customer_id = 'acme' and kind = 'usage' order by seq"
        ),
        ["a|-60.5|call|{\"tokens\": 7}", "b|-39.5||"]
    );
    assert_eq!(
        session.lines("select seq, amount, balance_after from credits.ledger where customer_id = 'zoe' order by seq"),
        ["1|5|5", "2|-4|1", "3|-1|0", "4|0|0"]
    );
    assert_eq!(
        session.lines(
            "select transaction_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7' from credits.ledger where customer_id = 'zoe' and seq = 3"
        ),
        ["t"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_key_that_comes_twice_in_a_batch_is_charged_once() {
    let mut session = two_customers("comes_twice_in_a_batch");
    let items = r#"[{"customer_id": "acme", "amount": 10, "idempotency_key": "a"}, {"customer_id": "zoe", "amount": 2, "idempotency_key": "a"},
        {"customer_id": "acme", "amount": "10.0", "idempotency_key": "a", "occurred_at": "2025-12-31T00:00:00Z", "metadata": {"try": 2}},
        {"customer_id": "acme", "amount": 11, "idempotency_key": "a"}, {"customer_id": "acme", "amount": 1, "idempotency_key": "b"},
        {"customer_id": "acme", "amount": 10, "idempotency_key": "a", "on_insufficient": "partial"}]"#;
    let reused = "4|acme||failed|11|0|0||f|idempotency_key_reused: idempotency key \"a\" of customer \"acme\" was used for another request: usage of 10 credits";
    assert_eq!(
        deduct_batch(&mut session, items),
        [
            "1|acme|a|charged|10|10|0|90|f|",
            "2|zoe|a|charged|2|2|0|3|f|",
            "3|acme|a|charged|10|10|0|90|t|",
            reused,
            "5|acme|b|charged|1|1|0|89|f|",
            "6|acme|a|charged|10|10|0|89|t|"
        ]
    );
    let before = everything(&mut session);
    let again = deduct_batch(&mut session, items);
    assert_eq!(
        again,
        [
            "1|acme|a|charged|10|10|0|89|t|",
            "2|zoe|a|charged|2|2|0|3|t|",
            "3|acme|a|charged|10|10|0|89|t|",
            reused,
            "5|acme|b|charged|1|1|0|89|t|",
            "6|acme|a|charged|10|10|0|89|t|"
        ]
    );
    assert_eq!(everything(&mut session), before, "a batch repeated writes nothing");
    assert_eq!(
        session.lines("select status, deducted, replayed from credits.deduct_usage('acme', 10, 'a')"),
        ["charged|10|t"],
        "and the function for one replays it"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_failed_item_leaves_no_entry_and_frees_its_key() {
    let mut session = two_customers("a_failed_item_leaves_no_entry");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1), credits.grant_credits('acme', 7, 'promo', applies_to => array['call'])");
    // The failed ones have taken from two wallets, or might have, before it was known that there is not enough.
    let items = r#"[{"customer_id": "acme", "amount": 108, "idempotency_key": "a", "event_name": "call"},
        {"customer_id": "acme", "amount": 107, "idempotency_key": "a"},
        {"customer_id": "acme", "amount": 107, "idempotency_key": "a", "event_name": "call"},
        {"customer_id": "acme", "amount": 1, "idempotency_key": "b"},
        {"customer_id": "acme", "amount": 0, "idempotency_key": "b"}]"#;
    let outcomes: Vec<String> = deduct_batch(&mut session, items)
        .iter()
        .map(|line| line.split(" credits:").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        outcomes,
        [
            "1|acme||failed|108|0|0||f|insufficient_credits: insufficient",
            "2|acme||failed|107|0|0||f|insufficient_credits: insufficient",
            "3|acme|a|charged|107|107|0|0|f|",
            "4|acme||failed|1|0|0||f|insufficient_credits: insufficient",
            "5|acme|b|charged|0|0|0|0|f|"
        ]
    );
    assert_eq!(entries(&mut session, "a"), ["promo usage 7", "default usage 100 bought"]);
    assert_eq!(session.one("select count(*) from credits.ledger where customer_id = 'acme'"), "5");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_wrong_with_an_item_is_its_own_error() {
    let mut session = two_customers("an_items_own_error");
    let item = |rest: &str| format!(r#"{{"customer_id": "acme", "amount": 1, {rest}}}"#);
    let wrong = [
        (r#"{"amount": 2}"#.to_owned(), "||null_argument: customer_id must not be null"),
        (r#"{"customer_id": null, "amount": 2}"#.to_owned(), "||null_argument: customer_id must not be null"),
        (r#"{"customer_id": 5, "amount": 2}"#.to_owned(), "||invalid_argument: invalid customer_id: it is not a string"),
        (r#"{"customer_id": "acme"}"#.to_owned(), "acme||null_argument: amount must not be null"),
        (r#"{"customer_id": "acme", "amount": true}"#.to_owned(), "acme||invalid_argument: invalid amount: it is not a number"),
        (r#"{"customer_id": "acme", "amount": "NaN"}"#.to_owned(), "acme||invalid_argument: invalid amount: it is not a number"),
        (r#"{"customer_id": "acme", "amount": -1}"#.to_owned(), "acme||invalid_argument: invalid amount: -1 is negative"),
        (
            r#"{"customer_id": "acme", "amount": 1e16}"#.to_owned(),
            "acme||out_of_range: amount is out of range: its absolute value must stay below 10000000000000000",
        ),
        (
            r#"{"customer_id": "acme", "amount": 0.0000000000001}"#.to_owned(),
            "acme||invalid_argument: invalid amount: it has more than 12 decimals",
        ),
        (item(r#""ammount": 1"#), "acme||invalid_argument: invalid items: the key \"ammount\" is not known"),
        (item(r#""properties": {}"#), "acme||invalid_argument: invalid items: the key \"properties\" is not known"),
        (item(r#""occurred_at": 5"#), "acme||invalid_argument: invalid occurred_at: it is not a string"),
        (item(r#""occurred_at": "soon""#), "acme||invalid_argument: invalid occurred_at: it is not a time"),
        (
            item(r#""occurred_at": "2026-01-01T00:05:01Z""#),
            "acme|1|invalid_argument: invalid occurred_at: 2026-01-01 00:05:01+00 is more than 5 minutes after now, 2026-01-01 00:00:00+00",
        ),
        (item(r#""metadata": [1]"#), "acme||invalid_argument: invalid metadata: it is not a JSON object"),
        (item(r#""wallet": "nope""#), "acme|1|not_found: wallet \"nope\" of customer \"acme\" not found"),
        (item(r#""unit": null"#), "acme||null_argument: unit must not be null"),
        (item(r#""on_insufficient": "maybe""#), "acme||invalid_argument: invalid on_insufficient: \"maybe\" is not known"),
        (item(r#""on_insufficient": null"#), "acme||null_argument: on_insufficient must not be null"),
        (item(r#""idempotency_key": """#), "acme||invalid_argument: invalid idempotency_key: it is empty"),
        (r#"{"customer_id": "nobody", "amount": 3}"#.to_owned(), "nobody|3|not_found: wallet of customer \"nobody\" not found"),
    ];
    let before = everything(&mut session);
    let items: Vec<String> = wrong.iter().map(|(item, _)| item.clone()).collect();
    let expected = |line: usize, told: &str| {
        let cells: Vec<&str> = told.splitn(3, '|').collect();
        format!("{line}|{}||failed|{}|0|0||f|{}", cells[0], cells[1], cells[2])
    };
    let expected: Vec<String> = wrong.iter().enumerate().map(|(index, (_, told))| expected(index + 1, told)).collect();
    assert_eq!(deduct_batch(&mut session, &format!("[{}]", items.join(","))), expected);
    assert_eq!(everything(&mut session), before, "what is refused leaves nothing");

    // Among elements that are no objects, and wrong ones, those that are right are charged.
    let mixed = r#"[1, null, "x", [], {"customer_id": "acme", "amount": 1, "idempotency_key": "a"}, {"customer_id": "acme", "amount": "x"},
        {"customer_id": "zoe", "amount": 1, "wallet": null, "event_name": null, "occurred_at": null, "metadata": null, "idempotency_key": null}]"#;
    let lines = deduct_batch(&mut session, mixed);
    for line in &lines[..4] {
        assert!(
            line.ends_with(
                "||failed||0|0||f|invalid_argument: invalid items: the element is not a JSON object of at most 127 levels"
            ),
            "{line}"
        );
    }
    assert_eq!(
        lines[4..],
        [
            "5|acme|a|charged|1|1|0|99|f|",
            "6|acme||failed||0|0||f|invalid_argument: invalid amount: it is not a number",
            "7|zoe||charged|1|1|0|4|f|"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_no_array_is_an_error_and_an_empty_one_is_nothing() {
    let mut session = two_customers("no_array");
    let before = everything(&mut session);
    for function in ["deduct_usage_batch", "record_usage_batch"] {
        for (argument, sqlstate, symbol) in [
            ("null", "22004", "null_argument"),
            ("'null'", "22023", "invalid_argument"),
            ("'{}'", "22023", "invalid_argument"),
            ("'{\"customer_id\": \"acme\", \"amount\": 1}'", "22023", "invalid_argument"),
            ("'\"x\"'", "22023", "invalid_argument"),
            ("'5'", "22023", "invalid_argument"),
        ] {
            let error = session.error(&format!("select * from credits.{function}({argument})"));
            assert_eq!((error.sqlstate.as_str(), error.symbol()), (sqlstate, symbol), "{function}({argument}): {error}");
        }
        assert_eq!(session.lines(&format!("select * from credits.{function}('[]')")), [""; 0]);
    }
    assert_eq!(everything(&mut session), before);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn each_item_says_what_to_do_when_there_is_not_enough() {
    let mut session = two_customers("each_item_says_what_to_do");
    let of_zoe = |rest: &str| format!(r#"{{"customer_id": "zoe", "amount": 8, {rest}}}"#);
    let items = [
        of_zoe(r#""idempotency_key": "error""#),
        of_zoe(r#""idempotency_key": "report", "on_insufficient": "report""#),
        of_zoe(r#""idempotency_key": "partial", "on_insufficient": "partial""#),
        of_zoe(r#""idempotency_key": "nothing", "on_insufficient": "partial""#),
        of_zoe(r#""idempotency_key": "partial", "on_insufficient": "error""#),
    ];
    assert_eq!(
        deduct_batch(&mut session, &format!("[{}]", items.join(","))),
        [
            "1|zoe||failed|8|0|0||f|insufficient_credits: insufficient credits: customer \"zoe\" needs 8, 5 can be spent in wallets of unit \"credits\"",
            "2|zoe||insufficient|8|0|0|5|f|",
            "3|zoe|partial|partial|8|5|0|0|f|",
            "4|zoe||insufficient|8|0|0|0|f|",
            "5|zoe|partial|partial|8|5|0|0|t|"
        ]
    );
    session.exec("select credits.grant_credits('zoe', 16)");
    assert_eq!(
        deduct_batch(&mut session, &format!("[{}]", items[..4].join(","))),
        [
            "1|zoe|error|charged|8|8|0|8|f|",
            "2|zoe|report|charged|8|8|0|0|f|",
            "3|zoe|partial|partial|8|5|0|0|t|",
            "4|zoe||insufficient|8|0|0|0|f|"
        ],
        "keys of what was not charged are free"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn frozen_and_closed_wallets_refuse_their_items_but_replay() {
    let mut session = two_customers("frozen_and_closed_refuse");
    session.exec("select credits.create_wallet('shut'), credits.grant_credits('shut', 5)");
    let items = r#"[{"customer_id": "zoe", "amount": 1, "idempotency_key": "a"}, {"customer_id": "shut", "amount": 1, "idempotency_key": "a"}]"#;
    assert_eq!(deduct_batch(&mut session, items), ["1|zoe|a|charged|1|1|0|4|f|", "2|shut|a|charged|1|1|0|4|f|"]);
    session.exec(
        "select credits.set_wallet_status('zoe', 'default', 'frozen'), credits.set_wallet_status('shut', 'default', 'closed')",
    );
    let more = r#"[{"customer_id": "zoe", "amount": 1, "idempotency_key": "b"}, {"customer_id": "shut", "amount": 1, "wallet": "default"},
        {"customer_id": "acme", "amount": 1}, {"customer_id": "zoe", "amount": 1, "idempotency_key": "a"},
        {"customer_id": "shut", "amount": 1, "idempotency_key": "a"}]"#;
    assert_eq!(
        deduct_batch(&mut session, more)[..3],
        [
            "1|zoe||failed|1|0|0||f|wrong_state: no wallet of unit \"credits\" of customer \"zoe\" is active: wallet \"default\" is frozen",
            "2|shut||failed|1|0|0||f|wrong_state: wallet \"default\" of customer \"shut\" is closed and takes no usage",
            "3|acme||charged|1|1|0|99|f|"
        ]
    );
    let replays = deduct_batch(&mut session, more)[3..].to_vec();
    assert_eq!(replays, ["4|zoe|a|charged|1|1|0|0|t|", "5|shut|a|charged|1|1|0|0|t|"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn several_wallets_and_overage_pay_in_order() {
    let mut session = new_books("several_wallets_and_overage");
    session.exec(
        "select credits.create_wallet('acme', 'promo', priority => 1), credits.create_wallet('acme', 'tab', priority => 200,
             overage_policy => 'overdraft', overage_limit => 8)",
    );
    grant(&mut session, "bought", "10", "");
    grant(&mut session, "gift", "5", "wallet => 'promo'");
    let items = r#"[{"customer_id": "acme", "amount": 6, "idempotency_key": "a"}, {"customer_id": "acme", "amount": 12, "idempotency_key": "b"},
        {"customer_id": "acme", "amount": 6, "idempotency_key": "c"}, {"customer_id": "acme", "amount": 6, "idempotency_key": "d", "on_insufficient": "partial"},
        {"customer_id": "acme", "amount": 1, "idempotency_key": "e", "wallet": "promo"}]"#;
    let lines = deduct_batch(&mut session, items);
    assert_eq!(
        lines[..4],
        [
            "1|acme|a|charged|6|6|0|9|f|",
            "2|acme|b|overage|12|9|3|0|f|",
            "3|acme||failed|6|0|0||f|insufficient_credits: insufficient credits: customer \"acme\" needs 6, 0 can be spent in wallets of unit \"credits\"",
            "4|acme|d|partial|6|0|5|0|f|"
        ]
    );
    assert_eq!(entries(&mut session, "a"), ["promo usage 5 gift", "default usage 1 bought"]);
    assert_eq!(entries(&mut session, "b"), ["default usage 9 bought", "tab overdraft 3"]);
    assert_eq!(session.lines("select wallet, debt from credits.wallets order by 1"), ["default|0", "promo|0", "tab|8"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_due_is_settled_before_the_first_item() {
    let mut session = two_customers("settled_before_the_first_item");
    grant(&mut session, "old", "20", "expires_at => '2026-01-10 00:00+00'");
    session.exec("select credits.create_recurring_grant('acme', 'monthly', 3, '1 month', starts_at => '2026-01-20 00:00+00')");
    session.exec("select credits.create_recurring_grant('zoe', 'monthly', 3, '1 month', starts_at => '2026-01-20 00:00+00')");
    session.set_clock("2026-02-22 00:00+00");
    let items = r#"[{"customer_id": "acme", "amount": 103, "idempotency_key": "a"}, {"customer_id": "acme", "amount": 1},
        {"customer_id": "zoe", "amount": 100}]"#;
    let lines = deduct_batch(&mut session, items);
    assert_eq!(lines[0], "1|acme|a|charged|103|103|0|0|f|");
    assert!(lines[1..].iter().all(|line| line.contains("|failed|")), "{lines:?}");
    assert_eq!(
        ledger(&mut session)[2..],
        [
            "default 3 expiration -20 100 01-10 00:00",
            "default 4 grant 3 103 01-20 00:00",
            "default 5 expiration -3 100 02-20 00:00",
            "default 6 grant 3 103 02-20 00:00",
            "default 7 usage -3 100 02-22 00:00",
            "default 8 usage -100 0 02-22 00:00"
        ]
    );
    assert_eq!(
        session.lines("select kind, amount from credits.ledger where customer_id = 'zoe' order by seq"),
        ["grant|5", "grant|3", "expiration|-3", "grant|3"],
        "settled though its only item failed"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn late_items_are_paid_by_grants_in_their_grace() {
    let mut session = shared_cluster().new_database("late_items_in_their_grace");
    session.set_clock("2026-01-01 00:00+00");
    session.exec("select credits.create_wallet('acme', late_usage_grace => '10 days')");
    grant(&mut session, "old", "20", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "new", "30", "");
    session.exec(METERS);
    session.set_clock("2026-01-15 00:00+00");
    let items = r#"[{"customer_id": "acme", "amount": 5, "idempotency_key": "now"},
        {"customer_id": "acme", "amount": 15, "idempotency_key": "late", "occurred_at": "2026-01-09T12:00:00+00:00"},
        {"customer_id": "acme", "amount": 15, "idempotency_key": "more", "occurred_at": "2026-01-09 12:00+00"}]"#;
    let charged = ["1|acme|now|charged|5|5|0|25|f|", "2|acme|late|charged|15|15|0|25|f|", "3|acme|more|charged|15|15|0|15|f|"];
    assert_eq!(deduct_batch(&mut session, items), charged);
    assert_eq!(entries(&mut session, "now"), ["default usage 5 new"]);
    assert_eq!(entries(&mut session, "late"), ["default expiration_reversed 15 old", "default usage 15 old"]);
    assert_eq!(
        entries(&mut session, "more"),
        ["default expiration_reversed 5 old", "default usage 5 old", "default usage 10 new"]
    );
    session.set_clock("2026-01-20 00:00+00");
    let events = r#"[{"customer_id": "acme", "event_name": "call", "event_id": "event", "occurred_at": "2026-01-09T12:00:00Z"}]"#;
    assert_eq!(record_batch(&mut session, events), ["1|acme|event|charged|1|1|0|14|f|"]);
    assert_eq!(entries(&mut session, "event"), ["default usage 1 new"], "the grace is over");
    assert_ledger_is_sound(&mut session);
}

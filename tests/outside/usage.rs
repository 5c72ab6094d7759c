//! Deducting usage: its modes, and the order of spending (SPEC 4).

use pgrx_tests::assert_ledger_is_sound;

use crate::books::{deduct, entries, everything, grant, ledger, new_books, takes};

#[test]
fn enough_credits_are_charged_in_every_mode() {
    let mut session = new_books("enough_credits_are_charged_in_every_mode");
    grant(&mut session, "bought", "100", "");
    assert_eq!(deduct(&mut session, "10, 'a'"), "charged|10|10|0|90|f");
    assert_eq!(deduct(&mut session, "20, 'b', on_insufficient => 'report'"), "charged|20|20|0|70|f");
    assert_eq!(deduct(&mut session, "30.5, 'c', on_insufficient => 'partial'"), "charged|30.5|30.5|0|39.5|f");
    assert_eq!(deduct(&mut session, "39.5, 'd'"), "charged|39.5|39.5|0|0|f");
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 100 100 01-01 00:00",
            "default 2 usage -10 90 01-01 00:00",
            "default 3 usage -20 70 01-01 00:00",
            "default 4 usage -30.5 39.5 01-01 00:00",
            "default 5 usage -39.5 0 01-01 00:00"
        ]
    );
    assert_eq!(session.lines("select status, remaining from credits.grants"), ["exhausted|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn without_a_key_the_transaction_has_a_uuid_of_version_7() {
    let mut session = new_books("no_key_is_a_uuid7");
    grant(&mut session, "bought", "100", "");
    let plain = session.one("select transaction_id from credits.deduct_usage('acme', 1)");
    let free = session.one("select transaction_id from credits.deduct_usage('acme', 0)");
    for id in [&plain, &free] {
        assert_eq!(session.one(&format!("select substr('{id}'::uuid::text, 15, 1)")), "7");
    }
    assert_ne!(plain, free);
    assert_eq!(entries(&mut session, &plain), ["default usage 1 bought"]);
}

#[test]
fn not_enough_is_an_error_that_changes_nothing() {
    let mut session = new_books("not_enough_is_an_error_that_changes_nothing");
    grant(&mut session, "bought", "25", "");
    let before = everything(&mut session);
    let error = session.error("select * from credits.deduct_usage('acme', 30, 'call-1')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23514", "insufficient_credits"));
    for value in ["acme", "30", "25"] {
        assert!(error.message.contains(value), "{error}");
    }
    assert!(!error.hint.is_empty());
    assert_eq!(everything(&mut session), before);

    // A blocked attempt is not recorded: the same key works once there are credits.
    grant(&mut session, "more", "10", "");
    assert_eq!(deduct(&mut session, "30, 'call-1'"), "charged|30|30|0|5|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn report_charges_nothing_and_settles_all_the_same() {
    let mut session = new_books("report_charges_nothing_and_settles_all_the_same");
    grant(&mut session, "lives", "25", "");
    grant(&mut session, "expires", "100", "expires_at => '2026-01-02 00:00+00'");
    session.set_clock("2026-01-03 00:00+00");
    let row = "select transaction_id is null, status, requested, deducted, overage, balance, replayed
               from credits.deduct_usage('acme', 30, 'call-1', on_insufficient => 'report')";
    assert_eq!(session.lines(row), ["t|insufficient|30|0|0|25|f"]);
    assert_eq!(
        ledger(&mut session),
        ["default 1 grant 25 25 01-01 00:00", "default 2 grant 100 125 01-01 00:00", "default 3 expiration -100 25 01-02 00:00"]
    );
    // The key is free: for another request too.
    assert_eq!(deduct(&mut session, "25, 'call-1'"), "charged|25|25|0|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn partial_takes_what_there_is_and_is_final_for_its_key() {
    let mut session = new_books("partial_takes_what_there_is");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    grant(&mut session, "bought", "25", "");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    assert_eq!(deduct(&mut session, "40, 'call-1', on_insufficient => 'partial'"), "partial|40|30|0|0|f");
    assert_eq!(entries(&mut session, "call-1"), ["promo usage 5 free", "default usage 25 bought"]);
    grant(&mut session, "more", "100", "");
    assert_eq!(deduct(&mut session, "40, 'call-1', on_insufficient => 'partial'"), "partial|40|30|0|100|t");
    assert_eq!(deduct(&mut session, "40, 'call-1'"), "partial|40|30|0|100|t", "the mode is not compared");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn partial_with_nothing_to_take_is_insufficient_and_not_recorded() {
    let mut session = new_books("partial_with_nothing_to_take");
    let before = everything(&mut session);
    let row = "select transaction_id is null, status, requested, deducted, overage, balance, replayed
               from credits.deduct_usage('acme', 30, 'call-1', on_insufficient => 'partial')";
    assert_eq!(session.lines(row), ["t|insufficient|30|0|0|0|f"]);
    assert_eq!(everything(&mut session), before);
    grant(&mut session, "bought", "100", "");
    assert_eq!(deduct(&mut session, "30, 'call-1', on_insufficient => 'partial'"), "charged|30|30|0|70|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_free_event_is_recorded() {
    let mut session = new_books("a_free_event_is_recorded");
    assert_eq!(deduct(&mut session, "0, 'ping-1', event_name => 'ping', metadata => '{\"n\": 1}'"), "charged|0|0|0|0|f");
    assert_eq!(deduct(&mut session, "0, 'ping-1', event_name => 'ping'"), "charged|0|0|0|0|t");
    assert_eq!(
        session.lines("select transaction_id, line, kind, amount, credits, balance_after, grant_id is null, event_name, metadata from credits.ledger"),
        ["ping-1|1|usage|0|0|0|t|ping|{\"n\": 1}"]
    );
    grant(&mut session, "bought", "10", "");
    assert_eq!(deduct(&mut session, "0"), "charged|0|0|0|10|f");
    assert_eq!(session.lines("select count(*) from credits.preview_deduction('acme', 0)"), ["0"]);
    assert_ledger_is_sound(&mut session);
}

/// Spends one credit of each grant; the first one created must be spent last, so that order of creation cannot explain it.
fn assert_order(rule: &str, criterion: &[(&str, &str)]) {
    let mut session = new_books(rule);
    for (name, terms) in criterion.iter().rev() {
        grant(&mut session, name, "1", terms);
    }
    let expected: Vec<String> = criterion.iter().map(|(name, _)| format!("{name} 1")).collect();
    assert_eq!(takes(&mut session, &criterion.len().to_string(), "event_name => 'model.call'"), expected);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_lower_priority_number_is_spent_first_whatever_the_expiry() {
    assert_order(
        "order_priority",
        &[
            ("urgent", "priority => -5"),
            ("first", "priority => 1"),
            ("second", "expires_at => '2026-01-02 00:00+00'"),
            ("last", "priority => 101, expires_at => '2026-01-02 00:00+00'"),
        ],
    );
}

#[test]
fn what_expires_first_is_spent_first_and_never_is_last() {
    assert_order(
        "order_expiry",
        &[
            ("tonight", "expires_at => '2026-01-01 23:59:59.999999+00'"),
            ("tomorrow", "expires_at => '2026-01-02 00:00+00'"),
            ("far", "expires_at => '9999-12-31 00:00+00'"),
            ("promotional, limited and never", "applies_to => array['model.call'], grant_type => 'promotional'"),
            ("never", "expires_at => 'infinity', grant_type => 'promotional'"),
        ],
    );
}

#[test]
fn what_is_limited_to_events_is_spent_before_what_is_not() {
    assert_order(
        "order_limited",
        &[
            ("limited", "applies_to => array['other', 'model.call'], grant_type => 'prepaid'"),
            ("any", "grant_type => 'promotional'"),
        ],
    );
}

#[test]
fn promotional_is_spent_before_committed_before_prepaid() {
    assert_order(
        "order_type",
        &[
            ("promotional", "grant_type => 'promotional'"),
            ("committed", "grant_type => 'committed', effective_at => '2025-01-01 00:00+00'"),
            ("prepaid", "grant_type => 'prepaid', effective_at => '2024-01-01 00:00+00'"),
        ],
    );
}

#[test]
fn what_became_effective_earlier_is_spent_first() {
    assert_order(
        "order_effective",
        &[
            ("long ago", "effective_at => '2024-01-01 00:00+00'"),
            ("last year", "effective_at => '2025-12-31 23:59:59.999999+00'"),
            ("now", ""),
        ],
    );
}

#[test]
fn on_a_full_tie_what_was_created_first_is_spent_first() {
    let mut session = new_books("order_creation");
    for name in ["a", "b", "c"] {
        grant(&mut session, name, "10", "expires_at => '2026-02-01 00:00+00'");
    }
    assert_eq!(takes(&mut session, "5", ""), ["a 5"]);
    assert_eq!(takes(&mut session, "25", ""), ["a 5", "b 10", "c 10"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_order_is_total_whatever_the_order_of_creation() {
    // Every combination of two values of the five criteria; the number is its place.
    let mut terms = Vec::new();
    for (priority, expires_at) in [(1, "2026-02-01"), (1, "infinity"), (2, "2026-02-01"), (2, "infinity")] {
        for applies_to in ["array['model.call']", "null"] {
            for grant_type in ["promotional", "committed", "prepaid"] {
                for effective_at in ["2025-01-01", "2025-06-01"] {
                    terms.push(format!(
                        "priority => {priority}, expires_at => '{expires_at}', applies_to => {applies_to}, \
                         grant_type => '{grant_type}', effective_at => '{effective_at}'"
                    ));
                }
            }
        }
    }
    assert_eq!(terms.len(), 48);
    let expected: Vec<String> = (0..48).map(|place| format!("{place} 1")).collect();
    for (rule, stride) in [("order_total_5", 5), ("order_total_47", 47)] {
        let mut session = new_books(rule);
        for place in (0..48).map(|index| index * stride % 48) {
            grant(&mut session, &place.to_string(), "1", &terms[place]);
        }
        assert_eq!(takes(&mut session, "48", "event_name => 'model.call'"), expected, "{rule}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn wallets_are_spent_by_priority_then_by_code() {
    let mut session = new_books("wallets_are_spent_by_priority_then_by_code");
    session.exec(
        "select credits.create_wallet('acme', 'zulu', priority => 100);
         select credits.create_wallet('acme', 'Alpha', priority => 100);
         select credits.create_wallet('acme', 'promo', priority => -1)",
    );
    grant(&mut session, "expires tonight", "1", "wallet => 'zulu', expires_at => '2026-01-01 20:00+00', priority => -9");
    grant(&mut session, "bought", "1", "");
    grant(&mut session, "alpha", "1", "wallet => 'Alpha'");
    grant(&mut session, "free", "2", "wallet => 'promo'");
    assert_eq!(takes(&mut session, "1", ""), ["free 1"]);
    assert_eq!(
        takes(&mut session, "4", ""),
        ["free 1", "alpha 1", "bought 1", "expires tonight 1"],
        "codes in the order of their bytes"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn only_wallets_of_the_asked_unit_pay() {
    let mut session = new_books("only_wallets_of_the_asked_unit_pay");
    session.exec("select credits.create_wallet('acme', 'minutes', unit => 'gpu-minutes', priority => 1)");
    grant(&mut session, "minutes", "10", "wallet => 'minutes'");
    grant(&mut session, "credits", "10", "");
    assert_eq!(takes(&mut session, "4", ""), ["credits 4"]);
    assert_eq!(takes(&mut session, "4", "unit => 'gpu-minutes'"), ["minutes 4"]);
    assert_eq!(deduct(&mut session, "7, on_insufficient => 'partial'"), "partial|7|6|0|0|f");
    let error = session.error("select * from credits.deduct_usage('acme', 1, unit => 'tokens')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("P0002", "not_found"), "{error}");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_named_wallet_pays_alone_and_the_unit_is_ignored() {
    let mut session = new_books("a_named_wallet_pays_alone");
    session.exec("select credits.create_wallet('acme', 'minutes', unit => 'gpu-minutes', priority => 1)");
    grant(&mut session, "minutes", "10", "wallet => 'minutes'");
    grant(&mut session, "credits", "10", "");
    assert_eq!(takes(&mut session, "4", "wallet => 'minutes', unit => 'nothing'"), ["minutes 4"]);
    assert_eq!(deduct(&mut session, "7, wallet => 'default'"), "charged|7|7|0|3|f", "balance is that of the wallets considered");
    let error = session.error("select * from credits.deduct_usage('acme', 7, wallet => 'minutes')");
    assert_eq!(error.symbol(), "insufficient_credits", "{error}");
    for (customer, wallet) in [("acme", "'none'"), ("nobody", "null"), ("nobody", "'default'")] {
        let error = session.error(&format!("select * from credits.deduct_usage('{customer}', 7, wallet => {wallet})"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("P0002", "not_found"), "{error}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_limited_grant_pays_only_its_events() {
    let mut session = new_books("a_limited_grant_pays_only_its_events");
    grant(&mut session, "limited", "10", "applies_to => array['model.call', 'image.call']");
    grant(&mut session, "any", "10", "");
    assert_eq!(takes(&mut session, "4", "event_name => 'image.call'"), ["limited 4"]);
    assert_eq!(takes(&mut session, "4", "event_name => 'api.call'"), ["any 4"]);
    assert_eq!(takes(&mut session, "4", ""), ["any 4"], "usage without a name is none of its events");
    assert_eq!(deduct(&mut session, "4, event_name => 'api.call', on_insufficient => 'report'"), "insufficient|4|0|0|8|f");
    assert_eq!(deduct(&mut session, "4, event_name => 'api.call', on_insufficient => 'partial'"), "partial|4|2|0|6|f");
    assert_eq!(takes(&mut session, "6", "event_name => 'model.call'"), ["limited 6"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn balance_is_of_all_wallets_considered() {
    let mut session = new_books("balance_is_of_all_wallets_considered");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    session.exec("select credits.create_wallet('acme', 'iced')");
    session.exec("select credits.create_wallet('acme', 'minutes', unit => 'gpu-minutes')");
    for wallet in ["default", "promo", "iced", "minutes"] {
        grant(&mut session, wallet, "10", &format!("wallet => '{wallet}'"));
    }
    grant(&mut session, "later", "100", "effective_at => '2026-02-01 00:00+00'");
    session.exec("select credits.set_wallet_status('acme', 'iced', 'frozen')");
    assert_eq!(deduct(&mut session, "3"), "charged|3|3|0|17|f");
    assert_eq!(deduct(&mut session, "18, on_insufficient => 'report'"), "insufficient|18|0|0|17|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn usage_of_the_future_is_refused_but_for_five_minutes() {
    let mut session = new_books("usage_of_the_future_is_refused");
    grant(&mut session, "bought", "10", "");
    assert_eq!(deduct(&mut session, "1, 'a', occurred_at => '2026-01-01 00:05+00'"), "charged|1|1|0|9|f");
    for amount in [0, 1, 50] {
        let late =
            format!("select * from credits.deduct_usage('acme', {amount}, occurred_at => '2026-01-01 00:05:00.000001+00')");
        let error = session.error(&late);
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22023", "invalid_argument"), "{error}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_callers_time_stands_in_usage_at_and_the_entry_is_dated_now() {
    let mut session = new_books("usage_at_is_the_callers_time");
    grant(&mut session, "bought", "10", "");
    session.set_clock("2026-01-05 00:00+00");
    deduct(&mut session, "1, 'plain', occurred_at => '2025-12-24 18:00+00'");
    deduct(&mut session, "0, 'free', occurred_at => '2026-01-05 00:05+00'");
    deduct(&mut session, "1, 'silent'");
    assert_eq!(
        session.lines(
            "select transaction_id, occurred_at, usage_at, recorded_at = occurred_at from credits.ledger where kind = 'usage' order by seq"
        ),
        [
            "plain|2026-01-05 00:00:00+00|2025-12-24 18:00:00+00|t",
            "free|2026-01-05 00:00:00+00|2026-01-05 00:05:00+00|t",
            "silent|2026-01-05 00:00:00+00||t"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_preview_says_what_would_pay_and_changes_nothing() {
    let mut session = new_books("a_preview_changes_nothing");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    let free = grant(&mut session, "free", "5", "wallet => 'promo', expires_at => '2026-01-10 00:00+00'");
    let bought = grant(&mut session, "bought", "10", "");
    let later = grant(&mut session, "later", "10", "effective_at => '2026-01-10 00:00+00', expires_at => '2026-03-01 00:00+00'");
    let before = everything(&mut session);
    let preview = |amount: &str| format!("select * from credits.preview_deduction('acme', {amount})");
    assert_eq!(session.lines(&preview("7.5")), [format!("promo|{free}|5"), format!("default|{bought}|2.5")]);
    assert_eq!(session.lines(&preview("99")), [format!("promo|{free}|5"), format!("default|{bought}|10")], "what there is");
    session.set_clock("2026-01-10 00:00+00");
    assert_eq!(session.lines(&preview("12")), [format!("default|{later}|10"), format!("default|{bought}|2")], "as if settled");
    assert_eq!(everything(&mut session), before);
    assert_eq!(takes(&mut session, "12", ""), ["later 10", "bought 2"]);
    assert_ledger_is_sound(&mut session);
}

/// 2,000 amounts of 1 to 28 digits, each as an amount is written and with more zeros than a short header has room for, come back
/// as PostgreSQL itself would store them (in a row, whose lengths take one byte, not four).
#[test]
fn amounts_cross_to_the_bit() {
    let mut session = new_books("usage_amounts_cross_to_the_bit");
    let changed = session.lines(
        "select v, d.requested
         from generate_series(1, 1000) i
         cross join lateral (
             select left(translate(md5(i::text) || md5('x' || i), 'abcdef', '907008'), 1 + i % 28)::numeric * 0.000000000001
                 * case when i % 3 = 0 then 0 else 1 end + case when i % 3 = 0 then i * 10::numeric ^ (i % 12) else 0 end as amount
         ) n
         cross join lateral (values (amount), (round(amount, 70))) a (v)
         cross join lateral credits.deduct_usage('acme', v, on_insufficient => 'report') d
         where numeric_send(d.requested) <> numeric_send(trim_scale(v))
            or pg_column_size(d.requested) <> pg_column_size(trim_scale(v)) - 3
            or hash_numeric(d.requested) <> hash_numeric(v)",
    );
    assert_eq!(changed, [] as [&str; 0]);
}

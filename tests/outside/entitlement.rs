//! check_entitlement: what charging would say now, without charging (SPEC 8 and 10).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, everything, grant, new_books};
use crate::inbox::{METERS, receive};
use crate::workload::{Random, seed};

/// Allowed, reason, required, available and whether overage would be taken.
fn check(session: &mut Session, arguments: &str) -> String {
    let rows = session.lines(&format!("select * from credits.check_entitlement({arguments})"));
    assert_eq!(rows.len(), 1, "always one row");
    rows.concat()
}

/// Books in which acme has 20 credits until February and 10 in `promo` for calls only.
fn entitled_books(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec(METERS);
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    grant(&mut session, "bought", "20", "expires_at => '2026-02-01 00:00+00'");
    grant(&mut session, "gift", "10", "wallet => 'promo', applies_to => array['call']");
    session
}

#[test]
fn without_a_request_it_says_whether_any_usage_may_happen() {
    let mut session = entitled_books("any_usage_at_all");
    assert_eq!(check(&mut session, "'acme'"), "t|||20|f");
    assert_eq!(check(&mut session, "'acme', properties => '{}'"), "t|||20|f");
    assert_eq!(
        check(&mut session, "'acme', wallet => 'promo'"),
        "f|insufficient_credits||0|f",
        "what is limited pays no other usage"
    );
    session.exec("select * from credits.deduct_usage('acme', 20)");
    assert_eq!(check(&mut session, "'acme'"), "f|insufficient_credits||0|f");
    session.exec("select credits.grant_credits('acme', 0.000000000001)");
    assert_eq!(check(&mut session, "'acme'"), "t|||0.000000000001|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_amount_is_compared_with_what_may_pay_it() {
    let mut session = entitled_books("an_amount_is_compared");
    for (arguments, answer) in [
        ("'acme', 20", "t||20|20|f"),
        ("'acme', 20.000000000001", "f|insufficient_credits|20.000000000001|20|f"),
        ("'acme', 30, 'call'", "t||30|30|f"),
        ("'acme', 30.5, 'call'", "f|insufficient_credits|30.5|30|f"),
        ("'acme', 21, 'other'", "f|insufficient_credits|21|20|f"),
        ("'acme', 10, 'call', wallet => 'promo'", "t||10|10|f"),
        ("'acme', 11, 'call', wallet => 'promo', unit => 'ignored'", "f|insufficient_credits|11|10|f"),
        ("'acme', 0", "t||0|20|f"),
        ("'acme', 0, wallet => 'promo'", "t||0|0|f"),
        ("'acme', 1, unit => 'tokens'", "f|not_found|1|0|f"),
        ("'acme', 1, wallet => 'none'", "f|not_found|1|0|f"),
        // The amount is the caller's, whatever the event's meters would make of it.
        ("'acme', 5, 'generate', '{\"tokens\": 1000}'", "t||5|20|f"),
    ] {
        assert_eq!(check(&mut session, arguments), answer, "{arguments}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_is_priced_after_what_was_counted() {
    let mut session = entitled_books("priced_after_what_was_counted");
    assert_eq!(check(&mut session, "'acme', event_name => 'call'"), "t||1|30|f", "limited grants pay their events");
    let of_tokens = |tokens: &str| format!("'acme', event_name => 'generate', properties => '{{\"tokens\": {tokens}}}'");
    assert_eq!(check(&mut session, &of_tokens("10")), "t||20|20|f");
    assert_eq!(check(&mut session, &of_tokens("\"11\"")), "f|insufficient_credits|21|20|f");
    session.exec("select * from credits.record_usage('acme', 'generate', '{\"tokens\": 7}')");
    // Three more at 2, then at 1.
    assert_eq!(check(&mut session, &of_tokens("3")), "t||6|6|f");
    assert_eq!(check(&mut session, &of_tokens("3.5")), "f|insufficient_credits|6.5|6|f");
    assert_eq!(check(&mut session, &of_tokens("0")), "t||0|6|f");
    session.exec("select * from credits.record_usage('acme', 'generate', '{\"tokens\": 3}')");
    assert_eq!(check(&mut session, &of_tokens("1")), "f|insufficient_credits|1|0|f");
    session
        .exec("select credits.set_meter_pricing('tokens', '{\"model\": \"per_unit\", \"credits\": 0}', customer_id => 'acme')");
    assert_eq!(check(&mut session, &of_tokens("1")), "t||0|0|f", "by the customer's own list");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_whose_price_falls_is_always_allowed() {
    let mut session = new_books("a_price_that_falls");
    session.exec(
        "select credits.create_meter('mails', 'mail', 'sum', 'n',
             pricing => '{\"model\": \"volume\", \"tiers\": [{\"up_to\": 10, \"credits\": 2}, {\"credits\": 1}]}');
         select credits.grant_credits('acme', 20);
         select * from credits.record_usage('acme', 'mail', '{\"n\": 10}')",
    );
    assert_eq!(check(&mut session, "'acme', event_name => 'mail', properties => '{\"n\": 1}'"), "t||-9|0|f");
    assert_eq!(session.one("select deducted from credits.record_usage('acme', 'mail', '{\"n\": 1}')"), "-9");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn overage_counts_as_far_as_its_limit() {
    let mut session = new_books("overage_counts");
    session.exec(METERS);
    session.exec(
        "select credits.create_wallet('owes', overage_policy => 'overdraft', overage_limit => 5);
         select credits.create_wallet('pays', overage_policy => 'invoice', overage_unit_price => 1, overage_currency => 'EUR');
         select credits.grant_credits('owes', 3)",
    );
    for (arguments, answer) in [
        ("'owes'", "t|||3|t"),
        ("'owes', 3", "t||3|3|t"),
        ("'owes', 8", "t||8|3|t"),
        ("'owes', 8.1", "f|insufficient_credits|8.1|3|f"),
        ("'owes', event_name => 'generate', properties => '{\"tokens\": 4}'", "t||8|3|t"),
        ("'owes', event_name => 'generate', properties => '{\"tokens\": 4.1}'", "f|insufficient_credits|8.2|3|f"),
        ("'pays', 1000000", "t||1000000|0|t"),
        ("'pays'", "t|||0|t"),
    ] {
        assert_eq!(check(&mut session, arguments), answer, "{arguments}");
    }
    session.exec("select * from credits.deduct_usage('owes', 8)");
    assert_eq!(check(&mut session, "'owes'"), "f|insufficient_credits||0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn who_may_not_use_anything_is_told_by_the_symbol_of_the_error() {
    let mut session = entitled_books("told_by_the_symbol");
    session.exec(
        "select credits.create_wallet(customer), credits.grant_credits(customer, 5) from unnest(array['frozen', 'shut']) customer;
         select credits.set_wallet_status('frozen', 'default', 'frozen'), credits.set_wallet_status('shut', 'default', 'closed')",
    );
    for (customer, symbol) in [("frozen", "wrong_state"), ("shut", "wrong_state"), ("nobody", "not_found")] {
        assert_eq!(check(&mut session, &format!("'{customer}'")), format!("f|{symbol}||0|f"));
        assert_eq!(check(&mut session, &format!("'{customer}', 2")), format!("f|{symbol}|2|0|f"));
        assert_eq!(check(&mut session, &format!("'{customer}', 0")), format!("f|{symbol}|0|0|f"));
        assert_eq!(check(&mut session, &format!("'{customer}', event_name => 'call'")), format!("f|{symbol}|1|0|f"));
        let error = session.error(&format!("select * from credits.record_usage('{customer}', 'call')"));
        assert_eq!(error.symbol(), symbol, "as recording says: {error}");
    }
    session.exec("select credits.set_wallet_status('acme', 'promo', 'frozen')");
    assert_eq!(
        check(&mut session, "'acme', 30, 'call'"),
        "f|insufficient_credits|30|20|f",
        "the wallet that is active pays alone"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_can_never_be_charged_is_an_error() {
    let mut session = entitled_books("can_never_be_charged");
    assert_refused(
        &mut session,
        &[
            ("check_entitlement(null)", "22004", "null_argument"),
            ("check_entitlement('')", "22023", "invalid_argument"),
            ("check_entitlement('acme', -1)", "22023", "invalid_argument"),
            ("check_entitlement('acme', 'NaN')", "22023", "invalid_argument"),
            ("check_entitlement('acme', 1e16)", "22003", "out_of_range"),
            ("check_entitlement('acme', 1, '')", "22023", "invalid_argument"),
            ("check_entitlement('acme', 1, unit => null)", "22004", "null_argument"),
            ("check_entitlement('acme', event_name => 'unknown')", "P0002", "not_found"),
            ("check_entitlement('acme', event_name => 'generate')", "22023", "invalid_argument"),
            (
                "check_entitlement('acme', event_name => 'generate', properties => '{\"tokens\": -1}')",
                "22023",
                "invalid_argument",
            ),
            ("check_entitlement('acme', event_name => 'call', properties => '[]')", "22023", "invalid_argument"),
            ("check_entitlement('nobody', event_name => 'unknown')", "P0002", "not_found"),
        ],
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn events_that_still_wait_in_the_inbox_do_not_count() {
    let mut session = entitled_books("the_inbox_does_not_count");
    receive(&mut session, "('acme', 'a', 'generate', '{\"tokens\": 10}'), ('acme', 'b', 'call', '{}')");
    assert_eq!(check(&mut session, "'acme', event_name => 'generate', properties => '{\"tokens\": 10}'"), "t||20|20|f");
    session.exec("select * from credits.process_inbox()");
    assert_eq!(
        check(&mut session, "'acme', event_name => 'generate', properties => '{\"tokens\": 10}'"),
        "f|insufficient_credits|10|0|f"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_due_and_not_settled_counts() {
    let mut session = entitled_books("due_and_not_settled_counts");
    session.exec(
        "select credits.grant_credits('acme', 7, effective_at => '2026-02-10 00:00+00');
         select * from credits.hold_credits('acme', 5, '60 days');
         select credits.create_recurring_grant('acme', 'monthly', 3, '1 month', starts_at => '2026-03-01 00:00+00')",
    );
    let before = everything(&mut session);
    for (at, answer) in [
        ("2026-01-31 23:59:59+00", "t|||15|f"),
        ("2026-02-01 00:00+00", "f|insufficient_credits||0|f"),
        ("2026-02-10 00:00+00", "t|||7|f"),
        // The hold lapses, and its grant has ended.
        ("2026-03-02 00:00+00", "t|||10|f"),
        ("2026-04-01 00:00+00", "t|||10|f"),
    ] {
        session.set_clock(at);
        assert_eq!(check(&mut session, "'acme'"), answer, "{at}");
    }
    // And a period of the meter that nobody has begun.
    assert_eq!(check(&mut session, "'acme', event_name => 'generate', properties => '{\"tokens\": 5}'"), "t||10|10|f");
    assert_eq!(everything(&mut session), before, "checking writes nothing");
    assert_eq!(
        session.lines("select status, deducted, balance from credits.record_usage('acme', 'generate', '{\"tokens\": 5}')"),
        ["charged|10|10"],
        "what is left is the gift for calls"
    );
    assert_ledger_is_sound(&mut session);
}

/// Whatever is there, the answer is what the call that follows does.
#[test]
fn what_is_allowed_is_charged_and_what_is_not_is_refused() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut session = entitled_books("allowed_is_charged");
    session.exec(
        r#"select credits.create_meter('mails', 'mail', 'sum', 'n', pricing => '{"model": "volume", "tiers": [{"up_to": 15, "credits": 2}, {"credits": 1}]}');
           select credits.create_meter('peak', 'disk', 'max', 'n', pricing => '{"model": "package", "size": 4, "credits": 3}');
           select credits.create_meter('users', 'seat', 'unique', 'n', wallet => 'promo');
           select credits.create_wallet('owes', overage_policy => 'overdraft', overage_limit => 25)"#,
    );
    let mut outcomes = [0, 0];
    for step in 0..400 {
        let customer = random.pick(&["acme", "owes"]);
        let hours = step * 6;
        session.rows(&format!("select set_config('credits.test_clock', ('2026-01-01 00:00+00'::timestamptz + interval '{hours} hours')::text, false)"));
        if random.chance(20) {
            let expires = random.pick(&[
                "",
                ", expires_at => credits.clock() + interval '30 hours'",
                ", applies_to => array['mail', 'call']",
            ]);
            session.exec(&format!("select credits.grant_credits('{customer}', {}{expires})", random.between(1, 20)));
        }
        let n = random.below(9);
        let event = random.pick(&["call", "generate", "mail", "disk", "seat"]);
        let properties = format!("'{{\"n\": {n}, \"tokens\": {n}}}'");
        let (asked, call) = if random.chance(50) {
            (format!("'{customer}', {n}, '{event}'"), format!("deduct_usage('{customer}', {n}, event_name => '{event}')"))
        } else if event == "seat" && customer == "owes" {
            continue; // has no wallet promo
        } else {
            (
                format!("'{customer}', null, '{event}', {properties}"),
                format!("record_usage('{customer}', '{event}', {properties})"),
            )
        };
        let answer = check(&mut session, &asked);
        let cells: Vec<&str> = answer.split('|').collect();
        let done = session.try_rows(&format!("select requested from credits.{call}"));
        match &done {
            Ok(rows) => assert_eq!((cells[0], cells[1], Some(cells[2])), ("t", "", rows[0][0].as_deref()), "{call}, SEED={seed}"),
            Err(error) => assert_eq!((cells[0], cells[1]), ("f", error.symbol()), "{call}: {error}, SEED={seed}"),
        }
        outcomes[usize::from(done.is_ok())] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 40), "{outcomes:?}");
    assert_ledger_is_sound(&mut session);
}

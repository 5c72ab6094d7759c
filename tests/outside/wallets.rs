//! Wallets: creating and configuring them, their status, moving and adjusting what is in them (SPEC 3).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, deduct, entries, everything, grant, ledger, new_books, takes};

const SETTINGS: &str = "select customer_id, wallet, name, unit, status, priority, expires_after, overage_policy, overage_limit,
    overage_unit_price, overage_currency, late_usage_grace, metadata from credits.wallets order by 1, 2";

/// Transferred, balances and replayed of one transfer of `acme`.
fn transfer(session: &mut Session, arguments: &str) -> String {
    let columns = "transferred, from_balance, to_balance, replayed";
    session.lines(&format!("select {columns} from credits.transfer_credits('acme', {arguments})")).join("\n")
}

/// Adjusted, balance and replayed of one adjustment of `acme`.
fn adjust(session: &mut Session, arguments: &str) -> String {
    session.lines(&format!("select adjusted, balance, replayed from credits.adjust_credits('acme', {arguments})")).join("\n")
}

#[test]
fn a_wallet_is_created_with_its_defaults_or_as_asked() {
    let mut session = new_books("created_with_defaults_or_as_asked");
    assert_eq!(session.one("select credits.create_wallet('zoe')"), "default");
    let all =
        "select credits.create_wallet('acme', 'gpu', 'GPU time', 'minutes', -7, '1 month', 'invoice', 1000.50, 0.0250, 'EUR',
               '36 hours', '{\"team\": \"research\"}')";
    assert_eq!(session.one(all), "gpu");
    assert_eq!(
        session.lines(SETTINGS),
        [
            "acme|default||credits|active|100||block||||00:00:00|{}",
            "acme|gpu|GPU time|minutes|active|-7|1 mon|invoice|1000.5|0.025|EUR|36:00:00|{\"team\": \"research\"}",
            "zoe|default||credits|active|100||block||||00:00:00|{}"
        ]
    );
    assert_eq!(
        session.lines("select * from credits.balance('acme') order by wallet"),
        ["default|credits|0|0|0|0|0||", "gpu|minutes|0|0|0|0|0||"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallet_that_exists_is_an_error_unless_asked_otherwise() {
    let mut session = new_books("a_wallet_that_exists");
    let before = everything(&mut session);
    let error = session.error("select credits.create_wallet('acme', priority => 5)");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("42710", "already_exists"), "{error}");
    assert!(error.message.contains("default") && error.message.contains("acme") && !error.hint.is_empty(), "{error}");
    let again = "select credits.create_wallet('acme', unit => 'minutes', priority => 5, if_not_exists => true)";
    assert_eq!(session.one(again), "default");
    assert_eq!(everything(&mut session), before, "what exists stays as it is");
    // A closed wallet keeps its code.
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    assert_eq!(session.error("select credits.create_wallet('acme')").symbol(), "already_exists");
    assert_eq!(session.one("select credits.create_wallet('acme', 'Default')"), "Default", "another code");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let mut session = new_books("settings_that_make_no_sense");
    let refusals = [
        ("'', ''", "22023", "invalid_argument"),
        ("null", "22004", "null_argument"),
        ("null, null", "22004", "null_argument"),
        ("'w', unit => null", "22004", "null_argument"),
        ("'w', unit => ''", "22023", "invalid_argument"),
        ("'w', name => ''", "22023", "invalid_argument"),
        ("'w', priority => null", "22004", "null_argument"),
        ("'w', expires_after => '0'", "22023", "invalid_argument"),
        ("'w', expires_after => '-1 day'", "22023", "invalid_argument"),
        ("'w', expires_after => '101 years'", "22003", "out_of_range"),
        ("'w', overage_policy => null", "22004", "null_argument"),
        ("'w', overage_policy => 'Block'", "22023", "invalid_argument"),
        ("'w', overage_policy => 'invoice'", "22023", "invalid_argument"),
        ("'w', overage_policy => 'invoice', overage_unit_price => 1", "22023", "invalid_argument"),
        ("'w', overage_policy => 'invoice', overage_currency => 'USD'", "22023", "invalid_argument"),
        ("'w', overage_limit => -1", "22023", "invalid_argument"),
        ("'w', overage_limit => 1e16", "22003", "out_of_range"),
        ("'w', overage_unit_price => -0.01", "22023", "invalid_argument"),
        ("'w', overage_unit_price => 0.0000000000001", "22023", "invalid_argument"),
        ("'w', overage_currency => 'usd'", "22023", "invalid_argument"),
        ("'w', overage_currency => 'DOLLAR'", "22023", "invalid_argument"),
        ("'w', late_usage_grace => null", "22004", "null_argument"),
        ("'w', late_usage_grace => '-1 second'", "22023", "invalid_argument"),
        ("'w', metadata => null", "22004", "null_argument"),
        ("'w', metadata => '[1]'", "22023", "invalid_argument"),
        ("'w', if_not_exists => null", "22004", "null_argument"),
    ];
    let calls = refusals.map(|(arguments, sqlstate, symbol)| {
        let first = if arguments.starts_with("'w'") || arguments == "null" { "'acme', " } else { "" };
        (format!("create_wallet({first}{arguments})"), sqlstate, symbol)
    });
    let calls: Vec<_> = calls.iter().map(|(call, sqlstate, symbol)| (call.as_str(), *sqlstate, *symbol)).collect();
    assert_refused(&mut session, &calls);
    assert_eq!(session.lines("select wallet from credits.wallets"), ["default"]);
}

#[test]
fn an_update_changes_what_is_given_and_leaves_the_rest() {
    let mut session = new_books("an_update_changes_what_is_given");
    let update = |arguments: &str| format!("select credits.update_wallet('acme', 'default', {arguments})");
    assert_eq!(session.one(&update("name => 'Main', priority => 3")), "default");
    session.exec(&update("overage_policy => 'invoice', overage_unit_price => 0.5, overage_currency => 'USD'"));
    session.exec(&update("overage_limit => 0, expires_after => '30 days', late_usage_grace => '1 hour'"));
    session.exec(&update("metadata => '{\"a\": 1}'"));
    session.exec("select credits.update_wallet('acme', 'default')");
    assert_eq!(session.lines(SETTINGS), ["acme|default|Main|credits|active|3|30 days|invoice|0|0.5|USD|01:00:00|{\"a\": 1}"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn every_setting_can_be_put_back_to_its_default() {
    let mut session = new_books("every_setting_can_be_reset");
    session.exec(
        "select credits.create_wallet('acme', 'set', 'Set', 'minutes', 7, '1 month', 'overdraft', 10, 0.5, 'EUR',
             '1 hour', '{\"a\": 1}')",
    );
    let set = ["Set", "7", "1 mon", "overdraft", "10", "0.5", "EUR", "01:00:00", "{\"a\": 1}"];
    let default = ["", "100", "", "block", "", "", "", "00:00:00", "{}"];
    let names = [
        "name",
        "priority",
        "expires_after",
        "overage_policy",
        "overage_limit",
        "overage_unit_price",
        "overage_currency",
        "late_usage_grace",
        "metadata",
    ];
    let settings = format!("select {} from credits.wallets where wallet = 'set'", names.join(", "));
    assert_eq!(session.lines(&settings), [set.join("|")]);
    for (index, name) in names.iter().enumerate() {
        session.exec("begin");
        session.exec(&format!("select credits.update_wallet('acme', 'set', reset => array['{name}'])"));
        let mut expected = set;
        expected[index] = default[index];
        assert_eq!(session.lines(&settings), [expected.join("|")], "{name}");
        session.exec("rollback");
    }
    let all = names.map(|name| format!("'{name}'")).join(", ");
    session.exec(&format!("select credits.update_wallet('acme', 'set', reset => array[{all}])"));
    assert_eq!(session.lines(&settings), [default.join("|")]);
    assert_eq!(session.one("select unit from credits.wallets where wallet = 'set'"), "minutes");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_update_that_makes_no_sense_is_refused_whole() {
    let mut session = new_books("an_update_that_makes_no_sense");
    session.exec(
        "select credits.update_wallet('acme', 'default', overage_policy => 'invoice', overage_unit_price => 1,
             overage_currency => 'USD')",
    );
    let refusals = [
        ("update_wallet('acme', 'none', priority => 1)", "P0002", "not_found"),
        ("update_wallet('nobody', 'default', priority => 1)", "P0002", "not_found"),
        ("update_wallet('acme', null, priority => 1)", "22004", "null_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => array['unit'])", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => array['Name'])", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => array['priority'])", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => array[null])", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => null)", "22004", "null_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => array['overage_unit_price'])", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, reset => array['overage_currency'])", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, overage_limit => -1)", "22023", "invalid_argument"),
        ("update_wallet('acme', 'default', priority => 1, overage_currency => 'us')", "22023", "invalid_argument"),
    ];
    assert_refused(&mut session, &refusals);
    session.exec(
        "select credits.update_wallet('acme', 'default', reset => array['overage_policy', 'overage_unit_price',
             'overage_currency'])",
    );
    assert_eq!(session.lines(SETTINGS), ["acme|default||credits|active|100||block||||00:00:00|{}"]);
}

#[test]
fn a_frozen_wallet_keeps_its_time_and_takes_credits_but_gives_none() {
    let mut session = new_books("a_frozen_wallet");
    session.exec(
        "select credits.create_wallet('acme', 'other', priority => 200);
         select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')",
    );
    let bought = grant(&mut session, "bought", "10", "");
    grant(&mut session, "short", "5", "expires_at => '2026-01-02 00:00+00', priority => 200");
    grant(&mut session, "later", "3", "effective_at => '2026-01-03 00:00+00'");
    grant(&mut session, "other", "20", "wallet => 'other'");
    deduct(&mut session, "2, 'use', wallet => 'default'");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'frozen')"), "frozen");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'frozen')"), "frozen", "no error");
    let refusals = [
        ("deduct_usage('acme', 1, wallet => 'default')", "55000", "wrong_state"),
        ("deduct_usage('acme', 0, wallet => 'default')", "55000", "wrong_state"),
        ("deduct_usage('acme', 1, wallet => 'default', on_insufficient => 'partial')", "55000", "wrong_state"),
        ("transfer_credits('acme', 1, 'default', 'other')", "55000", "wrong_state"),
        ("deduct_usage('acme', 21)", "23514", "insufficient_credits"),
    ];
    assert_refused(&mut session, &refusals);
    session.set_clock("2026-01-05 00:00+00");
    assert_eq!(takes(&mut session, "1", ""), ["other 1"], "the other wallets pay");
    session.exec("select * from credits.refund_usage('acme', 'use')");
    grant(&mut session, "new", "4", "");
    assert_eq!(transfer(&mut session, "6, 'other', 'default'"), "6|13|23|f");
    assert_eq!(session.one(&format!("select credits.void_grant('acme', '{bought}', null, 7)")), "7");
    session.exec("select credits.update_wallet('acme', 'default', priority => 100)");
    assert_eq!(
        ledger(&mut session).into_iter().filter(|line| line.starts_with("default")).collect::<Vec<_>>()[4..],
        [
            "default 5 expiration -5 8 01-02 00:00",
            "default 6 grant_activated 3 11 01-03 00:00",
            "default 7 usage_refunded 2 13 01-05 00:00",
            "default 8 grant 4 17 01-05 00:00",
            "default 9 transfer_in 6 23 01-05 00:00",
            "default 10 void -7 16 01-05 00:00"
        ]
    );
    session.exec("select credits.set_wallet_status('acme', 'other', 'frozen')");
    let error = session.error("select * from credits.deduct_usage('acme', 1)");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("55000", "wrong_state"), "all are frozen: {error}");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'active')"), "active");
    assert_eq!(deduct(&mut session, "17"), "overage|17|16|1|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_wallet_with_debt_cannot_be_closed() {
    let mut session = new_books("a_wallet_with_debt_cannot_be_closed");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    deduct(&mut session, "10, 'use'");
    let refusals = [("set_wallet_status('acme', 'default', 'closed')", "55000", "wrong_state")];
    assert_refused(&mut session, &refusals);
    grant(&mut session, "pays later", "10", "effective_at => '2026-01-02 00:00+00'");
    assert_refused(&mut session, &refusals);
    // Time repays it: what is due counts, settled or not.
    session.set_clock("2026-01-02 00:00+00");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'closed')"), "closed");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn closing_voids_what_is_active_and_scheduled() {
    let mut session = new_books("closing_voids_everything");
    grant(&mut session, "active", "10", "");
    grant(&mut session, "limited", "4", "applies_to => array['chat'], expires_at => '2026-06-01 00:00+00'");
    grant(&mut session, "exhausted", "1", "priority => 1");
    grant(&mut session, "expired", "2", "expires_at => '2026-01-02 00:00+00'");
    grant(&mut session, "scheduled", "7", "effective_at => '2026-02-01 00:00+00'");
    deduct(&mut session, "1");
    session.set_clock("2026-01-03 00:00+00");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'closed')"), "closed");
    assert_eq!(
        session.lines("select metadata ->> 'name', status, remaining from credits.grants order by 1"),
        ["active|voided|0", "exhausted|exhausted|0", "expired|expired|0", "limited|voided|0", "scheduled|voided|0"]
    );
    assert_eq!(
        session.lines(
            "select kind, credits, occurred_at from credits.ledger
             where kind not in ('grant', 'grant_scheduled', 'usage') order by kind, credits"
        ),
        [
            "expiration|2|2026-01-02 00:00:00+00",
            "void|4|2026-01-03 00:00:00+00",
            "void|10|2026-01-03 00:00:00+00",
            "void_scheduled|7|2026-01-03 00:00:00+00"
        ]
    );
    assert_eq!(session.lines("select * from credits.balance('acme')"), ["default|credits|0|0|0|0|0||"]);
    session.set_clock("2026-03-01 00:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(session.lines("select * from credits.balance('acme')"), ["default|credits|0|0|0|0|0||"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_closed_wallet_stays_closed() {
    let mut session = new_books("a_closed_wallet_stays_closed");
    session.exec("select credits.create_wallet('acme', 'other', priority => 200)");
    let voided = grant(&mut session, "bought", "10", "");
    grant(&mut session, "other", "20", "wallet => 'other'");
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    let (void, change) =
        (format!("void_grant('acme', '{voided}')"), format!("change_expiry('acme', '{voided}', '2027-01-01 00:00+00')"));
    let refusals = [
        "deduct_usage('acme', 1, wallet => 'default')",
        "deduct_usage('acme', 0, wallet => 'default')",
        "grant_credits('acme', 1)",
        "grant_credits('acme', 1, effective_at => '2026-02-01 00:00+00')",
        "adjust_credits('acme', 1, 'mistake')",
        "adjust_credits('acme', -1, 'mistake')",
        "transfer_credits('acme', 1, 'default', 'other')",
        "transfer_credits('acme', 1, 'other', 'default')",
        "set_wallet_status('acme', 'default', 'active')",
        "set_wallet_status('acme', 'default', 'frozen')",
        void.as_str(),
        change.as_str(),
    ];
    assert_refused(&mut session, &refusals.map(|call| (call, "55000", "wrong_state")));
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'closed')"), "closed", "no error");
    assert_eq!(takes(&mut session, "5", ""), ["other 5"], "the other wallets live on");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_status_or_wallet_that_is_not_known_is_refused() {
    let mut session = new_books("a_status_that_is_not_known");
    let refusals = [
        ("set_wallet_status('acme', 'default', 'Active')", "22023", "invalid_argument"),
        ("set_wallet_status('acme', 'default', '')", "22023", "invalid_argument"),
        ("set_wallet_status('acme', 'default', null)", "22004", "null_argument"),
        ("set_wallet_status('acme', null, 'frozen')", "22004", "null_argument"),
        ("set_wallet_status('acme', 'none', 'frozen')", "P0002", "not_found"),
        ("set_wallet_status('nobody', 'default', 'frozen')", "P0002", "not_found"),
    ];
    assert_refused(&mut session, &refusals);
}

#[test]
fn a_transfer_moves_blocks_in_the_order_of_spending_and_keeps_their_terms() {
    let mut session = new_books("a_transfer_keeps_terms");
    session.exec("select credits.create_wallet('acme', 'team', expires_after => '1 day')");
    grant(&mut session, "never", "10", "unit_price => 0.02, currency => 'USD', effective_at => '2025-06-01 00:00+00'");
    grant(
        &mut session,
        "later",
        "10",
        "grant_type => 'committed', expires_at => '2026-06-01 00:00+00', applies_to => array['chat']",
    );
    grant(&mut session, "first", "10", "grant_type => 'promotional', expires_at => '2026-12-01 00:00+00', priority => 5");
    grant(&mut session, "not yet", "10", "effective_at => '2026-02-01 00:00+00', priority => 1");
    assert_eq!(transfer(&mut session, "22.5, 'default', 'team', 'move', '{\"case\": 7}'"), "22.5|7.5|22.5|f");
    assert_eq!(
        entries(&mut session, "move"),
        [
            "default transfer_out 10 first",
            "team transfer_in 10 first",
            "default transfer_out 10 later",
            "team transfer_in 10 later",
            "default transfer_out 2.5 never",
            "team transfer_in 2.5 never"
        ]
    );
    let terms = "select metadata ->> 'name', wallet, status, amount, remaining, grant_type, priority, effective_at, expires_at,
                 unit_price, currency, applies_to from credits.grants order by 1, 2";
    assert_eq!(
        session.lines(terms),
        [
            "first|default|exhausted|10|0|promotional|5|2026-01-01 00:00:00+00|2026-12-01 00:00:00+00|||",
            "first|team|active|10|10|promotional|5|2026-01-01 00:00:00+00|2026-12-01 00:00:00+00|||",
            "later|default|exhausted|10|0|committed|100|2026-01-01 00:00:00+00|2026-06-01 00:00:00+00|||{chat}",
            "later|team|active|10|10|committed|100|2026-01-01 00:00:00+00|2026-06-01 00:00:00+00|||{chat}",
            "never|default|active|10|7.5|prepaid|100|2025-06-01 00:00:00+00||0.02|USD|",
            "never|team|active|2.5|2.5|prepaid|100|2025-06-01 00:00:00+00||0.02|USD|",
            "not yet|default|scheduled|10|10|prepaid|1|2026-02-01 00:00:00+00||||"
        ]
    );
    assert_eq!(session.lines("select distinct metadata from credits.ledger where transaction_id = 'move'"), ["{\"case\": 7}"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_transfer_that_cannot_be_is_refused_whole() {
    let mut session = new_books("a_transfer_that_cannot_be");
    session.exec(
        "select credits.create_wallet('acme', 'team', overage_policy => 'overdraft'), credits.create_wallet('acme', 'iced'),
             credits.create_wallet('acme', 'minutes', unit => 'minutes'), credits.create_wallet('acme', 'full')",
    );
    grant(&mut session, "bought", "10", "");
    grant(&mut session, "later", "10", "effective_at => '2026-02-01 00:00+00'");
    grant(&mut session, "iced", "10", "wallet => 'iced'");
    grant(&mut session, "full", "9999999999999999", "wallet => 'full'");
    session.exec("select credits.set_wallet_status('acme', 'iced', 'frozen')");
    let refusals = [
        ("transfer_credits('acme', 10.000000000001, 'default', 'team')", "23514", "insufficient_credits"),
        ("transfer_credits('acme', 1, 'team', 'default')", "23514", "insufficient_credits"),
        ("transfer_credits('acme', 1, 'iced', 'default')", "55000", "wrong_state"),
        ("transfer_credits('acme', 1, 'default', 'default')", "22023", "invalid_argument"),
        ("transfer_credits('acme', 1, 'default', 'minutes')", "22023", "invalid_argument"),
        ("transfer_credits('acme', 1, 'default', 'full')", "22003", "out_of_range"),
        ("transfer_credits('acme', 1, 'default', 'none')", "P0002", "not_found"),
        ("transfer_credits('acme', 1, 'none', 'default')", "P0002", "not_found"),
        ("transfer_credits('nobody', 1, 'default', 'team')", "P0002", "not_found"),
        ("transfer_credits('acme', 0, 'default', 'team')", "22023", "invalid_argument"),
        ("transfer_credits('acme', -1, 'default', 'team')", "22023", "invalid_argument"),
        ("transfer_credits('acme', 1, null, 'team')", "22004", "null_argument"),
        ("transfer_credits('acme', 1, 'default', 'team', metadata => '1')", "22023", "invalid_argument"),
    ];
    assert_refused(&mut session, &refusals);
    assert_eq!(transfer(&mut session, "1, 'default', 'iced'"), "1|9|11|f", "into a frozen wallet");
    assert_eq!(transfer(&mut session, "9, 'default', 'team'"), "9|0|9|f", "all there is");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_transfer_repays_the_debt_of_the_wallet_it_goes_to() {
    let mut session = new_books("a_transfer_repays_debt");
    session.exec("select credits.create_wallet('acme', 'team', overage_policy => 'overdraft')");
    deduct(&mut session, "8, wallet => 'team'");
    grant(&mut session, "limited", "5", "applies_to => array['chat']");
    grant(&mut session, "any", "10", "");
    assert_eq!(transfer(&mut session, "7, 'default', 'team', 'part'"), "7|8|5|f");
    assert_eq!(
        entries(&mut session, "part"),
        [
            "default transfer_out 5 limited",
            "team transfer_in 5 limited",
            "default transfer_out 2 any",
            "team transfer_in 2 any",
            "team overdraft_repaid 2 any"
        ]
    );
    assert_eq!(transfer(&mut session, "8, 'default', 'team', 'rest'"), "8|0|7|f");
    assert_eq!(
        entries(&mut session, "rest"),
        ["default transfer_out 8 any", "team transfer_in 8 any", "team overdraft_repaid 6 any"]
    );
    assert_eq!(session.one("select debt from credits.balance('acme', 'team')"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_positive_adjustment_is_a_promotional_grant() {
    let mut session = new_books("a_positive_adjustment");
    session.exec("select credits.update_wallet('acme', 'default', expires_after => '30 days', overage_policy => 'overdraft')");
    deduct(&mut session, "2");
    assert_eq!(adjust(&mut session, "12.50, 'goodwill', idempotency_key => 'adjust'"), "12.5|10.5|f");
    assert_eq!(
        session.lines(
            "select kind, credits, metadata ->> 'reason' from credits.ledger where transaction_id = 'adjust' order by seq"
        ),
        ["grant|12.5|goodwill", "overdraft_repaid|2|goodwill"]
    );
    assert_eq!(
        session.lines(
            "select grant_type, status, amount, remaining, effective_at, expires_at, unit_price, applies_to from credits.grants"
        ),
        ["promotional|active|12.5|10.5|2026-01-01 00:00:00+00|2026-01-31 00:00:00+00||"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_negative_adjustment_takes_credits_first_expiring_first() {
    let mut session = new_books("a_negative_adjustment");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    grant(&mut session, "never", "10", "");
    grant(&mut session, "limited", "5", "applies_to => array['chat']");
    grant(&mut session, "soon", "10", "expires_at => '2026-02-01 00:00+00'");
    assert_eq!(adjust(&mut session, "-16.5, 'abuse', idempotency_key => 'adjust'"), "-16.5|8.5|f");
    assert_eq!(
        entries(&mut session, "adjust"),
        ["default adjustment 10 soon", "default adjustment 5 limited", "default adjustment 1.5 never"]
    );
    let refusals = [
        ("adjust_credits('acme', -8.500000000001, 'too much')", "23514", "insufficient_credits"),
        ("adjust_credits('acme', 0, 'nothing')", "22023", "invalid_argument"),
        ("adjust_credits('acme', 'NaN', 'nothing')", "22023", "invalid_argument"),
        ("adjust_credits('acme', -1e16, 'too much')", "22003", "out_of_range"),
        ("adjust_credits('acme', null, 'nothing')", "22004", "null_argument"),
        ("adjust_credits('acme', 1, null)", "22004", "null_argument"),
        ("adjust_credits('acme', 1, 'where', 'none')", "P0002", "not_found"),
        ("adjust_credits('nobody', 1, 'who')", "P0002", "not_found"),
    ];
    assert_refused(&mut session, &refusals);
    assert_eq!(adjust(&mut session, "-8.5, 'the rest'"), "-8.5|0|f");
    assert_ledger_is_sound(&mut session);
}

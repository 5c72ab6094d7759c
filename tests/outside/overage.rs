//! Usage beyond the grants: who takes it, up to which limit, at which price, and how debt is repaid (SPEC 6 and 9).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, entries, everything, grant, ledger, new_books, takes};

const OPEN: &str = "select wallet, balance, debt, overage from credits.balance('acme') order by wallet";

/// `acme` with the wallet `default` of this overage policy.
fn books_with(rule: &str, policy: &str) -> Session {
    let mut session = new_books(rule);
    update(&mut session, &format!("overage_policy => {policy}"));
    session
}

fn update(session: &mut Session, settings: &str) {
    session.exec(&format!("select credits.update_wallet('acme', 'default', {settings})"));
}

fn assert_insufficient(session: &mut Session, arguments: &str) {
    let before = everything(session);
    let error = session.error(&format!("select * from credits.deduct_usage('acme', {arguments})"));
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23514", "insufficient_credits"), "{error}");
    assert_eq!(everything(session), before);
}

#[test]
fn a_wallet_blocks_by_default() {
    let mut session = new_books("a_wallet_blocks_by_default");
    update(&mut session, "overage_limit => 100, overage_unit_price => 1, overage_currency => 'USD'");
    grant(&mut session, "bought", "10", "");
    assert_insufficient(&mut session, "10.000000000001");
    assert_eq!(deduct(&mut session, "10"), "charged|10|10|0|0|f");
    assert_insufficient(&mut session, "1");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn invoiced_usage_goes_on_in_every_mode() {
    let mut session = books_with("invoiced_usage_goes_on", "'invoice', overage_unit_price => 0.02, overage_currency => 'USD'");
    grant(&mut session, "bought", "10", "");
    assert_eq!(deduct(&mut session, "15, 'a', event_name => 'chat'"), "overage|15|10|5|0|f");
    assert_eq!(deduct(&mut session, "1, 'b', on_insufficient => 'report'"), "overage|1|0|1|0|f");
    assert_eq!(deduct(&mut session, "2, 'c', on_insufficient => 'partial'"), "overage|2|0|2|0|f");
    assert_eq!(deduct(&mut session, "15, 'a', event_name => 'chat'"), "overage|15|10|5|0|t");
    assert_eq!(deduct(&mut session, "0, 'free'"), "charged|0|0|0|0|f");
    assert_eq!(
        session.lines(
            "select transaction_id, line, kind, amount, credits, unit_price, currency, event_name, grant_id is null
             from credits.ledger where transaction_id in ('a', 'b', 'c') order by seq"
        ),
        [
            "a|1|usage|-10|10|||chat|f",
            "a|2|overage|0|5|0.02|USD|chat|t",
            "b|1|overage|0|1|0.02|USD||t",
            "c|1|overage|0|2|0.02|USD||t"
        ]
    );
    assert_eq!(session.lines(OPEN), ["default|0|0|8"]);
    // New credits are not spent on overage: it goes on the invoice.
    grant(&mut session, "more", "4", "");
    assert_eq!(session.lines(OPEN), ["default|4|0|8"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_overage_entry_keeps_the_price_in_force_when_it_was_charged() {
    let mut session = books_with("overage_keeps_its_price", "'invoice', overage_unit_price => 0.0200, overage_currency => 'USD'");
    deduct(&mut session, "5, 'cheap'");
    update(&mut session, "overage_unit_price => 0.03, overage_currency => 'EUR'");
    deduct(&mut session, "7, 'dear'");
    update(&mut session, "reset => array['overage_policy', 'overage_unit_price', 'overage_currency']");
    session.exec("select * from credits.refund_usage('acme', 'cheap', 2, idempotency_key => 'refund')");
    assert_eq!(
        session.lines("select transaction_id, kind, credits, unit_price, currency from credits.ledger order by seq"),
        ["cheap|overage|5|0.02|USD", "dear|overage|7|0.03|EUR", "refund|overage_refunded|2|0.02|USD"]
    );
    assert_eq!(session.lines(OPEN), ["default|0|0|10"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_limit_counts_against_open_overage_and_a_refund_gives_room_back() {
    let mut session =
        books_with("the_limit_of_overage", "'invoice', overage_limit => 10, overage_unit_price => 1, overage_currency => 'USD'");
    grant(&mut session, "bought", "5", "");
    assert_insufficient(&mut session, "15.000000000001");
    assert_eq!(deduct(&mut session, "9, 'a'"), "overage|9|5|4|0|f");
    assert_eq!(deduct(&mut session, "6.000000000001, on_insufficient => 'report'"), "insufficient|6.000000000001|0|0|0|f");
    assert_eq!(deduct(&mut session, "6, 'b'"), "overage|6|0|6|0|f");
    assert_insufficient(&mut session, "0.000000000001");
    session.exec("select * from credits.refund_usage('acme', 'a', 3)");
    assert_insufficient(&mut session, "3.000000000001");
    assert_eq!(deduct(&mut session, "3"), "overage|3|0|3|0|f");
    update(&mut session, "overage_limit => 2");
    assert_insufficient(&mut session, "1");
    session.exec("select * from credits.refund_usage('acme', 'b', 6)");
    assert_insufficient(&mut session, "1");
    update(&mut session, "reset => array['overage_limit']");
    assert_eq!(deduct(&mut session, "9e15"), "overage|9000000000000000|0|9000000000000000|0|f");
    assert_eq!(session.lines(OPEN), ["default|0|0|9000000000000004"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_limit_of_zero_allows_no_overage() {
    for policy in ["'invoice', overage_unit_price => 1, overage_currency => 'USD'", "'overdraft'"] {
        let name = format!("a_limit_of_zero_{}", &policy[1..5]);
        let mut session = books_with(&name, &format!("{policy}, overage_limit => 0"));
        grant(&mut session, "bought", "5", "");
        assert_insufficient(&mut session, "5.000000000001");
        assert_eq!(deduct(&mut session, "6, on_insufficient => 'partial'"), "partial|6|5|0|0|f");
        assert_eq!(deduct(&mut session, "6, on_insufficient => 'partial'"), "insufficient|6|0|0|0|f");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn overdraft_is_debt_up_to_the_limit_and_repaying_gives_room_back() {
    let mut session = books_with("overdraft_up_to_the_limit", "'overdraft', overage_limit => 10");
    grant(&mut session, "bought", "5", "");
    assert_eq!(deduct(&mut session, "12, 'a'"), "overage|12|5|7|0|f");
    assert_eq!(entries(&mut session, "a"), ["default usage 5 bought", "default overdraft 7"]);
    assert_insufficient(&mut session, "3.000000000001");
    assert_eq!(deduct(&mut session, "3"), "overage|3|0|3|0|f");
    assert_eq!(session.lines(OPEN), ["default|0|10|0"]);
    grant(&mut session, "repays", "4", "idempotency_key => 'g'");
    assert_eq!(entries(&mut session, "g"), ["default grant 4 repays", "default overdraft_repaid 4 repays"]);
    assert_insufficient(&mut session, "4.000000000001");
    assert_eq!(deduct(&mut session, "4"), "overage|4|0|4|0|f");
    grant(&mut session, "more than enough", "25", "");
    assert_eq!(session.lines(OPEN), ["default|15|0|0"]);
    assert_eq!(
        session.lines("select account, debit, credit from credits.trial_balance where account in ('debt', 'wallet') order by 1"),
        ["debt|14|14", "wallet|19|34"]
    );
    assert_eq!(session.one("select sum(balance) from credits.trial_balance"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn debt_is_repaid_whatever_the_policy_is_by_then() {
    let mut session = books_with("debt_whatever_the_policy", "'overdraft'");
    deduct(&mut session, "8");
    update(&mut session, "overage_policy => 'block'");
    grant(&mut session, "repays", "5", "");
    assert_eq!(session.lines(OPEN), ["default|0|3|0"]);
    // The limit of one policy does not count what the other has left open.
    update(&mut session, "overage_policy => 'invoice', overage_limit => 3, overage_unit_price => 1, overage_currency => 'USD'");
    assert_eq!(deduct(&mut session, "3"), "overage|3|0|3|0|f");
    assert_insufficient(&mut session, "1");
    assert_eq!(session.lines(OPEN), ["default|0|3|3"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn grants_that_become_effective_repay_debt_at_their_instant_in_the_order_of_spending() {
    let mut session = books_with("activations_repay_debt", "'overdraft'");
    deduct(&mut session, "12");
    let on_the_3rd = "effective_at => '2026-01-03 00:00+00'";
    grant(&mut session, "last", "10", &format!("{on_the_3rd}, expires_at => '2026-12-01 00:00+00', priority => 200"));
    grant(&mut session, "second", "5", on_the_3rd);
    grant(&mut session, "first", "4", &format!("{on_the_3rd}, expires_at => '2026-02-01 00:00+00'"));
    grant(&mut session, "limited", "3", &format!("{on_the_3rd}, priority => 1, applies_to => array['chat']"));
    grant(&mut session, "earlier", "1", "effective_at => '2026-01-02 00:00+00'");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    session.set_clock("2026-01-10 00:00+00");
    assert_eq!(session.lines(OPEN), ["default|11|0|0"], "before it is settled");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(session.lines(OPEN), ["default|11|0|0"]);
    assert_eq!(
        session.lines(
            "select concat_ws(' ', kind, credits, metadata ->> 'name', to_char(occurred_at, 'MM-DD'))
             from (select l.seq, kind, credits, occurred_at, g.metadata from credits.ledger l
                   left join credits.grants g using (customer_id, grant_id)) l
             where kind in ('grant_activated', 'overdraft_repaid') order by seq"
        ),
        [
            "grant_activated 1 earlier 01-02",
            "overdraft_repaid 1 earlier 01-02",
            "grant_activated 10 last 01-03",
            "grant_activated 5 second 01-03",
            "grant_activated 4 first 01-03",
            "grant_activated 3 limited 01-03",
            "overdraft_repaid 4 first 01-03",
            "overdraft_repaid 5 second 01-03",
            "overdraft_repaid 2 last 01-03"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn limited_credits_do_not_repay_debt_and_are_spent_beside_it() {
    let mut session = books_with("limited_credits_do_not_repay", "'overdraft'");
    deduct(&mut session, "8");
    grant(&mut session, "limited", "5", "applies_to => array['chat']");
    assert_eq!(session.lines(OPEN), ["default|5|8|0"]);
    assert_eq!(deduct(&mut session, "2, 'chat', event_name => 'chat'"), "charged|2|2|0|3|f");
    assert_eq!(deduct(&mut session, "2, 'image', event_name => 'image'"), "overage|2|0|2|3|f");
    assert_eq!(deduct(&mut session, "4, 'both', event_name => 'chat'"), "overage|4|3|1|0|f");
    assert_eq!(entries(&mut session, "both"), ["default usage 3 limited", "default overdraft 1"]);
    grant(&mut session, "any", "20", "");
    assert_eq!(session.lines(OPEN), ["default|9|0|0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn debt_of_one_wallet_is_not_repaid_by_another() {
    let mut session = books_with("debt_of_one_wallet", "'overdraft'");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    deduct(&mut session, "8");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    assert_eq!(session.lines(OPEN), ["default|0|8|0", "promo|5|0|0"]);
    assert_eq!(takes(&mut session, "2", ""), ["free 2"]);
    grant(&mut session, "bought", "9", "");
    assert_eq!(session.lines(OPEN), ["default|1|0|0", "promo|3|0|0"]);
    assert_ledger_is_sound(&mut session);
}

/// Wallets in spending order: `a` is invoiced, `b` may have a debt of 5, `c` blocks, `d` is frozen, `e` counts minutes.
fn five_wallets(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec(
        "select credits.set_wallet_status('acme', 'default', 'closed');
         select credits.create_wallet('acme', 'a', priority => 1, overage_policy => 'invoice', overage_limit => 20,
             overage_unit_price => 1, overage_currency => 'USD');
         select credits.create_wallet('acme', 'b', priority => 2, overage_policy => 'overdraft', overage_limit => 5);
         select credits.create_wallet('acme', 'c', priority => 3);
         select credits.create_wallet('acme', 'd', priority => 4, overage_policy => 'overdraft');
         select credits.create_wallet('acme', 'e', priority => 5, overage_policy => 'overdraft', unit => 'minutes');
         select credits.set_wallet_status('acme', 'd', 'frozen')",
    );
    for wallet in ["c", "d", "e", "a"] {
        grant(&mut session, wallet, "10", &format!("wallet => '{wallet}'"));
    }
    session
}

#[test]
fn one_wallet_takes_the_whole_overage_the_last_whose_room_allows_it() {
    let mut session = five_wallets("one_wallet_takes_the_whole_overage");
    assert_eq!(deduct(&mut session, "22, 'first'"), "overage|22|20|2|0|f");
    assert_eq!(entries(&mut session, "first"), ["a usage 10 a", "c usage 10 c", "b overdraft 2"]);
    assert_eq!(deduct(&mut session, "4, 'too much for b'"), "overage|4|0|4|0|f");
    assert_eq!(entries(&mut session, "too much for b"), ["a overage 4"]);
    assert_eq!(deduct(&mut session, "3, 'fits b'"), "overage|3|0|3|0|f");
    assert_eq!(entries(&mut session, "fits b"), ["b overdraft 3"]);
    assert_insufficient(&mut session, "16.000000000001");
    assert_eq!(deduct(&mut session, "16, 'fills a'"), "overage|16|0|16|0|f");
    assert_eq!(entries(&mut session, "fills a"), ["a overage 16"]);
    assert_insufficient(&mut session, "1");
    assert_eq!(session.lines(OPEN), ["a|0|0|20", "b|0|5|0", "c|0|0|0", "d|10|0|0", "default|0|0|0", "e|10|0|0"]);
    // A wallet that is named takes it alone, whatever its unit, or nobody does.
    assert_insufficient(&mut session, "1, wallet => 'c'");
    assert_eq!(deduct(&mut session, "11, wallet => 'e'"), "overage|11|10|1|0|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn no_wallet_takes_a_part_of_the_overage() {
    let mut session = five_wallets("no_wallet_takes_a_part");
    // 20 of grants, and 25 of room in two wallets: 21 more fits in none.
    assert_insufficient(&mut session, "41");
    assert_eq!(deduct(&mut session, "41, on_insufficient => 'report'"), "insufficient|41|0|0|20|f");
    assert_eq!(deduct(&mut session, "40, 'fits a'"), "overage|40|20|20|0|f");
    assert_eq!(entries(&mut session, "fits a"), ["a usage 10 a", "c usage 10 c", "a overage 20"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn partial_takes_what_fits_in_the_last_wallet_that_allows_any() {
    let mut session = five_wallets("partial_takes_what_fits");
    let partial = |amount: &str, key: &str| format!("{amount}, '{key}', on_insufficient => 'partial'");
    assert_eq!(deduct(&mut session, &partial("41", "fills b")), "partial|41|20|5|0|f");
    assert_eq!(entries(&mut session, "fills b"), ["a usage 10 a", "c usage 10 c", "b overdraft 5"]);
    assert_eq!(deduct(&mut session, &partial("12", "fits a")), "overage|12|0|12|0|f");
    assert_eq!(deduct(&mut session, &partial("9", "fills a")), "partial|9|0|8|0|f");
    assert_eq!(entries(&mut session, "fills a"), ["a overage 8"]);
    assert_eq!(deduct(&mut session, &partial("9", "nothing")), "insufficient|9|0|0|0|f");
    assert_eq!(deduct(&mut session, &partial("41", "fills b")), "partial|41|20|5|0|t");
    // What was taken can be refunded, and no more.
    assert_eq!(session.lines("select refunded, balance from credits.refund_usage('acme', 'fills b', 25)"), ["25|20"]);
    assert_eq!(session.error("select * from credits.refund_usage('acme', 'fills b', 1)").symbol(), "out_of_range");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn debt_and_overage_stay_below_ten_to_the_sixteenth() {
    for policy in ["'invoice', overage_unit_price => 1, overage_currency => 'USD'", "'overdraft'"] {
        let mut session = books_with(&format!("debt_and_overage_stay_below_{}", &policy[1..5]), policy);
        deduct(&mut session, "9999999999999999.999999999999");
        let before = everything(&mut session);
        for mode in ["error", "report", "partial"] {
            let call = format!("select * from credits.deduct_usage('acme', 0.000000000001, on_insufficient => '{mode}')");
            let error = session.error(&call);
            assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{mode}: {error}");
        }
        assert_eq!(everything(&mut session), before);
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_preview_names_grants_and_no_overage() {
    let mut session = books_with("a_preview_names_no_overage", "'overdraft'");
    grant(&mut session, "bought", "5", "");
    assert_eq!(session.lines("select wallet, credits from credits.preview_deduction('acme', 8)"), ["default|5"]);
    assert_eq!(ledger(&mut session), ["default 1 grant 5 5 01-01 00:00"]);
    assert_eq!(deduct(&mut session, "8"), "overage|8|5|3|0|f");
    assert_ledger_is_sound(&mut session);
}

//! A key is executed once, for ever, across all operations of a customer (SPEC 4).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, everything, grant, hold, new_books};

/// One call of every operation that takes a key, with its answer the first time (without ids), and variants of it: the same request
/// in other words, and other requests.
struct Keyed {
    name: &'static str,
    /// `{key}` is the key, `{grant}` the id of a grant of 40 credits.
    first: &'static str,
    same: &'static [&'static str],
    other: &'static [&'static str],
}

const OPERATIONS: &[Keyed] = &[
    Keyed {
        name: "deduct_usage",
        first: "select * from credits.deduct_usage('acme', 1, '{key}')",
        same: &[
            "select * from credits.deduct_usage('acme', 1.0, '{key}', unit => 'credits')",
            "select * from credits.deduct_usage('acme', 1.000000000000, '{key}', occurred_at => '2025-12-01', on_insufficient => 'partial')",
            "select * from credits.deduct_usage('acme', 1, '{key}', on_insufficient => 'report', metadata => '{\"try\": 2}')",
        ],
        other: &[
            "select * from credits.deduct_usage('acme', 1.000000000001, '{key}')",
            "select * from credits.deduct_usage('acme', 0, '{key}')",
            "select * from credits.deduct_usage('acme', 1, '{key}', wallet => 'default')",
            "select * from credits.deduct_usage('acme', 1, '{key}', unit => 'tokens')",
            "select * from credits.deduct_usage('acme', 1, '{key}', event_name => 'model.call')",
        ],
    },
    Keyed {
        name: "grant_credits",
        first: "select credits.grant_credits('acme', 10, idempotency_key => '{key}')",
        same: &["select credits.grant_credits('acme', 10.00, idempotency_key => '{key}', metadata => '{\"try\": 2}')"],
        other: &[
            "select credits.grant_credits('acme', 11, idempotency_key => '{key}')",
            "select credits.grant_credits('acme', 10, wallet => 'promo', idempotency_key => '{key}')",
        ],
    },
    Keyed {
        name: "void_grant",
        first: "select credits.void_grant('acme', '{grant}', 'mistake', 2, '{key}')",
        same: &["select credits.void_grant('acme', '{grant}', 'typing error', 2.0, '{key}')"],
        other: &[
            "select credits.void_grant('acme', '{grant}', 'mistake', 3, '{key}')",
            "select credits.void_grant('acme', '{grant}', 'mistake', null, '{key}')",
            "select credits.void_grant('acme', '00000000-0000-7000-8000-000000000000', 'mistake', 2, '{key}')",
        ],
    },
    Keyed {
        name: "change_expiry",
        first: "select credits.change_expiry('acme', '{grant}', '2027-01-01 00:00+00', 'asked for', '{key}')",
        same: &["select credits.change_expiry('acme', '{grant}', '2027-01-01 00:00+00', 'again', '{key}')"],
        other: &[
            "select credits.change_expiry('acme', '00000000-0000-7000-8000-000000000000', '2027-01-01 00:00+00', null, '{key}')",
        ],
    },
    Keyed {
        name: "transfer_credits",
        first: "select * from credits.transfer_credits('acme', 3, 'default', 'promo', '{key}')",
        same: &["select * from credits.transfer_credits('acme', 3.0, 'default', 'promo', '{key}', '{\"try\": 2}')"],
        other: &[
            "select * from credits.transfer_credits('acme', 4, 'default', 'promo', '{key}')",
            "select * from credits.transfer_credits('acme', 3, 'promo', 'default', '{key}')",
            "select * from credits.transfer_credits('acme', 3, 'default', 'spare', '{key}')",
        ],
    },
    Keyed {
        name: "adjust_credits",
        first: "select * from credits.adjust_credits('acme', -2, 'correction', idempotency_key => '{key}')",
        same: &["select * from credits.adjust_credits('acme', -2.0, 'another word', 'default', '{key}')"],
        other: &[
            "select * from credits.adjust_credits('acme', 2, 'correction', idempotency_key => '{key}')",
            "select * from credits.adjust_credits('acme', -3, 'correction', idempotency_key => '{key}')",
            "select * from credits.adjust_credits('acme', -2, 'correction', 'promo', '{key}')",
        ],
    },
    Keyed {
        name: "refund_usage",
        first: "select * from credits.refund_usage('acme', 'used', 1, 'sorry', '{key}')",
        same: &["select * from credits.refund_usage('acme', 'used', 1.0, 'so sorry', '{key}')"],
        other: &[
            "select * from credits.refund_usage('acme', 'used', 2, 'sorry', '{key}')",
            "select * from credits.refund_usage('acme', 'used', null, 'sorry', '{key}')",
            "select * from credits.refund_usage('acme', 'used too', 1, 'sorry', '{key}')",
        ],
    },
    Keyed {
        name: "hold_credits",
        first: "select * from credits.hold_credits('acme', 3, '1 hour', idempotency_key => '{key}')",
        same: &[
            "select * from credits.hold_credits('acme', 3.00, '2 hours', unit => 'credits', idempotency_key => '{key}')",
            "select * from credits.hold_credits('acme', 3, idempotency_key => '{key}', metadata => '{\"try\": 2}')",
        ],
        other: &[
            "select * from credits.hold_credits('acme', 4, '1 hour', idempotency_key => '{key}')",
            "select * from credits.hold_credits('acme', 3, '1 hour', 'default', idempotency_key => '{key}')",
            "select * from credits.hold_credits('acme', 3, '1 hour', unit => 'minutes', idempotency_key => '{key}')",
            "select * from credits.hold_credits('acme', 3, '1 hour', event_name => 'call', idempotency_key => '{key}')",
        ],
    },
    Keyed {
        name: "capture_hold",
        first: "select * from credits.capture_hold('acme', 'open', 2, 'error', '{key}')",
        same: &[
            "select * from credits.capture_hold('acme', 'open', 2.0, 'report', '{key}')",
            "select * from credits.capture_hold('acme', 'open', 2, 'partial', '{key}', '{\"try\": 2}')",
        ],
        other: &[
            "select * from credits.capture_hold('acme', 'open', 3, 'error', '{key}')",
            "select * from credits.capture_hold('acme', 'open', null, 'error', '{key}')",
            "select * from credits.capture_hold('acme', 'open too', 2, 'error', '{key}')",
        ],
    },
];

impl Keyed {
    fn sql(template: &str, key: &str, grant: &str) -> String {
        template.replace("{key}", key).replace("{grant}", grant)
    }
}

/// `default` holds 40 credits of the grant returned and 100 more, `promo` and `spare` 50 each; transactions `used` and `used too`
/// took 5 each. In wallet `minutes`, of another unit, holds `open` and `open too` hold 5 of 50 each.
fn prepare(rule: &str) -> (Session, String) {
    let mut session = new_books(rule);
    session.exec("select credits.create_wallet('acme', 'promo', priority => 200); select credits.create_wallet('acme', 'spare', priority => 300)");
    let id = grant(&mut session, "forty", "40", "expires_at => '2026-12-31 00:00+00', priority => 150");
    grant(&mut session, "hundred", "100", "");
    grant(&mut session, "fifty", "50", "wallet => 'promo'");
    grant(&mut session, "fifty", "50", "wallet => 'spare'");
    deduct(&mut session, "5, 'used'");
    deduct(&mut session, "5, 'used too'");
    session.exec("select credits.create_wallet('acme', 'minutes', unit => 'minutes')");
    grant(&mut session, "fifty", "50", "wallet => 'minutes'");
    for key in ["open", "open too"] {
        hold(&mut session, &format!("5, '1 hour', 'minutes', idempotency_key => '{key}'"));
    }
    (session, id)
}

/// The answer, with a replayed `f` in the place of `t`: what must not differ between the first call and a replay.
fn answer(session: &mut Session, sql: &str) -> (Vec<String>, Option<String>) {
    let mut row = session.rows(sql).remove(0);
    let replayed = (row.len() > 1).then(|| row.pop()).flatten().flatten();
    (row.into_iter().map(Option::unwrap_or_default).collect(), replayed)
}

#[test]
fn every_operation_replays_its_first_result() {
    for operation in OPERATIONS {
        let (mut session, grant) = prepare(&format!("replay_{}", operation.name));
        let first = Keyed::sql(operation.first, "key", &grant);
        let (answered, replayed) = answer(&mut session, &first);
        assert_ne!(replayed.as_deref(), Some("t"), "{first}");
        let before = everything(&mut session);
        for same in [operation.first].iter().chain(operation.same) {
            let same = Keyed::sql(same, "key", &grant);
            let (again, replayed) = answer(&mut session, &same);
            assert_eq!(again, answered, "{same}");
            assert_ne!(replayed.as_deref(), Some("f"), "{same}");
        }
        assert_eq!(everything(&mut session), before, "replays of {first} write nothing");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn another_request_with_the_same_key_is_refused() {
    for operation in OPERATIONS {
        let (mut session, grant) = prepare(&format!("reused_{}", operation.name));
        let first = Keyed::sql(operation.first, "key", &grant);
        session.exec(&first);
        let before = everything(&mut session);
        let others = OPERATIONS.iter().filter(|other| other.name != operation.name).map(|other| &other.first);
        for other in operation.other.iter().chain(others) {
            let error = session.error(&Keyed::sql(other, "key", &grant));
            let codes = (error.sqlstate.as_str(), error.symbol());
            assert_eq!(codes, ("23505", "idempotency_key_reused"), "{first}\n{other}\n{error}");
            assert!(error.message.contains("\"key\"") && error.message.contains("\"acme\""), "{error}");
        }
        assert_eq!(everything(&mut session), before);
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_replay_comes_before_any_refusal() {
    for operation in OPERATIONS {
        let (mut session, grant) = prepare(&format!("refusal_{}", operation.name));
        let first = Keyed::sql(operation.first, "key", &grant);
        let (answered, _) = answer(&mut session, &first);
        // emptied
        session.exec(
            "select credits.adjust_credits('acme', -balance, 'emptied', wallet) from credits.balance('acme') where balance > 0",
        );
        assert_eq!(answer(&mut session, &first).0[0], answered[0], "{first} in empty wallets");
        // frozen
        session.exec("select credits.set_wallet_status('acme', wallet, 'frozen') from credits.wallets");
        assert_eq!(answer(&mut session, &first).0[0], answered[0], "{first} in frozen wallets");
        // closed for good, years later
        session.set_clock("2029-01-01 00:00+00");
        session.exec("select credits.set_wallet_status('acme', wallet, 'closed') from credits.wallets");
        assert_eq!(answer(&mut session, &first).0[0], answered[0], "{first} in closed wallets");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_replayed_deduction_has_the_first_result_and_the_balance_of_now() {
    let mut session = new_books("replay_has_the_balance_of_now");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft', overage_limit => 10)");
    grant(&mut session, "bought", "20", "");
    assert_eq!(deduct(&mut session, "5, 'charged'"), "charged|5|5|0|15|f");
    assert_eq!(deduct(&mut session, "18, 'overage'"), "overage|18|15|3|0|f");
    assert_eq!(deduct(&mut session, "10, 'partial', on_insufficient => 'partial'"), "partial|10|0|7|0|f");
    grant(&mut session, "tonight", "100", "expires_at => '2026-01-02 00:00+00'");
    assert_eq!(deduct(&mut session, "5, 'charged'"), "charged|5|5|0|90|t");
    assert_eq!(deduct(&mut session, "18, 'overage'"), "overage|18|15|3|90|t");
    assert_eq!(deduct(&mut session, "10, 'partial'"), "partial|10|0|7|90|t");
    session.set_clock("2026-01-02 00:00+00");
    assert_eq!(deduct(&mut session, "5, 'charged'"), "charged|5|5|0|0|t", "settled before it answers");
    // A refund of it does not change what it was.
    session.exec("select * from credits.refund_usage('acme', 'charged')");
    assert_eq!(deduct(&mut session, "5, 'charged'"), "charged|5|5|0|5|t");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn replayed_transfers_adjustments_and_refunds_have_the_balances_of_now() {
    let (mut session, _) = prepare("balances_of_now");
    let calls = [
        (
            "select transaction_id, transferred, from_balance, to_balance, replayed from credits.transfer_credits('acme', 3, 'default', 'promo', 't')",
            "t|3|127|53|f",
            "t|3|131|53|t",
        ),
        (
            "select transaction_id, adjusted, balance, replayed from credits.adjust_credits('acme', -2, 'x', idempotency_key => 'a')",
            "a|-2|125|f",
            "a|-2|131|t",
        ),
        (
            "select transaction_id, refunded, balance, replayed from credits.refund_usage('acme', 'used', 1, idempotency_key => 'r')",
            "r|1|126|f",
            "r|1|131|t",
        ),
    ];
    for (call, first, _) in calls {
        assert_eq!(session.lines(call), [first]);
    }
    assert_eq!(session.lines("select adjusted, balance from credits.adjust_credits('acme', 5, 'x')"), ["5|131"]);
    for (call, _, replay) in calls {
        assert_eq!(session.lines(call), [replay]);
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_key_belongs_to_its_customer() {
    let mut session = new_books("a_key_belongs_to_its_customer");
    session.exec("select credits.create_wallet('other'); select credits.grant_credits('other', 10)");
    grant(&mut session, "bought", "10", "");
    assert_eq!(deduct(&mut session, "1, 'key'"), "charged|1|1|0|9|f");
    assert_eq!(session.lines("select status, balance, replayed from credits.deduct_usage('other', 2, 'key')"), ["charged|8|f"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_id_of_any_transaction_is_a_used_key() {
    let mut session = new_books("the_id_of_any_transaction_is_a_used_key");
    grant(&mut session, "bought", "10", "expires_at => '2026-01-02 00:00+00'");
    let made = session.one("select transaction_id from credits.deduct_usage('acme', 1)");
    assert_eq!(deduct(&mut session, &format!("1, '{made}'")), "charged|1|1|0|9|t");
    session.set_clock("2026-01-03 00:00+00");
    session.exec("select * from credits.expire_grants()");
    let settled = session.one("select transaction_id from credits.ledger where kind = 'expiration'");
    for amount in [0, 1] {
        let error = session.error(&format!("select * from credits.deduct_usage('acme', {amount}, '{settled}')"));
        assert_eq!(error.symbol(), "idempotency_key_reused", "{error}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refused_request_frees_its_key() {
    let (mut session, grant) = prepare("a_refused_request_frees_its_key");
    let refused = [
        "select credits.grant_credits('acme', 10, expires_at => '2025-01-01', idempotency_key => 'key')",
        "select credits.void_grant('acme', '{grant}', 'x', 41, 'key')",
        "select credits.change_expiry('acme', '{grant}', '2025-01-01', 'x', 'key')",
        "select * from credits.transfer_credits('acme', 1000, 'default', 'promo', 'key')",
        "select * from credits.adjust_credits('acme', -1000, 'x', idempotency_key => 'key')",
        "select * from credits.deduct_usage('acme', 1000, 'key')",
        "select * from credits.refund_usage('acme', 'used', 6, 'x', 'key')",
        "select * from credits.hold_credits('acme', 1000, idempotency_key => 'key')",
        "select * from credits.capture_hold('acme', 'open', 1000, 'error', 'key')",
        "select * from credits.capture_hold('acme', 'nothing', idempotency_key => 'key')",
    ];
    let before = everything(&mut session);
    for sql in refused {
        session.error(&Keyed::sql(sql, "key", &grant));
    }
    assert_eq!(everything(&mut session), before);
    assert_eq!(deduct(&mut session, "1, 'key'"), "charged|1|1|0|229|f");
    assert_ledger_is_sound(&mut session);
}

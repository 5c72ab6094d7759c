//! Reading on a hot standby: nothing can be settled there, and every answer is right all the same.

use pgrx_tests::{Cluster, Session, assert_ledger_is_sound};

const BALANCE: &str = "select wallet, balance, held, scheduled, debt, next_expiry_at, next_expiry_credits \
                       from credits.balance('acme')";

/// January 1st: 100 credits until the 10th, 50 for ever, 30 from February 1st; 20 are used on the 2nd. Nothing is settled after.
fn write_history(primary: &mut Session) {
    primary.set_clock("2026-01-01 00:00+00");
    primary.exec("select credits.create_wallet('acme')");
    primary.exec("select credits.grant_credits('acme', 100, expires_at => '2026-01-10 00:00+00')");
    primary.exec("select credits.grant_credits('acme', 50)");
    primary.exec("select credits.grant_credits('acme', 30, effective_at => '2026-02-01 00:00+00')");
    primary.set_clock("2026-01-02 00:00+00");
    primary.exec("select * from credits.deduct_usage('acme', 20, 'call-1', event_name => 'model.call')");
}

#[test]
fn a_standby_answers_as_if_everything_due_were_settled() {
    let primary = Cluster::start("primary", &[]);
    let mut on_primary = primary.new_database("books");
    write_history(&mut on_primary);
    let standby = primary.standby("standby");
    let mut session = standby.session("books");
    assert_eq!(session.one("select pg_is_in_recovery()"), "t");

    session.set_clock("2026-01-05 00:00+00");
    assert_eq!(session.lines(BALANCE), ["default|130|0|30|0|2026-01-10 00:00:00+00|80"]);

    // The 100 have expired on the 10th, and nobody has written so.
    session.set_clock("2026-01-15 00:00+00");
    assert_eq!(session.lines(BALANCE), ["default|50|0|30|0||"]);
    assert_eq!(
        session.lines("select amount, status, remaining from credits.grants where customer_id = 'acme' order by amount desc"),
        ["100|expired|0", "50|active|50", "30|scheduled|30"],
        "nothing expired looks spendable"
    );
    assert_eq!(session.lines("select count(*) from credits.expiring_grants"), ["0"]);

    // And on February 1st the 30 have become spendable.
    session.set_clock("2026-02-02 00:00+00");
    assert_eq!(session.lines(BALANCE), ["default|80|0|0|0||"]);
    let balances_at = "select credits.balance_at('acme', 'default', at)
        from unnest(array['2025-12-31', '2026-01-01', '2026-01-02', '2026-01-09', '2026-01-10', '2026-02-01']::timestamptz[]) as at";
    assert_eq!(session.lines(balances_at), ["0", "150", "130", "130", "50", "80"]);
    assert_eq!(
        session.lines(
            "select kind, amount, balance, event_name
             from credits.statement('acme', 'default', '2026-01-02 00:00+00', '2026-02-02 00:00+00')
             where kind not in ('opening', 'closing')"
        ),
        ["usage|-20|130|model.call", "expiration|-80|50|", "grant_activated|30|80|"]
    );
    assert_eq!(
        session.lines(
            "select kind, balance from credits.statement('acme', 'default', '2026-01-02 00:00+00', '2026-02-02 00:00+00')
             where kind in ('opening', 'closing')"
        ),
        ["opening|150", "closing|80"]
    );
    assert_eq!(session.lines("select wallet, credits from credits.preview_deduction('acme', 60)"), ["default|50", "default|10"]);

    for view in ["wallets", "grants", "ledger", "journal", "trial_balance", "expiring_grants"] {
        session.exec(&format!("select * from credits.{view}"));
    }
    assert_eq!(session.lines("select sum(debit) - sum(credit) from credits.trial_balance"), ["0"]);
    assert_eq!(session.lines("select count(*) from credits.ledger"), ["4"], "reading wrote nothing");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_standby_refuses_to_write_and_goes_on_when_promoted() {
    let primary = Cluster::start("primary", &[]);
    let mut on_primary = primary.new_database("books");
    write_history(&mut on_primary);
    let standby = primary.standby("standby");
    let mut session = standby.session("books");
    session.set_clock("2026-02-02 00:00+00");

    let error = session.error("select * from credits.deduct_usage('acme', 5, 'call-2')");
    assert_eq!(error.sqlstate, "25006", "read_only_sql_transaction, not something internal: {error}");

    primary.kill9();
    standby.promote();
    assert_eq!(
        session.lines("select status, deducted, balance, replayed from credits.deduct_usage('acme', 5, 'call-2')"),
        ["charged|5|75|f"]
    );
    assert_eq!(
        session.lines("select status, deducted, balance, replayed from credits.deduct_usage('acme', 20, 'call-1', event_name => 'model.call')"),
        ["charged|20|75|t"]
    );
    assert_eq!(
        session.lines(
            "select seq, kind, amount, occurred_at from credits.ledger where customer_id = 'acme' and seq > 4 order by seq"
        ),
        [
            "5|expiration|-80|2026-01-10 00:00:00+00",
            "6|grant_activated|30|2026-02-01 00:00:00+00",
            "7|usage|-5|2026-02-02 00:00:00+00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

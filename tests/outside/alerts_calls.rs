//! Alerts beside everything else: statuses of wallets, several wallets, batches, transactions, wrong calls, and the plain way (SPEC 9).

use pgrx_tests::assert_ledger_is_sound;

use crate::alerts::{alert, alerts};
use crate::batches::deduct_batch;
use crate::books::{assert_refused, deduct, entries, grant, new_books, told};
use crate::inbox::{metered_books, process, receive};
use crate::recurring::settle;

const NOTHING: [&str; 0] = [];

#[test]
fn a_dropped_alert_neither_fires_nor_recovers() {
    let mut session = new_books("a_dropped_alert");
    grant(&mut session, "bought", "100", "");
    let armed = alert(&mut session, "threshold_credits => 20");
    let fired = alert(&mut session, "threshold_credits => 90");
    deduct(&mut session, "50");
    assert_eq!(told(&mut session), ["wallet.balance_low 90 at 50"]);
    for id in [&armed, &fired] {
        assert_eq!(session.one(&format!("select credits.drop_alert('acme', '{id}')")), *id);
    }
    assert_eq!(alerts(&mut session), NOTHING);
    assert_eq!(
        session.lines("select low_at, high_at from credits_data.wallets"),
        ["|"],
        "nothing keeps deductions from the plain way"
    );
    deduct(&mut session, "50");
    grant(&mut session, "more", "100", "");
    assert_eq!(told(&mut session), NOTHING);
    let again = format!("drop_alert('acme', '{armed}')");
    assert_refused(&mut session, &[(again.as_str(), "P0002", "not_found")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_frozen_wallet_is_watched_and_a_closed_one_takes_no_alert() {
    let mut session = new_books("a_frozen_wallet_is_watched");
    grant(&mut session, "short", "100", "expires_at => '2026-01-02 00:00+00'");
    let id = alert(&mut session, "threshold_credits => 20");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    session.set_clock("2026-01-02 00:00+00");
    settle(&mut session);
    assert_eq!(told(&mut session), ["wallet.depleted at 0", "wallet.balance_low 20 at 0"]);
    grant(&mut session, "more", "30", "");
    assert_eq!(told(&mut session), ["wallet.balance_recovered 20 at 30"]);
    alert(&mut session, "threshold_credits => 30");
    assert_eq!(told(&mut session), ["wallet.balance_low 30 at 30"]);
    session.exec("select credits.set_wallet_status('acme', 'default', 'closed')");
    assert_eq!(told(&mut session), ["wallet.depleted at 0", "wallet.balance_low 20 at 0"], "what was there was voided");
    assert_refused(&mut session, &[("create_alert('acme', 'default', threshold_credits => 1)", "55000", "wrong_state")]);
    session.exec(&format!("select credits.drop_alert('acme', '{id}')"));
    assert_eq!(alerts(&mut session), ["30 fired"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn each_wallet_is_watched_by_its_own_alerts() {
    let mut session = new_books("each_wallet_is_watched");
    session.exec(
        "select credits.create_wallet('acme', 'promo', priority => 1), credits.create_wallet('other');
         select credits.grant_credits('acme', 10, 'promo'), credits.grant_credits('other', 100);
         select credits.create_alert('acme', 'promo', threshold_credits => 2)",
    );
    grant(&mut session, "bought", "100", "");
    alert(&mut session, "threshold_percent => 50");
    deduct(&mut session, "7");
    session.exec("select * from credits.deduct_usage('other', 99)");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "60");
    assert_eq!(
        told(&mut session),
        ["wallet.depleted promo at 0", "wallet.balance_low promo 2 at 0", "wallet.balance_low 50% at 43"]
    );
    session.exec("select * from credits.transfer_credits('acme', 40, 'default', 'promo')");
    assert_eq!(told(&mut session), ["wallet.balance_recovered promo 2 at 40"]);
    session.exec("select * from credits.transfer_credits('acme', 38, 'promo', 'default')");
    assert_eq!(told(&mut session), ["wallet.balance_low promo 2 at 2", "wallet.balance_recovered 50% at 41"]);
    session.exec("select * from credits.deduct_usage('other', 1)");
    assert_eq!(told(&mut session), NOTHING, "nobody watches the other customer");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn each_item_of_a_batch_is_a_step() {
    let mut session = new_books("each_item_is_a_step");
    grant(&mut session, "bought", "100", "");
    alert(&mut session, "threshold_credits => 50");
    alert(&mut session, "threshold_credits => 20");
    let rows = deduct_batch(
        &mut session,
        r#"[{"customer_id": "acme", "amount": 60}, {"customer_id": "acme", "amount": 41}, {"customer_id": "acme", "amount": 25},
            {"customer_id": "acme", "amount": 0}, {"customer_id": "acme", "amount": 15}]"#,
    );
    assert_eq!(rows.len(), 5);
    assert_eq!(told(&mut session), ["wallet.balance_low 50 at 40", "wallet.balance_low 20 at 15", "wallet.depleted at 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refused_item_of_a_batch_leaves_no_event() {
    let mut session = new_books("a_refused_item_leaves_no_event");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft', overage_limit => 5); set credits.pull_events = on");
    grant(&mut session, "bought", "100", "");
    assert_eq!(told(&mut session), ["grant.created 100"]);
    alert(&mut session, "threshold_credits => 50");
    deduct_batch(&mut session, r#"[{"customer_id": "acme", "amount": 106}, {"customer_id": "acme", "amount": 10}]"#);
    assert_eq!(told(&mut session), NOTHING);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn events_of_the_inbox_fire_alerts_one_by_one() {
    let mut session = metered_books("events_of_the_inbox_fire_alerts");
    alert(&mut session, "threshold_credits => 97");
    alert(&mut session, "threshold_credits => 92");
    let events = ["e1", "e2", "e3"].map(|id| format!("('acme', '{id}', 'generate', '{{\"tokens\": 2}}')"));
    receive(&mut session, &events.join(", "));
    assert_eq!(process(&mut session), "3|0|12|f");
    assert_eq!(told(&mut session), ["wallet.balance_low 97 at 96", "wallet.balance_low 92 at 92"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_rolled_back_told_nobody_anything() {
    let mut session = new_books("what_is_rolled_back_told_nobody");
    grant(&mut session, "bought", "100", "");
    alert(&mut session, "threshold_credits => 50");
    session.exec("begin");
    deduct(&mut session, "60");
    session.exec("rollback");
    assert_eq!(told(&mut session), NOTHING);
    session.exec("begin; savepoint s");
    deduct(&mut session, "60");
    session.exec("rollback to s");
    deduct(&mut session, "1");
    session.exec("commit");
    assert_eq!(told(&mut session), NOTHING);
    assert_eq!(alerts(&mut session), ["50 armed"]);
    session.error("select * from credits.deduct_usage('acme', 100)");
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "60");
    assert_eq!(told(&mut session), ["wallet.balance_low 50 at 39"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_tells_the_whole_story() {
    let mut session = new_books("an_event_tells_the_whole_story");
    grant(&mut session, "bought", "100", "");
    let id = alert(&mut session, "threshold_percent => 20");
    session.set_clock("2026-01-02 03:04:05.000006+00");
    deduct(&mut session, "90.5");
    assert_eq!(
        session
            .lines("select left(event_id, 4), length(event_id), type, customer_id, created_at, payload from credits_data.events"),
        [format!(
            "evt_|36|wallet.balance_low|acme|2026-01-02 03:04:05.000006+00|{{\"data\": {{\"held\": \"0\", \"unit\": \"credits\", \"wallet\": \"default\", \
             \"balance\": \"9.5\", \"alert_id\": \"{id}\", \"threshold\": \"20\", \"customer_id\": \"acme\", \"threshold_credits\": null, \
             \"threshold_percent\": \"20\"}}, \"type\": \"wallet.balance_low\", \"timestamp\": \"2026-01-02T03:04:05.000006Z\"}}"
        )]
    );
    assert_eq!(session.one("select fired_at from credits.alerts"), "2026-01-02 03:04:05.000006+00");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn wrong_alerts_are_refused() {
    let mut session = new_books("wrong_alerts_are_refused");
    let refused = [
        ("('acme', 'default')", "22023", "invalid_argument"),
        ("('acme', 'default', 10, 10)", "22023", "invalid_argument"),
        ("('acme', 'default', 100)", "22023", "invalid_argument"),
        ("('acme', 'default', -1)", "22023", "invalid_argument"),
        ("('acme', 'default', threshold_credits => -0.1)", "22023", "invalid_argument"),
        ("('acme', 'default', threshold_credits => 'NaN')", "22023", "invalid_argument"),
        ("('acme', 'default', threshold_credits => 1e16)", "22003", "out_of_range"),
        ("('acme', 'default', threshold_credits => 10, rearm => 9.9)", "22023", "invalid_argument"),
        ("('acme', 'default', threshold_percent => 10, rearm => 9)", "22023", "invalid_argument"),
        ("('acme', 'missing', 10)", "P0002", "not_found"),
        ("('nobody', 'default', 10)", "P0002", "not_found"),
        ("(null, 'default', 10)", "22004", "null_argument"),
        ("('acme', null, 10)", "22004", "null_argument"),
    ];
    let calls: Vec<_> = refused.iter().map(|(arguments, _, _)| format!("create_alert{arguments}")).collect();
    let refusals: Vec<_> =
        calls.iter().zip(&refused).map(|(call, (_, sqlstate, symbol))| (call.as_str(), *sqlstate, *symbol)).collect();
    assert_refused(&mut session, &refusals);
    let id = alert(&mut session, "0");
    session.exec("select credits.create_wallet('other')");
    let of_another = format!("drop_alert('other', '{id}')");
    let refusals = [
        (of_another.as_str(), "P0002", "not_found"),
        ("drop_alert('acme', null)", "22004", "null_argument"),
        ("drop_alert('acme', '00000000-0000-0000-0000-000000000000')", "P0002", "not_found"),
    ];
    assert_refused(&mut session, &refusals);
}

/// How often the session has looked into the indexes of the alerts; it counts on within a transaction.
const LOOKS: &str = "select pg_stat_get_xact_numscans('credits_data.alerts_wallet'::regclass)
    + pg_stat_get_xact_numscans('credits_data.alerts_pkey'::regclass)";

#[test]
fn a_plain_deduction_does_not_look_at_alerts_that_are_far() {
    let mut session = new_books("a_plain_deduction_does_not_look");
    grant(&mut session, "bought", "100", "");
    alert(&mut session, "threshold_credits => 50");
    alert(&mut session, "threshold_percent => 20");
    let rows = "select xmin, ctid, alert_id from credits_data.alerts order by alert_id";
    let before = session.lines(rows);
    session.exec("begin");
    let looks = session.one(LOOKS);
    for number in 0..49 {
        assert_eq!(deduct(&mut session, &format!("1, 'plain {number}'")), format!("charged|1|1|0|{}|f", 99 - number));
    }
    assert_eq!(session.one(LOOKS), looks);
    assert_eq!(session.lines(rows), before);
    assert_eq!(told(&mut session), NOTHING);
    deduct(&mut session, "1, 'crosses'");
    assert_ne!(session.one(LOOKS), looks);
    session.exec("commit");
    assert_eq!(told(&mut session), ["wallet.balance_low 50 at 50"]);
    assert_eq!(entries(&mut session, "crosses"), ["default usage 1 bought"]);
    // Below it the way is plain again, until the next one.
    session.exec("begin");
    let looks = session.one(LOOKS);
    for _ in 0..29 {
        deduct(&mut session, "1");
    }
    assert_eq!(session.one(LOOKS), looks);
    session.exec("commit");
    deduct(&mut session, "1");
    assert_eq!(told(&mut session), ["wallet.balance_low 20% at 20"]);
    assert_ledger_is_sound(&mut session);
}

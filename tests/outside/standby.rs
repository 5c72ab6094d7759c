//! Reading on a hot standby: nothing can be settled there, and every answer is right all the same.

use pgrx_tests::{Cluster, Session, assert_ledger_is_sound};

use crate::inbox::METERS;

const BALANCE: &str = "select wallet, balance, held, scheduled, debt, next_expiry_at, next_expiry_credits \
                       from credits.balance('acme')";

const VIEWS: [&str; 21] = [
    "wallets",
    "grants",
    "ledger",
    "journal",
    "trial_balance",
    "expiring_grants",
    "recurring_grants",
    "contract_progress",
    "holds",
    "invoice_lines",
    "job_health",
    "meters",
    "meter_pricing",
    "meter_usage",
    "usage_daily",
    "usage_events",
    "usage_inbox",
    "alerts",
    "auto_top_ups",
    "top_ups",
    "metrics",
];

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

    for view in VIEWS {
        session.exec(&format!("select * from credits.{view}"));
    }
    assert_eq!(session.lines("select sum(debit) - sum(credit) from credits.trial_balance"), ["0"]);
    assert_eq!(session.lines("select count(*) from credits.ledger"), ["4"], "reading wrote nothing");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_standby_knows_of_renewals_instalments_and_lapses_that_nobody_has_written() {
    let primary = Cluster::start("primary", &[]);
    let mut on_primary = primary.new_database("books");
    on_primary.set_clock("2026-01-01 00:00+00");
    on_primary.exec(
        "select credits.create_wallet('acme');
         select credits.create_recurring_grant('acme', 'monthly', 100, '1 month', rollover_percent => 50);
         select credits.create_contract('acme', 'deal', 90, '2026-01-01 00:00+00', '2026-04-01 00:00+00', installments => 3);
         select * from credits.hold_credits('acme', 70, '10 days', idempotency_key => 'lapses')",
    );
    let standby = primary.standby("standby");
    let mut session = standby.session("books");
    let reads = [
        BALANCE,
        "select at, credits.balance_at('acme', 'default', at)
         from unnest(array['2026-01-01', '2026-01-11', '2026-01-31', '2026-02-01', '2026-03-01']::timestamptz[]) at",
        "select occurred_at, kind, amount, balance
         from credits.statement('acme', 'default', '2026-01-01 00:00+00', '2026-03-10 00:00+00') where kind not in ('opening', 'closing')",
        "select credits from credits.preview_deduction('acme', 200)",
        "select status from credits.holds",
        "select contract, status, committed from credits.contract_progress",
    ];
    session.set_clock("2026-01-05 00:00+00");
    // What expires first is held first: 70 of January's 100.
    assert_eq!(session.lines(BALANCE), ["default|60|70|0|0|2026-02-01 00:00:00+00|30"]);
    session.set_clock("2026-03-10 00:00+00");
    // In February 50 of January's are left over, in March 50 of February's; the contract has granted all.
    let answers = reads.map(|sql| session.lines(sql));
    assert_eq!(answers[0], ["default|240|0|0|0|2026-04-01 00:00:00+00|240"]);
    assert_eq!(
        answers[1],
        [
            "2026-01-01 00:00:00+00|60",
            "2026-01-11 00:00:00+00|130",
            "2026-01-31 00:00:00+00|130",
            "2026-02-01 00:00:00+00|210",
            "2026-03-01 00:00:00+00|240"
        ]
    );
    assert_eq!(answers[3].iter().map(|credits| credits.parse::<i32>().expect("a number")).sum::<i32>(), 200);
    assert_eq!(answers[4..].concat(), ["lapsed", "deal|active|90"]);
    for view in VIEWS {
        session.exec(&format!("select * from credits.{view}"));
    }
    assert_eq!(session.error("select * from credits.renew_grants()").sqlstate, "25006");
    assert_eq!(session.error("select * from credits.release_hold('acme', 'lapses')").sqlstate, "25006");
    assert_eq!(session.lines("select count(*) from credits.ledger"), ["3"], "reading wrote nothing");
    assert_ledger_is_sound(&mut session);

    // What the standby said is what the primary writes.
    on_primary.set_clock("2026-03-10 00:00+00");
    on_primary.exec("select * from credits.run_maintenance()");
    assert_eq!(reads.map(|sql| on_primary.lines(sql)), answers);
    assert_ledger_is_sound(&mut on_primary);
}

#[test]
fn a_standby_prices_events_and_says_what_may_be_used() {
    let primary = Cluster::start("primary", &[]);
    let mut on_primary = primary.new_database("books");
    write_history(&mut on_primary);
    on_primary.exec(METERS);
    on_primary.exec(
        "select credits.set_meter_pricing('calls', '{\"model\": \"per_unit\", \"credits\": 4}', '2026-01-20 00:00+00', 'acme');
         select * from credits.record_usage('acme', 'generate', '{\"tokens\": 8}', 'event-1');
         insert into credits.usage_inbox (customer_id, event_id, event_name) values ('acme', 'waits', 'call')",
    );
    let standby = primary.standby("standby");
    let mut session = standby.session("books");
    let reads = [
        "select * from credits.check_entitlement('acme')",
        "select * from credits.check_entitlement('acme', 75)",
        "select * from credits.check_entitlement('acme', event_name => 'call')",
        "select * from credits.check_entitlement('acme', event_name => 'generate', properties => '{\"tokens\": 30}')",
        "select * from credits.check_entitlement('nobody', event_name => 'call')",
        "select * from credits.price_usage('generate', '{\"tokens\": 5}', 'acme')",
        "select * from credits.price_usage('generate', '{\"tokens\": 5}')",
        "select * from credits.price_usage('call', customer_id => 'acme', at => '2026-01-19 00:00+00')",
    ];
    // 100 less 20 and 16 until the 10th, and 50.
    session.set_clock("2026-01-05 00:00+00");
    let january = [
        "t|||114|f",
        "t||75|114|f",
        "t||1|114|f",
        "t||32|114|f",
        "f|not_found|1|0|f",
        "tokens|credits|5|7",
        "tokens|credits|5|10",
        "calls|credits|1|1",
    ];
    assert_eq!(reads.map(|sql| session.lines(sql).concat()), january);
    // The 50 are left, calls cost more, and of tokens 8 were counted in this month.
    session.set_clock("2026-01-25 00:00+00");
    assert_eq!(
        reads.map(|sql| session.lines(sql).concat())[..4],
        ["t|||50|f", "f|insufficient_credits|75|50|f", "t||4|50|f", "t||32|50|f"]
    );
    // 30 more came on February 1st, in which month nothing was counted.
    session.set_clock("2026-02-02 00:00+00");
    let answers = reads.map(|sql| session.lines(sql).concat());
    assert_eq!(answers[..6], ["t|||80|f", "t||75|80|f", "t||4|80|f", "t||40|80|f", "f|not_found|1|0|f", "tokens|credits|5|10"]);
    for refused in [
        "select * from credits.record_usage('acme', 'call')",
        "select * from credits.record_usage_batch('[{\"customer_id\": \"acme\", \"event_name\": \"call\"}]')",
        "select * from credits.deduct_usage_batch('[{\"customer_id\": \"acme\", \"amount\": 1}]')",
        "select * from credits.process_inbox()",
        "select credits.retry_inbox()",
        "insert into credits.usage_events (customer_id, event_name) values ('acme', 'call')",
        "insert into credits.usage_inbox (customer_id, event_name) values ('acme', 'call')",
        "select credits.set_meter_pricing('calls', '{\"model\": \"per_unit\", \"credits\": 4}')",
        "select credits.create_meter('more', 'call', 'count')",
    ] {
        assert_eq!(session.error(refused).sqlstate, "25006", "{refused}");
    }
    for view in VIEWS {
        session.exec(&format!("select * from credits.{view}"));
    }
    assert_ledger_is_sound(&mut session);
    // A price list that is set later is seen there as soon as it has arrived, in the same session.
    on_primary.exec("select credits.set_meter_pricing('tokens', '{\"model\": \"per_unit\", \"credits\": 9}')");
    standby.wait_for(&primary);
    assert_eq!(session.lines(reads[5]), ["tokens|credits|5|45"]);
    // What the standby says is what the primary says.
    on_primary.set_clock("2026-02-02 00:00+00");
    assert_eq!(reads.map(|sql| on_primary.lines(sql)), reads.map(|sql| session.lines(sql)));
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

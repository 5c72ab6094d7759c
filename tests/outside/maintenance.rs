//! Maintenance: what it does, for whom, in which portions, and what job_health says about it (SPEC 6 and 10).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::books::{deduct, grant, new_books};
use crate::concurrency::{at_once, sessions};
use crate::recurring::recurring;

const RUN: &str = "select * from credits.run_maintenance() order by task";

const NOTHING: [&str; 10] = [
    "activate_grants|0|0|f",
    "expire_grants|0|0|f",
    "lapse_holds|0|0|f",
    "notice_expiring|0|0|f",
    "process_inbox|0|0|f",
    "purge_events|0|0|f",
    "queue_top_ups|0|0|f",
    "renew_grants|0|0|f",
    "repay_debt|0|0|f",
    "run_contracts|0|0|f",
];

/// Books in which one customer has each kind of work due in January.
fn books_with_work(rule: &str) -> Session {
    let mut session = new_books(rule);
    session.exec(
        "select credits.create_wallet(customer, overage_policy => case customer when 'owes' then 'overdraft' else 'block' end)
         from unnest(array['expires', 'activates', 'holds', 'renews', 'commits', 'owes']) customer;
         select credits.grant_credits('expires', 5, expires_at => '2026-01-10 00:00+00');
         select credits.grant_credits('activates', 7, effective_at => '2026-01-15 00:00+00');
         select credits.grant_credits('holds', 50);
         select * from credits.hold_credits('holds', 20, '1 day');
         select * from credits.hold_credits('holds', 5, '1 year');
         select credits.create_recurring_grant('renews', 'plan', 100, '1 month', anchor => '2026-01-20 00:00+00',
             rollover_percent => 75);
         select credits.create_contract('commits', 'c', 60, '2026-01-01 00:00+00', '2026-01-31 00:00+00', installments => 3);
         select * from credits.deduct_usage('owes', 4);
         select credits.grant_credits('owes', 10, effective_at => '2026-01-25 00:00+00')",
    );
    session
}

#[test]
fn maintenance_tells_of_every_task_what_it_did() {
    let mut session = books_with_work("maintenance_tells_of_every_task");
    assert_eq!(session.lines(RUN), NOTHING);
    session.set_clock("2026-01-30 00:00+00");
    assert_eq!(
        session.lines(RUN),
        [
            "activate_grants|2|17|f",
            "expire_grants|2|30|f",
            "lapse_holds|1|20|f",
            "notice_expiring|0|0|f",
            "process_inbox|0|0|f",
            "purge_events|0|0|f",
            "queue_top_ups|0|0|f",
            "renew_grants|1|100|f",
            "repay_debt|1|4|f",
            "run_contracts|2|40|f"
        ]
    );
    assert_eq!(session.lines(RUN), NOTHING);
    assert_eq!(
        session.lines("select customer_id, balance, held, debt from credits.wallets order by 1"),
        ["acme|0|0|0", "activates|7|0|0", "commits|60|0|0", "expires|0|0|0", "holds|45|5|0", "owes|6|0|0", "renews|175|0|0"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn expiring_and_renewing_pick_their_customers_and_settle_them_completely() {
    let mut session = new_books("expiring_and_renewing_pick");
    session.exec(
        "select credits.create_wallet(customer) from unnest(array['expires', 'renews', 'both', 'activates']) customer;
         select credits.grant_credits('expires', 5, expires_at => '2026-01-10 00:00+00');
         select credits.grant_credits('both', 6, expires_at => '2026-01-10 00:00+00');
         select credits.create_recurring_grant('both', 'plan', 100, '1 month', starts_at => '2026-01-20 00:00+00');
         select credits.create_recurring_grant('renews', 'plan', 200, '1 month', starts_at => '2026-01-20 00:00+00');
         select credits.grant_credits('activates', 7, effective_at => '2026-01-15 00:00+00')",
    );
    session.set_clock("2026-01-30 00:00+00");
    assert_eq!(
        session.lines("select customers_settled, grants_expired, credits_expired from credits.expire_grants()"),
        ["2|2|11"]
    );
    assert_eq!(session.one("select max(occurred_at) from credits.ledger where customer_id = 'both'"), "2026-01-20 00:00:00+00");
    assert_eq!(
        session.lines("select customers_settled, grants_renewed, credits_rolled_over from credits.renew_grants()"),
        ["1|1|0"]
    );
    assert_eq!(session.one("select count(*) from credits.ledger where customer_id = 'activates'"), "1", "neither's business");
    assert_eq!(session.lines(RUN)[0], "activate_grants|1|7|f");
    assert_eq!(session.lines("select * from credits.expire_grants()"), ["0|0|0|f"]);
    assert_eq!(session.lines("select * from credits.renew_grants()"), ["0|0|0|f"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn renewals_come_in_bounded_batches_until_nothing_is_due() {
    let mut session = new_books("renewals_in_batches");
    session.exec(
        "select credits.create_wallet('c' || n),
             credits.create_recurring_grant('c' || n, 'plan', 10, '1 month', rollover_percent => 50)
         from generate_series(1, 5) n",
    );
    session.set_clock("2026-03-01 00:00+00");
    let batches: Vec<String> = (0..4).map(|_| session.lines("select * from credits.renew_grants(2)").concat()).collect();
    assert_eq!(batches, ["2|4|20|t", "2|4|20|t", "1|2|10|f", "0|0|0|f"], "two missed months of each, 5 rolled over a month");
    assert_eq!(session.lines(RUN), NOTHING);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn runs_side_by_side_share_the_work_and_skip_who_is_locked() {
    let mut session = new_books("runs_side_by_side");
    session.exec(
        "select credits.create_wallet('c' || n), credits.create_recurring_grant('c' || n, 'plan', 10, '1 month')
         from generate_series(1, 60) n",
    );
    let mut holder = shared_cluster().session("runs_side_by_side");
    holder.set_clock("2026-01-10 00:00+00");
    holder.exec("begin; select * from credits.deduct_usage('c17', 1)");
    let mut workers = sessions("runs_side_by_side", 4);
    let renewed = at_once(&mut workers, |number, worker| {
        worker.set_clock("2026-02-01 00:00+00");
        let run = [
            "select grants_renewed from credits.renew_grants(4)",
            "select items from credits.run_maintenance(4) where task = 'renew_grants'",
        ];
        (0..60).map(|_| worker.one(run[number % 2]).parse::<u32>().expect("a number")).sum::<u32>()
    });
    assert_eq!(renewed.iter().sum::<u32>(), 59, "{renewed:?}");
    assert_eq!(workers[0].lines("select * from credits.renew_grants()"), ["0|0|0|t"], "one is still due");
    holder.exec("commit");
    assert_eq!(workers[0].lines("select * from credits.renew_grants()"), ["1|1|0|f"]);
    assert_eq!(session.one("select count(*) from credits.grants"), "120");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_period_that_does_not_fit_stops_nobody_else() {
    let mut session = new_books("a_period_that_does_not_fit");
    session.exec("select credits.create_wallet('zoe'), credits.create_recurring_grant('zoe', 'plan', 10, '1 month')");
    recurring(&mut session, "plan", "5e15, '1 month', starts_at => '2026-01-10 00:00+00'");
    grant(&mut session, "bought", "9e15", "");
    session.set_clock("2026-02-01 00:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(session.one("select count(*) from credits.grants where customer_id = 'zoe'"), "2");
    assert_eq!(deduct(&mut session, "9e15").split('|').next(), Some("charged"), "nor the wallet itself");
    session.set_clock("2026-03-10 00:00+00");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "5000000000000000", "now it fits");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn job_health_tells_of_every_task_when_it_ran_and_what_is_due() {
    let mut session = books_with_work("job_health_tells");
    let health =
        "select task, last_run_at is not null, last_items, backlog, oldest_due_at, detail from credits.job_health order by task";
    let tasks = [
        "activate_grants",
        "claim_events",
        "clock",
        "expire_grants",
        "lapse_holds",
        "notice_expiring",
        "process_inbox",
        "purge_events",
        "queue_top_ups",
        "renew_grants",
        "repay_debt",
        "run_contracts",
        "snapshots",
        "top_ups",
        "webhooks",
    ];
    assert_eq!(session.lines("select task from credits.job_health order by task"), tasks);
    session.set_clock("2026-01-30 00:00+00");
    let due = session.lines("select task, backlog, oldest_due_at from credits.job_health where task not in ('clock', 'snapshots', 'repay_debt', 'process_inbox', 'notice_expiring', 'purge_events', 'queue_top_ups', 'webhooks', 'claim_events', 'top_ups') order by task");
    assert_eq!(
        due,
        [
            "activate_grants|2|2026-01-15 00:00:00+00",
            "expire_grants|2|2026-01-10 00:00:00+00",
            "lapse_holds|1|2026-01-02 00:00:00+00",
            "renew_grants|1|2026-01-20 00:00:00+00",
            "run_contracts|1|2026-01-11 00:00:00+00"
        ],
        "the grant of the period that ends is due too"
    );
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(
        session.lines(&format!(
            "select * from ({health}) h where task not in ('clock', 'snapshots', 'webhooks', 'claim_events', 'top_ups')"
        )),
        [
            "activate_grants|t|2|0||",
            "expire_grants|t|2|0||",
            "lapse_holds|t|1|0||",
            "notice_expiring|t|0|0||",
            "process_inbox|t|0|0||",
            "purge_events|t|0|0||",
            "queue_top_ups|t|0|0||",
            "renew_grants|t|1|0||",
            "repay_debt|t|1|0||",
            "run_contracts|t|2|0||"
        ]
    );
}

#[test]
fn job_health_names_wallets_whose_last_entry_lies_in_the_future() {
    let mut session = shared_cluster().new_database("wallets_in_the_future");
    session.exec("select credits.create_wallet('today'), credits.grant_credits('today', 1)");
    let clock = "select detail from credits.job_health where task = 'clock'";
    assert_eq!(session.one_or_null(clock), None);
    session.set_clock("2999-01-01 00:00+00");
    session.exec("select credits.create_wallet('ahead of time', 'w'), credits.grant_credits('ahead of time', 1, 'w')");
    for now in ["2999-01-01 00:00+00", ""] {
        session.set_clock(now);
        let detail = session.one(clock);
        assert!(
            detail.contains("ahead of time") && !detail.contains("today"),
            "of the real clock, whatever the test's: {detail}"
        );
    }
}

/// Twelve hourly grants for 200 days: more than settling keeps in memory before it stores what it has.
#[test]
fn what_is_due_of_one_customer_is_written_however_much_it_is() {
    let mut session = new_books("however_much_is_due");
    for customer in ["maintained", "charged"] {
        session.exec(&format!("select credits.create_wallet('{customer}')"));
        session.exec(&format!(
            "select credits.create_recurring_grant('{customer}', 'plan ' || n, n, '1 hour') from generate_series(1, 12) n"
        ));
    }
    session.set_clock("2026-07-20 00:00+00");
    assert_eq!(session.one("select deducted from credits.deduct_usage('charged', 70)"), "70");
    // 200 days of 24 hours, and in each period one grant and one expiration
    assert_eq!(
        session.lines("select items from credits.run_maintenance() where task in ('expire_grants', 'renew_grants')"),
        ["57600", "57600"]
    );
    assert_eq!(
        session.lines(
            "select customer_id, count(*), max(seq), count(distinct recorded_at) from credits.ledger
             where customer_id in ('maintained', 'charged') and kind <> 'usage' group by 1 order by 1"
        ),
        ["charged|115212|115212|2", "maintained|115212|115212|2"]
    );
    assert_eq!(
        session.lines("select balance from credits.wallets where customer_id in ('maintained', 'charged') order by customer_id"),
        ["8", "78"]
    );
    assert_ledger_is_sound(&mut session);
}

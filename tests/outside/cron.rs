//! Maintenance by pg_cron: wallets that nobody touches are settled too.

use std::time::Duration;

use pgrx_tests::{Cluster, assert_ledger_is_sound, shared_cluster, wait_until};

/// pg_cron starts a job on the full minute, so a second one is due after two minutes at the latest.
const TWO_MINUTES_AND_SOME: Duration = Duration::from_secs(150);

#[test]
fn a_job_expires_a_grant_that_nobody_touches() {
    let cluster = Cluster::start(
        "cron",
        &[
            ("shared_preload_libraries", "pg_cron"),
            ("cron.database_name", "jobs"),
            // not through a connection: the server listens on no network
            ("cron.use_background_workers", "on"),
            ("max_worker_processes", "16"),
        ],
    );
    let mut session = cluster.new_database("jobs");
    session.exec("create extension pg_cron");
    session.exec("select credits.create_wallet('acme')");
    session.exec("select credits.grant_credits('acme', 25)");
    session.exec("select credits.grant_credits('acme', 100, expires_at => clock_timestamp() + interval '2 seconds')");
    // more batches of run_maintenance than there are minutes to wait
    session.exec(
        "select credits.create_wallet('many ' || n), credits.grant_credits('many ' || n, 1, expires_at => clock_timestamp() + interval '1 second')
         from generate_series(1, 4500) n",
    );

    let scheduled = session.lines("select job_name, schedule, command from credits.schedule_jobs() order by 1");
    assert!(!scheduled.is_empty());
    let registered = "select jobname, schedule, command from cron.job order by 1";
    assert_eq!(session.lines(registered), scheduled);
    session.exec("select * from credits.schedule_jobs()");
    assert_eq!(session.lines(registered), scheduled, "scheduling again changes nothing");
    assert_eq!(session.lines("select distinct username, database from cron.job"), ["postgres|jobs"]);

    wait_until("a job has expired the grant", TWO_MINUTES_AND_SOME, || {
        session.one("select count(*) from credits.ledger where kind = 'expiration'") == "4501"
    });
    assert_eq!(
        session.lines(
            "select kind, ledger.amount, balance_after, occurred_at = expires_at
             from credits.ledger join credits.grants using (customer_id, wallet, grant_id)
             where customer_id = 'acme' order by ledger.seq"
        ),
        ["grant|25|25|", "grant|100|125|f", "expiration|-100|25|t"],
        "the expiration is dated at the instant it was due, whenever the job ran"
    );
    wait_until("the runs are recorded", Duration::from_secs(60), || {
        session.one("select count(*) from cron.job_run_details where status in ('starting', 'running')") == "0"
    });
    assert_eq!(session.lines("select distinct status from cron.job_run_details"), ["succeeded"]);

    let unscheduled = session.lines("select job_name, schedule, command from credits.unschedule_jobs() order by 1");
    assert_eq!(unscheduled, scheduled);
    assert_eq!(session.one("select count(*) from cron.job"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn without_pg_cron_scheduling_says_what_to_run_instead() {
    let mut session = shared_cluster().new_database("without_pg_cron");
    for function in ["schedule_jobs", "unschedule_jobs"] {
        let error = session.error(&format!("select * from credits.{function}()"));
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("55000", "wrong_state"), "{error}");
    }
    let hint = session.error("select * from credits.schedule_jobs()").hint;
    assert!(hint.contains("cron.schedule_in_database("), "{hint}");
    assert!(hint.contains("without_pg_cron"), "the command names this database: {hint}");
    assert!(hint.contains("credits.run_maintenance("), "{hint}");
}

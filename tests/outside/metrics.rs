//! What `metrics` and `job_health` tell of that others fetch: deliveries, events to pull, top-ups to claim (SPEC 10).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::new_books;

/// The values of a metric, each with its label.
fn metric(session: &mut Session, name: &str) -> Vec<String> {
    session.lines(&format!(
        "select concat_ws(' ', (select string_agg(value, ' ') from jsonb_each_text(labels)), trim_scale(value))
         from credits.metrics where name = '{name}' order by 1"
    ))
}

fn health(session: &mut Session, task: &str) -> String {
    session
        .lines(&format!("select backlog, oldest_due_at is null, detail from credits.job_health where task = '{task}'"))
        .concat()
}

#[test]
fn nothing_to_fetch_is_healthy() {
    let mut session = new_books("nothing_to_fetch_is_healthy");
    for task in ["webhooks", "claim_events", "top_ups"] {
        assert_eq!(health(&mut session, task), "0|t|", "{task}");
    }
    assert_eq!(session.one("select sum(value) from credits.metrics where name in ('credits_backlog', 'credits_unhealthy')"), "0");
    assert_eq!(metric(&mut session, "credits_top_ups_open"), ["claimed 0", "pending 0"]);
}

#[test]
fn deliveries_are_counted_by_endpoint_and_what_was_given_up_is_told() {
    let mut session = new_books("deliveries_counted_by_endpoint");
    session.exec(
        "select credits.create_webhook_endpoint('https://example.com/a', array['wallet.balance_low']);
         select credits.create_alert('acme', 'default', threshold_credits => n) from generate_series(1, 3) n",
    );
    let endpoint = session.one("select endpoint_id from credits.webhook_endpoints");
    assert_eq!(health(&mut session, "webhooks"), "3|f|");
    assert_eq!(health(&mut session, "claim_events"), "3|f|");
    assert_eq!(metric(&mut session, "credits_webhook_pending"), [format!("{endpoint} 3")]);
    session.exec(
        "update credits_data.webhook_deliveries set attempts = 2 where delivery_id = (select max(delivery_id::text)::uuid from credits_data.webhook_deliveries);
         update credits_data.webhook_deliveries set status = 'dead' where attempts = 0;
         update credits_data.webhook_deliveries set created_at = clock_timestamp() - interval '6 minutes'",
    );
    assert_eq!(metric(&mut session, "credits_webhook_failing"), [format!("{endpoint} 1")]);
    assert_eq!(metric(&mut session, "credits_webhook_dead"), [format!("{endpoint} 2")]);
    let told = health(&mut session, "webhooks");
    assert!(told.starts_with("1|f|undelivered for more than 5 minutes") && told.contains("2 deliveries were given up"), "{told}");
    assert_eq!(metric(&mut session, "credits_unhealthy").iter().filter(|line| line.ends_with(" 1")).count(), 1);
    session.exec("update credits_data.webhook_endpoints set disabled_at = clock_timestamp()");
    let told = health(&mut session, "webhooks");
    assert!(told.starts_with("0|t|1 endpoints are disabled"), "what is disabled is not waited for: {told}");
    assert_eq!(metric(&mut session, "credits_webhook_disabled"), [format!("{endpoint} 1")]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn events_that_nobody_pulls_any_more_are_told() {
    let mut session = new_books("events_nobody_pulls_any_more");
    session.exec("select credits.create_alert('acme', 'default', threshold_credits => 1)");
    session.exec("update credits_data.events set written_at = clock_timestamp() - interval '1 hour'");
    assert_eq!(health(&mut session, "claim_events"), "1|f|", "where nobody ever pulled, nobody is missed");
    session.exec("select credits.ack_events(array(select event_id from credits.claim_events()))");
    session.exec("select credits.create_alert('acme', 'default', threshold_credits => 2)");
    assert_eq!(health(&mut session, "claim_events"), "1|f|");
    session.exec("update credits_data.events set written_at = clock_timestamp() - interval '1 hour'");
    assert!(health(&mut session, "claim_events").starts_with("1|f|events are not acknowledged for more than 5 minutes"));
}

#[test]
fn top_ups_that_wait_and_rules_that_were_disabled_are_told() {
    let mut session = new_books("top_ups_that_wait_are_told");
    session.exec("select credits.set_auto_top_up('acme', 'default', 10, 100)");
    assert_eq!(health(&mut session, "top_ups"), "1|f|");
    assert_eq!(metric(&mut session, "credits_top_ups_open"), ["claimed 0", "pending 1"]);
    session.set_clock("2026-01-01 00:06+00");
    assert!(health(&mut session, "top_ups").starts_with("1|f|waiting to be claimed for more than 5 minutes"));
    session.exec("select * from credits.claim_top_ups()");
    assert_eq!(health(&mut session, "top_ups"), "0|t|");
    assert_eq!(metric(&mut session, "credits_top_ups_open"), ["claimed 1", "pending 0"]);
    for _ in 0..5 {
        session.exec("select credits.fail_top_up('acme', top_up_id, 'declined', '0') from credits.top_ups");
    }
    assert!(health(&mut session, "top_ups").starts_with("0|t|1 auto top-ups were disabled after failed payments"));
    assert_eq!(metric(&mut session, "credits_auto_top_ups_disabled_by_failures"), ["1"]);
    assert_ledger_is_sound(&mut session);
}

//! Webhook endpoints, the pull door and what else of webhooks is called from SQL (SPEC 9).

use std::collections::BTreeSet;
use std::thread;

use pgrx_tests::{DbErrorInfo, Session, shared_cluster};

/// A secret that tests may know.
pub const SECRET: &str = "whsec_dGVzdCBzZWNyZXQgb2YgdGhlIHRlc3RzIG9ubHkuLi4=";

pub const OTHER_SECRET: &str = "whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhlIHRlc3RzIG9ubHk=";

/// Writes events `<name>-<first>` to `<name>-<last>` as the ledger does, each with a delivery to every endpoint whose URL begins
/// with `url`; with an empty one, to none.
pub fn emit(session: &mut Session, url: &str, name: &str, first: u32, last: u32) {
    session.exec(&emitting(url, name, first, last));
}

pub fn emitting(url: &str, name: &str, first: u32, last: u32) -> String {
    format!(
        "with e as (
             insert into credits_data.events (created_at, event_id, type, customer_id, payload)
             select clock_timestamp(), '{name}-' || n, 'wallet.balance_low', 'acme',
                    jsonb_build_object('type', 'wallet.balance_low', 'data', jsonb_build_object('n', n, 'name', 'é \"1\" \\'))
             from generate_series({first}, {last}) n order by n
             returning event_number, event_id, customer_id
         )
         insert into credits_data.webhook_deliveries (event_number, delivery_id, endpoint_id, event_id, customer_id)
         select event_number, gen_random_uuid(), w.endpoint_id, event_id, e.customer_id
         from e join credits_data.webhook_endpoints w on '{url}' <> '' and starts_with(w.url, '{url}')
         order by event_number"
    )
}

fn refusal(error: &DbErrorInfo) -> (&str, &str) {
    (error.sqlstate.as_str(), error.symbol())
}

#[test]
fn an_endpoint_subscribes_to_some_types_or_to_all() {
    let mut session = shared_cluster().new_database("endpoint_types");
    let some = session.one(
        "select credits.create_webhook_endpoint('https://example.com/a', array['grant.expired', 'grant.created', 'grant.expired'])",
    );
    session.exec("select credits.create_webhook_endpoint('https://example.com/b')");
    assert_eq!(
        session.lines("select url, event_types, customer_id, alert_id, disabled_at from credits.webhook_endpoints order by url"),
        ["https://example.com/a|{grant.created,grant.expired}|||", "https://example.com/b||||"]
    );
    assert_eq!(session.one(&format!("select left('{some}', 15)::text ~ '^[0-9a-f-]+$' and substr('{some}', 15, 1) = '7'")), "t");
    assert_eq!(
        session.lines("select count(distinct secret), min(length(secret)) from credits_data.webhook_endpoints"),
        ["2|50"],
        "each gets a secret of 32 bytes of its own"
    );
}

#[test]
fn an_endpoint_that_must_not_be_called_is_refused_and_nothing_secret_is_repeated() {
    let mut session = shared_cluster().new_database("endpoint_refused");
    let urls = [
        "http://example.com/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://2130706433/",
        "https://[::ffff:127.0.0.1]/",
        "https://user:hunter2@example.com/",
        "no url",
        "",
        "https://169.254.169.254/latest/meta-data",
    ];
    for url in urls {
        let error = session.error(&format!("select credits.create_webhook_endpoint('{url}')"));
        assert_eq!(refusal(&error), ("22023", "invalid_argument"), "{url}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let wrong = [
        ("'https://example.com', array['grant.expired', 'nothing']", "22023"),
        ("'https://example.com', '{}'", "22023"),
        ("'https://example.com', array[null]", "22023"),
        ("'https://example.com', secret => 'whsec_hunter2'", "22023"),
        ("null", "22004"),
    ];
    for (arguments, sqlstate) in wrong {
        let error = session.error(&format!("select credits.create_webhook_endpoint({arguments})"));
        assert_eq!(error.sqlstate, sqlstate, "{arguments}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert_eq!(session.one("select count(*) from credits.webhook_endpoints"), "0");
}

#[test]
fn rotation_keeps_the_old_secret_for_the_overlap() {
    let mut session = shared_cluster().new_database("rotation");
    let id = session.one(&format!("select credits.create_webhook_endpoint('https://example.com/a', null, '{SECRET}')"));
    assert_eq!(session.one(&format!("select credits.rotate_webhook_secret('{id}', '{OTHER_SECRET}', '2 hours')")), id);
    assert_eq!(
        session.lines(
            "select secret, previous_secret, previous_secret_until between now() + interval '119 minutes' and now() + interval '2 hours'
             from credits_data.webhook_endpoints"
        ),
        [format!("{OTHER_SECRET}|{SECRET}|t")]
    );
    session.exec(&format!("select credits.rotate_webhook_secret('{id}')"));
    assert_eq!(
        session.lines(&format!("select secret <> '{OTHER_SECRET}', previous_secret from credits_data.webhook_endpoints")),
        [format!("t|{OTHER_SECRET}")]
    );
    let error = session.error("select credits.rotate_webhook_secret(gen_random_uuid())");
    assert_eq!(refusal(&error), ("P0002", "not_found"), "{error}");
    let error = session.error(&format!("select credits.rotate_webhook_secret('{id}', overlap => '-1 day')"));
    assert_eq!(error.sqlstate, "22023", "{error}");
}

#[test]
fn a_dropped_or_disabled_endpoint_is_not_replayed_to() {
    let mut session = shared_cluster().new_database("drop_endpoint");
    let id = session.one("select credits.create_webhook_endpoint('https://example.com/a')");
    emit(&mut session, "https://example.com/a", "e", 1, 1);
    let delivery = session.one("select delivery_id from credits.webhook_deliveries");
    let replay = format!("select credits.replay_webhook('{delivery}')");
    session.exec(
        "update credits_data.webhook_deliveries set status = 'dead', attempts = 10, last_error = 'answered with status 500'",
    );
    assert_eq!(session.one(&replay), delivery);
    let shown = "select event_id, type, customer_id, url, status, attempts, next_attempt_at <= clock_timestamp(), last_error from credits.webhook_deliveries";
    assert_eq!(session.lines(shown), ["e-1|wallet.balance_low|acme|https://example.com/a|pending|0|t|answered with status 500"]);
    session.exec("update credits_data.webhook_endpoints set disabled_at = now(), disabled_reason = 'answered with status 410'");
    assert_eq!(refusal(&session.error(&replay)), ("55000", "wrong_state"));
    assert_eq!(session.one(&format!("select credits.enable_webhook_endpoint('{id}')")), id);
    assert_eq!(session.lines("select disabled_at, disabled_reason from credits.webhook_endpoints"), ["|"]);
    session.exec(&replay);
    assert_eq!(session.one(&format!("select credits.drop_webhook_endpoint('{id}')")), id);
    assert_eq!(session.lines(shown), ["e-1|wallet.balance_low|acme||dead|0||answered with status 500"]);
    assert_eq!(refusal(&session.error(&replay)), ("55000", "wrong_state"));
    for call in ["drop_webhook_endpoint", "enable_webhook_endpoint", "replay_webhook"] {
        let error = session.error(&format!("select credits.{call}(gen_random_uuid())"));
        assert_eq!(refusal(&error), ("P0002", "not_found"), "{error}");
        assert_eq!(refusal(&session.error(&format!("select credits.{call}(null)"))), ("22004", "null_argument"));
    }
}

#[test]
fn an_endpoint_of_an_alert_goes_with_its_alert_only() {
    let mut session = shared_cluster().new_database("endpoint_of_alert");
    let id = session.one("select credits.create_webhook_endpoint('https://example.com/a')");
    session.exec("update credits_data.webhook_endpoints set customer_id = 'acme', alert_id = gen_random_uuid()");
    assert_eq!(refusal(&session.error(&format!("select credits.drop_webhook_endpoint('{id}')"))), ("55000", "wrong_state"));
}

#[test]
fn events_are_pulled_oldest_first_and_come_again_until_they_are_acknowledged() {
    let mut session = shared_cluster().new_database("pull");
    emit(&mut session, "", "e", 1, 5);
    let claim = |session: &mut Session, arguments: &str| {
        session.lines(&format!("select event_id from credits.claim_events({arguments})"))
    };
    assert_eq!(
        session.lines("select event_id, type, customer_id, created_at <= clock_timestamp(), payload -> 'data' ->> 'n' from credits.claim_events(2)"),
        ["e-1|wallet.balance_low|acme|t|1", "e-2|wallet.balance_low|acme|t|2"]
    );
    assert_eq!(claim(&mut session, "2, '1 microsecond'"), ["e-3", "e-4"]);
    assert_eq!(claim(&mut session, ""), ["e-3", "e-4", "e-5"], "a lease that has run out is no hindrance");
    assert_eq!(claim(&mut session, ""), [""; 0]);
    assert_eq!(session.one("select credits.ack_events(array['e-1', 'e-4', 'e-4', 'unknown'])"), "2");
    assert_eq!(session.one("select credits.ack_events(array['e-1'])"), "0");
    assert_eq!(session.one("select credits.ack_events('{}')"), "0");
    session.exec("update credits_data.events set leased_until = now() - interval '1 second'");
    assert_eq!(claim(&mut session, ""), ["e-2", "e-3", "e-5"]);
    for (call, sqlstate) in [
        ("claim_events(null)", "22004"),
        ("claim_events(lease => null)", "22004"),
        ("claim_events(0)", "22023"),
        ("claim_events(-1)", "22023"),
        ("claim_events(1, '0')", "22023"),
        ("claim_events(1, '101 years')", "22003"),
        ("ack_events(null)", "22004"),
        ("ack_events(array['e-1', null])", "22023"),
        ("ack_events('{{a},{b}}')", "22023"),
    ] {
        let error = session.error(&format!("select * from credits.{call}"));
        assert_eq!(error.sqlstate, sqlstate, "{call}: {error}");
        assert!(!error.symbol().is_empty(), "{error}");
    }
}

#[test]
fn sessions_that_claim_at_once_get_different_events() {
    const SESSIONS: usize = 8;
    let database = "claim_at_once";
    let mut session = shared_cluster().new_database(database);
    emit(&mut session, "", "e", 1, 1000);
    let claimed: Vec<String> = thread::scope(|scope| {
        let claim = || {
            let mut session = shared_cluster().session(database);
            let mut mine = Vec::new();
            loop {
                let events = session.lines("select event_id from credits.claim_events(7)");
                if events.is_empty() {
                    return mine;
                }
                let ids = events.join(",");
                assert_eq!(session.one(&format!("select credits.ack_events('{{{ids}}}')")), events.len().to_string());
                mine.extend(events);
            }
        };
        let threads: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no session fails")).collect()
    });
    // A session that finds the rest locked ends early; what another one held was handled by that one.
    assert_eq!(claimed.len(), 1000);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 1000);
}

#[test]
fn old_events_are_purged_unless_they_are_still_to_be_delivered() {
    let mut session = shared_cluster().new_database("purge_events");
    for path in ["a", "disabled"] {
        session.exec(&format!("select credits.create_webhook_endpoint('https://example.com/{path}')"));
    }
    emit(&mut session, "https://example.com/", "delivered", 1, 3);
    session.exec("update credits_data.webhook_deliveries set status = 'delivered'");
    emit(&mut session, "https://example.com/a", "pending", 1, 1);
    emit(&mut session, "https://example.com/disabled", "disabled", 1, 1);
    emit(&mut session, "", "pulled", 1, 1);
    session.exec(
        "update credits_data.webhook_endpoints set disabled_at = now() where url ~ 'disabled';
         update credits_data.events set written_at = now() - interval '31 days'",
    );
    emit(&mut session, "", "new", 1, 1);
    let purge = "select credits_data.purge_events(now() - interval '30 days', 2)";
    assert_eq!([session.one(purge), session.one(purge), session.one(purge), session.one(purge)], ["2", "2", "1", "0"]);
    assert_eq!(session.lines("select event_id from credits_data.events order by 1"), ["new-1", "pending-1"]);
    assert_eq!(session.lines("select event_id from credits.webhook_deliveries"), ["pending-1"]);
}

#[test]
fn no_level_can_read_a_secret() {
    let mut session = shared_cluster().new_database("webhook_levels");
    shared_cluster().create_role("hooks_admin");
    session.exec("select credits.grant_access('hooks_admin', 'admin')");
    let mut admin = shared_cluster().session_as("webhook_levels", "hooks_admin");
    let id = admin.one("select credits.create_webhook_endpoint('https://example.com/a')");
    assert_eq!(admin.one("select endpoint_id from credits.webhook_endpoints"), id);
    assert_eq!(admin.lines("select * from credits.webhook_deliveries"), [""; 0]);
    assert_eq!(admin.error("select secret from credits_data.webhook_endpoints").sqlstate, "42501");
    let row = admin.lines("select * from credits.webhook_endpoints").join("");
    assert!(!row.contains("whsec_"), "{row}");
    session.exec("select credits.grant_access('hooks_admin', 'writer')");
    assert_eq!(admin.lines("select * from credits.claim_events()"), [""; 0]);
    assert_eq!(admin.error("select credits.create_webhook_endpoint('https://example.com/a')").sqlstate, "42501");
    session.exec("select credits.grant_access('hooks_admin', 'reader')");
    assert_eq!(admin.error("select credits.ack_events('{}')").sqlstate, "42501");
}

//! Deliveries by the background worker, to receivers that behave and receivers that do not (SPEC 9).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgrx_tests::{Answer, Authority, Cluster, Received, Receiver, Session, wait_until};

use crate::webhooks::{OTHER_SECRET, SECRET, emit};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Of one attempt, on the shared cluster.
const TIMEOUT_MS: u64 = 1000;

/// Settings under which the worker runs and may talk to this machine; `more` comes after them.
pub fn settings<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own = [
        ("shared_preload_libraries", "pg_credits"),
        ("credits.webhook_allowed_hosts", "127.0.0.1"),
        ("credits.webhook_timeout", "1s"),
        ("credits.webhook_concurrency", "16"),
    ];
    [&own, more].concat()
}

/// Starts a server with the worker at a database `hooks`, which has the extension.
pub fn delivering(name: &str, more: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::start(name, &settings(more));
    cluster.create_database("hooks");
    // Only now, so that the worker need not wait for its database.
    cluster.configure(&settings(&[more, &[("credits.webhook_database", "hooks")]].concat()));
    reload(&cluster);
    cluster
}

pub fn reload(cluster: &Cluster) {
    cluster.session("postgres").exec("select pg_reload_conf()");
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::default)
}

/// The server that the tests here share. Each has an endpoint of its own, with a receiver behind it.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let file = std::env::temp_dir().join(format!("pg_credits-authority-{}.pem", std::process::id()));
        std::fs::write(&file, authority().pem()).expect("a file for the authority");
        delivering("webhooks", &[("credits.webhook_ca_file", file.to_str().expect("a plain name"))])
    })
}

/// Subscribes a URL on the shared server, and returns a session and the endpoint's id.
fn subscribed(url: &str) -> (Session, String) {
    let mut session = cluster().session("hooks");
    let id = session.one(&format!("select credits.create_webhook_endpoint('{url}', secret => '{SECRET}')"));
    (session, id)
}

/// Sends one event to a receiver that answers so, and returns what is recorded of the first attempt: status, HTTP status, error,
/// attempts; and for how many seconds the next attempt is put off.
fn first_attempt(name: &str, answer: Answer) -> (String, f64, Receiver) {
    let receiver = Receiver::start(move |_| answer.clone());
    let (mut session, id) = subscribed(&receiver.url("/"));
    emit(&mut session, &receiver.url("/"), name, 1, 1);
    let attempted = format!("select count(*) from credits.webhook_deliveries where endpoint_id = '{id}' and attempts > 0");
    wait_until("the first attempt is recorded", PATIENCE, || session.one(&attempted) == "1");
    let recorded = session.one(&format!(
        "select concat_ws('|', status, last_status, last_error, attempts, delivered_at is not null)
         from credits.webhook_deliveries where endpoint_id = '{id}'"
    ));
    let wait = session.one(&format!(
        "select coalesce(extract(epoch from next_attempt_at - attempted_at), 0) from credits.webhook_deliveries where endpoint_id = '{id}'"
    ));
    // Nothing more is to come of it.
    session.exec(&format!("select credits.drop_webhook_endpoint('{id}')"));
    (recorded, wait.parse().expect("seconds"), receiver)
}

fn delivered(session: &mut Session, name: &str) -> usize {
    let sql = format!("select count(*) from credits.webhook_deliveries where event_id ~ '^{name}-' and status = 'delivered'");
    session.one(&sql).parse().expect("a number")
}

#[test]
fn an_event_arrives_signed_with_the_payload_as_it_is() {
    let receiver = Receiver::start(|_| Answer::Status(204));
    let (mut session, _) = subscribed(&receiver.url("/hooks?a=b"));
    emit(&mut session, &receiver.url("/hooks"), "signed", 1, 3);
    wait_until("all have arrived", PATIENCE, || delivered(&mut session, "signed") == 3);
    let received = receiver.received();
    assert_eq!(receiver.event_ids(), ["signed-1", "signed-2", "signed-3"], "in the order of the events");
    for request in &received {
        assert!(request.is_signed_by(SECRET), "{request:?}");
        assert!(!request.is_signed_by(OTHER_SECRET), "{request:?}");
        assert_eq!(request.path, "/hooks?a=b");
        assert_eq!(request.header("content-type"), "application/json");
        assert!(request.header("user-agent").starts_with("pg_credits/"), "{request:?}");
        let payload =
            session.one(&format!("select payload::text from credits_data.events where event_id = '{}'", request.event_id()));
        assert_eq!(String::from_utf8_lossy(&request.body), payload);
    }
    assert_eq!(
        session.lines("select distinct attempts, last_status, last_error, next_attempt_at, delivered_at >= created_at from credits.webhook_deliveries where event_id ~ '^signed-'"),
        ["1|204|||t"]
    );
}

#[test]
fn over_tls_a_receiver_of_a_known_authority_is_trusted_and_no_other() {
    let receiver = Receiver::start_tls(authority(), |_| Answer::Status(200));
    let stranger = Receiver::start_tls(&Authority::default(), |_| Answer::Status(200));
    let (mut session, _) = subscribed(&receiver.url("/"));
    let (_, unknown) = subscribed(&stranger.url("/"));
    emit(&mut session, &receiver.url("/"), "tls", 1, 20);
    emit(&mut session, &stranger.url("/"), "stranger", 1, 1);
    wait_until("all have arrived", PATIENCE, || delivered(&mut session, "tls") == 20);
    assert!(receiver.received().iter().all(|request| request.is_signed_by(SECRET)));
    let error = format!("select last_error from credits.webhook_deliveries where endpoint_id = '{unknown}'");
    wait_until("the attempt has failed", PATIENCE, || session.one_or_null(&error).is_some());
    let error = session.one(&error);
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert_eq!(stranger.count(), 0);
    session.exec(&format!("select credits.drop_webhook_endpoint('{unknown}')"));
}

#[test]
fn what_is_not_2xx_is_tried_again_after_five_seconds() {
    for status in [500, 404] {
        let (recorded, wait, _) = first_attempt(&format!("status{status}"), Answer::Status(status));
        assert_eq!(recorded, format!("pending|{status}|answered with status {status}|1|f"));
        assert!((4.0..=6.0).contains(&wait), "{wait}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let target = Receiver::start(|_| Answer::Status(200));
    for status in [301, 302, 307, 308] {
        let (recorded, _, receiver) =
            first_attempt(&format!("redirect{status}"), Answer::Header(status, "location", target.url("/stolen")));
        assert_eq!(recorded, format!("pending|{status}|answered with status {status}: redirects are not followed|1|f"));
        assert_eq!(receiver.count(), 1);
    }
    assert_eq!(target.count(), 0);
}

#[test]
fn retry_after_is_respected_if_it_is_later_than_the_schedule() {
    let asked = |name: &str, status: u16, value: &str| first_attempt(name, Answer::Header(status, "retry-after", value.into())).1;
    assert!((119.9..=120.1).contains(&asked("after120", 429, "120")));
    assert!((4.0..=6.0).contains(&asked("after1", 503, "1")));
    assert!((86_399.0..=86_401.0).contains(&asked("after_long", 503, "9999999")), "at most a day");
    assert!((86_399.0..=86_401.0).contains(&asked("after_date", 429, "Fri, 31 Dec 2100 23:59:59 GMT")));
    assert!((4.0..=6.0).contains(&asked("after_500", 500, "120")), "only of 429 and 503");
}

#[test]
fn an_attempt_is_bounded_in_time_whatever_the_receiver_does() {
    for (name, answer) in [("hang", Answer::Hang), ("drip", Answer::Drip)] {
        let start = Instant::now();
        let (recorded, ..) = first_attempt(name, answer);
        let took = start.elapsed();
        assert_eq!(recorded, "pending|no complete answer within credits.webhook_timeout|1|f", "{name}");
        assert!(took >= Duration::from_millis(TIMEOUT_MS), "{name}: {took:?}");
    }
    let (recorded, ..) = first_attempt("hangup", Answer::HangUp);
    assert!(recorded.starts_with("pending|") && recorded.ends_with("|1|f"), "{recorded}");
}

#[test]
fn an_answer_of_a_gigabyte_is_not_read() {
    let (recorded, _, receiver) = first_attempt("flood", Answer::Flood);
    assert_eq!(recorded, "delivered|200|1|t", "the status is the answer");
    assert!(receiver.bytes_sent() < 50_000_000, "{}", receiver.bytes_sent());
}

#[test]
fn an_endpoint_that_is_gone_is_disabled_and_its_deliveries_are_dead() {
    let receiver = Receiver::start(|_| Answer::Status(410));
    let (mut session, id) = subscribed(&receiver.url("/"));
    emit(&mut session, &receiver.url("/"), "gone", 1, 60);
    let disabled =
        format!("select disabled_reason from credits.webhook_endpoints where endpoint_id = '{id}' and disabled_at is not null");
    wait_until("it is disabled", PATIENCE, || session.lines(&disabled) == ["answered with status 410"]);
    assert_eq!(
        session.lines(&format!(
            "select status, sum(attempts), min(last_error), max(last_error) from credits.webhook_deliveries where endpoint_id = '{id}' group by 1"
        )),
        ["dead|1|answered with status 410|answered with status 410"]
    );
    assert_eq!(receiver.count(), 1);
    assert!(cluster().log().contains(&format!("has disabled webhook endpoint {id}")));
}

#[test]
fn dead_letters_are_replayed_under_the_same_id() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let receiver = Receiver::start(move |_| Answer::Status(if is_well.load(Ordering::Relaxed) { 200 } else { 500 }));
    let (mut session, _) = subscribed(&receiver.url("/"));
    // Nine attempts have failed.
    session.exec("begin");
    emit(&mut session, &receiver.url("/"), "dead", 1, 1);
    session.exec("update credits_data.webhook_deliveries set attempts = 9 where event_id = 'dead-1'; commit");
    let shown = "select concat_ws('|', status, attempts, last_status, next_attempt_at is null) from credits.webhook_deliveries where event_id = 'dead-1'";
    wait_until("it is given up", PATIENCE, || session.one(shown) == "dead|10|500|t");
    assert!(cluster().log().contains("of event dead-1 to endpoint"), "the log says so");
    well.store(true, Ordering::Relaxed);
    session.exec("select credits.replay_webhook(delivery_id) from credits.webhook_deliveries where event_id = 'dead-1'");
    wait_until("it arrives", PATIENCE, || session.one(shown) == "delivered|1|200|t");
    assert_eq!(receiver.event_ids(), ["dead-1", "dead-1"]);
    let bodies: Vec<Vec<u8>> = receiver.received().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies[0], bodies[1], "the same bytes in each attempt");
    session.exec("select credits.replay_webhook(delivery_id) from credits.webhook_deliveries where event_id = 'dead-1'");
    wait_until("what had arrived arrives again", PATIENCE, || receiver.count() == 3);
}

#[test]
fn a_failed_attempt_is_repeated_and_arrives() {
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| Answer::Status(if count.fetch_add(1, Ordering::Relaxed) == 0 { 503 } else { 200 }));
    let (mut session, _) = subscribed(&receiver.url("/"));
    emit(&mut session, &receiver.url("/"), "again", 1, 1);
    wait_until("it arrives", PATIENCE, || delivered(&mut session, "again") == 1);
    let received = receiver.received();
    assert_eq!(receiver.event_ids(), ["again-1", "again-1"]);
    assert!(received.iter().all(|request| request.is_signed_by(SECRET)));
    assert_ne!(received[0].header("webhook-timestamp"), received[1].header("webhook-timestamp"), "of the attempt, in real time");
}

#[test]
fn during_a_rotation_both_secrets_sign() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let (mut session, id) = subscribed(&receiver.url("/"));
    session.exec(&format!("select credits.rotate_webhook_secret('{id}', '{OTHER_SECRET}')"));
    emit(&mut session, &receiver.url("/"), "rotating", 1, 1);
    wait_until("it arrives", PATIENCE, || receiver.count() == 1);
    session.exec(
        "update credits_data.webhook_endpoints set previous_secret_until = clock_timestamp() where previous_secret is not null",
    );
    emit(&mut session, &receiver.url("/"), "rotated", 1, 1);
    wait_until("it arrives", PATIENCE, || receiver.count() == 2);
    let signed = |request: &Received| (request.is_signed_by(SECRET), request.is_signed_by(OTHER_SECRET));
    let received = receiver.received();
    assert_eq!((signed(&received[0]), signed(&received[1])), ((true, true), (false, true)));
    assert_eq!(received[0].header("webhook-signature").split(' ').count(), 2);
}

#[test]
fn a_slow_endpoint_does_not_hold_up_another() {
    let slow = Receiver::start(|_| Answer::Hang);
    let fast = Receiver::start(|_| Answer::Status(200));
    // Written before the other's, more than one batch of them.
    let (mut session, slow_id) = subscribed(&slow.url("/"));
    subscribed(&fast.url("/"));
    emit(&mut session, &slow.url("/"), "slow", 1, 300);
    wait_until("the slow one is being sent to", PATIENCE, || slow.count() > 0);
    emit(&mut session, &fast.url("/"), "fast", 1, 300);
    wait_until("all have arrived at the fast one", PATIENCE, || delivered(&mut session, "fast") == 300);
    assert!(slow.count() < 30, "the slow one holds up itself: {}", slow.count());
    session.exec(&format!("select credits.drop_webhook_endpoint('{slow_id}')"));
}

#[test]
fn an_endpoint_has_one_request_in_flight() {
    let (now, most) = (AtomicUsize::new(0), Arc::new(Mutex::new(0)));
    let noted = Arc::clone(&most);
    let receiver = Receiver::start(move |_| {
        let count = now.fetch_add(1, Ordering::SeqCst) + 1;
        let mut most = noted.lock().expect("no thread panics with this lock");
        *most = count.max(*most);
        drop(most);
        now.fetch_sub(1, Ordering::SeqCst);
        Answer::Status(200)
    });
    let (mut session, _) = subscribed(&receiver.url("/"));
    emit(&mut session, &receiver.url("/"), "flight", 1, 200);
    wait_until("all have arrived", PATIENCE, || delivered(&mut session, "flight") == 200);
    assert_eq!(*most.lock().expect("no thread panics with this lock"), 1);
    let ids: Vec<String> = (1..=200).map(|number| format!("flight-{number}")).collect();
    assert_eq!(receiver.event_ids(), ids, "in order, each once");
}

#[test]
fn addresses_that_are_not_public_are_refused() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let cluster = delivering("refusing", &[("credits.webhook_allowed_hosts", "")]);
    let mut session = cluster.session("hooks");
    let port = receiver.port();
    let hosts = [
        "localhost",
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
        "100.64.0.1",
        "0.0.0.0",
        "[64:ff9b::7f00:1]",
        "localhost.",
    ];
    // Past the checks of create_webhook_endpoint, as a name would be whose address changed later.
    for host in hosts {
        session.exec(&format!(
            "insert into credits_data.webhook_endpoints (created_at, endpoint_id, url, secret)
             values (now(), gen_random_uuid(), 'https://{host}:{port}/', '{SECRET}')"
        ));
    }
    // A name of this machine that says nothing about its address.
    let name = std::fs::read_to_string("/etc/hostname").expect("this machine has a name").trim().to_owned();
    session.exec(&format!(
        "insert into credits_data.webhook_endpoints (created_at, endpoint_id, url, secret)
         values (now(), gen_random_uuid(), 'https://{name}:{port}/', '{SECRET}'),
                (now(), gen_random_uuid(), 'http://127.0.0.1:{port}/', '{SECRET}')"
    ));
    emit(&mut session, "http", "refused", 1, 1);
    let waiting = "select count(*) from credits.webhook_deliveries where attempts = 0";
    wait_until("all were attempted", PATIENCE, || session.one(waiting) == "0");
    let errors = session.lines("select distinct last_error from credits.webhook_deliveries order by 1");
    let is_refusal = |error: &String| {
        error.contains("its host is not public") || error.contains("no public address") || error.contains("not https")
    };
    assert!(errors.iter().all(is_refusal), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("no public address")), "by its address, too: {errors:?}");
    assert_eq!(receiver.count(), 0);
    // A superuser allows this one.
    cluster.configure(&settings(&[
        ("credits.webhook_database", "hooks"),
        ("credits.webhook_allowed_hosts", &format!("127.0.0.1:{port}")),
    ]));
    reload(&cluster);
    session.exec("select credits.replay_webhook(delivery_id) from credits.webhook_deliveries where url ~ '^http://'");
    wait_until("it arrives", PATIENCE, || receiver.count() == 1);
}

#[test]
fn who_holds_an_endpoint_holds_up_no_other() {
    let receivers = [Receiver::start(|_| Answer::Status(200)), Receiver::start(|_| Answer::Status(200))];
    let (mut session, held) = subscribed(&receivers[0].url("/"));
    subscribed(&receivers[1].url("/"));
    let mut holder = cluster().session("hooks");
    holder.exec(&format!("begin; select credits.rotate_webhook_secret('{held}', '{OTHER_SECRET}')"));
    for number in 1..=3 {
        emit(&mut session, &receivers[0].url("/"), &format!("held{number}"), 1, 1);
        emit(&mut session, &receivers[1].url("/"), &format!("free{number}"), 1, 1);
        wait_until("the other one's arrives", PATIENCE, || delivered(&mut session, &format!("free{number}")) == 1);
    }
    assert_eq!(delivered(&mut session, "held1"), 0, "nobody has written what came of it");
    holder.exec("rollback");
    for number in 1..=3 {
        wait_until("it is recorded", PATIENCE, || delivered(&mut session, &format!("held{number}")) == 1);
    }
}

#[test]
fn who_asks_to_be_left_alone_is_asked_no_more() {
    let receiver = Receiver::start(|_| Answer::Header(429, "retry-after", "3600".into()));
    let (mut session, _) = subscribed(&receiver.url("/"));
    session.exec("begin");
    emit(&mut session, &receiver.url("/"), "alone", 1, 40);
    session.exec("commit");
    let later = "select count(*) from credits.webhook_deliveries where event_id like 'alone-%' and next_attempt_at > now() + interval '50 minutes'";
    wait_until("all wait", PATIENCE, || session.one(later) == "40");
    assert_eq!(receiver.count(), 1);
}

#[test]
fn many_that_hang_leave_helpers_to_one_that_answers() {
    let hanging: Vec<Receiver> = (0..24).map(|_| Receiver::start(|_| Answer::Hang)).collect();
    let fast = Receiver::start(|_| Answer::Status(200));
    let (mut session, _) = subscribed(&fast.url("/"));
    let mut ids = Vec::new();
    for (number, receiver) in hanging.iter().enumerate() {
        ids.push(subscribed(&receiver.url("/")).1);
        emit(&mut session, &receiver.url("/"), &format!("hanging{number}"), 1, 100);
    }
    wait_until("all of them have been tried", PATIENCE, || hanging.iter().all(|receiver| receiver.count() > 0));
    emit(&mut session, &fast.url("/"), "among", 1, 1000);
    wait_until("all have arrived at the one that answers", PATIENCE, || delivered(&mut session, "among") == 1000);
    for id in ids {
        session.exec(&format!("select credits.drop_webhook_endpoint('{id}')"));
    }
}

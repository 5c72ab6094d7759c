//! The webhook worker as a process of the server: it stands in nobody's way, and loses nothing when it is killed (SPEC 9, DESIGN).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgrx_tests::{Answer, Cluster, Receiver, Session, wait_until};

use crate::webhooks::{SECRET, emit, emitting};
use crate::webhooks_delivery::{PATIENCE, delivering, reload, settings};
use crate::workload::{Random, seed};

const WORKERS: &str = "select pid from pg_stat_activity where backend_type = 'pg_credits webhooks'";

fn worker_pid(cluster: &Cluster) -> Option<String> {
    cluster.session("postgres").lines(WORKERS).pop()
}

/// Waits until the worker is connected to a database.
fn wait_for_worker(cluster: &Cluster) -> String {
    let connected = format!("{WORKERS} and datname is not null");
    let mut session = cluster.session("postgres");
    wait_until("the worker is there", PATIENCE, || !session.lines(&connected).is_empty());
    session.one(&connected)
}

fn subscribe(session: &mut Session, receiver: &Receiver) {
    session.exec(&format!("select credits.create_webhook_endpoint('{}', secret => '{SECRET}')", receiver.url("/")));
}

#[test]
fn a_fast_shutdown_does_not_wait_for_a_receiver_that_hangs() {
    let receivers: Vec<Receiver> = (0..4).map(|_| Receiver::start(|_| Answer::Hang)).collect();
    let cluster = delivering("shutdown", &[("credits.webhook_timeout", "60s")]);
    let mut session = cluster.session("hooks");
    for receiver in &receivers {
        subscribe(&mut session, receiver);
    }
    emit(&mut session, "http", "hang", 1, 100);
    wait_until("all receivers hang", PATIENCE, || receivers.iter().all(|receiver| receiver.count() == 1));
    drop(session);
    let start = Instant::now();
    cluster.stop();
    let took = start.elapsed();
    println!("a fast shutdown took {} ms", took.as_millis());
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(cluster.log().contains("database system is shut down"), "{}", cluster.log());
    assert!(!cluster.log().contains("was terminated by signal"), "{}", cluster.log());
}

#[test]
fn the_worker_waits_without_database_and_without_extension() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let cluster = Cluster::start("idle", &settings(&[]));
    assert!(worker_pid(&cluster).is_none(), "without a database it is connected to nothing");
    cluster.create_empty_database("hooks");
    cluster.configure(&settings(&[("credits.webhook_database", "hooks")]));
    reload(&cluster);
    wait_for_worker(&cluster);
    wait_until("it says what it waits for", PATIENCE, || cluster.log().contains("this database has no extension pg_credits"));
    let mut session = cluster.session("hooks");
    session.exec("create extension pg_credits");
    subscribe(&mut session, &receiver);
    emit(&mut session, "http", "late", 1, 2);
    wait_until("both arrive", PATIENCE, || receiver.count() == 2);
}

#[test]
fn the_extension_can_be_dropped_and_created_while_the_worker_delivers() {
    let hanging = Receiver::start(|_| Answer::Hang);
    let receiver = Receiver::start(|_| Answer::Status(200));
    let cluster = delivering("drop_extension", &[("credits.webhook_timeout", "3s")]);
    let mut session = cluster.session("hooks");
    for round in 1..=3 {
        let name = format!("round{round}");
        subscribe(&mut session, &hanging);
        subscribe(&mut session, &receiver);
        emit(&mut session, "http", &name, 1, 2000);
        let hung = round;
        wait_until("attempts run", PATIENCE, || {
            hanging.count() >= hung && receiver.event_ids().iter().any(|id| id.starts_with(&name))
        });
        let start = Instant::now();
        session.exec("drop extension pg_credits");
        println!("drop extension took {} ms", start.elapsed().as_millis());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        session.exec("create extension pg_credits");
        wait_until("the attempts of before are over", PATIENCE, || {
            subscribe_and_see(&mut session, &receiver, &format!("again{round}"))
        });
        session.exec("drop extension pg_credits; create extension pg_credits");
    }
    let log = cluster.log();
    assert!(!log.contains("PANIC") && !log.contains("was terminated by signal") && !log.contains("deadlock"), "{log}");
}

/// Whether one more event arrives within a second.
fn subscribe_and_see(session: &mut Session, receiver: &Receiver, name: &str) -> bool {
    if session.one("select count(*) from credits.webhook_endpoints") == "0" {
        subscribe(session, receiver);
        emit(session, "http", name, 1, 1);
    }
    receiver.event_ids().iter().any(|id| id.starts_with(name))
}

#[test]
fn the_database_can_be_dropped_by_force_or_after_a_reset() {
    let cluster = delivering("drop_database", &[]);
    wait_for_worker(&cluster);
    let mut owner = cluster.session("postgres");
    assert_eq!(owner.error("drop database hooks").sqlstate, "55006", "the worker is connected");
    owner.exec("drop database hooks with (force)");
    cluster.create_database("hooks");
    let before = wait_for_worker(&cluster);
    cluster.configure(&settings(&[]));
    reload(&cluster);
    wait_until("the worker has left", PATIENCE, || worker_pid(&cluster).is_none());
    owner.exec("drop database hooks");
    assert!(cluster.log().contains("credits.webhook_database has changed"), "{before}: {}", cluster.log());
    // Another one, without a restart of the server.
    cluster.create_database("other");
    cluster.configure(&settings(&[("credits.webhook_database", "other")]));
    reload(&cluster);
    wait_for_worker(&cluster);
}

#[test]
fn an_error_is_logged_and_the_worker_goes_on() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let cluster = delivering("sql_error", &[]);
    let mut session = cluster.session("hooks");
    let pid = wait_for_worker(&cluster);
    subscribe(&mut session, &receiver);
    session.exec("alter table credits_data.events rename column payload to payload_away");
    emit_away(&mut session);
    wait_until("the log tells", PATIENCE, || {
        cluster.log().contains("pg_credits cannot deliver webhooks, and tries again in 2 s")
    });
    assert!(cluster.log().contains("column i.payload does not exist"), "{}", cluster.log());
    session.exec("alter table credits_data.events rename column payload_away to payload");
    wait_until("it arrives", PATIENCE, || receiver.count() == 1);
    assert_eq!(wait_for_worker(&cluster), pid, "the same process");
    assert!(!cluster.log().contains("whsec_"), "no secret is logged");
}

fn emit_away(session: &mut Session) {
    session.exec(&emitting("http", "error", 1, 1).replace("customer_id, payload)", "customer_id, payload_away)"));
}

/// How the server or its worker is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    ServerKilled,
    WorkerKilled,
    WorkerTerminated,
}

fn strike(cluster: &Cluster, blow: Blow) {
    if blow == Blow::ServerKilled {
        cluster.kill9();
        return cluster.start_again();
    }
    let pid = wait_for_worker(cluster);
    if blow == Blow::WorkerTerminated {
        return cluster.session("postgres").exec(&format!("select pg_terminate_backend({pid})"));
    }
    let ready = || cluster.log().matches("database system is ready to accept connections").count();
    let before = ready();
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill can be run").success());
    wait_until("the server has recovered", PATIENCE, || ready() > before);
}

/// Writes events until one transaction with them is known to be committed.
fn emit_persistently(cluster: &Cluster, name: &str, count: u32) {
    let present = format!("select count(*) from credits_data.events where event_id ~ '^{name}-'");
    wait_until("events are written", PATIENCE, || {
        let Ok(mut client) =
            pgrx_tests::postgres::Client::connect(&cluster.connection_string("hooks"), pgrx_tests::postgres::NoTls)
        else {
            return false;
        };
        let number = |client: &mut pgrx_tests::postgres::Client| client.query_one(&present, &[]).map(|row| row.get::<_, i64>(0));
        match number(&mut client) {
            Ok(0) => client.batch_execute(&emitting("http", name, 1, count)).is_ok(),
            Ok(_) => true,
            Err(_) => false,
        }
    });
}

#[test]
fn every_event_arrives_under_its_id_though_worker_and_server_are_killed_fifty_times() {
    const EVENTS: u32 = 40;
    let mut blows = [vec![Blow::ServerKilled; 30], vec![Blow::WorkerKilled; 19], vec![Blow::WorkerTerminated; 1]].concat();
    assert_eq!(blows.len(), 50);
    let seed = seed();
    let mut random = Random::new(seed);
    for index in (1..blows.len()).rev() {
        blows.swap(index, random.below(index as u64 + 1) as usize);
    }
    // Some events are refused the first time, so that there are retries, too.
    let receivers: Vec<Receiver> = (0..3)
        .map(|_| {
            let refused = Mutex::new(BTreeSet::new());
            Receiver::start(move |request| {
                let is_picked = request.event_id().ends_with("13");
                let is_first = is_picked && refused.lock().expect("no answer panics").insert(request.event_id().to_owned());
                Answer::Status(if is_first { 500 } else { 200 })
            })
        })
        .collect();
    let cluster = delivering("hooks_crash", &[("synchronous_commit", "on"), ("credits.webhook_timeout", "500ms")]);
    let mut session = cluster.session("hooks");
    for receiver in &receivers {
        subscribe(&mut session, receiver);
    }
    drop(session);
    wait_for_worker(&cluster);
    let start = Instant::now();
    for (number, blow) in blows.iter().enumerate() {
        emit_persistently(&cluster, &format!("crash{number}"), EVENTS);
        let arrived = || receivers.iter().map(Receiver::count).sum::<usize>();
        let target = arrived() + random.between(1, 20) as usize;
        wait_until("deliveries go on", PATIENCE, || arrived() >= target);
        strike(&cluster, *blow);
    }
    println!("50 blows in {} s", start.elapsed().as_secs());
    let mut session = cluster.session("hooks");
    let pending = "select count(*) from credits.webhook_deliveries where status <> 'delivered'";
    wait_until("all is recorded as delivered", Duration::from_secs(90), || session.one(pending) == "0");
    let sent = session.lines("select event_id, payload::text from credits_data.events order by event_id collate \"C\"");
    assert_eq!(sent.len() as u32, 50 * EVENTS, "SEED={seed}");
    let mut twice = 0;
    for receiver in &receivers {
        let received = receiver.received();
        let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for request in &received {
            assert!(request.is_signed_by(SECRET) || is_old(request), "SEED={seed} {request:?}");
            let first = bodies.entry(request.event_id().to_owned()).or_insert_with(|| request.body.clone());
            assert_eq!(*first, request.body, "one id, one body, SEED={seed}");
        }
        let arrived: Vec<String> = bodies.iter().map(|(id, body)| format!("{id}|{}", String::from_utf8_lossy(body))).collect();
        assert_eq!(arrived, sent, "every event under its id, SEED={seed}");
        twice += received.len() - bodies.len();
    }
    println!("{} events to 3 endpoints, {twice} requests more than once, all after {} s", sent.len(), start.elapsed().as_secs());
    let log = cluster.log();
    assert!(!log.contains("PANIC"), "{log}");
}

/// The verifier refuses what was signed more than five minutes ago.
fn is_old(request: &pgrx_tests::Received) -> bool {
    let signed_at: u64 = request.header("webhook-timestamp").parse().expect("seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    now - signed_at > 290
}

#[test]
fn a_local_receiver_gets_two_hundred_deliveries_a_second() {
    const EVENTS: u32 = 6000;
    let receiver = Receiver::start(|_| Answer::Status(200));
    let cluster = delivering("hooks_speed", &[]);
    let mut session = cluster.session("hooks");
    subscribe(&mut session, &receiver);
    wait_for_worker(&cluster);
    let start = Instant::now();
    // As they happen, a transaction each hundred.
    for hundred in 0..EVENTS / 100 {
        emit(&mut session, "http", "speed", hundred * 100 + 1, hundred * 100 + 100);
    }
    let delivered = "select count(*) from credits.webhook_deliveries where status = 'delivered'";
    wait_until("all is delivered", Duration::from_secs(60), || session.one(delivered) == EVENTS.to_string());
    let rate = f64::from(EVENTS) / start.elapsed().as_secs_f64();
    println!("{rate:.0} deliveries a second to one receiver");
    assert!(rate >= 200.0, "{rate:.0} deliveries a second");
    assert_eq!(receiver.count() as u32, EVENTS, "each once");
}

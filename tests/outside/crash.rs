//! Sessions and the whole server are killed in the middle of the work; clients come back and repeat what got no answer.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgrx_tests::postgres::{Client, NoTls, SimpleQueryMessage};
use pgrx_tests::{Cluster, DbErrorInfo, assert_ledger_is_sound, wait_until};

use crate::inbox::METERS;
use crate::workload::{HOLDS_NOT_ENDED_ONCE, Random, Work, is_lost, seed};

const SESSIONS: usize = 8;

/// Units of work answered between two blows, at random up to this.
const PROGRESS_MAX: u64 = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL of every process of the server, as when memory runs out.
    ServerKilled,
    /// SIGKILL of one session, after which the server ends all others and recovers.
    SessionKilled,
    SessionTerminated,
    CallCancelled,
}

/// The process of a random session at work, if there is one.
fn random_session(cluster: &Cluster, database: &str, random: &mut Random) -> Option<String> {
    let mut session = cluster.session("postgres");
    let busy = format!(
        "select pid from pg_stat_activity where datname = '{database}' and backend_type = 'client backend' order by state <> 'active', pid"
    );
    let processes = session.lines(&busy);
    (!processes.is_empty()).then(|| random.pick(&processes))
}

const DEATH: &str = "was terminated by signal 9";
const READY: &str = "database system is ready to accept connections";

fn is_so_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

fn strike(cluster: &Cluster, database: &str, blow: Blow, random: &mut Random) {
    if blow == Blow::ServerKilled {
        cluster.kill9();
        return cluster.start_again();
    }
    let Some(process) = random_session(cluster, database, random) else { return };
    match blow {
        Blow::SessionKilled => {
            let count = |message: &str| cluster.log().matches(message).count();
            let (deaths, recoveries) = (count(DEATH), count(READY));
            let status = Command::new("kill").args(["-9", &process]).status().expect("kill can be run");
            // It may have been ending already.
            if status.success() && is_so_within(Duration::from_secs(5), || count(DEATH) > deaths) {
                wait_until("the server has recovered", Duration::from_secs(60), || count(READY) > recoveries);
            }
        }
        Blow::SessionTerminated => cluster.session("postgres").exec(&format!("select pg_terminate_backend({process})")),
        _ => cluster.session("postgres").exec(&format!("select pg_cancel_backend({process})")),
    }
}

/// Sessions work until all blows have fallen, then each ends what it had begun; so everything sent is known to be there or not.
#[test]
fn nothing_acknowledged_is_lost_or_done_twice_when_sessions_and_servers_are_killed() {
    let blows = [
        [Blow::CallCancelled, Blow::SessionKilled, Blow::SessionTerminated, Blow::ServerKilled].repeat(3),
        [Blow::SessionKilled, Blow::ServerKilled, Blow::CallCancelled, Blow::CallCancelled, Blow::SessionTerminated].repeat(3),
    ]
    .concat();
    let seed = seed();
    let cluster = Cluster::start("crash", &[("synchronous_commit", "on")]);
    let work = Work::begin(&cluster, "books", seed, true);
    let done = AtomicBool::new(false);
    let levels = ["read committed", "read committed", "read committed", "repeatable read"];
    thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (work, done) = (&work, &done);
            scope.spawn(move || {
                let mut worker = work.worker(levels[number % levels.len()]);
                while !done.load(Ordering::Relaxed) {
                    worker.step();
                }
            });
        }
        let mut random = Random::new(seed);
        // Whatever fails here must not leave the workers going.
        let _done = SetAtEnd(&done);
        for blow in blows {
            let target = work.progress() + random.between(1, PROGRESS_MAX) as usize;
            wait_until("the work goes on", Duration::from_secs(60), || work.progress() >= target);
            // Not at the end of a call: in the middle of one.
            thread::sleep(Duration::from_micros(random.below(3_000)));
            strike(&cluster, "books", blow, &mut random);
        }
        let target = work.progress() + 200;
        wait_until("the work goes on after all", Duration::from_secs(60), || work.progress() >= target);
    });
    work.assert_books(&mut cluster.session("books"));
    let log = cluster.log();
    for told in [DEATH, "terminating connection due to administrator command", "canceling statement"] {
        assert!(log.contains(told), "the blows have hit: {told}");
    }
    assert!(!log.contains("PANIC"), "{log}");
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const CUSTOMERS: u64 = 5;

/// So many steps of work make an hour of the ledger's clock.
const STEPS_AN_HOUR: u64 = 12;

/// A client that repeats a call until it is answered, whatever is killed meanwhile.
struct Persistent<'a> {
    cluster: &'a Cluster,
    client: Option<Client>,
}

impl Persistent<'_> {
    fn attempt(&mut self, sql: &str) -> Result<Vec<String>, DbErrorInfo> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.cluster.connection_string("books"), NoTls)?);
        }
        let messages = self.client.as_mut().expect("it was just made").simple_query(sql)?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Copies events into the inbox in a transaction of its own, once at least.
    fn copy(&mut self, lines: &str) {
        let start = Instant::now();
        while let Err(error) = self.attempt_copy(lines) {
            assert!(is_lost(&error) || error.sqlstate == "57014", "{error}");
            // After a COPY that failed the driver takes the answers to the next calls for each other's.
            self.client = None;
            thread::sleep(Duration::from_millis(20));
            assert!(start.elapsed() < Duration::from_secs(60), "events cannot be copied");
        }
    }

    fn attempt_copy(&mut self, lines: &str) -> Result<(), DbErrorInfo> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.cluster.connection_string("books"), NoTls)?);
        }
        let client = self.client.as_mut().expect("it was just made");
        // In a transaction of its own: the driver takes the end of a COPY for its commit, which comes after.
        client.batch_execute("set credits.test_clock = '2026-01-01 00:00+00'; begin")?;
        let mut copying =
            client.copy_in("copy credits.usage_inbox (customer_id, event_id, event_name, properties) from stdin")?;
        // What the connection says of a failure is said by finish, too.
        let _ = copying.write_all(lines.as_bytes());
        copying.finish()?;
        Ok(client.batch_execute("commit")?)
    }

    /// The first column of a call at an hour of the ledger's clock, or why it was refused.
    fn call(&mut self, hour: u64, call: &str) -> Result<String, DbErrorInfo> {
        let start = Instant::now();
        let clock = format!("('2026-01-01 00:00+00'::timestamptz + interval '{hour} hours')::text");
        let sql = format!("select set_config('credits.test_clock', {clock}, true); select {call}");
        loop {
            match self.attempt(&sql) {
                Ok(rows) => return Ok(rows.into_iter().nth(1).unwrap_or_default()),
                Err(error) if is_lost(&error) => {
                    self.client = None;
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) if error.sqlstate == "57014" => {}
                Err(error) => return Err(error),
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no answer to {sql}");
        }
    }
}

/// One thing of a day with renewals: settle, deduct, or hold and capture a part. Notes what was charged under which key.
fn step_of_a_day(session: &mut Persistent, random: &mut Random, hour: u64, key: &str, charged: &Mutex<BTreeMap<String, String>>) {
    let customer = format!("'c{}'", random.below(CUSTOMERS));
    let call = match random.below(4) {
        0 => {
            let settle = random.pick(&["renew_grants(2)", "run_maintenance(2)", "expire_grants(2)"]);
            session.call(hour, &format!("count(*) from credits.{settle}")).expect("nothing refuses maintenance");
            return;
        }
        1 => format!("deducted from credits.deduct_usage({customer}, 3, '{key}')"),
        _ => {
            let hold = format!("held from credits.hold_credits({customer}, 4, '2 hours', idempotency_key => 'h-{key}')");
            if let Err(error) = session.call(hour, &hold) {
                return assert_eq!(error.symbol(), "insufficient_credits", "{hold}\n{error}");
            }
            match random.below(3) {
                0 => return,
                1 => {
                    let released = session.call(hour, &format!("released from credits.release_hold({customer}, 'h-{key}')"));
                    return assert_eq!(released.as_deref().ok(), Some("4"), "{released:?}");
                }
                _ => format!("deducted from credits.capture_hold({customer}, 'h-{key}', 2.5, 'error', '{key}')"),
            }
        }
    };
    match session.call(hour, &call) {
        Ok(deducted) => {
            charged.lock().expect("no worker failed").insert(key.to_owned(), deducted);
        }
        // The others' clocks may have gone on beyond the hold's end.
        Err(error) => assert!(["insufficient_credits", "wrong_state"].contains(&error.symbol()), "{call}\n{error}"),
    }
}

#[test]
fn renewals_and_captures_happen_once_when_sessions_and_servers_are_killed() {
    let blows = [Blow::SessionKilled, Blow::CallCancelled, Blow::ServerKilled, Blow::SessionTerminated].repeat(4);
    let seed = seed();
    let cluster = Cluster::start("crash_time", &[("synchronous_commit", "on")]);
    let mut owner = cluster.new_database("books");
    owner.set_clock("2026-01-01 00:00+00");
    for customer in 0..CUSTOMERS {
        owner.exec(&format!(
            "select credits.create_wallet('c{customer}');
             select credits.create_recurring_grant('c{customer}', 'hourly', 40, '1 hour', rollover_percent => 50, rollover_cap => 30);
             select credits.create_contract('c{customer}', 'deal', 500, '2026-01-01 00:00+00', '2026-02-01 00:00+00', installments => 31)"
        ));
    }
    drop(owner);
    let (steps, done, charged) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
    thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (cluster, steps, done, charged) = (&cluster, &steps, &done, &charged);
            scope.spawn(move || {
                let mut session = Persistent { cluster, client: None };
                let mut random = Random::new(seed.wrapping_add(number as u64));
                while !done.load(Ordering::Relaxed) {
                    let step = steps.fetch_add(1, Ordering::Relaxed);
                    step_of_a_day(&mut session, &mut random, step / STEPS_AN_HOUR, &format!("k-{step}"), charged);
                }
            });
        }
        let mut random = Random::new(seed);
        // Whatever fails here must not leave the workers going.
        let _done = SetAtEnd(&done);
        for blow in blows {
            let target = steps.load(Ordering::Relaxed) + random.between(1, PROGRESS_MAX);
            wait_until("the work goes on", Duration::from_secs(60), || steps.load(Ordering::Relaxed) >= target);
            thread::sleep(Duration::from_micros(random.below(3_000)));
            strike(&cluster, "books", blow, &mut random);
        }
        let target = steps.load(Ordering::Relaxed) + 200;
        wait_until("the work goes on after all", Duration::from_secs(60), || steps.load(Ordering::Relaxed) >= target);
    });
    // Two hours after the last step all holds have lapsed and everything due is written, once.
    let hours = steps.load(Ordering::Relaxed) / STEPS_AN_HOUR + 3;
    let mut session = cluster.session("books");
    session.rows(&format!(
        "select set_config('credits.test_clock', ('2026-01-01 00:00+00'::timestamptz + interval '{hours} hours')::text, false)"
    ));
    while session.one("select bool_or(more_due) from credits.run_maintenance(3)") == "t" {}
    assert_ledger_is_sound(&mut session);
    assert_eq!(session.lines(HOLDS_NOT_ENDED_ONCE), [""; 0], "SEED={seed}");
    let periods = "select customer_id, count(*), count(distinct l.occurred_at), extract(epoch from max(l.occurred_at) - min(l.occurred_at)) / 3600
         from credits.ledger l join credits.grants g using (customer_id, grant_id)
         where l.kind = 'grant' and g.recurring_grant = 'hourly' group by 1 order by 1";
    let whole = |text: String| {
        text.split('|').map(|cell| cell.split('.').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join("|")
    };
    let expected: Vec<String> = (0..CUSTOMERS).map(|customer| format!("c{customer}|{0}|{0}|{hours}", hours + 1)).collect();
    assert_eq!(session.lines(periods).into_iter().map(whole).collect::<Vec<_>>(), expected, "each hour once, SEED={seed}");
    let instalments = (hours / 24).min(30) + 1;
    assert_eq!(
        session.lines("select distinct installments_granted from credits.contract_progress"),
        [instalments.to_string()],
        "SEED={seed}"
    );
    let charges = "select transaction_id, trim_scale(sum(credits)) from credits.ledger
         where kind in ('usage', 'hold_captured') group by customer_id, transaction_id order by transaction_id collate \"C\"";
    let acknowledged: Vec<String> =
        charged.lock().expect("no worker failed").iter().map(|(key, deducted)| format!("{key}|{deducted}")).collect();
    assert_eq!(session.lines(charges), acknowledged, "SEED={seed}");
    println!("{hours} hours, {} charges", acknowledged.len());
    assert!(!cluster.log().contains("PANIC"), "{}", cluster.log());
}

/// Events that one COPY brings.
const EVENTS_A_COPY: u64 = 25;

/// The lines of one COPY: events of all customers, of which some came in the COPY before already.
fn copied_events(loader: u64, copy: u64) -> String {
    let event =
        |number: u64| format!("c{}\te-{loader}-{number}\tgenerate\t{{\"tokens\": {}}}\n", number % CUSTOMERS, 1 + number % 7);
    ((copy * EVENTS_A_COPY).saturating_sub(3)..(copy + 1) * EVENTS_A_COPY).map(event).collect()
}

#[test]
fn every_event_is_charged_once_when_sessions_and_servers_are_killed_while_the_inbox_is_processed() {
    let blows = [Blow::SessionKilled, Blow::CallCancelled, Blow::ServerKilled, Blow::SessionTerminated].repeat(4);
    let seed = seed();
    let cluster = Cluster::start("crash_inbox", &[("synchronous_commit", "on")]);
    let mut owner = cluster.new_database("books");
    owner.set_clock("2026-01-01 00:00+00");
    owner.exec(METERS);
    for customer in 0..CUSTOMERS {
        owner.exec(&format!("select credits.create_wallet('c{customer}'), credits.grant_credits('c{customer}', 10000000)"));
    }
    drop(owner);
    let (calls, done) = (AtomicU64::new(0), AtomicBool::new(false));
    // How many copies each loader has finished.
    let copies = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for (loader, copies) in (0..).zip(&copies) {
            let (cluster, done) = (&cluster, &done);
            scope.spawn(move || {
                let mut session = Persistent { cluster, client: None };
                while !done.load(Ordering::Relaxed) {
                    session.copy(&copied_events(loader, copies.load(Ordering::Relaxed)));
                    copies.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 0..4 {
            let (cluster, done, calls) = (&cluster, &done, &calls);
            scope.spawn(move || {
                let mut session = Persistent { cluster, client: None };
                let mut random = Random::new(seed + number);
                while !done.load(Ordering::Relaxed) {
                    let call = format!("events_charged from credits.process_inbox({})", random.between(1, 150));
                    session.call(0, &call).unwrap_or_else(|error| panic!("{call}\n{error}"));
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = Random::new(seed);
        // Whatever fails here must not leave the workers going.
        let _done = SetAtEnd(&done);
        for blow in blows {
            let target = calls.load(Ordering::Relaxed) + random.between(5, 40);
            wait_until("the inbox is processed", Duration::from_secs(60), || calls.load(Ordering::Relaxed) >= target);
            thread::sleep(Duration::from_micros(random.below(3_000)));
            strike(&cluster, "books", blow, &mut random);
        }
    });
    let mut session = cluster.session("books");
    session.set_clock("2026-01-01 00:00+00");
    while session.one("select more_due from credits.process_inbox()") == "t" {}
    assert_eq!(session.lines("select event_id, error from credits.usage_inbox"), [""; 0], "SEED={seed}");
    // Customer, event and tokens of everything that was copied.
    let events: u64 = copies.iter().map(|copies| copies.load(Ordering::Relaxed) * EVENTS_A_COPY).sum();
    let sent: Vec<String> = copies
        .iter()
        .enumerate()
        .map(|(loader, copies)| {
            let count = copies.load(Ordering::Relaxed) * EVENTS_A_COPY;
            format!("select {loader} as loader, n, 'c' || n % {CUSTOMERS} as customer_id, 1 + n % 7 as tokens from generate_series(0, {count} - 1) n")
        })
        .collect();
    let sent = sent.join(" union all ");
    assert_eq!(session.one("select count(*) from credits.usage_events"), events.to_string(), "SEED={seed}");
    assert_eq!(
        session.lines(&format!(
            "select s.* from ({sent}) s
             left join credits.usage_events u on u.customer_id = s.customer_id and u.event_id = format('e-%s-%s', s.loader, s.n)
             where (u.properties ->> 'tokens')::numeric is distinct from s.tokens"
        )),
        [""; 0],
        "SEED={seed}"
    );
    // Ten tokens of each customer cost one more.
    let expected = format!("select customer_id, sum(tokens), count(*), sum(tokens) + 10 from ({sent}) s group by 1 order by 1");
    assert_eq!(
        session.lines(
            "select m.customer_id, m.aggregate, m.events, (select sum(l.credits) from credits.ledger l where l.customer_id = m.customer_id and l.kind = 'usage')
             from credits.meter_usage m order by 1"
        ),
        session.lines(&expected),
        "SEED={seed}"
    );
    assert_ledger_is_sound(&mut session);
    println!("{events} events");
    assert!(!cluster.log().contains("PANIC"), "{}", cluster.log());
}

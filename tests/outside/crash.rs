//! Sessions and the whole server are killed in the middle of the work; clients come back and repeat what got no answer.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgrx_tests::{Cluster, wait_until};

use crate::workload::{Random, Work, seed};

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

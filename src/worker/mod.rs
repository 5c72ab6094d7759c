//! The background worker that delivers webhooks: at least once, each event always under the same id.
//!
//! Its main thread waits at its latch, claims what is due in one transaction and records in another what came of it; the helper
//! threads of [`pool`] talk to the receivers, outside any transaction. Between the two an attempt has a lease: until it runs out
//! `next_attempt_at` lies in the future, and afterwards the delivery is due again. So whatever is killed, nothing is lost.

mod http;
mod pool;
mod schedule;
mod server;
mod signing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::prelude::*;
use uuid::Uuid;

use self::pool::{Attempted, Delivery, GONE, JOB_TIME_MAX, Job, Pool, Report};
use crate::domain::time::Timestamp;
use crate::domain::webhook::AllowedHosts;
use crate::settings;
use crate::storage::clock;
use crate::storage::deliveries::{self, Endpoint, Outcome};

/// Between looks for what is due while nothing happens.
const POLL: Duration = Duration::from_secs(1);

/// Until a worker that ended is started again.
const RESTART: Duration = Duration::from_secs(5);

/// After a round that failed; doubled with each one more, up to a minute.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Deliveries handed to a helper at once.
const DELIVERIES_PER_JOB: usize = 50;

/// Time that a lease leaves for recording the last attempt of a job.
const RECORDING_MAX: Duration = Duration::from_secs(5);

/// Registers the worker, if the server is loading its shared libraries; otherwise nothing runs in the background.
pub fn register() {
    // SAFETY: a flag of this process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        BackgroundWorkerBuilder::new("pg_credits webhooks")
            .set_library("pg_credits")
            .set_function("pg_credits_webhook_worker")
            .enable_spi_access()
            .set_restart_time(Some(RESTART))
            .load();
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_credits_webhook_worker(_argument: pg_sys::Datum) {
    server::take_signals();
    let mut database = settings::text(&settings::WEBHOOK_DATABASE);
    while database.is_empty() {
        server::wait(None, None);
        database = settings::text(&settings::WEBHOOK_DATABASE);
    }
    server::connect(&database);
    match Pool::new() {
        Ok(pool) => Worker::new(pool).run(&database),
        Err(error) => pgrx::error!("the webhook worker has no channel to its threads: {error}"),
    }
}

struct Worker {
    pool: Pool,
    settings: Arc<http::Settings>,
    /// Endpoints that a helper is sending to.
    busy: HashSet<Uuid>,
    /// Endpoints that are left alone, and until when.
    resting: HashMap<Uuid, Instant>,
    /// What helpers have reported and is not recorded yet.
    reports: Vec<Report>,
    /// The endpoint that was served last; the next one is after it, so that all have their turn.
    last_served: Uuid,
    last_look: Option<Instant>,
    is_installed: bool,
}

impl Worker {
    fn new(pool: Pool) -> Self {
        Self {
            pool,
            settings: Arc::new(read_settings()),
            busy: HashSet::new(),
            resting: HashMap::new(),
            reports: Vec::new(),
            last_served: Uuid::nil(),
            last_look: None,
            is_installed: true,
        }
    }

    /// Works until the server ends this process, or the database is another one.
    fn run(mut self, database: &str) {
        pgrx::log!("pg_credits delivers webhooks of database \"{database}\"");
        let mut failures = 0;
        loop {
            let resume_at = match self.round() {
                Ok(()) => {
                    failures = 0;
                    None
                }
                Err(problem) => {
                    let pause = PAUSE.saturating_mul(1 << failures.min(6)).min(PAUSE_MAX);
                    failures += 1;
                    pgrx::warning!("pg_credits cannot deliver webhooks, and tries again in {} s: {problem}", pause.as_secs());
                    Some(Instant::now() + pause)
                }
            };
            self.wait(database, resume_at);
        }
    }

    /// Waits for a report or the next look; after a failure until `resume_at`, whatever comes.
    fn wait(&mut self, database: &str, resume_at: Option<Instant>) {
        loop {
            let (fd, pause) = match resume_at {
                Some(at) => (None, at.saturating_duration_since(Instant::now())),
                None => (Some(self.pool.waking_fd()), POLL),
            };
            if server::wait(fd, Some(pause)) {
                if settings::text(&settings::WEBHOOK_DATABASE) != database {
                    pgrx::log!(
                        "pg_credits stops delivering webhooks of database \"{database}\": credits.webhook_database has changed"
                    );
                    server::exit_to_restart();
                }
                self.settings = Arc::new(read_settings());
            }
            if resume_at.is_none_or(|at| at <= Instant::now()) {
                return;
            }
        }
    }

    /// Records what was reported, then hands out what is due to helpers that are free.
    fn round(&mut self) -> Result<(), String> {
        self.reports.extend(self.pool.reports());
        let mut freed = false;
        if !self.reports.is_empty() {
            let reports = &self.reports;
            let held = server::in_transaction(|| server::lock_extension().then(|| record(reports)))?.unwrap_or_default();
            // What another session holds is recorded later; its endpoint stays busy.
            let (later, recorded) =
                std::mem::take(&mut self.reports).into_iter().partition(|report| held.contains(&report.endpoint_id()));
            self.reports = later;
            for (endpoint_id, pause) in finished_jobs(&recorded) {
                freed |= self.busy.remove(&endpoint_id);
                if !pause.is_zero() {
                    self.resting.insert(endpoint_id, Instant::now() + pause);
                }
            }
        }
        let is_look_due = freed || self.last_look.is_none_or(|at| at.elapsed() >= POLL);
        let free = (settings::WEBHOOK_CONCURRENCY.get() as usize).saturating_sub(self.busy.len());
        if !is_look_due || free == 0 {
            return Ok(());
        }
        self.last_look = Some(Instant::now());
        self.resting.retain(|_, until| *until > Instant::now());
        let jobs = server::in_transaction(|| server::lock_extension().then(|| self.claim(free)))?;
        self.note_installed(jobs.is_some());
        for job in jobs.unwrap_or_default() {
            let endpoint_id = job.endpoint_id;
            self.pool.give(job, self.busy.len()).map_err(|error| format!("no thread can be started: {error}"))?;
            self.busy.insert(endpoint_id);
            self.last_served = endpoint_id;
        }
        Ok(())
    }

    /// Leases what is due, for as many endpoints as there are free helpers.
    fn claim(&self, free: usize) -> Vec<Job> {
        let now = clock::real();
        let lease = JOB_TIME_MAX + self.settings.timeout + RECORDING_MAX;
        let mut taken: Vec<Uuid> = self.busy.iter().chain(self.resting.keys()).copied().collect();
        let mut jobs = Vec::new();
        for (after, last) in [(self.last_served, Uuid::max()), (Uuid::nil(), self.last_served)] {
            for endpoint in deliveries::due_endpoints(after, last, &taken, now, free - jobs.len()) {
                taken.push(endpoint.endpoint_id);
                let claimed = deliveries::claim(endpoint.endpoint_id, now, DELIVERIES_PER_JOB, plus(now, lease));
                if !claimed.is_empty() {
                    jobs.push(self.job(endpoint, claimed));
                }
            }
        }
        jobs
    }

    fn job(&self, endpoint: Endpoint, claimed: Vec<deliveries::Claimed>) -> Job {
        let delivery = |claimed: deliveries::Claimed| Delivery {
            delivery_id: claimed.delivery_id,
            event_id: claimed.event_id,
            attempts: claimed.attempts.unsigned_abs(),
            body: claimed.body,
        };
        Job {
            endpoint_id: endpoint.endpoint_id,
            url: endpoint.url,
            secrets: endpoint.secrets,
            deliveries: claimed.into_iter().map(delivery).collect(),
            settings: Arc::clone(&self.settings),
        }
    }

    fn note_installed(&mut self, is_installed: bool) {
        if self.is_installed && !is_installed {
            pgrx::log!("pg_credits delivers no webhooks: this database has no extension pg_credits, or one of another version");
        }
        self.is_installed = is_installed;
    }
}

/// Writes what attempts came to, but for endpoints that another session has locked, which it returns.
fn record(reports: &[Report]) -> HashSet<Uuid> {
    let held = deliveries::lock_endpoints(&reports.iter().map(Report::endpoint_id).collect());
    let free = || reports.iter().filter(|report| !held.contains(&report.endpoint_id()));
    let attempts = || {
        free().filter_map(|report| match report {
            Report::Attempted(attempted) => Some(attempted),
            Report::Finished { .. } => None,
        })
    };
    deliveries::record(&attempts().map(outcome).collect::<Vec<_>>());
    for report in free() {
        if let Report::Finished { unsent, pause, .. } = report {
            deliveries::release(unsent, plus(clock::real(), *pause));
        }
    }
    for attempted in attempts() {
        tell(attempted);
    }
    held
}

/// The endpoints whose jobs are over, and how long each is left alone.
fn finished_jobs(reports: &[Report]) -> Vec<(Uuid, Duration)> {
    let finished = |report: &Report| match report {
        Report::Finished { endpoint_id, pause, .. } => Some((*endpoint_id, *pause)),
        Report::Attempted(_) => None,
    };
    reports.iter().filter_map(finished).collect()
}

fn outcome(attempted: &Attempted) -> Outcome {
    let attempted_at = timestamp(attempted.at);
    let (status, failure) = match &attempted.result {
        Ok(status) => (Some(*status), None),
        Err(failure) => (failure.status, Some(failure)),
    };
    let wait = attempted.wait.filter(|_| status != Some(GONE));
    Outcome {
        delivery_id: attempted.delivery_id,
        attempted_at,
        error: failure.map(|failure| failure.error.clone()),
        status: status.map(i32::from),
        next_attempt_at: wait.map(|wait| plus(attempted_at, wait)),
    }
}

/// Disables an endpoint that is gone; and logs what nobody may overlook, without the URL, which may hold a secret.
fn tell(attempted: &Attempted) {
    let Err(failure) = &attempted.result else { return };
    let Attempted { endpoint_id, delivery_id, event_id, .. } = attempted;
    if failure.status == Some(GONE) {
        if deliveries::disable(*endpoint_id, &failure.error) {
            pgrx::log!("pg_credits has disabled webhook endpoint {endpoint_id}: {}", failure.error);
        }
    } else if attempted.wait.is_none() {
        pgrx::log!("pg_credits gives up delivery {delivery_id} of event {event_id} to endpoint {endpoint_id}: {}", failure.error);
    }
}

fn read_settings() -> http::Settings {
    let path = settings::text(&settings::WEBHOOK_CA_FILE);
    let read = if path.is_empty() { Ok(Vec::new()) } else { std::fs::read(&path).map_err(|error| error.to_string()) };
    let authorities = read.and_then(|pem| http::authorities(&pem)).or_else(|problem| {
        pgrx::warning!("pg_credits trusts public authorities only: credits.webhook_ca_file \"{path}\": {problem}");
        http::authorities(&[])
    });
    http::Settings {
        timeout: Duration::from_millis(settings::WEBHOOK_TIMEOUT.get().unsigned_abs().into()),
        allowed_hosts: AllowedHosts::parse(&settings::text(&settings::WEBHOOK_ALLOWED_HOSTS)),
        authorities: authorities.unwrap_or_else(|problem| panic!("the public authorities: {problem}")),
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let microseconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Timestamp::from_unix_microseconds(i64::try_from(microseconds).unwrap_or(i64::MAX))
}

fn plus(at: Timestamp, wait: Duration) -> Timestamp {
    at.plus_microseconds(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}

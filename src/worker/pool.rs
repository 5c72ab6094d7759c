//! The helper threads that talk to receivers. They never call PostgreSQL: they take jobs from a channel, send reports back through
//! another, and wake the worker's main thread through a socket. At exit they are simply left behind.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use super::http::{Client, Failure, Request, Settings};
use super::schedule;
use crate::domain::webhook::Secret;

/// Deliveries of one endpoint, for one helper.
#[derive(Debug)]
pub struct Job {
    pub endpoint_id: Uuid,
    pub url: String,
    /// The current secret, and the previous one while it still signs.
    pub secrets: Vec<String>,
    /// In the order in which they are sent.
    pub deliveries: Vec<Delivery>,
    pub settings: Arc<Settings>,
}

#[derive(Debug)]
pub struct Delivery {
    pub delivery_id: Uuid,
    pub event_id: String,
    /// Attempts made before.
    pub attempts: u32,
    pub body: String,
}

/// What an attempt came to.
#[derive(Debug)]
pub struct Attempted {
    pub endpoint_id: Uuid,
    pub delivery_id: Uuid,
    pub event_id: String,
    /// When it ended.
    pub at: SystemTime,
    pub result: Result<u16, Failure>,
    /// Of a failure: how long to wait before the next attempt; none if this was the last.
    pub wait: Option<Duration>,
}

#[derive(Debug)]
pub enum Report {
    Attempted(Attempted),
    /// The job is over; these deliveries were not attempted.
    Finished {
        endpoint_id: Uuid,
        unsent: Vec<Uuid>,
        /// How long the endpoint is left alone.
        pause: Duration,
    },
}

impl Report {
    pub fn endpoint_id(&self) -> Uuid {
        match self {
            Self::Attempted(attempted) => attempted.endpoint_id,
            Self::Finished { endpoint_id, .. } => *endpoint_id,
        }
    }
}

/// A job starts no attempt after so long: its helper is needed by other endpoints.
pub const JOB_TIME_MAX: Duration = Duration::from_secs(3);

/// Who gives no answer for so long is hanging; it is left alone so many times as long as it was waited for.
const HANGING: Duration = Duration::from_millis(500);
const RESTS_PER_WAIT: u32 = 4;

/// Gone: the receiver wants no more.
pub const GONE: u16 = 410;

pub struct Pool {
    jobs: Sender<Job>,
    reports: Receiver<Report>,
    waking: UnixStream,
    helper: Helper,
    helper_count: usize,
}

/// What each helper has.
#[derive(Clone)]
struct Helper {
    jobs: Arc<Mutex<Receiver<Job>>>,
    reports: Sender<Report>,
    wake: Arc<UnixStream>,
}

impl Pool {
    pub fn new() -> std::io::Result<Self> {
        let (jobs, jobs_taken) = channel();
        let (reports_sent, reports) = channel();
        let (waking, wake) = UnixStream::pair()?;
        waking.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let helper = Helper { jobs: Arc::new(Mutex::new(jobs_taken)), reports: reports_sent, wake: Arc::new(wake) };
        Ok(Self { jobs, reports, waking, helper, helper_count: 0 })
    }

    /// Readable when there are reports.
    pub fn waking_fd(&self) -> RawFd {
        self.waking.as_raw_fd()
    }

    /// Gives a job to a free helper, after making so many helpers, `busy` ones and one more. No more jobs may be given than there
    /// are helpers to be.
    pub fn give(&mut self, job: Job, busy: usize) -> std::io::Result<()> {
        if self.helper_count <= busy {
            self.helper.clone().start()?;
            self.helper_count += 1;
        }
        // The receiver lives as long as this pool.
        let _ = self.jobs.send(job);
        Ok(())
    }

    /// What has been reported since.
    pub fn reports(&mut self) -> Vec<Report> {
        let mut drained = [0; 256];
        while matches!(self.waking.read(&mut drained), Ok(count) if count > 0) {}
        self.reports.try_iter().collect()
    }
}

impl Helper {
    /// Starts a thread that takes no signals: they are the main thread's.
    fn start(self) -> std::io::Result<()> {
        // SAFETY: both sets are filled before they are read; the mask is this thread's own, and put back.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            let started = thread::Builder::new().name("pg_credits webhook".into()).spawn(move || self.work());
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            started.map(drop)
        }
    }

    fn work(self) {
        let mut client = None;
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            let endpoint_id = job.endpoint_id;
            let (unsent, pause) = self.run(job, &mut client);
            self.report(Report::Finished { endpoint_id, unsent, pause });
        }
    }

    /// Makes attempts one after the other and returns the deliveries that were not attempted, and how long they are to wait.
    fn run(&self, job: Job, client: &mut Option<Client>) -> (Vec<Uuid>, Duration) {
        let started = Instant::now();
        let mut is_over = false;
        let mut pause = Duration::ZERO;
        let mut unsent = Vec::new();
        for delivery in job.deliveries {
            if is_over || started.elapsed() > JOB_TIME_MAX {
                unsent.push(delivery.delivery_id);
                continue;
            }
            let begun = Instant::now();
            let attempt = || attempt(&job.settings, &job.url, &job.secrets, &delivery, client);
            let result = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| {
                *client = None;
                Err(Failure::without_answer("the attempt failed inside pg_credits; this is a bug"))
            });
            let failure = result.as_ref().err();
            let asked = failure.and_then(|failure| failure.retry_after);
            let hung = begun.elapsed();
            pause = match failure {
                // Asked to be left alone, it is asked no more.
                Some(_) if asked.is_some() => asked.unwrap_or_default().min(schedule::ASKED_MAX),
                // So that those who never answer do not keep the helpers from those who do.
                Some(failure) if failure.status.is_none() && hung > HANGING => hung * RESTS_PER_WAIT,
                _ => Duration::ZERO,
            };
            is_over = failure.is_some_and(|failure| failure.status == Some(GONE)) || !pause.is_zero();
            self.report(Report::Attempted(Attempted {
                endpoint_id: job.endpoint_id,
                delivery_id: delivery.delivery_id,
                event_id: delivery.event_id,
                at: SystemTime::now(),
                wait: schedule::wait_after(delivery.attempts + 1, asked, random()),
                result,
            }));
        }
        (unsent, pause)
    }

    fn report(&self, report: Report) {
        // If nobody listens any more the process is ending; a socket that is full wakes as well.
        let _ = self.reports.send(report);
        let _ = (&*self.wake).write(&[1]);
    }
}

fn attempt(
    settings: &Arc<Settings>,
    url: &str,
    secrets: &[String],
    delivery: &Delivery,
    client: &mut Option<Client>,
) -> Result<u16, Failure> {
    let secrets: Result<Vec<_>, _> = secrets.iter().map(|text| Secret::checked("secret", text)).collect();
    let secrets = secrets.map_err(Failure::without_answer)?;
    let client = match client.take().filter(|client| Arc::ptr_eq(client.settings(), settings)) {
        Some(known) => client.insert(known),
        None => client.insert(Client::new(Arc::clone(settings))),
    };
    client.attempt(&Request { url, secrets: &secrets, event_id: &delivery.event_id, body: &delivery.body })
}

/// From 0 to 1, good enough to spread retries.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

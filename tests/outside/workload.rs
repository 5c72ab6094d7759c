//! Mixed random work of many sessions on a few hot customers, and the proof that the ledger holds exactly what was acknowledged.
//!
//! A [`Worker`] is one session. It sends requests under keys of its own, repeats whatever got no answer with the same key, and
//! notes what was acknowledged and what was refused. [`Work::assert_books`] compares these notes with the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgrx_tests::postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};
use pgrx_tests::{Cluster, DbErrorInfo, Session, assert_ledger_is_sound};

/// Longest time without an answer: a server that was killed has to recover on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// A random sequence that its seed repeats (SplitMix64, Steele and others 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize].clone()
    }

    /// One of the later values, where there is one: what is still in use is more interesting.
    fn pick_recent<T: Clone>(&mut self, values: &[T]) -> Option<T> {
        const RECENT: usize = 30;
        let from = if self.chance(80) { values.len().saturating_sub(RECENT) } else { 0 };
        (!values.is_empty()).then(|| self.pick(&values[from..]))
    }
}

/// The seed of a run: `SEED`, or else the time. A failing test prints it.
pub fn seed() -> u64 {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_nanos() as u64 % 1_000_000_007,
    };
    println!("to repeat the choices: SEED={seed}");
    seed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Grant,
    Deduct,
    Refund,
    Transfer,
    Adjust,
    Void,
    ChangeExpiry,
    Hold,
    Capture,
}

impl Operation {
    /// The refusals that random work runs into, by symbol; every other one is a failure.
    fn may_be_refused(self, error: &DbErrorInfo) -> bool {
        match (self, error.symbol()) {
            (Operation::Deduct | Operation::Transfer | Operation::Adjust, "insufficient_credits") => true,
            (Operation::Hold | Operation::Capture, "insufficient_credits") => true,
            (Operation::Refund | Operation::Void, "out_of_range") => true,
            // Captured, released or lapsed before.
            (Operation::Void | Operation::ChangeExpiry | Operation::Capture, "wrong_state") => true,
            // It waited for the lock until the expiry it asked for had come.
            (Operation::Grant | Operation::ChangeExpiry, "invalid_argument") => error.message.contains("already past"),
            _ => false,
        }
    }
}

/// One call with its key; repeating it repeats the same SQL.
#[derive(Clone, Debug)]
struct Request {
    customer: usize,
    key: Option<String>,
    operation: Operation,
    /// What the answer must be whenever the call succeeds, by role (see [`ROLES`]).
    amounts: BTreeMap<&'static str, String>,
    /// Columns named by a role, and: `id` (a grant's), `key`, `status`, `replayed`.
    sql: String,
}

impl Request {
    /// Not so a deduction or a capture that answers *insufficient* instead of failing: repeated later, it may find credits.
    fn is_recorded_once_answered(&self) -> bool {
        !matches!(self.operation, Operation::Deduct | Operation::Capture) || self.sql.contains("on_insufficient => 'error'")
    }
}

/// What a call answered: credits moved by role, without zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    key: String,
    status: Option<String>,
    grant: Option<String>,
    amounts: BTreeMap<String, String>,
    replayed: Option<bool>,
}

/// What kinds of entries make up an amount that a call answers with. Settling and repaying are nobody's answer.
const ROLES: &str = "case
    when kind in ('grant', 'grant_scheduled') then 'granted'
    when kind in ('usage', 'hold_captured') then 'deducted'
    when kind = 'hold' then 'held'
    when kind in ('overage', 'overdraft') then 'overage'
    when kind in ('usage_refunded', 'overage_refunded', 'overdraft_refunded') then 'refunded'
    when kind = 'transfer_out' then 'transferred'
    when kind = 'adjustment' then 'taken'
    when kind in ('void', 'void_scheduled') then 'voided'
    end";

impl Operation {
    fn roles(self) -> &'static [&'static str] {
        match self {
            Operation::Grant => &["granted"],
            Operation::Deduct | Operation::Capture => &["deducted", "overage"],
            Operation::Hold => &["held"],
            Operation::Refund => &["refunded"],
            Operation::Transfer => &["transferred"],
            Operation::Adjust => &["granted", "taken"],
            Operation::Void => &["voided"],
            Operation::ChangeExpiry => &[],
        }
    }
}

/// Holds of which more or less came to an end than was held, or in more than one transaction. Open ones have none.
pub const HOLDS_NOT_ENDED_ONCE: &str = "select h.customer_id, h.hold_id, held.credits, ended.credits
    from credits.holds h
    cross join lateral (
        select sum(credits) as credits from credits.ledger l
        where l.customer_id = h.customer_id and l.transaction_id = h.hold_id and kind = 'hold'
    ) held
    cross join lateral (
        select coalesce(sum(credits), 0) as credits, count(distinct transaction_id) as transactions from credits.ledger l
        where l.customer_id = h.customer_id and l.refers_to = h.hold_id and kind in ('hold_captured', 'hold_released')
    ) ended
    where held.credits is null or ended.transactions > 1
       or case when h.status = 'open' then h.held <> held.credits or ended.credits <> 0
               when ended.transactions = 1 then held.credits <> ended.credits
               else h.status <> 'lapsed' end";

/// Wallets of a customer, and those that the workers may use from the beginning.
const CUSTOMERS: &[&[&str]] =
    &[&["default", "promo"], &["default", "promo"], &["default", "promo"], &["default"], &["default", "promo"]];

/// The customer whose second wallet is created while the work goes on.
const GROWING: usize = 4;

fn customer_id(customer: usize) -> String {
    format!("hot-{customer}")
}

fn create_wallets(session: &mut Session) {
    session.exec(
        "select credits.create_wallet('hot-0');
         select credits.create_wallet('hot-0', 'promo', priority => 10);
         select credits.create_wallet('hot-1', overage_policy => 'overdraft', overage_limit => 300);
         select credits.create_wallet('hot-1', 'promo', priority => 10, late_usage_grace => '1 hour');
         select credits.create_wallet('hot-2', overage_policy => 'invoice', overage_limit => 3000,
             overage_unit_price => 0.01, overage_currency => 'EUR');
         select credits.create_wallet('hot-2', 'promo', late_usage_grace => '2 seconds');
         select credits.create_wallet('hot-3', late_usage_grace => '2 seconds');
         select credits.create_wallet('hot-4', overage_policy => 'overdraft')",
    );
}

/// What all sessions of a run share.
pub struct Work {
    connection_string: String,
    seed: u64,
    /// Sessions and servers die during this run.
    crashes: bool,
    sessions: AtomicUsize,
    acknowledged: Mutex<Vec<(Request, Answer)>>,
    /// Keys of requests that must have left nothing.
    refused: Mutex<Vec<(usize, String)>>,
    /// By customer: keys of usage that can be refunded, ids of grants, ids of holds.
    usages: Mutex<Vec<Vec<String>>>,
    grants: Mutex<Vec<Vec<String>>>,
    holds: Mutex<Vec<Vec<String>>>,
    grown: AtomicBool,
    units: AtomicUsize,
}

impl Work {
    /// Creates the customers in the session's database.
    pub fn begin(cluster: &Cluster, database: &str, seed: u64, crashes: bool) -> Work {
        create_wallets(&mut cluster.new_database(database));
        Work {
            connection_string: cluster.connection_string(database),
            seed,
            crashes,
            sessions: AtomicUsize::new(0),
            acknowledged: Mutex::default(),
            refused: Mutex::default(),
            usages: Mutex::new(vec![Vec::new(); CUSTOMERS.len()]),
            grants: Mutex::new(vec![Vec::new(); CUSTOMERS.len()]),
            holds: Mutex::new(vec![Vec::new(); CUSTOMERS.len()]),
            grown: false.into(),
            units: AtomicUsize::new(0),
        }
    }

    /// A new session whose transactions have this isolation level.
    pub fn worker<'a>(&'a self, level: &'a str) -> Worker<'a> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let random = Random::new(self.seed.wrapping_mul(1_000).wrapping_add(number as u64));
        Worker { work: self, level, number, random, requests: 0, client: None }
    }

    /// How many units of work were answered so far.
    pub fn progress(&self) -> usize {
        self.units.load(Ordering::Relaxed)
    }

    /// Every acknowledged key stands in the ledger once with the acknowledged amounts, nothing else but settling does, and
    /// the ledger is sound.
    pub fn assert_books(&self, session: &mut Session) {
        let seed = self.seed;
        session.exec("select * from credits.run_maintenance()");
        assert_ledger_is_sound(session);
        assert_eq!(session.lines("select account from credits.trial_balance group by account having sum(debit) < 0"), [""; 0]);
        let twice =
            "select customer_id, transaction_id from credits.ledger group by 1, 2 having count(*) filter (where line = 1) <> 1";
        assert_eq!(session.lines(twice), [""; 0], "each transaction was executed once, SEED={seed}");
        let over_refunded = "select refers_to from credits.ledger r where kind like '%_refunded' group by customer_id, refers_to
             having sum(credits) > (select sum(credits) from credits.ledger u where u.customer_id = r.customer_id
                 and u.transaction_id = r.refers_to and kind in ('usage', 'hold_captured', 'overage', 'overdraft'))";
        assert_eq!(session.lines(over_refunded), [""; 0], "nothing is refunded twice, SEED={seed}");
        assert_eq!(session.lines(HOLDS_NOT_ENDED_ONCE), [""; 0], "a hold ends once and whole, SEED={seed}");

        let mut books = Books::read(session);
        let acknowledged = self.acknowledged.lock().expect("no worker failed");
        for (request, answer) in acknowledged.iter() {
            let id = (customer_id(request.customer), answer.key.clone());
            let Some(entry) = books.transactions.remove(&id) else {
                panic!("acknowledged but not in the ledger: {request:?} {answer:?}, SEED={seed}");
            };
            let relevant = |(role, _): &(&String, &String)| request.operation.roles().contains(&role.as_str());
            let written: BTreeMap<String, String> =
                entry.amounts.iter().filter(relevant).map(|(role, amount)| (role.clone(), amount.clone())).collect();
            assert_eq!(written, answer.amounts, "amounts of {request:?} {answer:?}, SEED={seed}");
            if let Some(grant) = &answer.grant {
                assert!(
                    entry.grants.contains(grant),
                    "{request:?} made grant {grant}, the ledger has {:?}, SEED={seed}",
                    entry.grants
                );
            }
        }
        for (customer, key) in self.refused.lock().expect("no worker failed").iter() {
            let id = (customer_id(*customer), key.clone());
            assert!(!books.transactions.contains_key(&id), "refused, but it left entries: {id:?}, SEED={seed}");
        }
        for (id, entry) in &books.transactions {
            // What is given back to a voided grant is void at once.
            let gives_back = entry.kinds.contains("hold_released");
            let is_settling = entry.kinds.iter().all(|kind| {
                ["expiration", "grant_activated", "overdraft_repaid", "hold_released"].contains(&kind.as_str())
                    || gives_back && kind == "void"
            });
            assert!(is_settling, "nobody asked for {id:?}: {:?}, SEED={seed}", entry.kinds);
        }
        let sum = |role: &str| acknowledged.iter().filter(|(_, answer)| answer.amounts.contains_key(role)).count();
        println!(
            "{} acknowledged ({} granting, {} deducting, {} with overage, {} holding, {} refunding, {} transferring, {} voiding), {} refused, \
             {} settled",
            acknowledged.len(),
            sum("granted"),
            sum("deducted"),
            sum("overage"),
            sum("held"),
            sum("refunded"),
            sum("transferred"),
            sum("voided"),
            self.refused.lock().expect("no worker failed").len(),
            books.transactions.len(),
        );
    }
}

/// The ledger, transaction by transaction.
struct Books {
    transactions: BTreeMap<(String, String), Written>,
}

#[derive(Default)]
struct Written {
    amounts: BTreeMap<String, String>,
    kinds: BTreeSet<String>,
    grants: BTreeSet<String>,
}

impl Books {
    fn read(session: &mut Session) -> Books {
        let mut transactions: BTreeMap<(String, String), Written> = BTreeMap::new();
        let rows = session.rows(&format!(
            "select customer_id, transaction_id, role, trim_scale(sum(credits)), string_agg(distinct kind, ','),
                    string_agg(distinct grant_id::text, ',')
             from (select *, {ROLES} as role from credits.ledger) entries group by 1, 2, 3"
        ));
        for row in rows {
            let [customer, transaction, role, credits, kinds, grants] = row.try_into().expect("six columns");
            let text = |value: Option<String>| value.unwrap_or_default();
            let written = transactions.entry((text(customer), text(transaction))).or_default();
            written.kinds.extend(text(kinds).split(',').map(str::to_owned));
            written.grants.extend(text(grants).split(',').map(str::to_owned));
            if let (Some(role), Some(credits)) = (role, credits)
                && credits != "0"
            {
                written.amounts.insert(role, credits);
            }
        }
        Books { transactions }
    }
}

/// One session at work.
pub struct Worker<'a> {
    work: &'a Work,
    level: &'a str,
    number: usize,
    random: Random,
    requests: usize,
    client: Option<Client>,
}

/// How a unit of work ended for good.
enum Outcome {
    Answered(Vec<Answer>),
    Refused(DbErrorInfo),
}

impl Worker<'_> {
    /// Does one random thing.
    pub fn step(&mut self) {
        match self.random.below(100) {
            0..6 => self.maintain(),
            6..14 => self.read(),
            14..22 => self.repeat_a_used_key(),
            22..24 => self.reuse_a_key_for_something_else(),
            24..26 => self.configure(),
            26..29 => self.release_a_hold(),
            29..41 => self.transact(),
            _ => {
                let customer = self.customer();
                let request = self.request(customer);
                self.unit(vec![request]);
            }
        }
    }

    /// Several calls for one customer in one transaction, some of which are rolled back.
    fn transact(&mut self) {
        let customer = self.customer();
        let unit: Vec<Request> = (0..self.random.between(2, 4)).map(|_| self.request(customer)).collect();
        if self.random.chance(70) {
            return self.unit(unit);
        }
        self.persist(|worker| {
            worker.run("begin")?;
            for request in &unit {
                if let Err(error) = worker.call(request) {
                    worker.run("rollback")?;
                    return if request.operation.may_be_refused(&error) { Ok(()) } else { Err(error) };
                }
            }
            worker.run("rollback")
        })
        .unwrap_or_else(|error| worker_failed(self.number, &unit, &error));
        self.note_refused(&unit);
    }

    /// Sends requests, in one transaction if there are several, until they are answered or refused, and notes which.
    fn unit(&mut self, unit: Vec<Request>) {
        match self.outcome(&unit) {
            Outcome::Answered(answers) => {
                let recorded = unit.iter().zip(&answers).filter(|(request, _)| request.is_recorded_once_answered());
                let replayed: BTreeSet<bool> = recorded.filter_map(|(_, answer)| answer.replayed).collect();
                assert!(replayed.len() <= 1, "a transaction is whole, or it is not there: {unit:?} {answers:?}");
                for (request, answer) in unit.into_iter().zip(answers) {
                    self.note(request, answer);
                }
            }
            Outcome::Refused(error) => {
                let is_expected = unit.iter().any(|request| request.operation.may_be_refused(&error));
                assert!(is_expected, "session {}: {unit:?}\n{error}", self.number);
                self.note_refused(&unit);
            }
        }
        self.work.units.fetch_add(1, Ordering::Relaxed);
    }

    fn outcome(&mut self, unit: &[Request]) -> Outcome {
        let answers = self.persist(|worker| {
            if let [request] = unit {
                return Ok(vec![worker.call(request)?]);
            }
            worker.run("begin")?;
            let mut answers = Vec::new();
            for request in unit {
                match worker.call(request) {
                    Ok(answer) => answers.push(answer),
                    Err(error) => {
                        if !is_lost(&error) {
                            worker.run("rollback")?;
                        }
                        return Err(error);
                    }
                }
            }
            worker.run("commit")?;
            Ok(answers)
        });
        match answers {
            Ok(answers) => Outcome::Answered(answers),
            Err(error) => Outcome::Refused(error),
        }
    }

    fn note(&mut self, request: Request, answer: Answer) {
        if answer.status.as_deref() == Some("insufficient") {
            assert_eq!(answer.amounts, BTreeMap::new(), "{request:?}");
            return self.note_refused(&[request]);
        }
        for (role, amount) in &request.amounts {
            assert_eq!(answer.amounts.get(*role), Some(amount), "{request:?}");
        }
        let customer = request.customer;
        if request.operation == Operation::Hold {
            self.work.holds.lock().expect("no worker failed")[customer].push(answer.key.clone());
        }
        if matches!(request.operation, Operation::Deduct | Operation::Capture) {
            self.work.usages.lock().expect("no worker failed")[customer].push(answer.key.clone());
        }
        if let Some(grant) = &answer.grant {
            self.work.grants.lock().expect("no worker failed")[customer].push(grant.clone());
        }
        self.work.acknowledged.lock().expect("no worker failed").push((request, answer));
    }

    fn note_refused(&self, unit: &[Request]) {
        let keys = unit.iter().filter_map(|request| Some((request.customer, request.key.clone()?)));
        self.work.refused.lock().expect("no worker failed").extend(keys);
    }

    fn repeat_a_used_key(&mut self) {
        let used = self.random.pick_recent(&self.work.acknowledged.lock().expect("no worker failed"));
        let Some((request, first)) = used.filter(|(request, _)| request.key.is_some()) else { return };
        match self.outcome(std::slice::from_ref(&request)) {
            Outcome::Answered(answers) => {
                assert!(answers[0].replayed != Some(false), "{request:?} was executed again: {answers:?}");
                let again = Answer { replayed: first.replayed, ..answers[0].clone() };
                assert_eq!(again, first, "a replay returns the first result: {request:?}");
            }
            Outcome::Refused(error) => panic!("a used key was refused: {request:?} {error}"),
        }
    }

    fn reuse_a_key_for_something_else(&mut self) {
        let used = self.random.pick_recent(&self.work.acknowledged.lock().expect("no worker failed"));
        let Some((Request { customer, key: Some(key), .. }, _)) = used else { return };
        let customer = customer_id(customer);
        let other = format!("select * from credits.deduct_usage('{customer}', 0.000123, '{key}', on_insufficient => 'report')");
        let error = self.persist(|worker| worker.query(&other)).expect_err("another request");
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("23505", "idempotency_key_reused"), "{other}\n{error}");
    }

    /// What a hold gave back is said again whenever it is released again.
    fn release_a_hold(&mut self) {
        let customer = self.customer();
        let Some(hold) = self.random.pick_recent(&self.work.holds.lock().expect("no worker failed")[customer]) else { return };
        let sql = format!("select released from credits.release_hold('{}', '{hold}')", customer_id(customer));
        let mut release = || match self.persist(|worker| worker.query(&sql)) {
            Ok(mut rows) => rows.remove(0).remove("released"),
            Err(error) => {
                assert_eq!(error.symbol(), "wrong_state", "captured: {sql}\n{error}");
                None
            }
        };
        assert_eq!(release(), release(), "{sql}");
    }

    /// Settling from several sessions at once; what is settled is nobody's answer.
    fn maintain(&mut self) {
        let function = self.random.pick(&["expire_grants", "run_maintenance"]);
        let batch_size = self.random.between(1, 6);
        self.sure(&format!("select * from credits.{function}({batch_size})"));
    }

    fn configure(&mut self) {
        if self.random.chance(10) && !self.work.grown.load(Ordering::Acquire) {
            let customer = customer_id(GROWING);
            self.sure(&format!("select credits.create_wallet('{customer}', 'promo', priority => 50, if_not_exists => true)"));
            return self.work.grown.store(true, Ordering::Release);
        }
        let (customer, priority) = (self.customer(), self.random.pick(&[10, 100, 200]));
        let wallet = self.wallet(customer);
        self.sure(&format!("select credits.update_wallet('{}', '{wallet}', priority => {priority})", customer_id(customer)));
    }

    fn read(&mut self) {
        let customer = customer_id(self.customer());
        let (sql, expected): (String, &[&str]) = match self.random.below(5) {
            0 => (
                format!(
                    "select wallet from credits.balance('{customer}') where balance < 0 or scheduled < 0 or debt < 0 or held < 0"
                ),
                &[],
            ),
            1 => (
                format!(
                    "select trim_scale(sum(case kind when 'closing' then -balance when 'opening' then balance else amount end))
                     from credits.statement('{customer}', 'default', clock_timestamp() - interval '1 second', clock_timestamp())"
                ),
                &["0"],
            ),
            2 => (format!("select coalesce(sum(credits), 0) <= 7.5 from credits.preview_deduction('{customer}', 7.5)"), &["t"]),
            3 => (format!("select detail from credits.verify_ledger('{customer}')"), &[]),
            _ => ("select account from credits.trial_balance where debit < 0 or credit < 0".to_owned(), &[]),
        };
        let rows = self.sure(&sql);
        let values: Vec<String> = rows.into_iter().filter_map(|row| row.into_values().next()).collect();
        assert_eq!(values, expected, "{sql}");
    }

    fn customer(&mut self) -> usize {
        self.random.below(CUSTOMERS.len() as u64) as usize
    }

    fn wallet(&mut self, customer: usize) -> &'static str {
        let all = CUSTOMERS[customer];
        let known = if customer == GROWING && !self.work.grown.load(Ordering::Acquire) { &all[..1] } else { all };
        self.random.pick(known)
    }

    fn request(&mut self, customer: usize) -> Request {
        self.requests += 1;
        let key = format!("s{}-{}", self.number, self.requests);
        let usage = self.random.pick_recent(&self.work.usages.lock().expect("no worker failed")[customer]);
        let grant = self.random.pick_recent(&self.work.grants.lock().expect("no worker failed")[customer]);
        let can_transfer = CUSTOMERS[customer].len() > 1 && (customer != GROWING || self.work.grown.load(Ordering::Acquire));
        let hold = self.random.pick_recent(&self.work.holds.lock().expect("no worker failed")[customer]);
        match (self.random.below(110), usage, grant, hold) {
            (100..105, _, _, _) => self.hold(customer, key),
            (105..110, _, _, Some(hold)) => self.capture(customer, key, &hold),
            (0..12, Some(usage), _, _) => self.refund(customer, key, &usage),
            (12..16, _, Some(grant), _) => self.void(customer, key, &grant),
            (16..20, _, Some(grant), _) => self.change_expiry(customer, key, &grant),
            (20..24, _, _, _) => self.adjust(customer, key),
            (24..30, _, _, _) if can_transfer => self.transfer(customer, key),
            (30..52, _, _, _) => self.grant(customer, key),
            _ => self.deduct(customer, key),
        }
    }

    fn amount(&mut self, most: u64) -> String {
        let whole = self.random.between(1, most);
        if self.random.chance(20) { format!("{whole}.{:012}", 1 + 2 * self.random.below(49)) } else { whole.to_string() }
    }

    fn grant(&mut self, customer: usize, key: String) -> Request {
        let amount = self.amount(200);
        let wallet = self.wallet(customer);
        let mut terms = format!(", grant_type => '{}'", self.random.pick(&["prepaid", "promotional", "committed"]));
        let mut effective_ms = 0;
        if self.random.chance(20) {
            effective_ms = self.random.between(100, 1500);
            terms += &format!(", effective_at => clock_timestamp() + interval '{effective_ms} ms'");
        }
        if self.random.chance(60) {
            let expires_ms = effective_ms + self.random.between(200, 3000);
            terms += &format!(", expires_at => clock_timestamp() + interval '{expires_ms} ms'");
        } else if self.random.chance(50) {
            terms += ", expires_at => '2199-01-01'";
        }
        if self.random.chance(10) {
            terms += ", applies_to => array['chat']";
        }
        if self.random.chance(10) {
            terms += ", priority => 50";
        }
        let sql = format!(
            "select credits.grant_credits('{}', {amount}, '{wallet}', idempotency_key => '{key}'{terms}) as id",
            customer_id(customer)
        );
        Request { customer, key: Some(key), operation: Operation::Grant, amounts: [("granted", amount)].into(), sql }
    }

    fn deduct(&mut self, customer: usize, key: String) -> Request {
        let amount = match self.random.below(20) {
            0 => "0".to_owned(),
            1 | 2 => self.amount(1500),
            3..8 => self.amount(200),
            _ => self.amount(25),
        };
        let mut arguments = format!("on_insufficient => '{}'", self.random.pick(&["error", "report", "partial"]));
        // A call without a key cannot be repeated after a crash.
        let key = Some(key).filter(|_| self.work.crashes || self.random.chance(90));
        if let Some(key) = &key {
            arguments += &format!(", idempotency_key => '{key}'");
        }
        if self.random.chance(35) {
            arguments += &format!(", wallet => '{}'", self.wallet(customer));
        }
        if self.random.chance(30) {
            arguments += &format!(", event_name => '{}'", self.random.pick(&["chat", "image"]));
        }
        if self.random.chance(15) {
            arguments += &format!(", occurred_at => clock_timestamp() - interval '{} ms'", self.random.below(2500));
        }
        if self.random.chance(15) {
            arguments += ", metadata => '{\"tokens\": 17}'";
        }
        let sql = format!(
            "select transaction_id as key, status, deducted, overage, replayed from credits.deduct_usage('{}', {amount}, {arguments})",
            customer_id(customer)
        );
        Request { customer, key, operation: Operation::Deduct, amounts: BTreeMap::new(), sql }
    }

    fn hold(&mut self, customer: usize, key: String) -> Request {
        let amount = self.amount(60);
        let mut arguments = format!("interval '{} ms', idempotency_key => '{key}'", self.random.between(50, 3000));
        if self.random.chance(35) {
            arguments += &format!(", wallet => '{}'", self.wallet(customer));
        }
        if self.random.chance(30) {
            arguments += &format!(", event_name => '{}'", self.random.pick(&["chat", "image"]));
        }
        let sql = format!(
            "select hold_id as key, held, replayed from credits.hold_credits('{}', {amount}, {arguments})",
            customer_id(customer)
        );
        Request { customer, key: Some(key), operation: Operation::Hold, amounts: [("held", amount)].into(), sql }
    }

    fn capture(&mut self, customer: usize, key: String, hold: &str) -> Request {
        let amount = match self.random.below(4) {
            0 => "null".to_owned(),
            1 => "0".to_owned(),
            _ => self.amount(80),
        };
        let mode = self.random.pick(&["error", "report", "partial"]);
        let sql = format!(
            "select transaction_id as key, status, deducted, overage, replayed
             from credits.capture_hold('{}', '{hold}', {amount}, on_insufficient => '{mode}', idempotency_key => '{key}')",
            customer_id(customer)
        );
        Request { customer, key: Some(key), operation: Operation::Capture, amounts: BTreeMap::new(), sql }
    }

    fn refund(&mut self, customer: usize, key: String, usage: &str) -> Request {
        let amount = if self.random.chance(50) { "null".to_owned() } else { self.amount(10) };
        let sql = format!(
            "select transaction_id as key, refunded, replayed
             from credits.refund_usage('{}', '{usage}', {amount}, 'random', '{key}')",
            customer_id(customer)
        );
        Request { customer, key: Some(key), operation: Operation::Refund, amounts: BTreeMap::new(), sql }
    }

    fn transfer(&mut self, customer: usize, key: String) -> Request {
        let amount = self.amount(40);
        let (from, to) = if self.random.chance(50) { ("default", "promo") } else { ("promo", "default") };
        let sql = format!(
            "select transaction_id as key, transferred, replayed
             from credits.transfer_credits('{}', {amount}, '{from}', '{to}', '{key}')",
            customer_id(customer)
        );
        Request { customer, key: Some(key), operation: Operation::Transfer, amounts: [("transferred", amount)].into(), sql }
    }

    fn adjust(&mut self, customer: usize, key: String) -> Request {
        let amount = self.amount(30);
        let (sign, role) = if self.random.chance(50) { ("", "granted") } else { ("-", "taken") };
        let sql = format!(
            "select transaction_id as key, greatest(adjusted, 0) as granted, greatest(-adjusted, 0) as taken, replayed
             from credits.adjust_credits('{}', {sign}{amount}, 'random', '{}', '{key}')",
            customer_id(customer),
            self.wallet(customer)
        );
        Request { customer, key: Some(key), operation: Operation::Adjust, amounts: [(role, amount)].into(), sql }
    }

    fn void(&mut self, customer: usize, key: String, grant: &str) -> Request {
        let amount = if self.random.chance(50) { "null".to_owned() } else { self.amount(10) };
        let customer_id = customer_id(customer);
        let sql = format!("select credits.void_grant('{customer_id}', '{grant}', 'random', {amount}, '{key}') as voided");
        Request { customer, key: Some(key), operation: Operation::Void, amounts: BTreeMap::new(), sql }
    }

    fn change_expiry(&mut self, customer: usize, key: String, grant: &str) -> Request {
        // not before a scheduled grant begins, which would be refused
        let expires_ms = self.random.between(2500, 5000);
        let sql = format!(
            "select credits.change_expiry('{}', '{grant}', clock_timestamp() + interval '{expires_ms} ms', 'random', '{key}') as id",
            customer_id(customer)
        );
        Request { customer, key: Some(key), operation: Operation::ChangeExpiry, amounts: BTreeMap::new(), sql }
    }

    fn call(&mut self, request: &Request) -> Result<Answer, DbErrorInfo> {
        let mut rows = self.query(&request.sql)?;
        assert_eq!(rows.len(), 1, "one row: {request:?}");
        let mut row = rows.remove(0);
        let answered_key = row.remove("key").unwrap_or_default();
        if let Some(key) = &request.key {
            assert!(answered_key.is_empty() || answered_key == *key, "{request:?} answered {answered_key}");
        }
        let mut answer = Answer {
            key: request.key.clone().unwrap_or(answered_key),
            status: row.remove("status"),
            grant: row.remove("id"),
            replayed: row.remove("replayed").map(|value| value == "t"),
            amounts: row,
        };
        if request.operation == Operation::Grant {
            answer.amounts.insert("granted".to_owned(), request.amounts["granted"].clone());
        }
        answer.amounts.retain(|_, amount| amount != "0");
        Ok(answer)
    }

    /// Runs a statement that no concurrency may make fail.
    fn sure(&mut self, sql: &str) -> Vec<BTreeMap<String, String>> {
        self.persist(|worker| worker.query(sql)).unwrap_or_else(|error| panic!("session {}: {sql}\n{error}", self.number))
    }

    /// Tries again, from the beginning, after whatever an honest client tries again after.
    fn persist<T>(&mut self, mut work: impl FnMut(&mut Self) -> Result<T, DbErrorInfo>) -> Result<T, DbErrorInfo> {
        let start = Instant::now();
        loop {
            let error = match work(self) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let is_lost = is_lost(&error);
            let is_passing = match error.sqlstate.as_str() {
                // A statement at READ COMMITTED never fails for another's sake.
                "40001" => self.level != "read committed",
                "57014" => self.work.crashes,
                _ => is_lost && self.work.crashes,
            };
            if !is_passing {
                return Err(error);
            }
            assert!(start.elapsed() < PATIENCE, "session {} gave up: {error}", self.number);
            if is_lost {
                self.client = None;
                std::thread::sleep(Duration::from_millis(self.random.between(5, 50)));
            } else if error.sqlstate == "57014" {
                // Perhaps in the middle of a transaction; if that fails too, the next attempt finds out.
                let _ = self.run("rollback");
            } else {
                std::thread::sleep(Duration::from_micros(self.random.between(0, 3000)));
            }
        }
    }

    fn client(&mut self) -> Result<&mut Client, DbErrorInfo> {
        if self.client.is_none() {
            let mut client = Client::connect(&self.work.connection_string, NoTls)?;
            client.batch_execute(&format!("set default_transaction_isolation = '{}'", self.level))?;
            self.client = Some(client);
        }
        Ok(self.client.as_mut().expect("it was just made"))
    }

    fn run(&mut self, sql: &str) -> Result<(), DbErrorInfo> {
        Ok(self.client()?.batch_execute(sql)?)
    }

    /// The rows, each by the names of its columns, without nulls.
    fn query(&mut self, sql: &str) -> Result<Vec<BTreeMap<String, String>>, DbErrorInfo> {
        let messages = self.client()?.simple_query(sql)?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let by_name = |row: SimpleQueryRow| {
            let values = row.columns().iter().enumerate();
            values.filter_map(|(index, column)| Some((column.name().to_owned(), row.get(index)?.to_owned()))).collect()
        };
        Ok(rows.map(by_name).collect())
    }
}

fn worker_failed(number: usize, unit: &[Request], error: &DbErrorInfo) -> ! {
    panic!("session {number}: {unit:?}\n{error}")
}

/// Whether the session is gone, or the server is not there yet.
pub fn is_lost(error: &DbErrorInfo) -> bool {
    ["08", "57P0"].iter().any(|class| error.sqlstate.starts_with(class))
}

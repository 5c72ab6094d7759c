//! Runs a history: asks the domain, over the in-memory store, and compares it with the model after every step.

mod anchoring;
mod asking;
mod comparing;
mod rules;

use uuid::Uuid;

use super::model::Model;
use super::requests::{CREDIT, Instant, Key, Outcome, Policy, Request, Script, Setup, Status, Step};
use super::store::Store;
use crate::domain::amount::Amount;
use crate::domain::names::{TransactionId, WalletCode};
use crate::domain::time::{Interval, Timestamp};
use crate::domain::wallet::{OveragePolicy, Wallet, WalletSettings, WalletStatus};
use anchoring::{again, anchored};
use asking::{Asked, Did};

pub const CODES: [&str; 3] = ["default", "promo", "archive"];

pub fn at(instant: Instant) -> Timestamp {
    Timestamp::from_postgres(instant)
}

fn microseconds(microseconds: i64) -> Interval {
    Interval { microseconds, ..Interval::ZERO }
}

pub fn settings(setup: &Setup) -> WalletSettings {
    WalletSettings {
        priority: setup.priority,
        expires_after: setup.expires_after.map(microseconds),
        overage_policy: match setup.policy {
            Policy::Block => OveragePolicy::Block,
            Policy::Invoice => OveragePolicy::Invoice,
            Policy::Overdraft => OveragePolicy::Overdraft,
        },
        overage_limit: setup.limit.map(Amount::from_units),
        overage_unit_price: Some(Amount::from_units(CREDIT / 100)),
        overage_currency: Some("EUR".into()),
        late_usage_grace: microseconds(setup.grace),
        ..WalletSettings::default()
    }
}

pub fn wallet(code: &str, unit: &str, settings: WalletSettings) -> Wallet {
    Wallet {
        code: WalletCode::stored(code.into()),
        unit: unit.into(),
        status: WalletStatus::Active,
        settings,
        balance: Amount::ZERO,
        held: Amount::ZERO,
        scheduled: Amount::ZERO,
        debt: Amount::ZERO,
        overage: Amount::ZERO,
        has_open_overage: false,
        overage_closed_seq: 0,
        credited_level: Amount::ZERO,
        watch: crate::domain::wallet::Watch::default(),
        last_seq: 0,
    }
}

fn code_of(wallet: usize) -> WalletCode {
    WalletCode::stored(CODES.get(wallet).copied().unwrap_or("missing").into())
}

fn status_of(status: Status) -> WalletStatus {
    match status {
        Status::Active => WalletStatus::Active,
        Status::Frozen => WalletStatus::Frozen,
        Status::Closed => WalletStatus::Closed,
    }
}

/// The domain over its store, with the names that histories use for grants and usages.
pub struct Subject {
    pub store: Store,
    pub now: Instant,
    usages: Vec<TransactionId>,
    holds: Vec<TransactionId>,
}

impl Subject {
    pub fn new(script: &Script) -> Self {
        let wallets = script.wallets.iter().zip(CODES);
        Self {
            store: Store::new(wallets.map(|((unit, setup), code)| wallet(code, unit, settings(setup))).collect()),
            now: script.begins,
            usages: Vec::new(),
            holds: Vec::new(),
        }
    }

    /// Time passes; `settles` says whether the scheduled job runs.
    pub fn wait(&mut self, until: Instant, settles: bool) {
        self.now = until;
        if settles {
            self.settle();
        }
    }

    /// As the scheduled job does.
    pub fn settle(&mut self) {
        self.store.change(at(self.now), |_| Ok(())).expect("settling never fails");
    }

    pub fn ask(&mut self, request: &Request, key: Option<&str>) -> Outcome {
        let key = key.map(|key| TransactionId::stored(key.into()));
        let named = match request {
            Request::Void { grant, .. } | Request::ChangeExpiry { grant, .. } => *grant,
            _ => None,
        };
        if named.is_some_and(|number| number >= self.store.grants.len()) {
            // Who knows the id of a grant that settling made has read it.
            self.settle();
        }
        let asked = Asked {
            grant: named.map_or(Uuid::max(), |number| self.store.grants[number].id),
            transaction: match request {
                Request::Refund { usage: Some(number), .. } => self.usages[*number].clone(),
                Request::Capture { hold: Some(number), .. } | Request::Release { hold: Some(number) } => {
                    self.holds[*number].clone()
                }
                _ => TransactionId::stored("never happened".into()),
            },
        };
        let answer = self.store.change(at(self.now), |book| asked.execute(book, key.as_ref(), request));
        match answer {
            Err(error) => Outcome::Refused(error.symbol()),
            Ok(Did::Granted(id)) => Outcome::Granted(self.store.grants.iter().position(|grant| grant.id == id).unwrap()),
            Ok(Did::Used(id, outcome)) => {
                self.usages.extend(id.filter(|_| matches!(outcome, Outcome::Deducted { replayed: false, .. })));
                outcome
            }
            Ok(Did::Held(id, outcome)) => {
                self.holds.extend(Some(id).filter(|_| matches!(outcome, Outcome::Held { replayed: false, .. })));
                outcome
            }
            Ok(Did::Other(outcome)) => outcome,
        }
    }
}

/// When the scheduled job settles while time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Settling {
    OnlyWhenNeeded,
    AsScripted,
    EveryUnit,
}

/// Both sides of a history.
pub struct History {
    pub subject: Subject,
    settling: Settling,
    unit: Instant,
    model: Model,
    asked: Vec<(Request, String)>,
}

impl History {
    pub fn new(script: &Script, settling: Settling) -> Self {
        let setups: Vec<_> = script.wallets.iter().zip(CODES).map(|((unit, setup), code)| (code, *unit, setup.clone())).collect();
        let model = Model::new(script.begins, &setups);
        Self { subject: Subject::new(script), settling, unit: script.unit, model, asked: Vec::new() }
    }

    /// The whole script, comparing after each step.
    pub fn run(script: &Script, settling: Settling) -> Self {
        let mut history = Self::new(script, settling);
        for (number, step) in script.steps.iter().enumerate() {
            history.step(number, step);
            history.compare();
        }
        history
    }

    pub fn step(&mut self, number: usize, step: &Step) {
        match step {
            Step::Ask(request, key) => {
                let request = anchored(request, &self.model, self.unit);
                let key = match key {
                    _ if again(&request, false).is_none() => None,
                    Key::None => None,
                    Key::Used(number) if !self.asked.is_empty() => Some(self.asked[number % self.asked.len()].1.clone()),
                    Key::Fresh | Key::Used(_) => Some(format!("key {number}")),
                };
                self.ask(&request, key.as_deref());
                self.asked.extend(key.map(|key| (request, key)));
            }
            Step::Retry { number, with_another_amount } => {
                if let Some((request, key)) = self.asked.get(number % self.asked.len().max(1)).cloned()
                    && let Some(request) = again(&request, *with_another_amount)
                {
                    self.ask(&request, Some(&key));
                }
            }
            Step::Wait { units, settles } => self.wait(self.model.now + units * self.unit, *settles),
            Step::WaitForDue { number, settles } => {
                let mut times = self.model.instants();
                times.sort_unstable();
                let soon = self.model.now + 60 * self.unit;
                times.retain(|at| *at <= soon);
                if let Some(at) = times.get(number % times.len().max(1)) {
                    self.wait(*at, *settles);
                }
            }
        }
    }

    fn ask(&mut self, request: &Request, key: Option<&str>) {
        let got = self.subject.ask(request, key);
        let expected = self.model.ask(request, key);
        assert_eq!(got, expected, "answer of the domain (left) and of the model (right) to {request:?} with key {key:?}");
    }

    fn wait(&mut self, until: Instant, settles: bool) {
        if self.settling == Settling::EveryUnit {
            for between in (self.model.now..until).step_by(self.unit as usize) {
                self.subject.wait(between, true);
            }
        }
        let settles = match self.settling {
            Settling::OnlyWhenNeeded => false,
            Settling::AsScripted => settles,
            Settling::EveryUnit => true,
        };
        self.subject.wait(until, settles);
        self.model.pass_time(until);
    }
}

//! Runs a history: asks the domain, over the in-memory store, and compares it with the model after every step.

use uuid::Uuid;

use super::model::{Model, State};
use super::requests::{
    CREDIT, HOUR, Instant, Key, MISSING, Mode, NEVER, Outcome, Policy, Request, START, Scope, Script, Setup, Status, Step,
};
use super::store::Store;
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::grant::{GrantStatus, GrantType};
use crate::domain::granting::{self, AdjustCredits, ChangeExpiry, GrantCredits, VoidGrant};
use crate::domain::names::{EventName, TransactionId, WalletCode};
use crate::domain::refund::{self, RefundUsage};
use crate::domain::time::{Interval, Timestamp};
use crate::domain::transfer::{self, TransferCredits};
use crate::domain::usage::{self, DeductUsage, OnInsufficient};
use crate::domain::wallet::{OveragePolicy, Wallet, WalletSettings, WalletStatus};
use crate::error::Result;

const CODES: [&str; 3] = ["default", "promo", "archive"];

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
    now: Instant,
    usages: Vec<TransactionId>,
}

impl Subject {
    pub fn new(script: &Script) -> Self {
        let wallets = script.wallets.iter().zip(CODES);
        Self {
            store: Store::new(wallets.map(|((unit, setup), code)| wallet(code, unit, settings(setup))).collect()),
            now: START,
            usages: Vec::new(),
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
        let grant_id = |grant: Option<usize>| grant.map_or(Uuid::max(), |number| self.store.grants[number].id);
        let asked = Asked {
            grant: match request {
                Request::Void { grant, .. } | Request::ChangeExpiry { grant, .. } => grant_id(*grant),
                _ => Uuid::nil(),
            },
            usage: match request {
                Request::Refund { usage: Some(number), .. } => self.usages[*number].clone(),
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
            Ok(Did::Other(outcome)) => outcome,
        }
    }
}

enum Did {
    Granted(Uuid),
    Used(Option<TransactionId>, Outcome),
    Other(Outcome),
}

struct Asked {
    grant: Uuid,
    usage: TransactionId,
}

impl Asked {
    fn execute(&self, book: &mut Book<'_>, key: Option<&TransactionId>, request: &Request) -> Result<Did> {
        match request {
            Request::Grant { wallet, amount, kind, priority, effective, expires, applies } => {
                let request = GrantCredits {
                    amount: Amount::from_units(*amount),
                    wallet: code_of(*wallet),
                    grant_type: [GrantType::Promotional, GrantType::Committed, GrantType::Prepaid][usize::from(*kind)],
                    expires_at: expires.map(at),
                    effective_at: effective.map(at),
                    priority: *priority,
                    unit_price: None,
                    currency: None,
                    applies_to: applies.as_ref().map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
                    metadata: "{}".into(),
                };
                granting::grant(book, key, &request).map(Did::Granted)
            }
            Request::Void { amount, .. } => {
                let request = VoidGrant { grant_id: self.grant, amount: amount.map(Amount::from_units), metadata: None };
                granting::void(book, key, &request).map(|credits| Did::Other(Outcome::Voided(credits.units())))
            }
            Request::ChangeExpiry { expires, .. } => {
                let request = ChangeExpiry { grant_id: self.grant, expires_at: at(*expires), metadata: None };
                granting::change_expiry(book, key, &request).map(Did::Granted)
            }
            Request::Transfer { from, to, amount } => {
                let amount = Amount::from_units(*amount);
                let request = TransferCredits { amount, from_wallet: code_of(*from), to_wallet: code_of(*to), metadata: None };
                let done = transfer::transfer(book, key, &request)?;
                Ok(Did::Other(Outcome::Transferred {
                    transferred: done.transferred.units(),
                    from_balance: done.from_balance.units(),
                    to_balance: done.to_balance.units(),
                    replayed: done.replayed,
                }))
            }
            Request::Adjust { wallet, amount } => {
                let amount = Amount::from_units(*amount);
                let done =
                    granting::adjust(book, key, &AdjustCredits { amount, wallet: code_of(*wallet), metadata: "{}".into() })?;
                let (adjusted, balance) = (done.adjusted.units(), done.balance.units());
                Ok(Did::Other(Outcome::Adjusted { adjusted, balance, replayed: done.replayed }))
            }
            Request::Deduct { .. } => deduct(book, key, request),
            Request::Refund { amount, .. } => {
                let amount = amount.map(Amount::from_units);
                let request = RefundUsage { transaction_id: self.usage.clone(), amount, metadata: None };
                let done = refund::refund(book, key, &request)?;
                let (refunded, balance) = (done.refunded.units(), done.balance.units());
                Ok(Did::Other(Outcome::Refunded { refunded, balance, replayed: done.replayed }))
            }
            Request::SetStatus { wallet, status } => {
                granting::set_status(book, &code_of(*wallet), status_of(*status)).map(|()| Did::Other(Outcome::Done))
            }
            Request::Configure { wallet, setup } => {
                // As ops::wallets::configure does.
                let index = usage::wallet(book, &code_of(*wallet))?;
                usage::refuse_unless(book, index, &[WalletStatus::Active, WalletStatus::Frozen], "new settings")?;
                book.wallets[index].settings = settings(setup);
                Ok(Did::Other(Outcome::Done))
            }
        }
    }
}

fn deduct(book: &mut Book<'_>, key: Option<&TransactionId>, request: &Request) -> Result<Did> {
    let Request::Deduct { amount, scope, event, occurred, mode } = request else { unreachable!() };
    let (wallet, unit) = match scope {
        Scope::Wallet(wallet) => (Some(code_of(*wallet)), "credits"),
        Scope::Unit(unit) => (None, *unit),
    };
    let request = DeductUsage {
        amount: Amount::from_units(*amount),
        scope: usage::Scope { wallet, unit: unit.into() },
        event_name: event.map(|name| EventName::stored(name.into())),
        occurred_at: occurred.map(at),
        on_insufficient: match mode {
            Mode::Error => OnInsufficient::Error,
            Mode::Report => OnInsufficient::Report,
            Mode::Partial => OnInsufficient::Partial,
        },
        metadata: None,
    };
    let done = usage::deduct(book, key, &request)?;
    let outcome = Outcome::Deducted {
        status: done.status.code(),
        requested: done.requested.units(),
        deducted: done.deducted.units(),
        overage: done.overage.units(),
        balance: done.balance.units(),
        replayed: done.replayed,
    };
    Ok(Did::Used(done.transaction_id, outcome))
}

/// Makes a request's instants absolute and its numbers those of something that is there.
fn anchored(request: &Request, now: Instant, wallets: usize, grants: usize, usages: usize) -> Request {
    let wallet_of = |number: usize| if number % 24 == 23 { MISSING } else { number % wallets };
    let pick = |number: Option<usize>, count: usize| number.filter(|_| count > 0).map(|number| number % count);
    let later = |offset: Instant| if offset == NEVER { NEVER } else { now + offset };
    let mut request = request.clone();
    match &mut request {
        Request::Grant { wallet, effective, expires, .. } => {
            *wallet = wallet_of(*wallet);
            *effective = effective.map(later);
            *expires = expires.map(later);
        }
        Request::Void { grant, .. } => *grant = pick(*grant, grants),
        Request::ChangeExpiry { grant, expires } => (*grant, *expires) = (pick(*grant, grants), later(*expires)),
        Request::Transfer { from, to, .. } => {
            (*from, *to) = (wallet_of(*from), wallet_of(*to));
            if from == to {
                *to = if *from == MISSING { 0 } else { (*from + 1) % wallets };
            }
            if from == to {
                *to = MISSING;
            }
        }
        Request::Adjust { wallet, .. } | Request::SetStatus { wallet, .. } | Request::Configure { wallet, .. } => {
            *wallet = wallet_of(*wallet)
        }
        Request::Deduct { scope, occurred, .. } => {
            if let Scope::Wallet(wallet) = scope {
                *wallet = wallet_of(*wallet);
            }
            *occurred = occurred.map(later);
        }
        Request::Refund { usage, .. } => *usage = pick(*usage, usages),
    }
    request
}

/// The same request with another amount, or with all that is not compared changed; none if that makes no sense.
fn again(request: &Request, with_another_amount: bool) -> Option<Request> {
    let mut request = request.clone();
    let more = i128::from(with_another_amount);
    match &mut request {
        Request::Grant { amount, priority, expires, .. } => {
            *amount += more;
            *priority += 1;
            *expires = None;
        }
        Request::Deduct { amount, mode, occurred, .. } => {
            *amount += more;
            *occurred = None;
            *mode = if *mode == Mode::Error { Mode::Partial } else { Mode::Error };
        }
        Request::Transfer { amount, .. } => *amount += more,
        Request::Adjust { amount, .. } => *amount += if *amount < 0 { -more } else { more },
        Request::Void { amount, .. } | Request::Refund { amount, .. } => *amount = amount.map(|amount| amount + more),
        Request::ChangeExpiry { expires, .. } => *expires = NEVER,
        Request::SetStatus { .. } | Request::Configure { .. } => return None,
    }
    Some(request)
}

/// When the scheduled job settles while time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Settling {
    OnlyWhenNeeded,
    AsScripted,
    EveryHour,
}

/// Both sides of a history.
pub struct History {
    pub subject: Subject,
    settling: Settling,
    model: Model,
    asked: Vec<(Request, String)>,
}

impl History {
    fn new(script: &Script, settling: Settling) -> Self {
        let setups: Vec<_> = script.wallets.iter().zip(CODES).map(|((unit, setup), code)| (code, *unit, setup.clone())).collect();
        Self { subject: Subject::new(script), settling, model: Model::new(START, &setups), asked: Vec::new() }
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

    fn step(&mut self, number: usize, step: &Step) {
        match step {
            Step::Ask(request, key) => {
                let model = &self.model;
                let (wallets, grants, usages) = (model.accounts.len(), model.blocks.len(), model.usage_count());
                let request = anchored(request, model.now, wallets, grants, usages);
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
            Step::Wait { hours, settles } => self.wait(self.model.now + hours * HOUR, *settles),
            Step::WaitForGrant { number, settles } => {
                let times = self.model.blocks.iter().flat_map(|block| [block.effective, block.expires]);
                let mut times: Vec<Instant> = times.filter(|at| *at > self.model.now && *at < NEVER).collect();
                times.sort_unstable();
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
        if self.settling == Settling::EveryHour {
            for between in (self.model.now..until).step_by(HOUR as usize) {
                self.subject.wait(between, true);
            }
        }
        let settles = match self.settling {
            Settling::OnlyWhenNeeded => false,
            Settling::AsScripted => settles,
            Settling::EveryHour => true,
        };
        self.subject.wait(until, settles);
        self.model.pass_time(until);
    }

    /// What reading shows, settled or not, against the model.
    fn compare(&self) {
        let (store, model) = (&self.subject.store, &self.model);
        let read = store.read(at(self.subject.now), |book| {
            for (index, account) in model.accounts.iter().enumerate() {
                let number = book.wallet_index(&code_of(index)).unwrap();
                let wallet = &book.wallets[number];
                let got = (wallet.balance.units(), wallet.scheduled.units(), wallet.debt.units(), wallet.overage.units());
                let expected = (model.balance(index), model.scheduled(index), account.debt, account.overage);
                assert_eq!(got, expected, "balance, scheduled, debt and overage of {} and of the model", account.code);
                assert_eq!(wallet.status, status_of(account.status));
                let next_expiry = book.next_expiry(number).map(|(at, credits)| (at.to_postgres(), credits.units()));
                assert_eq!(next_expiry, model.next_expiry(index), "next expiry of {} and of the model", account.code);
            }
            for (number, block) in model.blocks.iter().enumerate() {
                let grant = book.find_grant(store.grants[number].id).unwrap();
                let got = (grant.amount.units(), grant.remaining.units(), grant.expired.units(), grant.status);
                let status = match block.state {
                    State::Waiting => GrantStatus::Scheduled,
                    State::Live if block.left > 0 => GrantStatus::Active,
                    State::Live => GrantStatus::Exhausted,
                    State::Expired => GrantStatus::Expired,
                    State::Voided => GrantStatus::Voided,
                };
                let expected = (block.amount, block.left, block.expired, status);
                assert_eq!(got, expected, "amount, remaining, expired and status of grant {number} and of the model");
            }
            assert_eq!(store.grants.len(), model.blocks.len());
        });
        read.expect("reading never fails");
    }
}

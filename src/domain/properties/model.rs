//! A naive ledger, written from the specification and from nothing else: flat lists, sorted anew for every question, plain numbers
//! for debt and overage, time stepped from event to event.

mod contracts;
mod granting;
mod holds;
mod recurring;
pub mod time;
mod usage;

use std::collections::BTreeMap;

use super::requests::rules::Rule;
use super::requests::{Credits, Instant, NEVER, Outcome, Request, Setup, Status};
pub use contracts::Contract;
pub use holds::{Hold, HoldState};
pub use recurring::Recurring;

#[derive(Debug, Clone)]
pub struct Account {
    pub code: &'static str,
    pub unit: &'static str,
    pub status: Status,
    pub setup: Setup,
    pub debt: Credits,
    pub overage: Credits,
    /// Which blocks repaid debt, and how much of that was not given back.
    repaid: Vec<(usize, Credits)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    Waiting,
    Live,
    Expired,
    Voided,
}

/// The rule that gave a block, by its code. It stays with the credits when they move to another block.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    /// The period of a recurring grant that began then.
    Period(usize, Instant),
    PeriodRollover(usize),
    Instalment(usize),
    ContractRollover,
}

#[derive(Debug, Clone)]
pub struct Block {
    pub wallet: usize,
    pub amount: Credits,
    pub left: Credits,
    pub expired: Credits,
    pub state: State,
    kind: u8,
    pub priority: i32,
    pub effective: Instant,
    pub expires: Instant,
    applies: Option<Vec<&'static str>>,
    origin: Option<Origin>,
    /// It ended with a cancelled contract, before it would have expired.
    ended_early: bool,
}

#[derive(Debug, Clone, Copy)]
enum Payer {
    Block(usize),
    /// Wallet, and the number of the charge.
    Receivable(usize, usize),
    Debt(usize),
}

/// Overage to be invoiced, less what was refunded of it.
#[derive(Debug, Clone)]
struct Charge {
    wallet: usize,
    at: Instant,
    left: Credits,
}

#[derive(Debug, Clone)]
struct Payment {
    payer: Payer,
    credits: Credits,
    returned: Credits,
}

#[derive(Debug, Clone)]
struct Usage {
    /// The wallet that a free event stands in.
    first_wallet: usize,
    payments: Vec<Payment>,
}

#[derive(Debug, Clone)]
struct Memory {
    same: String,
    outcome: Outcome,
    touched: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub now: Instant,
    pub accounts: Vec<Account>,
    pub blocks: Vec<Block>,
    usages: Vec<Usage>,
    charges: Vec<Charge>,
    /// By their code.
    pub recurring: BTreeMap<usize, Recurring>,
    pub contracts: BTreeMap<usize, Contract>,
    pub holds: Vec<Hold>,
    pub true_ups: Vec<contracts::TrueUp>,
    memory: BTreeMap<String, Memory>,
    touched: Vec<usize>,
}

type Answer = Result<Outcome, &'static str>;

impl Block {
    /// Credits of the promotional kind from and for ever, but for what is said otherwise.
    fn live(wallet: usize, amount: Credits) -> Self {
        Self {
            wallet,
            amount,
            left: amount,
            expired: 0,
            state: State::Live,
            kind: 0,
            priority: 100,
            effective: 0,
            expires: NEVER,
            applies: None,
            origin: None,
            ended_early: false,
        }
    }
}

impl Model {
    pub fn new(now: Instant, setups: &[(&'static str, &'static str, Setup)]) -> Self {
        let accounts = setups.iter().map(|(code, unit, setup)| Account {
            code,
            unit,
            status: Status::Active,
            setup: setup.clone(),
            debt: 0,
            overage: 0,
            repaid: Vec::new(),
        });
        Self {
            now,
            accounts: accounts.collect(),
            blocks: Vec::new(),
            usages: Vec::new(),
            charges: Vec::new(),
            recurring: BTreeMap::new(),
            contracts: BTreeMap::new(),
            holds: Vec::new(),
            true_ups: Vec::new(),
            memory: BTreeMap::new(),
            touched: Vec::new(),
        }
    }

    pub fn usage_count(&self) -> usize {
        self.usages.len()
    }

    pub fn balance(&self, wallet: usize) -> Credits {
        self.sum(wallet, State::Live)
    }

    pub fn scheduled(&self, wallet: usize) -> Credits {
        self.sum(wallet, State::Waiting)
    }

    fn sum(&self, wallet: usize, state: State) -> Credits {
        self.blocks.iter().filter(|block| block.wallet == wallet && block.state == state).map(|block| block.left).sum()
    }

    /// When credits of a wallet expire next, and how many.
    pub fn next_expiry(&self, wallet: usize) -> Option<(Instant, Credits)> {
        let live =
            |block: &&Block| block.wallet == wallet && block.state == State::Live && block.left > 0 && block.expires < NEVER;
        let at = self.blocks.iter().filter(live).map(|block| block.expires).min()?;
        Some((at, self.blocks.iter().filter(live).filter(|block| block.expires == at).map(|block| block.left).sum()))
    }

    /// SPEC 6, debt: spendable credits that are not limited repay it at once, in the order of spending.
    fn repay(&mut self) {
        for wallet in 0..self.accounts.len() {
            for index in self.sorted(&[wallet]) {
                let block = &mut self.blocks[index];
                let account = &mut self.accounts[wallet];
                let credits = block.left.min(account.debt);
                if block.state == State::Live && block.applies.is_none() && credits > 0 {
                    block.left -= credits;
                    account.debt -= credits;
                    account.repaid.push((index, credits));
                }
            }
        }
    }

    /// SPEC 4: wallets by priority and code, then blocks by the order within a wallet.
    fn sorted(&self, wallets: &[usize]) -> Vec<usize> {
        let mut indexes: Vec<usize> =
            (0..self.blocks.len()).filter(|index| wallets.contains(&self.blocks[*index].wallet)).collect();
        indexes.sort_by_key(|index| {
            let block = &self.blocks[*index];
            let account = &self.accounts[block.wallet];
            let limited_first = block.applies.is_none();
            let within = (block.priority, block.expires, limited_first, block.kind, block.effective, *index);
            (account.setup.priority, account.code, within)
        });
        indexes
    }

    /// What a request leads to; a refusal changes nothing.
    pub fn ask(&mut self, request: &Request, key: Option<&str>) -> Outcome {
        let same = same(request);
        if let Some(memory) = key.and_then(|key| self.memory.get(key)) {
            if memory.same != same {
                return Outcome::Refused("idempotency_key_reused");
            }
            return self.replayed(request, memory);
        }
        let mut after = self.clone();
        after.touched.clear();
        let outcome = match after.execute(request) {
            Ok(outcome) => outcome,
            Err(symbol) => return Outcome::Refused(symbol),
        };
        after.repay();
        let outcome = after.with_balances(request, outcome, &after.touched);
        let is_recorded = !matches!(outcome, Outcome::Deducted { status: "insufficient", .. });
        if let Some(key) = key.filter(|_| is_recorded) {
            let touched = after.touched.clone();
            after.memory.insert(key.to_owned(), Memory { same, outcome: outcome.clone(), touched });
        }
        *self = after;
        outcome
    }

    fn replayed(&self, request: &Request, memory: &Memory) -> Outcome {
        let mut outcome = self.with_balances(request, memory.outcome.clone(), &memory.touched);
        match &mut outcome {
            Outcome::Deducted { replayed, .. }
            | Outcome::Refunded { replayed, .. }
            | Outcome::Transferred { replayed, .. }
            | Outcome::Held { replayed, .. }
            | Outcome::Adjusted { replayed, .. } => *replayed = true,
            _ => {}
        }
        outcome
    }

    fn with_balances(&self, request: &Request, mut outcome: Outcome, touched: &[usize]) -> Outcome {
        match (&mut outcome, request) {
            (Outcome::Deducted { balance, .. }, Request::Deduct { scope, .. })
            | (Outcome::Held { balance, .. }, Request::Hold { scope, .. }) => *balance = self.spendable(scope),
            (
                Outcome::Deducted { balance, .. } | Outcome::Released { balance, .. },
                Request::Capture { hold: Some(hold), .. } | Request::Release { hold: Some(hold) },
            ) => *balance = self.spendable(&self.holds[*hold].scope),
            (Outcome::Refunded { balance, .. }, _) => *balance = touched.iter().map(|wallet| self.balance(*wallet)).sum(),
            (Outcome::Transferred { from_balance, to_balance, .. }, Request::Transfer { from, to, .. }) => {
                (*from_balance, *to_balance) = (self.balance(*from), self.balance(*to));
            }
            (Outcome::Adjusted { balance, .. }, Request::Adjust { wallet, .. }) => *balance = self.balance(*wallet),
            _ => {}
        }
        outcome
    }

    fn execute(&mut self, request: &Request) -> Answer {
        match request {
            Request::Grant { wallet, amount, kind, priority, effective, expires, applies } => {
                let account = self.account(*wallet)?;
                if account.status == Status::Closed {
                    return Err("wrong_state");
                }
                let effective = effective.unwrap_or(self.now);
                let expires = expires.or(account.setup.expires_after.map(|after| effective + after)).unwrap_or(NEVER);
                self.check_expiry(effective, expires)?;
                let state = if effective > self.now { State::Waiting } else { State::Live };
                let (kind, priority, applies) = (*kind, *priority, applies.clone());
                let new = Block { state, kind, priority, effective, expires, applies, ..Block::live(*wallet, *amount) };
                self.blocks.push(new);
                Ok(Outcome::Granted(self.blocks.len() - 1))
            }
            Request::Void { grant, amount } => self.void(*grant, *amount),
            Request::ChangeExpiry { grant, expires } => self.change_expiry(*grant, *expires),
            Request::Transfer { from, to, amount } => self.transfer(*from, *to, *amount),
            Request::Adjust { wallet, amount } => self.adjust(*wallet, *amount),
            Request::Deduct { amount, scope, event, occurred, mode } => self.deduct(*amount, scope, *event, *occurred, *mode),
            Request::Refund { usage, amount } => self.refund(*usage, *amount),
            Request::Hold { amount, scope, event, expires_in } => self.hold(*amount, scope, *event, *expires_in),
            Request::Capture { hold, amount, mode } => self.capture(*hold, *amount, *mode),
            Request::Release { hold } => self.release(*hold),
            Request::Rule(rule) => self.agree(rule),
            Request::SetStatus { wallet, status } => self.set_status(*wallet, *status),
            Request::Configure { wallet, setup } => {
                if self.account(*wallet)?.status == Status::Closed {
                    return Err("wrong_state");
                }
                self.accounts[*wallet].setup = setup.clone();
                Ok(Outcome::Done)
            }
        }
    }

    fn agree(&mut self, rule: &Rule) -> Answer {
        match rule {
            Rule::CreateRecurring(new) => self.create_recurring(new),
            Rule::UpdateRecurring { code, terms, ends } => self.update_recurring(*code, terms, *ends),
            Rule::CancelRecurring { code, at } => self.cancel_recurring(*code, *at),
            Rule::CreateContract(new) => self.create_contract(new),
            Rule::CancelContract { code, at } => self.cancel_contract(*code, *at),
        }
    }

    fn account(&self, wallet: usize) -> Result<&Account, &'static str> {
        self.accounts.get(wallet).ok_or("not_found")
    }

    fn check_expiry(&self, effective: Instant, expires: Instant) -> Result<(), &'static str> {
        if expires <= effective || expires <= self.now { Err("invalid_argument") } else { Ok(()) }
    }
}

/// SPEC 4: what makes two requests the same.
fn same(request: &Request) -> String {
    match request {
        Request::Grant { wallet, amount, .. } => format!("grant {amount} in {wallet}"),
        Request::Void { grant, amount } => format!("void {amount:?} of {grant:?}"),
        Request::ChangeExpiry { grant, .. } => format!("change expiry of {grant:?}"),
        Request::Transfer { from, to, amount } => format!("transfer {amount} from {from} to {to}"),
        Request::Adjust { wallet, amount } => format!("adjust {wallet} by {amount}"),
        Request::Deduct { amount, scope, event, .. } => format!("deduct {amount} of {scope:?} for {event:?}"),
        Request::Refund { usage, amount } => format!("refund {amount:?} of {usage:?}"),
        Request::Hold { amount, scope, event, .. } => format!("hold {amount} of {scope:?} for {event:?}"),
        Request::Capture { hold, amount, .. } => format!("capture {amount:?} of {hold:?}"),
        Request::SetStatus { .. } | Request::Configure { .. } | Request::Release { .. } | Request::Rule(_) => "has no key".into(),
    }
}

//! A naive ledger, written from the specification and from nothing else: flat lists, sorted anew for every question, plain numbers
//! for debt and overage, time stepped from event to event.

mod usage;

use std::collections::BTreeMap;

use super::requests::{Credits, Instant, NEVER, Outcome, Request, Setup, Status};

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

#[derive(Debug, Clone)]
pub struct Block {
    pub wallet: usize,
    pub amount: Credits,
    pub left: Credits,
    pub expired: Credits,
    pub state: State,
    kind: u8,
    priority: i32,
    pub effective: Instant,
    pub expires: Instant,
    applies: Option<Vec<&'static str>>,
}

#[derive(Debug, Clone, Copy)]
enum Payer {
    Block(usize),
    Receivable(usize),
    Debt(usize),
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
    memory: BTreeMap<String, Memory>,
    touched: Vec<usize>,
}

type Answer = Result<Outcome, &'static str>;

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

    /// SPEC 6: one event after the other; at one instant expiry, then activation, then repayment.
    pub fn pass_time(&mut self, until: Instant) {
        let event_of = |block: &Block| match block.state {
            State::Waiting => block.effective,
            State::Live if block.left > 0 => block.expires,
            _ => NEVER,
        };
        while let Some(at) = self.blocks.iter().map(event_of).min().filter(|at| *at <= until && *at < NEVER) {
            self.now = at;
            for block in &mut self.blocks {
                if block.state == State::Live && block.left > 0 && block.expires == at {
                    block.state = State::Expired;
                    block.expired += block.left;
                    block.left = 0;
                }
            }
            for block in &mut self.blocks {
                if block.state == State::Waiting && block.effective == at {
                    block.state = State::Live;
                }
            }
            self.repay();
        }
        self.now = until;
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
            | Outcome::Adjusted { replayed, .. } => *replayed = true,
            _ => {}
        }
        outcome
    }

    fn with_balances(&self, request: &Request, mut outcome: Outcome, touched: &[usize]) -> Outcome {
        match (&mut outcome, request) {
            (Outcome::Deducted { balance, .. }, Request::Deduct { scope, .. }) => {
                *balance = self.considered(scope).into_iter().map(|wallet| self.balance(wallet)).sum();
            }
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
                self.blocks.push(Block {
                    wallet: *wallet,
                    amount: *amount,
                    left: *amount,
                    expired: 0,
                    state,
                    kind: *kind,
                    priority: *priority,
                    effective,
                    expires,
                    applies: applies.clone(),
                });
                Ok(Outcome::Granted(self.blocks.len() - 1))
            }
            Request::Void { grant, amount } => self.void(*grant, *amount),
            Request::ChangeExpiry { grant, expires } => self.change_expiry(*grant, *expires),
            Request::Transfer { from, to, amount } => self.transfer(*from, *to, *amount),
            Request::Adjust { wallet, amount } => self.adjust(*wallet, *amount),
            Request::Deduct { amount, scope, event, occurred, mode } => self.deduct(*amount, scope, *event, *occurred, *mode),
            Request::Refund { usage, amount } => self.refund(*usage, *amount),
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

    fn account(&self, wallet: usize) -> Result<&Account, &'static str> {
        self.accounts.get(wallet).ok_or("not_found")
    }

    fn check_expiry(&self, effective: Instant, expires: Instant) -> Result<(), &'static str> {
        if expires <= effective || expires <= self.now { Err("invalid_argument") } else { Ok(()) }
    }

    fn void(&mut self, grant: Option<usize>, amount: Option<Credits>) -> Answer {
        let block = grant.and_then(|index| self.blocks.get_mut(index)).ok_or("not_found")?;
        if matches!(block.state, State::Expired | State::Voided) {
            return Err("wrong_state");
        }
        let credits = amount.unwrap_or(block.left);
        if credits > block.left {
            return Err("out_of_range");
        }
        block.left -= credits;
        if block.left == 0 {
            block.state = State::Voided;
        }
        Ok(Outcome::Voided(credits))
    }

    fn change_expiry(&mut self, grant: Option<usize>, expires: Instant) -> Answer {
        let old = grant.and_then(|index| self.blocks.get(index)).ok_or("not_found")?.clone();
        if matches!(old.state, State::Expired | State::Voided) || old.left == 0 {
            return Err("wrong_state");
        }
        self.check_expiry(old.effective, expires)?;
        let moved = &mut self.blocks[grant.unwrap()];
        moved.left = 0;
        if old.state == State::Waiting {
            moved.state = State::Voided;
        }
        self.blocks.push(Block { amount: old.left, expires, expired: 0, ..old });
        Ok(Outcome::Granted(self.blocks.len() - 1))
    }

    /// Takes from the live blocks of one wallet, limited ones too; which, and how much of each.
    fn take_any(&mut self, wallet: usize, amount: Credits) -> Result<Vec<(usize, Credits)>, &'static str> {
        let mut open = amount;
        let mut taken = Vec::new();
        for index in self.sorted(&[wallet]) {
            let block = &mut self.blocks[index];
            let credits = block.left.min(open);
            if block.state == State::Live && credits > 0 {
                block.left -= credits;
                open -= credits;
                taken.push((index, credits));
            }
        }
        if open > 0 { Err("insufficient_credits") } else { Ok(taken) }
    }

    fn transfer(&mut self, from: usize, to: usize, amount: Credits) -> Answer {
        let (source, target) = (self.account(from)?, self.account(to)?);
        if source.status != Status::Active || target.status == Status::Closed {
            return Err("wrong_state");
        }
        if source.unit != target.unit {
            return Err("invalid_argument");
        }
        for (index, credits) in self.take_any(from, amount)? {
            let block = self.blocks[index].clone();
            self.blocks.push(Block { wallet: to, amount: credits, left: credits, expired: 0, ..block });
        }
        Ok(Outcome::Transferred { transferred: amount, from_balance: 0, to_balance: 0, replayed: false })
    }

    fn adjust(&mut self, wallet: usize, amount: Credits) -> Answer {
        let account = self.account(wallet)?;
        if account.status == Status::Closed {
            return Err("wrong_state");
        }
        if amount > 0 {
            let expires = None;
            let (effective, applies) = (None, None);
            self.execute(&Request::Grant { wallet, amount, kind: 0, priority: 100, effective, expires, applies })?;
        } else {
            self.take_any(wallet, -amount)?;
        }
        Ok(Outcome::Adjusted { adjusted: amount, balance: 0, replayed: false })
    }

    fn set_status(&mut self, wallet: usize, status: Status) -> Answer {
        let account = self.account(wallet)?;
        if account.status == status {
            return Ok(Outcome::Done);
        }
        if account.status == Status::Closed || (status == Status::Closed && account.debt > 0) {
            return Err("wrong_state");
        }
        self.accounts[wallet].status = status;
        if status == Status::Closed {
            for block in self.blocks.iter_mut().filter(|block| block.wallet == wallet && block.left > 0) {
                block.state = State::Voided;
                block.left = 0;
            }
        }
        Ok(Outcome::Done)
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
        Request::SetStatus { .. } | Request::Configure { .. } => "has no key".into(),
    }
}

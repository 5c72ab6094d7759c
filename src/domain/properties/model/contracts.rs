//! The naive ledger's contracts.

use super::time::{after, share};
use super::{Answer, Block, Model, Origin, State};
use crate::domain::properties::requests::rules::{Every, NewContract};
use crate::domain::properties::requests::{CREDIT, Credits, Instant, NEVER, Outcome, Policy, Status};

/// Contract, quantity, price in the minor units of its currency, and the term.
pub type TrueUp = (usize, Credits, Credits, Instant, Instant);

#[derive(Debug, Clone)]
pub struct Contract {
    pub wallet: usize,
    pub terms: NewContract,
    dues: Vec<Instant>,
    cancelled: Option<Instant>,
    /// Instalments given, and their credits.
    pub granted: i32,
    pub granted_credits: Credits,
    pub rolled_over: Credits,
    pub has_ended: bool,
}

impl Contract {
    pub fn end(&self) -> Instant {
        self.cancelled.unwrap_or(self.terms.ends).min(self.terms.ends)
    }

    /// Its instalments and its end.
    pub fn instants(&self) -> impl Iterator<Item = Instant> {
        self.dues.iter().copied().chain([self.end()])
    }
}

/// When the instalments are due.
fn dues(terms: &NewContract) -> Vec<Instant> {
    let months_end = |months: i32| after(terms.starts, Every::months(months), 1);
    let is_whole = |months: &i32| months_end(*months) == terms.ends;
    let whole_months = (1..).take_while(|months| months_end(*months) <= terms.ends).find(is_whole);
    let due = |number: i32| match (terms.every, whole_months.filter(|months| months % terms.installments == 0)) {
        (Some(every), _) => after(terms.starts, every, number.into()),
        (None, Some(months)) => after(terms.starts, Every::months(months / terms.installments), number.into()),
        (None, None) => terms.starts + (terms.ends - terms.starts) * i64::from(number) / i64::from(terms.installments),
    };
    (0..terms.installments).map(due).collect()
}

/// Credits of an instalment: equal ones, and the last has what is left.
fn credits(terms: &NewContract, number: i32) -> Credits {
    let part = share(terms.committed, 1, terms.installments.into());
    if number < terms.installments - 1 { part } else { terms.committed - part * Credits::from(terms.installments - 1) }
}

fn check(terms: &NewContract, now: Instant) -> Result<(), &'static str> {
    let is_term = terms.starts < terms.ends && now < terms.ends;
    let is_divided = (0..terms.installments).all(|number| credits(terms, number) > 0);
    let is_due_in_term = is_term && dues(terms).into_iter().all(|due| due < terms.ends);
    if is_due_in_term && is_divided { Ok(()) } else { Err("invalid_argument") }
}

impl Model {
    pub(super) fn create_contract(&mut self, new: &NewContract) -> Answer {
        if self.account(new.wallet)?.status == Status::Closed {
            return Err("wrong_state");
        }
        if self.contracts.contains_key(&new.code) {
            return Err("already_exists");
        }
        check(new, self.now)?;
        if new.minimum_spend {
            let is_invoiced = self.accounts[new.wallet].setup.policy == Policy::Invoice;
            let others = self.contracts.values().filter(|other| other.wallet == new.wallet && other.terms.minimum_spend);
            let overlaps = |other: &Contract| other.terms.starts.max(new.starts) < other.end().min(new.ends);
            if new.price.is_none() || !is_invoiced || others.into_iter().any(overlaps) {
                return Err("invalid_argument");
            }
        }
        let contract = Contract {
            wallet: new.wallet,
            terms: new.clone(),
            dues: dues(new),
            cancelled: None,
            granted: 0,
            granted_credits: 0,
            rolled_over: 0,
            has_ended: false,
        };
        self.contracts.insert(new.code, contract);
        self.grant_instalments_due(new.code);
        Ok(Outcome::Done)
    }

    /// Grants the instalments due until now that have not been.
    pub(super) fn grant_instalments_due(&mut self, code: usize) {
        while let Some(contract) = self.contracts.get_mut(&code) {
            let (terms, number) = (&contract.terms, contract.granted);
            let is_left = !contract.has_ended && !terms.minimum_spend && number < terms.installments;
            let Some(effective) = contract.dues.get(number as usize).copied().filter(|due| is_left && *due <= self.now) else {
                return;
            };
            let amount = credits(terms, number);
            contract.granted += 1;
            contract.granted_credits += amount;
            let block = committed(contract.wallet, effective, terms.ends, Origin::Instalment(code));
            self.blocks.push(Block { amount, left: amount, ..block });
        }
    }

    pub(super) fn cancel_contract(&mut self, code: usize, at: Option<Instant>) -> Answer {
        let at = at.unwrap_or(self.now).max(self.now);
        let contract = self.contracts.get_mut(&code).ok_or("not_found")?;
        if !contract.has_ended && at < contract.end() {
            contract.cancelled = Some(at);
            self.end_contract_if_due(code);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn end_contract_if_due(&mut self, code: usize) {
        let Some(contract) = self.contracts.get_mut(&code).filter(|contract| !contract.has_ended && contract.end() == self.now)
        else {
            return;
        };
        contract.has_ended = true;
        let contract = contract.clone();
        let terms = &contract.terms;
        if terms.minimum_spend {
            return self.true_up(code, &contract);
        }
        // Credits that were given another life or moved to another wallet are the contract's no more.
        let is_of_contract = |block: &Block| {
            block.origin == Some(Origin::Instalment(code)) && block.wallet == contract.wallet && block.expires == terms.ends
        };
        let ending = self.live_blocks(is_of_contract);
        let percent = if terms.rolls_over { terms.percent } else { 0 };
        let rolled = self.roll_over(&ending, percent, terms.cap);
        self.contracts.get_mut(&code).unwrap().rolled_over = rolled;
        let expires = terms.life.map_or(NEVER, |life| after(self.now, life, 1));
        self.push_rolled(rolled, committed(contract.wallet, self.now, expires, Origin::ContractRollover));
        if self.now < terms.ends {
            for block in self.blocks.iter_mut().filter(|block| is_of_contract(block) && block.state != State::Voided) {
                // What is held of them, or refunded later, must end with them.
                block.ended_early = true;
                block.state = State::Expired;
            }
        }
    }

    /// SPEC 6: what was committed and not spent, at its price.
    fn true_up(&mut self, code: usize, contract: &Contract) {
        let (starts, end) = (contract.terms.starts, self.now);
        let of_term = |charge: &&super::Charge| charge.wallet == contract.wallet && charge.at >= starts;
        let spent: Credits = self.charges.iter().filter(of_term).map(|charge| charge.left).sum();
        let missing = contract.terms.committed - spent;
        if missing > 0 && starts < end {
            let cents = share(missing, contract.terms.price.unwrap(), CREDIT * CREDIT / 100);
            self.true_ups.push((code, missing, cents, starts, end));
        }
    }
}

fn committed(wallet: usize, effective: Instant, expires: Instant, origin: Origin) -> Block {
    Block { kind: 1, effective, expires, origin: Some(origin), ..Block::live(wallet, 0) }
}

//! The naive ledger's holds.

use super::usage::{charged, insufficient};
use super::{Answer, Model, Payer, Payment, Usage};
use crate::domain::properties::requests::{Credits, Instant, Mode, Outcome, Scope, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    Open,
    Captured,
    Released,
    Lapsed,
}

#[derive(Debug, Clone)]
pub struct Hold {
    /// Blocks, as they were taken.
    pub parts: Vec<(usize, Credits)>,
    pub lapses: Instant,
    pub scope: Scope,
    event: Option<&'static str>,
    pub state: HoldState,
}

impl Hold {
    pub fn total(&self) -> Credits {
        self.parts.iter().map(|(_, credits)| credits).sum()
    }
}

impl Model {
    /// What open holds have of a wallet.
    pub fn held(&self, wallet: usize) -> Credits {
        let open = self.holds.iter().filter(|hold| hold.state == HoldState::Open);
        let parts = open.flat_map(|hold| &hold.parts).filter(|(index, _)| self.blocks[*index].wallet == wallet);
        parts.map(|(_, credits)| credits).sum()
    }

    pub(super) fn hold(&mut self, amount: Credits, scope: &Scope, event: Option<&'static str>, expires_in: Instant) -> Answer {
        let wallets = self.payers(scope)?;
        let taken = self.take(&wallets, amount, event, None);
        let parts = taken.iter().map(|payment| match payment.payer {
            Payer::Block(index) => (index, payment.credits),
            _ => unreachable!(),
        });
        let lapses = self.now + expires_in;
        let hold = Hold { parts: parts.collect(), lapses, scope: scope.clone(), event, state: HoldState::Open };
        if hold.total() < amount {
            return Err("insufficient_credits");
        }
        self.holds.push(hold);
        Ok(Outcome::Held { held: amount, balance: 0, lapses, replayed: false })
    }

    fn find_hold(&self, number: Option<usize>) -> Result<Hold, &'static str> {
        number.and_then(|number| self.holds.get(number)).cloned().ok_or("not_found")
    }

    pub(super) fn capture(&mut self, number: Option<usize>, amount: Option<Credits>, mode: Mode) -> Answer {
        let hold = self.find_hold(number)?;
        if hold.state != HoldState::Open {
            return Err("wrong_state");
        }
        let amount = amount.unwrap_or(hold.total());
        let mut beyond = Vec::new();
        if amount > hold.total() {
            let mut wallets = self.considered(&hold.scope);
            wallets.retain(|wallet| self.accounts[*wallet].status == Status::Active);
            let wallets = self.in_order(wallets);
            beyond = match self.cover(&wallets, amount - hold.total(), hold.event, None, mode) {
                Some(payments) => payments,
                None if mode == Mode::Error => return Err("insufficient_credits"),
                None if mode == Mode::Report => return Ok(insufficient(amount)),
                None => Vec::new(),
            };
        }
        let mut open = amount;
        let mut payments = Vec::new();
        for &(index, credits) in &hold.parts {
            let captured = credits.min(open);
            open -= captured;
            if captured > 0 {
                payments.push(Payment { payer: Payer::Block(index), credits: captured, returned: 0 });
            }
            if captured < credits {
                self.give_back_to_block(index, credits - captured, self.now);
            }
        }
        payments.extend(beyond);
        let outcome = charged(amount, &payments);
        let first_wallet = self.blocks[hold.parts[0].0].wallet;
        self.usages.push(Usage { first_wallet, payments });
        self.holds[number.unwrap()].state = HoldState::Captured;
        Ok(outcome)
    }

    pub(super) fn release(&mut self, number: Option<usize>) -> Answer {
        let hold = self.find_hold(number)?;
        match hold.state {
            HoldState::Captured => return Err("wrong_state"),
            HoldState::Open => {
                for &(index, credits) in &hold.parts {
                    self.give_back_to_block(index, credits, self.now);
                }
                self.holds[number.unwrap()].state = HoldState::Released;
            }
            HoldState::Released | HoldState::Lapsed => {}
        }
        Ok(Outcome::Released { released: hold.total(), balance: 0 })
    }

    /// What comes back at an instant comes back before anything expires then.
    pub(super) fn holds_lapse(&mut self) {
        for number in 0..self.holds.len() {
            let hold = self.holds[number].clone();
            if hold.state == HoldState::Open && hold.lapses == self.now {
                for &(index, credits) in &hold.parts {
                    self.give_back_to_block(index, credits, self.now - 1);
                }
                self.holds[number].state = HoldState::Lapsed;
            }
        }
    }
}

//! The naive ledger's unused credits: voids, changes of expiry, transfers, adjustments, and the status of wallets.

use super::{Answer, Block, Model, State};
use crate::domain::properties::requests::rules::CODES;
use crate::domain::properties::requests::{Credits, Instant, Outcome, Request, Status};

impl Model {
    pub(super) fn void(&mut self, grant: Option<usize>, amount: Option<Credits>) -> Answer {
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

    pub(super) fn change_expiry(&mut self, grant: Option<usize>, expires: Instant) -> Answer {
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

    pub(super) fn transfer(&mut self, from: usize, to: usize, amount: Credits) -> Answer {
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

    pub(super) fn adjust(&mut self, wallet: usize, amount: Credits) -> Answer {
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

    pub(super) fn set_status(&mut self, wallet: usize, status: Status) -> Answer {
        let account = self.account(wallet)?;
        if account.status == status {
            return Ok(Outcome::Done);
        }
        if account.status == Status::Closed || (status == Status::Closed && (account.debt > 0 || self.held(wallet) > 0)) {
            return Err("wrong_state");
        }
        if status == Status::Closed {
            for block in self.blocks.iter_mut().filter(|block| block.wallet == wallet && block.left > 0) {
                block.state = State::Voided;
                block.left = 0;
            }
            for code in 0..CODES.len() {
                if self.recurring.get(&code).is_some_and(|recurring| recurring.wallet == wallet) {
                    self.cancel_recurring(code, None)?;
                    self.end_running_period(code);
                }
                if self.contracts.get(&code).is_some_and(|contract| contract.wallet == wallet) {
                    self.cancel_contract(code, None)?;
                }
            }
        }
        self.accounts[wallet].status = status;
        Ok(Outcome::Done)
    }
}

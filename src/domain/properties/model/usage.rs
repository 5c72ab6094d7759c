//! The naive ledger's usage: deductions, overage and refunds.

use super::{Account, Answer, Charge, Model, Payer, Payment, State, Usage};
use crate::domain::properties::requests::{Credits, Instant, MINUTE, Mode, Outcome, Policy, Scope, Status};

/// What a deduction answers if it charges nothing.
pub(super) fn insufficient(amount: Credits) -> Outcome {
    Outcome::Deducted { status: "insufficient", requested: amount, deducted: 0, overage: 0, balance: 0, replayed: false }
}

/// What it answers if these have paid.
pub(super) fn charged(amount: Credits, payments: &[Payment]) -> Outcome {
    let sum = |counts: fn(&Payer) -> bool| -> Credits {
        payments.iter().filter(|payment| counts(&payment.payer)).map(|payment| payment.credits).sum()
    };
    let deducted = sum(|payer| matches!(payer, Payer::Block(_)));
    let overage = sum(|payer| !matches!(payer, Payer::Block(_)));
    let status = match (deducted + overage < amount, overage > 0) {
        (true, _) => "partial",
        (false, true) => "overage",
        (false, false) => "charged",
    };
    Outcome::Deducted { status, requested: amount, deducted, overage, balance: 0, replayed: false }
}

impl Model {
    pub(super) fn spendable(&self, scope: &Scope) -> Credits {
        self.considered(scope).into_iter().map(|wallet| self.balance(wallet)).sum()
    }

    pub(super) fn considered(&self, scope: &Scope) -> Vec<usize> {
        match scope {
            Scope::Wallet(wallet) => Vec::from_iter((*wallet < self.accounts.len()).then_some(*wallet)),
            Scope::Unit(unit) => {
                let is_considered = |account: &Account| account.unit == *unit && account.status == Status::Active;
                (0..self.accounts.len()).filter(|wallet| is_considered(&self.accounts[*wallet])).collect()
            }
        }
    }

    pub(super) fn deduct(
        &mut self,
        amount: Credits,
        scope: &Scope,
        event: Option<&str>,
        occurred: Option<Instant>,
        mode: Mode,
    ) -> Answer {
        if occurred.is_some_and(|at| at > self.now + 5 * MINUTE) {
            return Err("invalid_argument");
        }
        let wallets = self.payers(scope)?;
        let Some(payments) = self.cover(&wallets, amount, event, occurred, mode) else {
            if mode == Mode::Error {
                return Err("insufficient_credits");
            }
            return Ok(insufficient(amount));
        };
        let outcome = charged(amount, &payments);
        self.usages.push(Usage { first_wallet: wallets[0], payments });
        Ok(outcome)
    }

    /// The wallets that usage is taken from, in order; the refusal if there are none.
    pub(super) fn payers(&self, scope: &Scope) -> Result<Vec<usize>, &'static str> {
        let wallets = self.considered(scope);
        let any = self.accounts.iter().any(|account| matches!(scope, Scope::Unit(unit) if *unit == account.unit));
        match wallets[..] {
            [] => Err(if any { "wrong_state" } else { "not_found" }),
            [wallet] if self.accounts[wallet].status != Status::Active => Err("wrong_state"),
            _ => Ok(self.in_order(wallets)),
        }
    }

    pub(super) fn in_order(&self, mut wallets: Vec<usize>) -> Vec<usize> {
        wallets.sort_by_key(|wallet| (self.accounts[*wallet].setup.priority, self.accounts[*wallet].code));
        wallets
    }

    /// Takes from the blocks, one after the other, what they have of an amount.
    pub(super) fn take(
        &mut self,
        wallets: &[usize],
        amount: Credits,
        event: Option<&str>,
        occurred: Option<Instant>,
    ) -> Vec<Payment> {
        let mut taken = Vec::new();
        let mut open = amount;
        for index in self.sorted(wallets) {
            let grace = self.accounts[self.blocks[index].wallet].setup.grace;
            let now = self.now;
            let block = &mut self.blocks[index];
            let is_late = block.state == State::Expired
                && !block.ended_early
                && occurred.is_some_and(|at| block.effective <= at && at < block.expires)
                && now - block.expires < grace;
            let pays = block.applies.as_ref().is_none_or(|names| event.is_some_and(|event| names.contains(&event)));
            let source = match block.state {
                State::Live => &mut block.left,
                _ if is_late => &mut block.expired,
                _ => continue,
            };
            let credits = open.min(*source);
            if pays && credits > 0 {
                *source -= credits;
                open -= credits;
                taken.push(Payment { payer: Payer::Block(index), credits, returned: 0 });
            }
        }
        taken
    }

    /// Charges blocks, then the overage of one wallet; none, and nothing changed, if that is not enough for the mode.
    pub(super) fn cover(
        &mut self,
        wallets: &[usize],
        amount: Credits,
        event: Option<&str>,
        occurred: Option<Instant>,
        mode: Mode,
    ) -> Option<Vec<Payment>> {
        let before = self.blocks.clone();
        let mut payments = self.take(wallets, amount, event, occurred);
        let open = amount - payments.iter().map(|payment| payment.credits).sum::<Credits>();
        if open > 0 {
            let rooms: Vec<(usize, Credits)> = wallets.iter().map(|wallet| (*wallet, self.room(*wallet))).collect();
            let whole = rooms.iter().rev().find(|(_, room)| *room >= open);
            let part = rooms.iter().rev().find(|(_, room)| *room > 0);
            match whole.or(part.filter(|_| mode == Mode::Partial)) {
                Some((wallet, room)) => payments.push(self.charge_overage(*wallet, open.min(*room))),
                None if mode == Mode::Partial && !payments.is_empty() => {}
                None => {
                    self.blocks = before;
                    return None;
                }
            }
        }
        Some(payments)
    }

    /// SPEC 9: how much more overage a wallet takes.
    fn room(&self, wallet: usize) -> Credits {
        let account = &self.accounts[wallet];
        let open = match account.setup.policy {
            Policy::Block => return 0,
            Policy::Invoice => account.overage,
            Policy::Overdraft => account.debt,
        };
        account.setup.limit.map_or(Credits::MAX, |limit| (limit - open).max(0))
    }

    fn charge_overage(&mut self, wallet: usize, credits: Credits) -> Payment {
        let account = &mut self.accounts[wallet];
        let payer = if account.setup.policy == Policy::Invoice {
            account.overage += credits;
            self.charges.push(Charge { wallet, at: self.now, left: credits });
            Payer::Receivable(wallet, self.charges.len() - 1)
        } else {
            account.debt += credits;
            Payer::Debt(wallet)
        };
        Payment { payer, credits, returned: 0 }
    }

    pub(super) fn refund(&mut self, usage: Option<usize>, amount: Option<Credits>) -> Answer {
        let index = usage.filter(|index| *index < self.usages.len()).ok_or("not_found")?;
        let left: Credits = self.usages[index].payments.iter().map(|payment| payment.credits - payment.returned).sum();
        let amount = amount.unwrap_or(left);
        if amount > left {
            return Err("out_of_range");
        }
        let mut open = amount;
        // Overage is the last payment, so that the last taken comes first whatever it is.
        for number in (0..self.usages[index].payments.len()).rev() {
            let payment = &mut self.usages[index].payments[number];
            let credits = open.min(payment.credits - payment.returned);
            payment.returned += credits;
            open -= credits;
            let payer = payment.payer;
            if credits > 0 {
                self.give_back(payer, credits);
            }
        }
        if amount == 0 {
            let usage = &self.usages[index];
            let first = usage.payments.first().map_or(usage.first_wallet, |payment| self.wallet_of(payment.payer));
            self.touched.push(first);
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        Ok(Outcome::Refunded { refunded: amount, balance: 0, replayed: false })
    }

    fn wallet_of(&self, payer: Payer) -> usize {
        match payer {
            Payer::Block(index) => self.blocks[index].wallet,
            Payer::Receivable(wallet, _) | Payer::Debt(wallet) => wallet,
        }
    }

    fn give_back(&mut self, payer: Payer, credits: Credits) {
        let wallet = self.wallet_of(payer);
        self.touched.push(wallet);
        match payer {
            Payer::Block(index) => self.give_back_to_block(index, credits, self.now),
            Payer::Receivable(_, charge) => {
                self.accounts[wallet].overage -= credits;
                self.charges[charge].left -= credits;
            }
            Payer::Debt(_) => {
                let cancelled = credits.min(self.accounts[wallet].debt);
                self.accounts[wallet].debt -= cancelled;
                let mut open = credits - cancelled;
                for number in (0..self.accounts[wallet].repaid.len()).rev() {
                    let (index, left) = self.accounts[wallet].repaid[number];
                    let credits = left.min(open);
                    self.accounts[wallet].repaid[number].1 -= credits;
                    open -= credits;
                    if credits > 0 {
                        self.give_back_to_block(index, credits, self.now);
                    }
                }
                assert_eq!(open, 0, "the model lost track of who repaid");
            }
        }
    }

    /// SPEC 4: what belongs to a grant that has ended since, by its expiry until some instant, ends with it at once.
    pub(super) fn give_back_to_block(&mut self, index: usize, credits: Credits, ended_until: Instant) {
        let block = &mut self.blocks[index];
        if block.state == State::Voided {
            // It has ended, and so has what comes back.
        } else if block.state == State::Expired || block.expires <= ended_until {
            block.state = State::Expired;
            block.expired += credits;
        } else if self.accounts[block.wallet].status == Status::Closed {
            block.state = State::Voided;
        } else {
            block.left += credits;
        }
    }
}

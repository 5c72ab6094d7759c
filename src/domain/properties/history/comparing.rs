//! What reading the domain's books shows, settled or not, against the model.

use super::rules::{contract_code, recurring_code};
use super::{History, at, code_of, status_of};
use crate::domain::book::Book;
use crate::domain::grant::GrantStatus;
use crate::domain::hold::HoldStatus;
use crate::domain::invoice::InvoiceLine;
use crate::domain::names::ContractCode;
use crate::domain::properties::model::{Block, HoldState, State};
use crate::domain::properties::requests::{CREDIT, NEVER};
use crate::domain::time::Timestamp;

fn status_of_block(block: &Block) -> GrantStatus {
    match block.state {
        State::Waiting => GrantStatus::Scheduled,
        State::Live if block.left > 0 => GrantStatus::Active,
        State::Live => GrantStatus::Exhausted,
        State::Expired => GrantStatus::Expired,
        State::Voided => GrantStatus::Voided,
    }
}

impl History {
    pub(super) fn compare(&self) {
        let read = self.subject.store.read(at(self.subject.now), |book| {
            self.compare_wallets(book);
            self.compare_grants(book);
            self.compare_recurring(book);
            self.compare_contracts(book);
            self.compare_holds(book);
        });
        read.expect("reading never fails");
    }

    fn compare_wallets(&self, book: &Book<'_>) {
        let model = &self.model;
        for (index, account) in model.accounts.iter().enumerate() {
            let number = book.wallet_index(&code_of(index)).unwrap();
            let wallet = &book.wallets[number];
            let got = [wallet.balance, wallet.held, wallet.scheduled, wallet.debt, wallet.overage].map(|total| total.units());
            let expected = [model.balance(index), model.held(index), model.scheduled(index), account.debt, account.overage];
            assert_eq!(got, expected, "balance, held, scheduled, debt and overage of {} and of the model", account.code);
            assert_eq!(wallet.status, status_of(account.status));
            let next_expiry = book.next_expiry(number).map(|(at, credits)| (at.to_postgres(), credits.units()));
            assert_eq!(next_expiry, model.next_expiry(index), "next expiry of {} and of the model", account.code);
        }
    }

    /// Grants are numbered in the order of creation, those that reading settles into being too.
    fn compare_grants(&self, book: &mut Book<'_>) {
        for grant in &self.subject.store.grants {
            book.find_grant(grant.id);
        }
        assert_eq!(book.grants.len(), self.model.blocks.len(), "grants of the domain and of the model");
        for (number, (copy, block)) in book.grants.values().zip(&self.model.blocks).enumerate() {
            let grant = &copy.grant;
            let got = (grant.amount.units(), grant.remaining.units(), grant.expired.units(), grant.status);
            let expected = (block.amount, block.left, block.expired, status_of_block(block));
            assert_eq!(got, expected, "amount, remaining, expired and status of grant {number} and of the model");
            let terms = &grant.terms;
            let got = (grant.wallet, terms.effective_at, terms.expires_at, terms.priority);
            let wallet = book.wallet_index(&code_of(block.wallet)).unwrap();
            let expected = (wallet, at(block.effective), at(block.expires), block.priority);
            assert_eq!(got, expected, "wallet, beginning, end and priority of grant {number} and of the model");
        }
    }

    fn compare_recurring(&self, book: &mut Book<'_>) {
        for (code, expected) in &self.model.recurring {
            let recurring = book.find_recurring(&recurring_code(*code)).unwrap();
            let next = if expected.next < expected.ends { expected.next } else { NEVER };
            assert_eq!(recurring.ends_at, at(expected.ends), "end of recurring grant {code}");
            assert_eq!(recurring.due_at(), at(next), "next period of recurring grant {code}");
            if expected.next > self.model.now {
                let began = expected.running.as_ref().map(|(began, _)| at(*began));
                assert_eq!(recurring.period.map(|period| period.starts_at), began, "running period of recurring grant {code}");
            }
        }
    }

    fn compare_contracts(&self, book: &mut Book<'_>) {
        for (code, expected) in &self.model.contracts {
            let contract = book.find_contract(&contract_code(*code)).unwrap();
            let credits = (contract.granted_credits.units(), contract.rolled_over_credits.units());
            assert_eq!(credits, (expected.granted_credits, expected.rolled_over), "granted and rolled over of contract {code}");
            let got = (contract.granted, contract.end(), contract.has_ended);
            assert_eq!(got, (expected.granted, at(expected.end()), expected.has_ended), "progress of contract {code}");
        }
        let got: Vec<_> = self.subject.store.lines.iter().chain(&book.lines).map(plain).collect();
        let cents = CREDIT / 100;
        let expected = self.model.true_ups.iter().map(|(code, quantity, money, starts, ends)| {
            (Some(contract_code(*code)), *quantity, money * cents, at(*starts), at(*ends))
        });
        assert_eq!(got, expected.collect::<Vec<_>>(), "true-ups: contract, quantity, amount and term");
    }

    fn compare_holds(&self, book: &mut Book<'_>) {
        assert_eq!(self.subject.holds.len(), self.model.holds.len());
        for (id, expected) in self.subject.holds.iter().zip(&self.model.holds) {
            let hold = book.find_hold(id).unwrap();
            let status = match expected.state {
                HoldState::Open => HoldStatus::Open,
                HoldState::Captured => HoldStatus::Captured,
                HoldState::Released => HoldStatus::Released,
                HoldState::Lapsed => HoldStatus::Lapsed,
            };
            assert_eq!((hold.status, hold.expires_at), (status, at(expected.lapses)), "status and end of hold {id}");
            let held: i128 = book.held_by(id).iter().map(|line| line.credits.units()).sum();
            assert_eq!(held, expected.total(), "credits of hold {id}");
        }
    }
}

fn plain(line: &InvoiceLine) -> (Option<ContractCode>, i128, i128, Timestamp, Timestamp) {
    (line.contract.clone(), line.quantity.units(), line.amount.units(), line.period_start, line.period_end)
}

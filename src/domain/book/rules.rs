//! What gives and takes credits by itself, as the book knows it: recurring grants, contracts, holds, and the grants they made.

use uuid::Uuid;

use super::Book;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::domain::contract::Contract;
use crate::domain::entry::Line;
use crate::domain::grant::{Grant, GrantStatus, Origin};
use crate::domain::hold::Hold;
use crate::domain::names::{ContractCode, RecurringCode, TransactionId, WalletCode};
use crate::domain::overage::OpenOverage;
use crate::domain::recurring::RecurringGrant;
use crate::domain::time::Timestamp;

impl Book<'_> {
    /// Reads the recurring grants, contracts and holds that fall due up to an instant.
    pub fn read_rules_due(&mut self, until: Timestamp) {
        for recurring in self.reader.recurring_due_until(until) {
            self.recurring.keep(recurring.code.clone(), recurring);
        }
        for contract in self.reader.contracts_due_until(until) {
            self.contracts.keep(contract.code.clone(), contract);
        }
        self.read_holds_due(until);
        self.read_top_up_rules_due(until);
    }

    fn read_holds_due(&mut self, until: Timestamp) {
        for hold in self.reader.holds_due_until(until) {
            self.holds.keep(hold.id.clone(), hold);
        }
    }

    /// The recurring grant of this code, if the customer has it.
    pub fn find_recurring(&mut self, code: &RecurringCode) -> Option<&mut RecurringGrant> {
        self.recurring.find(code, || self.reader.recurring_grant(code))
    }

    /// All recurring grants of a wallet, those that have ended too.
    pub fn read_recurring_of(&mut self, wallet: &WalletCode) -> impl Iterator<Item = &mut RecurringGrant> {
        for recurring in self.reader.recurring_of(wallet) {
            self.recurring.keep(recurring.code.clone(), recurring);
        }
        self.recurring.values_mut().filter(move |recurring| recurring.wallet == *wallet)
    }

    /// The wallet of a recurring grant that is in the book.
    pub fn wallet_of_recurring(&self, code: &RecurringCode) -> usize {
        self.wallet_of_rule(self.recurring.get(code).map(|recurring| &recurring.wallet))
    }

    /// The wallet of a contract that is in the book.
    pub fn wallet_of_contract(&self, code: &ContractCode) -> usize {
        self.wallet_of_rule(self.contracts.get(code).map(|contract| &contract.wallet))
    }

    fn wallet_of_rule(&self, code: Option<&WalletCode>) -> usize {
        match code.and_then(|code| self.wallet_index(code)) {
            Some(index) => index,
            None => panic!("a rule or its wallet is not in the book"),
        }
    }

    /// The contract of this code, if the customer has it.
    pub fn find_contract(&mut self, code: &ContractCode) -> Option<&mut Contract> {
        self.contracts.find(code, || self.reader.contract(code))
    }

    /// All contracts of a wallet, those that have ended too.
    pub fn contracts_of(&mut self, wallet: &WalletCode) -> Vec<Contract> {
        for contract in self.reader.contracts_of(wallet) {
            self.contracts.keep(contract.code.clone(), contract);
        }
        self.contracts.values().filter(|contract| contract.wallet == *wallet).cloned().collect()
    }

    /// The hold of this id, if the customer has it.
    pub fn find_hold(&mut self, id: &TransactionId) -> Option<&mut Hold> {
        self.holds.find(id, || self.reader.hold(id))
    }

    /// The credits that open holds have set aside, each with its grant.
    pub fn held(&mut self) -> Vec<(Uuid, Amount)> {
        if self.wallets.iter().all(|wallet| wallet.held.is_zero()) {
            return Vec::new();
        }
        if !self.are_all_holds_read {
            self.read_holds_due(Timestamp::NEVER);
            self.are_all_holds_read = true;
        }
        let open: Vec<TransactionId> = self.holds.values().filter(|hold| hold.is_open()).map(|hold| hold.id.clone()).collect();
        let lines = open.iter().flat_map(|id| self.held_by(id));
        lines.filter_map(|line| Some((line.grant?, line.credits))).collect()
    }

    /// What a hold set aside, in the order in which it was taken: read once.
    pub fn held_by(&mut self, id: &TransactionId) -> Vec<Line> {
        if let Some(lines) = self.held_lines.get(id) {
            return lines.clone();
        }
        let recorded = self.recorded(id);
        let mut lines = recorded.map(|recorded| recorded.lines).unwrap_or_default();
        lines.retain(|line| line.kind == Kind::Hold);
        self.held_lines.insert(id.clone(), lines.clone());
        lines
    }

    /// The active grants into which a recurring grant was rolled over.
    pub fn read_rolled_over(&mut self, code: &RecurringCode) {
        let grants = self.reader.rolled_over(code);
        self.keep_all(grants);
    }

    /// The active and exhausted grants of a contract's instalments.
    pub fn read_instalments(&mut self, code: &ContractCode) {
        let grants = self.reader.instalments(code);
        self.keep_all(grants);
    }

    /// The exhausted grants of an origin that have been read.
    pub fn used_up(&self, origin: &Origin) -> impl Iterator<Item = &Grant> {
        let grants = self.grants.values().map(|copy| &copy.grant);
        grants.filter(move |grant| grant.status == GrantStatus::Exhausted && grant.terms.origin.as_ref() == Some(origin))
    }

    /// The active grants of an origin that have been read, wallet by wallet in the order of creation.
    pub fn active_of(&self, origin: &Origin) -> impl Iterator<Item = &Grant> {
        self.active_by_origin.get(origin).into_iter().flatten().map(|(_, _, id)| self.grant(*id))
    }

    /// Overage to be invoiced of a wallet's stored entries since an instant, less refunds; settling writes none.
    pub fn overage_since(&self, wallet: &WalletCode, from: Timestamp) -> Amount {
        self.reader.overage_since(wallet, from)
    }

    /// Overage of a wallet that is not on an invoice line, of what is stored; settling writes none.
    pub fn open_overage(&self, wallet: usize, before: Timestamp) -> Vec<OpenOverage> {
        let wallet = &self.wallets[wallet];
        self.reader.open_overage(&wallet.code, wallet.overage_closed_seq, before)
    }

    /// What was given back of a hold that has ended, now or before.
    pub fn given_back(&self, hold: &TransactionId) -> Amount {
        let entries = self.referring(hold).into_iter().filter(|entry| entry.kind == Kind::HoldReleased);
        entries.map(|entry| entry.credits).sum()
    }
}

//! Undoing a part of a call: an item of a batch that is refused, an event that cannot be paid. What fails leaves no entry.

use uuid::Uuid;

use super::Book;
use crate::domain::amount::Amount;
use crate::domain::grant::{Grant, GrantStatus};
use crate::error::Result;

/// How grants were before each change, from the first [`Book::mark`] on.
#[derive(Debug, Default)]
pub struct Journal {
    is_kept: bool,
    grants: Vec<(Uuid, GrantStatus, Amount, Amount)>,
}

impl Journal {
    pub fn note(&mut self, grant: &Grant) {
        if self.is_kept {
            self.grants.push((grant.id, grant.status, grant.remaining, grant.expired));
        }
    }
}

/// Where a book stood. What may be undone are movements of usage: no grant, rule or hold is made or ended meanwhile.
#[derive(Debug)]
pub struct Mark {
    wallets: Vec<WalletTotals>,
    entries: usize,
    events: usize,
    noted: usize,
}

#[derive(Debug, Clone, Copy)]
struct WalletTotals {
    balance: Amount,
    held: Amount,
    scheduled: Amount,
    debt: Amount,
    overage: Amount,
    has_open_overage: bool,
    last_seq: i64,
}

impl Book<'_> {
    pub fn mark(&mut self) -> Mark {
        self.journal.is_kept = true;
        let totals = self.wallets.iter().map(|wallet| WalletTotals {
            balance: wallet.balance,
            held: wallet.held,
            scheduled: wallet.scheduled,
            debt: wallet.debt,
            overage: wallet.overage,
            has_open_overage: wallet.has_open_overage,
            last_seq: wallet.last_seq,
        });
        Mark {
            wallets: totals.collect(),
            entries: self.entries.len(),
            events: self.events.len(),
            noted: self.journal.grants.len(),
        }
    }

    /// Takes back every movement since the mark.
    pub fn undo(&mut self, mark: Mark) {
        self.journal.is_kept = false;
        for (id, status, remaining, expired) in self.journal.grants.split_off(mark.noted).into_iter().rev() {
            let grant = &mut self.copy_mut(id).grant;
            grant.remaining = remaining;
            grant.expired = expired;
            self.set_status(id, status);
        }
        self.journal.is_kept = true;
        for (wallet, totals) in self.wallets.iter_mut().zip(mark.wallets) {
            let WalletTotals { balance, held, scheduled, debt, overage, has_open_overage, last_seq } = totals;
            wallet.balance = balance;
            wallet.held = held;
            wallet.scheduled = scheduled;
            wallet.debt = debt;
            wallet.overage = overage;
            wallet.has_open_overage = has_open_overage;
            wallet.last_seq = last_seq;
        }
        self.events.truncate(mark.events);
        for entry in self.entries.drain(mark.entries..) {
            let opened = &mut self.transactions[entry.transaction];
            opened.lines -= 1;
            let referred = entry.movement.refers_to.as_ref().or(opened.refers_to.as_ref());
            if let Some(entries) = referred.and_then(|id| self.entries_referring.get_mut(id)) {
                entries.pop();
            }
        }
    }

    /// Runs `work`; if it fails, everything is as before.
    pub fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mark = self.mark();
        let result = work(self);
        if result.is_err() {
            self.undo(mark);
        }
        result
    }
}

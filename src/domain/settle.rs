//! Settling: whatever fell due is written at the instant it was due, in order (SPEC 6).
//!
//! The one mechanism behind both doors, the lazy one before every operation and the scheduled one. Each instant of a wallet is
//! one transaction, so that the ledger reads the same whether a year was settled day by day or at once.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::book::Book;
use super::chart::Kind;
use super::contract::{self, Contract};
use super::entry::Movement;
use super::grant::{Grant, GrantStatus, Origin};
use super::hold;
use super::names::{ContractCode, RecurringCode, TransactionId, WalletCode};
use super::recurring::{self, RecurringGrant};
use super::request::{Fingerprint, Operation};
use super::time::Timestamp;
use super::top_up;
use crate::error::Result;

/// What falls due at one instant happens in this order, each phase in the order of its key; debt is repaid last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Lapse(TransactionId),
    /// Grants that do not roll over, so that old rollover makes room under a cap.
    Expire(GrantKey),
    EndPeriod(RecurringCode),
    EndContract(ContractCode),
    StartPeriod(RecurringCode),
    GrantInstalment(ContractCode),
    Activate(GrantKey),
    /// What held a top-up back is over.
    TopUp(WalletCode),
}

type Due = (Timestamp, Task);

/// Wallet, place in the order of creation, id.
type GrantKey = (usize, i64, Uuid);

fn of_grant(grant: &Grant) -> Due {
    let key = (grant.wallet, grant.created_seq, grant.id);
    let task = match grant.status {
        GrantStatus::Scheduled => Task::Activate(key),
        _ => Task::Expire(key),
    };
    (grant.due_at(), task)
}

fn of_recurring(recurring: &RecurringGrant) -> Due {
    let code = recurring.code.clone();
    let task = if recurring.period.is_some() { Task::EndPeriod(code) } else { Task::StartPeriod(code) };
    (recurring.due_at(), task)
}

fn of_contract(contract: &Contract) -> Due {
    let (due_at, code) = (contract.due_at(), contract.code.clone());
    let task = if due_at == contract.end() { Task::EndContract(code) } else { Task::GrantInstalment(code) };
    (due_at, task)
}

/// Applies everything due up to the book's now, instant by instant. Afterwards everything in it is as the clock says; or, if more
/// than `entries_max` entries were written before, as it was at the end of an instant, and false.
pub fn settle(book: &mut Book<'_>, entries_max: usize) -> Result<bool> {
    let mut settling = Settling { until: book.now, queue: BTreeSet::new(), transactions: BTreeMap::new() };
    for id in book.read_due(book.now) {
        settling.queue.insert(of_grant(book.grant(id)));
    }
    book.read_rules_due(book.now);
    settling.queue.extend(book.recurring.values().map(of_recurring));
    settling.queue.extend(book.contracts.values().map(of_contract));
    settling.queue.extend(book.holds.values().map(|hold| (hold.due_at(), Task::Lapse(hold.id.clone()))));
    settling.queue.extend(book.top_up_rules.values().map(|rule| (rule.due_at, Task::TopUp(rule.wallet.clone()))));
    settling.run(book, entries_max)
}

struct Settling {
    until: Timestamp,
    queue: BTreeSet<Due>,
    /// The transaction of each wallet at the present instant.
    transactions: BTreeMap<usize, usize>,
}

impl Settling {
    fn run(&mut self, book: &mut Book<'_>, entries_max: usize) -> Result<bool> {
        let mut instant = None;
        while let Some((at, task)) = self.queue.pop_first().filter(|(at, _)| *at <= self.until && !at.is_never()) {
            if instant != Some(at) {
                self.end_instant(book, instant)?;
                instant = Some(at);
                if book.entries.len() > entries_max {
                    return Ok(false);
                }
            }
            self.perform(book, at, task)?;
        }
        self.end_instant(book, instant)?;
        Ok(true)
    }

    /// The wallet's transaction at this instant.
    fn transaction(&mut self, book: &mut Book<'_>, wallet: usize, at: Timestamp) -> usize {
        let begin = || book.begin(None, Fingerprint::of(Operation::Settle, &[]), at);
        *self.transactions.entry(wallet).or_insert_with(begin)
    }

    fn end_instant(&mut self, book: &mut Book<'_>, instant: Option<Timestamp>) -> Result<()> {
        if let Some(at) = instant {
            for (wallet, transaction) in std::mem::take(&mut self.transactions) {
                book.repay_debt(transaction, wallet, at)?;
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, book: &Book<'_>, grants: impl IntoIterator<Item = Uuid>) {
        self.queue.extend(grants.into_iter().map(|id| of_grant(book.grant(id))));
    }

    fn perform(&mut self, book: &mut Book<'_>, at: Timestamp, task: Task) -> Result<()> {
        match task {
            Task::Lapse(id) => {
                let lines = hold::lapse(book, &id, at)?;
                for line in &lines {
                    self.transaction(book, line.wallet, at);
                }
                self.enqueue(book, lines.into_iter().filter_map(|line| line.grant));
            }
            Task::Expire((wallet, _, id)) => {
                // The debt of an earlier instant may have used the grant up since it was queued: nothing of it is left to expire.
                let grant = book.grant(id);
                if grant.due_at() == at && !rolls_over(book, grant, at) {
                    let credits = grant.remaining;
                    let transaction = self.transaction(book, wallet, at);
                    book.end_grant(transaction, id, (Kind::Expiration, GrantStatus::Expired), credits, at)?;
                }
            }
            Task::EndPeriod(code) => {
                let transaction = self.transaction(book, book.wallet_of_recurring(&code), at);
                let rolled_over = recurring::end_period(book, transaction, &code, at)?;
                self.enqueue(book, rolled_over);
                self.queue.insert((at, Task::StartPeriod(code)));
            }
            Task::StartPeriod(code) => {
                let transaction = self.transaction(book, book.wallet_of_recurring(&code), at);
                let grant = recurring::start_period(book, transaction, &code, at)?;
                self.enqueue(book, grant);
                self.queue.extend(book.recurring.get(&code).map(of_recurring));
            }
            Task::EndContract(code) => {
                let transaction = self.transaction(book, book.wallet_of_contract(&code), at);
                let rolled_over = contract::end(book, transaction, &code, at)?;
                self.enqueue(book, rolled_over);
            }
            Task::GrantInstalment(code) => {
                let transaction = self.transaction(book, book.wallet_of_contract(&code), at);
                let grant = contract::grant_instalment(book, transaction, &code, at)?;
                self.enqueue(book, grant);
                self.queue.extend(book.contracts.get(&code).map(of_contract));
            }
            Task::Activate((wallet, _, id)) => {
                let transaction = self.transaction(book, wallet, at);
                let credits = book.grant(id).remaining;
                book.post(transaction, wallet, Movement::new(Kind::GrantActivated, credits, Some(id), at))?;
                book.set_status(id, GrantStatus::Active);
                self.enqueue(book, [id]);
            }
            Task::TopUp(code) => top_up::resume(book, &code),
        }
        Ok(())
    }
}

/// Whether a grant that expires at this instant ends by a rule of its own, later in the same instant.
fn rolls_over(book: &Book<'_>, grant: &Grant, at: Timestamp) -> bool {
    let in_wallet = |code| book.wallet_index(code) == Some(grant.wallet);
    match &grant.terms.origin {
        Some(Origin::Period(code)) => {
            book.recurring.get(code).is_some_and(|rule| in_wallet(&rule.wallet) && rule.rolls_over(grant, at))
        }
        Some(Origin::Instalment(code)) => {
            book.contracts.get(code).is_some_and(|rule| in_wallet(&rule.wallet) && rule.rolls_over(grant, at))
        }
        _ => false,
    }
}

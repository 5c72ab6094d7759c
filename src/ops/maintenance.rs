//! Settling customers that nobody touches: the scheduled door to [`crate::domain::settle`].

use super::connected;
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::chart::Kind;
use crate::domain::entry::Entry;
use crate::domain::grant::Origin;
use crate::domain::wallet::codes;
use crate::error::Result;
use crate::storage::{books, clock, jobs, wallets};

codes! {
    /// What maintenance does, as it is counted.
    Task {
        LapseHolds = "lapse_holds",
        ExpireGrants = "expire_grants",
        RenewGrants = "renew_grants",
        RunContracts = "run_contracts",
        ActivateGrants = "activate_grants",
        RepayDebt = "repay_debt",
        QueueTopUps = "queue_top_ups",
    }
}

impl Task {
    pub const ALL: [Task; 7] = [
        Task::LapseHolds,
        Task::ExpireGrants,
        Task::RenewGrants,
        Task::RunContracts,
        Task::ActivateGrants,
        Task::RepayDebt,
        Task::QueueTopUps,
    ];

    /// The task that an entry written by settling counts for.
    fn of(book: &Book<'_>, entry: &Entry) -> Option<Task> {
        match entry.movement.kind {
            Kind::HoldReleased => Some(Task::LapseHolds),
            Kind::Expiration => Some(Task::ExpireGrants),
            Kind::GrantActivated => Some(Task::ActivateGrants),
            Kind::OverdraftRepaid => Some(Task::RepayDebt),
            Kind::Grant => match entry.movement.grant.and_then(|id| book.grant(id).terms.origin.as_ref()) {
                Some(Origin::Instalment(_)) => Some(Task::RunContracts),
                _ => Some(Task::RenewGrants),
            },
            _ => None,
        }
    }
}

/// Entries written, and their credits. The end of a contract counts too, though it may write none.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    pub items: i64,
    pub credits: Amount,
}

impl Done {
    fn count(&mut self, entry: &Entry) {
        self.items += 1;
        self.credits += entry.movement.credits;
    }
}

/// What one call settled.
#[derive(Debug, Default)]
pub struct Settled {
    pub customers: i64,
    pub more_due: bool,
    pub rolled_over: Done,
    tasks: [Done; Task::ALL.len()],
}

impl Settled {
    pub fn of(&self, task: Task) -> Done {
        self.tasks[task as usize]
    }

    fn count(&mut self, book: &Book<'_>, is_last: bool) {
        self.customers += i64::from(is_last);
        for entry in &book.entries {
            if let Some(task) = Task::of(book, entry) {
                self.tasks[task as usize].count(entry);
            } else if entry.movement.kind == Kind::RolloverIn {
                self.rolled_over.count(entry);
            }
        }
        // What was held back counts when it is looked at, whether or not it is still needed.
        self.tasks[Task::QueueTopUps as usize].items += book.top_up_rules.changed_in(|rule| &rule.due_at).count() as i64;
        self.tasks[Task::RunContracts as usize].items += book.contracts.changed_in(|contract| &contract.has_ended).count() as i64;
    }
}

/// Settles up to `customers_max` customers with something due (with something of one task due, if named), those nobody else has
/// locked, completely.
pub fn settle_due(customers_max: i64, task: Option<Task>) -> Result<Settled> {
    connected(|| {
        let now = clock::now()?;
        let code = task.map(Task::code);
        let mut settled = Settled::default();
        let mut locked = wallets::lock_due(now, customers_max, code);
        // Neighbours in every index are then written one after the other.
        locked.sort_by(|a, b| a.customer_id.cmp(&b.customer_id));
        books::each_settled(
            locked,
            &mut |_| None,
            &mut |book, is_last| settled.count(book, is_last),
            // Nothing of this customer was written; the others must not wait for whoever looks into it.
            &mut |customer_id, error| pgrx::warning!("customer \"{customer_id}\" was not settled: {error}"),
        );
        settled.more_due = wallets::any_due(now, code);
        let ran = Task::ALL.into_iter().filter(|ran| task.is_none_or(|task| task == *ran));
        let ran: Vec<_> = ran.map(|ran| (ran.code(), settled.of(ran).items)).collect();
        jobs::record(now, &ran);
        Ok(settled)
    })
}

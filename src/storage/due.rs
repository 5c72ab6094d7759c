//! What is due of many customers, read together.

use std::collections::HashMap;

use super::grants::{self, StoredGrant};
use super::statement::Access;
use super::{contracts, holds, recurring, top_ups, wallets};
use crate::domain::contract::Contract;
use crate::domain::hold::Hold;
use crate::domain::names::CustomerId;
use crate::domain::recurring::RecurringGrant;
use crate::domain::time::Timestamp;
use crate::domain::top_up::TopUpRule;

/// What is due of one customer until an instant, read together with that of others.
pub struct Due {
    pub until: Timestamp,
    pub grants: Vec<StoredGrant>,
    /// Of all capped recurring grants that are due.
    pub rolled_over: Vec<StoredGrant>,
    pub recurring: Vec<RecurringGrant>,
    pub contracts: Vec<Contract>,
    pub holds: Vec<Hold>,
    pub top_up_rules: Vec<TopUpRule>,
    /// The next instant after that.
    pub next_due_at: Timestamp,
}

impl Due {
    /// Nothing, until an instant.
    fn new(until: Timestamp) -> Self {
        Self {
            until,
            grants: Vec::new(),
            rolled_over: Vec::new(),
            recurring: Vec::new(),
            contracts: Vec::new(),
            holds: Vec::new(),
            top_up_rules: Vec::new(),
            next_due_at: Timestamp::NEVER,
        }
    }

    /// Of many customers, in one statement a table.
    pub fn read(access: Access, customers: &[(&CustomerId, Timestamp)]) -> HashMap<CustomerId, Due> {
        let mut due: HashMap<CustomerId, Due> =
            customers.iter().map(|(customer_id, until)| ((*customer_id).clone(), Due::new(*until))).collect();
        fn sort<T>(due: &mut HashMap<CustomerId, Due>, read: Vec<(CustomerId, T)>, place: impl Fn(&mut Due, T)) {
            for (customer_id, row) in read {
                if let Some(due) = due.get_mut(&customer_id) {
                    place(due, row);
                }
            }
        }
        sort(&mut due, grants::due_until(access, customers), |due, grant| due.grants.push(grant));
        sort(&mut due, grants::rolled_over_due(access, customers), |due, grant| due.rolled_over.push(grant));
        sort(&mut due, recurring::due_until(access, customers), |due, recurring| due.recurring.push(recurring));
        sort(&mut due, contracts::due_until(access, customers), |due, contract| due.contracts.push(contract));
        sort(&mut due, holds::due_until(access, customers), |due, hold| due.holds.push(hold));
        sort(&mut due, top_ups::due_until(access, customers), |due, rule| due.top_up_rules.push(rule));
        let next: Vec<_> = wallets::next_due_after(access, customers).into_iter().collect();
        sort(&mut due, next, |due, at| due.next_due_at = at);
        due
    }
}

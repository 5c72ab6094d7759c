//! Defining, changing and cancelling recurring grants. Settling gives their credits.

use super::{change, connected};
use crate::domain::names::{CustomerId, RecurringCode};
use crate::domain::recurring::{self, CreateRecurringGrant, RecurringTerms};
use crate::domain::time::Timestamp;
use crate::error::Result;

pub fn create(customer_id: &CustomerId, request: &CreateRecurringGrant) -> Result<()> {
    connected(|| change(customer_id, |book| recurring::create(book, request)))
}

/// `set` changes the terms from the next period on, and the end.
pub fn update(
    customer_id: &CustomerId,
    code: &RecurringCode,
    set: impl FnOnce(&mut RecurringTerms, &mut Timestamp) -> Result<()>,
) -> Result<()> {
    connected(|| change(customer_id, |book| recurring::update(book, code, set)))
}

pub fn cancel(customer_id: &CustomerId, code: &RecurringCode, at: Option<Timestamp>) -> Result<()> {
    connected(|| change(customer_id, |book| recurring::cancel(book, code, at)))
}

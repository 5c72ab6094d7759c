//! Setting credits aside, and what becomes of them.

use super::{change, connected};
use crate::domain::hold::{self, CaptureHold, Held, HoldCredits, Release};
use crate::domain::names::{CustomerId, TransactionId};
use crate::domain::usage::Deduction;
use crate::error::Result;

pub fn hold(customer_id: &CustomerId, key: Option<&TransactionId>, request: &HoldCredits) -> Result<Held> {
    connected(|| change(customer_id, |book| hold::hold(book, key, request)))
}

pub fn capture(customer_id: &CustomerId, key: Option<&TransactionId>, request: &CaptureHold) -> Result<Deduction> {
    connected(|| change(customer_id, |book| hold::capture(book, key, request)))
}

pub fn release(customer_id: &CustomerId, hold_id: &TransactionId) -> Result<Release> {
    connected(|| change(customer_id, |book| hold::release(book, hold_id)))
}

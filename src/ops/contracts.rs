//! Concluding and cancelling contracts. Settling gives their instalments and ends them.

use super::{change, connected};
use crate::domain::contract::{self, Contract};
use crate::domain::names::{ContractCode, CustomerId};
use crate::domain::time::Timestamp;
use crate::error::Result;

pub fn create(customer_id: &CustomerId, contract: Contract) -> Result<()> {
    connected(|| change(customer_id, |book| contract::create(book, contract)))
}

pub fn cancel(customer_id: &CustomerId, code: &ContractCode, at: Option<Timestamp>) -> Result<()> {
    connected(|| change(customer_id, |book| contract::cancel(book, code, at)))
}

//! Granting, voiding, changing an expiry.

use uuid::Uuid;

use super::{change, connected};
use crate::domain::amount::Amount;
use crate::domain::granting::{self, ChangeExpiry, GrantCredits, VoidGrant};
use crate::domain::names::{CustomerId, TransactionId};
use crate::error::Result;

pub fn grant(customer_id: &CustomerId, key: Option<&TransactionId>, request: &GrantCredits) -> Result<Uuid> {
    connected(|| change(customer_id, |book| granting::grant(book, key, request)))
}

pub fn void(customer_id: &CustomerId, key: Option<&TransactionId>, request: &VoidGrant) -> Result<Amount> {
    connected(|| change(customer_id, |book| granting::void(book, key, request)))
}

pub fn change_expiry(customer_id: &CustomerId, key: Option<&TransactionId>, request: &ChangeExpiry) -> Result<Uuid> {
    connected(|| change(customer_id, |book| granting::change_expiry(book, key, request)))
}

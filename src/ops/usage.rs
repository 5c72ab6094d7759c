//! Deducting usage, and giving it back.

use uuid::Uuid;

use super::{change, connected, id_of, no_wallet, read};
use crate::domain::amount::Amount;
use crate::domain::fefo::{self, Usage};
use crate::domain::names::{CustomerId, EventName, TransactionId, WalletCode};
use crate::domain::refund::{self, Refund, RefundUsage};
use crate::domain::usage::{self, DeductUsage, Deduction, Scope};
use crate::error::Result;
use crate::storage::plain;
use crate::storage::plain::Documents;

/// Deducts: the plain way if the call is plain, else the general one. Both leave the same entry.
pub fn deduct(
    customer_id: &CustomerId,
    key: Option<TransactionId>,
    request: &DeductUsage,
    documents: Documents,
) -> Result<Deduction> {
    connected(|| {
        if request.amount.is_positive() {
            let id = id_of(key.as_ref())?;
            if let Some(balance) = plain::deduct(customer_id, &id, request, documents) {
                return Ok(Deduction::plain(id, request.amount, balance));
            }
        }
        change(customer_id, |book| usage::deduct(book, key.as_ref(), request))
    })
}

/// What would pay, grant by grant, without changing anything.
pub fn preview(
    customer_id: &CustomerId,
    amount: Amount,
    scope: &Scope,
    event_name: Option<&EventName>,
) -> Result<Vec<(WalletCode, Uuid, Amount)>> {
    read(customer_id, None, |book| {
        let wallets = scope.active_wallets(book)?;
        let plan = fefo::plan(book, &wallets, amount, Usage::Event(event_name), None);
        let takes = plan.takes.iter();
        Ok(takes.map(|take| (book.wallets[take.wallet].code.clone(), take.grant, take.credits)).collect())
    })?
    .ok_or_else(|| no_wallet(customer_id))
}

pub fn refund(customer_id: &CustomerId, key: Option<&TransactionId>, request: &RefundUsage) -> Result<Refund> {
    connected(|| change(customer_id, |book| refund::refund(book, key, request)))
}

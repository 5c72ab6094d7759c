//! A customer's book: loading it, reading for it, storing what a call changed.

use uuid::Uuid;

use super::grants::{self, Grants};
use super::ids::RandomIds;
use super::ledger;
use super::statement::Access;
use super::wallets::{self, CustomerTime, Head};
use crate::domain::amount::Amount;
use crate::domain::book::{Book, Reader, Recorded, Repayment};
use crate::domain::grant::{Grant, SpendingOrder};
use crate::domain::names::{CustomerId, TransactionId, WalletCode};
use crate::domain::settle;
use crate::domain::time::Timestamp;
use crate::domain::wallet::{Wallet, WalletStatus};
use crate::error::Result;

impl Reader for Grants<'_> {
    fn live_after(&self, wallet: &WalletCode, after: Option<SpendingOrder>, grants_max: usize) -> Vec<Grant> {
        Grants::live_after(self, wallet, after, grants_max)
    }

    fn due_until(&self, until: Timestamp) -> Vec<Grant> {
        Grants::due_until(self, until)
    }

    fn due_after(&self, after: Timestamp, skip: usize, grants_max: usize) -> Vec<Grant> {
        Grants::due_after(self, after, skip, grants_max)
    }

    fn expired_since(&self, wallet: &WalletCode, live_at: Timestamp) -> Vec<Grant> {
        Grants::expired_since(self, wallet, live_at)
    }

    fn by_id(&self, id: Uuid) -> Option<Grant> {
        Grants::by_id(self, id)
    }

    fn transaction(&self, id: &TransactionId) -> Option<Recorded> {
        ledger::transaction(self, id)
    }

    fn refunded(&self, id: &TransactionId) -> Amount {
        ledger::refunded(self.access, self.customer_id, id)
    }

    fn repayments(&self, wallet: &WalletCode) -> Vec<Repayment> {
        ledger::repayments(self.access, self.customer_id, wallet)
    }
}

/// Loads the customer's book, settled up to `now`, and lets `work` use it. The customer's lock is held, or nothing is written.
pub fn with_settled<T>(
    access: Access,
    customer_id: &CustomerId,
    time: CustomerTime,
    work: impl FnOnce(&mut Book<'_>, &[Wallet]) -> Result<T>,
) -> Result<T> {
    let (reader, wallets) = Grants::of(customer_id, access, wallets::load(access, customer_id));
    let mut book = Book::new(customer_id.clone(), time.now, wallets, &reader, &RandomIds);
    reader.set_order(&book.wallets);
    let before = book.wallets.clone();
    if time.next_due_at <= time.now {
        settle::settle(&mut book)?;
    }
    work(&mut book, &before)
}

/// A book with what was read of its wallets, and the due instant that its anchor has.
pub struct Changes<'a, 'b> {
    pub book: &'a Book<'b>,
    pub before: &'a [Wallet],
    pub time: CustomerTime,
}

impl Changes<'_, '_> {
    /// When the customer is due next. After settling it is looked up; else it only can have come nearer.
    fn next_due_at(&self) -> Timestamp {
        if self.time.next_due_at <= self.time.now {
            self.book.next_due_at()
        } else {
            self.time.next_due_at.min(self.book.earliest_due())
        }
    }

    /// The grant that may ride on its wallet's row from now on, for the plain deductions to come: that of the customer's only wallet
    /// which is first in order and pays for any usage. Not looked up: without a deduction nobody has asked for it.
    fn head(&self) -> Option<Head> {
        let [wallet] = self.book.wallets.as_slice() else {
            return None;
        };
        let first = self.book.first_live_read(0).filter(|grant| grant.terms.applies_to.is_none())?;
        (wallet.status == WalletStatus::Active).then_some(Head { grant: first.id, remaining: first.remaining })
    }
}

/// Writes what changed, each row once.
pub fn store(changes: &Changes<'_, '_>) {
    let book = changes.book;
    let next_due_at = changes.next_due_at();
    let books = [book];
    grants::store(&books);
    ledger::append(&books);
    let head = changes.head();
    let changed = book.wallets.iter().zip(changes.before).filter(|(after, before)| after != before || head.is_some());
    let changed: Vec<_> = changed.map(|(wallet, _)| (&book.customer_id, wallet, head)).collect();
    wallets::store(&changed);
    if !book.entries.is_empty() || next_due_at != changes.time.next_due_at {
        let recorded_at = if book.entries.is_empty() { Timestamp::from_postgres(i64::MIN) } else { book.now };
        wallets::store_time(&[(&book.customer_id, recorded_at, next_due_at)]);
    }
}

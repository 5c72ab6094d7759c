//! A customer's book: loading it, reading for it, storing what a call changed.

use uuid::Uuid;

use super::grants::{self, Grants};
use super::ids::RandomIds;
use super::ledger;
use super::statement::Access;
use super::wallets::{self, CustomerTime, Head, StoredWallet};
use crate::domain::amount::Amount;
use crate::domain::book::{Book, Reader};
use crate::domain::entry::{Recorded, Repayment};
use crate::domain::grant::{Grant, SpendingOrder};
use crate::domain::names::{CustomerId, TransactionId, WalletCode};
use crate::domain::settle;
use crate::domain::time::Timestamp;
use crate::domain::wallet::WalletStatus;
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
    work: impl FnOnce(&mut Book<'_>, &[StoredWallet]) -> Result<T>,
) -> Result<T> {
    let mut before = wallets::load(access, customer_id);
    let reader = Grants::of(customer_id, access, &before);
    let wallets = before.iter().map(|stored| stored.wallet.clone()).collect();
    let mut book = Book::new(customer_id.clone(), time.now, wallets, &reader, &RandomIds);
    reader.set_order(book.wallets.iter());
    before.sort_by_key(|stored| book.wallet_index(&stored.wallet.code));
    if time.next_due_at <= time.now {
        settle::settle(&mut book)?;
    }
    work(&mut book, &before)
}

/// A book with what was read of its wallets (in the same order), and the due instant that its anchor has.
pub struct Changes<'a, 'b> {
    pub book: &'a Book<'b>,
    pub before: &'a [StoredWallet],
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

    /// The grant that rides on its wallet's row from now on, for the plain deductions to come: of the customer's only wallet, the
    /// one which is first in order, if it pays for any usage. Not looked up: known if this call took credits first expiring first.
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
    let wallets = || book.wallets.iter().zip(changes.before);
    if !book.entries.is_empty() || wallets().any(|(after, before)| *after != before.wallet) {
        let head = changes.head();
        for before in changes.before {
            if let Some(rode) = before.head
                && head.is_none_or(|head| head.grant != rode.grant)
            {
                wallets::dismount(&book.customer_id, rode);
            }
        }
        grants::store(&[book]);
        ledger::append(&[book]);
        let changed = wallets().filter(|(after, before)| **after != before.wallet || head != before.head);
        let changed: Vec<_> = changed.map(|(wallet, _)| (&book.customer_id, wallet, head)).collect();
        wallets::store(&changed);
    }
    let next_due_at = changes.next_due_at();
    if !book.entries.is_empty() || next_due_at != changes.time.next_due_at {
        let recorded_at = if book.entries.is_empty() { Timestamp::from_postgres(i64::MIN) } else { book.now };
        wallets::store_time(&[(&book.customer_id, recorded_at, next_due_at)]);
    }
}

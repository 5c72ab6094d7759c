//! Creating and configuring wallets, moving and adjusting credits.

use super::{change, connected};
use crate::domain::contract;
use crate::domain::granting::{self, AdjustCredits, Adjustment};
use crate::domain::names::{CustomerId, TransactionId, WalletCode};
use crate::domain::transfer::{self, Transfer, TransferCredits};
use crate::domain::usage::{refuse_unless, wallet as find_wallet};
use crate::domain::wallet::{WalletSettings, WalletStatus};
use crate::error::{Error, Result};
use crate::storage::wallets as stored;

/// Creates a wallet; the customer's first becomes its anchor.
pub fn create(
    customer_id: &CustomerId,
    code: &WalletCode,
    unit: &str,
    settings: &WalletSettings,
    if_not_exists: bool,
) -> Result<()> {
    let created = connected(|| {
        // Without an anchor there is no lock to take: the unique index on anchors decides who creates it, and whoever loses
        // waits there for the winner and then finds its lock.
        let is_first = stored::lock(customer_id).is_none() && stored::create(customer_id, code, true, unit, settings);
        is_first || (stored::lock(customer_id).is_some() && stored::create(customer_id, code, false, unit, settings))
    });
    if created || if_not_exists {
        return Ok(());
    }
    Err(Error::AlreadyExists {
        what: "wallet",
        name: format!("\"{code}\" of customer \"{customer_id}\""),
        hint: "Pass if_not_exists => true to keep the one there is, or change it with credits.update_wallet.".into(),
    })
}

/// Changes the settings of a wallet, from now on.
pub fn configure(customer_id: &CustomerId, code: &WalletCode, set: impl FnOnce(&mut WalletSettings) -> Result<()>) -> Result<()> {
    connected(|| {
        let settings = change(customer_id, |book| {
            let index = find_wallet(book, code)?;
            refuse_unless(book, index, WalletStatus::NOT_CLOSED, "new settings")?;
            set(&mut book.wallets[index].settings)?;
            contract::check_policy(book, index)?;
            Ok(book.wallets[index].settings.clone())
        })?;
        stored::configure(customer_id, code, &settings);
        Ok(())
    })
}

pub fn set_status(customer_id: &CustomerId, code: &WalletCode, status: WalletStatus) -> Result<()> {
    connected(|| change(customer_id, |book| granting::set_status(book, code, status)))
}

pub fn transfer(customer_id: &CustomerId, key: Option<&TransactionId>, request: &TransferCredits) -> Result<Transfer> {
    connected(|| change(customer_id, |book| transfer::transfer(book, key, request)))
}

pub fn adjust(customer_id: &CustomerId, key: Option<&TransactionId>, request: &AdjustCredits) -> Result<Adjustment> {
    connected(|| change(customer_id, |book| granting::adjust(book, key, request)))
}

//! Moving credits between two wallets of a customer (SPEC 3).

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::Movement;
use super::granting::takes_of_any;
use super::names::{TransactionId, WalletCode};
use super::request::{Fingerprint, Operation, Part};
use super::usage::{refuse_unless, wallet};
use super::wallet::WalletStatus;
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct TransferCredits {
    pub amount: Amount,
    pub from_wallet: WalletCode,
    pub to_wallet: WalletCode,
    /// JSON text.
    pub metadata: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Transfer {
    pub transaction_id: TransactionId,
    pub transferred: Amount,
    pub from_balance: Amount,
    pub to_balance: Amount,
    pub replayed: bool,
}

/// Moves credits once for its key, in the order of spending; each block keeps its expiry, type, price, priority and limits.
pub fn transfer(book: &mut Book<'_>, key: Option<&TransactionId>, request: &TransferCredits) -> Result<Transfer> {
    let parts = [
        Part::Amount(Some(request.amount)),
        Part::Text(Some(request.from_wallet.as_str())),
        Part::Text(Some(request.to_wallet.as_str())),
    ];
    let fingerprint = Fingerprint::of(Operation::TransferCredits, &parts);
    let Answer { recorded, replayed } = book.once(key, fingerprint, |book, transaction| execute(book, transaction, request))?;
    let balance = |code| book.wallet_index(code).map_or(Amount::ZERO, |index| book.wallets[index].balance);
    Ok(Transfer {
        transferred: recorded.sum(|kind| kind == Kind::TransferOut),
        from_balance: balance(&request.from_wallet),
        to_balance: balance(&request.to_wallet),
        transaction_id: recorded.id,
        replayed,
    })
}

fn execute(book: &mut Book<'_>, transaction: usize, request: &TransferCredits) -> Result<()> {
    let from = wallet(book, &request.from_wallet)?;
    let to = wallet(book, &request.to_wallet)?;
    refuse_unless(book, from, &[WalletStatus::Active], "transfer out")?;
    refuse_unless(book, to, WalletStatus::NOT_CLOSED, "transfer in")?;
    let (from_unit, to_unit) = (&book.wallets[from].unit, &book.wallets[to].unit);
    if from_unit != to_unit {
        return Err(Error::invalid(
            "to_wallet",
            format!("its unit is \"{to_unit}\", that of wallet \"{}\" is \"{from_unit}\"", request.from_wallet),
            "Transfer between wallets of one unit.",
        ));
    }
    book.transactions[transaction].metadata = request.metadata.clone();
    let now = book.now;
    for take in takes_of_any(book, from, request.amount)? {
        let terms = book.grant(take.grant).terms.clone();
        book.post(transaction, from, Movement::new(Kind::TransferOut, take.credits, Some(take.grant), now))?;
        book.add_grant(transaction, to, Kind::TransferIn, take.credits, terms, now)?;
    }
    Ok(())
}

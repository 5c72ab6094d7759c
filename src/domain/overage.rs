//! Overage: which wallet takes the usage that grants do not cover (SPEC 9).

use super::amount::Amount;
use super::book::Book;
use super::entry::Movement;
use super::wallet::{OverageRoom, WalletStatus};
use crate::error::Result;

/// The last active wallet in spending order that takes at least `credits_min` more: exactly one wallet takes all overage of a call.
pub fn last_wallet_with_room(book: &Book<'_>, wallets: &[usize], credits_min: Amount) -> Option<(usize, OverageRoom)> {
    wallets.iter().rev().find_map(|&index| {
        let wallet = &book.wallets[index];
        let room = wallet.overage_room()?;
        let fits = room.credits_max.is_none_or(|credits_max| credits_min <= credits_max);
        (wallet.status == WalletStatus::Active && fits).then_some((index, room))
    })
}

/// Charges usage to a wallet beyond its grants, at the price in force now.
pub fn charge(book: &mut Book<'_>, transaction: usize, wallet: usize, room: OverageRoom, credits: Amount) -> Result<()> {
    let movement = Movement { price: room.price, ..Movement::new(room.kind, credits, None, book.now) };
    book.post(transaction, wallet, movement)
}

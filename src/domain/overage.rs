//! Overage: which wallet takes the usage that grants do not cover, and the invoice lines it comes to (SPEC 9).

use super::amount::Amount;
use super::book::Book;
use super::entry::Movement;
use super::invoice::{InvoiceLine, LineKind, money};
use super::time::Timestamp;
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

/// Overage of one price that is not on an invoice line: charges less refunds.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOverage {
    pub unit_price: Amount,
    pub currency: String,
    /// Negative if more was refunded than charged: what was charged is on an earlier line.
    pub quantity: Amount,
    /// When the first of it was charged or refunded.
    pub from: Timestamp,
    pub last_seq: i64,
    /// Whether all of it is older than the instant asked for; what is not stays open.
    pub is_older: bool,
}

/// Turns the customer's open overage before an instant into invoice lines, one for each wallet, price and currency. A wallet whose
/// lines cannot be made (22003) is left as it is, the others are closed all the same.
pub fn close(book: &mut Book<'_>, as_of: Timestamp) -> Result<()> {
    let as_of = as_of.min(book.now);
    let mut closed = Ok(());
    for index in 0..book.wallets.len() {
        if book.wallets[index].has_open_overage {
            let open = book.open_overage(index, as_of);
            closed = closed.and(close_wallet(book, index, as_of, open));
        }
    }
    closed
}

fn close_wallet(book: &mut Book<'_>, index: usize, as_of: Timestamp, open: Vec<OpenOverage>) -> Result<()> {
    let (older, newer): (Vec<OpenOverage>, Vec<OpenOverage>) = open.into_iter().partition(|open| open.is_older);
    let what = format!("the overage of wallet \"{}\" of customer \"{}\"", book.wallets[index].code, book.customer_id);
    let mut lines = Vec::new();
    for open in older.iter().filter(|open| !open.quantity.is_zero()) {
        let quantity = open.quantity.in_range(&what)?;
        let amount = money(quantity, open.unit_price, &open.currency).unwrap_or(Amount::from_units(i128::MAX)).in_range(&what)?;
        lines.push(InvoiceLine {
            line_id: book.new_id(book.now),
            wallet: book.wallets[index].code.clone(),
            kind: LineKind::Overage,
            contract: None,
            quantity,
            unit_price: open.unit_price,
            amount,
            currency: open.currency.clone(),
            period_start: open.from,
            period_end: as_of,
        });
    }
    let wallet = &mut book.wallets[index];
    wallet.overage -= lines.iter().map(|line| line.quantity).sum::<Amount>();
    wallet.overage_closed_seq = older.iter().map(|open| open.last_seq).max().unwrap_or(wallet.overage_closed_seq);
    wallet.has_open_overage = !newer.is_empty();
    book.lines.extend(lines);
    Ok(())
}

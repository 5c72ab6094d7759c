//! Refunds of usage: overage first, then to the grants that paid, the last taken first (SPEC 4).

use uuid::Uuid;

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::{Line, Movement, Recorded};
use super::metering::{self, Metered};
use super::names::TransactionId;
use super::request::{Fingerprint, Operation, Part};
use super::usage::Deduction;
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct RefundUsage {
    /// The usage to refund.
    pub transaction_id: TransactionId,
    /// None is all that is left.
    pub amount: Option<Amount>,
    /// JSON text.
    pub metadata: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Refund {
    pub transaction_id: TransactionId,
    pub refunded: Amount,
    /// What can be spent now in the wallets that had paid.
    pub balance: Amount,
    pub replayed: bool,
}

/// Refunds once for its key.
pub fn refund(book: &mut Book<'_>, key: Option<&TransactionId>, request: &RefundUsage) -> Result<Refund> {
    let parts = [Part::Text(Some(request.transaction_id.as_str())), Part::Amount(request.amount)];
    let fingerprint = Fingerprint::of(Operation::RefundUsage, &parts);
    let Answer { recorded, replayed } = book.once(key, fingerprint, |book, transaction| execute(book, transaction, request))?;
    let mut wallets: Vec<usize> = recorded.lines.iter().map(|line| line.wallet).collect();
    wallets.sort_unstable();
    wallets.dedup();
    Ok(Refund {
        refunded: recorded.sum(Kind::is_refund),
        balance: book.spendable(&wallets),
        transaction_id: recorded.id,
        replayed,
    })
}

fn execute(book: &mut Book<'_>, transaction: usize, request: &RefundUsage) -> Result<()> {
    let usage = find_usage(book, &request.transaction_id)?;
    // What it cost: an event may have given something back to earlier ones.
    let left = (Deduction::net(&usage) - book.refunded(&usage.id)).max(Amount::ZERO);
    let amount = request.amount.unwrap_or(left);
    if amount > left {
        return Err(Error::out_of_range(
            "amount",
            format!("{amount} is more than the {left} credits left of usage \"{}\"", request.transaction_id),
            "Refund at most what is left, or pass null for all of it.",
        ));
    }
    let is_counted = usage.metered.is_some() && !book.referring(&usage.id).iter().any(|entry| entry.takes_out);
    let opened = &mut book.transactions[transaction];
    opened.refers_to = Some(request.transaction_id.clone());
    opened.event_name = usage.event_name.clone();
    opened.metadata = request.metadata.clone();
    give_back_usage(book, transaction, &usage, amount)?;
    if amount.is_zero() {
        let now = book.now;
        let first = usage.lines.iter().find(|line| line.kind.is_charge()).or(usage.lines.first());
        if let Some(line) = first {
            let nothing = Movement::new(Kind::UsageRefunded, Amount::ZERO, None, now).reversing(line.seq);
            book.post(transaction, line.wallet, nothing)?;
        }
    }
    metering::unpay(book, &usage, amount);
    if amount == left && is_counted {
        metering::take_out(book, transaction, &usage);
    }
    Ok(())
}

fn find_usage(book: &Book<'_>, id: &TransactionId) -> Result<Recorded> {
    let is_usage = |recorded: &Recorded| {
        let is_event = matches!(recorded.metered.as_deref(), Some(Metered::Counted(_)));
        is_event || recorded.lines.iter().any(|line| line.kind.is_charge())
    };
    book.recorded(id).filter(is_usage).ok_or_else(|| Error::NotFound {
        what: "usage",
        name: format!("\"{id}\" of customer \"{}\"", book.customer_id),
        hint: "Pass the transaction_id that deduct_usage, record_usage or capture_hold returned, which is its idempotency key if it \
               had one."
            .into(),
    })
}

/// What was charged for usage and not given back yet.
pub fn left_of(book: &Book<'_>, usage: &Recorded) -> Amount {
    usage.sum(Kind::is_charge) - book.refunded(&usage.id)
}

/// Gives credits of usage back, no more than are left of it, the last taken first.
pub fn give_back_usage(book: &mut Book<'_>, transaction: usize, usage: &Recorded, amount: Amount) -> Result<()> {
    let mut skip = book.refunded(&usage.id);
    let mut open = amount;
    for line in usage.lines.iter().filter(|line| line.kind.is_charge()).rev() {
        let skipped = skip.min(line.credits);
        skip -= skipped;
        let credits = (line.credits - skipped).min(open);
        if credits.is_positive() {
            open -= credits;
            give_back(book, transaction, &usage.id, line, credits)?;
        }
    }
    assert!(open.is_zero(), "more is given back than was charged");
    Ok(())
}

fn give_back(book: &mut Book<'_>, transaction: usize, usage: &TransactionId, line: &Line, credits: Amount) -> Result<()> {
    let now = book.now;
    match line.kind {
        Kind::Overage => {
            let movement = Movement {
                price: line.price.clone(),
                ..Movement::new(Kind::OverageRefunded, credits, None, now).reversing(line.seq).giving_back(usage)
            };
            book.post(transaction, line.wallet, movement)
        }
        Kind::Overdraft => give_back_overdraft(book, transaction, usage, line, credits),
        _ => give_back_to_grant(book, transaction, usage, line.wallet, line.grant, credits, line.seq),
    }
}

/// Cancels open debt first; what was repaid already goes back to the grants that repaid it, the last first.
fn give_back_overdraft(
    book: &mut Book<'_>,
    transaction: usize,
    usage: &TransactionId,
    line: &Line,
    credits: Amount,
) -> Result<()> {
    let now = book.now;
    let cancelled = credits.min(book.wallets[line.wallet].debt);
    if cancelled.is_positive() {
        let movement = Movement::new(Kind::OverdraftRefunded, cancelled, None, now).reversing(line.seq).giving_back(usage);
        book.post(transaction, line.wallet, movement)?;
    }
    let mut open = credits - cancelled;
    for repayment in book.repayments(line.wallet) {
        let credits = repayment.left.min(open);
        if credits.is_positive() {
            open -= credits;
            give_back_to_grant(book, transaction, usage, line.wallet, Some(repayment.grant), credits, repayment.seq)?;
        }
    }
    assert!(open.is_zero(), "debt that is neither open nor repaid");
    Ok(())
}

fn give_back_to_grant(
    book: &mut Book<'_>,
    transaction: usize,
    usage: &TransactionId,
    wallet: usize,
    grant: Option<Uuid>,
    credits: Amount,
    reverses_seq: i64,
) -> Result<()> {
    let now = book.now;
    let back = Movement::new(Kind::UsageRefunded, credits, grant, now).reversing(reverses_seq).giving_back(usage);
    book.return_credits(transaction, wallet, back, now)
}

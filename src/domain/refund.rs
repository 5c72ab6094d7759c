//! Refunds of usage: overage first, then to the grants that paid, the last taken first (SPEC 4).

use uuid::Uuid;

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::{Line, Movement, Recorded};
use super::names::TransactionId;
use super::request::{Fingerprint, Operation, Part};
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
    let (usage, refunded) = find_usage(book, &request.transaction_id)?;
    let left = usage.sum(Kind::is_charge) - refunded;
    let amount = request.amount.unwrap_or(left);
    if amount > left {
        return Err(Error::out_of_range(
            "amount",
            format!("{amount} is more than the {left} credits left of usage \"{}\"", request.transaction_id),
            "Refund at most what is left, or pass null for all of it.",
        ));
    }
    let opened = &mut book.transactions[transaction];
    opened.refers_to = Some(request.transaction_id.clone());
    opened.event_name = usage.event_name.clone();
    opened.metadata = request.metadata.clone();

    let paid: Vec<&Line> = usage.lines.iter().filter(|line| line.kind.is_charge()).collect();
    let mut skip = refunded;
    let mut open = amount;
    for line in paid.iter().rev() {
        let skipped = skip.min(line.credits);
        skip -= skipped;
        let credits = (line.credits - skipped).min(open);
        if credits.is_positive() {
            open -= credits;
            give_back(book, transaction, line, credits)?;
        }
    }
    if amount.is_zero()
        && let Some(line) = paid.first()
    {
        let now = book.now;
        book.post(transaction, line.wallet, Movement::new(Kind::UsageRefunded, Amount::ZERO, None, now).reversing(line.seq))?;
    }
    Ok(())
}

fn find_usage(book: &Book<'_>, id: &TransactionId) -> Result<(Recorded, Amount)> {
    let usage = book.recorded(id).filter(|recorded| recorded.lines.iter().any(|line| line.kind.is_charge()));
    let usage = usage.ok_or_else(|| Error::NotFound {
        what: "usage",
        name: format!("\"{id}\" of customer \"{}\"", book.customer_id),
        hint: "Pass the transaction_id that deduct_usage or capture_hold returned, which is its idempotency key if it had one."
            .into(),
    })?;
    Ok((usage, book.referring(id, Kind::is_refund)))
}

fn give_back(book: &mut Book<'_>, transaction: usize, line: &Line, credits: Amount) -> Result<()> {
    let now = book.now;
    match line.kind {
        Kind::Overage => {
            let movement = Movement {
                price: line.price.clone(),
                ..Movement::new(Kind::OverageRefunded, credits, None, now).reversing(line.seq)
            };
            book.post(transaction, line.wallet, movement)
        }
        Kind::Overdraft => give_back_overdraft(book, transaction, line, credits),
        _ => give_back_to_grant(book, transaction, line.wallet, line.grant, credits, line.seq),
    }
}

/// Cancels open debt first; what was repaid already goes back to the grants that repaid it, the last first.
fn give_back_overdraft(book: &mut Book<'_>, transaction: usize, line: &Line, credits: Amount) -> Result<()> {
    let now = book.now;
    let cancelled = credits.min(book.wallets[line.wallet].debt);
    if cancelled.is_positive() {
        let movement = Movement::new(Kind::OverdraftRefunded, cancelled, None, now).reversing(line.seq);
        book.post(transaction, line.wallet, movement)?;
    }
    let mut open = credits - cancelled;
    for repayment in book.repayments(line.wallet) {
        let credits = repayment.left.min(open);
        if credits.is_positive() {
            open -= credits;
            give_back_to_grant(book, transaction, line.wallet, Some(repayment.grant), credits, repayment.seq)?;
        }
    }
    assert!(open.is_zero(), "debt that is neither open nor repaid");
    Ok(())
}

fn give_back_to_grant(
    book: &mut Book<'_>,
    transaction: usize,
    wallet: usize,
    grant: Option<Uuid>,
    credits: Amount,
    reverses_seq: i64,
) -> Result<()> {
    let now = book.now;
    let back = Movement::new(Kind::UsageRefunded, credits, grant, now).reversing(reverses_seq);
    book.return_credits(transaction, wallet, back, now)
}

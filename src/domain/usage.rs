//! Usage: taken from grants first expiring first out, beyond them by the overage policy (SPEC 4).

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::Movement;
use super::fefo::{self, Take};
use super::names::{EventName, TransactionId, WalletCode};
use super::overage;
use super::request::{Fingerprint, Operation, Part};
use super::time::Timestamp;
use super::wallet::{OverageRoom, WalletStatus, codes};
use crate::error::{Error, Result};

codes! {
    /// What to do when neither grants nor overage cover an amount.
    OnInsufficient {
        Error = "error",
        Report = "report",
        Partial = "partial",
    }
}

codes! {
    /// How a deduction ended.
    DeductionStatus {
        Charged = "charged",
        Overage = "overage",
        Partial = "partial",
        Insufficient = "insufficient",
    }
}

/// How far in the future `occurred_at` may lie, for clocks that differ.
const FUTURE_TOLERANCE_MICROSECONDS: i64 = 5 * 60 * 1_000_000;

/// The wallets a call considers: the one named, or all active ones of the unit.
#[derive(Debug, Clone)]
pub struct Scope {
    pub wallet: Option<WalletCode>,
    /// Ignored if a wallet is named.
    pub unit: String,
}

impl Scope {
    /// The part of a request's fingerprint.
    pub fn parts(&self) -> [Part<'_>; 2] {
        let unit = self.wallet.is_none().then_some(self.unit.as_str());
        [Part::Text(self.wallet.as_ref().map(WalletCode::as_str)), Part::Text(unit)]
    }

    /// Indexes in the order of spending; a named wallet whatever its status.
    pub fn wallets(&self, book: &Book<'_>) -> Vec<usize> {
        let considered = book.wallets.iter().enumerate().filter(|(_, wallet)| match &self.wallet {
            Some(code) => wallet.code == *code,
            None => wallet.unit == self.unit && wallet.status == WalletStatus::Active,
        });
        considered.map(|(index, _)| index).collect()
    }

    /// The same, refusing a call that no active wallet can answer.
    pub fn active_wallets(&self, book: &Book<'_>) -> Result<Vec<usize>> {
        if let Some(code) = &self.wallet {
            let index = wallet(book, code)?;
            refuse_unless(book, index, &[WalletStatus::Active], "usage")?;
            return Ok(vec![index]);
        }
        let active = self.wallets(book);
        if !active.is_empty() {
            return Ok(active);
        }
        let of_unit = book.wallets.iter().find(|wallet| wallet.unit == self.unit);
        Err(match of_unit {
            Some(wallet) => Error::wrong_state(
                format!(
                    "no wallet of unit \"{}\" of customer \"{}\" is active: wallet \"{}\" is {}",
                    self.unit,
                    book.customer_id,
                    wallet.code,
                    wallet.status.code()
                ),
                "A frozen wallet is opened again with credits.set_wallet_status(customer_id, wallet, 'active').",
            ),
            None => Error::NotFound {
                what: "wallet",
                name: format!("of unit \"{}\" of customer \"{}\"", self.unit, book.customer_id),
                hint: "Name the unit of one of the customer's wallets, or create one with credits.create_wallet.".into(),
            },
        })
    }

    /// For messages.
    fn describe(&self) -> String {
        match &self.wallet {
            Some(code) => format!("wallet \"{code}\""),
            None => format!("wallets of unit \"{}\"", self.unit),
        }
    }
}

/// The index of a wallet, or *not found*.
pub fn wallet(book: &Book<'_>, code: &WalletCode) -> Result<usize> {
    book.wallet_index(code).ok_or_else(|| Error::NotFound {
        what: "wallet",
        name: format!("\"{code}\" of customer \"{}\"", book.customer_id),
        hint: "Create it with credits.create_wallet(customer_id, wallet).".into(),
    })
}

/// *Wrong state* unless the wallet is in one of these.
pub fn refuse_unless(book: &Book<'_>, index: usize, allowed: &[WalletStatus], operation: &str) -> Result<()> {
    let wallet = &book.wallets[index];
    if allowed.contains(&wallet.status) {
        return Ok(());
    }
    let hint = match wallet.status {
        WalletStatus::Closed => "A closed wallet stays closed; use another wallet.",
        _ => "Open it again with credits.set_wallet_status(customer_id, wallet, 'active').",
    };
    Err(Error::wrong_state(
        format!(
            "wallet \"{}\" of customer \"{}\" is {} and takes no {operation}",
            wallet.code,
            book.customer_id,
            wallet.status.code()
        ),
        hint,
    ))
}

#[derive(Debug, Clone)]
pub struct DeductUsage {
    /// Zero is a free event.
    pub amount: Amount,
    pub scope: Scope,
    pub event_name: Option<EventName>,
    /// When the usage happened, if the caller says so.
    pub occurred_at: Option<Timestamp>,
    pub on_insufficient: OnInsufficient,
    /// JSON text.
    pub metadata: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Deduction {
    /// None if nothing was recorded.
    pub transaction_id: Option<TransactionId>,
    pub status: DeductionStatus,
    pub requested: Amount,
    pub deducted: Amount,
    pub overage: Amount,
    pub balance: Amount,
    pub replayed: bool,
}

impl DeductUsage {
    pub fn fingerprint(&self) -> Fingerprint {
        let [wallet, unit] = self.scope.parts();
        let event_name = self.event_name.as_ref().map(EventName::as_str);
        Fingerprint::of(Operation::DeductUsage, &[Part::Amount(Some(self.amount)), wallet, unit, Part::Text(event_name)])
    }
}

/// Deducts once for its key.
pub fn deduct(book: &mut Book<'_>, key: Option<&TransactionId>, request: &DeductUsage) -> Result<Deduction> {
    let Answer { recorded, replayed } =
        book.once(key, request.fingerprint(), |book, transaction| execute(book, transaction, request))?;
    let deducted = recorded.sum(Kind::is_usage);
    let overage = recorded.sum(Kind::is_overage);
    let requested = recorded.requested.unwrap_or(request.amount);
    let status = if recorded.lines.is_empty() {
        DeductionStatus::Insufficient
    } else if deducted + overage < requested {
        DeductionStatus::Partial
    } else if overage.is_positive() {
        DeductionStatus::Overage
    } else {
        DeductionStatus::Charged
    };
    Ok(Deduction {
        transaction_id: (status != DeductionStatus::Insufficient).then_some(recorded.id),
        status,
        requested,
        deducted,
        overage,
        balance: book.spendable(&request.scope.wallets(book)),
        replayed,
    })
}

/// `occurred_at`, unless it lies further in the future than clocks differ.
fn checked_usage_at(occurred_at: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>> {
    match occurred_at {
        Some(at) if at > now.plus_microseconds(FUTURE_TOLERANCE_MICROSECONDS) => Err(Error::invalid(
            "occurred_at",
            format!("{at} is more than 5 minutes after now, {now}"),
            "Usage is recorded after it happened; check the clock of the sender.",
        )),
        other => Ok(other),
    }
}

fn execute(book: &mut Book<'_>, transaction: usize, request: &DeductUsage) -> Result<()> {
    let usage_at = checked_usage_at(request.occurred_at, book.now)?;
    let wallets = request.scope.active_wallets(book)?;
    let plan = fefo::plan(book, &wallets, request.amount, fefo::Usage::Event(request.event_name.as_ref()), usage_at);
    let mut overage = None;
    let mut requested = None;
    if plan.shortfall.is_positive() {
        overage =
            overage::last_wallet_with_room(book, &wallets, plan.shortfall).map(|(wallet, room)| (wallet, room, plan.shortfall));
        if overage.is_none() {
            match request.on_insufficient {
                OnInsufficient::Error => return Err(insufficient(book, request, plan.covered())),
                OnInsufficient::Report => return Ok(()),
                OnInsufficient::Partial => {
                    overage = last_partial_room(book, &wallets, plan.shortfall);
                    if plan.takes.is_empty() && overage.is_none() {
                        return Ok(());
                    }
                    requested = Some(request.amount);
                }
            }
        }
    }
    let opened = &mut book.transactions[transaction];
    opened.requested = requested;
    opened.event_name = request.event_name.clone();
    opened.usage_at = usage_at;
    opened.metadata = request.metadata.clone();
    for take in &plan.takes {
        post_take(book, transaction, take, Kind::Usage)?;
    }
    if let Some((wallet, room, credits)) = overage {
        overage::charge(book, transaction, wallet, room, credits)?;
    }
    if request.amount.is_zero() {
        let now = book.now;
        book.post(transaction, wallets[0], Movement::new(Kind::Usage, Amount::ZERO, None, now))?;
    }
    Ok(())
}

fn last_partial_room(book: &Book<'_>, wallets: &[usize], shortfall: Amount) -> Option<(usize, OverageRoom, Amount)> {
    let (wallet, room) = overage::last_wallet_with_room(book, wallets, Amount::from_units(1))?;
    let credits = room.fitting(shortfall);
    Some((wallet, room, credits))
}

/// Takes planned credits from a grant, as usage or for another purpose.
pub fn post_take(book: &mut Book<'_>, transaction: usize, take: &Take, kind: Kind) -> Result<()> {
    let now = book.now;
    if take.reverses_expiry {
        book.post(transaction, take.wallet, Movement::new(Kind::ExpirationReversed, take.credits, Some(take.grant), now))?;
    }
    book.post(transaction, take.wallet, Movement::new(kind, take.credits, Some(take.grant), now))
}

fn insufficient(book: &Book<'_>, request: &DeductUsage, available: Amount) -> Error {
    Error::InsufficientCredits {
        customer_id: book.customer_id.to_string(),
        requested: request.amount,
        available,
        considered: request.scope.describe(),
        hint: "Grant credits, choose an overage policy for the wallet, or call with on_insufficient => 'partial' or 'report'.",
    }
}

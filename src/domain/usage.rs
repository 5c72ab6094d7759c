//! Usage: taken from grants first expiring first out, beyond them by the overage policy (SPEC 4).

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::{Movement, Recorded};
use super::fefo::{self, Take, post_take};
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
#[derive(Debug, Clone, PartialEq)]
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

    /// Those of them that can be spent from.
    pub fn active(&self, book: &Book<'_>) -> Vec<usize> {
        let mut wallets = self.wallets(book);
        wallets.retain(|index| book.wallets[*index].status == WalletStatus::Active);
        wallets
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

impl Deduction {
    /// What came from grants and what did not, less what was given back of earlier usage in the same transaction.
    fn parts(recorded: &Recorded) -> (Amount, Amount) {
        let to_grants = recorded.sum(|kind| kind == Kind::UsageRefunded);
        let of_overage = recorded.sum(|kind| kind.is_refund() && kind != Kind::UsageRefunded);
        (recorded.sum(Kind::is_usage) - to_grants, recorded.sum(Kind::is_overage) - of_overage)
    }

    /// Of a call that was charged to one grant.
    pub fn plain(id: TransactionId, credits: Amount, balance: Amount) -> Self {
        Self {
            transaction_id: Some(id),
            status: DeductionStatus::Charged,
            requested: credits,
            deducted: credits,
            overage: Amount::ZERO,
            balance,
            replayed: false,
        }
    }

    /// What a transaction charged in all.
    pub fn net(recorded: &Recorded) -> Amount {
        let (deducted, overage) = Self::parts(recorded);
        deducted + overage
    }

    /// What a request came to, from the record of it. `requested` is what was asked for if all of it was taken.
    pub fn of(Answer { recorded, replayed }: Answer, requested: Amount, balance: Amount) -> Self {
        let (deducted, overage) = Self::parts(&recorded);
        let requested = recorded.requested.unwrap_or(requested);
        let status = if recorded.lines.is_empty() {
            DeductionStatus::Insufficient
        } else if deducted + overage < requested {
            DeductionStatus::Partial
        } else if overage.is_positive() {
            DeductionStatus::Overage
        } else {
            DeductionStatus::Charged
        };
        let transaction_id = (status != DeductionStatus::Insufficient).then_some(recorded.id);
        Self { transaction_id, status, requested, deducted, overage, balance, replayed }
    }
}

/// Deducts once for its key.
pub fn deduct(book: &mut Book<'_>, key: Option<&TransactionId>, request: &DeductUsage) -> Result<Deduction> {
    let answer = book.once(key, request.fingerprint(), |book, transaction| execute(book, transaction, request))?;
    Ok(Deduction::of(answer, request.amount, book.spendable(&request.scope.wallets(book))))
}

/// `occurred_at`, unless it lies further in the future than clocks differ.
pub fn checked_usage_at(occurred_at: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>> {
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
    let wanted = Wanted {
        amount: request.amount,
        event_name: request.event_name.clone(),
        usage_at: checked_usage_at(request.occurred_at, book.now)?,
        on_insufficient: request.on_insufficient,
    };
    let wallets = request.scope.active_wallets(book)?;
    let cover = match wanted.cover(book, &wallets) {
        Ok(cover) => cover,
        Err(covered) => return not_covered(book, request.on_insufficient, request.amount, covered, &request.scope),
    };
    let opened = &mut book.transactions[transaction];
    opened.requested = cover.is_partial.then_some(request.amount);
    opened.event_name = wanted.event_name;
    opened.usage_at = wanted.usage_at;
    opened.metadata = request.metadata.clone();
    cover.charge(book, transaction)?;
    if request.amount.is_zero() {
        let now = book.now;
        book.post(transaction, wallets[0], Movement::new(Kind::Usage, Amount::ZERO, None, now))?;
    }
    Ok(())
}

/// Ends a request for usage that nothing covers: an error, or nothing recorded.
pub fn not_covered(
    book: &Book<'_>,
    on_insufficient: OnInsufficient,
    requested: Amount,
    covered: Amount,
    scope: &Scope,
) -> Result<()> {
    if on_insufficient != OnInsufficient::Error {
        return Ok(());
    }
    let hint = "Grant credits, choose an overage policy for the wallet, or call with on_insufficient => 'partial' or 'report'.";
    Err(insufficient(book, requested, covered, scope, hint))
}

/// Usage to be paid by some wallets.
pub struct Wanted {
    pub amount: Amount,
    pub event_name: Option<EventName>,
    /// The caller's time of late usage.
    pub usage_at: Option<Timestamp>,
    pub on_insufficient: OnInsufficient,
}

/// What pays for usage.
pub struct Cover {
    takes: Vec<Take>,
    overage: Option<(usize, OverageRoom, Amount)>,
    /// It pays less than was wanted.
    pub is_partial: bool,
}

impl Wanted {
    /// What pays for it in these wallets: grants, then the overage of one wallet. If that is not enough (or, for `partial`,
    /// nothing), what the grants would cover.
    pub fn cover(&self, book: &mut Book<'_>, wallets: &[usize]) -> Result<Cover, Amount> {
        let plan = fefo::plan(book, wallets, self.amount, fefo::Usage::Event(self.event_name.as_ref()), self.usage_at);
        let (shortfall, covered) = (plan.shortfall, plan.covered());
        if shortfall.is_zero() {
            return Ok(Cover { takes: plan.takes, overage: None, is_partial: false });
        }
        if let Some((wallet, room)) = overage::last_wallet_with_room(book, wallets, shortfall) {
            return Ok(Cover { takes: plan.takes, overage: Some((wallet, room, shortfall)), is_partial: false });
        }
        book.note_shortage(wallets, self.amount);
        if self.on_insufficient != OnInsufficient::Partial {
            return Err(covered);
        }
        let overage = overage::last_wallet_with_room(book, wallets, Amount::from_units(1)).map(|(wallet, room)| {
            let credits = room.fitting(shortfall);
            (wallet, room, credits)
        });
        if plan.takes.is_empty() && overage.is_none() {
            return Err(covered);
        }
        Ok(Cover { takes: plan.takes, overage, is_partial: true })
    }
}

impl Cover {
    /// Charges it, and returns how much that is.
    pub fn charge(self, book: &mut Book<'_>, transaction: usize) -> Result<Amount> {
        let mut charged = Amount::ZERO;
        for take in &self.takes {
            post_take(book, transaction, take, Kind::Usage)?;
            charged += take.credits;
        }
        if let Some((wallet, room, credits)) = self.overage {
            overage::charge(book, transaction, wallet, room, credits)?;
            charged += credits;
        }
        Ok(charged)
    }
}

/// *Insufficient credits*, and what to do about it.
pub fn insufficient(book: &Book<'_>, requested: Amount, available: Amount, scope: &Scope, hint: &'static str) -> Error {
    let customer_id = book.customer_id.to_string();
    Error::InsufficientCredits { customer_id, requested, available, considered: scope.describe(), hint }
}

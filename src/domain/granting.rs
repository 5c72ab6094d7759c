//! Giving credits and taking unused ones back: grants, voids, changes of expiry, adjustments (SPEC 3).

use uuid::Uuid;

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::contract;
use super::entry::Movement;
use super::fefo;
use super::fefo::post_take;
use super::grant::{Grant, GrantStatus, GrantTerms, GrantType};
use super::names::{TransactionId, WalletCode};
use super::recurring;
use super::request::{Fingerprint, Operation, Part};
use super::time::Timestamp;
use super::top_up;
use super::usage::{refuse_unless, wallet};
use super::wallet::{WalletSettings, WalletStatus};
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct GrantCredits {
    pub amount: Amount,
    pub wallet: WalletCode,
    pub grant_type: GrantType,
    /// None: the wallet's `expires_after`, if any, counted from `effective_at`; else never.
    pub expires_at: Option<Timestamp>,
    /// None is now.
    pub effective_at: Option<Timestamp>,
    pub priority: i32,
    pub unit_price: Option<Amount>,
    pub currency: Option<String>,
    pub applies_to: Option<Vec<String>>,
    /// JSON text.
    pub metadata: String,
}

/// Gives credits once for its key; the new grant's id.
pub fn grant(book: &mut Book<'_>, key: Option<&TransactionId>, request: &GrantCredits) -> Result<Uuid> {
    let parts = [Part::Amount(Some(request.amount)), Part::Text(Some(request.wallet.as_str()))];
    let answer = book.once(key, Fingerprint::of(Operation::GrantCredits, &parts), |book, transaction| {
        let wallet = wallet(book, &request.wallet)?;
        refuse_unless(book, wallet, WalletStatus::NOT_CLOSED, "grant")?;
        let terms = terms(book.now, &book.wallets[wallet].settings, request)?;
        let now = book.now;
        let kind = if terms.effective_at > now { Kind::GrantScheduled } else { Kind::Grant };
        book.add_grant(transaction, wallet, kind, request.amount, terms, now).map(drop)
    })?;
    granted(&answer, |kind| matches!(kind, Kind::Grant | Kind::GrantScheduled))
}

fn granted(answer: &Answer, counts: impl Fn(Kind) -> bool) -> Result<Uuid> {
    match answer.recorded.grant(counts) {
        Some(id) => Ok(id),
        None => panic!("transaction {} made no grant", answer.recorded.id),
    }
}

fn terms(now: Timestamp, settings: &WalletSettings, request: &GrantCredits) -> Result<GrantTerms> {
    let effective_at = request.effective_at.unwrap_or(now);
    let expires_at = match (request.expires_at, settings.expires_after) {
        (Some(expires_at), _) => expires_at,
        (None, Some(expires_after)) => effective_at.plus(expires_after, "expires_at")?,
        (None, None) => Timestamp::NEVER,
    };
    check_expiry(expires_at, effective_at, now)?;
    Ok(GrantTerms {
        grant_type: request.grant_type,
        priority: request.priority,
        effective_at,
        expires_at,
        unit_price: request.unit_price,
        currency: request.currency.clone(),
        applies_to: request.applies_to.clone(),
        origin: None,
        metadata: request.metadata.clone(),
    })
}

fn check_expiry(expires_at: Timestamp, effective_at: Timestamp, now: Timestamp) -> Result<()> {
    let hint = "A grant is live from effective_at until just before expires_at, which must lie after both now and effective_at.";
    expires_at.check_end("expires_at", ("effective_at", effective_at), now, hint)
}

fn find<'b>(book: &'b mut Book<'_>, id: Uuid) -> Result<&'b Grant> {
    let customer_id = book.customer_id.clone();
    book.find_grant(id).ok_or_else(|| Error::NotFound {
        what: "grant",
        name: format!("{id} of customer \"{customer_id}\""),
        hint: "Pass the id that grant_credits returned; credits.grants lists them.".into(),
    })
}

fn refuse_ended(grant: &Grant, allowed: &[GrantStatus], operation: &str) -> Result<()> {
    if allowed.contains(&grant.status) {
        return Ok(());
    }
    Err(Error::wrong_state(
        format!("grant {} is {} and cannot be {operation}", grant.id, grant.status.code()),
        "Only a grant with credits left can be changed; credits.grants shows its status.",
    ))
}

#[derive(Debug, Clone)]
pub struct VoidGrant {
    pub grant_id: Uuid,
    /// None is all that is left.
    pub amount: Option<Amount>,
    /// JSON text.
    pub metadata: Option<String>,
}

/// Takes unused credits back once for its key; how many.
pub fn void(book: &mut Book<'_>, key: Option<&TransactionId>, request: &VoidGrant) -> Result<Amount> {
    let id = request.grant_id.to_string();
    let parts = [Part::Text(Some(&id)), Part::Amount(request.amount)];
    let answer = book.once(key, Fingerprint::of(Operation::VoidGrant, &parts), |book, transaction| {
        let grant = find(book, request.grant_id)?;
        refuse_ended(grant, &[GrantStatus::Scheduled, GrantStatus::Active, GrantStatus::Exhausted], "voided")?;
        let remaining = grant.remaining;
        let credits = request.amount.unwrap_or(remaining);
        if credits > remaining {
            return Err(Error::out_of_range(
                "amount",
                format!("{credits} is more than the {remaining} credits left of grant {id}"),
                "Void at most what is left, or pass null for all of it.",
            ));
        }
        book.transactions[transaction].metadata = request.metadata.clone();
        void_part(book, transaction, request.grant_id, credits)
    })?;
    Ok(answer.recorded.sum(|kind| matches!(kind, Kind::Void | Kind::VoidScheduled)))
}

/// Takes credits of a grant back; with the last of them the grant is voided.
fn void_part(book: &mut Book<'_>, transaction: usize, id: Uuid, credits: Amount) -> Result<()> {
    let grant = book.grant(id);
    let (wallet, is_all) = (grant.wallet, credits == grant.remaining);
    let kind = match grant.status {
        GrantStatus::Scheduled => Kind::VoidScheduled,
        _ => Kind::Void,
    };
    let now = book.now;
    book.post(transaction, wallet, Movement::new(kind, credits, Some(id), now))?;
    if is_all {
        book.set_status(id, GrantStatus::Voided);
    }
    Ok(())
}

#[derive(Debug, Clone)]
pub struct ChangeExpiry {
    pub grant_id: Uuid,
    pub expires_at: Timestamp,
    /// JSON text.
    pub metadata: Option<String>,
}

/// Moves the rest of a grant into a new one with another expiry, all else equal; the new grant's id.
pub fn change_expiry(book: &mut Book<'_>, key: Option<&TransactionId>, request: &ChangeExpiry) -> Result<Uuid> {
    let id = request.grant_id.to_string();
    let fingerprint = Fingerprint::of(Operation::ChangeExpiry, &[Part::Text(Some(&id))]);
    let answer = book.once(key, fingerprint, |book, transaction| {
        let now = book.now;
        let grant = find(book, request.grant_id)?;
        refuse_ended(grant, &[GrantStatus::Scheduled, GrantStatus::Active], "given another expiry")?;
        check_expiry(request.expires_at, grant.terms.effective_at, now)?;
        let (wallet, remaining, status) = (grant.wallet, grant.remaining, grant.status);
        let terms = GrantTerms { expires_at: request.expires_at, ..grant.terms.clone() };
        book.transactions[transaction].metadata = request.metadata.clone();
        if status == GrantStatus::Scheduled {
            void_part(book, transaction, request.grant_id, remaining)?;
            book.add_grant(transaction, wallet, Kind::GrantScheduled, remaining, terms, now)?;
        } else {
            book.post(transaction, wallet, Movement::new(Kind::TransferOut, remaining, Some(request.grant_id), now))?;
            book.add_grant(transaction, wallet, Kind::TransferIn, remaining, terms, now)?;
        }
        Ok(())
    })?;
    granted(&answer, |kind| matches!(kind, Kind::TransferIn | Kind::GrantScheduled))
}

#[derive(Debug, Clone)]
pub struct AdjustCredits {
    /// Positive gives, negative takes.
    pub amount: Amount,
    pub wallet: WalletCode,
    /// JSON text with the reason.
    pub metadata: String,
}

#[derive(Debug, PartialEq)]
pub struct Adjustment {
    pub transaction_id: TransactionId,
    pub adjusted: Amount,
    pub balance: Amount,
    pub replayed: bool,
}

/// Support's correction, once for its key: a promotional grant, or credits taken first expiring first.
pub fn adjust(book: &mut Book<'_>, key: Option<&TransactionId>, request: &AdjustCredits) -> Result<Adjustment> {
    let parts = [Part::Amount(Some(request.amount)), Part::Text(Some(request.wallet.as_str()))];
    let Answer { recorded, replayed } =
        book.once(key, Fingerprint::of(Operation::AdjustCredits, &parts), |book, transaction| {
            let wallet = wallet(book, &request.wallet)?;
            refuse_unless(book, wallet, WalletStatus::NOT_CLOSED, "adjustment")?;
            book.transactions[transaction].metadata = Some(request.metadata.clone());
            if request.amount.is_positive() {
                give(book, transaction, wallet, request)
            } else {
                take(book, transaction, wallet, -request.amount)
            }
        })?;
    let balance = recorded.lines.first().map_or(Amount::ZERO, |line| book.wallets[line.wallet].balance);
    Ok(Adjustment {
        adjusted: recorded.sum(|kind| kind == Kind::Grant) - recorded.sum(|kind| kind == Kind::Adjustment),
        balance,
        transaction_id: recorded.id,
        replayed,
    })
}

fn give(book: &mut Book<'_>, transaction: usize, wallet: usize, request: &AdjustCredits) -> Result<()> {
    let promotional = GrantCredits {
        amount: request.amount,
        wallet: request.wallet.clone(),
        grant_type: GrantType::Promotional,
        expires_at: None,
        effective_at: None,
        priority: 100,
        unit_price: None,
        currency: None,
        applies_to: None,
        metadata: request.metadata.clone(),
    };
    let terms = terms(book.now, &book.wallets[wallet].settings, &promotional)?;
    let now = book.now;
    book.add_grant(transaction, wallet, Kind::Grant, request.amount, terms, now).map(drop)
}

fn take(book: &mut Book<'_>, transaction: usize, wallet: usize, amount: Amount) -> Result<()> {
    for take in takes_of_any(book, wallet, amount)? {
        post_take(book, transaction, &take, Kind::Adjustment)?;
    }
    Ok(())
}

/// Plans to take credits of one wallet from whatever grants there are, limited ones too, or *insufficient credits*.
pub fn takes_of_any(book: &mut Book<'_>, wallet: usize, amount: Amount) -> Result<Vec<fefo::Take>> {
    let plan = fefo::plan(book, &[wallet], amount, fefo::Usage::Any, None);
    if plan.shortfall.is_positive() {
        return Err(Error::InsufficientCredits {
            customer_id: book.customer_id.to_string(),
            requested: amount,
            available: plan.covered(),
            considered: format!("wallet \"{}\"", book.wallets[wallet].code),
            hint: "Ask for at most what is there: credits.balance(customer_id) shows it.",
        });
    }
    Ok(plan.takes)
}

/// Sets a wallet's status. Closing voids what is left in it, and is refused while something is owed or held.
pub fn set_status(book: &mut Book<'_>, code: &WalletCode, status: WalletStatus) -> Result<()> {
    let index = wallet(book, code)?;
    let wallet = &book.wallets[index];
    if wallet.status == status {
        return Ok(());
    }
    refuse_unless(book, index, WalletStatus::NOT_CLOSED, "new status")?;
    if status == WalletStatus::Closed {
        for (open, what, hint) in [
            (wallet.held, "held", "Capture or release its open holds first."),
            (wallet.debt, "owed", "Repay the debt with a grant first."),
        ] {
            if open.is_positive() {
                return Err(Error::wrong_state(
                    format!("wallet \"{code}\" of customer \"{}\" cannot be closed: {open} credits are {what}", book.customer_id),
                    hint,
                ));
            }
        }
        top_up::refuse_claimed(book, index)?;
        close(book, index)?;
    }
    book.wallets[index].status = status;
    if status == WalletStatus::Active {
        top_up::thaw(book, index);
    }
    if book.wallets[index].watch.is_some() {
        book.watch_again(index);
    }
    Ok(())
}

/// Voids what is left in a wallet that is closed, and ends what would bring more.
fn close(book: &mut Book<'_>, wallet: usize) -> Result<()> {
    let now = book.now;
    let transaction = book.begin(None, Fingerprint::of(Operation::CloseWallet, &[]), now);
    let mut grants = book.scheduled(wallet);
    let mut place = None;
    while let Some(id) = book.next_live(wallet, place) {
        place = Some(book.grant(id).spending_order());
        grants.push(id);
    }
    for id in grants {
        let remaining = book.grant(id).remaining;
        void_part(book, transaction, id, remaining)?;
    }
    top_up::end(book, wallet);
    let code = book.wallets[wallet].code.clone();
    recurring::end_all(book, &code);
    for contract in book.contracts_of(&code) {
        contract::cancel(book, &contract.code, None)?;
    }
    Ok(())
}

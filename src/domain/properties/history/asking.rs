//! Asks the domain what a request says.

use uuid::Uuid;

use super::{at, code_of, microseconds, rules, settings, status_of};
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::grant::GrantType;
use crate::domain::granting::{self, AdjustCredits, ChangeExpiry, GrantCredits, VoidGrant};
use crate::domain::hold::{self, CaptureHold, HoldCredits};
use crate::domain::names::{EventName, TransactionId};
use crate::domain::properties::requests::{Mode, Outcome, Request, Scope};
use crate::domain::refund::{self, RefundUsage};
use crate::domain::transfer::{self, TransferCredits};
use crate::domain::usage::{self, DeductUsage, Deduction, OnInsufficient};
use crate::domain::wallet::WalletStatus;
use crate::error::Result;

pub enum Did {
    Granted(Uuid),
    Used(Option<TransactionId>, Outcome),
    Held(TransactionId, Outcome),
    Other(Outcome),
}

/// What a request's numbers stand for.
pub struct Asked {
    pub grant: Uuid,
    /// The usage or the hold.
    pub transaction: TransactionId,
}

impl Asked {
    pub fn execute(&self, book: &mut Book<'_>, key: Option<&TransactionId>, request: &Request) -> Result<Did> {
        match request {
            Request::Grant { wallet, amount, kind, priority, effective, expires, applies } => {
                let request = GrantCredits {
                    amount: Amount::from_units(*amount),
                    wallet: code_of(*wallet),
                    grant_type: grant_type(*kind),
                    expires_at: expires.map(at),
                    effective_at: effective.map(at),
                    priority: *priority,
                    unit_price: None,
                    currency: None,
                    applies_to: applies.as_ref().map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
                    metadata: "{}".into(),
                };
                granting::grant(book, key, &request).map(Did::Granted)
            }
            Request::Void { amount, .. } => {
                let request = VoidGrant { grant_id: self.grant, amount: amount.map(Amount::from_units), metadata: None };
                granting::void(book, key, &request).map(|credits| Did::Other(Outcome::Voided(credits.units())))
            }
            Request::ChangeExpiry { expires, .. } => {
                let request = ChangeExpiry { grant_id: self.grant, expires_at: at(*expires), metadata: None };
                granting::change_expiry(book, key, &request).map(Did::Granted)
            }
            Request::Transfer { from, to, amount } => {
                let amount = Amount::from_units(*amount);
                let request = TransferCredits { amount, from_wallet: code_of(*from), to_wallet: code_of(*to), metadata: None };
                let done = transfer::transfer(book, key, &request)?;
                Ok(Did::Other(Outcome::Transferred {
                    transferred: done.transferred.units(),
                    from_balance: done.from_balance.units(),
                    to_balance: done.to_balance.units(),
                    replayed: done.replayed,
                }))
            }
            Request::Adjust { wallet, amount } => {
                let amount = Amount::from_units(*amount);
                let done =
                    granting::adjust(book, key, &AdjustCredits { amount, wallet: code_of(*wallet), metadata: "{}".into() })?;
                let (adjusted, balance) = (done.adjusted.units(), done.balance.units());
                Ok(Did::Other(Outcome::Adjusted { adjusted, balance, replayed: done.replayed }))
            }
            Request::Deduct { .. } => deduct(book, key, request),
            Request::Refund { amount, .. } => {
                let amount = amount.map(Amount::from_units);
                let request = RefundUsage { transaction_id: self.transaction.clone(), amount, metadata: None };
                let done = refund::refund(book, key, &request)?;
                let (refunded, balance) = (done.refunded.units(), done.balance.units());
                Ok(Did::Other(Outcome::Refunded { refunded, balance, replayed: done.replayed }))
            }
            Request::Hold { .. } => hold(book, key, request),
            Request::Capture { amount, mode, .. } => {
                let amount = amount.map(Amount::from_units);
                let (hold_id, on_insufficient) = (self.transaction.clone(), on_insufficient(*mode));
                let done = hold::capture(book, key, &CaptureHold { hold_id, amount, on_insufficient, metadata: None })?;
                Ok(used(done))
            }
            Request::Release { .. } => {
                let done = hold::release(book, &self.transaction)?;
                assert_eq!(done.hold_id, self.transaction);
                Ok(Did::Other(Outcome::Released { released: done.released.units(), balance: done.balance.units() }))
            }
            Request::Rule(rule) => rules::execute(book, rule).map(|()| Did::Other(Outcome::Done)),
            Request::SetStatus { wallet, status } => {
                granting::set_status(book, &code_of(*wallet), status_of(*status)).map(|()| Did::Other(Outcome::Done))
            }
            Request::Configure { wallet, setup } => {
                // As ops::wallets::configure does.
                let index = usage::wallet(book, &code_of(*wallet))?;
                usage::refuse_unless(book, index, &[WalletStatus::Active, WalletStatus::Frozen], "new settings")?;
                book.wallets[index].settings = settings(setup);
                Ok(Did::Other(Outcome::Done))
            }
        }
    }
}

pub fn grant_type(kind: u8) -> GrantType {
    [GrantType::Promotional, GrantType::Committed, GrantType::Prepaid][usize::from(kind)]
}

fn scope_of(scope: &Scope) -> usage::Scope {
    let (wallet, unit) = match scope {
        Scope::Wallet(wallet) => (Some(code_of(*wallet)), "credits"),
        Scope::Unit(unit) => (None, *unit),
    };
    usage::Scope { wallet, unit: unit.into() }
}

fn event_of(event: Option<&str>) -> Option<EventName> {
    event.map(|name| EventName::stored(name.into()))
}

fn on_insufficient(mode: Mode) -> OnInsufficient {
    match mode {
        Mode::Error => OnInsufficient::Error,
        Mode::Report => OnInsufficient::Report,
        Mode::Partial => OnInsufficient::Partial,
    }
}

fn used(done: Deduction) -> Did {
    let outcome = Outcome::Deducted {
        status: done.status.code(),
        requested: done.requested.units(),
        deducted: done.deducted.units(),
        overage: done.overage.units(),
        balance: done.balance.units(),
        replayed: done.replayed,
    };
    Did::Used(done.transaction_id, outcome)
}

fn deduct(book: &mut Book<'_>, key: Option<&TransactionId>, request: &Request) -> Result<Did> {
    let Request::Deduct { amount, scope, event, occurred, mode } = request else { unreachable!() };
    let request = DeductUsage {
        amount: Amount::from_units(*amount),
        scope: scope_of(scope),
        event_name: event_of(*event),
        occurred_at: occurred.map(at),
        on_insufficient: on_insufficient(*mode),
        metadata: None,
    };
    usage::deduct(book, key, &request).map(used)
}

fn hold(book: &mut Book<'_>, key: Option<&TransactionId>, request: &Request) -> Result<Did> {
    let Request::Hold { amount, scope, event, expires_in } = request else { unreachable!() };
    let request = HoldCredits {
        amount: Amount::from_units(*amount),
        expires_in: microseconds(*expires_in),
        scope: scope_of(scope),
        event_name: event_of(*event),
        metadata: None,
    };
    let done = hold::hold(book, key, &request)?;
    let outcome = Outcome::Held {
        held: done.held.units(),
        balance: done.balance.units(),
        lapses: done.expires_at.to_postgres(),
        replayed: done.replayed,
    };
    Ok(Did::Held(done.hold_id, outcome))
}

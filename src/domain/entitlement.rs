//! May this usage happen? What charging it now would say: it is charged, in a book that is thrown away (SPEC 8).

use super::amount::Amount;
use super::book::Book;
use super::fefo::{self, Usage};
use super::meter::Meter;
use super::metering::{Event, RecordUsage, charged_scopes, quote, record};
use super::names::EventName;
use super::overage::last_wallet_with_room;
use super::usage::{DeductUsage, Deduction, DeductionStatus, OnInsufficient, Scope, deduct};
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub enum Asked {
    /// Any usage at all.
    Anything {
        scope: Scope,
    },
    Amount {
        amount: Amount,
        scope: Scope,
        event_name: Option<EventName>,
    },
    /// An event at what its meters charge for it now.
    Event(Event),
}

#[derive(Debug, PartialEq)]
pub struct Entitlement {
    pub allowed: bool,
    /// Why not: the symbol of the error that charging would raise.
    pub reason: Option<&'static str>,
    /// None if any usage at all was asked for.
    pub required: Option<Amount>,
    /// Live credits that may pay for it.
    pub available: Amount,
    /// Whether overage would take what the credits do not cover.
    pub overage_allowed: bool,
}

impl Entitlement {
    /// Nothing is there to charge.
    pub fn refused(error: &Error, required: Option<Amount>) -> Self {
        Self { allowed: false, reason: Some(error.symbol()), required, available: Amount::ZERO, overage_allowed: false }
    }
}

/// The smallest usage there is.
const SMALLEST: Amount = Amount::from_units(1);

/// `meters` are those of the event, if one is asked for. The book is not to be stored.
pub fn check(book: &mut Book<'_>, asked: &Asked, meters: &[Meter]) -> Result<Entitlement> {
    match asked {
        Asked::Anything { scope } => {
            let (available, overage_allowed) = means(book, &[scope], None, SMALLEST);
            Ok(answer(charge_amount(book, SMALLEST, scope, None), None, available, overage_allowed))
        }
        Asked::Amount { amount, scope, event_name } => {
            let (available, overage_allowed) = means(book, &[scope], event_name.as_ref(), *amount);
            let charged = charge_amount(book, *amount, scope, event_name.clone());
            Ok(answer(charged, Some(*amount), available, overage_allowed))
        }
        Asked::Event(event) => {
            let now = book.now;
            let quotes = quote(Some(book), meters, event, now)?;
            let required: Amount = quotes.iter().map(|quote| quote.credits).sum();
            let counting = meters.iter().filter(|meter| quotes.iter().any(|quote| quote.meter == meter.code));
            let scopes = charged_scopes(meters, counting);
            let (available, overage_allowed) = means(book, &scopes, Some(&event.event_name), required);
            let request =
                RecordUsage { event: event.clone(), occurred_at: None, on_insufficient: OnInsufficient::Report, metadata: None };
            Ok(answer(record(book, None, &request, meters), Some(required), available, overage_allowed))
        }
    }
}

fn charge_amount(book: &mut Book<'_>, amount: Amount, scope: &Scope, event_name: Option<EventName>) -> Result<Deduction> {
    let request = DeductUsage {
        amount,
        scope: scope.clone(),
        event_name,
        occurred_at: None,
        on_insufficient: OnInsufficient::Report,
        metadata: None,
    };
    deduct(book, None, &request)
}

fn answer(charged: Result<Deduction>, required: Option<Amount>, available: Amount, overage_allowed: bool) -> Entitlement {
    let reason = match charged {
        Ok(deduction) if deduction.status == DeductionStatus::Insufficient => Some("insufficient_credits"),
        Ok(_) => None,
        Err(error) => Some(error.symbol()),
    };
    Entitlement { allowed: reason.is_none(), reason, required, available, overage_allowed }
}

/// The live credits of the active wallets of some scopes that pay for an event, and whether overage would take what they do not cover
/// of an amount (or, if they cover it, any).
fn means(book: &mut Book<'_>, scopes: &[&Scope], event_name: Option<&EventName>, required: Amount) -> (Amount, bool) {
    let mut wallets: Vec<usize> = scopes.iter().flat_map(|scope| scope.active(book)).collect();
    wallets.sort_unstable();
    wallets.dedup();
    let everything = book.spendable(&wallets);
    let available = fefo::plan(book, &wallets, everything, Usage::Event(event_name), None).covered();
    let beyond = (required - available).max(SMALLEST);
    (available, last_wallet_with_room(book, &wallets, beyond).is_some())
}

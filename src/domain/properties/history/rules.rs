//! Asks the domain for recurring grants and contracts.

use super::asking::grant_type;
use super::{at, code_of};
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::contract::{self, Contract, OnEnd};
use crate::domain::names::{ContractCode, RecurringCode};
use crate::domain::properties::requests::rules::{CODES, Every, NewContract, NewRecurring, Rule, Terms};
use crate::domain::recurring::{self, CreateRecurringGrant, RecurringTerms, Rollover};
use crate::domain::time::{Interval, TimeZone};
use crate::error::Result;

pub fn recurring_code(code: usize) -> RecurringCode {
    RecurringCode::stored(CODES[code].into())
}

pub fn contract_code(code: usize) -> ContractCode {
    ContractCode::stored(CODES[code].into())
}

fn interval(every: Every) -> Interval {
    Interval { months: every.months, days: every.days, microseconds: every.microseconds }
}

fn terms_of(terms: &Terms) -> RecurringTerms {
    RecurringTerms {
        amount: Amount::from_units(terms.amount),
        grant_type: grant_type(terms.kind),
        priority: terms.priority,
        expires_after: terms.life.map(interval),
        rollover: Rollover {
            percent: Amount::from_units(terms.percent),
            cap: terms.cap.map(Amount::from_units),
            periods: terms.periods,
        },
        unit_price: None,
        currency: None,
        applies_to: terms.applies.as_ref().map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        metadata: "{}".into(),
    }
}

fn recurring_of(new: &NewRecurring) -> CreateRecurringGrant {
    CreateRecurringGrant {
        code: recurring_code(new.code),
        wallet: code_of(new.wallet),
        terms: terms_of(&new.terms),
        every: interval(new.every),
        zone: TimeZone::UTC,
        starts_at: new.starts.map(at),
        ends_at: new.ends.map(at),
        anchor: new.anchor.map(at),
        prorate: new.prorate,
    }
}

fn contract_of(new: &NewContract) -> Contract {
    Contract {
        code: contract_code(new.code),
        wallet: code_of(new.wallet),
        committed: Amount::from_units(new.committed),
        starts_at: at(new.starts),
        ends_at: at(new.ends),
        cancelled_at: None,
        installments: new.installments,
        installment_every: new.every.map(interval),
        on_end: if new.rolls_over { OnEnd::Rollover } else { OnEnd::Expire },
        rollover_percent: Amount::from_units(new.percent),
        rollover_cap: new.cap.map(Amount::from_units),
        rollover_expires_after: new.life.map(interval),
        minimum_spend: new.minimum_spend,
        unit_price: new.price.map(Amount::from_units),
        currency: new.price.map(|_| "EUR".into()),
        metadata: "{}".into(),
        granted: 0,
        granted_credits: Amount::ZERO,
        rolled_over_credits: Amount::ZERO,
        has_ended: false,
    }
}

pub fn execute(book: &mut Book<'_>, rule: &Rule) -> Result<()> {
    match rule {
        Rule::CreateRecurring(new) => recurring::create(book, &recurring_of(new)),
        Rule::UpdateRecurring { code, terms, ends } => recurring::update(book, &recurring_code(*code), |changed, changed_end| {
            *changed = terms_of(terms);
            *changed_end = ends.map_or(*changed_end, at);
            Ok(())
        }),
        Rule::CancelRecurring { code, at: when } => recurring::cancel(book, &recurring_code(*code), when.map(at)),
        Rule::CreateContract(new) => contract::create(book, contract_of(new)),
        Rule::CancelContract { code, at: when } => contract::cancel(book, &contract_code(*code), when.map(at)),
    }
}

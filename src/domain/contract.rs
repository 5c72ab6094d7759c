//! Contracts: committed spend, granted in instalments or charged at the end for what was not used (SPEC 6).

use chrono::Datelike;
use uuid::Uuid;

use super::amount::Amount;
use super::book::Book;
use super::chart::Kind;
use super::grant::{Grant, GrantStatus, GrantTerms, GrantType, Origin};
use super::invoice::{InvoiceLine, LineKind, money};
use super::names::{ContractCode, WalletCode};
use super::recurring::roll_over;
use super::request::{Fingerprint, Operation};
use super::time::{Interval, TimeZone, Timestamp};
use super::usage::{refuse_unless, wallet};
use super::wallet::{OveragePolicy, WalletStatus, codes};
use crate::error::{Error, Result};

codes! {
    /// What happens to the unused part of a contract at its end.
    OnEnd {
        Expire = "expire",
        Rollover = "rollover",
    }
}

/// Instalments of a contract, at most: one a day for 100 years.
pub const INSTALLMENTS_MAX: i32 = 36_525;
const GRANT_PRIORITY: i32 = 100;

#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    pub code: ContractCode,
    pub wallet: WalletCode,
    pub committed: Amount,
    pub starts_at: Timestamp,
    /// As agreed.
    pub ends_at: Timestamp,
    /// When it ends early.
    pub cancelled_at: Option<Timestamp>,
    pub installments: i32,
    /// None: the term in equal parts.
    pub installment_every: Option<Interval>,
    pub on_end: OnEnd,
    /// 0 to 100.
    pub rollover_percent: Amount,
    pub rollover_cap: Option<Amount>,
    /// Life of what rolled over; none is for ever.
    pub rollover_expires_after: Option<Interval>,
    /// Nothing is granted; what was not spent is charged at the end.
    pub minimum_spend: bool,
    pub unit_price: Option<Amount>,
    pub currency: Option<String>,
    /// JSON text.
    pub metadata: String,
    /// Instalments granted so far, and their credits.
    pub granted: i32,
    pub granted_credits: Amount,
    pub rolled_over_credits: Amount,
    pub has_ended: bool,
}

impl Contract {
    /// When it ends, or ended.
    pub fn end(&self) -> Timestamp {
        self.cancelled_at.map_or(self.ends_at, |at| at.min(self.ends_at))
    }

    /// The next instant at which settling has something to do with it.
    pub fn due_at(&self) -> Timestamp {
        if self.has_ended { Timestamp::NEVER } else { self.next_instalment_at().unwrap_or(self.end()).min(self.end()) }
    }

    /// When the next instalment is due, if there is one.
    pub fn next_instalment_at(&self) -> Option<Timestamp> {
        (!self.minimum_spend && self.granted < self.installments).then(|| self.instalment_at(self.granted)).flatten()
    }

    /// When instalment `number`, from 0, is due.
    fn instalment_at(&self, number: i32) -> Option<Timestamp> {
        if let Some(every) = self.installment_every.or_else(|| self.whole_months()) {
            return self.starts_at.moved(TimeZone::UTC, every, number.into());
        }
        let term = i128::from(self.ends_at.to_postgres() - self.starts_at.to_postgres());
        let passed = term * i128::from(number) / i128::from(self.installments);
        i64::try_from(passed).ok().map(|passed| self.starts_at.plus_microseconds(passed))
    }

    /// The months of one instalment, if the term is so many whole months.
    fn whole_months(&self) -> Option<Interval> {
        let (from, to) = (self.starts_at.local(TimeZone::UTC)?, self.ends_at.local(TimeZone::UTC)?);
        let months = (to.year() - from.year()) * 12 + to.month0() as i32 - from.month0() as i32;
        let term = Interval { months, ..Interval::ZERO };
        let is_whole = self.starts_at.moved(TimeZone::UTC, term, 1) == Some(self.ends_at);
        (is_whole && months % self.installments == 0).then(|| Interval { months: months / self.installments, ..Interval::ZERO })
    }

    /// Credits of instalment `number`: equal parts, of which the last takes the remainder.
    fn instalment(&self, number: i32) -> Amount {
        let part = self.committed.share(1, self.installments.into()).unwrap_or(self.committed);
        if number + 1 < self.installments {
            part
        } else {
            self.committed - part.share((self.installments - 1).into(), 1).unwrap_or(part)
        }
    }

    /// Whether what is left of this grant, which expires at an instant, rolls over then: it was not given another life.
    pub fn rolls_over(&self, grant: &Grant, at: Timestamp) -> bool {
        !self.has_ended && self.end() == at && grant.terms.expires_at == self.ends_at && self.on_end == OnEnd::Rollover
    }

    /// Whether it was cancelled for an instant before its agreed end.
    pub fn ends_early(&self) -> bool {
        self.end() < self.ends_at
    }

    fn check(&self, now: Timestamp) -> Result<()> {
        let hint = "A contract runs from starts_at until just before ends_at, which must lie after both now and starts_at.";
        self.ends_at.check_end("ends_at", ("starts_at", self.starts_at), now, hint)?;
        let last = self.installments - 1;
        if self.instalment_at(last).is_none_or(|due| due >= self.ends_at) {
            return Err(Error::invalid(
                "installment_every",
                format!("the last of {} instalments would not be due before ends_at, {}", self.installments, self.ends_at),
                "Give fewer installments or a shorter installment_every; null divides the term into equal parts.",
            ));
        }
        if !self.instalment(0).is_positive() || !self.instalment(last).is_positive() {
            return Err(Error::invalid(
                "installments",
                format!("{} credits cannot be divided into {} parts of 12 decimals", self.committed, self.installments),
                "Give fewer installments.",
            ));
        }
        Ok(())
    }
}

/// Concludes a contract, and grants what is due of it by now.
pub fn create(book: &mut Book<'_>, contract: Contract) -> Result<()> {
    let wallet = wallet(book, &contract.wallet)?;
    refuse_unless(book, wallet, WalletStatus::NOT_CLOSED, "contract")?;
    let (code, now) = (contract.code.clone(), book.now);
    if book.find_contract(&code).is_some() {
        return Err(Error::AlreadyExists {
            what: "contract",
            name: format!("\"{code}\" of customer \"{}\"", book.customer_id),
            hint: "Choose another name: a contract that has ended keeps its name.".into(),
        });
    }
    contract.check(now)?;
    if contract.minimum_spend {
        check_minimum_spend(book, wallet, &contract)?;
    } else {
        book.wallets[wallet].fits_more(contract.committed)?;
    }
    book.contracts.create(code.clone(), contract);
    let transaction = book.begin(None, Fingerprint::of(Operation::CreateContract, &[]), now);
    while book.contracts.get(&code).and_then(Contract::next_instalment_at).is_some_and(|due| due <= now) {
        grant_instalment(book, transaction, &code, now)?;
    }
    book.close(transaction)
}

fn check_minimum_spend(book: &mut Book<'_>, wallet: usize, contract: &Contract) -> Result<()> {
    let invalid = |problem: String, hint: &str| Err(Error::invalid("minimum_spend", problem, hint));
    let (Some(unit_price), Some(currency)) = (contract.unit_price, &contract.currency) else {
        return invalid("what was not spent has no price".into(), "Give unit_price and currency.");
    };
    // What is charged at the end is at most this.
    charge(contract.committed, unit_price, currency)?;
    let policy = book.wallets[wallet].settings.overage_policy;
    if policy != OveragePolicy::Invoice {
        return invalid(
            format!("the overage policy of wallet \"{}\" is {}", contract.wallet, policy.code()),
            "Usage under a minimum spend is invoiced: set the wallet's overage_policy to 'invoice' with credits.update_wallet.",
        );
    }
    let others = book.contracts_of(&contract.wallet);
    let overlaps = |other: &&Contract| {
        // One that was cancelled before it started has no term.
        let has_term = other.starts_at < other.end();
        other.minimum_spend && has_term && other.starts_at < contract.ends_at && contract.starts_at < other.end()
    };
    match others.iter().find(overlaps) {
        Some(other) => invalid(
            format!("its term overlaps that of contract \"{}\" in the same wallet", other.code),
            "Let it start when the other one ends, or use another wallet.",
        ),
        None => Ok(()),
    }
}

/// Refuses another overage policy than `invoice` while a minimum spend counts on it.
pub fn check_policy(book: &mut Book<'_>, wallet: usize) -> Result<()> {
    let (code, policy) = (book.wallets[wallet].code.clone(), book.wallets[wallet].settings.overage_policy);
    if policy == OveragePolicy::Invoice {
        return Ok(());
    }
    match book.contracts_of(&code).iter().find(|contract| contract.minimum_spend && !contract.has_ended) {
        Some(contract) => Err(Error::wrong_state(
            format!(
                "contract \"{}\" is a minimum spend, for which wallet \"{code}\" must have the overage policy invoice",
                contract.code
            ),
            "Change the policy when the contract has ended, or end it with credits.cancel_contract.",
        )),
        None => Ok(()),
    }
}

/// Ends a contract early: no further instalments, then as at its end. A contract that ends earlier stays as it is.
pub fn cancel(book: &mut Book<'_>, code: &ContractCode, at: Option<Timestamp>) -> Result<()> {
    let (now, customer_id) = (book.now, book.customer_id.clone());
    let contract = book.find_contract(code).ok_or_else(|| Error::NotFound {
        what: "contract",
        name: format!("\"{code}\" of customer \"{customer_id}\""),
        hint: "Conclude it with credits.create_contract; credits.contract_progress lists them.".into(),
    })?;
    let at = at.unwrap_or(now).max(now);
    if contract.has_ended || contract.end() <= at {
        return Ok(());
    }
    contract.cancelled_at = Some(at);
    if at > now {
        return Ok(());
    }
    let transaction = book.begin(None, Fingerprint::of(Operation::CancelContract, &[]), now);
    end(book, transaction, code, now)?;
    book.close(transaction)
}

fn contract<'b>(book: &'b mut Book<'_>, code: &ContractCode) -> &'b mut Contract {
    match book.contracts.get_mut(code) {
        Some(contract) => contract,
        None => panic!("contract {code} is not in the book"),
    }
}

fn terms(contract: &Contract, effective_at: Timestamp, expires_at: Timestamp, origin: Origin) -> GrantTerms {
    GrantTerms {
        grant_type: GrantType::Committed,
        priority: GRANT_PRIORITY,
        effective_at,
        expires_at,
        unit_price: contract.unit_price,
        currency: contract.currency.clone(),
        applies_to: None,
        origin: Some(origin),
        metadata: contract.metadata.clone(),
    }
}

/// Grants the next instalment, dated `at`; none if the wallet has no room for it.
pub fn grant_instalment(book: &mut Book<'_>, transaction: usize, code: &ContractCode, at: Timestamp) -> Result<Option<Uuid>> {
    let contract = contract(book, code);
    let due = contract.next_instalment_at().unwrap_or(at);
    let credits = contract.instalment(contract.granted);
    contract.granted += 1;
    let terms = terms(contract, due, contract.ends_at, Origin::Instalment(code.clone()));
    let wallet = book.wallet_of_contract(code);
    if book.wallets[wallet].fits_more(credits).is_err() {
        return Ok(None);
    }
    self::contract(book, code).granted_credits += credits;
    book.add_grant(transaction, wallet, Kind::Grant, credits, terms, at).map(Some)
}

/// Ends a contract: the unused part of its grants rolls over by its rules, the rest expires, and what is missing from a minimum
/// spend is charged. The grant of what rolled over.
pub fn end(book: &mut Book<'_>, transaction: usize, code: &ContractCode, at: Timestamp) -> Result<Option<Uuid>> {
    let contract = contract(book, code);
    contract.has_ended = true;
    let contract = contract.clone();
    let wallet = book.wallet_of_contract(code);
    if contract.minimum_spend {
        true_up(book, &contract, at)?;
        return Ok(None);
    }
    if contract.ends_early() {
        book.read_instalments(code);
    }
    let origin = Origin::Instalment(code.clone());
    // Credits that were given another life have it still.
    let ends_with_it = |grant: &&Grant| grant.wallet == wallet && grant.terms.expires_at == contract.ends_at;
    let ending: Vec<Uuid> = book.active_of(&origin).filter(ends_with_it).map(|grant| grant.id).collect();
    let terms = {
        // Beyond the year 9999 is never.
        let expires_at = contract.rollover_expires_after.and_then(|life| at.plus(life, "expires_at").ok());
        terms(&contract, at, expires_at.unwrap_or(Timestamp::NEVER), Origin::ContractRollover(code.clone()))
    };
    let percent = if contract.on_end == OnEnd::Rollover { contract.rollover_percent } else { Amount::ZERO };
    let rolled_over = roll_over(book, transaction, &ending, percent, contract.rollover_cap, terms, at)?;
    if let Some(id) = rolled_over {
        self::contract(book, code).rolled_over_credits = book.grant(id).amount;
    }
    if contract.ends_early() {
        // A refund must not revive what was used up.
        let used_up: Vec<Uuid> = book.used_up(&origin).filter(ends_with_it).map(|grant| grant.id).collect();
        for id in used_up {
            book.set_status(id, GrantStatus::Expired);
        }
    }
    Ok(rolled_over)
}

fn charge(quantity: Amount, unit_price: Amount, currency: &str) -> Result<Amount> {
    money(quantity, unit_price, currency).unwrap_or(Amount::from_units(i128::MAX)).in_range("the price of the minimum spend")
}

/// Charges committed credits that were not spent by the end of the term.
fn true_up(book: &mut Book<'_>, contract: &Contract, at: Timestamp) -> Result<()> {
    let (Some(unit_price), Some(currency)) = (contract.unit_price, contract.currency.clone()) else {
        return Ok(());
    };
    let quantity = contract.committed - book.overage_since(&contract.wallet, contract.starts_at);
    if at <= contract.starts_at || !quantity.is_positive() {
        return Ok(());
    }
    let amount = charge(quantity, unit_price, &currency)?;
    book.lines.push(InvoiceLine {
        line_id: book.new_id(at),
        wallet: contract.wallet.clone(),
        kind: LineKind::TrueUp,
        contract: Some(contract.code.clone()),
        quantity,
        unit_price,
        amount,
        currency,
        period_start: contract.starts_at,
        period_end: at,
    });
    Ok(())
}

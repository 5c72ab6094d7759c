//! Recurring grants: credits given anew each period, and what becomes of the unused ones (SPEC 6).
//!
//! A period begins and ends in settling, at its own instant. A recurring grant is due at the start of its next period, as long as
//! that lies before `ends_at`: so at the end of its last period nothing is due, and the period's grant expires by itself.

use uuid::Uuid;

use super::amount::Amount;
use super::book::Book;
use super::calendar::Calendar;
use super::chart::Kind;
use super::entry::Movement;
use super::grant::{Grant, GrantStatus, GrantTerms, GrantType, Origin};
use super::invoice;
use super::names::{RecurringCode, WalletCode};
use super::request::{Fingerprint, Operation};
use super::time::{Interval, Timestamp};
use super::usage::{self, refuse_unless, wallet};
use super::wallet::WalletStatus;
use crate::error::{Error, Result};

/// What of a period's unused credits goes on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rollover {
    /// 0 to 100.
    pub percent: Amount,
    /// The most that may be rolled over and unspent; none is no limit.
    pub cap: Option<Amount>,
    /// How many more periods it lives; none is for ever.
    pub periods: Option<u32>,
}

impl Rollover {
    /// Whether anything ever goes on.
    fn is_some(&self) -> bool {
        self.percent.is_positive() && self.cap.is_none_or(Amount::is_positive)
    }
}

/// What a caller may change from the next period on.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurringTerms {
    /// Credits a period.
    pub amount: Amount,
    pub grant_type: GrantType,
    pub priority: i32,
    /// Life of a period's grant; none is the period.
    pub expires_after: Option<Interval>,
    pub rollover: Rollover,
    pub unit_price: Option<Amount>,
    pub currency: Option<String>,
    pub applies_to: Option<Vec<String>>,
    /// JSON text.
    pub metadata: String,
}

impl RecurringTerms {
    /// Refuses terms that contradict each other (22023).
    pub fn check(&self) -> Result<()> {
        if self.expires_after.is_some() && self.rollover.percent.is_positive() {
            return Err(Error::invalid(
                "expires_after",
                "nothing rolls over from a grant that does not end with its period",
                "Give expires_after or rollover_percent, not both.",
            ));
        }
        invoice::check_price(self.unit_price.is_some(), self.currency.is_some())
    }
}

/// A period that runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Period {
    pub starts_at: Timestamp,
    /// As agreed when it began.
    pub rollover: Rollover,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RecurringGrant {
    pub code: RecurringCode,
    pub wallet: WalletCode,
    pub terms: RecurringTerms,
    pub calendar: Calendar,
    pub starts_at: Timestamp,
    /// No period starts at or after it; [`Timestamp::NEVER`] for no end.
    pub ends_at: Timestamp,
    /// Whether a first period entered late is given its share only.
    pub prorate: bool,
    /// None before the first one.
    pub period: Option<Period>,
    /// When the next period starts, if it starts before `ends_at`.
    pub next_starts_at: Timestamp,
}

impl RecurringGrant {
    /// The next instant at which settling has something to do with it.
    pub fn due_at(&self) -> Timestamp {
        if self.next_starts_at < self.ends_at { self.next_starts_at } else { Timestamp::NEVER }
    }

    /// Whether no period runs and none will.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends_at <= now && (self.period.is_none() || self.next_starts_at <= now)
    }

    /// Whether what is left of this grant, which expires at an instant, rolls over then: it is that of the period which ends.
    pub fn rolls_over(&self, grant: &Grant, at: Timestamp) -> bool {
        self.due_at() == at
            && grant.terms.expires_at == at
            && self.period.is_some_and(|period| period.rollover.is_some() && period.starts_at == grant.terms.effective_at)
    }
}

#[derive(Debug, Clone)]
pub struct CreateRecurringGrant {
    pub code: RecurringCode,
    pub wallet: WalletCode,
    pub terms: RecurringTerms,
    pub every: Interval,
    pub zone: super::time::TimeZone,
    /// None is now.
    pub starts_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
    /// None is `starts_at`.
    pub anchor: Option<Timestamp>,
    pub prorate: bool,
}

/// Defines a recurring grant, and gives the credits of the period that runs.
pub fn create(book: &mut Book<'_>, request: &CreateRecurringGrant) -> Result<()> {
    let wallet = wallet(book, &request.wallet)?;
    refuse_unless(book, wallet, WalletStatus::NOT_CLOSED, "recurring grant")?;
    request.terms.check()?;
    if book.find_recurring(&request.code).is_some() {
        return Err(Error::AlreadyExists {
            what: "recurring grant",
            name: format!("\"{}\" of customer \"{}\"", request.code, book.customer_id),
            hint: "Change it with credits.update_recurring_grant, or choose another name: one that has ended keeps its name."
                .into(),
        });
    }
    let now = book.now;
    let starts_at = request.starts_at.unwrap_or(now);
    let ends_at = request.ends_at.unwrap_or(Timestamp::NEVER);
    check_end(ends_at, starts_at, now)?;
    let calendar = Calendar { anchor: request.anchor.unwrap_or(starts_at), every: request.every, zone: request.zone };
    let recurring = RecurringGrant {
        code: request.code.clone(),
        wallet: request.wallet.clone(),
        terms: request.terms.clone(),
        calendar,
        starts_at,
        ends_at,
        prorate: request.prorate,
        period: None,
        // A past start is that of the period which contains now.
        next_starts_at: if starts_at < now { starts_at.max(calendar.start_of_period_at(now)) } else { starts_at },
    };
    let is_due = recurring.due_at() <= now;
    if is_due {
        book.wallets[wallet].fits_more(recurring.terms.amount)?;
    }
    book.recurring.create(request.code.clone(), recurring);
    if is_due {
        let transaction = book.begin(None, Fingerprint::of(Operation::CreateRecurringGrant, &[]), now);
        start_period(book, transaction, &request.code, now)?;
        book.close(transaction)?;
    }
    Ok(())
}

fn check_end(ends_at: Timestamp, starts_at: Timestamp, now: Timestamp) -> Result<()> {
    let hint = "No period starts at or after ends_at, which must lie after both now and starts_at. credits.cancel_recurring_grant ends it now.";
    ends_at.check_end("ends_at", ("starts_at", starts_at), now, hint)
}

fn find<'b>(book: &'b mut Book<'_>, code: &RecurringCode) -> Result<&'b mut RecurringGrant> {
    let customer_id = book.customer_id.clone();
    book.find_recurring(code).ok_or_else(|| Error::NotFound {
        what: "recurring grant",
        name: format!("\"{code}\" of customer \"{customer_id}\""),
        hint: "Create it with credits.create_recurring_grant; credits.recurring_grants lists them.".into(),
    })
}

/// Changes the terms from the next period on, and when the last period has started.
pub fn update(
    book: &mut Book<'_>,
    code: &RecurringCode,
    change: impl FnOnce(&mut RecurringTerms, &mut Timestamp) -> Result<()>,
) -> Result<()> {
    let now = book.now;
    let wallet = find(book, code)?.wallet.clone();
    refuse_unless(book, usage::wallet(book, &wallet)?, WalletStatus::NOT_CLOSED, "recurring grant")?;
    let recurring = find(book, code)?;
    if recurring.has_ended(now) {
        return Err(Error::wrong_state(
            format!("recurring grant \"{code}\" ended at {}", recurring.ends_at),
            "Create another one with credits.create_recurring_grant.",
        ));
    }
    let ended_at = recurring.ends_at;
    let mut changed = recurring.clone();
    change(&mut changed.terms, &mut changed.ends_at)?;
    changed.terms.check()?;
    if changed.ends_at != ended_at {
        check_end(changed.ends_at, changed.starts_at, now)?;
    }
    *recurring = changed;
    Ok(())
}

/// Lets no period start at or after an instant; one that ends earlier stays as it is.
pub fn cancel(book: &mut Book<'_>, code: &RecurringCode, at: Option<Timestamp>) -> Result<()> {
    let now = book.now;
    let recurring = find(book, code)?;
    recurring.ends_at = recurring.ends_at.min(at.unwrap_or(now).max(now));
    Ok(())
}

/// Ends every recurring grant of a wallet that is closed, the running periods too.
pub fn end_all(book: &mut Book<'_>, wallet: &WalletCode) {
    let now = book.now;
    for recurring in book.read_recurring_of(wallet) {
        recurring.ends_at = recurring.ends_at.min(now);
        recurring.period = None;
    }
}

/// Starts the period that begins at the due instant of a recurring grant. Its grant, unless there is nothing to give: the share of
/// a first period may round to zero, a short life may be over, and credits beyond the range of the wallet are not given.
pub fn start_period(book: &mut Book<'_>, transaction: usize, code: &RecurringCode, at: Timestamp) -> Result<Option<Uuid>> {
    let Some(recurring) = book.recurring.get_mut(code) else {
        panic!("recurring grant {code} is not in the book");
    };
    let starts_at = recurring.next_starts_at;
    let ends_at = recurring.calendar.end_of_period_at(starts_at, 1);
    let amount = if recurring.prorate && recurring.period.is_none() {
        share_left(&recurring.calendar, recurring.terms.amount, starts_at, ends_at)
    } else {
        recurring.terms.amount
    };
    recurring.period = Some(Period { starts_at, rollover: recurring.terms.rollover });
    recurring.next_starts_at = ends_at;
    let terms = &recurring.terms;
    let expires_at = match terms.expires_after {
        // Beyond the year 9999 is never.
        Some(life) => starts_at.plus_in(recurring.calendar.zone, life, "expires_at").unwrap_or(Timestamp::NEVER),
        None => ends_at,
    };
    let terms = GrantTerms {
        grant_type: terms.grant_type,
        priority: terms.priority,
        effective_at: starts_at,
        expires_at,
        unit_price: terms.unit_price,
        currency: terms.currency.clone(),
        applies_to: terms.applies_to.clone(),
        origin: Some(Origin::Period(code.clone())),
        metadata: terms.metadata.clone(),
    };
    let wallet = book.wallet_of_recurring(code);
    if amount.is_zero() || expires_at <= at || book.wallets[wallet].fits_more(amount).is_err() {
        return Ok(None);
    }
    book.add_grant(transaction, wallet, Kind::Grant, amount, terms, at).map(Some)
}

/// The part of a period's credits from an instant to its end, by time.
fn share_left(calendar: &Calendar, amount: Amount, from: Timestamp, ends_at: Timestamp) -> Amount {
    let started_at = calendar.start_of_period_at(from);
    let span = |from: Timestamp| i128::from(ends_at.to_postgres()) - i128::from(from.to_postgres());
    if ends_at.is_never() {
        return amount;
    }
    amount.share(span(from), span(started_at)).unwrap_or(amount)
}

/// Ends the period of a recurring grant at the start of the next one: of its grant, if it still expires now, a part rolls over, the
/// rest expires. The new grant, if anything rolled over.
pub fn end_period(book: &mut Book<'_>, transaction: usize, code: &RecurringCode, at: Timestamp) -> Result<Option<Uuid>> {
    let wallet = book.wallet_of_recurring(code);
    let Some((recurring, period)) = book.recurring.get(code).and_then(|recurring| Some((recurring, recurring.period?))) else {
        return Ok(None);
    };
    let origin = Origin::Period(code.clone());
    let of_period = |grant: &&Grant| grant.wallet == wallet && recurring.rolls_over(grant, at);
    let ending: Vec<Uuid> = book.active_of(&origin).filter(of_period).map(|grant| grant.id).collect();
    let Some(first) = ending.first() else {
        return Ok(None);
    };
    let expires_at = match period.rollover.periods {
        Some(periods) => recurring.calendar.end_of_period_at(at, periods),
        None => Timestamp::NEVER,
    };
    let terms = GrantTerms {
        effective_at: at,
        expires_at,
        origin: Some(Origin::PeriodRollover(code.clone())),
        ..book.grant(*first).terms.clone()
    };
    let room = period.rollover.cap.map(|cap| (cap - unspent(book, code)).max(Amount::ZERO));
    roll_over(book, transaction, &ending, period.rollover.percent, room, terms, at)
}

/// What a recurring grant rolled over and is not spent, that in open holds included.
fn unspent(book: &mut Book<'_>, code: &RecurringCode) -> Amount {
    book.read_rolled_over(code);
    let origin = Origin::PeriodRollover(code.clone());
    let mut unspent: Amount = book.active_of(&origin).map(|grant| grant.remaining).sum();
    for (id, credits) in book.held() {
        if book.find_grant(id).is_some_and(|grant| grant.terms.origin.as_ref() == Some(&origin)) {
            unspent += credits;
        }
    }
    unspent
}

/// Moves a percentage of what is left of some grants of one wallet, at most `credits_max`, into a new grant; the rest expires.
pub fn roll_over(
    book: &mut Book<'_>,
    transaction: usize,
    ending: &[Uuid],
    percent: Amount,
    credits_max: Option<Amount>,
    terms: GrantTerms,
    at: Timestamp,
) -> Result<Option<Uuid>> {
    let Some(wallet) = ending.first().map(|id| book.grant(*id).wallet) else {
        return Ok(None);
    };
    let unused: Amount = ending.iter().map(|id| book.grant(*id).remaining).sum();
    let hundred = Amount::from_credits(100);
    let share = unused.share(percent.units(), hundred.units()).unwrap_or(unused);
    let rolled_over = credits_max.map_or(share, |credits_max| share.min(credits_max));
    let mut open = rolled_over;
    for &id in ending {
        let remaining = book.grant(id).remaining;
        let moved = remaining.min(open);
        if moved.is_positive() {
            open -= moved;
            book.post(transaction, wallet, Movement::new(Kind::RolloverOut, moved, Some(id), at))?;
        }
        book.end_grant(transaction, id, (Kind::Expiration, GrantStatus::Expired), remaining - moved, at)?;
    }
    if rolled_over.is_zero() {
        return Ok(None);
    }
    book.add_grant(transaction, wallet, Kind::RolloverIn, rolled_over, terms, at).map(Some)
}

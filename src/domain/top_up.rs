//! Auto top-up: requesting credits to be paid for, and granting them once they are (SPEC 9).
//!
//! A request is claimed by a worker, which has a payment provider collect the money under the request's id. As long as the outcome of
//! an attempt is not known it may have been paid: such a request is claimed again after its lease, and never cancelled.

use serde_json::Value;
use uuid::Uuid;

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::event::EventType;
use super::grant::{GrantTerms, GrantType};
use super::names::{TransactionId, WalletCode};
use super::request::{Fingerprint, Operation, Part};
use super::time::{Interval, Timestamp};
use super::usage::{refuse_unless, wallet};
use super::wallet::{WalletStatus, codes};
use crate::error::{Error, Result};

/// Failures in a row after which a rule is disabled.
const FAILURES_MAX: i32 = 5;
/// After failure n the next attempt waits 5^(n - 1) times as long.
const BACKOFF_MICROSECONDS: i64 = 60_000_000;
const PRIORITY: i32 = 100;

codes! {
    /// What became of a requested top-up. `Open` may be claimed.
    TopUpStatus {
        Open = "open",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

/// How much a top-up brings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    Amount(Amount),
    /// What is missing from this balance, debt included.
    Target(Amount),
}

impl Size {
    /// The two columns: amount, target_balance.
    pub fn parts(self) -> (Option<Amount>, Option<Amount>) {
        match self {
            Self::Amount(amount) => (Some(amount), None),
            Self::Target(target) => (None, Some(target)),
        }
    }
}

/// The auto top-up of a wallet.
#[derive(Debug, Clone, PartialEq)]
pub struct TopUpRule {
    pub wallet: WalletCode,
    /// A top-up is requested when the level is at or below it.
    pub threshold: Amount,
    pub size: Size,
    pub payment_method_id: Option<String>,
    /// Least time from one top-up to the next.
    pub cooldown: Interval,
    /// Most top-ups within any `period`.
    pub max_per_period: Option<i32>,
    pub period: Interval,
    /// Life of the credits; none is the wallet's.
    pub expires_after: Option<Interval>,
    pub price: Option<(Amount, String)>,
    pub enabled: bool,
    /// Failed payments in a row.
    pub failures: i32,
    /// What usage asked for in vain while a top-up was held back.
    pub wanted: Option<Amount>,
    /// When what holds a wanted top-up back ends; [`Timestamp::NEVER`] if none is held back.
    pub due_at: Timestamp,
}

/// A requested top-up.
#[derive(Debug, Clone, PartialEq)]
pub struct TopUp {
    pub id: Uuid,
    pub wallet: WalletCode,
    pub status: TopUpStatus,
    pub amount: Amount,
    pub price: Option<(Amount, String)>,
    pub expires_after: Option<Interval>,
    pub payment_method_id: Option<String>,
    /// Before a payment was attempted it is cancelled if the level is above it; none is never.
    pub cancel_above: Option<Amount>,
    pub requested_at: Timestamp,
    /// From when it can be claimed.
    pub available_at: Timestamp,
    /// When it was claimed, as long as the outcome of that attempt is not known.
    pub claimed_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Failed attempts.
    pub failures: i32,
    pub payment_reference: Option<String>,
    pub grant: Option<Uuid>,
    pub reason: Option<String>,
}

impl TopUp {
    fn finish(&mut self, status: TopUpStatus, at: Timestamp) {
        self.status = status;
        self.finished_at = Some(at);
        self.claimed_at = None;
    }

    fn cancel(&mut self, reason: &str, at: Timestamp) {
        self.finish(TopUpStatus::Cancelled, at);
        self.reason = Some(reason.to_owned());
    }
}

/// When a top-up was requested, and when it ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recent {
    pub requested_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

impl TopUpRule {
    /// Refuses (22023) rules that would ask for more and more.
    pub fn check(&self) -> Result<()> {
        match self.size {
            Size::Target(target) if target <= self.threshold => Err(Error::invalid(
                "target_balance",
                format!("{target} is not above the threshold, {}", self.threshold),
                "A top-up fills the wallet up to target_balance, which must lie above threshold.",
            )),
            _ => Ok(()),
        }
    }

    /// Until when the cooldown or the cap holds the next request back, if it does. `recent`: the last top-ups first.
    fn held_back_until(&self, recent: &[Recent], now: Timestamp) -> Option<Timestamp> {
        // What would end after the year 9999 holds nothing back.
        let end = |from: Timestamp, interval: Interval| from.plus(interval, "the end of a cooldown or period").ok();
        let mut until = None;
        if let Some(last) = recent.first() {
            let from = last.finished_at.map_or(last.requested_at, |at| at.max(last.requested_at));
            until = end(from, self.cooldown);
        }
        let cap = self.max_per_period.and_then(|cap| usize::try_from(cap).ok()).and_then(|cap| recent.get(cap.saturating_sub(1)));
        if let Some(oldest) = cap {
            until = until.max(end(oldest.requested_at, self.period));
        }
        until.filter(|until| *until > now)
    }
}

/// Defines, changes or disables the auto top-up of a wallet; at or below its threshold it requests a top-up at once.
pub fn set_rule(book: &mut Book<'_>, rule: TopUpRule) -> Result<()> {
    let index = wallet(book, &rule.wallet)?;
    refuse_unless(book, index, WalletStatus::NOT_CLOSED, "auto top-up")?;
    let now = book.now;
    // What is open by itself goes by the new rule; one by hand, or one that is being paid, goes on.
    if let Some(mut top_up) = unclaimed(book, index).filter(|top_up| top_up.cancel_above.is_some()) {
        if !rule.enabled {
            top_up.cancel("auto top-up was disabled", now);
        } else if top_up.payment_method_id != rule.payment_method_id {
            top_up.payment_method_id = rule.payment_method_id.clone();
            top_up.available_at = now;
        }
        book.top_ups.set(top_up.id, top_up);
    }
    book.top_up_rule(index);
    book.top_up_rules.set(rule.wallet.clone(), rule);
    book.watch_again(index);
    Ok(())
}

/// The open top-up of a wallet of which no payment may have been made.
fn unclaimed(book: &mut Book<'_>, index: usize) -> Option<TopUp> {
    book.open_top_up(index).filter(|top_up| top_up.claimed_at.is_none())
}

/// What was left for later since the wallet was frozen can be claimed again.
pub fn thaw(book: &mut Book<'_>, index: usize) {
    let now = book.now;
    if let Some(mut top_up) = unclaimed(book, index).filter(|top_up| top_up.failures == 0) {
        top_up.available_at = now;
        book.top_ups.set(top_up.id, top_up);
    }
}

/// Refuses to close a wallet whose top-up may have been paid.
pub fn refuse_claimed(book: &mut Book<'_>, index: usize) -> Result<()> {
    match book.open_top_up(index).filter(|top_up| top_up.claimed_at.is_some()) {
        None => Ok(()),
        Some(TopUp { wallet, .. }) => Err(Error::wrong_state(
            format!(
                "wallet \"{wallet}\" of customer \"{}\" cannot be closed: a top-up is claimed and may be paid",
                book.customer_id
            ),
            "Complete or fail it first, with credits.complete_top_up or credits.fail_top_up; credits.top_ups shows it.",
        )),
    }
}

/// Ends what tops up a wallet that is closed.
pub fn end(book: &mut Book<'_>, index: usize) {
    let now = book.now;
    if let Some(mut top_up) = unclaimed(book, index) {
        top_up.cancel("the wallet was closed", now);
        book.top_ups.set(top_up.id, top_up);
    }
    if let Some(rule) = book.top_up_rule(index) {
        let rule = TopUpRule { enabled: false, failures: 0, wanted: None, due_at: Timestamp::NEVER, ..rule };
        book.top_up_rules.set(rule.wallet.clone(), rule);
    }
    book.watch_again(index);
}

/// What held a request back is over: it is looked at again at the end of the step.
pub fn resume(book: &mut Book<'_>, code: &WalletCode) {
    if let Some(rule) = book.top_up_rules.get_mut(code) {
        rule.due_at = Timestamp::NEVER;
    }
    if let Some(index) = book.wallet_index(code) {
        book.watch_again(index);
    }
}

/// Requests a top-up of a wallet that is low, or whose credits were not enough, unless one is open or held back.
pub fn request_if_low(book: &mut Book<'_>, index: usize) {
    let shortage = book.take_shortage(index);
    let Some(rule) = book.enabled_rule(index) else {
        return;
    };
    if book.wallets[index].status != WalletStatus::Active || book.open_top_up(index).is_some() {
        return;
    }
    let level = book.wallets[index].level();
    // What usage asked for in vain is not there as long as the level has not risen: some may be held, or pay other usage.
    let wanted = shortage.map(|asked| asked.max(level)).max(rule.wanted).filter(|wanted| *wanted >= level);
    let mut next = TopUpRule { wanted: None, due_at: Timestamp::NEVER, ..rule.clone() };
    if level <= rule.threshold || wanted.is_some() {
        match rule.held_back_until(&book.recent_top_ups(index, &rule), book.now) {
            Some(until) => next = TopUpRule { wanted, due_at: until, ..next },
            None => {
                let cancel_above = rule.threshold.max(wanted.unwrap_or_default());
                let amount = size(book, index, rule.size);
                request(book, index, Some(&rule), amount, Some(cancel_above));
            }
        }
    }
    if next != rule {
        book.top_up_rules.set(next.wallet.clone(), next);
    }
}

/// How much a top-up brings, as of now; nothing or less if nothing is missing. Debt and target may be more together than one grant holds.
fn size(book: &Book<'_>, index: usize, size: Size) -> Amount {
    match size {
        Size::Amount(amount) => amount,
        Size::Target(target) => (target + book.wallets[index].debt - book.wallets[index].balance).min(Amount::MAX),
    }
}

fn request(
    book: &mut Book<'_>,
    index: usize,
    rule: Option<&TopUpRule>,
    amount: Amount,
    cancel_above: Option<Amount>,
) -> Option<Uuid> {
    // What could not be granted must not be paid.
    if !amount.is_positive() || book.wallets[index].fits_more(amount).is_err() {
        return None;
    }
    let top_up = TopUp {
        id: book.new_id(book.now),
        wallet: book.wallets[index].code.clone(),
        status: TopUpStatus::Open,
        amount,
        price: rule.and_then(|rule| rule.price.clone()),
        expires_after: rule.and_then(|rule| rule.expires_after),
        payment_method_id: rule.and_then(|rule| rule.payment_method_id.clone()),
        cancel_above,
        requested_at: book.now,
        available_at: book.now,
        claimed_at: None,
        finished_at: None,
        failures: 0,
        payment_reference: None,
        grant: None,
        reason: None,
    };
    let id = top_up.id;
    book.tell_of_top_up(EventType::TopUpRequested, index, &top_up, []);
    book.top_ups.create(id, top_up);
    Some(id)
}

/// Requests a top-up by hand: the open one, if there is one, else a new one, whatever the threshold, cooldown and cap say.
pub fn request_by_hand(book: &mut Book<'_>, code: &WalletCode, amount: Option<Amount>) -> Result<Uuid> {
    let index = wallet(book, code)?;
    if let Some(open) = book.open_top_up(index) {
        return Ok(open.id);
    }
    refuse_unless(book, index, &[WalletStatus::Active], "top-up")?;
    let rule = book.top_up_rule(index);
    let amount = match (amount, &rule) {
        (Some(amount), _) => amount,
        (None, Some(rule)) => size(book, index, rule.size),
        (None, None) => {
            return Err(Error::NotFound {
                what: "auto top-up",
                name: format!("of wallet \"{code}\" of customer \"{}\"", book.customer_id),
                hint: "Pass an amount, or define one with credits.set_auto_top_up.".into(),
            });
        }
    };
    if amount.is_positive() {
        book.wallets[index].fits_more(amount)?;
    }
    let requested = request(book, index, rule.as_ref(), amount, None);
    book.watch_again(index);
    requested.ok_or_else(|| {
        Error::wrong_state(
            format!("wallet \"{code}\" of customer \"{}\" has the balance that a top-up would fill it up to", book.customer_id),
            "Pass an amount.",
        )
    })
}

/// Lets a worker have the open top-ups that can be claimed, until `lease_until`; those that are not needed any more are cancelled,
/// those of frozen wallets left for later.
pub fn claim(book: &mut Book<'_>, lease_until: Timestamp, top_ups_max: usize) -> Vec<TopUp> {
    let mut claimed = Vec::new();
    for index in 0..book.wallets.len() {
        let now = book.now;
        let Some(mut top_up) = book.open_top_up(index).filter(|top_up| top_up.available_at <= now) else {
            continue;
        };
        let wallet = &book.wallets[index];
        let is_needed = top_up.cancel_above.is_none_or(|above| wallet.level() <= above);
        if top_up.claimed_at.is_none() && !is_needed {
            top_up.cancel("the balance is above the threshold again", now);
            book.watch_again(index);
        } else if top_up.claimed_at.is_none() && wallet.status != WalletStatus::Active {
            // Looked at again then: nobody pays for a frozen wallet.
            top_up.available_at = lease_until;
        } else if claimed.len() < top_ups_max {
            top_up.claimed_at = Some(now);
            top_up.available_at = lease_until;
            claimed.push(top_up.clone());
        }
        book.top_ups.set(top_up.id, top_up);
    }
    claimed
}

fn find(book: &mut Book<'_>, id: Uuid) -> Result<TopUp> {
    book.find_top_up(id).ok_or_else(|| Error::NotFound {
        what: "top-up",
        name: format!("{id} of customer \"{}\"", book.customer_id),
        hint: "Pass the top_up_id that claim_top_ups or request_top_up returned; credits.top_ups lists them.".into(),
    })
}

/// Grants what was paid, exactly once; the grant.
pub fn complete(book: &mut Book<'_>, id: Uuid, payment_reference: &str) -> Result<Uuid> {
    let mut top_up = find(book, id)?;
    let index = wallet(book, &top_up.wallet)?;
    if let (Some(first), Some(grant)) = (&top_up.payment_reference, top_up.grant) {
        if first == payment_reference {
            return Ok(grant);
        }
        return Err(Error::IdempotencyKeyReused {
            customer_id: book.customer_id.to_string(),
            key: id.to_string(),
            first: format!("a top-up paid by \"{first}\""),
        });
    }
    if top_up.status == TopUpStatus::Cancelled {
        return Err(Error::wrong_state(
            format!("top-up {id} of customer \"{}\" was cancelled", book.customer_id),
            "Give the payment back, or grant its credits with credits.grant_credits.",
        ));
    }
    refuse_unless(book, index, WalletStatus::NOT_CLOSED, "grant")?;
    let grant = grant(book, index, &top_up, payment_reference)?;
    top_up.finish(TopUpStatus::Succeeded, book.now);
    top_up.payment_reference = Some(payment_reference.to_owned());
    top_up.grant = Some(grant);
    top_up.reason = None;
    let more = [("grant_id", Value::String(grant.to_string())), ("payment_reference", payment_reference.into())];
    book.tell_of_top_up(EventType::TopUpSucceeded, index, &top_up, more);
    book.top_ups.set(id, top_up);
    if let Some(rule) = book.top_up_rule(index).filter(|rule| rule.failures > 0) {
        book.top_up_rules.set(rule.wallet.clone(), TopUpRule { failures: 0, ..rule });
    }
    book.watch_again(index);
    Ok(grant)
}

/// The transaction's id is that of the top-up, so that the ledger too lets it be granted once only.
fn grant(book: &mut Book<'_>, index: usize, top_up: &TopUp, payment_reference: &str) -> Result<Uuid> {
    let now = book.now;
    let expires_at = match top_up.expires_after.or(book.wallets[index].settings.expires_after) {
        Some(life) => now.plus(life, "expires_at")?,
        None => Timestamp::NEVER,
    };
    let id = top_up.id.to_string();
    let (unit_price, currency) = top_up.price.clone().unzip();
    let terms = GrantTerms {
        grant_type: GrantType::Prepaid,
        priority: PRIORITY,
        effective_at: now,
        expires_at,
        unit_price,
        currency,
        applies_to: None,
        origin: None,
        metadata: serde_json::json!({ "top_up_id": id, "payment_reference": payment_reference }).to_string(),
    };
    let key = TransactionId::stored(id.into());
    let fingerprint = Fingerprint::of(Operation::TopUp, &[Part::Amount(Some(top_up.amount))]);
    let amount = top_up.amount;
    let Answer { recorded, .. } = book.once(Some(&key), fingerprint, |book, transaction| {
        book.add_grant(transaction, index, Kind::Grant, amount, terms, now).map(std::mem::drop)
    })?;
    match recorded.grant(|kind| kind == Kind::Grant) {
        Some(grant) => Ok(grant),
        None => panic!("transaction {key} made no grant"),
    }
}

/// Records that an attempt failed. It is retried after a while, unless auto top-up was disabled meanwhile, or has failed too often in a
/// row; the status then.
pub fn fail(book: &mut Book<'_>, id: Uuid, reason: &str, retry_after: Option<Interval>) -> Result<TopUpStatus> {
    let mut top_up = find(book, id)?;
    let index = wallet(book, &top_up.wallet)?;
    if top_up.status == TopUpStatus::Failed {
        return Ok(top_up.status);
    }
    if top_up.status != TopUpStatus::Open {
        return Err(Error::wrong_state(
            format!("top-up {id} of customer \"{}\" is {}", book.customer_id, top_up.status.code()),
            "Only an open top-up can fail.",
        ));
    }
    let now = book.now;
    top_up.failures += 1;
    top_up.reason = Some(reason.to_owned());
    top_up.claimed_at = None;
    let rule = book.top_up_rule(index);
    if top_up.cancel_above.is_some() && rule.as_ref().is_some_and(|rule| !rule.enabled) {
        top_up.cancel("auto top-up was disabled", now);
        book.top_ups.set(id, top_up);
        book.watch_again(index);
        return Ok(TopUpStatus::Cancelled);
    }
    // One by hand of a wallet whose rule is disabled, or that has none, is retried as often by itself.
    let rule = rule.filter(|rule| rule.enabled);
    let in_a_row = rule.as_ref().map_or(top_up.failures, |rule| rule.failures + 1);
    let is_over = in_a_row >= FAILURES_MAX;
    if is_over {
        top_up.finish(TopUpStatus::Failed, now);
        let more = [("reason", reason.into()), ("failures", in_a_row.into()), ("auto_top_up_disabled", rule.is_some().into())];
        book.tell_of_top_up(EventType::TopUpFailed, index, &top_up, more);
    } else {
        let backoff = || now.plus_microseconds(BACKOFF_MICROSECONDS * 5_i64.pow((top_up.failures - 1).clamp(0, 4) as u32));
        top_up.available_at = match retry_after {
            Some(after) => now.plus(after, "retry_after")?,
            None => backoff(),
        };
    }
    if let Some(rule) = rule {
        let rule = TopUpRule { failures: in_a_row, enabled: !is_over, ..rule };
        book.top_up_rules.set(rule.wallet.clone(), rule);
    }
    let status = top_up.status;
    book.top_ups.set(id, top_up);
    book.watch_again(index);
    Ok(status)
}

//! Holds: credits set aside for work whose final cost is not known yet (SPEC 7).
//!
//! A hold's id is that of its transaction, whose entries say which grants it took from. It is open until it is captured, released
//! or lapses, each once; the transaction that ends it refers to it.

use super::amount::Amount;
use super::book::{Answer, Book};
use super::chart::Kind;
use super::entry::{Line, Movement};
use super::fefo::{self, post_take};
use super::names::{EventName, TransactionId};
use super::request::{Fingerprint, Operation, Part};
use super::time::{Interval, Timestamp};
use super::usage::{Deduction, OnInsufficient, Scope, Wanted, insufficient};
use super::wallet::codes;
use crate::error::{Error, Result};

codes! {
    HoldStatus {
        Open = "open",
        Captured = "captured",
        Released = "released",
        Lapsed = "lapsed",
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// Id of the transaction that set the credits aside.
    pub id: TransactionId,
    pub status: HoldStatus,
    /// It lapses at this instant.
    pub expires_at: Timestamp,
    /// The wallets it considered, which pay what a capture takes beyond it.
    pub scope: Scope,
    pub event_name: Option<EventName>,
}

impl Hold {
    pub fn is_open(&self) -> bool {
        self.status == HoldStatus::Open
    }

    /// The next instant at which settling has something to do with it.
    pub fn due_at(&self) -> Timestamp {
        if self.is_open() { self.expires_at } else { Timestamp::NEVER }
    }
}

#[derive(Debug, Clone)]
pub struct HoldCredits {
    pub amount: Amount,
    pub expires_in: Interval,
    pub scope: Scope,
    pub event_name: Option<EventName>,
    /// JSON text.
    pub metadata: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Held {
    pub hold_id: TransactionId,
    pub held: Amount,
    pub balance: Amount,
    pub expires_at: Timestamp,
    pub replayed: bool,
}

/// Sets credits aside once for its key, from grants only, first expiring first.
pub fn hold(book: &mut Book<'_>, key: Option<&TransactionId>, request: &HoldCredits) -> Result<Held> {
    let [wallet, unit] = request.scope.parts();
    let event_name = request.event_name.as_ref();
    let parts = [Part::Amount(Some(request.amount)), wallet, unit, Part::Text(event_name.map(EventName::as_str))];
    let fingerprint = Fingerprint::of(Operation::HoldCredits, &parts);
    let Answer { recorded, replayed } = book.once(key, fingerprint, |book, transaction| {
        let expires_at = book.now.plus(request.expires_in, "expires_in")?;
        let wallets = request.scope.active_wallets(book)?;
        let plan = fefo::plan(book, &wallets, request.amount, fefo::Usage::Event(event_name), None);
        if plan.shortfall.is_positive() {
            let hint = "Hold what is there and capture more later: a capture may take more than was held.";
            return Err(insufficient(book, request.amount, plan.covered(), &request.scope, hint));
        }
        let opened = &mut book.transactions[transaction];
        opened.event_name = request.event_name.clone();
        opened.metadata = request.metadata.clone();
        let id = opened.id.clone();
        for take in &plan.takes {
            post_take(book, transaction, take, Kind::Hold)?;
        }
        let (scope, event_name) = (request.scope.clone(), request.event_name.clone());
        book.holds.create(id.clone(), Hold { id, status: HoldStatus::Open, expires_at, scope, event_name });
        Ok(())
    })?;
    let balance = book.spendable(&request.scope.wallets(book));
    let expires_at = find(book, &recorded.id)?.expires_at;
    Ok(Held { held: recorded.sum(|kind| kind == Kind::Hold), balance, expires_at, hold_id: recorded.id, replayed })
}

fn find<'b>(book: &'b mut Book<'_>, id: &TransactionId) -> Result<&'b mut Hold> {
    let customer_id = book.customer_id.clone();
    book.find_hold(id).ok_or_else(|| Error::NotFound {
        what: "hold",
        name: format!("\"{id}\" of customer \"{customer_id}\""),
        hint: "Pass the hold_id that hold_credits returned, which is its idempotency key if it had one.".into(),
    })
}

fn refusal(book: &Book<'_>, hold: &Hold, operation: &str) -> String {
    let verb = if hold.status == HoldStatus::Lapsed { "has" } else { "was" };
    let (id, status) = (&hold.id, hold.status.code());
    format!("hold \"{id}\" of customer \"{}\" {verb} already {status} and cannot be {operation}", book.customer_id)
}

#[derive(Debug, Clone)]
pub struct CaptureHold {
    pub hold_id: TransactionId,
    /// None is all that was held; zero is a release recorded as usage of zero.
    pub amount: Option<Amount>,
    /// For what is wanted beyond the hold.
    pub on_insufficient: OnInsufficient,
    /// JSON text.
    pub metadata: Option<String>,
}

/// Turns a hold into usage once for its key. Up to what was held it always succeeds.
pub fn capture(book: &mut Book<'_>, key: Option<&TransactionId>, request: &CaptureHold) -> Result<Deduction> {
    let parts = [Part::Text(Some(request.hold_id.as_str())), Part::Amount(request.amount)];
    let fingerprint = Fingerprint::of(Operation::CaptureHold, &parts);
    let answer = book.once(key, fingerprint, |book, transaction| execute(book, transaction, request))?;
    let scope = find(book, &request.hold_id)?.scope.clone();
    let requested = match request.amount {
        Some(amount) => amount,
        None => book.held_by(&request.hold_id).iter().map(|line| line.credits).sum(),
    };
    Ok(Deduction::of(answer, requested, book.spendable(&scope.wallets(book))))
}

fn execute(book: &mut Book<'_>, transaction: usize, request: &CaptureHold) -> Result<()> {
    let hold = find(book, &request.hold_id)?.clone();
    if !hold.is_open() {
        let problem = refusal(book, &hold, "captured");
        return Err(Error::wrong_state(problem, "Charge usage that no hold covers with credits.deduct_usage."));
    }
    let lines = book.held_by(&hold.id);
    let held: Amount = lines.iter().map(|line| line.credits).sum();
    let amount = request.amount.unwrap_or(held);
    let beyond = Wanted {
        amount: (amount - held).max(Amount::ZERO),
        event_name: hold.event_name.clone(),
        usage_at: None,
        on_insufficient: request.on_insufficient,
    };
    let cover = if beyond.amount.is_positive() {
        let wallets = hold.scope.active(book);
        match beyond.cover(book, &wallets) {
            Ok(cover) => Some(cover),
            Err(_) if request.on_insufficient == OnInsufficient::Report => return Ok(()),
            Err(covered) if request.on_insufficient == OnInsufficient::Error => {
                let hint = "Capture what was held, or with on_insufficient => 'partial' what there is.";
                return Err(insufficient(book, amount, held + covered, &hold.scope, hint));
            }
            Err(_) => None,
        }
    } else {
        None
    };
    let is_partial = beyond.amount.is_positive() && cover.as_ref().is_none_or(|cover| cover.is_partial);
    let opened = &mut book.transactions[transaction];
    opened.requested = is_partial.then_some(amount);
    opened.event_name = hold.event_name.clone();
    opened.metadata = request.metadata.clone();
    opened.refers_to = Some(hold.id.clone());

    let now = book.now;
    let mut open = amount.min(held);
    let mut left = Vec::new();
    for mut line in lines {
        let captured = line.credits.min(open);
        if captured.is_positive() {
            open -= captured;
            book.post(transaction, line.wallet, Movement::new(Kind::HoldCaptured, captured, line.grant, now))?;
        }
        line.credits -= captured;
        left.push(line);
    }
    if amount.is_zero()
        && let Some(line) = left.first()
    {
        book.post(transaction, line.wallet, Movement::new(Kind::Usage, Amount::ZERO, None, now))?;
    }
    give_back(book, transaction, &left, now, now)?;
    if let Some(cover) = cover {
        cover.charge(book, transaction)?;
    }
    find(book, &hold.id)?.status = HoldStatus::Captured;
    Ok(())
}

/// Gives held credits back to their grants; what belongs to a grant that ended before or at `ended_until` ends with it.
fn give_back(book: &mut Book<'_>, transaction: usize, lines: &[Line], at: Timestamp, ended_until: Timestamp) -> Result<()> {
    for line in lines.iter().filter(|line| line.credits.is_positive()) {
        let back = Movement::new(Kind::HoldReleased, line.credits, line.grant, at);
        book.return_credits(transaction, line.wallet, back, ended_until)?;
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
pub struct Release {
    pub hold_id: TransactionId,
    pub released: Amount,
    pub balance: Amount,
}

/// Gives a hold back; one that was released or has lapsed answers with what was given back then.
pub fn release(book: &mut Book<'_>, id: &TransactionId) -> Result<Release> {
    let hold = find(book, id)?.clone();
    let released = match hold.status {
        HoldStatus::Captured => {
            let problem = refusal(book, &hold, "released");
            return Err(Error::wrong_state(problem, "Give usage back with credits.refund_usage."));
        }
        HoldStatus::Open => {
            let now = book.now;
            let transaction = book.begin(None, Fingerprint::of(Operation::ReleaseHold, &[]), now);
            let lines = end(book, transaction, &hold, HoldStatus::Released, now, now)?;
            book.close(transaction)?;
            lines.iter().map(|line| line.credits).sum()
        }
        HoldStatus::Released | HoldStatus::Lapsed => book.given_back(id),
    };
    Ok(Release { hold_id: hold.id, released, balance: book.spendable(&hold.scope.wallets(book)) })
}

/// Lets an open hold lapse at its instant, before anything expires then.
pub fn lapse(book: &mut Book<'_>, id: &TransactionId, at: Timestamp) -> Result<Vec<Line>> {
    let hold = find(book, id)?.clone();
    let transaction = book.begin(None, Fingerprint::of(Operation::Settle, &[]), at);
    end(book, transaction, &hold, HoldStatus::Lapsed, at, at.plus_microseconds(-1))
}

fn end(
    book: &mut Book<'_>,
    transaction: usize,
    hold: &Hold,
    status: HoldStatus,
    at: Timestamp,
    ended_until: Timestamp,
) -> Result<Vec<Line>> {
    let lines = book.held_by(&hold.id);
    let opened = &mut book.transactions[transaction];
    opened.refers_to = Some(hold.id.clone());
    opened.event_name = hold.event_name.clone();
    give_back(book, transaction, &lines, at, ended_until)?;
    find(book, &hold.id)?.status = status;
    Ok(lines)
}

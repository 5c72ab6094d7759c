//! Watching a wallet's level, which is balance + held: alerts, and when to request a top-up (SPEC 9).
//!
//! What is watched is looked at once after each step of a call: after settling, and after the call's own work (in a batch, after each
//! item). A wallet's row keeps the two levels between which there is nothing to do, so that a deduction compares and goes on.

use num_bigint::BigInt;
use uuid::Uuid;

use super::amount::Amount;
use super::book::Book;
use super::event::EventType;
use super::names::WalletCode;
use super::time::Timestamp;
use super::top_up;
use super::usage::{refuse_unless, wallet};
use super::wallet::WalletStatus;
use crate::error::{Error, Result};

/// Where an alert fires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Percent of the level right after the last credit.
    Percent(Amount),
    Credits(Amount),
}

impl Threshold {
    /// The two columns: percent, credits.
    pub fn parts(self) -> (Option<Amount>, Option<Amount>) {
        match self {
            Self::Percent(percent) => (Some(percent), None),
            Self::Credits(credits) => (None, Some(credits)),
        }
    }

    fn number(self) -> Amount {
        match self {
            Self::Percent(number) | Self::Credits(number) => number,
        }
    }

    /// A number in its own measure as credits: the most that are not above it.
    fn credits(self, number: Amount, credited_level: Amount) -> Amount {
        match self {
            Self::Credits(_) => number,
            Self::Percent(_) => {
                let hundred = BigInt::from(Amount::from_credits(100).units());
                let credits = BigInt::from(credited_level.units()) * number.units() / hundred;
                // Below the level for less than 100 percent, so it fits; more is no more than can ever be reached.
                i128::try_from(credits).map_or(credited_level, Amount::from_units)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub id: Uuid,
    pub wallet: WalletCode,
    pub threshold: Threshold,
    /// Above it the alert is armed again, in the measure of the threshold; none is the threshold.
    pub rearm: Option<Amount>,
    pub is_armed: bool,
    pub fired_at: Option<Timestamp>,
    pub dropped_at: Option<Timestamp>,
}

impl Alert {
    /// Refuses (22023) thresholds at which it would fire for ever or never.
    pub fn check(&self) -> Result<()> {
        let hundred = Amount::from_credits(100);
        if let Threshold::Percent(percent) = self.threshold
            && percent >= hundred
        {
            return Err(Error::invalid(
                "threshold_percent",
                format!("{percent} is not below 100"),
                "100 percent is what the wallet has right after credits came in; pass 0 to less than 100.",
            ));
        }
        if self.rearm.is_some_and(|rearm| rearm < self.threshold.number()) {
            return Err(Error::invalid(
                "rearm",
                "it lies below the threshold",
                "An alert is armed again above rearm: pass the threshold or more, in the same measure.",
            ));
        }
        Ok(())
    }

    fn fires_at(&self, credited_level: Amount) -> Amount {
        self.threshold.credits(self.threshold.number(), credited_level)
    }

    fn rearms_above(&self, credited_level: Amount) -> Amount {
        self.threshold.credits(self.rearm.unwrap_or(self.threshold.number()), credited_level)
    }
}

/// Creates an alert; below its threshold it fires at once.
pub fn create(book: &mut Book<'_>, alert: Alert) -> Result<()> {
    let index = wallet(book, &alert.wallet)?;
    refuse_unless(book, index, WalletStatus::NOT_CLOSED, "alert")?;
    book.alerts_of(index);
    book.alerts.create(alert.id, alert);
    book.watch_again(index);
    Ok(())
}

/// Drops an alert.
pub fn drop(book: &mut Book<'_>, id: Uuid) -> Result<()> {
    let now = book.now;
    let Some(alert) = book.find_alert(id).filter(|alert| alert.dropped_at.is_none()) else {
        return Err(Error::NotFound {
            what: "alert",
            name: format!("{id} of customer \"{}\"", book.customer_id),
            hint: "Pass the id that create_alert returned; credits.alerts lists them.".into(),
        });
    };
    alert.dropped_at = Some(now);
    let code = alert.wallet.clone();
    let index = wallet(book, &code)?;
    book.watch_again(index);
    Ok(())
}

/// Looks at every wallet at the end of a step: fires alerts, arms them again, and requests top-ups.
pub fn look(book: &mut Book<'_>) {
    for index in 0..book.wallets.len() {
        let level = book.wallets[index].level();
        let before = book.take_level(index);
        let is_watched = book.wallets[index].watch.is_some();
        if level.is_zero() && before.is_positive() {
            book.tell_of_depletion(index, is_watched);
        }
        if book.take_watch_again(index) || book.wallets[index].is_worth_a_look() {
            look_at_alerts(book, index);
            top_up::request_if_low(book, index);
            mark(book, index);
        }
    }
}

fn look_at_alerts(book: &mut Book<'_>, index: usize) {
    let (level, credited_level) = (book.wallets[index].level(), book.wallets[index].credited_level);
    let mut alerts = book.alerts_of(index);
    // What falls past several thresholds passes the highest first.
    alerts.sort_by_key(|alert| std::cmp::Reverse((alert.fires_at(credited_level), alert.id)));
    for mut alert in alerts {
        let threshold = alert.fires_at(credited_level);
        if alert.is_armed && level <= threshold {
            alert.is_armed = false;
            alert.fired_at = Some(book.now);
            book.tell_of_alert(EventType::BalanceLow, index, &alert, threshold);
        } else if !alert.is_armed && level > alert.rearms_above(credited_level) {
            alert.is_armed = true;
            book.tell_of_alert(EventType::BalanceRecovered, index, &alert, threshold);
        } else {
            continue;
        }
        book.alerts.set(alert.id, alert);
    }
}

/// Keeps on the wallet's row between which levels there is nothing to do.
fn mark(book: &mut Book<'_>, index: usize) {
    let credited_level = book.wallets[index].credited_level;
    let alerts = book.alerts_of(index);
    let armed = alerts.iter().filter(|alert| alert.is_armed).map(|alert| alert.fires_at(credited_level));
    let fired = alerts.iter().filter(|alert| !alert.is_armed).map(|alert| alert.rearms_above(credited_level));
    let rule = book.enabled_rule(index);
    let has_top_up = rule.is_some();
    let waits = rule.filter(|rule| rule.due_at.is_never());
    let waits = waits.filter(|_| book.wallets[index].status == WalletStatus::Active && book.open_top_up(index).is_none());
    let low_at = armed.chain(waits.map(|rule| rule.threshold)).max();
    let high_at = fired.min();
    let wallet = &mut book.wallets[index];
    wallet.watch.low_at = low_at;
    wallet.watch.high_at = high_at;
    wallet.watch.has_top_up = has_top_up;
}

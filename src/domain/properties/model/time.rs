//! The naive ledger's time: a calendar by a table of months, and everything that happens at one instant.

use super::{Model, Origin, State};
use crate::domain::properties::requests::rules::{CODES, Every};
use crate::domain::properties::requests::{DAY, Instant, NEVER};

fn days_of_year(year: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if is_leap { 366 } else { 365 }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        1 => days_of_year(year) - 337,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Year, month from 0 and day from 0 of days since 2000.
fn date(mut days: i64) -> (i64, i64, i64) {
    let (mut year, mut month) = (2000, 0);
    while days < 0 {
        year -= 1;
        days += days_of_year(year);
    }
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    (year, month, days)
}

fn days_until(year: i64) -> i64 {
    (2000..year).map(days_of_year).sum::<i64>() - (year..2000).map(days_of_year).sum::<i64>()
}

/// So many times later: months by the calendar, the day cut to the length of the month; then days; then the rest.
pub fn after(at: Instant, every: Every, times: i64) -> Instant {
    let (year, month, day) = date(at.div_euclid(DAY));
    let months = year * 12 + month + i64::from(every.months) * times;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let day = day.min(days_of_month(year, month) - 1);
    let days = days_until(year) + (0..month).map(|month| days_of_month(year, month)).sum::<i64>() + day;
    (days + i64::from(every.days) * times) * DAY + at.rem_euclid(DAY) + every.microseconds * times
}

impl Model {
    /// Whatever may fall due at some time, without asking whether it will.
    pub fn instants(&self) -> Vec<Instant> {
        let blocks = self.blocks.iter().flat_map(|block| [block.effective, block.expires]);
        let holds = self.holds.iter().map(|hold| hold.lapses);
        let periods = self.recurring.values().map(|recurring| recurring.next);
        let contracts = self.contracts.values().flat_map(|contract| contract.instants());
        blocks.chain(holds).chain(periods).chain(contracts).filter(|at| *at > self.now && *at < NEVER).collect()
    }

    /// SPEC 6: one instant after the other.
    pub fn pass_time(&mut self, until: Instant) {
        while let Some(at) = self.instants().into_iter().min().filter(|at| *at <= until) {
            self.now = at;
            self.everything_due_now_happens();
        }
        self.now = until;
    }

    /// SPEC 6, at one instant: holds lapse; what does not roll over expires; periods, then contracts end by their code; periods
    /// and instalments are granted; scheduled grants activate; debt is repaid.
    fn everything_due_now_happens(&mut self) {
        self.holds_lapse();
        for index in 0..self.blocks.len() {
            if self.blocks[index].expires == self.now && !self.rolls_over_now(index) {
                self.expire(index);
            }
        }
        for code in 0..CODES.len() {
            self.end_period_if_due(code);
        }
        for code in 0..CODES.len() {
            self.end_contract_if_due(code);
        }
        for code in 0..CODES.len() {
            self.start_period_if_due(code);
        }
        for code in 0..CODES.len() {
            self.grant_instalments_due(code);
        }
        for block in &mut self.blocks {
            if block.state == State::Waiting && block.effective == self.now {
                block.state = State::Live;
            }
        }
        self.repay();
    }

    pub(super) fn expire(&mut self, index: usize) {
        let block = &mut self.blocks[index];
        if block.state == State::Live && block.left > 0 {
            block.state = State::Expired;
            block.expired += block.left;
            block.left = 0;
        }
    }

    /// Whether a block that expires now is of a period or contract that ends now and rolls over.
    fn rolls_over_now(&self, index: usize) -> bool {
        let block = &self.blocks[index];
        match block.origin {
            Some(Origin::Period(code, began)) => {
                let recurring = &self.recurring[&code];
                let rolls_over =
                    |(running, terms): &(Instant, super::recurring::Rollover)| *running == began && terms.percent > 0;
                recurring.wallet == block.wallet
                    && recurring.period_ends_and_another_starts(self.now)
                    && recurring.running.as_ref().is_some_and(rolls_over)
            }
            Some(Origin::Instalment(code)) => {
                let contract = &self.contracts[&code];
                let ends_now = !contract.has_ended && contract.end() == self.now;
                let is_of_contract = contract.wallet == block.wallet && contract.terms.ends == block.expires;
                is_of_contract && ends_now && contract.terms.rolls_over
            }
            _ => false,
        }
    }
}

/// Half to even: a number times a part of a whole.
pub(super) fn share(number: i128, part: i128, whole: i128) -> i128 {
    let (floor, rest) = ((number * part).div_euclid(whole), (number * part).rem_euclid(whole));
    match (2 * rest).cmp(&whole) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Equal => floor + floor % 2,
        std::cmp::Ordering::Greater => floor + 1,
    }
}

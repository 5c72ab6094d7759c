//! The naive ledger's recurring grants.

use super::time::{after, share};
use super::{Answer, Block, HoldState, Model, Origin, State};
use crate::domain::properties::requests::rules::{Every, NewRecurring, Terms};
use crate::domain::properties::requests::{CREDIT, Credits, Instant, NEVER, Outcome, Status};

/// Under what a period that runs will roll over.
#[derive(Debug, Clone)]
pub struct Rollover {
    pub percent: Credits,
    cap: Option<Credits>,
    periods: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Recurring {
    pub wallet: usize,
    terms: Terms,
    every: Every,
    anchor: Instant,
    starts: Instant,
    pub ends: Instant,
    prorate: bool,
    /// When the last period began, and its rollover terms as of then.
    pub running: Option<(Instant, Rollover)>,
    /// When the next one would begin.
    pub next: Instant,
}

impl Recurring {
    /// The start of the period that contains an instant: counting periods from the anchor.
    fn period_start(&self, at: Instant) -> Instant {
        let mut number = 0;
        while self.boundary(number) > at {
            number -= 1;
        }
        while self.boundary(number + 1) <= at {
            number += 1;
        }
        self.boundary(number)
    }

    /// The end of so many periods from one that contains an instant.
    fn end_of_periods(&self, at: Instant, periods: u32) -> Instant {
        let mut end = at;
        for _ in 0..periods {
            let mut number = 0;
            while self.boundary(number) > end {
                number -= 1;
            }
            while self.boundary(number) <= end {
                number += 1;
            }
            end = self.boundary(number);
        }
        end
    }

    fn boundary(&self, number: i64) -> Instant {
        after(self.anchor, self.every, number)
    }

    pub fn period_ends_and_another_starts(&self, at: Instant) -> bool {
        self.running.is_some() && self.next == at && at < self.ends
    }
}

/// Nothing rolls over from what does not end with its period.
fn check(terms: &Terms) -> Result<(), &'static str> {
    if terms.life.is_some() && terms.percent > 0 { Err("invalid_argument") } else { Ok(()) }
}

impl Model {
    pub(super) fn create_recurring(&mut self, new: &NewRecurring) -> Answer {
        if self.account(new.wallet)?.status == Status::Closed {
            return Err("wrong_state");
        }
        check(&new.terms)?;
        if self.recurring.contains_key(&new.code) {
            return Err("already_exists");
        }
        let starts = new.starts.unwrap_or(self.now);
        let ends = new.ends.unwrap_or(NEVER);
        self.check_end(ends, starts)?;
        let mut recurring = Recurring {
            wallet: new.wallet,
            terms: new.terms.clone(),
            every: new.every,
            anchor: new.anchor.unwrap_or(starts),
            starts,
            ends,
            prorate: new.prorate,
            running: None,
            next: starts,
        };
        if starts < self.now {
            recurring.next = starts.max(recurring.period_start(self.now));
        }
        let is_due = recurring.next <= self.now;
        self.recurring.insert(new.code, recurring);
        if is_due {
            self.start_period(new.code);
        }
        Ok(Outcome::Done)
    }

    fn check_end(&self, ends: Instant, starts: Instant) -> Result<(), &'static str> {
        if ends <= starts || ends <= self.now { Err("invalid_argument") } else { Ok(()) }
    }

    pub(super) fn update_recurring(&mut self, code: usize, terms: &Terms, ends: Option<Instant>) -> Answer {
        let recurring = self.recurring.get(&code).ok_or("not_found")?;
        let is_running = recurring.running.is_some() && recurring.next > self.now;
        let is_over = recurring.ends <= self.now && !is_running;
        if self.accounts[recurring.wallet].status == Status::Closed || is_over {
            return Err("wrong_state");
        }
        check(terms)?;
        let ends = ends.unwrap_or(recurring.ends);
        if ends != recurring.ends {
            self.check_end(ends, recurring.starts)?;
        }
        let recurring = self.recurring.get_mut(&code).unwrap();
        recurring.terms = terms.clone();
        recurring.ends = ends;
        Ok(Outcome::Done)
    }

    pub(super) fn cancel_recurring(&mut self, code: usize, at: Option<Instant>) -> Answer {
        let at = at.unwrap_or(self.now).max(self.now);
        let recurring = self.recurring.get_mut(&code).ok_or("not_found")?;
        recurring.ends = recurring.ends.min(at);
        Ok(Outcome::Done)
    }

    /// Its wallet is closed, so that nothing is left of the period.
    pub(super) fn end_running_period(&mut self, code: usize) {
        if let Some(recurring) = self.recurring.get_mut(&code) {
            recurring.running = None;
        }
    }

    pub(super) fn start_period_if_due(&mut self, code: usize) {
        if self.recurring.get(&code).is_some_and(|recurring| recurring.next == self.now && self.now < recurring.ends) {
            self.start_period(code);
        }
    }

    /// Grants the credits of the period that begins at `next`, which a first one may have done before now.
    fn start_period(&mut self, code: usize) {
        let recurring = self.recurring.get_mut(&code).unwrap();
        let starts = recurring.next;
        let ends = recurring.end_of_periods(starts, 1);
        let terms = recurring.terms.clone();
        let is_first = recurring.running.is_none();
        let rollover = Rollover { percent: terms.percent, cap: terms.cap, periods: terms.periods };
        recurring.running = Some((starts, rollover));
        recurring.next = ends;
        let amount = if recurring.prorate && is_first {
            let whole = ends - recurring.period_start(starts);
            share(terms.amount, (ends - starts).into(), whole.into())
        } else {
            terms.amount
        };
        let expires = terms.life.map_or(ends, |life| after(starts, life, 1));
        if amount > 0 && expires > self.now {
            let (kind, priority, applies) = (terms.kind, terms.priority, terms.applies);
            let origin = Some(Origin::Period(code, starts));
            let block = Block::live(recurring.wallet, amount);
            self.blocks.push(Block { kind, priority, effective: starts, expires, applies, origin, ..block });
        }
    }

    pub(super) fn end_period_if_due(&mut self, code: usize) {
        let Some(recurring) = self.recurring.get(&code).filter(|rule| rule.period_ends_and_another_starts(self.now)).cloned()
        else {
            return;
        };
        let Some((began, rollover)) = recurring.running.as_ref().filter(|(_, rollover)| rollover.percent > 0) else {
            return;
        };
        let ending = self.live_blocks(|block| {
            let is_of_period = block.origin == Some(Origin::Period(code, *began));
            is_of_period && block.wallet == recurring.wallet && block.expires == self.now
        });
        let room = rollover.cap.map(|cap| (cap - self.rolled_over_and_unspent(code)).max(0));
        let expires = rollover.periods.map_or(NEVER, |periods| recurring.end_of_periods(self.now, periods));
        if let Some(first) = ending.first().map(|index| self.blocks[*index].clone()) {
            let rolled = self.roll_over(&ending, rollover.percent, room);
            let origin = Some(Origin::PeriodRollover(code));
            let block = Block { effective: self.now, expires, origin, ..first };
            self.push_rolled(rolled, block);
        }
    }

    pub(super) fn live_blocks(&self, counts: impl Fn(&Block) -> bool) -> Vec<usize> {
        let is_counted = |block: &Block| block.state == State::Live && block.left > 0 && counts(block);
        (0..self.blocks.len()).filter(|index| is_counted(&self.blocks[*index])).collect()
    }

    /// What all blocks have that this recurring grant rolled over, and what open holds have of them.
    fn rolled_over_and_unspent(&self, code: usize) -> Credits {
        let is_rolled = |block: &Block| block.origin == Some(Origin::PeriodRollover(code));
        let left: Credits = self.live_blocks(is_rolled).into_iter().map(|index| self.blocks[index].left).sum();
        let open = self.holds.iter().filter(|hold| hold.state == HoldState::Open);
        let parts = open.flat_map(|hold| &hold.parts).filter(|(index, _)| is_rolled(&self.blocks[*index]));
        left + parts.map(|(_, credits)| credits).sum::<Credits>()
    }

    /// Takes a percentage out of blocks, at most so much, the older ones first; the rest expires.
    pub(super) fn roll_over(&mut self, ending: &[usize], percent: Credits, room: Option<Credits>) -> Credits {
        let unused: Credits = ending.iter().map(|index| self.blocks[*index].left).sum();
        let rolled = share(unused, percent, 100 * CREDIT).min(room.unwrap_or(Credits::MAX));
        let mut open = rolled;
        for &index in ending {
            let block = &mut self.blocks[index];
            let moved = block.left.min(open);
            open -= moved;
            block.expired += block.left - moved;
            block.left = 0;
            block.state = State::Expired;
        }
        rolled
    }

    /// A block like another one, with what was rolled over.
    pub(super) fn push_rolled(&mut self, rolled: Credits, like: Block) {
        if rolled > 0 {
            self.blocks.push(Block { amount: rolled, left: rolled, expired: 0, state: State::Live, ..like });
        }
    }
}

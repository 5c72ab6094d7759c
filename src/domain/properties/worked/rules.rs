//! What the worked cases of recurring grants, contracts and holds have in common, and the order of what happens at one instant.

use super::{GIVE, Give, OVERDRAFT, books, deducted, hour};
use crate::domain::properties::history::Subject;
use crate::domain::properties::requests::rules::{Every, NewContract, NewRecurring, Rule, Terms};
use crate::domain::properties::requests::{CREDIT, Credits, DAY, HOUR, Instant, Mode, Outcome, Request, START, Scope};

/// Days after the beginning, which is the first of January.
pub fn day(days: i64) -> Instant {
    START + days * DAY
}

/// The first of February, March and April.
pub const FEBRUARY: i64 = 31;
pub const MARCH: i64 = 59;
pub const APRIL: i64 = 90;

/// From now on so many credits a month, of which all that is unused rolls over once.
pub fn monthly(credits: Credits) -> NewRecurring {
    let terms = Terms {
        amount: credits * CREDIT,
        kind: 2,
        priority: 100,
        life: None,
        percent: 100 * CREDIT,
        cap: None,
        periods: Some(1),
        applies: None,
    };
    NewRecurring { code: 0, wallet: 0, terms, every: Every::months(1), starts: None, ends: None, anchor: None, prorate: false }
}

/// So many credits for three months from now on, at an eighth of a euro each; what is not used expires.
pub fn quarterly(credits: Credits) -> NewContract {
    NewContract {
        code: 0,
        wallet: 0,
        committed: credits * CREDIT,
        starts: START,
        ends: day(APRIL),
        term: None,
        installments: 1,
        every: None,
        rolls_over: false,
        percent: 100 * CREDIT,
        cap: None,
        life: None,
        minimum_spend: false,
        price: Some(CREDIT / 8),
    }
}

impl Subject {
    pub fn agree(&mut self, rule: Rule) -> Outcome {
        self.ask(&Request::Rule(Box::new(rule)), None)
    }

    pub fn renew(&mut self, new: &NewRecurring) {
        assert_eq!(self.agree(Rule::CreateRecurring(new.clone())), Outcome::Done);
    }

    pub fn contract(&mut self, new: &NewContract) {
        assert_eq!(self.agree(Rule::CreateContract(new.clone())), Outcome::Done);
    }

    /// Holds whole credits for so long; the number of the hold, counted from 0.
    pub fn hold(&mut self, credits: Credits, expires_in: Instant) -> Outcome {
        let (amount, scope) = (credits * CREDIT, Scope::Unit("credits"));
        self.ask(&Request::Hold { amount, scope, event: None, expires_in }, None)
    }

    pub fn capture(&mut self, hold: usize, credits: Option<Credits>, mode: Mode) -> Outcome {
        self.ask(&Request::Capture { hold: Some(hold), amount: credits.map(|credits| credits * CREDIT), mode }, None)
    }

    pub fn release(&mut self, hold: usize) -> Outcome {
        self.ask(&Request::Release { hold: Some(hold) }, None)
    }

    /// Settles at an instant; the whole credits that can be spent then.
    pub fn balance_at(&mut self, at: Instant) -> Credits {
        self.wait(at, true);
        self.balance()
    }

    pub fn balance(&self) -> Credits {
        self.store.wallets.iter().map(|wallet| wallet.balance.units()).sum::<Credits>() / CREDIT
    }

    /// Units of what is left of each grant.
    pub fn left(&self) -> Vec<Credits> {
        self.store.grants.iter().map(|grant| grant.remaining.units()).collect()
    }

    /// Days from the beginning at which each entry after the first `skip` took effect.
    pub fn days_after(&self, skip: usize) -> Vec<i64> {
        self.store.entries[skip..].iter().map(|entry| (entry.movement.occurred_at.to_postgres() - START) / DAY).collect()
    }
}

#[test]
fn at_one_instant_the_phases_follow_each_other() {
    let mut books = books([OVERDRAFT]);
    let daily = |code, credits| NewRecurring { code, every: Every::days(1), ..monthly(credits) };
    let daily_contract = NewContract { code: 0, ends: day(2), rolls_over: true, ..quarterly(60) };
    books.contract(&daily_contract); // grant 0
    books.renew(&daily(1, 10)); // grant 1
    books.renew(&daily(0, 20)); // grant 2
    // At the end of the first day 3 and 4 roll over from the two, 5 and 6 are given.
    assert_eq!(books.balance_at(day(1)), 120);
    let plain = books.give(Give { expires: Some(day(2)), ..GIVE });
    let scheduled = books.give(Give { effective: Some(day(2)), ..GIVE });
    let next = NewContract { code: 1, starts: day(2), ..quarterly(30) };
    books.contract(&next);
    assert!(matches!(books.hold(130, DAY), Outcome::Held { balance: 0, .. }));
    assert_eq!(books.spend(5), deducted("overage", 5, 0, 5, 0));
    let written = books.store.entries.len();
    books.wait(day(2), true);
    let entries = books.entries_after(written);
    let phases: Vec<_> = entries.iter().filter(|(kind, ..)| *kind != "hold_released").copied().collect();
    let expected = [
        ("expiration", 20, Some(3)),
        ("expiration", 10, Some(4)),
        ("expiration", 10, Some(plain)),
        ("rollover_out", 20, Some(5)),
        ("rollover_in", 20, Some(9)),
        ("rollover_out", 10, Some(6)),
        ("rollover_in", 10, Some(10)),
        ("rollover_out", 60, Some(0)),
        ("rollover_in", 60, Some(11)),
        ("grant", 20, Some(12)),
        ("grant", 10, Some(13)),
        ("grant", 30, Some(14)),
        ("grant_activated", 10, Some(scheduled)),
        ("overdraft_repaid", 5, Some(9)),
    ];
    assert_eq!(phases, expected);
    assert!(entries[..6].iter().all(|(kind, ..)| *kind == "hold_released"), "{entries:?}");
    assert!(books.is_sound());
}

#[test]
fn periods_end_in_the_order_of_their_code_and_before_contracts() {
    let mut books = books([super::PLAIN]);
    books.contract(&NewContract { code: 0, ends: hour(1), rolls_over: true, ..quarterly(1) });
    for code in [3, 1, 2] {
        books.renew(&NewRecurring { code, every: Every::hours(1), ..monthly(10 + code as Credits) });
    }
    let written = books.store.entries.len();
    books.wait(START + HOUR, true);
    let rolled_out: Vec<_> = books.entries_after(written).into_iter().filter(|(kind, ..)| *kind == "rollover_out").collect();
    let expected = [("rollover_out", 11, Some(2)), ("rollover_out", 12, Some(3)), ("rollover_out", 13, Some(1))];
    assert_eq!(rolled_out[..3], expected);
    assert_eq!(rolled_out[3..], [("rollover_out", 1, Some(0))]);
}

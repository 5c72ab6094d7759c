//! Worked cases: the rules of the specification with the numbers in the open.

mod contracts;
mod holds;
mod recurring;
mod rules;

use super::history::Subject;
use super::requests::{
    CREDIT, Credits, HOUR, Instant, Mode, NEVER, Outcome, Policy, Request, START, Scope, Script, Setup, Status,
};
use crate::domain::chart::Kind;
use crate::domain::grant::GrantStatus;

const PLAIN: Setup = Setup { priority: 1, policy: Policy::Block, limit: None, expires_after: None, grace: 0 };
const OVERDRAFT: Setup = Setup { policy: Policy::Overdraft, ..PLAIN };

fn books<const N: usize>(setups: [Setup; N]) -> Subject {
    let wallets = setups.into_iter().map(|setup| ("credits", setup)).collect();
    Subject::new(&Script { begins: START, unit: HOUR, wallets, steps: Vec::new() })
}

/// A grant of `credits` from now on for ever, unless said otherwise.
#[derive(Clone)]
struct Give {
    wallet: usize,
    credits: Credits,
    kind: u8,
    priority: i32,
    effective: Option<Instant>,
    expires: Option<Instant>,
    applies: Option<Vec<&'static str>>,
}

const GIVE: Give = Give { wallet: 0, credits: 10, kind: 2, priority: 100, effective: None, expires: None, applies: None };

/// Hours after the beginning.
fn hour(hours: i64) -> Instant {
    START + hours * HOUR
}

impl Subject {
    fn give(&mut self, give: Give) -> usize {
        let Give { wallet, credits, kind, priority, effective, expires, applies } = give;
        let amount = credits * CREDIT;
        match self.ask(&Request::Grant { wallet, amount, kind, priority, effective, expires, applies }, None) {
            Outcome::Granted(number) => number,
            refused => panic!("{refused:?}"),
        }
    }

    /// Status, deducted, overage and balance.
    fn use_late(&mut self, credits: Credits, event: Option<&'static str>, occurred: Option<Instant>, mode: Mode) -> Outcome {
        let (amount, scope) = (credits * CREDIT, Scope::Unit("credits"));
        self.ask(&Request::Deduct { amount, scope, event, occurred, mode }, None)
    }

    fn spend(&mut self, credits: Credits) -> Outcome {
        self.use_late(credits, None, None, Mode::Error)
    }

    fn refund(&mut self, usage: usize, credits: Option<Credits>) -> Outcome {
        self.ask(&Request::Refund { usage: Some(usage), amount: credits.map(|credits| credits * CREDIT) }, None)
    }

    /// Kind, whole credits and grant of each entry after the first `skip`.
    fn entries_after(&self, skip: usize) -> Vec<(&'static str, Credits, Option<usize>)> {
        let number = |id| self.store.grants.iter().position(|grant| grant.id == id);
        let entries = self.store.entries[skip..].iter().map(|entry| &entry.movement);
        entries.map(|made| (made.kind.name(), made.credits.units() / CREDIT, made.grant.and_then(number))).collect()
    }

    /// Remaining, expired and status of a grant.
    fn grant(&self, number: usize) -> (Credits, Credits, GrantStatus) {
        let grant = &self.store.grants[number];
        (grant.remaining.units() / CREDIT, grant.expired.units() / CREDIT, grant.status)
    }

    fn is_sound(&self) -> bool {
        (0..self.store.wallets.len()).all(|wallet| self.store.verify(wallet).is_empty())
    }
}

/// Two grants of 10, each used up by a usage of 10.
pub fn two_usages_of_equal_credits() -> Subject {
    let mut books = books([PLAIN]);
    books.give(GIVE);
    books.give(GIVE);
    books.spend(10);
    books.spend(10);
    books
}

fn charged(credits: Credits, balance: Credits) -> Outcome {
    deducted("charged", credits, credits, 0, balance)
}

fn deducted(status: &'static str, requested: Credits, deducted: Credits, overage: Credits, balance: Credits) -> Outcome {
    let [requested, deducted, overage, balance] = [requested, deducted, overage, balance].map(|credits| credits * CREDIT);
    Outcome::Deducted { status, requested, deducted, overage, balance, replayed: false }
}

fn refunded(refunded: Credits, balance: Credits) -> Outcome {
    Outcome::Refunded { refunded: refunded * CREDIT, balance: balance * CREDIT, replayed: false }
}

/// Gives two grants, the one to be spent last first, and spends across both.
fn second_is_spent_first(rule: &str, last: Give, first: Give) {
    let mut books = books([Setup { priority: 2, ..PLAIN }, PLAIN, PLAIN]);
    books.wait(hour(5), false);
    let (last, first) = (books.give(last), books.give(first));
    assert_eq!(books.use_late(15, Some("chat"), None, Mode::Error), charged(15, 5), "{rule}");
    assert_eq!(books.entries_after(2), [("usage", 10, Some(first)), ("usage", 5, Some(last))], "{rule}");
    assert!(books.is_sound(), "{rule}");
}

#[test]
fn each_criterion_of_the_order_of_spending_outweighs_those_after_it() {
    let soon = Some(hour(10));
    let later = Some(hour(20));
    let limited = Some(vec!["chat"]);
    let before = Some(hour(1));
    // Each pair: only this criterion speaks for the second one, all later ones for the first.
    let case = second_is_spent_first;
    let eager = Give { priority: 1, expires: soon, applies: limited.clone(), kind: 0, effective: before, ..GIVE };
    case("wallet priority", Give { wallet: 0, ..eager.clone() }, Give { wallet: 1, ..GIVE });
    // Wallet 1 is "promo", wallet 2 is "archive".
    case("wallet code", Give { wallet: 1, ..eager.clone() }, Give { wallet: 2, ..GIVE });
    case("grant priority", Give { priority: 2, ..eager.clone() }, Give { priority: 1, ..GIVE });
    case("expiry", Give { priority: 100, expires: later, ..eager.clone() }, Give { expires: soon, ..GIVE });
    case("never expires last", Give { priority: 100, expires: None, ..eager.clone() }, Give { expires: later, ..GIVE });
    case("limited", Give { kind: 0, effective: before, ..GIVE }, Give { applies: limited, ..GIVE });
    case("promotional before committed", Give { kind: 1, effective: before, ..GIVE }, Give { kind: 0, ..GIVE });
    case("committed before prepaid", Give { kind: 2, effective: before, ..GIVE }, Give { kind: 1, ..GIVE });
    case("effective", GIVE, Give { effective: before, ..GIVE });
}

#[test]
fn of_two_equal_grants_the_older_one_is_spent_first() {
    let mut books = books([PLAIN]);
    let (older, younger) = (books.give(GIVE), books.give(GIVE));
    assert_eq!(books.spend(15), charged(15, 5));
    assert_eq!(books.entries_after(2), [("usage", 10, Some(older)), ("usage", 5, Some(younger))]);
}

#[test]
fn a_limited_grant_pays_its_events_only() {
    let mut books = books([PLAIN]);
    let limited = books.give(Give { applies: Some(vec!["chat", "image"]), ..GIVE });
    let unlimited = books.give(GIVE);
    assert_eq!(books.spend(1), charged(1, 19));
    assert_eq!(books.use_late(1, Some("video"), None, Mode::Error), charged(1, 18));
    assert_eq!(books.use_late(1, Some("image"), None, Mode::Error), charged(1, 17));
    assert_eq!(
        books.entries_after(2),
        [("usage", 1, Some(unlimited)), ("usage", 1, Some(unlimited)), ("usage", 1, Some(limited))]
    );
    assert_eq!(books.use_late(9, Some("video"), None, Mode::Error), Outcome::Refused("insufficient_credits"));
    assert!(books.is_sound());
}

#[test]
fn a_grant_is_live_from_its_effective_instant_until_just_before_its_expiry() {
    let mut books = books([PLAIN]);
    books.give(Give { effective: Some(hour(1)), expires: Some(hour(2)), ..GIVE });
    for (at, outcome) in [
        (hour(1) - 1, Outcome::Refused("insufficient_credits")),
        (hour(1), charged(1, 9)),
        (hour(2) - 1, charged(1, 8)),
        (hour(2), Outcome::Refused("insufficient_credits")),
    ] {
        books.wait(at, false);
        assert_eq!(books.spend(1), outcome);
    }
}

#[test]
fn at_one_instant_grants_expire_then_others_begin_then_debt_is_repaid() {
    let mut books = books([OVERDRAFT]);
    let ending = books.give(Give { applies: Some(vec!["chat"]), expires: Some(hour(1)), ..GIVE });
    let beginning = books.give(Give { effective: Some(hour(1)), ..GIVE });
    assert_eq!(books.spend(4), deducted("overage", 4, 0, 4, 10));
    books.wait(hour(1), true);
    let settled =
        [("expiration", 10, Some(ending)), ("grant_activated", 10, Some(beginning)), ("overdraft_repaid", 4, Some(beginning))];
    assert_eq!(books.entries_after(3), settled);
    assert!(books.is_sound());
}

#[test]
fn a_grant_that_debt_used_up_does_not_expire_when_settled_late() {
    let mut books = books([OVERDRAFT]);
    let only = books.give(Give { effective: Some(hour(1)), expires: Some(hour(2)), ..GIVE });
    assert_eq!(books.spend(10), deducted("overage", 10, 0, 10, 0));
    books.wait(hour(3), true);
    assert_eq!(books.entries_after(2), [("grant_activated", 10, Some(only)), ("overdraft_repaid", 10, Some(only))]);
    assert_eq!(books.grant(only), (0, 0, GrantStatus::Exhausted));
}

#[test]
fn limited_credits_do_not_repay_debt() {
    let mut books = books([OVERDRAFT]);
    assert_eq!(books.spend(4), deducted("overage", 4, 0, 4, 0));
    let limited = books.give(Give { applies: Some(vec!["chat"]), ..GIVE });
    assert_eq!(books.grant(limited), (10, 0, GrantStatus::Active));
    let unlimited = books.give(GIVE);
    assert_eq!(books.grant(unlimited), (6, 0, GrantStatus::Active));
    assert!(books.is_sound());
}

#[test]
fn a_refund_of_overdraft_cancels_debt_then_returns_to_who_repaid_it_last_first() {
    let mut books = books([OVERDRAFT]);
    assert_eq!(books.spend(10), deducted("overage", 10, 0, 10, 0));
    let first = books.give(Give { credits: 3, ..GIVE });
    let second = books.give(Give { credits: 4, ..GIVE });
    let written = books.store.entries.len();
    assert_eq!(books.refund(0, Some(2)), refunded(2, 0));
    assert_eq!(books.refund(0, Some(3)), refunded(3, 2));
    assert_eq!(books.refund(0, None), refunded(5, 7));
    let returned = [
        ("overdraft_refunded", 2, None),
        ("overdraft_refunded", 1, None),
        ("usage_refunded", 2, Some(second)),
        ("usage_refunded", 2, Some(second)),
        ("usage_refunded", 3, Some(first)),
    ];
    assert_eq!(books.entries_after(written), returned);
    assert_eq!(books.refund(0, Some(1)), Outcome::Refused("out_of_range"));
    assert!(books.is_sound());
}

#[test]
fn a_refund_gives_back_overage_first_and_then_to_the_grant_taken_last() {
    let mut books = books([Setup { policy: Policy::Invoice, ..PLAIN }]);
    let (first, second) = (books.give(GIVE), books.give(GIVE));
    assert_eq!(books.spend(25), deducted("overage", 25, 20, 5, 0));
    assert_eq!(books.refund(0, Some(8)), refunded(8, 3));
    assert_eq!(books.refund(0, Some(12)), refunded(12, 15));
    let returned = [
        ("overage_refunded", 5, None),
        ("usage_refunded", 3, Some(second)),
        ("usage_refunded", 7, Some(second)),
        ("usage_refunded", 5, Some(first)),
    ];
    assert_eq!(books.entries_after(5), returned);
    assert!(books.is_sound());
}

#[test]
fn a_refund_to_one_grant_repays_the_debt_of_another_usage() {
    let mut books = books([OVERDRAFT]);
    let only = books.give(GIVE);
    assert_eq!(books.spend(10), charged(10, 0));
    assert_eq!(books.spend(3), deducted("overage", 3, 0, 3, 0));
    assert_eq!(books.refund(0, None), refunded(10, 7));
    assert_eq!(books.entries_after(3), [("usage_refunded", 10, Some(only)), ("overdraft_repaid", 3, Some(only))]);
    assert!(books.is_sound());
}

#[test]
fn a_refund_to_an_expired_grant_expires_at_once() {
    let mut books = books([PLAIN]);
    let used_up = books.give(Give { expires: Some(hour(1)), ..GIVE });
    let not_used_up = books.give(Give { expires: Some(hour(2)), ..GIVE });
    assert_eq!(books.spend(13), charged(13, 7));
    books.wait(hour(3), true);
    let written = books.store.entries.len();
    assert_eq!(books.refund(0, None), refunded(13, 0));
    let returned = [
        ("usage_refunded", 3, Some(not_used_up)),
        ("expiration", 3, Some(not_used_up)),
        ("usage_refunded", 10, Some(used_up)),
        ("expiration", 10, Some(used_up)),
    ];
    assert_eq!(books.entries_after(written), returned);
    assert_eq!(books.grant(used_up), (0, 10, GrantStatus::Expired));
    assert_eq!(books.grant(not_used_up), (0, 10, GrantStatus::Expired));
    assert!(books.is_sound());
}

#[test]
fn a_refund_to_a_voided_grant_or_a_closed_wallet_is_voided_at_once() {
    let mut books = books([PLAIN]);
    let voided = books.give(GIVE);
    let open = books.give(GIVE);
    assert_eq!(books.spend(4), charged(4, 16));
    assert_eq!(books.ask(&Request::Void { grant: Some(voided), amount: None }, None), Outcome::Voided(6 * CREDIT));
    assert_eq!(books.refund(0, Some(1)), refunded(1, 10));
    assert_eq!(books.spend(10), charged(10, 0));
    assert_eq!(books.ask(&Request::SetStatus { wallet: 0, status: Status::Closed }, None), Outcome::Done);
    assert_eq!(books.refund(1, Some(2)), refunded(2, 0));
    let returned = [
        ("usage_refunded", 1, Some(voided)),
        ("void", 1, Some(voided)),
        ("usage", 10, Some(open)),
        ("usage_refunded", 2, Some(open)),
        ("void", 2, Some(open)),
    ];
    assert_eq!(books.entries_after(4), returned);
    assert!(books.is_sound());
}

#[test]
fn late_usage_is_paid_by_what_expired_less_than_the_grace_ago() {
    let mut books = books([Setup { grace: 3 * HOUR, ..PLAIN }]);
    let expired = books.give(Give { effective: Some(hour(-1)), expires: Some(hour(2)), ..GIVE });
    let insufficient = Outcome::Refused("insufficient_credits");
    let late = |books: &mut Subject, at: Instant| books.use_late(4, None, Some(at), Mode::Error);
    books.wait(hour(5) - 1, true);
    assert_eq!(late(&mut books, hour(2)), insufficient, "it was not live at its expiry");
    assert_eq!(late(&mut books, hour(-1) - 1), insufficient, "nor before it began");
    assert_eq!(late(&mut books, hour(2) - 1), charged(4, 0));
    assert_eq!(books.entries_after(2), [("expiration_reversed", 4, Some(expired)), ("usage", 4, Some(expired))]);
    assert_eq!(books.grant(expired), (0, 6, GrantStatus::Expired));
    books.wait(hour(5), false);
    assert_eq!(late(&mut books, hour(1)), insufficient, "the grace is over");
    assert_eq!(books.refund(0, None), refunded(4, 0));
    assert_eq!(books.grant(expired), (0, 10, GrantStatus::Expired));
    assert!(books.is_sound());
}

#[test]
fn under_grace_an_expired_grant_pays_in_its_place() {
    let mut books = books([Setup { grace: 3 * HOUR, ..PLAIN }]);
    let urgent = books.give(Give { priority: 1, ..GIVE });
    let expired = books.give(Give { priority: 2, expires: Some(hour(1)), ..GIVE });
    let patient = books.give(Give { priority: 2, ..GIVE });
    books.wait(hour(2), true);
    assert_eq!(books.use_late(25, None, Some(hour(0)), Mode::Error), charged(25, 5));
    let paid = [
        ("usage", 10, Some(urgent)),
        ("expiration_reversed", 10, Some(expired)),
        ("usage", 10, Some(expired)),
        ("usage", 5, Some(patient)),
    ];
    assert_eq!(books.entries_after(4), paid);
    assert!(books.is_sound());
}

#[test]
fn late_usage_without_grace_is_paid_by_what_is_live_now() {
    let mut books = books([PLAIN]);
    books.give(Give { expires: Some(hour(1)), ..GIVE });
    let live = books.give(GIVE);
    books.wait(hour(2), true);
    assert_eq!(books.use_late(4, None, Some(hour(0)), Mode::Error), charged(4, 6));
    assert_eq!(books.entries_after(3), [("usage", 4, Some(live))]);
}

#[test]
fn usage_more_than_five_minutes_ahead_is_refused() {
    let mut books = books([PLAIN]);
    books.give(GIVE);
    let five_minutes = START + HOUR / 12;
    assert_eq!(books.use_late(1, None, Some(five_minutes), Mode::Error), charged(1, 9));
    assert_eq!(books.use_late(1, None, Some(five_minutes + 1), Mode::Error), Outcome::Refused("invalid_argument"));
}

#[test]
fn one_wallet_takes_all_overage_the_last_with_room_for_it() {
    let limited_to = |priority, credits| Setup { priority, limit: Some(credits * CREDIT), ..OVERDRAFT };
    let mut books = books([limited_to(1, 10), limited_to(2, 3), Setup { priority: 3, ..PLAIN }]);
    books.give(Give { wallet: 2, credits: 1, ..GIVE });
    let debts = |books: &Subject| [0, 1].map(|wallet| books.store.wallets[wallet].debt.units() / CREDIT);
    assert_eq!(books.spend(4), deducted("overage", 4, 1, 3, 0));
    assert_eq!(debts(&books), [0, 3]);
    assert_eq!(books.spend(6), deducted("overage", 6, 0, 6, 0));
    assert_eq!(debts(&books), [6, 3]);
    assert_eq!(books.spend(5), Outcome::Refused("insufficient_credits"));
    assert_eq!(books.use_late(5, None, None, Mode::Report), deducted("insufficient", 5, 0, 0, 0));
    assert_eq!(books.use_late(5, None, None, Mode::Partial), deducted("partial", 5, 0, 4, 0));
    assert_eq!(debts(&books), [10, 3]);
    assert_eq!(books.use_late(5, None, None, Mode::Partial), deducted("insufficient", 5, 0, 0, 0));
    assert!(books.is_sound());
}

#[test]
fn a_transfer_moves_blocks_in_order_and_keeps_their_terms() {
    let mut books = books([PLAIN, PLAIN]);
    let lasting = books.give(Give { kind: 1, priority: 7, ..GIVE });
    let ending = books.give(Give { priority: 7, expires: Some(hour(9)), applies: Some(vec!["chat"]), ..GIVE });
    let answer = books.ask(&Request::Transfer { from: 0, to: 1, amount: 12 * CREDIT }, None);
    let [transferred, from_balance, to_balance] = [12, 8, 12].map(|credits| credits * CREDIT);
    assert_eq!(answer, Outcome::Transferred { transferred, from_balance, to_balance, replayed: false });
    let moved = [
        ("transfer_out", 10, Some(ending)),
        ("transfer_in", 10, Some(2)),
        ("transfer_out", 2, Some(lasting)),
        ("transfer_in", 2, Some(3)),
    ];
    assert_eq!(books.entries_after(2), moved);
    for (block, of) in [(2, ending), (3, lasting)] {
        assert_eq!(books.store.grants[block].terms, books.store.grants[of].terms);
        assert_eq!(books.store.grants[block].wallet, 1);
    }
}

#[test]
fn a_changed_expiry_moves_the_rest_of_a_grant() {
    let mut books = books([PLAIN]);
    let old = books.give(Give { expires: Some(hour(1)), ..GIVE });
    let scheduled = books.give(Give { effective: Some(hour(2)), ..GIVE });
    assert_eq!(books.spend(4), charged(4, 6));
    let change = |grant, expires| Request::ChangeExpiry { grant: Some(grant), expires };
    assert_eq!(books.ask(&change(old, NEVER), None), Outcome::Granted(2));
    assert_eq!(books.ask(&change(scheduled, hour(3)), None), Outcome::Granted(3));
    assert_eq!(books.ask(&change(old, hour(8)), None), Outcome::Refused("wrong_state"));
    let moved = [
        ("transfer_out", 6, Some(old)),
        ("transfer_in", 6, Some(2)),
        ("void_scheduled", 10, Some(scheduled)),
        ("grant_scheduled", 10, Some(3)),
    ];
    assert_eq!(books.entries_after(3), moved);
    books.wait(hour(2), true);
    assert_eq!(books.spend(16), charged(16, 0));
    assert!(books.is_sound());
}

#[test]
fn what_is_scheduled_always_fits_when_it_becomes_effective() {
    let mut books = books([PLAIN]);
    let most = 6_000_000_000_000_000;
    books.give(Give { credits: most, ..GIVE });
    let (amount, effective) = (most * CREDIT, Some(hour(1)));
    let scheduled = Request::Grant { wallet: 0, amount, kind: 2, priority: 1, effective, expires: None, applies: None };
    assert_eq!(books.ask(&scheduled, None), Outcome::Refused("out_of_range"));
    books.wait(hour(2), true);
    assert_eq!(books.spend(most), charged(most, 0));
}

#[test]
fn a_free_event_is_recorded_and_can_be_refunded() {
    let mut books = books([PLAIN]);
    assert_eq!(books.spend(0), charged(0, 0));
    assert_eq!(books.refund(0, None), refunded(0, 0));
    let kinds: Vec<Kind> = books.store.entries.iter().map(|entry| entry.movement.kind).collect();
    assert_eq!(kinds, [Kind::Usage, Kind::UsageRefunded]);
    assert!(books.is_sound());
}

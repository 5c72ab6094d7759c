//! Verification finds what was tampered with.

use proptest::prelude::*;

use super::history::{History, Settling};
use super::requests::{Theme, script};
use super::store::{Store, replay};
use super::worked::two_usages_of_equal_credits;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::domain::grant::{Grant, GrantStatus};
use crate::domain::verify::PostedEntry;
use crate::domain::wallet::Wallet;

const ONE: Amount = Amount::from_units(1);

/// What verification reads of one wallet.
#[derive(Clone)]
struct Rows {
    wallet: Wallet,
    /// All of the customer.
    grants: Vec<Grant>,
    entries: Vec<PostedEntry>,
    index: usize,
}

impl Rows {
    fn of(store: &Store, index: usize) -> Self {
        Self { wallet: store.wallets[index].clone(), grants: store.grants.clone(), entries: store.posted(index), index }
    }

    /// Fails unless this change of the rows is reported as a violation of the invariant.
    fn is_found(&self, invariant: i32, what: &str, tamper: impl FnOnce(&mut Rows)) {
        let mut rows = self.clone();
        tamper(&mut rows);
        let violations = replay(&rows.wallet, &rows.grants, rows.index, &rows.entries);
        let is_found = violations.iter().any(|violation| violation.invariant == invariant);
        assert!(is_found, "{what} breaks invariant {invariant}, reported is {violations:?}");
    }

    fn wallet_totals(&self) {
        self.is_found(1, "a wallet's balance", |rows| rows.wallet.balance += ONE);
        self.is_found(1, "a wallet's held", |rows| rows.wallet.held += ONE);
        self.is_found(1, "a wallet's scheduled", |rows| rows.wallet.scheduled += ONE);
        self.is_found(1, "a wallet's debt", |rows| rows.wallet.debt += ONE);
        self.is_found(9, "a wallet's overage", |rows| rows.wallet.overage += ONE);
        self.is_found(3, "a wallet's last number", |rows| rows.wallet.last_seq += 1);
    }

    fn each_grant(&self) {
        for (number, grant) in self.grants.iter().enumerate().filter(|(_, grant)| grant.wallet == self.index) {
            self.is_found(2, "a grant's remaining", |rows| rows.grants[number].remaining += ONE);
            self.is_found(2, "a grant's expired", |rows| rows.grants[number].expired += ONE);
            self.is_found(2, "a grant's amount", |rows| rows.grants[number].amount -= ONE);
            if grant.remaining.is_positive() {
                self.is_found(1, "a grant's status", |rows| rows.grants[number].status = GrantStatus::Expired);
            }
            self.is_found(2, "a missing grant", |rows| drop(rows.grants.remove(number)));
        }
    }

    fn each_entry(&self) {
        for (number, entry) in self.entries.iter().enumerate() {
            self.is_found(3, "an entry's number", |rows| rows.entries[number].seq += 1);
            self.is_found(3, "an entry's balance", |rows| rows.entries[number].balance_after += ONE);
            self.is_found(3, "a missing entry", |rows| drop(rows.entries.remove(number)));
            self.is_found(3, "an entry standing twice", |rows| rows.entries.insert(number, entry.clone()));
            let effect = entry.kind.effect();
            let invariant = match entry.kind {
                Kind::Overage | Kind::OverageRefunded => 9,
                Kind::Overdraft | Kind::OverdraftRefunded | Kind::HoldCaptured => 1,
                _ if effect.balance != 0 => 3,
                _ => 2,
            };
            self.is_found(invariant, "an entry's credits", |rows| rows.entries[number].credits += ONE);
            if number > 0 {
                let before = self.entries[number - 1].occurred_at.plus_microseconds(-1);
                self.is_found(3, "an entry's time", |rows| rows.entries[number].occurred_at = before);
            }
        }
    }

    fn each_usage(&self) {
        let usages = || self.entries.iter().enumerate().filter(|(_, entry)| entry.kind == Kind::Usage && entry.grant.is_some());
        for (number, entry) in usages() {
            let payer = self.grants.iter().position(|grant| Some(grant.id) == entry.grant).unwrap();
            let follows_reversal = number > 0 && self.entries[number - 1].kind == Kind::ExpirationReversed;
            if !follows_reversal {
                let at = entry.occurred_at;
                self.is_found(5, "the expiry of a grant that paid", |rows| rows.grants[payer].terms.expires_at = at);
                let later = at.plus_microseconds(1);
                self.is_found(5, "the beginning of a grant that paid", |rows| rows.grants[payer].terms.effective_at = later);
            }
            for (other, _) in usages().filter(|(_, other)| other.grant != entry.grant && other.credits != entry.credits) {
                self.is_found(2, "two usages with each other's grant", |rows| {
                    (rows.entries[number].grant, rows.entries[other].grant) =
                        (rows.entries[other].grant, rows.entries[number].grant);
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(super::config(400))]

    #[test]
    fn whatever_is_tampered_with_verification_reports_it(script in script(Theme::Everything)) {
        let store = History::run(&script, Settling::AsScripted).subject.store;
        for wallet in 0..store.wallets.len() {
            let rows = Rows::of(&store, wallet);
            rows.wallet_totals();
            rows.each_grant();
            rows.each_entry();
            rows.each_usage();
        }
    }
}

/// Swaps that leave every sum as it was.
#[test]
fn spending_the_later_grant_first_is_reported() {
    let books = two_usages_of_equal_credits();
    let rows = Rows::of(&books.store, 0);
    assert_eq!(replay(&rows.wallet, &rows.grants, 0, &rows.entries), []);
    rows.is_found(7, "two usages of equal credits with each other's grant", |rows| {
        (rows.entries[2].grant, rows.entries[3].grant) = (rows.entries[3].grant, rows.entries[2].grant);
    });
    rows.is_found(7, "the priority of a grant that was passed over", |rows| rows.grants[1].terms.priority = 99);
}

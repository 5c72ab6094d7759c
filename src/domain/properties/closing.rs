//! Overage that is closed at random moments: each entry is on one line, and lines and what is open are all there is.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::history::{CODES, at, wallet};
use super::requests::{CREDIT, Credits, HOUR, Instant, START};
use super::store::Store;
use crate::domain::amount::Amount;
use crate::domain::chart::Kind;
use crate::domain::names::{TransactionId, WalletCode};
use crate::domain::overage;
use crate::domain::refund::{self, RefundUsage};
use crate::domain::usage::{self, DeductUsage, OnInsufficient, Scope};
use crate::domain::wallet::{OveragePolicy, WalletSettings};

#[derive(Debug, Clone)]
enum Step {
    Deduct { wallet: usize, credits: Credits },
    Refund { usage: usize, credits: Option<Credits> },
    Price { wallet: usize, cents: i128, currency: &'static str },
    Wait { hours: i64 },
    Close { hours_ago: i64 },
}

/// By price: credits, and the times of their first entry.
type Group = (usize, Amount, String);

/// The naive closing: every entry with a mark.
struct Closing {
    store: Store,
    now: Instant,
    usages: usize,
    /// Which entries of the store are on lines.
    is_on_line: Vec<bool>,
}

fn sign(kind: Kind) -> i8 {
    match kind {
        Kind::Overage => 1,
        Kind::OverageRefunded => -1,
        _ => 0,
    }
}

impl Closing {
    fn new() -> Self {
        let settings = WalletSettings {
            overage_policy: OveragePolicy::Invoice,
            overage_unit_price: Some(Amount::from_units(CREDIT / 100)),
            overage_currency: Some("USD".into()),
            ..WalletSettings::default()
        };
        let wallets = CODES[..2].iter().map(|code| wallet(code, "credits", settings.clone())).collect();
        Self { store: Store::new(wallets), now: START, usages: 0, is_on_line: Vec::new() }
    }

    fn take(&mut self, step: &Step) {
        let now = at(self.now);
        match step {
            Step::Deduct { wallet, credits } => {
                let request = DeductUsage {
                    amount: Amount::from_units(*credits),
                    scope: Scope { wallet: Some(WalletCode::stored(CODES[*wallet].into())), unit: "credits".into() },
                    event_name: None,
                    occurred_at: None,
                    on_insufficient: OnInsufficient::Error,
                    metadata: None,
                };
                let key = TransactionId::stored(self.usages.to_string().into());
                self.usages += 1;
                self.store.change(now, |book| usage::deduct(book, Some(&key), &request)).expect("overage has no limit");
            }
            Step::Refund { usage, credits } if self.usages > 0 => {
                let transaction_id = TransactionId::stored((usage % self.usages).to_string().into());
                let request = RefundUsage { transaction_id, amount: credits.map(Amount::from_units), metadata: None };
                // More than is left is refused.
                let _ = self.store.change(now, |book| refund::refund(book, None, &request));
            }
            Step::Refund { .. } => {}
            Step::Price { wallet, cents, currency } => {
                let settings = &mut self.store.wallets[*wallet].settings;
                settings.overage_unit_price = Some(Amount::from_units(cents * CREDIT / 100));
                settings.overage_currency = Some((*currency).into());
            }
            Step::Wait { hours } => self.now += hours * HOUR,
            Step::Close { hours_ago } => self.close(self.now - hours_ago * HOUR),
        }
        self.is_on_line.resize(self.store.entries.len(), false);
    }

    fn close(&mut self, as_of: Instant) {
        let made = self.store.lines.len();
        self.store.change(at(self.now), |book| overage::close(book, at(as_of))).expect("it fits");
        let until = at(as_of.min(self.now));
        let mut expected: Vec<(Group, Amount, Instant)> = Vec::new();
        for (entry, is_on_line) in self.store.entries.iter().zip(&mut self.is_on_line) {
            let sign = sign(entry.movement.kind);
            if sign == 0 || *is_on_line || entry.movement.occurred_at >= until {
                continue;
            }
            *is_on_line = true;
            let (unit_price, currency) = entry.movement.price.clone().expect("overage has a price");
            let group = (entry.wallet, unit_price, currency);
            let credits = entry.movement.credits.signed(sign);
            match expected.iter_mut().find(|(other, _, _)| *other == group) {
                Some((_, quantity, _)) => *quantity += credits,
                None => expected.push((group, credits, entry.movement.occurred_at.to_postgres())),
            }
        }
        expected.retain(|(_, quantity, _)| !quantity.is_zero());
        let lines = self.store.lines[made..].iter().map(|line| {
            assert_eq!(line.period_end, until);
            let wallet = CODES.iter().position(|code| *code == line.wallet.as_str()).expect("it is there");
            ((wallet, line.unit_price, line.currency.clone()), line.quantity, line.period_start.to_postgres())
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        expected.sort();
        assert_eq!(lines, expected, "the lines made (left) and of the model (right)");
    }

    fn compare(&self) {
        for (index, wallet) in self.store.wallets.iter().enumerate() {
            let entries = || self.store.entries.iter().zip(&self.is_on_line).filter(|(entry, _)| entry.wallet == index);
            let sum = |is_on_line: bool| -> Amount {
                let counted = entries().filter(|(_, on_line)| **on_line == is_on_line);
                counted.map(|(entry, _)| entry.movement.credits.signed(sign(entry.movement.kind))).sum()
            };
            let on_lines: Amount =
                self.store.lines.iter().filter(|line| line.wallet == wallet.code).map(|line| line.quantity).sum();
            assert_eq!((on_lines, wallet.overage), (sum(true), sum(false)), "on lines, and open");
            let is_open = entries().any(|(entry, is_on_line)| !is_on_line && sign(entry.movement.kind) != 0);
            assert_eq!(wallet.has_open_overage, is_open);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let credits = || prop_oneof![5 => (1..20_i128).prop_map(|halves| halves * CREDIT / 2), 1 => 1..5_i128];
    prop_oneof![
        6 => (0..2_usize, credits()).prop_map(|(wallet, credits)| Step::Deduct { wallet, credits }),
        5 => (0..64_usize, option::of(credits())).prop_map(|(usage, credits)| Step::Refund { usage, credits }),
        2 => (0..2_usize, 1..4_i128, prop_oneof![3 => Just("USD"), 1 => Just("JPY")])
            .prop_map(|(wallet, cents, currency)| Step::Price { wallet, cents, currency }),
        4 => (0..3_i64).prop_map(|hours| Step::Wait { hours }),
        3 => (-2..5_i64).prop_map(|hours_ago| Step::Close { hours_ago }),
    ]
}

proptest! {
    #![proptest_config(super::config(1_500))]

    #[test]
    fn lines_and_what_is_open_are_all_the_overage_there_is(steps in vec(step(), 1..40)) {
        let mut closing = Closing::new();
        for step in &steps {
            closing.take(step);
            closing.compare();
        }
    }
}

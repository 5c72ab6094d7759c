//! What watches wallets against a naive model that evaluates every alert at every step, over random histories.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::history::{CODES, History, Settling, at};
use super::requests::{CREDIT, Credits, Script, Step, Theme, script};
use super::store::Store;
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::chart::Kind;
use crate::domain::event::EventType;
use crate::domain::names::{TransactionId, WalletCode};
use crate::domain::watch::{self, Alert, Threshold};

/// An alert to be created before a step, and dropped again before another.
#[derive(Debug, Clone)]
struct Plan {
    wallet: usize,
    is_percent: bool,
    number: Credits,
    rearm_above: Option<Credits>,
    created: usize,
    dropped: Option<usize>,
}

/// What the model knows of an alert.
struct Watched {
    id: Uuid,
    plan: Plan,
    is_armed: bool,
}

/// An entry as far as levels go: wallet, transaction, kind and credits.
type Moved = (usize, TransactionId, Kind, Credits);

fn of_store(store: &Store) -> Vec<Moved> {
    let moved = |entry: &super::store::StoredEntry| {
        (entry.wallet, entry.transaction_id.clone(), entry.movement.kind, entry.movement.credits.units())
    };
    store.entries.iter().map(moved).collect()
}

/// Balance + held of a wallet, and what they were after the last transaction that brought it credits.
fn level_and_base(entries: &[Moved], wallet: usize) -> (Credits, Credits) {
    let (mut level, mut base) = (0, 0);
    let of_wallet: Vec<&Moved> = entries.iter().filter(|entry| entry.0 == wallet).collect();
    for transaction in of_wallet.chunk_by(|a, b| a.1 == b.1) {
        let has = |kind| transaction.iter().any(|entry| entry.2 == kind);
        for (_, _, kind, credits) in transaction {
            let effect = kind.effect();
            level += Credits::from(effect.balance + effect.held) * credits;
        }
        let comes_in = has(Kind::Grant) || has(Kind::GrantActivated) || has(Kind::RolloverIn);
        // With both directions in one wallet it is another expiry.
        if comes_in || (has(Kind::TransferIn) && !has(Kind::TransferOut)) {
            base = level;
        }
    }
    (level, base)
}

impl Plan {
    fn is_above(&self, number: Credits, level: Credits, base: Credits) -> bool {
        if self.is_percent { level * 100 * CREDIT > base * number } else { level > number }
    }

    fn alert(&self, id: Uuid) -> Alert {
        let number = Amount::from_units(self.number);
        Alert {
            id,
            wallet: WalletCode::stored(CODES[self.wallet].into()),
            threshold: if self.is_percent { Threshold::Percent(number) } else { Threshold::Credits(number) },
            rearm: self.rearm_above.map(|above| Amount::from_units(self.number + above)),
            is_armed: true,
            fired_at: None,
            dropped_at: None,
        }
    }
}

#[derive(Default)]
struct Model {
    watched: Vec<Watched>,
    told: Vec<(EventType, Uuid)>,
}

impl Model {
    /// The end of a step.
    fn look(&mut self, entries: &[Moved]) {
        for watched in &mut self.watched {
            let plan = &watched.plan;
            let (level, base) = level_and_base(entries, plan.wallet);
            if watched.is_armed && !plan.is_above(plan.number, level, base) {
                watched.is_armed = false;
                self.told.push((EventType::BalanceLow, watched.id));
            } else if !watched.is_armed && plan.is_above(plan.number + plan.rearm_above.unwrap_or(0), level, base) {
                watched.is_armed = true;
                self.told.push((EventType::BalanceRecovered, watched.id));
            }
        }
    }
}

struct Watching {
    history: History,
    model: Model,
    created: u128,
    compared_events: usize,
}

impl Watching {
    /// A change of the books with the looks that the model expects: after what settling wrote, and after all of it.
    fn change(&mut self, change: impl FnOnce(&mut History)) {
        let before = self.history.subject.store.entries.len();
        let now = at(self.history.subject.now);
        let store = &self.history.subject.store;
        let settled = store.read(now, |book| book.entries.len()).expect("reading never fails");
        change(&mut self.history);
        let entries = of_store(&self.history.subject.store);
        if entries.len() >= before + settled {
            self.model.look(&entries[..before + settled]);
        }
        self.model.look(&entries);
    }

    fn watch(&mut self, plan: &Plan) {
        let now = at(self.history.subject.now);
        self.created += 1;
        let id = Uuid::from_u128((1 << 100) + self.created);
        let mut is_created = false;
        // It is there at the second look only.
        self.change(|history| {
            is_created = history.subject.store.change(now, |book| watch::create(book, plan.alert(id))).is_ok();
        });
        if is_created {
            self.model.watched.push(Watched { id, plan: plan.clone(), is_armed: true });
            self.model.look(&of_store(&self.history.subject.store));
        }
    }

    fn unwatch(&mut self, number: usize) {
        let now = at(self.history.subject.now);
        let id = self.model.watched[number].id;
        // What time did is looked at before.
        self.history.subject.settle();
        self.model.look(&of_store(&self.history.subject.store));
        self.history.subject.store.change(now, |book| watch::drop(book, id)).expect("it is there");
        self.model.watched.remove(number);
    }

    fn step(&mut self, number: usize, step: &Step) {
        match step {
            Step::Ask(..) | Step::Retry { .. } => self.change(|history| history.step(number, step)),
            Step::Wait { .. } | Step::WaitForDue { .. } => {
                self.history.step(number, step);
                self.model.look(&of_store(&self.history.subject.store));
            }
        }
    }

    fn compare(&mut self) {
        let store = &self.history.subject.store;
        let is_alert = |event_type| matches!(event_type, EventType::BalanceLow | EventType::BalanceRecovered);
        let mut told: Vec<(EventType, Uuid)> = store.events[self.compared_events..]
            .iter()
            .filter(|event| is_alert(event.event_type))
            .map(|event| (event.event_type, event.alert.expect("it is an alert's")))
            .collect();
        let mut expected = std::mem::take(&mut self.model.told);
        // Which of two alerts fires first is told by worked examples; each one's own events are in their order.
        told.sort_by_key(|(_, id)| *id);
        expected.sort_by_key(|(_, id)| *id);
        assert_eq!(told, expected, "events of the domain (left) and of the model (right)");
        self.compared_events = store.events.len();
        for watched in &self.model.watched {
            assert_eq!(store.alerts[&watched.id].is_armed, watched.is_armed, "{:?}", watched.plan);
        }
        for (index, wallet) in store.wallets.iter().enumerate() {
            assert!(!wallet.is_worth_a_look(), "nothing is left to look at: {wallet:?}");
            let (level, base) = level_and_base(&of_store(store), index);
            assert_eq!((wallet.level().units(), wallet.credited_level.units()), (level, base));
            // One unit further than a mark there is something to do, and not before.
            let of_wallet = || self.model.watched.iter().filter(|watched| watched.plan.wallet == index);
            let fires = |level| of_wallet().any(|it| it.is_armed && !it.plan.is_above(it.plan.number, level, base));
            let recovers = |level| {
                let above = |plan: &Plan| plan.is_above(plan.number + plan.rearm_above.unwrap_or(0), level, base);
                of_wallet().any(|it| !it.is_armed && above(&it.plan))
            };
            let marks = (wallet.watch.low_at, wallet.watch.high_at);
            assert_eq!(marks.0.is_some(), of_wallet().any(|watched| watched.is_armed), "{marks:?}");
            assert_eq!(marks.1.is_some(), of_wallet().any(|watched| !watched.is_armed), "{marks:?}");
            assert!(marks.0.is_none_or(|low_at| fires(low_at.units()) && !fires(low_at.units() + 1)), "{marks:?}");
            assert!(marks.1.is_none_or(|high_at| !recovers(high_at.units()) && recovers(high_at.units() + 1)), "{marks:?}");
        }
    }

    fn run(script: &Script, plans: &[Plan]) -> Self {
        let history = History::new(script, Settling::AsScripted);
        let mut watching = Self { history, model: Model::default(), created: 0, compared_events: 0 };
        for (number, step) in script.steps.iter().enumerate() {
            let due = |watched: &Watched| watched.plan.dropped.is_some_and(|dropped| dropped <= number);
            while let Some(dropped) = watching.model.watched.iter().position(due) {
                watching.unwatch(dropped);
                watching.compare();
            }
            for plan in plans.iter().filter(|plan| plan.created == number) {
                watching.watch(&Plan { wallet: plan.wallet % script.wallets.len(), ..plan.clone() });
                watching.compare();
            }
            watching.step(number, step);
            watching.compare();
        }
        watching
    }
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let number = prop_oneof![
        1 => Just(0),
        4 => (0..40_i128).prop_map(|halves| halves * CREDIT / 2),
        4 => (1..99_i128).prop_map(|percent| percent * CREDIT),
        1 => 1..99 * CREDIT,
    ];
    let rearm_above = option::of(prop_oneof![Just(0), (1..20_i128).prop_map(|halves| halves * CREDIT / 2)]);
    let created = prop_oneof![2 => Just(0), 1 => 0..12_usize];
    let plan = (0..24_usize, any::<bool>(), number, rearm_above, created, option::weighted(0.2, 3..30_usize)).prop_map(
        |(wallet, is_percent, number, rearm_above, created, dropped)| {
            let dropped = dropped.map(|after| created + after);
            Plan { wallet, is_percent, number, rearm_above, created, dropped }
        },
    );
    vec(plan, 1..=5)
}

fn watched_script() -> impl Strategy<Value = (Script, Vec<Plan>)> {
    let theme = prop_oneof![
        Just(Theme::Everything),
        Just(Theme::Overage),
        Just(Theme::Expiry),
        Just(Theme::Recurring),
        Just(Theme::Contracts),
        Just(Theme::Holds)
    ];
    (theme.prop_flat_map(script), plans())
}

/// A book that reads shows the same as the one that is stored: reading never looks.
fn reading_tells_nothing(book: &mut Book<'_>) {
    assert!(book.events.iter().all(|event| event.alert.is_none()));
}

proptest! {
    #![proptest_config(super::config(600))]

    #[test]
    fn alerts_fire_and_recover_as_the_model_says((script, plans) in watched_script()) {
        let watching = Watching::run(&script, &plans);
        let subject = watching.history.subject;
        subject.store.read(at(subject.now + 1_000 * script.unit), reading_tells_nothing).expect("reading never fails");
    }
}

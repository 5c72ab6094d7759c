//! Metering: events of any order against the price of what they add up to, refunds, and many events in one call.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::config;
use super::store::Store;
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::calendar::Calendar;
use crate::domain::chart::Kind;
use crate::domain::grant::GrantType;
use crate::domain::granting::{GrantCredits, grant};
use crate::domain::meter::{Aggregation, LastPeriod, Meter, PriceList};
use crate::domain::metering::{Event, RecordUsage, record};
use crate::domain::names::{EventName, MeterCode, TransactionId, WalletCode};
use crate::domain::pricing::Pricing;
use crate::domain::refund::{RefundUsage, refund};
use crate::domain::time::{Interval, TimeZone, Timestamp};
use crate::domain::usage::{Deduction, OnInsufficient, Scope};
use crate::domain::wallet::{OveragePolicy, Wallet, WalletSettings};
use crate::error::Result;

const DAY_MICROSECONDS: i64 = 86_400_000_000;
const NOW: Timestamp = Timestamp::from_postgres(800 * DAY_MICROSECONDS);

fn day(number: i64) -> Timestamp {
    Timestamp::from_postgres(number * DAY_MICROSECONDS)
}

fn meter(code: &str, aggregation: Aggregation, pricing: &str) -> Meter {
    let property = (aggregation != Aggregation::Count).then(|| "n".to_owned());
    Meter {
        code: MeterCode::stored(code.into()),
        event_name: EventName::stored("call".into()),
        aggregation,
        value_property: property,
        filter: Map::new(),
        calendar: Calendar { anchor: day(0), every: Interval { days: 10, ..Interval::ZERO }, zone: TimeZone::UTC },
        scope: Scope { wallet: None, unit: "credits".into() },
        prices: vec![PriceList { effective_at: Timestamp::BEFORE_ALL, pricing: Pricing::parse(pricing).unwrap() }],
        own_prices: Vec::new(),
        last_period: LastPeriod::default(),
    }
}

fn wallet(policy: OveragePolicy) -> Wallet {
    let settings = WalletSettings {
        overage_policy: policy,
        overage_unit_price: Some(Amount::from_credits(1)),
        overage_currency: Some("USD".into()),
        ..WalletSettings::default()
    };
    super::history::wallet("default", "credits", settings)
}

/// A customer with some grants, and beyond them a policy.
fn store(policy: OveragePolicy, grants: &[i64]) -> Store {
    let mut store = Store::new(vec![wallet(policy)]);
    for credits in grants {
        let request = GrantCredits {
            wallet: WalletCode::stored("default".into()),
            amount: Amount::from_credits(*credits),
            effective_at: None,
            expires_at: None,
            grant_type: GrantType::Prepaid,
            priority: 100,
            unit_price: None,
            currency: None,
            applies_to: None,
            metadata: "{}".into(),
        };
        store.change(NOW, |book| grant(book, None, &request)).unwrap();
    }
    store
}

/// An event of a number that happened on a day.
#[derive(Debug, Clone, Copy)]
struct Happened {
    number: i64,
    day: i64,
}

fn request(happened: Happened) -> RecordUsage {
    let properties_text = format!("{{\"n\":{}}}", happened.number);
    RecordUsage {
        event: Event {
            event_name: EventName::stored("call".into()),
            properties: serde_json::from_str::<Map<String, Value>>(&properties_text).unwrap(),
            properties_text,
        },
        occurred_at: Some(day(happened.day)),
        on_insufficient: OnInsufficient::Error,
        metadata: None,
    }
}

fn key(index: usize) -> TransactionId {
    TransactionId::stored(format!("event-{index}").into())
}

fn charge(book: &mut Book<'_>, index: usize, happened: Happened, meters: &[Meter]) -> Result<Deduction> {
    record(book, Some(&key(index)), &request(happened), meters)
}

/// What the events of one period add up to, said once more: those given, in the order of arrival.
fn aggregate(aggregation: Aggregation, events: &[Happened]) -> Amount {
    let credits = Amount::from_credits;
    match aggregation {
        Aggregation::Sum => events.iter().map(|event| credits(event.number)).sum(),
        Aggregation::Count => credits(events.len() as i64),
        Aggregation::Max => credits(events.iter().map(|event| event.number).max().unwrap_or(0)),
        Aggregation::Unique => {
            let mut numbers: Vec<i64> = events.iter().map(|event| event.number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            credits(numbers.len() as i64)
        }
        Aggregation::Latest => {
            let latest = events.iter().enumerate().max_by_key(|(arrival, event)| (event.day, *arrival));
            credits(latest.map_or(0, |(_, event)| event.number))
        }
    }
}

/// The price of what the events of each period add up to.
fn price(meter: &Meter, events: &[Happened]) -> Amount {
    let mut periods: Vec<i64> = events.iter().map(|event| event.day.div_euclid(10)).collect();
    periods.sort_unstable();
    periods.dedup();
    let of_period = |period: i64| {
        let events: Vec<Happened> = events.iter().copied().filter(|event| event.day.div_euclid(10) == period).collect();
        let (pricing, _) = meter.prices[0].pricing.select(&Map::new()).unwrap();
        pricing.price(aggregate(meter.aggregation, &events)).unwrap()
    };
    periods.into_iter().map(of_period).sum()
}

fn net(store: &Store) -> Amount {
    let effect = |kind: Kind| i8::from(kind.is_charge()) - i8::from(kind.is_refund());
    store.entries.iter().map(|entry| entry.movement.credits.signed(effect(entry.movement.kind))).sum()
}

const PRICINGS: [&str; 5] = [
    r#"{"model":"per_unit","credits":"0.3333"}"#,
    r#"{"model":"package","size":"7","credits":"2"}"#,
    r#"{"model":"graduated","tiers":[{"up_to":5,"credits":3},{"up_to":20,"credits":"0.1"},{"credits":2}]}"#,
    r#"{"model":"volume","tiers":[{"up_to":5,"credits":7},{"up_to":20,"credits":"0.5"},{"credits":"0.25"}]}"#,
    r#"{"model":"volume","tiers":[{"up_to":3,"credits":0},{"up_to":10,"credits":9},{"credits":"0.000000000001"}]}"#,
];

const AGGREGATIONS: [Aggregation; 5] =
    [Aggregation::Sum, Aggregation::Count, Aggregation::Max, Aggregation::Unique, Aggregation::Latest];

fn events() -> impl Strategy<Value = Vec<Happened>> {
    prop::collection::vec((0..12_i64, 770..800_i64).prop_map(|(number, day)| Happened { number, day }), 1..25)
}

fn policy() -> impl Strategy<Value = OveragePolicy> {
    prop::sample::select(vec![OveragePolicy::Invoice, OveragePolicy::Overdraft])
}

fn assert_proved(store: &Store) {
    assert_eq!(store.verify(0), [], "the ledger proves itself");
}

proptest! {
    #![proptest_config(config(800))]

    #[test]
    fn events_cost_what_their_aggregates_do_in_any_order(
        events in events(),
        aggregation in prop::sample::select(AGGREGATIONS.to_vec()),
        pricing in prop::sample::select(PRICINGS.to_vec()),
        grants in prop::collection::vec(1..60_i64, 0..4),
        policy in policy(),
    ) {
        let meter = meter("m", aggregation, pricing);
        let mut store = store(policy, &grants);
        for (index, event) in events.iter().enumerate() {
            let meters = std::slice::from_ref(&meter);
            let done = store.change(NOW, |book| charge(book, index, *event, meters)).unwrap();
            prop_assert_eq!(done.requested, done.deducted + done.overage);
            prop_assert_eq!(net(&store), price(&meter, &events[..=index]));
        }
        assert_proved(&store);
    }

    /// A refunded event does not count any more: the next ones are priced as if it had never been. What the others paid stays.
    #[test]
    fn what_is_refunded_leaves_the_aggregate_as_if_it_had_never_been(
        events in events(),
        refunded in prop::collection::btree_set(0..25_usize, 0..6),
        aggregation in prop::sample::select(AGGREGATIONS.to_vec()),
        pricing in prop::sample::select(PRICINGS.to_vec()),
    ) {
        let meter = meter("m", aggregation, pricing);
        let meters = std::slice::from_ref(&meter);
        let mut store = store(OveragePolicy::Invoice, &[40]);
        for (index, event) in events.iter().enumerate() {
            store.change(NOW, |book| charge(book, index, *event, meters)).unwrap();
        }
        let mut left = events.clone();
        for index in refunded.into_iter().rev().filter(|index| *index < events.len()) {
            let request = RefundUsage { transaction_id: key(index), amount: None, metadata: None };
            store.change(NOW, |book| refund(book, None, &request)).unwrap();
            // Once more is nothing more.
            store.change(NOW, |book| refund(book, None, &request)).unwrap();
            left.remove(index);
        }
        for period in store.meter_periods.values() {
            let of_period: Vec<Happened> = left.iter().copied().filter(|event| meter.calendar.start_of_period_at(day(event.day)) == period.key.starts_at).collect();
            prop_assert_eq!(period.aggregate, aggregate(aggregation, &of_period));
            prop_assert_eq!(period.events, of_period.len() as i64);
        }
        prop_assert!(!net(&store).is_negative(), "no more is given back than was paid");
        assert_proved(&store);
    }

    /// Many events in one call are charged as they would be one by one, whatever is refused among them.
    #[test]
    fn a_batch_is_the_same_as_its_events_one_by_one(
        events in events(),
        aggregations in prop::collection::vec(prop::sample::select(AGGREGATIONS.to_vec()), 1..3),
        pricing in prop::sample::select(PRICINGS.to_vec()),
        grants in prop::collection::vec(1..30_i64, 0..4),
        repeated in 0..25_usize,
    ) {
        let meters: Vec<Meter> =
            aggregations.iter().enumerate().map(|(index, aggregation)| meter(&format!("m{index}"), *aggregation, pricing)).collect();
        let keyed = || events.iter().enumerate().map(|(index, event)| (if index == repeated { 0 } else { index }, *event));
        let mut one_by_one = store(OveragePolicy::Block, &grants);
        let singles: Vec<_> = keyed().map(|(index, event)| one_by_one.change(NOW, |book| charge(book, index, event, &meters))).collect();
        let mut batch = store(OveragePolicy::Block, &grants);
        let batched = batch.change(NOW, |book| {
            Ok(keyed().map(|(index, event)| book.attempt(|book| charge(book, index, event, &meters))).collect::<Vec<_>>())
        }).unwrap();
        prop_assert_eq!(singles, batched);
        prop_assert_eq!(format!("{:?}", one_by_one.entries), format!("{:?}", batch.entries));
        prop_assert_eq!(&one_by_one.grants, &batch.grants);
        prop_assert_eq!(&one_by_one.wallets, &batch.wallets);
        prop_assert_eq!(&one_by_one.meter_periods, &batch.meter_periods);
        prop_assert_eq!(&one_by_one.meter_values, &batch.meter_values);
        assert_proved(&batch);
    }
}

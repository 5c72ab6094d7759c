//! What meters counted: periods with their aggregates, and the values behind those that need them.
//!
//! Every plain event changes one period, with nothing for a planner or an executor to decide: [`change_one`] does so by the calls
//! with which PostgreSQL changes its own catalogues, at less than half of what a kept statement costs.

use std::cell::RefCell;
use std::collections::HashMap;

use uuid::Uuid;

use super::codec::{Codec, Place, array, text, texts};
use super::columns::Columns;
use super::heap::{self, Key, Purpose, Table};
use super::statement::{Access, Parameter, Row, statements};
use crate::domain::book::Book;
use crate::domain::meter::{MeterPeriod, MeterValue, PeriodKey, ValueKey};
use crate::domain::names::{CustomerId, MeterCode, TransactionId};

macro_rules! period_columns {
    () => {
        "p.aggregate, p.events, p.arrivals, p.latest_at, p.paid, p.paid_by, p.paid_left"
    };
}

statements! {
    /// Periods of many customers: primary key, one row each. In a subquery, which is not flattened: a plan made while the table was
    /// empty would walk all of it.
    PERIODS(TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID) = concat!("
        select k.customer_id, p.*
        from (
            select unnest($1) as customer_id, unnest($2) as meter, unnest($3) as period_start, unnest($4) as rate
        ) k
        cross join lateral (
            select p.meter, p.period_start, p.rate, ", period_columns!(), ", p.ctid
            from credits_data.meter_periods p
            where p.customer_id = k.customer_id
              and p.meter = k.meter
              and p.period_start = k.period_start
              and p.rate = k.rate
            offset 0
        ) p");

    /// Values of many customers: primary key, one row each.
    VALUES(TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, INT8ARRAYOID) = "
        select k.customer_id, v.*
        from (
            select unnest($1) as customer_id, unnest($2) as meter, unnest($3) as period_start, unnest($4) as rate,
                   unnest($5) as value, unnest($6) as rank, unnest($7) as arrival
        ) k
        cross join lateral (
            select v.meter, v.period_start, v.rate, v.value, v.rank, v.arrival, v.number, v.events
            from credits_data.meter_values v
            where v.customer_id = k.customer_id
              and v.meter = k.meter
              and v.period_start = k.period_start
              and v.rate = k.rate
              and v.value = k.value
              and v.rank = k.rank
              and v.arrival = k.arrival
            offset 0
        ) v";

    /// The last value of a period that an event has, but for one. Index scan backward on the primary key.
    LAST_VALUE(TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, NUMERICOID, INT8OID) = "
        select v.customer_id, v.meter, v.period_start, v.rate, v.value, v.rank, v.arrival, v.number, v.events
        from credits_data.meter_values v
        where v.customer_id = $1
          and v.meter = $2
          and v.period_start = $3
          and v.rate = $4
          and v.events > 0
          and (v.value, v.rank, v.arrival) <> ($5, $6, $7)
        order by v.value desc, v.rank desc, v.arrival desc
        limit 1";

    CREATE_PERIODS(
        TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID,
        NUMERICARRAYOID, TEXTARRAYOID, NUMERICARRAYOID
    ) = "
        insert into credits_data.meter_periods (
            customer_id, meter, period_start, rate, aggregate, events, arrivals, latest_at, paid, paid_by, paid_left
        )
        select unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), unnest($8), unnest($9), unnest($10),
               unnest($11)";

    /// What changed of many periods: where their rows were when they were read, under the customers' locks. Tid scan, one row each.
    STORE_PERIODS(
        TIDARRAYOID, NUMERICARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, NUMERICARRAYOID
    ) = "
        update credits_data.meter_periods p
        set aggregate = n.aggregate,
            events = n.events,
            arrivals = n.arrivals,
            latest_at = n.latest_at,
            paid = n.paid,
            paid_by = n.paid_by,
            paid_left = n.paid_left
        from (
            select unnest($1) as place, unnest($2) as aggregate, unnest($3) as events, unnest($4) as arrivals,
                   unnest($5) as latest_at, unnest($6) as paid, unnest($7) as paid_by, unnest($8) as paid_left
        ) n
        where p.ctid = n.place";

    STORE_VALUES(
        TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, INT8ARRAYOID, NUMERICARRAYOID,
        INT8ARRAYOID
    ) = "
        insert into credits_data.meter_values as v (
            customer_id, meter, period_start, rate, value, rank, arrival, number, events
        )
        select unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), unnest($8), unnest($9)
        on conflict (customer_id, meter, period_start, rate, value, rank, arrival) do update
        set events = excluded.events";
}

/// A key of one customer among many.
pub type Of<'a, K> = (&'a CustomerId, &'a K);

fn period_key(row: &mut Row<'_>) -> PeriodKey {
    PeriodKey { meter: MeterCode::stored(row.take()), starts_at: row.take(), rate: row.take() }
}

fn period(row: &mut Row<'_>) -> MeterPeriod {
    MeterPeriod {
        key: period_key(row),
        aggregate: row.take(),
        events: row.take(),
        arrivals: row.take(),
        latest_at: row.optional(),
        paid: row.take(),
        paid_by: row.optional().map(TransactionId::stored),
        paid_left: row.optional(),
    }
}

fn value(row: &mut Row<'_>) -> MeterValue {
    let key = ValueKey { period: period_key(row), value: row.take(), rank: row.take(), arrival: row.take() };
    MeterValue { key, number: row.take(), events: row.take() }
}

fn period_parameters<'a>(keys: impl Iterator<Item = Of<'a, PeriodKey>> + Clone) -> [Parameter; 4] {
    [
        Some(texts(keys.clone().map(|(customer_id, _)| Some(customer_id.as_str())))),
        Some(texts(keys.clone().map(|(_, key)| Some(key.meter.as_str())))),
        Some(array(keys.clone().map(|(_, key)| Some(key.starts_at)))),
        Some(texts(keys.map(|(_, key)| Some(key.rate.as_str())))),
    ]
}

/// A period as stored, and where.
#[derive(Debug, Clone)]
pub struct StoredPeriod {
    pub period: MeterPeriod,
    pub place: Place,
}

/// Where the periods of a customer that were read are stored.
pub type Places = RefCell<HashMap<PeriodKey, Place>>;

/// The stored periods of these keys.
pub fn periods(access: Access, keys: &[Of<'_, PeriodKey>]) -> HashMap<CustomerId, Vec<StoredPeriod>> {
    let rows = PERIODS.with(|statement| statement.run(access, &period_parameters(keys.iter().copied())));
    let read = |mut row: Row<'_>| {
        let customer_id = CustomerId::stored(row.take());
        (customer_id, StoredPeriod { period: period(&mut row), place: row.take() })
    };
    by_customer(rows.iter().map(read))
}

/// The stored values of these keys.
pub fn values(access: Access, keys: &[Of<'_, ValueKey>]) -> HashMap<CustomerId, Vec<MeterValue>> {
    let [customers, meters, starts, rates] = period_parameters(keys.iter().map(|(customer_id, key)| (*customer_id, &key.period)));
    let parameters = [
        customers,
        meters,
        starts,
        rates,
        Some(texts(keys.iter().map(|(_, key)| Some(key.value.as_str())))),
        Some(array(keys.iter().map(|(_, key)| Some(key.rank)))),
        Some(array(keys.iter().map(|(_, key)| Some(key.arrival)))),
    ];
    let rows = VALUES.with(|statement| statement.run(access, &parameters));
    by_customer(rows.iter().map(|mut row| (CustomerId::stored(row.take()), value(&mut row))))
}

fn by_customer<T>(rows: impl Iterator<Item = (CustomerId, T)>) -> HashMap<CustomerId, Vec<T>> {
    let mut sorted: HashMap<CustomerId, Vec<T>> = HashMap::new();
    for (customer_id, row) in rows {
        sorted.entry(customer_id).or_default().push(row);
    }
    sorted
}

/// The last value of a period that an event has, but for one.
pub fn last_value(access: Access, customer_id: &CustomerId, key: &PeriodKey, without: &ValueKey) -> Option<MeterValue> {
    let parameters = [
        Some(text(customer_id.as_str())),
        Some(text(key.meter.as_str())),
        Some(key.starts_at.encode()),
        Some(text(&key.rate)),
        Some(text(&without.value)),
        Some(without.rank.encode()),
        Some(without.arrival.encode()),
    ];
    let rows = LAST_VALUE.with(|statement| statement.run(access, &parameters));
    rows.first().map(|mut row| {
        row.take::<String>();
        value(&mut row)
    })
}

/// Stores the periods and values that some books changed, each row once.
pub fn store(books: &[&Book<'_>], places: &[&Places]) {
    let created = Columns::of(books, |book| book.meter_periods.created());
    if !created.is_empty() {
        let parameters = [
            created.customers(),
            created.texts(|period| Some(period.key.meter.as_str())),
            created.column(|period| Some(period.key.starts_at)),
            created.texts(|period| Some(&period.key.rate)),
            created.column(|period| Some(period.aggregate)),
            created.column(|period| Some(period.events)),
            created.column(|period| Some(period.arrivals)),
            created.column(|period| period.latest_at),
            created.column(|period| Some(period.paid)),
            created.texts(|period| period.paid_by.as_ref().map(TransactionId::as_str)),
            created.column(|period| period.paid_left),
        ];
        CREATE_PERIODS.with(|statement| statement.run(Access::Write, &parameters));
    }
    update(books, places);
    let values = Columns::of(books, |book| book.meter_values.created().chain(book.meter_values.changed()));
    if !values.is_empty() {
        let parameters = [
            values.customers(),
            values.texts(|value| Some(value.key.period.meter.as_str())),
            values.column(|value| Some(value.key.period.starts_at)),
            values.texts(|value| Some(&value.key.period.rate)),
            values.texts(|value| Some(&value.key.value)),
            values.column(|value| Some(value.key.rank)),
            values.column(|value| Some(value.key.arrival)),
            values.column(|value| Some(value.number)),
            values.column(|value| Some(value.events)),
        ];
        STORE_VALUES.with(|statement| statement.run(Access::Write, &parameters));
    }
}

fn update(books: &[&Book<'_>], places: &[&Places]) {
    let changed = Columns::of(books, |book| book.meter_periods.changed());
    if changed.is_empty() {
        return;
    }
    let placed = books.iter().zip(places).flat_map(|(book, places)| {
        let places = places.borrow();
        let of_book: Vec<Option<Place>> = book.meter_periods.changed().map(|period| places.get(&period.key).copied()).collect();
        of_book
    });
    let parameters = [
        Some(array(placed)),
        changed.column(|period| Some(period.aggregate)),
        changed.column(|period| Some(period.events)),
        changed.column(|period| Some(period.arrivals)),
        changed.column(|period| period.latest_at),
        changed.column(|period| Some(period.paid)),
        changed.texts(|period| period.paid_by.as_ref().map(TransactionId::as_str)),
        changed.column(|period| period.paid_left),
    ];
    let stored = STORE_PERIODS.with(|statement| statement.run(Access::Write, &parameters)).count();
    assert!(stored == changed.len(), "a period was changed elsewhere in the call that has read it");
}

/// The positions of columns in their tables.
mod column {
    pub const TOKEN: usize = 0;

    pub const PERIOD_START: usize = 0;
    pub const EVENTS: usize = 1;
    pub const ARRIVALS: usize = 2;
    pub const CUSTOMER_ID: usize = 4;
    pub const METER: usize = 5;
    pub const RATE: usize = 6;
    pub const AGGREGATE: usize = 7;
    pub const PAID: usize = 8;
    pub const PAID_LEFT: usize = 9;
    pub const PAID_BY: usize = 10;
}

/// Changes a period of an additive meter, whose customer is locked, and returns it as it was, with the catalogue's token of that
/// moment. Primary key, one row, HOT. None if it has not begun, or if it has to be left to a statement.
pub fn change_one(
    customer_id: &CustomerId,
    key: &PeriodKey,
    change: impl FnOnce(&mut MeterPeriod),
) -> Option<(Uuid, MeterPeriod)> {
    heap::with_snapshot(|snapshot| {
        let token =
            Table::open(c"meter_catalog", Purpose::Read, |table| table.read_only_row(snapshot, |row| row.take(column::TOKEN)))?;
        let keys = [
            (column::CUSTOMER_ID, Key::Text(customer_id.as_str())),
            (column::METER, Key::Text(key.meter.as_str())),
            (column::PERIOD_START, Key::Time(key.starts_at)),
            (column::RATE, Key::Text(&key.rate)),
        ];
        let before = Table::open(c"meter_periods", Purpose::Change, |table| {
            table.change_by_key(snapshot, keys, |row| {
                let before = MeterPeriod {
                    aggregate: row.take(column::AGGREGATE),
                    events: row.take(column::EVENTS),
                    arrivals: row.take(column::ARRIVALS),
                    paid: row.take(column::PAID),
                    paid_by: row.optional(column::PAID_BY).map(TransactionId::stored),
                    paid_left: row.optional(column::PAID_LEFT),
                    ..MeterPeriod::new(key.clone())
                };
                let mut after = before.clone();
                change(&mut after);
                row.set(column::AGGREGATE, Some(after.aggregate.encode()));
                row.set(column::EVENTS, Some(after.events.encode()));
                row.set(column::ARRIVALS, Some(after.arrivals.encode()));
                row.set(column::PAID, Some(after.paid.encode()));
                row.set(column::PAID_BY, after.paid_by.map(|id| text(id.as_str())));
                row.set(column::PAID_LEFT, after.paid_left.map(|left| left.encode()));
                before
            })
        })?;
        Some((token, before))
    })
}

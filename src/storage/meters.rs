//! Meters and price lists: defining them, and reading those of an event.
//!
//! A session keeps what it has read and parsed in memory. It is good as long as the catalogue's token is the same, which every call
//! reads anew: a trigger renews the token whenever a meter or a price list changes, and a token never comes back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::codec::{Codec, text, texts};
use super::statement::{Access, Row, statements};
use super::wallets::stored_code;
use crate::domain::calendar::Calendar;
use crate::domain::meter::{Aggregation, LastPeriod, Meter, PriceList};
use crate::domain::names::{CustomerId, EventName, MeterCode, WalletCode};
use crate::domain::pricing::Pricing;
use crate::domain::time::{TimeZone, Timestamp};
use crate::domain::usage::Scope;

statements! {
    /// Changes the token first: whoever defines a meter holds its row, so that two who define meters of one event see each other's.
    LOCK() = "update credits_data.meter_catalog set token = gen_random_uuid()";

    /// The catalogue's token, and which of some customers have price lists of their own. Two primary keys.
    TOKEN(TEXTARRAYOID) = "
        select c.token,
               array(
                   select n.customer_id
                   from unnest($1) as n (customer_id)
                   where exists (select from credits_data.customer_prices p where p.customer_id = n.customer_id)
               )
        from credits_data.meter_catalog c";

    /// The meters of an event with the token they are read under, in the order of their codes.
    OF_EVENT(TEXTOID) = "
        select c.token, m.meter, m.aggregation::text, m.value_property, m.filter::text, m.period, m.anchor, m.time_zone, m.wallet, m.unit
        from credits_data.meter_catalog c
        left join credits_data.meters m
            on m.event_name = $1
        order by m.meter";

    /// All price lists of the meters of an event, in the order in which they come into force.
    PRICES(TEXTOID) = "
        select m.meter, p.*
        from credits_data.meters m
        cross join lateral (
            select p.effective_at, p.pricing::text
            from credits_data.meter_prices p
            where p.meter = m.meter
            order by p.effective_at
            offset 0
        ) p
        where m.event_name = $1";

    /// Some customers' own price lists.
    OWN_PRICES(TEXTARRAYOID) = "
        select n.customer_id, p.*
        from unnest($1) as n (customer_id)
        cross join lateral (
            select p.meter, p.effective_at, p.pricing::text
            from credits_data.customer_prices p
            where p.customer_id = n.customer_id
            order by p.meter, p.effective_at
            offset 0
        ) p";

    EXISTS(TEXTOID) = "select from credits_data.meters where meter = $1";

    CREATE(
        TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INTERVALOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID
    ) = "
        insert into credits_data.meters (
            meter, event_name, aggregation, value_property, filter, period, anchor, time_zone, wallet, unit, created_at
        )
        values ($1, $2, $3::credits_data.aggregation, $4, $5::jsonb, $6, $7, $8, $9, $10, $11)
        on conflict do nothing";

    SET_PRICING(TEXTOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID) = "
        insert into credits_data.meter_prices (meter, effective_at, pricing, created_at)
        values ($1, $2, $3::jsonb, $4)
        on conflict (meter, effective_at) do update
        set pricing = excluded.pricing,
            created_at = excluded.created_at";

    MARK_OWN_PRICES(TEXTOID) = "
        update credits_data.wallets
        set has_own_prices = true
        where customer_id = $1
          and is_anchor";

    SET_OWN_PRICING(TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID) = "
        insert into credits_data.customer_prices (customer_id, meter, effective_at, pricing, created_at)
        values ($1, $2, $3, $4::jsonb, $5)
        on conflict (customer_id, meter, effective_at) do update
        set pricing = excluded.pricing,
            created_at = excluded.created_at";
}

/// Event names kept in memory, those without meters too.
const EVENTS_MAX: usize = 1000;

/// The meters of events as of a token.
#[derive(Default)]
struct Kept {
    token: Uuid,
    events: HashMap<EventName, Rc<[Meter]>>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// The meters of some events, as they are for some customers: those with price lists of their own have other ones.
pub struct Catalog {
    access: Access,
    own_prices: HashMap<CustomerId, HashMap<MeterCode, Vec<PriceList>>>,
}

impl Catalog {
    /// Reads the catalogue's state. Under the customers' locks, after they were taken.
    pub fn open(access: Access, customers: &[&CustomerId]) -> Self {
        let ids = texts(customers.iter().map(|customer_id| Some(customer_id.as_str())));
        let rows = TOKEN.with(|statement| statement.run(access, &[Some(ids)]));
        let mut with_own_prices: Vec<String> = Vec::new();
        if let Some(mut row) = rows.first() {
            is_current(row.take());
            with_own_prices = row.take();
        }
        let mut own_prices: HashMap<CustomerId, HashMap<MeterCode, Vec<PriceList>>> = HashMap::new();
        if !with_own_prices.is_empty() {
            let rows = OWN_PRICES.with(|statement| statement.run(access, &[Some(with_own_prices.encode())]));
            for mut row in rows.iter() {
                let lists = own_prices.entry(CustomerId::stored(row.take())).or_default();
                lists.entry(MeterCode::stored(row.take())).or_default().push(price_list(&mut row));
            }
        }
        Self { access, own_prices }
    }

    pub fn has_own_prices(&self, customer_id: &CustomerId) -> bool {
        self.own_prices.contains_key(customer_id)
    }

    /// The meters of an event, in the order of their codes; none if no meter knows it.
    pub fn of_event(&self, customer_id: Option<&CustomerId>, event_name: &EventName) -> Rc<[Meter]> {
        let meters = kept(event_name).unwrap_or_else(|| read(self.access, event_name));
        match customer_id.and_then(|customer_id| self.own_prices.get(customer_id)) {
            None => meters,
            Some(own) => {
                let with_own =
                    |meter: &Meter| Meter { own_prices: own.get(&meter.code).cloned().unwrap_or_default(), ..meter.clone() };
                meters.iter().map(with_own).collect()
            }
        }
    }
}

/// Whether what is kept was read under this token; if not, it is forgotten.
pub fn is_current(token: Uuid) -> bool {
    KEPT.with_borrow_mut(|kept| {
        let is_current = kept.token == token;
        if !is_current {
            *kept = Kept { token, events: HashMap::new() };
        }
        is_current
    })
}

/// The meters of an event, if they are kept.
pub fn kept(event_name: &EventName) -> Option<Rc<[Meter]>> {
    KEPT.with_borrow(|kept| kept.events.get(event_name).cloned())
}

fn read(access: Access, event_name: &EventName) -> Rc<[Meter]> {
    let parameters = [Some(text(event_name.as_str()))];
    let rows = OF_EVENT.with(|statement| statement.run(access, &parameters));
    let mut token = None;
    let mut meters = Vec::new();
    for mut row in rows.iter() {
        token = Some(row.take::<Uuid>());
        meters.extend(meter(row, event_name));
    }
    let rows = PRICES.with(|statement| statement.run(access, &parameters));
    for mut row in rows.iter() {
        let code = MeterCode::stored(row.take());
        if let Some(meter) = meters.iter_mut().find(|meter| meter.code == code) {
            meter.prices.push(price_list(&mut row));
        }
    }
    // A meter whose first price list was committed after the meters were read is not there yet.
    meters.retain(|meter| !meter.prices.is_empty());
    let meters: Rc<[Meter]> = meters.into();
    KEPT.with_borrow_mut(|kept| {
        // What was read in two steps is kept only if nothing changed between them: the next call looks at the token again.
        if token == Some(kept.token) {
            if kept.events.len() >= EVENTS_MAX {
                kept.events.clear();
            }
            kept.events.insert(event_name.clone(), meters.clone());
        }
    });
    meters
}

fn meter(mut row: Row<'_>, event_name: &EventName) -> Option<Meter> {
    Some(Meter {
        code: MeterCode::stored(row.optional()?),
        event_name: event_name.clone(),
        aggregation: stored_code(row.take(), Aggregation::from_code),
        value_property: row.optional(),
        filter: stored_object(&row.take::<String>()),
        calendar: Calendar { every: row.take(), anchor: row.take(), zone: stored_code(row.take(), TimeZone::from_name) },
        scope: Scope { wallet: row.optional().map(WalletCode::stored), unit: row.take() },
        prices: Vec::new(),
        own_prices: Vec::new(),
        last_period: LastPeriod::default(),
    })
}

fn stored_object(json: &str) -> Map<String, Value> {
    match serde_json::from_str(json) {
        Ok(object) => object,
        Err(error) => panic!("a stored object: {error}"),
    }
}

fn price_list(row: &mut Row<'_>) -> PriceList {
    PriceList {
        effective_at: row.take(),
        pricing: match Pricing::parse(&row.take::<String>()) {
            Ok(pricing) => pricing,
            Err(error) => panic!("a stored price list: {error}"),
        },
    }
}

/// Holds the catalogue until the end of the transaction.
pub fn lock() {
    LOCK.with(|statement| statement.run(Access::Write, &[]));
}

pub fn exists(code: &MeterCode) -> bool {
    EXISTS.with(|statement| statement.run(Access::Write, &[Some(text(code.as_str()))])).count() > 0
}

/// The meters of an event as everybody sees them, read anew.
pub fn of_event(event_name: &EventName) -> Rc<[Meter]> {
    read(Access::Write, event_name)
}

/// Stores a meter, without its price lists; false if its code is taken.
pub fn create(meter: &Meter, created_at: Timestamp) -> bool {
    let parameters = [
        Some(text(meter.code.as_str())),
        Some(text(meter.event_name.as_str())),
        Some(text(meter.aggregation.code())),
        meter.value_property.as_deref().map(text),
        Some(text(&Value::Object(meter.filter.clone()).to_string())),
        Some(meter.calendar.every.encode()),
        Some(meter.calendar.anchor.encode()),
        Some(text(meter.calendar.zone.name())),
        meter.scope.wallet.as_ref().map(|wallet| text(wallet.as_str())),
        Some(text(&meter.scope.unit)),
        Some(created_at.encode()),
    ];
    CREATE.with(|statement| statement.run(Access::Write, &parameters)).count() > 0
}

/// Stores a price list, a customer's own or everybody's, in place of the one of the same instant.
pub fn set_pricing(customer_id: Option<&CustomerId>, code: &MeterCode, effective_at: Timestamp, pricing: &str, now: Timestamp) {
    let list = [Some(text(code.as_str())), Some(effective_at.encode()), Some(text(pricing)), Some(now.encode())];
    match customer_id {
        None => SET_PRICING.with(|statement| statement.run(Access::Write, &list)),
        Some(customer_id) => {
            MARK_OWN_PRICES.with(|statement| statement.run(Access::Write, &[Some(text(customer_id.as_str()))]));
            let own: Vec<_> = std::iter::once(Some(text(customer_id.as_str()))).chain(list).collect();
            SET_OWN_PRICING.with(|statement| statement.run(Access::Write, &own))
        }
    };
}

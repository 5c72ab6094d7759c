//! `create_meter`, `set_meter_pricing`, `price_usage`, `record_usage`, `check_entitlement`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, IntervalArgument, JsonbArgument, NumericArgument, TimeArgument, optional, required};
use super::usage::{deduction_row, scope};
use crate::domain::amount::Amount;
use crate::domain::calendar::Calendar;
use crate::domain::entitlement::Asked;
use crate::domain::meter::{Aggregation, LastPeriod, Meter, PriceList};
use crate::domain::metering::RecordUsage;
use crate::domain::names::{CustomerId, EventName, MeterCode};
use crate::domain::time::{TimeZone, Timestamp};
use crate::domain::usage::OnInsufficient;
use crate::error::Result;
use crate::ops;
use crate::storage::plain::Documents;

fn meter_code(value: Option<&str>) -> Result<MeterCode> {
    MeterCode::checked("meter", required("meter", value)?)
}

#[pg_extern]
fn create_meter(
    meter: Option<&str>,
    event_name: Option<&str>,
    aggregation: default!(Option<&str>, "'sum'"),
    value_property: default!(Option<&str>, "NULL"),
    filter: default!(Option<JsonbArgument>, "'{}'"),
    pricing: default!(Option<JsonbArgument>, r#"'{"model":"per_unit","credits":"1"}'"#),
    period: default!(Option<IntervalArgument>, "'1 month'"),
    anchor: default!(Option<TimeArgument>, "'2000-01-01 00:00+00'"),
    time_zone: default!(Option<&str>, "'UTC'"),
    wallet: default!(Option<&str>, "NULL"),
    unit: default!(Option<&str>, "'credits'"),
) -> Result<String, ErrorReport> {
    let (pricing, document) = argument::pricing(pricing)?;
    let meter = Meter {
        code: meter_code(meter)?,
        event_name: EventName::checked("event_name", required("event_name", event_name)?)?,
        aggregation: Aggregation::checked("aggregation", required("aggregation", aggregation)?)?,
        value_property: value_property.map(|name| argument::name("value_property", Some(name))).transpose()?,
        filter: argument::members("filter", &argument::metadata("filter", filter)?)?,
        calendar: Calendar {
            anchor: argument::instant("anchor", anchor)?,
            every: Calendar::checked_every("period", argument::interval("period", period)?)?,
            zone: TimeZone::checked("time_zone", required("time_zone", time_zone)?)?,
        },
        scope: scope(wallet, Some(required("unit", unit)?))?,
        prices: vec![PriceList { effective_at: Timestamp::BEFORE_ALL, pricing }],
        own_prices: Vec::new(),
        last_period: LastPeriod::default(),
    };
    meter.check()?;
    ops::metering::create(&meter, &document)?;
    Ok(meter.code.to_string())
}

#[pg_extern]
fn set_meter_pricing(
    meter: Option<&str>,
    pricing: Option<JsonbArgument>,
    effective_at: default!(Option<TimeArgument>, "NULL"),
    customer_id: default!(Option<&str>, "NULL"),
) -> Result<String, ErrorReport> {
    let code = meter_code(meter)?;
    let (_, document) = argument::pricing(pricing)?;
    let effective_at = optional("effective_at", effective_at, argument::instant)?;
    let customer_id = customer_id.map(|id| CustomerId::checked("customer_id", id)).transpose()?;
    ops::metering::set_pricing(&code, &document, effective_at, customer_id.as_ref())?;
    Ok(code.to_string())
}

#[pg_extern(stable)]
fn price_usage(
    event_name: Option<&str>,
    properties: default!(Option<JsonbArgument>, "'{}'"),
    customer_id: default!(Option<&str>, "NULL"),
    at: default!(Option<TimeArgument>, "NULL"),
) -> Result<
    TableIterator<'static, (name!(meter, String), name!(unit, String), name!(quantity, Amount), name!(credits, Amount))>,
    ErrorReport,
> {
    let event = argument::event(event_name, argument::metadata("properties", properties)?)?;
    let customer_id = customer_id.map(|id| CustomerId::checked("customer_id", id)).transpose()?;
    let at = optional("at", at, argument::instant)?;
    let quotes = ops::metering::price(customer_id.as_ref(), &event, at)?;
    let row = |quote: crate::domain::metering::Quote| (quote.meter.to_string(), quote.scope.unit, quote.quantity, quote.credits);
    Ok(TableIterator::new(quotes.into_iter().map(row)))
}

#[pg_extern]
fn record_usage(
    customer_id: Option<&str>,
    event_name: Option<&str>,
    properties: default!(Option<JsonbArgument>, "'{}'"),
    idempotency_key: default!(Option<&str>, "NULL"),
    occurred_at: default!(Option<TimeArgument>, "NULL"),
    on_insufficient: default!(Option<&str>, "'error'"),
    metadata: default!(Option<JsonbArgument>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(transaction_id, Option<String>),
            name!(status, String),
            name!(requested, Amount),
            name!(deducted, Amount),
            name!(overage, Amount),
            name!(balance, Amount),
            name!(replayed, bool),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let documents = Documents { metadata: metadata.map(JsonbArgument::datum), properties: properties.map(JsonbArgument::datum) };
    let request = RecordUsage {
        event: argument::event(event_name, argument::metadata("properties", properties)?)?,
        occurred_at: optional("occurred_at", occurred_at, argument::instant)?,
        on_insufficient: OnInsufficient::checked("on_insufficient", required("on_insufficient", on_insufficient)?)?,
        metadata: optional("metadata", metadata, argument::metadata)?,
    };
    let done = ops::metering::record(&customer_id, key, &request, documents)?;
    Ok(TableIterator::once(deduction_row(done)))
}

#[pg_extern(stable)]
fn check_entitlement(
    customer_id: Option<&str>,
    amount: default!(Option<NumericArgument>, "NULL"),
    event_name: default!(Option<&str>, "NULL"),
    properties: default!(Option<JsonbArgument>, "NULL"),
    wallet: default!(Option<&str>, "NULL"),
    unit: default!(Option<&str>, "'credits'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(allowed, bool),
            name!(reason, Option<String>),
            name!(required, Option<Amount>),
            name!(available, Amount),
            name!(overage_allowed, bool),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let scope = scope(wallet, unit)?;
    let amount = optional("amount", amount, argument::amount_or_zero)?;
    let properties = argument::properties_or_none(properties)?;
    let asked = match (amount, event_name) {
        (Some(amount), _) => Asked::Amount { amount, scope, event_name: argument::event_name(event_name)? },
        (None, Some(name)) => Asked::Event(argument::event(Some(name), properties)?),
        (None, None) => Asked::Anything { scope },
    };
    let answer = ops::metering::check(&customer_id, &asked)?;
    let reason = answer.reason.map(str::to_owned);
    Ok(TableIterator::once((answer.allowed, reason, answer.required, answer.available, answer.overage_allowed)))
}

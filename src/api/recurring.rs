//! `create_recurring_grant`, `update_recurring_grant`, `cancel_recurring_grant`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{
    self as argument, IntervalArgument, JsonbArgument, NumericArgument, Settings, TextsArgument, TimeArgument, optional, required,
};
use crate::domain::calendar::Calendar;
use crate::domain::grant::GrantType;
use crate::domain::names::RecurringCode;
use crate::domain::recurring::{CreateRecurringGrant, RecurringTerms, Rollover};
use crate::domain::time::{TimeZone, Timestamp};
use crate::error::{Error, Result};
use crate::ops;

fn code(value: Option<&str>) -> Result<RecurringCode> {
    RecurringCode::checked("recurring_grant", required("recurring_grant", value)?)
}

/// How many periods, 1 or more.
fn periods(argument: &'static str, value: Option<i32>) -> Result<u32> {
    match required(argument, value)?.try_into() {
        Ok(periods) if periods > 0 => Ok(periods),
        _ => Err(Error::invalid(argument, "it is not above zero", "Pass 1 or more; null, when it is created, is for ever.")),
    }
}

const PRIORITY: i32 = 100;
const ROLLOVER_PERIODS: u32 = 1;

#[pg_extern]
fn create_recurring_grant(
    customer_id: Option<&str>,
    recurring_grant: Option<&str>,
    amount: Option<NumericArgument>,
    every: Option<IntervalArgument>,
    wallet: default!(Option<&str>, "'default'"),
    grant_type: default!(Option<&str>, "'prepaid'"),
    starts_at: default!(Option<TimeArgument>, "NULL"),
    ends_at: default!(Option<TimeArgument>, "NULL"),
    anchor: default!(Option<TimeArgument>, "NULL"),
    time_zone: default!(Option<&str>, "'UTC'"),
    expires_after: default!(Option<IntervalArgument>, "NULL"),
    rollover_percent: default!(Option<NumericArgument>, "0"),
    rollover_cap: default!(Option<NumericArgument>, "NULL"),
    rollover_periods: default!(Option<i32>, "1"),
    prorate: default!(Option<bool>, "false"),
    priority: default!(Option<i32>, "100"),
    unit_price: default!(Option<NumericArgument>, "NULL"),
    currency: default!(Option<&str>, "NULL"),
    applies_to: default!(Option<TextsArgument>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "'{}'"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let (unit_price, currency) = argument::price(unit_price, currency)?;
    let request = CreateRecurringGrant {
        code: code(recurring_grant)?,
        wallet: argument::wallet_code("wallet", wallet)?,
        terms: RecurringTerms {
            amount: argument::amount("amount", amount)?,
            grant_type: GrantType::checked("grant_type", required("grant_type", grant_type)?)?,
            priority: required("priority", priority)?,
            expires_after: optional("expires_after", expires_after, argument::interval)?,
            rollover: Rollover {
                percent: argument::percent("rollover_percent", rollover_percent)?,
                cap: optional("rollover_cap", rollover_cap, argument::amount_or_zero)?,
                periods: optional("rollover_periods", rollover_periods, periods)?,
            },
            unit_price,
            currency,
            applies_to: optional("applies_to", applies_to, argument::applies_to)?,
            metadata: argument::metadata("metadata", metadata)?,
        },
        every: Calendar::checked_every("every", argument::interval_or_zero("every", every)?)?,
        zone: TimeZone::checked("time_zone", required("time_zone", time_zone)?)?,
        starts_at: optional("starts_at", starts_at, argument::instant)?,
        ends_at: optional("ends_at", ends_at, argument::instant)?,
        anchor: optional("anchor", anchor, argument::instant)?,
        prorate: required("prorate", prorate)?,
    };
    ops::recurring::create(&customer_id, &request)?;
    Ok(request.code.to_string())
}

#[pg_extern]
fn update_recurring_grant(
    customer_id: Option<&str>,
    recurring_grant: Option<&str>,
    amount: default!(Option<NumericArgument>, "NULL"),
    grant_type: default!(Option<&str>, "NULL"),
    ends_at: default!(Option<TimeArgument>, "NULL"),
    expires_after: default!(Option<IntervalArgument>, "NULL"),
    rollover_percent: default!(Option<NumericArgument>, "NULL"),
    rollover_cap: default!(Option<NumericArgument>, "NULL"),
    rollover_periods: default!(Option<i32>, "NULL"),
    priority: default!(Option<i32>, "NULL"),
    unit_price: default!(Option<NumericArgument>, "NULL"),
    currency: default!(Option<&str>, "NULL"),
    applies_to: default!(Option<TextsArgument>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "NULL"),
    reset: default!(Option<TextsArgument>, "'{}'"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let code = code(recurring_grant)?;
    let amount = optional("amount", amount, argument::amount)?;
    let grant_type = optional("grant_type", grant_type, |name, value| GrantType::checked(name, required(name, value)?))?;
    let ends_at = optional("ends_at", ends_at, argument::instant)?;
    let expires_after = optional("expires_after", expires_after, argument::interval)?;
    let percent = optional("rollover_percent", rollover_percent, argument::percent)?;
    let cap = optional("rollover_cap", rollover_cap, argument::amount_or_zero)?;
    let periods = optional("rollover_periods", rollover_periods, periods)?;
    let unit_price = optional("unit_price", unit_price, argument::amount_or_zero)?;
    let currency = optional("currency", currency, argument::currency)?;
    let applies_to = optional("applies_to", applies_to, argument::applies_to)?;
    let metadata = optional("metadata", metadata, argument::metadata)?;
    let mut settings = Settings::reset(argument::names("reset", reset)?);
    ops::recurring::update(&customer_id, &code, |terms, end| {
        terms.amount = amount.unwrap_or(terms.amount);
        settings.set("grant_type", &mut terms.grant_type, grant_type, GrantType::Prepaid)?;
        settings.set("ends_at", end, ends_at, Timestamp::NEVER)?;
        settings.set("expires_after", &mut terms.expires_after, expires_after.map(Some), None)?;
        settings.set("rollover_percent", &mut terms.rollover.percent, percent, Default::default())?;
        settings.set("rollover_cap", &mut terms.rollover.cap, cap.map(Some), None)?;
        settings.set("rollover_periods", &mut terms.rollover.periods, periods.map(Some), Some(ROLLOVER_PERIODS))?;
        settings.set("priority", &mut terms.priority, priority, PRIORITY)?;
        settings.set("unit_price", &mut terms.unit_price, unit_price.map(Some), None)?;
        settings.set("currency", &mut terms.currency, currency.map(Some), None)?;
        settings.set("applies_to", &mut terms.applies_to, applies_to.map(Some), None)?;
        settings.set("metadata", &mut terms.metadata, metadata, "{}".into())?;
        settings.done("Name settings of update_recurring_grant, such as 'ends_at'.")
    })?;
    Ok(code.to_string())
}

#[pg_extern]
fn cancel_recurring_grant(
    customer_id: Option<&str>,
    recurring_grant: Option<&str>,
    at: default!(Option<TimeArgument>, "NULL"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let code = code(recurring_grant)?;
    ops::recurring::cancel(&customer_id, &code, optional("at", at, argument::instant)?)?;
    Ok(code.to_string())
}

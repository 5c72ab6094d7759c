//! `set_auto_top_up`, `request_top_up`, `claim_top_ups`, `complete_top_up`, `fail_top_up`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, IntervalArgument, NumericArgument, UuidArgument, optional, required};
use crate::domain::amount::Amount;
use crate::domain::names::CustomerId;
use crate::domain::time::Timestamp;
use crate::domain::top_up::{Size, TopUp, TopUpRule};
use crate::error::{Error, Result};
use crate::ops;

fn size(amount: Option<NumericArgument>, target_balance: Option<NumericArgument>) -> Result<Size> {
    let amount = optional("amount", amount, argument::amount)?;
    let target = optional("target_balance", target_balance, argument::amount)?;
    match (amount, target) {
        (Some(amount), None) => Ok(Size::Amount(amount)),
        (None, Some(target)) => Ok(Size::Target(target)),
        (amount, _) => Err(Error::invalid(
            "target_balance",
            if amount.is_some() { "there is an amount too" } else { "there is no amount either" },
            "Give amount, the credits of a top-up, or target_balance, which it fills the wallet up to.",
        )),
    }
}

/// The most top-ups of a period that are counted.
const MAX_PER_PERIOD: i32 = 1000;

fn max_per_period(argument: &'static str, value: Option<i32>) -> Result<i32> {
    match required(argument, value)? {
        count @ 1..=MAX_PER_PERIOD => Ok(count),
        count => Err(Error::invalid(
            argument,
            format!("{count} is not between 1 and {MAX_PER_PERIOD}"),
            "Pass how many top-ups a period may have at most; null is no limit.",
        )),
    }
}

#[pg_extern]
fn set_auto_top_up(
    customer_id: Option<&str>,
    wallet: Option<&str>,
    threshold: Option<NumericArgument>,
    amount: default!(Option<NumericArgument>, "NULL"),
    target_balance: default!(Option<NumericArgument>, "NULL"),
    payment_method_id: default!(Option<&str>, "NULL"),
    cooldown: default!(Option<IntervalArgument>, "'0'"),
    max_per_period: default!(Option<i32>, "NULL"),
    period: default!(Option<IntervalArgument>, "'1 month'"),
    expires_after: default!(Option<IntervalArgument>, "NULL"),
    unit_price: default!(Option<NumericArgument>, "NULL"),
    currency: default!(Option<&str>, "NULL"),
    enabled: default!(Option<bool>, "true"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let (unit_price, currency) = argument::price(unit_price, currency)?;
    let rule = TopUpRule {
        wallet: argument::wallet_code("wallet", wallet)?,
        threshold: argument::amount_or_zero("threshold", threshold)?,
        size: size(amount, target_balance)?,
        payment_method_id: optional("payment_method_id", payment_method_id, argument::name)?,
        cooldown: argument::interval_or_zero("cooldown", cooldown)?,
        max_per_period: optional("max_per_period", max_per_period, self::max_per_period)?,
        period: argument::interval("period", period)?,
        expires_after: optional("expires_after", expires_after, argument::interval)?,
        price: unit_price.zip(currency),
        enabled: required("enabled", enabled)?,
        failures: 0,
        wanted: None,
        due_at: Timestamp::NEVER,
    };
    rule.check()?;
    let wallet = rule.wallet.to_string();
    ops::top_ups::set_rule(&customer_id, rule)?;
    Ok(wallet)
}

#[pg_extern]
fn request_top_up(
    customer_id: Option<&str>,
    wallet: default!(Option<&str>, "'default'"),
    amount: default!(Option<NumericArgument>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = argument::wallet_code("wallet", wallet)?;
    let amount = optional("amount", amount, argument::amount)?;
    Ok(argument::uuid(ops::top_ups::request(&customer_id, &wallet, amount)?))
}

#[pg_extern]
fn claim_top_ups(
    batch_size: default!(Option<i32>, "100"),
    lease: default!(Option<IntervalArgument>, "'5 minutes'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(top_up_id, pgrx::Uuid),
            name!(customer_id, String),
            name!(wallet, String),
            name!(amount, Amount),
            name!(payment_method_id, Option<String>),
            name!(unit_price, Option<Amount>),
            name!(currency, Option<String>),
            name!(attempt, i32),
        ),
    >,
    ErrorReport,
> {
    let claimed = ops::top_ups::claim(argument::batch_size(batch_size)?, argument::interval("lease", lease)?)?;
    let row = |(customer_id, top_up): (CustomerId, TopUp)| {
        let (unit_price, currency) = top_up.price.unzip();
        (
            argument::uuid(top_up.id),
            customer_id.to_string(),
            top_up.wallet.to_string(),
            top_up.amount,
            top_up.payment_method_id,
            unit_price,
            currency,
            top_up.failures + 1,
        )
    };
    Ok(TableIterator::new(claimed.into_iter().map(row)))
}

#[pg_extern]
fn complete_top_up(
    customer_id: Option<&str>,
    top_up_id: Option<UuidArgument>,
    payment_reference: Option<&str>,
) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let id = argument::id("top_up_id", top_up_id)?;
    let reference = argument::name("payment_reference", payment_reference)?;
    Ok(argument::uuid(ops::top_ups::complete(&customer_id, id, &reference)?))
}

#[pg_extern]
fn fail_top_up(
    customer_id: Option<&str>,
    top_up_id: Option<UuidArgument>,
    reason: Option<&str>,
    retry_after: default!(Option<IntervalArgument>, "NULL"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let id = argument::id("top_up_id", top_up_id)?;
    let reason = argument::reason_text(required("reason", reason)?)?;
    let retry_after = optional("retry_after", retry_after, argument::interval_or_zero)?;
    Ok(ops::top_ups::fail(&customer_id, id, reason, retry_after)?.code().to_owned())
}

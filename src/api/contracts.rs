//! `create_contract`, `cancel_contract`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, IntervalArgument, JsonbArgument, NumericArgument, TimeArgument, optional, required};
use crate::domain::amount::Amount;
use crate::domain::contract::{Contract, INSTALLMENTS_MAX, OnEnd};
use crate::domain::names::ContractCode;
use crate::error::{Error, Result};
use crate::ops;

fn code(value: Option<&str>) -> Result<ContractCode> {
    ContractCode::checked("contract", required("contract", value)?)
}

fn installments(value: Option<i32>) -> Result<i32> {
    match required("installments", value)? {
        count @ 1..=INSTALLMENTS_MAX => Ok(count),
        count => Err(Error::invalid(
            "installments",
            format!("{count} is not between 1 and {INSTALLMENTS_MAX}"),
            "Pass how many equal parts the commitment is granted in.",
        )),
    }
}

#[pg_extern]
fn create_contract(
    customer_id: Option<&str>,
    contract: Option<&str>,
    committed_credits: Option<NumericArgument>,
    starts_at: Option<TimeArgument>,
    ends_at: Option<TimeArgument>,
    wallet: default!(Option<&str>, "'default'"),
    unit_price: default!(Option<NumericArgument>, "NULL"),
    currency: default!(Option<&str>, "NULL"),
    installments: default!(Option<i32>, "1"),
    installment_every: default!(Option<IntervalArgument>, "NULL"),
    on_end: default!(Option<&str>, "'expire'"),
    rollover_percent: default!(Option<NumericArgument>, "100"),
    rollover_cap: default!(Option<NumericArgument>, "NULL"),
    rollover_expires_after: default!(Option<IntervalArgument>, "NULL"),
    minimum_spend: default!(Option<bool>, "false"),
    metadata: default!(Option<JsonbArgument>, "'{}'"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let (unit_price, currency) = argument::price(unit_price, currency)?;
    let code = code(contract)?;
    let contract = Contract {
        code: code.clone(),
        wallet: argument::wallet_code("wallet", wallet)?,
        committed: argument::amount("committed_credits", committed_credits)?,
        starts_at: argument::instant("starts_at", starts_at)?,
        ends_at: argument::instant("ends_at", ends_at)?,
        cancelled_at: None,
        installments: self::installments(installments)?,
        installment_every: optional("installment_every", installment_every, argument::interval)?,
        on_end: OnEnd::checked("on_end", required("on_end", on_end)?)?,
        rollover_percent: argument::percent("rollover_percent", rollover_percent)?,
        rollover_cap: optional("rollover_cap", rollover_cap, argument::amount_or_zero)?,
        rollover_expires_after: optional("rollover_expires_after", rollover_expires_after, argument::interval)?,
        minimum_spend: required("minimum_spend", minimum_spend)?,
        unit_price,
        currency,
        metadata: argument::metadata("metadata", metadata)?,
        granted: 0,
        granted_credits: Amount::ZERO,
        rolled_over_credits: Amount::ZERO,
        has_ended: false,
    };
    ops::contracts::create(&customer_id, contract)?;
    Ok(code.to_string())
}

#[pg_extern]
fn cancel_contract(
    customer_id: Option<&str>,
    contract: Option<&str>,
    at: default!(Option<TimeArgument>, "NULL"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let code = code(contract)?;
    ops::contracts::cancel(&customer_id, &code, optional("at", at, argument::instant)?)?;
    Ok(code.to_string())
}

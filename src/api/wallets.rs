//! `create_wallet`, `update_wallet`, `set_wallet_status`, `transfer_credits`, `adjust_credits`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{
    self as argument, IntervalArgument, JsonbArgument, NumericArgument, Settings, TextsArgument, optional, required,
};
use crate::domain::amount::Amount;
use crate::domain::granting::AdjustCredits;
use crate::domain::transfer::TransferCredits;
use crate::domain::wallet::{OveragePolicy, WalletSettings, WalletStatus};
use crate::error::{Error, Result};
use crate::ops;

#[pg_extern]
fn create_wallet(
    customer_id: Option<&str>,
    wallet: default!(Option<&str>, "'default'"),
    name: default!(Option<&str>, "NULL"),
    unit: default!(Option<&str>, "'credits'"),
    priority: default!(Option<i32>, "100"),
    expires_after: default!(Option<IntervalArgument>, "NULL"),
    overage_policy: default!(Option<&str>, "'block'"),
    overage_limit: default!(Option<NumericArgument>, "NULL"),
    overage_unit_price: default!(Option<NumericArgument>, "NULL"),
    overage_currency: default!(Option<&str>, "NULL"),
    late_usage_grace: default!(Option<IntervalArgument>, "'0'"),
    metadata: default!(Option<JsonbArgument>, "'{}'"),
    if_not_exists: default!(Option<bool>, "false"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = argument::wallet_code("wallet", wallet)?;
    let unit = argument::name("unit", unit)?;
    let settings = WalletSettings {
        name: optional("name", name, argument::name)?,
        priority: required("priority", priority)?,
        expires_after: optional("expires_after", expires_after, argument::interval)?,
        overage_policy: policy(overage_policy)?,
        overage_limit: optional("overage_limit", overage_limit, argument::amount_or_zero)?,
        overage_unit_price: optional("overage_unit_price", overage_unit_price, argument::amount_or_zero)?,
        overage_currency: optional("overage_currency", overage_currency, argument::currency)?,
        late_usage_grace: argument::interval_or_zero("late_usage_grace", late_usage_grace)?,
        metadata: argument::metadata("metadata", metadata)?,
    };
    settings.check()?;
    let if_not_exists = required("if_not_exists", if_not_exists)?;
    ops::wallets::create(&customer_id, &wallet, &unit, &settings, if_not_exists)?;
    Ok(wallet.to_string())
}

fn policy(code: Option<&str>) -> Result<OveragePolicy> {
    OveragePolicy::checked("overage_policy", required("overage_policy", code)?)
}

#[pg_extern]
fn update_wallet(
    customer_id: Option<&str>,
    wallet: Option<&str>,
    name: default!(Option<&str>, "NULL"),
    priority: default!(Option<i32>, "NULL"),
    expires_after: default!(Option<IntervalArgument>, "NULL"),
    overage_policy: default!(Option<&str>, "NULL"),
    overage_limit: default!(Option<NumericArgument>, "NULL"),
    overage_unit_price: default!(Option<NumericArgument>, "NULL"),
    overage_currency: default!(Option<&str>, "NULL"),
    late_usage_grace: default!(Option<IntervalArgument>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "NULL"),
    reset: default!(Option<TextsArgument>, "'{}'"),
) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = argument::wallet_code("wallet", wallet)?;
    let name = optional("name", name, argument::name)?;
    let expires_after = optional("expires_after", expires_after, argument::interval)?;
    let overage_policy = optional("overage_policy", overage_policy, |_, code| policy(code))?;
    let overage_limit = optional("overage_limit", overage_limit, argument::amount_or_zero)?;
    let overage_unit_price = optional("overage_unit_price", overage_unit_price, argument::amount_or_zero)?;
    let overage_currency = optional("overage_currency", overage_currency, argument::currency)?;
    let late_usage_grace = optional("late_usage_grace", late_usage_grace, argument::interval_or_zero)?;
    let metadata = optional("metadata", metadata, argument::metadata)?;
    let mut changes = Settings::reset(argument::names("reset", reset)?);

    let change = |settings: &mut WalletSettings| {
        let default = WalletSettings::default();
        changes.set("name", &mut settings.name, name.map(Some), default.name)?;
        changes.set("priority", &mut settings.priority, priority, default.priority)?;
        changes.set("expires_after", &mut settings.expires_after, expires_after.map(Some), default.expires_after)?;
        changes.set("overage_policy", &mut settings.overage_policy, overage_policy, default.overage_policy)?;
        changes.set("overage_limit", &mut settings.overage_limit, overage_limit.map(Some), default.overage_limit)?;
        changes.set(
            "overage_unit_price",
            &mut settings.overage_unit_price,
            overage_unit_price.map(Some),
            default.overage_unit_price,
        )?;
        changes.set("overage_currency", &mut settings.overage_currency, overage_currency.map(Some), default.overage_currency)?;
        changes.set("late_usage_grace", &mut settings.late_usage_grace, late_usage_grace, default.late_usage_grace)?;
        changes.set("metadata", &mut settings.metadata, metadata, default.metadata)?;
        changes.done("Name settings of update_wallet, such as 'expires_after'.")?;
        settings.check()
    };
    ops::wallets::configure(&customer_id, &wallet, change)?;
    Ok(wallet.to_string())
}

#[pg_extern]
fn set_wallet_status(customer_id: Option<&str>, wallet: Option<&str>, status: Option<&str>) -> Result<String, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let wallet = argument::wallet_code("wallet", wallet)?;
    let status = WalletStatus::checked("status", required("status", status)?)?;
    ops::wallets::set_status(&customer_id, &wallet, status)?;
    Ok(status.code().to_owned())
}

#[pg_extern]
fn transfer_credits(
    customer_id: Option<&str>,
    amount: Option<NumericArgument>,
    from_wallet: Option<&str>,
    to_wallet: Option<&str>,
    idempotency_key: default!(Option<&str>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "'{}'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(transaction_id, String),
            name!(transferred, Amount),
            name!(from_balance, Amount),
            name!(to_balance, Amount),
            name!(replayed, bool),
        ),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let request = TransferCredits {
        amount: argument::amount("amount", amount)?,
        from_wallet: argument::wallet_code("from_wallet", from_wallet)?,
        to_wallet: argument::wallet_code("to_wallet", to_wallet)?,
        metadata: Some(argument::metadata("metadata", metadata)?).filter(|metadata| metadata != "{}"),
    };
    if request.from_wallet == request.to_wallet {
        return Err(Error::invalid("to_wallet", "it is the wallet to take from", "Name two wallets.").into());
    }
    let done = ops::wallets::transfer(&customer_id, key.as_ref(), &request)?;
    Ok(TableIterator::once((
        done.transaction_id.to_string(),
        done.transferred,
        done.from_balance,
        done.to_balance,
        done.replayed,
    )))
}

#[pg_extern]
fn adjust_credits(
    customer_id: Option<&str>,
    amount: Option<NumericArgument>,
    reason: Option<&str>,
    wallet: default!(Option<&str>, "'default'"),
    idempotency_key: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (name!(transaction_id, String), name!(adjusted, Amount), name!(balance, Amount), name!(replayed, bool)),
    >,
    ErrorReport,
> {
    let customer_id = argument::customer_id(customer_id)?;
    let amount = argument::signed_amount("amount", amount)?;
    if amount.is_zero() {
        return Err(Error::invalid(
            "amount",
            "it is zero",
            "Pass a positive amount to give credits, a negative one to take them.",
        )
        .into());
    }
    let request = AdjustCredits {
        amount,
        wallet: argument::wallet_code("wallet", wallet)?,
        metadata: required("reason", argument::reason(reason)?)?,
    };
    let key = argument::key(idempotency_key)?;
    let done = ops::wallets::adjust(&customer_id, key.as_ref(), &request)?;
    Ok(TableIterator::once((done.transaction_id.to_string(), done.adjusted, done.balance, done.replayed)))
}

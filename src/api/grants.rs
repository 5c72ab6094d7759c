//! `grant_credits`, `void_grant`, `change_expiry`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{
    self as argument, JsonbArgument, NumericArgument, TextsArgument, TimeArgument, UuidArgument, optional, required,
};
use crate::domain::amount::Amount;
use crate::domain::grant::GrantType;
use crate::domain::granting::{ChangeExpiry, GrantCredits, VoidGrant};
use crate::ops;

#[pg_extern]
fn grant_credits(
    customer_id: Option<&str>,
    amount: Option<NumericArgument>,
    wallet: default!(Option<&str>, "'default'"),
    grant_type: default!(Option<&str>, "'prepaid'"),
    expires_at: default!(Option<TimeArgument>, "NULL"),
    effective_at: default!(Option<TimeArgument>, "NULL"),
    priority: default!(Option<i32>, "100"),
    unit_price: default!(Option<NumericArgument>, "NULL"),
    currency: default!(Option<&str>, "NULL"),
    applies_to: default!(Option<TextsArgument>, "NULL"),
    metadata: default!(Option<JsonbArgument>, "'{}'"),
    idempotency_key: default!(Option<&str>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let (unit_price, currency) = argument::price(unit_price, currency)?;
    let request = GrantCredits {
        amount: argument::amount("amount", amount)?,
        wallet: argument::wallet_code("wallet", wallet)?,
        grant_type: GrantType::checked("grant_type", required("grant_type", grant_type)?)?,
        expires_at: optional("expires_at", expires_at, argument::expiry)?,
        effective_at: optional("effective_at", effective_at, argument::instant)?,
        priority: required("priority", priority)?,
        unit_price,
        currency,
        applies_to: optional("applies_to", applies_to, argument::applies_to)?,
        metadata: argument::metadata("metadata", metadata)?,
    };
    Ok(argument::uuid(ops::grants::grant(&customer_id, key.as_ref(), &request)?))
}

#[pg_extern]
fn void_grant(
    customer_id: Option<&str>,
    grant_id: Option<UuidArgument>,
    reason: default!(Option<&str>, "NULL"),
    amount: default!(Option<NumericArgument>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
) -> Result<Amount, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let request = VoidGrant {
        grant_id: argument::id("grant_id", grant_id)?,
        amount: optional("amount", amount, argument::amount)?,
        metadata: argument::reason(reason)?,
    };
    Ok(ops::grants::void(&customer_id, key.as_ref(), &request)?)
}

#[pg_extern]
fn change_expiry(
    customer_id: Option<&str>,
    grant_id: Option<UuidArgument>,
    expires_at: Option<TimeArgument>,
    reason: default!(Option<&str>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let key = argument::key(idempotency_key)?;
    let request = ChangeExpiry {
        grant_id: argument::id("grant_id", grant_id)?,
        expires_at: argument::expiry("expires_at", expires_at)?,
        metadata: argument::reason(reason)?,
    };
    Ok(argument::uuid(ops::grants::change_expiry(&customer_id, key.as_ref(), &request)?))
}

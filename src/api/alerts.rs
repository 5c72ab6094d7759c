//! `create_alert`, `drop_alert`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, NumericArgument, UuidArgument, optional};
use super::webhooks;
use crate::domain::watch::{Alert, Threshold};
use crate::error::{Error, Result};
use crate::ops;

fn threshold(percent: Option<NumericArgument>, credits: Option<NumericArgument>) -> Result<Threshold> {
    let percent = optional("threshold_percent", percent, argument::percent)?;
    let credits = optional("threshold_credits", credits, argument::amount_or_zero)?;
    match (percent, credits) {
        (Some(percent), None) => Ok(Threshold::Percent(percent)),
        (None, Some(credits)) => Ok(Threshold::Credits(credits)),
        (percent, _) => Err(Error::invalid(
            "threshold_credits",
            if percent.is_some() { "there is a threshold_percent too" } else { "there is no threshold" },
            "Give threshold_percent or threshold_credits.",
        )),
    }
}

#[pg_extern]
fn create_alert(
    customer_id: Option<&str>,
    wallet: Option<&str>,
    threshold_percent: default!(Option<NumericArgument>, "NULL"),
    threshold_credits: default!(Option<NumericArgument>, "NULL"),
    rearm: default!(Option<NumericArgument>, "NULL"),
    webhook_url: default!(Option<&str>, "NULL"),
    secret: default!(Option<&str>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let alert = Alert {
        id: ops::alerts::new_id()?,
        wallet: argument::wallet_code("wallet", wallet)?,
        threshold: threshold(threshold_percent, threshold_credits)?,
        rearm: optional("rearm", rearm, argument::amount_or_zero)?,
        is_armed: true,
        fired_at: None,
        dropped_at: None,
    };
    alert.check()?;
    let endpoint = match (webhook_url, secret) {
        (Some(url), secret) => Some((webhooks::url("webhook_url", url)?, webhooks::secret(secret)?)),
        (None, None) => None,
        (None, Some(_)) => {
            let hint = "Give a webhook_url too, or leave the secret out.";
            return Err(Error::invalid("secret", "there is no webhook_url that it would sign for", hint).into());
        }
    };
    let id = alert.id;
    ops::alerts::create(&customer_id, alert, endpoint.as_ref())?;
    Ok(argument::uuid(id))
}

#[pg_extern]
fn drop_alert(customer_id: Option<&str>, alert_id: Option<UuidArgument>) -> Result<pgrx::Uuid, ErrorReport> {
    let customer_id = argument::customer_id(customer_id)?;
    let id = argument::id("alert_id", alert_id)?;
    ops::alerts::drop(&customer_id, id)?;
    Ok(argument::uuid(id))
}

//! `create_webhook_endpoint`, `rotate_webhook_secret`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments::{self as argument, IntervalArgument, TextsArgument, UuidArgument, optional, required, uuid};
use crate::domain::event::EventType;
use crate::domain::webhook::{AllowedHosts, EndpointUrl, Secret};
use crate::error::{Error, Result};
use crate::{ops, settings};

/// The types an endpoint subscribes to, one or more.
fn event_types(argument: &'static str, value: Option<TextsArgument>) -> Result<Vec<EventType>> {
    let codes = argument::names(argument, value)?;
    if codes.is_empty() {
        return Err(Error::invalid(argument, "it is empty, so that nothing would be sent", "Name types, or pass null for all."));
    }
    let mut types = codes.iter().map(|code| EventType::checked(argument, code)).collect::<Result<Vec<_>>>()?;
    types.sort_unstable();
    types.dedup();
    Ok(types)
}

pub fn url(argument: &'static str, text: &str) -> Result<EndpointUrl> {
    let allowed_hosts = AllowedHosts::parse(&settings::text(&settings::WEBHOOK_ALLOWED_HOSTS));
    EndpointUrl::checked(argument, text, &allowed_hosts)
}

pub fn secret(value: Option<&str>) -> Result<Secret> {
    value.map_or_else(|| Ok(Secret::generate()), |text| Secret::checked("secret", text))
}

#[pg_extern]
fn create_webhook_endpoint(
    url: Option<&str>,
    event_types: default!(Option<TextsArgument>, "NULL"),
    secret: default!(Option<&str>, "NULL"),
) -> Result<pgrx::Uuid, ErrorReport> {
    let url = self::url("url", required("url", url)?)?;
    let types = optional("event_types", event_types, self::event_types)?;
    let secret = self::secret(secret)?;
    Ok(uuid(ops::webhooks::create_endpoint(&url, types.as_deref(), &secret)))
}

#[pg_extern]
fn rotate_webhook_secret(
    endpoint_id: Option<UuidArgument>,
    secret: default!(Option<&str>, "NULL"),
    overlap: default!(Option<IntervalArgument>, "'24 hours'"),
) -> Result<pgrx::Uuid, ErrorReport> {
    let endpoint_id = argument::id("endpoint_id", endpoint_id)?;
    let secret = self::secret(secret)?;
    let overlap = argument::interval_or_zero("overlap", overlap)?;
    ops::webhooks::rotate_secret(endpoint_id, &secret, overlap)?;
    Ok(uuid(endpoint_id))
}

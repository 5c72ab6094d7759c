//! Webhooks: where events are told, and the secret that signs them (SPEC 9; <https://www.standardwebhooks.com>).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;

use super::address;
use crate::error::{Error, Result};

/// Hosts that may be spoken to over plain http and at private addresses (`credits.webhook_allowed_hosts`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<(String, Option<u16>)>);

impl AllowedHosts {
    /// From `host` or `host:port`, with commas between them; an IPv6 address stands in brackets. Without a port all are allowed.
    pub fn parse(text: &str) -> Self {
        let hosts = text.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
        Self(hosts.map(|host| with_port(&host).unwrap_or((host, None))).collect())
    }

    /// Whether a host, as a URL writes it, is one of them.
    pub fn allow(&self, host: &str, port: u16) -> bool {
        let is_allowed = |(allowed, allowed_port): &(String, Option<u16>)| {
            allowed.eq_ignore_ascii_case(host) && allowed_port.is_none_or(|allowed_port| allowed_port == port)
        };
        self.0.iter().any(is_allowed)
    }
}

fn with_port(host: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = host.rsplit_once(':')?;
    Some((name.to_owned(), Some(port.parse().ok()?)))
}

/// Where events are POSTed to: https, a public host, no user; or what a superuser allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl(String);

const URL_BYTES_MAX: usize = 2000;

impl EndpointUrl {
    /// Refuses (22023) what is no URL, or one of a host that must not be called, as far as that can be told without resolving its
    /// name; the addresses are looked at whenever a connection is made. Messages do not repeat the URL, which may hold a secret.
    pub fn checked(argument: &'static str, text: &str, allowed_hosts: &AllowedHosts) -> Result<Self> {
        let problem = match problem(text, allowed_hosts) {
            None => return Ok(Self(text.to_owned())),
            Some(problem) => problem,
        };
        Err(Error::invalid(
            argument,
            problem,
            "Pass a URL such as 'https://example.com/hooks' of a public host. A superuser can allow others with \
             credits.webhook_allowed_hosts.",
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn problem(text: &str, allowed_hosts: &AllowedHosts) -> Option<String> {
    if text.len() > URL_BYTES_MAX {
        return Some(format!("it has {} bytes, {URL_BYTES_MAX} are allowed", text.len()));
    }
    let uri = match text.parse::<Uri>() {
        Ok(uri) if !text.contains('#') => uri,
        _ => return Some("it is not a URL without a fragment".into()),
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Some("it is not an absolute URL".into());
    };
    if !["https", "http"].contains(&scheme) {
        return Some("its scheme is not https".into());
    }
    if authority.as_str().contains('@') {
        return Some("it names a user".into());
    }
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => default_port(scheme),
        _ => authority.port_u16().unwrap_or(0),
    };
    if host.is_empty() || port == 0 {
        return Some("its host or port is missing or not valid".into());
    }
    if allowed_hosts.allow(host, port) {
        return None;
    }
    if scheme != "https" {
        return Some("its scheme is not https".into());
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost") || address::literal(host).is_some_and(address::is_refused);
    is_local.then(|| "its host is not public".into())
}

/// The port that a URL of this scheme means if it names none.
pub fn default_port(scheme: &str) -> u16 {
    if scheme == "http" { 80 } else { 443 }
}

/// A key that signs deliveries: `whsec_` and the base64 of 24 to 64 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    key: Vec<u8>,
}

const SECRET_PREFIX: &str = "whsec_";
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;

impl Secret {
    /// From an argument of a call, or a row; anything else is 22023.
    pub fn checked(argument: &'static str, text: &str) -> Result<Self> {
        let key = text.strip_prefix(SECRET_PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
        match key {
            Some(key) if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Self { text: text.to_owned(), key }),
            _ => Err(Error::invalid(
                argument,
                format!("it is not {SECRET_PREFIX} and the base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes"),
                "Pass null to have one made.",
            )),
        }
    }

    /// From random bytes.
    pub fn of(key: [u8; 32]) -> Self {
        Self { text: format!("{SECRET_PREFIX}{}", STANDARD.encode(key)), key: key.to_vec() }
    }

    /// As it is stored and given to the receiver.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The bytes that sign.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(url: &str, allowed: &str) -> bool {
        EndpointUrl::checked("url", url, &AllowedHosts::parse(allowed)).is_ok()
    }

    #[test]
    fn an_endpoint_is_public_and_https() {
        for url in ["https://example.com", "https://example.com:8443/a?b=c", "https://8.8.8.8/", "https://[2606:4700::1111]/x"] {
            assert!(is_accepted(url, ""), "{url}");
        }
        for url in [
            "",
            "example.com",
            "/hooks",
            "http://example.com",
            "ftp://example.com",
            "https://",
            "https://:443/",
            "https://a:0/",
            "https://a:99999/",
            "https://user:pass@example.com/",
            "https://user@example.com/",
            "https://example.com/#part",
            "https://exämple.com/",
            "https://exa mple.com/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://10.1.2.3:8443/",
            "mailto:a@example.com",
        ] {
            assert!(!is_accepted(url, ""), "{url}");
        }
    }

    #[test]
    fn a_superuser_allows_hosts_with_or_without_port() {
        let allowed = "127.0.0.1:8080, Internal.example ,[::1]:81";
        for url in ["http://127.0.0.1:8080/x", "https://127.0.0.1:8080", "http://internal.example/", "http://internal.example:9/"]
        {
            assert!(is_accepted(url, allowed), "{url}");
        }
        assert!(is_accepted("http://[::1]:81/", allowed));
        for url in
            ["http://127.0.0.1/", "http://127.0.0.1:8081/", "http://[::1]/", "http://other.example/", "ftp://internal.example/"]
        {
            assert!(!is_accepted(url, allowed), "{url}");
        }
        assert!(!is_accepted("http://u@internal.example/", allowed));
    }

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        let encoded = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7_u8; bytes]));
        for bytes in [24, 32, 64] {
            assert_eq!(Secret::checked("secret", &encoded(bytes)).map(|secret| secret.key().len()), Ok(bytes));
        }
        for text in [encoded(23), encoded(65), "whsec_".into(), "whsec_!".into(), STANDARD.encode([7_u8; 32])] {
            let error = Secret::checked("secret", &text).expect_err("no secret");
            assert!(text.len() < 10 || !error.to_string().contains(&text), "a message never repeats a secret");
        }
        let made = Secret::of([9; 32]);
        assert_eq!(Secret::checked("secret", made.as_str()), Ok(made.clone()));
        assert_eq!(format!("{made:?}"), "Secret(...)");
    }
}

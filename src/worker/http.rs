//! One attempt: a signed POST, bounded in time and in what is read of the answer, to a public address.
//!
//! Runs in helper threads: nothing here calls PostgreSQL.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::Agent;
use ureq::config::Config;
use ureq::http::header::RETRY_AFTER;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, NextTimeout, RustlsConnector, TcpConnector};

use super::signing;
use crate::domain::address;
use crate::domain::webhook::{AllowedHosts, EndpointUrl, Secret, default_port};

const USER_AGENT: &str = concat!("pg_credits/", env!("CARGO_PKG_VERSION"));

/// So much of an answer is read, to have the connection for the next request; after more the connection is closed.
const ANSWER_BYTES_MAX: u64 = 4096;

/// How long a connection may wait for the next request.
const IDLE_MAX: Duration = Duration::from_secs(10);

const ERROR_CHARS_MAX: usize = 300;

/// What attempts go by; made anew when the server's settings are read again.
#[derive(Debug)]
pub struct Settings {
    /// For a whole attempt: look-up, connection, TLS, request and answer.
    pub timeout: Duration,
    pub allowed_hosts: AllowedHosts,
    /// Authorities whose certificates are trusted.
    pub authorities: RootCerts,
}

/// Mozilla's authorities, and those of a PEM file.
pub fn authorities(pem: &[u8]) -> Result<RootCerts, String> {
    let mut certificates: Vec<Certificate<'static>> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der)).collect();
    for item in ureq::tls::parse_pem(pem) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    Ok(RootCerts::from(certificates))
}

/// What is sent, and where.
#[derive(Debug)]
pub struct Request<'a> {
    pub url: &'a str,
    pub secrets: &'a [Secret],
    pub event_id: &'a str,
    pub body: &'a str,
}

/// Why an attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// None if there was no answer.
    pub status: Option<u16>,
    pub error: String,
    /// How long the receiver asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn without_answer(error: impl fmt::Display) -> Self {
        Self { status: None, error: error.to_string().chars().take(ERROR_CHARS_MAX).collect(), retry_after: None }
    }
}

/// Keeps connections from one attempt to the next.
#[derive(Debug)]
pub struct Client {
    settings: Arc<Settings>,
    agent: Agent,
}

impl Client {
    pub fn new(settings: Arc<Settings>) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(settings.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None) // whatever the server's environment says
            .user_agent(USER_AGENT)
            .max_idle_age(IDLE_MAX)
            .tls_config(TlsConfig::builder().root_certs(settings.authorities.clone()).build())
            .build();
        let resolver = PublicResolver { allowed_hosts: settings.allowed_hosts.clone(), resolver: DefaultResolver::default() };
        let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
        Self { settings, agent: Agent::with_parts(config, connector, resolver) }
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Sends one request and returns the status of the answer, if it is 2xx.
    pub fn attempt(&self, request: &Request<'_>) -> Result<u16, Failure> {
        let url = EndpointUrl::checked("url", request.url, &self.settings.allowed_hosts).map_err(Failure::without_answer)?;
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let sent = self
            .agent
            .post(url.as_str())
            .header("content-type", "application/json")
            .header("webhook-id", request.event_id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signing::signatures(request.secrets, request.event_id, timestamp, request.body))
            .send(request.body);
        let mut response = sent.map_err(|error| Failure::without_answer(problem(&error)))?;
        let status = response.status().as_u16();
        let is_success = response.status().is_success();
        let retry_after = retry_after(&response, SystemTime::now());
        // The status is the answer; what becomes of the rest is the connection's matter only.
        let mut rest = Vec::new();
        let _ = response.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut rest);
        if is_success {
            return Ok(status);
        }
        let error = match status {
            300..400 => format!("answered with status {status}: redirects are not followed"),
            _ => format!("answered with status {status}"),
        };
        Err(Failure { status: Some(status), error, retry_after })
    }
}

/// What a person reads about an error; ureq's own text for most.
fn problem(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no complete answer within credits.webhook_timeout".into(),
        ureq::Error::HostNotFound => "the host's name has no address".into(),
        ureq::Error::BadUri(_) => "the URL is not valid".into(),
        error => error.to_string(),
    }
}

/// Of an answer that may ask for patience: for how long, in seconds or until a date.
fn retry_after<B>(response: &Response<B>, now: SystemTime) -> Option<Duration> {
    if ![429, 503].contains(&response.status().as_u16()) {
        return None;
    }
    let asked = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    match asked.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(asked).ok()?.duration_since(now).ok(),
    }
}

/// Gives public addresses only, unless the host is allowed. What it gives is what is connected to, so a name that changes its
/// address between a check and a connection gains nothing.
#[derive(Debug)]
struct PublicResolver {
    allowed_hosts: AllowedHosts,
    resolver: DefaultResolver,
}

#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
struct NotPublic;

impl Resolver for PublicResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let resolved = self.resolver.resolve(uri, config, timeout)?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(default_port(scheme));
        if uri.host().is_some_and(|host| self.allowed_hosts.allow(host, port)) {
            return Ok(resolved);
        }
        let mut public = self.empty();
        for socket in resolved.iter().filter(|socket| !address::is_refused(socket.ip())) {
            public.push(*socket);
        }
        if public.is_empty() { Err(ureq::Error::Other(Box::new(NotPublic))) } else { Ok(public) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_420);
        let asked = |status: u16, value: &str| {
            let response = Response::builder().status(status).header("retry-after", value).body(()).expect("a response");
            retry_after(&response, now)
        };
        assert_eq!(asked(429, "120"), Some(Duration::from_secs(120)));
        assert_eq!(asked(503, "Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(asked(503, "Wed, 21 Oct 2015 07:26:00 GMT"), None);
        assert_eq!(asked(500, "120"), None);
        assert_eq!(asked(429, "soon"), None);
        assert_eq!(asked(429, "-5"), None);
    }

    #[test]
    fn a_name_that_resolves_to_a_private_address_is_refused() {
        let resolve = |allowed: &str, url: &str| {
            let resolver = PublicResolver { allowed_hosts: AllowedHosts::parse(allowed), resolver: DefaultResolver::default() };
            let uri = url.parse().expect("a URL");
            let timeout = NextTimeout { after: Duration::from_secs(5).into(), ..NextTimeout::default() };
            resolver.resolve(&uri, &Config::default(), timeout).map_err(|error| error.to_string())
        };
        for url in ["https://localhost/", "https://127.0.0.1/", "https://0x7f.1:81/", "https://[::1]/", "https://10.0.0.1/"] {
            assert_eq!(resolve("", url).map(|found| found.len()), Err("other: the host has no public address".into()), "{url}");
        }
        assert!(resolve("localhost", "https://localhost/").is_ok());
        assert!(resolve("localhost:81", "https://localhost/").is_err());
        assert_eq!(resolve("", "https://8.8.8.8/").map(|found| found.len()), Ok(1));
    }
}

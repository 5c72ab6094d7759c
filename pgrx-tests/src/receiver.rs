//! A receiver of webhooks that misbehaves as asked, over plain HTTP or real TLS, and remembers what it got.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use standardwebhooks::Webhook;

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(u16),
    /// A status and a header.
    Header(u16, &'static str, String),
    /// Reads the request and never answers.
    Hang,
    /// Begins an answer and goes on with a byte every tenth of a second, for ever.
    Drip,
    /// 200, with a body of 1 GB.
    Flood,
    /// Closes the connection in the middle of the answer's head.
    HangUp,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Received {
    /// A header's text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn event_id(&self) -> &str {
        self.header("webhook-id")
    }

    /// Whether an independent implementation of Standard Webhooks accepts it as signed by this secret, just now.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        Webhook::new(secret).is_ok_and(|webhook| webhook.verify(&self.body, &self.headers).is_ok())
    }
}

type Answering = dyn Fn(&Received) -> Answer + Send + Sync;

struct Shared {
    received: Mutex<Vec<Received>>,
    answering: Box<Answering>,
    is_over: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
    bytes_sent: Mutex<u64>,
}

/// Listens on a port of 127.0.0.1 until it is dropped.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    pub fn start(answering: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Receiver {
        Self::listen(None, Box::new(answering))
    }

    /// The same over TLS, with a certificate of this authority for 127.0.0.1.
    pub fn start_tls(authority: &Authority, answering: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Receiver {
        Self::listen(Some(authority.server()), Box::new(answering))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, answering: Box<Answering>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of 127.0.0.1");
        let address = listener.local_addr().expect("the listener is bound");
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            answering,
            is_over: AtomicBool::new(false),
            tls,
            bytes_sent: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !serving.is_over.load(Ordering::Relaxed)).flatten() {
                let serving = Arc::clone(&serving);
                // A connection that fails is the other side's business.
                thread::spawn(move || serving.serve(stream));
            }
        });
        Receiver { address, shared }
    }

    /// Its URL, with a path such as `/hooks`.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All requests so far, in the order of their arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self) -> usize {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The ids of the events that arrived, in that order.
    pub fn event_ids(&self) -> Vec<String> {
        self.received().iter().map(|request| request.event_id().to_owned()).collect()
    }

    /// Bytes of floods that the other side has taken.
    pub fn bytes_sent(&self) -> u64 {
        *self.shared.bytes_sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the listening thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.converse(stream),
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                self.converse(StreamOwned::new(connection, stream))
            }
        }
    }

    fn converse(&self, stream: impl Read + Write) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream)? {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let answer = (self.answering)(&request);
            self.received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            if !self.answer(&mut stream, answer)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the connection can go on.
    fn answer(&self, stream: &mut BufReader<impl Read + Write>, answer: Answer) -> io::Result<bool> {
        match answer {
            Answer::Status(status) => write!(stream.get_mut(), "HTTP/1.1 {status} Test\r\ncontent-length: 2\r\n\r\nok")?,
            Answer::Header(status, name, value) => {
                write!(stream.get_mut(), "HTTP/1.1 {status} Test\r\n{name}: {value}\r\ncontent-length: 0\r\n\r\n")?;
            }
            Answer::Hang => {
                // Until the other side has had enough.
                let _ = stream.read(&mut [0]);
                return Ok(false);
            }
            Answer::Drip => {
                write!(stream.get_mut(), "HTTP/1.1 200 Test\r\nx-drip: ")?;
                loop {
                    stream.get_mut().write_all(b"a")?;
                    stream.get_mut().flush()?;
                    thread::sleep(Duration::from_millis(100)); // the pace of the drip
                }
            }
            Answer::Flood => {
                const CHUNK: usize = 1 << 16;
                write!(stream.get_mut(), "HTTP/1.1 200 Test\r\ncontent-length: {}\r\n\r\n", 1 << 30)?;
                for _ in 0..(1 << 30) / CHUNK {
                    stream.get_mut().write_all(&[b'a'; CHUNK])?;
                    *self.bytes_sent.lock().unwrap_or_else(PoisonError::into_inner) += CHUNK as u64;
                }
            }
            Answer::HangUp => {
                write!(stream.get_mut(), "HTTP/1.1 200 Te")?;
                stream.get_mut().flush()?;
                return Ok(false);
            }
        }
        stream.get_mut().flush()?;
        Ok(true)
    }
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name: HeaderName = name.parse().map_err(io::Error::other)?;
        headers.append(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Received { path, headers, body }))
}

/// A certificate authority that nobody knows but the test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }
}

impl Authority {
    /// Its certificate, for `credits.webhook_ca_file`.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a key that fits");
        Arc::new(config)
    }
}

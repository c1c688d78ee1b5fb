//! The device API of a fleet server, for many devices over one pool of connections.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dunlin_update::http::{self, Answer, Enrol, Enrolled, Poll};
use dunlin_update::trust::SecretKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::clock::{Clock, SystemClock};
use crate::hex::hex;

/// Bytes of an answer that is not an artifact: roots, documents and flags are a few KiB each.
const MAX_ANSWER: u64 = 1 << 20;
/// Bytes that one range may have, as the server has it.
pub const MAX_RANGE: u32 = 4 << 20;
/// The longest wait that a server can ask for.
const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// How the server is reached.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its address: `https://HOST[:PORT]`, or `http://` where nobody listens in.
    pub server: String,
    /// PEM file of the authorities that may vouch for the server, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate chain and its key, for servers or proxies that want one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// For a connection to be made.
    pub connect: Duration,
    /// For a whole request with its answer.
    pub timeout: Duration,
    /// Connections that are kept open.
    pub idle: usize,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            server: "http://127.0.0.1:8480".into(),
            ca: None,
            certificate: None,
            connect: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            idle: 16,
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection cannot be used as it is configured.
    Configuration(String),
    /// No answer: name, network, TLS, or time.
    Unreachable(String),
    /// The server says no.
    Refused {
        /// The status of HTTP.
        status: u16,
        /// What is wrong.
        error: String,
        /// What to do about it.
        hint: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is not one of this API.
    Malformed(String),
}

impl ClientError {
    /// Whether the same request may well be done later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..=599) && *status != 507,
            Self::Configuration(_) | Self::Malformed(_) => false,
        }
    }

    /// How long the server asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The status, when the server answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(text) => f.write_str(text),
            Self::Unreachable(text) => write!(f, "the server did not answer: {text}"),
            Self::Refused { status, error, hint, .. } if hint.is_empty() => {
                write!(f, "the server refused ({status}): {error}")
            }
            Self::Refused { status, error, hint, .. } => write!(f, "the server refused ({status}): {error}; {hint}"),
            Self::Malformed(text) => write!(f, "this is no answer of a fleet server: {text}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<ureq::Error> for ClientError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::BadUri(text) => Self::Configuration(format!("the server's address cannot be used: {text}")),
            ureq::Error::BodyExceedsLimit(most) => Self::Malformed(format!("more than {most} bytes")),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// A device that is enrolled: who it is, its key, and the last nonce it used.
#[derive(Debug)]
pub struct Credentials {
    id: String,
    key: SecretKey,
    nonce: AtomicU64,
}

impl Credentials {
    /// The id that [`Client::enrol`] gave, and the key that was enrolled.
    #[must_use]
    pub fn new(device: [u8; 16], key: SecretKey) -> Self {
        Self { id: hex(&device), key, nonce: AtomicU64::new(0) }
    }

    /// The device's id, as 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A nonce that is at least `now` and above all before.
    fn next_nonce(&self, now: u64) -> u64 {
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let before = self.nonce.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(before.unwrap_or_default().saturating_add(1))
    }
}

/// What came of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// Tag of the news, to be sent with the next poll.
    pub tag: String,
    /// When to poll again; the server has it jittered.
    pub next: Duration,
    /// The answer; nothing when the news is what the tag said.
    pub answer: Option<Answer>,
}

struct Inner {
    agent: Agent,
    server: String,
    clock: Arc<dyn Clock>,
    /// Microseconds to add to the clock to get the server's, once it found the clock wrong.
    skew: AtomicI64,
}

/// A client of one server. Clones share connections; all methods wait for the answer.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.0.server).finish_non_exhaustive()
    }
}

struct Reply {
    response: ureq::http::Response<Body>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|v| v.to_str().ok())
    }

    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// At most so many bytes of the body.
    fn bytes(mut self, most: u64) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        let mut reader = self.response.body_mut().as_reader().take(most + 1);
        let read = reader.read_to_end(&mut bytes).map_err(|e| ClientError::Unreachable(e.to_string()))?;
        if read as u64 > most {
            return Err(ClientError::Malformed(format!("more than {most} bytes")));
        }
        Ok(bytes)
    }

    fn postcard<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let bytes = self.bytes(MAX_ANSWER)?;
        match postcard::take_from_bytes(&bytes) {
            Ok((value, [])) => Ok(value),
            _ => Err(ClientError::Malformed("the body does not decode; is the server of this version?".into())),
        }
    }

    fn next(&self) -> Option<Duration> {
        self.header(http::NEXT)?.parse().ok().map(Duration::from_secs)
    }

    /// The server's no, with its own words where it has some.
    fn refused(self) -> ClientError {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Problem {
            error: String,
            hint: String,
        }
        let status = self.status();
        // The other form, a date, is for caches; the server sends seconds.
        let seconds = self.header("retry-after").and_then(|v| v.trim().parse().ok());
        let retry_after = seconds.map(|s| Duration::from_secs(s).min(MAX_WAIT));
        let bytes = self.bytes(16 << 10).unwrap_or_default();
        let mut problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
        if problem.error.is_empty() {
            problem.error = "it gives no reason".into();
        }
        ClientError::Refused { status, error: problem.error, hint: problem.hint, retry_after }
    }
}

impl Client {
    /// A client with the machine's clock. Nothing is connected yet.
    ///
    /// # Errors
    /// When certificates cannot be read, or the address is none.
    pub fn new(connection: &Connection) -> Result<Self, ClientError> {
        Self::with_clock(connection, Arc::new(SystemClock::default()))
    }

    /// The same with another clock for nonces.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(connection: &Connection, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let server = connection.server.trim_end_matches('/').to_owned();
        let secure = server.starts_with("https://");
        let host = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://"));
        let host = host.filter(|h| !h.is_empty() && !h.contains(['/', '?', '#', '@'])).ok_or_else(|| {
            ClientError::Configuration(format!(
                "{server:?} is no server's address; write https://HOST or https://HOST:PORT"
            ))
        })?;
        let mut tls = TlsConfig::builder();
        if let Some(path) = &connection.ca {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(path)?));
        }
        if let Some((chain, key)) = &connection.certificate {
            let bytes = std::fs::read(key).map_err(|e| unusable(key, &e))?;
            let private = PrivateKey::from_pem(&bytes).map_err(|e| unusable(key, &e))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(chain)?, private)));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(secure)
            .max_redirects(0)
            .user_agent(concat!("dunlin-gateway/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(16 << 10)
            .max_idle_connections(connection.idle)
            .max_idle_connections_per_host(connection.idle)
            .timeout_connect(Some(connection.connect))
            .timeout_global(Some(connection.timeout))
            .tls_config(tls.build());
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
            // No proxy of the environment's leads back to this machine.
            config = config.proxy(None);
        }
        let agent = config.build().new_agent();
        Ok(Self(Arc::new(Inner { agent, server, clock, skew: AtomicI64::new(0) })))
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.0.server
    }

    /// Makes a key known as a device. The same key is the same device, however often.
    ///
    /// # Errors
    /// When there is no answer, or the server refuses token or device.
    pub fn enrol(
        &self,
        token: &str,
        key: &SecretKey,
        target: &str,
        model: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Enrolled, ClientError> {
        let enrol =
            Enrol { key: key.public(), target: target.into(), model: model.into(), attributes: attributes.clone() };
        let body = encode(&enrol)?;
        let signature = http::signature(key, "POST", http::ENROL_PATH, "0", &body);
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), (http::SIGNATURE, signature.as_str())];
        let reply = self.post(http::ENROL_PATH, &headers, &body)?;
        if reply.status() == 200 { reply.postcard() } else { Err(reply.refused()) }
    }

    /// Tells what a device runs, brings its reports, and asks for news.
    ///
    /// A server that finds the clock wrong is asked for a nonce once; from then on its clock is used.
    ///
    /// # Errors
    /// When there is no answer, or the server refuses.
    pub fn poll(&self, device: &Credentials, poll: &Poll, tag: Option<&str>) -> Result<Polled, ClientError> {
        let body = encode(poll)?;
        let now = self.0.clock.wall().saturating_add_signed(self.0.skew.load(Ordering::Relaxed));
        let reply = self.signed(device, &device.next_nonce(now).to_string(), &body, tag)?;
        // 401: the clock, or the key. 409: a clock that was ahead.
        let reply = match reply.status() {
            401 | 409 => {
                let refused = reply.refused();
                let Some(nonce) = self.nonce(device).ok().filter(|n| self.adopt(device, n)) else {
                    return Err(refused);
                };
                self.signed(device, &nonce, &body, tag)?
            }
            _ => reply,
        };
        let tag = reply.header("etag").unwrap_or_default().to_owned();
        let next = reply.next();
        match reply.status() {
            200 => {
                let answer: Answer = reply.postcard()?;
                let next = next.unwrap_or(Duration::from_secs(answer.next.into()));
                Ok(Polled { tag, next: next.min(MAX_WAIT), answer: Some(answer) })
            }
            304 => {
                let next = next.ok_or_else(|| ClientError::Malformed(format!("no header {}", http::NEXT)))?;
                Ok(Polled { tag, next: next.min(MAX_WAIT), answer: None })
            }
            _ => Err(reply.refused()),
        }
    }

    fn signed(&self, device: &Credentials, nonce: &str, body: &[u8], tag: Option<&str>) -> Result<Reply, ClientError> {
        let signature = http::signature(&device.key, "POST", http::POLL_PATH, nonce, body);
        let mut headers =
            vec![(http::DEVICE, device.id.as_str()), (http::NONCE, nonce), (http::SIGNATURE, signature.as_str())];
        headers.extend(tag.map(|t| ("if-none-match", t)));
        self.post(http::POLL_PATH, &headers, body)
    }

    /// Takes the server's clock from its nonce; whether the nonce is above the device's last.
    fn adopt(&self, device: &Credentials, nonce: &str) -> bool {
        let Some(theirs) = nonce.split('.').next().and_then(|t| t.parse::<u64>().ok()) else { return false };
        let skew = i128::from(theirs) - i128::from(self.0.clock.wall());
        // Within a second the clocks agree as well as the network tells.
        if skew.unsigned_abs() > 1_000_000 {
            self.0.skew.store(i64::try_from(skew).unwrap_or_default(), Ordering::Relaxed);
        }
        device.nonce.swap(theirs, Ordering::Relaxed) < theirs || skew.unsigned_abs() > 1_000_000
    }

    /// A nonce of the server's.
    ///
    /// # Errors
    /// When there is no answer, or the server refuses.
    pub fn nonce(&self, device: &Credentials) -> Result<String, ClientError> {
        let url = format!("{}{}", self.0.server, http::NONCE_PATH);
        let response = self.0.agent.get(url).header(http::DEVICE, &device.id).call()?;
        let reply = Reply { response };
        if reply.status() != 200 {
            return Err(reply.refused());
        }
        let text = String::from_utf8(reply.bytes(256)?).ok().filter(|t| t.chars().all(|c| c.is_ascii_graphic()));
        text.ok_or_else(|| ClientError::Malformed("the nonce is no text".into()))
    }

    /// Bytes of an artifact from an offer's address, and how many the whole has. They may be fewer than asked for, but one
    /// at least.
    ///
    /// # Errors
    /// When there is no answer, the server refuses (403: the address is too old), or the answer is not the range.
    pub fn range(&self, path: &str, from: u32, most: u32) -> Result<(Vec<u8>, u32), ClientError> {
        if !path.starts_with('/') {
            return Err(ClientError::Malformed(format!("{path:?} is no path on the server")));
        }
        let most = most.clamp(1, MAX_RANGE);
        let last = u64::from(from) + u64::from(most) - 1;
        let request = self.0.agent.get(format!("{}{path}", self.0.server));
        let reply = Reply { response: request.header("range", format!("bytes={from}-{last}")).call()? };
        if reply.status() != 206 {
            return Err(match reply.status() {
                200 => ClientError::Malformed("the server, or what is between, does not serve ranges".into()),
                _ => reply.refused(),
            });
        }
        let stated = reply.header("content-range").and_then(range).filter(|(first, _)| *first == from);
        let (_, total) = stated.ok_or_else(|| ClientError::Malformed("another range than was asked for".into()))?;
        let bytes = reply.bytes(most.into())?;
        let end = u64::from(from) + bytes.len() as u64;
        if bytes.is_empty() || end > total.into() {
            return Err(ClientError::Malformed("a range of another length than it says".into()));
        }
        Ok((bytes, total))
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, ClientError> {
        let mut request = self.0.agent.post(format!("{}{path}", self.0.server));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.header("content-type", "application/octet-stream").send(body)?;
        Ok(Reply { response })
    }
}

fn encode<T: serde::Serialize>(body: &T) -> Result<Vec<u8>, ClientError> {
    postcard::to_allocvec(body).map_err(|e| ClientError::Malformed(e.to_string()))
}

fn unusable(path: &std::path::Path, error: &dyn fmt::Display) -> ClientError {
    ClientError::Configuration(format!("{} cannot be used: {error}", path.display()))
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>, ClientError> {
    let bytes = std::fs::read(path).map_err(|e| unusable(path, &e))?;
    let mut all = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| unusable(path, &e))? {
            all.push(certificate);
        }
    }
    if all.is_empty() {
        return Err(unusable(path, &"it has no certificate in PEM"));
    }
    Ok(all)
}

/// First byte and length of the whole (RFC 9110, section 14.4).
fn range(text: &str) -> Option<(u32, u32)> {
    let (part, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((part.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_only_rise() {
        let device = Credentials::new([1; 16], SecretKey::from_seed([1; 32]).expect("a seed"));
        let clock = [5, 5, 3, 9, 8];
        let nonces: Vec<u64> = clock.iter().map(|now| device.next_nonce(*now)).collect();
        assert_eq!(nonces, [5, 6, 7, 9, 10]);
    }

    #[test]
    fn addresses_that_are_none_are_told() {
        for bad in ["fleet.example", "ftp://fleet", "https://", "https://a/b", "https://user@host"] {
            let error = Client::new(&Connection { server: bad.into(), ..Connection::default() }).expect_err(bad);
            assert!(error.to_string().contains("https://HOST"), "{error}");
        }
        assert!(
            Client::new(&Connection { server: "https://fleet.example:1/".into(), ..Connection::default() }).is_ok()
        );
    }

    #[test]
    fn ranges_as_the_standard_writes_them() {
        assert_eq!(range("bytes 5-9/20"), Some((5, 20)));
        for bad in ["bytes */20", "bytes 5-9/*", "items 5-9/20", "bytes 5/20", ""] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_may_pass_and_what_does_not() {
        let refused = |status| ClientError::Refused {
            status,
            error: String::new(),
            hint: String::new(),
            retry_after: Some(Duration::from_secs(3)),
        };
        for status in [409, 429, 500, 502, 503] {
            assert!(refused(status).is_passing(), "{status}");
        }
        for status in [400, 401, 403, 404, 413, 507] {
            assert!(!refused(status).is_passing(), "{status}");
        }
        assert_eq!(refused(503).retry_after(), Some(Duration::from_secs(3)));
    }
}

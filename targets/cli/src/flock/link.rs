//! The device API over HTTP, request by request, so that a request can be late, sent twice, or signed by a wrong clock.

use std::time::Duration;

use dunlin_fleet::wire;
use dunlin_update::trust::SecretKey;
use ureq::Agent;

use crate::trust::hex;

/// Bytes of an answer at most; a range of an artifact is the longest.
const MAX_ANSWER: u64 = 5 << 20;

/// A server, and what lets devices in.
#[derive(Clone)]
pub struct Link {
    agent: Agent,
    url: String,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// When to come again, if it says so.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A request that is signed.
#[derive(Clone, Debug)]
pub struct Signed {
    id: String,
    nonce: String,
    signature: String,
    body: Vec<u8>,
}

impl Signed {
    /// A poll of a device.
    #[must_use]
    pub fn poll(id: &[u8; 16], key: &SecretKey, nonce: String, body: Vec<u8>) -> Self {
        let signature = wire::signature(key, "POST", wire::POLL_PATH, &nonce, &body);
        Self { id: hex(id), nonce, signature, body }
    }
}

impl Link {
    /// A link for so many threads to the server at `url`.
    #[must_use]
    pub fn new(url: &str, token: &str, threads: usize) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(threads)
            .max_idle_connections_per_host(threads)
            .timeout_global(Some(Duration::from_secs(60)))
            .user_agent(concat!("dunlin-flock/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), url: url.trim_end_matches('/').to_owned(), token: token.to_owned() }
    }

    fn answered(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answered, String> {
        // Without the address in it, so that errors of a kind are counted together.
        let kind = |error: ureq::Error| match error {
            ureq::Error::Io(error) => format!("connection: {:?}", error.kind()),
            ureq::Error::Timeout(_) => "timeout".to_owned(),
            other => other.to_string(),
        };
        let mut response = sent.map_err(kind)?;
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(kind)?;
        Ok(Answered { status, retry_after: after.map(Duration::from_secs), body })
    }

    /// Asks for a place in the fleet.
    ///
    /// # Errors
    /// The kind of what is wrong with the connection.
    pub fn enrol(&self, key: &SecretKey, body: &[u8]) -> Result<Answered, String> {
        let signature = wire::signature(key, "POST", wire::ENROL_PATH, "0", body);
        let request = self.agent.post(format!("{}{}", self.url, wire::ENROL_PATH));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        Self::answered(request.header(wire::SIGNATURE, signature).send(body))
    }

    /// A nonce of the server's.
    ///
    /// # Errors
    /// As [`enrol`](Self::enrol).
    pub fn nonce(&self, id: &[u8; 16]) -> Result<Answered, String> {
        Self::answered(self.agent.get(format!("{}{}", self.url, wire::NONCE_PATH)).header(wire::DEVICE, hex(id)).call())
    }

    /// Polls.
    ///
    /// # Errors
    /// As [`enrol`](Self::enrol).
    pub fn poll(&self, signed: &Signed) -> Result<Answered, String> {
        let request = self.agent.post(format!("{}{}", self.url, wire::POLL_PATH));
        let request = request.header(wire::DEVICE, &signed.id).header(wire::NONCE, &signed.nonce);
        Self::answered(request.header(wire::SIGNATURE, &signed.signature).send(&signed.body[..]))
    }

    /// Bytes of an artifact, from the address in an offer.
    ///
    /// # Errors
    /// As [`enrol`](Self::enrol).
    pub fn range(&self, path: &str, from: u64, len: u64) -> Result<Answered, String> {
        let range = format!("bytes={from}-{}", from + len.max(1) - 1);
        Self::answered(self.agent.get(format!("{}{path}", self.url)).header("range", range).call())
    }
}

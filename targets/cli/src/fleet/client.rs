//! Requests to a fleet server's operator API.

use std::io::{Cursor, Read};
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::{Agent, Body, SendBody};

use crate::failure::{Code, Failure, Outcome};

/// Bytes of an answer's JSON at most.
const MAX_JSON: u64 = 64 << 20;
/// Times that a request is sent again which the server was too busy for.
const AGAIN: u32 = 4;

/// A request that was not done.
struct Unanswered {
    /// The status, if there was an answer.
    status: Option<u16>,
    failure: Failure,
}

impl From<Unanswered> for Failure {
    fn from(of: Unanswered) -> Self {
        of.failure
    }
}

/// A server and who asks it.
pub struct Client {
    agent: Agent,
    url: String,
    token: String,
    /// Times that a request is sent again which the server was too busy for.
    retries: u32,
}

impl Client {
    /// A client of the server at `url`, with or without a slash at its end.
    ///
    /// # Errors
    /// When the address is none of HTTP.
    pub fn new(url: &str, token: &str) -> Outcome<Self> {
        Self::with_timeouts(url, token, Duration::from_secs(10), Duration::from_secs(60))
    }

    /// As [`new`](Self::new), for completions: it gives up after a second.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn brief(url: &str, token: &str) -> Outcome<Self> {
        Self::with_timeouts(url, token, Duration::from_millis(500), Duration::from_secs(1)).map(|mut client| {
            client.retries = 0;
            client
        })
    }

    fn with_timeouts(url: &str, token: &str, connect: Duration, response: Duration) -> Outcome<Self> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            let text =
                format!("'{url}' is no server's address\n  hint: it begins with https://, or http:// on this machine");
            return Err(Failure::new(Code::Usage, text));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(connect))
            .timeout_recv_response(Some(response))
            .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
            .build();
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.into(), url, token: token.to_owned(), retries: AGAIN })
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let hint = match error {
            ureq::Error::HostNotFound => "check the name in the address",
            ureq::Error::Timeout(_) => "the server is slow or a firewall drops the request; try again",
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => {
                "the server's certificate is not one that this machine trusts"
            }
            _ => "check that the server runs there, and its address with `dunlin fleet login`",
        };
        Failure::new(Code::Unreachable, format!("{}: {error}\n  hint: {hint}", self.url))
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let builder = Request::builder().method(method).uri(format!("{}{path}", self.url));
        builder.header("authorization", format!("Bearer {}", self.token))
    }

    /// Sends what `make` makes, again while the server says that it is too busy.
    fn send(
        &self,
        mut make: impl FnMut() -> Result<Request<SendBody<'static>>, ureq::Error>,
    ) -> Result<Value, Unanswered> {
        let mut tries = 0;
        loop {
            let sent = make().and_then(|request| self.agent.run(request));
            let response = sent.map_err(|e| Unanswered { status: None, failure: self.unreachable(&e) })?;
            let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
            match (response.status().as_u16(), wait) {
                // Every request of this client may come twice: the server sees to it by names and stages.
                (429 | 503, Some(seconds)) if tries < self.retries => {
                    tries += 1;
                    std::thread::sleep(Duration::from_secs(seconds.clamp(1, 30)));
                }
                _ => return self.answer(response),
            }
        }
    }

    fn answer(&self, mut response: Response<Body>) -> Result<Value, Unanswered> {
        let status = response.status();
        let unanswered = |failure| Unanswered { status: Some(status.as_u16()), failure };
        let read = response.body_mut().with_config().limit(MAX_JSON).read_to_vec();
        let bytes = read.map_err(|e| unanswered(self.unreachable(&e)))?;
        let json: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            return json.ok_or_else(|| {
                let text = format!("{}: the answer is no JSON\n  hint: is this a fleet server's address?", self.url);
                unanswered(Failure::new(Code::Unreachable, text))
            });
        }
        let code = if status.is_server_error() { Code::Unreachable } else { Code::Refused };
        let told = json.as_ref().and_then(|j| Some((j["error"].as_str()?, j["hint"].as_str().unwrap_or_default())));
        let text = match told {
            Some((error, "")) => format!("the server: {error}"),
            Some((error, hint)) => format!("the server: {error}\n  hint: {}", for_commands(hint)),
            None => format!("{} answered {status}\n  hint: is this a fleet server's address?", self.url),
        };
        Err(unanswered(Failure::new(code, text)))
    }

    /// GET.
    ///
    /// # Errors
    /// [`Code::Refused`] with the server's reason and hint, [`Code::Unreachable`].
    pub fn get(&self, path: &str) -> Outcome<Value> {
        Ok(self.fetch(path)?)
    }

    fn fetch(&self, path: &str) -> Result<Value, Unanswered> {
        self.send(|| Ok(self.request("GET", path).body(SendBody::none())?))
    }

    /// GET, for which there being no such thing is an answer too.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn find(&self, path: &str) -> Outcome<Option<Value>> {
        match self.fetch(path) {
            Err(Unanswered { status: Some(404), .. }) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// Every page of a list, each a thousand entries, of which `key` is the name to go on after.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn all(&self, path: &str, key: &str, most: usize) -> Outcome<Vec<Value>> {
        let mut list = Vec::new();
        let mut after = String::new();
        while list.len() < most {
            let ask = if path.contains('?') { '&' } else { '?' };
            let limit = (most - list.len()).min(1000);
            let page = self.get(&format!("{path}{ask}limit={limit}&after={after}"))?;
            let Value::Array(page) = page else { break };
            let full = page.len() == limit;
            after = match page.last().map(|last| &last[key]) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => break,
            };
            list.extend(page);
            if !full {
                break;
            }
        }
        Ok(list)
    }

    /// Another method, with JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Outcome<Value> {
        let sent = self.send(|| {
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let request = self.request(method, path).header("content-type", "application/json");
            Ok(request.body(SendBody::from_owned_reader(Cursor::new(text.into_bytes())))?)
        });
        Ok(sent?)
    }

    /// PUT of bytes, with their progress.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn upload(&self, path: &str, headers: &[(&str, &str)], bytes: &[u8], bar: &ProgressBar) -> Outcome<Value> {
        let sent = self.send(|| {
            bar.set_position(0);
            bar.set_length(bytes.len() as u64);
            let mut request = self.request("PUT", path).header("content-type", "application/octet-stream");
            request = request.header("content-length", bytes.len());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let reader = bar.wrap_read(Cursor::new(bytes.to_vec()));
            Ok(request.body(SendBody::from_owned_reader(reader))?)
        });
        Ok(sent?)
    }

    /// Bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn download(&self, path: &str, most: u64, bar: &ProgressBar) -> Outcome<Vec<u8>> {
        let request = self.request("GET", path).body(SendBody::none());
        let sent = request.map_err(ureq::Error::from).and_then(|request| self.agent.run(request));
        let mut response = sent.map_err(|e| self.unreachable(&e))?;
        if !response.status().is_success() {
            self.answer(response)?;
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        let body = response.body_mut().with_config().limit(most).reader();
        bar.wrap_read(body)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new(Code::Unreachable, format!("{}: {e}", self.url)))?;
        Ok(bytes)
    }
}

/// The server's routes and the commands that call them, longest first.
const COMMANDS: [(&str, &str); 14] = [
    ("POST /v1/rollouts/{rollout}/approve", "`dunlin fleet rollout approve`"),
    ("POST /v1/rollouts/{rollout}/retry", "`dunlin fleet rollout retry`"),
    ("DELETE /v1/devices/{device}", "`dunlin fleet devices DEVICE --revoke`"),
    ("PUT /v1/tenants/{tenant}", "`dunlin fleet tenants put`"),
    ("PUT /v1/packages/{digest}", "`dunlin fleet publish`"),
    ("GET /v1/rollouts", "`dunlin fleet rollout status`"),
    ("GET /v1/packages", "`dunlin fleet packages`"),
    ("GET /v1/devices", "`dunlin fleet devices`"),
    ("GET /v1/tenants", "`dunlin fleet tenants`"),
    ("GET /v1/tokens", "`dunlin fleet tokens`"),
    ("GET /v1/alerts", "`dunlin fleet alerts`"),
    ("GET /v1/flags", "`dunlin fleet flags`"),
    ("PUT /v1/flags", "`dunlin fleet flags put`"),
    ("PUT /v1/root", "`dunlin fleet root --keys FOLDER`"),
];

/// Returns a server's hint with commands where it names routes.
fn for_commands(hint: &str) -> String {
    COMMANDS.iter().fold(hint.to_owned(), |hint, (route, command)| hint.replace(route, command))
}

/// Text in a path or a query: everything but letters, digits and `-_.~` is escaped.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_in_addresses_is_escaped() {
        assert_eq!(escaped("a-1_B.c~"), "a-1_B.c~");
        assert_eq!(escaped("a/b?c=d é"), "a%2Fb%3Fc%3Dd%20%C3%A9");
    }

    #[test]
    fn hints_name_commands() {
        assert_eq!(
            for_commands("GET /v1/rollouts lists those that there are"),
            "`dunlin fleet rollout status` lists those that there are"
        );
        assert_eq!(for_commands("try again"), "try again");
    }

    #[test]
    fn addresses_are_of_http() {
        assert!(Client::new("ftp://x", "t").is_err_and(|f| f.code == Code::Usage && f.text.contains("hint")));
        assert!(Client::new("https://x/", "t").is_ok_and(|c| c.url() == "https://x"));
    }
}

//! Sessions: who is looking, and that it is them who press.
//!
//! The token of the API is given once and exchanged for a random secret in a cookie that scripts cannot read and other
//! sites' pages do not send. An action is taken only when the request says that it comes from this origin, and its form
//! has the secret's own CSRF token, which is a hash of the secret and so needs no store.

use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

const NAME: &str = "dunlin_session";
/// Seconds that a session lasts.
pub(crate) const LASTS: i64 = 12 * 3600;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The secret in a request's cookies.
pub(super) fn secret(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == NAME && is_secret(value)).map(|(_, value)| value)
}

/// 64 hexadecimal digits; anything else is nobody's and is not looked up.
fn is_secret(value: &str) -> bool {
    value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The cookie that keeps a secret.
pub(super) fn cookie(secret: &str, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{NAME}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={LASTS}{secure}")).ok()
}

/// The cookie that forgets it.
pub(super) fn no_cookie() -> HeaderValue {
    HeaderValue::from_static("dunlin_session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")
}

/// What forms of a session carry.
pub(crate) fn csrf(secret: &str) -> String {
    hex(&Sha256::new().chain_update(b"dunlin dashboard form ").chain_update(secret).finalize())
}

/// What an address carries that tells this session, on one page, what was done.
pub(super) fn mark(secret: &str, path: &str, done: &str) -> String {
    let hash = Sha256::new().chain_update(b"dunlin dashboard notice ").chain_update(secret);
    let hash = hash.chain_update(path).chain_update([0]).chain_update(done).finalize();
    hex(hash.get(..8).unwrap_or_default())
}

/// Whether a form is the session's own, in a time that says nothing about where they differ.
pub(super) fn is_own_form(secret: &str, given: &str) -> bool {
    let expected = csrf(secret);
    let differing = expected.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    expected.len() == given.len() && differing == 0
}

/// Whether a request comes from a page of this server. Every browser of today says where its requests come from; what
/// does not, is no browser and has no cookie.
pub(super) fn is_own_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or(""));
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => {
            let host = text("host").unwrap_or("");
            origin.split_once("://").is_some_and(|(_, from)| !host.is_empty() && from == host)
        }
        (None, None) => false,
    }
}

/// Whether the browser came by https: it says so itself, also when the server stands behind something that ends TLS.
pub(super) fn is_encrypted(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// Where to go after signing in: a page of this server, or the first.
pub(super) fn own_address(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && next.starts_with('/') && !next.starts_with("//") { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(k, v)| (k.parse().expect("a name"), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_secret_is_found_among_cookies() {
        let secret_text = "ab".repeat(32);
        let line = format!("a=b; dunlin_session={secret_text}; c=d");
        let mut map = HeaderMap::new();
        map.insert(header::COOKIE, line.parse().expect("a value"));
        assert_eq!(secret(&map), Some(secret_text.as_str()));
        assert_eq!(secret(&headers(&[("cookie", "dunlin_session=short")])), None);
        assert_eq!(secret(&headers(&[("cookie", "xdunlin_session=ab")])), None);
    }

    #[test]
    fn forms_of_others_are_refused() {
        let (mine, other) = ("ab".repeat(32), "cd".repeat(32));
        assert!(is_own_form(&mine, &csrf(&mine)));
        assert!(!is_own_form(&mine, &csrf(&other)));
        assert!(!is_own_form(&mine, ""));
        assert!(!is_own_form(&mine, &csrf(&mine)[..63]));
    }

    #[test]
    fn pages_of_others_are_refused() {
        assert!(is_own_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!is_own_origin(&headers(&[("sec-fetch-site", "cross-site"), ("origin", "https://a"), ("host", "a")])));
        assert!(!is_own_origin(&headers(&[("sec-fetch-site", "same-site")])));
        assert!(is_own_origin(&headers(&[("origin", "https://fleet.example:8443"), ("host", "fleet.example:8443")])));
        assert!(!is_own_origin(&headers(&[("origin", "https://evil.example"), ("host", "fleet.example")])));
        assert!(!is_own_origin(&headers(&[("origin", "null"), ("host", "fleet.example")])));
        assert!(!is_own_origin(&headers(&[])));
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(own_address("/rollouts/7?a=b"), "/rollouts/7?a=b");
        for bad in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:1"] {
            assert_eq!(own_address(bad), "/", "{bad:?}");
        }
    }
}

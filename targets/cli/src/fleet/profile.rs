//! Which server, and who asks: a file that only its owner reads, overridden by the environment.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use console::Term;
use serde_json::{Value, json};

use super::client::Client;
use crate::failure::{Code, Failure, Outcome};

/// Names the profile's file.
const FILE: &str = "DUNLIN_FLEET_PROFILE";
/// The server's address.
const URL: &str = "DUNLIN_FLEET_URL";
/// The token.
const TOKEN: &str = "DUNLIN_FLEET_TOKEN";

/// Whether the token may go over plain HTTP to another machine.
const INSECURE: &str = "DUNLIN_FLEET_INSECURE_HTTP";

/// Keeps a server's address and a token.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Login {
    /// The server's address, as https://fleet.example.org
    url: String,
    /// Send the token over plain HTTP to another machine, where others can read it on the way
    #[arg(long)]
    insecure_http: bool,
}

/// The host of an address.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Goes on when nobody between here and the server can read the token, or that was said to be well.
fn is_safe(url: &str, insecure: bool) -> Outcome<()> {
    let host = host(url);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
    if insecure || here || !url.starts_with("http://") {
        return Ok(());
    }
    let text = format!(
        "'{url}' is plain HTTP to another machine: others could read the token on the way\n  hint: use https://; or where \
         nobody else is, `dunlin fleet login --insecure-http`, or set {INSECURE}=1"
    );
    Err(Failure::new(Code::Usage, text))
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// Where the profile is.
fn file() -> Outcome<PathBuf> {
    if let Some(path) = set(FILE) {
        return Ok(path.into());
    }
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| set("APPDATA").map(PathBuf::from));
    let config = config.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
    config.map(|c| c.join("dunlin").join("fleet.json")).ok_or_else(|| {
        Failure::new(Code::File, format!("there is no home folder for the profile\n  hint: name its file in {FILE}"))
    })
}

/// The client that profile and environment describe.
///
/// # Errors
/// When there is neither.
pub(super) fn client() -> Outcome<Client> {
    let (url, token) = connection()?;
    Client::new(&url, &token)
}

/// The server's address and the token that profile and environment give.
///
/// # Errors
/// When there is neither.
pub(crate) fn connection() -> Outcome<(String, String)> {
    let (url, token) = (set(URL), set(TOKEN));
    let insecure = set(INSECURE).is_some_and(|v| v != "0");
    if let (Some(url), Some(token)) = (&url, &token) {
        is_safe(url, insecure)?;
        return Ok((url.clone(), token.clone()));
    }
    let path = file()?;
    let name = path.display();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!(
                "no fleet server is known: there is no {name}\n  hint: `dunlin fleet login URL`, or set {URL} and {TOKEN}"
            );
            return Err(Failure::new(Code::File, text));
        }
        Err(error) => return Err(Failure::new(Code::File, format!("{name}: {error}"))),
    };
    let wrong = || Failure::damaged(&name.to_string(), "is no profile\n  hint: `dunlin fleet login URL` writes one");
    let kept: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    let (Some(kept_url), Some(kept_token)) = (kept["url"].as_str(), kept["token"].as_str()) else {
        return Err(wrong());
    };
    // A token is for the server that it was given for, and goes to no other.
    if url.as_deref().is_some_and(|u| u.trim_end_matches('/') != kept_url) && token.is_none() {
        let text = format!("{URL} names another server than {name} has a token for\n  hint: set {TOKEN} too");
        return Err(Failure::new(Code::Usage, text));
    }
    is_safe(url.as_deref().unwrap_or(kept_url), insecure || kept["insecure_http"] == true)?;
    Ok((url.unwrap_or_else(|| kept_url.to_owned()), token.unwrap_or_else(|| kept_token.to_owned())))
}

/// The token: from the environment, typed without being shown, or from what is piped in. Never an argument, which others on
/// the machine could read.
fn token() -> Outcome<String> {
    let wrong = |e: std::io::Error| Failure::new(Code::File, format!("the token cannot be read: {e}"));
    let text = match set(TOKEN) {
        Some(token) => token,
        None if std::io::stdin().is_terminal() => {
            let term = Term::stderr();
            term.write_str("token: ").and_then(|()| term.read_secure_line()).map_err(wrong)?
        }
        None => {
            let mut text = String::new();
            std::io::stdin().take(4096).read_to_string(&mut text).map_err(wrong)?;
            text
        }
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let text = format!("no token was given\n  hint: pipe it in, type it, or set {TOKEN}");
        return Err(Failure::new(Code::Usage, text));
    }
    Ok(token.to_owned())
}

/// Writes the profile whole or not at all; only its owner can read it.
fn keep(path: &Path, profile: &Value) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&part).and_then(|mut file| {
        writeln!(file, "{profile}")?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    });
    if written.is_err() {
        // The error that counts is the one of writing.
        let _ = std::fs::remove_file(&part);
    }
    written
}

impl Login {
    /// Asks the server who the token's owner is, and keeps both.
    ///
    /// # Errors
    /// When the server does not take the token; nothing is kept then.
    pub(super) fn run(&self, json: bool) -> Outcome<()> {
        is_safe(&self.url, self.insecure_http || set(INSECURE).is_some_and(|v| v != "0"))?;
        let token = token()?;
        let client = Client::new(&self.url, &token)?;
        let tenant = client.get("/v1/tenant")?;
        let path = file()?;
        let mut profile = json!({ "url": client.url(), "token": token });
        if self.insecure_http {
            profile["insecure_http"] = json!(true);
        }
        keep(&path, &profile).map_err(|e| Failure::new(Code::File, format!("{}: {e}", path.display())))?;
        if json {
            println!("{}", json!({ "url": client.url(), "tenant": tenant, "profile": path }));
        } else {
            let id = tenant["id"].as_str().unwrap_or_default();
            println!("{} as a member of '{id}', kept in {}", client.url(), path.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_plain_http_nowhere_else() {
        for safe in ["https://fleet.example.org", "http://127.0.0.1:8480", "http://localhost/", "http://[::1]:8480/x"] {
            assert!(is_safe(safe, false).is_ok(), "{safe}");
        }
        for not in [
            "http://fleet.example.org",
            "http://10.0.0.7:8480",
            "http://127.0.0.1@example.org/",
            "http://localhost.example.org",
            "http://[2001:db8::1]:80",
        ] {
            let failure = is_safe(not, false).expect_err(not);
            assert!(failure.text.contains("--insecure-http"), "{}", failure.text);
            assert!(is_safe(not, true).is_ok());
        }
    }
}

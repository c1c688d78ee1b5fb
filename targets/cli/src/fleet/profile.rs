//! `dunlin fleet login` and its siblings: which server is used, and who asks.

use std::io::{IsTerminal as _, Read as _};
use std::sync::OnceLock;

use console::Term;
use serde_json::{Value, json};

use super::client::Client;
use super::context::{self, Context, Contexts, set};
use super::view::text;
use crate::failure::{Code, Failure, Outcome};
use crate::output::{self, Tone};
use crate::table::table;

/// The server's address.
const URL: &str = "DUNLIN_FLEET_URL";
/// The token.
const TOKEN: &str = "DUNLIN_FLEET_TOKEN";
/// The context, where the command line names none.
const CONTEXT: &str = "DUNLIN_FLEET_CONTEXT";
/// Whether the token may go over plain HTTP to another machine.
const INSECURE: &str = "DUNLIN_FLEET_INSECURE_HTTP";

/// The context that the command line names.
static SELECTED: OnceLock<String> = OnceLock::new();

/// Stores a server's address and a token.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Login {
    /// Address of the server, such as https://fleet.example.org
    url: String,
    /// Name for this server [default: 'default', then the host]
    #[arg(long, value_name = "CONTEXT", value_parser = context::name)]
    name: Option<String>,
    /// Allow sending the token over plain HTTP to another machine
    #[arg(long)]
    insecure_http: bool,
}

/// Lists the servers that `login` has stored.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct List {}

/// Selects the server for later commands.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Use {
    /// Name of the context
    #[arg(value_name = "CONTEXT")]
    context_name: String,
}

/// Shows the server, and the name, role and tenant of the token.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Whoami {}

/// Removes a server's address and token from this machine.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Logout {
    /// Name of the context [default: the current one]
    #[arg(value_name = "CONTEXT")]
    context_name: Option<String>,
}

/// Selects a context for this process.
pub(super) fn select(context: Option<&str>) {
    if let Some(name) = context {
        SELECTED.get_or_init(|| name.to_owned());
    }
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

/// The client that profile and environment describe.
///
/// # Errors
/// When there is neither.
pub(super) fn client() -> Outcome<Client> {
    let (url, token) = connection()?;
    Client::new(&url, &token)
}

/// Returns the server's address and the token: of the context that the command line names, or else of the environment, or
/// else of the current context.
///
/// # Errors
/// When there is none, or the token would go where others can read it.
pub(crate) fn connection() -> Outcome<(String, String)> {
    let selected = SELECTED.get().cloned();
    let given = if selected.is_some() { (None, None) } else { (set(URL), set(TOKEN)) };
    let insecure = set(INSECURE).is_some_and(|v| v != "0");
    if let (Some(url), Some(token)) = given {
        is_safe(&url, insecure)?;
        return Ok((url, token));
    }
    let (url, token) = given;
    let path = context::file()?;
    let Some(contexts) = Contexts::load(&path)? else {
        let text = format!(
            "no fleet server is known: there is no {}\n  hint: `dunlin fleet login URL`, or set {URL} and {TOKEN}",
            path.display()
        );
        return Err(Failure::new(Code::File, text));
    };
    let (name, kept) = contexts.find(selected.or_else(|| set(CONTEXT)).as_deref())?;
    // A token is for the server that it was given for, and goes to no other.
    if url.as_deref().is_some_and(|u| u.trim_end_matches('/') != kept.url) && token.is_none() {
        let text = format!("{URL} is not the server of the context '{name}'\n  hint: set {TOKEN} too");
        return Err(Failure::new(Code::Usage, text));
    }
    is_safe(url.as_deref().unwrap_or(&kept.url), insecure || kept.insecure_http)?;
    Ok((url.unwrap_or_else(|| kept.url.clone()), token.unwrap_or_else(|| kept.token.clone())))
}

/// Returns what `entry` makes of the entries of a list of the configured server, for completions: nothing when there is no
/// server, or it does not answer at once.
pub(crate) fn names<T>(path: &str, entry: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let answer = connection().and_then(|(url, token)| Client::brief(&url, &token)?.get(path));
    answer.ok().and_then(|list| Some(list.as_array()?.iter().filter_map(entry).collect())).unwrap_or_default()
}

/// Returns names and addresses of the contexts, for completions.
pub(crate) fn contexts() -> Vec<(String, String)> {
    let kept = context::file().and_then(|path| Contexts::load(&path)).ok().flatten().unwrap_or_default();
    kept.all.into_iter().map(|(name, context)| (name, context.url)).collect()
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

/// Asks the server for the owner of the token. A server of before `/v1/whoami` tells the tenant only.
fn owner(client: &Client) -> Outcome<Value> {
    if let Some(owner) = client.find("/v1/whoami")? {
        return Ok(owner);
    }
    let tenant = client.get("/v1/tenant")?;
    Ok(json!({ "name": null, "role": null, "tenant": tenant["id"], "tenant_title": tenant["title"] }))
}

/// An owner for people: `'alice' (admin) of 'acme'`.
fn shown(owner: &Value) -> String {
    match owner["name"].as_str() {
        Some(name) => format!("'{name}' ({}) of '{}'", text(owner, "role"), text(owner, "tenant")),
        None => format!("a member of '{}'", text(owner, "tenant")),
    }
}

impl Login {
    /// Asks the server for the owner of the token, and stores address and token.
    ///
    /// # Errors
    /// When the server does not take the token; nothing is stored then.
    pub(super) fn run(&self, json: bool) -> Outcome<()> {
        is_safe(&self.url, self.insecure_http || set(INSECURE).is_some_and(|v| v != "0"))?;
        let token = token()?;
        let client = Client::new(&self.url, &token)?;
        let owner = owner(&client)?;
        let path = context::file()?;
        let mut contexts = Contexts::load(&path)?.unwrap_or_default();
        let url = client.url().to_owned();
        let name = self.name.clone().unwrap_or_else(|| contexts.name_for(&url));
        contexts.all.insert(name.clone(), Context { url, token, insecure_http: self.insecure_http });
        contexts.current = Some(name.clone());
        contexts.store(&path)?;
        if json {
            println!("{}", json!({ "url": client.url(), "context": name, "owner": owner, "profile": path }));
        } else {
            let line = format!("{} as {}", client.url(), shown(&owner));
            println!("{}", output::marked(Tone::Good, &line));
            println!("  context '{name}', stored in {}", path.display());
        }
        Ok(())
    }
}

impl List {
    /// Lists the contexts, without their tokens.
    ///
    /// # Errors
    /// When the file is damaged.
    pub(super) fn run(self, json: bool) -> Outcome<()> {
        let contexts = Contexts::load(&context::file()?)?.unwrap_or_default();
        let is_current = |name: &str| contexts.current.as_deref() == Some(name);
        if json {
            let all: Vec<Value> = contexts
                .all
                .iter()
                .map(|(name, context)| json!({ "name": name, "url": context.url, "current": is_current(name) }))
                .collect();
            println!("{}", Value::Array(all));
            return Ok(());
        }
        if contexts.all.is_empty() {
            println!("no contexts\n  hint: `dunlin fleet login URL` stores one");
            return Ok(());
        }
        let mut rows = vec![["", "context", "server"].map(str::to_owned).to_vec()];
        for (name, context) in &contexts.all {
            let mark = if is_current(name) { "*" } else { "" };
            rows.push(vec![mark.to_owned(), name.clone(), context.url.clone()]);
        }
        print!("{}", table(&rows, &[]));
        Ok(())
    }
}

impl Use {
    /// Makes a context the current one.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn run(&self, json: bool) -> Outcome<()> {
        let path = context::file()?;
        let mut contexts = Contexts::load(&path)?.unwrap_or_default();
        let url = contexts.find(Some(&self.context_name))?.1.url.clone();
        contexts.current = Some(self.context_name.clone());
        contexts.store(&path)?;
        if json {
            println!("{}", json!({ "context": self.context_name, "url": url }));
        } else {
            println!("{}: {url}", self.context_name);
        }
        Ok(())
    }
}

impl Whoami {
    /// Shows the server and the owner of the token.
    ///
    /// # Errors
    /// When there is no server, or it does not take the token.
    pub(super) fn run(self, client: &Client, json: bool) -> Outcome<()> {
        let mut owner = owner(client)?;
        if json {
            owner["url"] = json!(client.url());
            println!("{owner}");
        } else {
            println!("{} on {}", shown(&owner), client.url());
        }
        Ok(())
    }
}

impl Logout {
    /// Removes a context. The token stays valid on the server.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn run(&self, json: bool) -> Outcome<()> {
        let path = context::file()?;
        let mut contexts = Contexts::load(&path)?.unwrap_or_default();
        let selected = self.context_name.as_deref().or(SELECTED.get().map(String::as_str));
        let name = contexts.find(selected)?.0.to_owned();
        let removed = contexts.all.remove(&name);
        contexts.current = contexts.current.filter(|current| *current != name);
        contexts.store(&path)?;
        let url = removed.map(|context| context.url).unwrap_or_default();
        if json {
            println!("{}", json!({ "context": name, "url": url, "current": contexts.current }));
            return Ok(());
        }
        println!("{name}: token removed from this machine");
        println!("  it stays valid on {url}: `dunlin fleet tokens revoke NAME` ends it");
        if contexts.current.is_none() && !contexts.all.is_empty() {
            println!("  hint: `dunlin fleet use CONTEXT` selects another server");
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

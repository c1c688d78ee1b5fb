//! Servers that `login` keeps: a file that only its owner reads, with a name, an address and a token for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::failure::{Code, Failure, Outcome};

/// Environment variable that names the file.
const FILE: &str = "DUNLIN_FLEET_PROFILE";
/// Name of the context of a file of before there were several.
pub(super) const DEFAULT: &str = "default";

/// A server and a token for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Address of the server.
    pub(super) url: String,
    /// Token.
    pub(super) token: String,
    /// Whether the token may go over plain HTTP to another machine.
    pub(super) insecure_http: bool,
}

/// All servers, and which one is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contexts {
    /// Name of the context that is used.
    pub(super) current: Option<String>,
    /// Contexts by name.
    pub(super) all: BTreeMap<String, Context>,
}

/// Returns the value of an environment variable that is set and not empty.
pub(super) fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// Returns the path of the file.
///
/// # Errors
/// When there is no home folder.
pub(super) fn file() -> Outcome<PathBuf> {
    if let Some(path) = set(FILE) {
        return Ok(path.into());
    }
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| set("APPDATA").map(PathBuf::from));
    let config = config.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
    config.map(|c| c.join("dunlin").join("fleet.json")).ok_or_else(|| {
        Failure::new(Code::File, format!("no home folder for the profile\n  hint: name its file in {FILE}"))
    })
}

/// Reads a context name: letters, digits, `-`, `_`, `.` and `:`, at most 64.
pub(super) fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of letters, digits, - _ . and :".to_owned())
}

impl Context {
    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            url: value["url"].as_str()?.to_owned(),
            token: value["token"].as_str()?.to_owned(),
            insecure_http: value["insecure_http"] == true,
        })
    }

    fn json(&self) -> Value {
        let mut value = json!({ "url": self.url, "token": self.token });
        if self.insecure_http {
            value["insecure_http"] = json!(true);
        }
        value
    }
}

impl Contexts {
    /// Reads the file's content: one of now, or one with a single server, as it was written before.
    fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        if let Some(single) = Context::read(&value) {
            return Some(Self { current: Some(DEFAULT.into()), all: BTreeMap::from([(DEFAULT.into(), single)]) });
        }
        let entries = value["contexts"].as_object()?;
        let all: Option<BTreeMap<_, _>> =
            entries.iter().map(|(name, value)| Some((name.clone(), Context::read(value)?))).collect();
        Some(Self { current: value["current"].as_str().map(str::to_owned), all: all? })
    }

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(super) fn load(path: &Path) -> Outcome<Option<Self>> {
        let name = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(Code::File, format!("{name}: {error}"))),
        };
        let wrong =
            || Failure::damaged(&name.to_string(), "not a profile\n  hint: `dunlin fleet login URL` writes one");
        Self::read(&text).map(Some).ok_or_else(wrong)
    }

    fn text(&self) -> String {
        let contexts: serde_json::Map<String, Value> =
            self.all.iter().map(|(name, context)| (name.clone(), context.json())).collect();
        let current = &self.current;
        format!("{}\n", json!({ "version": 2, "current": current, "contexts": contexts }))
    }

    /// Writes the file whole or not at all; only its owner can read it.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn store(&self, path: &Path) -> Outcome<()> {
        keep(path, &self.text()).map_err(|e| Failure::new(Code::File, format!("{}: {e}", path.display())))
    }

    /// Returns a context and its name: the given one, or the current one.
    ///
    /// # Errors
    /// When there is none of that name, or none is current; the hint lists what there is.
    pub(super) fn find(&self, wanted: Option<&str>) -> Outcome<(&str, &Context)> {
        let Some(name) = wanted.or(self.current.as_deref()) else {
            let hint = if self.all.is_empty() {
                "`dunlin fleet login URL`".to_owned()
            } else {
                format!("`dunlin fleet use CONTEXT`, of {}", self.names())
            };
            return Err(Failure::new(Code::Usage, format!("no fleet server is selected\n  hint: {hint}")));
        };
        self.all.get_key_value(name).map(|(name, context)| (name.as_str(), context)).ok_or_else(|| {
            let hint = if self.all.is_empty() { "`dunlin fleet login URL`".to_owned() } else { self.names() };
            Failure::new(Code::Usage, format!("no context '{name}'\n  hint: known are {hint}"))
        })
    }

    fn names(&self) -> String {
        self.all.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Returns the name for a server that `login` was given none for: the context with its address, or `default` for the
    /// first, or the server's host and port.
    pub(super) fn name_for(&self, url: &str) -> String {
        let known = self.all.iter().find(|(_, context)| context.url == url).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| {
            let host = url.split("://").nth(1).unwrap_or(url).split('/').next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            let host: String = host.chars().filter(|c| name(&c.to_string()).is_ok()).take(64).collect();
            if self.all.is_empty() || host.is_empty() { DEFAULT.to_owned() } else { host }
        })
    }
}

fn keep(path: &Path, text: &str) -> std::io::Result<()> {
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
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    });
    if written.is_err() {
        // The error that counts is the one of writing.
        let _ = std::fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(url: &str) -> Context {
        Context { url: url.into(), token: "t".into(), insecure_http: false }
    }

    #[test]
    fn a_profile_of_one_server_is_read_as_before() {
        let old = r#"{"url":"http://10.0.0.7:8480","token":"dnl_1","insecure_http":true}"#;
        let read = Contexts::read(old).expect("a profile");
        let (name, found) = read.find(None).expect("a context");
        assert_eq!((name, found.url.as_str(), found.token.as_str()), (DEFAULT, "http://10.0.0.7:8480", "dnl_1"));
        assert!(found.insecure_http);
        assert_eq!(Contexts::read(&read.text()), Some(read));
        assert_eq!(Contexts::read("{}"), None);
        assert_eq!(Contexts::read(r#"{"contexts":{"a":{"url":"x"}}}"#), None);
    }

    #[test]
    fn names_are_those_of_servers() {
        let mut contexts = Contexts::default();
        assert_eq!(contexts.name_for("https://a.example.org"), DEFAULT);
        contexts.all.insert(DEFAULT.into(), context("https://a.example.org"));
        assert_eq!(contexts.name_for("https://a.example.org"), DEFAULT);
        assert_eq!(contexts.name_for("https://b.example.org:8480/x"), "b.example.org:8480");
        assert!(contexts.find(None).is_err_and(|f| f.text.contains("dunlin fleet use") && f.text.contains(DEFAULT)));
        assert!(contexts.find(Some("b")).is_err_and(|f| f.text.contains(DEFAULT)));
        assert!(name("a b").is_err() && name("").is_err() && name("staging-1").is_ok());
    }
}

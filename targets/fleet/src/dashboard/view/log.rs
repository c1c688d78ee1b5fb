//! Flags, the audit log, and the pages around a session.

use askama::Template;

use super::{Badge, Frame, Section, Tone};
use crate::dashboard::{figure, markup};

/// The flags as devices get them.
#[derive(Template)]
#[template(path = "flags.html")]
pub(crate) struct FlagsPage {
    pub(crate) frame: Frame,
    /// Of the signed document; nothing before there is one.
    pub(crate) document: Option<FlagDocument>,
    pub(crate) flags: Vec<FlagLine>,
}

/// The document that devices evaluate.
#[derive(Clone, Debug)]
pub(crate) struct FlagDocument {
    pub(crate) version: u64,
    pub(crate) published: i64,
    pub(crate) expires: Option<i64>,
}

/// A flag.
#[derive(Clone, Debug)]
pub(crate) struct FlagLine {
    pub(crate) killed: bool,
    /// Whether it is `dunlin.serve`, which is stopped and resumed instead of killed and revived.
    pub(crate) is_kill_switch: bool,
    /// Addresses of its form and of its switch.
    pub(crate) edit: String,
    pub(crate) switch: String,
    pub(crate) name: String,
    pub(crate) default: String,
    pub(crate) rules: Vec<String>,
    pub(crate) state: Badge,
}

/// The audit log.
#[derive(Template)]
#[template(path = "audit.html")]
pub(crate) struct AuditPage {
    pub(crate) frame: Frame,
    pub(crate) entries: Vec<Entry>,
    /// What following the hashes of this page's entries found.
    pub(crate) chain: Badge,
    pub(crate) actor: String,
    pub(crate) older: Option<String>,
    pub(crate) newer: Option<String>,
}

/// An entry of the audit log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) n: i64,
    pub(crate) time: i64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) object: String,
    pub(crate) link: Option<String>,
    pub(crate) detail: String,
    pub(crate) hash: String,
}

/// Asks for a token.
#[derive(Template)]
#[template(path = "login.html")]
pub(crate) struct LoginPage {
    pub(crate) error: Option<String>,
    /// Where to go afterwards.
    pub(crate) next: String,
}

/// Something did not work.
#[derive(Template)]
#[template(path = "failure.html")]
pub(crate) struct FailurePage {
    pub(crate) error: String,
    pub(crate) hint: String,
}

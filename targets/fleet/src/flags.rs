//! A tenant's flags: read, validated, signed and stored under optimistic versioning.

pub(crate) mod form;
mod print;
pub(crate) mod reach;
mod rule;
pub(crate) mod serving;

use dunlin_rollout::flag::{Document, FlagSpec, RuleSpec, Setting};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use print::FlagsBody;
use print::RuleBody;

use crate::error::{ApiError, ApiResult};
use crate::server::Inner;
use crate::store::flags::{self, Stored};
use crate::store::{Connection, audit, rollouts, signed, unsigned};

/// All flags of a tenant, as they are stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flags {
    /// The version these replace, 0 for the first; of what is stored one less than its own.
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) ttl: u32,
    #[serde(default)]
    pub(crate) flags: Vec<FlagSpec>,
}

impl Flags {
    /// Returns the flags in force with their own version: before anything is stored the kill switch, which is on.
    pub(crate) fn of(stored: Option<&Stored>) -> ApiResult<Self> {
        let Some(stored) = stored else {
            return Ok(Self { flags: vec![serving::default_flag()], ..Self::default() });
        };
        let mut known: Self = serde_json::from_str(&stored.request)
            .map_err(|_| ApiError::unavailable("the stored flags do not decode"))?;
        known.version = unsigned(stored.version);
        Ok(known)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<&FlagSpec> {
        self.flags.iter().find(|f| f.key == key)
    }

    /// Puts a flag in the place of the one with its key, or adds it.
    pub(crate) fn insert(&mut self, flag: FlagSpec) {
        match self.flags.iter_mut().find(|f| f.key == flag.key) {
            Some(place) => *place = flag,
            None => self.flags.push(flag),
        }
    }
}

/// Who changes flags, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) name: &'a str,
    /// For the audit log; may be empty.
    pub(crate) reason: &'a str,
    /// The audit log's word for what is done, such as `flags.put`.
    pub(crate) action: &'a str,
}

/// The number of the next document: the time, or one more than the last if that is later. So a database that was put back
/// to an older state goes on above what devices have seen.
fn next_sequence(before: Option<&Stored>, now: u64) -> u64 {
    before.map_or(now, |f| now.max(unsigned(f.sequence) + 1))
}

fn sign(app: &Inner, tenant: &str, sequence: u64, issued: u64, flags: &Flags) -> ApiResult<Vec<u8>> {
    let document = Document { sequence, issued, ttl: flags.ttl, flags: flags.flags.clone() };
    let payload =
        document.encode().map_err(|e| ApiError::unacceptable(e.to_string(), "change the flags so that it holds"))?;
    app.documents.flags(tenant, &payload).map_err(|e| ApiError::unacceptable(e, "set fewer or smaller flags"))
}

/// Flags as a device should have them that has seen the document `seen`: nothing, if it is this one. A device that has
/// seen a later one knows a later state of this database than there is, which was put back; what is here is signed anew
/// then, seldom, should the device make it up.
pub(crate) async fn for_device(app: &Inner, tenant: &str, seen: u64) -> ApiResult<Option<Vec<u8>>> {
    let Some(stored) = flags::get(&mut *app.store.read().await?, tenant).await? else { return Ok(None) };
    if unsigned(stored.sequence) >= seen {
        return Ok(Some(stored.document).filter(|_| unsigned(stored.sequence) > seen));
    }
    let now = app.clock.seconds();
    if seen > now || signed(now) - stored.updated < rollouts::RENEWS {
        return Ok(None);
    }
    let known = Flags::of(Some(&stored))?;
    let sequence = now.max(seen + 1);
    let document = sign(app, tenant, sequence, now, &known)?;
    let mut tx = app.store.write().await?;
    let of = Stored { sequence: signed(sequence), document: document.clone(), updated: signed(now), ..stored };
    let done = flags::renew(&mut tx, tenant, &of).await?;
    tx.commit().await?;
    // Somebody else was first: the next poll has it.
    Ok(Some(document).filter(|_| done))
}

/// Checks flags without storing them.
///
/// # Errors
/// 422 with what devices would find wrong with the document, or when it is too long to be signed.
pub(crate) fn check(app: &Inner, tenant: &str, wanted: &Flags) -> ApiResult<()> {
    sign(app, tenant, u64::MAX, u64::MAX, wanted).map(drop)
}

/// Replaces all flags in force and keeps the record of where inference is stopped in step. Returns the new version.
///
/// # Errors
/// 409 when the version is not the one in force, or when the flags would silently end a stop of inference.
pub(crate) async fn replace(
    app: &Inner,
    tx: &mut Connection,
    author: &Author<'_>,
    before: Option<&Stored>,
    wanted: &Flags,
) -> ApiResult<u64> {
    let now = app.clock.seconds();
    let version = before.map_or(0, |f| unsigned(f.version));
    if version != wanted.version {
        return Err(ApiError::conflict(
            format!("the flags are of version {version}"),
            "read them, change them, and put them with that version",
        ));
    }
    let known = Flags::of(before)?;
    let stopped = known.flag(serving::KEY).is_some_and(|f| !serving::stops(f).is_empty());
    if stopped && wanted.flag(serving::KEY).is_none() {
        return Err(ApiError::conflict(
            format!("inference is stopped, and flags without {:?} would start it again", serving::KEY),
            "keep that flag as it is, or resume first: POST /v1/serving/resume",
        ));
    }
    let sequence = next_sequence(before, now);
    let stored = Stored {
        version: signed(version + 1),
        sequence: signed(sequence),
        request: text(wanted)?,
        document: sign(app, author.tenant, sequence, now, wanted)?,
        updated: signed(now),
    };
    if !flags::put(tx, author.tenant, &stored).await? {
        return Err(ApiError::conflict("somebody else put flags at this moment", "read them again"));
    }
    let keys: Vec<&str> = wanted.flags.iter().map(|f| f.key.as_str()).collect();
    let mut detail = json!({ "version": version + 1, "keys": keys });
    if !author.reason.is_empty()
        && let Value::Object(fields) = &mut detail
    {
        fields.insert("reason".to_owned(), json!(author.reason));
    }
    let object = (version + 1).to_string();
    audit::append(tx, author.tenant, signed(now), author.name, author.action, &object, &detail).await?;
    serving::record(app, tx, author, wanted.flag(serving::KEY), signed(sequence), signed(now)).await?;
    Ok(version + 1)
}

/// A value as text that [`read_value`] reads.
pub(crate) fn value_text(of: &Setting) -> String {
    rule::value_text(of)
}

/// Reads a value from text: `true`, `false`, a number, or text with or without quotes.
pub(crate) fn read_value(text: &str) -> Setting {
    rule::value(text)
}

/// A rule as a line, or as JSON where no line says it.
pub(crate) fn rule_text(flag: &FlagSpec, of: &RuleSpec) -> String {
    rule::line(flag, of).unwrap_or_else(|| serde_json::to_string(&RuleBody::of(flag, of)).unwrap_or_default())
}

/// The text by which flags are stored, and by which the same request is known again.
pub(crate) fn text(flags: &Flags) -> ApiResult<String> {
    serde_json::to_string(flags).map_err(|_| ApiError::bad("the flags do not encode", "see /openapi.json"))
}

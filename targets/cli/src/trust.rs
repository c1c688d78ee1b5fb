//! Signed documents, read and shown; folders of keys.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_update::trust::{
    self, Audience, Document, Ed25519, KeyId, Manner, Release, Role, RoleKeys, Rollout, RootKeys, SecretKey, Share,
    TrustError, key_id,
};
use serde_json::{Value, json};

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::recognize::recognize;
use crate::table::grouped;

/// First line of a file with a secret key.
const KEY_HEADING: &str = "dunlin secret key, format 1";

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Hexadecimal digits as bytes.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A day of the calendar for people: `YYYY-MM-DD`.
#[must_use]
pub fn day(seconds: u64) -> String {
    if seconds == 0 {
        return "never".into();
    }
    // Days since 0000-03-01, by eras of 400 years: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = i128::from(seconds / 86_400) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", of_year - (153 * march + 2) / 5 + 1)
}

/// A signed document, whichever it is.
pub enum Signed<'a> {
    /// Keys and thresholds.
    Root(RootKeys),
    /// A package.
    Release(Release<'a>),
    /// Who should run it.
    Rollout(Rollout<'a>),
}

/// Signatures of a document in one role.
pub struct RoleSignatures {
    /// The role.
    pub role: Role,
    /// Whose keys they were verified with.
    pub by: String,
    /// Keys that have to sign.
    pub threshold: u8,
    /// Keys that the role has.
    pub keys: usize,
    /// Names of the keys whose signature verifies.
    pub valid: Vec<KeyId>,
}

impl RoleSignatures {
    /// Whether enough keys have signed.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.threshold > 0 && self.valid.len() >= usize::from(self.threshold)
    }

    /// A line for people.
    #[must_use]
    pub fn text(&self) -> String {
        let (role, valid) = (self.role.name(), self.valid.len());
        let names: Vec<String> = self.valid.iter().map(|id| hex(id)).collect();
        let who = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        let verdict = if self.is_enough() { "valid" } else { "not valid" };
        format!(
            "{verdict}: signed by {valid} of {} {role} keys, {} required, {}{who}",
            self.keys, self.threshold, self.by
        )
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"role": self.role.name(), "by": self.by, "required": self.threshold, "keys": self.keys,
            "valid": self.valid.iter().map(|id| hex(id)).collect::<Vec<_>>(), "enough": self.is_enough()})
    }
}

/// Returns the keys of a role whose signature of a document verifies.
fn valid_keys(document: &Document<'_>, root: &RootKeys, role: Role) -> Vec<KeyId> {
    let keys = root.keys.iter().take(usize::from(root.count)).enumerate();
    let valid = keys.filter(|(i, _)| {
        let bit = root.role(role).keys & (1 << i);
        let mut alone = *root;
        alone.roles[role as usize] = RoleKeys { threshold: 1, keys: bit };
        bit != 0 && document.check(&alone, role, &Ed25519).is_ok()
    });
    valid.map(|(_, key)| key_id(key)).collect()
}

/// A document that is not judged yet.
pub struct Read<'a> {
    /// The role whose document it is.
    pub role: Role,
    /// Its envelope.
    pub document: Document<'a>,
    /// Its fields.
    pub fields: Signed<'a>,
}

impl<'a> Read<'a> {
    /// Reads a document of any role.
    ///
    /// # Errors
    /// Names the file.
    pub fn new(path: &str, bytes: &'a [u8]) -> Outcome<Self> {
        let wrong = |e: TrustError| {
            if bytes.starts_with(&dunlin::package::MAGIC[..6]) {
                return Failure::damaged(path, "not a signed document: this is a package\n  hint: leave out --trust");
            }
            match recognize(bytes) {
                Some(found) => Failure::damaged(path, format!("not a signed document: this is {}", found.what)),
                None => {
                    let hint = "`dunlin keys` and `dunlin sign` write signed documents";
                    Failure::damaged(path, format!("not a signed document: {e}\n  hint: {hint}"))
                }
            }
        };
        let role = Role::ALL.into_iter().find(|r| bytes.get(5) == Some(&(*r as u8))).unwrap_or(Role::Root);
        let document = Document::read(bytes, role).map_err(wrong)?;
        let fields = match role {
            Role::Root => Signed::Root(document.decode().map_err(wrong)?),
            Role::Targets => Signed::Release(document.decode().map_err(wrong)?),
            Role::Rollout => Signed::Rollout(document.decode().map_err(wrong)?),
            Role::Distributor => return Err(Failure::damaged(path, "there are no documents of the role distributor")),
        };
        Ok(Self { role, document, fields })
    }

    /// Whether a device with that root would believe it, apart from its time and sequence.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, root: &RootKeys, bytes: &[u8]) -> Result<(), TrustError> {
        match self.fields {
            Signed::Root(ref own) if own == root => self.document.check(root, Role::Root, &Ed25519),
            Signed::Root(_) => trust::follow(root, bytes, &Ed25519).map(drop),
            Signed::Release(_) => trust::release(root, bytes, &Ed25519).map(drop),
            Signed::Rollout(_) => trust::rollout(root, bytes, &Ed25519).map(drop),
        }
    }

    /// Counts the signatures of the document that verify with keys of `root`, by the roles that have to sign it. A root
    /// document other than `root` has to be signed by the keys of `root` and by its own.
    #[must_use]
    pub fn signatures(&self, root: &RootKeys) -> Vec<RoleSignatures> {
        let mut needed = vec![(self.role, root, format!("root version {}", root.version))];
        match &self.fields {
            Signed::Root(own) if own != root => {
                needed.push((Role::Root, own, format!("its own version {}", own.version)))
            }
            Signed::Release(_) if root.role(Role::Distributor).threshold > 0 => {
                needed.push((Role::Distributor, root, format!("root version {}", root.version)));
            }
            _ => {}
        }
        let count = |(role, keys, by): (Role, &RootKeys, String)| RoleSignatures {
            role,
            by,
            threshold: keys.role(role).threshold,
            keys: keys.keys_of(role).count(),
            valid: valid_keys(&self.document, keys, role),
        };
        needed.into_iter().map(count).collect()
    }

    /// All of it.
    #[must_use]
    pub fn json(&self) -> Value {
        let signers = self.document.signers().map(|(key, role)| json!({"key": hex(&key), "role": role_name(role)}));
        let fields = match &self.fields {
            Signed::Root(root) => {
                let roles = Role::ALL.into_iter().filter(|&r| root.role(r).threshold > 0).map(|role| {
                    let keys: Vec<String> = root.keys_of(role).map(|k| hex(&key_id(k))).collect();
                    (role.name().to_owned(), json!({"threshold": root.role(role).threshold, "keys": keys}))
                });
                json!({"version": root.version, "expires": root.expires, "roles": roles.collect::<serde_json::Map<_, _>>()})
            }
            Signed::Release(r) => {
                json!({"name": r.name, "version": r.version, "digest": hex(&r.digest), "hash": hex(&r.hash),
                "bytes": r.len, "number": r.number, "counter": r.counter, "expires": r.expires, "target": r.target,
                "engine_min": [r.engine_min.0, r.engine_min.1], "ops_version": r.ops_version, "memory_bytes": r.memory})
            }
            Signed::Rollout(r) => {
                let lifted: Vec<String> = r.lifted.chunks(16).map(hex).collect();
                json!({"name": r.name, "sequence": r.sequence, "time": r.time, "expires": r.expires,
                "digest": hex(&r.digest), "audience": audience(&r.audience), "lifted": lifted})
            }
        };
        json!({"document": self.role.name(), "fields": fields, "signatures": signers.collect::<Vec<_>>()})
    }

    /// All of it, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = match &self.fields {
            Signed::Root(root) => {
                let _ = writeln!(text, "root {}, until {}", root.version, day(root.expires));
                for role in Role::ALL.into_iter().filter(|&r| root.role(r).threshold > 0) {
                    let keys: Vec<String> = root.keys_of(role).map(|k| hex(&key_id(k))).collect();
                    let of = format!("{} of {}", root.role(role).threshold, keys.len());
                    let _ = writeln!(text, "  {:<12} {of:<8} {}", role.name(), keys.join(" "));
                }
                Ok(())
            }
            Signed::Release(r) => writeln!(
                text,
                "release {} of '{}' {}, for {}, until {}\n  digest {}\n  hash   {}\n  {} bytes, memory {} bytes, engine {}.{}, operators {}, security counter {}",
                r.number,
                r.name,
                r.version,
                r.target,
                day(r.expires),
                hex(&r.digest),
                hex(&r.hash),
                grouped(r.len.into()),
                grouped(r.memory.into()),
                r.engine_min.0,
                r.engine_min.1,
                r.ops_version,
                r.counter
            ),
            Signed::Rollout(r) => writeln!(
                text,
                "rollout {} of '{}', signed {}, until {}\n  digest {}\n  {} % of the devices{}{}",
                r.sequence,
                r.name,
                day(r.time),
                day(r.expires),
                hex(&r.digest),
                percent(r.audience.share),
                manner(&r.audience),
                if r.lifted.is_empty() { String::new() } else { format!(", lifts {}", r.lifted.len() / 16) }
            ),
        };
        let signers: Vec<String> =
            self.document.signers().map(|(key, role)| format!("{} as {}", hex(&key), role_name(role))).collect();
        let all = if signers.is_empty() { "nobody".to_owned() } else { signers.join(", ") };
        let _ = writeln!(text, "  claims to be signed by {all}");
        text
    }
}

fn percent(share: Share) -> f64 {
    (share.bound() as f64 / Share::ALL.bound() as f64 * 1e6).round() / 1e4
}

/// How devices run it, where it is not in the place of what runs.
fn manner(audience: &Audience) -> String {
    let part =
        if audience.parts == 0 { String::new() } else { format!(", part {} of {}", audience.part, audience.parts) };
    match audience.manner {
        Manner::Instead => part,
        Manner::Shadow { every } => format!("{part}, in the shadow on one of {every} inputs"),
        Manner::Hourly => format!("{part}, every other hour"),
    }
}

fn audience(of: &Audience) -> Value {
    let (manner, every) = match of.manner {
        Manner::Instead => ("instead", None),
        Manner::Shadow { every } => ("shadow", Some(every)),
        Manner::Hourly => ("hourly", None),
    };
    json!({"salt": of.salt.bits(), "percent": percent(of.share), "parts": of.parts, "part": of.part, "manner": manner,
        "every": every})
}

fn role_name(role: u8) -> &'static str {
    Role::ALL.get(usize::from(role)).map_or("unknown", |r| r.name())
}

/// A folder with secret keys and root documents.
pub struct KeyFolder {
    path: PathBuf,
}

impl KeyFolder {
    /// Names the folder.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self { path: path.into() }
    }

    /// The file of the root document of a version.
    #[must_use]
    pub fn root_file(&self, version: u32) -> PathBuf {
        self.path.join(format!("{version}.root"))
    }

    /// The newest root document.
    ///
    /// # Errors
    /// Names the folder or the file.
    pub fn newest(&self) -> Outcome<RootKeys> {
        let version = (1..=u32::MAX).take_while(|&v| self.root_file(v).exists()).last().ok_or_else(|| {
            let text = format!("{}: holds no root document\n  hint: `dunlin keys init` makes one", self.path.display());
            Failure::new(Code::File, text)
        })?;
        let path = self.root_file(version).display().to_string();
        let bytes = model::read(&path)?;
        match Read::new(&path, &bytes)?.fields {
            Signed::Root(root) => Ok(root),
            _ => Err(Failure::damaged(&path, "is no root document")),
        }
    }

    fn key_file(&self, id: KeyId) -> PathBuf {
        self.path.join(format!("{}.key", hex(&id)))
    }

    /// Makes a key. Only its owner can read the file.
    ///
    /// # Errors
    /// Names the file.
    pub fn generate(&self) -> Outcome<SecretKey> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| Failure::new(Code::File, format!("the system gives no random bytes: {e}")))?;
        let key = SecretKey::from_seed(seed).map_err(|e| Failure::new(Code::File, e.to_string()))?;
        let path = self.key_file(key_id(&key.public()));
        write_secret(&path, &format!("{KEY_HEADING}\nseed {}\n", hex(&seed)))
            .map_err(|e| Failure::new(Code::File, format!("{}: {e}", path.display())))?;
        Ok(key)
    }

    /// The secret keys of a role that the folder has.
    ///
    /// # Errors
    /// Names the file that is damaged.
    pub fn secrets(&self, root: &RootKeys, role: Role) -> Outcome<Vec<SecretKey>> {
        let files = root.keys_of(role).map(|k| self.key_file(key_id(k))).filter(|f| f.exists());
        files.map(|f| read_secret(&f)).collect()
    }
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads a file with a secret key.
///
/// # Errors
/// Names the file.
pub fn read_secret(path: &Path) -> Outcome<SecretKey> {
    let name = path.display().to_string();
    let text = String::from_utf8(model::read(&name)?).unwrap_or_default();
    let mut lines = text.lines();
    let seed = (lines.next() == Some(KEY_HEADING)).then(|| lines.next()?.strip_prefix("seed ")).flatten();
    let seed = seed.and_then(unhex::<32>);
    let seed =
        seed.ok_or_else(|| Failure::damaged(&name, "not a Dunlin secret key\n  hint: `dunlin keys init` makes them"))?;
    SecretKey::from_seed(seed).map_err(|e| Failure::damaged(&name, e))
}

/// Signs with every key of a role that is there, and says when the threshold is not reached.
///
/// # Errors
/// When the document would be too long.
pub fn sign_all(bytes: Vec<u8>, role: Role, keys: &[SecretKey]) -> Outcome<Vec<u8>> {
    keys.iter().try_fold(bytes, |bytes, key| {
        trust::sign(&bytes, role, key).map_err(|e| Failure::new(Code::Damaged, e.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [(1, "1970-01-01"), (951_782_400, "2000-02-29"), (1_800_000_000, "2027-01-15")] {
            assert_eq!(day(seconds), text);
        }
    }

    #[test]
    fn a_key_of_zeros_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("zeros.key");
        write_secret(&path, &format!("{KEY_HEADING}\nseed {}\n", "00".repeat(32))).expect("written");
        let told = read_secret(&path).expect_err("no key").text;
        assert!(told.contains("zeros.key") && told.contains("nothing but zeros"), "{told}");
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(unhex(&hex(&[0, 1, 0xAB])), Some([0, 1, 0xAB]));
        assert_eq!(unhex::<1>("0g"), None);
        assert_eq!(unhex::<2>("00"), None);
    }
}

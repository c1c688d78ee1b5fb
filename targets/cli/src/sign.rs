//! `dunlin sign`: what a package is, and who should run it.

use std::path::Path;

use dunlin::{Block, Package};
use dunlin_update::trust::{Audience, Manner, Release, Role, Rollout, RootKeys, Salt, Share, envelope, sign};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::trust::{KeyFolder, Read, Signed, now, read_secret, sign_all, unhex};

/// Signs what a package is and who should run it.
#[derive(clap::Args, Clone, Debug)]
pub struct Sign {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub action: Action,
}

/// What is signed.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Sign what a package is, as targets
    Release {
        /// The package
        package: String,
        /// The folder of the keys
        #[arg(long)]
        keys: String,
        /// Releases of a model are numbered from 1
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        number: u32,
        /// Raise it when packages with a lower one must never run again
        #[arg(long, default_value_t = 1)]
        counter: u32,
        /// Days until it is not accepted any more; 0: never
        #[arg(long, default_value_t = 0)]
        days: u64,
        /// Where to write it
        #[arg(short, long, value_name = "OUT.release")]
        output: String,
    },
    /// Sign who should run a release, as rollout
    Rollout {
        /// The release
        release: String,
        /// The folder of the keys
        #[arg(long)]
        keys: String,
        /// Higher than that of every rollout document before
        #[arg(long)]
        sequence: u64,
        /// Percent of the devices, in steps of a ten-thousandth
        #[arg(long, default_value_t = 100.0)]
        percent: f64,
        /// Mixed into the choice of devices; the name of the model when absent
        #[arg(long)]
        salt: Option<String>,
        /// Run it in the shadow of the model that serves, on one of so many inputs
        #[arg(long, value_name = "EVERY", value_parser = clap::value_parser!(u32).range(1..))]
        shadow: Option<u32>,
        /// Let devices take a digest again that failed on them; may be given several times
        #[arg(long, value_name = "DIGEST")]
        lift: Vec<String>,
        /// Days until it is not accepted any more
        #[arg(long, default_value_t = 14)]
        days: u64,
        /// Where to write it
        #[arg(short, long, value_name = "OUT.rollout")]
        output: String,
    },
    /// Add one key's signature to a document
    Add {
        /// The document, which is replaced
        document: String,
        /// The file of the key
        #[arg(long)]
        key: String,
        /// The role in which it signs
        #[arg(long, value_parser = crate::keys::role)]
        role: Role,
    },
}

impl Sign {
    /// Does it.
    ///
    /// # Errors
    /// Names the role, the key and why.
    pub fn run(&self, json: bool) -> Outcome<()> {
        match &self.action {
            Action::Release { package, keys, number, counter, days, output } => {
                let bytes = Block::from(&model::read(package)?[..]);
                let folder = KeyFolder::new(keys);
                let root = folder.newest()?;
                let bytes = release(
                    package,
                    &bytes,
                    &folder,
                    &root,
                    Terms { number: *number, counter: *counter, days: *days },
                )?;
                finish(output, &bytes, &root, json)
            }
            Action::Rollout { release, keys, sequence, percent, salt, shadow, lift, days, output } => {
                let bytes = model::read(release)?;
                let Signed::Release(of) = Read::new(release, &bytes)?.fields else {
                    return Err(Failure::damaged(release, "is no release\n  hint: `dunlin sign release` makes one"));
                };
                if !(0.0..=100.0).contains(percent) {
                    return Err(Failure::new(Code::Usage, "--percent is from 0 to 100"));
                }
                let mut lifted = Vec::new();
                for text in lift {
                    let digest = unhex::<32>(text).map(|d| d[..16].to_vec());
                    lifted.extend(digest.or_else(|| unhex::<16>(text).map(|d| d.to_vec())).ok_or_else(|| {
                        Failure::new(Code::Usage, format!("--lift {text}: a digest has 64 hexadecimal digits"))
                    })?);
                }
                let salt = salt.clone().unwrap_or_else(|| of.name.to_owned());
                let rollout = Rollout {
                    name: of.name,
                    sequence: *sequence,
                    time: now(),
                    expires: until(*days),
                    digest: of.digest,
                    audience: Audience {
                        manner: shadow.map_or(Manner::Instead, |every| Manner::Shadow { every }),
                        ..Audience::share(
                            Salt::new(salt.as_bytes()),
                            Share::of((percent * 10_000.0).round() as u32, 1_000_000),
                        )
                    },
                    lifted: &lifted,
                };
                let folder = KeyFolder::new(keys);
                let root = folder.newest()?;
                let plain = envelope(Role::Rollout, &rollout).map_err(|e| Failure::damaged(release, e))?;
                let bytes = sign_all(plain, Role::Rollout, &folder.secrets(&root, Role::Rollout)?)?;
                finish(output, &bytes, &root, json)
            }
            Action::Add { document, key, role } => {
                let bytes = model::read(document)?;
                Read::new(document, &bytes)?;
                let key = read_secret(Path::new(key))?;
                let bytes = sign(&bytes, *role, &key).map_err(|e| Failure::damaged(document, e))?;
                model::write(document, &bytes)?;
                show(document, &bytes, None, json)
            }
        }
    }
}

/// What is not in a package and its release says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The release's number.
    pub(crate) number: u32,
    /// The security counter.
    pub(crate) counter: u32,
    /// Days until it is not accepted any more; 0: never.
    pub(crate) days: u64,
}

/// The release document of a package, signed by all keys of the folder that may.
pub(crate) fn release(
    path: &str,
    bytes: &Block,
    folder: &KeyFolder,
    root: &RootKeys,
    terms: Terms,
) -> Outcome<Vec<u8>> {
    let opened = Package::open(bytes).map_err(|e| Failure::damaged(path, e))?;
    let manifest = opened.manifest();
    let release = Release {
        name: manifest.name,
        version: manifest.version,
        digest: opened.digest(),
        hash: Sha256::digest(&**bytes).into(),
        len: u32::try_from(bytes.len()).map_err(|_| Failure::damaged(path, "is too large"))?,
        number: terms.number,
        counter: terms.counter,
        expires: until(terms.days),
        target: manifest.target,
        engine_min: (manifest.engine_min.major, manifest.engine_min.minor),
        ops_version: manifest.ops_version,
        memory: manifest.arena_bytes.saturating_add(manifest.scratch_bytes),
    };
    let plain = envelope(Role::Targets, &release).map_err(|e| Failure::damaged(path, e))?;
    let bytes = sign_all(plain, Role::Targets, &folder.secrets(root, Role::Targets)?)?;
    sign_all(bytes, Role::Distributor, &folder.secrets(root, Role::Distributor)?)
}

fn until(days: u64) -> u64 {
    if days == 0 { 0 } else { now().saturating_add(days.saturating_mul(86_400)) }
}

/// Writes a document, and says whether devices would believe it yet.
fn finish(path: &str, bytes: &[u8], root: &RootKeys, json: bool) -> Outcome<()> {
    model::write(path, bytes)?;
    show(path, bytes, Some(root), json)
}

/// Shows a document and, given a root, whether it is to be believed.
///
/// # Errors
/// When the file is no document, or is not to be believed.
pub fn show(path: &str, bytes: &[u8], root: Option<&RootKeys>, json: bool) -> Outcome<()> {
    let read = Read::new(path, bytes)?;
    let verdict = root.map(|root| read.judge(root, bytes));
    if json {
        let mut object = read.json();
        object["file"] = json!(path);
        if let Some(verdict) = &verdict {
            object["believed"] = json!(verdict.is_ok());
        }
        println!("{object}");
    } else {
        print!("{path}\n{}", read.text());
    }
    match (verdict, root) {
        (Some(Err(error)), Some(root)) => {
            let text = format!(
                "{path}: devices with root {} do not believe it: {error}\n  hint: `dunlin sign add` adds the signatures of keys that are elsewhere",
                root.version
            );
            Err(Failure::new(Code::Untrusted, text))
        }
        _ => Ok(()),
    }
}

//! `dunlin sign`: what a package is, and who should run it.

use std::path::Path;

use dunlin::{Block, Package};
use dunlin_update::trust::{Audience, Manner, Release, Role, Rollout, RootKeys, Salt, Share, envelope, sign};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::output::{self, Tone};
use crate::trust::{KeyFolder, Read, RoleSignatures, Signed, now, read_secret, sign_all, unhex};

/// Signs releases and rollouts.
#[derive(clap::Args, Clone, Debug)]
pub struct Sign {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub action: Action,
}

/// What is signed.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Sign a release: name, version, digest and limits of a package
    Release {
        /// Package
        package: String,
        /// Folder of the keys
        #[arg(long)]
        keys: String,
        /// Number of the release, from 1
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        number: u32,
        /// Security counter: devices refuse packages with a lower one
        #[arg(long, default_value_t = 1)]
        counter: u32,
        /// Days until the release expires; 0: never
        #[arg(long, default_value_t = 0)]
        days: u64,
        /// Release to write
        #[arg(short, long, value_name = "OUT.release")]
        output: String,
    },
    /// Sign a rollout: which devices run a release
    Rollout {
        /// Release
        release: String,
        /// Folder of the keys
        #[arg(long)]
        keys: String,
        /// Sequence number; higher than in all rollouts before
        #[arg(long)]
        sequence: u64,
        /// Percentage of the devices
        #[arg(long, default_value_t = 100.0)]
        percent: f64,
        /// Salt of the choice of devices [default: the model's name]
        #[arg(long)]
        salt: Option<String>,
        /// Run it in shadow mode on one of EVERY inputs
        #[arg(long, value_name = "EVERY", value_parser = clap::value_parser!(u32).range(1..))]
        shadow: Option<u32>,
        /// Unblock a digest that failed on devices; repeatable
        #[arg(long, value_name = "DIGEST|FILE")]
        lift: Vec<String>,
        /// Days until the rollout expires
        #[arg(long, default_value_t = 14)]
        days: u64,
        /// Rollout to write
        #[arg(short, long, value_name = "OUT.rollout")]
        output: String,
    },
    /// Add one key's signature to a document
    Add {
        /// Document; is replaced
        document: String,
        /// File of the key
        #[arg(long)]
        key: String,
        /// Role of the signature
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
                    lifted.extend(lifted_digest(text)?);
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

/// The first 16 bytes of a digest: from its 64 or 32 digits, or a file with the package or its release.
fn lifted_digest(text: &str) -> Outcome<[u8; 16]> {
    let first = |digest: &[u8; 32]| std::array::from_fn(|i| digest[i]);
    if let Some(digest) = unhex::<32>(text) {
        return Ok(first(&digest));
    }
    if let Some(digest) = unhex::<16>(text) {
        return Ok(digest);
    }
    if Path::new(text).is_file() {
        let bytes = Block::from(&model::read(text)?[..]);
        if let Ok(package) = Package::open(&bytes) {
            return Ok(first(&package.digest()));
        }
        if let Signed::Release(release) = Read::new(text, &bytes)?.fields {
            return Ok(first(&release.digest));
        }
    }
    let hint = "pass all 64 digits, which `dunlin inspect` prints, or the package's file";
    Err(Failure::new(Code::Usage, format!("--lift {text}: not a digest and not a package's file\n  hint: {hint}")))
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
    let opened = Package::open(bytes).map_err(|e| Failure::package(path, bytes, e))?;
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
    let signatures = root.map(|root| read.signatures(root)).unwrap_or_default();
    if json {
        let mut object = read.json();
        object["file"] = json!(path);
        if let Some(verdict) = &verdict {
            object["believed"] = json!(verdict.is_ok());
            object["verified"] = signatures.iter().map(RoleSignatures::json).collect();
        }
        println!("{object}");
    } else {
        print!("{}\n{}", output::paint(Tone::Heading, path), read.text());
        for line in &signatures {
            let tone = if line.is_enough() { Tone::Good } else { Tone::Bad };
            println!("  {}", output::marked(tone, &line.text()));
        }
        if root.is_none() {
            println!("  signatures not checked: pass --root");
        }
    }
    match (verdict, root) {
        (Some(Err(error)), Some(root)) => {
            let text = format!(
                "{path}: not accepted by devices with root version {}: {error}\n  hint: `dunlin sign add` adds the signatures of other keys",
                root.version
            );
            Err(Failure::new(Code::Untrusted, text))
        }
        _ => Ok(()),
    }
}

//! `dunlin fleet publish`: a package, its release, and differences from what the fleet runs.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use dunlin::{Block, Package};
use dunlin_update::delta::{EncodeOptions, Encoded, encode};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::{Client, escaped};
use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::sign::{self, Terms};
use crate::table::{grouped, table};
use crate::trust::{KeyFolder, Read, Signed, hex};

/// Devices that are looked at for what the fleet runs. Ids are hashes, so the first of them are drawn evenly: a digest that one
/// device in a thousand runs is among them with a probability of 99 %.
const CENSUS: usize = 5000;
/// Bytes of a package that is fetched to start a difference from.
const MAX_BASE: u64 = 1 << 30;

/// Publishes a package with its release, and differences from what the fleet runs.
#[derive(clap::Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("signature").required(true)))]
pub(super) struct Publish {
    /// Package
    pub(super) package: String,
    /// Signed release, as `dunlin sign release` writes it
    #[arg(long, group = "signature")]
    pub(super) release: Option<String>,
    /// Folder of the keys to sign a release with
    #[arg(long, group = "signature")]
    pub(super) keys: Option<String>,
    /// Number of the release [default: the next one]
    #[arg(long, requires = "keys", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) number: Option<u32>,
    /// Security counter: devices refuse packages with a lower one
    #[arg(long, requires = "keys", default_value_t = 1)]
    pub(super) counter: u32,
    /// Days until the release expires; 0: never
    #[arg(long, requires = "keys", default_value_t = 0)]
    pub(super) days: u64,
    /// Do not create deltas
    #[arg(long)]
    pub(super) no_deltas: bool,
    /// Published package to create a delta from; repeatable
    #[arg(long, value_name = "PACKAGE")]
    pub(super) base: Vec<String>,
}

/// A difference that was made.
struct Difference {
    base: String,
    label: String,
    /// Part of the devices that run the base, if any that was seen does.
    share: Option<f64>,
    /// Its bytes; nothing when the whole package is smaller.
    len: Option<usize>,
}

fn bar(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{msg:24} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// What devices of a model run: digests with the part of the devices that do.
///
/// # Errors
/// As [`Client::get`].
pub(super) fn census(client: &Client, model: &str) -> Outcome<BTreeMap<String, f64>> {
    let devices = client.all(&format!("/v1/devices?model={}", escaped(model)), "id", CENSUS)?;
    let mut counts = BTreeMap::<String, f64>::new();
    for digest in devices.iter().filter_map(|d| d["running"].as_str()) {
        *counts.entry(digest.to_owned()).or_default() += 1.0 / devices.len() as f64;
    }
    Ok(counts)
}

impl Publish {
    /// Does it.
    ///
    /// # Errors
    /// Names the file, or passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let bytes = Block::from(&model::read(&self.package)?[..]);
        let opened = Package::open(&bytes).map_err(|e| Failure::package(&self.package, &bytes, e))?;
        let (digest, name) = (hex(&opened.digest()), opened.manifest().name);
        let path = format!("/v1/packages/{digest}");
        let known = client.find(&path)?;
        let published = match (&known, &self.release, self.number) {
            // Signed anew it could get another number; what is published stays as it is.
            (Some(known), None, None) => known.clone(),
            _ => {
                let release = self.release(client, &bytes, name)?;
                let bar = bar("package");
                let put = client.upload(&path, &[("x-dunlin-release", &hex(&release))], &bytes, &bar);
                bar.finish_and_clear();
                put?
            }
        };
        let differences = if self.no_deltas { Vec::new() } else { self.differences(client, &digest, name, &bytes)? };
        if json {
            let differences: Vec<Value> = differences
                .iter()
                .map(|d| json!({ "base": d.base, "share": d.share, "bytes": d.len, "uploaded": d.len.is_some() }))
                .collect();
            let fresh = known.is_none();
            let golden = opened.golden().is_some();
            println!(
                "{}",
                json!({ "package": published, "was_published": !fresh, "golden": golden, "deltas": differences })
            );
            return Ok(());
        }
        let text = |key: &str| published[key].as_str().unwrap_or_default().to_owned();
        println!(
            "{} {} as release {}{}\n  digest {digest}\n  {} bytes",
            text("name"),
            text("version"),
            published["number"],
            if known.is_some() { ", which was published before" } else { "" },
            grouped(bytes.len() as u64)
        );
        if opened.golden().is_none() {
            println!(
                "  note: it has no golden vectors, and devices keep nothing that they cannot try: `dunlin compile --golden`"
            );
        }
        if !differences.is_empty() {
            let mut rows = vec![["difference from", "devices", "bytes", "of the whole"].map(str::to_owned).to_vec()];
            rows.extend(differences.iter().map(|d| {
                let devices = d.share.map_or("-".into(), |s| format!("{:.1} %", 100.0 * s));
                let of = |len: usize| format!("{:.1} %", 100.0 * len as f64 / bytes.len().max(1) as f64);
                let (len, part) =
                    d.len.map_or(("-".into(), "the whole is smaller".into()), |l| (grouped(l as u64), of(l)));
                vec![d.label.clone(), devices, len, part]
            }));
            println!();
            print!("{}", table(&rows, &[1, 2, 3]));
        }
        Ok(())
    }

    fn release(&self, client: &Client, bytes: &Block, name: &str) -> Outcome<Vec<u8>> {
        if let Some(path) = &self.release {
            let release = model::read(path)?;
            if !matches!(Read::new(path, &release)?.fields, Signed::Release(_)) {
                return Err(Failure::damaged(path, "is no release\n  hint: `dunlin sign release` makes one"));
            }
            return Ok(release);
        }
        let keys = self.keys.as_deref().unwrap_or_default();
        let number = match self.number {
            Some(number) => number,
            None => {
                let all = client.all("/v1/packages", "digest", usize::MAX)?;
                let newest = all.iter().filter(|p| p["name"] == name).filter_map(|p| p["number"].as_u64()).max();
                u32::try_from(newest.unwrap_or(0) + 1).unwrap_or(u32::MAX)
            }
        };
        let folder = KeyFolder::new(keys);
        let root = folder.newest()?;
        let terms = Terms { number, counter: self.counter, days: self.days };
        let release = sign::release(&self.package, bytes, &folder, &root, terms)?;
        Read::new(&self.package, &release)?.judge(&root, &release).map_err(|e| {
            let text = format!(
                "devices with root {} would not believe this release: {e}\n  hint: have it signed by the other keys with `dunlin sign add`, and give it with --release",
                root.version
            );
            Failure::new(Code::Untrusted, text)
        })?;
        Ok(release)
    }

    fn differences(&self, client: &Client, digest: &str, name: &str, new: &Block) -> Outcome<Vec<Difference>> {
        let runs = census(client, name)?;
        let mut bases = Vec::new();
        for path in &self.base {
            let bytes = Block::from(&model::read(path)?[..]);
            let opened = Package::open(&bytes).map_err(|e| Failure::package(path, &bytes, e))?;
            let base = hex(&opened.digest());
            let share = runs.get(&base).copied();
            bases.push((base, path.clone(), share, bytes));
        }
        for (base, &share) in &runs {
            if base == digest || bases.iter().any(|b| b.0 == *base) {
                continue;
            }
            // What devices left the factory with need not be published here.
            let Some(package) = client.find(&format!("/v1/packages/{base}"))? else { continue };
            let bar = bar("base");
            let bytes = client.download(&format!("/v1/packages/{base}/content"), MAX_BASE, &bar);
            bar.finish_and_clear();
            let bytes = Block::from(&bytes?[..]);
            let label = format!("{} {}", name, package["version"].as_str().unwrap_or_default());
            bases.push((base.clone(), label, Some(share), bytes));
        }
        let mut made = Vec::new();
        for (base, label, share, bytes) in bases {
            let spinner = model::spinner(&format!("comparing with {label}"));
            let encoded = encode(Some(&bytes), new, &EncodeOptions::default());
            spinner.finish_and_clear();
            let Encoded { patch, .. } = encoded.map_err(|e| Failure::damaged(&label, e))?;
            let mut len = None;
            if patch.len() < new.len() {
                let bar = bar("difference");
                let put = client.upload(&format!("/v1/packages/{digest}/deltas/{base}"), &[], &patch, &bar);
                bar.finish_and_clear();
                put?;
                len = Some(patch.len());
            }
            made.push(Difference { base, label, share, len });
        }
        Ok(made)
    }
}

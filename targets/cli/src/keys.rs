//! `dunlin keys`: the keys that devices trust.

use dunlin_update::trust::{MAX_KEYS, PublicKey, Role, RoleKeys, RootKeys, SecretKey, envelope, key_id};
use serde_json::json;

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::trust::{KeyFolder, Read, hex, now, sign_all, unhex};

/// Creates and rotates the keys that devices trust.
#[derive(clap::Args, Clone, Debug)]
pub struct Keys {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub action: Action,
}

/// What is done with keys.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Create keys for all roles and the first root document
    Init {
        /// New folder for the keys
        folder: String,
        /// Root keys: REQUIRED/TOTAL signatures
        #[arg(long, default_value = "2/3", value_parser = quota)]
        root: (u8, u8),
        /// Keys that sign releases: REQUIRED/TOTAL
        #[arg(long, default_value = "1/1", value_parser = quota)]
        targets: (u8, u8),
        /// Keys that sign rollouts: REQUIRED/TOTAL
        #[arg(long, default_value = "1/1", value_parser = quota)]
        rollout: (u8, u8),
        /// Public key of the fleet server, for rollouts (`dunlin fleet root`)
        #[arg(long, value_name = "PUBLIC", value_parser = public, conflicts_with = "rollout")]
        rollout_key: Option<PublicKey>,
        /// Keys of a distributor, who co-signs releases
        #[arg(long, value_parser = quota)]
        distributor: Option<(u8, u8)>,
        /// Days until the root document expires
        #[arg(long, default_value_t = 730)]
        days: u64,
    },
    /// Replace keys: write the next root document
    Rotate {
        /// Folder of the keys
        folder: String,
        /// Role whose keys to replace
        #[arg(long, value_parser = role)]
        role: Role,
        /// Replace only the key whose id begins so [default: all]
        #[arg(long)]
        key: Option<String>,
        /// Use this public key instead of a new one
        #[arg(long, value_name = "PUBLIC", value_parser = public)]
        by: Option<PublicKey>,
        /// Days until the root document expires
        #[arg(long, default_value_t = 730)]
        days: u64,
    },
    /// Change how many keys of a role must sign
    Threshold {
        /// Folder of the keys
        folder: String,
        /// Role
        #[arg(long, value_parser = role)]
        role: Role,
        /// Required signatures; missing keys are created
        threshold: u8,
        /// Days until the root document expires
        #[arg(long, default_value_t = 730)]
        days: u64,
    },
}

fn public(text: &str) -> Result<PublicKey, String> {
    unhex::<32>(text).ok_or_else(|| "a public key has 64 hexadecimal digits".to_owned())
}

fn quota(text: &str) -> Result<(u8, u8), String> {
    let (threshold, keys) = text.split_once('/').ok_or("write it as NEEDED/KEYS, as in 2/3")?;
    match (threshold.parse(), keys.parse()) {
        (Ok(threshold), Ok(keys)) if 1 <= threshold && threshold <= keys && usize::from(keys) <= MAX_KEYS => {
            Ok((threshold, keys))
        }
        _ => Err(format!("NEEDED is at least 1 and at most KEYS, and there are at most {MAX_KEYS} keys in all")),
    }
}

pub(crate) fn role(text: &str) -> Result<Role, String> {
    let names: Vec<&str> = Role::ALL.iter().map(|r| r.name()).collect();
    Role::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| format!("the roles are {}", names.join(", ")))
}

impl Keys {
    /// Does it.
    ///
    /// # Errors
    /// Names the role, the key and why; nothing is written then but keys that nobody trusts.
    pub fn run(&self, json: bool) -> Outcome<()> {
        match &self.action {
            Action::Init { folder, root, targets, rollout, rollout_key, distributor, days } => {
                let own = rollout_key.is_none().then_some(*rollout);
                let quotas = [Some(*root), Some(*targets), own, *distributor];
                init(folder, quotas, *rollout_key, *days, json)
            }
            Action::Rotate { folder, role, key, by, days } => rotate(folder, *role, key.as_deref(), *by, *days, json),
            Action::Threshold { folder, role, threshold, days } => change(folder, *role, *threshold, *days, json),
        }
    }
}

/// Keys by role, in the making.
struct Draft {
    version: u32,
    roles: [(u8, Vec<PublicKey>); 4],
}

impl Draft {
    fn after(root: &RootKeys) -> Self {
        let roles = Role::ALL.map(|r| (root.role(r).threshold, root.keys_of(r).copied().collect()));
        Self { version: root.version.saturating_add(1), roles }
    }

    fn finish(&self, days: u64) -> Outcome<RootKeys> {
        let mut all: Vec<PublicKey> = Vec::new();
        let mut roles = [RoleKeys::default(); 4];
        for ((threshold, keys), role) in self.roles.iter().zip(&mut roles) {
            role.threshold = *threshold;
            for key in keys {
                let at = all.iter().position(|k| k == key).unwrap_or_else(|| {
                    all.push(*key);
                    all.len() - 1
                });
                if at >= MAX_KEYS {
                    return Err(Failure::new(Code::Usage, format!("a root names at most {MAX_KEYS} keys")));
                }
                role.keys |= 1 << at;
            }
        }
        let mut keys = [[0; 32]; MAX_KEYS];
        keys.iter_mut().zip(&all).for_each(|(to, from)| *to = *from);
        let expires = now().saturating_add(days.saturating_mul(86_400));
        let root = RootKeys { version: self.version, expires, count: all.len() as u8, keys, roles };
        if root.is_sound() {
            Ok(root)
        } else {
            Err(Failure::new(Code::Usage, "every role needs a threshold from 1 to its number of keys"))
        }
    }
}

fn init(folder: &str, quotas: [Option<(u8, u8)>; 4], rollout: Option<PublicKey>, days: u64, json: bool) -> Outcome<()> {
    let made: usize = quotas.iter().flatten().map(|(_, keys)| usize::from(*keys)).sum();
    let total = made + usize::from(rollout.is_some());
    if total > MAX_KEYS {
        return Err(Failure::new(Code::Usage, format!("{total} keys in all; a root names at most {MAX_KEYS}")));
    }
    std::fs::create_dir_all(folder).map_err(|e| Failure::new(Code::File, format!("{folder}: {e}")))?;
    let keys = KeyFolder::new(folder);
    if keys.root_file(1).exists() {
        let text = format!("{folder}: holds a root document already\n  hint: `dunlin keys rotate` changes its keys");
        return Err(Failure::new(Code::Usage, text));
    }
    let mut draft = Draft { version: 1, roles: Default::default() };
    for (quota, (threshold, publics)) in quotas.iter().zip(&mut draft.roles) {
        let (needed, count) = quota.unwrap_or((0, 0));
        *threshold = needed;
        for _ in 0..count {
            publics.push(keys.generate()?.public());
        }
    }
    if let Some(public) = rollout {
        draft.roles[Role::Rollout as usize] = (1, vec![public]);
    }
    let root = draft.finish(days)?;
    publish(&keys, None, &root, json)?;
    if !json {
        print!("{}", advice(folder, &root, rollout));
    }
    Ok(())
}

/// What to do with new keys, and which key of somebody else was given a role.
fn advice(folder: &str, root: &RootKeys, rollout: Option<PublicKey>) -> String {
    let mut text = String::new();
    if let Some(public) = rollout {
        text.push_str(&format!("rollouts are signed by {}, the key {}\n", hex(&key_id(&public)), hex(&public)));
    }
    let files: Vec<String> = root.keys_of(Role::Root).map(|key| format!("{}.key", hex(&key_id(key)))).collect();
    text.push_str(&format!(
        "root keys are {} in {folder}\n  hint: move them to separate offline media; only `dunlin keys` needs them, to replace keys\n",
        files.join(", ")
    ));
    text
}

fn rotate(folder: &str, role: Role, key: Option<&str>, by: Option<PublicKey>, days: u64, json: bool) -> Outcome<()> {
    let keys = KeyFolder::new(folder);
    let old = keys.newest()?;
    let mut draft = Draft::after(&old);
    let mut found = false;
    let (_, publics) = &mut draft.roles[role as usize];
    for public in publics.iter_mut() {
        if key.is_none_or(|k| hex(&key_id(public)).starts_with(&k.to_lowercase())) {
            *public = match by {
                Some(by) => by,
                None => keys.generate()?.public(),
            };
            found = true;
        }
    }
    // One key of somebody else's takes the place of all, and once is enough.
    publics.dedup();
    draft.roles[role as usize].0 = draft.roles[role as usize].0.min(draft.roles[role as usize].1.len() as u8);
    if !found {
        let names: Vec<String> = old.keys_of(role).map(|k| hex(&key_id(k))).collect();
        let which = key.map_or(String::new(), |k| format!(" '{k}'"));
        let hint = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        return Err(Failure::new(Code::Usage, format!("the role {} has no key{which}\n  hint: {hint}", role.name())));
    }
    publish(&keys, Some(&old), &draft.finish(days)?, json)
}

fn change(folder: &str, role: Role, threshold: u8, days: u64, json: bool) -> Outcome<()> {
    let keys = KeyFolder::new(folder);
    let old = keys.newest()?;
    let mut draft = Draft::after(&old);
    let missing = usize::from(threshold).saturating_sub(draft.roles[role as usize].1.len());
    if usize::from(old.count) + missing > MAX_KEYS {
        return Err(Failure::new(Code::Usage, format!("a root names at most {MAX_KEYS} keys")));
    }
    let (needed, publics) = &mut draft.roles[role as usize];
    *needed = threshold;
    for _ in 0..missing {
        publics.push(keys.generate()?.public());
    }
    publish(&keys, Some(&old), &draft.finish(days)?, json)
}

/// Signs a root with the keys of the one before and its own, and writes it.
fn publish(keys: &KeyFolder, old: Option<&RootKeys>, root: &RootKeys, json: bool) -> Outcome<()> {
    let mut signers: Vec<SecretKey> = Vec::new();
    for (which, from) in [("the old", old), ("the new", Some(root))] {
        let Some(from) = from else { continue };
        let have = keys.secrets(from, Role::Root)?;
        let needed = from.role(Role::Root).threshold;
        if have.len() < usize::from(needed) {
            let text = format!(
                "{which} root needs {needed} signatures of the role root, and the folder has {} of its keys\n  hint: bring the key files together for this, and part them afterwards",
                have.len()
            );
            return Err(Failure::new(Code::Untrusted, text));
        }
        let known = |k: &SecretKey| signers.iter().any(|s| s.public() == k.public());
        let fresh: Vec<SecretKey> = have.into_iter().filter(|k| !known(k)).collect();
        signers.extend(fresh);
    }
    let plain = envelope(Role::Root, root).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let bytes = sign_all(plain, Role::Root, &signers)?;
    let path = keys.root_file(root.version).display().to_string();
    model::write(&path, &bytes)?;
    let read = Read::new(&path, &bytes)?;
    if json {
        println!("{}", json!({"file": path, "root": read.json()}));
    } else {
        print!("{path}\n{}", read.text());
    }
    Ok(())
}

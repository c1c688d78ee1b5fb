//! Forgeries by kind: how many were tried, and how many were taken.

use dunlin_update::storage::Area;
use dunlin_update::trust::{Role, SIGNATURE_LEN, envelope, sign};
use dunlin_update::{Phase, UpdateError};

use crate::bench::*;

/// A kind of forgery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) tried: u64,
    pub(crate) accepted: u64,
}

/// A device that is offered forgeries of one kind.
struct Trial<'b> {
    updater: TestUpdater<'b>,
    kind: Kind,
}

impl<'b> Trial<'b> {
    fn new(bench: &'b mut Bench, name: &'static str) -> Self {
        Self { updater: bench.open(), kind: Kind { name, tried: 0, accepted: 0 } }
    }

    /// Offers a forgery with all its bytes. It is taken if anything comes of it: a new root, a package that is staged.
    fn forge(&mut self, mail: &Mail) {
        let (root, running) = (self.updater.state().root, self.updater.running());
        let taken = take(&mut self.updater, mail).is_ok();
        let state = self.updater.state();
        let changed = state.root != root || self.updater.running() != running || self.updater.phase() != Phase::Idle;
        self.kind.tried += 1;
        self.kind.accepted += u64::from(taken || changed);
    }
}

/// An honest offer with a new root besides, and each of its documents in the place of a part.
const PARTS: [fn(&mut Mail) -> &mut Vec<u8>; 3] = [|m| &mut m.roots[0], |m| &mut m.rollout, |m| &mut m.release];

fn honest(number: u32) -> Mail {
    Mail { roots: vec![signed(Role::Root, &root(2), &[1, 2])], ..mail(&package("2"), number) }
}

/// The honest offer with one document changed. A root that is not the changed one stays away, since an honest one counts.
fn changed(part: usize, change: impl FnOnce(&mut Vec<u8>)) -> Mail {
    let mut mail = honest(2);
    change(PARTS[part](&mut mail));
    if part > 0 {
        mail.roots.clear();
    }
    mail
}

fn len(part: usize) -> usize {
    PARTS[part](&mut honest(2)).len()
}

/// Some bits of every byte of every document.
pub(crate) fn flipped_documents(bits: &[u8]) -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "flipped-document");
    for part in 0..3 {
        for at in 0..len(part) {
            bits.iter().for_each(|bit| trial.forge(&changed(part, |bytes| bytes[at] ^= 1 << (bit % 8))));
        }
    }
    trial.kind
}

/// Some bits of every byte of the package.
pub(crate) fn flipped_package(bits: &[u8]) -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "flipped-package");
    let honest = mail(&package("2"), 2);
    for at in 0..honest.stream.len() {
        for bit in bits {
            let mut forged = honest.clone();
            forged.stream[at] ^= 1 << (bit % 8);
            trial.forge(&forged);
        }
    }
    trial.kind
}

/// The documents with other signatures: by keys `keys`, in role `role`, whatever the document.
fn resigned(part: usize, role: Option<Role>, keys: &[u8]) -> Mail {
    changed(part, |bytes| {
        let own = [Role::Root, Role::Rollout, Role::Targets][part];
        let payload = match own {
            Role::Root => envelope(own, &root(2)),
            Role::Rollout => envelope(own, &rollout(&package("2"), 2)),
            _ => envelope(own, &release(&package("2"), 2)),
        };
        let sign = |bytes: Vec<u8>, n: &u8| sign(&bytes, role.unwrap_or(own), &key(*n)).unwrap();
        *bytes = keys.iter().fold(payload.unwrap(), sign);
    })
}

/// Keys that the root does not name, and keys of other roles.
pub(crate) fn wrong_key() -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "wrong-key");
    for n in 50..80 {
        (0..3).for_each(|part| trial.forge(&resigned(part, None, &[n, n + 50])));
    }
    // Keys 1 to 3 are root's, 4 and 5 targets', 6 rollout's, 7 the distributor's.
    for (part, others) in [(0, &[4, 5, 6, 7][..]), (1, &[1, 2, 3, 4, 5, 7]), (2, &[1, 2, 3, 6, 7])] {
        trial.forge(&resigned(part, None, others));
        others.iter().for_each(|n| trial.forge(&resigned(part, None, &[*n])));
    }
    trial.kind
}

/// Right keys in another role than the document's.
pub(crate) fn wrong_role() -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "wrong-role");
    for (part, own) in [Role::Root, Role::Rollout, Role::Targets].into_iter().enumerate() {
        for role in Role::ALL.into_iter().filter(|role| *role != own) {
            trial.forge(&resigned(part, Some(role), &[1, 2, 3, 4, 5, 6, 7]));
            // The role that a signature says it is made in is not what was signed.
            let mut forged = resigned(part, Some(role), &[1, 2, 3, 4, 5, 6, 7]);
            let document = PARTS[part](&mut forged);
            (0..7).for_each(|i| document[8 + i * SIGNATURE_LEN + 9] = own as u8);
            trial.forge(&forged);
        }
    }
    // One kind of document in the place of another.
    let (whole, other) = (honest(2), mail(&package("2"), 2));
    trial.forge(&Mail { release: whole.rollout.clone(), ..other.clone() });
    trial.forge(&Mail { rollout: whole.release.clone(), ..other.clone() });
    trial.forge(&Mail { roots: vec![whole.release.clone()], ..other });
    trial.kind
}

/// Fewer keys than the threshold, or one of them more than once.
pub(crate) fn below_threshold() -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "below-threshold");
    for (part, keys) in [(0, &[1u8, 2, 3][..]), (1, &[]), (2, &[4, 5])] {
        trial.forge(&resigned(part, None, &[]));
        for n in keys {
            trial.forge(&resigned(part, None, &[*n]));
            // The same signature twice.
            let twice = changed(part, |bytes| {
                let once = PARTS[part](&mut resigned(part, None, &[*n])).clone();
                *bytes = [&once[..6], &[2, 0], &once[8..8 + SIGNATURE_LEN], &once[8..]].concat();
            });
            trial.forge(&twice);
        }
    }
    trial.kind
}

/// Packages for other targets and other models.
pub(crate) fn wrong_target() -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "wrong-target");
    let new = package("2");
    for target in ["cortex-m0", "cortex-m44", "cortex-m", "Cortex-M4", "cortex-m4 ", "", "anything", "any "] {
        let other = dunlin_update::trust::Release { target, ..release(&new, 2) };
        trial.forge(&Mail { release: signed(Role::Targets, &other, &[4, 5]), ..mail(&new, 2) });
    }
    for (i, name) in ["speech", "digit", "digits2", "Digits", ""].into_iter().enumerate() {
        let number = 3 + i as u64;
        let other = dunlin_update::trust::Release { name, ..release(&new, 3) };
        let stray = dunlin_update::trust::Rollout { name, ..rollout(&new, number) };
        let release = signed(Role::Targets, &other, &[4, 5]);
        trial.forge(&Mail { release: release.clone(), rollout: signed(Role::Rollout, &stray, &[6]), ..mail(&new, 3) });
        trial.forge(&Mail { release, ..mail(&new, 3 + i as u32) });
    }
    trial.kind
}

/// Every beginning of every document, and streams that end too early.
pub(crate) fn truncated() -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "truncated");
    for part in 0..3 {
        (0..len(part)).for_each(|end| trial.forge(&changed(part, |bytes| bytes.truncate(end))));
    }
    let honest = mail(&package("2"), 2);
    for end in 0..honest.stream.len() {
        trial.forge(&Mail { stream: honest.stream[..end].to_vec(), ..honest.clone() });
    }
    trial.kind
}

/// Bytes after documents and after the stream.
pub(crate) fn oversized() -> Kind {
    let mut bench = Bench::new();
    let mut trial = Trial::new(&mut bench, "oversized");
    let more = (1..=64).chain([500, 1000, 2000, 5000, 100_000]);
    for n in more {
        for filler in [0, 0x55] {
            (0..3).for_each(|part| trial.forge(&changed(part, |bytes| bytes.resize(bytes.len() + n, filler))));
            let mut honest = mail(&package("2"), 2);
            honest.stream.resize(honest.stream.len() + n, filler);
            trial.forge(&honest);
        }
    }
    trial.kind
}

/// Documents that were right once.
pub(crate) fn replayed() -> Kind {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let (old, new) = (package("1b"), package("2"));
    let mut current = mail(&new, 40);
    current.roots = vec![signed(Role::Root, &root(2), &[1, 2])];
    run(&mut updater, &current);
    let mut trial = Trial { updater, kind: Kind { name: "replayed", tried: 0, accepted: 0 } };
    for number in 1..40 {
        trial.forge(&mail(&old, number));
        // A new rollout for what an old one named, and an old release for a new rollout.
        let release = signed(Role::Targets, &release(&old, number), &[4, 5]);
        trial.forge(&Mail { release, ..mail(&new, 40) });
    }
    for version in 0..3 {
        let roots = vec![signed(Role::Root, &root(version), &[1, 2])];
        trial.forge(&Mail { roots, ..mail(&old, 41) });
    }
    trial.kind
}

/// Every byte of what lies in the slot, changed after it was verified: it must not start.
pub(crate) fn swapped() -> Kind {
    let mut kind = Kind { name: "swapped-after-verification", tried: 0, accepted: 0 };
    let honest = mail(&package("2"), 2);
    for at in 0..honest.stream.len() {
        let mut bench = Bench::new();
        let mut updater = bench.open();
        take(&mut updater, &honest).unwrap();
        updater.storage().bytes(Area::Slot(1))[at] ^= 1 << (at % 8);
        let started = updater.start();
        kind.tried += 1;
        kind.accepted += u64::from(!matches!(started, Err(UpdateError::Rejected(_))) || updater.running().is_none());
    }
    kind
}

/// Every kind.
pub(crate) fn all(bits: &[u8]) -> Vec<Kind> {
    vec![
        flipped_documents(bits),
        flipped_package(bits),
        wrong_key(),
        wrong_role(),
        below_threshold(),
        wrong_target(),
        truncated(),
        oversized(),
        replayed(),
        swapped(),
    ]
}

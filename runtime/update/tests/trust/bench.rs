//! A device with real keys, and a server that signs for it.

use dunlin_package::{Builder, ManifestDraft};
use dunlin_update::delta::Applier;
use dunlin_update::record::Installed;
use dunlin_update::sim::{CHIPS, Flash};
use dunlin_update::storage::Area;
use dunlin_update::trust::{Audience, Ed25519, Release, Role, RoleKeys, Rollout, RootKeys, SecretKey, envelope, sign};
use dunlin_update::{Device, Limits, Offer, Progress, StartCause, TransferOffer, UpdateError, Updater};
use sha2::{Digest, Sha256};

pub(crate) const NAME: &str = "digits";
/// When it is.
pub(crate) const NOW: u64 = 1_800_000_000;
const SLOT: u32 = 2048;

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32]).expect("a seed")
}

/// Keys 1, 2, 3 are root's with threshold 2; 4 and 5 targets' with threshold 2; 6 is rollout's; 7 the distributor's.
pub(crate) fn root(version: u32) -> RootKeys {
    let mut keys = [[0; 32]; 8];
    for (n, slot) in (1..=7).zip(&mut keys) {
        *slot = key(n).public();
    }
    let role = |threshold, keys| RoleKeys { threshold, keys };
    let roles = [role(2, 0b111), role(2, 0b1_1000), role(1, 0b10_0000), role(0, 0b100_0000)];
    RootKeys { version, expires: NOW + 1000, count: 7, keys, roles }
}

pub(crate) fn signed<T: serde::Serialize>(role: Role, fields: &T, keys: &[u8]) -> Vec<u8> {
    keys.iter().fold(envelope(role, fields).unwrap(), |bytes, &n| sign(&bytes, role, &key(n)).unwrap())
}

/// A package of no use but to be one.
pub(crate) fn package(version: &str) -> Vec<u8> {
    let manifest = ManifestDraft { name: NAME.into(), version: version.into(), ..ManifestDraft::default() };
    let plan = vec![0; 16];
    let weights = (0..600u32).map(|i| (i * 7) as u8).collect();
    Builder { manifest, plan, weights, ..Builder::default() }.build().unwrap()
}

pub(crate) fn installed(bytes: &[u8], slot: u8, number: u32, counter: u32) -> Installed {
    let digest = dunlin_package::compute_digest(bytes).unwrap();
    Installed { slot, len: bytes.len() as u32, digest, hash: Sha256::digest(bytes).into(), counter, number }
}

pub(crate) fn release(bytes: &[u8], number: u32) -> Release<'static> {
    let Installed { len, digest, hash, .. } = installed(bytes, 0, number, 5);
    Release {
        name: NAME,
        version: "2",
        digest,
        hash,
        len,
        number,
        counter: 5,
        expires: NOW + 500,
        target: "cortex-m4",
        engine_min: (0, 1),
        ops_version: 1,
        memory: 4096,
    }
}

pub(crate) fn rollout(bytes: &[u8], sequence: u64) -> Rollout<'static> {
    let digest = dunlin_package::compute_digest(bytes).unwrap();
    Rollout { name: NAME, sequence, time: NOW, expires: NOW + 100, digest, audience: Audience::ALL, lifted: &[] }
}

/// What a server sends.
#[derive(Clone)]
pub(crate) struct Mail {
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) rollout: Vec<u8>,
    pub(crate) release: Vec<u8>,
    pub(crate) stream: Vec<u8>,
}

/// An honest offer of a package.
pub(crate) fn mail(bytes: &[u8], number: u32) -> Mail {
    Mail {
        roots: vec![],
        rollout: signed(Role::Rollout, &rollout(bytes, u64::from(number)), &[6]),
        release: signed(Role::Targets, &release(bytes, number), &[4, 5]),
        stream: bytes.to_vec(),
    }
}

pub(crate) struct Bench {
    pub(crate) flash: Flash,
    pub(crate) root: RootKeys,
    pub(crate) old: Vec<u8>,
    decoder: Applier,
}

pub(crate) type TestUpdater<'a> = Updater<'a, &'a mut Flash, Ed25519>;

impl Bench {
    pub(crate) fn new() -> Self {
        let old = package("1");
        let mut flash = Flash::new(CHIPS[2], 2, SLOT);
        flash.bytes(Area::Slot(0))[..old.len()].copy_from_slice(&old);
        Self { flash, root: root(1), old, decoder: Applier::new() }
    }

    pub(crate) fn open(&mut self) -> TestUpdater<'_> {
        let device = Device {
            identity: b"device 7",
            name: NAME,
            target: "cortex-m4",
            engine: (0, 1),
            ops_version: 1,
            memory: 4096,
            beside: false,
            starts: 3,
            limits: Limits { inferences: 1, errors: 0, late: 0, deadline_us: 0 },
            root: self.root,
            factory: Some(installed(&self.old, 0, 1, 5)),
        };
        Updater::open(&mut self.flash, Ed25519, device, StartCause::Power, &mut self.decoder).unwrap()
    }
}

pub(crate) fn offer(updater: &mut TestUpdater<'_>, mail: &Mail) -> Result<(), UpdateError> {
    let roots: Vec<&[u8]> = mail.roots.iter().map(|r| &r[..]).collect();
    let transfer = TransferOffer { id: [7; 8], len: mail.stream.len() as u32, delta: false };
    updater.offer(&Offer { roots: &roots, rollout: &mail.rollout, release: &mail.release, transfer }, Some(NOW))
}

/// Takes an offer with all its bytes.
pub(crate) fn take(updater: &mut TestUpdater<'_>, mail: &Mail) -> Result<(), UpdateError> {
    offer(updater, mail)?;
    match updater.receive(0, &mail.stream)? {
        Progress::Staged => Ok(()),
        Progress::More { .. } => panic!("the stream is whole"),
    }
}

/// Takes an offer, starts it and lets it pass.
pub(crate) fn run(updater: &mut TestUpdater<'_>, mail: &Mail) {
    take(updater, mail).unwrap();
    updater.start().unwrap();
    updater.golden(true).unwrap();
    let fine = dunlin_update::Inference { micros: 1, failed: false, not_a_number: false };
    assert_eq!(updater.inference(&fine), Ok(dunlin_update::Verdict::Confirmed));
}

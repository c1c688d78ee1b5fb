//! A medium that fails once, at any operation, and works when it is asked again: the step that failed may be tried again,
//! and the update comes to its end.

use std::sync::OnceLock;

use dunlin_package::{Builder, ManifestDraft};
use dunlin_update::delta::{Applier, EncodeOptions, encode};
use dunlin_update::record::Installed;
use dunlin_update::sim::{Chip, Flash};
use dunlin_update::storage::{Area, Geometry, Storage, StorageFault};
use dunlin_update::trust::{Audience, Release, Role, RoleKeys, Rollout, RootKeys, Verifier, envelope, sign};
use dunlin_update::{
    Device, Inference, Limits, Offer, Outcome, Phase, Progress, StartCause, TransferOffer, UpdateError, Updater,
};
use sha2::{Digest, Sha256};

const CHIP: Chip = Chip { name: "unit 32", unit: 32, erased: 0xFF, sectors: [512; 3], wide: true };

/// Fails one operation.
struct Once {
    flash: Flash,
    /// Operations until then.
    left: u64,
    /// Whether the operation that failed was done all the same.
    done: bool,
}

impl Once {
    fn fails(&mut self) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left == u64::MAX
    }

    fn operate(&mut self, act: impl FnOnce(&mut Flash) -> Result<(), StorageFault>) -> Result<(), StorageFault> {
        if self.fails() {
            if self.done {
                act(&mut self.flash)?;
            }
            return Err(StorageFault);
        }
        act(&mut self.flash)
    }
}

impl Storage for Once {
    fn slots(&self) -> u8 {
        self.flash.slots()
    }

    fn geometry(&self, area: Area) -> Geometry {
        self.flash.geometry(area)
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        self.operate(|flash| flash.read(area, offset, into))
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        self.operate(|flash| flash.write(area, offset, bytes))
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        self.operate(|flash| flash.erase(area, offset, len))
    }

    fn sync(&mut self) -> Result<(), StorageFault> {
        self.operate(Flash::sync)
    }
}

/// Whatever is signed is believed: this is about storage.
struct All;

impl Verifier for All {
    fn verify(&self, _: &[u8; 32], _: &[&[u8]], _: &[u8; 64]) -> bool {
        true
    }
}

fn package(version: &str, len: u32) -> Vec<u8> {
    let manifest = ManifestDraft { name: "m".into(), version: version.into(), ..ManifestDraft::default() };
    let weights = (0..len).map(|i| (i * i / 9 + len) as u8).collect();
    Builder { manifest, plan: vec![0; 16], weights, ..Builder::default() }.build().unwrap()
}

fn installed(bytes: &[u8]) -> Installed {
    let digest = dunlin_package::compute_digest(bytes).unwrap();
    Installed { slot: 0, len: bytes.len() as u32, digest, hash: Sha256::digest(bytes).into(), counter: 1, number: 1 }
}

fn root(version: u32) -> RootKeys {
    let key = dunlin_update::trust::SecretKey::from_seed([1; 32]).expect("a seed").public();
    let mut keys = [[0; 32]; 8];
    keys[0] = key;
    let role = RoleKeys { threshold: 1, keys: 1 };
    let roles = [role, role, role, RoleKeys { threshold: 0, keys: 0 }];
    RootKeys { version, expires: u64::MAX, count: 1, keys, roles }
}

fn signed<T: serde::Serialize>(role: Role, fields: &T) -> Vec<u8> {
    let key = dunlin_update::trust::SecretKey::from_seed([1; 32]).expect("a seed");
    sign(&envelope(role, fields).unwrap(), role, &key).unwrap()
}

/// Tries once more what the medium failed.
fn again<T>(mut step: impl FnMut() -> Result<T, UpdateError>) -> Result<T, UpdateError> {
    match step() {
        Err(UpdateError::Storage) => step(),
        other => other,
    }
}

/// Two packages, neither of which ends with a program unit, and the difference.
fn packages() -> &'static [Vec<u8>; 3] {
    static PACKAGES: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let (old, new) = (package("1", 1500), package("22", 2301));
        let patch = encode(Some(&old), &new, &EncodeOptions { block: 1024 }).unwrap().patch;
        [old, new, patch]
    })
}

/// An update in which the medium fails once; `None` when it came to its end before that.
fn update(delta: bool, fails: u64, done: bool, cause: StartCause) -> Option<()> {
    let [old, new, patch] = packages();
    let Installed { digest, hash, len, .. } = installed(new);
    assert!(!len.is_multiple_of(CHIP.unit), "the last unit has to be filled up");
    let mut flash = Flash::new(CHIP, 2, 4096);
    flash.bytes(Area::Slot(0))[..old.len()].copy_from_slice(old);
    let release = Release {
        name: "m",
        version: "22",
        digest,
        hash,
        len,
        number: 2,
        counter: 1,
        expires: 0,
        target: "any",
        engine_min: (0, 1),
        ops_version: 1,
        memory: 1,
    };
    let rollout = Rollout { name: "m", sequence: 2, time: 1, expires: 9, digest, audience: Audience::ALL, lifted: b"" };
    let stream = if delta { patch } else { new };
    let device = Device {
        identity: b"",
        name: "m",
        target: "any",
        engine: (0, 1),
        ops_version: 1,
        memory: 1,
        beside: false,
        starts: 2,
        limits: Limits { inferences: 2, errors: 0, late: 0, deadline_us: 0 },
        root: root(1),
        factory: Some(installed(old)),
    };
    let mut decoder = Applier::new();
    let (roots, rollout, release) =
        ([signed(Role::Root, &root(2))], signed(Role::Rollout, &rollout), signed(Role::Targets, &release));
    let mut storage = Once { flash, left: u64::MAX / 2, done };
    {
        let mut first = Updater::open(&mut storage, All, device, StartCause::Power, &mut decoder).unwrap();
        let transfer = TransferOffer { id: [1; 8], len: stream.len() as u32, delta };
        first.storage().left = fails;
        let mut newer: Vec<&[u8]> = roots.iter().map(|r| &r[..]).collect();
        again(|| {
            // Roots that were followed are not sent again.
            newer.drain(..(first.state().root.version as usize - 1).min(newer.len()));
            first.offer(&Offer { roots: &newer, rollout: &rollout, release: &release, transfer }, None)
        })
        .unwrap();
        let mut next = 0;
        while let Progress::More { .. } = again(|| {
            let Progress::More { next: from, .. } = first.resume()? else { return Ok(Progress::Staged) };
            next = from as usize;
            first.receive(from, &stream[next..stream.len().min(next + 90)])
        })
        .unwrap()
        {}
        assert!(next < stream.len());
        again(|| first.start()).unwrap();
        again(|| first.golden(true)).unwrap();
        let fine = Inference { micros: 1, failed: false, not_a_number: false };
        if cause == StartCause::Power {
            for _ in 0..4 {
                let _ = again(|| first.inference(&fine)).unwrap();
            }
            assert_eq!(first.phase(), Phase::Idle, "failed at {fails}");
            assert_eq!(first.running().unwrap().digest, digest);
            assert_eq!(first.state().last.unwrap().1, Outcome::Confirmed);
        }
    }
    if cause == StartCause::Fault {
        // It crashes until its starts are used up.
        for _ in 0..3 {
            if Updater::open(&mut storage, All, device, cause, &mut decoder).is_err() {
                Updater::open(&mut storage, All, device, cause, &mut decoder).unwrap();
            }
        }
    }
    let left = storage.left;
    storage.left = u64::MAX / 2;
    let last = Updater::open(&mut storage, All, device, StartCause::Power, &mut decoder).unwrap();
    let expected = if cause == StartCause::Power { digest } else { installed(old).digest };
    assert_eq!(last.running().unwrap().digest, expected, "failed at {fails}");
    assert_eq!((last.state().root.version, last.state().rollout), (2, 2));
    assert_eq!(storage.flash.violations(), 0, "failed at {fails}");
    (left > u64::MAX / 2 + 1).then_some(())
}

#[test]
fn every_operation_may_fail_once() {
    for delta in [false, true] {
        for done in [false, true] {
            for cause in [StartCause::Power, StartCause::Fault] {
                let mut fails = 0;
                while update(delta, fails, done, cause).is_some() {
                    fails += 1;
                }
                assert!(fails > 300, "{fails} operations");
            }
        }
    }
}

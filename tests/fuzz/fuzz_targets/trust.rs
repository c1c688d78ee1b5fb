//! Any bytes as signed documents, and as what a device stored: an answer, and nothing that was not signed is believed.

#![no_main]

use std::hint::black_box;

use dunlin_update::delta::Applier;
use dunlin_update::record::{Installed, RECORD_LEN};
use dunlin_update::sim::{CHIPS, Flash};
use dunlin_update::storage::Area;
use dunlin_update::trust::{self, PublicKey, RoleKeys, RootKeys, Verifier};
use dunlin_update::{Device, Limits, Offer, StartCause, TransferOffer, Updater};
use libfuzzer_sys::fuzz_target;

/// Believes what ends with an even byte, so that the fuzzer gets past the signatures.
struct Lenient;

impl Verifier for Lenient {
    fn verify(&self, _: &PublicKey, _: &[&[u8]], signature: &[u8; 64]) -> bool {
        signature[63].is_multiple_of(2)
    }
}

fn root() -> RootKeys {
    let mut keys = [[0; 32]; 8];
    keys[0] = [1; 32];
    let all = RoleKeys { threshold: 1, keys: 1 };
    RootKeys { version: 1, expires: u64::MAX, count: 1, keys, roles: [all, all, all, RoleKeys::default()] }
}

fuzz_target!(|bytes: &[u8]| {
    let root = root();
    if let Ok(next) = trust::follow(&root, bytes, &Lenient) {
        assert!(next.is_sound() && next.version == 2);
    }
    let _ = black_box(trust::release(&root, bytes, &Lenient));
    let _ = black_box(trust::rollout(&root, bytes, &Lenient));

    // The state areas and the journal as they come, then an offer cut out of the same bytes.
    let mut flash = Flash::new(CHIPS[0], 2, 2048);
    let areas = [Area::State(0), Area::State(1), Area::Journal, Area::Slot(1)];
    for (area, part) in areas.iter().zip(bytes.chunks(RECORD_LEN)) {
        let to = flash.bytes(*area);
        let n = to.len().min(part.len());
        to[..n].copy_from_slice(&part[..n]);
    }
    let factory = Installed { slot: 0, len: 16, digest: [0; 32], hash: [0; 32], counter: 0, number: 1 };
    let device = Device {
        identity: b"device",
        name: "a",
        target: "any",
        engine: (0, 1),
        ops_version: 1,
        memory: 1 << 20,
        beside: true,
        starts: 1,
        limits: Limits { inferences: 0, errors: 0, late: 0, deadline_us: 0 },
        root,
        factory: Some(factory),
    };
    let mut decoder = Applier::new();
    let Ok(mut updater) = Updater::open(flash, Lenient, device, StartCause::Fault, &mut decoder) else { return };
    let (rollout, release) = bytes.split_at(bytes.len() / 2);
    let transfer = TransferOffer { id: [0; 8], len: release.len() as u32, delta: bytes.len().is_multiple_of(3) };
    let offer = Offer { roots: &[bytes], rollout, release, transfer };
    let _ = updater.offer(&offer, Some(1));
    let _ = updater.resume();
    let _ = updater.receive(0, bytes);
    let _ = updater.start();
    let _ = updater.golden(true);
    black_box(updater.check_in());
});

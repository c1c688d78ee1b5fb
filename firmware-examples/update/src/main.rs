//! A device replaces its model by a signed difference: Ed25519, SHA-256, slots, trial and all.
//!
//! What a server would send, and the package that the device was made with, are linked in; memory plays NOR flash.
#![no_std]
#![no_main]

mod facts;
mod nor;
mod report;
mod stack;

use cortex_m_rt::entry;
use dunlin_update::delta::Applier;
use dunlin_update::flash::{FlashStorage, Layout};
use dunlin_update::record::Installed;
use dunlin_update::storage::{Area, Storage};
use dunlin_update::trust::Ed25519;
use dunlin_update::{Device, Inference, Limits, Offer, Progress, StartCause, TransferOffer, Updater, Verdict};

use facts::{FACTS, OLD, PATCH, RELEASE, ROLLOUT, ROOT, bytes};
use nor::{Nor, SECTOR};

const LAYOUT: Layout = Layout::packed(0, SECTOR, 36 * 1024, 2);

/// Bytes of flash.
const FLASH_LEN: usize = LAYOUT.end() as usize;

/// The decoder of differences, in static memory because it is large.
static mut DECODER: Applier = Applier::new();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::leave(false, &[])
}

static DEVICE: Device<'static> = Device {
    identity: b"board 1",
    name: "digits",
    target: "cortex-m4",
    engine: (0, 1),
    ops_version: 1,
    memory: 64 * 1024,
    beside: false,
    starts: 3,
    limits: Limits { inferences: 2, errors: 0, late: 0, deadline_us: 0 },
    root: ROOT,
    factory: Some(Installed {
        slot: 0,
        len: OLD.len() as u32,
        digest: bytes(FACTS, 0),
        hash: bytes(FACTS, 32),
        counter: 1,
        number: 1,
    }),
};

/// Digest of the new package.
const NEW: [u8; 32] = bytes(FACTS, 64);

/// The package that the device was made with, in its slot.
#[unsafe(link_section = ".bench")]
#[inline(never)]
fn made() -> Option<FlashStorage<Nor>> {
    let mut storage = FlashStorage::new(Nor::take()?, LAYOUT)?;
    storage.erase(Area::Slot(0), 0, LAYOUT.slot_len).ok()?;
    let whole = OLD.len() / 4 * 4;
    storage.write(Area::Slot(0), 0, OLD.get(..whole)?).ok()?;
    Some(storage)
}

type BoardUpdater = Updater<'static, FlashStorage<Nor>, Ed25519>;

fn runs(updater: &BoardUpdater, digest: &[u8; 32]) -> bool {
    updater.running().is_some_and(|running| running.digest == *digest)
}

/// The whole update; `None` says that something went otherwise than it should.
#[inline(never)]
fn update(updater: &mut BoardUpdater) -> Option<()> {
    let transfer = TransferOffer { id: *b"transfer", len: PATCH.len() as u32, delta: true };
    updater.offer(&Offer { roots: &[], rollout: &ROLLOUT, release: &RELEASE, transfer }, None).ok()?;
    let mut next = 0;
    while let Progress::More { .. } = updater.resume().ok()? {
        let piece = PATCH.get(next..)?.chunks(100).next()?;
        updater.receive(next as u32, piece).ok()?;
        next += piece.len();
    }
    updater.start().ok()?;
    updater.golden(true).ok()?;
    let fine = Inference { micros: 1, failed: false, not_a_number: false };
    updater.inference(&fine).ok()?;
    let verdict = updater.inference(&fine).ok()?;
    (verdict == Verdict::Confirmed && runs(updater, &NEW)).then_some(())
}

#[entry]
fn main() -> ! {
    stack::paint();
    let mut place: Option<BoardUpdater> = None;
    let well = made().is_some_and(|storage| {
        let decoder = &raw mut DECODER;
        // SAFETY: this is the one reference, made once: `main` is entered once.
        let decoder = unsafe { &mut *decoder };
        let opened = Updater::open_in(&mut place, storage, Ed25519, &DEVICE, StartCause::Power, decoder);
        opened.is_ok_and(|updater| update(updater).is_some())
    });
    let sizes = [(&b"stack_bytes"[..], stack::used() as u32), (b"updater_bytes", size_of::<BoardUpdater>() as u32)];
    report::leave(well, &sizes)
}

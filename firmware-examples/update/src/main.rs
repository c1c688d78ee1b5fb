//! A device replaces its model by a signed difference: Ed25519, SHA-256, slots, trial and all.
//!
//! What a server would send, and the package that the device was made with, are linked in; memory plays NOR flash.
#![no_std]
#![no_main]

mod nor;
mod report;
mod stack;

use cortex_m_rt::entry;
use dunlin_update::delta::Applier;
use dunlin_update::flash::{FlashStorage, Layout};
use dunlin_update::record::Installed;
use dunlin_update::storage::{Area, Storage};
use dunlin_update::trust::{Document, Ed25519, Role, RootKeys};
use dunlin_update::{Device, Inference, Limits, Offer, Progress, StartCause, TransferOffer, Updater, Verdict};

use nor::{Nor, SECTOR};

/// Bytes that come from outside of the device: not counted as the program's.
macro_rules! server {
    ($name:ident, $file:literal) => {
        #[unsafe(link_section = ".server")]
        static $name: [u8; include_bytes!(concat!("../data/", $file)).len()] =
            *include_bytes!(concat!("../data/", $file));
    };
}

server!(OLD, "old.dunlin");
server!(PATCH, "new.patch");
server!(RELEASE, "new.release");
server!(ROLLOUT, "new.rollout");
server!(ROOT, "1.root");
server!(FACTS, "facts.bin");

const LAYOUT: Layout = Layout::packed(0, SECTOR, 36 * 1024, 2);

/// The decoder of differences, in static memory because it is large.
static mut DECODER: Applier = Applier::new();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::leave(false, &[])
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

/// The keys that the firmware was made with: the payload of the first root document.
fn root() -> Option<RootKeys> {
    Document::read(&ROOT, Role::Root).ok()?.decode().ok()
}

fn factory() -> Option<Installed> {
    let (digest, hash) = (bytes(&FACTS, 0)?, bytes(&FACTS, 32)?);
    Some(Installed { slot: 0, len: OLD.len() as u32, digest, hash, counter: 1, number: 1 })
}

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

fn device() -> Option<Device<'static>> {
    Some(Device {
        identity: b"board 1",
        name: "digits",
        target: "cortex-m4",
        engine: (0, 1),
        ops_version: 1,
        memory: 64 * 1024,
        starts: 3,
        limits: Limits { inferences: 2, errors: 0, late: 0, deadline_us: 0 },
        root: root()?,
        factory: factory(),
    })
}

type BoardUpdater = Updater<'static, FlashStorage<Nor>, Ed25519>;

/// Opens what is stored. The device's description, with its keys, is gone from the stack when this returns.
#[inline(never)]
fn open(decoder: &'static mut Applier) -> Option<BoardUpdater> {
    Updater::open(made()?, Ed25519, device()?, StartCause::Power, decoder).ok()
}

/// The whole update; `None` says that something went otherwise than it should.
#[inline(never)]
fn update(updater: &mut BoardUpdater) -> Option<()> {
    let old = updater.running()?.digest;
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
    let new = updater.running()?.digest;
    let right = verdict == Verdict::Confirmed && new != old && Some(new) == bytes(&FACTS, 64);
    right.then_some(())
}

#[entry]
fn main() -> ! {
    stack::paint();
    // SAFETY: this is the one reference, made once: `main` is entered once.
    let mut updater = open(unsafe { &mut *(&raw mut DECODER) });
    let well = updater.as_mut().is_some_and(|updater| update(updater).is_some());
    let sizes = [(&b"stack_bytes"[..], stack::used() as u32), (b"updater_bytes", size_of::<BoardUpdater>() as u32)];
    report::leave(well, &sizes)
}

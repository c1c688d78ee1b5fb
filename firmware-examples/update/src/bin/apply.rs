//! Verifying and applying alone: signed documents (Ed25519, SHA-256), a difference out of one slot into another, and the
//! hash of what lies there. What a bootloader does; the whole updater is `update`.
#![no_std]
#![no_main]

#[path = "../facts.rs"]
mod facts;
#[path = "../nor.rs"]
mod nor;
#[path = "../report.rs"]
mod report;
#[path = "../stack.rs"]
mod stack;

use core::cell::RefCell;

use cortex_m_rt::entry;
use dunlin_update::delta::{Applier, Base, Sink};
use dunlin_update::trust::{self, Ed25519, Release, RootKeys};
use dunlin_update::{Hash, StorageFault};
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};

use facts::{FACTS, OLD, PATCH, RELEASE, ROLLOUT, bytes};
use nor::{Nor, SECTOR};

const SLOT_LEN: u32 = 36 * 1024;
const FLASH_LEN: usize = 2 * SLOT_LEN as usize;

static ROOT: RootKeys = facts::ROOT;

/// The decoder of differences, in static memory because it is large.
static mut DECODER: Applier = Applier::new();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::leave(false, &[])
}

/// The package that runs.
struct Running<'f>(&'f RefCell<Nor>);

impl Base for Running<'_> {
    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        self.0.try_borrow_mut().map_err(|_| StorageFault)?.read(offset, into).map_err(|_| StorageFault)
    }
}

/// The other slot, in units of four bytes.
struct Slot<'f> {
    flash: &'f RefCell<Nor>,
    at: u32,
    unit: [u8; 4],
}

impl Sink for Slot<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        let mut flash = self.flash.try_borrow_mut().map_err(|_| StorageFault)?;
        for byte in bytes {
            let place = SLOT_LEN + self.at;
            if self.at.is_multiple_of(SECTOR) {
                flash.erase(place, place + SECTOR).map_err(|_| StorageFault)?;
            }
            self.unit.iter_mut().skip(self.at as usize % 4).take(1).for_each(|to| *to = *byte);
            self.at += 1;
            if self.at.is_multiple_of(4) {
                flash.write(place - 3, &self.unit).map_err(|_| StorageFault)?;
            }
        }
        Ok(())
    }
}

/// What is signed.
#[inline(never)]
fn verify() -> Option<Release<'static>> {
    let rollout = trust::rollout(&ROOT, &ROLLOUT, &Ed25519).ok()?.digest;
    let release = trust::release(&ROOT, &RELEASE, &Ed25519).ok()?;
    (release.digest == rollout && release.len <= SLOT_LEN && release.len.is_multiple_of(4)).then_some(release)
}

/// The difference, in pieces as a radio brings them; gives the hash of what is in the slot then.
#[inline(never)]
fn apply(flash: &RefCell<Nor>, decoder: &mut Applier, len: u32) -> Option<[u8; 32]> {
    let (mut base, mut sink) = (Running(flash), Slot { flash, at: 0, unit: [0; 4] });
    let mut rest = PATCH.as_slice();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at_checked(rest.len().min(100))?;
        decoder.push(piece, &mut base, &mut sink).ok()?;
        rest = later;
    }
    if !decoder.is_complete() || sink.at != len {
        return None;
    }
    let mut hash = Hash::new();
    let mut piece = [0; 64];
    for at in (0..len).step_by(piece.len()) {
        let n = (len - at).min(64) as usize;
        let part = piece.get_mut(..n)?;
        flash.try_borrow_mut().ok()?.read(SLOT_LEN + at, part).ok()?;
        hash.update(part);
    }
    Some(hash.finish())
}

/// The package that the device was made with, in its slot.
#[unsafe(link_section = ".bench")]
#[inline(never)]
fn made() -> Option<RefCell<Nor>> {
    let mut flash = Nor::take()?;
    flash.erase(0, SLOT_LEN).ok()?;
    flash.write(0, OLD.get(..OLD.len() / 4 * 4)?).ok()?;
    Some(RefCell::new(flash))
}

#[entry]
fn main() -> ! {
    stack::paint();
    let flash = made();
    let decoder = &raw mut DECODER;
    // SAFETY: this is the one reference, made once: `main` is entered once.
    let decoder = unsafe { &mut *decoder };
    let right = flash.as_ref().zip(verify()).is_some_and(|(flash, release)| {
        let right = apply(flash, decoder, release.len) == Some(release.hash);
        right && release.digest == bytes::<32>(FACTS, 64)
    });
    report::leave(right, &[(b"stack_bytes", stack::used() as u32)])
}

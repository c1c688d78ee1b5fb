//! Packages where the engine can read them.

use dunlin_engine::ARENA_ALIGN;
use dunlin_update::flash::FlashStorage;
use dunlin_update::record::Installed;
use dunlin_update::storage::{Area, Geometry, Storage, StorageFault};
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};

/// Flash that the processor reads like memory: internal flash, or QSPI flash in its memory-mapped mode.
///
/// The borrow is the point: while a model reads its weights nobody can write the flash.
pub trait Mapped: ReadNorFlash {
    /// The bytes from `offset` on; `None` beyond the end.
    fn mapped(&self, offset: u32, len: usize) -> Option<&[u8]>;
}

/// Storage that shows a package as one slice.
pub trait Slots: Storage {
    /// The bytes of an installed package, at a multiple of 16 in memory; `None` when they cannot be had.
    fn package(&mut self, package: &Installed) -> Option<&[u8]>;
}

impl<S: Slots + ?Sized> Slots for &mut S {
    fn package(&mut self, package: &Installed) -> Option<&[u8]> {
        (**self).package(package)
    }
}

impl<F: NorFlash + Mapped> Slots for FlashStorage<F> {
    fn package(&mut self, package: &Installed) -> Option<&[u8]> {
        if package.slot >= self.slots() || package.len > self.geometry(Area::Slot(package.slot)).len {
            return None;
        }
        let offset = self.slot_offset(package.slot);
        self.flash().mapped(offset, usize::try_from(package.len).ok()?)
    }
}

/// Storage whose packages are copied to memory before they run: for flash behind a bus.
#[derive(Debug)]
pub struct Copied<'m, S> {
    storage: S,
    memory: &'m mut [u8],
    /// What the memory holds.
    holds: Option<Installed>,
}

impl<'m, S: Storage> Copied<'m, S> {
    /// Room for one package in `memory`, less the bytes before its first multiple of 16.
    pub fn new(storage: S, memory: &'m mut [u8]) -> Self {
        let skip = memory.as_ptr().align_offset(ARENA_ALIGN).min(memory.len());
        let (_, memory) = memory.split_at_mut(skip);
        Self { storage, memory, holds: None }
    }

    /// What is in memory is not what is in the slot any more.
    fn forget(&mut self, area: Area) {
        self.holds = self.holds.filter(|p| Area::Slot(p.slot) != area);
    }
}

impl<S: Storage> Storage for Copied<'_, S> {
    fn slots(&self) -> u8 {
        self.storage.slots()
    }

    fn geometry(&self, area: Area) -> Geometry {
        self.storage.geometry(area)
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        self.storage.read(area, offset, into)
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        self.forget(area);
        self.storage.write(area, offset, bytes)
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        self.forget(area);
        self.storage.erase(area, offset, len)
    }

    fn sync(&mut self) -> Result<(), StorageFault> {
        self.storage.sync()
    }
}

impl<S: Storage> Slots for Copied<'_, S> {
    fn package(&mut self, package: &Installed) -> Option<&[u8]> {
        let bytes = self.memory.get_mut(..usize::try_from(package.len).ok()?)?;
        if self.holds != Some(*package) {
            self.holds = None;
            self.storage.read(Area::Slot(package.slot), 0, bytes).ok()?;
            self.holds = Some(*package);
        }
        Some(bytes)
    }
}

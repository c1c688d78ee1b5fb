//! Writing and hashing slots.

use crate::delta::{Base, Sink};
use crate::record::Installed;
use crate::storage::{Area, Geometry, MAX_UNIT, Storage, StorageFault};
use dunlin_package::Hash;

/// Writes a package into a slot, in order, sector by sector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    area: Area,
    geometry: Geometry,
    /// Bytes taken.
    at: u32,
    /// Bytes that are in the slot from before: they are taken and dropped.
    skip: u32,
    /// The package's length.
    len: u32,
    /// Bytes that do not fill a unit yet.
    pending: [u8; MAX_UNIT],
}

impl Writer {
    /// Takes bytes from `at` on; those before `durable`, the end of a whole sector, are in the slot already.
    pub(crate) fn new(slot: u8, geometry: Geometry, at: u32, durable: u32, len: u32) -> Self {
        Self { area: Area::Slot(slot), geometry, at, skip: durable, len, pending: [0; MAX_UNIT] }
    }

    /// Bytes taken so far.
    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    /// Sectors that are whole in the slot.
    pub(crate) fn sectors(&self) -> u32 {
        self.at.max(self.skip).checked_div(self.geometry.sector).unwrap_or(0)
    }

    /// Bytes in whole sectors of the slot.
    pub(crate) fn durable(&self) -> u32 {
        self.sectors().saturating_mul(self.geometry.sector)
    }

    /// Takes bytes; those beyond the package's length are refused.
    pub(crate) fn write<S: Storage>(&mut self, storage: &mut S, mut bytes: &[u8]) -> Result<(), StorageFault> {
        let Geometry { sector, unit, .. } = self.geometry;
        while !bytes.is_empty() {
            let left = self.len.checked_sub(self.at).filter(|&n| n > 0).ok_or(StorageFault)?;
            let take = |n: u32| (n.min(left) as usize).min(bytes.len());
            if self.at < self.skip {
                let (_, rest) = bytes.split_at_checked(take(self.skip - self.at)).ok_or(StorageFault)?;
                self.at += (bytes.len() - rest.len()) as u32;
                bytes = rest;
                continue;
            }
            if self.at.is_multiple_of(sector) {
                storage.erase(self.area, self.at, sector)?;
            }
            let held = self.at.checked_rem(unit).ok_or(StorageFault)?;
            let room = sector - self.at.checked_rem(sector).ok_or(StorageFault)?;
            let direct = take(room) as u32;
            let direct = direct - direct.checked_rem(unit).ok_or(StorageFault)?;
            if held == 0 && direct > 0 {
                let (now, rest) = bytes.split_at_checked(direct as usize).ok_or(StorageFault)?;
                storage.write(self.area, self.at, now)?;
                self.at += direct;
                bytes = rest;
            } else {
                let (now, rest) = bytes.split_at_checked(take(unit - held)).ok_or(StorageFault)?;
                let place = self.pending.iter_mut().skip(held as usize);
                place.zip(now).for_each(|(to, from)| *to = *from);
                self.at += now.len() as u32;
                bytes = rest;
                if self.at.is_multiple_of(unit) {
                    let whole = self.pending.get(..unit as usize).ok_or(StorageFault)?;
                    storage.write(self.area, self.at - unit, whole)?;
                }
            }
            if self.at.is_multiple_of(sector) {
                storage.sync()?;
            }
        }
        Ok(())
    }

    /// Writes what does not fill a unit.
    pub(crate) fn finish<S: Storage>(&mut self, storage: &mut S) -> Result<(), StorageFault> {
        let unit = self.geometry.unit;
        let held = self.at.checked_rem(unit).ok_or(StorageFault)?;
        if held > 0 && self.at > self.skip {
            let erased = self.geometry.erased;
            self.pending.iter_mut().skip(held as usize).for_each(|b| *b = erased);
            let whole = self.pending.get(..unit as usize).ok_or(StorageFault)?;
            storage.write(self.area, self.at - held, whole)?;
        }
        storage.sync()
    }
}

/// Whether the bytes in a slot have a package's hash. They are read, whatever arrived.
#[inline(never)]
pub(crate) fn holds<S: Storage>(storage: &mut S, package: &Installed) -> Result<bool, StorageFault> {
    let area = Area::Slot(package.slot);
    if package.slot >= storage.slots() || package.len > storage.geometry(area).len {
        return Ok(false);
    }
    let mut hash = Hash::new();
    let mut at = 0;
    let mut buffer = [0; 64];
    while at < package.len {
        let n = (package.len - at).min(buffer.len() as u32);
        let (part, _) = buffer.split_at_mut_checked(n as usize).ok_or(StorageFault)?;
        storage.read(area, at, part)?;
        hash.update(part);
        at += n;
    }
    Ok(hash.finish() == package.hash)
}

/// Reads the running package while the new one is written.
pub(crate) struct Running<'c, S> {
    pub(crate) storage: &'c core::cell::RefCell<S>,
    pub(crate) slot: u8,
}

impl<S: Storage> Base for Running<'_, S> {
    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        self.storage.try_borrow_mut().map_err(|_| StorageFault)?.read(Area::Slot(self.slot), offset, into)
    }
}

/// Writes the new package while the running one is read.
pub(crate) struct Growing<'c, S> {
    pub(crate) storage: &'c core::cell::RefCell<S>,
    pub(crate) writer: &'c mut Writer,
}

impl<S: Storage> Sink for Growing<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        let mut storage = self.storage.try_borrow_mut().map_err(|_| StorageFault)?;
        self.writer.write(&mut *storage, bytes)
    }
}

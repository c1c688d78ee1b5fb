//! Where packages and the state record lie.
//!
//! A device has two areas for the state record, one for the journal of a download, and two or more slots of equal
//! length. They are numbered, not addressed, so that flash partitions, files and simulated flash all fit.

pub use crate::delta::StorageFault;

/// Bytes of the longest program unit that is supported.
pub const MAX_UNIT: usize = 32;

/// One of the areas of a device's storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// One of the two places of the state record: 0 or 1.
    State(u8),
    /// Progress of a download.
    Journal,
    /// A place for one package.
    Slot(u8),
}

/// What kind of memory an area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the area, a multiple of `sector`.
    pub len: u32,
    /// Bytes that are erased together, at most; a multiple of `unit`.
    pub sector: u32,
    /// Bytes that are programmed together: a power of two, at most [`MAX_UNIT`].
    pub unit: u32,
    /// What an erased byte reads as.
    pub erased: u8,
}

impl Geometry {
    /// Whether lengths are multiples of each other and the unit is supported.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let unit = self.unit as usize;
        unit.is_power_of_two()
            && unit <= MAX_UNIT
            && self.sector > 0
            && self.sector.is_multiple_of(self.unit)
            && self.len.is_multiple_of(self.sector)
            && self.len > 0
    }
}

/// Memory that keeps its contents without power.
///
/// What the updater relies on: bytes outside of the range of an operation never change; an operation that returned `Ok`
/// has happened, for good once [`sync`](Self::sync) returned `Ok` too; one that was cut may have left anything in its
/// own range.
pub trait Storage {
    /// Number of slots, at least 2.
    fn slots(&self) -> u8;

    /// What an area is made of.
    fn geometry(&self, area: Area) -> Geometry;

    /// Reads bytes.
    ///
    /// # Errors
    /// When the medium fails or the range is outside of the area.
    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault>;

    /// Programs erased bytes. Offset and length are multiples of the unit.
    ///
    /// # Errors
    /// When the medium fails or the range is outside of the area or not in units.
    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault>;

    /// Erases bytes. Offset and length are multiples of the sector.
    ///
    /// # Errors
    /// When the medium fails or the range is outside of the area or not in sectors.
    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault>;

    /// Waits until all that was written is durable. Flash has nothing to do here.
    ///
    /// # Errors
    /// When the medium fails.
    fn sync(&mut self) -> Result<(), StorageFault> {
        Ok(())
    }
}

impl<S: Storage + ?Sized> Storage for &mut S {
    fn slots(&self) -> u8 {
        (**self).slots()
    }

    fn geometry(&self, area: Area) -> Geometry {
        (**self).geometry(area)
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        (**self).read(area, offset, into)
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        (**self).write(area, offset, bytes)
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        (**self).erase(area, offset, len)
    }

    fn sync(&mut self) -> Result<(), StorageFault> {
        (**self).sync()
    }
}

/// Whether a range lies in an area and on its units.
pub(crate) fn fits(geometry: &Geometry, offset: u32, len: usize, step: u32) -> bool {
    let Ok(len) = u32::try_from(len) else { return false };
    offset.checked_add(len).is_some_and(|end| end <= geometry.len)
        && step > 0
        && offset.is_multiple_of(step)
        && len.is_multiple_of(step)
}

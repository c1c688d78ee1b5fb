//! Storage in NOR flash behind `embedded-storage`.

use embedded_storage::nor_flash::NorFlash;

use crate::storage::{Area, Geometry, Storage, StorageFault, fits};

/// Where the areas lie in the flash: offsets and lengths in bytes, multiples of the erase size, not overlapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the first of the two state areas; the second follows it.
    pub state: u32,
    /// Bytes of each state area.
    pub state_len: u32,
    /// Offset of the journal.
    pub journal: u32,
    /// Bytes of the journal.
    pub journal_len: u32,
    /// Offset of slot 0; the others follow it.
    pub slots: u32,
    /// Bytes of each slot.
    pub slot_len: u32,
    /// Number of slots.
    pub slot_count: u8,
}

impl Layout {
    /// State areas, journal and slots one after the other, each as small as the sectors allow.
    #[must_use]
    pub const fn packed(start: u32, sector: u32, slot_len: u32, slot_count: u8) -> Self {
        let state_len = (2 * crate::record::RECORD_LEN as u32).next_multiple_of(sector);
        // A mark for each sector, and as many again for those that a power cut spoils.
        let marks = slot_len.div_ceil(sector) * 2 + 8;
        let journal_len = (marks * 32).next_multiple_of(sector);
        let journal = start + 2 * state_len;
        Self {
            state: start,
            state_len,
            journal,
            journal_len,
            slots: journal + journal_len,
            slot_len: slot_len.next_multiple_of(sector),
            slot_count,
        }
    }

    /// The first byte after the last slot.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.slots + self.slot_len * self.slot_count as u32
    }

    fn place(&self, area: Area) -> (u32, u32) {
        match area {
            Area::State(i) => (self.state.saturating_add(u32::from(i & 1) * self.state_len), self.state_len),
            Area::Journal => (self.journal, self.journal_len),
            Area::Slot(i) if i < self.slot_count => {
                (self.slots.saturating_add(u32::from(i).saturating_mul(self.slot_len)), self.slot_len)
            }
            Area::Slot(_) => (self.slots, 0),
        }
    }
}

/// Areas in one NOR flash.
#[derive(Debug)]
pub struct FlashStorage<F> {
    flash: F,
    layout: Layout,
}

impl<F: NorFlash> FlashStorage<F> {
    /// Areas of `layout` in `flash`; `None` when they do not fit or are not whole sectors.
    pub fn new(flash: F, layout: Layout) -> Option<Self> {
        let sector = F::ERASE_SIZE as u32;
        let Layout { state, state_len, journal, journal_len, slots, slot_len, slot_count } = layout;
        let whole = [state, state_len, journal, journal_len, slots, slot_len].iter().all(|n| n.is_multiple_of(sector));
        let end = slot_len.checked_mul(u32::from(slot_count)).and_then(|n| n.checked_add(slots))?;
        let inside = [end, state.checked_add(state_len.checked_mul(2)?)?, journal.checked_add(journal_len)?];
        let capacity = flash.capacity();
        let storage = Self { flash, layout };
        let sound = whole
            && slot_count >= 2
            && inside.iter().all(|&end| end as usize <= capacity)
            && F::READ_SIZE == 1
            && storage.geometry(Area::State(0)).is_sound()
            && storage.geometry(Area::Journal).is_sound()
            && storage.geometry(Area::Slot(0)).is_sound();
        sound.then_some(storage)
    }

    /// The flash, for what lies elsewhere in it.
    pub fn flash(&mut self) -> &mut F {
        &mut self.flash
    }

    /// Offset in the flash of a slot, for reading it in place.
    #[must_use]
    pub fn slot_offset(&self, slot: u8) -> u32 {
        self.layout.place(Area::Slot(slot)).0
    }
}

impl<F: NorFlash> Storage for FlashStorage<F> {
    fn slots(&self) -> u8 {
        self.layout.slot_count
    }

    fn geometry(&self, area: Area) -> Geometry {
        let (_, len) = self.layout.place(area);
        Geometry { len, sector: F::ERASE_SIZE as u32, unit: F::WRITE_SIZE as u32, erased: 0xFF }
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        let geometry = self.geometry(area);
        if !fits(&geometry, offset, into.len(), 1) {
            return Err(StorageFault);
        }
        let start = self.layout.place(area).0.saturating_add(offset);
        self.flash.read(start, into).map_err(|_| StorageFault)
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        let geometry = self.geometry(area);
        if !fits(&geometry, offset, bytes.len(), geometry.unit) {
            return Err(StorageFault);
        }
        let start = self.layout.place(area).0.saturating_add(offset);
        self.flash.write(start, bytes).map_err(|_| StorageFault)
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        let geometry = self.geometry(area);
        if !fits(&geometry, offset, len as usize, geometry.sector) {
            return Err(StorageFault);
        }
        let start = self.layout.place(area).0.saturating_add(offset);
        self.flash.erase(start, start.saturating_add(len)).map_err(|_| StorageFault)
    }
}

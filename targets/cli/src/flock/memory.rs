//! A device's storage in this process's memory.

use dunlin::Block;
use dunlin_device::Slots;
use dunlin_update::Installed;
use dunlin_update::storage::{Area, Geometry, Storage, StorageFault};

/// Bytes of a sector, and of each area but the slots.
const SECTOR: u32 = 4096;

/// Two slots, state and journal, as NOR flash with sectors of 4 KiB would have them.
#[derive(Debug)]
pub struct Memory {
    state: [Vec<u8>; 2],
    journal: Vec<u8>,
    slots: [Block; 2],
}

impl Memory {
    /// Erased, with room for packages of so many bytes.
    #[must_use]
    pub fn new(slot_len: usize) -> Self {
        let erased = || vec![0xFF; SECTOR as usize];
        let slot = || {
            let mut slot = Block::zeroed(slot_len.next_multiple_of(SECTOR as usize));
            slot.fill(0xFF);
            slot
        };
        Self { state: [erased(), erased()], journal: erased(), slots: [slot(), slot()] }
    }

    /// Puts a package into slot 0, as a factory does.
    pub fn install(&mut self, package: &[u8]) {
        if let Some(place) = self.slots[0].get_mut(..package.len()) {
            place.copy_from_slice(package);
        }
    }

    fn area(&mut self, area: Area) -> Option<&mut [u8]> {
        match area {
            Area::State(n) => self.state.get_mut(usize::from(n)).map(|s| &mut s[..]),
            Area::Journal => Some(&mut self.journal),
            Area::Slot(n) => self.slots.get_mut(usize::from(n)).map(|s| &mut s[..]),
        }
    }

    fn range(&mut self, area: Area, offset: u32, len: usize) -> Result<&mut [u8], StorageFault> {
        let from = offset as usize;
        self.area(area).and_then(|bytes| bytes.get_mut(from..from.checked_add(len)?)).ok_or(StorageFault)
    }
}

impl Storage for Memory {
    fn slots(&self) -> u8 {
        2
    }

    fn geometry(&self, area: Area) -> Geometry {
        let len = match area {
            Area::Slot(_) => self.slots[0].len() as u32,
            _ => SECTOR,
        };
        Geometry { len, sector: SECTOR, unit: 4, erased: 0xFF }
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        into.copy_from_slice(self.range(area, offset, into.len())?);
        Ok(())
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        let place = self.range(area, offset, bytes.len())?;
        // Flash programs what is erased, once.
        if place.iter().any(|b| *b != 0xFF) {
            return Err(StorageFault);
        }
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        self.range(area, offset, len as usize)?.fill(0xFF);
        Ok(())
    }
}

impl Slots for Memory {
    fn package(&mut self, package: &Installed) -> Option<&[u8]> {
        self.slots.get(usize::from(package.slot))?.get(..usize::try_from(package.len).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_programs_like_flash() {
        let mut memory = Memory::new(5000);
        assert!(memory.geometry(Area::Slot(1)).is_sound() && memory.geometry(Area::Journal).is_sound());
        assert_eq!(memory.geometry(Area::Slot(0)).len, 8192);
        memory.write(Area::Slot(1), 4092, &[1, 2, 3, 4]).expect("erased");
        assert!(memory.write(Area::Slot(1), 4092, &[0; 4]).is_err(), "programmed twice");
        assert!(
            memory.write(Area::Slot(1), 8192, &[0; 4]).is_err() && memory.write(Area::Slot(2), 0, &[0; 4]).is_err()
        );
        let mut bytes = [0; 4];
        memory.read(Area::Slot(1), 4092, &mut bytes).expect("in it");
        assert_eq!(bytes, [1, 2, 3, 4]);
        memory.erase(Area::Slot(1), 0, 4096).expect("a sector");
        memory.write(Area::Slot(1), 4092, &[0; 4]).expect("erased again");
    }
}

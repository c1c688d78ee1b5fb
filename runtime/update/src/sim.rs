//! Simulated NOR flash that loses power at any byte of a write and in the middle of an erase.
//!
//! It keeps the rules of the medium and counts who breaks them: only erased units are programmed, once, and whole.

use std::vec::Vec;

use crate::storage::{Area, Geometry, Storage, StorageFault, fits};

/// Steps that an erase of one sector counts as: it may be cut before, in three states of disarray, and after.
const ERASE_STEPS: u64 = 4;

/// What kind of flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Its name in reports.
    pub name: &'static str,
    /// Bytes of a program unit.
    pub unit: u32,
    /// What erased bytes read as.
    pub erased: u8,
    /// Bytes of the sectors of the state areas, the journal and the slots.
    pub sectors: [u32; 3],
    /// Whether a cut leaves bits of the whole unit half-programmed, or only those of one byte.
    pub wide: bool,
}

/// The chips that power is cut on.
pub const CHIPS: &[Chip] = &[
    Chip { name: "unit 1, sectors 256", unit: 1, erased: 0xFF, sectors: [256, 256, 256], wide: false },
    Chip { name: "unit 1, erased 0", unit: 1, erased: 0x00, sectors: [512, 512, 512], wide: false },
    Chip { name: "unit 4, sectors 512", unit: 4, erased: 0xFF, sectors: [512, 512, 512], wide: true },
    Chip { name: "unit 4, unequal sectors", unit: 4, erased: 0xFF, sectors: [1024, 256, 2048], wide: true },
    Chip { name: "unit 8, sectors 2048", unit: 8, erased: 0xFF, sectors: [2048, 2048, 2048], wide: true },
    Chip { name: "unit 8, erased 0", unit: 8, erased: 0x00, sectors: [256, 512, 1024], wide: true },
    Chip { name: "unit 16, sectors 1024", unit: 16, erased: 0xFF, sectors: [1024, 1024, 1024], wide: true },
    Chip { name: "unit 32, sectors 4096", unit: 32, erased: 0xFF, sectors: [4096, 4096, 4096], wide: true },
    Chip { name: "unit 32, erased 0, unequal", unit: 32, erased: 0x00, sectors: [4096, 512, 1024], wide: true },
];

/// Flash with a state record's areas, a journal and slots.
#[derive(Clone, Debug)]
pub struct Flash {
    chip: Chip,
    areas: Vec<(Area, Geometry, Vec<u8>)>,
    slots: u8,
    /// Steps until the power goes.
    fuel: Option<u64>,
    dead: bool,
    random: u64,
    steps: u64,
    violations: u32,
}

impl Flash {
    /// Erased flash with slots of at least `slot_len` bytes.
    #[must_use]
    pub fn new(chip: Chip, slots: u8, slot_len: u32) -> Self {
        let [state, journal, slot] = chip.sectors;
        let area = |area: Area, len: u32, sector: u32| {
            let len = len.next_multiple_of(sector);
            let geometry = Geometry { len, sector, unit: chip.unit, erased: chip.erased };
            (area, geometry, std::vec![chip.erased; len as usize])
        };
        let mut areas = std::vec![
            area(Area::State(0), 2 * crate::record::RECORD_LEN as u32, state),
            area(Area::State(1), 2 * crate::record::RECORD_LEN as u32, state),
            area(Area::Journal, (slot_len.div_ceil(slot) + 4) * 32, journal),
        ];
        areas.extend((0..slots).map(|i| area(Area::Slot(i), slot_len, slot)));
        Self { chip, areas, slots, fuel: None, dead: false, random: 1, steps: 0, violations: 0 }
    }

    /// The kind of flash.
    #[must_use]
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// Cuts the power after so many steps; what it leaves depends on the seed.
    pub fn cut_after(&mut self, steps: u64, seed: u64) {
        (self.fuel, self.random) = (Some(steps), seed | 1);
    }

    /// Gives power again, and no more cuts.
    pub fn power_on(&mut self) {
        (self.fuel, self.dead) = (None, false);
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Steps so far: one for a byte that is programmed, some for a sector that is erased.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How often the rules of the medium were broken.
    #[must_use]
    pub fn violations(&self) -> u32 {
        self.violations
    }

    /// All bytes of an area, past the simulation: to put a factory package there, or to look.
    pub fn bytes(&mut self, area: Area) -> &mut [u8] {
        self.areas.iter_mut().find(|(a, _, _)| *a == area).map_or(&mut [], |(_, _, bytes)| bytes)
    }

    /// Flips bits of an area at random: charge that leaks.
    pub fn rot(&mut self, area: Area, bits: u32, seed: u64) {
        self.random = seed | 1;
        for _ in 0..bits {
            let at = self.random();
            let bytes = self.bytes(area);
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at as usize / 8 % len) {
                *byte ^= 1 << (at % 8);
            }
        }
    }

    /// xorshift64*
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Uses up a step; `false` when the power goes.
    fn burn(&mut self) -> bool {
        self.steps += 1;
        match &mut self.fuel {
            Some(0) => {
                self.dead = true;
                false
            }
            Some(fuel) => {
                *fuel -= 1;
                true
            }
            None => true,
        }
    }

    fn geometry_of(&self, area: Area) -> Geometry {
        let none = Geometry { len: 0, sector: 1, unit: 1, erased: 0xFF };
        self.areas.iter().find(|(a, _, _)| *a == area).map_or(none, |(_, g, _)| *g)
    }

    fn violation(&mut self) -> StorageFault {
        self.violations += 1;
        StorageFault
    }

    /// Some of the bits that differ.
    fn partly(&mut self, from: u8, to: u8) -> u8 {
        let mask = self.random() as u8;
        (from & !mask) | (to & mask)
    }

    fn program(&mut self, area: Area, at: usize, unit: &[u8]) -> Result<(), StorageFault> {
        let erased = self.chip.erased;
        let clean = self.bytes(area).get(at..at + unit.len()).is_some_and(|old| old.iter().all(|&b| b == erased));
        if !clean {
            return Err(self.violation());
        }
        for (i, &byte) in unit.iter().enumerate() {
            if self.burn() {
                self.bytes(area)[at + i] = byte;
                continue;
            }
            for (j, &byte) in unit.iter().enumerate().skip(i) {
                if j == i || self.chip.wide {
                    let torn = self.partly(erased, byte);
                    self.bytes(area)[at + j] = torn;
                }
            }
            return Err(StorageFault);
        }
        Ok(())
    }

    fn erase_sector(&mut self, area: Area, at: usize, len: usize) -> Result<(), StorageFault> {
        let erased = self.chip.erased;
        for stage in 0..ERASE_STEPS {
            if self.burn() {
                continue;
            }
            for i in at..at + len {
                let old = self.bytes(area)[i];
                // The further the erase is, the fewer bytes are what they were.
                let reached = self.random() % ERASE_STEPS < stage;
                self.bytes(area)[i] = if reached { self.partly(old, erased) } else { old };
            }
            return Err(StorageFault);
        }
        self.bytes(area)[at..at + len].fill(erased);
        Ok(())
    }
}

impl Storage for Flash {
    fn slots(&self) -> u8 {
        self.slots
    }

    fn geometry(&self, area: Area) -> Geometry {
        self.geometry_of(area)
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        if self.dead {
            return Err(StorageFault);
        }
        if !fits(&self.geometry_of(area), offset, into.len(), 1) {
            return Err(self.violation());
        }
        let at = offset as usize;
        into.copy_from_slice(&self.bytes(area)[at..at + into.len()]);
        Ok(())
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        if self.dead {
            return Err(StorageFault);
        }
        let geometry = self.geometry_of(area);
        if !fits(&geometry, offset, bytes.len(), geometry.unit) {
            return Err(self.violation());
        }
        for (i, unit) in bytes.chunks(geometry.unit as usize).enumerate() {
            self.program(area, offset as usize + i * geometry.unit as usize, unit)?;
        }
        Ok(())
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        if self.dead {
            return Err(StorageFault);
        }
        let geometry = self.geometry_of(area);
        if !fits(&geometry, offset, len as usize, geometry.sector) {
            return Err(self.violation());
        }
        for at in (offset..offset + len).step_by(geometry.sector as usize) {
            self.erase_sector(area, at as usize, geometry.sector as usize)?;
        }
        Ok(())
    }
}

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use std::vec::Vec;

use super::*;
use crate::ledger::{Arrival, Ledger};
use crate::window::{Arm, Counter, Head};

const SECTOR: usize = 512;
const SECTORS: usize = 4;

/// Flash in memory: erased to ones, programmed to zeros, in words of four bytes.
#[derive(Clone)]
struct Memory(Vec<u8>);

#[derive(Clone, Copy, Debug)]
struct Broken;

impl NorFlashError for Broken {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for Memory {
    type Error = Broken;
}

impl ReadNorFlash for Memory {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Broken> {
        let at = offset as usize;
        bytes.copy_from_slice(self.0.get(at..at + bytes.len()).ok_or(Broken)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for Memory {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Broken> {
        self.0.get_mut(from as usize..to as usize).ok_or(Broken)?.fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Broken> {
        let at = offset as usize;
        let place = self.0.get_mut(at..at + bytes.len()).ok_or(Broken)?;
        place.iter_mut().zip(bytes).for_each(|(to, from)| *to &= from);
        Ok(())
    }
}

impl MultiwriteNorFlash for Memory {}

type Small = Store<Memory, 10, 2, 128>;

fn open(flash: Memory) -> Small {
    Store::new(flash, 0..(SECTOR * SECTORS) as u32).expect("the range is sound")
}

fn window(seq: u32) -> Window<10, 2> {
    let head = Head { model: 7, arm: Arm::Rest, boot: 3, seq, span: 1, seconds: 60, complete: true };
    let mut window = Window::new(head, 26, 10, 2);
    window.counters.add(Counter::Inferences, seq + 1);
    window.latency[seq as usize % 60] = seq + 1;
    window.classes = [seq; 10];
    window
}

/// Delivers everything; gives the sum of inferences.
fn drain(store: &mut Small, ledger: &mut Ledger) -> u32 {
    let mut bytes = [0; 128];
    let mut sum = 0;
    while let Some(len) = store.send(Profile::Full, &mut bytes).expect("the flash works") {
        let Ok(Report::<10, 2>::Known(_, window)) = Report::decode(&bytes[..len]) else { panic!() };
        let head = *window.head();
        match ledger.enter(head.boot, &head) {
            Arrival::New => sum += window.counters().inferences(),
            Arrival::Duplicate => {}
            Arrival::Overlap => panic!("{head:?}"),
        }
        assert!(store.acknowledge(head.boot, head.seq).expect("the flash works"));
    }
    sum
}

#[test]
fn windows_survive_a_restart_and_merge_when_the_flash_is_full() {
    let mut store = open(Memory(std::vec![0xFF; SECTOR * SECTORS]));
    let mut bytes = [0; 128];
    let mut ledger = Ledger::new();
    let mut sum = 0;
    for seq in 0..300 {
        store.push(&window(seq)).expect("the flash works");
        if seq % 40 == 5 {
            // Sent, arrived, not acknowledged.
            let len = store.send(Profile::Full, &mut bytes).expect("the flash works").expect("a report");
            let Ok(Report::<10, 2>::Known(_, window)) = Report::decode(&bytes[..len]) else { panic!() };
            if ledger.enter(3, window.head()) == Arrival::New {
                sum += window.counters().inferences();
            }
        }
        if seq % 70 == 69 {
            // Everything that was sent is acknowledged before the power goes.
            sum += drain(&mut store, &mut ledger);
            store = open(store.into_flash());
        }
    }
    sum += drain(&mut store, &mut ledger);
    assert_eq!(store.take_dropped(), 0);
    assert_eq!(sum, (1..=300).sum::<u32>());
    assert_eq!(ledger.gaps().count(), 0);
}

#[test]
fn a_range_that_is_none_is_refused() {
    let flash = Memory(std::vec![0xFF; SECTOR * SECTORS]);
    assert!(matches!(Small::new(flash, 0..100), Err(StoreError::Range)));
}

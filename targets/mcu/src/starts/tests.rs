use std::vec::Vec;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use proptest::prelude::*;

use super::*;

/// Two sectors of 64 bytes in units of 8; the power goes after so many units or erases.
struct Nor {
    bytes: Vec<u8>,
    fuel: u32,
    torn: u8,
}

impl ErrorType for Nor {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl Nor {
    fn burn(&mut self) -> bool {
        let lives = self.fuel > 0;
        self.fuel = self.fuel.saturating_sub(1);
        lives
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = 64;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        let lives = self.burn();
        let torn = self.torn;
        let range = &mut self.bytes[from as usize..to as usize];
        if lives {
            range.fill(0xFF);
            return Ok(());
        }
        range.iter_mut().step_by(3).for_each(|b| *b |= torn);
        Err(NorFlashErrorKind::Other)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        let lives = self.burn();
        let torn = if lives { 0 } else { self.torn };
        let place = &mut self.bytes[offset as usize..][..bytes.len()];
        assert!(place.iter().all(|b| *b == 0xFF), "a unit is programmed once");
        place.iter_mut().zip(bytes).for_each(|(to, from)| *to &= from | torn);
        if lives { Ok(()) } else { Err(NorFlashErrorKind::Other) }
    }
}

proptest! {
    #[test]
    fn numbers_rise_and_no_fault_is_forgotten_whatever_power_cuts_come(
        begin in any::<u8>(), starts in prop::collection::vec((0..4u32, 1..=255u8, 0..4u8), 1..60),
    ) {
        let mut nor = Nor { bytes: std::vec![begin; 128], fuel: 0, torn: 0 };
        let mut last = 0;
        // Faults since they were told: those that were counted for certain, and all.
        let (mut least, mut most) = (0, 0);
        for (fuel, torn, what) in starts {
            (nor.fuel, nor.torn) = (fuel, torn);
            if what == 0 {
                least = 0;
                most = if told(&mut nor, 0).is_ok() { 0 } else { most };
                continue;
            }
            let cause = if what == 1 { StartCause::Power } else { StartCause::Fault };
            let fault = u32::from(cause == StartCause::Fault);
            most += fault;
            if let Ok(start) = count(&mut nor, 0, cause) {
                prop_assert!(start.number > last, "{:?} after {}", start, last);
                least += fault;
                prop_assert!((least..=most).contains(&start.faults), "{:?}, {} to {}", start, least, most);
                last = start.number;
            }
        }
        nor.fuel = 9;
        prop_assert!(count(&mut nor, 0, StartCause::Power).is_ok_and(|s| s.number > last));
    }
}

#[test]
fn faults_are_told_once() {
    let mut nor = Nor { bytes: std::vec![0xFF; 128], fuel: 100, torn: 0 };
    let causes = [StartCause::Power, StartCause::Fault, StartCause::Power, StartCause::Fault];
    let counted = causes.map(|cause| count(&mut nor, 0, cause).expect("it is counted"));
    assert_eq!(counted.map(|s| (s.number, s.faults)), [(1, 0), (2, 1), (3, 1), (4, 2)]);
    told(&mut nor, 0).expect("it is noted");
    assert_eq!(count(&mut nor, 0, StartCause::Power), Ok(Start { number: 6, faults: 0 }));
}

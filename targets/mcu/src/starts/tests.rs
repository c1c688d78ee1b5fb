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
    fn numbers_rise_whatever_power_cuts_come(
        begin in any::<u8>(), starts in prop::collection::vec((0..4u32, 1..=255u8), 1..60),
    ) {
        let mut nor = Nor { bytes: std::vec![begin; 128], fuel: 0, torn: 0 };
        let mut last = 0;
        for (fuel, torn) in starts {
            (nor.fuel, nor.torn) = (fuel, torn);
            if let Ok(number) = count(&mut nor, 0) {
                prop_assert!(number > last, "{} after {}", number, last);
                last = number;
            }
        }
        nor.fuel = 9;
        prop_assert!(count(&mut nor, 0).is_ok_and(|n| n > last));
    }
}

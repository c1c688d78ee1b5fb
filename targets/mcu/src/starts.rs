//! How often the device has started: two sectors of flash in which units are used up one by one.

use embedded_storage::nor_flash::NorFlash;

use crate::frame::crc32;

/// Bytes of the longest program unit.
const UNIT: usize = 32;
/// Bytes of a number and its CRC.
const LEN: usize = 8;

/// Counts a start and gives its number, from 1. The sectors at `offset` wear by a unit a start, and no power cut makes a
/// number come twice that was given.
///
/// # Errors
/// When the flash fails.
pub fn count<F: NorFlash>(flash: &mut F, offset: u32) -> Result<u32, F::Error> {
    let unit = (F::WRITE_SIZE.max(LEN) as u32).next_multiple_of(F::WRITE_SIZE as u32);
    let sector = F::ERASE_SIZE as u32;
    let (mut greatest, mut here) = (0, 0);
    for which in 0..2 {
        for at in units(which, sector, unit) {
            let mut bytes = [0; LEN];
            flash.read(offset + at, &mut bytes)?;
            if let Some(number) = number(bytes).filter(|n| *n > greatest) {
                (greatest, here) = (number, which);
            }
        }
    }
    let next = greatest.saturating_add(1);
    let mut bytes = [0xFF; UNIT];
    let [a, b, c, d] = next.to_le_bytes();
    let [e, f, g, h] = crc32(&[a, b, c, d]).to_le_bytes();
    bytes.iter_mut().zip([a, b, c, d, e, f, g, h]).for_each(|(to, from)| *to = from);
    let bytes = bytes.get(..unit as usize).unwrap_or(&[]);
    // The first unit of this sector behind all that were begun; else the other sector is begun anew.
    let mut free = None;
    for at in units(here, sector, unit) {
        let mut read = [0; LEN];
        flash.read(offset + at, &mut read)?;
        free = if read == [0xFF; LEN] { free.or(Some(at)) } else { None };
    }
    let at = match free {
        Some(at) if greatest > 0 => at,
        _ => {
            let other = sector * (1 - here);
            flash.erase(offset + other, offset + other + sector)?;
            other
        }
    };
    flash.write(offset + at, bytes)?;
    Ok(next)
}

/// Offsets of the units of a sector.
fn units(which: u32, sector: u32, unit: u32) -> impl Iterator<Item = u32> {
    let whole = sector.checked_div(unit).unwrap_or(0);
    (0..whole).map(move |i| which * sector + i * unit)
}

fn number(bytes: [u8; LEN]) -> Option<u32> {
    let (number, crc) = bytes.split_first_chunk::<4>()?;
    // Erased bytes are a number with its CRC too.
    let known = |n: &u32| (1..u32::MAX).contains(n);
    (crc32(number).to_le_bytes() == *crc).then(|| u32::from_le_bytes(*number)).filter(known)
}

#[cfg(test)]
mod tests;

//! How often the device has started, and how often because of a fault that nobody was told of: two sectors of flash in which
//! units are used up one by one.

use dunlin_update::StartCause;
use embedded_storage::nor_flash::NorFlash;

use crate::frame::crc32;

/// Bytes of the longest program unit.
const UNIT: usize = 32;
/// Bytes of a number, a count of faults, and their CRC.
const LEN: usize = 12;

/// A start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Its number: the first is 1, and each is greater than those before.
    pub number: u32,
    /// Starts after a fault, this one among them, since [`told`].
    pub faults: u32,
}

/// Counts a start. The sectors at `offset` wear by a unit a start, and no power cut makes a number come twice that was given.
///
/// # Errors
/// When the flash fails.
pub fn count<F: NorFlash>(flash: &mut F, offset: u32, cause: StartCause) -> Result<Start, F::Error> {
    let fault = u32::from(cause == StartCause::Fault);
    note(flash, offset, |before| Start {
        number: before.number.saturating_add(1),
        faults: before.faults.saturating_add(fault),
    })
}

/// Forgets the faults: a report that tells of them has arrived. Takes a number, too, which no start then has. To be called
/// once a start, and only when there are any.
///
/// # Errors
/// When the flash fails. They are told once more then.
pub fn told<F: NorFlash>(flash: &mut F, offset: u32) -> Result<(), F::Error> {
    note(flash, offset, |before| Start { number: before.number.saturating_add(1), faults: 0 }).map(drop)
}

/// Writes what follows the newest note.
fn note<F: NorFlash>(flash: &mut F, offset: u32, next: impl FnOnce(Start) -> Start) -> Result<Start, F::Error> {
    let unit = (F::WRITE_SIZE.max(LEN) as u32).next_multiple_of(F::WRITE_SIZE as u32);
    let sector = F::ERASE_SIZE as u32;
    let (mut newest, mut here) = (Start::default(), 0);
    for which in 0..2 {
        for at in units(which, sector, unit) {
            let mut bytes = [0; LEN];
            flash.read(offset + at, &mut bytes)?;
            if let Some(start) = read(bytes).filter(|s| s.number > newest.number) {
                (newest, here) = (start, which);
            }
        }
    }
    let next = next(newest);
    let mut bytes = [0xFF; UNIT];
    let mut body = [0; 8];
    body.iter_mut()
        .zip(next.number.to_le_bytes().into_iter().chain(next.faults.to_le_bytes()))
        .for_each(|(to, b)| *to = b);
    let sum = crc32(&body).to_le_bytes();
    bytes.iter_mut().zip(body.into_iter().chain(sum)).for_each(|(to, from)| *to = from);
    let bytes = bytes.get(..unit as usize).unwrap_or(&[]);
    // The first unit of this sector behind all that were begun; else the other sector is begun anew.
    let mut free = None;
    for at in units(here, sector, unit) {
        let mut read = [0; LEN];
        flash.read(offset + at, &mut read)?;
        free = if read == [0xFF; LEN] { free.or(Some(at)) } else { None };
    }
    let at = match free {
        Some(at) if newest.number > 0 => at,
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

fn read(bytes: [u8; LEN]) -> Option<Start> {
    let (body, crc) = bytes.split_first_chunk::<8>()?;
    let (number, faults) = body.split_first_chunk::<4>()?;
    let start = Start {
        number: u32::from_le_bytes(*number),
        faults: faults.first_chunk().map_or(0, |f| u32::from_le_bytes(*f)),
    };
    // Erased bytes may be anything with its CRC, too.
    let known = (1..u32::MAX).contains(&start.number);
    (crc32(body).to_le_bytes() == *crc && known).then_some(start)
}

#[cfg(test)]
mod tests;

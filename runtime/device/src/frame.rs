//! Frames on a serial line: COBS with a CRC-32, a zero byte before and after.
//!
//! No zero byte is part of a frame, so whatever happened on the line, the next zero byte is a border. `WIRE.md` has every
//! byte. COBS: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7 (2),
//! 1999.

use heapless::Vec;

/// Bytes of the CRC after a payload.
pub const CRC_LEN: usize = 4;
/// Bytes that follow a code of 255, and no zero after them.
const RUN: usize = 254;

/// CRC-32 of IEEE 802.3 (reflected, polynomial 0x04C11DB7), as in zip and zlib. Without a table: frames are short and
/// flash is dear.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Bytes of a frame around a payload, at most.
#[must_use]
pub const fn encoded_len(payload: usize) -> usize {
    let len = payload + CRC_LEN;
    len + len / RUN + 1 + 2
}

/// Gives the pieces of a frame, in order, to `emit`: zero, codes and bytes, zero. `content` is a payload and its CRC, as
/// [`seal`] makes it.
///
/// # Errors
/// What `emit` gave.
pub fn encode<E>(content: &[u8], mut emit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    emit(&[0])?;
    for segment in content.split(|&byte| byte == 0) {
        let mut runs = segment.chunks_exact(RUN);
        for run in &mut runs {
            emit(&[u8::MAX])?;
            emit(run)?;
        }
        let rest = runs.remainder();
        emit(&[rest.len() as u8 + 1])?;
        emit(rest)?;
    }
    emit(&[0])
}

/// Writes the CRC behind the first `len` bytes; `None` when there is no room for it.
pub fn seal(buffer: &mut [u8], len: usize) -> Option<&[u8]> {
    let crc = crc32(buffer.get(..len)?);
    *buffer.get_mut(len..)?.first_chunk_mut()? = crc.to_le_bytes();
    buffer.get(..len + CRC_LEN)
}

/// What a byte led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// Nothing is whole yet.
    More,
    /// A frame is whole: see [`Decoder::payload`].
    Frame,
    /// What came since the last zero byte is no frame.
    Broken(FrameError),
}

/// Why bytes between two zeros are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FrameError {
    /// More bytes than the decoder has room for.
    TooLong,
    /// It ends too early.
    Short,
    /// The CRC is another one.
    Crc,
}

/// Takes a line byte by byte; `N` is the longest payload with its CRC.
#[derive(Clone, Debug)]
pub struct Decoder<const N: usize> {
    content: Vec<u8, N>,
    /// Bytes until the next code.
    left: u8,
    /// Whether a zero stands before the next code's bytes.
    zero: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came since the last zero byte.
    Between,
    Inside,
    TooLong,
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Decoder<N> {
    /// Between two frames.
    #[must_use]
    pub const fn new() -> Self {
        Self { content: Vec::new(), left: 0, zero: false, state: State::Between }
    }

    /// Takes the next byte of the line.
    pub fn push(&mut self, byte: u8) -> Step {
        if byte == 0 {
            return self.end();
        }
        if self.state == State::Between {
            self.content.clear();
            (self.left, self.zero, self.state) = (0, false, State::Inside);
        }
        let fits = if self.left > 0 {
            self.left -= 1;
            self.content.push(byte).is_ok()
        } else {
            let fits = !self.zero || self.content.push(0).is_ok();
            (self.left, self.zero) = (byte - 1, byte != u8::MAX);
            fits
        };
        if !fits {
            self.state = State::TooLong;
        }
        Step::More
    }

    fn end(&mut self) -> Step {
        let state = core::mem::replace(&mut self.state, State::Between);
        let crc = self.content.len().checked_sub(CRC_LEN).and_then(|n| self.content.split_at_checked(n));
        match (state, crc) {
            (State::Between, _) => Step::More,
            (State::TooLong, _) => Step::Broken(FrameError::TooLong),
            (State::Inside, Some((payload, crc))) if self.left == 0 => {
                if crc32(payload).to_le_bytes() == crc {
                    Step::Frame
                } else {
                    Step::Broken(FrameError::Crc)
                }
            }
            (State::Inside, _) => Step::Broken(FrameError::Short),
        }
    }

    /// The payload of the frame that [`push`](Self::push) just found whole, until the next byte is pushed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let len = self.content.len().saturating_sub(CRC_LEN);
        self.content.get(..len).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests;

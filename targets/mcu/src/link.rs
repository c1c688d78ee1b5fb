//! Messages over anything that reads and writes bytes.

use embedded_io::{Read, ReadReady, Write};
use serde::{Deserialize, Serialize};

use crate::frame::{self, CRC_LEN, Decoder, Step};
use crate::message::{self, MessageError};

/// Bytes that one call of [`Link::receive`] takes at most, so that noise without end cannot keep it.
const BURST: usize = 512;

/// A port with frames on it; `N` is the longest payload with its CRC.
///
/// What is no frame, and what is no message of this version, is counted and skipped.
#[derive(Debug)]
pub struct Link<P, const N: usize> {
    port: P,
    decoder: Decoder<N>,
    skipped: u32,
}

/// Why a link failed; noise is no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LinkError {
    /// The message is longer than `N` allows.
    TooLong,
    /// The port failed.
    Port,
}

impl core::fmt::Display for LinkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the message is longer than the link's buffer",
            Self::Port => "the port failed",
        })
    }
}

impl core::error::Error for LinkError {}

impl<P, const N: usize> Link<P, N> {
    /// Over a port.
    pub const fn new(port: P) -> Self {
        Self { port, decoder: Decoder::new(), skipped: 0 }
    }

    /// Frames and messages that were skipped since the start.
    #[must_use]
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// The port.
    pub fn port(&mut self) -> &mut P {
        &mut self.port
    }
}

impl<P: Write, const N: usize> Link<P, N> {
    /// Sends a message; waits until the port took it.
    ///
    /// # Errors
    /// When it is too long or the port fails.
    pub fn send<M: Serialize>(&mut self, message: &M) -> Result<(), LinkError> {
        self.send_payload(|room| message::encode(message, room).map(Some)).map(|_| ())
    }

    /// Sends the payload that `write` gives the length of, if it gives one; tells whether it did.
    ///
    /// # Errors
    /// When it is too long or the port fails.
    pub fn send_payload(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<Option<usize>, MessageError>,
    ) -> Result<bool, LinkError> {
        let mut content = [0; N];
        let room = content.get_mut(..N.saturating_sub(CRC_LEN)).unwrap_or_default();
        let Some(len) = write(room).map_err(|_| LinkError::TooLong)? else { return Ok(false) };
        let sealed = frame::seal(&mut content, len).ok_or(LinkError::TooLong)?;
        frame::encode(sealed, |bytes| self.port.write_all(bytes)).map_err(|_| LinkError::Port)?;
        self.port.flush().map_err(|_| LinkError::Port)?;
        Ok(true)
    }
}

impl<P: Read + ReadReady, const N: usize> Link<P, N> {
    /// The next message, if one is there; does not wait.
    ///
    /// # Errors
    /// When the port fails.
    pub fn receive<'l, M: Deserialize<'l>>(&'l mut self) -> Result<Option<M>, LinkError> {
        if !self.advance()? {
            return Ok(None);
        }
        match message::decode(self.decoder.payload()) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                crate::log::debug!("skipped: {}", error);
                let _ = error;
                self.skipped = self.skipped.saturating_add(1);
                Ok(None)
            }
        }
    }

    /// The next payload, if one is there; does not wait.
    ///
    /// # Errors
    /// When the port fails.
    pub fn receive_payload(&mut self) -> Result<Option<&[u8]>, LinkError> {
        Ok(if self.advance()? { Some(self.decoder.payload()) } else { None })
    }

    /// Takes what is ready, up to the end of a frame.
    fn advance(&mut self) -> Result<bool, LinkError> {
        for _ in 0..BURST {
            if !self.port.read_ready().map_err(|_| LinkError::Port)? {
                return Ok(false);
            }
            let mut byte = [0];
            if self.port.read(&mut byte).map_err(|_| LinkError::Port)? == 0 {
                return Ok(false);
            }
            let [byte] = byte;
            match self.decoder.push(byte) {
                Step::More => {}
                Step::Frame => return Ok(true),
                Step::Broken(error) => {
                    crate::log::debug!("skipped: {}", error);
                    let _ = error;
                    self.skipped = self.skipped.saturating_add(1);
                }
            }
        }
        Ok(false)
    }
}

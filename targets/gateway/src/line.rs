//! Frames on a line: a socket, a serial device.

use std::convert::Infallible;
use std::io::{self, Read, Write};

use dunlin_device::frame::{self, CRC_LEN, Decoder, Step};

use crate::bridge::{Bridge, BridgeError};

/// The longest payload from a child, with its CRC: a report of 1 KiB and what is around it.
const LONGEST: usize = 2048;

/// Reads and writes; a pair of halves is one.
pub trait Port {
    /// As [`Read::read`]; [`io::ErrorKind::WouldBlock`] or [`io::ErrorKind::TimedOut`] when nothing came for a while.
    ///
    /// # Errors
    /// When the line is gone.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all.
    ///
    /// # Errors
    /// When the line is gone.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<R: Read, W: Write> Port for (R, W) {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.1.write_all(bytes)?;
        self.1.flush()
    }
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side closed it.
    Closed,
    /// `go_on` said no.
    Stopped,
}

/// Serves a child until its line ends. `go_on` is asked after each read, also one that timed out.
///
/// # Errors
/// When the port fails. Noise and messages without an answer are logged and skipped.
pub fn serve(port: &mut dyn Port, bridge: &mut Bridge, go_on: &dyn Fn() -> bool) -> io::Result<End> {
    let mut decoder = Box::new(Decoder::<LONGEST>::new());
    let (mut buffer, mut reply, mut framed) = ([0; 1024], Vec::new(), Vec::new());
    while go_on() {
        let came = match port.read(&mut buffer) {
            Ok(0) => return Ok(End::Closed),
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => continue,
                _ => return Err(error),
            },
        };
        for byte in came {
            match decoder.push(*byte) {
                Step::More => {}
                Step::Broken(error) => tracing::debug!(?error, "no frame"),
                Step::Frame => match bridge.receive(decoder.payload(), &mut reply) {
                    Ok(false) => {}
                    Ok(true) => {
                        wrap(&mut reply, &mut framed);
                        port.write(&framed)?;
                    }
                    Err(error @ (BridgeError::Message(_) | BridgeError::Unknown)) => tracing::debug!(%error, "skipped"),
                    Err(error) => tracing::warn!(%error, "not answered"),
                },
            }
        }
    }
    Ok(End::Stopped)
}

/// Makes a frame of a datagram.
pub fn wrap(datagram: &mut Vec<u8>, framed: &mut Vec<u8>) {
    framed.clear();
    let len = datagram.len();
    datagram.resize(len + CRC_LEN, 0);
    if let Some(sealed) = frame::seal(datagram, len) {
        let Ok(()) = frame::encode(sealed, |piece| {
            framed.extend_from_slice(piece);
            Ok::<_, Infallible>(())
        });
    }
}

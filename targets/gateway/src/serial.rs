//! A serial device as a port.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, ControlModes, OptionalActions, SpecialCodeIndex};

use crate::line::Port;

/// Tenths of a second that a read waits.
const WAIT: u8 = 5;

/// An open serial device: 8 data bits, no parity, one stop bit, no flow control.
#[derive(Debug)]
pub struct Serial {
    file: File,
    /// Reads in a row that gave nothing at once: the device is gone.
    empty: u8,
}

impl Serial {
    /// Opens a device for this process alone, at a speed in bits a second.
    ///
    /// # Errors
    /// When it is missing, taken, no serial device, or does not know the speed.
    pub fn open(path: &Path, baud: u32) -> io::Result<Self> {
        // Without waiting for a carrier, which few boards have.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        termios::ioctl_tiocexcl(&file)?;
        let mut settings = termios::tcgetattr(&file)?;
        settings.make_raw();
        settings.control_modes &= !(ControlModes::CSTOPB | ControlModes::CRTSCTS | ControlModes::PARENB);
        settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        settings.set_speed(baud)?;
        settings.special_codes[SpecialCodeIndex::VMIN] = 0;
        settings.special_codes[SpecialCodeIndex::VTIME] = WAIT;
        termios::tcsetattr(&file, OptionalActions::Now, &settings)?;
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok(Self { file, empty: 0 })
    }
}

impl Port for Serial {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let read = self.file.read(into)?;
        if read > 0 {
            self.empty = 0;
            return Ok(read);
        }
        self.empty = if asked.elapsed() < Duration::from_millis(50) { self.empty + 1 } else { 0 };
        if self.empty > 2 { Ok(0) } else { Err(io::ErrorKind::TimedOut.into()) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

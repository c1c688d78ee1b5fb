//! What a device was made with, in a sector of its own: identity, root of trust, and the package in slot 0.
//!
//! The production line writes it, the firmware only reads it, so that one firmware serves all devices. Who can write
//! this sector decides whom the device trusts: lock it where the chip can.

use dunlin_update::record::Installed;
use dunlin_update::trust::RootKeys;
use serde::{Deserialize, Serialize};

use crate::frame::crc32;

/// Bytes of the length and the CRC before the fields.
const HEAD_LEN: usize = 8;

/// Identity, trust and package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factory<'a> {
    /// The device's own identity.
    pub identity: &'a [u8],
    /// The root that it trusts first.
    pub root: RootKeys,
    /// The package that was put into its slot.
    pub package: Installed,
}

impl<'a> Factory<'a> {
    /// Reads the beginning of a sector; `None` when nothing whole is there.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&len, rest) = bytes.split_first_chunk()?;
        let (&crc, rest) = rest.split_first_chunk()?;
        let fields = rest.get(..usize::try_from(u32::from_le_bytes(len)).ok()?)?;
        if crc32(fields) != u32::from_le_bytes(crc) {
            return None;
        }
        postcard::from_bytes(fields).ok()
    }

    /// Writes it as [`read`](Self::read) expects it; gives the length, `None` when there is no room.
    pub fn write(&self, into: &mut [u8]) -> Option<usize> {
        let (head, fields) = into.split_at_mut_checked(HEAD_LEN)?;
        let fields = postcard::to_slice(self, fields).ok()?;
        let (len, crc) = head.split_first_chunk_mut()?;
        *len = u32::try_from(fields.len()).ok()?.to_le_bytes();
        *crc.first_chunk_mut()? = crc32(fields).to_le_bytes();
        Some(HEAD_LEN + fields.len())
    }
}

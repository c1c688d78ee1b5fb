//! Updates as differences to a package that the device has.
//!
//! A patch is a header and blocks. A block is one stream of an adaptive binary range coder, with commands that copy from
//! the base, correct the base, or give bytes anew; its models start afresh, so that every block's start is a place to
//! begin again. `DELTA.md` has every byte. Whether the result is what was signed, its hash tells: a hostile patch gives
//! wrong bytes and nothing worse.

mod apply;
mod coder;
#[cfg(feature = "std")]
mod encode;
mod model;

pub use apply::Applier;
#[cfg(feature = "std")]
pub use encode::{EncodeError, EncodeOptions, Encoded, Region, encode};

/// Bytes of a patch's header.
pub const HEADER_LEN: usize = 80;
/// Bytes that a block gives, at most.
pub const MAX_BLOCK: u32 = 1 << 16;

const MAGIC: [u8; 4] = *b"DNDF";
const VERSION: u8 = 1;

/// The storage failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageFault;

/// The package that the device has.
pub trait Base {
    /// Reads bytes.
    ///
    /// # Errors
    /// When the storage fails.
    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), StorageFault>;
}

/// Where the new package goes, in order.
pub trait Sink {
    /// Takes bytes.
    ///
    /// # Errors
    /// When the storage fails.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageFault>;
}

/// The first bytes of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Digest of the base; zeros: none is needed.
    pub base: [u8; 32],
    /// Digest of the result.
    pub target: [u8; 32],
    /// Bytes of the base.
    pub base_len: u32,
    /// Bytes of the result.
    pub target_len: u32,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`DeltaError::Malformed`].
    pub fn read(bytes: &[u8; HEADER_LEN]) -> Result<Self, DeltaError> {
        let mut parts = Parts(bytes);
        let magic = parts.take::<4>();
        let version = parts.take::<4>();
        if magic != Some(MAGIC) || version != Some([VERSION, 0, 0, 0]) {
            return Err(DeltaError::Malformed);
        }
        let fields = (|| {
            Some(Self {
                base: parts.take()?,
                target: parts.take()?,
                base_len: u32::from_le_bytes(parts.take()?),
                target_len: u32::from_le_bytes(parts.take()?),
            })
        })();
        fields.ok_or(DeltaError::Malformed)
    }

    /// The header's bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let lens = self.base_len.to_le_bytes().into_iter().chain(self.target_len.to_le_bytes());
        let head = MAGIC.into_iter().chain([VERSION, 0, 0, 0]);
        let fields = head.chain(self.base).chain(self.target).chain(lens);
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }
}

struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*part)
    }
}

/// A place at which decoding can begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Offset in the patch.
    pub patch_offset: u32,
    /// Offset in the result.
    pub output_offset: u32,
}

/// Why a patch cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaError {
    /// The storage failed.
    Storage,
    /// The patch is no patch, or is damaged.
    Malformed,
    /// It reads outside of the base.
    Base,
    /// It gives more bytes than it says.
    Excess,
}

impl From<StorageFault> for DeltaError {
    fn from(_: StorageFault) -> Self {
        Self::Storage
    }
}

impl core::fmt::Display for DeltaError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Storage => "the storage failed",
            Self::Malformed => "the patch is damaged",
            Self::Base => "the patch reads outside of its base",
            Self::Excess => "the patch gives more bytes than it says",
        })
    }
}

impl core::error::Error for DeltaError {}

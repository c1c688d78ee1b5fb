//! Updates as differences to a package that the device has.

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

/// Read from the first bytes of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Digest of the base; zeros: none.
    pub base: [u8; 32],
    /// Digest of the result.
    pub target: [u8; 32],
    /// Bytes of the result.
    pub target_len: u32,
    /// Bytes of the base.
    pub base_len: u32,
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
    /// The patch is damaged.
    Malformed,
}

/// Applies a patch.
#[derive(Clone, Debug)]
pub struct Applier;

impl Applier {
    /// From the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// From a checkpoint.
    #[must_use]
    pub fn resume(_: &Header, _: Checkpoint) -> Self {
        Self
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// When the patch is damaged.
    pub fn push(&mut self, _: &[u8], _: &mut impl Base, _: &mut impl Sink) -> Result<(), DeltaError> {
        Err(DeltaError::Malformed)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        None
    }

    /// The latest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        None
    }

    /// Whether it is done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        false
    }
}

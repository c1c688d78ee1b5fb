//! Header, section table and where everything is.

use crate::bytes::{align_up, array_at, len_at, slice_at, u8_at, u16_at, u32_at, zero};
use crate::error::OpenError;
use crate::seal::Seal;

/// The first eight bytes of a package.
pub const MAGIC: [u8; 8] = *b"DUNLIN\0\x1A";
/// Major version of the format; a reader refuses any other.
pub const FORMAT_MAJOR: u16 = 1;
/// Minor version of the format; a reader ignores what later minors append.
pub const FORMAT_MINOR: u16 = 0;
/// Length of the header in this version.
pub const HEADER_LEN: usize = 64;
/// Sections a package may have.
pub const MAX_SECTIONS: u16 = 32;
/// Longest body, so that every offset fits in 31 bits.
pub const MAX_BODY_LEN: u32 = 0x7FFF_FFF0;

/// Where the digest is in the header.
pub(crate) const DIGEST_AT: usize = 32;
/// Where the body's length is in the header.
pub(crate) const BODY_LEN_AT: usize = 16;
/// Length of the longest header that a later minor version may have.
const MAX_HEADER_LEN: usize = 256;
/// Bytes of a section table entry.
pub(crate) const ENTRY_LEN: usize = 16;
/// Least alignment of a section, and granularity of the body.
pub(crate) const MIN_ALIGN_LOG2: u8 = 4;
/// Greatest alignment of a section.
const MAX_ALIGN_LOG2: u8 = 12;
/// Least alignment of the weights.
pub(crate) const WEIGHTS_ALIGN_LOG2: u8 = 6;
/// Flag of a section that a reader must know.
pub(crate) const CRITICAL: u16 = 1;

/// The sections this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum SectionKind {
    /// What the model is and needs.
    Manifest = 1,
    /// Tensors and steps.
    Plan = 2,
    /// Constant tensors.
    Weights = 3,
    /// Inputs with the outputs they must give.
    Golden = 4,
    /// Statistics of the training inputs.
    Drift = 5,
    /// ONNX subgraphs that another executor runs on hosts.
    Foreign = 6,
    /// Names of tensors and steps.
    Names = 7,
}

impl SectionKind {
    /// The kind with this code, if it is known.
    #[must_use]
    pub const fn from_u16(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Manifest),
            2 => Some(Self::Plan),
            3 => Some(Self::Weights),
            4 => Some(Self::Golden),
            5 => Some(Self::Drift),
            6 => Some(Self::Foreign),
            7 => Some(Self::Names),
            _ => None,
        }
    }

    /// The code in the section table.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Plan => "plan",
            Self::Weights => "weights",
            Self::Golden => "golden",
            Self::Drift => "drift",
            Self::Foreign => "foreign",
            Self::Names => "names",
        }
    }

    /// Least alignment, as a power of two.
    const fn least_align_log2(self) -> u8 {
        match self {
            Self::Weights => WEIGHTS_ALIGN_LOG2,
            _ => MIN_ALIGN_LOG2,
        }
    }
}

/// One entry of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Code of the kind; [`SectionKind::from_u16`] names it.
    pub kind: u16,
    /// Flags; bit 0 is set on sections that a reader must know.
    pub flags: u16,
    /// Offset in the file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// Alignment in the file, as a power of two.
    pub align_log2: u8,
}

impl Section {
    /// The kind, if this version knows it.
    #[must_use]
    pub const fn known(&self) -> Option<SectionKind> {
        SectionKind::from_u16(self.kind)
    }

    /// Whether a reader that does not know the kind must refuse the package.
    #[must_use]
    pub const fn critical(&self) -> bool {
        self.flags & CRITICAL != 0
    }

    fn read(entry: &[u8; ENTRY_LEN]) -> Self {
        let [k0, k1, f0, f1, o0, o1, o2, o3, l0, l1, l2, l3, align_log2, ..] = *entry;
        Self {
            kind: u16::from_le_bytes([k0, k1]),
            flags: u16::from_le_bytes([f0, f1]),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            align_log2,
        }
    }
}

/// The section table, in order of offset.
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    table: &'a [u8],
}

impl Iterator for Sections<'_> {
    type Item = Section;

    fn next(&mut self) -> Option<Section> {
        let (entry, rest) = self.table.split_first_chunk()?;
        self.table = rest;
        Some(Section::read(entry))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.table.len() / ENTRY_LEN;
        (n, Some(n))
    }
}

impl ExactSizeIterator for Sections<'_> {}

/// Length of a package's body (all but the seal), from its first 64 bytes.
///
/// # Errors
///
/// If the bytes are not the beginning of a package that this version reads.
pub fn body_len(header: &[u8]) -> Result<usize, OpenError> {
    Ok(Header::read(header)?.body_len)
}

/// Length of the whole package, from bytes that begin with it and may go on (a flash slot).
///
/// # Errors
///
/// If the bytes do not begin with a package that this version reads, or end before its seal's first 16 bytes.
pub fn total_len(bytes: &[u8]) -> Result<usize, OpenError> {
    let body_len = body_len(bytes)?;
    let seal = bytes.get(body_len..).unwrap_or(&[]);
    Seal::measure(seal, body_len, bytes.len())
}

/// The fixed part of a package.
struct Header {
    minor: u16,
    len: usize,
    sections: u16,
    body_len: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, OpenError> {
        let got = bytes.len();
        let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if !MAGIC.starts_with(magic) {
            return Err(OpenError::NotAPackage);
        }
        let truncated = OpenError::Truncated { needed: HEADER_LEN, got };
        let head: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(truncated)?;
        let major = u16_at(head, 8).ok_or(truncated)?;
        let minor = u16_at(head, 10).ok_or(truncated)?;
        if major != FORMAT_MAJOR {
            return Err(OpenError::UnsupportedVersion { major, minor });
        }
        let flags = u32_at(head, 20).ok_or(truncated)?;
        if flags != 0 {
            return Err(OpenError::UnsupportedFlags { flags });
        }
        let later = minor > FORMAT_MINOR;
        let len = usize::from(u16_at(head, 12).ok_or(truncated)?);
        let len_ok = if later {
            (HEADER_LEN..=MAX_HEADER_LEN).contains(&len) && len.is_multiple_of(16)
        } else {
            len == HEADER_LEN
        };
        if !len_ok || !(later || zero(head, 24, DIGEST_AT)) {
            return Err(OpenError::Header);
        }
        let sections = u16_at(head, 14).ok_or(truncated)?;
        if sections > MAX_SECTIONS {
            return Err(OpenError::TooManySections { count: sections });
        }
        let body = u32_at(head, BODY_LEN_AT).ok_or(truncated)?;
        if body > MAX_BODY_LEN {
            return Err(OpenError::Oversized { len: body });
        }
        let body_len = usize::try_from(body).map_err(|_| OpenError::Oversized { len: body })?;
        if !body_len.is_multiple_of(16) || body_len < len {
            return Err(OpenError::Header);
        }
        Ok(Self { minor, len, sections, body_len })
    }
}

/// A package whose framing is sound; contents and digest are not looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) minor: u16,
    pub(crate) digest: [u8; 32],
    pub(crate) seal: Seal<'a>,
    table: &'a [u8],
    /// Content by kind, 1 to 7.
    known: [Option<&'a [u8]>; 7],
}

impl<'a> Frame<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let header = Header::read(bytes)?;
        let got = bytes.len();
        let (body, seal) =
            bytes.split_at_checked(header.body_len).ok_or(OpenError::Truncated { needed: header.body_len, got })?;
        let seal = Seal::read(seal, header.body_len, got)?;
        let table_len = usize::from(header.sections) * ENTRY_LEN;
        let table = slice_at(body, header.len, table_len).ok_or(OpenError::Header)?;
        let mut frame = Self {
            body,
            minor: header.minor,
            digest: array_at(body, DIGEST_AT).ok_or(OpenError::Header)?,
            seal,
            table,
            known: [None; 7],
        };
        frame.place(header.len.saturating_add(table_len))?;
        Ok(frame)
    }

    /// Walks the table: every section begins at the first multiple of its alignment after the one before.
    fn place(&mut self, table_end: usize) -> Result<(), OpenError> {
        let mut end = table_end;
        for index in 0..self.sections().len() {
            let at = index.saturating_mul(ENTRY_LEN);
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let bad = OpenError::BadSection { index };
            let entry = self.table.get(at..).and_then(|t| t.first_chunk());
            let entry: &[u8; ENTRY_LEN] = entry.ok_or(bad)?;
            let section = Section::read(entry);
            if section.flags & !CRITICAL != 0 || !zero(entry, 13, ENTRY_LEN) {
                return Err(bad);
            }
            let kind = section.known();
            let least = kind.map_or(MIN_ALIGN_LOG2, SectionKind::least_align_log2);
            if u8_at(entry, 12).is_none_or(|log2| !(least..=MAX_ALIGN_LOG2).contains(&log2)) {
                return Err(bad);
            }
            let start = align_up(end, 1 << section.align_log2).ok_or(bad)?;
            if len_at(entry, 4) != Some(start) {
                return Err(bad);
            }
            let len = len_at(entry, 8).ok_or(bad)?;
            let content = slice_at(self.body, start, len).ok_or(bad)?;
            if !zero(self.body, end, start) {
                return Err(OpenError::Padding);
            }
            end = start.saturating_add(len);
            match kind {
                Some(kind) => {
                    let slot = self.known.get_mut(slot(kind)).ok_or(bad)?;
                    if slot.replace(content).is_some() {
                        return Err(bad);
                    }
                }
                None if section.critical() => {
                    return Err(OpenError::UnknownCriticalSection { kind: section.kind });
                }
                None => {}
            }
        }
        if align_up(end, 16) != Some(self.body.len()) {
            return Err(OpenError::Header);
        }
        if !zero(self.body, end, self.body.len()) {
            return Err(OpenError::Padding);
        }
        Ok(())
    }

    pub(crate) fn sections(&self) -> Sections<'a> {
        Sections { table: self.table }
    }

    pub(crate) fn section(&self, kind: SectionKind) -> Option<&'a [u8]> {
        self.known.get(slot(kind)).copied().flatten()
    }

    pub(crate) fn required(&self, kind: SectionKind) -> Result<&'a [u8], OpenError> {
        self.section(kind).ok_or(OpenError::MissingSection { kind })
    }

    /// Whether a later minor version wrote this, whose additions are skipped.
    pub(crate) fn later_minor(&self) -> bool {
        self.minor > FORMAT_MINOR
    }
}

fn slot(kind: SectionKind) -> usize {
    usize::from(kind.code()).saturating_sub(1)
}

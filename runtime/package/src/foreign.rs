//! Subgraphs that another executor runs on hosts.

use crate::bytes::{align_up, len_at, slice_at, zero};

/// Bytes before the table.
pub(crate) const FOREIGN_HEADER_LEN: usize = 8;
/// Bytes of a table entry.
pub(crate) const FOREIGN_ENTRY_LEN: usize = 8;
/// Alignment of a blob in the section.
pub(crate) const FOREIGN_ALIGN: usize = 16;

/// The foreign subgraphs of a package: ONNX models, by index.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Foreign<'a> {
    /// Checks the table: blobs follow each other at multiples of 16, nothing is left over.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let count = len_at(bytes, 0)?;
        if !zero(bytes, 4, FOREIGN_HEADER_LEN) {
            return None;
        }
        let mut end = count.checked_mul(FOREIGN_ENTRY_LEN)?.checked_add(FOREIGN_HEADER_LEN)?;
        // Also refuses a count that does not fit in the section.
        bytes.get(..end)?;
        let foreign = Self { bytes, count };
        for index in 0..count {
            let (offset, len) = foreign.entry(index)?;
            let start = align_up(end, FOREIGN_ALIGN)?;
            if offset != start || !zero(bytes, end, start) {
                return None;
            }
            slice_at(bytes, offset, len)?;
            end = offset.checked_add(len)?;
        }
        (end == bytes.len()).then_some(foreign)
    }

    /// Number of subgraphs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no subgraph.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ONNX bytes of the subgraph at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        if index >= self.count {
            return None;
        }
        let (offset, len) = self.entry(index)?;
        slice_at(self.bytes, offset, len)
    }

    /// The subgraphs, in order.
    #[must_use]
    pub fn blobs(&self) -> ForeignBlobs<'a> {
        ForeignBlobs { foreign: *self, next: 0 }
    }

    fn entry(&self, index: usize) -> Option<(usize, usize)> {
        let at = index.checked_mul(FOREIGN_ENTRY_LEN)?.checked_add(FOREIGN_HEADER_LEN)?;
        Some((len_at(self.bytes, at)?, len_at(self.bytes, at.checked_add(4)?)?))
    }
}

/// Iterator over the subgraphs of [`Foreign`].
#[derive(Clone, Debug)]
pub struct ForeignBlobs<'a> {
    foreign: Foreign<'a>,
    next: usize,
}

impl<'a> Iterator for ForeignBlobs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let blob = self.foreign.get(self.next)?;
        self.next = self.next.saturating_add(1);
        Some(blob)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.foreign.count.saturating_sub(self.next);
        (n, Some(n))
    }
}

impl ExactSizeIterator for ForeignBlobs<'_> {}

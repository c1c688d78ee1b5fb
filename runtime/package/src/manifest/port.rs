//! Inputs and outputs.

use serde::Deserialize;
#[cfg(feature = "alloc")]
use serde::Serialize;

use crate::DType;
use crate::error::ManifestError;
use crate::plan::MAX_RANK;

/// Longest name, so that walking the ports takes bounded time.
const MAX_NAME_LEN: usize = 255;

/// An input or output of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Port<'a> {
    /// Name.
    pub name: &'a str,
    /// Type of an element.
    pub dtype: DType,
    /// Number of axes, at most 6.
    pub rank: u8,
    /// Extents, outermost first; 1 past the rank.
    pub dims: [u32; MAX_RANK],
    /// Value of one step, 0 where it is not quantized.
    pub scale: f32,
    /// The integer that means zero.
    pub zero_point: i32,
    pub(crate) label_count: u16,
    pub(crate) labels: &'a [u8],
}

/// How a port is encoded.
#[derive(Clone, Copy, Deserialize)]
#[cfg_attr(feature = "alloc", derive(Serialize))]
struct Wire<'a> {
    name: &'a str,
    dtype: u8,
    rank: u8,
    dims: [u32; MAX_RANK],
    scale: f32,
    zero_point: i32,
    label_count: u16,
    #[serde(borrow)]
    labels: &'a [u8],
}

impl<'a> Port<'a> {
    /// The extents, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[u32] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.dims.iter().fold(1_usize, |n, &dim| n.saturating_mul(dim as usize))
    }

    /// Number of bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.elements().saturating_mul(self.dtype.size_bytes())
    }

    /// Names of the classes, if the port has any.
    #[must_use]
    pub fn labels(&self) -> Labels<'a> {
        Labels { rest: self.labels, left: self.label_count }
    }

    /// The label at `index`.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<&'a str> {
        self.labels().nth(index)
    }

    /// Decodes a record; also what follows the known fields.
    fn decode(record: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (wire, rest): (Wire<'a>, _) = postcard::take_from_bytes(record).ok()?;
        let port = Self {
            name: wire.name,
            dtype: DType::from_u8(wire.dtype)?,
            rank: wire.rank,
            dims: wire.dims,
            scale: wire.scale,
            zero_point: wire.zero_point,
            label_count: wire.label_count,
            labels: wire.labels,
        };
        Some((port, rest))
    }

    /// Whether the fields agree with each other.
    fn sound(&self) -> bool {
        let rank = usize::from(self.rank);
        let Some(past) = self.dims.get(rank..) else {
            return false;
        };
        let mut labels = self.labels();
        let counted = labels.by_ref().count() == usize::from(self.label_count);
        self.name.len() <= MAX_NAME_LEN
            && past.iter().all(|&dim| dim == 1)
            && self.dims.iter().all(|&dim| dim != 0)
            && self.byte_len() <= i32::MAX as usize
            && self.scale.is_finite()
            && self.scale >= 0.0
            && counted
            && labels.rest.is_empty()
    }
}

/// Checks every port of a list, and that nothing follows.
pub(crate) fn check(
    mut ports: Ports<'_>,
    later: bool,
    error: impl Fn(u16) -> ManifestError,
) -> Result<(), ManifestError> {
    for index in 0..ports.left {
        let (port, rest) = ports.take_port().ok_or(error(index))?;
        if !port.sound() || !(later || rest.is_empty()) {
            return Err(error(index));
        }
    }
    if ports.rest.is_empty() { Ok(()) } else { Err(ManifestError::PortList) }
}

/// Iterator over the inputs or the outputs of a model.
#[derive(Clone, Debug)]
pub struct Ports<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Ports<'a> {
    pub(crate) fn new(rest: &'a [u8], left: u16) -> Self {
        Self { rest, left }
    }

    fn take_port(&mut self) -> Option<(Port<'a>, &'a [u8])> {
        self.left = self.left.checked_sub(1)?;
        let (record, rest): (&'a [u8], _) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Port::decode(record)
    }
}

impl<'a> Iterator for Ports<'a> {
    type Item = Port<'a>;

    fn next(&mut self) -> Option<Port<'a>> {
        self.take_port().map(|(port, _)| port)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = usize::from(self.left);
        (n, Some(n))
    }
}

impl ExactSizeIterator for Ports<'_> {}

/// Iterator over the labels of a [`Port`].
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let (label, rest): (&'a str, _) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(label)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = usize::from(self.left);
        (n, Some(n))
    }
}

impl ExactSizeIterator for Labels<'_> {}

#[cfg(feature = "alloc")]
impl Port<'_> {
    /// The record that [`Port::decode`] reads.
    pub(crate) fn encode(&self) -> postcard::Result<alloc::vec::Vec<u8>> {
        postcard::to_allocvec(&Wire {
            name: self.name,
            dtype: self.dtype.code(),
            rank: self.rank,
            dims: self.dims,
            scale: self.scale,
            zero_point: self.zero_point,
            label_count: self.label_count,
            labels: self.labels,
        })
    }
}

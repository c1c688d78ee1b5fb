//! Golden vectors: inputs with the outputs they must give.

use crate::DType;
use crate::bytes::{align_up, len_at, slice_at, u8_at, u16_at, zero};
use crate::manifest::{Manifest, Ports};

/// Bytes before the cases.
pub(crate) const GOLDEN_HEADER_LEN: usize = 8;
/// Bytes of a case before its tensors.
const CASE_HEADER_LEN: usize = 4;
/// Bytes of a tensor before its data.
const TENSOR_HEADER_LEN: usize = 8;

/// The golden vectors of a package.
#[derive(Clone, Copy, Debug)]
pub struct Golden<'a> {
    cases: &'a [u8],
    count: usize,
}

/// One golden case; it has a tensor for every input and every output.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    tensors: &'a [u8],
    inputs: u16,
    outputs: u16,
}

/// One tensor of a golden case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoldenTensor<'a> {
    /// Which input, or which output.
    pub port: u16,
    /// Type of an element.
    pub dtype: DType,
    /// The elements, at a multiple of 4 from the start of the file.
    pub data: &'a [u8],
}

impl<'a> Golden<'a> {
    /// Checks all cases against the manifest.
    pub(crate) fn read(bytes: &'a [u8], manifest: &Manifest<'_>) -> Option<Self> {
        let count = len_at(bytes, 0)?;
        if !zero(bytes, 4, GOLDEN_HEADER_LEN) {
            return None;
        }
        let golden = Self { cases: bytes.get(GOLDEN_HEADER_LEN..)?, count };
        let mut cases = golden.cases();
        // A case has four bytes at least, so that a false count ends with the bytes.
        for _ in 0..count {
            let case = cases.next()?;
            let mut tensors = case.tensors(case.inputs);
            fits(&mut tensors, manifest.inputs())?;
            tensors.left = case.outputs;
            fits(&mut tensors, manifest.outputs())?;
        }
        cases.rest.is_empty().then_some(golden)
    }

    /// Number of cases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no case.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The cases, in order.
    #[must_use]
    pub fn cases(&self) -> Cases<'a> {
        Cases { rest: self.cases, left: self.count }
    }
}

/// Whether the tensors are those of the ports, one each and in order.
fn fits(tensors: &mut GoldenTensors<'_>, ports: Ports<'_>) -> Option<()> {
    if usize::from(tensors.left) != ports.len() {
        return None;
    }
    for (index, port) in ports.enumerate() {
        let tensor = tensors.next()?;
        let same =
            usize::from(tensor.port) == index && tensor.dtype == port.dtype && tensor.data.len() == port.byte_len();
        if !same {
            return None;
        }
    }
    Some(())
}

impl<'a> Case<'a> {
    /// The inputs, one for each input port, in order.
    #[must_use]
    pub fn inputs(&self) -> GoldenTensors<'a> {
        self.tensors(self.inputs)
    }

    /// The outputs, one for each output port, in order.
    #[must_use]
    pub fn outputs(&self) -> GoldenTensors<'a> {
        let mut tensors = self.inputs();
        for _ in 0..self.inputs {
            if tensors.next().is_none() {
                break;
            }
        }
        tensors.left = self.outputs;
        tensors
    }

    fn tensors(&self, left: u16) -> GoldenTensors<'a> {
        GoldenTensors { rest: self.tensors, left }
    }
}

/// Iterator over the cases of [`Golden`].
#[derive(Clone, Debug)]
pub struct Cases<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Cases<'a> {
    type Item = Case<'a>;

    fn next(&mut self) -> Option<Case<'a>> {
        self.left = self.left.checked_sub(1)?;
        let inputs = u16_at(self.rest, 0)?;
        let outputs = u16_at(self.rest, 2)?;
        let tensors = self.rest.get(CASE_HEADER_LEN..)?;
        let mut walk = GoldenTensors { rest: tensors, left: inputs };
        for _ in 0..inputs {
            walk.next()?;
        }
        walk.left = outputs;
        for _ in 0..outputs {
            walk.next()?;
        }
        let len = tensors.len().checked_sub(walk.rest.len())?;
        self.rest = walk.rest;
        Some(Case { tensors: tensors.get(..len)?, inputs, outputs })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Cases<'_> {}

/// Iterator over the inputs or the outputs of a [`Case`].
#[derive(Clone, Debug)]
pub struct GoldenTensors<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for GoldenTensors<'a> {
    type Item = GoldenTensor<'a>;

    fn next(&mut self) -> Option<GoldenTensor<'a>> {
        self.left = self.left.checked_sub(1)?;
        let port = u16_at(self.rest, 0)?;
        let dtype = DType::from_u8(u8_at(self.rest, 2)?)?;
        if u8_at(self.rest, 3)? != 0 {
            return None;
        }
        let len = len_at(self.rest, 4)?;
        let data = slice_at(self.rest, TENSOR_HEADER_LEN, len)?;
        let end = TENSOR_HEADER_LEN.checked_add(len)?;
        let next = align_up(end, 4)?;
        if !zero(self.rest, end, next) {
            return None;
        }
        self.rest = self.rest.get(next..)?;
        Some(GoldenTensor { port, dtype, data })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = usize::from(self.left);
        (n, Some(n))
    }
}

impl ExactSizeIterator for GoldenTensors<'_> {}

//! Names of tensors and steps, for people.

use crate::bytes::{len_at, slice_at, zero};

/// Bytes before the offsets.
pub(crate) const NAMES_HEADER_LEN: usize = 16;

/// The names in a package.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    tensors: usize,
    steps: usize,
    offsets: &'a [u8],
    text: &'a [u8],
}

impl<'a> Names<'a> {
    /// Checks every offset and every string.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let tensors = len_at(bytes, 0)?;
        let steps = len_at(bytes, 4)?;
        let text_len = len_at(bytes, 8)?;
        if !zero(bytes, 12, NAMES_HEADER_LEN) {
            return None;
        }
        let strings = steps.checked_mul(2)?.checked_add(tensors)?;
        let offsets_len = strings.checked_add(1)?.checked_mul(4)?;
        let offsets = slice_at(bytes, NAMES_HEADER_LEN, offsets_len)?;
        let text = bytes.get(NAMES_HEADER_LEN.checked_add(offsets_len)?..)?;
        let names = Self { tensors, steps, offsets, text };
        let whole = text.len() == text_len
            && len_at(offsets, 0) == Some(0)
            && len_at(offsets, strings.checked_mul(4)?) == Some(text_len);
        (whole && (0..strings).all(|index| names.string(index).is_some())).then_some(names)
    }

    /// Number of tensors.
    #[must_use]
    pub fn tensor_count(&self) -> usize {
        self.tensors
    }

    /// Number of steps.
    #[must_use]
    pub fn step_count(&self) -> usize {
        self.steps
    }

    /// Name of the tensor at `index` of the plan.
    #[must_use]
    pub fn tensor(&self, index: usize) -> Option<&'a str> {
        if index >= self.tensors {
            return None;
        }
        self.string(index)
    }

    /// Name of the step at `index` of the plan.
    #[must_use]
    pub fn step(&self, index: usize) -> Option<&'a str> {
        self.step_string(index, 0)
    }

    /// What the compiler says about the step at `index`; may be empty.
    #[must_use]
    pub fn note(&self, index: usize) -> Option<&'a str> {
        self.step_string(index, 1)
    }

    fn step_string(&self, index: usize, which: usize) -> Option<&'a str> {
        if index >= self.steps {
            return None;
        }
        let at = index.checked_mul(2)?.checked_add(which)?;
        self.string(at.checked_add(self.tensors)?)
    }

    fn string(&self, index: usize) -> Option<&'a str> {
        let at = index.checked_mul(4)?;
        let start = len_at(self.offsets, at)?;
        let end = len_at(self.offsets, at.checked_add(4)?)?;
        core::str::from_utf8(self.text.get(start..end)?).ok()
    }
}

//! The caller's one block of memory, lent to each step as disjoint slices.

use bytemuck::Pod;
use dunlin_package::plan::{Place, Tensor};

/// Alignment of an arena's first byte and of every tensor in it.
pub const ARENA_ALIGN: usize = 16;

/// A block of memory for a session. Starts at the first aligned byte of what it is given.
#[derive(Debug)]
pub struct Arena<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Arena<'a> {
    /// Takes `bytes`, less what precedes the first aligned byte (at most 15 bytes).
    pub fn new(bytes: &'a mut [u8]) -> Self {
        let skip = bytes.as_ptr().align_offset(ARENA_ALIGN).min(bytes.len());
        let (_, bytes) = bytes.split_at_mut(skip);
        Self { bytes }
    }

    /// Usable bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }
}

/// What a step may touch while it runs.
#[derive(Debug)]
pub struct Memory<'m> {
    pub(crate) arena: &'m mut [u8],
    pub(crate) weights: &'m [u8],
    /// Room of the step's own, as much as its `scratch` asked for.
    pub scratch: &'m mut [u8],
    /// The step's repacked weights; empty when they are read in place.
    pub packed: &'m [u8],
}

/// An input and an output, which may be the same memory.
#[derive(Debug)]
pub enum Lent<'l, X, Y> {
    /// Two places.
    Apart(&'l [X], &'l mut [Y]),
    /// One place.
    Same(&'l mut [Y]),
}

impl Memory<'_> {
    /// Lends `N` inputs and an output that overlaps none of them, with room for work.
    pub fn lend<const N: usize>(&mut self, inputs: [Tensor; N], output: Tensor) -> Option<Loan<'_, N>> {
        let Place::Arena(start) = output.place else { return None };
        let (head, rest) = self.arena.split_at_mut_checked(start as usize)?;
        let (output, tail) = rest.split_at_mut_checked(output.bytes())?;
        let (head, tail, weights): (&[u8], &[u8], &[u8]) = (head, tail, self.weights);
        let skipped = head.len() + output.len();
        let mut lent: [&[u8]; N] = [&[]; N];
        for (slot, tensor) in lent.iter_mut().zip(inputs) {
            let len = tensor.bytes();
            *slot = match tensor.place {
                Place::Weights(at) => weights.get(at as usize..)?.get(..len)?,
                Place::Arena(at) if (at as usize) < skipped => head.get(at as usize..)?.get(..len)?,
                Place::Arena(at) => tail.get(at as usize - skipped..)?.get(..len)?,
            };
        }
        Some(Loan { inputs: lent, output, scratch: self.scratch, packed: self.packed })
    }

    /// Lends an input and an output that may be the same place.
    pub fn lend_or_same<X: Pod, Y: Pod>(&mut self, input: Tensor, output: Tensor) -> Option<Lent<'_, X, Y>> {
        if input.place == output.place {
            let Place::Arena(at) = output.place else { return None };
            let bytes = self.arena.get_mut(at as usize..)?.get_mut(..output.bytes())?;
            return Some(Lent::Same(bytemuck::try_cast_slice_mut(bytes).ok()?));
        }
        let loan = self.lend([input], output)?;
        let [x] = loan.inputs;
        Some(Lent::Apart(cast(x)?, cast_mut(loan.output)?))
    }
}

/// What [`Memory::lend`] gives.
#[derive(Debug)]
pub struct Loan<'l, const N: usize> {
    /// Bytes of the inputs.
    pub inputs: [&'l [u8]; N],
    /// Bytes of the output.
    pub output: &'l mut [u8],
    /// Room of the step's own.
    pub scratch: &'l mut [u8],
    /// The step's repacked weights.
    pub packed: &'l [u8],
}

/// Bytes as elements; `None` when misaligned, which a checked model never is.
pub(crate) fn cast<T: Pod>(bytes: &[u8]) -> Option<&[T]> {
    if bytes.is_empty() {
        // Nothing may lie anywhere.
        return Some(&[]);
    }
    bytemuck::try_cast_slice(bytes).ok()
}

/// See [`cast`].
pub(crate) fn cast_mut<T: Pod>(bytes: &mut [u8]) -> Option<&mut [T]> {
    if bytes.is_empty() {
        return Some(&mut []);
    }
    bytemuck::try_cast_slice_mut(bytes).ok()
}

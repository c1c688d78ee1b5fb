//! The operators: one file each, registered once in [`all`].
//!
//! An application that needs fewer names them itself, and the linker drops the rest:
//!
//! ```
//! use dunlin_engine::ops::{self, Operator};
//! use dunlin_kernels::Scalar;
//!
//! const MINE: &[Operator<Scalar>] = &[ops::conv::operator(), ops::map::operator()];
//! ```

pub mod add;
pub mod arg_max;
mod arithmetic;
pub mod average_pool;
pub mod binary;
mod broadcast;
pub mod concat;
pub mod conv;
pub mod conv_float;
pub mod conv_transpose;
pub mod conv_transpose_float;
pub mod copy;
pub mod dequantize;
pub mod gather;
pub mod map;
pub mod mat_mul;
pub mod mat_mul_float;
pub mod max_pool;
pub mod mul;
pub mod pad;
pub mod quantize;
pub mod reduce;
pub mod resize;
pub mod slice;
pub mod softmax;
pub mod softmax_float;
mod strided;
pub mod transpose;
pub mod unary;

use dunlin_kernels::{Backend, Requant};
use dunlin_package::op::{Op, Range, Window};

use crate::memory::Memory;
use crate::model::{Fault, StepView};

/// One operator: how to prove a step of it, and how to run one.
#[derive(Clone, Copy, Debug)]
pub struct Operator<B> {
    /// Which operator.
    pub op: Op,
    /// Whether its output may lie exactly over its first input.
    pub in_place: bool,
    /// Proves that a step's tensors and parameters fit together, so that `run` has nothing left to doubt.
    pub check: fn(&StepView<'_>) -> Result<(), Fault>,
    /// Bytes of scratch a step needs.
    pub scratch: fn(&StepView<'_>, B) -> usize,
    /// Bytes of repacked weights; 0 when they are read in place.
    pub packed: fn(&StepView<'_>, B) -> usize,
    /// Writes the repacked weights.
    pub pack: fn(&StepView<'_>, B, &mut [u8]),
    /// Runs a step.
    pub run: fn(&StepView<'_>, &mut Memory<'_>, B),
}

impl<B: Backend> Operator<B> {
    /// An operator without scratch and without weights to repack.
    #[must_use]
    pub const fn plain(
        op: Op,
        in_place: bool,
        check: fn(&StepView<'_>) -> Result<(), Fault>,
        run: fn(&StepView<'_>, &mut Memory<'_>, B),
    ) -> Self {
        Self { op, in_place, check, scratch: |_, _| 0, packed: |_, _| 0, pack: |_, _, _| {}, run }
    }
}

/// Gives [`all`] a place to keep its list for each backend.
struct List<B>(core::marker::PhantomData<B>);

impl<B: Backend> List<B> {
    const ALL: &'static [Operator<B>] = &[
        conv::operator(),
        conv_float::operator(),
        conv_transpose::operator(),
        conv_transpose_float::operator(),
        mat_mul::operator(),
        mat_mul_float::operator(),
        add::operator(),
        mul::operator(),
        binary::operator(),
        map::operator(),
        unary::operator(),
        max_pool::operator(),
        average_pool::operator(),
        reduce::operator(),
        softmax::operator(),
        softmax_float::operator(),
        concat::operator(),
        slice::operator(),
        pad::operator(),
        gather::operator(),
        transpose::operator(),
        resize::operator(),
        arg_max::operator(),
        quantize::operator(),
        dequantize::operator(),
        copy::operator(),
    ];
}

/// Every operator.
#[must_use]
pub fn all<B: Backend>() -> &'static [Operator<B>] {
    List::<B>::ALL
}

/// Size of one axis after a window slid over it; `None` when the window does not fit.
pub(crate) fn slid(size: u32, window: &Window, axis: usize) -> Option<u32> {
    let [top, left, bottom, right] = window.pad;
    let (before, after) = if axis == 0 { (top, bottom) } else { (left, right) };
    let reach = window.kernel.get(axis)?.checked_sub(1)?.checked_mul(*window.dilation.get(axis)?)?.checked_add(1)?;
    let room = size.checked_add(before)?.checked_add(after)?.checked_sub(reach)?;
    room.checked_div(*window.stride.get(axis)?)?.checked_add(1)
}

/// The bounds as bytes, when they are bytes in order.
pub(crate) fn bounds(range: &Range) -> Result<(i8, i8), Fault> {
    let (Ok(lo), Ok(hi)) = (i8::try_from(range.lo), i8::try_from(range.hi)) else { return Err(Fault::Params) };
    if lo <= hi && (-128..=127).contains(&range.zero_point) { Ok((lo, hi)) } else { Err(Fault::Params) }
}

/// A kernel's requantization from stored parameters.
pub(crate) fn requant<'a>(scale: &'a [f32], range: &Range) -> Requant<'a> {
    let (lo, hi) = bounds(range).unwrap_or((i8::MIN, i8::MAX));
    Requant { scale, zero_point: range.zero_point, lo, hi }
}

/// Batch, height, width and channels of a feature map.
pub(crate) fn map_dims(tensor: &dunlin_package::plan::Tensor) -> Result<[usize; 4], Fault> {
    match tensor.shape() {
        &[n, h, w, c] => Ok([n, h, w, c].map(|d| d as usize)),
        _ => Err(Fault::Shape),
    }
}

/// Elements before, on and after an axis, when they are those of `len` and none is 0.
pub(crate) fn parts(sizes: [u32; 3], len: usize) -> Result<[usize; 3], Fault> {
    let [outer, axis, inner] = sizes.map(|s| s as usize);
    let whole = outer.checked_mul(axis).and_then(|n| n.checked_mul(inner));
    if len > 0 && whole == Some(len) { Ok([outer, axis, inner]) } else { Err(Fault::Shape) }
}

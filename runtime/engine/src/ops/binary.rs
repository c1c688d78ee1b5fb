//! `Binary`: a function of two floats, with broadcast of both.
//!
//! An i8 operand counts as its values `(q - zero_point) * scale`, and an i8 result is
//! `clamp(round_half_even(f / scale) + zero_point)`: the bits of DequantizeLinear, the function and QuantizeLinear,
//! without their floats in memory.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Affine, Binary, BinaryKind, Op};
use dunlin_package::plan::Tensor;

use super::Operator;
use super::broadcast::{self, broadcasts};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// Elements that are floats at a time, where operands are i8.
const CHUNK: usize = 64;

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Binary, true, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (a, b, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: Binary = view.need_params()?;
    BinaryKind::from_u32(p.kind).ok_or(Fault::Params)?;
    if [a, b, y].iter().any(|t| !matches!(t.dtype, DType::F32 | DType::I8)) {
        return Err(Fault::Type);
    }
    let [lo, hi] = p.bounds;
    let byte = |v: i32| (-128..=127).contains(&v);
    if y.dtype == DType::I8 && !(byte(lo) && byte(hi) && lo <= hi && byte(p.y.zero_point)) {
        return Err(Fault::Params);
    }
    if broadcasts(&a, &b, &y) { Ok(()) } else { Err(Fault::Shape) }
}

/// The function's value.
#[must_use]
pub fn apply(kind: BinaryKind, a: f32, b: f32) -> f32 {
    match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
        BinaryKind::Max => {
            if a.is_nan() || a > b {
                a
            } else {
                b
            }
        }
        BinaryKind::Min => {
            if a.is_nan() || a < b {
                a
            } else {
                b
            }
        }
        BinaryKind::Pow => libm::powf(a, b),
        BinaryKind::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
    }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let p: Binary = view.params()?;
    let floats = [view.input(0)?, view.input(1)?, view.output(0)?].iter().all(|t| t.dtype == DType::F32);
    let kind = BinaryKind::from_u32(p.kind)?;
    // One loop for each function, so that the choice stays outside.
    match (kind, floats) {
        (BinaryKind::Add, true) => each(view, memory, |a, b| a + b),
        (BinaryKind::Sub, true) => each(view, memory, |a, b| a - b),
        (BinaryKind::Mul, true) => each(view, memory, |a, b| a * b),
        (BinaryKind::Div, true) => each(view, memory, |a, b| a / b),
        (_, true) => each(view, memory, |a, b| apply(kind, a, b)),
        (BinaryKind::Add, _) => quantized(view, memory, &p, backend, |a, b| a + b),
        (BinaryKind::Sub, _) => quantized(view, memory, &p, backend, |a, b| a - b),
        (BinaryKind::Mul, _) => quantized(view, memory, &p, backend, |a, b| a * b),
        (BinaryKind::Div, _) => quantized(view, memory, &p, backend, |a, b| a / b),
        _ => quantized(view, memory, &p, backend, |a, b| apply(kind, a, b)),
    }
}

/// Elements of an operand, one of them repeated, as floats.
fn load<B: Backend>(to: &mut [f32], from: &[u8], dtype: DType, p: Affine, backend: B) -> Option<()> {
    if dtype == DType::F32 {
        match cast::<f32>(from)? {
            [one] => to.fill(*one),
            all => to.copy_from_slice(all),
        }
        return Some(());
    }
    match cast::<i8>(from)? {
        [one] => to.fill(i32::from(*one).wrapping_sub(p.zero_point) as f32 * p.scale),
        all => backend.dequantize(all, p.scale, p.zero_point, to),
    }
    Some(())
}

/// The part of a row that belongs to a chunk: that of the chunk, or the one element.
fn part<'d>(part: &Tensor, whole: &Tensor, at: usize, chunk: (usize, usize), data: &'d [u8]) -> Option<&'d [u8]> {
    let size = part.dtype.size_bytes();
    let row = broadcast::row_of(part, whole, at)?;
    let (start, len) = if row.1 == 1 { (row.0, 1) } else { (row.0 + chunk.0, chunk.1) };
    data.get(start * size..(start + len) * size)
}

fn quantized<B: Backend>(
    view: &StepView<'_>,
    memory: &mut Memory<'_>,
    p: &Binary,
    backend: B,
    f: impl Fn(f32, f32) -> f32,
) -> Option<()> {
    let (a, b, y) = (view.input(0)?, view.input(1)?, view.output(0)?);
    let over = a.place == y.place;
    let loan = memory.lend([if over { b } else { a }, b], y)?;
    let [a_data, b_data] = loan.inputs;
    let size = y.dtype.size_bytes();
    let [lo, hi] = p.bounds.map(|v| v as i8);
    let mut run = |at: usize, chunk: (usize, usize), whole: bool| {
        let to = loan.output.get_mut((at + chunk.0) * size..(at + chunk.0 + chunk.1) * size)?;
        let (mut left, mut right) = ([0.0f32; CHUNK], [0.0f32; CHUNK]);
        let (left, right) = (left.get_mut(..chunk.1)?, right.get_mut(..chunk.1)?);
        // Where the operands are as long as the result, it is one row.
        let cut = |t: &Tensor, data| {
            if whole {
                let size = t.dtype.size_bytes();
                <[u8]>::get(data, chunk.0 * size..(chunk.0 + chunk.1) * size)
            } else {
                part(t, &y, at, chunk, data)
            }
        };
        if over {
            load(left, to, a.dtype, p.a, backend)?;
        } else {
            load(left, cut(&a, a_data)?, a.dtype, p.a, backend)?;
        }
        load(right, cut(&b, b_data)?, b.dtype, p.b, backend)?;
        left.iter_mut().zip(&*right).for_each(|(a, b)| *a = f(*a, *b));
        if y.dtype == DType::F32 {
            cast_mut::<f32>(to)?.copy_from_slice(left);
        } else {
            let to: &mut [i8] = cast_mut(to)?;
            backend.quantize(left, p.y.scale, p.y.zero_point, to);
            to.iter_mut().for_each(|y| *y = (*y).clamp(lo, hi));
        }
        Some(())
    };
    let chunks = |len: usize| (0..len).step_by(CHUNK).map(move |start| (start, CHUNK.min(len - start)));
    if a.len() == y.len() && b.len() == y.len() {
        return chunks(y.len()).try_for_each(|chunk| run(0, chunk, true));
    }
    broadcast::rows(&y, |at, len| chunks(len).try_for_each(|chunk| run(at, chunk, false)));
    Some(())
}

fn each(view: &StepView<'_>, memory: &mut Memory<'_>, f: impl Fn(f32, f32) -> f32) -> Option<()> {
    let (a, b, y) = (view.input(0)?, view.input(1)?, view.output(0)?);
    if a.place == y.place {
        let loan = memory.lend([b], y)?;
        let [b_data] = loan.inputs;
        let (b_data, y_data): (&[f32], &mut [f32]) = (cast(b_data)?, cast_mut(loan.output)?);
        if b.len() == y.len() {
            y_data.iter_mut().zip(b_data).for_each(|(y, b)| *y = f(*y, *b));
            return Some(());
        }
        broadcast::rows(&y, |at, len| {
            let to = y_data.get_mut(at..at + len)?;
            match broadcast::row(&b, &y, at, b_data)? {
                [b] => to.iter_mut().for_each(|y| *y = f(*y, *b)),
                b => to.iter_mut().zip(b).for_each(|(y, b)| *y = f(*y, *b)),
            }
            Some(())
        });
        return Some(());
    }
    let loan = memory.lend([a, b], y)?;
    let [a_data, b_data] = loan.inputs;
    let (a_data, b_data, y_data): (&[f32], &[f32], &mut [f32]) = (cast(a_data)?, cast(b_data)?, cast_mut(loan.output)?);
    if a.len() == y.len() && b.len() == y.len() {
        y_data.iter_mut().zip(a_data.iter().zip(b_data)).for_each(|(y, (a, b))| *y = f(*a, *b));
        return Some(());
    }
    broadcast::rows(&y, |at, len| {
        let row = y_data.get_mut(at..at + len)?;
        match (broadcast::row(&a, &y, at, a_data)?, broadcast::row(&b, &y, at, b_data)?) {
            ([a], [b]) => row.fill(f(*a, *b)),
            ([a], b) => row.iter_mut().zip(b).for_each(|(y, b)| *y = f(*a, *b)),
            (a, [b]) => row.iter_mut().zip(a).for_each(|(y, a)| *y = f(*a, *b)),
            (a, b) => row.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = f(*a, *b)),
        }
        Some(())
    });
    Some(())
}

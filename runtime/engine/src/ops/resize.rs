//! `Resize` of a feature map's height and width, by ONNX's coordinates: nearest keeps elements, linear weighs four.

use bytemuck::Pod;
use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Coordinate, Nearest, Op, Resize, ResizeKind};

use super::{Operator, map_dims};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Resize, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Resize = view.need_params()?;
    let kind = ResizeKind::from_u32(p.kind).ok_or(Fault::Params)?;
    Coordinate::from_u32(p.coordinate).ok_or(Fault::Params)?;
    Nearest::from_u32(p.nearest).ok_or(Fault::Params)?;
    let taken = x.dtype == DType::F32 || (x.dtype == DType::I8 && kind == ResizeKind::Nearest);
    if x.dtype != y.dtype || !taken {
        return Err(Fault::Type);
    }
    let ([n, _, _, c], [yn, _, _, yc]) = (map_dims(&x)?, map_dims(&y)?);
    if !p.scale.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(Fault::Params);
    }
    if (n, c) == (yn, yc) && !x.is_empty() && !y.is_empty() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

/// One axis: how a place of the result is found in the input.
#[derive(Clone, Copy)]
struct Axis {
    coordinate: Coordinate,
    nearest: Nearest,
    scale: f32,
    from: usize,
    to: usize,
}

impl Axis {
    fn place(&self, at: usize) -> f32 {
        let (x, from, to) = (at as f32, self.from as f32, self.to as f32);
        let half = |x: f32| (x + 0.5) / self.scale - 0.5;
        match self.coordinate {
            Coordinate::HalfPixel => half(x),
            Coordinate::Asymmetric => x / self.scale,
            Coordinate::AlignCorners if self.to == 1 => 0.0,
            Coordinate::AlignCorners => x * (from - 1.0) / (to - 1.0),
            Coordinate::PytorchHalfPixel if self.to == 1 => 0.0,
            Coordinate::PytorchHalfPixel => half(x),
            Coordinate::HalfPixelSymmetric => {
                let adjustment = to / (self.scale * from);
                from / 2.0 * (1.0 - adjustment) + half(x)
            }
        }
    }

    fn nearest(&self, at: usize) -> usize {
        let place = self.place(at);
        let down = libm::floorf(place);
        let rounded = match self.nearest {
            Nearest::RoundPreferFloor => down + f32::from(u8::from(place - down > 0.5)),
            Nearest::RoundPreferCeil => down + f32::from(u8::from(place - down >= 0.5)),
            Nearest::Floor => down,
            Nearest::Ceil => libm::ceilf(place),
        };
        (rounded.max(0.0) as usize).min(self.from - 1)
    }

    /// Two neighbours and their weights.
    fn linear(&self, at: usize) -> [(usize, f32); 2] {
        let place = self.place(at).max(0.0).min((self.from - 1) as f32);
        let first = (place as usize).min(self.from - 1);
        let second = (first + 1).min(self.from - 1);
        if first == second {
            return [(first, 0.5), (second, 0.5)];
        }
        [(first, (place - second as f32).abs()), (second, (place - first as f32).abs())]
    }
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<Resize>()?);
    let ([_, h, w, c], [_, oh, ow, _]) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let (coordinate, nearest) = (Coordinate::from_u32(p.coordinate)?, Nearest::from_u32(p.nearest)?);
    let [sy, sx] = p.scale;
    let axes = [(sy, h, oh), (sx, w, ow)].map(|(scale, from, to)| Axis { coordinate, nearest, scale, from, to });
    let loan = memory.lend([x], y)?;
    let [from] = loan.inputs;
    match (ResizeKind::from_u32(p.kind)?, x.dtype) {
        (ResizeKind::Nearest, DType::I8) => pick::<i8>(cast(from)?, cast_mut(loan.output)?, &axes, c),
        (ResizeKind::Nearest, _) => pick::<f32>(cast(from)?, cast_mut(loan.output)?, &axes, c),
        (ResizeKind::Linear, _) => weigh(cast(from)?, cast_mut(loan.output)?, &axes, c),
    }
}

fn pick<T: Pod>(x: &[T], y: &mut [T], [down, right]: &[Axis; 2], c: usize) -> Option<()> {
    let mut places = y.chunks_exact_mut(c);
    for map in x.chunks_exact(down.from * right.from * c) {
        for oy in 0..down.to {
            let line = down.nearest(oy) * right.from;
            for ox in 0..right.to {
                let at = (line + right.nearest(ox)) * c;
                places.next()?.copy_from_slice(map.get(at..at + c)?);
            }
        }
    }
    Some(())
}

fn weigh(x: &[f32], y: &mut [f32], [down, right]: &[Axis; 2], c: usize) -> Option<()> {
    let mut places = y.chunks_exact_mut(c);
    for map in x.chunks_exact(down.from * right.from * c) {
        for oy in 0..down.to {
            let [top, bottom] = down.linear(oy);
            for ox in 0..right.to {
                let [first, second] = right.linear(ox);
                let near = |(line, a): (usize, f32), (column, b): (usize, f32)| {
                    let at = (line * right.from + column) * c;
                    Some((map.get(at..at + c)?, b * a))
                };
                let (p, q) = (near(top, first)?, near(top, second)?);
                let (r, s) = (near(bottom, first)?, near(bottom, second)?);
                let corners = p.0.iter().zip(q.0).zip(r.0.iter().zip(s.0));
                for (y, ((a, b), (c, d))) in places.next()?.iter_mut().zip(corners) {
                    *y = p.1 * a + q.1 * b + r.1 * c + s.1 * d;
                }
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(coordinate: Coordinate, nearest: Nearest, from: usize, to: usize) -> Axis {
        Axis { coordinate, nearest, scale: to as f32 / from as f32, from, to }
    }

    #[test]
    fn nearest_follows_the_coordinates() {
        let row = |c, n| (0..4).map(|i| axis(c, n, 2, 4).nearest(i)).collect::<std::vec::Vec<_>>();
        assert_eq!(row(Coordinate::HalfPixel, Nearest::RoundPreferFloor), [0, 0, 1, 1]);
        assert_eq!(row(Coordinate::Asymmetric, Nearest::Floor), [0, 0, 1, 1]);
        assert_eq!(row(Coordinate::Asymmetric, Nearest::RoundPreferCeil), [0, 1, 1, 1]);
        assert_eq!(row(Coordinate::Asymmetric, Nearest::RoundPreferFloor), [0, 0, 1, 1]);
        assert_eq!(row(Coordinate::AlignCorners, Nearest::Ceil), [0, 1, 1, 1]);
    }

    #[test]
    fn linear_weighs_by_distance() {
        let axis = axis(Coordinate::HalfPixel, Nearest::Floor, 2, 4);
        assert_eq!(axis.linear(0), [(0, 1.0), (1, 0.0)]);
        assert_eq!(axis.linear(1), [(0, 0.75), (1, 0.25)]);
        assert_eq!(axis.linear(3), [(1, 0.5), (1, 0.5)]);
    }
}

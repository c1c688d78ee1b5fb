//! `Unary`: a function of one float.
//!
//! `Sigmoid` is a rational polynomial with fused multiply-adds, so that it has the same bits everywhere (those of ONNX
//! Runtime's MLAS); the others go through `libm`, which is plain arithmetic too.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Op, Unary, UnaryKind};

use super::Operator;
use crate::memory::{Lent, Memory};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Unary, true, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Unary = view.need_params()?;
    UnaryKind::from_u32(p.kind).ok_or(Fault::Params)?;
    if [x.dtype, y.dtype] != [DType::F32; 2] {
        return Err(Fault::Type);
    }
    if x.len() == y.len() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let p: Unary = view.params()?;
    match memory.lend_or_same::<f32, f32>(view.input(0)?, view.output(0)?)? {
        Lent::Apart(x, y) => x.iter().zip(y).for_each(|(x, y)| *y = apply(&p, *x)),
        Lent::Same(y) => y.iter_mut().for_each(|y| *y = apply(&p, *y)),
    }
    Some(())
}

/// The function's value; an unknown kind gives `x`.
#[must_use]
pub fn apply(p: &Unary, x: f32) -> f32 {
    let Some(kind) = UnaryKind::from_u32(p.kind) else { return x };
    let exp_m1 = |x: f32| libm::expm1f(x);
    match kind {
        UnaryKind::Clip => {
            // NaN stays NaN.
            let low = if x < p.alpha { p.alpha } else { x };
            if low > p.beta { p.beta } else { low }
        }
        UnaryKind::LeakyRelu => {
            if x >= 0.0 {
                x
            } else {
                p.alpha * x
            }
        }
        UnaryKind::Sigmoid => sigmoid(x),
        UnaryKind::Tanh => libm::tanhf(x),
        UnaryKind::HardSigmoid => hard_sigmoid(x, p.alpha, p.beta),
        UnaryKind::HardSwish => x * hard_sigmoid(x, 1.0 / 6.0, 0.5),
        UnaryKind::Gelu => 0.5 * x * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2)),
        UnaryKind::GeluTanh => 0.5 * x * (1.0 + libm::tanhf(0.797_884_6 * (x + 0.044_715 * x * x * x))),
        UnaryKind::Exp => libm::expf(x),
        UnaryKind::Log => libm::logf(x),
        UnaryKind::Sqrt => libm::sqrtf(x),
        UnaryKind::Reciprocal => 1.0 / x,
        UnaryKind::Abs => x.abs(),
        UnaryKind::Neg => -x,
        UnaryKind::Elu => {
            if x >= 0.0 {
                x
            } else {
                p.alpha * exp_m1(x)
            }
        }
        UnaryKind::Selu => {
            if x > 0.0 {
                p.beta * x
            } else {
                p.beta * p.alpha * exp_m1(x)
            }
        }
        UnaryKind::Celu => {
            let negative = p.alpha * exp_m1(x / p.alpha);
            if x > 0.0 { x } else { negative }
        }
        UnaryKind::Softplus => softplus(x),
        UnaryKind::Softsign => x / (1.0 + x.abs()),
        UnaryKind::Mish => x * libm::tanhf(softplus(x)),
        UnaryKind::Erf => libm::erff(x),
        UnaryKind::Floor => libm::floorf(x),
        UnaryKind::Ceil => libm::ceilf(x),
        UnaryKind::Round => libm::rintf(x),
        UnaryKind::Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }
        UnaryKind::Sin => libm::sinf(x),
        UnaryKind::Cos => libm::cosf(x),
        UnaryKind::ThresholdedRelu => {
            if x > p.alpha {
                x
            } else {
                0.0
            }
        }
    }
}

/// `max(0, min(1, alpha * x + beta))`, the product rounded before the sum.
fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    let line = alpha * x + beta;
    let low = if line > 1.0 { 1.0 } else { line };
    if low < 0.0 { 0.0 } else { low }
}

/// `log(1 + exp(x))` without overflow.
fn softplus(x: f32) -> f32 {
    if x > 0.0 { x + libm::log1pf(libm::expf(-x)) } else { libm::log1pf(libm::expf(x)) }
}

/// A quotient of polynomials in `x`, as in MLAS: `x p(x^2) / q(x^2) + 1/2` on `[-18, 18]`.
#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "the coefficients as published")]
fn sigmoid(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let x = x.clamp(-18.0, 18.0);
    let t = x * x;
    let fma = dunlin_kernels::fma;
    let mut p = fma(t, 4.37031012579801e-11, 1.15627324459942e-07);
    for c in [6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01] {
        p = fma(p, t, c);
    }
    p *= x;
    let mut q = fma(t, 6.10247389755681e-13, 5.76102136993427e-09);
    for c in [6.29106785017040e-06, 1.70198817374094e-03, 1.16817656904453e-01, 9.93151921023180e-01] {
        q = fma(q, t, c);
    }
    let y = p / q + 0.5;
    if y < 0.0 { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_definitions() {
        let f = |kind: UnaryKind, alpha, beta, x| apply(&Unary { kind: kind as u32, alpha, beta }, x);
        assert_eq!(f(UnaryKind::Clip, 0.0, 6.0, 7.5), 6.0);
        assert_eq!(f(UnaryKind::LeakyRelu, 0.25, 0.0, -4.0), -1.0);
        assert_eq!(f(UnaryKind::Sigmoid, 0.0, 0.0, 0.0), 0.5);
        assert!((f(UnaryKind::Sigmoid, 0.0, 0.0, 2.0) - 0.880_797_1).abs() < 1e-6);
        assert_eq!(f(UnaryKind::HardSigmoid, 0.2, 0.5, 10.0), 1.0);
        assert_eq!(f(UnaryKind::Round, 0.0, 0.0, 2.5), 2.0);
        assert!((f(UnaryKind::Softplus, 0.0, 0.0, 100.0) - 100.0).abs() < 1e-6);
        assert!((f(UnaryKind::Gelu, 0.0, 0.0, 1.0) - 0.841_344_7).abs() < 1e-6);
    }
}

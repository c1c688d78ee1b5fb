//! Numbers in fewer bits than they have. `WIRE.md` says how.

use crate::window::MOST;

/// Bits of a rounded number: five of exponent, three of mantissa.
pub(super) const ROUNDED: u32 = 8;

/// A number to one part in sixteen; exact below 16.
pub(super) fn round(value: u32) -> u32 {
    if value < 8 {
        return value;
    }
    let shift = 28 - value.leading_zeros();
    // Half of what is dropped is added, so that the error goes both ways.
    let half = (1u32 << shift) >> 1;
    let value = value.saturating_add(half);
    let shift = 28 - value.leading_zeros();
    (shift + 1) << 3 | (value >> shift & 7)
}

/// The number that [`round`] gave; it never gives more than 2^32 - 2.
pub(super) fn unround(code: u32) -> u32 {
    let (exponent, mantissa) = (code >> 3, code & 7);
    match exponent.checked_sub(1) {
        None => mantissa,
        Some(shift) => {
            (8 | mantissa).checked_shl(shift).filter(|v| v >> shift == 8 | mantissa).unwrap_or(MOST).min(MOST)
        }
    }
}

/// Seconds to one part in eight, in six bits: the cube roots of powers of two, and 0.
pub(super) fn round_seconds(seconds: u32) -> u32 {
    if seconds == 0 { 0 } else { (1.5 + 3.0 * libm::log2f(seconds as f32)).min(63.0) as u32 }
}

/// The seconds that [`round_seconds`] gave.
pub(super) fn unround_seconds(code: u32) -> u32 {
    code.checked_sub(1).map_or(0, |c| libm::roundf(libm::exp2f(c as f32 / 3.0)) as u32)
}

/// The logarithm of a count among codes of so many bits: 0 for none, 1 for one, the greatest for all of `n`.
pub(super) fn round_count(count: u32, n: u32, bits: u32) -> u32 {
    let most = (1u32 << bits) - 1;
    match (count, n) {
        (0, _) => 0,
        (_, 0..2) => most,
        _ => {
            let part = libm::logf(count as f32) / libm::logf(n as f32);
            1 + libm::roundf(part * (most - 1) as f32).clamp(0.0, (most - 1) as f32) as u32
        }
    }
}

/// Counts of their codes, with the sum that is known. What rounding leaves over goes to the greatest.
pub(super) fn unround_counts(counts: &mut [u32], n: u32, bits: u32) {
    let most = (1u32 << bits) - 1;
    let weigh = |code: u32| match code {
        0 => 0.0f64,
        _ => libm::exp(libm::log(f64::from(n.max(1))) * f64::from(code - 1) / f64::from(most - 1)),
    };
    let sum: f64 = counts.iter().map(|c| weigh(*c)).sum();
    if sum <= 0.0 {
        return;
    }
    let mut left = n;
    for count in counts.iter_mut() {
        *count = ((weigh(*count) / sum * f64::from(n)) as u32).min(left);
        left -= *count;
    }
    if let Some(greatest) = counts.iter_mut().max_by_key(|c| **c) {
        *greatest = greatest.saturating_add(left);
    }
}

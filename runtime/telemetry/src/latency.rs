//! The buckets of latencies: an OpenTelemetry exponential histogram of scale 2, found without floats.
//!
//! Bucket `i` holds the durations above `2^(i/4)` microseconds, up to and with `2^((i+1)/4)`: each is 19 % wider than the
//! one before, so a duration is known to within 8.6 %. A device keeps [`BUCKETS`] of them from one that it chooses; what
//! is shorter is in the first, what is longer in the last.

/// Buckets that a device keeps: a little more than five decades.
pub const BUCKETS: usize = 68;
/// The first bucket when nothing else is said: from 91 microseconds on, so that the last ends at 11.9 seconds.
pub const FIRST: u8 = 26;
/// The scale, as OpenTelemetry has it.
pub const SCALE: i32 = 2;

/// `2^31` times `2^(1/4)`, `2^(1/2)` and `2^(3/4)`, rounded up: these are no whole numbers, so that reaching the one above
/// is the same as lying above.
const STEPS: [u32; 3] = [2_553_802_834, 3_037_000_500, 3_611_622_603];

/// The bucket of a duration in microseconds; 0 counts as 1.
#[must_use]
pub const fn bucket(micros: u32) -> u8 {
    if micros <= 1 {
        return 0;
    }
    let exponent = 31 - micros.leading_zeros();
    if micros.is_power_of_two() {
        // A power of two is the upper bound of the bucket that ends there.
        return (4 * exponent - 1) as u8;
    }
    let mantissa = micros << (31 - exponent);
    let above = (mantissa >= STEPS[0]) as u32 + (mantissa >= STEPS[1]) as u32 + (mantissa >= STEPS[2]) as u32;
    (4 * exponent + above) as u8
}

/// The place among a device's buckets, of which `first` is the first.
#[must_use]
pub const fn place(micros: u32, first: u8) -> usize {
    let place = bucket(micros).saturating_sub(first) as usize;
    if place < BUCKETS { place } else { BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `micros > 2^(i/4)`, in whole numbers: fourth powers.
    fn above(micros: u32, i: u32) -> bool {
        1u128.checked_shl(i).is_some_and(|bound| u128::from(micros).pow(4) > bound)
    }

    #[test]
    fn buckets_are_those_of_opentelemetry() {
        let near = (0..32u32).flat_map(|e| (0..9u32).map(move |d| (1u32 << e).wrapping_add(d).wrapping_sub(4)));
        let roots = (0..128u32).flat_map(|i| {
            let root = (f64::from(i) / 4.0).exp2() as u32;
            (0..5u32).map(move |d| root.saturating_add(d).saturating_sub(2))
        });
        for micros in (0..200_000).chain(near).chain(roots).chain([u32::MAX, u32::MAX - 1]) {
            let i = u32::from(bucket(micros));
            assert!(i == 0 || above(micros, i), "{micros} in {i}");
            assert!(!above(micros, i + 1), "{micros} in {i}");
        }
    }

    #[test]
    fn ends_take_what_lies_beyond() {
        assert_eq!((place(0, FIRST), place(90, FIRST), place(91, FIRST)), (0, 0, 0));
        assert_eq!((place(107, FIRST), place(108, FIRST)), (0, 1));
        assert_eq!(place(u32::MAX, FIRST), BUCKETS - 1);
        assert_eq!(place(10_000_000, FIRST), BUCKETS - 1);
    }
}

//! An adaptive binary range coder.
//!
//! After the carry-less coder of Matt Mahoney's lpaq (two 32-bit bounds, bytes leave when their tops agree), with counts
//! that make a new probability learn fast and an old one slowly. Integers only: every machine gives the same bytes.

/// Counts beyond which a probability learns no slower.
const LIMIT: u8 = 250;
/// No probability comes nearer to 0 or 1, of 65,536.
const LEAST: u32 = 16;

/// Probabilities of bits that are 1, of 65,536 and less a half, with the number of bits each has seen. A new one is all
/// zeros, so that a decoder in static memory takes no flash. One table holds those of all models, so that its code is
/// there once.
#[derive(Clone, Debug)]
pub(super) struct Contexts<const N: usize> {
    p: [i16; N],
    n: [u8; N],
}

impl<const N: usize> Contexts<N> {
    pub(super) const fn new() -> Self {
        Self { p: [0; N], n: [0; N] }
    }

    /// As new, in place: a device has no room for a second one.
    pub(super) fn reset(&mut self) {
        self.p.fill(0);
        self.n.fill(0);
    }

    fn get(&self, i: usize) -> u32 {
        self.p.get(i).map_or(1 << 15, |p| (i32::from(*p) + (1 << 15)).cast_unsigned())
    }

    #[inline(never)]
    fn learn(&mut self, i: usize, bit: bool) {
        let (Some(p), Some(n)) = (self.p.get_mut(i), self.n.get_mut(i)) else { return };
        let goal = if bit { 32_767 } else { -32_768 };
        // 1 / (n + 1.5), as a frequency with half a count for each outcome.
        let step = (goal - i32::from(*p)) * 2 / (2 * i32::from(*n) + 3);
        *p = (i32::from(*p) + step) as i16;
        *n = n.saturating_add(1).min(LIMIT);
    }

    /// A bit by one probability.
    #[inline(never)]
    pub(super) fn code(&mut self, coder: &mut impl Coder, i: usize, bit: bool) -> bool {
        let bit = coder.code(self.get(i), bit);
        self.learn(i, bit);
        bit
    }

    /// A bit by the mean of two.
    #[inline(never)]
    pub(super) fn code_two(&mut self, coder: &mut impl Coder, i: usize, j: usize, bit: bool) -> bool {
        let bit = coder.code((self.get(i) + self.get(j)) / 2, bit);
        self.learn(i, bit);
        self.learn(j, bit);
        bit
    }
}

/// The encoder writes the bit it is given, the decoder ignores it; both return the bit. So each model is written once.
pub(super) trait Coder {
    /// A bit that is 1 with a probability of `p` in 65,536.
    fn code(&mut self, p: u32, bit: bool) -> bool;
}

fn split(low: u32, high: u32, p: u32) -> u32 {
    let p = p.clamp(LEAST, 65_536 - LEAST);
    let range = high - low;
    low + ((u64::from(range) * u64::from(p)) >> 16) as u32
}

/// Bytes that bits take out of the stream, at most: so many by probabilities that are learnt, and so many plain ones.
///
/// The bounds are `n` numbers apart, at least 1 and at most 2^32. A byte that leaves makes them 256 times as many; a bit
/// leaves at least one in 4,097 of them, since no probability comes nearer to 0 than 16 of 65,536, and a plain one at
/// least one in 3. So the bytes' bits are no more than 13 and 2 for each, and 32.
pub(super) const fn most_bytes(learnt: usize, plain: usize) -> usize {
    (13 * learnt + 2 * plain + 32).div_ceil(8)
}

/// Takes bits out of bytes that are at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    low: u32,
    high: u32,
    code: u32,
}

impl Bounds {
    /// Before a stream begins.
    pub(super) const fn none() -> Self {
        Self { low: 0, high: 0, code: 0 }
    }
}

/// A decoder over the bytes that have come; after the stream's end it reads zeros.
pub(super) struct Decoder<'a> {
    pub(super) bounds: &'a mut Bounds,
    pub(super) bytes: &'a [u8],
    /// Bytes taken.
    pub(super) taken: usize,
}

impl Decoder<'_> {
    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.taken).copied();
        self.taken += usize::from(byte.is_some());
        byte.unwrap_or(0)
    }

    /// Reads what comes before the first bit.
    pub(super) fn begin(&mut self) {
        *self.bounds = Bounds { low: 0, high: u32::MAX, code: 0 };
        for _ in 0..4 {
            self.bounds.code = self.bounds.code << 8 | u32::from(self.byte());
        }
    }
}

impl Coder for Decoder<'_> {
    #[inline(never)]
    fn code(&mut self, p: u32, _: bool) -> bool {
        let Bounds { low, high, code } = *self.bounds;
        let middle = split(low, high, p);
        let bit = code <= middle;
        if bit {
            self.bounds.high = middle
        } else {
            self.bounds.low = middle + 1
        }
        while (self.bounds.low ^ self.bounds.high) >> 24 == 0 {
            self.bounds.low <<= 8;
            self.bounds.high = self.bounds.high << 8 | 255;
            self.bounds.code = self.bounds.code << 8 | u32::from(self.byte());
        }
        bit
    }
}

/// Puts bits into bytes.
#[cfg(feature = "std")]
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    low: u32,
    high: u32,
    bytes: std::vec::Vec<u8>,
}

#[cfg(feature = "std")]
impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, high: u32::MAX, bytes: std::vec::Vec::new() }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Size so far in 1/256 of a byte.
    pub(super) fn size(&self) -> usize {
        let bits = f64::from(u32::MAX).log2() - f64::from((self.high - self.low).max(1)).log2();
        self.bytes.len() * 256 + (bits * 32.0) as usize
    }

    /// The bytes, as few as tell the rest apart; the decoder reads zeros after them.
    pub(super) fn finish(mut self) -> std::vec::Vec<u8> {
        // The number between the bounds with the most zeros at its end.
        let shared = (0..=32).rev().map(|n| if n == 32 { 0 } else { u32::MAX << n });
        let value = shared
            .map(|mask| {
                if self.low & !mask == 0 { self.low } else { (self.low & mask).saturating_add((!mask).wrapping_add(1)) }
            })
            .find(|v| (self.low..=self.high).contains(v))
            .unwrap_or(self.low);
        self.bytes.extend(value.to_be_bytes());
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        self.bytes
    }
}

#[cfg(feature = "std")]
impl Coder for Encoder {
    fn code(&mut self, p: u32, bit: bool) -> bool {
        let middle = split(self.low, self.high, p);
        if bit {
            self.high = middle
        } else {
            self.low = middle + 1
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.bytes.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        bit
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Unlikely bits one after the other, from bounds that are as near as a stream can make them.
        #[test]
        fn no_bits_take_more_bytes_than_is_said(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0u8), Just(255u8)], 400),
            bits in proptest::collection::vec((0u32..4, any::<u32>()), 1..100),
        ) {
            let mut bounds = Bounds::none();
            let mut decoder = Decoder { bounds: &mut bounds, bytes: &bytes, taken: 0 };
            decoder.begin();
            let start = decoder.taken;
            let (mut learnt, mut plain) = (0, 0);
            for (kind, p) in bits {
                let Bounds { low, high, code } = *decoder.bounds;
                // The probability that leaves the fewest numbers, as far as it can be chosen.
                let unlikely = if code <= split(low, high, 0) { 0 } else { 65_536 };
                let p = [1 << 15, unlikely, p % 65_537, 0][kind as usize];
                *if kind == 0 { &mut plain } else { &mut learnt } += 1;
                decoder.code(p, false);
            }
            prop_assert!(decoder.taken - start <= most_bytes(learnt, plain));
        }
    }
}

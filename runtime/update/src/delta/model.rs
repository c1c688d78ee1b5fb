//! What is coded, and by which contexts. Encoder and decoder run the same code.

use super::coder::{Coder, Contexts, most_bytes};

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    /// Bytes of the base as they are.
    Copy = 0,
    /// Bytes of the base and what has to be added to each.
    Difference = 1,
    /// As that, after the base's bytes, taken as signed, were multiplied by a factor for each run of bytes.
    Scaled = 2,
    /// Words of four bytes as differences to the base's.
    Words = 3,
    /// Signed bytes anew.
    Weights = 4,
    /// Any bytes anew.
    Bytes = 5,
    /// Words of four bytes as differences to the word before.
    NewWords = 6,
    /// The target's digest, which the header has: 32 bytes.
    Digest = 7,
}

impl Operation {
    fn from_number(n: u32) -> Option<Self> {
        [
            Self::Copy,
            Self::Difference,
            Self::Scaled,
            Self::Words,
            Self::Weights,
            Self::Bytes,
            Self::NewWords,
            Self::Digest,
        ]
        .get(n as usize)
        .copied()
    }

    /// Whether it reads the base.
    pub(super) fn reads_base(self) -> bool {
        matches!(self, Self::Copy | Self::Difference | Self::Scaled | Self::Words)
    }

    /// Whether it goes by words of four bytes.
    pub(super) fn is_words(self) -> bool {
        matches!(self, Self::Words | Self::NewWords)
    }
}

/// One command of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) operation: Operation,
    /// Bytes it gives, at least 1.
    pub(super) len: u32,
    /// Where in the base it reads.
    pub(super) base: u32,
    /// Bytes that share a factor; for [`Operation::Scaled`].
    pub(super) run: u32,
}

impl Command {
    /// In the place of one that is not known yet.
    pub(super) const NONE: Self = Self { operation: Operation::Copy, len: 0, base: 0, run: 0 };
}

/// Bytes that have to be at hand before a command or a symbol is decoded, unless the block's bytes are all there. A
/// command takes the most bits: the operation, three numbers with 32 bits in unary, one after them and 30 plain ones, and
/// the sign of the distance.
pub(super) const LOOK_AHEAD: usize = most_bytes(3 + 3 * 33 + 1, 3 * 30);

/// Contexts of the means of magnitudes.
const LEVELS: usize = 16;
/// A factor of 1.
pub(super) const UNITY: i32 = 4096;

/// Where the probabilities of each model begin, and how many there are.
const OPERATION: usize = 0;
const NUMBER: usize = OPERATION + 64;
const BACKWARDS: usize = NUMBER + 3 * 64;
const FACTOR: usize = BACKWARDS + 1;
const WEIGHT: usize = FACTOR + 16;
const DIFFERENCE: usize = WEIGHT + SIGNED;
const MANTISSA: usize = DIFFERENCE + SIGNED;
const BYTE: usize = MANTISSA + 8 * 8;
const WORD: usize = BYTE + 256;
const COUNT: usize = WORD + 35 + 32 * 3 + 1;

/// Within the models of signed bytes: whether it is 0, its sign, its magnitude.
const ZERO: usize = 0;
const SIGN: usize = ZERO + 2 * LEVELS;
const BUCKET: usize = SIGN + 9;
const SIGNED: usize = BUCKET + 2 * LEVELS * 8;

/// All probabilities of a block.
#[derive(Clone, Debug)]
pub(super) struct Models {
    contexts: Contexts<COUNT>,
    weight: Means,
    difference: Means,
    /// The number of the operation before.
    last: u8,
    /// The factor before, less 1.
    factor_above: i32,
}

/// Means of the magnitudes of signed bytes, and the sign of the last.
#[derive(Clone, Copy, Debug)]
struct Means {
    fast: u32,
    slow: u32,
    last: usize,
}

impl Means {
    const NONE: Self = Self { fast: 0, slow: 0, last: 0 };

    fn note(&mut self, value: i32) {
        let now = value.unsigned_abs();
        // Means of 4 and of 32, times 16.
        self.fast = self.fast - self.fast / 4 + now * 4;
        self.slow = self.slow - self.slow / 32 + now / 2 + now % 2;
        self.last = if value == 0 { 0 } else { 1 + usize::from(value < 0) };
    }
}

/// Half octaves of a mean.
fn level(mean: u32) -> usize {
    let m = mean / 2;
    if m == 0 {
        return 0;
    }
    let high = m.ilog2();
    let half = if high == 0 { 0 } else { m >> (high - 1) & 1 };
    ((1 + 2 * high + half) as usize).min(LEVELS - 1)
}

/// Classes of the base's byte: sign and octave.
fn base_level(base: i8) -> usize {
    let octave = match base.unsigned_abs() {
        0 => return 0,
        1..=3 => 1,
        4..=7 => 2,
        8..=15 => 3,
        16..=31 => 4,
        32..=63 => 5,
        64..=126 => 6,
        _ => 7,
    };
    if base < 0 { octave + 8 } else { octave }
}

/// What the base's byte becomes with a factor.
pub(super) fn scaled(base: u8, factor: i32) -> u8 {
    let product = i32::from(base.cast_signed()) * factor;
    // Rounded to the nearest, halves away from zero.
    let half = if product < 0 { -UNITY / 2 } else { UNITY / 2 };
    (((product + half) / UNITY).clamp(-128, 127) as i8).cast_unsigned()
}

impl Models {
    pub(super) const fn new() -> Self {
        Self { contexts: Contexts::new(), weight: Means::NONE, difference: Means::NONE, last: 0, factor_above: 0 }
    }

    /// As new, in place.
    pub(super) fn reset(&mut self) {
        self.contexts.reset();
        (self.weight, self.difference, self.last, self.factor_above) = (Means::NONE, Means::NONE, 0, 0);
    }

    /// How many bits follow the highest, in unary from context `first` on.
    fn unary(&mut self, coder: &mut impl Coder, first: usize, most: u32, high: u32) -> u32 {
        let mut bits = 0;
        while bits < most && self.contexts.code(coder, first + bits as usize, bits < high) {
            bits += 1;
        }
        bits
    }

    /// A number in one of three roles.
    #[inline(never)]
    fn number(&mut self, coder: &mut impl Coder, role: usize, value: u32) -> u32 {
        // Of one more, which is 0 here where it takes 33 bits.
        let more = value.wrapping_add(1);
        let high = more.checked_ilog2().unwrap_or(32);
        let first = NUMBER + role * 64;
        let bits = self.unary(coder, first, 32, high);
        let mut decoded = 1u32;
        for i in (0..bits).rev() {
            let bit = more >> i & 1 == 1;
            // The bits after the highest have a probability of their own, by length; the rest are all alike.
            let bit = if i + 1 == bits {
                self.contexts.code(coder, first + 32 + bits.min(31) as usize, bit)
            } else {
                coder.code(1 << 15, bit)
            };
            decoded = decoded << 1 | u32::from(bit);
        }
        if bits == 32 { u32::MAX } else { decoded.wrapping_sub(1) }
    }

    /// A signed byte; `base` is the base's byte where there is one.
    #[inline(never)]
    fn signed(&mut self, coder: &mut impl Coder, base: Option<i8>, value: i8) -> i8 {
        let (start, means) = if base.is_some() { (DIFFERENCE, self.difference) } else { (WEIGHT, self.weight) };
        let first = level(means.fast);
        let second = LEVELS + base.map_or(level(means.slow), base_level);
        let magnitude = u32::from(value.unsigned_abs());
        let negative = base.map_or(0, |b| if b == 0 { 0 } else { 1 + usize::from(b < 0) });
        let mut decoded = 0i32;
        if !self.contexts.code_two(coder, start + ZERO + first, start + ZERO + second, magnitude == 0) {
            let minus = self.contexts.code(coder, start + SIGN + negative * 3 + means.last, value < 0);
            let high = magnitude.max(1).ilog2() as usize;
            let place = start + BUCKET;
            let mut bucket = 0;
            while bucket < 7 {
                let (first, second) = (place + first * 8 + bucket, place + second * 8 + bucket);
                if !self.contexts.code_two(coder, first, second, bucket < high) {
                    break;
                }
                bucket += 1;
            }
            // The highest three of the bits below are known better than by chance.
            let known = bucket.min(3);
            let rest = (bucket - known) as u32;
            let node = self.tree(coder, MANTISSA + bucket * 8, known, magnitude >> rest);
            decoded = Self::plain(coder, node, rest, magnitude).cast_signed();
            if minus {
                decoded = -decoded;
            }
        }
        if base.is_some() { &mut self.difference } else { &mut self.weight }.note(decoded);
        decoded as i8
    }

    /// The lowest bits, highest first, each by those before it; with a 1 before them.
    #[inline(never)]
    fn tree(&mut self, coder: &mut impl Coder, first: usize, bits: usize, value: u32) -> u32 {
        let mut node = 1;
        for i in (0..bits).rev() {
            let bit = self.contexts.code(coder, first + node as usize, value >> i & 1 == 1);
            node = node * 2 + u32::from(bit);
        }
        node
    }

    /// Bits that no model knows anything of, after what is known of the number.
    fn plain(coder: &mut impl Coder, mut known: u32, bits: u32, value: u32) -> u32 {
        for i in (0..bits).rev() {
            known = known << 1 | u32::from(coder.code(1 << 15, value >> i & 1 == 1));
        }
        known
    }

    /// A command; `expected` is where the one before ended in the base.
    pub(super) fn command(&mut self, coder: &mut impl Coder, expected: u32, command: &Command) -> Option<Command> {
        let first = OPERATION + usize::from(self.last) * 8;
        let operation = Operation::from_number(self.tree(coder, first, 3, command.operation as u32) - 8)?;
        self.last = operation as u8;
        let len = self.number(coder, 0, command.len.wrapping_sub(1)).checked_add(1)?;
        let mut base = expected;
        if operation.reads_base() {
            let distance = command.base.abs_diff(expected);
            let distance = self.number(coder, 1, distance);
            if distance > 0 {
                let back = self.contexts.code(coder, BACKWARDS, command.base < expected);
                base = if back { expected.checked_sub(distance)? } else { expected.checked_add(distance)? };
            }
        }
        let run = if operation == Operation::Scaled {
            self.number(coder, 2, command.run.wrapping_sub(1)).checked_add(1)?
        } else {
            1
        };
        if operation == Operation::Digest && len != 32 {
            return None;
        }
        if operation.is_words() && !len.is_multiple_of(4) {
            return None;
        }
        Some(Command { operation, len, base, run })
    }

    /// The factor of a run, as a difference to the one before.
    #[inline(never)]
    pub(super) fn factor(&mut self, coder: &mut impl Coder, factor: i32) -> i32 {
        let difference = factor - UNITY - self.factor_above;
        let magnitude = difference.unsigned_abs();
        if !self.contexts.code(coder, FACTOR, difference == 0) {
            let minus = self.contexts.code(coder, FACTOR + 1, difference < 0);
            let bits = self.unary(coder, FACTOR + 2, 14, magnitude.max(1).ilog2());
            let decoded = Self::plain(coder, 1, bits, magnitude).cast_signed();
            let decoded = if minus { -decoded } else { decoded };
            self.factor_above = (self.factor_above + UNITY + decoded).clamp(-32_768, 32_767) - UNITY;
        }
        self.factor_above + UNITY
    }

    /// A byte of an operation that goes by bytes. `base` is the base's byte, scaled already.
    pub(super) fn byte(&mut self, coder: &mut impl Coder, operation: Operation, base: u8, value: u8) -> u8 {
        match operation {
            Operation::Difference | Operation::Scaled => {
                let difference = value.wrapping_sub(base).cast_signed();
                base.wrapping_add(self.signed(coder, Some(base.cast_signed()), difference).cast_unsigned())
            }
            Operation::Weights => self.signed(coder, None, value.cast_signed()).cast_unsigned(),
            _ => self.tree(coder, BYTE, 8, value.into()) as u8,
        }
    }

    /// A word, as the difference to what it is expected to be.
    #[inline(never)]
    pub(super) fn word(&mut self, coder: &mut impl Coder, expected: u32, value: u32) -> u32 {
        let difference = value.wrapping_sub(expected).cast_signed();
        let magnitude = difference.unsigned_abs();
        if self.contexts.code(coder, WORD, difference == 0) {
            return expected;
        }
        let minus = self.contexts.code(coder, WORD + 1, difference < 0);
        let bits = self.unary(coder, WORD + 2, 31, magnitude.max(1).ilog2());
        let mut decoded = 1u32;
        for i in 0..bits.min(2) {
            let context = WORD + 35 + (bits * 3 + i * 2 + (decoded & 1)) as usize;
            let bit = self.contexts.code(coder, context, magnitude >> (bits - 1 - i) & 1 == 1);
            decoded = decoded << 1 | u32::from(bit);
        }
        let decoded = Self::plain(coder, decoded, bits.saturating_sub(2), magnitude);
        let decoded = if minus { decoded.wrapping_neg() } else { decoded };
        expected.wrapping_add(decoded)
    }
}

//! What is coded, and by which contexts. Encoder and decoder run the same code.

use super::coder::{BYTES_PER_BIT, Bits, Coder};

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

/// Bits of a number: its length in unary, then what follows its highest bit.
const NUMBER_BITS: usize = 32 + 31;
/// Bits of a command, at most: operation, length, sign and distance in the base, run.
const COMMAND_BITS: usize = 3 + NUMBER_BITS + 1 + NUMBER_BITS + NUMBER_BITS;
/// Bytes that have to be at hand before a command or a symbol is decoded, unless the block's bytes are all there.
pub(super) const LOOK_AHEAD: usize = COMMAND_BITS * BYTES_PER_BIT + 4;

/// Contexts of the means of magnitudes.
const LEVELS: usize = 16;
/// A factor of 1.
pub(super) const UNITY: i32 = 4096;

/// All probabilities of a block.
#[derive(Clone, Debug)]
pub(super) struct Models {
    operation: Bits<64>,
    number: Bits<{ 3 * 64 }>,
    backwards: Bits<1>,
    factor: Bits<40>,
    weight: Signed,
    difference: Signed,
    mantissa: Bits<256>,
    byte: Bits<512>,
    word: Bits<{ 3 + 33 * 4 + 8 }>,
    /// The number of the operation before.
    last: u8,
    /// The factor before, less 1.
    factor_above: i32,
}

/// Contexts of signed bytes, by two means or a mean and the base.
#[derive(Clone, Debug)]
struct Signed {
    zero: Bits<{ 2 * LEVELS }>,
    sign: Bits<9>,
    bucket: Bits<{ 2 * LEVELS * 8 }>,
    fast: u32,
    slow: u32,
    last: usize,
}

impl Signed {
    const fn new() -> Self {
        Self { zero: Bits::new(), sign: Bits::new(), bucket: Bits::new(), fast: 0, slow: 0, last: 0 }
    }

    fn reset(&mut self) {
        self.zero.reset();
        self.sign.reset();
        self.bucket.reset();
        (self.fast, self.slow, self.last) = (0, 0, 0);
    }

    /// A signed byte; `base` is the base's byte where there is one.
    fn code(&mut self, mantissa: &mut Bits<256>, coder: &mut impl Coder, base: Option<i8>, value: i8) -> i8 {
        let first = level(self.fast);
        let second = LEVELS + base.map_or(level(self.slow), base_level);
        let magnitude = u32::from(value.unsigned_abs());
        let negative = base.map_or(0, |b| if b == 0 { 0 } else { 1 + usize::from(b < 0) });
        let mut decoded = 0i32;
        if !self.zero.code_two(coder, first, second, magnitude == 0) {
            let minus = self.sign.code(coder, negative * 3 + self.last, value < 0);
            let high = magnitude.max(1).ilog2() as usize;
            let mut bucket = 0;
            while bucket < 7 && self.bucket.code_two(coder, first * 8 + bucket, second * 8 + bucket, bucket < high) {
                bucket += 1;
            }
            let mut node = 1usize;
            for i in (0..bucket).rev() {
                let bit = mantissa.code(coder, (1 << bucket) - 1 + node, magnitude >> i & 1 == 1);
                node = node * 2 + usize::from(bit);
            }
            decoded = node as i32;
            if minus {
                decoded = -decoded;
            }
        }
        let now = decoded.unsigned_abs();
        // Means of 4 and of 32, times 16.
        self.fast = self.fast - self.fast / 4 + now * 4;
        self.slow = self.slow - self.slow / 32 + now / 2 + now % 2;
        self.last = if decoded == 0 { 0 } else { 1 + usize::from(decoded < 0) };
        decoded as i8
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
        Self {
            operation: Bits::new(),
            number: Bits::new(),
            backwards: Bits::new(),
            factor: Bits::new(),
            weight: Signed::new(),
            difference: Signed::new(),
            mantissa: Bits::new(),
            byte: Bits::new(),
            word: Bits::new(),
            last: 0,
            factor_above: 0,
        }
    }

    /// As new, in place.
    pub(super) fn reset(&mut self) {
        self.operation.reset();
        self.number.reset();
        self.backwards.reset();
        self.factor.reset();
        self.weight.reset();
        self.difference.reset();
        self.mantissa.reset();
        self.byte.reset();
        self.word.reset();
        (self.last, self.factor_above) = (0, 0);
    }

    /// A number in one of three roles.
    fn number(&mut self, coder: &mut impl Coder, role: usize, value: u32) -> u32 {
        let more = u64::from(value) + 1;
        let high = more.ilog2();
        let mut bits = 0;
        while bits < 32 && self.number.code(coder, role * 64 + bits as usize, bits < high) {
            bits += 1;
        }
        let mut decoded = 1u64;
        for i in (0..bits).rev() {
            let bit = more >> i & 1 == 1;
            // The bits after the highest have a probability of their own, by length; the rest are all alike.
            let bit = if i + 1 == bits {
                self.number.code(coder, role * 64 + 32 + bits.min(31) as usize, bit)
            } else {
                coder.code(1 << 15, bit)
            };
            decoded = decoded << 1 | u64::from(bit);
        }
        (decoded - 1).min(u64::from(u32::MAX)) as u32
    }

    /// A command; `expected` is where the one before ended in the base.
    pub(super) fn command(&mut self, coder: &mut impl Coder, expected: u32, command: &Command) -> Option<Command> {
        let mut node = 1usize;
        let context = usize::from(self.last);
        for i in (0..3).rev() {
            let bit = self.operation.code(coder, context * 8 + node, command.operation as usize >> i & 1 == 1);
            node = node * 2 + usize::from(bit);
        }
        let operation = Operation::from_number(node as u32 - 8)?;
        self.last = operation as u8;
        let len = self.number(coder, 0, command.len.wrapping_sub(1)).checked_add(1)?;
        let mut base = expected;
        if operation.reads_base() {
            let distance = command.base.abs_diff(expected);
            let distance = self.number(coder, 1, distance);
            if distance > 0 {
                let back = self.backwards.code(coder, 0, command.base < expected);
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
    pub(super) fn factor(&mut self, coder: &mut impl Coder, factor: i32) -> i32 {
        let difference = factor - UNITY - self.factor_above;
        let magnitude = difference.unsigned_abs();
        let zero = self.factor.code(coder, 0, difference == 0);
        if !zero {
            let minus = self.factor.code(coder, 1, difference < 0);
            let high = magnitude.max(1).ilog2();
            let mut bits = 0;
            while bits < 14 && self.factor.code(coder, 2 + bits as usize, bits < high) {
                bits += 1;
            }
            let mut decoded = 1i32;
            for i in (0..bits).rev() {
                decoded = decoded << 1 | i32::from(coder.code(1 << 15, magnitude >> i & 1 == 1));
            }
            let decoded = if minus { -decoded } else { decoded };
            self.factor_above = (self.factor_above + UNITY + decoded).clamp(-32_768, 32_767) - UNITY;
        }
        self.factor_above + UNITY
    }

    /// A byte of an operation that goes by bytes. `base` is the base's byte, scaled already; `at` counts within the
    /// command.
    pub(super) fn byte(&mut self, coder: &mut impl Coder, operation: Operation, at: u32, base: u8, value: u8) -> u8 {
        match operation {
            Operation::Difference | Operation::Scaled => {
                let difference = value.wrapping_sub(base).cast_signed();
                let known = Some(base.cast_signed());
                let decoded = self.difference.code(&mut self.mantissa, coder, known, difference);
                base.wrapping_add(decoded.cast_unsigned())
            }
            Operation::Weights => {
                let value = value.cast_signed();
                self.weight.code(&mut self.mantissa, coder, None, value).cast_unsigned()
            }
            _ => {
                let set = if at.is_multiple_of(4) { 0 } else { 256 };
                let mut node = 1usize;
                for i in (0..8).rev() {
                    let bit = self.byte.code(coder, set + node, value >> i & 1 == 1);
                    node = node * 2 + usize::from(bit);
                }
                node as u8
            }
        }
    }

    /// A word, as the difference to what it is expected to be.
    pub(super) fn word(&mut self, coder: &mut impl Coder, expected: u32, value: u32) -> u32 {
        let difference = value.wrapping_sub(expected).cast_signed();
        let magnitude = difference.unsigned_abs();
        if self.word.code(coder, 0, difference == 0) {
            return expected;
        }
        let minus = self.word.code(coder, 1, difference < 0);
        let high = magnitude.max(1).ilog2();
        let mut bits = 0;
        while bits < 31 && self.word.code(coder, 2 + bits as usize, bits < high) {
            bits += 1;
        }
        let mut decoded = 1u32;
        for (i, shift) in (0..bits).rev().enumerate() {
            let bit = magnitude >> shift & 1 == 1;
            let context = 35 + bits as usize * 3 + i * 2 + (decoded as usize & 1);
            let bit = if i < 2 { self.word.code(coder, context, bit) } else { coder.code(1 << 15, bit) };
            decoded = decoded << 1 | u32::from(bit);
        }
        let decoded = if minus { decoded.wrapping_neg() } else { decoded };
        expected.wrapping_add(decoded)
    }
}

//! Numbers modulo 2^255 - 19.

use super::subtract;

/// The modulus.
const PRIME: [u32; 8] =
    [0xFFFF_FFED, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0x7FFF_FFFF];

/// A number modulo the prime, in any of the ways to write it with 256 bits, the least significant word first. What is
/// carried out of them comes in again 38 times: 2^256 is 38 modulo the prime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field([u32; 8]);

impl Field {
    pub(super) const ZERO: Self = Self::new([0; 8]);
    pub(super) const ONE: Self = Self::new([1, 0, 0, 0, 0, 0, 0, 0]);

    pub(super) const fn new(words: [u32; 8]) -> Self {
        Self(words)
    }

    /// The number of its canonical encoding; `None` when that is another.
    pub(super) fn from_canonical(words: [u32; 8]) -> Option<Self> {
        words.iter().rev().lt(PRIME.iter().rev()).then_some(Self(words))
    }

    /// The least words that it can be written with.
    pub(super) fn canonical(&self) -> [u32; 8] {
        let mut words = self.0;
        while subtract(&mut words, &PRIME) {}
        words
    }

    pub(super) fn is_odd(&self) -> bool {
        self.canonical().first().is_some_and(|word| word & 1 == 1)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.canonical() == [0; 8]
    }

    /// Adds a small number that was carried out, 38 times.
    fn carry_in(&mut self, mut carry: u32) {
        while carry != 0 {
            let mut add = carry * 38;
            for word in &mut self.0 {
                let overflow;
                (*word, overflow) = word.overflowing_add(add);
                add = u32::from(overflow);
            }
            carry = add;
        }
    }

    #[inline(never)]
    pub(super) fn add(&mut self, other: &Self) {
        let mut carry = 0u64;
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            carry += u64::from(*to) + u64::from(*from);
            *to = carry as u32;
            carry >>= 32;
        }
        self.carry_in(carry as u32);
    }

    /// Turns the sign.
    pub(super) fn negate(&mut self) {
        let mut zero = Self::ZERO;
        zero.subtract(self);
        *self = zero;
    }

    #[inline(never)]
    pub(super) fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            let (difference, first) = to.overflowing_sub(*from);
            let (difference, second) = difference.overflowing_sub(u32::from(borrow));
            (*to, borrow) = (difference, first | second);
        }
        while borrow {
            let mut less = 38;
            for word in &mut self.0 {
                let (difference, under) = word.overflowing_sub(less);
                *word = difference;
                less = u32::from(under);
            }
            borrow = less != 0;
        }
    }

    #[inline(never)]
    pub(super) fn multiply(&mut self, other: &Self) {
        let mut product = [0u32; 16];
        for (i, x) in self.0.iter().enumerate() {
            // Eight places and one for the carry; there always are so many.
            let row = product.get_mut(i..i + 9).and_then(|row| row.split_last_mut());
            let Some((last, row)) = row else { break };
            let mut carry = 0;
            for (y, place) in other.0.iter().zip(row) {
                (*place, carry) = multiply_add(*x, *y, *place, carry);
            }
            *last = carry;
        }
        let mut carry = 0;
        for ((to, low), high) in self.0.iter_mut().zip(&product).zip(product.iter().skip(8)) {
            (*to, carry) = multiply_add(*high, 38, *low, carry);
        }
        self.carry_in(carry);
    }

    pub(super) fn square(&mut self) {
        let same = *self;
        self.multiply(&same);
    }

    /// The power whose exponent has 250 ones and then the lowest `len` bits of `tail`.
    #[inline(never)]
    fn power(&mut self, tail: u32, len: u32) {
        let base = *self;
        for i in (0..249 + len).rev() {
            self.square();
            if i >= len || tail >> i & 1 == 1 {
                self.multiply(&base);
            }
        }
    }

    /// The number that gives 1 with it; 0 for 0. The exponent is p - 2.
    pub(super) fn invert(&mut self) {
        self.power(0b01011, 5);
    }

    /// The power (p - 5) / 8, of which square roots are made.
    pub(super) fn root_power(&mut self) {
        self.power(0b01, 2);
    }
}

/// Low and high word of `x * y + a + b`, which two words hold always.
fn multiply_add(x: u32, y: u32, a: u32, b: u32) -> (u32, u32) {
    let sum = u64::from(x) * u64::from(y) + u64::from(a) + u64::from(b);
    (sum as u32, (sum >> 32) as u32)
}

//! Points of the curve `-x^2 + y^2 = 1 + d x^2 y^2` over the field.

use super::field::Field;
use super::words;

/// `2 d`, where `d` is -121665 / 121666.
const DOUBLE_D: Field = Field::new([
    0x26B2_F159,
    0xEBD6_9B94,
    0x8283_B156,
    0x00E0_149A,
    0xEEF3_D130,
    0x198E_80F2,
    0x56DF_FCE7,
    0x2406_D9DC,
]);
/// A square root of -1.
const ROOT: Field = Field::new([
    0x4A0E_A0B0,
    0xC4EE_1B27,
    0xAD2F_E478,
    0x2F43_1806,
    0x3DFB_D7A7,
    0x2B4D_0099,
    0x4FC1_DF0B,
    0x2B83_2480,
]);
/// The base point.
static BASE: Point = Point {
    x: Field::new([
        0x8F25_D51A,
        0xC956_2D60,
        0x9525_A7B2,
        0x692C_C760,
        0xFDD6_DC5C,
        0xC0A4_E231,
        0xCD6E_53FE,
        0x2169_36D3,
    ]),
    y: Field::new([
        0x6666_6658,
        0x6666_6666,
        0x6666_6666,
        0x6666_6666,
        0x6666_6666,
        0x6666_6666,
        0x6666_6666,
        0x6666_6666,
    ]),
    z: Field::ONE,
    t: Field::new([
        0xA5B7_DDA3,
        0x6DDE_8AB3,
        0x7751_52F5,
        0x20F0_9F80,
        0x64AB_E37D,
        0x66EA_4E8E,
        0xD78B_7665,
        0x6787_5F0F,
    ]),
};
const TWO: Field = Field::new([2, 0, 0, 0, 0, 0, 0, 0]);

/// A point in extended coordinates: `x / z`, `y / z`, and `t = x y / z`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    x: Field,
    y: Field,
    z: Field,
    t: Field,
}

impl Point {
    /// The neutral point.
    const ZERO: Self = Self { x: Field::ZERO, y: Field::ONE, z: Field::ONE, t: Field::ZERO };

    /// The point of its canonical encoding: RFC 8032, section 5.1.3.
    #[inline(never)]
    pub(super) fn decode(bytes: &[u8; 32]) -> Option<Self> {
        let mut y = words(bytes);
        let mut odd = false;
        if let Some(last) = y.last_mut() {
            odd = *last >> 31 == 1;
            *last &= u32::MAX >> 1;
        }
        let y = Field::from_canonical(y)?;
        // x^2 = u / v, both doubled.
        let mut v = y;
        v.square();
        let mut u = v;
        u.add(&v);
        u.subtract(&TWO);
        v.multiply(&DOUBLE_D);
        v.add(&TWO);
        // x = u v^3 (u v^7)^((p - 5) / 8), and maybe a root of -1 besides.
        let mut x = v;
        x.square();
        x.multiply(&v);
        let mut power = x;
        power.square();
        power.multiply(&v);
        power.multiply(&u);
        power.root_power();
        x.multiply(&u);
        x.multiply(&power);
        v.multiply(&x);
        v.multiply(&x);
        // Now v is v x^2, which has to be u or -u.
        let mut other = v;
        other.add(&u);
        v.subtract(&u);
        if !v.is_zero() {
            if !other.is_zero() {
                return None;
            }
            x.multiply(&ROOT);
        }
        if x.is_odd() != odd {
            x.negate();
        }
        // 0 has no odd one.
        if x.is_odd() != odd {
            return None;
        }
        let mut t = x;
        t.multiply(&y);
        Some(Self { x, y, z: Field::ONE, t })
    }

    /// The canonical encoding, as words.
    #[inline(never)]
    pub(super) fn encode(&self) -> [u32; 8] {
        let mut x = self.z;
        x.invert();
        let mut y = x;
        x.multiply(&self.x);
        y.multiply(&self.y);
        let mut words = y.canonical();
        if let Some(last) = words.last_mut() {
            *last |= u32::from(x.is_odd()) << 31;
        }
        words
    }

    pub(super) fn negate(&mut self) {
        self.x.negate();
        self.t.negate();
    }

    /// Adds a point, be it the same or another: RFC 8032, section 5.1.4.
    #[inline(never)]
    fn add(&mut self, other: &Self) {
        let mut a = self.y;
        a.subtract(&self.x);
        self.y.add(&self.x);
        let mut e = other.y;
        e.subtract(&other.x);
        a.multiply(&e);
        self.x = other.y;
        self.x.add(&other.x);
        self.y.multiply(&self.x);
        self.t.multiply(&other.t);
        self.t.multiply(&DOUBLE_D);
        self.z.multiply(&other.z);
        self.x = self.z;
        self.z.add(&self.x);
        // In a is A, in y B, in t C, in z D.
        e = self.y;
        e.subtract(&a);
        a.add(&self.y);
        self.y = self.z;
        self.y.add(&self.t);
        self.z.subtract(&self.t);
        self.t = a;
        self.finish(&e);
    }

    /// Adds itself: RFC 8032, section 5.1.4.
    #[inline(never)]
    fn double(&mut self) {
        let mut e = self.x;
        e.add(&self.y);
        e.square();
        self.x.square();
        self.y.square();
        self.z.square();
        // In x is A, in y B, in z half of C, and E, G and H change their signs: all four products do, and the point
        // is the same.
        self.t = self.x;
        self.t.add(&self.y);
        e.subtract(&self.t);
        self.y.subtract(&self.x);
        self.x = self.z;
        self.z.add(&self.x);
        self.z.subtract(&self.y);
        self.finish(&e);
    }

    /// The products that addition and doubling end with, of E, and F in z, G in y, H in t.
    fn finish(&mut self, e: &Field) {
        self.x = *e;
        self.x.multiply(&self.z);
        self.z.multiply(&self.y);
        self.y.multiply(&self.t);
        self.t.multiply(e);
    }

    /// Whether it times the cofactor, 8, is the neutral point. Of the points that are 8 times another only that has
    /// `x = 0`.
    #[inline(never)]
    pub(super) fn has_small_order(&self) -> bool {
        let mut point = *self;
        (0..3).for_each(|_| point.double());
        point.x.is_zero()
    }

    /// Becomes `k` times itself and `s` times the base point; both numbers are below 2^253.
    #[inline(never)]
    pub(super) fn combine(&mut self, k: &[u32; 8], s: &[u32; 8]) {
        let mut sum = Self::ZERO;
        for (k, s) in k.iter().zip(s).rev() {
            for i in (0..32).rev() {
                sum.double();
                if k >> i & 1 == 1 {
                    sum.add(self);
                }
                if s >> i & 1 == 1 {
                    sum.add(&BASE);
                }
            }
        }
        *self = sum;
    }
}

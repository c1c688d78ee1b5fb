//! Every backend gives the bits of the scalar reference.

mod elementwise;
mod gemm;
mod short;
mod window;

use std::ops::Range;

use dunlin_kernels::{Backend, Best, Scalar, available, best};

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, range: Range<usize>) -> usize {
        range.start + (self.next() >> 16) as usize % range.len()
    }

    fn i8(&mut self) -> i8 {
        (self.next() >> 24) as i8
    }

    fn bytes(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| self.i8()).collect()
    }

    fn biases(&mut self, len: usize) -> Vec<i32> {
        (0..len).map(|_| (self.next() >> 40) as i32 % 10_000 - 5_000).collect()
    }

    /// One scale or `n`, powers of two among them so that ties occur.
    fn scales(&mut self, n: usize) -> Vec<f32> {
        let len = if self.next() & 64 == 0 { 1 } else { n };
        let mut scale = || match self.next() >> 30 & 3 {
            0 => 0.5,
            1 => 0.007_812_5,
            _ => 1e-5 + (self.next() >> 40) as f32 * 1e-9,
        };
        (0..len).map(|_| scale()).collect()
    }
}

fn others() -> impl Iterator<Item = Best> {
    available().filter(|backend| backend.name() != Scalar.name())
}

/// What a backend asked to be packed, one byte off any alignment.
struct Packed(Vec<u8>);

impl Packed {
    fn new(len: usize, pack: impl FnOnce(&mut [u8])) -> Self {
        let mut all = vec![0xA5; len + 1];
        pack(&mut all[1..]);
        Self(all)
    }

    fn get(&self) -> &[u8] {
        &self.0[1..]
    }
}

#[test]
fn the_expected_backends_run() {
    let names: Vec<_> = available().map(|backend| backend.name()).collect();
    println!("backends: {}", names.join(","));
    assert_eq!(names.first(), Some(&"scalar"));
    assert_eq!(names.last(), Some(&best().name()));
    if let Ok(expected) = std::env::var("DUNLIN_EXPECT_BACKENDS") {
        assert_eq!(names.join(","), expected);
    }
}

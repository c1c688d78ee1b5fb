//! A seeded source of random numbers, so that an interval is the same wherever and whenever it is computed.

/// xoshiro256++ (Blackman and Vigna, 2019), seeded through SplitMix64.
///
/// The sequence of a seed is part of what this crate promises: intervals in stored verdicts can be computed again.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = at;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        });
        Self { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let out = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        out
    }

    /// A number in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A whole number below `n`; 0 when `n` is 0. The bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// A standard normal number (Box and Muller; one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A Gamma number with this shape and scale 1 (Marsaglia and Tsang, 2000); 0 for a shape that is not positive.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape.is_nan() || shape <= 0.0 {
            return 0.0;
        }
        if shape < 1.0 {
            let power = (1.0 - self.uniform()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.uniform();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A number of events at this mean: Knuth's product up to 30, a rounded normal number above, whose third moment
    /// is off by less than 0.2 standard deviations there.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean.is_nan() || mean <= 0.0 {
            return 0;
        }
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let limit = (-mean).exp();
        let mut product = self.uniform();
        let mut n = 0;
        while product > limit {
            product *= self.uniform();
            n += 1;
        }
        n
    }

    /// Shares drawn from a Dirichlet distribution, one a weight.
    #[must_use]
    pub fn dirichlet(&mut self, weights: &[f64]) -> Vec<f64> {
        let draws: Vec<f64> = weights.iter().map(|&w| self.gamma(w)).collect();
        let sum: f64 = draws.iter().sum();
        if sum > 0.0 {
            draws.iter().map(|d| d / sum).collect()
        } else {
            vec![1.0 / draws.len().max(1) as f64; draws.len()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementation's first numbers for seed 0 (SplitMix64 gives the state).
    #[test]
    fn the_sequence_is_that_of_the_published_generator() {
        let mut random = Random::new(0);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [5987356902031041503, 7051070477665621255, 6633766593972829180]);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::new(7);
        let n = 200_000;
        let mut mean =
            |draw: &mut dyn FnMut(&mut Random) -> f64| (0..n).map(|_| draw(&mut random)).sum::<f64>() / f64::from(n);
        assert!((mean(&mut |r| r.uniform()) - 0.5).abs() < 0.005);
        assert!(mean(&mut |r| r.normal()).abs() < 0.01);
        assert!((mean(&mut |r| r.normal().powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&mut |r| r.gamma(0.4)) - 0.4).abs() < 0.01);
        assert!((mean(&mut |r| r.gamma(5.0)) - 5.0).abs() < 0.03);
        assert!((mean(&mut |r| r.poisson(3.0) as f64) - 3.0).abs() < 0.03);
        assert!((mean(&mut |r| r.poisson(80.0) as f64) - 80.0).abs() < 0.2);
        assert!((mean(&mut |r| r.below(7) as f64) - 3.0).abs() < 0.03);
        assert_eq!((random.below(0), random.poisson(f64::NAN), random.gamma(-1.0)), (0, 0, 0.0));
    }
}

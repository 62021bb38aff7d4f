//! Random numbers that are a function of a seed and a stream alone.

/// SplitMix64: the n-th number is a hash of the key and n.
///
/// Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators".
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Rng {
    /// Sequence number `stream` of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(GOLDEN))))
    }

    /// The next 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number in [0, 1), a multiple of 2⁻⁵³.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Box & Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A bijection of 64 bits in which every input bit reaches every output bit.
#[inline(always)]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_deviation_one() {
        let mut rng = Rng::new(1, 0);
        let n = 100_000;
        let (sum, squares) = (0..n).map(|_| rng.normal()).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        // The mean of n draws deviates by 1/√n = 0.003, the mean square by √(2/n) = 0.0045: five deviations.
        assert!((sum / f64::from(n)).abs() < 0.016 && (squares / f64::from(n) - 1.0).abs() < 0.023);
    }
}

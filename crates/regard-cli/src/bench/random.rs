//! Random numbers of the benchmark: never zeros, on which some machines run faster.

use regard::{Element, Tensor};

/// A linear congruential generator with Knuth's MMIX constants: the same numbers everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// In `[0, 1)`, with 24 bits.
    pub(super) fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// One of `0..n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f32) as usize
    }

    /// Standard normal, by Box and Muller's transform.
    pub(super) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }

    /// The sum of four uniform numbers: near enough to normal for arithmetic.
    pub(super) fn tensor<T: Element>(&mut self, shape: [usize; 4]) -> Result<Tensor<T>, regard::Error> {
        let mut normal = || T::from_f32(1.7 * ((0..4).map(|_| self.uniform()).sum::<f32>() - 2.0));
        Tensor::from_vec((0..shape.iter().product()).map(|_| normal()).collect(), shape)
    }
}

/// Any `n` tokens, others for each text.
pub(super) fn tokens(vocab_size: usize, text: usize, n: usize) -> Vec<u32> {
    let at = |i: u64| ((i * 2_654_435_761 + text as u64 * 40_503 + 12_345) >> 7) % vocab_size as u64;
    (0..n as u64).map(|i| at(i) as u32).collect()
}

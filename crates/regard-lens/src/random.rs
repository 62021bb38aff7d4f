//! Random tokens, the same everywhere.

use regard_nn::Model;

/// A stream of numbers. Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `n`, at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// Draws the first `n` of all, at most as many as there are, in order of being drawn; the rest follows in any.
pub(crate) fn shuffle<T>(all: &mut [T], n: usize, random: &mut Random) {
    for i in 0..n {
        let j = i + random.below(all.len() - i);
        all.swap(i, j);
    }
}

/// Tokens that may be drawn: those of a model but for its marks.
pub(crate) struct Vocabulary {
    tokens: Vec<u32>,
    /// What a text begins with.
    pub(crate) begin: Option<u32>,
}

impl Vocabulary {
    pub(crate) fn of(model: &Model, vocab_size: usize, begin: Option<u32>) -> Self {
        let marks: Vec<u32> = model.ends().iter().copied().chain(begin).collect();
        let size = vocab_size.min(model.tokenizer().vocab_size()) as u32;
        Vocabulary { tokens: (0..size).filter(|token| !marks.contains(token)).collect(), begin }
    }

    /// `n` tokens, none of them twice where there are as many, and none of those of `without`.
    pub(crate) fn draw(&self, n: usize, without: &[u32], random: &mut Random) -> Vec<u32> {
        let mut all: Vec<u32> = self.tokens.iter().copied().filter(|token| !without.contains(token)).collect();
        let fresh = n.min(all.len());
        shuffle(&mut all, fresh, random);
        (0..n).map(|i| all.get(i % fresh.max(1)).copied().unwrap_or_default()).collect()
    }
}

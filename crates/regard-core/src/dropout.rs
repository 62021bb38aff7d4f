//! Dropout of attention probabilities as a pure function of position.

use crate::{Error, Pair, Result};

/// Drops each probability with chance `p` and scales the others by `1 / (1 − p)`.
///
/// The decision is Philox4x32-10 of (seed, batch, head, q, kv): independent of tiles, threads and batch order, and made again,
/// not stored, by the backward pass.
///
/// Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", §3.3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    p: f32,
    seed: u64,
}

impl Dropout {
    /// # Errors
    /// When `p` is not within 0 and 1.
    pub fn new(p: f32, seed: u64) -> Result<Self> {
        if (0.0..=1.0).contains(&p) {
            return Ok(Dropout { p, seed });
        }
        Err(Error::Value { what: "dropout", given: p.into(), needed: "between 0 and 1" })
    }

    /// What the probability of the pair is multiplied by: 0 or `1 / (1 − p)`.
    #[inline]
    pub fn factor(&self, at: Pair) -> f32 {
        let words = philox([at.q, at.kv / 4, at.head, at.batch], self.key());
        self.of_word(words[at.kv as usize % 4])
    }

    /// The factors of keys `4·n..4·n + 4` of the pair's query.
    #[inline]
    pub fn factors(&self, at: Pair, n: u32) -> [f32; 4] {
        philox([at.q, n, at.head, at.batch], self.key()).map(|w| self.of_word(w))
    }

    fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    #[inline(always)]
    fn of_word(&self, word: u32) -> f32 {
        let uniform = (word >> 8) as f32 * (1.0 / (1 << 24) as f32); // [0, 1)
        if uniform < self.p { 0.0 } else { 1.0 / (1.0 - self.p) }
    }
}

/// Philox4x32 with ten rounds.
#[inline(always)]
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53 * u64::from(counter[0]), 0xCD9E_8D57 * u64::from(counter[2]));
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123's `kat_vectors`, philox4x32 10.
    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(pi, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn a_pair_has_one_factor_however_it_is_asked() {
        let dropout = Dropout::new(0.3, 7).unwrap();
        let at = Pair { batch: 1, head: 2, q: 3, ..Pair::default() };
        let four = dropout.factors(at, 5);
        assert_eq!(four, [20, 21, 22, 23].map(|kv| dropout.factor(at.with(3, kv))));
    }
}

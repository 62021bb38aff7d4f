//! The largest scores of each row.

/// The `k` largest scores of some rows with their keys, largest first; of equal ones, the earlier key first.
#[derive(Default)]
pub(crate) struct Top {
    k: usize,
    /// `[rows, k]`, −∞ where there is none yet.
    scores: Vec<f32>,
    keys: Vec<u32>,
}

impl Top {
    pub(crate) fn new(k: usize, rows: usize) -> Self {
        Top { k, scores: vec![f32::NEG_INFINITY; k * rows], keys: vec![u32::MAX; k * rows] }
    }

    /// The scores of a tile, `[keys, width]`, whose keys begin at `first`; `largest` is the largest of each row.
    #[inline(always)]
    pub(crate) fn take(&mut self, first: usize, s: &[f32], largest: &[f32]) {
        let (k, width) = (self.k, largest.len());
        let rows = self.scores.chunks_exact_mut(k).zip(self.keys.chunks_exact_mut(k));
        for (lane, ((scores, keys), largest)) in rows.zip(largest).enumerate() {
            if *largest > scores[k - 1] {
                for (j, s) in s[lane..].iter().step_by(width).enumerate() {
                    if *s > scores[k - 1] {
                        insert(scores, keys, *s, (first + j) as u32);
                    }
                }
            }
        }
    }

    /// Those of a row.
    pub(crate) fn row(&self, row: usize) -> (&[f32], &[u32]) {
        (&self.scores[row * self.k..][..self.k], &self.keys[row * self.k..][..self.k])
    }
}

/// Puts a score behind all that are not less, in place of the least.
#[inline(always)]
fn insert(scores: &mut [f32], keys: &mut [u32], s: f32, key: u32) {
    let mut i = scores.len() - 1;
    while i > 0 && scores[i - 1] < s {
        (scores[i], keys[i]) = (scores[i - 1], keys[i - 1]);
        i -= 1;
    }
    (scores[i], keys[i]) = (s, key);
}

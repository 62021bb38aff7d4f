//! The mask of a case.

use std::error::Error;

use regard::{Blocks, Causal, Documents, Mask, Window};

use super::case::{BigBird, Case};
use super::random::Random;

/// What is done with the mask of a case, whatever its type.
pub(super) trait Masked {
    type Out;

    fn with<M: Mask + Send + 'static>(self, mask: M) -> Result<Self::Out, Box<dyn Error>>;
}

impl Case {
    /// Makes the mask, and does that with it.
    pub(super) fn masked<J: Masked>(&self, job: J) -> Result<J::Out, Box<dyn Error>> {
        let causal = self.causal.then_some(Causal::LowerRight);
        match (self.window, &self.documents, self.blocks) {
            (None, None, None) => job.with(causal),
            (Some(keys), None, None) => job.with(Window { left: keys - 1, right: 0 }),
            (None, Some(lengths), None) => job.with(Documents::new(&bounds(lengths), causal)?),
            (None, None, Some(blocks)) => job.with(blocks.mask(self.sizes[3])?),
            _ => Err(format!("the case {:?} has more than one of window, documents and blocks", self.name).into()),
        }
    }
}

fn bounds(lengths: &[u32]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    [0].into_iter().chain(ends).collect()
}

impl BigBird {
    fn mask(self, len: usize) -> Result<Blocks, regard::Error> {
        let n = len.div_ceil(self.size);
        let mut random = Random::new(9);
        let mut map = vec![false; n * n];
        for (i, row) in map.chunks_exact_mut(n.max(1)).enumerate() {
            for (j, seen) in row.iter_mut().enumerate() {
                *seen = 2 * i.abs_diff(j) < self.window || i < self.global || j < self.global;
            }
            (0..self.random).for_each(|_| row[random.below(n)] = true);
        }
        Blocks::new(self.size as u32, self.size as u32, map, [1, 1, n, n])
    }
}

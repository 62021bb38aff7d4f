//! Bias: an array added to the scores, broadcastable, with a gradient of its own where wanted.

use std::ops::Range;

use crate::mask::{PIECE, TILE_PAIRS};
use crate::{BiasSink, Element, Pair, Patch, Result, Score, Shape, Slope, View};

/// `s → s + bias[batch, head, q, kv]`; any of the four sizes may be 1 to repeat. An element of −∞ hides its pair, whatever its score is,
/// and tiles that it hides are skipped. Elements may be f32, f16 or bf16, whatever the queries are, and are read as f32; the gradient
/// is f32.
///
/// Source: Raffel et al. 2020 (T5), §2.1 for the relative form; PyTorch's floating-point `attn_mask`.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a, T = f32> {
    array: View<'a, T>,
    gradient: bool,
}

impl<'a, T: Element> Bias<'a, T> {
    /// A bias that is a constant.
    pub fn new(array: View<'a, T>) -> Self {
        Bias { array, gradient: false }
    }

    /// The backward pass also returns the gradient of the bias, summed over the sizes that repeat (one more pass over the tiles).
    pub fn with_gradient(self) -> Self {
        Bias { gradient: true, ..self }
    }
}

/// Keys whose bias is turned at once: a line of memory of f32.
const TURNED: usize = 16;

/// Fewer queries read their elements as they come.
const FEW: usize = 8;

/// `s + bias`, and −∞ where that hides: a score there may be NaN or +∞.
#[inline(always)]
fn biased(s: f32, bias: f32) -> f32 {
    if bias == f32::NEG_INFINITY { bias } else { s + bias }
}

impl<T: Element> Bias<'_, T> {
    /// Whether the elements of some keys are neighbours, or one.
    fn lies_along_keys(&self) -> bool {
        self.array.shape()[3] == 1 || self.array.strides()[3] == 1
    }

    /// The elements of up to [`TURNED`] keys, the first of which is that of `p`.
    #[inline(always)]
    fn keys(&self, keys: &Range<u32>, p: Pair) -> [f32; TURNED] {
        let mut row = [f32::NEG_INFINITY; TURNED];
        match self.array.broadcast_keys(keys, p) {
            Some([one]) => row.fill(one.to_f32()),
            Some(all) => T::widen(all, &mut row[..all.len()]),
            None => {}
        }
        row
    }
}

impl<T: Element> Score for Bias<'_, T> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        biased(s, self.array.broadcast_at(p).map_or(f32::NEG_INFINITY, T::to_f32))
    }

    /// An array lies along its keys, a tile along its queries: a few keys at a time are turned, so that each line of memory is read once.
    #[inline(always)]
    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        let (lanes, width, at) = (patch.lanes.clone(), patch.width, patch.at);
        if !(FEW..=PIECE).contains(&lanes.len()) || !self.lies_along_keys() {
            return patch.rows(s).for_each(|(at, row)| self.score_row(at, row));
        }
        for (few, s) in (0..patch.keys).step_by(TURNED).zip(s.chunks_mut(TURNED * width)) {
            let keys = at.kv + few as u32..at.kv + (few + TURNED).min(patch.keys) as u32;
            let mut turned = [[0.0; PIECE]; TURNED];
            for i in 0..lanes.len() {
                let row = self.keys(&keys, at.with(at.q + i as u32, keys.start));
                turned.iter_mut().zip(row).for_each(|(to, bias)| to[i] = bias);
            }
            for (row, bias) in s.chunks_mut(width).zip(&turned).take(keys.len()) {
                row[lanes.clone()].iter_mut().zip(bias).for_each(|(s, bias)| *s = biased(*s, *bias));
            }
        }
    }

    fn hides_tile(&self, q: &Range<u32>, kv: &Range<u32>, at: Pair) -> bool {
        q.len() * kv.len() <= TILE_PAIRS
            && self.lies_along_keys()
            && q.clone().all(|q| {
                let mut few = kv.clone().step_by(TURNED).map(|key| key..(key + TURNED as u32).min(kv.end));
                few.all(|keys| {
                    let row = self.keys(&keys, at.with(q, keys.start));
                    row[..keys.len()].iter().fold(true, |all, bias| all & (*bias == f32::NEG_INFINITY))
                })
            })
    }

    fn hides(&self) -> Option<[usize; 4]> {
        first_hidden(&self.array)
    }

    fn reveals(&self) -> bool {
        false
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        shape.broadcasts("bias", self.array.shape())
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.gradient.then(|| self.array.shape())
    }
}

/// Index of the first −∞.
pub(super) fn first_hidden<T: Element>(array: &View<'_, T>) -> Option<[usize; 4]> {
    let [b, h, q, kv] = array.shape();
    let mut index = (0..b * h * q * kv).map(|i| [i / kv / q / h, i / kv / q % h, i / kv % q, i % kv]);
    index.find(|&i| array.at(i).to_f32() == f32::NEG_INFINITY)
}

impl<T: Element> Slope for Bias<'_, T> {
    #[inline(always)]
    fn slope(&self, _: f32, _: Pair) -> f32 {
        1.0
    }

    #[inline(always)]
    fn pull(&self, _: f32, p: Pair, ds: f32, bias: &mut dyn BiasSink) -> f32 {
        if self.gradient {
            bias.add(p, ds);
        }
        ds
    }
}

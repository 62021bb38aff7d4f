//! The two masks that multi-head attention needs and regard has no noun for: an owned array, and causality beside extra keys.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use regard::{Causal, Mask, Pair, TILE_PAIRS, Tile};

use crate::Result;

/// Causality among the keys of the text; the `extra` keys after them belong to the layer, and every query sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) causal: Causal,
    pub(crate) extra: u32,
}

impl Mask for Beside {
    #[inline(always)]
    fn keep(&self, mut p: Pair) -> bool {
        p.len.kv -= self.extra;
        (p.kv >= p.len.kv) | self.causal.keep(p)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, mut at: Pair) -> Tile {
        at.len.kv -= self.extra;
        if kv.end <= at.len.kv { self.causal.tile(q, kv, at) } else { Tile::Mixed }
    }
}

/// Who is seen, as an owned array `[batch, heads, q_len, kv_len]` in which sizes of 1 repeat.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    values: Arc<[bool]>,
    strides: [usize; 4],
}

impl Seen {
    /// From an array in PyTorch's sense, in which true hides; `extra` more keys are seen by all.
    pub(crate) fn unless(hidden: &Tensor, shape: [usize; 4], extra: usize) -> Result<Self> {
        let hidden: Vec<u8> = hidden.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
        let row = |row: &[u8]| row.iter().map(|&hidden| hidden == 0).chain((0..extra).map(|_| true)).collect::<Vec<_>>();
        let values = hidden.chunks(shape[3].max(1)).flat_map(row).collect();
        let [_, heads, q_len, kv_len] = shape;
        let kv_len = kv_len + extra;
        let strides = [heads * q_len * kv_len, q_len * kv_len, kv_len, 1];
        let repeats = |axis: usize| axis < 3 && shape[axis] == 1;
        Ok(Seen { values, strides: std::array::from_fn(|axis| if repeats(axis) { 0 } else { strides[axis] }) })
    }
}

impl Mask for Seen {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        let at: usize = [p.batch, p.head, p.q, p.kv].into_iter().zip(self.strides).map(|(i, stride)| i as usize * stride).sum();
        self.values.get(at).copied().unwrap_or(false)
    }

    /// Reads the whole tile: a fraction of what computing it would cost.
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        if q.len() * kv.len() > TILE_PAIRS {
            return Tile::Mixed;
        }
        let first = self.keep(at.with(q.start, kv.start));
        let mut pairs = q.flat_map(|q| kv.clone().map(move |kv| at.with(q, kv)));
        match pairs.all(|pair| self.keep(pair) == first) {
            true if first => Tile::Clear,
            true => Tile::Hidden,
            false => Tile::Mixed,
        }
    }
}

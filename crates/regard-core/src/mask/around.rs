//! Local attention: the keys around a centre that each query names.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Error, Result, Shape, View};

/// Visible when `|kv − centre| ≤ radius`, where `centre` is an element of an array `[batch, q_heads, q_len, 1]`, any of the first
/// three 1 to repeat.
///
/// Centres are positions among the keys, and need not be whole: use it in cross-attention, where a [`Window`](crate::Window) has no
/// common position to follow. With the centres 0, 1, 2, … it is the paper's local-m (monotonic alignment); with predicted centres
/// `Lkv · sigmoid(…)` and a [`Gaussian`](crate::Gaussian) of deviation `radius / 2` as the score, its local-p.
///
/// Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", §3.2.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The centres, in keys.
    pub centres: View<'a, f32>,
    /// Keys seen on each side of a centre; the paper's `D`.
    pub radius: f32,
}

impl Around<'_> {
    #[inline(always)]
    fn centre(&self, p: Pair) -> f32 {
        self.centres.broadcast_at(p).unwrap_or(f32::NAN)
    }
}

impl Mask for Around<'_> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        (p.kv as f32 - self.centre(p)).abs() <= self.radius
    }

    /// Reads the centre of every query of the tile.
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (mut some, mut all) = (false, true);
        for row in q {
            let centre = self.centre(at.with(row, 0));
            let nearest = centre.round().clamp(kv.start as f32, (kv.end - 1) as f32);
            some |= (nearest - centre).abs() <= self.radius;
            all &= self.keep(at.with(row, kv.start)) && self.keep(at.with(row, kv.end - 1));
        }
        match (some, all) {
            (false, _) => Tile::Hidden,
            (true, true) => Tile::Clear,
            (true, false) => Tile::Mixed,
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        if !(self.radius >= 0.0 && self.radius.is_finite()) {
            return Err(Error::Value { what: "radius around the centres", given: self.radius.into(), needed: "finite, 0 or more" });
        }
        check_centres(&self.centres, shape)
    }
}

/// Checks that there is one finite centre for each query.
pub(crate) fn check_centres(centres: &View<'_, f32>, shape: &Shape) -> Result<()> {
    let [b, h, q, one] = centres.shape();
    crate::shape::same("centres", "elements for each query", one, 1, "a position among the keys")?;
    shape.broadcasts("centres", centres.shape())?;
    let mut all = (0..b * h * q).map(|i| centres.at([i / q / h, i / q % h, i % q, 0]));
    match all.find(|centre| !centre.is_finite()) {
        Some(given) => Err(Error::Value { what: "a centre", given: given.into(), needed: "finite" }),
        None => Ok(()),
    }
}

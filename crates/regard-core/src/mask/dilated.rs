//! Dilated window: a sliding window with gaps.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Error, Result};

/// Visible when `kv = q_abs + i · dilation` with `−left ≤ i ≤ right`, where `q_abs = q + (Lkv − Lq)`.
///
/// `left` and `right` count the keys that are seen, as in [`Window`](crate::Window), which is the dilation of 1; `u32::MAX` is no
/// bound. Use it in some heads, beside plain windows in others, to reach `dilation` times as far for the same number of keys.
/// Its gaps are narrower than a tile: a tile of 64 keys is skipped beyond the ends of the window, and inside where the dilation
/// is larger than 127.
///
/// Source: Beltagy et al. 2020, "Longformer", §3.1 (dilated sliding window).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dilated {
    left: u32,
    right: u32,
    dilation: i32,
}

impl Dilated {
    /// `left` keys before the query's own position and `right` after it, each `dilation` from the next.
    ///
    /// # Errors
    /// When the dilation is not from 1 to 2³⁰.
    pub fn new(left: u32, right: u32, dilation: u32) -> Result<Self> {
        let dilation = distance("dilation of a window", dilation)?;
        Ok(Dilated { left, right, dilation })
    }

    /// The least and the largest `q_abs − kv` that is seen.
    #[inline(always)]
    fn bounds(&self) -> (i32, i32) {
        let reach = |keys: u32| i32::try_from(keys).unwrap_or(i32::MAX).saturating_mul(self.dilation);
        (-reach(self.right), reach(self.left))
    }
}

impl Mask for Dilated {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        let ((low, high), distance) = (self.bounds(), p.q_abs() - p.kv as i32);
        (distance >= low) & (distance <= high) & (distance % self.dilation == 0)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (nearest, furthest) = distances(&q, &kv, at);
        let (low, high) = (self.bounds().0.max(nearest), self.bounds().1.min(furthest));
        let last = high.div_euclid(self.dilation) * self.dilation; // the last multiple that is seen, if any is
        if low > high || last < low {
            Tile::Hidden
        } else if (low, high) == (nearest, furthest) && (self.dilation == 1 || low == high) {
            Tile::Clear
        } else {
            Tile::Mixed
        }
    }
}

/// The least and the largest `q_abs − kv` in a tile, where every number between occurs.
pub(super) fn distances(q: &Range<u32>, kv: &Range<u32>, at: Pair) -> (i32, i32) {
    (at.abs(q.start) - (kv.end - 1) as i32, at.abs(q.end - 1) - kv.start as i32)
}

/// A distance in keys, as far as positions go.
pub(super) fn distance(what: &'static str, given: u32) -> Result<i32> {
    if (1..=1 << 30).contains(&given) {
        return Ok(given as i32);
    }
    Err(Error::Value { what, given: given.into(), needed: "from 1 to 2^30" })
}

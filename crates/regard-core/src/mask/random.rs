//! Random keys: each query sees some keys drawn at random, always the same for the same seed.

use std::ops::Range;

use crate::dropout::philox;
use crate::mask::{Mask, Pair, Tile};
use crate::view::{elements, room};
use crate::{Error, Result, Shape};

/// Visible when `kv` is one of the keys that were drawn for `q_abs = q + (Lkv − Lq)`.
///
/// Random edges make every key reachable from every query in a few layers. Use it at the scale of blocks
/// ([`Blockwise`](crate::Blockwise)), in a union with a window and global tokens: single random keys leave no tile hidden.
///
/// The draw is without replacement from all positions, and a pure function of seed, head and position by Philox4x32-10.
///
/// Source: Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", §2 (random attention).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomKeys {
    /// `[heads, len, each]`, increasing in each row.
    keys: Vec<u32>,
    each: usize,
    heads: usize,
    len: usize,
}

impl RandomKeys {
    /// `each` keys for every query of `heads` heads (or 1, the same for all), drawn from `len` positions: those of the longest
    /// sequence, so that a query's keys do not change while a cache grows.
    ///
    /// # Errors
    /// When there are fewer than `each` positions, `each` is above 2¹⁶, or there is no memory for the keys.
    pub fn new(each: u32, [heads, len]: [usize; 2], seed: u64) -> Result<Self> {
        if each as usize > len.min(1 << 16) || len >= 1 << 30 {
            let (what, needed) = ("number of random keys", "at most 2^16 and the number of positions, which is below 2^30");
            return Err(Error::Value { what, given: each.into(), needed });
        }
        let shape = [1, heads, len, each.max(1) as usize];
        let mut keys = room("random keys", &shape, elements("random keys", shape)?)?;
        for row in 0..heads * len {
            let first = keys.len();
            draw(&mut keys, each, (row / len) as u32, (row % len, len), seed);
            keys[first..].sort_unstable();
        }
        Ok(RandomKeys { keys, each: each as usize, heads, len })
    }

    /// The keys of one query.
    #[inline(always)]
    fn row(&self, head: u32, q_abs: i32) -> &[u32] {
        let head = if self.heads == 1 { 0 } else { head as usize };
        match usize::try_from(q_abs) {
            Ok(q) if q < self.len => {
                self.keys.get((head * self.len + q) * self.each..).and_then(|rows| rows.get(..self.each)).unwrap_or(&[])
            }
            _ => &[],
        }
    }
}

/// Appends `each` of `len` numbers, every set of them as likely as any other. Source: Floyd, in Bentley 1987, "A Sample of
/// Brilliance", algorithm F2.
fn draw(keys: &mut Vec<u32>, each: u32, head: u32, (q, len): (usize, usize), seed: u64) {
    let (first, key) = (keys.len(), [seed as u32, (seed >> 32) as u32]);
    for top in len as u32 - each..len as u32 {
        let word = philox([q as u32, top, head, u32::MAX], key)[0];
        let drawn = ((u64::from(word) * (u64::from(top) + 1)) >> 32) as u32; // 0..=top
        let known = keys[first..].contains(&drawn);
        keys.push(if known { top } else { drawn });
    }
}

impl Mask for RandomKeys {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.row(p.head, p.q_abs()).contains(&p.kv)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let seen = |q| self.row(at.head, at.abs(q)).iter().filter(|key| kv.contains(*key)).count();
        let (some, all) = q.map(seen).fold((false, true), |(some, all), n| (some | (n > 0), all & (n == kv.len())));
        match (some, all) {
            (false, _) => Tile::Hidden,
            (true, true) => Tile::Clear,
            (true, false) => Tile::Mixed,
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        if self.heads != 1 {
            crate::shape::same("random keys", "heads", self.heads, shape.q_heads, "as the query has (or 1 for all)")?;
        }
        if self.len < shape.kv_len {
            let (given, needed, why) = (self.len, shape.kv_len, "the length of the keys, or more");
            return Err(Error::Size { what: "random keys", dim: "positions", given, needed, why });
        }
        Ok(())
    }
}

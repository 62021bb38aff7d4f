//! Relative position bias: a learned number for each head and bucket of distances.

use crate::score::bias::first_hidden;
use crate::{BiasSink, Error, Pair, Result, Score, Shape, Slope, View};

/// `s → s + table[head, bucket(kv − q_abs)]`, where `q_abs = q + (Lkv − Lq)`, and `table` is `[1, q_heads, 1, buckets]`; 1 head
/// repeats.
///
/// Half of the buckets hold one distance each; the others grow logarithmically up to `max_distance`, and the last holds all beyond:
///
/// ```text
///   bucket(n) = n                                           for n < e = half of the buckets
///             = e + ⌊e · ln(n / e) / ln(max_distance / e)⌋    above, at most the last
/// ```
///
/// Use it for models of T5's kind, or where positions must reach far with few parameters. Memory is that of the table, forward and
/// backward, not of a bias of `q_len × kv_len`.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (T5), §2.1; buckets as the authors' code makes them.
#[derive(Clone, Debug)]
pub struct RelativeBias<'a> {
    table: View<'a, f32>,
    /// The bucket of each distance up to the largest.
    buckets: Vec<u32>,
    /// What keys after the query add to their bucket; none where they count as level with it.
    after: Option<u32>,
    gradient: bool,
}

impl<'a> RelativeBias<'a> {
    /// For encoders: keys before and after the query have half of the buckets each.
    ///
    /// # Errors
    /// When the table has not one row for each head, the number of its buckets is not a multiple of 4, or `max_distance` is not
    /// more than a quarter of them.
    pub fn bidirectional(table: View<'a, f32>, max_distance: u32) -> Result<Self> {
        let buckets = table.shape()[3] as u32;
        if buckets == 0 || !buckets.is_multiple_of(4) {
            let (what, needed) = ("number of buckets of a bidirectional relative bias", "a positive multiple of 4");
            return Err(Error::Value { what, given: buckets.into(), needed });
        }
        Self::new(table, buckets / 2, Some(buckets / 2), max_distance)
    }

    /// For decoders: all buckets are for keys before the query, and those after it are in bucket 0.
    ///
    /// # Errors
    /// When the table has not one row for each head, the number of its buckets is not even, or `max_distance` is not more than half
    /// of them.
    pub fn causal(table: View<'a, f32>, max_distance: u32) -> Result<Self> {
        let buckets = table.shape()[3] as u32;
        if buckets == 0 || !buckets.is_multiple_of(2) {
            let (what, needed) = ("number of buckets of a causal relative bias", "a positive multiple of 2");
            return Err(Error::Value { what, given: buckets.into(), needed });
        }
        Self::new(table, buckets, None, max_distance)
    }

    fn new(table: View<'a, f32>, side: u32, after: Option<u32>, max_distance: u32) -> Result<Self> {
        let exact = side / 2;
        crate::shape::same("relative bias", "query positions", table.shape()[2], 1, "as its table is [1, q_heads, 1, buckets]")?;
        if max_distance <= exact || max_distance > 1 << 20 {
            let (what, needed) =
                ("largest distance of a relative bias", "more than half of the buckets of a side, and at most 2^20");
            return Err(Error::Value { what, given: max_distance.into(), needed });
        }
        // In f32, operation by operation as the authors' code: a boundary between buckets may lie one distance off otherwise.
        let log = |n: u32| (n as f32 / exact as f32).ln() / (f64::from(max_distance) / f64::from(exact)).ln() as f32;
        let far = |n: u32| (exact + (log(n) * exact as f32) as u32).min(side - 1);
        let buckets = (0..=max_distance).map(|n| if n < exact { n } else { far(n) }).collect();
        Ok(RelativeBias { table, buckets, after, gradient: false })
    }

    /// The backward pass also returns the gradient of the table, where that of a bias would be (one more pass over the tiles).
    pub fn with_gradient(self) -> Self {
        RelativeBias { gradient: true, ..self }
    }

    /// The bucket of a key that is `relative = kv − q_abs` positions after the query.
    #[inline(always)]
    pub fn bucket(&self, relative: i32) -> u32 {
        let (offset, distance) = match self.after {
            Some(after) if relative > 0 => (after, relative.unsigned_abs()),
            None if relative > 0 => (0, 0),
            _ => (0, relative.unsigned_abs()),
        };
        offset + self.buckets[(distance as usize).min(self.buckets.len() - 1)]
    }

    /// The pair as the element of the table that it reads.
    #[inline(always)]
    fn element(&self, p: Pair) -> Pair {
        p.with(0, self.bucket(p.kv as i32 - p.q_abs()))
    }
}

impl Score for RelativeBias<'_> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        s + self.table.broadcast_at(self.element(p)).unwrap_or(0.0)
    }

    fn hides(&self) -> Option<[usize; 4]> {
        first_hidden(&self.table)
    }

    fn reveals(&self) -> bool {
        false
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.gradient.then(|| self.table.shape())
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        let [batch, heads, ..] = self.table.shape();
        crate::shape::same("relative bias", "sequences", batch, 1, "the same for all")?;
        shape.broadcasts("relative bias", [1, heads, 1, 1])
    }
}

impl Slope for RelativeBias<'_> {
    #[inline(always)]
    fn slope(&self, _: f32, _: Pair) -> f32 {
        1.0
    }

    #[inline(always)]
    fn pull(&self, _: f32, p: Pair, ds: f32, table: &mut dyn BiasSink) -> f32 {
        if self.gradient {
            table.add(self.element(p), ds);
        }
        ds
    }
}

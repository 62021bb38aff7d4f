//! The sizes of one attention problem, and the checks that its arguments fit together.

use crate::{Element, Error, Kv, Lens, Pair, Result, View};

/// The sizes of one attention problem: q `[batch, q_heads, q_len, head_dim]`, k `[batch, kv_heads, kv_len, head_dim]`,
/// v `[batch, kv_heads, kv_len, value_dim]`, out `[batch, q_heads, q_len, value_dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub q_heads: usize,
    /// Key/value heads; divides `q_heads`.
    pub kv_heads: usize,
    /// Queries in each sequence.
    pub q_len: usize,
    /// Keys in the longest sequence.
    pub kv_len: usize,
    /// Keys in each sequence, where they differ (a paged cache); empty where all have `kv_len`.
    pub kv_lens: Vec<usize>,
    /// Elements of a query and of a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

impl Shape {
    /// The sizes of `q` against `kv`.
    ///
    /// # Errors
    /// When the arguments do not fit together, by name.
    pub fn of<T: Element>(q: &View<'_, T>, kv: &Kv<'_, T>) -> Result<Shape> {
        let [batch, q_heads, q_len, head_dim] = q.shape();
        let [kv_batch, kv_heads, kv_len, k_dim] = kv.key_shape()?;
        same("keys", "sequences", kv_batch, batch, "as the query has")?;
        same("keys", "elements in each head", k_dim, head_dim, "as the query has")?;
        if let Kv::Dense { k, v } = kv {
            let [v_batch, v_heads, v_len, _] = v.shape();
            same("values", "sequences", v_batch, k.shape()[0], "as the keys have")?;
            same("values", "heads", v_heads, k.shape()[1], "as the keys have")?;
            same("values", "positions", v_len, k.shape()[2], "as the keys have")?;
        }
        let divides = if kv_heads == 0 { q_heads == 0 } else { q_heads.is_multiple_of(kv_heads) };
        if !divides {
            return Err(Error::Heads { q_heads, kv_heads });
        }
        // Positions are u32 and q_abs is i32, so that masks vectorise at full width.
        for (what, n) in [("query length", q_len), ("key length", kv_len), ("batch", batch), ("heads", q_heads)] {
            if n >= 1 << 30 {
                return Err(Error::Value { what, given: n as f64, needed: "below 2^30" });
            }
        }
        let shape = Shape { batch, q_heads, kv_heads, q_len, kv_len, kv_lens: kv.lengths(), head_dim, value_dim: kv.value_dim() };
        crate::view::elements("output", shape.out())?;
        Ok(shape)
    }

    /// Query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.q_heads.checked_div(self.kv_heads).unwrap_or(0)
    }

    /// Keys of sequence `b`.
    pub fn keys(&self, b: usize) -> usize {
        self.kv_lens.get(b).copied().unwrap_or(self.kv_len)
    }

    /// The pair (query `q`, key `kv`) of one head.
    pub fn pair(&self, batch: usize, head: usize, q: usize, kv: usize) -> Pair {
        let len = Lens { q: self.q_len as u32, kv: self.keys(batch) as u32 };
        Pair { batch: batch as u32, head: head as u32, q: q as u32, kv: kv as u32, len }
    }

    /// Pairs of query and key over all heads, hidden ones too.
    pub fn pairs(&self) -> usize {
        let of_head = |batch| self.q_len.saturating_mul(self.keys(batch));
        (0..self.batch).map(of_head).fold(0, usize::saturating_add).saturating_mul(self.q_heads)
    }

    /// `[batch, q_heads, q_len, value_dim]`.
    pub fn out(&self) -> [usize; 4] {
        [self.batch, self.q_heads, self.q_len, self.value_dim]
    }

    /// `[batch, q_heads, q_len, kv_len]`.
    pub fn scores(&self) -> [usize; 4] {
        [self.batch, self.q_heads, self.q_len, self.kv_len]
    }

    /// Checks that an array of shape `given` broadcasts to the scores.
    ///
    /// # Errors
    /// When a size is neither 1 nor that of the scores.
    pub fn broadcasts(&self, what: &'static str, given: [usize; 4]) -> Result<()> {
        let scores = self.scores();
        if given.iter().zip(&scores).all(|(&g, &s)| g == s || g == 1) {
            return Ok(());
        }
        Err(Error::Broadcast { what, given, scores })
    }
}

/// Checks one size of one argument.
pub(crate) fn same(what: &'static str, dim: &'static str, given: usize, needed: usize, why: &'static str) -> Result<()> {
    if given == needed { Ok(()) } else { Err(Error::Size { what, dim, given, needed, why }) }
}

//! Documents: sequences of any lengths packed end to end, each attending only to itself.

use std::ops::Range;

use crate::mask::{Lens, Mask, Pair, Tile};
use crate::{Error, Result, Shape};

/// A query sees the keys of its own document, where `inner` shows them; `inner` gets positions and lengths local to the document.
///
/// Use it to train or encode many short texts in one sequence without padding: what lies between documents costs nothing.
///
/// Source: the `cu_seqlens` of variable-length attention, Dao 2023, "FlashAttention-2".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents<M = ()> {
    q_bounds: Vec<u32>,
    kv_bounds: Vec<u32>,
    inner: M,
}

impl<M: Mask> Documents<M> {
    /// Documents with as many queries as keys: document `i` is `bounds[i]..bounds[i + 1]`, `bounds` starts at 0, does not
    /// decrease, and ends at the packed length. `inner` masks each document.
    ///
    /// # Errors
    /// When the bounds do not start at 0, decrease, or reach 2³⁰.
    pub fn new(bounds: &[u32], inner: M) -> Result<Self> {
        Self::with_keys(bounds, bounds, inner)
    }

    /// Documents whose numbers of queries and of keys differ: `q_bounds` and `kv_bounds` have the same number of entries.
    ///
    /// # Errors
    /// When bounds do not start at 0, decrease, reach 2³⁰, or differ in number.
    pub fn with_keys(q_bounds: &[u32], kv_bounds: &[u32], inner: M) -> Result<Self> {
        let (given, needed) = (kv_bounds.len(), q_bounds.len());
        crate::shape::same("key documents", "boundaries", given, needed, "as the query documents have")?;
        increasing("query document", q_bounds)?;
        increasing("key document", kv_bounds)?;
        Ok(Documents { q_bounds: q_bounds.to_vec(), kv_bounds: kv_bounds.to_vec(), inner })
    }

    /// The same sequence and lengths as `inner` sees them in document `doc`.
    #[inline(always)]
    fn local(&self, doc: usize, at: Pair) -> Pair {
        let (q0, kv0) = (self.q_bounds[doc], self.kv_bounds[doc]);
        let len = Lens { q: self.q_bounds[doc + 1] - q0, kv: self.kv_bounds[doc + 1] - kv0 };
        Pair { q: at.q.wrapping_sub(q0), kv: at.kv.wrapping_sub(kv0), len, ..at }
    }
}

/// Checks that boundaries begin at 0 and do not decrease.
fn increasing(what: &'static str, bounds: &[u32]) -> Result<()> {
    if let Some(&first) = bounds.first()
        && first != 0
    {
        return Err(Error::Boundary { what, index: 0, given: first, needed: "0".into() });
    }
    for (i, pair) in bounds.windows(2).enumerate() {
        if pair[1] < pair[0] || pair[1] >= 1 << 30 {
            let needed = format!("at least {}, the one before it, and below 2^30", pair[0]);
            return Err(Error::Boundary { what, index: i + 1, given: pair[1], needed });
        }
    }
    Ok(())
}

/// The document that holds a position, if one does.
#[inline]
fn document(bounds: &[u32], position: u32) -> Option<usize> {
    let begun = bounds.partition_point(|&start| start <= position);
    (begun < bounds.len()).then(|| begun - 1)
}

/// The position after the last document.
fn end(bounds: &[u32]) -> usize {
    bounds.last().copied().unwrap_or(0) as usize
}

/// The part of a range inside one document, local to it.
fn within(range: &Range<u32>, bounds: &[u32], doc: usize) -> Range<u32> {
    let (start, end) = (bounds[doc], bounds[doc + 1]);
    range.start.clamp(start, end) - start..range.end.clamp(start, end) - start
}

impl<M: Mask> Mask for Documents<M> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        match document(&self.kv_bounds, p.kv) {
            Some(doc) => self.q_bounds[doc] <= p.q && p.q < self.q_bounds[doc + 1] && self.inner.keep(self.local(doc, p)),
            None => false,
        }
    }

    /// The queries of the key's document get a row of `inner`.
    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        let Some(doc) = document(&self.kv_bounds, at.kv) else { return keep.fill(0) };
        let [start, end] = [doc, doc + 1].map(|bound| (self.q_bounds[bound].saturating_sub(at.q) as usize).min(keep.len()));
        keep[..start].fill(0);
        keep[end..].fill(0);
        self.inner.keep_row(self.local(doc, at.with(at.q + start as u32, at.kv)), &mut keep[start..end]);
    }

    /// The document of a key is looked up once for a row.
    fn in_rows(&self) -> bool {
        true
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (q_doc, kv_doc) = (|q| document(&self.q_bounds, q), |kv| document(&self.kv_bounds, kv));
        let (Some(first_q), Some(last_q)) = (q_doc(q.start), q_doc(q.end - 1)) else { return Tile::Hidden };
        let (Some(first), Some(last)) = (kv_doc(kv.start), kv_doc(kv.end - 1)) else { return Tile::Hidden };
        let (low, high) = (first_q.max(first), last_q.min(last));
        let alone = first_q == last_q && first == last && first_q == first;
        let mut all = Tile::Hidden;
        for doc in low..=high {
            let (q, kv) = (within(&q, &self.q_bounds, doc), within(&kv, &self.kv_bounds, doc));
            if q.is_empty() || kv.is_empty() {
                continue;
            }
            match self.inner.tile(q, kv, self.local(doc, at)) {
                Tile::Hidden => {}
                tile if alone => all = tile,
                _ => return Tile::Mixed,
            }
        }
        all
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        let why = "the length that the documents must cover";
        crate::shape::same("query documents", "positions", end(&self.q_bounds), shape.q_len, why)?;
        crate::shape::same("key documents", "positions", end(&self.kv_bounds), shape.kv_len, why)
    }
}

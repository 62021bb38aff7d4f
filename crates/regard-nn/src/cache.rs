//! What a model has read of a text: the keys and values of all layers, in pages.

use half::bf16;
use regard::{Attention, CacheShape, Element, Kv, KvCache, Mask, Plan, Score, Sequence, View, ViewMut};

use crate::parts::narrowed;
use crate::{Error, Result};

/// The keys and values of one text, for all layers, and what its model keeps `beside` them; the layers share one block table.
#[derive(Debug)]
pub struct TextCache<B> {
    pub(crate) store: Store,
    pub(crate) seq: Sequence,
    capacity: usize,
    pub(crate) beside: B,
}

/// Keys and values in the type of attention.
#[derive(Debug)]
pub(crate) enum Store {
    F32(KvCache<f32>),
    Bf16(KvCache<bf16>),
}

/// Runs `$body` with the cache in a [`Store`], whatever its type.
macro_rules! with {
    ($store:expr, $cache:ident => $body:expr) => {
        match $store {
            $crate::cache::Store::F32($cache) => $body,
            $crate::cache::Store::Bf16($cache) => $body,
        }
    };
}
pub(crate) use with;

/// Query heads, key and value heads, and the elements of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) kv: usize,
    pub(crate) dim: usize,
}

impl Heads {
    /// Numbers in a row of queries, keys and values.
    pub(crate) fn width(self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Numbers in a row of what was attended to.
    pub(crate) fn mixed(self) -> usize {
        self.query * self.dim
    }
}

/// Tokens in a page: one tile of the attention kernels.
const PAGE: usize = 64;

impl<B> TextCache<B> {
    /// An empty cache for at most `capacity` tokens.
    ///
    /// # Errors
    /// When it would be larger than memory can be.
    pub(crate) fn new(layers: usize, heads: Heads, narrow: bool, capacity: usize, beside: B) -> Result<Self> {
        let (kv_heads, head_dim) = (heads.kv, heads.dim);
        let pages = capacity.div_ceil(PAGE);
        let shape = CacheShape { layers, pages, page_size: PAGE, kv_heads, head_dim, value_dim: head_dim };
        let store = if narrow { Store::Bf16(KvCache::new(shape)?) } else { Store::F32(KvCache::new(shape)?) };
        let seq = with!(&store, cache => cache.sequence());
        Ok(Self { store, seq, capacity, beside })
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.seq.len()
    }

    /// Whether no token was read.
    pub fn is_empty(&self) -> bool {
        self.seq.is_empty()
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the pages that hold the tokens.
    pub fn used_bytes(&self) -> usize {
        with!(&self.store, cache => cache.used_bytes())
    }

    /// Bytes of the whole pool.
    pub fn bytes(&self) -> usize {
        with!(&self.store, cache => cache.bytes())
    }

    /// Forgets the tokens from position `len` on.
    ///
    /// # Errors
    /// When there are fewer tokens.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        Ok(with!(&mut self.store, cache => cache.truncate(&mut self.seq, len))?)
    }

    /// Makes room for `tokens` more, and reads them, the first of them at the position that is given. When it fails, the cache is as
    /// before.
    pub(crate) fn grown<T>(&mut self, tokens: usize, read: impl FnOnce(&mut Self, usize) -> Result<T>) -> Result<T> {
        let first = self.len();
        if tokens > self.capacity - first {
            return Err(Error::Context { tokens: first.saturating_add(tokens), context: self.capacity });
        }
        with!(&mut self.store, cache => cache.grow(&mut self.seq, tokens))?;
        read(self, first).or_else(|error| self.rewind(first).and(Err(error)))
    }

    /// Writes keys and values at the positions from `first` on, and attends: rows `[n, (query + 2·kv)·dim]` → `[n, query·dim]`.
    pub(crate) fn attend<M: Mask, S: Score>(
        &mut self,
        rule: &Attention<M, S>,
        rows: &[f32],
        heads: Heads,
        (layer, first): (usize, usize),
    ) -> Result<Vec<f32>> {
        let seq = &self.seq;
        let mut mixed = vec![0.0; rows.len() / heads.width() * heads.mixed()];
        with!(&mut self.store, cache => {
            let (narrow, mut to) = (narrowed(rows), vec![Default::default(); mixed.len()]);
            write(&narrow, heads, cache, (layer, seq, first))?;
            attend(rule, &narrow, heads, Kv::Paged { cache, layer, seqs: &[seq] }, &mut to)?;
            Element::widen(&to, &mut mixed);
        });
        Ok(mixed)
    }

    /// The kernel that attends from one row, and the reason for the choice.
    pub(crate) fn kernel<M: Mask, S: Score>(&self, rule: &Attention<M, S>, heads: Heads) -> Result<(String, String)> {
        with!(&self.store, cache => kernel(rule, heads, cache, &self.seq))
    }
}

/// Writes the keys and values of rows `[n, (query + 2·kv)·dim]` at the positions from `first` on.
pub(crate) fn write<T: Element>(
    rows: &[T],
    heads: Heads,
    cache: &mut KvCache<T>,
    (layer, seq, first): (usize, &Sequence, usize),
) -> Result<()> {
    let Heads { query, kv, dim } = heads;
    let strides = [0, dim as isize, heads.width() as isize, 1];
    let side = |head: usize| View::strided(rows, head * dim, [1, kv, rows.len() / heads.width(), dim], strides);
    Ok(cache.write(layer, seq, first, side(query)?, side(query + kv)?)?)
}

/// Attends to the keys and values of some texts from the rows `[n, (query + 2·kv)·dim]` of each in turn: `[texts · n, query·dim]`.
pub(crate) fn attend<T: Element, M: Mask, S: Score>(
    rule: &Attention<M, S>,
    rows: &[T],
    heads: Heads,
    kv: Kv<'_, T>,
    mixed: &mut [T],
) -> Result<()> {
    let plan = planned(rule, rows, heads, kv)?;
    let [texts, _, n, dim] = plan.shape().out();
    let mut lse = vec![0.0; texts * heads.query * n];
    let lse = ViewMut::new(&mut lse, [texts, heads.query, n, 1])?;
    let strides = [n * heads.mixed(), dim, heads.mixed(), 1].map(|stride| stride as isize);
    Ok(plan.forward_into(ViewMut::strided(mixed, 0, plan.shape().out(), strides)?, lse)?)
}

/// The attention of rows as [`attend`] has them.
pub(crate) fn planned<'a, T: Element, M: Mask, S: Score>(
    rule: &'a Attention<M, S>,
    rows: &'a [T],
    heads: Heads,
    kv: Kv<'a, T>,
) -> Result<Plan<'a, T, M, S>> {
    let (width, dim) = (heads.width(), heads.dim);
    let texts = if let Kv::Paged { seqs, .. } = &kv { seqs.len() } else { 1 };
    let n = rows.len() / width / texts.max(1);
    let strides = [n * width, dim, width, 1].map(|stride| stride as isize);
    Ok(rule.plan(View::strided(rows, 0, [texts, heads.query, n, dim], strides)?, kv)?)
}

fn kernel<T: Element, M: Mask, S: Score>(
    rule: &Attention<M, S>,
    heads: Heads,
    cache: &KvCache<T>,
    seq: &Sequence,
) -> Result<(String, String)> {
    let row = vec![T::default(); heads.query * heads.dim];
    let (q, seqs) = (View::new(&row, [1, heads.query, 1, heads.dim])?, [seq]);
    let plan = rule.plan(q, Kv::Paged { cache, layer: 0, seqs: &seqs })?;
    Ok((plan.kernel().to_owned(), plan.why().to_owned()))
}

//! The queries, keys and values of a case.

use regard::{CacheShape, Element, Kv, KvCache, Sequence, Tensor};

use super::case::Case;
use super::random::Random;

/// Random tensors of a case.
pub(super) struct Inputs<T> {
    pub(super) q: Tensor<T>,
    keys: Keys<T>,
    /// Gradient of the output; empty without a backward pass.
    pub(super) d_out: Tensor<T>,
}

enum Keys<T> {
    Dense { k: Tensor<T>, v: Tensor<T> },
    Paged { cache: KvCache<T>, seqs: Vec<Sequence> },
}

impl<T: Element> Inputs<T> {
    pub(super) fn new(case: &Case) -> Result<Self, regard::Error> {
        let [batch, q_heads, kv_heads, q_len, kv_len, dim] = case.sizes;
        let rows = [batch, q_heads, q_len, dim];
        let keys = match case.page {
            None => {
                let shape = [batch, kv_heads, kv_len, dim];
                Keys::Dense { k: Random::new(2).tensor(shape)?, v: Random::new(3).tensor(shape)? }
            }
            Some(size) => paged(case, size)?,
        };
        let d_out = if case.kind.backward() { rows } else { [0; 4] };
        Ok(Self { q: Random::new(1).tensor(rows)?, keys, d_out: Random::new(4).tensor(d_out)? })
    }

    /// Does something with keys and values.
    pub(super) fn with_kv<R>(&self, job: impl FnOnce(Kv<'_, T>) -> R) -> R {
        match &self.keys {
            Keys::Dense { k, v } => job((k.view(), v.view()).into()),
            Keys::Paged { cache, seqs } => job(Kv::Paged { cache, layer: 0, seqs: &seqs.iter().collect::<Vec<_>>() }),
        }
    }
}

/// Sequences whose pages lie in no order.
fn paged<T: Element>(case: &Case, page_size: usize) -> Result<Keys<T>, regard::Error> {
    let [batch, _, kv_heads, _, kv_len, dim] = case.sizes;
    let lengths = case.lengths.clone().unwrap_or_else(|| vec![kv_len; batch]);
    let pages = lengths.iter().map(|len| len.div_ceil(page_size)).sum();
    let mut cache = KvCache::new(CacheShape { layers: 1, pages, page_size, kv_heads, head_dim: dim, value_dim: dim })?;
    let mut all = cache.sequence();
    cache.grow(&mut all, pages * page_size)?;
    let (mut table, mut random) = (all.block_table().to_vec(), Random::new(5));
    (1..pages).rev().for_each(|i| table.swap(i, random.below(i + 1)));
    let mut seqs = Vec::new();
    for &len in &lengths {
        let own = table.split_off(table.len() - len.div_ceil(page_size));
        seqs.push(cache.adopt(&own, len)?);
    }
    cache.free(all)?;
    for (seq, &len) in seqs.iter().zip(&lengths) {
        let (k, v) = (random.tensor([1, kv_heads, len, dim])?, random.tensor([1, kv_heads, len, dim])?);
        cache.write(0, seq, 0, k.view(), v.view())?;
    }
    Ok(Keys::Paged { cache, seqs })
}

//! Keys and values, dense or in pages: what a kernel reads rows from.

use crate::{Element, Error, KvCache, Result, Sequence, View};

/// The keys and values that queries attend to.
#[derive(Clone, Copy, Debug)]
pub enum Kv<'a, T> {
    /// Two views, `[batch, kv_heads, kv_len, head_dim]` and `[batch, kv_heads, kv_len, value_dim]`.
    Dense {
        /// Keys.
        k: View<'a, T>,
        /// Values.
        v: View<'a, T>,
    },
    /// One sequence of a paged cache for each batch entry; lengths may differ.
    Paged {
        /// The page pool.
        cache: &'a KvCache<T>,
        /// Which layer of the pool.
        layer: usize,
        /// Block tables and lengths, one for each batch entry.
        seqs: &'a [&'a Sequence],
    },
}

impl<'a, T> From<(View<'a, T>, View<'a, T>)> for Kv<'a, T> {
    fn from((k, v): (View<'a, T>, View<'a, T>)) -> Self {
        Kv::Dense { k, v }
    }
}

impl<T: Element> Kv<'_, T> {
    /// `[batch, kv_heads, longest kv_len, head_dim]`.
    pub(crate) fn key_shape(&self) -> Result<[usize; 4]> {
        match self {
            Kv::Dense { k, .. } => Ok(k.shape()),
            Kv::Paged { cache, layer, seqs } => {
                let shape = cache.shape();
                if *layer >= shape.layers {
                    return Err(Error::Layer { given: *layer, layers: shape.layers });
                }
                for seq in *seqs {
                    cache.check(seq)?;
                }
                let longest = seqs.iter().map(|s| s.len()).max().unwrap_or(0);
                Ok([seqs.len(), shape.kv_heads, longest, shape.head_dim])
            }
        }
    }

    /// Elements of a value.
    pub(crate) fn value_dim(&self) -> usize {
        match self {
            Kv::Dense { v, .. } => v.shape()[3],
            Kv::Paged { cache, .. } => cache.shape().value_dim,
        }
    }

    /// Lengths of the sequences where they may differ.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        match self {
            Kv::Dense { .. } => Vec::new(),
            Kv::Paged { seqs, .. } => seqs.iter().map(|s| s.len()).collect(),
        }
    }
}

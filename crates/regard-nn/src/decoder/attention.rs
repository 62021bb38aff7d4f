//! The attention of a block, through the paged cache.

use half::bf16;
use rayon::prelude::*;
use regard::{Angles, Causal, Element, Kv, KvCache, Sequence, Softcap, View, Window};

use super::config::DecoderConfig;
use crate::Result;
use crate::ops::simd::vectorised;
use crate::ops::{rows_per_task, turn_row};
use crate::parts::{Matrix, Norm, joined, narrowed};

/// Projections, positions, attention, projection.
#[derive(Debug)]
pub(super) struct Attention {
    /// Queries, keys and values in one matrix.
    pub(super) qkv: Matrix,
    pub(super) q_norm: Option<Norm>,
    pub(super) k_norm: Option<Norm>,
    pub(super) sinks: Option<Vec<f32>>,
    pub(super) out: Matrix,
    pub(super) window: Option<usize>,
    pub(super) rope: Option<usize>,
}

/// Keys and values of all layers, in the type of the weights.
#[derive(Debug)]
pub(super) enum Store {
    F32(KvCache<f32>),
    Bf16(KvCache<bf16>),
}

/// Runs `$body` with the cache in a [`Store`], whatever its type.
macro_rules! with_cache {
    ($store:expr, $cache:ident => $body:expr) => {
        match $store {
            $crate::decoder::attention::Store::F32($cache) => $body,
            $crate::decoder::attention::Store::Bf16($cache) => $body,
        }
    };
}
pub(super) use with_cache;

/// Where a block's keys and values go.
pub(super) struct Place<'a> {
    pub(super) layer: usize,
    pub(super) seq: &'a Sequence,
    /// The position of the first row.
    pub(super) first: usize,
    /// The angles of the rows' positions, for each rotary embedding.
    pub(super) angles: &'a [Angles],
}

impl Attention {
    /// Rows `[n, hidden]`, normalised, at the last positions of a sequence that has grown to hold them → `[n, hidden]`.
    pub(super) fn apply(&self, config: &DecoderConfig, x: &[f32], store: &mut Store, place: &Place<'_>) -> Result<Vec<f32>> {
        let rows = self.projected(config, x, place.angles)?;
        let mixed = with_cache!(store, cache => self.attend(config, &rows, cache, place))?;
        self.out.apply(&mixed)
    }

    /// Queries, keys and values of the rows, at their positions.
    pub(super) fn projected(&self, config: &DecoderConfig, x: &[f32], angles: &[Angles]) -> Result<Vec<f32>> {
        let mut rows = self.qkv.apply(x)?;
        self.prepare(config, &mut rows, angles);
        Ok(rows)
    }

    /// Normalises and turns the heads of queries and keys, where they are.
    fn prepare(&self, config: &DecoderConfig, rows: &mut [f32], angles: &[Angles]) {
        let (dim, width, heads) = (config.head_dim, self.qkv.outputs(), config.num_attention_heads);
        let angles = self.rope.map(|rope| &angles[rope]);
        let step = rows_per_task(width);
        rows.par_chunks_mut(step * width).enumerate().for_each(|(i, rows)| {
            let mut copy = vec![0.0; dim];
            vectorised(|| {
                for (row, x) in rows.chunks_mut(width).enumerate() {
                    for (head, x) in x.chunks_mut(dim).take(heads + config.num_key_value_heads).enumerate() {
                        if let Some(norm) = if head < heads { &self.q_norm } else { &self.k_norm } {
                            norm.row(x);
                        }
                        if let Some(angles) = angles {
                            copy.copy_from_slice(x);
                            turn_row(angles, i * step + row, &copy, x, dim, false);
                        }
                    }
                }
            });
        });
    }

    /// Writes keys and values, and attends: `[n, heads·dim]`.
    fn attend<T: Element>(
        &self,
        config: &DecoderConfig,
        rows: &[f32],
        cache: &mut KvCache<T>,
        place: &Place<'_>,
    ) -> Result<Vec<f32>> {
        let (heads, kv_heads, dim, width) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim, self.qkv.outputs());
        let n = rows.len() / width;
        let narrow = narrowed::<T>(rows);
        let side = |first: usize, heads: usize| {
            View::strided(&narrow, first * dim, [1, heads, n, dim], [0, dim as isize, width as isize, 1])
        };
        let (layer, seq) = (place.layer, place.seq);
        cache.write(layer, seq, place.first, side(heads, kv_heads)?, side(heads + kv_heads, kv_heads)?)?;
        let output = self.rule(config).forward(side(0, heads)?, Kv::Paged { cache, layer, seqs: &[seq] })?;
        Ok(joined(output.out.data(), [heads, n, dim]))
    }

    pub(super) fn rule(&self, config: &DecoderConfig) -> regard::Attention<(Causal, Option<Window>), Option<Softcap>> {
        let window = self.window.map(|window| Window { left: window as u32 - 1, right: 0 });
        let rule = regard::Attention::new().mask((Causal::LowerRight, window)).score(config.attention_softcap.map(Softcap));
        let rule = rule.scale(config.attention_scale);
        match &self.sinks {
            Some(sinks) => rule.sinks(sinks.clone()),
            None => rule,
        }
    }

    /// The kernel that attends from one row, and the reason for the choice.
    pub(super) fn kernel<T: Element>(
        &self,
        config: &DecoderConfig,
        cache: &KvCache<T>,
        seq: &Sequence,
    ) -> Result<(String, String)> {
        let row = vec![T::from_f32(0.0); config.num_attention_heads * config.head_dim];
        let (rule, seqs) = (self.rule(config), [seq]);
        let q = View::new(&row, [1, config.num_attention_heads, 1, config.head_dim])?;
        let plan = rule.plan(q, Kv::Paged { cache, layer: 0, seqs: &seqs })?;
        Ok((plan.kernel().to_owned(), plan.why().to_owned()))
    }
}

//! The attention of a block, through the paged cache.

use rayon::prelude::*;
use regard::{Angles, Causal, Softcap, Window};

use super::DecoderCache;
use super::config::DecoderConfig;
use crate::Result;
use crate::ops::simd::vectorised;
use crate::ops::{rows_per_task, turn_row};
use crate::parts::{Matrix, Norm};

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

/// Where a block's rows are.
pub(super) struct Place<'a> {
    pub(super) layer: usize,
    /// The position of the first row.
    pub(super) first: usize,
    /// The angles of the rows' positions, for each rotary embedding.
    pub(super) angles: &'a [Angles],
}

impl Attention {
    /// Rows `[n, hidden]`, normalised, at the last positions of a sequence that has grown to hold them → `[n, hidden]`.
    pub(super) fn apply(&self, config: &DecoderConfig, x: &[f32], cache: &mut DecoderCache, place: &Place<'_>) -> Result<Vec<f32>> {
        let mut rows = self.qkv.apply(x)?;
        self.prepare(config, &mut rows, place.angles);
        let mixed = cache.attend(&self.rule(config), &rows, config.heads(), (place.layer, place.first))?;
        self.out.apply(&mixed)
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

    pub(super) fn rule(&self, config: &DecoderConfig) -> regard::Attention<(Causal, Option<Window>), Option<Softcap>> {
        let window = self.window.map(|window| Window { left: window as u32 - 1, right: 0 });
        let rule = regard::Attention::new().mask((Causal::LowerRight, window)).score(config.attention_softcap.map(Softcap));
        let rule = rule.scale(config.attention_scale);
        match &self.sinks {
            Some(sinks) => rule.sinks(sinks.clone()),
            None => rule,
        }
    }
}

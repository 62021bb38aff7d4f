//! The attention of a block, through the paged cache.

use regard::{Angles, Causal, Softcap, Window};

use super::config::DecoderConfig;
use crate::ops::simd::vectorised;
use crate::ops::turn_row;
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

impl Attention {
    /// Normalises and turns the heads of queries and keys, where they are; the angles of the rows are those from `first` on.
    pub(super) fn prepare(&self, config: &DecoderConfig, rows: &mut [f32], angles: &[Angles], first: usize) {
        let (dim, heads) = (config.head_dim, config.num_attention_heads);
        let (angles, mut copy) = (self.rope.map(|rope| &angles[rope]), vec![0.0; dim]);
        vectorised(|| {
            for (row, x) in rows.chunks_mut(self.qkv.outputs()).enumerate() {
                for (head, x) in x.chunks_mut(dim).take(heads + config.num_key_value_heads).enumerate() {
                    if let Some(norm) = if head < heads { &self.q_norm } else { &self.k_norm } {
                        norm.row(x);
                    }
                    if let Some(angles) = angles {
                        copy.copy_from_slice(x);
                        turn_row(angles, first + row, &copy, x, dim, false);
                    }
                }
            }
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

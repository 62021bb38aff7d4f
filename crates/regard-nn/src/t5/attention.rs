//! The attentions of a block: of a text to itself, and of a reply to the text.

use regard::{Attention, Lines, Output, RelativeBias, View};

use super::config::T5Config;
use crate::Result;
use crate::parts::{Matrix, joined};

/// A text, or a reply, looks at itself.
#[derive(Debug)]
pub(super) struct SelfAttention {
    /// Queries, keys and values in one matrix.
    pub(super) qkv: Matrix,
    pub(super) out: Matrix,
}

/// A reply looks at the text: every key is visible, wherever it is.
#[derive(Debug)]
pub(super) struct CrossAttention {
    pub(super) q: Matrix,
    /// Keys and values in one matrix.
    pub(super) kv: Matrix,
    pub(super) out: Matrix,
}

impl SelfAttention {
    /// Rows `[n, d_model]` of a whole text, each of which sees all.
    pub(super) fn whole(&self, config: &T5Config, x: &[f32], bias: &RelativeBias<'_>) -> Result<Lines<f32>> {
        let rows = self.qkv.apply(x)?;
        let side = |part| heads(config, &rows, part, 3);
        let rule = Attention::new().score(bias.clone()).scale(1.0);
        let mixed = rule.forward(side(0)?, (side(1)?, side(2)?))?;
        self.out.apply(&merged(&mixed))
    }
}

impl CrossAttention {
    /// The encoder's output `[n, d_model]` → `[n, 2, num_heads, d_kv]`.
    pub(super) fn keys_and_values(&self, encoded: &[f32]) -> Result<Vec<f32>> {
        self.kv.vector(encoded)
    }

    /// Rows `[n, d_model]` of a reply to the text of these keys and values.
    pub(super) fn apply(&self, config: &T5Config, x: &[f32], keys_and_values: &[f32]) -> Result<Lines<f32>> {
        let rows = self.q.apply(x)?;
        let side = |part| heads(config, keys_and_values, part, 2);
        let mixed = Attention::new().scale(1.0).forward(heads(config, &rows, 0, 1)?, (side(0)?, side(1)?))?;
        self.out.apply(&merged(&mixed))
    }
}

/// One of the `parts` that rows `[n, parts, num_heads, d_kv]` hold, as `[1, num_heads, n, d_kv]`.
fn heads<'a>(config: &T5Config, rows: &'a [f32], part: usize, parts: usize) -> Result<View<'a, f32>> {
    let (heads, dim) = (config.num_heads, config.d_kv);
    let width = parts * heads * dim;
    let strides = [0, dim as isize, width as isize, 1];
    Ok(View::strided(rows, part * heads * dim, [1, heads, rows.len() / width, dim], strides)?)
}

/// `[1, num_heads, n, d_kv]` → `[n, num_heads·d_kv]`
fn merged(output: &Output<f32>) -> Vec<f32> {
    let [_, heads, n, dim] = output.out.shape();
    joined(output.out.data(), [heads, n, dim])
}

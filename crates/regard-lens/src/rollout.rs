//! Attention rollout: an approximation of how much each position of the last layer draws on each token, through all layers.
//!
//! ```text
//!   R_0 = I      R_l = (½ I + ½ Ā_l) · R_(l−1)      Ā_l the mean of a layer's heads
//! ```
//! Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", §2. It takes the residual stream and attention to matter alike,
//! and knows nothing of values, projections and feed-forward layers: **approximate**, by design. Texts of more than 256 tokens are pooled,
//! which approximates further.

use regard::{Element, Grid, View};
use regard_nn::{Attending, Decoder, Observer};

use crate::Result;
use crate::levels::block;

/// The rollout of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Tokens on the edge of a cell.
    pub block: usize,
    /// Rows and columns.
    pub edge: usize,
    /// `[edge, edge]`, row-major; rows sum to 1.
    pub cells: Vec<f64>,
}

/// The rollout of a decoder on a text.
///
/// # Errors
/// When the decoder cannot read the text.
pub fn rollout(decoder: &Decoder, tokens: &[u32]) -> Result<Rollout> {
    let block = block(tokens.len());
    let edge = tokens.len().div_ceil(block);
    let cells = (0..edge * edge).map(|i| f64::from(u8::from(i / edge == i % edge))).collect();
    let mut rolled = Rollout { block, edge, cells };
    decoder.observe(tokens, &mut rolled)?;
    Ok(rolled)
}

impl Observer for Rollout {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let (plan, shape, edge) = (attending.plan, attending.plan.shape(), self.edge);
        let lse = View::new(attending.lse, [1, shape.q_heads, shape.q_len, 1])?;
        let maps = plan.maps(lse, &plan.whole(), &[Grid { rows: self.block, keys: self.block }])?;
        let mut next = vec![0.0; edge * edge];
        for (row, to) in next.chunks_mut(edge).enumerate() {
            let mean = |column: usize| {
                maps[0].data().iter().skip(row * edge + column).step_by(edge * edge).map(|x| f64::from(*x)).sum::<f64>()
            };
            let means: Vec<f64> = (0..edge).map(|column| mean(column) / shape.q_heads as f64).collect();
            let all: f64 = means.iter().sum();
            for (column, mean) in means.iter().enumerate() {
                let own = if column == row { 0.5 } else { 0.0 };
                let share = own + 0.5 * mean / all.max(f64::MIN_POSITIVE);
                to.iter_mut().zip(&self.cells[column * edge..]).for_each(|(to, x)| *to += share * x);
            }
        }
        self.cells = next;
        Ok(())
    }
}

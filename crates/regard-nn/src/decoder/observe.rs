//! To look on as a decoder reads a text, and to change the residual stream and what heads give.

use rayon::prelude::*;
use regard::{Causal, Element, Facts, Grid, Inspect, Plan, Region, Softcap, Tensor, View, ViewMut, Window};

use super::Decoder;
use crate::{Error, Result};

/// Who is seen in a decoder's attention.
pub type DecoderMask = (Causal, Option<Window>);

/// Looks on as a decoder reads a text, and may change what it sees. `()` does neither.
pub trait Observer {
    /// The residual stream `[n, hidden_size]` before block `layer`, or, with the number of blocks, after the last one. What is written to it
    /// is what the block reads, and what it adds to.
    ///
    /// # Errors
    /// Those of the observer, which end the reading.
    fn residual(&mut self, _layer: usize, _rows: &mut [f32]) -> Result<()> {
        Ok(())
    }

    /// The attention of a block, which this must compute, as [`Attending::forward`] does.
    ///
    /// # Errors
    /// Those of the observer, which end the reading.
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> Result<()> {
        attending.forward()
    }
}

impl Observer for () {}

/// The attention of one block, ready to be computed.
#[derive(Debug)]
pub struct Attending<'a, T> {
    /// Which block.
    pub layer: usize,
    /// Queries, turned by their positions, against keys and values in the cache: a batch of one text.
    pub plan: &'a Plan<'a, T, DecoderMask, Option<Softcap>>,
    /// Receives the output, `[n, heads, head_dim]`.
    pub out: &'a mut [T],
    /// Receives the log-sum-exp, `[heads, n]`.
    pub lse: &'a mut [f32],
}

impl<T: Element> Attending<'_, T> {
    fn views(&mut self) -> Result<(ViewMut<'_, T>, ViewMut<'_, f32>)> {
        let shape = self.plan.shape();
        let (n, heads, dim) = (shape.q_len, shape.q_heads, shape.value_dim);
        let strides = [n * heads * dim, dim, heads * dim, 1].map(|stride| stride as isize);
        Ok((ViewMut::strided(self.out, 0, [1, heads, n, dim], strides)?, ViewMut::new(self.lse, [1, heads, n, 1])?))
    }

    /// Computes it.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn forward(&mut self) -> Result<()> {
        let plan = self.plan;
        let (out, lse) = self.views()?;
        Ok(plan.forward_into(out, lse)?)
    }

    /// Computes it, with facts about every row.
    ///
    /// # Errors
    /// As [`Plan::inspect`].
    pub fn inspect(&mut self, what: &Inspect) -> Result<Facts> {
        let plan = self.plan;
        let (out, lse) = self.views()?;
        Ok(plan.inspect_into(what, out, lse)?)
    }

    /// Maps of its weights, when it is computed.
    ///
    /// # Errors
    /// As [`Plan::maps`].
    pub fn maps(&self, region: &Region, grids: &[Grid]) -> Result<Vec<Tensor<f32>>> {
        let shape = self.plan.shape();
        let lse = View::new(self.lse, [1, shape.q_heads, shape.q_len, 1])?;
        Ok(self.plan.maps(lse, region, grids)?)
    }

    /// The output of one head, row by row, to be changed.
    pub fn head_rows(&mut self, head: usize) -> impl Iterator<Item = &mut [T]> {
        let shape = self.plan.shape();
        let (heads, dim) = (shape.q_heads, shape.value_dim);
        self.out.chunks_exact_mut((heads * dim).max(1)).map(move |row| &mut row[head * dim..][..dim])
    }
}

/// Rows whose logits are held at a time.
const ROWS: usize = 64;

impl Decoder {
    /// Reads a text from its beginning before an observer, and tells how surprising each token but the first is, given those before it:
    /// `−ln p`, in nats, `[tokens − 1]`.
    ///
    /// # Errors
    /// As [`Decoder::step`], those of the observer, and when a logit is not finite.
    pub fn observe(&self, tokens: &[u32], observer: &mut (impl Observer + Send)) -> Result<Vec<f32>> {
        let context = self.config.max_position_embeddings;
        if tokens.len() > context {
            return Err(Error::Context { tokens: tokens.len(), context });
        }
        rayon::scope(|_| {
            let rows = self.read(tokens, &mut self.cache(tokens.len())?, observer)?;
            let (hidden, vocab, next) = (self.config.hidden_size, self.config.vocab_size, &tokens[1..]);
            let mut losses = Vec::with_capacity(next.len());
            for (rows, next) in rows[..next.len() * hidden].chunks(ROWS * hidden).zip(next.chunks(ROWS)) {
                let logits = self.logits(rows)?;
                let of_rows = logits.par_chunks(vocab).zip(next).map(|(logits, next)| surprise(logits, *next as usize));
                losses.extend(of_rows.collect::<Vec<f32>>());
            }
            if losses.iter().any(|loss| !loss.is_finite()) {
                return Err(Error::NotFinite);
            }
            Ok(losses)
        })
    }
}

/// `ln Σ e^logit − logit of the token`
fn surprise(logits: &[f32], token: usize) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from((x - max).exp())).sum();
    (f64::from(max - logits[token]) + sum.ln()) as f32
}

//! The causal convolution that precedes linear attention in many models: each channel by itself, over the last few positions.
//!
//! ```text
//!   y_t = b + Σ_{j<K} w_j ∘ x_{t−K+1+j}      out_t = y_t, or silu(y_t) = y_t · σ(y_t)
//! ```
//! Positions before the first are those of the state, the last `K − 1` inputs of the call before.

use std::ops::Range;

use regard_core::{Element, View, ViewMut};

use super::forward::share;
use crate::block::ranges;
use crate::once::per_element;
use crate::scatter::{RowWriter, split};

/// One convolution, checked.
#[derive(Debug)]
pub struct Conv<'a, T> {
    /// `[batch, heads, length, dim]`.
    pub x: View<'a, T>,
    /// `[1, heads, taps, dim]`, at least one tap; the last one is of the present position.
    pub weight: View<'a, T>,
    /// `[1, heads, 1, dim]`.
    pub bias: Option<View<'a, T>>,
    /// `[batch, heads, taps − 1, dim]`; zeros where there is none.
    pub past: Option<View<'a, T>>,
    /// Whether the output goes through `silu`.
    pub silu: bool,
}

/// Where the gradients go: each in the shape of its argument.
#[derive(Debug)]
pub struct ConvGradients<'a, T> {
    /// Gradient of the input.
    pub dx: ViewMut<'a, T>,
    /// Gradient of the state before.
    pub dpast: ViewMut<'a, T>,
    /// Gradient of the weights, `[heads, taps, dim]` flattened.
    pub dweight: &'a mut [f32],
    /// Gradient of the bias, `[heads, dim]` flattened.
    pub dbias: &'a mut [f32],
}

/// Positions that one task computes.
const ROWS: usize = 256;

impl<T: Element> Conv<'_, T> {
    fn taps(&self) -> usize {
        self.weight.shape()[2]
    }

    /// Weights of a head, `[taps, dim]`, and its bias.
    fn weights(&self, h: usize) -> (Vec<f32>, Vec<f32>) {
        let dim = self.x.shape()[3];
        let (mut weights, mut bias) = (vec![0.0; self.taps() * dim], vec![0.0; dim]);
        rows(&self.weight, (0, h), 0..self.taps(), &mut weights);
        if let Some(view) = &self.bias {
            view.row_into(0, h, 0, &mut bias);
        }
        (weights, bias)
    }

    /// Inputs `first − (taps − 1)..last`, `[…, dim]`, from the state where they are before the first.
    fn inputs(&self, (b, h): (usize, usize), positions: Range<usize>) -> Vec<f32> {
        let (dim, before) = (self.x.shape()[3], self.taps() - 1);
        let mut inputs = vec![0.0; (positions.len() + before) * dim];
        let of_past = before.saturating_sub(positions.start);
        let (old, new) = inputs.split_at_mut(of_past * dim);
        if let Some(past) = &self.past {
            rows(past, (b, h), before - of_past..before, old);
        }
        rows(&self.x, (b, h), positions.start + of_past - before..positions.end, new);
        inputs
    }

    /// `y` of some positions, `[…, dim]`.
    fn sums(&self, inputs: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
        let dim = bias.len();
        let mut y = bias.repeat(inputs.len() / dim.max(1) + 1 - self.taps());
        for (t, y) in y.chunks_exact_mut(dim.max(1)).enumerate() {
            for (w, x) in weights.chunks_exact(dim).zip(inputs[t * dim..].chunks_exact(dim)) {
                super::add_times(x, w, y);
            }
        }
        y
    }
}

/// Rows of a head, widened.
fn rows<T: Element>(view: &View<'_, T>, (b, h): (usize, usize), positions: Range<usize>, to: &mut [f32]) {
    to.chunks_exact_mut(view.shape()[3].max(1)).zip(positions).for_each(|(to, l)| view.row_into(b, h, l, to));
}

per_element! {
    /// Writes the output and the state after the last position, `[batch, heads, taps − 1, dim]`.
    pub fn conv_forward<T>(p: &'a Conv<'a, T>, out: ViewMut<'a, T>, state: ViewMut<'a, T>) = all_outputs;
}

fn all_outputs<T: Element>(p: &Conv<'_, T>, out: ViewMut<'_, T>, state: ViewMut<'_, T>) {
    let [batch, heads, len, dim] = p.x.shape();
    if dim == 0 {
        return;
    }
    let before = p.taps() - 1;
    let all = split(state, (0..batch * heads).map(|i| i * before..(i + 1) * before));
    for (i, mut to) in all.into_iter().enumerate() {
        let inputs = p.inputs((i / heads, i % heads), len..len);
        to.rows().zip(inputs.chunks_exact(dim)).for_each(|(row, x)| to.write(row, x));
    }
    let parts = (0..batch * heads).flat_map(|i| ranges(i * len..(i + 1) * len, ROWS));
    let together = batch * heads * len * dim > 1 << 15;
    share(split(out, parts), together, |mut to: RowWriter<'_, T>| {
        let (head, first) = (to.rows().start / len, to.rows().start % len);
        let (weights, bias) = p.weights(head % heads);
        let inputs = p.inputs((head / heads, head % heads), first..first + to.rows().len());
        let mut y = p.sums(&inputs, &weights, &bias);
        if p.silu {
            y.iter_mut().for_each(|y| *y *= sigmoid(*y));
        }
        to.rows().zip(y.chunks_exact(dim)).for_each(|(row, y)| to.write(row, y));
    });
}

/// `1 / (1 + e^{−x})`
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

per_element! {
    /// Writes all gradients of `Σ d_out · out + Σ d_state · state`. Heads one after another: the sums over the batch have one order.
    pub fn conv_backward<T>(p: &'a Conv<'a, T>, d_out: View<'a, T>, d_state: Option<View<'a, T>>, grads: ConvGradients<'a, T>) = all_gradients;
}

fn all_gradients<T: Element>(p: &Conv<'_, T>, d_out: View<'_, T>, d_state: Option<View<'_, T>>, grads: ConvGradients<'_, T>) {
    let [batch, heads, len, dim] = p.x.shape();
    if dim == 0 {
        return;
    }
    let (taps, before) = (p.taps(), p.taps() - 1);
    let dxs = split(grads.dx, (0..batch * heads).map(|i| i * len..(i + 1) * len));
    let dpasts = split(grads.dpast, (0..batch * heads).map(|i| i * before..(i + 1) * before));
    for (i, (mut dx, mut dpast)) in dxs.into_iter().zip(dpasts).enumerate() {
        let (b, h) = (i / heads, i % heads);
        let (weights, bias) = p.weights(h);
        let inputs = p.inputs((b, h), 0..len);
        let mut dy = vec![0.0; len * dim];
        rows(&d_out, (b, h), 0..len, &mut dy);
        if p.silu {
            for (dy, y) in dy.iter_mut().zip(p.sums(&inputs, &weights, &bias)) {
                let s = sigmoid(y);
                *dy *= s * (1.0 + y * (1.0 - s)); // silu'(y)
            }
        }
        let mut d_inputs = vec![0.0; inputs.len()];
        if let Some(view) = &d_state {
            rows(view, (b, h), 0..before, &mut d_inputs[len * dim..]);
        }
        for (t, dy) in dy.chunks_exact(dim).enumerate() {
            super::add_times(dy, &vec![1.0; dim], &mut grads.dbias[h * dim..][..dim]);
            for j in 0..taps {
                let at = (t + j) * dim..(t + j + 1) * dim;
                super::add_times(dy, &weights[j * dim..], &mut d_inputs[at.clone()]);
                super::add_times(dy, &inputs[at], &mut grads.dweight[(h * taps + j) * dim..][..dim]);
            }
        }
        let mut rows = d_inputs.chunks_exact(dim);
        dpast.rows().zip(&mut rows).for_each(|(row, d)| dpast.write(row, d));
        dx.rows().zip(&mut rows).for_each(|(row, d)| dx.write(row, d));
    }
}

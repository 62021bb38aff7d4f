//! Step 3, of each chunk by itself: its outputs.

use regard_core::Element;

use super::chunk::{Chunk, read};
use super::decays::Scratch;
use super::{Left, Linear, Sizes, product, room, times, triangular};
use crate::scatter::RowWriter;
use crate::simd::{Product, Task, Vector};

/// Writes the rows of a chunk, for every query head of the group; `to` has a writer for each.
pub(super) struct Outputs<'a, 'c, 'o, T> {
    pub(super) p: &'a Linear<'a, T>,
    pub(super) chunk: &'c mut Chunk,
    pub(super) head: (usize, usize),
    pub(super) to: &'c mut [RowWriter<'o, T>],
}

impl<T: Element> Task for Outputs<'_, '_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Outputs { p, chunk, head, to } = self;
        let (n, wp) = (chunk.len(), p.sizes(V::LANES).wp);
        let mut head_outputs = Head::default();
        for (g, to) in to.iter_mut().enumerate() {
            let rows = if chunk.recurrent {
                &mut chunk.out[g * n * wp..][..n * wp]
            } else {
                head_outputs.compute(v, p, chunk, (head.0, head.1 * p.shape.group() + g));
                &mut head_outputs.out[..n * wp]
            };
            let first = to.rows().start;
            for (t, row) in rows.chunks_exact_mut(wp.max(1)).enumerate() {
                let factor = if p.normalised { reciprocal(row[p.shape.value_dim]) } else { p.scale };
                row.iter_mut().for_each(|o| *o *= factor);
                to.write(first + t, row);
            }
        }
    }
}

/// What an output is multiplied by, where `weight` is the sum of its weights: a query that sees nothing gives zeros.
#[inline(always)]
pub(super) fn reciprocal(weight: f32) -> f32 {
    if weight == 0.0 { 0.0 } else { 1.0 / weight }
}

/// One query head of a chunk.
#[derive(Default)]
pub(super) struct Head {
    /// `φ(Q)`, `[n, dp]`.
    pub(super) q: Vec<f32>,
    /// `e^G ∘ Q`, `[n, dp]`.
    pub(super) since_q: Vec<f32>,
    /// `A`, `[n, stride]`.
    pub(super) a: Vec<f32>,
    /// `(e^G ∘ Q) S + A U`, `[n, wp]`.
    pub(super) out: Vec<f32>,
    scratch: Scratch,
}

impl Head {
    /// Reads the queries of a head, and weighs them and their products with the keys.
    #[inline(always)]
    pub(super) fn weigh<T: Element, V: Vector>(&mut self, v: V, p: &Linear<'_, T>, c: &Chunk, head: (usize, usize)) {
        let (n, size) = (c.len(), p.sizes(V::LANES));
        read(v, &p.inputs.q, head, c.tokens.clone(), p.feature, &mut self.q);
        let since_q = room(&mut self.since_q, n * size.dp);
        times(&self.q[..n * size.dp], &c.decays.since, since_q);
        let a = room(&mut self.a, n * c.decays.stride);
        c.decays.between(v, size, &self.q, (&c.k, &c.k_t), &mut self.scratch, a);
    }

    /// The outputs, before their scale.
    #[inline(always)]
    pub(super) fn compute<T: Element, V: Vector>(&mut self, v: V, p: &Linear<'_, T>, c: &Chunk, head: (usize, usize)) {
        let (n, stride, Sizes { d, dp, wp, .. }) = (c.len(), c.decays.stride, p.sizes(V::LANES));
        self.weigh(v, p, c, head);
        let out = room(&mut self.out, n * wp);
        product(v, Left(&self.since_q, dp, 1), (&c.state, wp), (out, wp), [n, wp, d], false);
        triangular(v, (&self.a, stride), false, (&c.u, wp), (out, wp), [n, wp], true);
        if out.iter().all(|x| x.is_finite()) {
            return;
        }
        // A later token of the chunk may not be finite: a weight of zero must not touch what it writes.
        product(v, Left(&self.since_q, dp, 1), (&c.state, wp), (out, wp), [n, wp, d], false);
        let (a, b, add, careful) = (&self.a[..], &c.u[..], true, true);
        v.call(Product { a, a_row: stride, a_column: 1, b, b_row: wp, c: out, c_row: wp, m: n, n: wp, k: n, add, careful });
    }
}

//! Tokens one by one: decoding, and what is left over from chunks.
//!
//! ```text
//!   S ← diag(e^g) S      u = v, or β (v − Sᵀ k)      S ← S + k uᵀ      o_h = Sᵀ q_h
//! ```

use regard_core::Element;

use super::chunk::{Chunk, read};
use super::{Left, Linear, Sizes, product, room};
use crate::simd::{Task, Vector};

/// Takes the state over the tokens of a chunk, and leaves the outputs of every query head of the group in the chunk.
pub(super) struct Recur<'a, 'c, T> {
    pub(super) p: &'a Linear<'a, T>,
    pub(super) chunk: &'c mut Chunk,
    pub(super) head: (usize, usize),
    pub(super) state: &'c mut [f32],
}

impl<T: Element> Task for Recur<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Recur { p, chunk: c, head, state } = self;
        let (n, group, Sizes { d, dp, wp, .. }) = (c.len(), p.shape.group(), p.sizes(V::LANES));
        let (mut decay, mut queries) = (vec![0.0; dp], Vec::new());
        let mut out = std::mem::take(&mut c.out);
        for t in 0..n {
            if c.decay(v, t, &mut decay) {
                for (row, decay) in state.chunks_exact_mut(wp.max(1)).zip(&decay) {
                    row.iter_mut().for_each(|s| *s *= decay);
                }
            }
            let k = &mut c.k[t * dp..][..dp];
            let u = &mut c.e[t * wp..][..wp];
            if p.rule.corrects() {
                k.iter_mut().for_each(|k| *k = -*k);
                product(v, Left(k, dp, 1), (state, wp), (u, wp), [1, wp, d], true);
                k.iter_mut().for_each(|k| *k = -*k);
                u.iter_mut().for_each(|u| *u *= c.beta[t]);
            }
            product(v, Left(k, 1, 1), (u, wp), (state, wp), [d, wp, 1], true);
            let l = c.tokens.start + t;
            for g in 0..group {
                read(v, &p.inputs.q, (head.0, head.1 * group + g), l..l + 1, p.feature, &mut queries);
                let o = &mut room(&mut out, group * n * wp)[(g * n + t) * wp..][..wp];
                product(v, Left(&queries, dp, 1), (state, wp), (o, wp), [1, wp, d], false);
            }
        }
        c.out = out;
    }
}

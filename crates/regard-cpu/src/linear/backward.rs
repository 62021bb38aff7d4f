//! The backward pass: the states between chunks again, then chunk after chunk from the end.
//!
//! With `dS` the gradient of the state after a chunk, `S` the state before it, and `dO` times the scale:
//!
//! ```text
//!   dU = (e^{G_n − G} ∘ K) dS + Σ_h A_hᵀ dO_h                     dA_h = dO_h Uᵀ, i ≤ t
//!   delta: dE from dU by substitution, dβ_t = dU_t·E_t            dM = −dE Uᵀ, i < t
//!   dV = dU or dE                                                 D = (e^G ∘ K)
//!   dQ_h = e^G ∘ dO_h Sᵀ + between'(dA_h)                         dS ← e^{G_n} ∘ dS + Σ_h (e^G ∘ Q_h)ᵀ dO_h − Dᵀ dE
//!   dK = e^{G_n − G} ∘ U dSᵀ + between'(dA_h) + between'(dM) − e^G ∘ dE Sᵀ
//!   dG_t = Σ_h q_t ∘ dq_t ± k_t ∘ dk_t, and at the end Σ_v dS ∘ S_after      dg_t = Σ_{s≥t} dG_s
//! ```
//!
//! A factor that is decayed since the beginning of an interval adds to `dG`, one that is decayed until its end takes away.
//!
//! Source: Yang et al. 2023, "Gated Linear Attention Transformers", whose appendix derives `dG`; the rest is the chain rule.

use regard_core::{Element, Feature, View, ViewMut};

use super::chunk::{Chunk, Load};
use super::forward::share;
use super::output::{Head, reciprocal};
use super::solve::solve_backward;
use super::{CHUNK, Left, Linear, Sizes, add_times, dot, product, room, times, triangular};
use crate::block::ranges;
use crate::once::per_element;
use crate::scatter::{RowWriter, split};
use crate::simd::{Task, Transpose, Vector};

/// What comes back from above.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a, T> {
    /// Gradient of the output, in its shape.
    pub d_out: View<'a, T>,
    /// Gradient of the state after the last token, in its shape; zeros where there is none.
    pub d_state: Option<View<'a, f32>>,
}

/// Where the gradients go: each in the shape of its argument.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// Gradient of the queries.
    pub dq: ViewMut<'a, T>,
    /// Gradient of the keys, summed over the query heads that share them.
    pub dk: ViewMut<'a, T>,
    /// Gradient of the values, likewise.
    pub dv: ViewMut<'a, T>,
    /// Gradient of the logarithms of decays.
    pub ddecay: Option<ViewMut<'a, f32>>,
    /// Gradient of the rates of correction, `[batch, kv_heads, length, 1]`.
    pub dbeta: Option<ViewMut<'a, f32>>,
    /// Gradient of the state before the first token.
    pub dpast: ViewMut<'a, f32>,
}

/// The writers of one KV head.
struct To<'o, T> {
    dq: RowWriter<'o, T>,
    dk: RowWriter<'o, T>,
    dv: RowWriter<'o, T>,
    ddecay: Option<RowWriter<'o, f32>>,
    dbeta: Option<RowWriter<'o, f32>>,
    dpast: RowWriter<'o, f32>,
}

per_element! {
    /// Writes all gradients. KV heads run side by side; each keeps one state for every [`CHUNK`] tokens.
    pub fn backward<T>(p: &'a Linear<'a, T>, up: Upstream<'a, T>, grads: Gradients<'a, T>) = all_gradients;
}

fn all_gradients<T: Element>(p: &Linear<'_, T>, up: Upstream<'_, T>, grads: Gradients<'_, T>) {
    let (s, heads) = (&p.shape, p.shape.batch * p.shape.kv_heads);
    let (mut dq, mut dk) = (of_heads(grads.dq, heads, s.group() * s.len), of_heads(grads.dk, heads, s.len));
    let (mut dv, mut dpast) = (of_heads(grads.dv, heads, s.len), of_heads(grads.dpast, heads, s.head_dim));
    let mut ddecay = grads.ddecay.map(|view| of_heads(view, heads, s.len));
    let mut dbeta = grads.dbeta.map(|view| of_heads(view, heads, s.len));
    let mut next = || {
        let (ddecay, dbeta) = (ddecay.as_mut().and_then(Iterator::next), dbeta.as_mut().and_then(Iterator::next));
        Some(To { dq: dq.next()?, dk: dk.next()?, dv: dv.next()?, ddecay, dbeta, dpast: dpast.next()? })
    };
    let tasks = std::iter::from_fn(&mut next).enumerate().collect();
    share(tasks, true, |(i, to)| head(p, &up, (i / s.kv_heads, i % s.kv_heads), to));
}

/// A writer for the rows of each head.
fn of_heads<T: Element>(view: ViewMut<'_, T>, heads: usize, rows: usize) -> std::vec::IntoIter<RowWriter<'_, T>> {
    split(view, (0..heads).map(|i| i * rows..(i + 1) * rows)).into_iter()
}

fn head<T: Element>(p: &Linear<'_, T>, up: &Upstream<'_, T>, head: (usize, usize), mut to: To<'_, T>) {
    let mut state = p.state_before(head);
    let mut chunk = Chunk::default();
    let chunks = || ranges(0..p.shape.len, CHUNK);
    let mut states = Vec::with_capacity(chunks().count() * state.len());
    for tokens in chunks() {
        states.extend_from_slice(&state);
        p.kernel.run(Load { p, chunk: &mut chunk, head, tokens, recurrent: false });
        p.advance(&mut chunk, head, &mut state);
    }
    let size = p.sizes(p.kernel.lanes());
    let mut back = Back { d_state: vec![0.0; state.len()], after: state, ..Back::default() };
    if let Some(d_state) = &up.d_state {
        back.d_state.chunks_exact_mut(size.wp.max(1)).enumerate().for_each(|(d, row)| d_state.row_into(head.0, head.1, d, row));
    }
    for (i, tokens) in chunks().enumerate().collect::<Vec<_>>().into_iter().rev() {
        p.kernel.run(Load { p, chunk: &mut chunk, head, tokens, recurrent: false });
        chunk.state.clear();
        chunk.state.extend_from_slice(&states[i * back.after.len()..][..back.after.len()]);
        p.kernel.run(Step { p, up, head, chunk: &mut chunk, back: &mut back, to: &mut to });
        back.after.copy_from_slice(&chunk.state);
    }
    p.write_state(&back.d_state, &mut to.dpast);
}

/// Arrays of the backward pass of a chunk; rows are as in [`Chunk`].
#[derive(Default)]
struct Back {
    /// The state after the chunk, and its gradient, which becomes that of the state before it, `[d, wp]`.
    after: Vec<f32>,
    d_state: Vec<f32>,
    before_t: Vec<f32>,
    d_state_t: Vec<f32>,
    u_t: Vec<f32>,
    d_out: Vec<f32>,
    du: Vec<f32>,
    de: Vec<f32>,
    /// Of the products of two tokens.
    da: Vec<f32>,
    dq: Vec<f32>,
    /// Of keys that are decayed since then, and until then.
    dk_since: Vec<f32>,
    dk_until: Vec<f32>,
    /// A product that is still to be decayed, `[n, dp]`.
    plain: Vec<f32>,
    /// Of the running sums of logarithms, `[n, dp]`.
    dg: Vec<f32>,
    head: Head,
}

/// One chunk, from its end to its beginning.
struct Step<'a, 'c, 'o, T> {
    p: &'a Linear<'a, T>,
    up: &'a Upstream<'a, T>,
    head: (usize, usize),
    chunk: &'c mut Chunk,
    back: &'c mut Back,
    to: &'c mut To<'o, T>,
}

impl<T: Element> Task for Step<'_, '_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Step { p, up, head, chunk: c, back, to } = self;
        let size = p.sizes(V::LANES);
        if p.rule.corrects() {
            c.correct(v, size);
        }
        back.through_state(v, c, size);
        for g in 0..p.shape.group() {
            back.through_output(v, p, up, c, (head.0, head.1 * p.shape.group() + g));
            let first = to.dq.rows().start + g * p.shape.len + c.tokens.start;
            back.write_dq(p.feature, (first, c.len()), size, &mut to.dq);
        }
        if p.rule.corrects() {
            back.through_correction(v, c, size);
        }
        back.write(p.feature, c, size, to);
    }
}

impl Back {
    /// From the state after the chunk: to `U`, to the keys that wrote it, to the state before.
    #[inline(always)]
    fn through_state<V: Vector>(&mut self, v: V, c: &mut Chunk, size: Sizes) {
        let (n, stride, Sizes { d, dp, w, wp }) = (c.len(), c.decays.stride, size);
        transpose(v, &c.u, (n, w), wp, room(&mut self.u_t, w * stride), stride);
        transpose(v, &c.state, (d, w), wp, room(&mut self.before_t, w * dp), dp);
        transpose(v, &self.d_state, (d, w), wp, room(&mut self.d_state_t, w * dp), dp);
        let weighed = room(&mut c.weighed, n * dp);
        times(&c.k[..n * dp], &c.decays.until, weighed);
        product(v, Left(weighed, dp, 1), (&self.d_state, wp), (room(&mut self.du, n * wp), wp), [n, wp, d], false);
        product(v, Left(&c.u, wp, 1), (&self.d_state_t, dp), (room(&mut self.plain, n * dp), dp), [n, dp, w], false);
        times(&self.plain[..n * dp], &c.decays.until, room(&mut self.dk_until, n * dp));
        room(&mut self.dk_since, n * dp).fill(0.0);
        room(&mut self.dg, n * dp).fill(0.0);
        for i in 0..d {
            let row = i * wp..(i + 1) * wp;
            self.dg[(n - 1) * dp + i] = dot(&self.d_state[row.clone()], &self.after[row.clone()]);
            self.d_state[row].iter_mut().for_each(|s| *s *= c.decays.whole[i]);
        }
    }

    /// From the output of a query head: to its queries, to the keys, to `U`, to the state before.
    #[inline(always)]
    fn through_output<T: Element, V: Vector>(
        &mut self,
        v: V,
        p: &Linear<'_, T>,
        up: &Upstream<'_, T>,
        c: &mut Chunk,
        head: (usize, usize),
    ) {
        let (n, stride, size) = (c.len(), c.decays.stride, p.sizes(V::LANES));
        let Sizes { d, dp, w, wp } = size;
        self.read_d_out(v, p, up, c, head);
        triangular(v, (&self.head.a, stride), true, (&self.d_out, wp), (&mut self.du, wp), [n, wp], true);
        product(v, Left(&self.head.since_q, 1, dp), (&self.d_out, wp), (&mut self.d_state, wp), [d, wp, n], true);
        product(v, Left(&self.d_out, wp, 1), (&self.before_t, dp), (room(&mut self.plain, n * dp), dp), [n, dp, w], false);
        times(&self.plain[..n * dp], &c.decays.since, room(&mut self.dq, n * dp));
        let da = room(&mut self.da, n * stride);
        product(v, Left(&self.d_out, wp, 1), (&self.u_t, stride), (da, stride), [n, n.next_multiple_of(V::LANES), w], false);
        c.decays.between_backward(v, size, da, (&self.head.q, &c.k), (&mut self.dq, &mut self.dk_until), &mut c.scratch);
        add_times(&self.head.q[..n * dp], &self.dq, &mut self.dg);
    }

    /// The gradient of the outputs before their scale; of normalised ones `o = x/z`, `dx = do/z` and `dz = −Σ dx·o`.
    #[inline(always)]
    fn read_d_out<T: Element, V: Vector>(
        &mut self,
        v: V,
        p: &Linear<'_, T>,
        up: &Upstream<'_, T>,
        c: &Chunk,
        head: (usize, usize),
    ) {
        let (wp, dim) = (p.sizes(V::LANES).wp, p.shape.value_dim);
        if p.normalised {
            self.head.compute(v, p, c, head);
        } else {
            self.head.weigh(v, p, c, head);
        }
        let rows = room(&mut self.d_out, c.len() * wp).chunks_exact_mut(wp.max(1));
        for ((t, row), l) in rows.enumerate().zip(c.tokens.clone()) {
            row[dim..].fill(0.0);
            up.d_out.row_into(head.0, head.1, l, row);
            let out = &self.head.out[if p.normalised { t * wp..(t + 1) * wp } else { 0..0 }];
            let factor = if p.normalised { reciprocal(out[dim]) } else { p.scale };
            row[..dim].iter_mut().for_each(|x| *x *= factor);
            if p.normalised {
                row[dim] = -factor * dot(&row[..dim], &out[..dim]);
            }
        }
    }

    /// From `U` through the substitution: to `E` and so to the values, to the keys, to the state before.
    #[inline(always)]
    fn through_correction<V: Vector>(&mut self, v: V, c: &mut Chunk, size: Sizes) {
        let (n, stride, Sizes { d, dp, w, wp }) = (c.len(), c.decays.stride, size);
        let de = room(&mut self.de, n * wp);
        solve_backward(v, (&c.m, stride), &c.beta, size, &mut self.du, de);
        let weighed = room(&mut c.weighed, n * dp);
        times(&c.k[..n * dp], &c.decays.since, weighed);
        weighed.iter_mut().for_each(|x| *x = -*x);
        product(v, Left(weighed, 1, dp), (de, wp), (&mut self.d_state, wp), [d, wp, n], true);
        de.iter_mut().for_each(|x| *x = -*x);
        product(v, Left(de, wp, 1), (&self.before_t, dp), (&mut self.plain, dp), [n, dp, w], false);
        add_times(&self.plain[..n * dp], &c.decays.since, &mut self.dk_since);
        let da = room(&mut self.da, n * stride);
        product(v, Left(de, wp, 1), (&self.u_t, stride), (da, stride), [n, n.next_multiple_of(V::LANES), w], false);
        (0..n).for_each(|t| da[t * stride + t] = 0.0);
        de.iter_mut().for_each(|x| *x = -*x);
        c.decays.between_backward(v, size, da, (&c.k, &c.k), (&mut self.dk_since, &mut self.dk_until), &mut c.scratch);
        add_times(&c.k[..n * dp], &self.dk_since, &mut self.dg);
    }

    /// `n` rows of the gradient of a query head, from row `first`.
    #[inline(always)]
    fn write_dq<T: Element>(&mut self, feature: Feature, (first, n): (usize, usize), size: Sizes, to: &mut RowWriter<'_, T>) {
        for t in 0..n {
            let row = t * size.dp..(t + 1) * size.dp;
            through_feature(feature, &self.head.q[row.clone()], &mut self.dq[row.clone()]);
            to.write(first + t, &self.dq[row]);
        }
    }

    /// The gradients of keys, values and gates.
    #[inline(always)]
    fn write<T: Element>(&mut self, feature: Feature, c: &Chunk, size: Sizes, to: &mut To<'_, T>) {
        let (n, Sizes { d, dp, wp, .. }) = (c.len(), size);
        let mut later = vec![0.0; d];
        let dv = if to.dbeta.is_some() { &self.de } else { &self.du };
        for t in (0..n).rev() {
            let (key, value) = (t * dp..t * dp + d, t * wp..(t + 1) * wp);
            let (k, since, until) = (&c.k[key.clone()], &self.dk_since[key.clone()], &mut self.dk_until[key.clone()]);
            if let Some(to) = &mut to.ddecay {
                for (((later, dg), k), until) in later.iter_mut().zip(&self.dg[key]).zip(k).zip(until.iter()) {
                    *later += dg - k * until; // Σ_{s≥t} dG_s
                }
                let one = [later.iter().sum()];
                let row = to.rows().start + c.tokens.start + t;
                to.write(row, if to.dim() == 1 { &one } else { &later });
            }
            until.iter_mut().zip(since).for_each(|(until, since)| *until += since);
            through_feature(feature, k, until);
            to.dk.write(to.dk.rows().start + c.tokens.start + t, until);
            to.dv.write(to.dv.rows().start + c.tokens.start + t, &dv[value.clone()]);
            if let Some(to) = &mut to.dbeta {
                to.write(to.rows().start + c.tokens.start + t, &[dot(&self.du[value.clone()], &c.e[value])]);
            }
        }
    }
}

/// `dx = dφ · φ'(x)`, where `φ'(x) = min(φ(x), 1)` of `elu(x) + 1`.
#[inline(always)]
fn through_feature(feature: Feature, phi: &[f32], d: &mut [f32]) {
    if feature == Feature::EluPlusOne {
        d.iter_mut().zip(phi).for_each(|(d, phi)| *d *= phi.min(1.0));
    }
}

/// `to = fromᵀ`, of `(rows, columns)` with rows `from_row` and `to_row` apart.
#[inline(always)]
fn transpose<V: Vector>(v: V, from: &[f32], (rows, columns): (usize, usize), from_row: usize, to: &mut [f32], to_row: usize) {
    v.call(Transpose { from, from_row, to, to_row, rows, columns });
}

//! Attention backward: which sweeps, over which threads.
//!
//! A gradient element is one chain of additions in a fixed order: `dQ` over keys, `dK` and `dV` over heads, then queries. Both
//! schedules below keep that order, so the choice between them, and the number of threads, changes no bit.

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{BiasSink, Element, Pair, Shape, View, ViewMut};

use crate::block::ranges;
use crate::lines::Lines;
use crate::once::per_element;
use crate::rule::SlopeRule;
use crate::scatter::{RowWriter, split};
use crate::share::{share, threads};
use crate::sweep::{Sweep, Wanted};
use crate::{Problem, ROWS, TILE};

/// Keys, or query rows, that a sweep keeps in the second-level cache: 256 rows of 64 f32, four arrays, are 256 KiB.
const CHUNK: usize = 256;

/// What comes back from above: the forward pass's results, and the gradient of its output.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a, T> {
    /// Output of the forward pass, `[batch, q_heads, q_len, value_dim]`.
    pub out: View<'a, T>,
    /// Its log-sum-exp, `[batch, q_heads, q_len, 1]`.
    pub lse: View<'a, f32>,
    /// Gradient of the output, in its shape.
    pub d_out: View<'a, T>,
}

/// Where the gradients go: each in the shape of its argument, and every element written, whatever it held.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// Gradient of the queries.
    pub dq: ViewMut<'a, T>,
    /// Gradient of the keys, summed over the query heads that share them.
    pub dk: ViewMut<'a, T>,
    /// Gradient of the values, summed over the query heads that share them.
    pub dv: ViewMut<'a, T>,
    /// Gradient of the bias, row-major in the bias's shape, summed over the sizes that repeat; empty when there is none.
    pub dbias: &'a mut [f32],
    /// Gradient of the sinks, one for each query head; empty when there are none.
    pub dsinks: &'a mut [f32],
}

per_element! {
    /// Writes all gradients.
    pub fn backward<T>(p: &'a Problem<'a, T>, rule: &'a dyn SlopeRule, up: Upstream<'a, T>, grads: Gradients<'a, T>) = all_gradients;
}

fn all_gradients<T: Element>(p: &Problem<'_, T>, rule: &dyn SlopeRule, up: Upstream<'_, T>, grads: Gradients<'_, T>) {
    let threads = threads(&p.shape, 3 * p.shape.head_dim + 2 * p.shape.value_dim);
    let Statistics { lse, delta } = &Statistics::of(p, &up, threads);
    let pass = |careful| Pass { p, rule, d_out: up.d_out, lse, delta, threads, careful };
    let (Gradients { mut dq, mut dk, mut dv, dbias, dsinks }, mut careful) = (grads, false);
    clear_tails(&p.shape, dk.reborrow());
    clear_tails(&p.shape, dv.reborrow());
    loop {
        pass(careful).run(dq.reborrow(), dk.reborrow(), dv.reborrow(), dbias);
        let finite = [&dq, &dk, &dv].iter().all(|x| all_finite(x.view(), threads)) && dbias.iter().all(|x| x.is_finite());
        if finite || careful {
            break;
        }
        // Something visible is not finite, or something hidden was: weights of zero must not touch their operands.
        careful = true;
    }
    sink_gradients(p, lse, delta, dsinks);
}

/// What the forward pass left of every row, `[batch, q_heads, q_len]` flattened.
struct Statistics {
    lse: Vec<f32>,
    /// `δ = Σ dO ∘ O`
    delta: Vec<f32>,
}

impl Statistics {
    fn of<T: Element>(p: &Problem<'_, T>, up: &Upstream<'_, T>, threads: usize) -> Self {
        let [batch, heads, length, dim] = p.shape.out();
        let (mut lse, mut delta) = (vec![0.0; batch * heads * length], vec![0.0; batch * heads * length]);
        let of_heads = delta.chunks_mut(length.max(1)).zip(lse.chunks_mut(length.max(1)));
        share(threads, of_heads.enumerate().collect(), |(i, (delta, lse))| {
            let (b, h, mut o, mut d_o) = (i / heads, i % heads, vec![0.0; dim], vec![0.0; dim]);
            for (l, (delta, lse)) in delta.iter_mut().zip(lse).enumerate() {
                up.out.row_into(b, h, l, &mut o);
                up.d_out.row_into(b, h, l, &mut d_o);
                *delta = o.iter().zip(&d_o).map(|(o, d)| o * d).sum();
                *lse = up.lse.at([b, h, l, 0]);
            }
        });
        Statistics { lse, delta }
    }
}

/// Zeros for the keys, or values, that a sequence shorter than the longest does not have.
fn clear_tails<T: Element>(shape: &Shape, to: ViewMut<'_, T>) {
    let groups = if shape.kv_lens.is_empty() { 0 } else { shape.batch * shape.kv_heads };
    let tails = (0..groups).map(|i| i * shape.kv_len + shape.keys(i / shape.kv_heads)..(i + 1) * shape.kv_len);
    for mut tail in split(to, tails) {
        let zeros = vec![0.0; tail.dim()];
        tail.rows().for_each(|row| tail.write(row, &zeros));
    }
}

fn all_finite<T: Element>(x: View<'_, T>, threads: usize) -> bool {
    let [batch, heads, length, dim] = x.shape();
    let of_head = |i: usize| {
        let mut row = vec![0.0; dim];
        (0..length).all(|l| {
            x.row_into(i / heads, i % heads, l, &mut row);
            row.iter().fold(true, |all, x| all & x.is_finite()) // all of them: a vector at a time
        })
    };
    match threads {
        1 => (0..batch * heads).all(of_head),
        _ => (0..batch * heads).into_par_iter().all(of_head),
    }
}

/// `dsink = −Σ exp(sink − lse) · δ` over batch and queries.
fn sink_gradients<T: Element>(p: &Problem<'_, T>, lse: &[f32], delta: &[f32], dsinks: &mut [f32]) {
    let (heads, length) = (p.shape.q_heads, p.shape.q_len);
    for (h, (to, &sink)) in dsinks.iter_mut().zip(p.sinks).enumerate() {
        let row = |b: usize| (b * heads + h) * length;
        let rows = (0..p.shape.batch).flat_map(|b| row(b)..row(b) + length);
        let seen = rows.filter(|&r| lse[r] != f32::NEG_INFINITY && sink > f32::NEG_INFINITY);
        *to = -seen.map(|r| f64::from(sink - lse[r]).exp() * f64::from(delta[r])).sum::<f64>() as f32;
    }
}

/// One run over the whole problem.
struct Pass<'a, T> {
    p: &'a Problem<'a, T>,
    rule: &'a dyn SlopeRule,
    d_out: View<'a, T>,
    lse: &'a [f32],
    delta: &'a [f32],
    threads: usize,
    careful: bool,
}

impl<T: Element> Pass<'_, T> {
    fn run(&self, dq: ViewMut<'_, T>, dk: ViewMut<'_, T>, dv: ViewMut<'_, T>, dbias: &mut [f32]) {
        let (groups, threads) = (self.p.shape.batch * self.p.shape.kv_heads, self.threads);
        if groups.is_multiple_of(threads) || groups >= 4 * threads {
            self.by_group(dq, dk, dv);
        } else {
            self.by_chunk(dq, dk, dv);
        }
        self.bias(dbias);
    }

    /// Each group on one thread, every tile computed once.
    fn by_group(&self, dq: ViewMut<'_, T>, dk: ViewMut<'_, T>, dv: ViewMut<'_, T>) {
        let (queries, keys) = (self.groups(self.group_rows()), self.groups(self.p.shape.kv_len));
        let writers = split(dk, keys.clone()).into_iter().zip(split(dv, keys)).zip(split(dq, queries));
        share(self.threads, writers.enumerate().collect(), |(i, ((mut dk, mut dv), mut dq))| {
            let mut dq_f32 = Lines::zeros(self.group_rows() * self.head_dim());
            for chunk in self.key_chunks(i) {
                self.keys(i, chunk, Some(&mut dq_f32), &mut dk, &mut dv);
            }
            write(&mut dq, 0, &dq_f32, self.head_dim(), self.p.scale);
        });
    }

    /// Fewer groups than threads: chunks of keys for `dK` and `dV`, then chunks of rows for `dQ`; scores are computed twice.
    fn by_chunk(&self, dq: ViewMut<'_, T>, dk: ViewMut<'_, T>, dv: ViewMut<'_, T>) {
        let shape = &self.p.shape;
        let groups = || 0..shape.batch * shape.kv_heads;
        let key_chunks: Vec<_> = groups().flat_map(|i| self.key_chunks(i).map(move |c| (i, c))).collect();
        let written = || key_chunks.iter().map(|(i, c)| i * shape.kv_len + c.start..i * shape.kv_len + c.end);
        let writers = split(dk, written()).into_par_iter().zip(split(dv, written()));
        writers.zip(&key_chunks).for_each(|((mut dk, mut dv), (i, chunk))| self.keys(*i, chunk.clone(), None, &mut dk, &mut dv));

        let row_chunks: Vec<_> = groups().flat_map(|i| ranges(0..self.group_rows(), CHUNK).map(move |c| (i, c))).collect();
        let written = row_chunks.iter().map(|(i, c)| {
            let first = i * self.group_rows();
            first + c.start..first + c.end
        });
        split(dq, written).into_par_iter().zip(&row_chunks).for_each(|(mut dq, (i, chunk))| {
            let mut dq_f32 = Lines::zeros(chunk.len() * self.head_dim());
            for keys in self.key_chunks(*i) {
                self.sweep(*i, keys, chunk.clone(), Wanted { dq: Some(&mut dq_f32), ..Wanted::default() });
            }
            write(&mut dq, 0, &dq_f32, self.head_dim(), self.p.scale);
        });
    }

    /// One chunk of keys of group `i` against all rows: writes its `dK` and `dV`.
    fn keys(&self, i: usize, keys: Range<usize>, dq: Option<&mut [f32]>, dk: &mut RowWriter<'_, T>, dv: &mut RowWriter<'_, T>) {
        let value_dim = self.p.shape.value_dim.next_multiple_of(self.p.kernel.lanes());
        let mut dk_f32 = Lines::zeros(keys.len() * self.head_dim());
        let mut dv_f32 = Lines::zeros(keys.len() * value_dim);
        let wanted = Wanted { dq, dkv: Some((&mut dk_f32, &mut dv_f32)), bias: None };
        self.sweep(i, keys.clone(), 0..self.group_rows(), wanted);
        let first = i * self.p.shape.kv_len + keys.start;
        write(dk, first - dk.rows().start, &dk_f32, self.head_dim(), self.p.scale);
        write(dv, first - dv.rows().start, &dv_f32, value_dim, 1.0);
    }

    fn sweep(&self, i: usize, keys: Range<usize>, rows: Range<usize>, wanted: Wanted<'_>) {
        let Pass { p, rule, d_out, lse, delta, careful, .. } = *self;
        let (batch, kv_head) = (i / p.shape.kv_heads, i % p.shape.kv_heads);
        p.kernel.run(Sweep { p, rule, d_out, lse, delta, batch, kv_head, keys, rows, careful, wanted });
    }

    /// The gradient of the bias, each element gathered by one thread in order of batch, head, query and key.
    fn bias(&self, dbias: &mut [f32]) {
        let Some([_, heads, queries, keys]) = self.rule.bias_shape() else { return };
        let chunk = if queries == 1 { self.p.shape.q_len } else { ROWS };
        let (head_size, chunk_size) = ((queries * keys).max(1), (chunk.min(queries) * keys).max(1));
        let of_head = |(i, dbias)| <[f32]>::chunks_mut(dbias, chunk_size).enumerate().map(move |(n, dbias)| (i, n, dbias));
        let regions = dbias.chunks_mut(head_size).enumerate().flat_map(of_head).collect();
        share(self.threads, regions, |(i, n, dbias)| {
            let rows = n * chunk..((n + 1) * chunk).min(self.p.shape.q_len);
            let mut region = Region { sum: vec![0.0; dbias.len()], first: rows.start as u32, queries, keys };
            self.bias_rows([i / heads, i % heads], rows, &mut region);
            dbias.iter_mut().zip(&region.sum).for_each(|(to, x)| *to = *x as f32);
        });
    }

    /// Every batch entry and head that reads bias `[at]`.
    fn bias_rows(&self, at: [usize; 2], rows: Range<usize>, region: &mut Region) {
        let shape = &self.p.shape;
        let [batch, heads, ..] = self.rule.bias_shape().unwrap_or_default();
        let all = |size, n: usize, i: usize| if size == 1 { 0..n } else { i..i + 1 };
        for b in all(batch, shape.batch, at[0]) {
            for h in all(heads, shape.q_heads, at[1]) {
                let (group, first) = (b * shape.kv_heads + h / shape.group(), h % shape.group() * shape.q_len);
                for keys in self.key_chunks(group) {
                    let wanted = Wanted { bias: Some(region), ..Wanted::default() };
                    self.sweep(group, keys, first + rows.start..first + rows.end, wanted);
                }
            }
        }
    }

    fn group_rows(&self) -> usize {
        self.p.shape.group() * self.p.shape.q_len
    }

    /// Elements of a key, padded to whole vectors.
    fn head_dim(&self) -> usize {
        self.p.shape.head_dim.next_multiple_of(self.p.kernel.lanes())
    }

    fn key_chunks(&self, group: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
        debug_assert!(CHUNK.is_multiple_of(TILE));
        ranges(0..self.p.shape.keys(group / self.p.shape.kv_heads.max(1)), CHUNK)
    }

    /// The rows of each group, when a group has `size` rows.
    fn groups(&self, size: usize) -> impl Iterator<Item = Range<usize>> + Clone + use<T> {
        let groups = self.p.shape.batch * self.p.shape.kv_heads;
        (0..groups).map(move |i| i * size..(i + 1) * size)
    }
}

/// The part of a bias gradient that one thread gathers, in f64: an element may stand for millions of pairs.
struct Region {
    sum: Vec<f64>,
    /// First query of the region.
    first: u32,
    queries: usize,
    keys: usize,
}

impl BiasSink for Region {
    #[inline]
    fn add(&mut self, p: Pair, ds: f32) {
        let q = if self.queries == 1 { 0 } else { (p.q - self.first) as usize };
        let kv = if self.keys == 1 { 0 } else { p.kv as usize };
        self.sum[q * self.keys + kv] += f64::from(ds);
    }
}

/// Writes `factor · from`, rows of `dim`, to the rows from the `first` of a writer on.
fn write<T: Element>(to: &mut RowWriter<'_, T>, first: usize, from: &[f32], dim: usize, factor: f32) {
    let start = to.rows().start + first;
    let mut scaled = vec![0.0; dim];
    for (i, row) in from.chunks_exact(dim.max(1)).enumerate() {
        scaled.iter_mut().zip(row).for_each(|(s, x)| *s = factor * x);
        to.write(start + i, &scaled);
    }
}

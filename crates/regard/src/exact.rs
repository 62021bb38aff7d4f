//! Rows of the output in f64, and how far those of a type lie from them.

use half::{bf16, f16};
use rayon::prelude::*;
use regard_core::{Dropout, Element, Kv, Lens, Mask, Pair, Result, Score, Tensor};

use crate::inspect::within;
use crate::{Attention, Plan};

/// For each batch entry and query head, `[batch, q_heads]`, the root mean square of the error of some rows in each type, over that of the exact
/// outputs. Not finite where a row sees something beyond the range of the type, as numbers above 65,504 are in f16.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the type of numbers")]
pub struct Errors {
    pub f32: Vec<f64>,
    pub bf16: Vec<f64>,
    pub f16: Vec<f64>,
}

impl<T: Element, M: Mask, S: Score> Plan<'_, T, M, S> {
    /// The outputs of some query rows, in any order, computed in f64 from what the queries, keys, values and scale hold: `[batch, q_heads,
    /// rows, value_dim]`, row-major. What [`Plan::forward`] rounds is to be measured against it. Scores are functions of f32: where there are any,
    /// `scale · q·k` is rounded for them. It takes the time of a plain loop over the keys of these rows, and the memory of the keys and
    /// values of a head for each thread.
    ///
    /// ```
    /// # use regard::{Attention, Causal, View};
    /// # let x: Vec<f32> = (0..2 * 100 * 16).map(|i| (i as f32).sin()).collect();
    /// # let x = View::new(&x, [1, 2, 100, 16])?;
    /// # let attention = Attention::new().mask(Causal::UpperLeft);
    /// let plan = attention.plan(x, (x, x))?;
    /// let (exact, output) = (plan.exact(&[42])?, plan.forward()?.out);
    /// let row = output.view().row(0, 1, 42).unwrap(); // of head 1
    /// assert!(row.iter().zip(&exact[16..]).all(|(x, exact)| (f64::from(*x) - exact).abs() < 1e-6));
    /// # Ok::<(), regard::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there is no such row.
    pub fn exact(&self, rows: &[usize]) -> Result<Vec<f64>> {
        self.exact_with(rows, self.problem.dropout)
    }

    /// How far the outputs of some rows lie from [`Plan::exact`] where queries, keys and values are rounded to each type and this kernel
    /// computes them in it. Dropout is left out.
    ///
    /// Source of the measure: Shah et al. 2024, "FlashAttention-3", §4.3.
    ///
    /// ```
    /// # use regard::{Attention, Causal, View};
    /// # let x: Vec<f32> = (0..2 * 100 * 16).map(|i| (i as f32).sin()).collect();
    /// # let x = View::new(&x, [1, 2, 100, 16])?;
    /// # let attention = Attention::new().mask(Causal::UpperLeft);
    /// let rows: Vec<usize> = (0..100).collect();
    /// let errors = attention.plan(x, (x, x))?.errors(&rows)?; // of two heads
    /// assert!(errors.f32.iter().all(|error| *error < 1e-6));
    /// # Ok::<(), regard::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there is no such row.
    pub fn errors(&self, rows: &[usize]) -> Result<Errors> {
        let exact = self.exact_with(rows, None)?;
        Ok(Errors {
            f32: self.error::<f32>(rows, &exact)?,
            bf16: self.error::<bf16>(rows, &exact)?,
            f16: self.error::<f16>(rows, &exact)?,
        })
    }

    /// Those of one type.
    fn error<U: Element>(&self, rows: &[usize], exact: &[f64]) -> Result<Vec<f64>> {
        let shape = self.shape();
        let mut errors = Vec::with_capacity(shape.batch * shape.q_heads);
        let of_head = rows.len() * shape.value_dim;
        for b in (0..shape.batch).filter(|_| !rows.is_empty()) {
            let rounded = self.rounded::<U>(b, rows)?;
            for h in 0..shape.q_heads {
                let given = rounded.data()[h * of_head..][..of_head].iter().map(|x| f64::from(x.to_f32()));
                let exact = &exact[(b * shape.q_heads + h) * of_head..][..of_head];
                let error = given.zip(exact).map(|(x, exact)| (x - exact).powi(2)).sum::<f64>();
                let all = exact.iter().map(|x| x * x).sum::<f64>();
                errors.push(if error == 0.0 { 0.0 } else { (error / all).sqrt() });
            }
        }
        errors.resize(shape.batch * shape.q_heads, 0.0);
        Ok(errors)
    }

    /// At most so many query rows, evenly spread, the last among them: enough to measure on, where all would take long.
    pub fn spread_rows(&self, most: usize) -> Vec<usize> {
        let n = self.shape().q_len;
        let rows = n.min(most);
        (1..=rows).map(|i| i * n / rows - 1).collect()
    }

    /// [`Plan::exact`] with that dropout.
    fn exact_with(&self, rows: &[usize], dropout: Option<Dropout>) -> Result<Vec<f64>> {
        let shape = self.shape();
        rows.iter().try_for_each(|&row| within(2, &(row..row + 1), shape.q_len))?;
        let heads = (0..shape.batch * shape.q_heads).into_par_iter().map(|i| [i / shape.q_heads, i % shape.q_heads]);
        let of_head = |[b, h]: [usize; 2]| {
            let (k, v) = self.keys_and_values(b, h / shape.group());
            rows.iter().flat_map(|&i| self.row([b, h, i], (&k, &v), dropout)).collect::<Vec<_>>()
        };
        Ok(heads.flat_map_iter(of_head).collect())
    }

    /// One row.
    ///
    /// ```text
    ///   s_j = score(scale · q·k_j)      p_j = exp(s_j − max s)      o = Σ p_j·v_j / (Σ p_j + exp(sink − max s))
    /// ```
    fn row(&self, [b, h, i]: [usize; 3], (k, v): (&[f32], &[f32]), dropout: Option<Dropout>) -> Vec<f64> {
        let (shape, rule) = (self.shape(), self.rule);
        let (scale, sink) = (f64::from(self.problem.scale), self.problem.sinks.get(h).map_or(f64::NEG_INFINITY, |s| f64::from(*s)));
        let mut q = vec![0.0; shape.head_dim];
        self.problem.q.row_into(b, h, i, &mut q);
        let score = |j: usize| {
            let at = shape.pair(b, h, i, j);
            let s = rule.mask.keep(at).then(|| scale * dot(&q, &k[j * shape.head_dim..][..shape.head_dim]))?;
            let s = if rule.score.is_identity() { s } else { f64::from(rule.score.score(s as f32, at)) };
            (s != f64::NEG_INFINITY).then_some((j, s)) // a key that is hidden is not read
        };
        let scores: Vec<(usize, f64)> = (0..shape.keys(b)).filter_map(score).collect();
        let max = scores.iter().map(|(_, s)| *s).fold(sink, f64::max);
        let (mut sum, mut out) = ((sink - max).exp(), vec![0.0; shape.value_dim]);
        if scores.is_empty() {
            return out;
        }
        for (j, s) in scores {
            let p = (s - max).exp();
            let kept = dropout.map_or(p, |dropout| p * f64::from(dropout.factor(shape.pair(b, h, i, j))));
            sum += p;
            out.iter_mut().zip(&v[j * shape.value_dim..]).for_each(|(o, v)| *o += kept * f64::from(*v));
        }
        out.iter_mut().for_each(|o| *o /= sum);
        out
    }

    /// The keys and values of a sequence and KV head in f32, `[keys, dim]`.
    fn keys_and_values(&self, b: usize, head: usize) -> (Vec<f32>, Vec<f32>) {
        let (shape, n) = (self.shape(), self.shape().keys(b));
        let (mut k, mut v) = (vec![0.0; n * shape.head_dim], vec![0.0; n * shape.value_dim]);
        let keys = k.chunks_exact_mut(shape.head_dim.max(1)).enumerate();
        let values = v.chunks_exact_mut(shape.value_dim.max(1)).enumerate();
        match self.problem.kv {
            Kv::Dense { k, v } => {
                keys.for_each(|(j, to)| k.row_into(b, head, j, to));
                values.for_each(|(j, to)| v.row_into(b, head, j, to));
            }
            Kv::Paged { cache, layer, seqs } => {
                keys.for_each(|(j, to)| T::widen(&cache.key_rows(layer, seqs[b], head, j)[..to.len()], to));
                values.for_each(|(j, to)| T::widen(&cache.value_rows(layer, seqs[b], head, j)[..to.len()], to));
            }
        }
        (k, v)
    }

    /// Some rows of a sequence, `[1, q_heads, rows, value_dim]`, from queries, keys and values in another type.
    fn rounded<U: Element>(&self, b: usize, rows: &[usize]) -> Result<Tensor<U>> {
        let (shape, n) = (self.shape(), self.shape().keys(b));
        let [mut q, mut k, mut v] = [const { Vec::new() }; 3];
        let mut row = vec![0.0; shape.head_dim];
        for (h, &i) in (0..shape.q_heads).flat_map(|h| rows.iter().map(move |i| (h, i))) {
            self.problem.q.row_into(b, h, i, &mut row);
            q.extend(row.iter().map(|x| narrowed::<U>(*x)));
        }
        for head in 0..shape.kv_heads {
            let (keys, values) = self.keys_and_values(b, head);
            k.extend(keys.into_iter().map(narrowed::<U>));
            v.extend(values.into_iter().map(narrowed::<U>));
        }
        let q = Tensor::from_vec(q, [1, shape.q_heads, rows.len(), shape.head_dim])?;
        let k = Tensor::from_vec(k, [1, shape.kv_heads, n, shape.head_dim])?;
        let v = Tensor::from_vec(v, [1, shape.kv_heads, n, shape.value_dim])?;
        let (of, len) = (b as u32, shape.pair(b, 0, 0, 0).len);
        let attention = Attention::new()
            .scale(self.problem.scale)
            .mask(Picked { rule: self.rule.mask, batch: of, rows, len })
            .score(Picked { rule: self.rule.score, batch: of, rows, len })
            .kernel(self.kernel());
        let sinks = self.problem.sinks;
        let attention = if sinks.is_empty() { attention } else { attention.sinks(sinks) };
        Ok(attention.forward(q.view(), (k.view(), v.view()))?.out)
    }
}

/// A mask or a score of some rows of one sequence, asked where they were.
struct Picked<'a, R> {
    rule: &'a R,
    batch: u32,
    rows: &'a [usize],
    len: Lens,
}

impl<R> Picked<'_, R> {
    fn at(&self, p: Pair) -> Pair {
        Pair { batch: self.batch, q: self.rows[p.q as usize] as u32, len: self.len, ..p }
    }
}

impl<M: Mask> Mask for Picked<'_, M> {
    fn keep(&self, p: Pair) -> bool {
        self.rule.keep(self.at(p))
    }
}

impl<S: Score> Score for Picked<'_, S> {
    fn score(&self, s: f32, p: Pair) -> f32 {
        self.rule.score(s, self.at(p))
    }

    fn is_identity(&self) -> bool {
        self.rule.is_identity()
    }
}

/// What is beyond the range becomes NaN, which reaches the output: an infinite number may give a score of −∞, which only hides a key.
fn narrowed<U: Element>(x: f32) -> U {
    let y = U::from_f32(x);
    if x.is_finite() && !y.to_f32().is_finite() { U::from_f32(f32::NAN) } else { y }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0; 4]; // four chains at a time
    let (fours, rest) = a.as_chunks::<4>();
    for (a, b) in fours.iter().zip(b.as_chunks::<4>().0) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += f64::from(*a) * f64::from(*b));
    }
    let tail = rest.iter().zip(&b[a.len() - rest.len()..]);
    sums.iter().sum::<f64>() + tail.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
}

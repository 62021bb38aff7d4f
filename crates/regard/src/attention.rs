//! What attention is asked for, before it meets any data.

use regard_core::{Element, Kv, Mask, Result, Score, Tensor, View};

use crate::{Output, Plan};

/// A description of attention: its mask, its scores, its scale, sinks and dropout. [`Attention::plan`] binds it to data.
///
/// ```
/// use regard::{Attention, Causal, Softcap, View, Window};
///
/// let x: Vec<f32> = (0..2 * 4 * 8).map(|i| (i as f32).sin()).collect();
/// let x = View::new(&x, [1, 2, 4, 8])?; // one sequence, two heads, four positions, eight elements
/// let attention = Attention::new()
///     .mask((Causal::UpperLeft, Window { left: 2, right: 0 })) // both must agree
///     .score(Softcap(30.0));
/// let output = attention.forward(x, (x, x))?;
/// assert_eq!(output.out.shape(), [1, 2, 4, 8]);
/// # Ok::<(), regard::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Attention<M = (), S = ()> {
    pub(crate) mask: M,
    pub(crate) score: S,
    pub(crate) scale: Option<f32>,
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) dropout: Option<(f32, u64)>,
    pub(crate) kernel: Option<String>,
}

impl Attention {
    /// Plain attention: everything visible, scores as they are, scale `1/√head_dim`.
    pub fn new() -> Self {
        Attention { mask: (), score: (), scale: None, sinks: None, dropout: None, kernel: None }
    }
}

impl Default for Attention {
    fn default() -> Self {
        Attention::new()
    }
}

impl<M, S> Attention<M, S> {
    /// Who is seen, instead of the mask so far; combine masks in a tuple.
    pub fn mask<N: Mask>(self, mask: N) -> Attention<N, S> {
        let Attention { score, scale, sinks, dropout, kernel, .. } = self;
        Attention { mask, score, scale, sinks, dropout, kernel }
    }

    /// How much, instead of the score so far; compose scores in a tuple, first to last.
    pub fn score<N: Score>(self, score: N) -> Attention<M, N> {
        let Attention { mask, scale, sinks, dropout, kernel, .. } = self;
        Attention { mask, score, scale, sinks, dropout, kernel }
    }

    /// What `q·k` is multiplied by, instead of `1/√head_dim`. Must be finite.
    pub fn scale(self, scale: f32) -> Self {
        Attention { scale: Some(scale), ..self }
    }

    /// One logit for each query head that joins the softmax denominator and has no value. −∞ is no sink.
    ///
    /// Source: OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", §2.2.
    pub fn sinks(self, sinks: impl Into<Vec<f32>>) -> Self {
        Attention { sinks: Some(sinks.into()), ..self }
    }

    /// Drops each probability with chance `p`, between 0 and 1; the same seed drops the same positions.
    pub fn dropout(self, p: f32, seed: u64) -> Self {
        Attention { dropout: Some((p, seed)), ..self }
    }

    /// Asks for one of [`kernels`](crate::kernels) by name, instead of the best one or the one `REGARD_KERNEL` names.
    pub fn kernel(self, name: impl Into<String>) -> Self {
        Attention { kernel: Some(name.into()), ..self }
    }
}

impl<M: Mask, S: Score> Attention<M, S> {
    /// Checks everything, and chooses the kernel. `kv` is a pair of views `(k, v)`, or pages ([`Kv::Paged`]).
    ///
    /// # Errors
    /// When the arguments do not fit together, or one is outside its domain; the error names it.
    pub fn plan<'a, T: Element>(&'a self, q: View<'a, T>, kv: impl Into<Kv<'a, T>>) -> Result<Plan<'a, T, M, S>> {
        Plan::new(self, q, kv.into())
    }

    /// Plans and computes.
    ///
    /// # Errors
    /// As [`Attention::plan`].
    pub fn forward<'a, T: Element>(&'a self, q: View<'a, T>, kv: impl Into<Kv<'a, T>>) -> Result<Output<T>> {
        self.plan(q, kv)?.forward()
    }
}

/// Scaled dot-product attention in one call: q `[batch, q_heads, q_len, head_dim]`, k `[batch, kv_heads, kv_len, head_dim]`,
/// v `[batch, kv_heads, kv_len, value_dim]` → `[batch, q_heads, q_len, value_dim]`, scale `1/√head_dim`.
///
/// ```
/// use regard::{Causal, Pair, View, sdpa};
///
/// let x: Vec<f32> = (0..4 * 8).map(|i| (i as f32).cos()).collect();
/// let x = View::new(&x, [1, 1, 4, 8])?;
/// let causal = sdpa(x, x, x, Causal::UpperLeft)?;
/// let closure = sdpa(x, x, x, |p: Pair| p.kv <= p.q)?; // a closure is a mask
/// assert_eq!(causal, closure);
/// # Ok::<(), regard::Error>(())
/// ```
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", §3.2.1.
///
/// # Errors
/// When the arguments do not fit together; the error names the one that does not.
pub fn sdpa<T: Element>(q: View<'_, T>, k: View<'_, T>, v: View<'_, T>, mask: impl Mask) -> Result<Tensor<T>> {
    Ok(Attention::new().mask(mask).forward(q, (k, v))?.out)
}

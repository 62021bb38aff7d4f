//! Multi-head attention: projections, rotary positions, attention, and the paged cache.

mod attend;
mod mask;
mod masks;
mod torch;

pub use attend::{AttendOptions, NeedWeights};
pub use torch::TorchOptions;

use candle_core::Tensor;
use regard::{Causal, Kv, KvCache, Sequence};

use self::mask::Beside;
use crate::array::{expect, slice, tensor};
use crate::ops::{AttentionSpec, Rule, attend, attend_biased, heads_first, rotate};
use crate::tape::{Tape, Value};
use crate::{Error, Linear, Result, Rotary};

/// Multi-head attention with grouped keys and values, for self- and cross-attention, with or without a cache.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use regard_nn::{Linear, MultiHeadAttention, RopeStyle, Rotary};
///
/// let matrix = |out: usize, n: usize| Linear::new(Tensor::randn(0f32, 0.1, (out, n), &Device::Cpu)?, None);
/// // 4 query heads and 2 KV heads of 8 elements, in a model of width 32
/// let layer = MultiHeadAttention::new(matrix(32, 32)?, matrix(16, 32)?, matrix(16, 32)?, matrix(32, 32)?, 4, 2)?
///     .causal()
///     .rotary(Rotary::new(8, 10_000.0, RopeStyle::HalfSplit)?)?;
/// let x = Tensor::randn(0f32, 1.0, (2, 5, 32), &Device::Cpu)?;
/// assert_eq!(layer.forward(&x)?.dims(), [2, 5, 32]);
/// # Ok::<(), regard_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    kv_heads: usize,
    rotary: Option<Rotary>,
    causal: bool,
    /// A key and a value `[kv_heads·dim]` after those of every sequence.
    bias_kv: Option<[Tensor; 2]>,
    /// A key and a value of zeros after those.
    zero_attn: bool,
    /// Of [`Self::attend`]: the order of its tensors, and the chance that a weight is dropped in training.
    batch_first: bool,
    dropout: f32,
}

impl MultiHeadAttention {
    /// A layer from its four projections: every query sees every key, without positions.
    ///
    /// # Errors
    /// When the sizes do not fit together.
    pub fn new(q: Linear, k: Linear, v: Linear, out: Linear, heads: usize, kv_heads: usize) -> Result<Self> {
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(regard::Error::Heads { q_heads: heads, kv_heads }.into());
        }
        let dim = q.out_dim() / heads;
        let sizes = [
            ("outputs of the query projection", q.out_dim(), heads * dim),
            ("outputs of the key projection", k.out_dim(), kv_heads * dim),
            ("outputs of the value projection", v.out_dim(), kv_heads * dim),
            ("inputs of the output projection", out.in_dim(), heads * dim),
        ];
        match sizes.into_iter().find(|(_, given, needed)| given != needed || *needed == 0) {
            Some((what, given, needed)) => {
                let needed = format!("{needed}, for {heads} query heads and {kv_heads} KV heads of {dim} elements");
                Err(Error::Shape { what, given: vec![given], needed })
            }
            None => {
                let (rotary, bias_kv) = (None, None);
                let (causal, zero_attn, batch_first, dropout) = (false, false, true, 0.0);
                Ok(Self { q, k, v, out, heads, kv_heads, rotary, causal, bias_kv, zero_attn, batch_first, dropout })
            }
        }
    }

    /// The same layer in which no position of self-attention sees a later one.
    pub fn causal(self) -> Self {
        Self { causal: true, ..self }
    }

    /// The same layer with queries and keys of self-attention turned by position.
    ///
    /// # Errors
    /// When the embedding turns more elements than a head has, or the layer has extra keys, which have no position.
    pub fn rotary(self, rotary: Rotary) -> Result<Self> {
        self.refuse_extra("a rotary embedding")?;
        if rotary.dim() > self.dim() {
            let needed = format!("at most {}, the elements of a head", self.dim());
            return Err(Error::Shape { what: "dimension of the rotary embedding", given: vec![rotary.dim()], needed });
        }
        Ok(Self { rotary: Some(rotary), ..self })
    }

    /// Extra keys have no position, and no page of a cache.
    fn refuse_extra(&self, what: &'static str) -> Result<()> {
        if self.extra() == 0 {
            return Ok(());
        }
        let (context, instead) = ("by a layer with extra keys (bias_k, add_zero_attn)", "use forward on whole sequences");
        Err(regard::Error::Unsupported { what, context, instead }.into())
    }

    /// Elements of a head.
    pub fn dim(&self) -> usize {
        self.q.out_dim() / self.heads
    }

    /// Self-attention: `x [batch, length, n]` → `[batch, length, n]`. Differentiable.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, _) = x.dims3()?;
        let tape = Tape::new();
        let y = self.on(&tape, &tape.watch(x)?, batch, None)?;
        tape.finish(y.reshape(&[batch, length, self.out.out_dim()])?)
    }

    /// Cross-attention: queries from `x [batch, q_len, n]`, keys and values from `context [batch, kv_len, m]`. Every key is
    /// visible and positions do not rotate: the two texts have no common order. Differentiable in both.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    pub fn cross(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let ((batch, length, _), (_, context_len, m)) = (x.dims3()?, context.dims3()?);
        expect("context of cross-attention", context, &[batch, context_len, m])?;
        let tape = Tape::new();
        let (x, context) = (tape.watch(x)?, tape.watch(context)?);
        let (q, [k, v]) = (self.q.on(&tape, &x)?, self.keys_and_values(&tape, &context, batch)?);
        let spec = self.spec(batch, Rule::default());
        let y = self.out.on(&tape, &attend(&tape, &q, &k, &v, spec)?)?;
        tape.finish(y.reshape(&[batch, length, self.out.out_dim()])?)
    }

    /// Self-attention on a tape: rows `[batch·length, n]` → `[batch·length, n]`; `dropout` of probabilities is a chance and a seed.
    ///
    /// # Errors
    /// As [`MultiHeadAttention::forward`].
    pub fn on(&self, tape: &Tape, x: &Value, batch: usize, dropout: Option<(f32, u64)>) -> Result<Value> {
        let (q, [k, v]) = (self.q.on(tape, x)?, self.keys_and_values(tape, x, batch)?);
        let length = q.tensor().dims2()?.0 / batch.max(1);
        let causal = self.causal.then_some(Causal::UpperLeft);
        let rows = match self.extra() as u32 {
            0 => {
                let angles = self.rotary.as_ref().map(|rotary| rotary.angles(0, length)).transpose()?;
                let rule = Rule { mask: causal, dropout, scale: None };
                attend(tape, &q, &k, &v, AttentionSpec { angles, ..self.spec(batch, rule) })?
            }
            extra => {
                let rule = Rule { mask: causal.map(|causal| Beside { causal, extra }), dropout, scale: None };
                attend_biased(tape, [&q, &k, &v], None, self.spec(batch, rule))?
            }
        };
        self.out.on(tape, &rows)
    }

    /// Keys and values of rows, with those that the layer adds.
    fn keys_and_values(&self, tape: &Tape, x: &Value, batch: usize) -> Result<[Value; 2]> {
        let (bias_k, bias_v) = self.bias_kv.as_ref().map(|[k, v]| (k, v)).unzip();
        let (k, v) = (self.k.on(tape, x)?, self.v.on(tape, x)?);
        Ok([self.extended_on(tape, k, batch, bias_k)?, self.extended_on(tape, v, batch, bias_v)?])
    }

    fn spec<M>(&self, batch: usize, rule: Rule<M>) -> AttentionSpec<M> {
        AttentionSpec { batch, heads: self.heads, kv_heads: self.kv_heads, dim: self.dim(), rule, angles: None }
    }

    /// Keys and values of `x [length, n]` into layer `layer` of a cache, at positions `first..first + length` of a sequence that
    /// has grown to hold them. Without gradients.
    ///
    /// # Errors
    /// When the shapes do not fit, the layer has extra keys, or the cache refuses.
    pub fn remember(&self, x: &Tensor, cache: &mut KvCache<f32>, layer: usize, seq: &Sequence, first: usize) -> Result<()> {
        self.refuse_extra("a cache")?;
        let (mut k, v) = (self.k.infer(x)?, self.v.infer(x)?);
        if let Some(rotary) = &self.rotary {
            k = rotate(&k, &rotary.angles(first, k.dims2()?.0)?, self.dim(), false)?;
        }
        let (k, v) = (slice(&k)?, slice(&v)?);
        let view = |rows| heads_first(rows, 1, self.kv_heads, self.dim());
        Ok(cache.write(layer, seq, first, view(&k)?, view(&v)?)?)
    }

    /// Attention of the last positions of a sequence, `x [length, n]`, to all that the cache remembers → `[length, n]`. Without
    /// gradients. A row's bits do not depend on how many rows there are.
    ///
    /// # Errors
    /// When the shapes do not fit, the layer has extra keys, or there are more rows than positions.
    pub fn recall(&self, x: &Tensor, cache: &KvCache<f32>, layer: usize, seq: &Sequence) -> Result<Tensor> {
        self.refuse_extra("a cache")?;
        let mut q = self.q.infer(x)?;
        let length = q.dims2()?.0;
        let Some(first) = seq.len().checked_sub(length) else {
            return Err(regard::Error::Positions { start: 0, end: length, length: seq.len() }.into());
        };
        if let Some(rotary) = &self.rotary {
            q = rotate(&q, &rotary.angles(first, length)?, self.dim(), false)?;
        }
        let rule = Rule { mask: self.causal.then_some(Causal::LowerRight), ..Rule::default() };
        let rows = slice(&q)?;
        let kv = Kv::Paged { cache, layer, seqs: &[seq] };
        let output = rule.attention().forward(heads_first(&rows, 1, self.heads, self.dim())?, kv)?;
        let merged = merged(output.out.data(), length, self.heads, self.dim());
        self.out.infer(&tensor(merged, (length, self.heads * self.dim()))?)
    }

    /// The kernel that [`MultiHeadAttention::recall`] of one row uses, and the reason for the choice.
    ///
    /// # Errors
    /// When the sequence does not belong to the cache.
    pub fn kernel(&self, cache: &KvCache<f32>, layer: usize, seq: &Sequence) -> Result<(String, String)> {
        let row = vec![0.0; self.heads * self.dim()];
        let rule = Rule { mask: self.causal.then_some(Causal::LowerRight), ..Rule::default() };
        let attention = rule.attention();
        let seqs = [seq];
        let plan = attention.plan(heads_first(&row, 1, self.heads, self.dim())?, Kv::Paged { cache, layer, seqs: &seqs })?;
        Ok((plan.kernel().to_owned(), plan.why().to_owned()))
    }
}

/// `[heads, length, dim]` to `[length, heads, dim]`.
fn merged(from: &[f32], length: usize, heads: usize, dim: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(from.len());
    for l in 0..length {
        for h in 0..heads {
            rows.extend_from_slice(&from[(h * length + l) * dim..][..dim]);
        }
    }
    rows
}

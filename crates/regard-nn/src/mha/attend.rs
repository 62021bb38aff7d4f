//! The general call: queries, keys and values of their own, PyTorch's masks, and the weights if wanted.

use candle_core::Tensor;
use regard::{Dropout, Lens, Pair};

use super::MultiHeadAttention;
use super::masks::Masks;
use crate::array::{expect, tensor};
use crate::ops::{Rule, append, attend_biased, rotate, softmax};
use crate::tape::{Tape, Value, lift};
use crate::{Error, Linear, Result};

/// The arguments of PyTorch's `nn.MultiheadAttention.forward` after query, key and value. In a mask of type u8, 1 **hides**, as
/// there and nowhere else in regard; a mask of type f32 is added to the scores.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttendOptions<'a> {
    /// Keys that are padding, `[batch, kv_len]`.
    pub key_padding_mask: Option<&'a Tensor>,
    /// `[q_len, kv_len]`, or `[batch·heads, q_len, kv_len]`. One of type f32 gets its gradient.
    pub attn_mask: Option<&'a Tensor>,
    /// No query sees a later key, besides what the masks hide; always so in a layer made `causal`. (PyTorch takes it for a hint about
    /// `attn_mask`.)
    pub is_causal: bool,
    /// Whether the weights are returned.
    pub need_weights: NeedWeights,
    /// Training: the layer's dropout falls as this seed says.
    pub training: Option<u64>,
}

/// Which weights [`MultiHeadAttention::attend`] returns; they take memory in the product of the lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NeedWeights {
    /// None.
    #[default]
    No,
    /// The mean over heads, `[batch, q_len, kv_len]`.
    Averaged,
    /// Those of each head, `[batch, heads, q_len, kv_len]`.
    PerHead,
}

impl MultiHeadAttention {
    /// Attention as PyTorch's `nn.MultiheadAttention.forward` computes it, with the weights if wanted: a query that sees nothing
    /// gives the output of a head of zeros, and weights of zeros, where PyTorch gives NaN. Keys that the layer adds (`bias_k`,
    /// `add_zero_attn`) come last among the weights. Differentiable in everything, also through the weights.
    ///
    /// Tensors are `[batch, length, n]` for a layer from [`MultiHeadAttention::new`]; those of [`MultiHeadAttention::from_torch`]
    /// are as its `batch_first` says. A single sequence may be `[length, n]`, its padding mask `[kv_len]`. A rotary embedding turns
    /// queries and keys by their positions, both from 0.
    ///
    /// # Errors
    /// When shapes or types do not fit.
    pub fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        options: &AttendOptions<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let single = query.rank() == 2;
        let [q, k, v] = [("query", query), ("key", key), ("value", value)].map(|(what, x)| self.batches(what, x, single));
        let (q, k, v) = (q?, k?, v?);
        let ((batch, q_len, _), (_, kv_len, _)) = (q.dims3()?, k.dims3()?);
        expect("key of attention", &k, &[batch, kv_len, self.k.in_dim()])?;
        expect("value of attention", &v, &[batch, kv_len, self.v.in_dim()])?;
        let (masks, bias) = self.masks([batch, self.heads, q_len, kv_len], options, single)?;
        let (bias_k, bias_v) = self.bias_kv.as_ref().map(|[k, v]| (k, v)).unzip();
        let (q, k) = (self.q.forward(&q)?, self.extended(&self.k, &k, batch, bias_k)?);
        let (q, k) = (self.turned(q, q_len)?, self.turned(k, kv_len)?);
        let v = self.extended(&self.v, &v, batch, bias_v)?;
        let dropout = options.training.map(|seed| (self.dropout, seed));
        let rule = Rule { mask: masks.clone(), dropout, scale: None };
        let spec = self.spec(batch, rule);
        let inputs: Vec<&Tensor> = [&q, &k, &v].into_iter().chain(&bias).collect();
        let rows = |x: &Value| x.reshape(&[batch * q_len, self.q.out_dim()]);
        let heads = lift(&inputs, |tape, x| attend_biased(tape, [&rows(&x[0])?, &x[1], &x[2]], x.get(3), spec))?;
        let out = self.out.forward(&heads)?.reshape((batch, q_len, self.out.out_dim()))?;
        let out = if single || self.batch_first { out } else { out.transpose(0, 1)? };
        let weights = match options.need_weights {
            NeedWeights::No => None,
            NeedWeights::Averaged => Some(self.weights(&q, &k, bias.as_ref(), &masks, dropout)?.mean(1)?),
            NeedWeights::PerHead => Some(self.weights(&q, &k, bias.as_ref(), &masks, dropout)?),
        };
        let whole = |x: Tensor| if single { x.squeeze(0) } else { Ok(x) };
        Ok((whole(out)?, weights.map(whole).transpose()?))
    }

    /// Projections turned by position, from 0 in each sequence.
    fn turned(&self, rows: Tensor, length: usize) -> Result<Tensor> {
        let Some(rotary) = &self.rotary else { return Ok(rows) };
        let (angles, dim) = (rotary.angles(0, length)?, self.dim());
        lift(&[&rows], |tape, x| {
            let turned = rotate(x[0].tensor(), &angles, dim, false)?;
            Ok(tape.push(turned, &[&x[0]], move |dy| Ok(vec![Some(rotate(dy, &angles, dim, true)?)])))
        })
    }

    /// `[batch, length, n]`, whatever the caller's order.
    fn batches(&self, what: &'static str, x: &Tensor, single: bool) -> Result<Tensor> {
        match (x.rank(), single) {
            (2, true) => Ok(x.unsqueeze(0)?),
            (3, false) if self.batch_first => Ok(x.clone()),
            (3, false) => Ok(x.transpose(0, 1)?),
            _ => {
                let needed = "three dimensions (or two, for a single sequence), as many as the query has".to_owned();
                Err(Error::Shape { what, given: x.dims().to_vec(), needed })
            }
        }
    }

    /// Rows of keys or values with those that the layer adds.
    fn extended(&self, linear: &Linear, x: &Tensor, batch: usize, bias: Option<&Tensor>) -> Result<Tensor> {
        let tape = Tape::new();
        let rows = linear.on(&tape, &tape.watch(x)?)?;
        let rows = self.extended_on(&tape, rows, batch, bias)?;
        tape.finish(rows)
    }

    /// As [`Self::extended`], on a tape.
    pub(super) fn extended_on(&self, tape: &Tape, rows: Value, batch: usize, bias: Option<&Tensor>) -> Result<Value> {
        let rows = match bias {
            Some(bias) => append(tape, &rows, batch, Some(&tape.watch(bias)?))?,
            None => rows,
        };
        if self.zero_attn { append(tape, &rows, batch, None) } else { Ok(rows) }
    }

    /// Keys that the layer adds to every sequence.
    pub(super) fn extra(&self) -> usize {
        usize::from(self.bias_kv.is_some()) + usize::from(self.zero_attn)
    }

    /// The weights of each head, after dropout, `[batch, heads, q_len, kv_len]`; q and k are rows of projections.
    fn weights(&self, q: &Tensor, k: &Tensor, bias: Option<&Tensor>, masks: &Masks, dropout: Option<(f32, u64)>) -> Result<Tensor> {
        let (batch, q_len, _) = q.dims3()?;
        let heads_first = |rows: &Tensor, heads: usize| {
            let length = rows.elem_count() / (batch * heads * self.dim()).max(1);
            rows.reshape((batch, length, heads, self.dim()))?.transpose(1, 2)?.contiguous()
        };
        let (q, k) = (heads_first(q, self.heads)?, heads_first(k, self.kv_heads)?);
        let kv_len = k.dim(2)?;
        let repeated = (batch, self.kv_heads, self.heads / self.kv_heads, kv_len, self.dim());
        let k = k.unsqueeze(2)?.expand(repeated)?.reshape((batch, self.heads, kv_len, self.dim()))?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? / (self.dim() as f64).sqrt())?;
        let scores = match bias {
            Some(bias) => scores.broadcast_add(bias)?,
            None => scores,
        };
        let weights = lift(&[&scores], |tape, x| softmax(tape, &x[0], masks))?;
        match dropout {
            Some((p, seed)) => Ok((weights * kept(Dropout::new(p, seed)?, [batch, self.heads, q_len, kv_len])?)?),
            None => Ok(weights),
        }
    }
}

/// What dropout multiplies every weight by.
fn kept(dropout: Dropout, shape: [usize; 4]) -> Result<Tensor> {
    let [_, heads, q_len, kv_len] = shape;
    let len = Lens { q: q_len as u32, kv: kv_len as u32 };
    let factor = |i: usize| {
        let [batch, head, q, kv] =
            [i / kv_len / q_len / heads, i / kv_len / q_len % heads, i / kv_len % q_len, i % kv_len].map(|n| n as u32);
        dropout.factor(Pair { batch, head, q, kv, len })
    };
    tensor((0..shape.iter().product()).map(factor).collect(), shape.to_vec())
}

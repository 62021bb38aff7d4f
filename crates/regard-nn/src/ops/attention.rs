//! Attention as an operation: regard's forward and backward, on a tape and as a candle custom op.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Error as TensorError, Layout, Result as TensorResult, Shape, Tensor};
use rayon::prelude::*;
use regard::{Attention, Bias, Causal, Mask, Output, Plan, View};

use super::{Angles, rotate, rows_per_task, turn_row};
use crate::array::{expect, rows_and_width, slice, tensor};
use crate::tape::{Tape, Value};
use crate::{Error, Result};

/// What decides the probabilities, besides queries and keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule<M = Option<Causal>> {
    pub(crate) mask: M,
    /// Chance that a probability is dropped, and the seed of which.
    pub(crate) dropout: Option<(f32, u64)>,
    /// What `q·k` is multiplied by; 1/√dim if none.
    pub(crate) scale: Option<f32>,
}

impl<M: Mask + Clone> Rule<M> {
    pub(crate) fn attention(&self) -> Attention<M, ()> {
        let mut attention = Attention::new().mask(self.mask.clone());
        if let Some((p, seed)) = self.dropout {
            attention = attention.dropout(p, seed);
        }
        match self.scale {
            Some(scale) => attention.scale(scale),
            None => attention,
        }
    }
}

/// The sizes and the rule of attention between rows of projections.
#[derive(Clone, Debug)]
pub(crate) struct AttentionSpec<M = Option<Causal>> {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Elements of a query and of a key.
    pub(crate) dim: usize,
    pub(crate) rule: Rule<M>,
    /// Turns queries and keys by position first.
    pub(crate) angles: Option<Angles>,
}

/// Rows `[batch·length, heads·dim]` seen as `[batch, heads, length, dim]`, without a copy.
pub(crate) fn heads_first(rows: &[f32], batch: usize, heads: usize, dim: usize) -> Result<View<'_, f32>> {
    let length = rows.len() / (batch * heads * dim).max(1);
    let strides = [length * heads * dim, dim, heads * dim, 1].map(|stride| stride as isize);
    Ok(View::strided(rows, 0, [batch, heads, length, dim], strides)?)
}

/// q `[batch·q_len, heads·dim]`, k `[batch·kv_len, kv_heads·dim]`, v `[batch·kv_len, kv_heads·value_dim]`
/// → `[batch·q_len, heads·value_dim]`.
pub(crate) fn attend(tape: &Tape, q: &Value, k: &Value, v: &Value, spec: AttentionSpec) -> Result<Value> {
    attend_biased(tape, [q, k, v], None, spec)
}

/// As [`attend`], under any mask, with a bias added to the scores, `[batch, heads, q_len, kv_len]` or sizes of 1 that repeat.
pub(crate) fn attend_biased<M>(tape: &Tape, [q, k, v]: [&Value; 3], bias: Option<&Value>, spec: AttentionSpec<M>) -> Result<Value>
where
    M: Mask + Clone + Send + 'static,
{
    let turned = |x: &Value| match &spec.angles {
        Some(angles) => rotate(x.tensor(), angles, spec.dim, false),
        None => Ok(x.tensor().clone()),
    };
    let inputs: Vec<&Value> = [q, k, v].into_iter().chain(bias).collect();
    let bias = bias.map(|bias| (bias.tensor().clone(), tape.records(&[bias])));
    let saved = Saved { q: turned(q)?, k: turned(k)?, v: v.tensor().clone(), bias, spec };
    let output = saved.forward()?;
    let rows = merge_heads(output.out.data(), output.out.shape(), None)?;
    Ok(tape.push(rows, &inputs, move |d_out| saved.backward(&output, d_out)))
}

/// What the backward pass needs.
struct Saved<M> {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// The bias, and whether its gradient is wanted.
    bias: Option<(Tensor, bool)>,
    spec: AttentionSpec<M>,
}

impl<M: Mask + Clone> Saved<M> {
    fn forward(&self) -> Result<Output<f32>> {
        self.with_plan(|plan| Ok(plan.forward()?))
    }

    fn backward(&self, output: &Output<f32>, d_out: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let AttentionSpec { batch, heads, ref angles, .. } = self.spec;
        let d_out = slice(d_out)?;
        let d_out = heads_first(&d_out, batch, heads, output.out.shape()[3])?;
        let grads = self.with_plan(|plan| Ok(plan.backward(output, d_out)?))?;
        let rows = |grad: &regard::Tensor<f32>, angles| merge_heads(grad.data(), grad.shape(), angles).map(Some);
        let mut all = vec![rows(&grads.dq, angles.as_ref())?, rows(&grads.dk, angles.as_ref())?, rows(&grads.dv, None)?];
        if let Some((bias, _)) = &self.bias {
            all.push(grads.dbias.map(|grad| tensor(grad.into_vec(), bias.shape())).transpose()?);
        }
        Ok(all)
    }

    fn with_plan<R>(&self, run: impl FnOnce(Plan<'_, f32, M, Option<Bias<'_>>>) -> Result<R>) -> Result<R> {
        let AttentionSpec { batch, heads, kv_heads, dim, ref rule, .. } = self.spec;
        let (q, k, v) = (slice(&self.q)?, slice(&self.k)?, slice(&self.v)?);
        let value_dim = rows_and_width("values of attention", &self.v)?.1 / kv_heads.max(1);
        let (k, v) = (heads_first(&k, batch, kv_heads, dim)?, heads_first(&v, batch, kv_heads, value_dim)?);
        let values = self.bias.as_ref().map(|(bias, _)| slice(bias)).transpose()?;
        let bias = match (&self.bias, &values) {
            (Some((bias, gradient)), Some(values)) => {
                let bias = Bias::new(View::new(values, bias.dims4().map(|(b, h, q, k)| [b, h, q, k])?)?);
                Some(if *gradient { bias.with_gradient() } else { bias })
            }
            _ => None,
        };
        run(rule.attention().score(bias).plan(heads_first(&q, batch, heads, dim)?, (k, v))?)
    }
}

/// `[batch, heads, length, dim]` to rows `[batch·length, heads·dim]`, turned back by position where there are angles.
fn merge_heads(from: &[f32], [batch, heads, length, dim]: [usize; 4], angles: Option<&Angles>) -> Result<Tensor> {
    let width = heads * dim;
    let mut rows = vec![0.0; from.len()];
    let step = rows_per_task(width);
    rows.par_chunks_mut((step * width).max(1)).enumerate().for_each(|(part, rows)| {
        for (i, row) in rows.chunks_mut(width).enumerate() {
            let at = part * step + i;
            let (b, l) = (at / length, at % length);
            for (h, to) in row.chunks_mut(dim).enumerate() {
                let head = &from[((b * heads + h) * length + l) * dim..][..dim];
                match angles {
                    Some(angles) => turn_row(angles, l, head, to, dim, true),
                    None => to.copy_from_slice(head),
                }
            }
        }
    });
    tensor(rows, (batch * length, width))
}

/// Attention of candle tensors of any strides: q `[batch, heads, q_len, dim]`, k `[batch, kv_heads, kv_len, dim]`,
/// v `[batch, kv_heads, kv_len, value_dim]` → `[batch, heads, q_len, value_dim]`. Differentiable in all three.
///
/// `dropout` is the chance that a probability falls, and the seed that decides which.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let q = Tensor::randn(0f32, 1.0, (1, 4, 8, 16), &Device::Cpu)?;
/// let kv = Tensor::randn(0f32, 1.0, (1, 2, 8, 16), &Device::Cpu)?;
/// let out = regard_nn::attention(&q, &kv, &kv, Some(regard::Causal::UpperLeft), None)?;
/// assert_eq!(out.dims(), [1, 4, 8, 16]);
/// # Ok::<(), regard_nn::Error>(())
/// ```
///
/// # Errors
/// When the shapes do not fit together, or a tensor is not f32.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: Option<Causal>, dropout: Option<(f32, u64)>) -> Result<Tensor> {
    Ok(q.apply_op3(k, v, AttentionOp { rule: Rule { mask: causal, dropout, scale: None }, output: OnceLock::new() })?)
}

struct AttentionOp {
    rule: Rule,
    /// The output with its softmax statistics, for the backward pass.
    output: OnceLock<Output<f32>>,
}

impl CustomOp3 for AttentionOp {
    fn name(&self) -> &'static str {
        "regard-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> TensorResult<(CpuStorage, Shape)> {
        let kv = (view(k, kl)?, view(v, vl)?);
        let output = self.rule.attention().forward(view(q, ql)?, kv).map_err(TensorError::wrap)?;
        let result = (CpuStorage::F32(output.out.data().to_vec()), Shape::from(output.out.shape().to_vec()));
        self.output.set(output).map_err(|_| TensorError::wrap(Error::Spent))?;
        Ok(result)
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        d_out: &Tensor,
    ) -> TensorResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let output = self.output.get().ok_or_else(|| TensorError::wrap(Error::Spent))?;
        let (q, k, v, d_out) = (q.contiguous()?, k.contiguous()?, v.contiguous()?, d_out.contiguous()?);
        let grads = backward(&self.rule, output, [&q, &k, &v, &d_out]).map_err(TensorError::wrap)?;
        let [dq, dk, dv] = grads.map(Some);
        Ok((dq, dk, dv))
    }
}

fn backward(rule: &Rule, output: &Output<f32>, tensors: [&Tensor; 4]) -> Result<[Tensor; 3]> {
    let [q, k, v, d_out] = tensors;
    expect("the gradient of attention", d_out, &output.out.shape())?;
    let shape = |t: &Tensor| t.dims4().map(|(b, h, l, d)| [b, h, l, d]);
    let (q_shape, k_shape, v_shape) = (shape(q)?, shape(k)?, shape(v)?);
    let (q, k, v, d_out) = (slice(q)?, slice(k)?, slice(v)?, slice(d_out)?);
    let kv = (View::new(&k, k_shape)?, View::new(&v, v_shape)?);
    let attention = rule.attention();
    let grads = attention.plan(View::new(&q, q_shape)?, kv)?.backward(output, View::new(&d_out, output.out.shape())?)?;
    Ok([
        tensor(grads.dq.into_vec(), q_shape.to_vec())?,
        tensor(grads.dk.into_vec(), k_shape.to_vec())?,
        tensor(grads.dv.into_vec(), v_shape.to_vec())?,
    ])
}

/// A candle tensor of four dimensions as a view, whatever its strides.
fn view<'a>(storage: &'a CpuStorage, layout: &Layout) -> TensorResult<View<'a, f32>> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let (Ok(shape), Ok(strides)) = (<[usize; 4]>::try_from(dims), <[usize; 4]>::try_from(strides)) else {
        return Err(TensorError::wrap(Error::Attention(regard::Error::Rank {
            what: "a tensor of attention",
            given: dims.len(),
            needed: 4,
        })));
    };
    View::strided(storage.as_slice()?, layout.start_offset(), shape, strides.map(|s| s as isize)).map_err(TensorError::wrap)
}

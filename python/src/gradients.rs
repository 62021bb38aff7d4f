//! `attention_backward`: the gradients of one call.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{Element, GradsMut, View};

use crate::array::{Array, Axes, Dtype, Item, list};
use crate::attention::{Inputs, for_type};
use crate::error::{OrRaise, room, value};
use crate::layout::Layout;
use crate::masks::row_major;
use crate::options::{Call, Options};
use crate::threads::compute;

/// The gradients `(dq, dk, dv, dbias, dsinks)` of `sum(d_out · out)`, from the output and the log-sum-exp of `attention` with the same
/// options; `dbias` where `bias_gradient`, in float32 and the bias's shape; `dsinks` where there are sinks, in float32.
///
/// Source: Dao 2023, "FlashAttention-2", Algorithm 2.
#[pyfunction]
#[pyo3(signature = (q, k, v, out, lse, d_out, **options))]
#[allow(clippy::too_many_arguments, reason = "what the pass needs")]
fn attention_backward<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    out: &Bound<'py, PyAny>,
    lse: &Bound<'py, PyAny>,
    d_out: &Bound<'py, PyAny>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = Options::of(Call::Backward, options)?;
    if options.bias_gradient && options.bias.is_none() {
        return Err(value("bias_gradient is True and there is no bias: give one".into()));
    }
    let inputs = Inputs::of(["q", "k", "v"], [q, k, v])?;
    let upstream = Upstream { out: Array::of("out", out)?, lse: Array::of("lse", lse)?, d_out: Array::of("d_out", d_out)? };
    upstream.out.expect(inputs.q.dtype, "as the query is")?;
    upstream.d_out.expect(inputs.q.dtype, "as the query is")?;
    upstream.lse.expect(Dtype::F32, "as attention returns it")?;
    for_type!(&inputs.q, T => backward::<T>(py, &inputs, &upstream, &options))
}

struct Upstream<'py> {
    out: Array<'py>,
    lse: Array<'py>,
    d_out: Array<'py>,
}

impl Upstream<'_> {
    /// The log-sum-exp as `[batch, heads, length, 1]`.
    fn lse_axes(&self, q: Axes, ndim: usize) -> PyResult<Axes> {
        let ([b, h, l, _], shape) = (q.0, Layout::rows(ndim, q.0));
        if self.lse.shape() != shape {
            return Err(value(format!("lse has shape {:?} and needs {shape:?}", self.lse.shape())));
        }
        let mut strides = [0; 4];
        strides[4 - ndim..3].copy_from_slice(self.lse.strides());
        Ok(([b, h, l, 1], strides))
    }
}

fn backward<'py, T: Item + Element>(
    py: Python<'py>,
    inputs: &Inputs<'py>,
    up: &Upstream<'py>,
    options: &Options<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let layout = options.layout;
    let axes = inputs.axes(layout)?;
    let [q, k, v] = axes;
    let bools = options.bools()?;
    let attention = options.attention(&bools, q.0[1])?;
    let keys: (View<'_, T>, View<'_, T>) = (inputs.k.view(k)?, inputs.v.view(v)?);
    let plan = attention.plan(inputs.q.view::<T>(q)?, keys).or_raise()?;

    let like = |name, array: &Array<'py>| array.new_like(py, name, array.dtype, array.shape());
    let mut dq = like("gradient of q", &inputs.q)?;
    let mut dk = like("gradient of k", &inputs.k)?;
    let mut dv = like("gradient of v", &inputs.v)?;
    let numbers = |name, shape: &[usize]| inputs.q.new_like(py, name, Dtype::F32, shape);
    let bias = options.bias.as_ref().filter(|_| options.bias_gradient);
    let mut dbias = bias.map(|bias| numbers("gradient of bias", bias.shape())).transpose()?;
    let mut dsinks = options.sinks.as_ref().map(|sinks| numbers("gradient of sinks", &[sinks.len()])).transpose()?;

    let grads = GradsMut {
        dq: dq.view_mut::<T>(layout.axes(&dq)?)?,
        dk: dk.view_mut::<T>(layout.axes(&dk)?)?,
        dv: dv.view_mut::<T>(layout.axes(&dv)?)?,
        dbias: dbias.as_mut().map(Array::numbers_mut).transpose()?,
        dsinks: dsinks.as_mut().map(Array::numbers_mut).transpose()?,
    };
    let lse = up.lse.view::<f32>(up.lse_axes(q, inputs.q.shape().len())?)?;
    let (out, d_out) = (up.out.view::<T>(layout.axes(&up.out)?)?, up.d_out.view::<T>(layout.axes(&up.d_out)?)?);
    compute(py, || plan.backward_into(out, lse, d_out, grads))?.or_raise()?;

    let optional = |array: Option<Array<'py>>| array.map(|array| array.into_object(py)).transpose();
    let grads = (dq.into_object(py)?, dk.into_object(py)?, dv.into_object(py)?, optional(dbias)?, optional(dsinks)?);
    Ok(grads.into_pyobject(py)?.into_any())
}

/// Joins what the same queries saw of disjoint sets of keys: outputs `[.., dim]` and their log-sum-exps, float32 `[..]`. Returns both.
///
/// Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax", §3.1.
#[pyfunction]
fn merge_states<'py>(py: Python<'py>, outs: &Bound<'py, PyAny>, lses: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let (outs, lses) = (list("outs", outs, "arrays")?, list("lses", lses, "arrays")?);
    if outs.is_empty() || outs.len() != lses.len() {
        return Err(value(format!(
            "outs has {} entries and lses {}: there must be as many, and at least 1",
            outs.len(),
            lses.len()
        )));
    }
    let outs = outs.iter().map(|out| Array::of("outs", out)).collect::<PyResult<Vec<_>>>()?;
    let lses = lses.iter().map(|lse| Array::of("lses", lse)).collect::<PyResult<Vec<_>>>()?;
    let (first, rows) = (&outs[0], lses[0].shape());
    for (out, lse) in outs.iter().zip(&lses) {
        out.expect(first.dtype, "as the first of outs is")?;
        if out.shape() != first.shape() || lse.shape() != rows || first.shape().split_last().is_none_or(|(_, of)| of != rows) {
            let (out, lse) = (out.shape(), lse.shape());
            return Err(value(format!(
                "outs have shape {out:?} and lses {lse:?}: all outs must be [.., dim] and all lses [..], the same"
            )));
        }
    }
    for_type!(first, T => merge::<T>(py, &outs, &lses))
}

fn merge<'py, T: Item + Element>(py: Python<'py>, outs: &[Array<'py>], lses: &[Array<'py>]) -> PyResult<Bound<'py, PyAny>> {
    let first = &outs[0];
    let rows: usize = lses[0].shape().iter().product();
    let dim = first.shape().last().copied().unwrap_or(0);
    let values: Vec<Vec<T>> = outs.iter().map(|out| out.elements("")).collect::<PyResult<_>>()?;
    let weights: Vec<Vec<f32>> = lses.iter().map(|lse| lse.elements("as attention returns it")).collect::<PyResult<_>>()?;
    let mut out = first.new_like(py, "output", first.dtype, first.shape())?;
    let mut lse = first.new_like(py, "log-sum-exp", Dtype::F32, lses[0].shape())?;
    let (mut to, mut to_lse) = (room("output", rows * dim)?, room("log-sum-exp", rows)?);
    for row in 0..rows {
        let state = |(values, weights): (&Vec<T>, &Vec<f32>)| {
            let out = values[row * dim..][..dim].iter().map(|x| x.to_f32()).collect();
            regard::State::of_row(out, weights[row])
        };
        let states: Vec<_> = values.iter().zip(&weights).map(state).collect();
        let merged = regard::State::merge_all(&states).or_raise()?;
        to_lse.push(merged.lse());
        to.extend(merged.out.into_iter().map(T::from_f32));
    }
    out.fill(&to, row_major([1, 1, rows, dim]))?;
    lse.fill(&to_lse, row_major([1, 1, 1, rows]))?;
    Ok((out.into_object(py)?, lse.into_object(py)?).into_pyobject(py)?.into_any())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(attention_backward, module)?)?;
    module.add_function(wrap_pyfunction!(merge_states, module)?)
}

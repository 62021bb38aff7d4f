//! `linear_attention`, `causal_conv` and their gradients.

use half::{bf16, f16};
use pyo3::prelude::*;
use regard::{CausalConv, Element, Feature, Gate, LinearAttention, LinearInputs, Tensor, UpdateRule, View};

use crate::array::{Array, Dtype, Item};
use crate::attention::{Inputs, for_type, not_numbers};
use crate::error::{OrRaise, value};
use crate::layout::Layout;
use crate::masks::row_major;
use crate::threads::{compute, forced_kernel};

/// How linear attention is to be computed.
struct Settings {
    rule: UpdateRule,
    feature: Feature,
    normalised: bool,
    scale: Option<f32>,
    chunk: Option<usize>,
}

impl Settings {
    fn named(rule: &str, feature: &str) -> PyResult<Self> {
        let rule = match rule {
            "linear" => UpdateRule::Linear,
            "gated" => UpdateRule::Gated,
            "delta" => UpdateRule::Delta,
            "gated_delta" => UpdateRule::GatedDelta,
            _ => return Err(value(format!("rule is {rule:?} and must be \"linear\", \"gated\", \"delta\" or \"gated_delta\""))),
        };
        let feature = match feature {
            "identity" => Feature::Identity,
            "elu+1" => Feature::EluPlusOne,
            _ => return Err(value(format!("feature is {feature:?} and must be \"identity\" or \"elu+1\""))),
        };
        Ok(Settings { rule, feature, normalised: false, scale: None, chunk: None })
    }

    fn attention(&self) -> LinearAttention {
        let mut attention = LinearAttention::new(self.rule).feature(self.feature);
        if self.normalised {
            attention = attention.normalised();
        }
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if let Some(chunk) = self.chunk {
            attention = attention.chunk(chunk);
        }
        match forced_kernel() {
            Some(kernel) => attention.kernel(kernel),
            None => attention,
        }
    }
}

/// Gates and the state before, in place.
struct Gates<'py> {
    decay: Option<Array<'py>>,
    beta: Option<Array<'py>>,
    state: Option<Array<'py>>,
}

impl<'py> Gates<'py> {
    fn of(
        decay: Option<&Bound<'py, PyAny>>,
        beta: Option<&Bound<'py, PyAny>>,
        state: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let (decay, beta) = (Array::of_option("decay", decay)?, Array::of_option("beta", beta)?);
        let state = Array::of_option("state", state)?;
        state.iter().try_for_each(|state| state.expect(Dtype::F32, "as linear_attention returns it"))?;
        Ok(Gates { decay, beta, state })
    }

    fn inputs<'a, T: Item + Element>(&'a self, inputs: &'a Inputs<'py>) -> PyResult<LinearInputs<'a, T>> {
        let [q, k, v] = inputs.axes(Layout::Bhld)?;
        let mut all = LinearInputs::new(inputs.q.view::<T>(q)?, inputs.k.view(k)?, inputs.v.view(v)?);
        if let Some(decay) = &self.decay {
            all = all.decay(gate(decay)?);
        }
        if let Some(beta) = &self.beta {
            all = all.beta(gate(beta)?);
        }
        if let Some(state) = &self.state {
            all = all.past(state.view(Layout::Bhld.axes(state)?)?);
        }
        Ok(all)
    }
}

impl Settings {
    /// Refuses a gate that is missing or would be ignored.
    fn check(&self, gates: &Gates<'_>) -> PyResult<()> {
        let all = [("decay", &gates.decay, self.rule.decays(), "gated"), ("beta", &gates.beta, self.rule.corrects(), "delta")];
        for (name, gate, needed, rule) in all {
            if gate.is_some() != needed {
                let (is, of) = if needed { ("missing", "this") } else { ("given", "only another") };
                let rules = format!("\"{rule}\" and \"gated_delta\"");
                return Err(value(format!("{name} is {is}, and {of} rule needs it: {rules} have one")));
            }
        }
        Ok(())
    }
}

fn gate<'a>(array: &'a Array<'_>) -> PyResult<Gate<'a>> {
    let axes = Layout::Bhld.axes(array)?;
    match array.dtype {
        Dtype::F32 => Ok(array.view::<f32>(axes)?.into()),
        Dtype::F16 => Ok(array.view::<f16>(axes)?.into()),
        Dtype::Bf16 => Ok(array.view::<bf16>(axes)?.into()),
        other => Err(not_numbers(array, other)),
    }
}

/// Linear attention: a state `S` of fixed size in place of keys and values, `o_t = scale · S_tᵀ q_t`.
///
/// q `[batch, q_heads, length, head_dim]`, k and v likewise with kv_heads; decay (natural logarithms, at most 0)
/// `[batch, kv_heads, length, 1 or head_dim]` for the gated rules; beta `[batch, kv_heads, length, 1]` for the delta rules; state float32
/// `[batch, kv_heads, head_dim, value_dim]`. With `return_state` also the state after the last position.
///
/// Source: Yang et al. 2024, "Gated Delta Networks", §3.1, and ONNX's operator LinearAttention (opset 27).
#[pyfunction]
#[pyo3(signature = (
    q, k, v, *, rule = "linear", decay = None, beta = None, state = None, scale = None, feature = "identity", normalised = false,
    chunk = None, return_state = false
))]
#[allow(clippy::too_many_arguments, reason = "keywords of Python's")]
fn linear_attention<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    rule: &str,
    decay: Option<&Bound<'py, PyAny>>,
    beta: Option<&Bound<'py, PyAny>>,
    state: Option<&Bound<'py, PyAny>>,
    scale: Option<f32>,
    feature: &str,
    normalised: bool,
    chunk: Option<usize>,
    return_state: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let settings = Settings { normalised, scale, chunk, ..Settings::named(rule, feature)? };
    let (inputs, gates) = (Inputs::of(["q", "k", "v"], [q, k, v])?, Gates::of(decay, beta, state)?);
    settings.check(&gates)?;
    let attention = settings.attention();
    for_type!(&inputs.q, T => {
        let plan = attention.plan(gates.inputs::<T>(&inputs)?).or_raise()?;
        let output = compute(py, || plan.forward())?.or_raise()?;
        let out = tensor(py, &inputs.q, "output", &output.out, inputs.q.shape().len())?;
        match return_state {
            true => Ok((out, tensor(py, &inputs.q, "state", &output.state, 4)?).into_pyobject(py)?.into_any()),
            false => Ok(out),
        }
    })
}

/// A result of the engine's as an array beside `like`, with its last `ndim` axes.
fn tensor<'py, T: Item + Element>(
    py: Python<'py>,
    like: &Array<'py>,
    name: &'static str,
    tensor: &Tensor<T>,
    ndim: usize,
) -> PyResult<Bound<'py, PyAny>> {
    squeezed(py, like, name, tensor, &tensor.shape()[4 - ndim..])
}

/// The gradients `(dq, dk, dv, ddecay, dbeta, dstate)` of `sum(d_out · out) + sum(d_state · state)`; the last three in float32.
#[pyfunction]
#[pyo3(signature = (
    q, k, v, d_out, *, d_state = None, rule = "linear", decay = None, beta = None, state = None, scale = None, feature = "identity",
    normalised = false, chunk = None
))]
#[allow(clippy::too_many_arguments, reason = "keywords of Python's")]
fn linear_attention_backward<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    d_out: &Bound<'py, PyAny>,
    d_state: Option<&Bound<'py, PyAny>>,
    rule: &str,
    decay: Option<&Bound<'py, PyAny>>,
    beta: Option<&Bound<'py, PyAny>>,
    state: Option<&Bound<'py, PyAny>>,
    scale: Option<f32>,
    feature: &str,
    normalised: bool,
    chunk: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let settings = Settings { normalised, scale, chunk, ..Settings::named(rule, feature)? };
    let (inputs, gates) = (Inputs::of(["q", "k", "v"], [q, k, v])?, Gates::of(decay, beta, state)?);
    settings.check(&gates)?;
    let attention = settings.attention();
    let (d_out, d_state) = (Array::of("d_out", d_out)?, Array::of_option("d_state", d_state)?);
    d_out.expect(inputs.q.dtype, "as the query is")?;
    d_state.iter().try_for_each(|d_state| d_state.expect(Dtype::F32, "as the state is"))?;
    for_type!(&inputs.q, T => {
        let plan = attention.plan(gates.inputs::<T>(&inputs)?).or_raise()?;
        let d_out = d_out.view::<T>(Layout::Bhld.axes(&d_out)?)?;
        let d_state = d_state.as_ref().map(|d_state| d_state.view(Layout::Bhld.axes(d_state)?)).transpose()?;
        let grads = compute(py, || plan.backward(d_out, d_state))?.or_raise()?;
        let ndim = |array: &Array<'py>| array.shape().len();
        let numbers = |name, grad: &Tensor<f32>, ndim| tensor(py, &inputs.q, name, grad, ndim);
        let gate = |name, grad: &Option<Tensor<f32>>, gate: &Option<Array<'py>>| {
            grad.as_ref().zip(gate.as_ref()).map(|(grad, gate)| numbers(name, grad, ndim(gate))).transpose()
        };
        let all = (
            tensor(py, &inputs.q, "gradient of q", &grads.dq, ndim(&inputs.q))?,
            tensor(py, &inputs.q, "gradient of k", &grads.dk, ndim(&inputs.k))?,
            tensor(py, &inputs.q, "gradient of v", &grads.dv, ndim(&inputs.v))?,
            gate("gradient of decay", &grads.ddecay, &gates.decay)?,
            gate("gradient of beta", &grads.dbeta, &gates.beta)?,
            numbers("gradient of state", &grads.dpast, 4)?,
        );
        Ok(all.into_pyobject(py)?.into_any())
    })
}

/// The arrays of a convolution: x `[batch, channels, length]`, weight `[channels, 1, taps]`, bias `[channels]`, state
/// `[batch, channels, taps − 1]`.
struct ConvArrays<'py> {
    x: Array<'py>,
    weight: Array<'py>,
    bias: Option<Array<'py>>,
    state: Option<Array<'py>>,
    silu: bool,
}

impl<'py> ConvArrays<'py> {
    fn of(
        x: &Bound<'py, PyAny>,
        weight: &Bound<'py, PyAny>,
        bias: Option<&Bound<'py, PyAny>>,
        state: Option<&Bound<'py, PyAny>>,
        silu: bool,
    ) -> PyResult<Self> {
        let (x, weight) = (Array::of("x", x)?, Array::of("weight", weight)?);
        let (bias, state) = (Array::of_option("bias", bias)?, Array::of_option("state", state)?);
        for array in [Some(&weight), bias.as_ref(), state.as_ref()].into_iter().flatten() {
            array.expect(x.dtype, "as x is")?;
        }
        if weight.shape().len() != 3 || weight.shape()[1] != 1 {
            return Err(value(format!("weight has shape {:?} and needs [channels, 1, taps]", weight.shape())));
        }
        if let Some(bias) = bias.as_ref().filter(|bias| bias.shape().len() != 1) {
            return Err(value(format!("bias has shape {:?} and needs [channels]", bias.shape())));
        }
        Ok(ConvArrays { x, weight, bias, state, silu })
    }

    fn conv<T: Item + Element>(&self) -> PyResult<CausalConv<'_, T>> {
        let (shape, strides) = (self.weight.shape(), self.weight.strides());
        let mut conv = CausalConv::new(self.weight.view::<T>(([1, shape[0], shape[2], 1], [0, strides[0], strides[2], 1]))?);
        if let Some(bias) = &self.bias {
            conv = conv.bias(bias.view(([1, bias.shape()[0], 1, 1], [0, bias.strides()[0], 0, 1]))?);
        }
        Ok(if self.silu { conv.silu() } else { conv })
    }

    fn past<T: Item + Element>(&self) -> PyResult<Option<View<'_, T>>> {
        self.state.as_ref().map(channels).transpose()
    }
}

/// `[batch, channels, length]` as `[batch, channels, length, 1]`.
fn channels<'a, T: Item + Element>(array: &'a Array<'_>) -> PyResult<View<'a, T>> {
    let (&[b, c, l], &[sb, sc, sl]) = (array.shape(), array.strides()) else {
        let ndim = array.shape().len();
        return Err(value(format!("{} has {ndim} dimensions and needs 3: [batch, channels, length]", array.name())));
    };
    array.view(([b, c, l, 1], [sb, sc, sl, 1]))
}

/// A result whose axes of size 1 are left out.
fn squeezed<'py, T: Item + Element>(
    py: Python<'py>,
    like: &Array<'py>,
    name: &'static str,
    tensor: &Tensor<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let mut array = like.new_like(py, name, T::DTYPE, shape)?;
    array.fill(tensor.data(), row_major(tensor.shape()))?;
    array.into_object(py)
}

/// A causal convolution of each channel by itself: `y_t = bias + Σ_j weight_j · x_{t−taps+1+j}`, and `silu` after it if asked for.
///
/// x `[batch, channels, length]`, weight `[channels, 1, taps]`, bias `[channels]`, state `[batch, channels, taps − 1]`: the last inputs of the
/// call before. With `return_state` also those of this one.
///
/// Source: ONNX's operator CausalConvWithState (opset 27).
#[pyfunction]
#[pyo3(signature = (x, weight, bias = None, *, state = None, silu = false, return_state = false))]
#[allow(clippy::too_many_arguments, reason = "keywords of Python's")]
fn causal_conv<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    weight: &Bound<'py, PyAny>,
    bias: Option<&Bound<'py, PyAny>>,
    state: Option<&Bound<'py, PyAny>>,
    silu: bool,
    return_state: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let arrays = ConvArrays::of(x, weight, bias, state, silu)?;
    for_type!(&arrays.x, T => {
        let (conv, x, past) = (arrays.conv::<T>()?, channels(&arrays.x)?, arrays.past()?);
        let output = compute(py, || conv.forward(x, past))?.or_raise()?;
        let out = squeezed(py, &arrays.x, "output", &output.out, &output.out.shape()[..3])?;
        match return_state {
            true => {
                let state = squeezed(py, &arrays.x, "state", &output.state, &output.state.shape()[..3])?;
                Ok((out, state).into_pyobject(py)?.into_any())
            }
            false => Ok(out),
        }
    })
}

/// The gradients `(dx, dweight, dbias, dstate)` of `sum(d_out · out) + sum(d_state · state)`; those of the weight and the bias in float32.
#[pyfunction]
#[pyo3(signature = (x, weight, d_out, bias = None, *, state = None, d_state = None, silu = false))]
#[allow(clippy::too_many_arguments, reason = "keywords of Python's")]
fn causal_conv_backward<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    weight: &Bound<'py, PyAny>,
    d_out: &Bound<'py, PyAny>,
    bias: Option<&Bound<'py, PyAny>>,
    state: Option<&Bound<'py, PyAny>>,
    d_state: Option<&Bound<'py, PyAny>>,
    silu: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let arrays = ConvArrays::of(x, weight, bias, state, silu)?;
    let (d_out, d_state) = (Array::of("d_out", d_out)?, Array::of_option("d_state", d_state)?);
    for array in std::iter::once(&d_out).chain(&d_state) {
        array.expect(arrays.x.dtype, "as x is")?;
    }
    for_type!(&arrays.x, T => {
        let (conv, x, past) = (arrays.conv::<T>()?, channels(&arrays.x)?, arrays.past()?);
        let (d_out, d_state) = (channels(&d_out)?, d_state.as_ref().map(channels).transpose()?);
        let grads = compute(py, || conv.backward(x, past, d_out, d_state))?.or_raise()?;
        let all = (
            squeezed(py, &arrays.x, "gradient of x", &grads.dx, &grads.dx.shape()[..3])?,
            squeezed(py, &arrays.x, "gradient of weight", &grads.dweight, arrays.weight.shape())?,
            squeezed(py, &arrays.x, "gradient of bias", &grads.dbias, &arrays.weight.shape()[..1])?,
            squeezed(py, &arrays.x, "gradient of state", &grads.dpast, &grads.dpast.shape()[..3])?,
        );
        Ok(all.into_pyobject(py)?.into_any())
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(linear_attention, module)?)?;
    module.add_function(wrap_pyfunction!(linear_attention_backward, module)?)?;
    module.add_function(wrap_pyfunction!(causal_conv, module)?)?;
    module.add_function(wrap_pyfunction!(causal_conv_backward, module)?)
}

//! `scaled_dot_product_attention`: PyTorch's function, for arrays of any library.
//!
//! Source: the documentation of `torch.nn.functional.scaled_dot_product_attention`, 2.15.

use std::borrow::Cow;

use half::{bf16, f16};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use regard::{Attention, Bias, Bools, Causal, Element, Mask, Slope, View, ViewMut};

use crate::array::{Array, Axes, Dtype, Item, Kind, MAX_DIMS, row_major_strides};
use crate::attention::{Inputs, for_type, wants_gradients};
use crate::error::{OrRaise, as_torch, filled, value};
use crate::threads::{compute_plan, forced_kernel};

/// `softmax(query keyᵀ · scale + attn_mask) value`, with the arguments and the meaning of
/// `torch.nn.functional.scaled_dot_product_attention`.
///
/// query `[.., q_len, head_dim]`, key `[.., kv_len, head_dim]`, value `[.., kv_len, value_dim]`: numpy arrays or CPU tensors that speak
/// DLPack, float32, float16 or bfloat16. Leading dimensions broadcast. `attn_mask` broadcasts to `[.., q_len, kv_len]`: bools (True takes
/// part) or numbers that are added. `is_causal` is upper left. Unlike PyTorch's, a query that sees nothing gives zeros on every path, and
/// what a mask hides is never observed, not even NaN.
///
/// Errors are `ValueError` or `TypeError`, and `RuntimeError` too, which PyTorch raises.
#[pyfunction]
#[pyo3(signature = (query, key, value, attn_mask = None, dropout_p = 0.0, is_causal = false, scale = None, enable_gqa = false))]
#[allow(clippy::too_many_arguments, reason = "PyTorch's signature")]
fn scaled_dot_product_attention<'py>(
    py: Python<'py>,
    query: &Bound<'py, PyAny>,
    key: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    attn_mask: Option<&Bound<'py, PyAny>>,
    dropout_p: f64,
    is_causal: bool,
    scale: Option<f64>,
    enable_gqa: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let inputs = Inputs::of(["query", "key", "value"], [query, key, value]).map_err(|error| as_torch(py, error))?;
    let wanted = [Some(query), Some(key), Some(value), attn_mask];
    if wants_gradients(py, &inputs.q.kind, wanted.into_iter().flatten())? {
        let arguments = (query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa);
        return py.import("regard.torch")?.call_method1("scaled_dot_product_attention", arguments);
    }
    let call = || -> PyResult<_> {
        let mask = Array::of_option("attn_mask", attn_mask)?.map(|mask| mask.with_dims(2));
        let dropout = dropout(py, &inputs.q.kind, dropout_p)?;
        let leading = Leading::of(&inputs, enable_gqa)?;
        if is_causal && mask.is_some() {
            return Err(crate::error::value("attn_mask is given and is_causal is True: give one of the two".into()));
        }
        let call = Sdpa { inputs, mask, is_causal, scale: scale.map(|scale| scale as f32), dropout, leading };
        call.check()?;
        for_type!(&call.inputs.q, T => call.run::<T>(py))
    };
    call().map_err(|error| as_torch(py, error))
}

/// The chance of dropping a probability, and a seed from the generator that the library's users seed.
fn dropout(py: Python<'_>, kind: &Kind<'_>, p: f64) -> PyResult<Option<(f32, u64)>> {
    if !(0.0..1.0).contains(&p) {
        return Err(value(format!("dropout_p is {p} and must be at least 0 and below 1")));
    }
    if p == 0.0 {
        return Ok(None);
    }
    let seed = match kind {
        Kind::Exchange(_) => {
            let drawn = py.import("torch")?.call_method1("randint", (0, i64::MAX, (1,)))?;
            drawn.call_method0(intern!(py, "item"))?.extract::<i64>()? as u64
        }
        Kind::Numpy(_) => py.import("numpy.random")?.call_method1("randint", (0, i64::MAX))?.extract::<i64>()? as u64,
        Kind::Namespace(_) => {
            let text = "dropout_p needs a generator, which this library has not: use attention(dropout=(p, seed))";
            return Err(pyo3::exceptions::PyNotImplementedError::new_err(text));
        }
    };
    Ok(Some((p as f32, seed)))
}

/// The leading dimensions that queries, keys and values have together: `[.., batch, heads]`.
struct Leading {
    sizes: Vec<usize>,
    /// KV heads, where they may be fewer.
    kv_heads: Option<usize>,
}

impl Leading {
    fn of(inputs: &Inputs<'_>, gqa: bool) -> PyResult<Self> {
        for array in inputs.all() {
            let ndim = array.shape().len();
            if ndim < 2 {
                return Err(value(format!("{} has {ndim} dimensions and needs at least 2: [.., length, dim]", array.name())));
            }
        }
        let lead = |array: &Array<'_>| array.shape()[..array.shape().len() - 2].to_vec();
        let [q, mut k, mut v] = inputs.all().map(lead);
        let kv_heads = match (gqa, k.last().copied(), v.last().copied()) {
            (false, ..) => None,
            (true, Some(of_k), Some(of_v)) if of_k == of_v && !q.is_empty() => {
                let heads = q.last().copied().unwrap_or(1);
                k.last_mut().into_iter().chain(v.last_mut()).for_each(|last| *last = heads);
                Some(of_k)
            }
            (true, ..) => {
                let (q, k, v) = (inputs.q.shape(), inputs.k.shape(), inputs.v.shape());
                let needed = "with enable_gqa all need heads, and key and value as many";
                return Err(value(format!("query has shape {q:?}, key {k:?} and value {v:?}: {needed}")));
            }
        };
        let ndim = q.len().max(k.len()).max(v.len());
        let at = |of: &[usize], a: usize| (a + of.len()).checked_sub(ndim).map_or(1, |a| of[a]);
        let mut sizes = vec![1; ndim];
        for (a, size) in sizes.iter_mut().enumerate() {
            for of in [&q, &k, &v].map(|of| at(of, a)) {
                if of != 1 && *size != 1 && of != *size {
                    let (q, k, v) = (inputs.q.shape(), inputs.k.shape(), inputs.v.shape());
                    return Err(value(format!(
                        "query has shape {q:?}, key {k:?} and value {v:?}: leading dimensions must be equal or 1"
                    )));
                }
                *size = if of == 1 { *size } else { of };
            }
        }
        Ok(Leading { sizes, kv_heads })
    }

    /// How many problems of four dimensions there are.
    fn problems(&self) -> usize {
        self.sizes[..self.sizes.len().saturating_sub(2)].iter().product()
    }

    /// The strides of an array along the leading dimensions, 0 where it repeats.
    fn strides(&self, array: &[usize], strides: &[isize]) -> [isize; MAX_DIMS] {
        let mut all = [0; MAX_DIMS];
        let (ndim, own) = (self.sizes.len(), array.len() - 2);
        for a in 0..own {
            all[ndim - own + a] = if array[a] == 1 { 0 } else { strides[a] };
        }
        all
    }

    /// Where problem `i` begins in an array, and its four axes; `heads` where they are not those of the query.
    fn axes(&self, mut i: usize, shape: &[usize], strides: &[isize], heads: Option<usize>) -> (isize, Axes) {
        let lead = self.strides(shape, strides);
        let (ndim, inner) = (self.sizes.len(), self.sizes.len().saturating_sub(2));
        let mut offset = 0;
        for a in (0..inner).rev() {
            offset += (i % self.sizes[a]) as isize * lead[a];
            i /= self.sizes[a];
        }
        let (mut sizes4, mut strides4) = ([1; 4], [0; 4]);
        sizes4[2 - (ndim - inner)..2].copy_from_slice(&self.sizes[inner..]);
        strides4[2 - (ndim - inner)..2].copy_from_slice(&lead[inner..ndim]);
        sizes4[1] = heads.unwrap_or(sizes4[1]);
        sizes4[2..].copy_from_slice(&shape[shape.len() - 2..]);
        strides4[2..].copy_from_slice(&strides[strides.len() - 2..]);
        (offset, (sizes4, strides4))
    }
}

struct Sdpa<'py> {
    inputs: Inputs<'py>,
    mask: Option<Array<'py>>,
    is_causal: bool,
    scale: Option<f32>,
    dropout: Option<(f32, u64)>,
    leading: Leading,
}

/// A mask's numbers, in the types that masks have.
enum MaskRows<'a> {
    None,
    Bools { slice: Cow<'a, [bool]>, offset: usize, strides: Vec<isize> },
    Numbers(&'a Array<'a>),
}

impl<'py> Sdpa<'py> {
    fn check(&self) -> PyResult<()> {
        let Some(mask) = &self.mask else { return Ok(()) };
        let own = self.inputs.q.dtype;
        if ![Dtype::Bool, Dtype::F32, own].contains(&mask.dtype) {
            let text = format!("attn_mask is {} and must be bool, float32 or {}, as the query is", mask.dtype.name(), own.name());
            return Err(PyTypeError::new_err(text));
        }
        let mut scores = self.leading.sizes.clone();
        scores.extend([self.inputs.q.shape(), self.inputs.k.shape()].map(|shape| shape[shape.len() - 2]));
        let fits = mask.shape().iter().rev().zip(scores.iter().rev()).all(|(&given, &size)| given == size || given == 1);
        if mask.shape().len() > scores.len() || !fits {
            let given = mask.shape();
            return Err(value(format!(
                "attn_mask has shape {given:?} and scores have shape {scores:?}: each size must be equal or 1"
            )));
        }
        Ok(())
    }

    fn run<T: Item + Element>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (q, v) = (self.inputs.q.shape(), self.inputs.v.shape());
        let (q_len, value_dim) = (q[q.len() - 2], v[v.len() - 1]);
        let mut shape = self.leading.sizes.clone();
        shape.extend([q_len, value_dim]);
        let mut out = self.inputs.q.new_like(py, "output", self.inputs.q.dtype, &shape)?;
        let rows = self.leading.sizes[self.leading.sizes.len().saturating_sub(2)..].iter().product::<usize>() * q_len;
        let mut lse = filled("log-sum-exp", rows)?;
        let strides = row_major_strides(&shape);
        let masks = self.mask_rows()?;
        for i in 0..self.leading.problems() {
            let (offset, axes) = self.leading.axes(i, &shape, &strides, None);
            let lse = ViewMut::new(&mut lse, [axes.0[0], axes.0[1], q_len, 1]).or_raise()?;
            self.problem::<T>(py, i, &masks, (out.view_mut_at(offset, axes)?, lse))?;
        }
        out.into_object(py)
    }

    fn problem<T: Item + Element>(
        &self,
        py: Python<'py>,
        i: usize,
        rows: &MaskRows<'_>,
        (out, lse): (ViewMut<'_, T>, ViewMut<'_, f32>),
    ) -> PyResult<()> {
        let of = |array: &Array<'py>, heads| self.leading.axes(i, array.shape(), array.strides(), heads);
        let (q, k, v) = (&self.inputs.q, &self.inputs.k, &self.inputs.v);
        let ((q_at, q_axes), (k_at, k_axes), (v_at, v_axes)) =
            (of(q, None), of(k, self.leading.kv_heads), of(v, self.leading.kv_heads));
        let (mask, score) = self.rule(i, rows)?;
        let mut attention = Attention::new().mask(mask).score(score);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if let Some((p, seed)) = self.dropout {
            attention = attention.dropout(p, seed.wrapping_add(i as u64));
        }
        if let Some(kernel) = forced_kernel() {
            attention = attention.kernel(kernel);
        }
        let keys = (k.view_at::<T>(k_at, k_axes)?, v.view_at::<T>(v_at, v_axes)?);
        let plan = attention.plan(q.view_at::<T>(q_at, q_axes)?, keys).or_raise()?;
        compute_plan(py, &plan, || plan.forward_into(out, lse))?.or_raise()
    }

    fn mask_rows(&self) -> PyResult<MaskRows<'_>> {
        let Some(mask) = &self.mask else { return Ok(MaskRows::None) };
        if mask.dtype != Dtype::Bool {
            return Ok(MaskRows::Numbers(mask));
        }
        Ok(match mask.bools() {
            Some((slice, offset)) => MaskRows::Bools { slice: Cow::Borrowed(slice), offset, strides: mask.strides().to_vec() },
            None => {
                let slice = mask.elements::<u8>("True takes part")?.into_iter().map(|byte| byte != 0).collect();
                MaskRows::Bools { slice: Cow::Owned(slice), offset: 0, strides: row_major_strides(mask.shape()) }
            }
        })
    }

    /// The mask and the score of problem `i`.
    fn rule<'a>(&'a self, i: usize, rows: &'a MaskRows<'a>) -> PyResult<(Box<dyn Mask + 'a>, Box<dyn Slope + 'a>)> {
        let of = |array: &Array<'_>, strides: &[isize]| {
            let (offset, (mut shape, strides)) = self.leading.axes(i, array.shape(), strides, None);
            (0..4).filter(|&a| strides[a] == 0).for_each(|a| shape[a] = 1);
            (offset, (shape, strides))
        };
        let mask: Box<dyn Mask + 'a> = match (rows, &self.mask) {
            (MaskRows::Bools { slice, offset, strides }, Some(mask)) => {
                let (shift, (shape, strides)) = of(mask, strides);
                Box::new(Bools(View::strided(slice, offset.wrapping_add_signed(shift), shape, strides).or_raise()?))
            }
            _ if self.is_causal => Box::new(Causal::UpperLeft),
            _ => Box::new(()),
        };
        let MaskRows::Numbers(bias) = rows else { return Ok((mask, Box::new(()))) };
        let (shift, axes) = of(bias, bias.strides());
        let score: Box<dyn Slope + 'a> = match bias.dtype {
            Dtype::F16 => Box::new(Bias::new(bias.view_at::<f16>(shift, axes)?)),
            Dtype::Bf16 => Box::new(Bias::new(bias.view_at::<bf16>(shift, axes)?)),
            _ => Box::new(Bias::new(bias.view_at::<f32>(shift, axes)?)),
        };
        Ok((mask, score))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(scaled_dot_product_attention, module)?)
}

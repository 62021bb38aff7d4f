//! PyTorch's flash attention for the CPU, taken over where its dispatcher calls kernels: without Python on the way.
//!
//! What is plain is computed here, a call without a mask on dense memory; the rest is for the kernel in Python
//! (`regard/torch/install.py`), which is called from here.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{Attention, Causal, Element, Mask};

mod shim;

use crate::array::{Dtype, Item};
use crate::error::value;
use crate::threads::{compute, forced_kernel};
use shim::{Arguments, Place, Registration, Tensor, attached, load};

/// What is registered, and the kernel in Python. Locked with the interpreter attached only, as `threads::POOL`.
static INSTALLED: Mutex<(Option<Registration>, Option<Py<PyAny>>)> = Mutex::new((None, None));

/// How many calls were computed here.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The operator's results, out and log-sum-exp; the text of an error where there are none.
fn forward(arguments: Arguments) -> Result<[Tensor; 2], String> {
    match computed(&arguments) {
        Some(results) => {
            CALLS.fetch_add(1, Ordering::Relaxed);
            Ok(results)
        }
        None => attached(|py| in_python(py, &arguments).map_err(|error| text_of(py, &error))).map_err(|(text, interrupted)| {
            if interrupted {
                shim::interrupt();
            }
            text
        }),
    }
}

/// The results of what is plain, and nothing else: the same rules as `_takes` in Python, but for masks.
fn computed(arguments: &Arguments) -> Option<[Tensor; 2]> {
    let scale = arguments.scale.map(|scale| scale as f32);
    if arguments.attn_mask.is_some() || arguments.dropout_p != 0.0 || scale.is_some_and(|scale| !scale.is_finite()) {
        return None;
    }
    let [q, k, v] = [arguments.query.place()?, arguments.key.place()?, arguments.value.place()?];
    let (of_q, of_k) = (q.sizes, k.sizes);
    let fits = k.sizes == v.sizes && (of_q[0], of_q[3]) == (of_k[0], of_k[3]) && of_q[1].is_multiple_of(of_k[1]);
    if !fits || k.dtype != q.dtype || v.dtype != q.dtype {
        return None;
    }
    let places = [q, k, v];
    match (q.dtype, arguments.is_causal) {
        (Dtype::F32, false) => attend::<f32, _>(arguments, places, (), scale),
        (Dtype::F32, true) => attend::<f32, _>(arguments, places, Causal::UpperLeft, scale),
        (Dtype::F16, false) => attend::<f16, _>(arguments, places, (), scale),
        (Dtype::F16, true) => attend::<f16, _>(arguments, places, Causal::UpperLeft, scale),
        (Dtype::Bf16, false) => attend::<bf16, _>(arguments, places, (), scale),
        (Dtype::Bf16, true) => attend::<bf16, _>(arguments, places, Causal::UpperLeft, scale),
        _ => None,
    }
}

fn attend<T: Item + Element, M: Mask>(
    arguments: &Arguments,
    [q, k, v]: [Place; 3],
    mask: M,
    scale: Option<f32>,
) -> Option<[Tensor; 2]> {
    let mut attention = Attention::new().mask(mask);
    if let Some(scale) = scale {
        attention = attention.scale(scale);
    }
    if let Some(kernel) = forced_kernel() {
        attention = attention.kernel(kernel);
    }
    let keys = (arguments.key.view::<T>(&k)?, arguments.value.view::<T>(&v)?);
    let plan = attention.plan(arguments.query.view::<T>(&q)?, keys).ok()?;
    let place = Place { strides: strides_like(&q)?, ..q };
    let mut out = Tensor::empty(q.dtype, place.sizes, place.strides)?;
    // PyTorch's log-sum-exp lies as [batch, length, heads].
    let [batch, heads, length, _] = q.sizes;
    let steps = [(length * heads) as isize, 1, heads as isize];
    let mut lse = Tensor::empty(Dtype::F32, [batch, heads, length], steps)?;
    let rows = Place { dtype: Dtype::F32, sizes: [batch, heads, length, 1], strides: [steps[0], steps[1], steps[2], 1] };
    let to = (out.view_mut::<T>(&place)?, lse.view_mut::<f32>(&rows)?);
    let work = || plan.forward_into(to.0, to.1);
    if plan.is_alone() {
        work().ok()?
    } else {
        attached(|py| compute(py, work)).ok()?.ok()?
    }
    Some([out, lse])
}

/// The strides of `torch.empty_like`: as they are where memory is dense, else in the same order and dense. Nothing where an axis
/// repeats itself, whose order says nothing.
fn strides_like(of: &Place) -> Option<[isize; 4]> {
    let mut axes = [3, 2, 1, 0];
    axes.sort_by_key(|&a| (of.strides[a], of.sizes[a]));
    let (mut dense, mut size, mut same) = ([0; 4], 1, true);
    for a in axes {
        dense[a] = size;
        size *= of.sizes[a] as isize;
        same &= of.sizes[a] == 1 || of.strides[a] == dense[a];
    }
    if same {
        return Some(of.strides);
    }
    (!of.strides.contains(&0)).then_some(dense)
}

/// The results of the kernel in Python.
fn in_python(py: Python<'_>, arguments: &Arguments) -> PyResult<[Tensor; 2]> {
    let kernel = {
        let installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        installed.1.as_ref().map(|kernel| kernel.clone_ref(py))
    };
    let kernel = kernel.ok_or_else(|| value("regard is not installed".into()))?;
    let object = |tensor: &Tensor| tensor.to_object(py).ok_or_else(|| value("a tensor cannot be given to Python".into()));
    let Arguments { query, key, value: values, dropout_p, is_causal, attn_mask, scale } = arguments;
    let positional = (object(query)?, object(key)?, object(values)?, *dropout_p, *is_causal);
    let named = PyDict::new(py);
    named.set_item("attn_mask", attn_mask.as_ref().map(object).transpose()?)?;
    named.set_item("scale", *scale)?;
    let (out, lse) = kernel.bind(py).call(positional, Some(&named))?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    let tensor = |object| Tensor::of_object(object).ok_or_else(|| value("a result is no tensor".into()));
    Ok([tensor(&out)?, tensor(&lse)?])
}

/// What an exception says, which PyTorch makes a `RuntimeError`, and whether it is an interrupt, which must not be taken for one.
fn text_of(py: Python<'_>, error: &PyErr) -> (String, bool) {
    (error.value(py).to_string(), error.is_instance_of::<PyKeyboardInterrupt>(py))
}

/// Puts regard under PyTorch's operator, with `kernel` for what is not plain; `library` is PyTorch's, for the CPU. Whether that can be:
/// nothing is done where this PyTorch lacks a function that it needs.
#[pyfunction]
fn _put_under_torch(library: PathBuf, kernel: Py<PyAny>) -> bool {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if installed.0.is_some() || !load(&library) {
        return installed.0.is_some();
    }
    installed.1 = Some(kernel);
    installed.0 = Registration::new();
    installed.0.is_some()
}

/// Gives PyTorch's operator back. The kernel in Python stays, for calls that are under way.
#[pyfunction]
fn _give_back_to_torch() {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner).0 = None;
}

/// How many calls of PyTorch's operator were computed without Python.
#[pyfunction]
fn _calls_from_torch() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_put_under_torch, module)?)?;
    module.add_function(wrap_pyfunction!(_give_back_to_torch, module)?)?;
    module.add_function(wrap_pyfunction!(_calls_from_torch, module)?)
}

//! `attention` and `explain`: one call on arrays of any library.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{Element, Plan, View, ViewMut};

use crate::array::{Array, Axes, Dtype, Item, Kind};
use crate::error::{OrRaise, filled, value};
use crate::layout::Layout;
use crate::masks::row_major;
use crate::options::{Call, Options};
use crate::threads::{compute, compute_plan};

/// Runs a body for the type of an array's elements, named `$T` in it.
macro_rules! for_type {
    ($array:expr, $T:ident => $body:expr) => {{
        let array: &$crate::array::Array<'_> = $array;
        match array.dtype {
            $crate::array::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::array::Dtype::F16 => {
                type $T = ::half::f16;
                $body
            }
            $crate::array::Dtype::Bf16 => {
                type $T = ::half::bf16;
                $body
            }
            other => Err($crate::attention::not_numbers(array, other)),
        }
    }};
}
pub(crate) use for_type;

pub(crate) fn not_numbers(array: &Array<'_>, given: Dtype) -> PyErr {
    PyTypeError::new_err(format!("{} is {} and must be float32, float16 or bfloat16", array.name(), given.name()))
}

/// Queries, keys and values of one call, of one type.
pub(crate) struct Inputs<'py> {
    pub(crate) q: Array<'py>,
    pub(crate) k: Array<'py>,
    pub(crate) v: Array<'py>,
}

impl<'py> Inputs<'py> {
    pub(crate) fn of(names: [&'static str; 3], [q, k, v]: [&Bound<'py, PyAny>; 3]) -> PyResult<Self> {
        let inputs = Inputs { q: Array::of(names[0], q)?, k: Array::of(names[1], k)?, v: Array::of(names[2], v)? };
        inputs.k.expect(inputs.q.dtype, "as the query is")?;
        inputs.v.expect(inputs.q.dtype, "as the query is")?;
        Ok(inputs)
    }

    pub(crate) fn axes(&self, layout: Layout) -> PyResult<[Axes; 3]> {
        Ok([layout.axes(&self.q)?, layout.axes(&self.k)?, layout.axes(&self.v)?])
    }

    pub(crate) fn all(&self) -> [&Array<'py>; 3] {
        [&self.q, &self.k, &self.v]
    }
}

/// Exact attention, `softmax(scale · q kᵀ) v` with any mask and score; see the package's documentation for the options.
///
/// q `[batch, q_heads, q_len, head_dim]`, k `[batch, kv_heads, kv_len, head_dim]`, v `[batch, kv_heads, kv_len, value_dim]`: numpy arrays
/// or CPU tensors that speak DLPack, float32, float16 or bfloat16, read in place. Returns the output in q's kind and type, and with
/// `return_lse` also the log-sum-exp of each row.
#[pyfunction]
#[pyo3(signature = (q, k, v, **options))]
fn attention<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut parsed = Options::of(Call::Forward, options)?;
    let inputs = Inputs::of(["q", "k", "v"], [q, k, v])?;
    let gradients = [Some(q.clone()), Some(k.clone()), Some(v.clone()), item(options, "bias")?, item(options, "sinks")?];
    if parsed.out.is_none() && wants_gradients(py, &inputs.q.kind, gradients.iter().flatten())? {
        return py.import("regard.torch")?.call_method("attention", (q, k, v), options);
    }
    let out = parsed.out.take();
    let axes = inputs.axes(parsed.layout)?;
    for_type!(&inputs.q, T => forward::<T>(py, &inputs, axes, out, &parsed))
}

fn item<'py>(options: Option<&Bound<'py, PyDict>>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    options.map_or(Ok(None), |options| options.get_item(name))
}

/// Whether some tensor wants its gradient, and PyTorch records.
pub(crate) fn wants_gradients<'a, 'py: 'a>(
    py: Python<'py>,
    kind: &Kind<'py>,
    objects: impl Iterator<Item = &'a Bound<'py, PyAny>>,
) -> PyResult<bool> {
    if !matches!(kind, Kind::Exchange(_)) {
        return Ok(false);
    }
    for object in objects {
        if let Some(wants) = object.getattr_opt(intern!(py, "requires_grad"))?
            && wants.is_truthy()?
        {
            return py.import(intern!(py, "torch"))?.call_method0(intern!(py, "is_grad_enabled"))?.is_truthy();
        }
    }
    Ok(false)
}

fn forward<'py, T: Item + Element>(
    py: Python<'py>,
    inputs: &Inputs<'py>,
    [q, k, v]: [Axes; 3],
    out: Option<Array<'py>>,
    options: &Options<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let bools = options.bools()?;
    let attention = options.attention(&bools, q.0[1])?;
    let plan = attention.plan(inputs.q.view::<T>(q)?, (inputs.k.view(k)?, inputs.v.view(v)?)).or_raise()?;
    let mut result = Results::new(py, &inputs.q, options.layout, plan.shape().out(), options.return_lse, out)?;
    for input in inputs.all().into_iter().chain(options.arrays()) {
        result.apart(input)?;
    }
    let (out, lse) = result.views::<T>()?;
    compute_plan(py, &plan, || plan.forward_into(out, lse))?.or_raise()?;
    result.into_objects(py)
}

/// Where a forward pass writes, and what it returns.
pub(crate) struct Results<'py> {
    layout: Layout,
    sizes: [usize; 4],
    given: bool,
    out: Array<'py>,
    lse: Option<Array<'py>>,
    /// The log-sum-exp where nobody asked for it.
    scratch: Vec<f32>,
}

impl<'py> Results<'py> {
    /// Results beside queries `like`, of these sizes `[batch, q_heads, q_len, value_dim]`; in `given` where there is one.
    pub(crate) fn new(
        py: Python<'py>,
        like: &Array<'py>,
        layout: Layout,
        sizes: [usize; 4],
        return_lse: bool,
        given: Option<Array<'py>>,
    ) -> PyResult<Self> {
        let ndim = like.shape().len();
        let (shape, rows) = (layout.shape(ndim, sizes), Layout::rows(ndim, sizes));
        let was_given = given.is_some();
        let out = match given {
            Some(out) => {
                out.expect(like.dtype, "as the query is")?;
                if out.shape() != shape {
                    return Err(value(format!("out has shape {:?} and needs {shape:?}", out.shape())));
                }
                out
            }
            None => like.new_like(py, "output", like.dtype, &shape)?,
        };
        let lse = return_lse.then(|| like.new_like(py, "log-sum-exp", Dtype::F32, &rows)).transpose()?;
        let scratch = if return_lse { Vec::new() } else { filled("log-sum-exp", rows.iter().product())? };
        Ok(Results { layout, sizes, given: was_given, out, lse, scratch })
    }

    /// Refuses an output of the caller's that shares memory with an input.
    pub(crate) fn apart(&self, input: &Array<'_>) -> PyResult<()> {
        if self.given { self.out.apart(input) } else { Ok(()) }
    }

    pub(crate) fn views<T: Item + Element>(&mut self) -> PyResult<(ViewMut<'_, T>, ViewMut<'_, f32>)> {
        let axes = self.layout.axes(&self.out)?;
        let [b, h, l, _] = self.sizes;
        let rows = row_major([b, h, l, 1]);
        let lse = match &mut self.lse {
            Some(lse) => lse.view_mut(rows)?,
            None => ViewMut::new(&mut self.scratch, rows.0).or_raise()?,
        };
        Ok((self.out.view_mut(axes)?, lse))
    }

    /// The output, and the log-sum-exp of rows in row-major order, which nobody asked for.
    pub(crate) fn into_output_and_lse(self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Vec<f32>)> {
        Ok((self.out.into_object(py)?, self.scratch))
    }

    pub(crate) fn into_objects(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let out = self.out.into_object(py)?;
        match self.lse {
            Some(lse) => Ok((out, lse.into_object(py)?).into_pyobject(py)?.into_any()),
            None => Ok(out),
        }
    }
}

/// What a call would do.
#[pyclass(frozen, get_all, module = "regard")]
pub(crate) struct Explanation {
    /// The kernel that would run: one of `available_kernels()`.
    kernel: &'static str,
    /// Why that one, and how the work is shared out.
    why: String,
    /// Operations of the forward pass.
    forward_flops: u64,
    /// Operations of the backward pass.
    backward_flops: u64,
    /// Bytes that the forward pass must move at least.
    bytes: u64,
    /// Bytes of working memory beside inputs and results.
    memory: u64,
    /// Pairs of queries and keys in tiles that are computed.
    pairs: u64,
    /// Tiles that are skipped.
    hidden_tiles: u64,
    /// Tiles that are computed without asking the mask.
    clear_tiles: u64,
    /// Tiles that are computed, with the mask asked for every pair.
    mixed_tiles: u64,
}

#[pymethods]
impl Explanation {
    /// The share of tiles that are skipped, 0 to 1.
    #[getter]
    fn hidden_share(&self) -> f64 {
        let all = self.hidden_tiles + self.clear_tiles + self.mixed_tiles;
        if all == 0 { 0.0 } else { self.hidden_tiles as f64 / all as f64 }
    }

    fn __repr__(&self) -> String {
        let Explanation { kernel, why, forward_flops, bytes, memory, .. } = self;
        let hidden = 100.0 * self.hidden_share();
        format!(
            "{kernel}: {why}; {forward_flops} FLOPs, {bytes} bytes moved, {memory} bytes of memory, {hidden:.1} % of tiles hidden"
        )
    }
}

impl Explanation {
    fn of<T: Element, M: regard::Mask, S: regard::Score>(plan: &Plan<'_, T, M, S>) -> Self {
        let cost = plan.cost();
        Explanation {
            kernel: plan.kernel(),
            why: plan.why(),
            forward_flops: cost.forward_flops,
            backward_flops: cost.backward_flops,
            bytes: cost.bytes,
            memory: cost.memory,
            pairs: cost.pairs,
            hidden_tiles: cost.tiles.hidden,
            clear_tiles: cost.tiles.clear,
            mixed_tiles: cost.tiles.mixed,
        }
    }
}

/// What `attention` would do with the same arguments: the kernel, why, operations, bytes, memory and tiles. Computes nothing.
#[pyfunction]
#[pyo3(signature = (q, k, v, **options))]
fn explain<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Explanation> {
    let options = Options::of(Call::Forward, options)?;
    let inputs = Inputs::of(["q", "k", "v"], [q, k, v])?;
    let [q, k, v] = inputs.axes(options.layout)?;
    for_type!(&inputs.q, T => {
        let bools = options.bools()?;
        let attention = options.attention(&bools, q.0[1])?;
        let keys: (View<'_, T>, View<'_, T>) = (inputs.k.view(k)?, inputs.v.view(v)?);
        let plan = attention.plan(inputs.q.view::<T>(q)?, keys).or_raise()?;
        compute(py, || Explanation::of(&plan))
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Explanation>()?;
    module.add_function(wrap_pyfunction!(attention, module)?)?;
    module.add_function(wrap_pyfunction!(explain, module)?)
}

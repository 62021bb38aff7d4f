//! `regard.lens`: facts of every row of attention, and maps of its weights, as numpy arrays.

use std::ops::Range;

use numpy::{Element as NumpyElement, PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{Element, Errors, Facts, Grid, Inspect, Mask, Plan, Region, Score, Tensor, View};

use crate::array::{Array, Axes, Item};
use crate::attention::{Inputs, Results, for_type};
use crate::error::{OrRaise, room, value};
use crate::layout::Layout;
use crate::options::{Call, Options};
use crate::threads::compute_plan;

/// A range as Python has it.
type Pair = (i64, i64);

/// What an inspection looks for, before the lengths are known.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Wanted {
    first: u64,
    recent: u64,
    top: u64,
    ranges: Vec<(String, Pair)>,
}

impl Wanted {
    /// For so many rows of so many queries and keys.
    fn checked(&self, [q_len, kv_len]: [usize; 2], rows: usize) -> PyResult<Inspect> {
        let most = |keys: u64| usize::try_from(keys).unwrap_or(usize::MAX).min(q_len + kv_len); // more keys there are not
        let ranges = self.ranges.iter().map(|(name, given)| range(&format!("ranges[{name:?}]"), Some(*given), kv_len));
        let ranges = ranges.collect::<PyResult<Vec<_>>>()?;
        let top = usize::try_from(self.top).unwrap_or(usize::MAX);
        let what = Inspect { first: most(self.first), recent: most(self.recent), top, ranges };
        let numbers = rows.checked_mul(what.columns(kv_len, q_len));
        room::<f32>("facts", numbers.unwrap_or(usize::MAX)).map(|_| what)
    }
}

/// The part `start..end` of `0..size`; all of it where none is given.
fn range(name: &str, given: Option<Pair>, size: usize) -> PyResult<Range<usize>> {
    let Some((start, end)) = given else { return Ok(0..size) };
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end && end <= size => Ok(start..end),
        _ => Err(value(format!("{name} is ({start}, {end}) and must be (start, end) with 0 <= start <= end <= {size}"))),
    }
}

/// The error of each type against f64, float64 `[batch, q_heads]` or `[q_heads]`.
#[pyfunction]
#[pyo3(signature = (q, k, v, rows = None, **options))]
fn _precision<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    rows: Option<Vec<u64>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = Options::of(Call::Inspect, options)?;
    let inputs = Inputs::of(["q", "k", "v"], [q, k, v])?;
    let axes = inputs.axes(options.layout)?;
    for_type!(&inputs.q, T => precision::<T>(py, &inputs, axes, rows, &options))
}

fn precision<'py, T: Item + Element>(
    py: Python<'py>,
    inputs: &Inputs<'py>,
    [q, k, v]: [Axes; 3],
    rows: Option<Vec<u64>>,
    options: &Options<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let bools = options.bools()?;
    let attention = options.attention(&bools, q.0[1])?;
    let plan = attention.plan(inputs.q.view::<T>(q)?, (inputs.k.view(k)?, inputs.v.view(v)?)).or_raise()?;
    let shape = plan.shape();
    let rows = match rows {
        Some(rows) => rows.into_iter().map(|row| usize::try_from(row).unwrap_or(usize::MAX)).collect(),
        None => plan.spread_rows(MEASURED),
    };
    if let Some(row) = rows.iter().find(|row| **row >= shape.q_len) {
        return Err(value(format!("rows has {row} and must have queries from 0 to {}", shape.q_len.saturating_sub(1))));
    }
    let Errors { f32, bf16, f16 } = crate::threads::compute(py, || plan.errors(&rows))?.or_raise()?;
    let all = PyDict::new(py);
    let heads = [shape.batch, shape.q_heads];
    let heads = if inputs.q.shape().len() == 3 { &heads[1..] } else { &heads[..] };
    for (name, errors) in [("f32", f32), ("bf16", bf16), ("f16", f16)] {
        all.set_item(name, array(py, errors, heads)?)?;
    }
    Ok(all)
}

/// Rows that errors are measured on, where none are named.
const MEASURED: usize = 64;

/// Facts by name, and the output.
#[pyfunction]
#[pyo3(signature = (q, k, v, wanted, **options))]
fn _inspect<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    wanted: Wanted,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyAny>)> {
    let options = Options::of(Call::Inspect, options)?;
    let inputs = Inputs::of(["q", "k", "v"], [q, k, v])?;
    let axes = inputs.axes(options.layout)?;
    for_type!(&inputs.q, T => inspect::<T>(py, &inputs, axes, &wanted, &options))
}

fn inspect<'py, T: Item + Element>(
    py: Python<'py>,
    inputs: &Inputs<'py>,
    [q, k, v]: [Axes; 3],
    wanted: &Wanted,
    options: &Options<'py>,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyAny>)> {
    let bools = options.bools()?;
    let attention = options.attention(&bools, q.0[1])?;
    let plan = attention.plan(inputs.q.view::<T>(q)?, (inputs.k.view(k)?, inputs.v.view(v)?)).or_raise()?;
    let (shape, sizes) = (plan.shape(), plan.shape().out());
    let rows = Layout::rows(inputs.q.shape().len(), sizes);
    let what = wanted.checked([shape.q_len, shape.kv_len], rows.iter().product())?;
    let mut result = Results::new(py, &inputs.q, options.layout, sizes, false, None)?;
    let (out, lse) = result.views::<T>()?;
    let facts = compute_plan(py, &plan, || plan.inspect_into(&what, out, lse))?.or_raise()?;
    let (out, lse) = result.into_output_and_lse(py)?;
    Ok((named(py, facts, lse, &rows)?, out))
}

/// The arrays of facts, `[rows ..]` or `[rows .., numbers]`.
fn named<'py>(py: Python<'py>, facts: Facts, lse: Vec<f32>, rows: &[usize]) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    let many = |n: usize| [rows, &[n]].concat();
    for (name, of_row) in [
        ("entropy", facts.entropy),
        ("max_logit", facts.max_logit),
        ("distance", facts.distance),
        ("first", facts.first),
        ("recent", facts.recent),
    ] {
        all.set_item(name, array(py, of_row.into_vec(), rows)?)?;
    }
    let top = many(facts.top_weights.shape()[3]);
    let keys = facts.top_keys.iter().map(|key| if *key == u32::MAX { -1 } else { i64::from(*key) }).collect();
    all.set_item("lse", array(py, lse, rows)?)?;
    all.set_item("top_keys", array::<i64>(py, keys, &top)?)?;
    for (name, of_row) in [("ranges", facts.ranges), ("distances", facts.distances), ("top_weights", facts.top_weights)] {
        let sizes = many(of_row.shape()[3]);
        all.set_item(name, array(py, of_row.into_vec(), &sizes)?)?;
    }
    Ok(all)
}

fn array<'py, T: NumpyElement>(py: Python<'py>, data: Vec<T>, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyArray1::from_vec(py, data).reshape(shape)?.into_any())
}

/// A part of attention, and how many rows and keys are one cell of its map.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Place {
    batch: Option<Pair>,
    heads: Option<Pair>,
    rows: Option<Pair>,
    keys: Option<Pair>,
    block: (u64, u64),
}

impl Place {
    /// # Errors
    /// `ValueError` when the part leaves the whole, or cells are empty; `MemoryError` when there is no room for the map.
    fn checked(&self, whole: &Region) -> PyResult<(Region, Grid)> {
        let region = Region {
            batch: range("batch", self.batch, whole.batch.end)?,
            heads: range("heads", self.heads, whole.heads.end)?,
            rows: range("rows", self.rows, whole.rows.end)?,
            keys: range("keys", self.keys, whole.keys.end)?,
        };
        let cell = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let grid = Grid { rows: cell(self.block.0), keys: cell(self.block.1) };
        if grid.rows == 0 || grid.keys == 0 {
            return Err(value(format!("block is {:?} and must be at least 1", self.block)));
        }
        let cells = region.cells(grid).into_iter().try_fold(1usize, usize::checked_mul);
        room::<f32>("map", cells.unwrap_or(usize::MAX))?;
        Ok((region, grid))
    }
}

/// Weights pooled in cells, `[batch, heads, rows of cells, columns of cells]`, from a log-sum-exp or without one.
#[pyfunction]
#[pyo3(signature = (q, k, place, lse = None, **options))]
fn _map<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    place: Place,
    lse: Option<&Bound<'py, PyAny>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = Options::of(Call::Inspect, options)?;
    let inputs = Inputs::of(["q", "k", "k"], [q, k, k])?;
    let lse = Array::of_option("lse", lse)?;
    let axes = inputs.axes(options.layout)?;
    for_type!(&inputs.q, T => map::<T>(py, &inputs, axes, (&place, lse.as_ref()), &options))
}

fn map<'py, T: Item + Element>(
    py: Python<'py>,
    inputs: &Inputs<'py>,
    [q, k, _]: [Axes; 3],
    (place, lse): (&Place, Option<&Array<'py>>),
    options: &Options<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let bools = options.bools()?;
    let attention = options.attention(&bools, q.0[1])?;
    // Weights do not depend on values: keys stand in for them.
    let keys: (View<'_, T>, View<'_, T>) = (inputs.k.view(k)?, inputs.k.view(k)?);
    let plan = attention.plan(inputs.q.view::<T>(q)?, keys).or_raise()?;
    let (region, grid) = place.checked(&plan.whole())?;
    let ndim = inputs.q.shape().len();
    let lse = match lse {
        Some(lse) => given_lse(lse, &Layout::rows(ndim, plan.shape().out()))?,
        None => {
            let mut result = Results::new(py, &inputs.q, options.layout, plan.shape().out(), false, None)?;
            let (out, lse) = result.views::<T>()?;
            compute_plan(py, &plan, || plan.forward_into(out, lse))?.or_raise()?;
            result.into_output_and_lse(py)?.1
        }
    };
    let cells = pooled(py, &plan, &lse, (&region, grid))?;
    let sizes = cells.shape();
    array(py, cells.into_vec(), &sizes[4 - ndim..])
}

fn given_lse(lse: &Array<'_>, rows: &[usize]) -> PyResult<Vec<f32>> {
    if lse.shape() != rows {
        return Err(value(format!("lse has shape {:?} and needs {rows:?}: a number for each row", lse.shape())));
    }
    lse.elements("as `attention` gives it")
}

fn pooled<T: Element, M: Mask, S: Score>(
    py: Python<'_>,
    plan: &Plan<'_, T, M, S>,
    lse: &[f32],
    (region, grid): (&Region, Grid),
) -> PyResult<Tensor<f32>> {
    let [batch, heads, q_len, _] = plan.shape().out();
    let lse = View::new(lse, [batch, heads, q_len, 1]).or_raise()?;
    let maps = crate::threads::compute(py, || plan.maps(lse, region, &[grid]))?.or_raise()?;
    maps.into_iter().next().ok_or_else(|| value("there is no map".into()))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_precision, module)?)?;
    module.add_function(wrap_pyfunction!(_inspect, module)?)?;
    module.add_function(wrap_pyfunction!(_map, module)?)
}

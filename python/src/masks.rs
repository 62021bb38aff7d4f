//! Masks as Python objects: `a & b`, `a | b`.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use numpy::{PyArrayDyn, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use regard::{
    Around, Blocks, Blockwise, Bools, Causal, Dilated, Documents, Either, Fixed, Global, Mask, Padding, Pair, PrefixLm, RandomKeys,
    Shape, Spans, Strided, Tile, View, Window,
};

use crate::array::{Array, Axes, Dtype, integers, is_list};
use crate::error::{OrRaise, room, value, wrong_type};

/// A mask that many may hold.
#[derive(Clone)]
pub(crate) struct Shared(Arc<dyn Mask + Send>);

impl Shared {
    pub(crate) fn new(mask: impl Mask + Send + 'static) -> Self {
        Shared(Arc::new(mask))
    }
}

impl Mask for Shared {
    fn keep(&self, p: Pair) -> bool {
        self.0.keep(p)
    }

    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        self.0.keep_row(at, keep);
    }

    fn in_rows(&self) -> bool {
        true
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.0.tile(q, kv, at)
    }

    fn check(&self, shape: &Shape) -> regard::Result<()> {
        self.0.check(shape)
    }
}

/// Who is seen: made by `Causal`, `Window` and their neighbours; `a & b` shows what both show, `a | b` what either shows.
#[pyclass(frozen, name = "Mask", module = "regard", from_py_object)]
#[derive(Clone)]
pub(crate) struct PyMask {
    mask: Shared,
    text: Arc<str>,
}

impl PyMask {
    fn new(mask: impl Mask + Send + 'static, text: String) -> Self {
        PyMask { mask: Shared::new(mask), text: text.into() }
    }

    pub(crate) fn shared(&self) -> Shared {
        self.mask.clone()
    }
}

#[pymethods]
impl PyMask {
    fn __and__(&self, other: &PyMask) -> PyMask {
        PyMask::new((self.shared(), other.shared()), format!("({} & {})", self.text, other.text))
    }

    fn __or__(&self, other: &PyMask) -> PyMask {
        PyMask::new(Either(self.shared(), other.shared()), format!("({} | {})", self.text, other.text))
    }

    fn __repr__(&self) -> &str {
        &self.text
    }

    /// The mask written out for scores `[batch, heads, q_len, kv_len]`; True is seen.
    fn visible<'py>(&self, py: Python<'py>, shape: [usize; 4]) -> PyResult<Bound<'py, PyArrayDyn<bool>>> {
        let [batch, heads, q_len, kv_len] = shape;
        let limit = |n: usize| n < 1 << 30;
        let count =
            shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|&n| limit(n) && shape.iter().all(|&n| limit(n)));
        let count = count.ok_or_else(|| value(format!("shape is {shape:?} and must have less than 2^30 elements")))?;
        let sizes = Shape { batch, q_heads: heads, kv_heads: heads, q_len, kv_len, kv_lens: Vec::new(), head_dim: 0, value_dim: 0 };
        self.mask.check(&sizes).or_raise()?;
        let pair = |i: usize| sizes.pair(i / kv_len / q_len / heads, i / kv_len / q_len % heads, i / kv_len % q_len, i % kv_len);
        let seen: Vec<bool> = py.detach(|| (0..count).map(|i| self.mask.keep(pair(i))).collect());
        seen.to_pyarray(py).reshape(shape).map(|array| array.to_dyn().clone())
    }
}

/// Causal masks: `UPPER_LEFT` (query i sees keys up to i, as PyTorch's `is_causal`) and `LOWER_RIGHT` (the last query is level with the
/// last key, as in decoding).
#[pyclass(frozen, name = "Causal", module = "regard")]
pub(crate) struct PyCausal;

#[pymethods]
impl PyCausal {
    #[classattr]
    #[pyo3(name = "UPPER_LEFT")]
    fn upper_left() -> PyMask {
        PyMask::new(Causal::UpperLeft, "Causal.UPPER_LEFT".into())
    }

    #[classattr]
    #[pyo3(name = "LOWER_RIGHT")]
    fn lower_right() -> PyMask {
        PyMask::new(Causal::LowerRight, "Causal.LOWER_RIGHT".into())
    }
}

/// Keys from `left` before to `right` after the query's position among the keys, both inclusive; None is no bound.
///
/// Source: Beltagy et al. 2020, "Longformer", §3.1.
#[pyfunction(name = "Window")]
#[pyo3(signature = (left, right))]
fn window_mask(left: Option<i64>, right: Option<i64>) -> PyResult<PyMask> {
    let text = |n: Option<i64>| n.map_or("None".to_owned(), |n| n.to_string());
    Ok(PyMask::new(window(left, right)?, format!("Window({}, {})", text(left), text(right))))
}

pub(crate) fn window(left: Option<i64>, right: Option<i64>) -> PyResult<Window> {
    let bound = |what: &str, n: Option<i64>| match n {
        None => Ok(u32::MAX),
        Some(n) if n < 0 => Err(value(format!("window has {n} keys to the {what} and must have 0 or more, or None"))),
        Some(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
    };
    Ok(Window { left: bound("left", left)?, right: bound("right", right)? })
}

/// Non-negative integers below 2^32, of an array, a sequence or one number.
pub(crate) fn positions(name: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let all = match object.extract::<i64>() {
        Ok(one) => vec![one],
        Err(_) => integers(name, object)?,
    };
    let position =
        |n: i64| u32::try_from(n).map_err(|_| value(format!("{name} holds {n} and must hold numbers from 0 to 2^32 − 1")));
    all.into_iter().map(position).collect()
}

/// A prefix that all see, and causal attention after it (lower right): one length, or one for each sequence.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", §3.2.1.
#[pyfunction(name = "PrefixLm")]
fn prefix_lm(prefix: &Bound<'_, PyAny>) -> PyResult<PyMask> {
    let prefix = positions("prefix", prefix)?;
    let text = format!("PrefixLm({prefix:?})");
    Ok(PyMask::new(PrefixLm { prefix }, text))
}

/// Documents packed end to end: a query sees keys of its own document. `bounds` is 0, then the ends, ascending (`cu_seqlens`);
/// `inner` is a mask within each document.
#[pyfunction(name = "Documents")]
#[pyo3(signature = (bounds, kv_bounds = None, inner = None))]
fn documents_mask(bounds: &Bound<'_, PyAny>, kv_bounds: Option<&Bound<'_, PyAny>>, inner: Option<&PyMask>) -> PyResult<PyMask> {
    let q = positions("bounds", bounds)?;
    let kv = kv_bounds.map(|bounds| positions("kv_bounds", bounds)).transpose()?;
    let (count, inner_text) = (q.len().saturating_sub(1), inner.map_or("everything".to_owned(), |mask| mask.text.to_string()));
    Ok(PyMask::new(documents(&q, kv.as_deref(), inner.map(PyMask::shared))?, format!("Documents({count} of them, {inner_text})")))
}

/// Documents, with a mask within each that may be none.
pub(crate) fn documents(q: &[u32], kv: Option<&[u32]>, inner: Option<Shared>) -> PyResult<Shared> {
    Ok(match inner {
        Some(inner) => Shared::new(Documents::with_keys(q, kv.unwrap_or(q), inner).or_raise()?),
        None => Shared::new(Documents::with_keys(q, kv.unwrap_or(q), ()).or_raise()?),
    })
}

/// Blocks of queries by keys, from a map of bools `[.., rows of blocks, columns of blocks]`.
///
/// Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §5.5.
#[pyfunction(name = "Blocks")]
fn blocks_mask(map: &Bound<'_, PyAny>, q_block: i64, kv_block: i64) -> PyResult<PyMask> {
    Ok(PyMask::new(blocks(map, q_block, kv_block)?, format!("Blocks({q_block} × {kv_block})")))
}

pub(crate) fn blocks(map: &Bound<'_, PyAny>, q_block: i64, kv_block: i64) -> PyResult<Blocks> {
    let map = Array::of("block map", map)?;
    let (shape, _) = broadcast_axes(&map)?;
    let map = bools(&map)?.into_vec()?;
    Blocks::new(count("q_block", q_block)?, count("kv_block", kv_block)?, map, shape).or_raise()
}

/// Any bools that broadcast to `[batch, heads, q_len, kv_len]`; True is seen.
#[pyfunction(name = "Bools")]
fn bools_mask(array: &Bound<'_, PyAny>) -> PyResult<PyMask> {
    let array = Array::of("bools", array)?;
    let (shape, _) = broadcast_axes(&array)?;
    let data = bools(&array)?.into_vec()?;
    Ok(PyMask::new(BoolArray { slice: Cow::Owned(data), offset: 0, axes: row_major(shape) }, format!("Bools({:?})", array.shape())))
}

/// Sequence `b` has `lengths[b]` keys, and the others are padding; one length stands for all.
#[pyfunction(name = "Padding")]
fn padding(lengths: &Bound<'_, PyAny>) -> PyResult<PyMask> {
    let lengths = positions("lengths", lengths)?;
    let text = format!("Padding({} lengths)", lengths.len());
    Ok(PyMask::new(Padding { lengths }, text))
}

/// Query `[batch, head, q]` sees keys `first..end`: integers that broadcast to `[batch, heads, q_len]`.
#[pyfunction(name = "Spans")]
fn spans(first: &Bound<'_, PyAny>, end: &Bound<'_, PyAny>) -> PyResult<PyMask> {
    let rows = |name: &'static str, object: &Bound<'_, PyAny>| -> PyResult<Rows> {
        let array = Array::of(name, object)?;
        let shape = query_rows(&array)?;
        let clamp = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        Ok(Rows { data: array.integers()?.into_iter().map(clamp).collect(), shape })
    };
    let spans = SpanArrays { first: rows("first", first)?, end: rows("end", end)? };
    let text = format!("Spans({:?})", spans.end.shape);
    Ok(PyMask::new(spans, text))
}

/// A window with gaps: distances that are multiples of `dilation`, up to `left` and `right` of them.
///
/// Source: Beltagy et al. 2020, "Longformer", §3.1.
#[pyfunction(name = "Dilated")]
fn dilated(left: i64, right: i64, dilation: i64) -> PyResult<PyMask> {
    let mask = Dilated::new(count("left", left)?, count("right", right)?, count("dilation", dilation)?).or_raise()?;
    Ok(PyMask::new(mask, format!("Dilated({left}, {right}, {dilation})")))
}

/// The strided pattern: the last `stride` keys, and every `stride`-th key before.
///
/// Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §4.3.
#[pyfunction(name = "Strided")]
fn strided(stride: i64) -> PyResult<PyMask> {
    Ok(PyMask::new(Strided::new(count("stride", stride)?).or_raise()?, format!("Strided({stride})")))
}

/// The fixed pattern: the query's own block of `block` keys, and the last `summary` keys of every block.
///
/// Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §4.3.
#[pyfunction(name = "Fixed")]
fn fixed(block: i64, summary: i64) -> PyResult<PyMask> {
    Ok(PyMask::new(
        Fixed::new(count("block", block)?, count("summary", summary)?).or_raise()?,
        format!("Fixed({block}, {summary})"),
    ))
}

/// Positions that see all and that all see: a list of them, or the number of first ones.
///
/// Source: Beltagy et al. 2020, "Longformer", §3.1.
#[pyfunction(name = "Global")]
fn global(positions: &Bound<'_, PyAny>) -> PyResult<PyMask> {
    Ok(match positions.extract::<i64>() {
        Ok(first) => PyMask::new(Global::first(count("positions", first)?), format!("Global({first})")),
        Err(_) => {
            let list = self::positions("positions", positions)?;
            let text = format!("Global({} positions)", list.len());
            PyMask::new(Global::new(list), text)
        }
    })
}

/// `each` random keys for every position, drawn by a counter from `seed`: part of BigBird's pattern.
///
/// Source: Zaheer et al. 2020, "Big Bird", §2.
#[pyfunction(name = "RandomKeys")]
fn random_keys(each: i64, heads: usize, length: usize, seed: u64) -> PyResult<PyMask> {
    let mask = RandomKeys::new(count("each", each)?, [heads, length], seed).or_raise()?;
    Ok(PyMask::new(mask, format!("RandomKeys({each}, {heads}, {length}, {seed})")))
}

/// A mask whose positions are blocks of `size` positions.
#[pyfunction(name = "Blockwise")]
fn blockwise(size: i64, mask: &PyMask) -> PyResult<PyMask> {
    let blockwise = Blockwise::new(count("size", size)?, mask.shared()).or_raise()?;
    Ok(PyMask::new(blockwise, format!("Blockwise({size}, {})", mask.text)))
}

/// Keys at most `radius` from a centre that each query names: float32 that broadcast to `[batch, heads, q_len]`.
///
/// Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", §3.2.
#[pyfunction(name = "Around")]
fn around(centres: &Bound<'_, PyAny>, radius: f32) -> PyResult<PyMask> {
    Ok(PyMask::new(AroundRows { centres: centre_rows(centres)?, radius }, format!("Around(radius {radius})")))
}

/// A number for each query, `[batch, heads, q_len, 1]`.
#[derive(Clone)]
pub(crate) struct Rows<T = u32> {
    pub(crate) data: Vec<T>,
    pub(crate) shape: [usize; 4],
}

impl<T: Copy> Rows<T> {
    pub(crate) fn view(&self) -> View<'_, T> {
        View::new(&self.data, self.shape).expect("as many elements as the shape has")
    }
}

/// The shape `[batch, heads, q_len, 1]` of an array of numbers for each query, whose first axes may be missing.
fn query_rows(array: &Array<'_>) -> PyResult<[usize; 4]> {
    match *array.shape() {
        [q] => Ok([1, 1, q, 1]),
        [h, q] => Ok([1, h, q, 1]),
        [b, h, q] => Ok([b, h, q, 1]),
        _ => {
            let (name, ndim) = (array.name(), array.shape().len());
            Err(value(format!("{name} has {ndim} dimensions and needs 1 to 3: [batch, heads, q_len]")))
        }
    }
}

pub(crate) fn centre_rows(object: &Bound<'_, PyAny>) -> PyResult<Rows<f32>> {
    let array = Array::of("centres", object)?;
    let shape = query_rows(&array)?;
    Ok(Rows { data: array.elements("a position among the keys")?, shape })
}

struct SpanArrays {
    first: Rows,
    end: Rows,
}

impl SpanArrays {
    fn mask(&self) -> Spans<'_> {
        Spans::new(self.first.view(), self.end.view())
    }
}

struct AroundRows {
    centres: Rows<f32>,
    radius: f32,
}

impl AroundRows {
    fn mask(&self) -> Around<'_> {
        Around { centres: self.centres.view(), radius: self.radius }
    }
}

/// Bools in row-major memory of their own, or in an argument's.
pub(crate) struct BoolArray<'a> {
    slice: Cow<'a, [bool]>,
    offset: usize,
    axes: Axes,
}

impl BoolArray<'_> {
    pub(crate) fn mask(&self) -> Bools<'_> {
        let (shape, strides) = self.axes;
        Bools(View::strided(&self.slice, self.offset, shape, strides).expect("checked when it was made"))
    }

    fn into_vec(self) -> PyResult<Vec<bool>> {
        let [b, h, q, kv] = self.axes.0;
        let view = self.mask().0;
        let mut all = room("mask", b * h * q * kv)?;
        all.extend((0..b * h * q * kv).map(|i| view.at([i / kv / q / h, i / kv / q % h, i / kv % q, i % kv])));
        Ok(all)
    }
}

/// The mask of an array that is made anew from its parts, a row at a time.
macro_rules! by_parts {
    ($($type:ty),*) => {$(
        impl Mask for $type {
            fn keep(&self, p: Pair) -> bool {
                self.mask().keep(p)
            }

            fn keep_row(&self, at: Pair, keep: &mut [u32]) {
                self.mask().keep_row(at, keep);
            }

            fn in_rows(&self) -> bool {
                self.mask().in_rows()
            }

            fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
                self.mask().tile(q, kv, at)
            }

            fn check(&self, shape: &Shape) -> regard::Result<()> {
                self.mask().check(shape)
            }
        }
    )*};
}

by_parts!(SpanArrays, AroundRows, BoolArray<'_>);

/// An array of bools, in place.
pub(crate) fn bools<'a>(array: &'a Array<'_>) -> PyResult<BoolArray<'a>> {
    array.expect(Dtype::Bool, "True where a key is seen")?;
    let axes = broadcast_axes(array)?;
    Ok(match array.bools() {
        Some((slice, offset)) => BoolArray { slice: Cow::Borrowed(slice), offset, axes },
        None => BoolArray {
            slice: Cow::Owned(array.elements::<u8>("True where a key is seen")?.into_iter().map(|byte| byte != 0).collect()),
            offset: 0,
            axes: row_major(axes.0),
        },
    })
}

/// The axes of an array that broadcasts to the scores: missing ones come first, and repeat.
pub(crate) fn broadcast_axes(array: &Array<'_>) -> PyResult<Axes> {
    let ndim = array.shape().len();
    if ndim > 4 {
        return Err(value(format!("{} has {ndim} dimensions and needs at most 4: [batch, heads, q_len, kv_len]", array.name())));
    }
    let (mut shape, mut strides) = ([1; 4], [0; 4]);
    shape[4 - ndim..].copy_from_slice(array.shape());
    strides[4 - ndim..].copy_from_slice(array.strides());
    Ok((shape, strides))
}

pub(crate) fn row_major(shape: [usize; 4]) -> Axes {
    let [_, h, l, d] = shape.map(|n| n as isize);
    (shape, [h * l * d, l * d, d, 1])
}

pub(crate) fn count(name: &str, n: i64) -> PyResult<u32> {
    u32::try_from(n).map_err(|_| value(format!("{name} is {n} and must be from 0 to 2^32 − 1")))
}

/// The masks that arguments name: all must agree.
#[derive(Default)]
pub(crate) struct Parts<'py> {
    pub(crate) shared: Vec<Shared>,
    pub(crate) bools: Vec<Array<'py>>,
}

impl<'py> Parts<'py> {
    /// Takes in a mask, an array of bools, or a list of those.
    pub(crate) fn take(&mut self, object: &Bound<'py, PyAny>) -> PyResult<()> {
        if is_list(object) {
            return object.try_iter()?.try_for_each(|one| self.take_one(&one?));
        }
        self.take_one(object)
    }

    fn take_one(&mut self, object: &Bound<'py, PyAny>) -> PyResult<()> {
        if let Ok(mask) = object.cast::<PyMask>() {
            self.shared.push(mask.get().shared());
            return Ok(());
        }
        let array =
            Array::of("mask", object).map_err(|_| wrong_type("mask", object, "a Mask, an array of bools, or a list of those"))?;
        array.expect(Dtype::Bool, "True where a key is seen (numbers that are added are a bias)")?;
        self.bools.push(array);
        Ok(())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyMask>()?;
    module.add_class::<PyCausal>()?;
    module.add_function(wrap_pyfunction!(window_mask, module)?)?;
    module.add_function(wrap_pyfunction!(prefix_lm, module)?)?;
    module.add_function(wrap_pyfunction!(documents_mask, module)?)?;
    module.add_function(wrap_pyfunction!(blocks_mask, module)?)?;
    module.add_function(wrap_pyfunction!(bools_mask, module)?)?;
    module.add_function(wrap_pyfunction!(padding, module)?)?;
    module.add_function(wrap_pyfunction!(spans, module)?)?;
    module.add_function(wrap_pyfunction!(dilated, module)?)?;
    module.add_function(wrap_pyfunction!(strided, module)?)?;
    module.add_function(wrap_pyfunction!(fixed, module)?)?;
    module.add_function(wrap_pyfunction!(global, module)?)?;
    module.add_function(wrap_pyfunction!(random_keys, module)?)?;
    module.add_function(wrap_pyfunction!(blockwise, module)?)?;
    module.add_function(wrap_pyfunction!(around, module)?)
}

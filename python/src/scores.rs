//! Scores as Python objects: `a >> b` is first a, then b.

use std::sync::Arc;

use half::{bf16, f16};
use pyo3::prelude::*;
use regard::{Alibi, Bias, Element, Gaussian, RelativeBias, Slope, Softcap, View};

use crate::array::{Array, Dtype, is_list, list};
use crate::error::{OrRaise, value, wrong_type};
use crate::masks::{Rows, broadcast_axes, centre_rows};

/// How a score is made for one call, over arrays that it owns.
pub(crate) trait Recipe: Send + Sync {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>>;
}

/// A score that many may hold.
pub(crate) type Shared = Arc<dyn Recipe>;

impl Recipe for Softcap {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>> {
        Ok(Box::new(*self))
    }
}

impl Recipe for Alibi {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>> {
        Ok(Box::new(self.clone()))
    }
}

/// First one, then the other.
impl Recipe for (Shared, Shared) {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>> {
        Ok(Box::new((self.0.make()?, self.1.make()?)))
    }
}

/// How much: made by `Softcap`, `Alibi`, `Bias` and their neighbours; `a >> b` is first a, then b.
#[pyclass(frozen, name = "Score", module = "regard", from_py_object)]
#[derive(Clone)]
pub(crate) struct PyScore {
    score: Shared,
    text: Arc<str>,
}

impl PyScore {
    fn new(score: impl Recipe + 'static, text: String) -> Self {
        PyScore { score: Arc::new(score), text: text.into() }
    }

    pub(crate) fn shared(&self) -> Shared {
        self.score.clone()
    }
}

#[pymethods]
impl PyScore {
    fn __rshift__(&self, other: &PyScore) -> PyScore {
        PyScore::new((self.shared(), other.shared()), format!("{} >> {}", self.text, other.text))
    }

    fn __repr__(&self) -> &str {
        &self.text
    }
}

/// `cap · tanh(s / cap)`.
///
/// Source: Gemma Team 2024, "Gemma 2", §2.
#[pyfunction(name = "Softcap")]
fn softcap(cap: f32) -> PyScore {
    PyScore::new(Softcap(cap), format!("Softcap({cap})"))
}

/// `s − slope · distance`: slopes for each query head, or the number of heads, whose slopes are then the paper's.
///
/// Source: Press et al. 2022, "Train Short, Test Long", §3.
#[pyfunction(name = "Alibi")]
fn alibi_score(heads_or_slopes: &Bound<'_, PyAny>) -> PyResult<PyScore> {
    let alibi = alibi("heads_or_slopes", heads_or_slopes)?;
    let text = format!("Alibi({} heads)", alibi.slopes.len());
    Ok(PyScore::new(alibi, text))
}

pub(crate) fn alibi(name: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Alibi> {
    if let Ok(heads) = object.extract::<i64>() {
        let heads = usize::try_from(heads).ok().filter(|&n| n < 1 << 30);
        return heads.map(Alibi::new).ok_or_else(|| value(format!("{name} is no number of heads: it must be from 0 to 2^30")));
    }
    Ok(Alibi::with_slopes(numbers(name, object)?))
}

/// Numbers in f32: of an array of any float type with one dimension, or of a sequence.
pub(crate) fn numbers(name: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
    if is_list(object) {
        return object.extract().map_err(|_| wrong_type(name, object, "a list of numbers, or an array of them"));
    }
    let array = Array::of(name, object)?;
    if array.shape().len() != 1 {
        return Err(value(format!("{name} has {} dimensions and needs 1", array.shape().len())));
    }
    widened(&array)
}

/// Every element in f32, row-major.
pub(crate) fn widened(array: &Array<'_>) -> PyResult<Vec<f32>> {
    match array.dtype {
        Dtype::F16 => Ok(array.elements::<f16>("")?.into_iter().map(f16::to_f32).collect()),
        Dtype::Bf16 => Ok(array.elements::<bf16>("")?.into_iter().map(bf16::to_f32).collect()),
        _ => array.elements("or float16 or bfloat16"),
    }
}

/// An array that is added to the scores: float32, float16 or bfloat16 that broadcasts to `[batch, heads, q_len, kv_len]`. −∞ hides.
#[pyfunction(name = "Bias")]
fn bias_score(array: &Bound<'_, PyAny>) -> PyResult<PyScore> {
    let array = Array::of("bias", array)?;
    let (shape, _) = broadcast_axes(&array)?;
    let text = format!("Bias({:?})", array.shape());
    Ok(match array.dtype {
        Dtype::F16 => PyScore::new(OwnedBias { data: array.elements::<f16>("")?, shape }, text),
        Dtype::Bf16 => PyScore::new(OwnedBias { data: array.elements::<bf16>("")?, shape }, text),
        _ => PyScore::new(OwnedBias { data: array.elements::<f32>("or float16 or bfloat16")?, shape }, text),
    })
}

struct OwnedBias<T> {
    data: Vec<T>,
    shape: [usize; 4],
}

impl<T: Element> Recipe for OwnedBias<T> {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>> {
        Ok(Box::new(Bias::new(View::new(&self.data, self.shape)?)))
    }
}

/// A number for each head and bucket of distances, as T5 has them: `table` is float32 `[heads, buckets]`.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", §2.1.
#[pyfunction(name = "RelativeBias")]
fn relative_bias(table: &Bound<'_, PyAny>, max_distance: i64, bidirectional: bool) -> PyResult<PyScore> {
    let table = Array::of("table", table)?;
    let &[heads, buckets] = table.shape() else {
        return Err(value(format!("table has {} dimensions and needs 2: [heads, buckets]", table.shape().len())));
    };
    let table = Rows { data: widened(&table)?, shape: [1, heads, 1, buckets] };
    let max_distance = crate::masks::count("max_distance", max_distance)?;
    let relative = Relative { table, max_distance, bidirectional };
    relative.make().map(drop).or_raise()?;
    Ok(PyScore::new(relative, format!("RelativeBias({heads} heads, {buckets} buckets)")))
}

struct Relative {
    table: Rows<f32>,
    max_distance: u32,
    bidirectional: bool,
}

impl Recipe for Relative {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>> {
        Ok(Box::new(match self.bidirectional {
            true => RelativeBias::bidirectional(self.table.view(), self.max_distance)?,
            false => RelativeBias::causal(self.table.view(), self.max_distance)?,
        }))
    }
}

/// `s − ½((key − centre) / deviation)²`: centres in float32 that broadcast to `[batch, heads, q_len]`.
///
/// Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", §3.2.
#[pyfunction(name = "Gaussian")]
fn gaussian(centres: &Bound<'_, PyAny>, deviation: f32) -> PyResult<PyScore> {
    Ok(PyScore::new(GaussianRows { centres: centre_rows(centres)?, deviation }, format!("Gaussian(deviation {deviation})")))
}

struct GaussianRows {
    centres: Rows<f32>,
    deviation: f32,
}

impl Recipe for GaussianRows {
    fn make(&self) -> regard::Result<Box<dyn Slope + '_>> {
        Ok(Box::new(Gaussian::new(self.centres.view(), self.deviation)))
    }
}

/// The scores that an argument names: one, or a list of them.
pub(crate) fn parts(object: &Bound<'_, PyAny>, into: &mut Vec<Shared>) -> PyResult<()> {
    let needed = "a Score, or a list of them";
    if let Ok(score) = object.cast::<PyScore>() {
        into.push(score.get().shared());
        return Ok(());
    }
    for one in list("score", object, "Scores, or one of them")? {
        into.push(one.cast::<PyScore>().map_err(|_| wrong_type("score", &one, needed))?.get().shared());
    }
    Ok(())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyScore>()?;
    module.add_function(wrap_pyfunction!(softcap, module)?)?;
    module.add_function(wrap_pyfunction!(alibi_score, module)?)?;
    module.add_function(wrap_pyfunction!(bias_score, module)?)?;
    module.add_function(wrap_pyfunction!(relative_bias, module)?)?;
    module.add_function(wrap_pyfunction!(gaussian, module)?)
}

//! The report of a model that was watched: "regard-lens/1", as `regard inspect` writes it.

use std::path::PathBuf;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{Facts, Tensor};
use regard_lens::record::{self, Layer};
use regard_lens::report::{ModelFacts, Run, TextFacts};
use regard_lens::{Error, Report};

use crate::array::Array;
use crate::error::{OrRaise, value};
use crate::threads::compute;

fn raised(error: Error) -> PyErr {
    match error {
        Error::Json(_) => PyRuntimeError::new_err(error.to_string()),
        _ => value(error.to_string()),
    }
}

/// What every head of a model did with one text: `regard.lens.Reading.report` makes it.
#[pyclass(frozen, name = "Report", module = "regard.lens")]
pub(crate) struct PyReport(Report);

#[pymethods]
impl PyReport {
    /// The report as JSON, of the form "regard-lens/1", of at most 19 MiB.
    fn json(&self) -> PyResult<String> {
        self.0.json().map_err(raised)
    }

    /// The report as one page for any browser, without a network.
    fn html(&self) -> PyResult<String> {
        self.0.html().map_err(raised)
    }

    /// A line of names, and one of numbers for each head.
    fn csv(&self) -> String {
        self.0.csv()
    }

    /// Writes what the ending of the path says: `.html`, `.json` or `.csv`.
    fn save(&self, path: PathBuf) -> PyResult<()> {
        let text = match path.extension().and_then(|ending| ending.to_str()) {
            Some("html") => self.html()?,
            Some("json") => self.json()?,
            Some("csv") => self.csv(),
            _ => return Err(value(format!("path is {} and must end in .html, .json or .csv", path.display()))),
        };
        std::fs::write(&path, text).map_err(|error| PyOSError::new_err(format!("cannot write {}: {error}", path.display())))
    }

    fn __repr__(&self) -> String {
        let Report { model, run, .. } = &self.0;
        format!("Report({:?}: {} layers of {} heads, {} tokens)", model.name, model.layers, model.heads, run.tokens)
    }
}

/// What is told of a model and of its reading.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Told {
    title: String,
    model_type: String,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
    parameters: usize,
    kernel: String,
    seconds: f64,
    first: usize,
    recent: usize,
    top: usize,
    tokens: Vec<String>,
}

/// A report of layers, each the arrays of facts of one text, `[heads, tokens]` or `[heads, tokens, numbers]`, and `cells`.
#[pyfunction]
fn _report(py: Python<'_>, told: Told, layers: Vec<Bound<'_, PyDict>>) -> PyResult<PyReport> {
    let Told { title, model_type: kind, kv_heads, head_dim, context, parameters, .. } = told;
    let model = ModelFacts { name: title.clone(), kind, kv_heads, head_dim, context, parameters, ..Default::default() };
    let Told { kernel, seconds, first: first_tokens, recent: recent_tokens, top, tokens, .. } = told;
    let run = Run { kernel, seconds, first_tokens, recent_tokens, top, ..Default::default() };
    let text = TextFacts { name: title, loss: vec![None; tokens.len()], ids: Vec::new(), tokens };
    let layers = layers.iter().map(layer).collect::<PyResult<Vec<_>>>()?;
    compute(py, || record::report(model, run, text, &layers))?.map(PyReport).map_err(raised)
}

/// Tokens on the edge of a cell of a report's finest map of a text of `n` tokens.
#[pyfunction]
fn _cell(n: usize) -> usize {
    record::cell(n)
}

fn layer(given: &Bound<'_, PyDict>) -> PyResult<Layer> {
    let read = |name: &'static str| -> PyResult<Array<'_>> {
        let missing = || value(format!("{name} is missing from the facts of a layer"));
        Array::of(name, &given.get_item(name)?.ok_or_else(missing)?)
    };
    let numbers = |name| -> PyResult<Vec<f32>> { read(name)?.elements("as facts are") };
    let tensor = |name: &'static str| -> PyResult<Tensor<f32>> {
        let array = read(name)?;
        let (heads, n, each) = match *array.shape() {
            [heads, n] => (heads, n, 1),
            [heads, n, each] => (heads, n, each),
            _ => return Err(value(format!("{name} has {} dimensions and needs [heads, tokens, ..]", array.shape().len()))),
        };
        Tensor::from_vec(array.elements("as facts are")?, [1, heads, n, each]).or_raise()
    };
    let key = |key: i64| u32::try_from(key).unwrap_or(u32::MAX);
    Ok(Layer {
        facts: Facts {
            entropy: tensor("entropy")?,
            max_logit: tensor("max_logit")?,
            distance: tensor("distance")?,
            first: tensor("first")?,
            recent: tensor("recent")?,
            ranges: tensor("ranges")?,
            distances: tensor("distances")?,
            top_weights: tensor("top_weights")?,
            top_keys: read("top_keys")?.integers()?.into_iter().map(key).collect(),
        },
        lse: numbers("lse")?,
        cells: numbers("cells")?,
    })
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyReport>()?;
    module.add_function(wrap_pyfunction!(_report, module)?)?;
    module.add_function(wrap_pyfunction!(_cell, module)?)
}

//! What a model will cost, in JSON: Python reads integers of any size from it.

use std::path::PathBuf;

use pyo3::exceptions::{PyOSError, PyOverflowError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use regard_cost::{Chip, Cost, Error, Question, Shape};

use crate::threads::compute;

fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Read { .. } => PyOSError::new_err(text),
        Error::TooLarge { .. } => PyOverflowError::new_err(text),
        Error::Measure { .. } => PyRuntimeError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// The JSON of a `config.json`, of a path or of a preset, of which one is given.
fn shape(config: Option<&str>, path: Option<PathBuf>, preset: Option<&str>) -> Result<Shape, Error> {
    match (config, path, preset) {
        (Some(config), ..) => Shape::from_json(config),
        (_, Some(path), _) => Shape::open(&path),
        (.., preset) => Shape::preset(preset.unwrap_or("story")),
    }
}

/// What a question is about, and on what.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    length: u64,
    batch: u64,
    dtype: String,
    train: bool,
    chip: Option<String>,
    memory: Option<u64>,
}

/// The figures of a model in JSON.
#[pyfunction]
#[pyo3(signature = (asked, *, config=None, path=None, preset=None))]
fn _cost(py: Python<'_>, asked: Asked, config: Option<&str>, path: Option<PathBuf>, preset: Option<&str>) -> PyResult<String> {
    let shape = shape(config, path, preset).map_err(raised)?;
    let (length, batch, train, memory) = (asked.length, asked.batch, asked.train, asked.memory);
    let ask = Question { length, batch, dtype: asked.dtype.parse().map_err(raised)?, train, memory };
    let chip = match asked.chip.as_deref() {
        None => None,
        Some("here") => Some(compute(py, Chip::here)?.map_err(raised)?),
        Some(name) => Some(Chip::named(name).map_err(raised)?),
    };
    let cost = Cost::of(&shape, &ask, chip.as_ref()).map_err(raised)?;
    serde_json::to_string(&cost).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// The names of presets and of chips.
#[pyfunction]
fn _cost_names() -> (Vec<String>, Vec<String>) {
    (Shape::presets(), Chip::names())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_cost, module)?)?;
    module.add_function(wrap_pyfunction!(_cost_names, module)?)
}

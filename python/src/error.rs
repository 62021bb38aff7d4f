//! Python exceptions: of the engine's errors, and of arguments that are not what they must be.

use pyo3::exceptions::{PyMemoryError, PyNotImplementedError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use regard::Error;

/// `MemoryError` for what no memory can hold, `NotImplementedError` for what has no meaning, `ValueError` for the rest.
pub(crate) fn of_engine(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::TooLarge { .. } => PyMemoryError::new_err(text),
        Error::Unsupported { .. } => PyNotImplementedError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// The engine's results, as Python's.
pub(crate) trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for regard::Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(of_engine)
    }
}

pub(crate) fn value(text: String) -> PyErr {
    PyValueError::new_err(text)
}

/// An empty vector with room for `n` elements.
pub(crate) fn room<T>(name: &str, n: usize) -> PyResult<Vec<T>> {
    let mut all = Vec::new();
    let refused = |_| {
        PyMemoryError::new_err(format!("{name} needs {n} elements of {} bytes, and there is no memory for them", size_of::<T>()))
    };
    all.try_reserve_exact(n).map_err(refused)?;
    Ok(all)
}

/// A vector of `n` elements, none of which matters.
pub(crate) fn filled<T: Clone + Default>(name: &str, n: usize) -> PyResult<Vec<T>> {
    let mut all = room(name, n)?;
    all.resize(n, T::default());
    Ok(all)
}

pub(crate) fn wrong_type(name: &str, object: &Bound<'_, PyAny>, needed: &str) -> PyErr {
    let kind = object.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{name} is of type {kind} and must be {needed}"))
}

/// A `ValueError` or `TypeError` that is also a `RuntimeError`, which PyTorch raises for the same: both kinds of handler catch it.
pub(crate) fn as_torch(py: Python<'_>, error: PyErr) -> PyErr {
    static VALUE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = if error.get_type(py).is(PyType::new::<PyValueError>(py)) {
        VALUE.get_or_try_init(py, || also_runtime_error(py, "ArgumentValueError", PyType::new::<PyValueError>(py)))
    } else if error.get_type(py).is(PyType::new::<PyTypeError>(py)) {
        TYPE.get_or_try_init(py, || also_runtime_error(py, "ArgumentTypeError", PyType::new::<PyTypeError>(py)))
    } else {
        return error;
    };
    match class {
        Ok(class) => PyErr::from_type(class.bind(py).clone(), error.value(py).to_string()),
        Err(error) => error,
    }
}

fn also_runtime_error<'py>(py: Python<'py>, name: &str, base: Bound<'py, PyType>) -> PyResult<Py<PyType>> {
    let bases = PyTuple::new(py, [base, PyType::new::<PyRuntimeError>(py)])?;
    let body = PyDict::new(py);
    body.set_item("__module__", "regard")?;
    let class = py.get_type::<PyType>().call1((name, bases, body))?;
    Ok(class.cast_into::<PyType>()?.unbind())
}

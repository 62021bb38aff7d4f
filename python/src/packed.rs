//! `PackedMatrix`: a matrix product with weights packed once.

use half::bf16;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::array::{Array, Dtype};
use crate::error::{OrRaise, value};
use crate::scores::widened;
use crate::threads::compute;

/// `x @ weight.T + bias` with weights packed once: weight `[outputs, inputs]`, float32 or bfloat16.
#[pyclass(frozen, name = "PackedMatrix", module = "regard")]
pub(crate) struct PyPackedMatrix(regard::PackedMatrix);

#[pymethods]
impl PyPackedMatrix {
    #[new]
    fn new(py: Python<'_>, weight: &Bound<'_, PyAny>) -> PyResult<Self> {
        let weight = Array::of("weight", weight)?;
        let &[outputs, inputs] = weight.shape() else {
            return Err(value(format!("weight has {} dimensions and needs 2: [outputs, inputs]", weight.shape().len())));
        };
        let packed = match weight.dtype {
            Dtype::F32 => {
                let data = weight.elements::<f32>("")?;
                compute(py, || regard::PackedMatrix::new(&data, outputs, inputs))?
            }
            Dtype::Bf16 => {
                let data = weight.elements::<bf16>("")?;
                compute(py, || regard::PackedMatrix::new(&data, outputs, inputs))?
            }
            other => return Err(PyTypeError::new_err(format!("weight is {} and must be float32 or bfloat16", other.name()))),
        };
        packed.map(PyPackedMatrix).or_raise()
    }

    /// Elements of a row of x.
    #[getter]
    fn inputs(&self) -> usize {
        self.0.inputs()
    }

    /// Elements of a row of the result.
    #[getter]
    fn outputs(&self) -> usize {
        self.0.outputs()
    }

    /// `x @ weight.T + bias`: x float32 `[.., inputs]`, bias `[outputs]`; float32 `[.., outputs]`.
    #[pyo3(signature = (x, bias = None))]
    fn __call__<'py>(&self, x: &Bound<'py, PyAny>, bias: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = x.py();
        let (x, bias) = (Array::of("x", x)?, Array::of_option("bias", bias)?);
        let inputs = self.0.inputs();
        let Some((&dim, rows)) = x.shape().split_last().filter(|(dim, _)| **dim == inputs) else {
            return Err(value(format!("x has shape {:?} and needs [.., {inputs}]", x.shape())));
        };
        let data = x.elements::<f32>("as the sums are")?;
        let bias = bias.as_ref().map(widened).transpose()?;
        let mut shape = rows.to_vec();
        shape.push(self.0.outputs());
        let mut out = x.new_like(py, "output", Dtype::F32, &shape)?;
        let to = out.numbers_mut()?;
        if dim == 0 && !to.is_empty() {
            return Err(value("x has rows without elements: a product needs at least 1".into()));
        }
        compute(py, || self.0.apply(&data, bias.as_deref(), to))?.or_raise()?;
        out.into_object(py)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPackedMatrix>()
}

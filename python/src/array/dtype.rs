//! The types of elements that arrays may have.

use half::{bf16, f16};
use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::dlpack::DataType;

/// The type of an array's elements, as far as this package reads any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
    Bool,
    Int { bytes: u8, signed: bool },
}

impl Dtype {
    /// The name users see.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::Bool => "bool",
            Dtype::Int { signed: true, .. } => "a signed integer",
            Dtype::Int { signed: false, .. } => "an unsigned integer",
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Bool => 1,
            Dtype::Int { bytes, .. } => bytes.into(),
        }
    }

    pub(super) fn of_dlpack(name: &str, dtype: DataType) -> PyResult<Dtype> {
        match (dtype.code, dtype.bits, dtype.lanes) {
            (2, 32, 1) => Ok(Dtype::F32),
            (2, 16, 1) => Ok(Dtype::F16),
            (4, 16, 1) => Ok(Dtype::Bf16),
            (6, 8, 1) => Ok(Dtype::Bool),
            (code @ (0 | 1), bits @ (8 | 16 | 32 | 64), 1) => Ok(Dtype::Int { bytes: bits / 8, signed: code == 0 }),
            (code, bits, _) => {
                let kind = match code {
                    2 => "float",
                    5 => "complex",
                    _ => "number of another kind",
                };
                Err(unreadable(name, &format!("a {kind} of {bits} bits")))
            }
        }
    }

    pub(super) fn to_dlpack(self) -> DataType {
        let (code, bits) = match self {
            Dtype::F32 => (2, 32),
            Dtype::F16 => (2, 16),
            Dtype::Bf16 => (4, 16),
            Dtype::Bool => (6, 8),
            Dtype::Int { bytes, signed } => (u8::from(!signed), bytes * 8),
        };
        DataType { code, bits, lanes: 1 }
    }

    pub(super) fn of_numpy(name: &str, dtype: &Bound<'_, PyArrayDescr>) -> PyResult<Dtype> {
        if dtype.is_native_byteorder() == Some(false) {
            return Err(unreadable(name, "of the other byte order"));
        }
        match (dtype.kind(), dtype.itemsize()) {
            (b'f', 4) => Ok(Dtype::F32),
            (b'f', 2) => Ok(Dtype::F16),
            (b'b', 1) => Ok(Dtype::Bool),
            (b'i', bytes @ (1 | 2 | 4 | 8)) => Ok(Dtype::Int { bytes: bytes as u8, signed: true }),
            (b'u', bytes @ (1 | 2 | 4 | 8)) => Ok(Dtype::Int { bytes: bytes as u8, signed: false }),
            (b'V', 2) if dtype.typeobj().name()? == "bfloat16" => Ok(Dtype::Bf16),
            _ => Err(unreadable(name, &dtype.str()?.to_string())),
        }
    }
}

fn unreadable(name: &str, what: &str) -> PyErr {
    PyTypeError::new_err(format!("{name} has elements of type {what} and needs float32, float16 or bfloat16"))
}

/// A type that arrays hold. Implemented for types without padding whose every bit pattern the kernels may read.
pub(crate) trait Item: Copy {
    const DTYPE: Dtype;
}

impl Item for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Item for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl Item for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}

/// Bytes of bools: 0 is false.
impl Item for u8 {
    const DTYPE: Dtype = Dtype::Bool;
}

//! Numbers read out of arrays and lists. Part of the unsafe room of `array.rs`.
#![allow(unsafe_code)]

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::{Array, Dtype, Item};
use crate::error::{room, value, wrong_type};

/// Whether an object is a list or a tuple: other sequences may say any length.
pub(crate) fn is_list(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>()
}

/// The entries of a list or a tuple.
pub(crate) fn list<'py>(name: &str, object: &Bound<'py, PyAny>, of: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if is_list(object) { object.extract() } else { Err(wrong_type(name, object, &format!("a list of {of}"))) }
}

/// Integers: of an array, or of a list.
pub(crate) fn integers(name: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    if is_list(object) {
        return object.extract().map_err(|_| wrong_type(name, object, "a list of integers, or an array of them"));
    }
    let array = Array::of(name, object)?;
    if array.shape().len() != 1 {
        return Err(value(format!("{name} has {} dimensions and needs 1", array.shape().len())));
    }
    array.integers()
}

impl Array<'_> {
    /// The elements in row-major order, where they are integers.
    pub(crate) fn integers(&self) -> PyResult<Vec<i64>> {
        let Dtype::Int { bytes, signed } = self.dtype else {
            let (name, dtype) = (self.name, self.dtype.name());
            return Err(PyTypeError::new_err(format!("{name} is {dtype} and must be an array of integers")));
        };
        let read = |at: *const u8| -> Option<i64> {
            // SAFETY: `checked` saw that every element is inside the memory and aligned.
            unsafe {
                Some(match (bytes, signed) {
                    (1, true) => at.cast::<i8>().read().into(),
                    (1, false) => at.read().into(),
                    (2, true) => at.cast::<i16>().read().into(),
                    (2, false) => at.cast::<u16>().read().into(),
                    (4, true) => at.cast::<i32>().read().into(),
                    (4, false) => at.cast::<u32>().read().into(),
                    (_, true) => at.cast::<i64>().read(),
                    (_, false) => i64::try_from(at.cast::<u64>().read()).ok()?,
                })
            }
        };
        let mut all = room(self.name, self.shape().iter().product())?;
        for offset in self.offsets() {
            let number = read(self.data.wrapping_offset(offset * bytes as isize));
            all.push(number.ok_or_else(|| value(format!("{} has a number beyond 2^63", self.name)))?);
        }
        Ok(all)
    }

    /// The elements in row-major order, where they are of this type.
    pub(crate) fn elements<T: Item>(&self, why: &str) -> PyResult<Vec<T>> {
        self.expect(T::DTYPE, why)?;
        // SAFETY: as in `integers`.
        let read = |offset: isize| unsafe { self.data.wrapping_offset(offset * size_of::<T>() as isize).cast::<T>().read() };
        let mut all = room(self.name, self.shape().iter().product())?;
        all.extend(self.offsets().map(read));
        Ok(all)
    }

    /// Where the elements lie from the first, in row-major order.
    fn offsets(&self) -> impl Iterator<Item = isize> + '_ {
        let count = self.shape().iter().product::<usize>();
        (0..count).map(|mut i| {
            let mut offset = 0;
            for (&size, &step) in self.shape().iter().zip(self.strides()).rev() {
                offset += (i % size) as isize * step;
                i /= size;
            }
            offset
        })
    }
}

impl Array<'_> {
    /// Bools in place, with where in the slice the first one lies: where every byte between is a bool too.
    pub(crate) fn bools(&self) -> Option<(&[bool], usize)> {
        let (data, offset, len) = self.range();
        let dense: usize = self.shape().iter().zip(self.strides()).filter(|(_, step)| **step != 0).map(|(size, _)| size).product();
        if self.dtype != Dtype::Bool || len > dense {
            return None;
        }
        // SAFETY: as in `view`; a bool is a byte that is 0 or 1, which is seen to here.
        let bytes = unsafe { std::slice::from_raw_parts(data, len) };
        let bools = bytes.iter().fold(0, |all, byte| all | byte) <= 1;
        // SAFETY: every byte is 0 or 1.
        bools.then(|| (unsafe { std::slice::from_raw_parts(data.cast::<bool>(), len) }, offset))
    }
}

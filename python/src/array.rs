//! Arrays of other libraries: where their numbers lie, and new ones of the same kind. Unsafe room: foreign memory.
#![allow(unsafe_code)]

use numpy::npyffi::{_PyArray_GET_ITEM_DATA, NPY_ARRAY_WRITEABLE};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;
use regard::{Element, View, ViewMut};

mod dtype;
mod numbers;

pub(crate) use dtype::{Dtype, Item};
pub(crate) use numbers::{integers, is_list, list};

use crate::dlpack::{Buffer, DlTensor, ExchangeApi, Owned, host};
use crate::error::{OrRaise, value, wrong_type};

/// The most dimensions that an array may have.
pub(crate) const MAX_DIMS: usize = 8;

/// Which library an array belongs to, and so its results.
#[derive(Clone)]
pub(crate) enum Kind<'py> {
    Numpy(Bound<'py, PyArrayDescr>),
    /// A library with DLPack's functions in C: PyTorch.
    Exchange(&'static ExchangeApi),
    /// A library of the array API standard: JAX.
    Namespace(Bound<'py, PyAny>),
}

enum Memory<'py> {
    Object(Bound<'py, PyAny>),
    Tensor(Bound<'py, PyAny>, #[allow(dead_code, reason = "holds the memory")] Owned),
    Buffer(Buffer),
}

/// A strided array somewhere in memory, with what keeps it there.
pub(crate) struct Array<'py> {
    name: &'static str,
    data: *mut u8,
    ndim: usize,
    sizes: [usize; MAX_DIMS],
    /// In elements.
    steps: [isize; MAX_DIMS],
    pub(crate) dtype: Dtype,
    writable: bool,
    pub(crate) kind: Kind<'py>,
    memory: Memory<'py>,
}

impl<'py> Array<'py> {
    /// The array that an argument is.
    ///
    /// # Errors
    /// `TypeError` when it is no array, or of elements that regard does not read; `ValueError` when its memory is elsewhere, not
    /// aligned, or cannot be what it says.
    pub(crate) fn of(name: &'static str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if let Ok(array) = object.cast::<PyUntypedArray>() {
            return Self::of_numpy(name, array);
        }
        if let Some(api) = ExchangeApi::of(object) {
            let tensor = api.borrow(object).map_err(|error| named(py, name, &error))?;
            return Self::of_tensor(name, &tensor, true, Kind::Exchange(api), Memory::Object(object.clone()));
        }
        if object.is_instance_of::<PyType>()
            || !object.hasattr(intern!(py, "__dlpack__"))?
            || !object.hasattr(intern!(py, "__dlpack_device__"))?
        {
            return Err(wrong_type(name, object, "a numpy array, or a tensor that speaks DLPack (torch, JAX)"));
        }
        let tensor = Owned::of(name, object)?;
        let kind = match object.call_method0(intern!(py, "__array_namespace__")) {
            Ok(namespace) => Kind::Namespace(namespace),
            Err(_) => Kind::Numpy(numpy::dtype::<f32>(py)),
        };
        // Arrays of the standard's libraries do not change, whatever their tensors say.
        let writable = tensor.writable() && !matches!(kind, Kind::Namespace(_));
        let array = Self::of_tensor(name, tensor.tensor(), writable, kind, Memory::Object(object.clone()))?;
        Ok(Array { memory: Memory::Tensor(object.clone(), tensor), ..array })
    }

    /// As [`Array::of`], or nothing for None.
    pub(crate) fn of_option(name: &'static str, object: Option<&Bound<'py, PyAny>>) -> PyResult<Option<Self>> {
        object.filter(|object| !object.is_none()).map(|object| Self::of(name, object)).transpose()
    }

    fn of_numpy(name: &'static str, array: &Bound<'py, PyUntypedArray>) -> PyResult<Self> {
        let descr = array.dtype();
        let dtype = Dtype::of_numpy(name, &descr)?;
        // SAFETY: the array is alive, and this reads its header.
        let (data, flags) = unsafe {
            let header = _PyArray_GET_ITEM_DATA(array.as_array_ptr());
            ((*header).data, (*header).flags)
        };
        let item = dtype.bytes() as isize;
        if array.strides().iter().zip(array.shape()).any(|(step, &size)| size > 1 && step % item != 0) {
            return Err(value(format!("{name} has strides that are no multiple of its elements: copy it")));
        }
        let steps = array.strides().iter().map(|step| step / item);
        let (data, writable) = (data.cast(), flags & NPY_ARRAY_WRITEABLE != 0);
        let memory = Memory::Object(array.as_any().clone());
        Self::checked(name, data, dtype, (array.shape().iter().copied(), steps), writable, Kind::Numpy(descr), memory)
    }

    fn of_tensor(name: &'static str, tensor: &DlTensor, writable: bool, kind: Kind<'py>, memory: Memory<'py>) -> PyResult<Self> {
        host(name, tensor.device.kind)?;
        let dtype = Dtype::of_dlpack(name, tensor.dtype)?;
        let ndim = usize::try_from(tensor.ndim).ok().filter(|&n| n <= MAX_DIMS && (n == 0 || !tensor.shape.is_null()));
        let ndim =
            ndim.ok_or_else(|| value(format!("{name} says that it has {} dimensions and must have 0 to {MAX_DIMS}", tensor.ndim)))?;
        let read = |from: *mut i64, to: &mut [i64]| {
            // SAFETY: a tensor with `ndim` dimensions has that many sizes, and strides unless they are null.
            to.iter_mut().enumerate().for_each(|(a, to)| *to = unsafe { from.add(a).read() });
        };
        let (mut sizes, mut steps) = ([0i64; MAX_DIMS], [1i64; MAX_DIMS]);
        read(tensor.shape, &mut sizes[..ndim]);
        if let Some(&size) = sizes[..ndim].iter().find(|&&size| size < 0) {
            return Err(value(format!("{name} says that it has a size of {size} and must have sizes of 0 or more")));
        }
        match tensor.strides.is_null() {
            false => read(tensor.strides, &mut steps[..ndim]),
            true => (0..ndim.saturating_sub(1)).rev().for_each(|a| steps[a] = steps[a + 1].saturating_mul(sizes[a + 1])),
        }
        let data = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
        let sizes = sizes[..ndim].iter().map(|&n| n as usize);
        let steps = steps[..ndim].iter().map(|&n| n as isize);
        Self::checked(name, data, dtype, (sizes, steps), writable, kind, memory)
    }

    /// Checks that the memory can be what is said of it.
    fn checked(
        name: &'static str,
        data: *mut u8,
        dtype: Dtype,
        (shape, strides): (impl ExactSizeIterator<Item = usize>, impl Iterator<Item = isize>),
        writable: bool,
        kind: Kind<'py>,
        memory: Memory<'py>,
    ) -> PyResult<Self> {
        let ndim = shape.len();
        if ndim > MAX_DIMS {
            return Err(value(format!("{name} has {ndim} dimensions and must have at most {MAX_DIMS}")));
        }
        let (mut sizes, mut steps) = ([1; MAX_DIMS], [0; MAX_DIMS]);
        sizes.iter_mut().zip(shape).for_each(|(to, size)| *to = size);
        steps.iter_mut().zip(strides).for_each(|(to, step)| *to = step);
        let array = Array { name, data, ndim, sizes, steps, dtype, writable, kind, memory };
        let (low, high) = array.reach();
        let (first, bytes) = (data as i128, dtype.bytes() as i128);
        let inside = first + low * bytes >= 0 && first + (high + 1) * bytes <= isize::MAX as i128;
        let count = array.shape().iter().try_fold(dtype.bytes(), |n, &size| n.checked_mul(size));
        let countable = count.is_some_and(|n| n <= isize::MAX as usize);
        if !array.is_empty() && (data.is_null() || !inside || !countable) {
            return Err(value(format!("{name} says that it has shape {:?}, which its memory cannot hold", array.shape())));
        }
        if !array.is_empty() && !(data as usize).is_multiple_of(dtype.bytes()) {
            return Err(value(format!("{name} is not aligned to its elements: copy it")));
        }
        Ok(array)
    }

    /// The lowest and the highest element, from the first, that any index names.
    fn reach(&self) -> (i128, i128) {
        let (mut low, mut high) = (0, 0);
        for (&size, &step) in self.shape().iter().zip(&self.steps) {
            let reach = (size as i128 - 1) * step as i128;
            *(if reach < 0 { &mut low } else { &mut high }) += reach;
        }
        (low, high)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.sizes[..self.ndim]
    }

    /// In elements.
    pub(crate) fn strides(&self) -> &[isize] {
        &self.steps[..self.ndim]
    }

    /// The same array with leading dimensions of size 1, as many as are missing.
    pub(crate) fn with_dims(mut self, ndim: usize) -> Self {
        let missing = ndim.saturating_sub(self.ndim);
        self.sizes.rotate_right(missing); // what is beyond the dimensions has size 1
        self.steps.rotate_right(missing);
        self.ndim += missing;
        self
    }

    fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    /// Refuses an array of other elements.
    pub(crate) fn expect(&self, dtype: Dtype, why: &str) -> PyResult<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(PyTypeError::new_err(format!("{} is {} and must be {}, {why}", self.name, self.dtype.name(), dtype.name())))
    }

    /// The memory from the lowest to the highest element, and where in it the first one lies.
    fn range(&self) -> (*mut u8, usize, usize) {
        if self.is_empty() {
            return (std::ptr::dangling_mut::<u64>().cast(), 0, 0);
        }
        let (low, high) = self.reach();
        (self.data.wrapping_offset(low as isize * self.dtype.bytes() as isize), (-low) as usize, (high - low) as usize + 1)
    }

    /// Four axes of this array, read.
    pub(crate) fn view<T: Item>(&self, axes: Axes) -> PyResult<View<'_, T>> {
        self.view_at(0, axes)
    }

    /// Four axes of the part of this array that begins `at` elements from its first.
    pub(crate) fn view_at<T: Item>(&self, at: isize, (shape, strides): Axes) -> PyResult<View<'_, T>> {
        assert_eq!(T::DTYPE, self.dtype, "{}", self.name);
        let (data, offset, len) = self.range();
        // SAFETY: `checked` saw that this range is memory, aligned, of elements of this type; its owner lives as long as `self`.
        // That nobody writes while it is read is the caller's duty, as with every function that lets the interpreter run on.
        let data = unsafe { std::slice::from_raw_parts(data.cast::<T>(), len) };
        View::strided(data, offset.wrapping_add_signed(at), shape, strides).or_raise()
    }

    /// Four axes of this array, to be written.
    pub(crate) fn view_mut<T: Item + Element>(&mut self, axes: Axes) -> PyResult<ViewMut<'_, T>> {
        self.view_mut_at(0, axes)
    }

    /// As [`Array::view_at`], to be written.
    pub(crate) fn view_mut_at<T: Item + Element>(&mut self, at: isize, (shape, strides): Axes) -> PyResult<ViewMut<'_, T>> {
        assert_eq!(T::DTYPE, self.dtype, "{}", self.name);
        self.expect_writable()?;
        let (data, offset, len) = self.range();
        // SAFETY: as in `view`; the array is borrowed mutably, and `Array::apart` sees that no argument shares its memory.
        let data = unsafe { std::slice::from_raw_parts_mut(data.cast::<T>(), len) };
        let view = ViewMut::strided(data, offset.wrapping_add_signed(at), shape, strides);
        view.map_err(|error| value(error.to_string().replacen("mutable view", self.name, 1)))
    }

    fn expect_writable(&self) -> PyResult<()> {
        if self.writable { Ok(()) } else { Err(value(format!("{} is read-only and must be writable", self.name))) }
    }

    /// Refuses an output that shares memory with an input.
    pub(crate) fn apart(&self, other: &Array<'_>) -> PyResult<()> {
        let bytes = |array: &Array<'_>| {
            let (data, _, len) = array.range();
            data as usize..data as usize + len * array.dtype.bytes()
        };
        let (a, b) = (bytes(self), bytes(other));
        if a.is_empty() || b.is_empty() || a.end <= b.start || b.end <= a.start {
            return Ok(());
        }
        Err(value(format!("{} shares memory with {}: give it memory of its own", self.name, other.name)))
    }

    /// A new row-major array of the same library, of some type and shape, whose elements are unspecified.
    pub(crate) fn new_like(&self, py: Python<'py>, name: &'static str, dtype: Dtype, shape: &[usize]) -> PyResult<Array<'py>> {
        let bytes = shape.iter().try_fold(dtype.bytes(), |n, &size| n.checked_mul(size)).filter(|&n| n <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| value(format!("{name} would have shape {shape:?}, which no memory can hold")))?;
        match &self.kind {
            Kind::Numpy(descr) => Self::of(name, &new_numpy(py, descr, dtype, shape)?),
            Kind::Exchange(api) => Self::of(name, &api.allocate(py, dtype.to_dlpack(), shape)?),
            Kind::Namespace(namespace) => {
                let mut buffer = Buffer::new(dtype.to_dlpack(), shape, bytes)?;
                let steps = row_major_strides(shape).into_iter();
                let (data, kind) = (buffer.data(), Kind::Namespace(namespace.clone()));
                Self::checked(name, data, dtype, (shape.iter().copied(), steps), true, kind, Memory::Buffer(buffer))
            }
        }
    }

    /// The array as the object that its library's users know.
    pub(crate) fn into_object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match (self.memory, self.kind) {
            (Memory::Object(object) | Memory::Tensor(object, _), _) => Ok(object),
            (Memory::Buffer(buffer), Kind::Namespace(namespace)) => {
                namespace.call_method1(intern!(py, "from_dlpack"), (Bound::new(py, buffer)?,))
            }
            _ => Err(value(format!("{} cannot be handed back", self.name))),
        }
    }
}

/// The strides of a row-major array.
pub(crate) fn row_major_strides(shape: &[usize]) -> Vec<isize> {
    (0..shape.len()).map(|a| shape[a + 1..].iter().product::<usize>() as isize).collect()
}

/// The sizes and strides of four axes.
pub(crate) type Axes = ([usize; 4], [isize; 4]);

fn new_numpy<'py>(py: Python<'py>, like: &Bound<'py, PyArrayDescr>, dtype: Dtype, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    if dtype == Dtype::F32 && shape.iter().product::<usize>() < 1 << 16 {
        return Ok(PyArrayDyn::<f32>::zeros(py, shape, false).into_any());
    }
    let descr = match dtype {
        Dtype::F32 => numpy::dtype::<f32>(py).into_any(),
        Dtype::F16 => PyArrayDescr::new(py, "float16")?.into_any(),
        Dtype::Bool => numpy::dtype::<bool>(py).into_any(),
        Dtype::Bf16 if like.itemsize() == 2 && like.kind() == b'V' => like.clone().into_any(),
        Dtype::Bf16 => py.import("ml_dtypes")?.getattr("bfloat16")?,
        Dtype::Int { .. } => numpy::dtype::<i64>(py).into_any(),
    };
    // Zeroed pages come lazily from the system, and cost nothing more.
    py.import(intern!(py, "numpy"))?.call_method1(intern!(py, "empty"), (shape, descr))
}

/// An error of a tensor's own library, with the argument's name before it.
fn named(py: Python<'_>, name: &str, error: &PyErr) -> PyErr {
    let text = error.value(py).to_string();
    value(format!("{name} gives no access to its memory: {}", text.lines().next().unwrap_or_default()))
}

impl Array<'_> {
    /// The elements of a new row-major array of float32.
    pub(crate) fn numbers_mut(&mut self) -> PyResult<&mut [f32]> {
        let count = self.shape().iter().product();
        let view = self.view_mut::<f32>(crate::masks::row_major([1, 1, 1, count]))?;
        Ok(view.into_parts().0)
    }

    /// Writes a new row-major array.
    pub(crate) fn fill<T: Item + Element>(&mut self, from: &[T], axes: Axes) -> PyResult<()> {
        self.view_mut::<T>(axes)?.into_parts().0.copy_from_slice(from);
        Ok(())
    }
}

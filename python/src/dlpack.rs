//! DLPack's structures, version 1, and what comes and goes through them. Unsafe room: a C interface.
//!
//! Source: DLPack 1.3, `dlpack.h`; its exchange interface in C is `DLPackExchangeAPI` there.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCapsule, PyDict};

use crate::error::filled;

/// Memory that the processor reads: `kDLCPU`, and the host memory of accelerators.
pub(crate) const CPU: c_int = 1;
const HOST: [c_int; 3] = [CPU, 3, 11];

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Device {
    pub(crate) kind: c_int,
    pub(crate) id: i32,
}

/// `code`: 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

#[repr(C)]
pub(crate) struct DlTensor {
    pub(crate) data: *mut c_void,
    pub(crate) device: Device,
    pub(crate) ndim: i32,
    pub(crate) dtype: DataType,
    pub(crate) shape: *mut i64,
    pub(crate) strides: *mut i64,
    pub(crate) byte_offset: u64,
}

/// A managed tensor of before DLPack 1.0.
#[repr(C)]
pub(crate) struct ManagedUnversioned {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedUnversioned)>,
}

#[repr(C)]
pub(crate) struct ManagedTensor {
    pub(crate) version: Version,
    pub(crate) context: *mut c_void,
    pub(crate) deleter: Option<unsafe extern "C" fn(*mut ManagedTensor)>,
    pub(crate) flags: u64,
    pub(crate) tensor: DlTensor,
}

const READ_ONLY: u64 = 1;

type SetError = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char);

/// The table of functions at `type(tensor).__dlpack_c_exchange_api__`: no Python call on the way.
#[repr(C)]
pub(crate) struct ExchangeApi {
    version: Version,
    previous: *const c_void,
    allocate: Option<unsafe extern "C" fn(*const DlTensor, *mut *mut ManagedTensor, *mut c_void, SetError) -> c_int>,
    managed_from_object: Option<unsafe extern "C" fn(*mut c_void, *mut *mut ManagedTensor) -> c_int>,
    to_object: Option<unsafe extern "C" fn(*mut ManagedTensor, *mut *mut c_void) -> c_int>,
    borrow: Option<unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int>,
}

impl ExchangeApi {
    /// The table of an object's type, if it has one of a version that this file knows.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> Option<&'static ExchangeApi> {
        let capsule = object.get_type().getattr_opt(intern!(object.py(), "__dlpack_c_exchange_api__")).ok()??;
        let capsule = capsule.cast_into::<PyCapsule>().ok()?;
        let pointer = capsule.pointer_checked(Some(c"dlpack_exchange_api")).ok()?;
        // SAFETY: a capsule of this name holds a table that lives as long as the process, and begins with its version.
        let api = unsafe { pointer.cast::<ExchangeApi>().as_ref() };
        let whole = api.allocate.is_some() && api.to_object.is_some() && api.borrow.is_some();
        (api.version.major == 1 && whole).then_some(api)
    }

    /// A tensor over the memory of `object`, as long as that lives and keeps its memory.
    pub(crate) fn borrow(&self, object: &Bound<'_, PyAny>) -> PyResult<DlTensor> {
        let mut tensor = std::mem::MaybeUninit::<DlTensor>::uninit();
        let borrow = self.borrow.ok_or_else(|| PyBufferError::new_err("a tensor that cannot be borrowed"))?;
        // SAFETY: `object` is of the type whose table this is; on success the function has filled the tensor.
        unsafe {
            match borrow(object.as_ptr().cast(), tensor.as_mut_ptr()) {
                0 => Ok(tensor.assume_init()),
                _ => Err(PyErr::fetch(object.py())),
            }
        }
    }

    /// A new row-major tensor of the library that the table belongs to.
    pub(crate) fn allocate<'py>(&self, py: Python<'py>, dtype: DataType, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
        let (Some(allocate), Some(to_object)) = (self.allocate, self.to_object) else {
            return Err(PyBufferError::new_err("a library that cannot allocate through DLPack"));
        };
        let mut shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let device = Device { kind: CPU, id: 0 };
        let prototype = DlTensor {
            data: null_mut(),
            device,
            ndim: shape.len() as i32,
            dtype,
            shape: shape.as_mut_ptr(),
            strides: null_mut(),
            byte_offset: 0,
        };
        let (mut managed, mut object, mut error) = (null_mut(), null_mut(), None::<String>);
        // SAFETY: the prototype and the error outlive the call; a managed tensor that was made is given to `to_object`, which
        // takes it over and returns a new reference.
        unsafe {
            if allocate(&prototype, &mut managed, (&raw mut error).cast(), keep_error) != 0 {
                return Err(PyErr::take(py).unwrap_or_else(|| PyBufferError::new_err(error.unwrap_or_default())));
            }
            if to_object(managed, &mut object) != 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(Bound::from_owned_ptr(py, object.cast::<ffi::PyObject>()))
        }
    }
}

/// What `allocate` calls when it fails: `context` is an `Option<String>`.
unsafe extern "C" fn keep_error(context: *mut c_void, _kind: *const c_char, message: *const c_char) {
    // SAFETY: called while `allocate` runs, with the context that it was given, and a text that ends in 0.
    unsafe { *context.cast::<Option<String>>() = Some(CStr::from_ptr(message).to_string_lossy().into_owned()) };
}

/// A tensor that was handed over, and goes back when dropped.
pub(crate) enum Owned {
    Versioned(NonNull<ManagedTensor>),
    Unversioned(NonNull<ManagedUnversioned>),
}

impl Owned {
    /// Takes a tensor out of `object.__dlpack__()`.
    pub(crate) fn of(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Owned> {
        let py = object.py();
        let device = object.call_method0(intern!(py, "__dlpack_device__"))?;
        let (kind, _) = device.extract::<(c_int, i32)>().map_err(|_| {
            PyTypeError::new_err(format!(
                "{name} has a __dlpack_device__ that is not a pair of integers: it must be (device type, id)"
            ))
        })?;
        host(name, kind)?;
        let options = [("max_version", (1, 0))].into_py_dict(py)?;
        let capsule = match object.call_method(intern!(py, "__dlpack__"), (), Some(&options)) {
            Err(error) if error.is_instance_of::<PyTypeError>(py) => object.call_method0(intern!(py, "__dlpack__"))?,
            answer => answer?,
        };
        let capsule = capsule.cast_into::<PyCapsule>().map_err(|other| {
            let kind = other.into_inner().get_type();
            PyTypeError::new_err(format!("{name} has a __dlpack__ that returns {kind} and must return a capsule"))
        })?;
        Self::take(name, &capsule)
    }

    fn take(name: &str, capsule: &Bound<'_, PyCapsule>) -> PyResult<Owned> {
        let rename = |to: &'static CStr| {
            // SAFETY: a capsule that is alive, and a name that is for ever: the protocol's mark that it was taken.
            unsafe { ffi::PyCapsule_SetName(capsule.as_ptr(), to.as_ptr()) };
        };
        if let Ok(pointer) = capsule.pointer_checked(Some(c"dltensor_versioned")) {
            let owned: NonNull<ManagedTensor> = pointer.cast();
            // SAFETY: a capsule of this name holds a managed tensor that begins with its version.
            let version = unsafe { owned.as_ref().version };
            if version.major != 1 {
                return Err(PyBufferError::new_err(format!("{name} speaks DLPack {}, and version 1 is needed", version.major)));
            }
            rename(c"used_dltensor_versioned");
            return Ok(Owned::Versioned(owned));
        }
        let pointer = capsule.pointer_checked(Some(c"dltensor")).map_err(|_| {
            PyValueError::new_err(format!("{name} gave a capsule that holds no DLPack tensor, or one that was already taken"))
        })?;
        rename(c"used_dltensor");
        Ok(Owned::Unversioned(pointer.cast()))
    }

    pub(crate) fn tensor(&self) -> &DlTensor {
        // SAFETY: the tensor is ours until dropped.
        unsafe {
            match self {
                Owned::Versioned(tensor) => &tensor.as_ref().tensor,
                Owned::Unversioned(tensor) => &tensor.as_ref().tensor,
            }
        }
    }

    pub(crate) fn writable(&self) -> bool {
        match self {
            // SAFETY: as in `tensor`.
            Owned::Versioned(tensor) => unsafe { tensor.as_ref().flags & READ_ONLY == 0 },
            Owned::Unversioned(_) => true,
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the deleter is called once, as the last use of the tensor.
        unsafe {
            match self {
                Owned::Versioned(tensor) => {
                    if let Some(delete) = tensor.as_ref().deleter {
                        delete(tensor.as_ptr());
                    }
                }
                Owned::Unversioned(tensor) => {
                    if let Some(delete) = tensor.as_ref().deleter {
                        delete(tensor.as_ptr());
                    }
                }
            }
        }
    }
}

/// Refuses memory of other devices.
pub(crate) fn host(name: &str, kind: c_int) -> PyResult<()> {
    if HOST.contains(&kind) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} is on a device of DLPack type {kind} and must be in the memory of the CPU: move it there"
    )))
}

/// A new array that another library takes over by its `from_dlpack`.
#[pyclass(frozen, module = "regard._regard")]
pub(crate) struct Buffer {
    data: Arc<Vec<u64>>,
    shape: Vec<i64>,
    dtype: DataType,
}

impl Buffer {
    pub(crate) fn new(dtype: DataType, shape: &[usize], bytes: usize) -> PyResult<Self> {
        let data = Arc::new(filled("result", bytes.div_ceil(8))?);
        Ok(Buffer { data, shape: shape.iter().map(|&n| n as i64).collect(), dtype })
    }

    pub(crate) fn data(&mut self) -> *mut u8 {
        Arc::get_mut(&mut self.data).map_or(null_mut(), |data| data.as_mut_ptr().cast())
    }
}

/// What a managed tensor over a [`Buffer`] needs. It holds no Python object: it may die on any thread, and where the lock of Python was
/// given up below a call of ours, which `Python::attach` does not see.
struct Lent {
    managed: ManagedUnversioned,
    _data: Arc<Vec<u64>>,
    shape: Vec<i64>,
}

unsafe extern "C" fn let_go(managed: *mut ManagedUnversioned) {
    // SAFETY: `context` is the box that `__dlpack__` leaked, and this is the last use of it.
    drop(unsafe { Box::from_raw((*managed).context.cast::<Lent>()) });
}

#[pymethods]
impl Buffer {
    #[pyo3(signature = (**_options))]
    fn __dlpack__<'py>(slf: &Bound<'py, Self>, _options: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        let buffer = slf.get();
        let tensor = DlTensor {
            data: buffer.data.as_ptr().cast_mut().cast(),
            device: Device { kind: CPU, id: 0 },
            ndim: buffer.shape.len() as i32,
            dtype: buffer.dtype,
            shape: null_mut(),
            strides: null_mut(),
            byte_offset: 0,
        };
        // Without a version, which every consumer reads.
        let managed = ManagedUnversioned { tensor, context: null_mut(), deleter: Some(let_go) };
        let mut lent = Box::new(Lent { managed, _data: buffer.data.clone(), shape: buffer.shape.clone() });
        let strides: Vec<i64> = (0..lent.shape.len()).map(|a| lent.shape[a + 1..].iter().product()).collect();
        lent.shape.extend(strides); // sizes, then strides
        let ndim = buffer.shape.len();
        lent.managed.tensor.shape = lent.shape.as_mut_ptr();
        lent.managed.tensor.strides = lent.shape[ndim..].as_mut_ptr();
        let lent = Box::into_raw(lent);
        // SAFETY: the box is alive, and belongs to the tensor in the capsule from here on; a capsule that nobody takes leaves it to
        // `drop_untaken`.
        unsafe {
            (*lent).managed.context = lent.cast();
            let capsule = ffi::PyCapsule_New((&raw mut (*lent).managed).cast(), c"dltensor".as_ptr(), Some(drop_untaken));
            Bound::from_owned_ptr_or_err(slf.py(), capsule)
        }
    }

    fn __dlpack_device__(&self) -> (c_int, i32) {
        (CPU, 0)
    }
}

unsafe extern "C" fn drop_untaken(capsule: *mut ffi::PyObject) {
    // SAFETY: called once, when the capsule dies; under its first name it still owns the tensor.
    unsafe {
        let pointer = match ffi::PyCapsule_IsValid(capsule, c"dltensor".as_ptr()) {
            0 => null(),
            _ => ffi::PyCapsule_GetPointer(capsule, c"dltensor".as_ptr()).cast_const(),
        };
        if !pointer.is_null() {
            let_go(pointer.cast_mut().cast());
        }
    }
}

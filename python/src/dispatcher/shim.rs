//! PyTorch's stable interface in C, and tensors through it. Unsafe room: a C interface, and foreign memory.
//!
//! Source: PyTorch 2.14, `torch/csrc/stable/c/shim.h`, `torch/csrc/inductor/aoti_torch/c/shim.h`, and for what lies on the stack
//! `torch/csrc/stable/stableivalue_conversions.h`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::{null_mut, slice_from_raw_parts, slice_from_raw_parts_mut};
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use regard::{Element, View, ViewMut};

use crate::array::{Dtype, Item};

/// A tensor of PyTorch's: a pointer that is owned where nothing else is said.
type Handle = *mut c_void;
/// 0 where a call did what it should.
type Code = i32;
/// Arguments before the call and results after it, each in 64 bits.
type Stack = *mut u64;
type Boxed = unsafe extern "C-unwind" fn(Stack, u64, u64);

/// The version whose conventions this file follows.
const VERSION: u64 = (2 << 56) | (14 << 48);

macro_rules! shim {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of PyTorch's library, by their names there.
        struct Shim {
            $($name: unsafe extern "C-unwind" fn($($argument),*) $(-> $result)?,)*
        }

        impl Shim {
            /// All of them; nothing where one is missing, as in versions before 2.14.
            fn find(symbol: impl Fn(&CStr) -> *mut c_void) -> Option<Shim> {
                Some(Shim {
                    $($name: {
                        let address = symbol(CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()).ok()?);
                        if address.is_null() {
                            return None;
                        }
                        // SAFETY: a function of this name has this type, for all versions of PyTorch that have it.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn($($argument),*) $(-> $result)?>(address) }
                    },)*
                })
            }
        }
    };
}

shim! {
    aoti_torch_abi_version() -> u64;
    aoti_torch_check(bool, *const c_char, *const c_char, u32, *const c_char);
    aoti_torch_delete_library_object(*mut c_void) -> Code;
    aoti_torch_delete_tensor_object(Handle) -> Code;
    aoti_torch_device_type_cpu() -> i32;
    aoti_torch_dtype_bfloat16() -> i32;
    aoti_torch_dtype_float16() -> i32;
    aoti_torch_dtype_float32() -> i32;
    aoti_torch_empty_strided(i64, *const i64, *const i64, i32, i32, i32, *mut Handle) -> Code;
    aoti_torch_get_device_type(Handle, *mut i32) -> Code;
    aoti_torch_get_dim(Handle, *mut i64) -> Code;
    aoti_torch_get_dtype(Handle, *mut i32) -> Code;
    aoti_torch_get_sizes(Handle, *mut *const i64) -> Code;
    aoti_torch_get_strides(Handle, *mut *const i64) -> Code;
    aoti_torch_library_init_impl(*const c_char, *const c_char, *const c_char, u32, *mut *mut c_void) -> Code;
    torch_delete_stable_ivalue(*mut u64) -> Code;
    torch_get_const_data_ptr(Handle, *mut *const c_void) -> Code;
    torch_get_mutable_data_ptr(Handle, *mut *mut c_void) -> Code;
    torch_library_impl(*mut c_void, *const c_char, Boxed, u64) -> Code;
    torch_tensor_from_pyobject(*mut c_void, *mut Handle) -> Code;
    torch_tensor_to_pyobject(Handle, *mut c_void, *mut *mut c_void) -> Code;
}

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();

/// The functions, where [`load`] found them.
fn shim() -> Option<&'static Shim> {
    SHIM.get()?.as_ref()
}

/// Whether the library, which PyTorch has loaded, has all functions.
pub(super) fn load(library: &Path) -> bool {
    // SAFETY: a function without arguments.
    SHIM.get_or_init(|| open(library).filter(|shim| unsafe { (shim.aoti_torch_abi_version)() } >> 56 == VERSION >> 56)).is_some()
}

#[cfg(unix)]
fn open(library: &Path) -> Option<Shim> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(library.as_os_str().as_bytes()).ok()?;
    // SAFETY: a path that ends in 0; the library is loaded, and is not loaded again.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: the library stays loaded, for its handle is never closed.
    Shim::find(|name| unsafe { libc::dlsym(handle, name.as_ptr()) })
}

#[cfg(not(unix))]
fn open(_library: &Path) -> Option<Shim> {
    None
}

/// A tensor, which dies with this.
pub(super) struct Tensor(Handle);

/// Where the numbers of a tensor lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dtype: Dtype,
    pub(super) sizes: [usize; 4],
    /// In elements.
    pub(super) strides: [isize; 4],
}

impl Place {
    /// How many elements lie from the first to the last, of a tensor that has some.
    fn reach(&self) -> usize {
        1 + self.sizes.iter().zip(&self.strides).map(|(&size, &step)| (size - 1) * step as usize).sum::<usize>()
    }
}

impl Tensor {
    /// The place of a tensor of four dimensions on the CPU, none of which is empty, of a type that regard computes.
    pub(super) fn place(&self) -> Option<Place> {
        let shim = shim()?;
        let (mut ndim, mut device, mut code, mut sizes, mut strides) = (0, 0, 0, std::ptr::null(), std::ptr::null());
        // SAFETY: the tensor is alive, and each function writes what it is given on success; sizes and strides are as many as there
        // are dimensions, and belong to the tensor.
        let (sizes, strides) = unsafe {
            let failed = (shim.aoti_torch_get_dim)(self.0, &mut ndim)
                | (shim.aoti_torch_get_device_type)(self.0, &mut device)
                | (shim.aoti_torch_get_dtype)(self.0, &mut code)
                | (shim.aoti_torch_get_sizes)(self.0, &mut sizes)
                | (shim.aoti_torch_get_strides)(self.0, &mut strides);
            if failed != 0 || ndim != 4 || device != (shim.aoti_torch_device_type_cpu)() {
                return None;
            }
            (sizes.cast::<[i64; 4]>().read(), strides.cast::<[i64; 4]>().read())
        };
        let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().find(|&dtype| code_of(shim, dtype) == code)?;
        let plain = sizes.iter().all(|&size| size > 0) && strides.iter().all(|&step| step >= 0);
        plain.then(|| Place { dtype, sizes: sizes.map(|size| size as usize), strides: strides.map(|step| step as isize) })
    }

    /// A new tensor, whose elements are unspecified.
    pub(super) fn empty<const N: usize>(dtype: Dtype, sizes: [usize; N], strides: [isize; N]) -> Option<Tensor> {
        let (shim, mut tensor) = (shim()?, null_mut());
        let (sizes, strides) = (sizes.map(|size| size as i64), strides.map(|step| step as i64));
        // SAFETY: sizes and strides are as many as is said, and outlive the call, which writes a tensor of ours on success.
        let failed = unsafe {
            let cpu = (shim.aoti_torch_device_type_cpu)();
            let code = code_of(shim, dtype);
            (shim.aoti_torch_empty_strided)(N as i64, sizes.as_ptr(), strides.as_ptr(), code, cpu, -1, &mut tensor)
        };
        (failed == 0).then_some(Tensor(tensor))
    }

    /// The numbers, which are at the tensor's own place.
    pub(super) fn view<T: Item + Element>(&self, place: &Place) -> Option<View<'_, T>> {
        let mut data = std::ptr::null();
        // SAFETY: the tensor is alive.
        let failed = unsafe { (shim()?.torch_get_const_data_ptr)(self.0, &mut data) };
        if failed != 0 || data.is_null() || !data.cast::<T>().is_aligned() || T::DTYPE != place.dtype {
            return None;
        }
        // SAFETY: PyTorch keeps elements of this type at all indices of a tensor, from its first on, while it lives; they are aligned.
        // That nobody writes while they are read is the caller's duty, as with every function of PyTorch's.
        let data = unsafe { &*slice_from_raw_parts(data.cast::<T>(), place.reach()) };
        View::strided(data, 0, place.sizes, place.strides).ok()
    }

    /// The numbers of a new tensor, of four dimensions at this place.
    pub(super) fn view_mut<T: Item + Element>(&mut self, place: &Place) -> Option<ViewMut<'_, T>> {
        let mut data = null_mut();
        // SAFETY: the tensor is alive.
        let failed = unsafe { (shim()?.torch_get_mutable_data_ptr)(self.0, &mut data) };
        if failed != 0 || data.is_null() || !data.cast::<T>().is_aligned() || T::DTYPE != place.dtype {
            return None;
        }
        // SAFETY: as in `view`; the tensor is new, and borrowed mutably.
        let data = unsafe { &mut *slice_from_raw_parts_mut(data.cast::<T>(), place.reach()) };
        ViewMut::strided(data, 0, place.sizes, place.strides).ok()
    }

    /// The tensor as Python has it.
    pub(super) fn to_object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut object = null_mut();
        // SAFETY: the tensor is alive, the interpreter attached, and the object a new reference on success.
        unsafe {
            let failed = (shim()?.torch_tensor_to_pyobject)(self.0, null_mut(), &mut object);
            (failed == 0).then(|| Bound::from_owned_ptr(py, object.cast::<ffi::PyObject>()))
        }
    }

    /// The tensor that an object is.
    pub(super) fn of_object(object: &Bound<'_, PyAny>) -> Option<Tensor> {
        let mut tensor = null_mut();
        // SAFETY: the interpreter is attached, the object alive, and the tensor ours on success.
        let failed = unsafe { (shim()?.torch_tensor_from_pyobject)(object.as_ptr().cast(), &mut tensor) };
        (failed == 0).then_some(Tensor(tensor))
    }

    /// The tensor for PyTorch to take over.
    fn into_raw(self) -> u64 {
        std::mem::ManuallyDrop::new(self).0 as u64
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if let Some(shim) = shim() {
            // SAFETY: the last use of a tensor that is ours.
            unsafe { (shim.aoti_torch_delete_tensor_object)(self.0) };
        }
    }
}

/// PyTorch's number of a type.
fn code_of(shim: &Shim, dtype: Dtype) -> i32 {
    // SAFETY: functions without arguments.
    unsafe {
        match dtype {
            Dtype::F32 => (shim.aoti_torch_dtype_float32)(),
            Dtype::F16 => (shim.aoti_torch_dtype_float16)(),
            Dtype::Bf16 => (shim.aoti_torch_dtype_bfloat16)(),
            _ => -1,
        }
    }
}

/// The arguments of `aten::_scaled_dot_product_flash_attention_for_cpu`.
pub(super) struct Arguments {
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
    pub(super) dropout_p: f64,
    pub(super) is_causal: bool,
    pub(super) attn_mask: Option<Tensor>,
    pub(super) scale: Option<f64>,
}

impl Arguments {
    /// # Safety
    /// The stack holds the operator's seven arguments, which become ours.
    unsafe fn take(shim: &Shim, stack: Stack) -> Arguments {
        // SAFETY: the caller's promise.
        let [query, key, value, dropout_p, is_causal, attn_mask, scale] = unsafe { stack.cast::<[u64; 7]>().read() };
        // An argument that may be missing is 0, or the address of 64 bits that are ours too.
        let optional = |at: u64| {
            let at = at as *mut u64;
            // SAFETY: the caller's promise; read once, and then given back.
            (!at.is_null()).then(|| unsafe {
                let bits = at.read();
                (shim.torch_delete_stable_ivalue)(at);
                bits
            })
        };
        Arguments {
            query: Tensor(query as Handle),
            key: Tensor(key as Handle),
            value: Tensor(value as Handle),
            dropout_p: f64::from_bits(dropout_p),
            is_causal: is_causal as u8 != 0,
            attn_mask: optional(attn_mask).map(|bits| Tensor(bits as Handle)),
            scale: optional(scale).map(f64::from_bits),
        }
    }
}

/// The operator's kernel, as PyTorch's dispatcher calls it.
unsafe extern "C-unwind" fn boxed(stack: Stack, _arguments: u64, _results: u64) {
    // It was registered through the functions, so they are there.
    let Some(shim) = shim() else { std::process::abort() };
    // SAFETY: `register` says which operator's arguments these are.
    let arguments = unsafe { Arguments::take(shim, stack) };
    let results = catch_unwind(AssertUnwindSafe(|| super::forward(arguments)));
    let text = match results.unwrap_or_else(|_| Err("regard panicked; what it said is on stderr".to_owned())) {
        Ok([out, lse]) => {
            // SAFETY: the stack has room for the results, which PyTorch takes over.
            unsafe { stack.cast::<[u64; 2]>().write([out.into_raw(), lse.into_raw()]) };
            return;
        }
        Err(text) => CString::new(text.replace('\0', "")).unwrap_or_default(),
    };
    // SAFETY: texts that end in 0. The function throws an exception of C++, which becomes a `RuntimeError`; this function's ABI lets it
    // through, and no call of ours but this one throws.
    unsafe { (shim.aoti_torch_check)(false, c"regard".as_ptr(), c"regard".as_ptr(), 0, text.as_ptr()) };
}

/// A registration with the dispatcher: the kernel takes the place of the one before it, which is back when this is dropped.
pub(super) struct Registration(*mut c_void);

// SAFETY: PyTorch's dispatcher takes and drops registrations from any thread.
unsafe impl Send for Registration {}

impl Registration {
    pub(super) fn new() -> Option<Registration> {
        let (shim, mut library) = (shim()?, null_mut());
        // SAFETY: texts that end in 0 and are for ever; on success the library is ours.
        unsafe {
            if (shim.aoti_torch_library_init_impl)(c"aten".as_ptr(), c"CPU".as_ptr(), c"regard".as_ptr(), 0, &mut library) != 0 {
                return None;
            }
            let registration = Registration(library);
            let name = c"_scaled_dot_product_flash_attention_for_cpu";
            ((shim.torch_library_impl)(library, name.as_ptr(), boxed, VERSION) == 0).then_some(registration)
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(shim) = shim() {
            // SAFETY: the last use of a library that is ours.
            unsafe { (shim.aoti_torch_delete_library_object)(self.0) };
        }
    }
}

/// Runs with the interpreter attached, also below a call of ours that gave its lock up unseen, where `Python::attach` alone would
/// take it for held.
pub(super) fn attached<R>(work: impl FnOnce(Python<'_>) -> R) -> R {
    struct Lock(ffi::PyGILState_STATE);

    impl Drop for Lock {
        fn drop(&mut self) {
            // SAFETY: once for each `PyGILState_Ensure`, in the reverse order.
            unsafe { ffi::PyGILState_Release(self.0) };
        }
    }

    // SAFETY: the interpreter runs, for PyTorch's modules were imported.
    let _lock = Lock(unsafe { ffi::PyGILState_Ensure() });
    Python::attach(work)
}

/// Has Python's handler of interrupts called as soon as it can be.
pub(super) fn interrupt() {
    // SAFETY: a function without arguments, for any thread.
    unsafe { ffi::PyErr_SetInterrupt() };
}

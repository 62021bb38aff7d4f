//! Threads that compute, and the kernel that is forced in this thread.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use regard::{Element, Mask, Plan, Score};

/// Locked with the interpreter attached only, so that no thread holds it while another forks the process.
static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);

thread_local! {
    static KERNELS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn pool() -> MutexGuard<'static, Option<Arc<ThreadPool>>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn build(threads: usize) -> PyResult<Arc<ThreadPool>> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("regard-{i}")).build();
    pool.map(Arc::new).map_err(|error| PyRuntimeError::new_err(format!("cannot start threads: {error}")))
}

/// Computes on the package's threads while the interpreter runs on.
pub(crate) fn compute<R: Send>(py: Python<'_>, work: impl FnOnce() -> R + Send) -> PyResult<R> {
    let threads = {
        let mut pool = pool();
        match &*pool {
            Some(threads) => threads.clone(),
            None => pool.insert(build(0)?).clone(),
        }
    };
    Ok(py.detach(|| threads.install(work)))
}

/// Runs a plan: in this thread where it is too small to be shared.
pub(crate) fn compute_plan<T: Element, M: Mask, S: Score, R: Send>(
    py: Python<'_>,
    plan: &Plan<'_, T, M, S>,
    work: impl FnOnce() -> R + Send,
) -> PyResult<R> {
    if plan.is_alone() { Ok(py.detach(work)) } else { compute(py, work) }
}

/// How many threads compute.
#[pyfunction]
fn get_num_threads(_py: Python<'_>) -> PyResult<usize> {
    let mut pool = pool();
    Ok(match &*pool {
        Some(threads) => threads.current_num_threads(),
        None => pool.insert(build(0)?).current_num_threads(),
    })
}

/// Sets how many threads compute from here on: at least 1. Results have the same bits with any number.
#[pyfunction]
fn set_num_threads(_py: Python<'_>, n: i64) -> PyResult<()> {
    let threads = usize::try_from(n).ok().filter(|n| (1..=4096).contains(n));
    let threads = threads.ok_or_else(|| PyValueError::new_err(format!("n is {n} and must be from 1 to 4096")))?;
    *pool() = Some(build(threads)?);
    Ok(())
}

/// In the child of a fork: the parent's threads are not there.
#[pyfunction]
fn _after_fork(_py: Python<'_>) {
    std::mem::forget(pool().take());
}

/// The kernels that this machine can run, best first.
#[pyfunction]
fn available_kernels() -> Vec<&'static str> {
    regard::kernels()
}

/// The kernel that is forced in this thread, if one is.
pub(crate) fn forced_kernel() -> Option<String> {
    KERNELS.with_borrow(|kernels| kernels.last().cloned())
}

/// Forces a kernel in this thread until `_pop_kernel`.
#[pyfunction]
fn _push_kernel(name: String) -> PyResult<()> {
    let available = regard::kernels();
    if !available.contains(&name.as_str()) {
        let available = available.join(", ");
        return Err(PyValueError::new_err(format!("kernel {name:?} is not available here; available: {available}")));
    }
    KERNELS.with_borrow_mut(|kernels| kernels.push(name));
    Ok(())
}

/// Ends the innermost `_push_kernel`.
#[pyfunction]
fn _pop_kernel() -> PyResult<()> {
    let popped = KERNELS.with_borrow_mut(Vec::pop);
    popped.map(drop).ok_or_else(|| PyRuntimeError::new_err("no kernel is forced in this thread"))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(available_kernels, module)?)?;
    module.add_function(wrap_pyfunction!(_push_kernel, module)?)?;
    module.add_function(wrap_pyfunction!(_pop_kernel, module)?)?;
    let py = module.py();
    let options = [("after_in_child", wrap_pyfunction!(_after_fork, module)?)];
    let options = pyo3::types::IntoPyDict::into_py_dict(options, py)?;
    match py.import("os")?.getattr_opt("register_at_fork")? {
        Some(register) => register.call((), Some(&options)).map(drop),
        None => Ok(()),
    }
}

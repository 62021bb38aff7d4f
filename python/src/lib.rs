//! The compiled part of the Python package `regard`.
//!
//! An argument is an array of any library ([`array`]); options become masks and scores ([`options`], [`masks`], [`scores`]); the engine
//! computes while the interpreter runs on ([`threads`]); the result is an array of the caller's library. `unsafe` lives in `array.rs`
//! (foreign memory), `dlpack.rs` and `dispatcher/shim.rs` (C interfaces).

mod array;
mod attention;
mod cache;
mod cost;
mod dispatcher;
mod dlpack;
mod error;
mod gradients;
mod layout;
mod lens;
mod linear;
mod masks;
mod options;
mod packed;
mod positions;
mod report;
mod scores;
mod sdpa;
mod threads;

use pyo3::prelude::*;

#[pymodule]
fn _regard(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    masks::register(module)?;
    scores::register(module)?;
    attention::register(module)?;
    gradients::register(module)?;
    sdpa::register(module)?;
    cache::register(module)?;
    linear::register(module)?;
    positions::register(module)?;
    packed::register(module)?;
    cost::register(module)?;
    lens::register(module)?;
    report::register(module)?;
    dispatcher::register(module)?;
    threads::register(module)
}

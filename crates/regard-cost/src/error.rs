//! What can be wrong with a question about cost.

use std::io;
use std::path::PathBuf;

use crate::{Chip, Shape};

/// All errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A text is not JSON, or a field is of another kind.
    #[error("{what} is not as it must be: {source}")]
    Json {
        /// The text or the field.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A field that is needed is not there.
    #[error("config.json has no field {field:?}, which a model of type {model_type} needs")]
    MissingField {
        /// Its name.
        field: &'static str,
        /// The family.
        model_type: String,
    },
    /// A field has a value that no model can have.
    #[error("{field} is {given} and must be {needed}")]
    Impossible {
        /// Its name.
        field: &'static str,
        /// Its value.
        given: String,
        /// What it can be.
        needed: String,
    },
    /// A field says what is not counted here.
    #[error("{field} is {given}; supported: {supported}")]
    Unsupported {
        /// Its name.
        field: &'static str,
        /// Its value.
        given: String,
        /// What is supported.
        supported: &'static str,
    },
    /// There is no such preset.
    #[error("there is no preset {given:?}; the presets are {}", Shape::presets().join(", "))]
    UnknownPreset {
        /// What was asked for.
        given: String,
    },
    /// There is no such chip.
    #[error("there is no chip {given:?}; the chips are {}", Chip::names().join(", "))]
    UnknownChip {
        /// What was asked for.
        given: String,
    },
    /// There is no such type of numbers.
    #[error("dtype is {given:?} and must be one of f32, f16, bf16 (float32, float16, bfloat16)")]
    UnknownDtype {
        /// What was asked for.
        given: String,
    },
    /// A size that must be there is zero.
    #[error("{argument} is 0 and must be at least 1")]
    Zero {
        /// The argument.
        argument: &'static str,
    },
    /// A figure cannot be counted.
    #[error("{figure} would be 2^128 or more: length {length} or batch {batch} is too large for this model")]
    TooLarge {
        /// Which figure.
        figure: &'static str,
        /// The length that was asked for.
        length: u64,
        /// The batch that was asked for.
        batch: u64,
    },
    /// A text is no number of bytes.
    #[error("{given} is no number of bytes: for example 80GB, 24GiB or 1000000")]
    Bytes {
        /// What was given.
        given: String,
    },
    /// This machine cannot be measured.
    #[error("cannot measure this machine: {message}")]
    Measure {
        /// Why.
        message: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

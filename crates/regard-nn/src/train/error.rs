//! What can go wrong in a training run, and what to do about it.

use std::path::PathBuf;

/// Errors of training. Each names what was given and what is needed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum TrainError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A file could not be written; what it held before is intact.
    #[error("cannot write {}: {source}; the previous version of the file, if any, is intact", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The training file has no bytes.
    #[error("{} is empty: training needs text", path.display())]
    EmptyText { path: PathBuf },
    /// The training file is not text.
    #[error("{} is not UTF-8: the byte at offset {offset} begins no character; convert the file to UTF-8", path.display())]
    NotUtf8 { path: PathBuf, offset: usize },
    /// The text does not fill the windows.
    #[error(
        "the text has {train} training and {validation} validation tokens: a context of {context} needs at least {needed} \
         training tokens and one validation token; give more text or a smaller context"
    )]
    TextTooShort { train: usize, validation: usize, needed: usize, context: usize },
    /// The configuration file is not JSON of the right form.
    #[error("{} is not a training configuration: {source}", path.display())]
    ConfigSyntax { path: PathBuf, source: serde_json::Error },
    /// A value of the configuration is impossible.
    #[error("{field} is {value} and must be {needed}")]
    Config { field: &'static str, value: String, needed: String },
    /// The tokenizer library refused.
    #[error("the tokenizer failed: {message}")]
    Tokenizer { message: String },
    /// The checkpoint belongs to another run.
    #[error(
        "{} was made with another {what} ({there} there, {here} here): repeat that command to resume, or choose \
         another output directory", path.display()
    )]
    OtherRun { path: PathBuf, what: String, there: String, here: String },
    /// The checkpoint cannot be read back.
    #[error("{} is not a usable checkpoint: {reason}; delete it to start over", path.display())]
    Checkpoint { path: PathBuf, reason: String },
    /// The output directory holds something else.
    #[error("{} already holds a model that this run did not write: choose another output directory", path.display())]
    Occupied { path: PathBuf },
    /// Another process trains into the same directory.
    #[error("another run is writing to {}: wait for it, or choose another output directory", path.display())]
    Busy { path: PathBuf },
    /// The loss left the numbers.
    #[error("the loss is {loss} at step {step}: lower learning_rate, or raise warmup")]
    Diverged { step: usize, loss: f32 },
    /// A parameter got no gradient.
    #[error("parameter {name} has no gradient: the loss does not depend on it")]
    NoGradient { name: String },
    /// The weights could not be put into their format.
    #[error("cannot lay out {}: {message}", path.display())]
    Export { path: PathBuf, message: String },
    /// The loss curves could not be drawn.
    #[error("cannot draw {}: {message}", path.display())]
    Plot { path: PathBuf, message: String },
    /// The model refused.
    #[error(transparent)]
    Model(#[from] crate::Error),
    /// The tensor library refused.
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl TrainError {
    pub(crate) fn tokenizer(error: impl std::fmt::Display) -> Self {
        Self::Tokenizer { message: error.to_string() }
    }
}

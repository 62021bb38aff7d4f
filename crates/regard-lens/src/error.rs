//! What can be wrong with an inspection.

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum Error {
    /// The model, or its reading of a text.
    #[cfg(feature = "models")]
    #[error(transparent)]
    Model(#[from] regard_nn::Error),
    /// The attention engine refused.
    #[error(transparent)]
    Attention(#[from] regard::Error),
    /// A model of another kind.
    #[error("the model is a {given}, and attention is inspected in decoders alone, such as Llama, Qwen or GPT")]
    NoDecoder { given: &'static str },
    /// A text that says nothing about attention.
    #[error("text {name:?} has {tokens} tokens and needs at least 2")]
    Short { name: String, tokens: usize },
    /// A text longer than the model reads.
    #[error("text {name:?} has {tokens} tokens and the model's context is {context} tokens: shorten the text")]
    Long { name: String, tokens: usize, context: usize },
    /// No text.
    #[error("there is no text to inspect: give at least one")]
    NoText,
    /// A layer that the model does not have.
    #[error("there is no layer {given}: the model has layers 0 to {last}")]
    Layer { given: usize, last: usize },
    /// A head that the model does not have.
    #[error("there is no head {given} in layer {layer}: each layer has heads 0 to {last}")]
    Head { layer: usize, given: usize, last: usize },
    /// A measure of the whole model where heads are left out.
    #[error("heads are left out, and {what} are measured on the whole model: leave out no heads, or measure no {what}")]
    Without { what: &'static str },
    /// A range that is not of the first text.
    #[error("the range {given:?} {why}")]
    Range { given: String, why: String },
    /// A part that is not of the first text.
    #[error("the zoom {given:?} {why}")]
    Zoom { given: String, why: String },
    /// More parts than a report holds.
    #[error("there are {given} zooms and a report has at most {most}: ask for fewer")]
    Zooms { given: usize, most: usize },
    /// A text through which no row is followed.
    #[error(
        "text {name:?} has {tokens} tokens, and rollout and flow through {layers} layers are of at most {most}: shorten the text, or leave \
        them out"
    )]
    Through { name: String, tokens: usize, layers: usize, most: usize },
    /// Prompts whose positions do not correspond.
    #[error(
        "the clean prompt has {clean} tokens and the corrupt one {corrupt}: what is patched goes from a position to the same position, so they \
        must have as many"
    )]
    Lengths { clean: usize, corrupt: usize },
    /// One prompt twice.
    #[error("the clean and the corrupt prompt are the same tokens: they must differ in what decides the answer")]
    Alike,
    /// An answer that changes how the prompt reads, or is nothing.
    #[error(
        "the answer {answer:?} adds no tokens to both prompts that are its own: it follows a prompt as it is written, so begin it with a space, \
        or with whatever begins a token"
    )]
    Answer { answer: String },
    /// Prompts that do not differ in the answer.
    #[error("the answer has the log-probability {log_prob} after both prompts: there is nothing that patching could bring back")]
    NoDifference { log_prob: f64 },
    /// A text that is too short for what is asked of it.
    #[error("a length of {length} tokens has no room for a question and its answer, which take {needed}: ask at greater lengths")]
    Room { length: usize, needed: usize },
    /// Too little to make texts of.
    #[error("there are {given} {what} to make texts of, and at least {needed} are needed")]
    Phrases { what: &'static str, given: usize, needed: usize },
    /// The chart library failed.
    #[error("the chart cannot be drawn: {reason}")]
    Chart { reason: String },
    /// The library that writes JSON refused.
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

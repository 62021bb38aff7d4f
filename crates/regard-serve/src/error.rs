//! Everything that can be wrong with an engine's settings or with a request: what was given, and what is needed.

/// The result of what can fail before a request is taken.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with an engine's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum Error {
    /// A size of nothing.
    #[error("{what} is 0 and must be at least 1")]
    Zero { what: &'static str },
    /// Too many pages kept back.
    #[error("reserve is {given} of a hundred pages and must be at most 99")]
    Reserve { given: usize },
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum Refusal {
    /// Another request has its id.
    #[error("a request with id {id} is not finished: give each request an id of its own")]
    Id { id: u64 },
    /// The queue is full.
    #[error("{waiting} requests wait already, and no more may: try again later")]
    Busy { waiting: usize },
    /// The engine takes no more requests.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// There is nothing to continue.
    #[error("the prompt is empty and must have at least one token")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error("token {token} of the {what} is outside the vocabulary of {vocab_size} tokens")]
    Token { what: &'static str, token: u32, vocab_size: usize },
    /// The text would be longer than the model can read.
    #[error("a prompt of {prompt} tokens and max_tokens of {max_tokens} exceed the context of {context} tokens")]
    Context { prompt: usize, max_tokens: usize, context: usize },
    /// The text would fill more pages than there are.
    #[error("the request may need {needed} pages of group {group}, and the pool has {pages}: ask for fewer tokens or choices")]
    Pages { group: usize, needed: usize, pages: usize },
    /// More sequences than may run at once.
    #[error("the request needs {given} sequences at once, and {most} may run")]
    Sequences { given: usize, most: usize },
    /// A source where the model reads none, none where it needs one, or one too long for a step.
    #[error("the source has {given} tokens and must have {needed}")]
    Source { given: usize, needed: String },
    /// A number outside its domain.
    #[error("{what} is {given} and must be {needed}")]
    Value { what: &'static str, given: f64, needed: String },
    /// What one kind of decoding cannot do.
    #[error("{what} is not supported with beam search")]
    Beam { what: &'static str },
    /// The numbers of sampling or a stop string.
    #[error("{0}")]
    Sampling(String),
}

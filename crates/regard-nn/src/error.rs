//! Everything that can be wrong with a model, its files, or a request: what was given, what is needed, what to do.

use std::path::PathBuf;

/// The result of every fallible call in this crate, training aside.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Each text names what was given and what is needed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum Error {
    /// The attention engine refused.
    #[error(transparent)]
    Attention(#[from] regard::Error),
    /// The tensor library refused.
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// A download that failed.
    #[error("cannot download {url}: {reason}")]
    Hub { url: String, reason: String },
    /// Nowhere to keep downloads.
    #[error("there is no place to keep downloaded models: set HF_HOME to a folder")]
    NoHubCache,
    /// Text that is not the JSON it should be.
    #[error("{what} is not valid: {source}")]
    Json { what: String, source: serde_json::Error },
    /// Something about one file of a model.
    #[error("{}: {source}", path.display())]
    InFile { path: PathBuf, source: Box<Error> },

    /// A number of a configuration is impossible.
    #[error("{field} is {given} and must be {needed}")]
    Config { field: &'static str, given: String, needed: String },
    /// A configuration lacks a field.
    #[error("the configuration has no {field}, which a model of its kind needs")]
    MissingField { field: &'static str },
    /// A configuration of another kind of model.
    #[error("{what} is {given:?}, and this version runs {supported} only")]
    Unsupported { what: &'static str, given: String, supported: &'static str },

    /// Weights that are not a safetensors file, or a damaged one.
    #[error("weights are not a whole safetensors file ({reason}): copy or download the file again")]
    Safetensors { reason: String },
    /// A tensor that the model needs is not in the file.
    #[error("weights have no tensor {name:?}, which the configuration needs with shape {needed:?}")]
    MissingWeight { name: String, needed: Vec<usize> },
    /// A tensor that the model does not know.
    #[error("weights hold a tensor {name:?}, which a model with this configuration does not have")]
    UnknownWeight { name: String },
    /// A copy of the embedding that is none.
    #[error(
        "tensor {name:?} differs from the embedding, and tie_word_embeddings says that it is the embedding: set it to false, or remove the tensor"
    )]
    Untied { name: String },
    /// A tensor that several files hold.
    #[error("tensor {name:?} is in more than one file of the weights")]
    RepeatedWeight { name: String },
    /// A tensor of another shape than the configuration says.
    #[error("tensor {name:?} has shape {given:?} and the configuration needs {needed:?}")]
    WeightShape { name: String, given: Vec<usize>, needed: Vec<usize> },
    /// A tensor of a number type that is not a float.
    #[error("tensor {name:?} holds {given} and must hold F32, F16 or BF16")]
    WeightType { name: String, given: String },
    /// An index of weights that names a file outside the model's directory.
    #[error("the index of the weights names {file:?}, which is not a file name in the model's directory")]
    ShardName { file: String },

    /// A field of a GGUF file that has a value it must not have.
    #[error("GGUF {field} is {given} and must be {needed}")]
    Gguf { field: String, given: String, needed: String },
    /// A field or tensor that a GGUF file lacks.
    #[error("the GGUF file has no {field}: {needed}")]
    GgufMissing { field: String, needed: String },

    /// A tensor handed to a layer has the wrong shape.
    #[error("{what} has shape {given:?} and needs {needed}")]
    Shape { what: &'static str, given: Vec<usize>, needed: String },
    /// A number handed to a layer or a sampler is outside its domain.
    #[error("{what} is {given} and must be {needed}")]
    Value { what: &'static str, given: f64, needed: &'static str },
    /// A token that the embedding does not have.
    #[error("token {token} is outside the vocabulary of {vocab_size} tokens")]
    Token { token: u32, vocab_size: usize },
    /// A token type that the embedding of types does not have.
    #[error("token type {given} is outside the {types} types that the model has")]
    TokenType { given: u32, types: usize },
    /// More tokens than the model has positions.
    #[error("{tokens} tokens do not fit the model's context of {context} tokens: shorten the text")]
    Context { tokens: usize, context: usize },
    /// Gradients asked for a second time.
    #[error("these gradients were already computed and their intermediate values freed: run the forward pass again")]
    Spent,

    /// The tokenizer library refused.
    #[error("the tokenizer failed: {message}")]
    Tokenizer { message: String },
    /// A merge of a tokenizer whose sides or result are no tokens.
    #[error("model.merges[{index}] of the tokenizer is {merge:?} and must be of tokens, and {part:?} is none")]
    Merge { index: usize, merge: String, part: String },
    /// A tokenizer that knows more tokens than the embedding.
    #[error(
        "the tokenizer has token {token:?} with id {id}, and the embedding has {vocab_size} rows: tokenizer and weights belong to different models"
    )]
    TokenizerMismatch { token: String, id: u32, vocab_size: usize },
    /// A prompt longer than the context.
    #[error("the prompt has {tokens} tokens and the model's context is {context} tokens: shorten the prompt")]
    PromptTooLong { tokens: usize, context: usize },
    /// Nothing to continue.
    #[error("the prompt is empty and the model names no token to begin with: give a prompt")]
    EmptyPrompt,
    /// A stop string of no characters.
    #[error("a stop string is empty: it would stop before the first token")]
    EmptyStop,

    /// A chat template that is not Jinja, or failed on these messages.
    #[error("the chat template fails in line {line}: {reason}")]
    Template { line: usize, reason: String },
    /// A chat template that called `raise_exception`.
    #[error("the chat template refuses these messages: {reason}")]
    TemplateRefused { reason: String },
    /// A chat template beyond one of the bounds that keep a foreign template from taking the machine.
    #[error("the chat template {what} in line {line}: {limit} at most, so it is damaged or made to do harm")]
    TemplateBound { what: &'static str, line: usize, limit: usize },
    /// Named chat templates without the one to take.
    #[error("chat_template has the templates {names:?} and needs one named \"default\"")]
    NoDefaultTemplate { names: Vec<String> },
    /// A chat with a model that has no template.
    #[error(
        "the model has no chat template: continue a text without chat, or put a chat_template.jinja into the model's directory"
    )]
    NoChatTemplate,
    /// Logits that are not numbers.
    #[error("the model's output for the next token is not finite: the weights are damaged or diverged in training")]
    NotFinite,
}

impl Error {
    /// The same error, with the file it is about.
    pub(crate) fn within(self, path: impl Into<PathBuf>) -> Self {
        Self::InFile { path: path.into(), source: Box::new(self) }
    }
}

//! Why a request is not answered, in the shape of OpenAI's errors: what was given, and what is needed.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{Outcome, Refusal};

/// An error that a client may read.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field at fault.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
    /// What a log may say beside, and a client must not read.
    pub(super) cause: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, cause: None }
    }

    /// A field that cannot be used.
    pub(super) fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(name.into()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// A field or a value that this server does not know how to honour.
    pub(super) fn unsupported(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: Some("unsupported"), ..Self::field(name, message) }
    }

    /// More text than the model reads.
    pub(super) fn too_long(name: &str, message: String) -> Self {
        Self { code: Some("context_length_exceeded"), ..Self::field(name, message) }
    }

    /// Something broke that is no fault of the request.
    pub(super) fn internal(cause: impl Into<String>) -> Self {
        let message = "the model could not compute this request";
        Self { cause: Some(cause.into()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, message) }
    }

    pub(super) fn shutting_down() -> Self {
        Self { code: Some("shutting_down"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down") }
    }

    pub(super) fn busy() -> Self {
        let message = "too many requests wait already: try again later";
        Self { code: Some("queue_full"), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// Whether the same request may do better later.
    pub(super) fn passes(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    pub(super) fn json(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }

    /// Why a request of the engine ended without choices. `prompt` is the field that its prompt came from.
    pub(super) fn of(outcome: Outcome, prompt: &str) -> Self {
        match outcome {
            Outcome::Refused(refusal) => Self::refused(refusal, prompt),
            Outcome::ShutDown => Self::shutting_down(),
            Outcome::Expired => Self {
                code: Some("timeout"),
                ..Self::new(StatusCode::GATEWAY_TIMEOUT, "the request took longer than this server allows: ask for fewer tokens")
            },
            Outcome::Failed(cause) => Self::internal(cause),
            Outcome::Aborted | Outcome::Finished(_) => Self::internal("a request ended without a reader"),
        }
    }

    fn refused(refusal: Refusal, prompt: &str) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Busy { .. } => Self::busy(),
            Refusal::ShuttingDown => Self::shutting_down(),
            Refusal::Id { .. } | Refusal::Source { .. } => Self::internal(message),
            Refusal::EmptyPrompt => Self::field(prompt, message),
            Refusal::Token { what: "logit bias", .. } => Self::field("logit_bias", message),
            Refusal::Token { .. } => Self::field(prompt, message),
            Refusal::Context { prompt: tokens, context, .. } => {
                let field = if tokens >= context { prompt } else { "max_tokens" };
                Self::too_long(field, message)
            }
            Refusal::Pages { .. } => Self::field("max_tokens", message),
            Refusal::Sequences { .. } => Self::field("n", message),
            Refusal::Value { what: "width", .. } => Self::field("beam_width", message),
            Refusal::Value { what, .. } => Self::field(what, message),
            Refusal::Beam { what } => Self::unsupported(what, message),
            Refusal::Sampling(_) => Self::field(message.split(' ').next().unwrap_or_default(), message.clone()),
        }
    }
}

impl From<regard_nn::Error> for Problem {
    fn from(error: regard_nn::Error) -> Self {
        Self::internal(error.to_string())
    }
}

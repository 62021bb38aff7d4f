//! `/tokenize` and `/detokenize`: text or messages to tokens, and back.

use std::sync::Arc;

use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::State;
use super::chat::rendered;
use super::completions::{check_length, token_ids};
use super::fields::Fields;
use super::problem::Problem;
use super::reply::Reply;

/// The tokens of a text, or of a conversation as the chat template puts it.
pub(super) async fn tokenize(state: &Arc<State>, body: Bytes) -> Result<Response<Reply>, Problem> {
    let reader = Arc::clone(state);
    super::blocking(move || {
        let mut fields = Fields::parse(&body)?;
        reader.check_model(&mut fields)?;
        let (text, limits) = (reader.text()?, &reader.settings.limits);
        let (prompt, messages) = (fields.text("prompt")?, fields.take("messages"));
        let marks = fields.choice("add_special_tokens", true)?;
        let answer = fields.choice("add_generation_prompt", true)?;
        fields.finish()?;
        let tokens = match (prompt, messages) {
            (Some(_), Some(_)) => return Err(Problem::field("messages", "messages and prompt cannot both be given")),
            (None, messages) => rendered(messages, text, limits, answer)?,
            (Some(prompt), None) => {
                check_length(&prompt, "prompt", text, limits)?;
                text.tokens(&prompt, marks)?
            }
        };
        Ok(Reply::json(&json!({ "count": tokens.len(), "max_model_len": text.model.context(), "tokens": tokens })))
    })
    .await
}

/// The text of tokens.
pub(super) async fn detokenize(state: &Arc<State>, body: Bytes) -> Result<Response<Reply>, Problem> {
    let reader = Arc::clone(state);
    super::blocking(move || {
        let mut fields = Fields::parse(&body)?;
        reader.check_model(&mut fields)?;
        let text = reader.text()?;
        let tokens = match fields.take("tokens") {
            Some(Value::Array(tokens)) => token_ids("tokens", &tokens, text)?,
            _ => return Err(Problem::field("tokens", "tokens must be an array of token ids")),
        };
        fields.finish()?;
        Ok(Reply::json(&json!({ "prompt": text.model.tokenizer().decode(&tokens)? })))
    })
    .await
}

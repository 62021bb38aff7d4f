//! `/v1/chat/completions`: the answer to a conversation, put as the model's chat template puts it.

mod messages;
mod render;

use std::sync::Arc;

use hyper::Response;
use hyper::body::Bytes;

pub(super) use self::messages::rendered;
use self::render::Pen;
use super::State;
use super::ask::Ask;
use super::completions::check_prompt;
use super::fields::Fields;
use super::log::{Entry, Usage};
use super::problem::Problem;
use super::reply::Reply;
use crate::Request;

/// Fields of OpenAI's that are refused, unless they have one of these values.
const UNSUPPORTED: [(&str, &[&str]); 17] = [
    ("audio", &[]),
    ("function_call", &["\"none\""]),
    ("functions", &["[]"]),
    ("metadata", &["{}"]),
    ("modalities", &["[\"text\"]"]),
    ("moderation", &[]),
    ("parallel_tool_calls", &["false"]),
    ("prediction", &[]),
    ("prompt_cache_key", &[]),
    ("reasoning_effort", &["\"none\""]),
    ("response_format", &[r#"{"type": "text"}"#]),
    ("safety_identifier", &[]),
    ("service_tier", &["\"auto\"", "\"default\""]),
    ("store", &["false"]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("tools", &["[]"]),
    ("web_search_options", &[]),
];

/// What a request asks.
pub(super) struct Chat {
    ask: Ask,
    prompt: Vec<u32>,
    logprobs: Option<usize>,
    max_tokens: usize,
}

impl Chat {
    fn read(body: &[u8], state: &State) -> Result<Self, Problem> {
        let mut fields = Fields::parse(body)?;
        state.check_model(&mut fields)?;
        let text = state.text()?;
        fields.refuse(&UNSUPPORTED)?;
        let limits = &state.settings.limits;
        let ask = Ask::read(&mut fields, text, limits)?;
        let logprobs = logprobs(&mut fields, limits.logprobs)?;
        let max_tokens = max_tokens(&mut fields, limits.max_tokens)?;
        let messages = fields.take("messages");
        fields.finish()?;
        let prompt = check_prompt(rendered(messages, text, limits, true)?, "messages", text, limits)?;
        let rest = text.model.context() - prompt.len();
        Ok(Self { max_tokens: max_tokens.unwrap_or(rest.min(limits.max_tokens)), ask, prompt, logprobs })
    }
}

fn logprobs(fields: &mut Fields, most: usize) -> Result<Option<usize>, Problem> {
    let (wanted, top) = (fields.flag("logprobs")?, fields.count("top_logprobs", 0..=most)?);
    if top.is_some() && !wanted {
        return Err(Problem::field("top_logprobs", "top_logprobs needs logprobs to be true"));
    }
    Ok(wanted.then(|| top.unwrap_or(0)))
}

/// By its new name or its old one.
fn max_tokens(fields: &mut Fields, most: usize) -> Result<Option<usize>, Problem> {
    let new = fields.count("max_completion_tokens", 1..=most)?;
    let old = fields.count("max_tokens", 1..=most)?;
    if new.is_some() && old.is_some() && new != old {
        return Err(Problem::field("max_tokens", "max_tokens and max_completion_tokens are the same and differ: give one"));
    }
    Ok(new.or(old))
}

/// Answers a request.
pub(super) async fn answer(state: &Arc<State>, body: Bytes, entry: &mut Entry) -> Result<Response<Reply>, Problem> {
    let reader = Arc::clone(state);
    let chat = super::blocking(move || Chat::read(&body, &reader)).await?;
    entry.user.clone_from(&chat.ask.user);
    let request = Request { logprobs: chat.logprobs, ..chat.ask.request(chat.prompt.clone(), chat.max_tokens) };
    let attention = chat.ask.attention.clone().map(|attention| attention.seat(state, &chat.prompt)).transpose()?;
    let begun = state.queue()?.begin(vec![request], "messages").await?;
    let (stream, usage) = (chat.ask.stream, Usage { prompt: chat.prompt.len(), ..Usage::default() });
    Reply::of((begun, attention), Pen::new(Arc::clone(state), chat, &entry.id), (stream, "messages"), usage, entry).await
}

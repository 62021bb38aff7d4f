//! `/v1/completions`: the continuations of texts or of tokens.

mod prompts;
mod render;

use std::sync::Arc;

use hyper::Response;
use serde_json::{Value, json};

pub(super) use self::prompts::{check_length, token_ids};
use self::render::Pen;
use super::ask::Ask;
use super::fields::Fields;
use super::log::{Entry, Usage};
use super::problem::Problem;
use super::reply::Reply;
use super::{State, Text};
use crate::{FinishReason, Request};

/// Fields of OpenAI's that are refused, unless they have one of these values.
const UNSUPPORTED: [(&str, &[&str]); 1] = [("suffix", &["\"\""])];

/// What a request asks.
pub(super) struct Completion {
    pub(super) ask: Ask,
    pub(super) prompts: Vec<Vec<u32>>,
    /// The texts of the prompts, where they are to be told too.
    pub(super) echo: Option<Vec<String>>,
    pub(super) logprobs: Option<usize>,
    max_tokens: usize,
}

impl Completion {
    pub(super) fn read(body: &[u8], state: &State) -> Result<Self, Problem> {
        let mut fields = Fields::parse(body)?;
        state.check_model(&mut fields)?;
        let text = state.text()?;
        fields.refuse(&UNSUPPORTED)?;
        let limits = &state.settings.limits;
        let ask = Ask::read(&mut fields, text, limits)?;
        let echo = fields.flag("echo")?;
        let logprobs = fields.count("logprobs", 0..=limits.logprobs)?;
        if echo && logprobs.is_some() && ask.stream {
            let message = "stream is true, which is not supported with echo and logprobs: those of the prompt are known at the end";
            return Err(Problem::unsupported("stream", message));
        }
        let max_tokens = fields.count("max_tokens", 0..=limits.max_tokens)?.unwrap_or(16.min(limits.max_tokens));
        let prompt = fields.take("prompt");
        fields.finish()?;
        let prompts = prompts::read(prompt, text, limits)?;
        ask.attention.iter().try_for_each(|attention| attention.check(&prompts, max_tokens))?;
        let decode = |tokens: &Vec<u32>| text.model.tokenizer().decode(tokens).map_err(Problem::from);
        let echo = if echo { Some(prompts.iter().map(decode).collect::<Result<_, _>>()?) } else { None };
        Ok(Self { ask, prompts, echo, logprobs, max_tokens })
    }

    fn requests(&self) -> Vec<Request> {
        let prompt_logprobs = self.logprobs.filter(|_| self.echo.is_some());
        let request = |prompt: &Vec<u32>| Request {
            logprobs: self.logprobs,
            prompt_logprobs,
            ..self.ask.request(prompt.clone(), self.max_tokens)
        };
        self.prompts.iter().map(request).collect()
    }
}

/// Answers a request.
pub(super) async fn answer(state: &Arc<State>, body: hyper::body::Bytes, entry: &mut Entry) -> Result<Response<Reply>, Problem> {
    let reader = Arc::clone(state);
    let completion = super::blocking(move || Completion::read(&body, &reader)).await?;
    entry.user.clone_from(&completion.ask.user);
    let attention = completion.ask.attention.clone().map(|attention| attention.seat(state, &completion.prompts[0])).transpose()?;
    let begun = state.queue()?.begin(completion.requests(), "prompt").await?;
    let (stream, prompt) = (completion.ask.stream, completion.prompts.iter().map(Vec::len).sum());
    let usage = Usage { prompt, ..Usage::default() };
    Reply::of((begun, attention), Pen::new(Arc::clone(state), completion, &entry.id), (stream, "prompt"), usage, entry).await
}

/// Why a text ended, as the API says it.
pub(super) fn reason(reason: FinishReason) -> Value {
    match reason {
        FinishReason::Stop => json!("stop"),
        FinishReason::Length | FinishReason::Interrupted => json!("length"),
    }
}

/// The tokens of a prompt, if they are neither none nor too many.
pub(super) fn check_prompt(tokens: Vec<u32>, name: &str, text: &Text, limits: &super::Limits) -> Result<Vec<u32>, Problem> {
    let most = limits.prompt_tokens.min(text.model.context());
    if tokens.is_empty() {
        return Err(Problem::field(name, format!("{name} is empty and must have at least one token")));
    }
    if tokens.len() > most {
        return Err(Problem::too_long(name, format!("{name} has {} tokens and may have {most}", tokens.len())));
    }
    Ok(tokens)
}

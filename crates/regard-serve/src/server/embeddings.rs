//! `/v1/embeddings`: texts to vectors, where the model is an encoder.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Response;
use hyper::body::Bytes;
use regard_nn::Embedder;
use serde_json::{Value, json};

use super::fields::{Fields, mismatch};
use super::log::{Entry, Usage};
use super::problem::Problem;
use super::reply::Reply;
use super::{Kind, Limits, State};

/// How vectors are written.
#[derive(Clone, Copy)]
enum Format {
    Numbers,
    /// Little-endian f32, as OpenAI's own client asks for.
    Base64,
}

const NEEDED: &str = "a string, or an array of strings";

/// Answers a request.
pub(super) async fn answer(state: &Arc<State>, body: Bytes, entry: &mut Entry) -> Result<Response<Reply>, Problem> {
    let worker = Arc::clone(state);
    let (object, usage) = super::blocking(move || embed(&body, &worker)).await?;
    entry.usage = usage;
    Ok(Reply::json(&object))
}

fn embed(body: &[u8], state: &State) -> Result<(Value, Usage), Problem> {
    let mut fields = Fields::parse(body)?;
    state.check_model(&mut fields)?;
    let Kind::Embedder(embedder) = &state.served.kind else {
        return Err(state.other_kind("a language model, which embeds no texts: serve an encoder, such as BERT"));
    };
    let format = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => Format::Numbers,
        Some("base64") => Format::Base64,
        Some(other) => return Err(mismatch("encoding_format", &json!(other), "\"float\" or \"base64\"")),
    };
    let size = embedder.encoder().config().hidden_size;
    fields.refuse(&[("dimensions", &[&size.to_string()])])?;
    let input = fields.take("input");
    fields.finish()?;
    let texts = texts(input, &state.settings.limits)?;
    let tokens: Vec<Vec<u32>> = texts.iter().enumerate().map(|(i, text)| tokens(i, text, embedder)).collect::<Result<_, _>>()?;
    let mut data = Vec::with_capacity(tokens.len());
    for (i, tokens) in tokens.iter().enumerate() {
        let vector = embedder.embed_tokens(tokens, embedder.pooling())?;
        data.push(json!({ "object": "embedding", "index": i, "embedding": written(&vector, format) }));
    }
    let usage = Usage { prompt: tokens.iter().map(Vec::len).sum(), ..Usage::default() };
    let counts = json!({ "prompt_tokens": usage.prompt, "total_tokens": usage.prompt });
    Ok((json!({ "object": "list", "data": data, "model": state.served.name, "usage": counts }), usage))
}

fn texts(input: Option<Value>, limits: &Limits) -> Result<Vec<String>, Problem> {
    let texts = match input {
        None => return Err(Problem::field("input", format!("input is missing and must be {NEEDED}"))),
        Some(Value::Array(texts)) => texts,
        Some(one) => vec![one],
    };
    let (given, most) = (texts.len(), limits.prompts);
    if given == 0 || given > most {
        return Err(Problem::field("input", format!("input has {given} texts and must have from 1 to {most}")));
    }
    let text = |value: Value| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        other => Err(mismatch("input", &other, format!("{NEEDED}, none of them empty"))),
    };
    texts.into_iter().map(text).collect()
}

fn tokens(i: usize, text: &str, embedder: &Embedder) -> Result<Vec<u32>, Problem> {
    let tokens = embedder.tokens(text)?;
    if tokens.is_empty() {
        return Err(Problem::field("input", format!("input[{i}] has no tokens")));
    }
    Ok(tokens)
}

fn written(vector: &[f32], format: Format) -> Value {
    match format {
        Format::Numbers => json!(vector),
        Format::Base64 => json!(BASE64_STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())),
    }
}

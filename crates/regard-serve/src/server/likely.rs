//! Log-probabilities as OpenAI's two APIs show them: in columns for completions, in records for chats.

use regard_nn::Tokenizer;
use serde_json::{Map, Value, json};

use crate::Logprobs;

/// A text read token by token: what each token, or another in its place, reads as after those before it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    tokens: Vec<u32>,
    /// Characters so far.
    offset: usize,
}

/// A token's text; none where it is a mark or a part of a character.
fn text(tokenizer: &Tokenizer, before: &[u32], token: u32) -> Option<String> {
    let text = tokenizer.stream(before).push(token).ok()?;
    (!text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER)).then_some(text)
}

fn name(text: Option<String>, token: u32) -> String {
    text.unwrap_or_else(|| format!("token_id:{token}"))
}

impl Reading {
    /// At the end of `before`, which fills `offset` characters of the text told.
    pub(super) fn new(before: &[u32], offset: usize) -> Self {
        Self { tokens: before[before.len().saturating_sub(8)..].to_vec(), offset }
    }

    fn next(&mut self, token: u32, text: Option<&String>) -> usize {
        let at = self.offset;
        self.offset += text.map_or(0, |text| text.chars().count());
        self.tokens.push(token);
        at
    }

    /// Adds a token to columns. The first of a prompt has no probability.
    pub(super) fn column(&mut self, tokenizer: &Tokenizer, token: u32, logprobs: Option<&Logprobs>, columns: &mut Columns) {
        let own = text(tokenizer, &self.tokens, token);
        let named = |(token, logprob): &(u32, f32)| (name(text(tokenizer, &self.tokens, *token), *token), json!(logprob));
        let top = logprobs.map(|logprobs| {
            let chosen = std::iter::once(&logprobs.chosen);
            let chosen = chosen.filter(|_| !logprobs.top.is_empty());
            chosen.chain(&logprobs.top).map(named).collect::<Map<_, _>>()
        });
        let offset = self.next(token, own.as_ref());
        columns.tokens.push(name(own, token));
        columns.logprobs.push(logprobs.map(|logprobs| logprobs.chosen.1));
        columns.top.push(top);
        columns.offsets.push(offset);
    }

    /// A token's record.
    pub(super) fn record(&mut self, tokenizer: &Tokenizer, logprobs: &Logprobs) -> Value {
        let one = |(token, logprob): (u32, f32)| {
            let text = text(tokenizer, &self.tokens, token);
            let bytes = text.as_ref().map(|text| text.as_bytes().to_vec());
            json!({ "token": name(text, token), "logprob": logprob, "bytes": bytes })
        };
        let mut record = one(logprobs.chosen);
        record["top_logprobs"] = logprobs.top.iter().map(|top| one(*top)).collect();
        self.next(logprobs.chosen.0, None);
        record
    }
}

/// Log-probabilities of a completion.
#[derive(Debug, Default)]
pub(super) struct Columns {
    tokens: Vec<String>,
    logprobs: Vec<Option<f32>>,
    top: Vec<Option<Map<String, Value>>>,
    offsets: Vec<usize>,
}

impl Columns {
    pub(super) fn json(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

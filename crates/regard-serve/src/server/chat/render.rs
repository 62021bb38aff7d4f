//! Answers of a chat as JSON: whole, or in the pieces of a stream.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::State;
use super::super::ask::Tells;
use super::super::completions::reason;
use super::super::likely::Reading;
use super::super::log::seconds;
use super::super::reply::Render;
use super::Chat;
use crate::{Choice, FinishReason, Finished, Logprobs, Outcome, Output};

/// Writes the choices of one answer.
pub(super) struct Pen {
    state: Arc<State>,
    chat: Chat,
    id: String,
    created: u64,
    /// Where each choice is, and whether its end is told.
    places: Vec<(Reading, bool)>,
}

impl Pen {
    pub(super) fn new(state: Arc<State>, chat: Chat, id: &str) -> Self {
        let places = vec![(Reading::new(&chat.prompt, 0), false); chat.ask.decoding.choices()];
        Self { state, chat, id: format!("chatcmpl-{id}"), created: seconds() as u64, places }
    }

    fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        let (id, created, model) = (&self.id, self.created, &self.state.served.name);
        json!({ "id": id, "object": kind, "created": created, "model": model, "choices": choices })
    }

    /// All choices.
    fn choices(&self, finished: &Finished) -> Vec<Value> {
        let one = |(i, choice): (usize, &Choice)| {
            let mut reading = Reading::new(&self.chat.prompt, 0);
            json!({
                "index": i,
                "message": { "role": "assistant", "content": choice.text, "refusal": null },
                "logprobs": self.records(&mut reading, &choice.logprobs),
                "finish_reason": reason(choice.finish_reason),
            })
        };
        finished.choices.iter().enumerate().map(one).collect()
    }

    /// Log-probabilities, where they are wanted.
    fn records(&self, reading: &mut Reading, logprobs: &[Logprobs]) -> Value {
        let Some(text) = self.state.text().ok().filter(|_| self.chat.logprobs.is_some()) else { return Value::Null };
        let tokenizer = text.model.tokenizer();
        let content: Vec<Value> = logprobs.iter().map(|logprobs| reading.record(tokenizer, logprobs)).collect();
        json!({ "content": content, "refusal": null })
    }

    fn chunk(&self, index: usize, delta: Value, logprobs: Value, end: Option<FinishReason>) -> Value {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end.map(reason) });
        self.object("chat.completion.chunk", vec![choice])
    }

    fn end_choice(&mut self, index: usize, end: FinishReason, events: &mut Vec<Value>) {
        if !std::mem::replace(&mut self.places[index].1, true) {
            events.push(self.chunk(index, json!({}), Value::Null, Some(end)));
        }
    }
}

impl Render for Pen {
    fn whole(&self, finished: &[Finished]) -> Value {
        self.object("chat.completion", finished.iter().flat_map(|finished| self.choices(finished)).collect())
    }

    fn output(&mut self, _prompt: usize, output: Output, events: &mut Vec<Value>) {
        match output {
            Output::Started { .. } => {
                let first = json!({ "role": "assistant", "content": "" });
                events.extend((0..self.places.len()).map(|i| self.chunk(i, first.clone(), Value::Null, None)));
            }
            Output::Token { choice, text, logprobs, finish_reason, .. } => {
                if !text.is_empty() || logprobs.is_some() {
                    let mut reading = self.places[choice].0.clone();
                    let records = logprobs.map_or(Value::Null, |logprobs| self.records(&mut reading, &[logprobs]));
                    self.places[choice].0 = reading;
                    events.push(self.chunk(choice, json!({ "content": text }), records, None));
                }
                if let Some(end) = finish_reason {
                    self.end_choice(choice, end, events);
                }
            }
            Output::Done { outcome: Outcome::Finished(finished), .. } => {
                for (i, choice) in finished.choices.iter().enumerate() {
                    self.end_choice(i, choice.finish_reason, events);
                }
            }
            Output::Done { .. } => {}
        }
    }

    fn tells_usage(&self) -> Tells {
        self.chat.ask.usage
    }

    fn bare(&self) -> Value {
        self.object("chat.completion.chunk", Vec::new())
    }
}

//! Completions as JSON: whole, or in the pieces of a stream.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::State;
use super::super::ask::Tells;
use super::super::likely::{Columns, Reading};
use super::super::reply::Render;
use super::{Completion, reason};
use crate::{Choice, FinishReason, Finished, Logprobs, Outcome, Output};

/// Writes the choices of one answer.
pub(super) struct Pen {
    state: Arc<State>,
    completion: Completion,
    id: String,
    created: u64,
    /// Where each choice is, and whether its end is told.
    places: Vec<(Reading, bool)>,
}

impl Pen {
    pub(super) fn new(state: Arc<State>, completion: Completion, id: &str) -> Self {
        let n = completion.ask.decoding.choices();
        let place = |(i, prompt): (usize, &Vec<u32>)| {
            let echo = completion.echo.as_ref().map_or(0, |texts| texts[i].chars().count());
            std::iter::repeat_n((Reading::new(prompt, echo), false), n)
        };
        let places = completion.prompts.iter().enumerate().flat_map(place).collect();
        let created = super::super::log::seconds() as u64;
        Self { state, completion, id: format!("cmpl-{id}"), created, places }
    }

    fn object(&self, choices: Vec<Value>) -> Value {
        let (id, created, model) = (&self.id, self.created, &self.state.served.name);
        json!({ "id": id, "object": "text_completion", "created": created, "model": model, "choices": choices })
    }

    fn index(&self, prompt: usize, choice: usize) -> usize {
        prompt * self.completion.ask.decoding.choices() + choice
    }

    /// The choices of one prompt.
    fn choices(&self, prompt: usize, finished: &Finished) -> Vec<Value> {
        let one = |(i, choice): (usize, &Choice)| {
            let echo = self.completion.echo.as_ref().map_or("", |texts| &texts[prompt]);
            let logprobs = self.completion.logprobs.map(|_| self.columns(prompt, &finished.prompt_logprobs, choice));
            let text = format!("{echo}{}", choice.text);
            self.choice(self.index(prompt, i), &text, logprobs, Some(choice.finish_reason))
        };
        finished.choices.iter().enumerate().map(one).collect()
    }

    fn choice(&self, index: usize, text: &str, logprobs: Option<Value>, finish_reason: Option<FinishReason>) -> Value {
        json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason.map(reason) })
    }

    /// Log-probabilities of a choice, and of its prompt where that is told too.
    fn columns(&self, prompt: usize, of_prompt: &[Logprobs], choice: &Choice) -> Value {
        let Ok(text) = self.state.text() else { return Value::Null };
        let (tokenizer, tokens) = (text.model.tokenizer(), &self.completion.prompts[prompt]);
        let mut columns = Columns::default();
        let mut reading = Reading::new(tokens, 0);
        if self.completion.echo.is_some() {
            reading = Reading::new(&[], 0);
            let scores = std::iter::once(None).chain(of_prompt.iter().map(Some));
            for (token, logprobs) in tokens.iter().zip(scores) {
                reading.column(tokenizer, *token, logprobs, &mut columns);
            }
        }
        for (token, logprobs) in choice.tokens.iter().zip(&choice.logprobs) {
            reading.column(tokenizer, *token, Some(logprobs), &mut columns);
        }
        columns.json()
    }

    fn piece(
        &mut self,
        index: usize,
        text: &str,
        token: u32,
        logprobs: Option<&Logprobs>,
        end: Option<FinishReason>,
    ) -> Option<Value> {
        if text.is_empty() && logprobs.is_none() && end.is_none() {
            return None;
        }
        let columns = logprobs.and_then(|logprobs| {
            let mut columns = Columns::default();
            let tokenizer = self.state.text().ok()?.model.tokenizer();
            self.places[index].0.column(tokenizer, token, Some(logprobs), &mut columns);
            Some(columns.json())
        });
        self.places[index].1 |= end.is_some();
        Some(self.object(vec![self.choice(index, text, columns, end)]))
    }
}

impl Render for Pen {
    fn whole(&self, finished: &[Finished]) -> Value {
        self.object(finished.iter().enumerate().flat_map(|(prompt, finished)| self.choices(prompt, finished)).collect())
    }

    fn output(&mut self, prompt: usize, output: Output, events: &mut Vec<Value>) {
        match output {
            Output::Started { .. } => {
                if let Some(echo) = &self.completion.echo {
                    let told = (0..self.completion.ask.decoding.choices())
                        .map(|i| self.object(vec![self.choice(self.index(prompt, i), &echo[prompt], None, None)]));
                    events.extend(told);
                }
            }
            Output::Token { choice, token, text, logprobs, finish_reason, .. } => {
                let index = self.index(prompt, choice);
                events.extend(self.piece(index, &text, token, logprobs.as_ref(), finish_reason));
            }
            Output::Done { outcome: Outcome::Finished(finished), .. } => {
                for (i, choice) in finished.choices.iter().enumerate() {
                    let index = self.index(prompt, i);
                    if !self.places[index].1 {
                        events.extend(self.piece(index, "", 0, None, Some(choice.finish_reason)));
                    }
                }
            }
            Output::Done { .. } => {}
        }
    }

    fn tells_usage(&self) -> Tells {
        self.completion.ask.usage
    }

    fn bare(&self) -> Value {
        self.object(Vec::new())
    }
}

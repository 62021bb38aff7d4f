//! Attention on request: what every head read of a text that is finished, told beside it.
//!
//! The text's own tokens are read once more, from their beginning and by themselves, as `regard inspect` reads: no page and no cached prefix
//! takes part, so nothing can be told of another's text. A row has the same bits whatever is computed beside it, so these are the weights
//! that the engine used.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::StatusCode;
use regard_lens::ablate::{self, HeadId};
use regard_lens::{Options, inspect};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fields::{Fields, mismatch};
use super::problem::Problem;
use super::{Limits, State, Text};
use crate::Decoding;

/// Requests with attention that may be there at once: each holds a report until its client has taken it.
const SEATS: usize = 8;
/// The bytes of a report; see [`Report::json_within`](regard_lens::Report::json_within).
const MOST_BYTES: usize = 16 << 20;

/// Who may ask, and whose turn it is to be read: one at a time, in the order of asking.
#[derive(Debug)]
pub(super) struct Room {
    seats: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(SEATS)), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// What a request asks to be told.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    /// Heads that give zeros as the text is read.
    without: Vec<HeadId>,
}

impl Attention {
    /// The field `attention`, where the operator allows it and there is one text to be told of.
    pub(super) fn read(fields: &mut Fields, decoding: &Decoding, text: &Text, limits: &Limits) -> Result<Option<Self>, Problem> {
        let Some(value) = fields.take("attention") else { return Ok(None) };
        if limits.attention == 0 {
            let message = "attention is not told by this server: whoever runs it can allow it with --attention TOKENS";
            let refused = Problem::field("attention", message);
            return Err(Problem { status: StatusCode::FORBIDDEN, code: Some("attention_not_allowed"), ..refused });
        }
        let mut fields = Fields::within(value, "attention")?;
        let without = without(fields.take("without"), text)?;
        fields.finish()?;
        if !matches!(decoding, Decoding::Sample { n: 1, best_of: 1, .. }) {
            let message = "attention is told of one text, and is not supported with n or best_of above 1, nor with beam_width";
            return Err(Problem::unsupported("attention", message));
        }
        Ok(Some(Self { without }))
    }

    /// Refuses what would not come to one text of two tokens or more.
    pub(super) fn check(&self, prompts: &[Vec<u32>], max_tokens: usize) -> Result<(), Problem> {
        match prompts {
            [prompt] if prompt.len() + max_tokens >= 2 => Ok(()),
            [_] => {
                Err(Problem::field("attention", "attention needs a text of at least 2 tokens, and prompt and max_tokens come to 1"))
            }
            _ => Err(Problem::unsupported("attention", format!("attention is told of one text, and prompt has {}", prompts.len()))),
        }
    }

    /// Takes a seat, before anything is computed for the request.
    pub(super) fn seat(self, state: &Arc<State>, prompt: &[u32]) -> Result<Wanted, Problem> {
        let seat = Arc::clone(&state.attention.seats).try_acquire_owned().map_err(|_| {
            let message = format!("{SEATS} requests with attention are being answered, and no more may: try again later");
            Problem { code: Some("too_many_requests"), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, message) }
        })?;
        Ok(Wanted { state: Arc::clone(state), without: self.without, prompt: prompt.to_vec(), seat })
    }
}

/// Heads of the model, each once.
fn without(value: Option<Value>, text: &Text) -> Result<Vec<HeadId>, Problem> {
    const NAME: &str = "attention.without";
    let Some(value) = value else { return Ok(Vec::new()) };
    let wrong = |given: &Value| mismatch(NAME, given, "an array of heads, each of them [layer, head]");
    let decoder = text.model.decoder().ok_or_else(|| Problem::unsupported("attention", "attention is told of decoders alone"))?;
    let one = |head: &Value| {
        let id: HeadId = serde_json::from_value(head.clone()).map_err(|_| wrong(head))?;
        ablate::check(decoder, id).map_err(|error| Problem::field(NAME, format!("{NAME}: {error}")))?;
        Ok(id)
    };
    let mut heads = value.as_array().ok_or_else(|| wrong(&value))?.iter().map(one).collect::<Result<Vec<_>, Problem>>()?;
    heads.sort_unstable();
    heads.dedup();
    Ok(heads)
}

/// A text that is to be told of when it is finished. Dropped before its turn, it is not read.
pub(super) struct Wanted {
    state: Arc<State>,
    without: Vec<HeadId>,
    prompt: Vec<u32>,
    seat: OwnedSemaphorePermit,
}

/// A report as JSON, and the seat that is free when it has been sent.
pub(super) struct Told {
    report: String,
    pub(super) seat: OwnedSemaphorePermit,
}

impl Wanted {
    /// Reads the prompt and its answer, when it is their turn.
    pub(super) async fn told(self, answer: Vec<u32>) -> Result<Told, Problem> {
        let Self { state, without, prompt, seat } = self;
        let turn = Arc::clone(&state.attention.turn).acquire_owned();
        let Ok(turn) = tokio::time::timeout(state.settings.request_timeout, turn).await else {
            let message = "the reading of attention had to wait longer than this server allows: try again later";
            return Err(Problem { code: Some("timeout"), ..Problem::new(StatusCode::GATEWAY_TIMEOUT, message) });
        };
        let waits = Arc::new(());
        let waiting = Arc::downgrade(&waits);
        let report = super::blocking(move || {
            let _turn = turn; // until the reading is over, whether or not somebody waits for it still
            match waiting.strong_count() {
                0 => Err(Problem::internal("nobody waits for the attention")),
                _ => report(&state, [prompt, answer].concat(), without),
            }
        });
        let told = Told { report: report.await?, seat };
        drop(waits);
        Ok(told)
    }
}

/// Reads the first tokens of a text, as many as are allowed.
fn report(state: &State, mut tokens: Vec<u32>, without: Vec<HeadId>) -> Result<String, Problem> {
    let (text, all, most) = (state.text()?, tokens.len(), state.settings.limits.attention);
    tokens.truncate(most);
    state.metrics.attention.add(1);
    let read = || {
        let text_read = regard_lens::Text::of_tokens(&text.model, "prompt and answer", tokens)?;
        let options = Options { scores: false, leaks: false, without, ..Options::default() };
        let mut report = inspect(&text.model, &state.served.name, &[text_read], &options, &mut |_| {})?;
        if all > most {
            report.run.labels.push(format!("Of {all} tokens the first {most} were read: this server tells of no more at once."));
        }
        report.json_within(MOST_BYTES)
    };
    read().map_err(|error| Problem::internal(error.to_string()))
}

impl Told {
    /// The JSON of an object that is not empty, with the report as one more field.
    pub(super) fn beside(&self, object: &Value) -> String {
        let mut text = object.to_string();
        text.pop(); // the last brace
        text + ",\"attention\":" + &self.report + "}"
    }
}

/// The attention of a stream.
pub(super) enum Telling {
    /// None is wanted.
    Nothing,
    /// Its text is not finished.
    Wanted(Box<Wanted>),
    Reading(Pin<Box<dyn Future<Output = Result<Told, Problem>> + Send>>),
    /// It is on its way to the client, and keeps its seat.
    Sent(#[expect(dead_code, reason = "held until the stream is dropped")] OwnedSemaphorePermit),
}

impl Telling {
    /// The text is finished.
    pub(super) fn finished(&mut self, answer: impl FnOnce() -> Vec<u32>) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Wanted(wanted) => Self::Reading(Box::pin(wanted.told(answer()))),
            other => other,
        };
    }

    /// What is told of `object`, with it, once that is known; none where nothing is to be told.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, object: impl FnOnce() -> Value) -> Poll<Option<Result<String, Problem>>> {
        let Self::Reading(reading) = self else { return Poll::Ready(None) };
        match reading.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(problem)) => Poll::Ready(Some(Err(problem))),
            Poll::Ready(Ok(told)) => {
                let text = told.beside(&object());
                *self = Self::Sent(told.seat);
                Poll::Ready(Some(Ok(text)))
            }
        }
    }
}

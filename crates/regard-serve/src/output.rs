//! What goes into a step and what comes out of it.

use std::time::Duration;

use regard_nn::FinishReason;

use crate::{Refusal, Request};

/// Names a request; the caller chooses it, and must not use it twice at a time.
pub type RequestId = u64;

/// What happened since the last step.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A request came.
    Submit(RequestId, Box<Request>),
    /// Nobody waits for a request any more; its pages are free when the step is over.
    Abort(RequestId),
    /// Whoever reads a request's tokens falls behind: it stands still, and gives up its pages first.
    Pause(RequestId),
    /// The reader has caught up.
    Resume(RequestId),
    /// No more requests are taken; those that are not finished by this time, on the engine's clock, end.
    Shutdown(Duration),
}

/// What a step tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A request was taken up for the first time.
    Started {
        /// Which.
        request: RequestId,
        /// Tokens of its prompt that the prefix cache held.
        cached: usize,
    },
    /// One more token of a choice. Told only where each sequence is a choice: not with beams, nor with `best_of` above `n`.
    Token {
        /// Of which request.
        request: RequestId,
        /// Of which of its choices.
        choice: usize,
        /// The token.
        token: u32,
        /// The text that became certain with it: it may lag behind the tokens, where a character or a stop string may be incomplete.
        text: String,
        /// Its log-probabilities, where they are wanted.
        logprobs: Option<Logprobs>,
        /// Why the choice ends with it, if it does.
        finish_reason: Option<FinishReason>,
    },
    /// The last that is told of a request.
    Done {
        /// Which.
        request: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// As it was to.
    Finished(Finished),
    /// It was not taken.
    Refused(Refusal),
    /// Nobody waited for it any more.
    Aborted,
    /// Its deadline passed.
    Expired,
    /// The engine was shut down.
    ShutDown,
    /// The runner failed, or its output was no number.
    Failed(String),
}

/// All that came of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The choices: by number when each sequence is one, else best first.
    pub choices: Vec<Choice>,
    /// For each token of the prompt but the first its log-probabilities, where they are wanted.
    pub prompt_logprobs: Vec<Logprobs>,
    /// How often it gave up its pages.
    pub preemptions: u32,
}

/// One continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The tokens generated.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Log-probabilities of each token, where they are wanted.
    pub logprobs: Vec<Logprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What choices are ranked by, where more were tried than returned; else 0.
    pub score: f64,
}

/// Natural logarithms of the probabilities that the model gives, before any sampling step changes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token that was chosen, and its log-probability.
    pub chosen: (u32, f32),
    /// The most likely tokens, most likely first; equal ones rank by id.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Of a row of logits.
    pub(crate) fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let norm = log_sum_exp(logits);
        let logprob = |token: u32| (token, (f64::from(logits[token as usize]) - norm) as f32);
        Self { chosen: logprob(token), top: best(logits, top).into_iter().map(logprob).collect() }
    }

    /// The most likely tokens of a row of logits, each as if it were chosen, with its log-probability in full.
    pub(crate) fn continuations(logits: &[f32], n: usize, top: usize) -> Vec<(Self, f64)> {
        let norm = log_sum_exp(logits);
        let exact = |token: u32| f64::from(logits[token as usize]) - norm;
        let logprob = |token: u32| (token, exact(token) as f32);
        let best = best(logits, n.max(top));
        let top: Vec<(u32, f32)> = best.iter().take(top).map(|token| logprob(*token)).collect();
        let likely = best.into_iter().take(n).filter(|token| exact(*token) > f64::NEG_INFINITY);
        likely.map(|token| (Self { chosen: logprob(token), top: top.clone() }, exact(token))).collect()
    }
}

/// Refuses logits that are no numbers, as the sampler does.
pub(crate) fn check_finite(logits: &[f32]) -> regard_nn::Result<()> {
    let good = logits.iter().fold(true, |good, x| good & (*x < f32::INFINITY));
    if good && logits.iter().any(|x| x.is_finite()) { Ok(()) } else { Err(regard_nn::Error::NotFinite) }
}

/// `ln Σ exp(x)`, in f64 and in order: a function of the row alone.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln()
}

/// The `n` tokens with the highest logits, highest first; equal ones rank by id.
pub(crate) fn best(logits: &[f32], n: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    if n == 0 {
        return Vec::new();
    }
    if n < tokens.len() {
        tokens.select_nth_unstable_by(n - 1, order);
        tokens.truncate(n);
    }
    tokens.sort_unstable_by(order);
    tokens
}

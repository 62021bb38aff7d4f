//! A request: what is to be continued, and how.

use std::time::Duration;

use regard_nn::{Adjustments, Sampler, Sampling, Stop};

use crate::Refusal;

/// What is asked of the engine. The default asks for nothing: set `prompt` and `max_tokens`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The tokens to continue; at least one.
    pub prompt: Vec<u32>,
    /// The tokens that an encoder reads; none for a decoder-only model.
    pub source: Vec<u32>,
    /// Requests share cached prefixes only with those that have the same salt.
    pub salt: Vec<u8>,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How they are chosen.
    pub decoding: Decoding,
    /// Tokens that end a text; they belong to its tokens, and not to its text.
    pub stop_tokens: Vec<u32>,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Whether log-probabilities are wanted, and of how many of the most likely tokens beside the chosen one.
    pub logprobs: Option<usize>,
    /// Whether log-probabilities of the prompt's tokens are wanted, and of how many others.
    pub prompt_logprobs: Option<usize>,
    /// Lower goes first, by [`Config::head_start`](crate::Config::head_start) requests for each level.
    pub priority: i32,
    /// When the request ends unfinished, on the engine's clock.
    pub deadline: Option<Duration>,
}

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoding {
    /// Each choice is drawn by itself, with random numbers of its own.
    Sample {
        /// How the next token is chosen.
        sampling: Sampling,
        /// What is added to single logits.
        adjustments: Adjustments,
        /// Choices to return.
        n: usize,
        /// Choices to draw, of which those with the highest mean log-probability are returned.
        best_of: usize,
    },
    /// The most likely texts: in each step the `width` best continuations of all beams go on. It ends when `width` texts have ended and
    /// no beam, as long as it is, scores above the worst of them.
    ///
    /// Source: Graves 2012, "Sequence Transduction with Recurrent Neural Networks", §3; length penalty as in Hugging Face transformers.
    Beam {
        /// Beams.
        width: usize,
        /// Choices to return.
        n: usize,
        /// Texts are ranked by the sum of log-probabilities over the number of tokens to this power.
        length_penalty: f32,
    },
}

impl Default for Decoding {
    /// Greedy: the most likely token, always.
    fn default() -> Self {
        Self::Sample { sampling: Sampling::default(), adjustments: Adjustments::default(), n: 1, best_of: 1 }
    }
}

impl Decoding {
    /// Sequences that run at once.
    pub(crate) fn sequences(&self) -> usize {
        match *self {
            Self::Sample { best_of, .. } => best_of,
            Self::Beam { width, .. } => width,
        }
    }

    /// Choices to return.
    pub(crate) fn choices(&self) -> usize {
        match *self {
            Self::Sample { n, .. } | Self::Beam { n, .. } => n,
        }
    }
}

/// The most log-probabilities for a token.
const MOST_LOGPROBS: usize = 64;

impl Request {
    /// Whether tokens are told as they come: every sequence that runs is a choice.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.decoding, Decoding::Sample { n, best_of, .. } if n == best_of)
    }

    /// Checks what can be checked without the engine.
    pub(crate) fn validate(&self, vocab_size: usize) -> Result<(), Refusal> {
        if self.prompt.is_empty() {
            return Err(Refusal::EmptyPrompt);
        }
        for (what, tokens) in [("prompt", &self.prompt), ("source", &self.source), ("stop tokens", &self.stop_tokens)] {
            if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
                return Err(Refusal::Token { what, token, vocab_size });
            }
        }
        let (n, sequences) = (self.decoding.choices(), self.decoding.sequences());
        let value = |what, given: usize, fits: bool, needed: &str| match fits {
            true => Ok(()),
            false => Err(Refusal::Value { what, given: given as f64, needed: needed.to_owned() }),
        };
        value("n", n, n >= 1, "at least 1")?;
        let what = if matches!(self.decoding, Decoding::Beam { .. }) { "width" } else { "best_of" };
        value(what, sequences, sequences >= n, &format!("at least n, which is {n}"))?;
        for (what, top) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            let top = top.unwrap_or(0);
            value(what, top, top <= MOST_LOGPROBS, &format!("at most {MOST_LOGPROBS}"))?;
        }
        self.validate_decoding(vocab_size)
    }

    fn validate_decoding(&self, vocab_size: usize) -> Result<(), Refusal> {
        let refused = |e: regard_nn::Error| Refusal::Sampling(e.to_string());
        match &self.decoding {
            Decoding::Sample { sampling, adjustments, .. } => {
                if let Some(&(token, _)) = adjustments.logit_bias.iter().find(|(token, _)| *token as usize >= vocab_size) {
                    return Err(Refusal::Token { what: "logit bias", token, vocab_size });
                }
                Stop::new(&self.stop).map_err(refused)?;
                Sampler::with(*sampling, adjustments.clone(), &[], 0).map(drop).map_err(refused)
            }
            Decoding::Beam { length_penalty, .. } => {
                if !self.stop.is_empty() {
                    return Err(Refusal::Beam { what: "stop" });
                }
                let (given, needed) = (f64::from(*length_penalty), "a finite number".to_owned());
                if !length_penalty.is_finite() {
                    return Err(Refusal::Value { what: "length_penalty", given, needed });
                }
                Ok(())
            }
        }
    }
}

//! One text on its way: its tokens, how many of them are in its pages, and what was told of it.

use regard_nn::{FinishReason, Sampler, Sampling, Stop};

use crate::output::log_sum_exp;
use crate::{Choice, Decoding, Detokenizer, Logprobs, Request, RunnerError, Table};

/// A continuation of a prompt.
#[derive(Debug)]
pub(crate) struct Sequence<T> {
    pub(crate) choice: usize,
    /// The prompt and what follows it.
    pub(crate) tokens: Vec<u32>,
    /// Tokens whose keys and values are in the pages.
    pub(crate) computed: usize,
    /// One for each group; none without pages.
    pub(crate) tables: Vec<Table>,
    prompt: usize,
    sampler: Sampler,
    text: T,
    stop: Stop,
    told: String,
    logprobs: Vec<Logprobs>,
    /// The sum of the tokens' log-probabilities, where choices are ranked by it.
    pub(crate) total: f64,
    /// Why it ended, if it did.
    pub(crate) finish_reason: Option<FinishReason>,
    /// The best continuations, once the last token's logits are known.
    pub(crate) continuations: Option<Vec<(Logprobs, f64)>>,
}

/// What one more token did.
pub(crate) struct Told {
    pub(crate) text: String,
    pub(crate) logprobs: Option<Logprobs>,
}

impl<T: Clone> Sequence<T> {
    /// A choice of a request that was found valid.
    pub(crate) fn new(request: &Request, choice: usize, text: T) -> Result<Self, RunnerError> {
        let sampler = match &request.decoding {
            Decoding::Sample { sampling, adjustments, .. } => {
                Sampler::with(*sampling, adjustments.clone(), &request.prompt, choice as u64)?
            }
            Decoding::Beam { .. } => Sampler::new(Sampling::default(), &[])?,
        };
        Ok(Self {
            choice,
            tokens: request.prompt.clone(),
            computed: 0,
            tables: Vec::new(),
            prompt: request.prompt.len(),
            sampler,
            text,
            stop: Stop::new(&request.stop)?,
            told: String::new(),
            logprobs: Vec::new(),
            total: 0.0,
            finish_reason: None,
            continuations: None,
        })
    }

    /// Tokens that are not in the pages yet.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The last token.
    pub(crate) fn last(&self) -> u32 {
        self.tokens[self.tokens.len() - 1]
    }

    /// Tokens generated.
    pub(crate) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// The same text once more, over pages of its own.
    pub(crate) fn fork(&self, tables: Vec<Table>) -> Self {
        Self {
            choice: self.choice,
            tokens: self.tokens.clone(),
            computed: self.computed,
            tables,
            prompt: self.prompt,
            sampler: self.sampler.clone(),
            text: self.text.clone(),
            stop: self.stop.clone(),
            told: self.told.clone(),
            logprobs: self.logprobs.clone(),
            total: self.total,
            finish_reason: None,
            continuations: None,
        }
    }

    /// Draws the next token from its logits.
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
        request: &Request,
        detokenizer: &impl Detokenizer<Text = T>,
    ) -> Result<Told, RunnerError> {
        let token = self.sampler.next(logits)?;
        if !request.streams() {
            self.total += f64::from(logits[token as usize]) - log_sum_exp(logits);
        }
        let logprobs = request.logprobs.map(|top| Logprobs::of(logits, token, top));
        self.push(token, logprobs, request, detokenizer)
    }

    /// Adds a token.
    pub(crate) fn push(
        &mut self,
        token: u32,
        logprobs: Option<Logprobs>,
        request: &Request,
        detokenizer: &impl Detokenizer<Text = T>,
    ) -> Result<Told, RunnerError> {
        self.tokens.push(token);
        self.logprobs.extend(logprobs.clone());
        let ends = request.stop_tokens.contains(&token);
        let piece = if ends { String::new() } else { detokenizer.push(&mut self.text, token)? };
        let (mut text, stopped) = self.stop.push(&piece);
        let mut finish_reason = (ends || stopped).then_some(FinishReason::Stop);
        if finish_reason.is_none() && self.generated() >= request.max_tokens {
            finish_reason = Some(FinishReason::Length);
        }
        if finish_reason.is_some() && !stopped {
            let (rest, stopped) = self.stop.push(&detokenizer.finish(&mut self.text)?);
            text += &rest;
            if stopped {
                finish_reason = Some(FinishReason::Stop);
            } else {
                text += &self.stop.take();
            }
        }
        self.told += &text;
        self.finish_reason = finish_reason;
        Ok(Told { text, logprobs })
    }

    /// What came of it.
    pub(crate) fn into_choice(self, finish_reason: FinishReason, score: f64) -> Choice {
        Choice { tokens: self.tokens[self.prompt..].to_vec(), text: self.told, logprobs: self.logprobs, finish_reason, score }
    }
}

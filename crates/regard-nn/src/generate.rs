//! Generation: prompt → prefill → (sample → decode)* → text, streamed piece by piece.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::network::Writing;
use crate::stop::Stop;
use crate::{Model, Prompt, Result, Sampler, Sampling};

/// What is asked of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Most tokens to generate; the context ends it earlier.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Whether keys and values are kept in a cache. Without it every step reads the whole text again, to the same result.
    pub cached: bool,
}

impl Default for Generate {
    fn default() -> Self {
        Self { max_tokens: 256, sampling: Sampling::default(), stop: Vec::new(), cached: true }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A token that ends texts, or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The interrupt flag, or a listener that had enough.
    Interrupted,
}

/// What came of a generation.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Generation {
    /// The continuation, without the prompt.
    pub text: String,
    /// The tokens generated.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Speed of reading the prompt.
    pub prompt_tokens_per_second: f64,
    /// Speed of the tokens after the first, which comes of the prompt.
    pub generation_tokens_per_second: f64,
    /// Bytes of the cache pages in use at the end.
    pub kv_bytes: usize,
    /// The attention kernel that decoded.
    pub kernel: String,
    /// Why that kernel.
    pub why: String,
}

impl Model {
    /// Continues `prompt`, or replies to it if the model is an encoder with a decoder. `listener` gets every piece of text as soon as it is certain, and may end the generation;
    /// so may `interrupt`, from another thread or a signal handler. Either way the text so far is returned.
    ///
    /// # Errors
    /// When the prompt is longer than the context, a number is outside its domain, or a stop string is empty.
    pub fn generate<'a>(
        &self,
        prompt: impl Into<Prompt<'a>>,
        options: &Generate,
        interrupt: &AtomicBool,
        listener: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let prompt = self.prompt(prompt.into())?;
        let mut writer = Writer { text: String::new(), stop: Stop::new(&options.stop)?, listener, ended: None };
        let begin = self.network().begin(&prompt);
        let mut sampler = Sampler::new(options.sampling, &begin)?;
        let mut reader = Reader::new(self, &prompt, begin, options, interrupt)?;
        let mut stream = self.tokenizer().stream(&reader.tokens);
        let limit = reader.tokens.len() + options.max_tokens.min(self.context() - reader.tokens.len());
        let finish_reason = loop {
            if reader.tokens.len() >= limit {
                break FinishReason::Length;
            }
            let Some(logits) = reader.next_logits()? else { break FinishReason::Interrupted };
            let token = sampler.next(&logits)?;
            reader.tokens.push(token);
            if self.ends().contains(&token) {
                break FinishReason::Stop;
            }
            if let Some(reason) = writer.write(&stream.push(token)?) {
                break reason;
            }
        };
        let finish_reason = writer.finish(&stream.finish()?).unwrap_or(finish_reason);
        reader.report(writer.text, finish_reason)
    }
}

/// Reads tokens into the model.
struct Reader<'a> {
    writing: Writing<'a>,
    cached: bool,
    interrupt: &'a AtomicBool,
    /// What was generated, after what stands before it.
    tokens: Vec<u32>,
    /// How many stand before it.
    first: usize,
    prompt_tokens: usize,
    prefill: Duration,
    decode: Duration,
}

/// Tokens read between two looks at the interrupt flag.
const CHUNK: usize = 256;

impl<'a> Reader<'a> {
    fn new(model: &'a Model, prompt: &[u32], tokens: Vec<u32>, options: &Generate, interrupt: &'a AtomicBool) -> Result<Self> {
        let (began, first) = (Instant::now(), tokens.len());
        let writing = model.network().write(prompt, first.saturating_add(options.max_tokens))?;
        let (prefill, decode) = (began.elapsed(), Duration::ZERO);
        Ok(Self { writing, cached: options.cached, interrupt, tokens, first, prompt_tokens: prompt.len(), prefill, decode })
    }

    /// Reads what the cache does not hold; none when interrupted.
    fn next_logits(&mut self) -> Result<Option<Vec<f32>>> {
        let began = Instant::now();
        if !self.cached {
            self.writing.rewind(0)?;
        }
        let mut logits = None;
        while self.writing.len() < self.tokens.len() {
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let unread = &self.tokens[self.writing.len()..];
            logits = Some(self.writing.step(&unread[..unread.len().min(CHUNK)])?);
        }
        let clock = if self.tokens.len() == self.first { &mut self.prefill } else { &mut self.decode };
        *clock += began.elapsed();
        Ok(logits)
    }

    fn report(mut self, text: String, finish_reason: FinishReason) -> Result<Generation> {
        let (kernel, why) = self.writing.kernel()?;
        let tokens = self.tokens.split_off(self.first);
        let rate = |tokens: usize, time: Duration| if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() };
        Ok(Generation {
            prompt_tokens: self.prompt_tokens,
            prompt_tokens_per_second: rate(self.prompt_tokens, self.prefill),
            generation_tokens_per_second: rate(tokens.len().saturating_sub(1), self.decode),
            kv_bytes: self.writing.used_bytes(),
            text,
            tokens,
            finish_reason,
            kernel,
            why,
        })
    }
}

/// Collects the text and passes it on.
struct Writer<'a> {
    text: String,
    stop: Stop,
    listener: &'a mut dyn FnMut(&str) -> ControlFlow<()>,
    /// Why no more text is wanted.
    ended: Option<FinishReason>,
}

impl Writer<'_> {
    /// Adds a piece; a reason when the text ends with it.
    fn write(&mut self, piece: &str) -> Option<FinishReason> {
        if self.ended.is_none() {
            let (certain, stopped) = self.stop.push(piece);
            self.ended = stopped.then_some(FinishReason::Stop);
            self.tell(&certain);
        }
        self.ended
    }

    /// Adds the last piece and what was held back, unless the text has ended.
    fn finish(&mut self, piece: &str) -> Option<FinishReason> {
        if self.write(piece).is_none() {
            let held = self.stop.take();
            self.tell(&held);
        }
        self.ended
    }

    fn tell(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            if (self.listener)(text).is_break() {
                self.ended = self.ended.or(Some(FinishReason::Interrupted));
            }
        }
    }
}

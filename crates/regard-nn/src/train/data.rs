//! The text of a run: read, split, turned into tokens, and drawn as windows in an order that the seed fixes.

use std::path::Path;

use tokenizers::Tokenizer;

use super::digest::digest;
use super::{TrainConfig, TrainError, tokenizer};
use crate::rng::Rng;

/// The text, cut into a training part and, at its end, a validation part.
pub struct Text {
    text: String,
    cut: usize,
}

impl Text {
    /// Reads `path` and keeps its last `validation` fraction of bytes apart, from a character boundary on.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or is not UTF-8 (the error names the first wrong byte).
    pub fn read(path: &Path, validation: f64) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(|source| TrainError::Read { path: path.into(), source })?;
        if bytes.is_empty() {
            return Err(TrainError::EmptyText { path: path.into() });
        }
        let text = String::from_utf8(bytes)
            .map_err(|wrong| TrainError::NotUtf8 { path: path.into(), offset: wrong.utf8_error().valid_up_to() })?;
        let wanted = ((text.len() as f64) * (1.0 - validation)) as usize;
        let cut = (wanted..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        Ok(Self { text, cut })
    }

    /// The part that is learned from.
    pub fn train(&self) -> &str {
        &self.text[..self.cut]
    }

    /// The part that is measured on.
    pub fn validation(&self) -> &str {
        &self.text[self.cut..]
    }

    /// Fingerprint of the whole text.
    pub fn digest(&self) -> String {
        digest(self.text.as_bytes())
    }
}

/// Token windows: `tokens` of shape [rows, length] and the `targets` one position later, row after row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// What it must predict.
    pub targets: Vec<u32>,
    /// Number of windows.
    pub rows: usize,
}

impl Batch {
    fn collect(windows: &[&[u32]]) -> Self {
        let tokens = windows.iter().flat_map(|window| &window[..window.len() - 1]).copied().collect();
        let targets = windows.iter().flat_map(|window| &window[1..]).copied().collect();
        Self { tokens, targets, rows: windows.len() }
    }
}

/// The tokens of both parts.
pub struct Corpus {
    train: Vec<u32>,
    /// The last training token, then the validation tokens: each of them is predicted exactly once.
    validation: Vec<u32>,
    validation_bytes: usize,
    context: usize,
    batch: usize,
    seed: u64,
    /// The order of the windows of one epoch, kept because an epoch lasts many steps.
    order: Option<(u64, Epoch)>,
}

struct Epoch {
    offset: usize,
    windows: Vec<u32>,
}

impl Corpus {
    /// Encodes both parts of `text`.
    ///
    /// # Errors
    /// [`TrainError::TextTooShort`] when the training part does not fill two windows, or the validation part is empty.
    pub fn new(text: &Text, tokenizer: &Tokenizer, config: &TrainConfig) -> Result<Self, TrainError> {
        let train = tokenizer::encode(tokenizer, text.train())?;
        let validation = tokenizer::encode(tokenizer, text.validation())?;
        let needed = 2 * config.context;
        if train.len() < needed || validation.is_empty() {
            return Err(TrainError::TextTooShort {
                train: train.len(),
                validation: validation.len(),
                needed,
                context: config.context,
            });
        }
        Ok(Self {
            validation: train.last().copied().into_iter().chain(validation).collect(),
            validation_bytes: text.validation().len(),
            train,
            context: config.context,
            batch: config.batch,
            seed: config.seed,
            order: None,
        })
    }

    /// Tokens that are learned from.
    pub fn train_tokens(&self) -> usize {
        self.train.len()
    }

    /// Tokens that are measured on.
    pub fn validation_tokens(&self) -> usize {
        self.validation.len() - 1
    }

    /// Bytes of the text that the validation tokens spell.
    pub fn validation_bytes(&self) -> usize {
        self.validation_bytes
    }

    /// The windows of `step`: a function of the seed and the step alone, so a resumed run needs no other state.
    ///
    /// An epoch cuts the tokens into consecutive windows from an offset drawn anew, and visits them in an order drawn
    /// anew: over the epochs every token is seen equally often, each time at another place of its window.
    pub fn batch(&mut self, step: usize) -> Batch {
        let per_epoch = self.windows_per_epoch();
        let first = step * self.batch;
        let starts: Vec<usize> =
            (first..first + self.batch).map(|draw| self.window_start((draw / per_epoch) as u64, draw % per_epoch)).collect();
        let windows: Vec<&[u32]> = starts.iter().map(|&start| &self.train[start..=start + self.context]).collect();
        Batch::collect(&windows)
    }

    /// Windows of one pass over the training tokens.
    pub fn windows_per_epoch(&self) -> usize {
        (self.train.len() - self.context) / self.context
    }

    fn window_start(&mut self, epoch: u64, index: usize) -> usize {
        if self.order.as_ref().is_none_or(|(kept, _)| *kept != epoch) {
            self.order = Some((epoch, self.draw_epoch(epoch)));
        }
        let drawn = self.order.as_ref().map(|(_, drawn)| (drawn.offset, drawn.windows[index] as usize));
        drawn.map_or(0, |(offset, window)| offset + window * self.context)
    }

    fn draw_epoch(&self, epoch: u64) -> Epoch {
        let mut rng = Rng::new(self.seed, epoch);
        let offset = below(&mut rng, self.context);
        let mut windows: Vec<u32> = (0..self.windows_per_epoch() as u32).collect();
        for last in (1..windows.len()).rev() {
            windows.swap(last, below(&mut rng, last + 1)); // Fisher–Yates
        }
        Epoch { offset, windows }
    }

    /// The validation tokens in consecutive windows, `rows` at a time; the last window is a batch of its own when it
    /// is shorter.
    pub fn validation(&self, rows: usize) -> impl Iterator<Item = Batch> + '_ {
        let window = |start: usize| &self.validation[start..=(start + self.context).min(self.validation.len() - 1)];
        let windows: Vec<&[u32]> = (0..self.validation_tokens()).step_by(self.context).map(window).collect();
        let full = self.validation_tokens() / self.context;
        let (whole, rest) = (windows[..full].to_vec(), windows[full..].to_vec());
        let batches: Vec<Batch> = whole.chunks(rows).chain(rest.chunks(1)).map(Batch::collect).collect();
        batches.into_iter()
    }
}

/// A number in `0..n`; the bias, n / 2⁶⁴, is far below anything a run could notice.
fn below(rng: &mut Rng, n: usize) -> usize {
    ((u128::from(rng.bits()) * n as u128) >> 64) as usize
}

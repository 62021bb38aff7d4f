//! A model as it is distributed: configuration, weights, tokenizer and generation defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::Checkpoint;
use crate::config::Ids;
use crate::weights::read_file;
use crate::{ChatTemplate, Decoder, DecoderConfig, Error, Precision, Prompt, Result, Sampling, Tokenizer};

/// A language model with its tokenizer: text in, text out.
#[derive(Debug)]
pub struct Model {
    decoder: Decoder,
    tokenizer: Tokenizer,
    /// Tokens that end a text.
    ends: Vec<u32>,
    sampling: Sampling,
    /// Where it was read from.
    dir: Option<PathBuf>,
}

/// What `generation_config.json` may say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Defaults {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    eos_token_id: Ids,
}

impl Defaults {
    /// Greedy unless `do_sample` says otherwise, as Hugging Face reads it.
    fn sampling(&self) -> Sampling {
        let greedy = Sampling::default();
        let sampled = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(greedy.top_k),
            top_p: self.top_p.unwrap_or(greedy.top_p),
            min_p: self.min_p.unwrap_or(greedy.min_p),
            ..greedy
        };
        let base = if self.do_sample == Some(true) { sampled } else { greedy };
        Sampling { repetition_penalty: self.repetition_penalty.unwrap_or(1.0), ..base }
    }
}

impl Model {
    /// As [`Model::open_in`], with the weights as they are in the files.
    ///
    /// # Errors
    /// As [`Model::open_in`].
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_in(dir, None)
    }

    /// Reads a Hugging Face directory: `config.json`, `model.safetensors` or its shards, `tokenizer.json`, and
    /// `generation_config.json` if there. The weights are used in `precision`, if one is given.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, another kind of model, impossible sizes, damaged weights, a tokenizer that
    /// does not fit.
    pub fn open_in(dir: &Path, precision: Option<Precision>) -> Result<Self> {
        let path = dir.join("config.json");
        let config = DecoderConfig::from_json(&String::from_utf8_lossy(&read_file(&path)?)).map_err(|e| e.within(&path))?;
        let tokenizer = Tokenizer::open(&dir.join("tokenizer.json"))?;
        let path = dir.join("generation_config.json");
        let defaults = if path.exists() { Some(read_file(&path)?) } else { None };
        // The tokenizer is checked before the weights, which may be large, are read.
        tokenizer.check_fits(config.vocab_size).map_err(|e| e.within(dir))?;
        let checkpoint = Checkpoint::open(dir)?.in_precision(precision);
        let model = Self::assemble(config, &checkpoint, tokenizer, defaults.as_deref()).map_err(|e| e.within(dir))?;
        Ok(Self { dir: Some(dir.to_owned()), ..model })
    }

    /// A model from the contents of its files, for one that is embedded in a program.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(config: &[u8], weights: &[u8], tokenizer: &[u8], generation_config: Option<&[u8]>) -> Result<Self> {
        let config = DecoderConfig::from_json(&String::from_utf8_lossy(config))?;
        let tokenizer = Tokenizer::from_bytes(tokenizer)?;
        let checkpoint = Checkpoint::new(vec![Box::new(weights)])?;
        Self::assemble(config, &checkpoint, tokenizer, generation_config)
    }

    fn assemble(config: DecoderConfig, weights: &Checkpoint<'_>, tokenizer: Tokenizer, defaults: Option<&[u8]>) -> Result<Self> {
        tokenizer.check_fits(config.vocab_size)?;
        let json = |source| Error::Json { what: "generation_config.json".to_owned(), source };
        let defaults: Defaults =
            defaults.map_or_else(|| Ok(Defaults::default()), |text| serde_json::from_slice(text).map_err(json))?;
        let sampling = defaults.sampling();
        sampling.validate()?;
        let mut ends = defaults.eos_token_id.into_vec();
        ends.extend(&config.eos_token_id);
        Ok(Self { decoder: Decoder::load(config, weights)?, tokenizer, ends, sampling, dir: None })
    }

    /// The transformer.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The most tokens that a prompt and its continuation may have together.
    pub fn context(&self) -> usize {
        self.decoder.config().max_position_embeddings
    }

    /// The sampling that the model's authors recommend, or greedy.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// The chat template in the model's directory; none when it has none or the model came from bytes. It is read here, so
    /// that a template that cannot be used leaves the rest of the model usable.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_dir`].
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        self.dir.as_deref().map_or(Ok(None), ChatTemplate::from_dir)
    }

    /// Whether a token ends the text.
    pub(crate) fn ends_with(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens of a prompt, checked against the context.
    pub(crate) fn prompt(&self, prompt: Prompt<'_>) -> Result<Vec<u32>> {
        let mut tokens = prompt.tokens(&self.tokenizer)?;
        if tokens.is_empty() {
            tokens.push(self.decoder.config().bos_token_id.ok_or(Error::EmptyPrompt)?);
        }
        let context = self.context();
        if tokens.len() > context {
            return Err(Error::PromptTooLong { tokens: tokens.len(), context });
        }
        Ok(tokens)
    }
}

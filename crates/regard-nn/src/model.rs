//! A model as it is distributed: configuration, weights, tokenizer and generation defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::Checkpoint;
use crate::config::Ids;
use crate::files::Files;
use crate::network::{Network, NetworkConfig};
use crate::{ChatTemplate, Decoder, Error, Precision, Prompt, Result, Sampling, T5, Tokenizer};

/// A language model with its tokenizer: text in, text out.
#[derive(Debug)]
pub struct Model {
    network: Network,
    tokenizer: Tokenizer,
    /// Tokens that end a text.
    ends: Vec<u32>,
    sampling: Sampling,
    /// Where it was read from.
    path: Option<PathBuf>,
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
    decoder_start_token_id: Option<u32>,
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
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_in(path, None)
    }

    /// Reads a Hugging Face directory: `config.json`, `model.safetensors` or its shards, `tokenizer.json`, and
    /// `generation_config.json` if there; or a GGUF file, which holds all of them.
    ///
    /// The weights are used in `precision`, if one is given. If not, f32 and bf16 stay what they are, f16 becomes f32, which holds it
    /// exactly, and quantised weights become bf16, which adds less than half of the error that they have.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, another kind of model, impossible sizes, damaged weights, a tokenizer that
    /// does not fit.
    pub fn open_in(path: &Path, precision: Option<Precision>) -> Result<Self> {
        let files = Files::open(path)?;
        let config = files.config(NetworkConfig::from_json)?;
        // The tokenizer is checked before the weights, which may be large, are read.
        let (tokenizer, defaults) = (files.tokenizer(config.vocab_size())?, files.generation_config()?);
        let assemble = |checkpoint: &Checkpoint<'_>| Self::assemble(config, checkpoint, tokenizer, defaults.as_deref());
        Ok(Self { path: Some(path.to_owned()), ..files.weights(precision, assemble)? })
    }

    /// A model from the contents of its files, for one that is embedded in a program.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(config: &[u8], weights: &[u8], tokenizer: &[u8], generation_config: Option<&[u8]>) -> Result<Self> {
        let config = NetworkConfig::from_json(&String::from_utf8_lossy(config))?;
        let tokenizer = Tokenizer::from_bytes(tokenizer)?;
        tokenizer.check_fits(config.vocab_size())?;
        let checkpoint = Checkpoint::new(vec![Box::new(weights)])?;
        Self::assemble(config, &checkpoint, tokenizer, generation_config)
    }

    fn assemble(
        mut config: NetworkConfig,
        weights: &Checkpoint<'_>,
        tokenizer: Tokenizer,
        defaults: Option<&[u8]>,
    ) -> Result<Self> {
        let json = |source| Error::Json { what: "generation_config.json".to_owned(), source };
        let defaults: Defaults =
            defaults.map_or_else(|| Ok(Defaults::default()), |text| serde_json::from_slice(text).map_err(json))?;
        let sampling = defaults.sampling();
        sampling.validate()?;
        let mut ends = defaults.eos_token_id.into_vec();
        ends.extend(config.ends());
        if let Some(start) = defaults.decoder_start_token_id {
            config.start_with(start)?;
        }
        Ok(Self { network: Network::load(config, weights)?, tokenizer, ends, sampling, path: None })
    }

    /// The transformer, where it is a decoder alone.
    pub fn decoder(&self) -> Option<&Decoder> {
        if let Network::Decoder(decoder) = &self.network { Some(decoder) } else { None }
    }

    /// The transformer, where it is an encoder with a decoder.
    pub fn t5(&self) -> Option<&T5> {
        if let Network::T5(t5) = &self.network { Some(t5) } else { None }
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The most tokens that a prompt and its continuation may have together; `usize::MAX` for a T5, whose positions are relative.
    pub fn context(&self) -> usize {
        self.network.context()
    }

    /// The sampling that the model's authors recommend, or greedy.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// The chat template among the model's files; none when it has none or the model came from bytes. It is read here, so
    /// that a template that cannot be used leaves the rest of the model usable.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_dir`] and [`Gguf::chat_template`](crate::Gguf::chat_template).
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        self.path.as_deref().map_or(Ok(None), |path| Files::open(path)?.chat_template())
    }

    /// The tokens that end a text, by the configuration and the generation defaults.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The tokens of a prompt, checked against the context.
    pub(crate) fn prompt(&self, prompt: Prompt<'_>) -> Result<Vec<u32>> {
        let mut tokens = prompt.tokens(&self.tokenizer)?;
        if tokens.is_empty() {
            let begins = self.decoder().and_then(|decoder| decoder.config().bos_token_id);
            tokens.push(begins.ok_or(Error::EmptyPrompt)?);
        }
        let context = self.context();
        if tokens.len() > context {
            return Err(Error::PromptTooLong { tokens: tokens.len(), context });
        }
        Ok(tokens)
    }
}

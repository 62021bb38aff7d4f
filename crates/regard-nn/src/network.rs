//! The transformer of a model: a decoder that goes on with a text, or an encoder and a decoder that replies to it.

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::decoder::{OR_T5, SUPPORTED};
use crate::{Decoder, DecoderCache, DecoderConfig, Error, Result, T5, T5Cache, T5Config};

/// The shape of either.
pub(crate) enum NetworkConfig {
    Decoder(DecoderConfig),
    T5(T5Config),
}

/// Either, with its weights.
#[derive(Debug)]
pub(crate) enum Network {
    Decoder(Decoder),
    T5(T5),
}

/// A text that is being written: the model, and the keys and values of what it has read.
pub(crate) enum Writing<'a> {
    Decoder(&'a Decoder, DecoderCache),
    T5(&'a T5, T5Cache),
}

impl NetworkConfig {
    /// By the `model_type` of a `config.json`.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        let model_type = serde_json::from_str::<Value>(text).ok().and_then(|json| Some(json.get("model_type")?.as_str()? == "t5"));
        if model_type == Some(true) {
            T5Config::from_json(text).map(Self::T5)
        } else {
            DecoderConfig::from_json(text).map(Self::Decoder).map_err(|error| match error {
                Error::Unsupported { what, given, supported: SUPPORTED } => Error::Unsupported { what, given, supported: OR_T5 },
                other => other,
            })
        }
    }

    pub(crate) fn vocab_size(&self) -> usize {
        match self {
            Self::Decoder(config) => config.vocab_size,
            Self::T5(config) => config.vocab_size,
        }
    }

    /// Begins replies with another token than `config.json` says.
    pub(crate) fn start_with(&mut self, token: u32) -> Result<()> {
        match self {
            Self::T5(config) if token as usize >= config.vocab_size => Err(Error::Token { token, vocab_size: config.vocab_size }),
            Self::T5(config) => {
                config.decoder_start_token_id = token;
                Ok(())
            }
            Self::Decoder(_) => Ok(()), // goes on with the prompt itself
        }
    }

    /// The tokens that end a text.
    pub(crate) fn ends(&self) -> &[u32] {
        match self {
            Self::Decoder(config) => &config.eos_token_id,
            Self::T5(config) => &config.eos_token_id,
        }
    }
}

impl Network {
    pub(crate) fn load(config: NetworkConfig, checkpoint: &Checkpoint<'_>) -> Result<Self> {
        Ok(match config {
            NetworkConfig::Decoder(config) => Self::Decoder(Decoder::load(config, checkpoint)?),
            NetworkConfig::T5(config) => Self::T5(T5::load(config, checkpoint)?),
        })
    }

    /// The most tokens of a text.
    pub(crate) fn context(&self) -> usize {
        match self {
            Self::Decoder(decoder) => decoder.config().max_position_embeddings,
            Self::T5(_) => usize::MAX,
        }
    }

    /// What stands before the first token that is written: the prompt, or the token that a reply begins with.
    pub(crate) fn begin(&self, prompt: &[u32]) -> Vec<u32> {
        match self {
            Self::Decoder(_) => prompt.to_vec(),
            Self::T5(t5) => vec![t5.config().decoder_start_token_id],
        }
    }

    /// A text of at most `tokens` tokens, those of [`Network::begin`] among them.
    pub(crate) fn write(&self, prompt: &[u32], tokens: usize) -> Result<Writing<'_>> {
        Ok(match self {
            Self::Decoder(decoder) => Writing::Decoder(decoder, decoder.cache(tokens)?),
            Self::T5(t5) => Writing::T5(t5, t5.cache(&t5.encode(prompt)?, tokens)?),
        })
    }
}

/// Runs `$body` with the model and the cache of a [`Writing`], whichever they are.
macro_rules! with {
    ($writing:expr, ($model:pat, $cache:pat) => $body:expr) => {
        match $writing {
            Writing::Decoder($model, $cache) => $body,
            Writing::T5($model, $cache) => $body,
        }
    };
}

impl Writing<'_> {
    /// Tokens read so far.
    pub(crate) fn len(&self) -> usize {
        with!(self, (_, cache) => cache.len())
    }

    pub(crate) fn rewind(&mut self, len: usize) -> Result<()> {
        with!(self, (_, cache) => cache.rewind(len))
    }

    /// Reads tokens: logits of the next one.
    pub(crate) fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        with!(self, (model, cache) => model.step(tokens, cache))
    }

    /// The kernel that reads one token, and the reason for the choice.
    pub(crate) fn kernel(&self) -> Result<(String, String)> {
        with!(self, (model, cache) => model.kernel(cache))
    }

    /// Bytes of the keys and values in use.
    pub(crate) fn used_bytes(&self) -> usize {
        match self {
            Self::Decoder(_, cache) => cache.used_bytes(),
            Self::T5(_, cache) => cache.used_bytes() + cache.beside.bytes(),
        }
    }
}

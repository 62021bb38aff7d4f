//! An encoder's weights, by the names that BERT gives them.

use super::{Encoder, EncoderConfig, Layer};
use crate::checkpoint::Checkpoint;
use crate::decoder::NormKind;
use crate::decoder::feed_forward::Dense;
use crate::parts::{Matrix, Norm};
use crate::values::Values;
use crate::{Error, Result};

/// What tensors are read by.
struct Loader<'a> {
    config: &'a EncoderConfig,
    checkpoint: &'a Checkpoint<'a>,
    /// What the names begin with: `bert.` in the file of a model with a head.
    prefix: &'static str,
}

/// Reads all weights of an encoder.
pub(crate) fn load(config: EncoderConfig, checkpoint: &Checkpoint<'_>) -> Result<Encoder> {
    let prefix = if checkpoint.has(&format!("bert.{WORDS}.weight")) { "bert." } else { "" };
    let encoder = Loader { config: &config, checkpoint, prefix }.encoder()?;
    match checkpoint.left_over(|name| is_unused(name, prefix)) {
        Some(name) => Err(Error::UnknownWeight { name }),
        None => Ok(encoder),
    }
}

const WORDS: &str = "embeddings.word_embeddings";

/// The numbers 0, 1, 2, … of the positions, and what comes after the last layer: the pooler and the heads.
fn is_unused(name: &str, prefix: &str) -> bool {
    match name.strip_prefix(prefix) {
        Some(name) => ["embeddings.position_ids", "pooler.", "cls."].iter().any(|begin| name.starts_with(begin)),
        None => true,
    }
}

impl Loader<'_> {
    fn encoder(&self) -> Result<Encoder> {
        let config = self.config;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let table = |name: &str, rows: usize| self.at(&format!("{name}.weight"), &[rows, hidden]);
        let words = table(WORDS, vocab)?;
        Ok(Encoder {
            narrow: words.is_bf16(),
            words: Matrix::new(&words, None, vocab, hidden)?,
            positions: table("embeddings.position_embeddings", config.max_position_embeddings)?.wide(),
            types: table("embeddings.token_type_embeddings", config.type_vocab_size)?.wide(),
            norm: self.norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers).map(|layer| self.layer(layer)).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    fn layer(&self, layer: usize) -> Result<Layer> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let qkv = ["query", "key", "value"].map(|side| name(&format!("attention.self.{side}")));
        Ok(Layer {
            qkv: self.matrix(&qkv, hidden, hidden)?,
            out: self.matrix(&[name("attention.output.dense")], hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            feed_forward: Dense {
                gate: None,
                up: self.matrix(&[name("intermediate.dense")], inner, hidden)?,
                down: self.matrix(&[name("output.dense")], hidden, inner)?,
                activation: self.config.hidden_act,
            },
            norm: self.norm(&name("output.LayerNorm"))?,
        })
    }

    /// Matrices of the same shape as one, below each other, with their biases.
    fn matrix(&self, names: &[String], outputs: usize, inputs: usize) -> Result<Matrix> {
        let read = |end: &str, shape: &[usize]| {
            let mut parts = names.iter().map(|name| self.at(&format!("{name}.{end}"), shape));
            let first = parts.next().unwrap_or(Ok(Values::F32(Vec::new())))?;
            parts.try_fold(first, |all, part| Ok::<_, Error>(all.and(part?)))
        };
        let (weight, bias) = (read("weight", &[outputs, inputs])?, read("bias", &[outputs])?);
        Matrix::new(&weight, Some(bias.wide()), names.len() * outputs, inputs)
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        let side = |new: &str, old: &str| {
            let old = format!("{name}.{old}");
            let name = if self.checkpoint.has(&format!("{}{old}", self.prefix)) { old } else { format!("{name}.{new}") };
            Ok::<_, Error>(self.at(&name, &[self.config.hidden_size])?.wide())
        };
        // Files from before 2019 have TensorFlow's names.
        let (weight, bias) = (side("weight", "gamma")?, side("bias", "beta")?);
        Ok(Norm { kind: NormKind::Layer, eps: self.config.layer_norm_eps as f32, weight, bias })
    }

    fn at(&self, name: &str, needed: &[usize]) -> Result<Values> {
        self.checkpoint.values(&format!("{}{name}", self.prefix), needed)
    }
}

//! A T5's weights by their names.

use super::T5;
use super::attention::{CrossAttention, SelfAttention};
use super::config::T5Config;
use super::stack::{Block, Cross, Stack};
use crate::checkpoint::Checkpoint;
use crate::decoder::feed_forward::Dense;
use crate::parts::{Matrix, Norm};
use crate::values::Values;
use crate::{Error, NormKind, Result};

/// What tensors are read by.
struct Loader<'a> {
    config: &'a T5Config,
    checkpoint: &'a Checkpoint<'a>,
}

/// Reads all weights of a T5.
pub(super) fn load(config: T5Config, checkpoint: &Checkpoint<'_>) -> Result<T5> {
    let loader = Loader { config: &config, checkpoint };
    let (vocab, width) = (config.vocab_size, config.d_model);
    let embed = loader.matrix("shared", vocab, width)?;
    let head = match !config.tie_word_embeddings || checkpoint.has("lm_head.weight") {
        true => Some(loader.matrix("lm_head", vocab, width)?),
        false => None,
    };
    let encoder = loader.stack("encoder", config.num_layers, &|_| Ok(()))?;
    let decoder = loader.stack("decoder", config.num_decoder_layers, &|block| loader.cross(block))?;
    match checkpoint.left_over(is_redundant) {
        Some(name) => Err(Error::UnknownWeight { name }),
        None => Ok(T5 { config, embed, encoder, decoder, head }),
    }
}

/// Older files keep copies of the embedding, and a table of relative positions that nothing reads.
fn is_redundant(name: &str) -> bool {
    let cross = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", cross].contains(&name)
}

impl Loader<'_> {
    /// `cross` is given what the names of a block begin with.
    fn stack<C>(&self, name: &str, layers: usize, cross: &dyn Fn(&str) -> Result<C>) -> Result<Stack<C>> {
        let block = |layer: usize| {
            let block = format!("{name}.block.{layer}");
            let cross = cross(&block)?;
            self.block(&block, if name == "encoder" { 1 } else { 2 }, cross)
        };
        Ok(Stack {
            bias: self.bias(name)?,
            blocks: (0..layers).map(block).collect::<Result<_>>()?,
            norm: self.norm(&format!("{name}.final_layer_norm"))?,
        })
    }

    /// The feed-forward layer is that of the number `last`.
    fn block<C>(&self, block: &str, last: usize, cross: C) -> Result<Block<C>> {
        let inner = self.config.num_heads * self.config.d_kv;
        let part = |part: &str| format!("{block}.layer.0.SelfAttention.{part}");
        Ok(Block {
            attention_norm: self.norm(&format!("{block}.layer.0.layer_norm"))?,
            attention: SelfAttention {
                qkv: self.together(&[part("q"), part("k"), part("v")], inner, self.config.d_model)?,
                out: self.matrix(&part("o"), self.config.d_model, inner)?,
            },
            cross,
            feed_forward_norm: self.norm(&format!("{block}.layer.{last}.layer_norm"))?,
            feed_forward: self.dense(&format!("{block}.layer.{last}.DenseReluDense"))?,
        })
    }

    fn cross(&self, block: &str) -> Result<Cross> {
        let (inner, width) = (self.config.num_heads * self.config.d_kv, self.config.d_model);
        let part = |part: &str| format!("{block}.layer.1.EncDecAttention.{part}");
        let attention = CrossAttention {
            q: self.matrix(&part("q"), inner, width)?,
            kv: self.together(&[part("k"), part("v")], inner, width)?,
            out: self.matrix(&part("o"), width, inner)?,
        };
        Ok(Cross { norm: self.norm(&format!("{block}.layer.1.layer_norm"))?, attention })
    }

    fn dense(&self, name: &str) -> Result<Dense> {
        let (layer, width) = (self.config.feed_forward, self.config.d_model);
        let matrix = |part: &str| self.matrix(&format!("{name}.{part}"), layer.intermediate_size, width);
        Ok(Dense {
            gate: layer.gated.then(|| matrix("wi_0")).transpose()?,
            up: matrix(if layer.gated { "wi_1" } else { "wi" })?,
            down: self.matrix(&format!("{name}.wo"), width, layer.intermediate_size)?,
            activation: layer.activation,
        })
    }

    /// The table of a stack, `[buckets, heads]` in the file, with a row for each head.
    fn bias(&self, stack: &str) -> Result<Vec<f32>> {
        let (buckets, heads) = (self.config.relative_attention_num_buckets, self.config.num_heads);
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        Ok(self.checkpoint.values(&name, &[buckets, heads])?.transposed(heads).wide())
    }

    fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix> {
        let weight = self.checkpoint.values(&format!("{name}.weight"), &[outputs, inputs])?;
        Matrix::new(&weight, None, outputs, inputs)
    }

    /// Several matrices `[outputs, inputs]` as one.
    fn together(&self, names: &[String], outputs: usize, inputs: usize) -> Result<Matrix> {
        let empty = Values::Bf16(Vec::new());
        let add = |all: Values, name: &String| -> Result<Values> {
            Ok(all.and(self.checkpoint.values(&format!("{name}.weight"), &[outputs, inputs])?))
        };
        Matrix::new(&names.iter().try_fold(empty, add)?, None, names.len() * outputs, inputs)
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        let weight = self.checkpoint.values(&format!("{name}.weight"), &[self.config.d_model])?.wide();
        Ok(Norm { kind: NormKind::Rms, eps: self.config.layer_norm_epsilon as f32, weight, bias: Vec::new() })
    }
}

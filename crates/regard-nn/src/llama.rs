//! The decoder-only transformer of type `LlamaForCausalLM`.

use candle_core::{Device, Tensor};

use crate::ops::{self, Mask};
use crate::params::projections;
use crate::rng::mix;
use crate::tape::{Tape, Value};
use crate::{Error, Linear, LlamaConfig, MultiHeadAttention, Params, Result, RmsNorm, Rotary, SwiGlu};

/// A decoder-only transformer, to be trained; [`Decoder`](crate::Decoder) is the one that generates. It shares its weights with the [`Params`] it was made from.
///
/// ```text
///   x = embed(tokens)
///   for each block:  x += attention(norm(x));  x += mlp(norm(x))
///   logits = head(norm(x))
/// ```
///
/// Source: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", §2.2.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    embed: Tensor,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// The embedding itself when tied.
    head: Linear,
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: MultiHeadAttention,
    mlp_norm: RmsNorm,
    mlp: SwiGlu,
}

/// The noise of one training step. Which elements fall is a function of the seed, the place in the model and the position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Chance that an element falls after the embedding and at the end of every residual branch.
    pub dropout: f32,
    /// Chance that an attention probability falls.
    pub attention_dropout: f32,
    /// Decides which.
    pub seed: u64,
}

impl Noise {
    /// The mask of one place in the model.
    fn mask(noise: Option<Self>, place: usize) -> Result<Option<Mask>> {
        noise.map(|n| Mask::new(n.dropout, mix(n.seed ^ (place as u64 + 1)))).transpose()
    }

    /// The dropout of the probabilities of one layer.
    fn probabilities(noise: Option<Self>, layer: usize) -> Option<(f32, u64)> {
        noise.filter(|n| n.attention_dropout > 0.0).map(|n| (n.attention_dropout, mix(n.seed ^ !(layer as u64))))
    }
}

impl Llama {
    /// A model over these parameters.
    ///
    /// # Errors
    /// When the configuration is impossible, or a parameter is missing or misshapen.
    pub fn new(config: &LlamaConfig, params: &Params) -> Result<Self> {
        config.validate()?;
        let table = [config.vocab_size, config.hidden_size];
        let embed = params.take("model.embed_tokens.weight", &table)?;
        let head = if config.tie_word_embeddings { embed.clone() } else { params.take("lm_head.weight", &table)? };
        let blocks = (0..config.num_hidden_layers).map(|layer| Block::new(config, params, layer)).collect::<Result<_>>()?;
        let norm = norm(config, params, "model.norm.weight")?;
        Ok(Self { config: config.clone(), embed, blocks, norm, head: Linear::new(head, None)? })
    }

    /// The shape of the model.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Logits of the next token at every position: `tokens [batch, length]` (u32) → `[batch, length, vocab_size]`.
    /// Differentiable in the parameters.
    ///
    /// # Errors
    /// When there are more tokens than positions, or a token is outside the vocabulary.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, length) = tokens.dims2()?;
        let tape = Tape::new();
        let x = self.trunk(&tape, tokens, None)?;
        let logits = self.head.on(&tape, &x)?;
        tape.finish(logits.reshape(&[batch, length, self.config.vocab_size])?)
    }

    /// Mean cross-entropy in nats per token of `targets` after `tokens`, both `[batch, length]` (u32): a scalar, differentiable in
    /// the parameters. `noise` is for training.
    ///
    /// # Errors
    /// As [`Llama::forward`], and when the shapes differ.
    pub fn loss(&self, tokens: &Tensor, targets: &Tensor, noise: Option<Noise>) -> Result<Tensor> {
        self.loss_on(Tape::new(), tokens, targets, noise)
    }

    /// As [`Llama::loss`] without noise or gradients, for measuring: a third of the time.
    ///
    /// # Errors
    /// As [`Llama::loss`].
    pub fn evaluate(&self, tokens: &Tensor, targets: &Tensor) -> Result<f32> {
        Ok(self.loss_on(Tape::off(), tokens, targets, None)?.to_scalar()?)
    }

    fn loss_on(&self, tape: Tape, tokens: &Tensor, targets: &Tensor, noise: Option<Noise>) -> Result<Tensor> {
        if tokens.dims() != targets.dims() {
            let needed = format!("{:?}, one target for each token", tokens.dims());
            return Err(Error::Shape { what: "targets", given: targets.dims().to_vec(), needed });
        }
        let x = self.trunk(&tape, tokens, noise)?;
        let loss = ops::head_loss(&tape, &x, &tape.watch(self.head.weight())?, &ids(targets)?)?;
        tape.finish(loss)
    }

    /// `[batch, length]` tokens to `[batch·length, hidden_size]`, all blocks and the last norm applied.
    fn trunk(&self, tape: &Tape, tokens: &Tensor, noise: Option<Noise>) -> Result<Value> {
        let (batch, length) = tokens.dims2()?;
        let context = self.config.max_position_embeddings;
        if length > context {
            return Err(Error::Context { tokens: length, context });
        }
        let embedded = ops::lookup(tape, &tape.watch(&self.embed)?, &ids(tokens)?)?;
        let mut x = match Noise::mask(noise, 0)? {
            Some(mask) => {
                let y = mask.apply(embedded.tensor())?;
                tape.push(y, &[&embedded], move |dy| Ok(vec![Some(mask.apply(dy)?)]))
            }
            None => embedded,
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            let branch = block.attention_norm.on(tape, &x)?;
            let branch = block.attention.on(tape, &branch, batch, Noise::probabilities(noise, layer))?;
            x = ops::residual(tape, &x, &branch, Noise::mask(noise, 2 * layer + 1)?)?;
            let branch = block.mlp.on(tape, &block.mlp_norm.on(tape, &x)?)?;
            x = ops::residual(tape, &x, &branch, Noise::mask(noise, 2 * layer + 2)?)?;
        }
        self.norm.on(tape, &x)
    }
}

impl Block {
    fn new(config: &LlamaConfig, params: &Params, layer: usize) -> Result<Self> {
        let linear = |(name, shape, biased): (String, [usize; 2], bool)| {
            let bias = biased.then(|| params.take(&format!("{name}.bias"), &shape[..1])).transpose()?;
            Linear::new(params.take(&format!("{name}.weight"), &shape)?, bias)
        };
        let [q, k, v, o, gate, up, down] = projections(config, layer).map(linear);
        let rotary = Rotary::from(config.rope()?);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let name = |part: &str| format!("model.layers.{layer}.{part}_layernorm.weight");
        Ok(Self {
            attention_norm: norm(config, params, &name("input"))?,
            attention: MultiHeadAttention::new(q?, k?, v?, o?, heads, kv_heads)?.causal().rotary(rotary)?,
            mlp_norm: norm(config, params, &name("post_attention"))?,
            mlp: SwiGlu::new(gate?, up?, down?)?,
        })
    }
}

fn norm(config: &LlamaConfig, params: &Params, name: &str) -> Result<RmsNorm> {
    Ok(RmsNorm::new(params.take(name, &[config.hidden_size])?, config.rms_norm_eps))
}

/// Tokens in row-major order.
fn ids(tokens: &Tensor) -> Result<Vec<u32>> {
    Ok(tokens.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

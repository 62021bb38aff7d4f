//! A decoder's weights, from the names and the layout of its family.

use super::attention::Attention;
use super::config::{DecoderConfig, Experts, NormKind};
use super::families::{Family, family};
use super::feed_forward::{Dense, FeedForward};
use super::names::{Names, Qkv};
use super::{Block, Decoder};
use crate::checkpoint::Checkpoint;
use crate::parts::{Matrix, Norm};
use crate::values::Values;
use crate::{Error, Result};

/// What tensors are read by.
struct Loader<'a> {
    config: &'a DecoderConfig,
    names: &'static Names,
    checkpoint: &'a Checkpoint<'a>,
    /// What all names begin with, and the names of this checkpoint do not: a base model's.
    without: &'static str,
}

/// Reads all weights of a decoder.
pub(super) fn load(config: DecoderConfig, checkpoint: &Checkpoint<'_>) -> Result<Decoder> {
    let family: &Family = family(&config.model_type)?;
    let names = family.names;
    let base = names.embed.split_once('.').map_or("", |(base, _)| &names.embed[..base.len() + 1]);
    let whole = checkpoint.has(&format!("{}.weight", names.embed));
    let bare = checkpoint.has(&format!("{}.weight", &names.embed[base.len()..]));
    let loader = Loader { config: &config, names, checkpoint, without: if !whole && bare { base } else { "" } };
    let decoder = loader.decoder()?;
    match checkpoint.left_over(|name| loader.is_redundant(name)) {
        Some(name) => Err(Error::UnknownWeight { name }),
        None => Ok(Decoder { config, ..decoder }),
    }
}

impl Loader<'_> {
    fn decoder(&self) -> Result<Decoder> {
        let (config, names) = (self.config, self.names);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let table = self.values(names.embed, &[vocab, hidden])?;
        let narrow = table.is_bf16();
        let embed = Matrix::new(&table, None, vocab, hidden)?;
        let head = match config.tie_word_embeddings {
            true => self.check_tied(&table).map(|()| None)?,
            false => Some(Matrix::new(&self.values(names.head, &[vocab, hidden])?, None, vocab, hidden)?),
        };
        let positions = match config.learned_positions {
            true => self.values(names.positions, &[config.max_position_embeddings, hidden])?.wide(),
            false => Vec::new(),
        };
        let blocks = (0..config.layers.len()).map(|layer| self.block(layer)).collect::<Result<_>>()?;
        // The scale is a number of the embedding's type.
        let embedding_scale = match narrow {
            true => half::bf16::from_f32(config.embedding_scale).to_f32(),
            false => config.embedding_scale,
        };
        let norm = self.norm(names.norm.to_owned(), hidden)?;
        Ok(Decoder { config: config.clone(), embed, positions, blocks, norm, head, narrow, embedding_scale })
    }

    fn block(&self, layer: usize) -> Result<Block> {
        let (config, names) = (self.config, self.names);
        let hidden = config.hidden_size;
        let name = |part: &str| format!("{}{part}", names.block.replace("{}", &layer.to_string()));
        let norm = |part: &str| self.norm(name(part), hidden);
        let after = |part: &str| config.norms_after.then(|| norm(part)).transpose();
        let head_norm = |part: &str| config.qk_norm.then(|| self.norm(name(part), config.head_dim)).transpose();
        let heads = config.num_attention_heads * config.head_dim;
        let attention = Attention {
            qkv: self.qkv(&name)?,
            q_norm: head_norm(names.q_norm)?,
            k_norm: head_norm(names.k_norm)?,
            sinks: match config.sinks {
                true => Some(self.at(&name(names.sinks), &[config.num_attention_heads])?.wide()),
                false => None,
            },
            out: self.matrix(&[name(names.out)], hidden, heads, config.biases.out)?,
            window: config.layers[layer].window,
            rope: config.layers[layer].rope,
        };
        Ok(Block {
            attention_norm: norm(names.attention_norm)?,
            attention,
            after_attention: after(names.after_attention)?,
            feed_forward_norm: norm(names.feed_forward_norm)?,
            feed_forward: match config.feed_forward.experts {
                Some(experts) => self.mixture(&name, experts)?,
                None => FeedForward::Dense(self.dense(&name)?),
            },
            after_feed_forward: after(names.after_feed_forward)?,
        })
    }

    fn qkv(&self, name: &dyn Fn(&str) -> String) -> Result<Matrix> {
        let config = self.config;
        let (heads, kv_heads, dim, hidden) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.hidden_size);
        let (rows, biased) = ((heads + 2 * kv_heads) * dim, config.biases.qkv);
        match self.names.qkv {
            Qkv::Apart(parts) => self.parts(&parts.map(name), &[heads * dim, kv_heads * dim, kv_heads * dim], hidden, biased),
            Qkv::Together(part) => self.matrix(&[name(part)], rows, hidden, biased),
            Qkv::HeadByHead(part) => {
                // Row (head, side, i) goes to (side, head, i).
                let order = || {
                    (0..rows).map(|row| {
                        let (side, head, i) = (row / (heads * dim), row / dim % heads, row % dim);
                        (head * 3 + side) * dim + i
                    })
                };
                let weight = self.at(&format!("{}.weight", name(part)), &[rows, hidden])?.rows(hidden, order());
                let bias = biased.then(|| self.at(&format!("{}.bias", name(part)), &[rows])).transpose()?;
                Matrix::new(&weight, bias.map(|bias| bias.rows(1, order()).wide()), rows, hidden)
            }
        }
    }

    fn dense(&self, name: &dyn Fn(&str) -> String) -> Result<Dense> {
        let (config, names) = (self.config, self.names);
        let (inner, hidden, layer) = (config.feed_forward.intermediate_size, config.hidden_size, config.feed_forward);
        let (biased, halves) = (config.biases.feed_forward, 1 + usize::from(layer.gated));
        let parts: Vec<String> = names.up.iter().map(|part| name(part)).collect();
        let (weight, bias) = self.together(&parts, &vec![halves * inner / parts.len(); parts.len()], hidden, biased)?;
        let half = |i: usize| {
            let bias = bias.as_ref().map(|bias| bias[i * inner..][..inner].to_vec());
            Matrix::new(&weight.clone_rows(inner * hidden, i), bias, inner, hidden)
        };
        let gate = layer.gated.then(|| half(0)).transpose()?;
        let down = self.matrix(&[name(names.down)], hidden, inner, biased)?;
        Ok(Dense { gate, up: half(halves - 1)?, down, activation: layer.activation })
    }

    /// Experts are `[inputs, outputs]`, gates and their partners taking turns.
    fn mixture(&self, name: &dyn Fn(&str) -> String, shape: Experts) -> Result<FeedForward> {
        let (config, names) = (self.config, self.names);
        let (inner, hidden, count) = (config.feed_forward.intermediate_size, config.hidden_size, shape.count);
        let up = self.at(&name(names.up[0]), &[count, hidden, 2 * inner])?;
        let up_bias = self.at(&format!("{}_bias", name(names.up[0])), &[count, 2 * inner])?.wide();
        let down = self.at(&name(names.down), &[count, inner, hidden])?;
        let down_bias = self.at(&format!("{}_bias", name(names.down)), &[count, hidden])?.wide();
        let expert = |e: usize| {
            let one = |all: &Values, from: usize, to: usize| all.clone_rows(from * to, e).transposed(to);
            let half = |i: usize| {
                let turns = || (0..inner).map(|row| 2 * row + i);
                let bias = turns().map(|row| up_bias[e * 2 * inner + row]).collect();
                Matrix::new(&one(&up, hidden, 2 * inner).rows(hidden, turns()), Some(bias), inner, hidden)
            };
            Ok(Dense {
                gate: Some(half(0)?),
                up: half(1)?,
                down: Matrix::new(&one(&down, inner, hidden), Some(down_bias[e * hidden..][..hidden].to_vec()), hidden, inner)?,
                activation: config.feed_forward.activation,
            })
        };
        let router = self.matrix(&[name("mlp.router")], count, hidden, true)?;
        Ok(FeedForward::Mixture { router, experts: (0..count).map(expert).collect::<Result<_>>()?, shape })
    }

    /// Several matrices as one, each with its number of outputs.
    fn parts(&self, names: &[String], outputs: &[usize], inputs: usize, biased: bool) -> Result<Matrix> {
        let (weight, bias) = self.together(names, outputs, inputs, biased)?;
        Matrix::new(&weight, bias, outputs.iter().sum(), inputs)
    }

    /// The weights and biases of [`Loader::parts`].
    fn together(&self, names: &[String], outputs: &[usize], inputs: usize, biased: bool) -> Result<(Values, Option<Vec<f32>>)> {
        let mut all: Option<(Values, Vec<f32>)> = None;
        for (name, &outputs) in names.iter().zip(outputs) {
            let shape = if self.names.transposed { [inputs, outputs] } else { [outputs, inputs] };
            let weight = self.at(&format!("{name}.weight"), &shape)?;
            let weight = if self.names.transposed { weight.transposed(outputs) } else { weight };
            let bias = if biased { self.at(&format!("{name}.bias"), &[outputs])?.wide() } else { Vec::new() };
            all = Some(match all {
                None => (weight, bias),
                Some((weights, mut biases)) => {
                    biases.extend(bias);
                    (weights.and(weight), biases)
                }
            });
        }
        let (weight, bias) = all.unwrap_or((Values::F32(Vec::new()), Vec::new()));
        Ok((weight, biased.then_some(bias)))
    }

    fn matrix(&self, name: &[String; 1], outputs: usize, inputs: usize, biased: bool) -> Result<Matrix> {
        self.parts(name, &[outputs], inputs, biased)
    }

    fn norm(&self, name: String, n: usize) -> Result<Norm> {
        let (kind, eps) = (self.config.norm, self.config.norm_eps as f32);
        let mut weight = self.at(&format!("{name}.weight"), &[n])?.wide();
        if kind == NormKind::RmsPlusOne {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        let bias = if kind == NormKind::Layer { self.at(&format!("{name}.bias"), &[n])?.wide() } else { Vec::new() };
        Ok(Norm { kind, eps, weight, bias })
    }

    fn values(&self, name: &str, needed: &[usize]) -> Result<Values> {
        self.at(&format!("{name}.weight"), needed)
    }

    fn at(&self, name: &str, needed: &[usize]) -> Result<Values> {
        self.checkpoint.values(name.strip_prefix(self.without).unwrap_or(name), needed)
    }

    /// A copy of a tied weight must be one.
    fn check_tied(&self, table: &Values) -> Result<()> {
        let name = format!("{}.weight", self.names.head);
        if !self.checkpoint.has(&name) {
            return Ok(());
        }
        let copy = self.checkpoint.values(&name, &[self.config.vocab_size, self.config.hidden_size])?;
        if copy == *table { Ok(()) } else { Err(Error::Untied { name }) }
    }

    /// Older files keep what follows from the rest: rotary frequencies, and the triangle of the causal mask.
    fn is_redundant(&self, name: &str) -> bool {
        [".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"]
            .iter()
            .any(|end| name.ends_with(end))
    }
}

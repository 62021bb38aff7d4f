//! The encoder of BERT and of the models made like it, for inference: every token of a text sees the whole text.

mod config;
pub(crate) mod load;

use std::path::Path;

use half::bf16;
use regard::{Element, Threads, View};

pub use self::config::EncoderConfig;

use crate::decoder::feed_forward::Dense;
use crate::files::Files;
use crate::parts::{Matrix, Norm, add, joined, narrowed};
use crate::{Error, Precision, Result};

/// A BERT with its weights packed for inference.
///
/// ```text
///   x = norm(word + position + type)
///   for each layer:  x = norm(x + attention(x));  x = norm(x + down · f(up · x))
/// ```
/// Weights in 16 bits stay so, and attention is in bf16 then; sums are f32 throughout.
///
/// Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", §3.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    words: Matrix,
    /// `[max_position_embeddings, hidden_size]`
    positions: Vec<f32>,
    /// `[type_vocab_size, hidden_size]`
    types: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    /// Whether attention is in bf16.
    narrow: bool,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values in one matrix.
    qkv: Matrix,
    out: Matrix,
    attention_norm: Norm,
    feed_forward: Dense,
    norm: Norm,
}

impl Encoder {
    /// Reads `config.json` and the weights, `model.safetensors` or its shards, of a Hugging Face directory. The weights are used in
    /// `precision`, or as they are in the files.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, another kind of model, impossible sizes, damaged weights.
    pub fn open(dir: &Path, precision: Option<Precision>) -> Result<Self> {
        let files = Files::open(dir)?;
        let config = files.config(EncoderConfig::from_json)?;
        files.weights(precision, |checkpoint| load::load(config, checkpoint))
    }

    /// The shape of the model.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The states of the tokens of one text after the last layer, `[tokens, hidden_size]`. `token_types` has the type of each
    /// token, which tells the first of two texts from the second; none for zeros.
    ///
    /// # Errors
    /// When there are no tokens or more than positions, another number of types, or a token or type without an embedding.
    pub fn hidden(&self, tokens: &[u32], token_types: &[u32]) -> Result<Vec<f32>> {
        let mut x = self.words.rows(tokens)?;
        self.check(tokens.len(), token_types)?;
        self.place(&mut x, token_types);
        for layer in &self.layers {
            layer.apply(&self.config, self.narrow, &mut x)?;
        }
        Ok(x.to_vec())
    }

    fn check(&self, n: usize, types: &[u32]) -> Result<()> {
        let context = self.config.max_position_embeddings;
        if n > context {
            return Err(Error::Context { tokens: n, context });
        }
        if !types.is_empty() && types.len() != n {
            let needed = format!("one type for each of {n} tokens, or none at all");
            return Err(Error::Shape { what: "token types", given: vec![types.len()], needed });
        }
        let kinds = self.config.type_vocab_size;
        match types.iter().find(|kind| **kind as usize >= kinds) {
            Some(&given) => Err(Error::TokenType { given, types: kinds }),
            None => Ok(()),
        }
    }

    /// `norm(word + position + type)`
    fn place(&self, words: &mut [f32], types: &[u32]) {
        let hidden = self.config.hidden_size;
        add(words, &self.positions);
        for (i, word) in words.chunks_mut(hidden).enumerate() {
            let kind = types.get(i).map_or(0, |kind| *kind as usize);
            add(word, &self.types[kind * hidden..]);
        }
        self.norm.in_place(words);
    }
}

impl Layer {
    /// Rows `[n, hidden]`, in place.
    fn apply(&self, config: &EncoderConfig, narrow: bool, x: &mut [f32]) -> Result<()> {
        let qkv = self.qkv.apply(x)?;
        let mixed = if narrow { attend::<bf16>(config, &qkv) } else { attend::<f32>(config, &qkv) }?;
        add(x, &self.out.apply(&mixed)?);
        self.attention_norm.in_place(x);
        add(x, &self.feed_forward.apply(x, Threads::All)?);
        self.norm.in_place(x);
        Ok(())
    }
}

/// Queries, keys and values `[n, 3·hidden]` to `softmax(q·kᵀ/√dim)·v`, `[n, hidden]`.
fn attend<T: Element>(config: &EncoderConfig, qkv: &[f32]) -> Result<Vec<f32>> {
    let (heads, hidden) = (config.num_attention_heads, config.hidden_size);
    let (dim, width, n) = (hidden / heads, 3 * hidden, qkv.len() / (3 * hidden));
    let rows = narrowed::<T>(qkv);
    let side = |i: usize| View::strided(&rows, i * hidden, [1, heads, n, dim], [0, dim as isize, width as isize, 1]);
    let output = regard::Attention::new().forward(side(0)?, (side(1)?, side(2)?))?;
    Ok(joined(output.out.data(), [heads, n, dim]))
}

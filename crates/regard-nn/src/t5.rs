//! T5: an encoder reads one text, and a decoder that looks at all of it writes another; for inference.

mod attention;
mod config;
mod load;
mod stack;

use std::path::Path;
use std::sync::Arc;

use regard::Lines;

pub use self::config::T5Config;

use self::stack::{Cross, Stack};
use crate::cache::TextCache;
use crate::checkpoint::Checkpoint;
use crate::files::Files;
use crate::parts::Matrix;
use crate::{Error, Precision, Result};

/// An encoder–decoder transformer with its weights packed for inference.
///
/// ```text
///   encoder:  x = embed(text);    for each block:  x += self(norm(x));  x += feed_forward(norm(x))
///   decoder:  x = embed(tokens);  for each block:  x += self(norm(x));  x += cross(norm(x), norm(encoder));  x += feed_forward(norm(x))
///   logits = head(norm(x) [/ √d_model])
/// ```
/// Scores are `q·k + bias[head, bucket(k − q)]`, one table for all blocks of a stack; between the texts they are `q·k`. Weights in 16
/// bits stay so; everything else is f32.
///
/// ```no_run
/// use regard_nn::T5;
///
/// let t5 = T5::open("flan-t5-small".as_ref(), None)?;
/// let encoded = t5.encode(&[13959, 1566, 12, 2968, 10, 8774, 1])?;
/// let mut cache = t5.cache(&encoded, 32)?;
/// let logits = t5.step(&[t5.config().decoder_start_token_id], &mut cache)?;
/// assert_eq!(logits.len(), t5.config().vocab_size);
/// # Ok::<(), regard_nn::Error>(())
/// ```
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer".
#[derive(Debug)]
pub struct T5 {
    config: T5Config,
    embed: Matrix,
    encoder: Stack<()>,
    decoder: Stack<Cross>,
    /// None where it is the embedding.
    head: Option<Matrix>,
}

/// A text that the encoder has read, with the keys and values that every block of the decoder makes of it. A clone shares them.
#[derive(Clone, Debug)]
pub struct Encoded {
    tokens: usize,
    output: Arc<[f32]>,
    /// For each block of the decoder, `[tokens, 2, num_heads, d_kv]`: keys, then values.
    cross: Arc<[Vec<f32>]>,
}

impl Encoded {
    /// Tokens of the text.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes of the keys and values that the decoder makes of the text.
    pub fn bytes(&self) -> usize {
        self.cross.iter().map(|block| block.len() * size_of::<f32>()).sum()
    }

    /// The output of the encoder, normalised, `[tokens, d_model]`.
    pub fn output(&self) -> &[f32] {
        &self.output
    }
}

/// The keys and values of one reply, and the text that it replies to.
pub type T5Cache = TextCache<Encoded>;

impl T5 {
    /// Reads `config.json` and the weights, `model.safetensors` or its shards, of a Hugging Face directory. The weights are used in
    /// `precision`, or as they are in the files.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, another kind of model, impossible sizes, damaged weights.
    pub fn open(dir: &Path, precision: Option<Precision>) -> Result<Self> {
        let files = Files::open(dir)?;
        let config = files.config(T5Config::from_json)?;
        files.weights(precision, |checkpoint| Self::load(config, checkpoint))
    }

    /// A T5 from its weights.
    pub(crate) fn load(config: T5Config, checkpoint: &Checkpoint<'_>) -> Result<Self> {
        load::load(config, checkpoint)
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Reads a whole text, which ends with the token that ends texts. The work of a request that does not depend on the reply is done
    /// here, once.
    ///
    /// # Errors
    /// When there are no tokens, or one is outside the vocabulary.
    pub fn encode(&self, tokens: &[u32]) -> Result<Encoded> {
        let mut x = self.embed.rows(tokens)?;
        self.encoder.encode(&self.config, &mut x)?;
        let output = self.encoder.norm.apply(&x);
        let cross =
            self.decoder.blocks.iter().map(|block| block.cross.attention.keys_and_values(&output)).collect::<Result<_>>()?;
        Ok(Encoded { tokens: tokens.len(), output: Arc::from(&*output), cross })
    }

    /// An empty cache for a reply of at most `tokens` tokens, the start token among them.
    ///
    /// # Errors
    /// When it would be larger than memory can be, or another model encoded the text.
    pub fn cache(&self, encoded: &Encoded, tokens: usize) -> Result<T5Cache> {
        let (layers, heads) = (self.decoder.blocks.len(), self.config.heads());
        let needed = [layers, encoded.tokens * 2 * heads.kv * heads.dim];
        let given = [encoded.cross.len(), encoded.cross.first().map_or(0, Vec::len)];
        if given != needed {
            let needed = format!("{needed:?}, that of a text which this model encoded");
            return Err(Error::Shape { what: "keys and values of an encoded text", given: given.to_vec(), needed });
        }
        T5Cache::new(layers, heads, false, tokens, encoded.clone())
    }

    /// Reads `tokens` of the reply after those in the cache: logits of the next token, `[vocab_size]`. The same bits however a reply is
    /// cut into calls. When it fails, the cache is as before.
    ///
    /// # Errors
    /// When there are no tokens, one is outside the vocabulary, or the cache has no room.
    pub fn step(&self, tokens: &[u32], cache: &mut T5Cache) -> Result<Vec<f32>> {
        let rows = self.read(tokens, cache)?;
        self.logits(&rows[rows.len() - self.config.d_model..])
    }

    /// As [`T5::step`], with the logits after every token, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// As [`T5::step`].
    pub fn trace(&self, tokens: &[u32], cache: &mut T5Cache) -> Result<Vec<f32>> {
        let rows = self.read(tokens, cache)?;
        self.logits(&rows)
    }

    /// The residual stream after the last block of the decoder.
    fn read(&self, tokens: &[u32], cache: &mut T5Cache) -> Result<Lines<f32>> {
        let mut x = self.embed.rows(tokens)?;
        cache.grown(tokens.len(), |cache, first| self.decoder.decode(&self.config, &mut x, cache, first))?;
        Ok(x)
    }

    /// Rows of the decoder's residual stream to logits.
    fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let mut x = self.decoder.norm.apply(rows);
        if self.config.scale_decoder_outputs {
            let scale = (self.config.d_model as f64).sqrt().recip() as f32;
            x.iter_mut().for_each(|x| *x *= scale);
        }
        self.head.as_ref().unwrap_or(&self.embed).vector(&x)
    }

    /// The kernel by which a reply looks at itself, and the reason for the choice.
    ///
    /// # Errors
    /// When the cache was made by another model.
    pub fn kernel(&self, cache: &T5Cache) -> Result<(String, String)> {
        cache.kernel(&self.decoder.rule(&self.config)?, self.config.heads())
    }
}

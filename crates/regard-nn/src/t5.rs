//! T5: an encoder reads one text, and a decoder that looks at all of it writes another; for inference.

mod attention;
mod cache;
mod config;
mod load;
mod stack;

use std::path::Path;
use std::sync::Arc;

use regard::{CacheShape, KvCache, Threads};

pub use self::cache::T5Cache;
pub use self::config::T5Config;

use self::stack::{Cross, Place, Stack};
use crate::checkpoint::Checkpoint;
use crate::decoder::PAGE;
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

    /// The output of the encoder, normalised, `[tokens, d_model]`.
    pub fn output(&self) -> &[f32] {
        &self.output
    }
}

impl T5 {
    /// Reads `config.json` and the weights, `model.safetensors` or its shards, of a Hugging Face directory. The weights are used in
    /// `precision`, or as they are in the files.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, another kind of model, impossible sizes, damaged weights.
    pub fn open(dir: &Path, precision: Option<Precision>) -> Result<Self> {
        let path = dir.join("config.json");
        let text = crate::weights::read_file(&path)?;
        let config = T5Config::from_json(&String::from_utf8_lossy(&text)).map_err(|e| e.within(&path))?;
        load::load(config, &Checkpoint::open(dir)?.in_precision(precision)).map_err(|e| e.within(dir))
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
        let mut x = self.embedded(tokens)?;
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
        let (heads, dim) = (self.config.num_heads, self.config.d_kv);
        let needed = [self.decoder.blocks.len(), encoded.tokens * 2 * heads * dim];
        let given = [encoded.cross.len(), encoded.cross.first().map_or(0, Vec::len)];
        if given != needed {
            let needed = format!("{needed:?}, that of a text which this model encoded");
            return Err(Error::Shape { what: "keys and values of an encoded text", given: given.to_vec(), needed });
        }
        let pages = tokens.div_ceil(PAGE);
        let layers = self.decoder.blocks.len();
        let store = KvCache::new(CacheShape { layers, pages, page_size: PAGE, kv_heads: heads, head_dim: dim, value_dim: dim })?;
        Ok(T5Cache { seq: store.sequence(), store, capacity: tokens, encoded: encoded.clone() })
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
    fn read(&self, tokens: &[u32], cache: &mut T5Cache) -> Result<Vec<f32>> {
        let mut x = self.embedded(tokens)?;
        let (first, capacity) = (cache.len(), cache.capacity);
        if tokens.len() > capacity - first {
            return Err(Error::Context { tokens: first.saturating_add(tokens.len()), context: capacity });
        }
        cache.store.grow(&mut cache.seq, tokens.len())?;
        let mut place = Place { seq: &cache.seq, first, store: &mut cache.store, cross: &cache.encoded.cross };
        match self.decoder.decode(&self.config, &mut x, &mut place) {
            Ok(()) => Ok(x),
            Err(error) => cache.rewind(first).and(Err(error)),
        }
    }

    fn embedded(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let (vocab_size, width) = (self.config.vocab_size, self.config.d_model);
        if tokens.is_empty() {
            return Err(Error::Shape { what: "tokens of a T5", given: vec![0], needed: "at least one token".to_owned() });
        }
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
            return Err(Error::Token { token, vocab_size });
        }
        let mut x = vec![0.0; tokens.len() * width];
        x.chunks_mut(width).zip(tokens).for_each(|(x, token)| self.embed.row(*token as usize, x));
        Ok(x)
    }

    /// Rows of the decoder's residual stream to logits.
    fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let mut x = self.decoder.norm.apply(rows);
        if self.config.scale_decoder_outputs {
            let scale = (self.config.d_model as f64).sqrt().recip() as f32;
            x.iter_mut().for_each(|x| *x *= scale);
        }
        let head = self.head.as_ref().unwrap_or(&self.embed);
        let mut logits = vec![0.0; head.rows(&x) * head.outputs()];
        head.write(&x, &mut logits, Threads::All)?;
        Ok(logits)
    }
}

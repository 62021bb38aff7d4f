//! Decoder-only transformers of many families, for inference: one computation, and the facts in which the families differ.

mod attention;
mod batch;
mod config;
mod families;
pub(crate) mod feed_forward;
mod load;
mod names;
mod read;

use std::path::Path;

use regard::{Angles, CacheShape, KvCache, Rope, Sequence};

pub use self::batch::{DecoderPages, Reading};
pub use self::config::{Activation, Biases, DecoderConfig, Experts, FeedForward, LayerConfig, NormKind};

use self::attention::{Attention, Place, Store, with_cache};
use crate::checkpoint::Checkpoint;
use crate::parts::{Matrix, Norm, add, softcap};
use crate::{Error, Precision, Result};

/// A decoder-only transformer with its weights packed for inference.
///
/// ```text
///   x = scale · embed(tokens) [+ positions]
///   for each block:  x += [norm] attention(norm(x));  x += [norm] feed_forward(norm(x))
///   logits = [cap] head(norm(x))
/// ```
/// Weights in 16 bits stay so, and keys and values are kept in bf16 then; sums are f32 throughout.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    embed: Matrix,
    /// `[max_position_embeddings, hidden_size]`, where positions are learned.
    positions: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    /// None where it is the embedding.
    head: Option<Matrix>,
    /// Whether keys and values are bf16.
    narrow: bool,
    embedding_scale: f32,
}

#[derive(Debug)]
struct Block {
    attention_norm: Norm,
    attention: Attention,
    after_attention: Option<Norm>,
    feed_forward_norm: Norm,
    feed_forward: feed_forward::FeedForward,
    after_feed_forward: Option<Norm>,
}

impl Decoder {
    /// Reads `config.json` and the weights, `model.safetensors` or its shards, of a Hugging Face directory. The weights are used in
    /// `precision`, or as they are in the files.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, a family that is not supported, impossible sizes, damaged weights.
    pub fn open(dir: &Path, precision: Option<Precision>) -> Result<Self> {
        let path = dir.join("config.json");
        let text = crate::weights::read_file(&path)?;
        let config = DecoderConfig::from_json(&String::from_utf8_lossy(&text)).map_err(|e| e.within(&path))?;
        Self::load(config, &Checkpoint::open(dir)?.in_precision(precision)).map_err(|e| e.within(dir))
    }

    /// A decoder from its weights.
    pub(crate) fn load(config: DecoderConfig, checkpoint: &Checkpoint<'_>) -> Result<Self> {
        load::load(config, checkpoint)
    }

    /// The shape of the model.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// An empty cache for at most `tokens` tokens, or the whole context when that is less. Rotary frequencies that depend on the length
    /// of a text are those of that length.
    ///
    /// # Errors
    /// When it would be larger than memory can be.
    pub fn cache(&self, tokens: usize) -> Result<DecoderCache> {
        let capacity = tokens.min(self.config.max_position_embeddings);
        let shape = CacheShape {
            layers: self.blocks.len(),
            pages: capacity.div_ceil(PAGE),
            page_size: PAGE,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            value_dim: self.config.head_dim,
        };
        let store = if self.narrow { Store::Bf16(KvCache::new(shape)?) } else { Store::F32(KvCache::new(shape)?) };
        let seq = with_cache!(&store, cache => cache.sequence());
        Ok(DecoderCache { store, seq, capacity, ropes: self.config.rotary(capacity)? })
    }

    /// Reads `tokens` after those in the cache: logits of the next token, `[vocab_size]`. The same bits however a text is cut into
    /// calls. When it fails, the cache is as before.
    ///
    /// # Errors
    /// When there are no tokens, one is outside the vocabulary, or the cache or the context has no room.
    pub fn step(&self, tokens: &[u32], cache: &mut DecoderCache) -> Result<Vec<f32>> {
        let rows = self.read(tokens, cache, &mut |_, _| {})?;
        self.logits(&rows[rows.len() - self.config.hidden_size..])
    }

    /// As [`Decoder::step`], with the logits after every token, `[tokens, vocab_size]`; `watch` sees the residual stream
    /// `[tokens, hidden_size]` before each block and after the last one, with the number of blocks before it.
    ///
    /// # Errors
    /// As [`Decoder::step`].
    pub fn trace(&self, tokens: &[u32], cache: &mut DecoderCache, watch: &mut dyn FnMut(usize, &[f32])) -> Result<Vec<f32>> {
        let rows = self.read(tokens, cache, watch)?;
        self.logits(&rows)
    }

    /// The residual stream after the last block.
    fn read(&self, tokens: &[u32], cache: &mut DecoderCache, watch: &mut dyn FnMut(usize, &[f32])) -> Result<Vec<f32>> {
        let (first, capacity) = (cache.len(), cache.capacity);
        if tokens.is_empty() {
            return Err(Error::Shape { what: "tokens of a step", given: vec![0], needed: "at least one token".to_owned() });
        }
        if tokens.len() > capacity - first {
            return Err(Error::Context { tokens: first.saturating_add(tokens.len()), context: capacity });
        }
        let rows = self.blocks(tokens, cache, first, watch);
        if rows.is_err() {
            cache.rewind(first)?;
        }
        rows
    }

    fn blocks(
        &self,
        tokens: &[u32],
        cache: &mut DecoderCache,
        first: usize,
        watch: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<f32>> {
        let mut x = self.embedded(tokens, first)?;
        let DecoderCache { store, seq, ropes, .. } = cache;
        with_cache!(&mut *store, cache => cache.grow(seq, tokens.len()))?;
        let angles = ropes.iter().map(|rope| rope.angles(first..first + tokens.len())).collect::<regard::Result<Vec<Angles>>>()?;
        for (layer, block) in self.blocks.iter().enumerate() {
            watch(layer, &x);
            let place = Place { layer, seq, first, angles: &angles };
            block.apply(&self.config, &mut x, |attention, x| attention.apply(&self.config, x, store, &place))?;
        }
        watch(self.blocks.len(), &x);
        Ok(x)
    }

    fn embedded(&self, tokens: &[u32], first: usize) -> Result<Vec<f32>> {
        let (vocab_size, hidden) = (self.config.vocab_size, self.config.hidden_size);
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
            return Err(Error::Token { token, vocab_size });
        }
        let mut x = vec![0.0; tokens.len() * hidden];
        for (i, (x, token)) in x.chunks_mut(hidden).zip(tokens).enumerate() {
            self.embed.row(*token as usize, x);
            x.iter_mut().for_each(|x| *x *= self.embedding_scale);
            let position = self.positions.get((first + i) * hidden..).unwrap_or_default();
            x.iter_mut().zip(position).for_each(|(x, p)| *x += p);
        }
        Ok(x)
    }

    /// Rows of the residual stream to logits.
    fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let mut logits = self.head.as_ref().unwrap_or(&self.embed).apply(&self.norm.apply(rows))?;
        if let Some(cap) = self.config.logit_softcap {
            softcap(cap, &mut logits);
        }
        Ok(logits)
    }

    /// The kernel that decodes with this cache, and the reason for the choice.
    ///
    /// # Errors
    /// When the cache was made by another model.
    pub fn kernel(&self, cache: &DecoderCache) -> Result<(String, String)> {
        let of = |block: &Block| with_cache!(&cache.store, kv => block.attention.kernel(&self.config, kv, &cache.seq));
        self.blocks.first().map_or_else(|| Ok(Default::default()), of)
    }
}

impl Block {
    fn apply(
        &self,
        config: &DecoderConfig,
        x: &mut [f32],
        attend: impl FnOnce(&Attention, &[f32]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let after = |branch: &mut Vec<f32>, norm: &Option<Norm>| norm.iter().for_each(|norm| norm.in_place(branch));
        let mut attended = attend(&self.attention, &self.attention_norm.apply(x))?;
        after(&mut attended, &self.after_attention);
        if config.parallel_residual {
            add(&mut attended, &self.feed_forward.apply(&self.feed_forward_norm.apply(x), config.hidden_size)?);
            add(x, &attended);
            return Ok(());
        }
        add(x, &attended);
        let mut fed = self.feed_forward.apply(&self.feed_forward_norm.apply(x), config.hidden_size)?;
        after(&mut fed, &self.after_feed_forward);
        add(x, &fed);
        Ok(())
    }
}

/// Tokens in a page of the cache: one tile of the attention kernels.
pub(crate) const PAGE: usize = 64;

/// The keys and values of one text, for all layers; the layers share one block table.
#[derive(Debug)]
pub struct DecoderCache {
    store: Store,
    seq: Sequence,
    capacity: usize,
    ropes: Vec<Rope>,
}

impl DecoderCache {
    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.seq.len()
    }

    /// Whether no token was read.
    pub fn is_empty(&self) -> bool {
        self.seq.is_empty()
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the pages that hold the tokens.
    pub fn used_bytes(&self) -> usize {
        with_cache!(&self.store, cache => cache.used_bytes())
    }

    /// Bytes of the whole pool.
    pub fn bytes(&self) -> usize {
        with_cache!(&self.store, cache => cache.bytes())
    }

    /// Forgets the tokens from position `len` on.
    ///
    /// # Errors
    /// When there are fewer tokens.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        Ok(with_cache!(&mut self.store, cache => cache.truncate(&mut self.seq, len))?)
    }
}

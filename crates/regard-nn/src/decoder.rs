//! Decoder-only transformers of many families, for inference: one computation, and the facts in which the families differ.

mod attention;
mod batch;
mod config;
mod count;
mod families;
pub(crate) mod feed_forward;
mod load;
mod names;
mod observe;
mod read;
mod through;

use std::cell::RefCell;
use std::path::Path;

use regard::{Kv, Lines, Rope};

pub use self::batch::{DecoderPages, Reading};
pub use self::config::{Activation, Biases, DecoderConfig, Experts, FeedForward, LayerConfig, NormKind};
pub(crate) use self::families::{OR_T5, SUPPORTED};
pub use self::observe::{Attending, DecoderMask, Observer};

use self::attention::Attention;
use crate::cache::{TextCache, planned, with, write};
use crate::checkpoint::Checkpoint;
use crate::files::Files;
use crate::parts::{Matrix, Norm, add, softcap};
use crate::{Precision, Result};

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
    /// Reads `config.json` and the weights, `model.safetensors` or its shards, of a Hugging Face directory, or a GGUF file. The weights
    /// are used in `precision`, or as they are in the files; see [`Model::open_in`](crate::Model::open_in).
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, a family that is not supported, impossible sizes, damaged weights.
    pub fn open(path: &Path, precision: Option<Precision>) -> Result<Self> {
        let files = Files::open(path)?;
        let config = files.config(DecoderConfig::from_json)?;
        files.weights(precision, |checkpoint| Self::load(config, checkpoint))
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
        DecoderCache::new(self.blocks.len(), self.config.heads(), self.narrow, capacity, self.config.rotary(capacity)?)
    }

    /// Reads `tokens` after those in the cache: logits of the next token, `[vocab_size]`. The same bits however a text is cut into
    /// calls. When it fails, the cache is as before.
    ///
    /// # Errors
    /// When there are no tokens, one is outside the vocabulary, or the cache or the context has no room.
    pub fn step(&self, tokens: &[u32], cache: &mut DecoderCache) -> Result<Vec<f32>> {
        // All of it in one of the pool's threads: each product would wake one, and sleep until it is done.
        rayon::scope(|_| {
            let rows = self.read(tokens, cache, &mut ())?;
            self.logits(&rows[rows.len() - self.config.hidden_size..])
        })
    }

    /// As [`Decoder::step`], with the logits after every token, `[tokens, vocab_size]`; `watch` sees the residual stream
    /// `[tokens, hidden_size]` before each block and after the last one, with the number of blocks before it.
    ///
    /// # Errors
    /// As [`Decoder::step`].
    pub fn trace(&self, tokens: &[u32], cache: &mut DecoderCache, watch: &mut dyn FnMut(usize, &[f32])) -> Result<Vec<f32>> {
        let rows = self.read(tokens, cache, &mut Watch(watch))?;
        self.logits(&rows)
    }

    /// The residual stream after the last block.
    fn read(&self, tokens: &[u32], cache: &mut DecoderCache, observer: &mut impl Observer) -> Result<Lines<f32>> {
        let (mut x, heads) = (self.embed.rows(tokens)?, self.config.heads());
        let (observer, n) = (RefCell::new(observer), tokens.len());
        cache.grown(n, |cache, first| {
            self.place(&mut x, first);
            let positions = first..first + n;
            let angles = cache.beside.iter().map(|rope| rope.angles(positions.clone())).collect::<regard::Result<Vec<_>>>()?;
            let (seq, mut lse) = (&cache.seq, vec![0.0; heads.query * n]);
            let watch = &mut |layer: usize, x: &mut [f32]| observer.borrow_mut().residual(layer, x);
            with!(&mut cache.store, cache => self.through(&mut x, &angles, watch, &mut |layer, rows, out| {
                write(rows, heads, cache, (layer, seq, first))?;
                let (rule, seqs) = (self.blocks[layer].attention.rule(&self.config), [seq]);
                let plan = &planned(&rule, rows, heads, Kv::Paged { cache, layer, seqs: &seqs })?;
                observer.borrow_mut().attend(Attending { layer, plan, out, lse: &mut lse })
            }))?;
            Ok(x)
        })
    }

    /// `scale · x [+ positions]`
    fn place(&self, x: &mut [f32], first: usize) {
        x.iter_mut().for_each(|x| *x *= self.embedding_scale);
        add(x, self.positions.get(first * self.config.hidden_size..).unwrap_or_default());
    }

    /// Rows of the residual stream to logits.
    fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let mut logits = self.head.as_ref().unwrap_or(&self.embed).vector(&self.norm.apply(rows))?;
        if let Some(cap) = self.config.logit_softcap {
            softcap(cap, &mut logits);
        }
        Ok(logits)
    }

    /// Bytes that a token reads when it is decoded after `length` others: every matrix once, and their keys and values.
    pub fn bytes_per_token(&self, length: usize) -> usize {
        let (heads, size) = (self.config.heads(), if self.narrow { size_of::<half::bf16>() } else { size_of::<f32>() });
        let block = |block: &Block| {
            let seen = block.attention.window.map_or(length, |window| window.min(length));
            let kept = seen * 2 * heads.kv * heads.dim * size;
            block.attention.qkv.bytes() + block.attention.out.bytes() + block.feed_forward.bytes() + kept
        };
        self.blocks.iter().map(block).sum::<usize>() + self.head.as_ref().unwrap_or(&self.embed).bytes()
    }

    /// The kernel that decodes with this cache, and the reason for the choice.
    ///
    /// # Errors
    /// When the cache was made by another model.
    pub fn kernel(&self, cache: &DecoderCache) -> Result<(String, String)> {
        let of = |block: &Block| cache.kernel(&block.attention.rule(&self.config), self.config.heads());
        self.blocks.first().map_or_else(|| Ok(Default::default()), of)
    }
}

/// Sees the residual stream.
struct Watch<'a>(&'a mut dyn FnMut(usize, &[f32]));

impl Observer for Watch<'_> {
    fn residual(&mut self, layer: usize, rows: &mut [f32]) -> Result<()> {
        (self.0)(layer, rows);
        Ok(())
    }
}

/// The keys and values of one text, and the rotary embeddings of its length.
pub type DecoderCache = TextCache<Vec<Rope>>;

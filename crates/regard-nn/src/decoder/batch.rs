//! Many texts in one step, over pages that the caller hands out: what a server runs.

use half::bf16;
use regard::{Angles, CacheShape, Element, Kv, KvCache, Rope, Sequence};

use super::attention::Attention;
use super::{Decoder, DecoderConfig};
use crate::cache::{attend, write};
use crate::{Error, Result};

/// The new tokens of one text in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The tokens to read; at least one.
    pub tokens: &'a [u32],
    /// The position of the first of them.
    pub first: usize,
    /// After how many of the last tokens logits are wanted.
    pub logits: usize,
    /// For each group of [`Decoder::windows`] the pages of the text, the new tokens' among them, in order of position. Pages behind a
    /// window may be any.
    pub tables: &'a [Vec<u32>],
}

/// The pages of one group of layers, and a space to swap them to.
#[derive(Debug)]
struct Pool<T> {
    cache: KvCache<T>,
    /// What was swapped out, by slot.
    slots: Vec<Vec<T>>,
}

/// The pools of all groups.
#[derive(Debug)]
enum Pools {
    F32(Vec<Pool<f32>>),
    Bf16(Vec<Pool<bf16>>),
}

/// Runs `$body` with the pools in [`Pools`], whatever their type.
macro_rules! with_pools {
    ($pools:expr, $all:ident => $body:expr) => {
        match $pools {
            Pools::F32($all) => $body,
            Pools::Bf16($all) => $body,
        }
    };
}

/// Pages for the keys and values of many texts. Who holds which page is the caller's to know.
#[derive(Debug)]
pub struct DecoderPages {
    pools: Pools,
    /// The group of each layer, and its place in it.
    layers: Vec<(usize, usize)>,
    ropes: Vec<Rope>,
}

impl Decoder {
    /// The groups of layers that see equally far and so share block tables: the window of each, or none where a query sees all before it.
    pub fn windows(&self) -> Vec<Option<usize>> {
        let mut windows = Vec::new();
        for layer in &self.config.layers {
            if !windows.contains(&layer.window) {
                windows.push(layer.window);
            }
        }
        windows
    }

    /// Pools of so many pages of `page_size` tokens, for each group of [`Decoder::windows`]. Rotary frequencies that depend on the length
    /// of a text are those of the whole context.
    ///
    /// # Errors
    /// When there are not as many numbers as groups, a page has no tokens, or there is no memory for the pools.
    pub fn pages(&self, pages: &[usize], page_size: usize) -> Result<DecoderPages> {
        let (windows, config) = (self.windows(), &self.config);
        check("pools of pages", pages.len(), windows.len(), "one for each group of layers")?;
        let mut sizes = vec![0; windows.len()];
        let mut place = |window: &Option<usize>| {
            let group = windows.iter().position(|other| other == window).unwrap_or(0);
            sizes[group] += 1;
            (group, sizes[group] - 1)
        };
        let layers = config.layers.iter().map(|layer| place(&layer.window)).collect();
        let pools = match self.narrow {
            true => Pools::Bf16(pools(config, &sizes, pages, page_size)?),
            false => Pools::F32(pools(config, &sizes, pages, page_size)?),
        };
        Ok(DecoderPages { pools, layers, ropes: config.rotary(config.max_position_embeddings)? })
    }

    /// Reads the new tokens of each text into its pages: logits `[rows, vocab_size]`, for each text in turn. A row's bits are those of
    /// [`Decoder::step`], whatever else is in the batch and however the text is cut.
    ///
    /// # Errors
    /// When there is no text, one has no new tokens, a token is outside the vocabulary, the context is too short, or a block table does not fit.
    pub fn read_batch(&self, batch: &[Reading<'_>], pages: &mut DecoderPages) -> Result<Vec<f32>> {
        rayon::scope(|_| self.read_all(batch, pages)) // as in `step`
    }

    fn read_all(&self, batch: &[Reading<'_>], pages: &mut DecoderPages) -> Result<Vec<f32>> {
        let (hidden, context) = (self.config.hidden_size, self.config.max_position_embeddings);
        for text in batch {
            check("block tables of a text", text.tables.len(), pages.groups(), "one for each group of layers")?;
            if text.tokens.is_empty() || text.logits > text.tokens.len() {
                let needed = format!("at least one, and {} for as many rows of logits", text.logits);
                return Err(Error::Shape { what: "tokens of a text", given: vec![text.tokens.len()], needed });
            }
            if text.tokens.len() > context.saturating_sub(text.first) {
                return Err(Error::Context { tokens: text.first.saturating_add(text.tokens.len()), context });
            }
        }
        let tokens: Vec<u32> = batch.iter().flat_map(|text| text.tokens).copied().collect();
        let mut x = self.embed.rows(&tokens)?;
        let mut row = 0;
        for text in batch {
            let n = text.tokens.len();
            self.place(&mut x[row * hidden..(row + n) * hidden], text.first);
            row += n;
        }
        let positions: Vec<usize> = batch.iter().flat_map(|text| text.first..text.first + text.tokens.len()).collect();
        let angles = pages.ropes.iter().map(|rope| rope.angles(positions.iter().copied()));
        let angles = angles.collect::<regard::Result<Vec<Angles>>>()?;
        let seqs = (0..pages.groups()).map(|group| pages.lend(group, batch)).collect::<Result<Vec<_>>>()?;
        let DecoderPages { pools, layers, .. } = pages;
        with_pools!(pools, pools => self.through(&mut x, &angles, &mut |_, _| Ok(()), &mut |layer, rows, mixed| {
            let (group, place) = layers[layer];
            let attention = &self.blocks[layer].attention;
            attention.attend_each(&self.config, (rows, mixed), &mut pools[group].cache, (place, batch, &seqs[group]))
        }))?;
        let mut wanted = Vec::new();
        let mut row = 0;
        for text in batch {
            row += text.tokens.len();
            wanted.extend_from_slice(&x[(row - text.logits) * hidden..row * hidden]);
        }
        self.logits(&wanted)
    }
}

/// A layer, and the texts in it.
type Texts<'a> = (usize, &'a [Reading<'a>], &'a [Sequence]);

impl Attention {
    /// Writes keys and values of all texts, and attends: decoding texts side by side together, each other one alone.
    fn attend_each<T: Element>(
        &self,
        config: &DecoderConfig,
        (rows, mixed): (&[T], &mut [T]),
        cache: &mut KvCache<T>,
        (layer, batch, seqs): Texts<'_>,
    ) -> Result<()> {
        let (heads, rule) = (config.heads(), self.rule(config));
        let (width, to) = (heads.width(), heads.mixed());
        let mut row = 0;
        for (text, seq) in batch.iter().zip(seqs) {
            let n = text.tokens.len();
            write(&rows[row * width..(row + n) * width], heads, cache, (layer, seq, text.first))?;
            row += n;
        }
        let (mut at, mut row) = (0, 0);
        while at < batch.len() {
            let n = batch[at].tokens.len();
            let alike = batch[at..].iter().take_while(|text| n == 1 && text.tokens.len() == 1).count().max(1);
            let seqs: Vec<&Sequence> = seqs[at..at + alike].iter().collect();
            let these = row..row + alike * n;
            let (rows, mixed) = (&rows[these.start * width..these.end * width], &mut mixed[these.start * to..these.end * to]);
            attend(&rule, rows, heads, Kv::Paged { cache, layer, seqs: &seqs }, mixed)?;
            (at, row) = (at + alike, these.end);
        }
        Ok(())
    }
}

/// For each group a pool of its layers.
fn pools<T: Element>(config: &DecoderConfig, layers: &[usize], pages: &[usize], page_size: usize) -> Result<Vec<Pool<T>>> {
    let (kv_heads, dim) = (config.num_key_value_heads, config.head_dim);
    let pool = |(&layers, &pages): (&usize, &usize)| {
        let shape = CacheShape { layers, pages, page_size, kv_heads, head_dim: dim, value_dim: dim };
        Ok(Pool { cache: KvCache::new(shape)?, slots: Vec::new() })
    };
    layers.iter().zip(pages).map(pool).collect()
}

impl DecoderPages {
    fn groups(&self) -> usize {
        with_pools!(&self.pools, pools => pools.len())
    }

    fn lend(&self, group: usize, batch: &[Reading<'_>]) -> Result<Vec<Sequence>> {
        let lend = |text: &Reading<'_>| {
            let len = text.first + text.tokens.len();
            with_pools!(&self.pools, pools => Ok(pools[group].cache.lend(&text.tables[group], len)?))
        };
        batch.iter().map(lend).collect()
    }

    /// Bytes of all pools.
    pub fn bytes(&self) -> usize {
        with_pools!(&self.pools, pools => pools.iter().map(|pool| pool.cache.bytes()).sum())
    }

    /// Copies a page of a group onto another.
    ///
    /// # Errors
    /// When there is no such group or page.
    pub fn copy(&mut self, group: usize, from: u32, to: u32) -> Result<()> {
        Ok(with_pools!(&mut self.pools, pools => of(pools, group)?.cache.copy_lent(from, to))?)
    }

    /// Writes a page of a group to a slot of memory outside the pool.
    ///
    /// # Errors
    /// When there is no such group or page.
    pub fn swap_out(&mut self, group: usize, page: u32, slot: u32) -> Result<()> {
        with_pools!(&mut self.pools, pools => {
            let pool = of(pools, group)?;
            let slot = slot as usize;
            if pool.slots.len() <= slot {
                pool.slots.resize_with(slot + 1, Vec::new);
            }
            pool.slots[slot].resize(pool.cache.page_len(), Default::default());
            Ok(pool.cache.read_page(page, &mut pool.slots[slot])?)
        })
    }

    /// Reads a slot back into a page of a group, and frees the slot's memory.
    ///
    /// # Errors
    /// When there is no such group or page, or nothing in the slot.
    pub fn swap_in(&mut self, group: usize, slot: u32, page: u32) -> Result<()> {
        with_pools!(&mut self.pools, pools => {
            let pool = of(pools, group)?;
            let page_of_slot = pool.slots.get_mut(slot as usize).map(std::mem::take).unwrap_or_default();
            Ok(pool.cache.write_page(page, &page_of_slot)?)
        })
    }
}

fn of<T>(pools: &mut [Pool<T>], group: usize) -> Result<&mut Pool<T>> {
    let needed = format!("a number below {}, the groups of the decoder", pools.len());
    pools.get_mut(group).ok_or(Error::Shape { what: "group of pages", given: vec![group], needed })
}

fn check(what: &'static str, given: usize, needed: usize, why: &str) -> Result<()> {
    if given == needed {
        return Ok(());
    }
    Err(Error::Shape { what, given: vec![given], needed: format!("{needed}: {why}") })
}

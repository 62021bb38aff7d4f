//! The paged key/value cache: a pool of pages, and sequences that hold block tables into it.

mod lent;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::shape::same;
use crate::view::{room, zeros};
use crate::{Element, Error, Result, View};

/// The sizes of a [`KvCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers of the model; they share one block table.
    pub layers: usize,
    /// Pages in the pool.
    pub pages: usize,
    /// Tokens in a page.
    pub page_size: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Elements of a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

/// A pool of pages for keys and values. A page holds `page_size` tokens of every layer and KV head, and may be shared by
/// several sequences; a contiguous cache is one large page for each sequence.
///
/// Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention", §4.
#[derive(Debug)]
pub struct KvCache<T> {
    id: u64,
    shape: CacheShape,
    /// `[layers, pages, kv_heads, page_size, head_dim]`
    keys: Vec<T>,
    /// `[layers, pages, kv_heads, page_size, value_dim]`
    values: Vec<T>,
    /// Sequences that hold each page; 0 is free.
    owners: Vec<u32>,
    free: Vec<u32>,
}

/// One sequence of a [`KvCache`]: its block table and its length. Return it with [`KvCache::free`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a sequence holds pages until it is freed"]
pub struct Sequence {
    cache: u64,
    table: Vec<u32>,
    len: usize,
    /// Whether it owns none of its pages.
    lent: bool,
}

impl Sequence {
    /// Tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pages, in order of position.
    pub fn block_table(&self) -> &[u32] {
        &self.table
    }
}

impl<T: Element> KvCache<T> {
    /// A pool of free pages, allocated whole.
    ///
    /// # Errors
    /// When a size is zero (layers, page size) or there is no memory for the pool.
    pub fn new(shape: CacheShape) -> Result<Self> {
        for (what, n) in [("layers of the cache", shape.layers), ("page size of the cache", shape.page_size)] {
            if n == 0 {
                return Err(Error::Value { what, given: 0.0, needed: "at least 1" });
            }
        }
        if shape.pages > u32::MAX as usize {
            return Err(Error::Value { what: "pages of the cache", given: shape.pages as f64, needed: "below 2^32" });
        }
        let pool = |dim: usize| {
            let sizes = [shape.layers, shape.pages, shape.kv_heads, shape.page_size, dim];
            let n = sizes.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).filter(|&n| n <= isize::MAX as usize / 8);
            zeros("cache", &sizes, n.ok_or_else(|| Error::TooLarge { what: "cache", shape: sizes.to_vec() })?)
        };
        let mut free = room("free pages of the cache", &[shape.pages], shape.pages)?;
        free.extend((0..shape.pages as u32).rev());
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(KvCache {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            shape,
            keys: pool(shape.head_dim)?,
            values: pool(shape.value_dim)?,
            owners: zeros("pages of the cache", &[shape.pages], shape.pages)?,
            free,
        })
    }

    /// The sizes of the pool.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Pages that no sequence holds.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Sequences that hold a page; 0 for one that is free or not in the pool.
    pub fn owners(&self, page: u32) -> u32 {
        self.owners.get(page as usize).copied().unwrap_or(0)
    }

    /// Bytes of the whole pool.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len()) * size_of::<T>()
    }

    /// Bytes of the pages that sequences hold.
    pub fn used_bytes(&self) -> usize {
        let used = self.shape.pages - self.free.len();
        if used == 0 { 0 } else { self.bytes() / self.shape.pages * used }
    }

    /// A new sequence without tokens.
    pub fn sequence(&self) -> Sequence {
        Sequence { cache: self.id, table: Vec::new(), len: 0, lent: false }
    }

    /// A sequence of `len` tokens over pages that other sequences hold: a shared prefix, from a block table.
    ///
    /// # Errors
    /// When an entry is not a page of the pool that is in use, or the table is not as long as `len` needs.
    pub fn adopt(&mut self, table: &[u32], len: usize) -> Result<Sequence> {
        for (index, &page) in table.iter().enumerate() {
            let state = if page as usize >= self.shape.pages { "outside it" } else { "free" };
            if self.owners(page) == 0 {
                return Err(Error::Page { index, page, pages: self.shape.pages, state });
            }
        }
        let needed = len.div_ceil(self.shape.page_size);
        same("block table", "entries", table.len(), needed, "for its number of tokens")?;
        table.iter().for_each(|&page| self.owners[page as usize] += 1);
        Ok(Sequence { cache: self.id, table: table.to_vec(), len, lent: false })
    }

    /// A second sequence with the same tokens. Nothing is copied until one of the two grows into a shared page.
    ///
    /// # Errors
    /// When the sequence belongs to another cache.
    pub fn fork(&mut self, seq: &Sequence) -> Result<Sequence> {
        self.check_owner(seq)?;
        self.adopt(&seq.table, seq.len)
    }

    /// Makes room for `tokens` more tokens, to be filled by [`KvCache::write`]; a shared last page is copied first.
    ///
    /// # Errors
    /// [`Error::CacheFull`] when there are too few free pages; then nothing has changed.
    pub fn grow(&mut self, seq: &mut Sequence, tokens: usize) -> Result<()> {
        self.check_owner(seq)?;
        if tokens == 0 {
            return Ok(());
        }
        let size = self.shape.page_size;
        let full = Error::CacheFull { needed: usize::MAX, free: self.free.len(), pages: self.shape.pages };
        let len = seq.len.checked_add(tokens).ok_or(full)?;
        let shared = (!seq.len.is_multiple_of(size)).then(|| seq.table[seq.len / size]).filter(|&page| self.owners(page) > 1);
        let needed = len.div_ceil(size) - seq.table.len() + usize::from(shared.is_some());
        if needed > self.free.len() {
            return Err(Error::CacheFull { needed, free: self.free.len(), pages: self.shape.pages });
        }
        if let Some(page) = shared {
            let own = self.take();
            self.copy_page(page, own);
            self.owners[page as usize] -= 1;
            seq.table[seq.len / size] = own;
        }
        while seq.table.len() < len.div_ceil(size) {
            seq.table.push(self.take());
        }
        seq.len = len;
        Ok(())
    }

    /// Writes keys and values `[1, kv_heads, n, dim]` of one layer at positions `from..from + n`.
    ///
    /// # Errors
    /// When the sizes do not fit, the positions leave the sequence, or one lies in a page that another sequence shares.
    pub fn write(&mut self, layer: usize, seq: &Sequence, from: usize, k: View<'_, T>, v: View<'_, T>) -> Result<()> {
        self.check(seq)?;
        self.check_rows(layer, k, v)?;
        let CacheShape { page_size, kv_heads, head_dim, value_dim, .. } = self.shape;
        let rows = k.shape()[2];
        let end = from.saturating_add(rows);
        if end > seq.len {
            return Err(Error::Positions { start: from, end, length: seq.len });
        }
        let pages = &seq.table[(from / page_size).min(seq.table.len())..end.div_ceil(page_size)];
        if let Some(&page) = pages.iter().find(|&&page| rows > 0 && self.owners(page) > 1) {
            return Err(Error::SharedPage { page, owners: self.owners(page) });
        }
        for head in 0..kv_heads {
            for i in 0..rows {
                let row = self.row(layer, seq, head, from + i);
                copy_row(k, head, i, &mut self.keys[row * head_dim..][..head_dim]);
                copy_row(v, head, i, &mut self.values[row * value_dim..][..value_dim]);
            }
        }
        Ok(())
    }

    /// Adds keys and values `[1, kv_heads, n, dim]` to the end of a sequence of a cache with one layer.
    ///
    /// # Errors
    /// As [`KvCache::grow`] and [`KvCache::write`]; then nothing has changed.
    pub fn append(&mut self, seq: &mut Sequence, k: View<'_, T>, v: View<'_, T>) -> Result<()> {
        same("cache", "layers", self.shape.layers, 1, "for append; use grow and write with more")?;
        self.check(seq)?;
        self.check_rows(0, k, v)?;
        let from = seq.len;
        self.grow(seq, k.shape()[2])?;
        self.write(0, seq, from, k, v)
    }

    /// Forgets the tokens from position `len` on, and returns the pages that hold none of the others.
    ///
    /// # Errors
    /// When the sequence is shorter than `len`, or belongs to another cache.
    pub fn truncate(&mut self, seq: &mut Sequence, len: usize) -> Result<()> {
        self.check_owner(seq)?;
        if len > seq.len {
            return Err(Error::Positions { start: 0, end: len, length: seq.len });
        }
        for page in seq.table.split_off(len.div_ceil(self.shape.page_size)) {
            self.owners[page as usize] -= 1;
            if self.owners[page as usize] == 0 {
                self.free.push(page);
            }
        }
        seq.len = len;
        Ok(())
    }

    /// Returns the pages of a sequence; those that others share stay.
    ///
    /// # Errors
    /// When the sequence belongs to another cache.
    pub fn free(&mut self, mut seq: Sequence) -> Result<()> {
        self.truncate(&mut seq, 0)
    }

    /// Keys of the positions from `position` to the end of its page: `[tokens, head_dim]`, row-major.
    ///
    /// # Panics
    /// When the cache has no such layer or head, or the sequence no such position.
    pub fn key_rows(&self, layer: usize, seq: &Sequence, head: usize, position: usize) -> &[T] {
        self.rows(&self.keys, self.shape.head_dim, layer, seq, head, position)
    }

    /// Values of the positions from `position` to the end of its page: `[tokens, value_dim]`, row-major.
    ///
    /// # Panics
    /// When the cache has no such layer or head, or the sequence no such position.
    pub fn value_rows(&self, layer: usize, seq: &Sequence, head: usize, position: usize) -> &[T] {
        self.rows(&self.values, self.shape.value_dim, layer, seq, head, position)
    }

    /// Checks that a sequence is one of this cache; then its pages are in the pool, for only this file makes tables.
    pub(crate) fn check(&self, seq: &Sequence) -> Result<()> {
        if seq.cache == self.id { Ok(()) } else { Err(Error::ForeignSequence) }
    }

    /// Checks that a sequence is one of this cache and owns its pages.
    fn check_owner(&self, seq: &Sequence) -> Result<()> {
        self.check(seq)?;
        if seq.lent { Err(Error::LentSequence) } else { Ok(()) }
    }

    fn check_rows(&self, layer: usize, k: View<'_, T>, v: View<'_, T>) -> Result<()> {
        let CacheShape { layers, kv_heads, head_dim, value_dim, .. } = self.shape;
        if layer >= layers {
            return Err(Error::Layer { given: layer, layers });
        }
        for (what, view, dim) in [("keys", k, head_dim), ("values", v, value_dim)] {
            same(what, "sequences", view.shape()[0], 1, "for one sequence of the cache")?;
            same(what, "heads", view.shape()[1], kv_heads, "as the cache has")?;
            same(what, "elements in each head", view.shape()[3], dim, "as the cache has")?;
        }
        same("values", "positions", v.shape()[2], k.shape()[2], "as the keys have")
    }

    /// The row of a position in `[layers, pages, kv_heads, page_size]`.
    fn row(&self, layer: usize, seq: &Sequence, head: usize, position: usize) -> usize {
        let CacheShape { pages, page_size, kv_heads, .. } = self.shape;
        let page = seq.table[position / page_size] as usize;
        ((layer * pages + page) * kv_heads + head) * page_size + position % page_size
    }

    fn rows<'a>(&self, pool: &'a [T], dim: usize, layer: usize, seq: &Sequence, head: usize, position: usize) -> &'a [T] {
        let size = self.shape.page_size;
        let tokens = (size - position % size).min(seq.len - position);
        &pool[self.row(layer, seq, head, position) * dim..][..tokens * dim]
    }

    fn take(&mut self) -> u32 {
        let page = self.free.pop().expect("the caller counted the free pages");
        self.owners[page as usize] = 1;
        page
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        let CacheShape { layers, pages, page_size, kv_heads, head_dim, value_dim } = self.shape;
        for (pool, dim) in [(&mut self.keys, head_dim), (&mut self.values, value_dim)] {
            let page = kv_heads * page_size * dim;
            for layer in 0..layers {
                let at = |p: u32| (layer * pages + p as usize) * page;
                pool.copy_within(at(from)..at(from) + page, at(to));
            }
        }
    }
}

fn copy_row<T: Element>(from: View<'_, T>, head: usize, row: usize, to: &mut [T]) {
    match from.row(0, head, row) {
        Some(from) => to.copy_from_slice(from),
        None => (0..to.len()).for_each(|d| to[d] = from.at([0, head, row, d])),
    }
}

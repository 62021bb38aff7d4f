//! Lent pages: a pool whose books another keeps, who says by block table which pages a sequence reads and writes.

use super::{KvCache, Sequence};
use crate::shape::same;
use crate::{Element, Error, Result};

impl<T: Element> KvCache<T> {
    /// A sequence of `len` tokens over pages that the caller keeps the books of. It owns none of them: dropping it frees nothing, and it
    /// cannot be grown, cut, shared or freed. Where two lent sequences write one page, the later one wins.
    ///
    /// An engine that counts references, evicts and preempts has one set of books, and it is the engine's; entries behind a window, where
    /// nobody reads, may name any page.
    ///
    /// # Errors
    /// When an entry is not a page of the pool or is one that a sequence owns, or the table is not as long as `len` needs.
    pub fn lend(&self, table: &[u32], len: usize) -> Result<Sequence> {
        for (index, &page) in table.iter().enumerate() {
            self.check_lent(index, page)?;
        }
        same("block table", "entries", table.len(), len.div_ceil(self.shape.page_size), "for its number of tokens")?;
        Ok(Sequence { cache: self.id, table: table.to_vec(), len, lent: true })
    }

    /// Copies a page that no sequence owns onto another, in all layers.
    ///
    /// # Errors
    /// When one is not in the pool, or a sequence owns it.
    pub fn copy_lent(&mut self, from: u32, to: u32) -> Result<()> {
        self.check_lent(0, from)?;
        self.check_lent(1, to)?;
        self.copy_page(from, to);
        Ok(())
    }

    /// Elements of a page, keys and values of all layers.
    pub fn page_len(&self) -> usize {
        let shape = self.shape;
        shape.layers * shape.kv_heads * shape.page_size * (shape.head_dim + shape.value_dim)
    }

    /// A page that no sequence owns, to be put back by [`KvCache::write_page`]: `page_len` elements.
    ///
    /// # Errors
    /// When it is not in the pool, or a sequence owns it, or `to` has another length.
    pub fn read_page(&self, page: u32, to: &mut [T]) -> Result<()> {
        self.check_lent(0, page)?;
        same("page", "elements", to.len(), self.page_len(), "as a page of the cache has")?;
        let mut rest = to;
        for (pool, part) in [(&self.keys, self.part(self.shape.head_dim)), (&self.values, self.part(self.shape.value_dim))] {
            for layer in 0..self.shape.layers {
                let (to, others) = rest.split_at_mut(part);
                to.copy_from_slice(&pool[(layer * self.shape.pages + page as usize) * part..][..part]);
                rest = others;
            }
        }
        Ok(())
    }

    /// Puts back what [`KvCache::read_page`] gave, into a page that no sequence owns.
    ///
    /// # Errors
    /// As [`KvCache::read_page`].
    pub fn write_page(&mut self, page: u32, from: &[T]) -> Result<()> {
        self.check_lent(0, page)?;
        same("page", "elements", from.len(), self.page_len(), "as a page of the cache has")?;
        let parts = [self.part(self.shape.head_dim), self.part(self.shape.value_dim)];
        let mut rest = from;
        for (pool, part) in [&mut self.keys, &mut self.values].into_iter().zip(parts) {
            for layer in 0..self.shape.layers {
                let (from, others) = rest.split_at(part);
                pool[(layer * self.shape.pages + page as usize) * part..][..part].copy_from_slice(from);
                rest = others;
            }
        }
        Ok(())
    }

    /// Elements of a page in one layer, for rows of `dim` elements.
    fn part(&self, dim: usize) -> usize {
        self.shape.kv_heads * self.shape.page_size * dim
    }

    fn check_lent(&self, index: usize, page: u32) -> Result<()> {
        let pages = self.shape.pages;
        if page as usize >= pages {
            return Err(Error::Page { index, page, pages, state: "outside it" });
        }
        if self.owners(page) > 0 {
            return Err(Error::Page { index, page, pages, state: "owned by a sequence" });
        }
        Ok(())
    }
}

//! Block tables: the pages of one sequence, in order of position.

use super::prefix::PrefixId;

/// The block table of one sequence in one group.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) pages: Vec<Option<u32>>,
    /// The prefix of the whole pages, while it can be cached.
    pub(super) prefix: Option<PrefixId>,
    /// Whole pages that were offered to the prefix cache.
    pub(super) whole: usize,
}

impl Table {
    /// The pages, in order of position. None has gone: it lies behind the window.
    pub fn pages(&self) -> &[Option<u32>] {
        &self.pages
    }

    /// The page and the row in it of a position; none where no page is.
    pub fn place(&self, position: usize, page_size: usize) -> Option<(u32, usize)> {
        let page = *self.pages.get(position / page_size)?;
        Some((page?, position % page_size))
    }

    /// The pages that are held.
    pub(crate) fn held(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.pages.iter().copied().flatten()
    }
}

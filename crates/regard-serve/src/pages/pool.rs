//! The pool of one group: which pages are free, which tables hold the others, and which keep a prefix for requests to come.

use std::collections::{BTreeMap, HashMap};

use super::prefix::{PrefixId, Prefixes};
use crate::bug;

/// Pages by number; what is in them is the runner's.
///
/// ```text
///   free ──take──▶ referenced ──release──▶ free, or cached when it holds a known prefix
///                      ▲                                    │
///                      └──────────── share ─────────────────┘      take evicts the cached page that is idle for longest
/// ```
#[derive(Debug)]
pub(crate) struct Pool {
    /// Tables that hold each page.
    references: Vec<u32>,
    /// Their sum: pages in all tables, a shared one once for each.
    pub(crate) table_pages: usize,
    free: Vec<u32>,
    /// The prefix that each page ends, where it is known.
    contents: Vec<Option<PrefixId>>,
    pages: HashMap<PrefixId, u32>,
    /// Pages with a known prefix that no table holds, longest idle first.
    idle: BTreeMap<u64, u32>,
    idle_since: Vec<u64>,
    clock: u64,
    pub(crate) prefixes: Prefixes,
    /// Cached pages given up for others.
    pub(crate) evictions: u64,
}

impl Pool {
    pub(crate) fn new(pages: u32, secret: [u8; 16]) -> Self {
        let n = pages as usize;
        Self {
            references: vec![0; n],
            table_pages: 0,
            free: (0..pages).rev().collect(),
            contents: vec![None; n],
            pages: HashMap::new(),
            idle: BTreeMap::new(),
            idle_since: vec![0; n],
            clock: 0,
            prefixes: Prefixes::new(secret),
            evictions: 0,
        }
    }

    /// Pages in all.
    pub(crate) fn len(&self) -> usize {
        self.references.len()
    }

    /// Pages that no table holds and no prefix.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages that keep a prefix and that no table holds.
    pub(crate) fn cached(&self) -> usize {
        self.idle.len()
    }

    /// Pages that no table holds.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Tables that hold a page.
    pub(crate) fn references(&self, page: u32) -> u32 {
        self.references[page as usize]
    }

    /// Whether a page may be written: one table holds it, and no other may find it.
    pub(crate) fn writable(&self, page: u32) -> bool {
        self.references(page) == 1 && self.contents[page as usize].is_none()
    }

    /// A page for one table: a free one, or the cached one that is idle for longest.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if bug::allocation_fails() {
            return None;
        }
        let page = self.free.pop().or_else(|| self.evict())?;
        self.references[page as usize] = 1;
        self.table_pages += 1;
        Some(page)
    }

    /// One more table holds a page.
    pub(crate) fn share(&mut self, page: u32) {
        self.idle.remove(&self.idle_since[page as usize]);
        self.idle_since[page as usize] = 0;
        self.references[page as usize] += 1;
        self.table_pages += 1;
    }

    /// One table less holds a page.
    pub(crate) fn release(&mut self, page: u32) {
        let references = &mut self.references[page as usize];
        *references -= 1;
        self.table_pages -= 1;
        if *references > 0 {
            return;
        }
        if self.contents[page as usize].is_some() {
            self.clock += 1;
            self.idle.insert(self.clock, page);
            self.idle_since[page as usize] = self.clock;
        } else {
            self.free.push(page);
        }
    }

    /// The page that ends a prefix.
    pub(crate) fn find(&self, prefix: PrefixId) -> Option<u32> {
        self.pages.get(&prefix).copied()
    }

    /// Lets others find a page by its prefix, unless another page is found by it already.
    pub(crate) fn publish(&mut self, page: u32, prefix: PrefixId) {
        if self.contents[page as usize].is_none() && !self.pages.contains_key(&prefix) {
            self.contents[page as usize] = Some(prefix);
            self.pages.insert(prefix, page);
            self.prefixes.retain(prefix);
        }
    }

    fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.idle.pop_first()?;
        self.idle_since[page as usize] = 0;
        if let Some(prefix) = self.contents[page as usize].take() {
            self.pages.remove(&prefix);
            self.prefixes.release(prefix);
        }
        self.evictions += 1;
        Some(page)
    }
}

#[cfg(test)]
impl Pool {
    /// The pages that a prefix can be found by, with the tokens it ends in.
    pub(crate) fn published(&self) -> impl Iterator<Item = (u32, &[u32])> {
        self.pages.iter().map(|(prefix, page)| (*page, self.prefixes.tokens(*prefix)))
    }

    /// Checks the books against the pages that the tables hold.
    pub(crate) fn check(&self, tables: impl Iterator<Item = u32>) {
        let mut held = vec![0; self.len()];
        tables.for_each(|page| held[page as usize] += 1);
        assert_eq!(held, self.references, "a page's references are the tables that point to it");
        assert_eq!(held.iter().sum::<u32>() as usize, self.table_pages, "the pages in tables are counted");
        let referenced = held.iter().filter(|n| **n > 0).count();
        assert_eq!(self.free() + self.cached() + referenced, self.len(), "free + cached + referenced = total");
        let mut seen = vec![false; self.len()];
        for page in self.free.iter().chain(self.idle.values()) {
            assert!(!std::mem::replace(&mut seen[*page as usize], true), "page {page} is free twice");
            assert_eq!(held[*page as usize], 0, "page {page} is free and held");
        }
        assert!(self.free.iter().all(|page| self.contents[*page as usize].is_none()), "a free page keeps no prefix");
        for (prefix, page) in &self.pages {
            assert_eq!(self.contents[*page as usize], Some(*prefix), "a prefix is found by the page that ends it");
        }
    }
}

//! Swap: the pages of a request on their way to the swap space and back.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Pages, Table};
use crate::bug::{self, Bug};
use crate::{Runner, RunnerError};

/// The free slots of a group's swap space.
#[derive(Debug)]
pub(super) struct Slots {
    free: Vec<u32>,
    #[cfg_attr(not(test), allow(dead_code, reason = "tests count the slots"))]
    len: usize,
}

impl Slots {
    pub(super) fn new(slots: u32) -> Self {
        Self { free: (0..slots).rev().collect(), len: slots as usize }
    }
}

/// Swapped-out tables name slots where the others name pages. A page that several tables hold is written once.
impl Pages {
    /// Writes all pages of some tables to the swap space, and gives them back. None when a write failed or slots are wanting; then the
    /// tables are given back as well.
    pub(crate) fn swap_out(&mut self, tables: Vec<Vec<Table>>, runner: &mut impl Runner) -> Option<Vec<Vec<Table>>> {
        let mut moved: Vec<BTreeMap<u32, u32>> = vec![BTreeMap::new(); self.groups.len()];
        let written = self.write(&tables, &mut moved, runner).is_some();
        let mut swapped = tables;
        if written {
            for tables in &mut swapped {
                for ((table, pool), moved) in tables.iter_mut().zip(&mut self.pools).zip(&moved) {
                    table.held().rev().for_each(|page| pool.release(page));
                    table.pages.iter_mut().flatten().for_each(|page| *page = moved[page]);
                }
            }
            return Some(swapped);
        }
        for (slots, moved) in self.slots.iter_mut().zip(moved) {
            slots.free.extend(moved.into_values());
        }
        swapped.into_iter().for_each(|tables| self.close(tables));
        None
    }

    fn write(&mut self, tables: &[Vec<Table>], moved: &mut [BTreeMap<u32, u32>], runner: &mut impl Runner) -> Option<()> {
        for tables in tables {
            for (g, table) in tables.iter().enumerate() {
                for page in table.held() {
                    if let Entry::Vacant(entry) = moved[g].entry(page) {
                        let slot = *entry.insert(self.slots[g].free.pop()?);
                        runner.swap_out(g, page, slot).ok()?;
                    }
                }
            }
        }
        Some(())
    }

    /// Pages of a group, or slots, that some tables hold.
    pub(crate) fn distinct(&self, g: usize, tables: &[&[Table]]) -> usize {
        distinct(g, tables.iter().copied()).len()
    }

    /// Reads swapped-out tables back into pages. None when a read failed or pages are wanting; then the slots are given back, and what
    /// was in them is lost.
    pub(crate) fn swap_in(&mut self, tables: Vec<Vec<Table>>, runner: &mut impl Runner) -> Option<Vec<Vec<Table>>> {
        let mut moved: Vec<BTreeMap<u32, u32>> = vec![BTreeMap::new(); self.groups.len()];
        let read = self.read(&tables, &mut moved, runner);
        if read.is_err() {
            for (pool, moved) in self.pools.iter_mut().zip(moved) {
                moved.into_values().for_each(|page| pool.release(page));
            }
            self.forget(tables);
            return None;
        }
        self.free_slots(&tables);
        let mut back = tables;
        for (g, moved) in moved.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for page in back.iter_mut().filter_map(|tables| tables.get_mut(g)).flat_map(|table| table.pages.iter_mut()).flatten() {
                *page = moved[page];
                if !seen.insert(*page) {
                    self.pools[g].share(*page);
                }
            }
        }
        Some(back)
    }

    fn read(
        &mut self,
        tables: &[Vec<Table>],
        moved: &mut [BTreeMap<u32, u32>],
        runner: &mut impl Runner,
    ) -> Result<(), RunnerError> {
        for tables in tables {
            for (g, table) in tables.iter().enumerate() {
                for slot in table.held() {
                    if let Entry::Vacant(entry) = moved[g].entry(slot) {
                        let page = self.pools[g].take().ok_or("no page is free")?;
                        entry.insert(page);
                        let from = if bug::present(Bug::SwapsPages) { slot ^ 1 } else { slot };
                        runner.swap_in(g, from, page)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives up swapped-out tables.
    pub(crate) fn forget(&mut self, tables: Vec<Vec<Table>>) {
        self.free_slots(&tables);
        for tables in tables {
            for (table, pool) in tables.into_iter().zip(&mut self.pools) {
                table.prefix.into_iter().for_each(|prefix| pool.prefixes.release(prefix));
            }
        }
    }

    fn free_slots(&mut self, tables: &[Vec<Table>]) {
        for (g, slots) in self.slots.iter_mut().enumerate() {
            slots.free.extend(distinct(g, tables.iter().map(Vec::as_slice)));
        }
    }

    /// Checks that each slot is free or held by a swapped-out table.
    #[cfg(test)]
    pub(crate) fn check_slots(&self, tables: &[&[Table]]) {
        for (g, slots) in self.slots.iter().enumerate() {
            let mut all: Vec<u32> = distinct(g, tables.iter().copied()).into_iter().collect();
            all.extend(&slots.free);
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..slots.len as u32), "each swap slot is free or held, once");
        }
    }
}

fn distinct<'a>(g: usize, tables: impl Iterator<Item = &'a [Table]>) -> BTreeSet<u32> {
    tables.filter_map(|tables| tables.get(g)).flat_map(Table::held).collect()
}

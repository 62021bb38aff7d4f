//! What must hold after every step.

use super::model::Model;
use crate::engine::Engine;
use crate::job::State;
use crate::{Keep, Runner, Table};

impl Engine<Model> {
    /// The books agree with the tables, the pages with the books, and no more is held than is needed.
    pub(super) fn check_books(&self) {
        let in_pages = || self.jobs().filter(|job| job.state != State::Swapped);
        let tables: Vec<&[Table]> = in_pages().flat_map(|job| job.tables()).collect();
        self.pages().check(tables.iter().copied());
        let swapped: Vec<&[Table]> = self.jobs().filter(|job| job.state == State::Swapped).flat_map(|job| job.tables()).collect();
        self.pages().check_slots(&swapped);
        for (g, pool) in self.pages().pools().iter().enumerate() {
            for (page, tokens) in pool.published() {
                let held = self.runner().pages[g][page as usize].iter().map(|entry| entry.token);
                assert!(held.eq(tokens.iter().copied()), "group {g}: cached tokens equal the tokens of page {page}");
            }
        }
        for job in self.jobs() {
            assert!(job.state != State::Waiting || job.tables().next().is_none(), "a request that waits holds nothing");
            for sequence in job.sequences.iter().filter(|sequence| !sequence.tables.is_empty() && job.state == State::Running) {
                for (group, table) in self.runner().groups().iter().zip(&sequence.tables) {
                    let len = if group.keep == Keep::Source { job.request.source.len() } else { sequence.computed };
                    let gone = if group.keep == Keep::Source { 0 } else { group.first_page(len).min(group.pages_of(len)) };
                    assert_eq!(table.pages().len(), group.pages_of(len), "no page is held ahead of its tokens");
                    assert_eq!(table.held().count(), group.pages_of(len) - gone, "no page is held behind the window");
                }
            }
        }
        assert!(self.runner().read <= self.config().token_budget, "a step reads no more than its budget");
    }

    /// Nothing is held when there is no request.
    pub(super) fn check_rest(&self) {
        assert!(self.is_idle(), "every request ends");
        for pool in self.pages().pools() {
            assert_eq!(pool.available(), pool.len(), "at rest nothing is held");
            assert!(pool.prefixes.len() >= pool.cached(), "each cached page has its prefix");
        }
        self.pages().check_slots(&[]);
    }
}

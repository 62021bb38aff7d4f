//! Schedule: who reads how many tokens in this step, and who gives up pages for it.
//!
//! ```text
//!   1. each running request decodes, in order of service
//!   2. what is left of the budget goes to prefill, in order of service; nobody overtakes one that has to wait
//!   pages wanting: the last in order gives up its own, one that stands still before all others
//! ```
//! The first in order is never preempted and fits the pool by itself, so it ends, and then the next is the first.

use super::Engine;
use super::batch::{Batch, Row};
use crate::job::{Job, Rank, State};
use crate::{Decoding, Outcome, Output, Preemption, Runner};

impl<R: Runner> Engine<R> {
    pub(super) fn schedule(&mut self) -> Batch {
        let mut batch = Batch::new(self.config.token_budget);
        for rank in self.ready() {
            if self.jobs[&rank].state == State::Running {
                self.plan(rank, Some(1), &mut batch);
            }
        }
        for rank in self.ready() {
            if batch.left == 0 || !self.admit(rank, &mut batch) {
                break;
            }
            self.plan(rank, None, &mut batch);
        }
        batch
    }

    /// Requests that do not stand still, in order of service.
    fn ready(&self) -> Vec<Rank> {
        self.jobs.iter().filter(|(_, job)| !job.paused).map(|(rank, _)| *rank).collect()
    }

    /// Adds a running request's sequences to the batch, or only those that have `only` tokens to read.
    fn plan(&mut self, rank: Rank, only: Option<usize>, batch: &mut Batch) {
        let mut i = 0;
        while let Some(job) = self.jobs.get(&rank).filter(|job| job.state == State::Running && i < job.sequences.len()) {
            let readable = job.readable(i);
            if readable > 0 && batch.left > 0 && only.is_none_or(|only| readable == only) && !batch.has(rank, i) {
                let source = if i == 0 && job.encodes(&self.pages) { job.request.source.len() } else { 0 };
                let tokens = readable.min(batch.left - source);
                let row = Row { rank, sequence: i, tokens, logits: rows_wanted(job, i, tokens), source };
                self.make_room(row, batch);
            }
            i += 1;
        }
    }

    /// Adds a row to the batch once there are pages for it. When none can be had, the request itself gives up its own.
    fn make_room(&mut self, row: Row, batch: &mut Batch) {
        loop {
            let Some(job) = self.jobs.get_mut(&row.rank) else { return };
            let source = job.request.source.len();
            let sequence = &mut job.sequences[row.sequence];
            match self.pages.grow(&mut sequence.tables, sequence.computed, row.tokens, source, &mut self.runner) {
                Ok(true) => return batch.add(row),
                Ok(false) => match self.victim(row.rank) {
                    Some(victim) => self.preempt(victim, batch),
                    None => return self.preempt(row.rank, batch),
                },
                Err(error) => {
                    batch.remove(row.rank);
                    return self.end(row.rank, Outcome::Failed(error.to_string()));
                }
            }
        }
    }

    /// Takes a waiting request up. False when it must wait.
    fn admit(&mut self, rank: Rank, batch: &mut Batch) -> bool {
        if self.jobs[&rank].state == State::Running {
            return true;
        }
        loop {
            if self.seats_left(rank) && self.take_up(rank, batch.left) {
                return true;
            }
            let Some(victim) = self.victim(rank) else { return false };
            self.preempt(victim, batch);
        }
    }

    fn seats_left(&self, rank: Rank) -> bool {
        let running = self.jobs.values().filter(|job| job.state == State::Running);
        running.map(seats).sum::<usize>() + seats(&self.jobs[&rank]) <= self.config.max_sequences
    }

    /// Gives a waiting request its pages: those of its prefix, or those in the swap space. False when there are too few for all that it
    /// has to read, or too few tokens left in the step for its source.
    fn take_up(&mut self, rank: Rank, left: usize) -> bool {
        let alone = self.jobs.values().all(|job| job.state != State::Running);
        let Some(job) = self.jobs.get_mut(&rank) else { return false };
        let (pages, budget) = (&mut self.pages, self.config.token_budget);
        if job.state == State::Swapped {
            let reserve = if alone { 0 } else { self.config.reserve };
            if !job.fits(pages, budget, reserve) {
                return false;
            }
            if job.swap_in(pages, &mut self.runner) {
                return true;
            }
        }
        if job.encodes(pages) && left <= job.request.source.len() {
            return false;
        }
        let tokens = job.cacheable();
        let (tables, cached) = pages.open(job.root(), &job.sequences[0].tokens[..tokens]);
        (job.sequences[0].tables, job.sequences[0].computed) = (tables, cached);
        if !job.fits(pages, budget, if alone { 0 } else { self.config.reserve }) {
            job.vacate(pages);
            return false;
        }
        job.state = State::Running;
        self.stats.cached_tokens += cached as u64;
        if !std::mem::replace(&mut job.started, true) {
            self.outputs.push(Output::Started { request: job.id, cached });
        }
        true
    }

    /// Who gives up pages for a request: one that stands still, or else the last in order, if it comes after.
    fn victim(&self, rank: Rank) -> Option<Rank> {
        let running = || self.jobs.iter().rev().filter(|(other, job)| job.state == State::Running && **other != rank);
        let paused = running().find(|(_, job)| job.paused);
        paused.or_else(|| running().next().filter(|(other, _)| **other > rank)).map(|(rank, _)| *rank)
    }

    fn preempt(&mut self, rank: Rank, batch: &mut Batch) {
        batch.remove(rank);
        self.stats.preemptions += 1;
        if let Some(job) = self.jobs.get_mut(&rank) {
            job.preempt(&mut self.pages, self.config.preemption == Preemption::Swap, &mut self.runner);
        }
    }
}

/// Sequences that a request may have at once.
fn seats<T>(job: &Job<T>) -> usize {
    match job.request.decoding {
        Decoding::Sample { .. } => job.sequences.len(),
        Decoding::Beam { width, .. } => width,
    }
}

/// After how many of the next `tokens` tokens logits are wanted: the last token of a text, and all of a prompt that is scored.
fn rows_wanted<T: Clone>(job: &Job<T>, i: usize, tokens: usize) -> usize {
    let sequence = &job.sequences[i];
    if job.scores_prompt() && i == 0 {
        return tokens;
    }
    usize::from(sequence.computed + tokens == sequence.tokens.len())
}

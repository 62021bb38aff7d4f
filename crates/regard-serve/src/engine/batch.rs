//! A batch: who reads how many tokens in a step.

use crate::Work;
use crate::job::{Job, Rank};

/// The tokens that one sequence reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) rank: Rank,
    pub(super) sequence: usize,
    pub(super) tokens: usize,
    /// After how many of the last tokens logits are wanted.
    pub(super) logits: usize,
    /// Tokens of the source that are encoded before.
    pub(super) source: usize,
}

/// What is read in one step.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    /// Tokens that may still be added.
    pub(super) left: usize,
}

impl Row {
    pub(super) fn work<'a, T>(&self, job: &'a Job<T>) -> Work<'a> {
        let sequence = &job.sequences[self.sequence];
        Work {
            tokens: &sequence.tokens[sequence.computed..][..self.tokens],
            first: sequence.computed,
            logits: self.logits,
            tables: &sequence.tables,
            source: &job.request.source,
            encode: self.source > 0,
        }
    }
}

impl Batch {
    pub(super) fn new(budget: usize) -> Self {
        Self { rows: Vec::new(), left: budget }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.left -= row.tokens + row.source;
        self.rows.push(row);
    }

    /// Takes a request out again.
    pub(super) fn remove(&mut self, rank: Rank) {
        self.left += self.rows.iter().filter(|row| row.rank == rank).map(|row| row.tokens + row.source).sum::<usize>();
        self.rows.retain(|row| row.rank != rank);
    }

    pub(super) fn has(&self, rank: Rank, sequence: usize) -> bool {
        self.rows.iter().any(|row| row.rank == rank && row.sequence == sequence)
    }

    /// The requests in it, each once.
    pub(super) fn ranks(&self) -> Vec<Rank> {
        let mut ranks: Vec<Rank> = self.rows.iter().map(|row| row.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }
}

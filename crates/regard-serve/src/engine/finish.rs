//! Finish: texts that have ended give back their pages, beams go on, and requests whose texts have all ended are told of.

use super::Engine;
use super::batch::Batch;
use crate::beam;
use crate::bug::{self, Bug};
use crate::job::Rank;
use crate::{Decoding, Outcome, Output, Runner, RunnerError};

impl<R: Runner> Engine<R> {
    pub(super) fn finish(&mut self, batch: &Batch) {
        for rank in batch.ranks() {
            match self.advance(rank) {
                Ok(None) => {}
                Ok(Some(outcome)) => self.end(rank, outcome),
                Err(error) => self.end(rank, Outcome::Failed(error.to_string())),
            }
        }
    }

    /// How a request ended, if it did.
    fn advance(&mut self, rank: Rank) -> Result<Option<Outcome>, RunnerError> {
        let Some(job) = self.jobs.get_mut(&rank) else { return Ok(None) };
        match job.request.decoding {
            Decoding::Sample { .. } => job.retire(&mut self.pages),
            Decoding::Beam { .. } => beam::advance(job, &mut self.pages, &self.runner)?,
        }
        Ok(job.sequences.is_empty().then(|| Outcome::Finished(job.finished())))
    }

    /// The requests of a batch that could not be computed.
    pub(super) fn fail(&mut self, batch: &Batch, error: &RunnerError) {
        batch.ranks().into_iter().for_each(|rank| self.end(rank, Outcome::Failed(error.to_string())));
    }

    /// Tells the last of a request, and gives back all that it holds.
    pub(super) fn end(&mut self, rank: Rank, outcome: Outcome) {
        let Some(mut job) = self.jobs.remove(&rank) else { return };
        self.ranks.remove(&job.id);
        job.vacate(&mut self.pages);
        let done = Output::Done { request: job.id, outcome };
        if bug::present(Bug::EndsTwice) {
            self.outputs.push(done.clone());
        }
        self.outputs.push(done);
    }
}

//! Sample: what was read is settled in its pages, and each text whose last token was read gets the next one.

use super::Engine;
use super::batch::{Batch, Row};
use crate::job::Rank;
use crate::output::check_finite;
use crate::{Decoding, Logprobs, Outcome, Output, Runner, RunnerError};

impl<R: Runner> Engine<R> {
    pub(super) fn sample(&mut self, batch: &Batch, logits: &[f32]) {
        let vocab_size = self.runner.vocab_size();
        let mut rest = logits;
        for row in &batch.rows {
            let (logits, others) = rest.split_at(row.logits * vocab_size);
            rest = others;
            if let Err(error) = self.settle(row).and_then(|read| self.choose(row, read, logits)) {
                self.end(row.rank, Outcome::Failed(error.to_string()));
            }
        }
    }

    /// Books the tokens of a row as read: how many were before.
    fn settle(&mut self, row: &Row) -> Result<usize, RunnerError> {
        let Some(job) = self.jobs.get_mut(&row.rank) else { return Ok(0) };
        let sequence = &mut job.sequences[row.sequence];
        let before = sequence.computed;
        sequence.computed += row.tokens;
        job.begun = true;
        self.pages.settle(&mut sequence.tables, &sequence.tokens, sequence.computed);
        job.fork(&mut self.pages);
        Ok(before)
    }

    /// Scores the prompt, and continues each text that these logits are for: at the end of a prompt, all of them.
    fn choose(&mut self, row: &Row, before: usize, logits: &[f32]) -> Result<(), RunnerError> {
        let Some(job) = self.jobs.get_mut(&row.rank) else { return Ok(()) };
        let rows = logits.chunks_exact(self.runner.vocab_size());
        if job.scores_prompt() && row.sequence == 0 {
            let positions = before..job.request.prompt.len() - 1;
            for (position, logits) in positions.zip(rows.clone()).skip(job.prompt_logprobs.len().saturating_sub(before)) {
                check_finite(logits)?;
                let (next, top) = (job.request.prompt[position + 1], job.request.prompt_logprobs.unwrap_or(0));
                job.prompt_logprobs.push(Logprobs::of(logits, next, top));
            }
        }
        let sequence = &job.sequences[row.sequence];
        let Some(last) = rows.last().filter(|_| sequence.pending() == 0) else { return Ok(()) };
        check_finite(last)?;
        let all = sequence.generated() == 0;
        let texts = if all { 0..job.sequences.len() } else { row.sequence..row.sequence + 1 };
        texts.into_iter().try_for_each(|i| self.continue_text(row.rank, i, last))
    }

    fn continue_text(&mut self, rank: Rank, i: usize, logits: &[f32]) -> Result<(), RunnerError> {
        let Some(job) = self.jobs.get_mut(&rank) else { return Ok(()) };
        let (request, sequence) = (&job.request, &mut job.sequences[i]);
        if let Decoding::Beam { width, .. } = request.decoding {
            let top = request.logprobs.unwrap_or(0);
            sequence.continuations = Some(Logprobs::continuations(logits, 2 * width, top));
            return Ok(());
        }
        if request.max_tokens == 0 {
            sequence.finish_reason = Some(regard_nn::FinishReason::Length);
            return Ok(());
        }
        let told = sequence.sample(logits, request, &self.runner)?;
        if request.streams() {
            let (request, choice, token) = (job.id, sequence.choice, sequence.last());
            let finish_reason = sequence.finish_reason;
            self.outputs.push(Output::Token { request, choice, token, text: told.text, logprobs: told.logprobs, finish_reason });
        }
        Ok(())
    }
}

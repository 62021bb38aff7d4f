//! A request in the engine.

use regard_nn::FinishReason;

use crate::pages::{Pages, Root};
use crate::sequence::Sequence;
use crate::{Choice, Finished, Keep, Logprobs, Request, RequestId, Runner, Table};

/// The order of service: lower goes first. Requests come in with the number of those before them, moved by their priority, so that
/// only finitely many can ever overtake one.
pub(crate) type Rank = (i64, u64);

/// Where a request's keys and values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nowhere: it waits.
    Waiting,
    /// In pages.
    Running,
    /// In the swap space: it waits.
    Swapped,
}

/// A request, its sequences and what came of it so far.
#[derive(Debug)]
pub(crate) struct Job<T> {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    pub(crate) state: State,
    pub(crate) paused: bool,
    /// Whether it was ever taken up.
    pub(crate) started: bool,
    /// Those that have not ended. The first, the leader, reads the prompt for all.
    pub(crate) sequences: Vec<Sequence<T>>,
    /// Whether the others share the leader's prompt already.
    pub(crate) forked: bool,
    /// Whether a batch has read for it since it has pages; its source is in them then.
    pub(crate) begun: bool,
    /// Texts that have ended, with the number of their sequence.
    pub(crate) ended: Vec<(usize, Choice)>,
    pub(crate) prompt_logprobs: Vec<Logprobs>,
    pub(crate) preemptions: u32,
}

impl<T: Clone> Job<T> {
    pub(crate) fn new(id: RequestId, request: Request, sequences: Vec<Sequence<T>>) -> Self {
        Self {
            id,
            state: State::Waiting,
            paused: false,
            started: false,
            forked: sequences.len() == 1,
            begun: false,
            ended: Vec::new(),
            prompt_logprobs: Vec::new(),
            preemptions: 0,
            request,
            sequences,
        }
    }

    pub(crate) fn root(&self) -> Root<'_> {
        Root { salt: &self.request.salt, source: &self.request.source }
    }

    /// Tokens that sequence `i` may read now: the leader reads the prompt before the others begin, and all of it before it goes on.
    pub(crate) fn readable(&self, i: usize) -> usize {
        let (sequence, prompt) = (&self.sequences[i], self.request.prompt.len());
        match (self.forked, i) {
            (true, _) => sequence.pending(),
            (false, 0) => prompt - sequence.computed,
            (false, _) => 0,
        }
    }

    /// Whether there are pages for all that it has to read, with `reserve` of a hundred to spare.
    pub(crate) fn fits(&self, pages: &Pages, step: usize, reserve: usize) -> bool {
        let lens: Vec<usize> = self.sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let shared = if lens.len() > 1 { self.request.prompt.len() } else { 0 };
        let tables: Vec<&[Table]> = self.tables().collect();
        pages.pools().iter().enumerate().all(|(g, pool)| {
            let (demand, held) = (pages.demand(g, shared, &lens, self.request.source.len(), step), pages.distinct(g, &tables));
            let wanted = if self.state == State::Swapped { demand.max(held) } else { demand.saturating_sub(held) };
            wanted + (pool.len() * reserve).div_ceil(100) <= pool.available()
        })
    }

    /// Tokens whose keys and values lie in pages, for each sequence.
    pub(crate) fn held_tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.computed).sum()
    }

    /// Whether log-probabilities of the prompt are still to be told.
    pub(crate) fn scores_prompt(&self) -> bool {
        self.request.prompt_logprobs.is_some() && self.prompt_logprobs.len() + 1 < self.request.prompt.len()
    }

    /// How many of the leader's tokens may come from the prefix cache: not the last, whose logits are needed, nor those that the leader
    /// reads for others or that are to be scored.
    pub(crate) fn cacheable(&self) -> usize {
        match (self.scores_prompt(), self.forked) {
            (true, _) => 0,
            (false, true) => self.sequences[0].tokens.len() - 1,
            (false, false) => self.request.prompt.len() - 1,
        }
    }

    /// Sets texts aside that have ended, and gives back their pages.
    pub(crate) fn retire(&mut self, pages: &mut Pages) {
        let (ended, live): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sequences).into_iter().partition(|sequence| sequence.finish_reason.is_some());
        self.sequences = live;
        for mut sequence in ended {
            pages.close(std::mem::take(&mut sequence.tables));
            let reason = sequence.finish_reason.unwrap_or(FinishReason::Length);
            let mean = if sequence.generated() == 0 { 0.0 } else { sequence.total / sequence.generated() as f64 };
            self.ended.push((sequence.choice, sequence.into_choice(reason, mean)));
        }
    }

    /// The tables of all sequences that have some.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &[Table]> + Clone {
        self.sequences.iter().map(|sequence| sequence.tables.as_slice()).filter(|tables| !tables.is_empty())
    }

    /// Lets the other sequences share the prompt, once the leader has read it.
    pub(crate) fn fork(&mut self, pages: &mut Pages) {
        let prompt = self.request.prompt.len();
        if self.forked || self.sequences[0].computed < prompt {
            return;
        }
        self.forked = true;
        let (leader, others) = self.sequences.split_at_mut(1);
        for other in others {
            other.tables = pages.fork(&leader[0].tables);
            other.computed = prompt;
        }
    }

    /// Gives back all pages, or all slots; the sequences begin anew.
    pub(crate) fn vacate(&mut self, pages: &mut Pages) {
        let tables = self.take_tables();
        match self.state {
            State::Swapped => pages.forget(tables),
            State::Waiting | State::Running => tables.into_iter().for_each(|tables| pages.close(tables)),
        }
        self.forget();
    }

    /// Gives up the pages for a request that goes first.
    pub(crate) fn preempt(&mut self, pages: &mut Pages, swap: bool, runner: &mut impl Runner) {
        self.preemptions += 1;
        if !swap || !self.begun {
            return self.vacate(pages);
        }
        self.sequences.iter_mut().for_each(|sequence| pages.trim(&mut sequence.tables, sequence.computed));
        let tables = self.take_tables();
        match pages.swap_out(tables, runner) {
            Some(tables) => {
                self.put_tables(tables);
                self.state = State::Swapped;
            }
            None => self.forget(),
        }
    }

    /// Brings the pages back from the swap space; false when that failed, and all is to be computed again.
    pub(crate) fn swap_in(&mut self, pages: &mut Pages, runner: &mut impl Runner) -> bool {
        let tables = self.take_tables();
        match pages.swap_in(tables, runner) {
            Some(tables) => {
                self.put_tables(tables);
                self.state = State::Running;
                true
            }
            None => {
                self.forget();
                false
            }
        }
    }

    /// Nothing is in pages any more.
    fn forget(&mut self) {
        self.state = State::Waiting;
        self.forked = self.sequences.len() == 1;
        self.begun = false;
        for sequence in &mut self.sequences {
            sequence.computed = 0;
            sequence.continuations = None;
        }
    }

    fn take_tables(&mut self) -> Vec<Vec<Table>> {
        self.sequences.iter_mut().map(|sequence| std::mem::take(&mut sequence.tables)).collect()
    }

    fn put_tables(&mut self, tables: Vec<Vec<Table>>) {
        self.sequences.iter_mut().zip(tables).for_each(|(sequence, tables)| sequence.tables = tables);
    }

    /// What came of it, when all sequences have ended.
    pub(crate) fn finished(&mut self) -> Finished {
        let ranked = !self.request.streams();
        if ranked {
            self.ended.sort_by(|(a, x), (b, y)| y.score.total_cmp(&x.score).then(a.cmp(b)));
        } else {
            self.ended.sort_by_key(|(choice, _)| *choice);
        }
        let choices = self.ended.drain(..).map(|(_, choice)| choice).take(self.request.decoding.choices()).collect();
        Finished { choices, prompt_logprobs: std::mem::take(&mut self.prompt_logprobs), preemptions: self.preemptions }
    }

    /// Whether the source is still to be read.
    pub(crate) fn encodes(&self, pages: &Pages) -> bool {
        !self.begun && pages.groups().iter().any(|group| group.keep == Keep::Source)
    }
}

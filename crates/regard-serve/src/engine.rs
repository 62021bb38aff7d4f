//! The engine: `step = schedule → run → sample → finish`, a function of what happened, the clock and what it holds.

mod batch;
mod finish;
mod receive;
mod sample;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use self::batch::Batch;
use crate::bug::{self, Bug};
use crate::job::{Job, Rank, State};
use crate::pages::Pages;
use crate::{Config, Event, Output, RequestId, Result, Runner, RunnerError, Stats, Work};

/// Many requests on one model.
///
/// An engine has no threads, reads no clock and draws no random numbers: the same events at the same times give the same outputs, and
/// what is told of a request does not depend on the others, only when.
#[derive(Debug)]
pub struct Engine<R: Runner> {
    runner: R,
    config: Config,
    pages: Pages,
    /// In order of service.
    jobs: BTreeMap<Rank, Job<R::Text>>,
    ranks: HashMap<RequestId, Rank>,
    arrivals: u64,
    now: Duration,
    shutdown: Option<Duration>,
    stats: Stats,
    outputs: Vec<Output>,
}

impl<R: Runner> Engine<R> {
    /// An engine without requests.
    ///
    /// # Errors
    /// When a setting is outside its domain.
    pub fn new(runner: R, config: Config) -> Result<Self> {
        config.validate(&runner)?;
        Ok(Self {
            pages: Pages::new(runner.groups(), config.prefix_cache, config.secret),
            runner,
            config,
            jobs: BTreeMap::new(),
            ranks: HashMap::new(),
            arrivals: 0,
            now: Duration::ZERO,
            shutdown: None,
            stats: Stats::default(),
            outputs: Vec::new(),
        })
    }

    /// Takes in what happened, reads at most [`Config::token_budget`] tokens, and tells what came of it. `now` is the caller's clock;
    /// where it goes back, it stands still.
    pub fn step(&mut self, events: impl IntoIterator<Item = Event>, now: Duration) -> Vec<Output> {
        self.now = self.now.max(now);
        events.into_iter().for_each(|event| self.receive(event));
        self.expire();
        let batch = self.schedule();
        match self.run(&batch) {
            Ok(logits) => self.sample(&batch, &logits),
            Err(error) => self.fail(&batch, &error),
        }
        self.finish(&batch);
        std::mem::take(&mut self.outputs)
    }

    /// The batch to logits.
    fn run(&mut self, batch: &Batch) -> Result<Vec<f32>, RunnerError> {
        if batch.rows.is_empty() {
            return Ok(Vec::new());
        }
        let work: Vec<Work<'_>> = batch.rows.iter().map(|row| row.work(&self.jobs[&row.rank])).collect();
        debug_assert!(
            bug::present(Bug::CopiesNoPage)
                || work.iter().all(|work| self.pages.writable(work.tables, work.first, work.first + work.tokens.len())),
            "no write to a shared page"
        );
        self.stats.steps += 1;
        self.stats.tokens += work.iter().map(|work| work.tokens.len() as u64).sum::<u64>();
        let rows: usize = work.iter().map(|work| work.logits).sum();
        let logits = self.runner.run(&work)?;
        let needed = rows * self.runner.vocab_size();
        if logits.len() != needed {
            return Err(format!("the model gave {} logits and must give {needed}", logits.len()).into());
        }
        Ok(logits)
    }

    /// Whether no request is left.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The model.
    pub fn runner(&self) -> &R {
        &self.runner
    }

    /// What it holds and what it did.
    pub fn stats(&self) -> Stats {
        let count = |state: State| self.jobs.values().filter(|job| job.state == state).count();
        let sum = |of: fn(&crate::pages::Pool) -> usize| self.pages.pools().iter().map(of).sum();
        Stats {
            running: count(State::Running),
            waiting: count(State::Waiting),
            swapped: count(State::Swapped),
            pages: sum(|pool| pool.len()),
            free_pages: sum(|pool| pool.free()),
            cached_pages: sum(|pool| pool.cached()),
            table_pages: sum(|pool| pool.table_pages),
            held_tokens: self.jobs.values().filter(|job| job.state == State::Running).map(Job::held_tokens).sum(),
            evictions: self.pages.pools().iter().map(|pool| pool.evictions).sum(),
            ..self.stats
        }
    }
}

#[cfg(test)]
impl<R: Runner> Engine<R> {
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Job<R::Text>> {
        self.jobs.values()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }
}

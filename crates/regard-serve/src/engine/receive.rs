//! Receive: requests are checked and queued; those that nobody waits for, or whose time is over, end.

use std::time::Duration;

use super::Engine;
use crate::job::{Job, Rank, State};
use crate::sequence::Sequence;
use crate::{Decoding, Event, Keep, Outcome, Output, Refusal, Request, RequestId, Runner, RunnerError};

impl<R: Runner> Engine<R> {
    pub(super) fn receive(&mut self, event: Event) {
        match event {
            Event::Submit(id, request) => {
                let outcome = match self.check(id, &request) {
                    Err(refusal) => Outcome::Refused(refusal),
                    Ok(()) => match self.submit(id, *request) {
                        Err(error) => Outcome::Failed(error.to_string()),
                        Ok(()) => return,
                    },
                };
                self.outputs.push(Output::Done { request: id, outcome });
            }
            Event::Abort(id) => self.rank(id).into_iter().for_each(|rank| self.end(rank, Outcome::Aborted)),
            Event::Pause(id) => self.pause(id, true),
            Event::Resume(id) => self.pause(id, false),
            Event::Shutdown(at) => self.shutdown = Some(self.shutdown.map_or(at, |before| before.min(at))),
        }
    }

    /// Ends what has run out of time.
    pub(super) fn expire(&mut self) {
        let over = |at: Option<Duration>| at.is_some_and(|at| at <= self.now);
        let all = over(self.shutdown);
        let ended: Vec<Rank> =
            self.jobs.iter().filter(|(_, job)| all || over(job.request.deadline)).map(|(rank, _)| *rank).collect();
        for rank in ended {
            self.end(rank, if all { Outcome::ShutDown } else { Outcome::Expired });
        }
    }

    fn rank(&self, id: RequestId) -> Option<Rank> {
        self.ranks.get(&id).copied()
    }

    fn pause(&mut self, id: RequestId, paused: bool) {
        if let Some(job) = self.rank(id).and_then(|rank| self.jobs.get_mut(&rank)) {
            job.paused = paused;
        }
    }

    /// Whether a request can be taken.
    fn check(&self, id: RequestId, request: &Request) -> Result<(), Refusal> {
        if self.shutdown.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        if self.ranks.contains_key(&id) {
            return Err(Refusal::Id { id });
        }
        let waiting = self.jobs.values().filter(|job| job.state != State::Running).count();
        if waiting >= self.config.max_waiting {
            return Err(Refusal::Busy { waiting });
        }
        request.validate(self.runner.vocab_size())?;
        self.check_source(request.source.len())?;
        let (prompt, max_tokens, context) = (request.prompt.len(), request.max_tokens, self.runner.context());
        if prompt.saturating_add(max_tokens) > context {
            return Err(Refusal::Context { prompt, max_tokens, context });
        }
        let (given, most) = (request.decoding.sequences(), self.config.max_sequences);
        if given > most {
            return Err(Refusal::Sequences { given, most });
        }
        self.check_pages(request)
    }

    fn check_source(&self, given: usize) -> Result<(), Refusal> {
        let (encodes, budget) = (self.pages.groups().iter().any(|group| group.keep == Keep::Source), self.config.token_budget);
        let needed = match encodes {
            true if given == 0 || given >= budget => format!("at least one and fewer than {budget}, the token budget of a step"),
            false if given > 0 => "none: the model has no encoder".to_owned(),
            _ => return Ok(()),
        };
        Err(Refusal::Source { given, needed })
    }

    /// Whether the pools can hold the request at its longest, when it is alone. The last token of a text needs no room.
    fn check_pages(&self, request: &Request) -> Result<(), Refusal> {
        let len = request.prompt.len() + request.max_tokens.saturating_sub(1);
        let lens = vec![len; request.decoding.sequences()];
        let shared = if lens.len() > 1 { request.prompt.len() } else { 0 };
        for (group, pool) in self.pages.pools().iter().enumerate() {
            let needed = self.pages.demand(group, shared, &lens, request.source.len(), self.config.token_budget);
            if needed > pool.len() {
                return Err(Refusal::Pages { group, needed, pages: pool.len() });
            }
        }
        Ok(())
    }

    fn submit(&mut self, id: RequestId, request: Request) -> Result<(), RunnerError> {
        let begin = match request.decoding {
            Decoding::Sample { best_of, .. } => best_of,
            Decoding::Beam { .. } => 1,
        };
        let text = self.runner.text(&request.prompt);
        let sequences = (0..begin).map(|i| Sequence::new(&request, i, text.clone())).collect::<Result<Vec<_>, _>>()?;
        let arrival = i64::try_from(self.arrivals).unwrap_or(i64::MAX);
        let rank = (arrival.saturating_add(i64::from(request.priority) * i64::from(self.config.head_start)), self.arrivals);
        self.arrivals += 1;
        self.ranks.insert(id, rank);
        self.jobs.insert(rank, Job::new(id, request, sequences));
        Ok(())
    }
}

//! A day of a server: requests come, wait for memory, are served by the engine and leave, all by a clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use regard_serve::{Config, Engine, Event, Output, Request, Result, Stats};

use super::buddy::{Buddies, Piece};
use super::lengths::Lengths;
use super::scheme::Scheme;
use super::timed::{PAGE, Timed, Timing};

/// What became of the slots of the pool, in shares of it over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slots {
    /// Hold keys and values of a token.
    pub(super) tokens: f64,
    /// Are set aside for tokens that will come.
    pub(super) later: f64,
    /// Are set aside, and never used.
    pub(super) never: f64,
    /// Lie between pieces, too small for what waits.
    pub(super) between: f64,
}

/// What a day showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) slots: Slots,
    /// Mean over requests of the seconds from arrival to end, by the tokens written.
    pub(super) latency: f64,
}

/// A request that came and has not left.
struct Served {
    lengths: Lengths,
    piece: Option<Piece>,
    reserved: usize,
    /// Tokens that were read for it.
    held: usize,
}

/// The state of a day.
struct Day<'a> {
    scheme: Scheme,
    timing: Timing,
    requests: &'a [Lengths],
    arrivals: &'a [f64],
    pool: Buddies,
    /// Those that came and have no piece yet, in order.
    waiting: VecDeque<usize>,
    served: HashMap<u64, Served>,
    ended: usize,
}

/// Serves requests that come at these times, in order of time.
///
/// # Errors
/// Those of the engine's settings.
pub(super) fn serve(scheme: Scheme, timing: Timing, requests: &[Lengths], arrivals: &[f64]) -> Result<Shown> {
    let config = Config {
        token_budget: timing.context,
        max_sequences: requests.len().max(1),
        max_waiting: requests.len().max(1),
        prefix_cache: false,
        ..Config::default()
    };
    let mut engine = Engine::new(Timed::new(timing, timing.slots), config)?;
    let (pool, waiting) = (Buddies::new(timing.slots), VecDeque::new());
    let mut day = Day { scheme, timing, requests, arrivals, pool, waiting, served: HashMap::new(), ended: 0 };
    let (mut now, mut come, mut latency) = (0.0, 0, 0.0);
    let (mut sum, mut over) = (Slots::default(), 0.0);
    while day.ended < requests.len() {
        while come < requests.len() && arrivals[come] <= now {
            day.waiting.push_back(come);
            come += 1;
        }
        let events = day.admit();
        let outputs = engine.step(events, Duration::from_secs_f64(now));
        if outputs.is_empty() && engine.is_idle() {
            now = arrivals[come]; // nothing to do until the next one comes
            continue;
        }
        let seconds = engine.runner().seconds;
        let stats = engine.stats();
        // Memory counts while some wait for it, once the first tenth have left.
        if (stats.waiting > 0 || !day.waiting.is_empty()) && day.ended * 10 > requests.len() {
            sum.add(day.slots(&stats), seconds);
            over += seconds;
        }
        now += seconds;
        latency += day.note(outputs, now);
    }
    Ok(Shown { slots: sum.over(over), latency: latency / requests.len() as f64 })
}

impl Day<'_> {
    /// Lets in whoever is next while there is a piece for it.
    fn admit(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(&next) = self.waiting.front() {
            let lengths = self.requests[next];
            let reserved = self.scheme.reserved(lengths, self.timing.context);
            let piece = reserved.map(|slots| self.pool.take(slots));
            if piece == Some(None) {
                break;
            }
            self.waiting.pop_front();
            let served = Served { lengths, piece: piece.flatten(), reserved: reserved.unwrap_or(0), held: 0 };
            self.served.insert(next as u64, served);
            let request = Request { prompt: vec![0; lengths.prompt], max_tokens: lengths.output, ..Request::default() };
            events.push(Event::Submit(next as u64, Box::new(request)));
        }
        events
    }

    /// Books what a step told; the latencies of those that ended, added up.
    fn note(&mut self, outputs: Vec<Output>, now: f64) -> f64 {
        let mut latency = 0.0;
        for output in outputs {
            match output {
                Output::Started { .. } => {}
                Output::Token { request, .. } => {
                    let served = self.served.get_mut(&request);
                    served.into_iter().for_each(|it| it.held = if it.held == 0 { it.lengths.prompt } else { it.held + 1 });
                }
                Output::Done { request, .. } => {
                    self.ended += 1;
                    let Some(served) = self.served.remove(&request) else { continue };
                    served.piece.into_iter().for_each(|piece| self.pool.release(piece));
                    latency += (now - self.arrivals[request as usize]) / served.lengths.output as f64;
                }
            }
        }
        latency
    }

    /// What the slots are for.
    fn slots(&self, stats: &Stats) -> Slots {
        let all = self.pool.slots() as f64;
        let sum = |of: &dyn Fn(&Served) -> usize| self.served.values().map(of).sum::<usize>() as f64;
        let tokens = stats.held_tokens as f64;
        if self.scheme == Scheme::Pages {
            // A text's last page has slots behind its end.
            let last = |it: &Served| it.lengths.prompt + it.lengths.output - 1;
            let never = sum(&|it| {
                if it.held.div_ceil(PAGE) == last(it).div_ceil(PAGE) { last(it).next_multiple_of(PAGE) - last(it) } else { 0 }
            });
            let held = ((stats.table_pages * PAGE) as f64).max(tokens + never);
            return Slots { tokens, later: held - tokens - never, never, between: all - held }.over(all);
        }
        let (reserved, used) = (sum(&|it| it.reserved), sum(&|it| it.lengths.prompt + it.lengths.output));
        Slots { tokens, later: used - tokens, never: reserved - used, between: all - reserved }.over(all)
    }
}

impl Slots {
    fn add(&mut self, other: Slots, weight: f64) {
        self.tokens += other.tokens * weight;
        self.later += other.later * weight;
        self.never += other.never * weight;
        self.between += other.between * weight;
    }

    fn over(self, all: f64) -> Self {
        let all = if all > 0.0 { all } else { 1.0 };
        Self { tokens: self.tokens / all, later: self.later / all, never: self.never / all, between: self.between / all }
    }
}

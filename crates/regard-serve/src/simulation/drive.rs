//! One seed from beginning to end.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::draw::Scenario;
use super::model::{Model, Rule};
use super::reference;
use crate::bug::switches;
use crate::{Engine, Event, Finished, Outcome, Output, Refusal, Request, RequestId};

/// Steps within which everything ends. The longest seeds need some hundreds.
const STEPS: u32 = 20_000;

/// What happened, so that a run can say that all of it did.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    steps: u64,
    finished: u64,
    refused: u64,
    aborted: u64,
    expired: u64,
    shut_down: u64,
    failed: u64,
    preemptions: u64,
    cached_tokens: u64,
    evictions: u64,
    most_steps: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.finished += other.finished;
        self.refused += other.refused;
        self.aborted += other.aborted;
        self.expired += other.expired;
        self.shut_down += other.shut_down;
        self.failed += other.failed;
        self.preemptions += other.preemptions;
        self.cached_tokens += other.cached_tokens;
        self.evictions += other.evictions;
        self.most_steps = self.most_steps.max(other.most_steps);
    }

    /// Everything that can happen did.
    pub(super) fn check(&self) {
        let counts = [self.finished, self.refused, self.aborted, self.expired, self.shut_down, self.failed];
        let counts = counts.into_iter().chain([self.preemptions, self.cached_tokens, self.evictions]);
        assert!(counts.into_iter().all(|n| n > 100), "each kind of event happens often: {self:?}");
    }
}

/// What was told of a request so far.
#[derive(Default)]
struct Told {
    tokens: HashMap<usize, Vec<u32>>,
    text: HashMap<usize, String>,
    done: bool,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// The outputs, and the books after every step.
    All,
    /// The outputs.
    Outputs,
}

/// Runs a seed, and panics where something is wrong.
pub(super) fn run(seed: u64, watch: Watch) -> Seen {
    let mut drive = Drive::new(seed);
    drive.all(watch);
    drive.seen
}

/// All that is told in the run of a seed.
pub(super) fn outputs(seed: u64) -> Vec<Output> {
    let mut drive = Drive::new(seed);
    drive.all(Watch::Outputs);
    drive.heard
}

struct Drive {
    scenario: Scenario,
    engine: Engine<Model>,
    rule: Rule,
    told: HashMap<RequestId, Told>,
    heard: Vec<Output>,
    /// Salts and sources of requests that were taken up.
    salts: HashSet<(Vec<u8>, Vec<u32>)>,
    aborted: HashSet<RequestId>,
    shutdown: Option<Duration>,
    now: Duration,
    seen: Seen,
}

impl Drive {
    fn new(seed: u64) -> Self {
        let scenario = Scenario::draw(seed);
        switches::HASH_MASK.set(scenario.hash_mask);
        switches::ALLOCATION.set(scenario.allocation);
        let rule = Rule { salt: scenario.model_salt, vocab_size: scenario.vocab_size };
        let model = Model::new(rule, scenario.context, &scenario.groups, scenario.faults);
        Self {
            engine: Engine::new(model, scenario.config).unwrap(),
            rule,
            told: HashMap::new(),
            heard: Vec::new(),
            salts: HashSet::new(),
            aborted: HashSet::new(),
            shutdown: None,
            now: Duration::ZERO,
            seen: Seen::default(),
            scenario,
        }
    }

    fn all(&mut self, watch: Watch) {
        let mut clock = 0i64;
        let last = self.scenario.events.keys().copied().max().unwrap_or(0);
        for step in 0..STEPS {
            if step > last && self.engine.is_idle() {
                break;
            }
            clock += self.scenario.clock[step as usize % self.scenario.clock.len()];
            let time = Duration::from_secs(clock.max(0) as u64);
            self.now = self.now.max(time);
            let events = self.scenario.events.remove(&step).unwrap_or_default();
            events.iter().for_each(|event| self.note(event));
            let outputs = self.engine.step(events, time);
            outputs.into_iter().for_each(|output| self.hear(output));
            if watch == Watch::All {
                self.engine.check_books();
            }
            self.seen.steps += 1;
        }
        if watch == Watch::All {
            self.engine.check_rest();
        }
        assert!(
            (0..self.scenario.requests.len() as u64).all(|id| self.told.get(&id).is_some_and(|told| told.done)),
            "each has an end"
        );
        let stats = self.engine.stats();
        self.seen.most_steps = self.seen.steps;
        (self.seen.preemptions, self.seen.cached_tokens, self.seen.evictions) =
            (stats.preemptions, stats.cached_tokens, stats.evictions);
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Abort(id) => drop(self.aborted.insert(*id)),
            Event::Shutdown(at) => self.shutdown = Some(*at),
            _ => {}
        }
    }

    fn request(&self, id: RequestId) -> &Request {
        &self.scenario.requests[id as usize]
    }

    fn hear(&mut self, output: Output) {
        let (Output::Started { request: id, .. } | Output::Token { request: id, .. } | Output::Done { request: id, .. }) = output;
        let told = self.told.entry(id).or_default();
        self.heard.push(output.clone());
        assert!(!told.done, "request {id}: nothing is told after the end");
        match output {
            Output::Started { cached, .. } => {
                let root = (self.request(id).salt.clone(), self.request(id).source.clone());
                assert!(!self.salts.insert(root) || cached == 0, "request {id}: pages are shared under one salt only");
            }
            Output::Token { choice, token, text, .. } => {
                told.tokens.entry(choice).or_default().push(token);
                told.text.entry(choice).or_default().push_str(&text);
            }
            Output::Done { outcome, .. } => {
                told.done = true;
                self.ended(id, outcome);
            }
        }
    }

    fn ended(&mut self, id: RequestId, outcome: Outcome) {
        let faults = self.scenario.faults;
        match outcome {
            Outcome::Finished(finished) => {
                self.seen.finished += 1;
                self.compare(id, &finished);
            }
            Outcome::Refused(refusal) => {
                self.seen.refused += 1;
                assert!(refusal != Refusal::ShuttingDown || self.shutdown.is_some(), "request {id}: nobody shut down");
            }
            Outcome::Aborted => {
                self.seen.aborted += 1;
                assert!(self.aborted.contains(&id), "request {id} was not aborted");
            }
            Outcome::Expired => {
                self.seen.expired += 1;
                assert!(self.request(id).deadline.is_some_and(|at| at <= self.now), "request {id} has time");
            }
            Outcome::ShutDown => {
                self.seen.shut_down += 1;
                assert!(self.shutdown.is_some_and(|at| at <= self.now), "request {id}: nobody shut down");
            }
            Outcome::Failed(why) => {
                self.seen.failed += 1;
                let fault = faults.run.is_some() || faults.copy.is_some() || faults.nan.is_some();
                assert!(fault, "request {id} failed without a fault: {why}");
            }
        }
    }

    /// The tokens, the text and the bits of the log-probabilities are those of the request alone.
    fn compare(&self, id: RequestId, finished: &Finished) {
        let request = self.request(id);
        let alone = reference::finished(self.rule, &self.scenario.groups, request);
        assert_eq!(finished.choices, alone.choices, "request {id}: choices as it gets alone");
        assert_eq!(finished.prompt_logprobs, alone.prompt_logprobs, "request {id}: scores of the prompt as it gets alone");
        let told = &self.told[&id];
        for (i, choice) in finished.choices.iter().enumerate().filter(|_| request.streams() && request.max_tokens > 0) {
            assert_eq!(told.tokens.get(&i), Some(&choice.tokens), "request {id}: the tokens told are those of the choice");
            assert_eq!(told.text.get(&i), Some(&choice.text), "request {id}: the text told is that of the choice");
        }
        assert!(request.streams() || told.tokens.is_empty(), "request {id}: no tokens are told before they are chosen");
    }
}

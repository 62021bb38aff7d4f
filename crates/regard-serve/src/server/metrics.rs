//! What the server did, in Prometheus's text format, with the names and shapes of vLLM's metrics.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regard_nn::FinishReason;

use crate::{Outcome, Stats};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by size.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds in seconds.
    bounds: &'static [f64],
    /// How many lie at or below each bound and above the one before, and how many above all.
    counts: Vec<Counter>,
    microseconds: Counter,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| Counter::default()).collect(), microseconds: Counter::default() }
    }

    pub(super) fn observe(&self, time: Duration) {
        self.counts[self.bounds.partition_point(|bound| *bound < time.as_secs_f64())].add(1);
        self.microseconds.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// vLLM's buckets.
const FIRST: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
];
const BETWEEN: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const WHOLE: &[f64] =
    &[0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0];

/// How requests end.
const FINISHED: [&str; 3] = ["stop", "length", "abort"];
const FAILED: [&str; 4] = ["refused", "timeout", "shutdown", "error"];

/// All that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    /// The engine's own counts after its last step.
    pub(super) stats: Mutex<Stats>,
    pub(super) prompt_tokens: Counter,
    pub(super) generation_tokens: Counter,
    /// Texts that were read once more for their attention.
    pub(super) attention: Counter,
    pub(super) first_token: Histogram,
    pub(super) between_tokens: Histogram,
    whole: Histogram,
    finished: [Counter; 3],
    failed: [Counter; 4],
    faults: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            stats: Mutex::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            attention: Counter::default(),
            first_token: Histogram::new(FIRST),
            between_tokens: Histogram::new(BETWEEN),
            whole: Histogram::new(WHOLE),
            finished: Default::default(),
            failed: Default::default(),
            faults: Counter::default(),
        }
    }
}

impl Metrics {
    /// How often the engine had to be made anew.
    pub(super) fn fault(&self) {
        self.faults.add(1);
    }

    /// A request had its end after `time`; `told` of its tokens are counted already.
    pub(super) fn ended(&self, outcome: &Outcome, told: u64, time: Duration) {
        match outcome {
            Outcome::Finished(finished) => {
                self.whole.observe(time);
                let tokens = finished.choices.iter().map(|choice| choice.tokens.len() as u64).sum::<u64>();
                self.generation_tokens.add(tokens.saturating_sub(told));
                let stopped = finished.choices.iter().all(|choice| choice.finish_reason == FinishReason::Stop);
                self.finished[usize::from(!stopped)].add(1);
            }
            Outcome::Aborted => self.finished[2].add(1),
            Outcome::Refused(_) => self.failed[0].add(1),
            Outcome::Expired => self.failed[1].add(1),
            Outcome::ShutDown => self.failed[2].add(1),
            Outcome::Failed(_) => self.failed[3].add(1),
        }
    }

    /// All of it, labelled with the model's name.
    pub(super) fn text(&self, model: &str) -> String {
        let stats = *self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut page = Page { text: String::new(), model };
        let used = stats.pages - stats.free_pages - stats.cached_pages;
        let share = if stats.pages == 0 { 0.0 } else { used as f64 / stats.pages as f64 };
        page.gauge("num_requests_running", "Requests whose keys and values are in pages.", stats.running as f64);
        page.gauge("num_requests_waiting", "Requests that have no pages.", (stats.waiting + stats.swapped) as f64);
        page.gauge("num_requests_swapped", "Waiting requests that are in the swap space.", stats.swapped as f64);
        page.gauge("kv_cache_usage_perc", "Pages that requests hold; 1 is all of them.", share);
        page.gauge("kv_cache_pages", "Pages of all groups.", stats.pages as f64);
        page.gauge("kv_cache_pages_free", "Pages that hold nothing.", stats.free_pages as f64);
        page.gauge("kv_cache_pages_cached", "Pages that only the prefix cache holds.", stats.cached_pages as f64);
        let queries = self.prompt_tokens.get();
        page.counter("prefix_cache_queries_total", "Tokens looked up in the prefix cache.", queries);
        page.counter("prefix_cache_hits_total", "Tokens that the prefix cache held.", stats.cached_tokens);
        page.counter("prefix_cache_evictions_total", "Cached pages given up for others.", stats.evictions);
        page.counter("num_preemptions_total", "How often a request gave up its pages.", stats.preemptions);
        page.counter("engine_steps_total", "Steps that read tokens.", stats.steps);
        page.counter("engine_tokens_total", "Tokens that steps read.", stats.tokens);
        page.counter("engine_faults_total", "How often the engine was made anew after a fault.", self.faults.get());
        page.counter("prompt_tokens_total", "Tokens of prompts.", queries);
        page.counter("generation_tokens_total", "Tokens of the choices returned.", self.generation_tokens.get());
        page.counter("attention_readings_total", "Texts read once more to tell their attention.", self.attention.get());
        page.reasons("request_success_total", "Requests by the reason of their end.", "finished_reason", &FINISHED, &self.finished);
        page.reasons("request_failure_total", "Requests that came to nothing.", "reason", &FAILED, &self.failed);
        page.histogram("time_to_first_token_seconds", "From submission to the first token.", &self.first_token);
        page.histogram("inter_token_latency_seconds", "From one token of a choice to the next.", &self.between_tokens);
        page.histogram("e2e_request_latency_seconds", "From submission to the end.", &self.whole);
        page.text
    }
}

/// A page of metrics on its way. Writing to a string does not fail.
struct Page {
    text: String,
    model: String,
}

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP regard:{name} {help}\n# TYPE regard:{name} {kind}");
    }

    fn line(&mut self, name: &str, label: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "regard:{name}{{model_name=\"{}\"{label}}} {value}", self.model);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, "", value);
    }

    fn reasons(&mut self, name: &str, help: &str, label: &str, reasons: &[&str], counts: &[Counter]) {
        self.head(name, help, "counter");
        for (reason, count) in reasons.iter().zip(counts) {
            self.line(name, &format!(",{label}=\"{reason}\""), count.get());
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut total = 0;
        for (i, count) in histogram.counts.iter().enumerate() {
            total += count.get();
            let bound = histogram.bounds.get(i).map_or("+Inf".to_owned(), f64::to_string);
            self.line(&format!("{name}_bucket"), &format!(",le=\"{bound}\""), total);
        }
        self.line(&format!("{name}_sum"), "", histogram.microseconds.get() as f64 / 1e6);
        self.line(&format!("{name}_count"), "", total);
    }
}

//! The table of a benchmark.

use std::error::Error;

use serde_json::{Value, json};

use super::case::Case;

/// What came of a case: a time for each sample, and of the other side, taken right after it.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) seconds: Vec<f64>,
    pub(super) other_seconds: Vec<f64>,
    pub(super) flops: Option<u64>,
    pub(super) bytes_moved: Option<u64>,
    pub(super) tokens: Option<usize>,
    /// Of a case that measures memory.
    pub(super) bytes: Option<u64>,
}

/// Prints a case as soon as it is done, or all of them at the end in JSON.
pub(super) struct Report {
    threads: usize,
    peer: Option<String>,
    json: Option<Vec<Value>>,
}

impl Report {
    pub(super) fn new(threads: usize, peer: Option<String>, json: bool) -> Self {
        let kernel = regard::kernels()[0];
        if !json {
            println!("{threads} threads, kernel {}, against {}", named_or(kernel), peer.as_deref().unwrap_or("nothing"));
            println!("{:<24}{:>12}{:>20}{:>12}   other's time / regard's", "case", "regard ms", "rate", "other ms");
        }
        Self { threads, peer, json: json.then(Vec::new) }
    }

    pub(super) fn add(&mut self, case: &Case, measured: Measured) {
        match &mut self.json {
            Some(all) => all.push(object(case, &measured)),
            None => println!("{}", line(case, &measured)),
        }
    }

    pub(super) fn finish(self) -> Result<(), Box<dyn Error>> {
        if let Some(cases) = self.json {
            let kernel = named_or(regard::kernels()[0]);
            println!("{:#}", json!({ "threads": self.threads, "kernel": kernel, "peer": self.peer, "cases": cases }));
        }
        Ok(())
    }
}

fn named_or(best: &str) -> String {
    std::env::var("REGARD_KERNEL").unwrap_or_else(|_| best.to_owned())
}

fn line(case: &Case, m: &Measured) -> String {
    if let Some(bytes) = m.bytes {
        return format!("{:<24}{:>12}{:>16.1} MiB", case.name, "", bytes as f64 / f64::from(1 << 20));
    }
    let time = median(&m.seconds);
    let (rate, unit) = rate(m, time);
    let ratios = ratios(m);
    let other = match ratios.as_slice() {
        [] => String::new(),
        all => {
            let to = case.versus.as_deref().map_or(String::new(), |name| format!("   other: {name}"));
            let (low, high) = (all[0], all[all.len() - 1]);
            format!("{:>12.3}   {:.2} ({low:.2} to {high:.2}){to}", 1e3 * median(&m.other_seconds), median(all))
        }
    };
    format!("{:<24}{:>12.3}{rate:>11.1} {unit:<8}{other}", case.name, 1e3 * time)
}

/// What bounds the case, per second.
fn rate(m: &Measured, time: f64) -> (f64, &'static str) {
    match (m.tokens, m.bytes_moved, m.flops) {
        (Some(tokens), _, _) => (tokens as f64 / time, "tokens/s"),
        (_, Some(bytes), _) => (bytes as f64 / time / 1e9, "GB/s"),
        (_, _, flops) => (flops.unwrap_or(0) as f64 / time / 1e9, "GFLOP/s"),
    }
}

/// Pair by pair, the other's time over regard's, ascending.
fn ratios(m: &Measured) -> Vec<f64> {
    let mut all: Vec<f64> = m.seconds.iter().zip(&m.other_seconds).map(|(mine, other)| other / mine).collect();
    all.sort_by(f64::total_cmp);
    all
}

fn object(case: &Case, m: &Measured) -> Value {
    json!({
        "case": case.name, "sizes": case.sizes, "causal": case.causal, "versus": case.versus,
        "seconds": m.seconds, "other_seconds": m.other_seconds, "ratios": ratios(m),
        "flops": m.flops, "bytes_moved": m.bytes_moved, "tokens": m.tokens, "bytes_grown": m.bytes,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 { f64::NAN } else { (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0 }
}

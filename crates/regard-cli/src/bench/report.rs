//! The table of a benchmark.

use std::error::Error;
use std::io;

use serde_json::{Value, json};

use super::case::Case;
use super::chart::{self, Bar};
use super::peer::Supported;
use super::roofline::{Floor, Roofs};
use super::say;
use super::work::Load;

/// What came of a case: a time for each sample, and of the other side, taken right after it.
#[derive(Default)]
pub(super) struct Times {
    pub(super) seconds: Vec<f64>,
    pub(super) other_seconds: Vec<f64>,
    /// The peer's note or its refusal, where it was asked.
    pub(super) ready: Option<Supported<Option<String>>>,
    pub(super) load: Option<Load>,
    pub(super) tokens: Option<usize>,
}

impl Times {
    /// Pair by pair, the other's time over regard's, ascending.
    fn ratios(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.seconds.iter().zip(&self.other_seconds).map(|(mine, other)| other / mine).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// Bytes by which the peak of resident memory grew, and the peer's.
pub(super) struct Grown {
    pub(super) bytes: u64,
    pub(super) other: Option<Supported<u64>>,
}

/// Prints a case as soon as it is done, or all of them at the end in JSON.
pub(super) struct Report {
    threads: usize,
    roofs: Roofs,
    peer: Option<String>,
    json: Option<Vec<Value>>,
    /// Of the cases that the peer ran.
    bars: Vec<Bar>,
}

impl Report {
    pub(super) fn new(threads: usize, roofs: Roofs, peer: Option<String>, json: bool) -> io::Result<Self> {
        if !json {
            say(format_args!("{threads} threads, kernel {}, against {}", kernel(), peer.as_deref().unwrap_or("nothing")))?;
            say(format_args!(
                "{:<26}{:>12}{:>20}{:>15}{:>12}   other's time / regard's",
                "case", "regard ms", "rate", "of the floor", "other ms"
            ))?;
        }
        Ok(Self { threads, roofs, peer, json: json.then(Vec::new), bars: Vec::new() })
    }

    pub(super) fn add_times(&mut self, case: &Case, times: Times) -> io::Result<()> {
        let floor = times.load.and_then(|load| self.roofs.floor(case, &load, self.threads));
        let ratios = times.ratios();
        if let (Some(low), Some(high), None) = (ratios.first(), ratios.last(), &case.versus) {
            self.bars.push(Bar { name: case.name.clone(), low: *low, median: median(&ratios), high: *high });
        }
        match &mut self.json {
            Some(all) => all.push(times_object(case, &times, floor)),
            None => say(times_line(case, &times, floor))?,
        }
        Ok(())
    }

    pub(super) fn add_memory(&mut self, case: &Case, grown: Grown) -> io::Result<()> {
        match &mut self.json {
            Some(all) => all.push(memory_object(case, &grown)),
            None => say(memory_line(case, &grown))?,
        }
        Ok(())
    }

    /// The ratios to the peer, as an SVG.
    pub(super) fn chart(&self) -> Result<String, Box<dyn Error>> {
        let peer = self.peer.as_deref().unwrap_or("nothing");
        chart::draw(&format!("Time of {peer} over that of regard ({} threads, {})", self.threads, kernel()), &self.bars)
    }

    pub(super) fn finish(self) -> io::Result<()> {
        if let Some(cases) = self.json {
            let (threads, roofline) = (self.threads, self.roofs.json());
            let (kernel, peer) = (kernel(), self.peer);
            let all = json!({ "threads": threads, "kernel": kernel, "peer": peer, "roofline": roofline, "cases": cases });
            say(format_args!("{all:#}"))?;
        }
        Ok(())
    }
}

/// The kernel of this process.
fn kernel() -> String {
    std::env::var("REGARD_KERNEL").unwrap_or_else(|_| regard::kernels()[0].to_owned())
}

fn times_line(case: &Case, times: &Times, floor: Option<Floor>) -> String {
    let time = median(&times.seconds);
    let share = floor.map_or(String::new(), |floor| format!("{:.0} % {:<8}", 100.0 * floor.seconds / time, floor.bound));
    let (rate, unit) = rate(case, times, time);
    let ratios = times.ratios();
    let other = match (ratios.as_slice(), &times.ready) {
        ([], Some(Err(reason))) => format!("{:>12}   unsupported: {reason}", "–"),
        ([], _) => String::new(),
        (all, ready) => {
            let note = ready.as_ref().and_then(|ready| ready.as_ref().ok()?.clone());
            let to = case.versus.as_ref().map(|name| format!("other: {name}")).or(note);
            let to = to.map_or(String::new(), |to| format!("   {to}"));
            let (low, high) = (all[0], all[all.len() - 1]);
            format!("{:>12.3}   {:.2} ({low:.2} to {high:.2}){to}", 1e3 * median(&times.other_seconds), median(all))
        }
    };
    format!("{:<26}{:>12.3}{rate:>11.1} {unit:<8}{share:>15}{other}", case.name, 1e3 * time)
}

fn memory_line(case: &Case, grown: &Grown) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let other = match &grown.other {
        None => String::new(),
        Some(Ok(bytes)) => format!("{:>12}", mib(*bytes)),
        Some(Err(reason)) => format!("{:>12}   unsupported: {reason}", "–"),
    };
    format!("{:<26}{:>12}{:>20}{:>15}{other}", case.name, "", mib(grown.bytes), "")
}

/// What bounds the case, per second.
fn rate(case: &Case, times: &Times, time: f64) -> (f64, &'static str) {
    let decode = case.sizes[3] == 1 && !case.kind.backward();
    match (times.tokens, times.load) {
        (Some(tokens), _) => (tokens as f64 / time, "tokens/s"),
        (_, Some(load)) if decode => (load.bytes as f64 / time / 1e9, "GB/s"),
        (_, load) => (load.map_or(0, |load| load.flops) as f64 / time / 1e9, "GFLOP/s"),
    }
}

fn times_object(case: &Case, times: &Times, floor: Option<Floor>) -> Value {
    let (note, unsupported) = match &times.ready {
        Some(Ok(note)) => (note.clone(), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    json!({
        "case": case.name, "sizes": case.sizes, "causal": case.causal, "versus": case.versus,
        "seconds": times.seconds, "other_seconds": times.other_seconds, "ratios": times.ratios(),
        "flops": times.load.map(|load| load.flops), "exps": times.load.map(|load| load.exps),
        "bytes_moved": times.load.map(|load| load.bytes), "tokens": times.tokens, "note": note, "unsupported": unsupported,
        "floor_seconds": floor.map(|floor| floor.seconds), "bound": floor.map(|floor| floor.bound),
        "share_of_floor": floor.map(|floor| floor.seconds / median(&times.seconds)),
    })
}

fn memory_object(case: &Case, grown: &Grown) -> Value {
    let (other, unsupported) = match &grown.other {
        Some(Ok(bytes)) => (Some(bytes), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    json!({
        "case": case.name, "sizes": case.sizes, "causal": case.causal,
        "bytes_grown": grown.bytes, "other_bytes_grown": other, "unsupported": unsupported,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 { f64::NAN } else { (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0 }
}

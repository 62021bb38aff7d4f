//! `regard bench attention`: the cases, one after another, beside a peer in alternating runs.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::case::{Case, Kind};
use super::memory;
use super::peer::{Peer, Supported};
use super::report::{Grown, Report, Times};
use super::roofline::Roofs;
use super::work::Work;
use super::{Threads, say};

/// Measure attention and training, beside a peer in alternating runs.
///
/// A ratio is that of two samples taken one right after the other; the table shows the median of the ratios and their
/// range. An absolute time on a shared machine means little.
#[derive(Args)]
pub(super) struct Options {
    /// Only cases whose name holds this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// Slow cases too, which otherwise run when their whole name is given
    #[arg(long)]
    all: bool,
    /// Command of a peer to alternate with, such as "python3 benches/peers/pytorch.py"
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    threads: Threads,
    /// The memory of each case in place of its time
    #[arg(long)]
    memory: bool,
    /// Print one JSON array instead of the table
    #[arg(long)]
    json: bool,
    /// Draw the ratios to the peer into this file
    #[arg(long, value_name = "FILE", requires = "peer")]
    svg: Option<PathBuf>,
    /// Print the names of the cases and stop
    #[arg(long)]
    list: bool,
    /// Measure the memory of one case in this process, and print its bytes
    #[arg(long, hide = true)]
    alone: bool,
}

/// How long a sample should last: long against a clock and a wake-up, short against the drift of a machine.
const SAMPLE: Duration = Duration::from_millis(200);

impl Options {
    pub(super) fn execute(self) -> Result<(), Box<dyn Error>> {
        let all = Case::all()?;
        let chosen: Vec<Case> = all.iter().filter(|case| self.wants(case)).filter_map(|case| self.as_asked(case)).collect();
        if chosen.is_empty() {
            let names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
            return Err(format!("no case has {:?} in its name; the cases are {}", self.case, names.join(", ")).into());
        }
        if self.list {
            return Ok(chosen.iter().try_for_each(|case| say(&case.name))?);
        }
        let threads = self.threads.start()?;
        if self.alone {
            let case = chosen.iter().find(|case| self.case.contains(&case.name)).ok_or("--alone needs the name of a case")?;
            return Ok(say(memory::growth(case)?)?);
        }
        let command = self.peer.as_deref();
        let mut peer = command.map(|command| Peer::start(command, threads)).transpose()?;
        let roofs = Roofs::of(&chosen, threads)?;
        let mut report = Report::new(threads, roofs, peer.as_ref().map(Peer::name), self.json)?;
        for case in &chosen {
            match case.kind {
                Kind::Memory | Kind::MemoryBackward | Kind::MemoryInspect => {
                    report.add_memory(case, grow(case, command, threads)?)?
                }
                _ => report.add_times(case, measure(case, &all, peer.as_mut(), self.runs)?)?,
            }
        }
        if let Some(path) = &self.svg {
            let svg = report.chart()?;
            fs::write(path, svg).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(report.finish()?)
    }

    fn wants(&self, case: &Case) -> bool {
        let named = self.case.contains(&case.name);
        let matches = self.case.is_empty() || self.case.iter().any(|text| case.name.contains(text.as_str()));
        named || matches && (self.all || !case.slow)
    }

    /// The case, or its memory.
    fn as_asked(&self, case: &Case) -> Option<Case> {
        let kind = if self.memory || self.alone { case.kind.memory()? } else { case.kind };
        Some(Case { kind, ..case.clone() })
    }
}

/// Takes a number of calls to their time.
type Side<'a> = Box<dyn FnMut(u32) -> Result<f64, Box<dyn Error>> + 'a>;

fn measure(case: &Case, all: &[Case], peer: Option<&mut Peer>, runs: u32) -> Result<Times, Box<dyn Error>> {
    let mut work = Work::new(case)?;
    let mut times = Times { load: work.load, tokens: work.tokens, ..Times::default() };
    let mut other: Option<Side<'_>> = match (&case.versus, peer) {
        (Some(name), _) => {
            let case = all.iter().find(|c| c.name == *name).ok_or_else(|| format!("there is no case {name:?}"))?;
            let mut work = Work::new(case)?;
            Some(Box::new(move |n| work.seconds(n)))
        }
        (None, Some(peer)) => {
            let ready = peer.prepare(case)?;
            let supported = ready.is_ok();
            times.ready = Some(ready);
            if supported { Some(Box::new(move |n| peer.seconds(n))) } else { None }
        }
        (None, None) => None,
    };
    let calls = calls_in_a_sample(&mut |n| work.seconds(n))?;
    let other_calls = other.as_mut().map(|other| calls_in_a_sample(other)).transpose()?;
    for _ in 0..runs {
        times.seconds.push(work.seconds(calls)? / f64::from(calls));
        if let (Some(other), Some(n)) = (&mut other, other_calls) {
            times.other_seconds.push(other(n)? / f64::from(n));
        }
    }
    Ok(times)
}

/// How many calls fill a sample; the first ones warm up caches, threads and clocks.
fn calls_in_a_sample(seconds: &mut dyn FnMut(u32) -> Result<f64, Box<dyn Error>>) -> Result<u32, Box<dyn Error>> {
    let began = Instant::now();
    let mut each = seconds(1)?;
    while began.elapsed() < SAMPLE {
        each = each.min(seconds(1)?);
    }
    Ok((SAMPLE.as_secs_f64() / each.max(1e-9)).clamp(1.0, 1e6) as u32)
}

/// The memory of a case, on either side in a process of its own.
fn grow(case: &Case, command: Option<&str>, threads: usize) -> Result<Grown, Box<dyn Error>> {
    let bytes = memory::growth_alone(case, threads)?;
    let other = command.map(|command| peer_growth(case, command, threads)).transpose()?;
    Ok(Grown { bytes, other })
}

fn peer_growth(case: &Case, command: &str, threads: usize) -> Result<Supported<u64>, Box<dyn Error>> {
    let mut peer = Peer::start(command, threads)?;
    match peer.prepare(case)? {
        Ok(_) => peer.memory(),
        Err(reason) => Ok(Err(reason)),
    }
}

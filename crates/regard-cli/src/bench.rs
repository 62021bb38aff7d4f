//! `regard bench`: attention and training, measured beside a peer in alternating runs.

mod case;
mod memory;
mod peer;
mod report;
mod work;

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Args;

use case::{Case, Kind};
use peer::Peer;
use report::{Measured, Report};
use work::Work;

/// Measure attention and training, beside a peer in alternating runs.
///
/// A ratio is that of two samples taken one right after the other; the table shows the median of the ratios and their
/// range. An absolute time on a shared machine means little.
#[derive(Args)]
pub(crate) struct Bench {
    /// Only cases whose name holds this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// Command of a peer to alternate with, such as "python3 benches/peers/pytorch.py"
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Threads of regard and of the peer [default: all of the machine's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Print one JSON array instead of the table
    #[arg(long)]
    json: bool,
    /// Print the names of the cases and stop
    #[arg(long)]
    list: bool,
    /// Measure the memory of one case in this process, and print its bytes
    #[arg(long, hide = true)]
    alone: bool,
}

/// How long a sample should last: long against a clock and a wake-up, short against the drift of a machine.
const SAMPLE: Duration = Duration::from_millis(200);

impl Bench {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        let all = Case::all()?;
        let chosen: Vec<&Case> = all.iter().filter(|case| self.wants(case)).collect();
        if chosen.is_empty() {
            let names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
            return Err(format!("no case has {:?} in its name; the cases are {}", self.case, names.join(", ")).into());
        }
        if self.list {
            chosen.iter().for_each(|case| println!("{}", case.name));
            return Ok(());
        }
        let threads = self
            .threads
            .map_or_else(std::thread::available_parallelism, |n| (n as usize).try_into().map_err(std::io::Error::other))?;
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
        if self.alone {
            println!("{}", memory::growth(chosen[0])?);
            return Ok(());
        }
        let mut peer = self.peer.as_deref().map(|command| Peer::start(command, threads.get())).transpose()?;
        let mut report = Report::new(threads.get(), peer.as_ref().map(Peer::name), self.json);
        for case in chosen {
            report.add(
                case,
                match case.kind {
                    Kind::Memory | Kind::MemoryBackward => {
                        Measured { bytes: Some(memory::growth_alone(case, threads.get())?), ..Measured::default() }
                    }
                    _ => measure(case, &all, peer.as_mut(), self.runs)?,
                },
            );
        }
        report.finish()
    }

    fn wants(&self, case: &Case) -> bool {
        self.case.is_empty() || self.case.iter().any(|text| case.name.contains(text.as_str()))
    }
}

/// Takes a number of calls to their time.
type Side<'a> = Box<dyn FnMut(u32) -> Result<f64, Box<dyn Error>> + 'a>;

fn measure(case: &Case, all: &[Case], peer: Option<&mut Peer>, runs: u32) -> Result<Measured, Box<dyn Error>> {
    let mut work = Work::new(case)?;
    let mut other: Option<Side<'_>> = match (&case.versus, peer) {
        (Some(name), _) => {
            let case = all.iter().find(|c| c.name == *name).ok_or_else(|| format!("there is no case {name:?}"))?;
            let mut work = Work::new(case)?;
            Some(Box::new(move |n| work.seconds(n)))
        }
        (None, Some(peer)) => {
            peer.prepare(case)?;
            Some(Box::new(move |n| peer.seconds(n)))
        }
        (None, None) => None,
    };
    let calls = calls_in_a_sample(&mut |n| work.seconds(n))?;
    let other_calls = other.as_mut().map(|other| calls_in_a_sample(other)).transpose()?;
    let mut measured = Measured { flops: work.flops, bytes_moved: work.bytes, tokens: work.tokens, ..Measured::default() };
    for _ in 0..runs {
        measured.seconds.push(work.seconds(calls)? / f64::from(calls));
        if let (Some(other), Some(n)) = (&mut other, other_calls) {
            measured.other_seconds.push(other(n)? / f64::from(n));
        }
    }
    Ok(measured)
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

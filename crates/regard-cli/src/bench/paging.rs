//! `regard bench paging`: the experiments of the PagedAttention paper on regard's engine.

mod buddy;
mod day;
mod draw;
mod lengths;
mod scheme;
mod share;
mod timed;

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use rayon::prelude::*;
use serde_json::json;

use self::day::{Slots, serve};
use self::lengths::{DATASETS, Dataset, Lengths, arrivals};
use self::scheme::Scheme;
use self::share::{Story, WIDTHS};
use self::timed::{OPT_13B, PAGE, Timing};
use super::random::Random;
use super::{Threads, say};

/// Measure what pages are for: how much of a cache holds tokens, what sharing saves, and how many requests a second that allows
///
/// The experiments of Kwon et al. 2023 (figures 2, 12 and 15) by a clock of its own: regard's engine schedules OPT-13B on an A100 of
/// 40 GB as the time model of its memory and multiplications tells, and the story model writes the beams. Lengths are log-normal with
/// the means of the paper's two data sets; their spread is fitted, not told. Each of four ways to set memory aside has the same engine.
#[derive(Args)]
pub(super) struct Options {
    /// Requests like ShareGPT's in a run; those like Alpaca's, which are shorter, are so many more
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    requests: u32,
    /// Prompts that beams continue
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1000))]
    texts: u32,
    /// Seconds per token that a rate of requests may cost on average, from arrival to end
    #[arg(long, value_name = "S", default_value_t = 0.06)]
    latency: f64,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Draw the table
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

/// What one way to set memory aside comes to.
struct Row {
    scheme: Scheme,
    /// Of the cache, with conversations like ShareGPT's and a queue that does not empty.
    slots: Slots,
    /// Requests a second, for each data set.
    rates: Vec<f64>,
}

/// What sharing saves of the pages, for each width.
struct Saving {
    what: &'static str,
    set: Dataset,
    shares: Vec<f64>,
    /// The least and the most of the paper, per cent.
    in_paper: (f64, f64),
}

impl Options {
    pub(super) fn execute(self) -> Result<(), Box<dyn Error>> {
        if !(self.latency.is_finite() && self.latency > 0.0) {
            return Err(format!("--latency is {} and must be a positive number of seconds", self.latency).into());
        }
        self.threads.start()?;
        let rows = self.rows()?;
        let savings = self.savings()?;
        if let Some(file) = &self.svg {
            std::fs::write(file, draw::draw(&rows, &savings)?).map_err(|error| format!("--svg {}: {error}", file.display()))?;
        }
        if self.json {
            say(object(&rows, &savings))?
        } else {
            self.print(&rows, &savings)?
        }
        Ok(())
    }

    fn rows(&self) -> Result<Vec<Row>, Box<dyn Error>> {
        let timing = OPT_13B;
        // As many tokens of each set: a run must be long beside the wait that the latency allows.
        let count = |set: &Dataset| (f64::from(self.requests) * DATASETS[0].output / set.output) as usize;
        let drawn = DATASETS.map(|set| set.draw(count(&set), timing.context, &mut Random::new(1)));
        let row = |scheme: Scheme| -> Result<Row, regard_serve::Error> {
            let at_once = vec![0.0; drawn[0].len()];
            let slots = serve(scheme, timing, &drawn[0], &at_once)?.slots;
            let rates = drawn.iter().map(|requests| sustained(scheme, timing, requests, self.latency));
            Ok(Row { scheme, slots, rates: rates.collect::<Result<_, _>>()? })
        };
        Ok(Scheme::ALL.into_par_iter().map(row).collect::<Result<_, _>>()?)
    }

    fn savings(&self) -> Result<Vec<Saving>, Box<dyn Error>> {
        let story = Story::new((self.texts as usize).min(16))?;
        let mut savings = Vec::new();
        for set in DATASETS.into_iter().rev() {
            let lengths = set.draw(self.requests as usize, OPT_13B.context, &mut Random::new(5));
            let many = set.name == "ShareGPT";
            let sampled = WIDTHS.iter().map(|width| share::parallel(OPT_13B, &lengths, *width)).collect::<Result<_, _>>()?;
            let in_paper = if many { (16.2, 30.5) } else { (6.1, 9.8) };
            savings.push(Saving { what: "samples", set, shares: sampled, in_paper });
            let beams = WIDTHS.iter().map(|width| share::beams(&story, &set, self.texts as usize, *width));
            let in_paper = if many { (44.3, 66.3) } else { (37.6, 55.2) };
            savings.push(Saving { what: "beams", set, shares: beams.collect::<Result<_, _>>()?, in_paper });
        }
        Ok(savings)
    }

    fn print(&self, rows: &[Row], savings: &[Saving]) -> Result<(), Box<dyn Error>> {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        say(format_args!(
            "A cache of {} tokens, in pages of {PAGE} or in pieces; OPT-13B on an A100, by a time model\n",
            OPT_13B.slots
        ))?;
        say(
            "| memory set aside by | holds tokens | in the paper | for later | never used | between | requests/s, ShareGPT | Alpaca |",
        )?;
        say("|---|---|---|---|---|---|---|---|")?;
        for Row { scheme, slots, rates } in rows {
            let Slots { tokens, later, never, between } = *slots;
            let [tokens, later, never, between] = [tokens, later, never, between].map(percent);
            let [chats, tasks] = [rates[0], rates[1]].map(|rate| format!("{rate:.2}"));
            let (name, paper) = (scheme.name(), scheme.in_paper());
            say(format_args!("| {name} | {tokens} | {paper} % | {later} | {never} | {between} | {chats} | {tasks} |"))?;
        }
        say(format_args!("\nRequests/s at which a token takes {} s on average, waiting included.\n", self.latency))?;
        say("| pages saved by sharing | 2 | 4 | 6 | in the paper |")?;
        say("|---|---|---|---|---|")?;
        for Saving { what, set, shares, in_paper: (least, most) } in savings {
            let shares: Vec<String> = shares.iter().map(|share| percent(*share)).collect();
            say(format_args!("| {what}, {} | {} | {least}–{most} % |", set.name, shares.join(" | ")))?;
        }
        Ok(())
    }
}

/// The most requests a second whose mean latency per token stays within `most` seconds, to one part in a hundred; the least rate that
/// is tried is one in a hundred seconds.
fn sustained(scheme: Scheme, timing: Timing, requests: &[Lengths], most: f64) -> Result<f64, regard_serve::Error> {
    let (mut low, mut high) = (0.01f64, 1000.0f64);
    while high > 1.01 * low {
        let rate = (low * high).sqrt();
        let times = arrivals(requests.len(), rate, &mut Random::new(9));
        if serve(scheme, timing, requests, &times)?.latency <= most { low = rate } else { high = rate }
    }
    Ok(low)
}

fn object(rows: &[Row], savings: &[Saving]) -> serde_json::Value {
    let row = |Row { scheme, slots, rates }: &Row| {
        json!({
            "scheme": scheme.name(), "tokens": slots.tokens, "later": slots.later, "never": slots.never, "between": slots.between,
            "requests_per_second": { DATASETS[0].name: rates[0], DATASETS[1].name: rates[1] },
        })
    };
    let saving =
        |saving: &Saving| json!({ "what": saving.what, "data": saving.set.name, "widths": WIDTHS, "saved": saving.shares });
    json!({ "schemes": rows.iter().map(row).collect::<Vec<_>>(), "sharing": savings.iter().map(saving).collect::<Vec<_>>() })
}

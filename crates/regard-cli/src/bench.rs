//! `regard bench`: what attention costs on this machine, and what this machine allows.

mod attention;
mod case;
mod chart;
mod inputs;
mod linear;
mod memory;
mod model;
mod numerics;
mod paging;
mod pattern;
mod peer;
mod random;
mod report;
mod roofline;
mod serving;
mod training;
mod work;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use clap::{Args, Subcommand};

/// Measure attention and training; without a subcommand, as `attention`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    attention: attention::Options,
}

#[derive(Subcommand)]
enum What {
    /// Measure attention and training, beside a peer in alternating runs
    Attention(attention::Options),
    /// Measure this machine's rates of multiply-adds, exponentials and reading
    Roofline(roofline::Options),
    /// Measure how fast a model reads and writes
    Model(model::Options),
    /// Measure the error of every kernel against f64
    Numerics(numerics::Options),
    /// Measure what a paged cache is for: memory that holds tokens, what sharing saves, requests a second
    Paging(paging::Options),
    /// Measure the engine of the server with many requests at once
    Serving(serving::Options),
}

impl Bench {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        match self.what.unwrap_or(What::Attention(self.attention)) {
            What::Attention(options) => options.execute(),
            What::Roofline(options) => options.execute(),
            What::Model(options) => options.execute(),
            What::Numerics(options) => options.execute(),
            What::Paging(options) => options.execute(),
            What::Serving(options) => options.execute(),
        }
    }
}

/// Prints a line. A reader that has gone is an error and not a panic, as it is of `println!`.
fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Threads of regard and of a peer.
#[derive(Args)]
struct Threads {
    /// Threads of regard and of the peer [default: all of the machine's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

impl Threads {
    fn count(&self) -> Result<usize, Box<dyn Error>> {
        match self.threads {
            Some(n) => Ok(n as usize),
            None => Ok(std::thread::available_parallelism().map(NonZeroUsize::get)?),
        }
    }

    /// Makes the pool that everything runs on.
    fn start(&self) -> Result<usize, Box<dyn Error>> {
        let threads = self.count()?;
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        Ok(threads)
    }
}

//! The `regard` command.

mod bench;
mod cost;
mod embed;
mod inspect;
mod interrupt;
mod place;
mod precision;
mod run;
mod serve;
mod train;
mod utf8;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exact, fast attention: tell a story, run a model, embed texts, see what heads do, train a model, tell what one costs, measure.
#[derive(Parser)]
#[command(name = "regard", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a text with the built-in story model or with a model of your own
    Run(run::Run),
    /// Serve a model to many clients, by the API of OpenAI
    Serve(serve::Serve),
    /// Turn texts into vectors, with a BERT-type model
    Embed(embed::Embed),
    /// See what every attention head of a model does on a text
    Inspect(inspect::Inspect),
    /// Train a model on a text file
    Train(train::Train),
    /// Tell what a model will cost: parameters, operations, bytes, memory and time
    Cost(cost::Cost),
    /// Measure attention and training, beside a peer in alternating runs
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run.execute(),
        Command::Serve(serve) => serve.execute(),
        Command::Embed(embed) => embed.execute(),
        Command::Inspect(inspect) => inspect.execute(),
        Command::Train(train) => train.execute(),
        Command::Cost(cost) => cost.execute(),
        Command::Bench(bench) => bench.execute(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The reader of our output has gone, as `regard run | head` does on purpose.
fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

//! `regard bench model`: how fast a model reads a prompt and writes its continuation.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use regard_cpu::{Kernel, Stream};
use regard_nn::Decoder;
use serde_json::json;

use super::random::tokens;
use super::{Threads, say};
use crate::place;
use crate::precision::Precision;

/// Measure a model: tokens per second of prompts (prefill) and of single tokens after a text of some length (decode).
#[derive(Args)]
pub(super) struct Options {
    /// Hugging Face directory with config.json and safetensors, GGUF file or org/name on the hub
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    #[command(flatten)]
    precision: Precision,
    /// Lengths of prompts, in tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [512, 2048])]
    prefill: Vec<usize>,
    /// Lengths of the text before the measured tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [128, 2048])]
    decode: Vec<usize>,
    /// Timed runs of each, after one that is not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
}

/// Tokens that a run of decoding writes.
const WRITTEN: usize = 16;

impl Options {
    pub(super) fn execute(self) -> Result<(), Box<dyn Error>> {
        let threads = self.threads.start()?;
        let began = Instant::now();
        let decoder = Decoder::open(&place::path(&self.model)?, self.precision.get())?;
        let load = began.elapsed().as_secs_f64();
        let prefill = self.prefill.iter().map(|&n| Ok((n, self.rates(n, || prefill(&decoder, n))?)));
        let prefill = prefill.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let decode = self.decode.iter().map(|&n| Ok((n, self.decode(&decoder, n)?)));
        let decode = decode.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let shares: Vec<(usize, f64)> =
            decode.iter().map(|(n, runs)| (*n, median(runs.iter().map(|run| run.1).collect()))).collect();
        let decode: Vec<(usize, Vec<f64>)> =
            decode.into_iter().map(|(n, runs)| (n, runs.into_iter().map(|run| run.0).collect())).collect();
        if self.json {
            let rates = |all: &[(usize, Vec<f64>)]| all.iter().map(|(n, rates)| (n.to_string(), json!(rates))).collect();
            let [prefill, decode]: [serde_json::Map<_, _>; 2] = [rates(&prefill), rates(&decode)];
            let shares: serde_json::Map<_, _> = shares.iter().map(|(n, share)| (n.to_string(), json!(share))).collect();
            let all =
                json!({ "threads": threads, "load_seconds": load, "prefill": prefill, "decode": decode, "memory_share": shares });
            say(all)?;
            return Ok(());
        }
        say(format_args!("{threads} threads; read and packed in {load:.2} s; tokens per second, median (slowest–fastest run)"))?;
        for (what, all) in [("prefill of", prefill), ("decode after", decode)] {
            for (n, rates) in all {
                let [least, most] = [f64::min, f64::max].map(|f| rates.iter().copied().reduce(f).unwrap_or_default());
                let median = median(rates);
                say(format_args!("{what} {n:>6} tokens  {median:>8.1} ({least:.1}–{most:.1})"))?;
            }
        }
        for (n, share) in shares {
            let (bytes, percent) = (decoder.bytes_per_token(n) as f64 / 1e6, 100.0 * share);
            say(format_args!("decode after {n:>6} tokens takes {percent:.0} % of the rate at which {bytes:.0} MB can be read"))?;
        }
        Ok(())
    }

    /// Tokens per second of every run after a text of `n`, and the share of what reading once per token would allow: memory is read in
    /// turn with the runs, as both depend on what else the machine does.
    fn decode(&self, decoder: &Decoder, n: usize) -> Result<Vec<(f64, f64)>, Box<dyn Error>> {
        let stream = Stream::new(decoder.bytes_per_token(n), Kernel::best()?);
        let run = |_| {
            let before = stream.read();
            let seconds = decode(decoder, n)? / WRITTEN as f64;
            Ok((1.0 / seconds, before.min(stream.read()) / seconds))
        };
        run(0)?; // warms up
        (0..self.runs).map(run).collect()
    }

    /// Tokens per second of every run; `run` gives seconds.
    fn rates(&self, tokens: usize, mut run: impl FnMut() -> regard_nn::Result<f64>) -> Result<Vec<f64>, Box<dyn Error>> {
        run()?; // the first one warms up
        (0..self.runs).map(|_| Ok(tokens as f64 / run()?)).collect()
    }
}

/// Seconds that a prompt takes.
fn prefill(decoder: &Decoder, n: usize) -> regard_nn::Result<f64> {
    let (tokens, mut cache) = (tokens(decoder.config().vocab_size, 0, n), decoder.cache(n)?);
    let began = Instant::now();
    decoder.step(&tokens, &mut cache)?;
    Ok(began.elapsed().as_secs_f64())
}

/// Seconds that [`WRITTEN`] tokens take, one by one.
fn decode(decoder: &Decoder, n: usize) -> regard_nn::Result<f64> {
    let (tokens, mut cache) = (tokens(decoder.config().vocab_size, 0, n + WRITTEN), decoder.cache(n + WRITTEN)?);
    decoder.step(&tokens[..n], &mut cache)?;
    let began = Instant::now();
    for token in tokens[n..].chunks(1) {
        decoder.step(token, &mut cache)?;
    }
    Ok(began.elapsed().as_secs_f64())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

//! `regard bench serving`: how fast the engine reads and writes for many requests at once, and what its ways cost.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use regard_nn::{Adjustments, Model, Sampling};
use regard_serve::{
    Config, Decoding, Detokenizer, Engine, Event, Group, ModelRunner, Output, Request, RequestId, Room, Runner, RunnerError, Work,
};
use serde_json::{Map, json};

use super::random::tokens;
use super::{Threads, say};
use crate::place;
use crate::precision::Precision;

/// Measure the engine of the server: tokens per second of prompts and of continuations for many requests at once, the part of a step
/// that is not the model's, pages beside contiguous memory, and what a cached prefix saves.
#[derive(Args)]
pub(super) struct Options {
    /// Hugging Face directory with config.json and safetensors, GGUF file or org/name on the hub [default: the built-in story model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    precision: Precision,
    /// Requests at once
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 8, 32])]
    batch: Vec<usize>,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 256)]
    prompt: usize,
    /// Tokens of the prompt that is cached [default: 2,000, or what the context allows]
    #[arg(long, value_name = "N")]
    shared: Option<usize>,
    /// Timed runs of each, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
}

/// Steps of decoding in a run.
const WRITTEN: usize = 16;
const PAGE: usize = 16;

impl Options {
    pub(super) fn execute(self) -> Result<(), Box<dyn Error>> {
        let threads = self.threads.start()?;
        let model = place::model(self.model.as_deref(), &self.precision)?;
        let decoder = model.decoder().ok_or("--model has an encoder, and only decoders can be served")?;
        let longest =
            self.prompt + WRITTEN + 2 + self.batch.iter().max().unwrap_or(&1) * self.prompt / Config::default().token_budget;
        let vocab_size = decoder.config().vocab_size;
        if self.prompt == 0 || self.batch.contains(&0) || longest > model.context() {
            let context = model.context();
            return Err(format!(
                "--prompt and --batch must be at least 1, and a text of {longest} tokens fit the context of {context}"
            )
            .into());
        }
        let bench = Bench { model: &model, vocab_size, prompt: self.prompt };
        let [mut prefill, mut decode, mut rest, mut drawn, mut paged] = [const { Vec::new() }; 5];
        for &batch in &self.batch {
            prefill.push(self.all(|| bench.prefill(batch))?);
            let whole = longest.next_multiple_of(PAGE);
            let both = self.all(|| Ok((bench.decode(batch, PAGE, 0.0)?, bench.decode(batch, whole, 0.0)?)))?;
            drawn.push(self.all(|| Ok(bench.decode(batch, PAGE, 0.8)?.rest))?);
            decode.push(both.iter().map(|(pages, _)| pages.rate).collect::<Vec<_>>());
            rest.push(both.iter().map(|(pages, _)| pages.rest).collect::<Vec<_>>());
            paged.push(both.iter().map(|(pages, whole)| whole.rate / pages.rate).collect::<Vec<_>>());
        }
        let shared = self.shared.unwrap_or(2000).min(model.context() - PAGE);
        let hits = self.all(|| bench.hit(shared))?;
        if self.json {
            let by_batch = |all: &[Vec<f64>]| -> Map<_, _> {
                self.batch.iter().zip(all).map(|(batch, runs)| (batch.to_string(), json!(runs))).collect()
            };
            return Ok(say(json!({
                "threads": threads, "prompt": self.prompt, "prefill": by_batch(&prefill), "decode": by_batch(&decode),
                "outside_the_model": by_batch(&rest), "outside_when_drawn": by_batch(&drawn), "contiguous_to_paged": by_batch(&paged),
                "shared": shared, "hit_to_miss": hits,
            }))?);
        }
        say(format_args!("{threads} threads, prompts of {} tokens; median (least–most)\n", self.prompt))?;
        say(
            "| requests at once | prefill, tokens/s | decode, tokens/s | outside the model | at temperature 0.8 | contiguous / paged |",
        )?;
        say("|---|---|---|---|---|---|")?;
        for (i, batch) in self.batch.iter().enumerate() {
            let (prefill, decode) = (told(&prefill[i], 1.0, 0), told(&decode[i], 1.0, 0));
            let (rest, drawn, paged) = (told(&rest[i], 100.0, 1), told(&drawn[i], 100.0, 1), told(&paged[i], 1.0, 2));
            say(format_args!("| {batch} | {prefill} | {decode} | {rest} % | {drawn} % | {paged} |"))?;
        }
        let hits = told(&hits, 100.0, 1);
        say(format_args!(
            "\nTime to the first token after {shared} tokens that are cached, of the time when they are not: {hits} %"
        ))?;
        Ok(())
    }

    /// What each run gives, after one that warms up.
    fn all<T>(&self, mut run: impl FnMut() -> Result<T, Box<dyn Error>>) -> Result<Vec<T>, Box<dyn Error>> {
        run()?;
        (0..self.runs).map(|_| run()).collect()
    }
}

/// `median (least–most)`, each times `unit`.
fn told(all: &[f64], unit: f64, digits: usize) -> String {
    let mut all: Vec<f64> = all.iter().map(|x| x * unit).collect();
    all.sort_by(f64::total_cmp);
    format!("{:.digits$} ({:.digits$}–{:.digits$})", all[all.len() / 2], all[0], all[all.len() - 1])
}

/// A model, and prompts of one length.
struct Bench<'m> {
    model: &'m Model,
    vocab_size: usize,
    prompt: usize,
}

/// A run of decoding.
struct Decoded {
    /// Tokens per second.
    rate: f64,
    /// The part of a step that is not the model's.
    rest: f64,
}

impl<'m> Bench<'m> {
    /// An engine with room for so many texts of so many tokens.
    fn engine(&self, texts: usize, tokens: usize, page_size: usize) -> Result<Engine<Watched<'m>>, Box<dyn Error>> {
        let pages = (texts + 1) * (tokens.div_ceil(page_size) + 1); // one text more than asked: some pages always stay free
        let room = Room { page_size, tokens: pages * page_size, swap_tokens: 0 };
        let runner = ModelRunner::new(self.model, room).map_err(|error| error.to_string())?;
        let config = Config { max_sequences: texts.max(1), ..Config::default() };
        Ok(Engine::new(Watched { runner, seconds: 0.0 }, config)?)
    }

    fn requests(&self, texts: usize, max_tokens: usize, temperature: f32) -> Vec<Event> {
        let sampling = Sampling { temperature, ..Sampling::default() };
        let decoding = Decoding::Sample { sampling, adjustments: Adjustments::default(), n: 1, best_of: 1 };
        let prompt = |text| tokens(self.vocab_size, text, self.prompt);
        let request = |text| Request { prompt: prompt(text), max_tokens, decoding: decoding.clone(), ..Request::default() };
        (0..texts).map(|text| Event::Submit(text as RequestId, Box::new(request(text)))).collect()
    }

    /// Prompt tokens per second, each up to its first new token.
    fn prefill(&self, batch: usize) -> Result<f64, Box<dyn Error>> {
        let mut engine = self.engine(batch, self.prompt + 1, PAGE)?;
        let began = Instant::now();
        ended(engine.step(self.requests(batch, 1, 0.0), Duration::ZERO))?;
        while !engine.is_idle() {
            ended(engine.step([], Duration::ZERO))?;
        }
        Ok((batch * self.prompt) as f64 / began.elapsed().as_secs_f64())
    }

    /// The steps in which every text gets one token.
    fn decode(&self, batch: usize, page_size: usize, temperature: f32) -> Result<Decoded, Box<dyn Error>> {
        let most = WRITTEN + 2 + batch * self.prompt / Config::default().token_budget;
        let mut engine = self.engine(batch, self.prompt + most, page_size)?;
        let mut told = ended(engine.step(self.requests(batch, most, temperature), Duration::ZERO))?;
        while told < batch {
            told = ended(engine.step([], Duration::ZERO))?;
        }
        let (began, before) = (Instant::now(), engine.runner().seconds);
        for _ in 0..WRITTEN {
            let told = ended(engine.step([], Duration::ZERO))?;
            if told != batch {
                return Err(format!("a step wrote {told} tokens for {batch} requests").into());
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Decoded { rate: (batch * WRITTEN) as f64 / seconds, rest: 1.0 - (engine.runner().seconds - before) / seconds })
    }

    /// Seconds to the first token when `shared` tokens are cached, over those when they are not.
    fn hit(&self, shared: usize) -> Result<f64, Box<dyn Error>> {
        let mut engine = self.engine(2, shared + PAGE, PAGE)?;
        let mut seconds = [0.0; 2];
        for (id, seconds) in seconds.iter_mut().enumerate() {
            let end = [id as u32 + 1; 4]; // what each asks after the shared tokens
            let prompt = [tokens(self.vocab_size, 0, shared), end.to_vec()].concat();
            let event = Event::Submit(id as RequestId, Box::new(Request { prompt, max_tokens: 1, ..Request::default() }));
            let began = Instant::now();
            ended(engine.step([event], Duration::ZERO))?;
            while !engine.is_idle() {
                ended(engine.step([], Duration::ZERO))?;
            }
            *seconds = began.elapsed().as_secs_f64();
        }
        Ok(seconds[1] / seconds[0])
    }
}

/// How many tokens a step told; an error where a request failed.
fn ended(outputs: Vec<Output>) -> Result<usize, Box<dyn Error>> {
    use regard_serve::Outcome::Finished;
    let bad = outputs.iter().find(|output| matches!(output, Output::Done { outcome, .. } if !matches!(outcome, Finished(_))));
    match bad {
        Some(output) => Err(format!("a request did not finish: {output:?}").into()),
        None => Ok(outputs.iter().filter(|output| matches!(output, Output::Token { .. })).count()),
    }
}

/// A runner, and the time it takes.
#[derive(Debug)]
struct Watched<'m> {
    runner: ModelRunner<'m>,
    seconds: f64,
}

impl Runner for Watched<'_> {
    fn groups(&self) -> &[Group] {
        self.runner.groups()
    }

    fn vocab_size(&self) -> usize {
        self.runner.vocab_size()
    }

    fn context(&self) -> usize {
        self.runner.context()
    }

    fn run(&mut self, batch: &[Work<'_>]) -> Result<Vec<f32>, RunnerError> {
        let began = Instant::now();
        let logits = self.runner.run(batch);
        self.seconds += began.elapsed().as_secs_f64();
        logits
    }

    fn copy_page(&mut self, group: usize, from: u32, to: u32) -> Result<(), RunnerError> {
        self.runner.copy_page(group, from, to)
    }

    fn swap_out(&mut self, group: usize, page: u32, slot: u32) -> Result<(), RunnerError> {
        self.runner.swap_out(group, page, slot)
    }

    fn swap_in(&mut self, group: usize, slot: u32, page: u32) -> Result<(), RunnerError> {
        self.runner.swap_in(group, slot, page)
    }
}

impl<'m> Detokenizer for Watched<'m> {
    type Text = <ModelRunner<'m> as Detokenizer>::Text;

    fn text(&self, prompt: &[u32]) -> Self::Text {
        self.runner.text(prompt)
    }

    fn push(&self, text: &mut Self::Text, token: u32) -> Result<String, RunnerError> {
        self.runner.push(text, token)
    }

    fn finish(&self, text: &mut Self::Text) -> Result<String, RunnerError> {
        self.runner.finish(text)
    }
}

//! What sharing saves: pages that several texts of a request hold together, counted after every step.

use std::error::Error;
use std::time::Duration;

use regard_nn::{Adjustments, Model, Sampling};
use regard_serve::{Config, Decoding, Engine, Event, ModelRunner, Output, Request, RequestId, Room, Runner};
use serde_json::Value;

use super::super::random::Random;
use super::lengths::{Dataset, Lengths};
use super::timed::{PAGE, Timed, Timing};

/// Texts of a request.
pub(super) const WIDTHS: [usize; 3] = [2, 4, 6];

/// The most sequences at once.
const SEQUENCES: usize = 48;

/// The share of pages that sharing saves when each prompt has so many random continuations. What they say decides nothing, so nothing
/// is computed.
pub(super) fn parallel(timing: Timing, lengths: &[Lengths], width: usize) -> Result<f64, Box<dyn Error>> {
    let samples = |lengths: &Lengths| Request { decoding: sampled(width, 0), ..asked(vec![0; lengths.prompt], lengths.output) };
    saved(Timed::new(timing, SEQUENCES * timing.context), lengths.iter().map(samples).collect())
}

/// The same with beams, which the story model writes: which beams go on decides what is shared.
pub(super) fn beams(story: &Story, set: &Dataset, texts: usize, width: usize) -> Result<f64, Box<dyn Error>> {
    let lengths = set.draw(texts, CONTEXT, &mut Random::new(5));
    let decoding = Decoding::Beam { width, n: 1, length_penalty: 1.0 };
    let search = |(text, lengths): (&Vec<u32>, &Lengths)| Request {
        decoding: decoding.clone(),
        ..asked(text[..lengths.prompt].to_vec(), lengths.output)
    };
    saved(story.runner()?, story.texts.iter().cycle().zip(&lengths).map(search).collect())
}

fn asked(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request { prompt, max_tokens, ..Request::default() }
}

fn sampled(n: usize, seed: u64) -> Decoding {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
    Decoding::Sample { sampling, adjustments: Adjustments::default(), n, best_of: n }
}

/// An engine that caches no prefixes: what is shared is shared within a request.
fn engine<R: Runner>(runner: R, requests: usize) -> Result<Engine<R>, Box<dyn Error>> {
    let (max_sequences, max_waiting) = (SEQUENCES, requests.max(1));
    Ok(Engine::new(runner, Config { prefix_cache: false, max_sequences, max_waiting, ..Config::default() })?)
}

/// Runs requests to their ends; `look` sees the engine after every step, and gets what it told.
fn run<R: Runner>(runner: R, requests: Vec<Request>, mut look: impl FnMut(&Engine<R>, Vec<Output>)) -> Result<(), Box<dyn Error>> {
    let mut engine = engine(runner, requests.len())?;
    let mut events: Vec<Event> =
        requests.into_iter().enumerate().map(|(id, request)| Event::Submit(id as RequestId, Box::new(request))).collect();
    loop {
        let outputs = engine.step(std::mem::take(&mut events), Duration::ZERO);
        look(&engine, outputs);
        if engine.is_idle() {
            return Ok(());
        }
    }
}

/// `1 − Σ pages held / Σ pages in tables`, over all steps.
fn saved<R: Runner>(runner: R, requests: Vec<Request>) -> Result<f64, Box<dyn Error>> {
    let (mut held, mut tables) = (0, 0);
    run(runner, requests, |engine, _| {
        let stats = engine.stats();
        held += stats.pages - stats.free_pages;
        tables += stats.table_pages;
    })?;
    Ok(1.0 - held as f64 / tables.max(1) as f64)
}

/// Tokens that the story model may read here. It was trained on 512: beyond, only what it says suffers.
const CONTEXT: usize = 2048;

/// The built-in model, and texts of its own to begin with.
pub(super) struct Story {
    model: Model,
    texts: Vec<Vec<u32>>,
}

impl Story {
    /// The model, and `texts` texts of as many tokens as a prompt may have.
    pub(super) fn new(texts: usize) -> Result<Self, Box<dyn Error>> {
        let mut config: Value = serde_json::from_str(regard_story::CONFIG)?;
        config["max_position_embeddings"] = CONTEXT.into();
        let model =
            Model::from_bytes(config.to_string().as_bytes(), regard_story::WEIGHTS, regard_story::TOKENIZER.as_bytes(), None)?;
        let mut story = Self { model, texts: Vec::new() };
        let beginning = story.model.tokenizer().encode("Once upon a time")?;
        let told = |i| Request { decoding: sampled(1, i), ..asked(beginning.clone(), CONTEXT / 2) };
        let mut written = vec![Vec::new(); texts];
        run(story.runner()?, (0..texts as u64).map(told).collect(), |_, outputs| {
            for output in outputs {
                if let Output::Token { request, token, .. } = output {
                    written[request as usize].push(token);
                }
            }
        })?;
        story.texts = written;
        Ok(story)
    }

    fn runner(&self) -> Result<ModelRunner<'_>, Box<dyn Error>> {
        let room = Room { page_size: PAGE, tokens: 16 * CONTEXT, swap_tokens: 0 };
        Ok(ModelRunner::new(&self.model, room).map_err(|error| error.to_string())?)
    }
}

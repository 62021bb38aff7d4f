//! The engine over the story model: a request gets the same bits alone and among others, whatever happens to its pages.

use std::time::Duration;

use regard_nn::{Model, Sampler};
use regard_serve::{
    Adjustments, Choice, Config, Decoding, Engine, Event, Logprobs, ModelRunner, Outcome, Output, Preemption, Request, Room,
    Sampling, Stats,
};

fn story() -> Model {
    let [config, tokenizer, defaults] = [regard_story::CONFIG, regard_story::TOKENIZER, regard_story::GENERATION_CONFIG];
    Model::from_bytes(config.as_bytes(), regard_story::WEIGHTS, tokenizer.as_bytes(), Some(defaults.as_bytes())).unwrap()
}

fn sampled(n: usize, temperature: f32, seed: u64) -> Decoding {
    let sampling = Sampling { temperature, seed, ..Sampling::default() };
    Decoding::Sample { sampling, adjustments: Adjustments::default(), n, best_of: n }
}

fn request(model: &Model, prompt: &str, decoding: Decoding) -> Request {
    let prompt = model.tokenizer().encode(prompt).unwrap();
    Request { prompt, max_tokens: 40, decoding, logprobs: Some(2), ..Request::default() }
}

/// Prompts that begin alike and that do not, greedy, sampled and with beams.
fn requests(model: &Model) -> Vec<Request> {
    let beams = Decoding::Beam { width: 3, n: 2, length_penalty: 1.0 };
    vec![
        request(model, "Once upon a time there was a king who had a daughter, and she was so beautiful", sampled(1, 0.0, 0)),
        request(model, "Once upon a time there was a king who had a daughter, and the wolf", sampled(3, 0.9, 7)),
        request(model, "The fox said", sampled(1, 0.7, 3)),
        request(model, "Once upon a time there was a king", beams),
        request(model, "In the forest", sampled(2, 1.0, 11)),
    ]
}

/// All at once through one engine: what came of each.
fn served(model: &Model, requests: &[Request], room: Room, config: Config) -> (Vec<Vec<Choice>>, Stats) {
    let mut engine = Engine::new(ModelRunner::new(model, room).unwrap(), config).unwrap();
    let mut events: Vec<Event> =
        requests.iter().enumerate().map(|(id, request)| Event::Submit(id as u64, Box::new(request.clone()))).collect();
    let mut choices = vec![Vec::new(); requests.len()];
    while !engine.is_idle() || !events.is_empty() {
        for output in engine.step(std::mem::take(&mut events), Duration::ZERO) {
            match output {
                Output::Done { request, outcome: Outcome::Finished(finished) } => choices[request as usize] = finished.choices,
                Output::Done { outcome, .. } => panic!("{outcome:?}"),
                _ => {}
            }
        }
    }
    (choices, engine.stats())
}

/// The plain way: one text, one cache, [`regard_nn::Decoder::step`].
fn alone(model: &Model, request: &Request, choice: usize) -> (Vec<u32>, Vec<Logprobs>) {
    let Decoding::Sample { sampling, adjustments, .. } = &request.decoding else { panic!("sampled requests only") };
    let mut sampler = Sampler::with(*sampling, adjustments.clone(), &request.prompt, choice as u64).unwrap();
    let mut cache = model.decoder().unwrap().cache(request.prompt.len() + request.max_tokens).unwrap();
    let (mut read, mut tokens, mut logprobs) = (request.prompt.clone(), Vec::new(), Vec::new());
    while tokens.len() < request.max_tokens {
        let logits = model.decoder().unwrap().step(&read, &mut cache).unwrap();
        let token = sampler.next(&logits).unwrap();
        logprobs.push(plain_logprobs(&logits, token));
        tokens.push(token);
        read = vec![token];
    }
    (tokens, logprobs)
}

fn plain_logprobs(logits: &[f32], token: u32) -> Logprobs {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let norm = max + logits.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln();
    let logprob = |token: u32| (token, (f64::from(logits[token as usize]) - norm) as f32);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    Logprobs { chosen: logprob(token), top: order[..2].iter().map(|token| logprob(*token)).collect() }
}

#[test]
fn a_request_among_others_gets_the_bits_that_it_gets_alone() {
    let model = story();
    let requests = requests(&model);
    let (choices, stats) = served(&model, &requests, Room::default(), Config { token_budget: 32, ..Config::default() });
    assert_eq!((stats.free_pages + stats.cached_pages, stats.preemptions), (stats.pages, 0));
    for (request, choices) in requests.iter().zip(&choices) {
        for (i, choice) in choices.iter().enumerate().filter(|_| matches!(request.decoding, Decoding::Sample { .. })) {
            let (tokens, logprobs) = alone(&model, request, i);
            assert_eq!(choice.tokens, tokens);
            assert_eq!(choice.logprobs, logprobs);
        }
    }
}

#[test]
fn chunks_preemption_and_the_prefix_cache_change_no_bit() {
    let model = story();
    let requests = requests(&model);
    let (plain, _) = served(&model, &requests, Room::default(), Config::default());
    let small = Room { page_size: 4, tokens: 220, swap_tokens: 400 };
    for preemption in [Preemption::Recompute, Preemption::Swap] {
        for prefix_cache in [false, true] {
            let config = Config { token_budget: 7, preemption, prefix_cache, ..Config::default() };
            let (choices, stats) = served(&model, &requests, small, config);
            assert!(stats.preemptions > 0 && (stats.cached_tokens > 0) == prefix_cache, "{stats:?}");
            assert_eq!(choices, plain, "{config:?}");
        }
    }
}

//! What a seed draws: pools, requests, and what goes wrong when.

use std::collections::BTreeMap;
use std::time::Duration;

use regard_nn::{Adjustments, Sampling};
use regard_testing::rng::Rng;

use super::model::Faults;
use crate::{Config, Decoding, Event, Group, Keep, Preemption, Request};

/// All that happens.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) config: Config,
    pub(super) groups: Vec<Group>,
    pub(super) vocab_size: usize,
    pub(super) context: usize,
    pub(super) model_salt: u64,
    pub(super) faults: Faults,
    pub(super) hash_mask: u128,
    pub(super) allocation: (u64, u64),
    pub(super) requests: Vec<Request>,
    /// By step.
    pub(super) events: BTreeMap<u32, Vec<Event>>,
    /// What the clock gains in each step; it may jump, and go back.
    pub(super) clock: Vec<i64>,
}

impl Scenario {
    pub(super) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let groups = groups(rng);
        let vocab_size = 3 + rng.below(10);
        let sourced = groups.iter().any(|group| group.keep == Keep::Source);
        let most = rng.pick(&[6, 40]);
        let config = Config {
            token_budget: 1 + rng.below(most) + if sourced { 8 } else { 0 },
            max_sequences: 1 + rng.below(9),
            max_waiting: if rng.chance(0.1) { 2 } else { 100 },
            preemption: rng.pick(&[Preemption::Recompute, Preemption::Swap]),
            prefix_cache: rng.chance(0.8),
            head_start: rng.pick(&[0, 1, 5]),
            reserve: rng.pick(&[0, 1, 20]),
            secret: u128::from(rng.bits()).to_le_bytes(),
        };
        let stem: Vec<u32> = tokens(rng, vocab_size, 40);
        let requests: Vec<Request> = (0..1 + rng.below(9)).map(|_| request(rng, vocab_size, &stem, sourced)).collect();
        Self {
            events: events(rng, &requests),
            clock: (0..64).map(|_| if rng.chance(0.05) { rng.below(200) as i64 - 100 } else { rng.below(3) as i64 }).collect(),
            hash_mask: rng.pick(&[u128::MAX, u128::MAX, u128::MAX, 7, 1, 0]),
            allocation: if rng.chance(0.2) { (rng.below(60) as u64, 1 + rng.below(3) as u64) } else { (u64::MAX, 0) },
            faults: faults(rng),
            context: if rng.chance(0.1) { 30 } else { 1000 },
            model_salt: rng.bits(),
            config,
            groups,
            vocab_size,
            requests,
        }
    }
}

fn groups(rng: &mut Rng) -> Vec<Group> {
    let size = rng.pick(&[1, 2, 3, 4, 8, 16]);
    let kinds: &[Keep] = match rng.below(8) {
        0..3 => &[Keep::All],
        3 => &[Keep::Window(0)],
        4 => &[Keep::All, Keep::Window(0)],
        5 => &[Keep::All, Keep::Source],
        6 => &[Keep::Window(0), Keep::Source],
        _ => &[Keep::Window(0), Keep::All, Keep::Window(0), Keep::Source],
    };
    let mut draw = |keep: &Keep| {
        let page_size = if rng.chance(0.2) { rng.pick(&[1, 2, 3, 6]) } else { size };
        Group {
            pages: if rng.chance(0.05) { 2 } else { 2 + (20 + rng.below(100)).div_ceil(page_size) as u32 },
            page_size,
            swap_pages: if rng.chance(0.2) { rng.below(5) as u32 } else { 60 },
            keep: if let Keep::Window(_) = keep { Keep::Window(1 + rng.below(12)) } else { *keep },
        }
    };
    kinds.iter().map(&mut draw).collect()
}

fn faults(rng: &mut Rng) -> Faults {
    let mut fault = |p: f64, calls: usize| rng.chance(p).then(|| rng.below(calls) as u32);
    Faults { run: fault(0.05, 40), copy: fault(0.05, 6), swap_out: fault(0.2, 10), swap_in: fault(0.2, 10), nan: fault(0.03, 40) }
}

fn tokens(rng: &mut Rng, vocab_size: usize, n: usize) -> Vec<u32> {
    (0..n).map(|_| rng.below(vocab_size) as u32).collect()
}

/// A request that often begins as others do.
fn request(rng: &mut Rng, vocab_size: usize, stem: &[u32], sourced: bool) -> Request {
    let shared = if rng.chance(0.7) { rng.below(stem.len()) } else { 0 };
    let own = 1 + rng.below(8);
    let mut prompt = stem[..shared].to_vec();
    prompt.extend(tokens(rng, vocab_size, own));
    let (n, more) = (1 + rng.below(3), rng.below(2));
    let decoding = match rng.below(4) {
        0 => Decoding::Beam { width: n + more, n, length_penalty: rng.pick(&[0.0, 1.0, -0.5]) },
        kind => Decoding::Sample {
            sampling: Sampling {
                temperature: rng.pick(&[0.0, 0.7, 1.5]),
                top_k: rng.below(4),
                top_p: rng.pick(&[1.0, 0.9]),
                repetition_penalty: rng.pick(&[1.0, 1.2]),
                seed: rng.bits(),
                ..Sampling::default()
            },
            adjustments: Adjustments { frequency_penalty: rng.pick(&[0.0, 0.5]), ..Adjustments::default() },
            n: if kind == 1 { n } else { 1 },
            best_of: if kind == 1 { n + more } else { 1 },
        },
    };
    let beams = matches!(decoding, Decoding::Beam { .. });
    let stop = ["b", "ab", "é", "cd", "aaa"];
    Request {
        prompt,
        source: if sourced {
            let n = 1 + rng.below(8);
            tokens(rng, vocab_size, n)
        } else {
            Vec::new()
        },
        salt: if rng.chance(0.2) { vec![rng.below(2) as u8] } else { Vec::new() },
        max_tokens: if rng.chance(0.05) && !beams { 0 } else { 1 + rng.below(14) },
        decoding,
        stop_tokens: if rng.chance(0.3) { tokens(rng, vocab_size, 1) } else { Vec::new() },
        stop: if rng.chance(0.3) && !beams { vec![rng.pick(&stop).to_owned()] } else { Vec::new() },
        logprobs: rng.chance(0.3).then(|| rng.below(3)),
        prompt_logprobs: rng.chance(0.1).then(|| rng.below(3)),
        priority: rng.below(5) as i32 - 2,
        deadline: rng.chance(0.1).then(|| Duration::from_secs(rng.below(150) as u64)),
    }
}

/// Arrivals, and now and then somebody who leaves, falls behind or shuts down.
fn events(rng: &mut Rng, requests: &[Request]) -> BTreeMap<u32, Vec<Event>> {
    let mut events: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    let spread = 1 + rng.below(30);
    for (id, request) in requests.iter().enumerate() {
        let (id, at) = (id as u64, rng.below(spread) as u32);
        events.entry(at).or_default().push(Event::Submit(id, Box::new(request.clone())));
        if rng.chance(0.15) {
            events.entry(at + rng.below(25) as u32).or_default().push(Event::Abort(id));
        }
        if rng.chance(0.15) {
            let pause = at + rng.below(15) as u32;
            events.entry(pause).or_default().push(Event::Pause(id));
            events.entry(pause + 1 + rng.below(25) as u32).or_default().push(Event::Resume(id));
        }
    }
    if rng.chance(0.1) {
        let until = Duration::from_secs(rng.below(60) as u64);
        events.entry(rng.below(30) as u32).or_default().push(Event::Shutdown(until));
    }
    events
}

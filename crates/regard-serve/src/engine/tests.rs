//! What single rules of the engine promise, on the hash model.

use std::time::Duration;

use regard_nn::Sampling;

use super::Engine;
use crate::simulation::model::{Faults, Model, Rule};
use crate::{Config, Decoding, Event, Group, Keep, Outcome, Output, Refusal, Request, RequestId};

const ALL: Group = Group { pages: 40, page_size: 4, swap_pages: 0, keep: Keep::All };

fn engine(groups: &[Group], config: Config) -> Engine<Model> {
    let rule = Rule { salt: 1, vocab_size: 9 };
    Engine::new(Model::new(rule, 200, groups, Faults::default()), config).unwrap()
}

/// A prompt of `prompt` tokens.
fn request(prompt: usize, max_tokens: usize) -> Request {
    Request { prompt: (0..prompt as u32).map(|i| i * 5 % 9).collect(), max_tokens, ..Request::default() }
}

fn submit(id: RequestId, request: Request) -> Event {
    Event::Submit(id, Box::new(request))
}

fn step(engine: &mut Engine<Model>, events: Vec<Event>) -> Vec<Output> {
    engine.step(events, Duration::ZERO)
}

/// Steps until nothing is left: the requests in the order in which they ended.
fn run(engine: &mut Engine<Model>, events: Vec<Event>) -> Vec<RequestId> {
    let mut outputs = step(engine, events);
    while !engine.is_idle() {
        outputs.extend(step(engine, Vec::new()));
    }
    outputs.iter().filter_map(|output| if let Output::Done { request, .. } = output { Some(*request) } else { None }).collect()
}

fn refusal(engine: &mut Engine<Model>, request: Request) -> String {
    match step(engine, vec![submit(9, request)]).swap_remove(0) {
        Output::Done { request: 9, outcome: Outcome::Refused(refusal) } => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prompt_that_was_read_is_read_again_in_part_only() {
    let mut engine = engine(&[ALL], Config::default());
    run(&mut engine, vec![submit(1, request(22, 3))]);
    let before = engine.stats().tokens;
    let outputs = step(&mut engine, vec![submit(2, request(22, 1))]);
    assert_eq!(outputs[0], Output::Started { request: 2, cached: 20 });
    assert_eq!(engine.stats().tokens - before, 2);
    let salted = Request { salt: b"mine".to_vec(), ..request(22, 1) };
    assert_eq!(step(&mut engine, vec![submit(3, salted)])[0], Output::Started { request: 3, cached: 0 });
}

#[test]
fn the_cached_page_that_is_idle_for_longest_goes_first() {
    let mut engine = engine(&[Group { pages: 6, ..ALL }], Config { reserve: 0, ..Config::default() });
    let other = |first| Request { prompt: vec![first; 9], ..request(9, 1) };
    let cached = |engine: &mut Engine<Model>, id, first| match step(engine, vec![submit(id, other(first))])[0] {
        Output::Started { cached, .. } => cached,
        _ => panic!(),
    };
    assert_eq!([cached(&mut engine, 1, 1), cached(&mut engine, 2, 2)], [0, 0]); // two pages stay of each
    assert_eq!(cached(&mut engine, 3, 1), 8); // the second text is now idle for longest
    assert_eq!(cached(&mut engine, 4, 3), 0); // needs three pages, two are free: the end of the second goes
    assert_eq!([cached(&mut engine, 5, 1), cached(&mut engine, 6, 2)], [8, 4]);
}

#[test]
fn choices_share_the_pages_of_their_prompt() {
    let decoding = Decoding::Sample {
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        adjustments: Default::default(),
        n: 5,
        best_of: 5,
    };
    let mut engine = engine(&[ALL], Config { prefix_cache: false, ..Config::default() });
    step(&mut engine, vec![submit(1, Request { decoding, ..request(22, 4) })]);
    let held = |engine: &Engine<Model>| engine.stats().pages - engine.stats().free_pages;
    assert_eq!(held(&engine), 6); // five whole pages and the last, which all share
    step(&mut engine, Vec::new());
    assert_eq!(held(&engine), 5 + 5); // each has written into a last page of its own
}

#[test]
fn pages_behind_a_window_are_free_again() {
    let window = Group { keep: Keep::Window(6), ..ALL };
    let mut engine = engine(&[window], Config { prefix_cache: false, token_budget: 8, ..Config::default() });
    step(&mut engine, vec![submit(1, request(60, 40))]);
    while !engine.is_idle() {
        let held = engine.stats().pages - engine.stats().free_pages;
        assert!(held <= 3, "a window of six tokens touches at most three pages of four: {held}");
        step(&mut engine, Vec::new());
    }
}

#[test]
fn decoding_goes_on_beside_the_prefill_of_a_long_prompt() {
    let mut engine = engine(&[ALL], Config { token_budget: 4, ..Config::default() });
    step(&mut engine, vec![submit(1, request(3, 20))]);
    step(&mut engine, vec![submit(2, request(60, 1))]);
    for _ in 0..10 {
        let told = step(&mut engine, Vec::new());
        assert!(told.iter().any(|output| matches!(output, Output::Token { request: 1, .. })), "{told:?}");
    }
}

#[test]
fn priority_overtakes_and_starves_nobody() {
    let config = Config { max_sequences: 1, head_start: 3, ..Config::default() };
    let ahead = |id| submit(id, Request { priority: -1, ..request(2, 2) });
    let mut engine = engine(&[ALL], config);
    let mut events = vec![submit(0, request(2, 2)), submit(1, request(2, 2))];
    events.extend((2..9).map(ahead));
    // Three steps of arrival for a level: requests 2 and 3 (ranks −1 and 0) overtake 0 and 1, and 4 (rank 1) comes after 1.
    assert_eq!(run(&mut engine, events), [2, 0, 3, 1, 4, 5, 6, 7, 8]);
}

#[test]
fn a_large_request_does_not_wait_for_ever_behind_a_stream_of_small_ones() {
    let mut engine = engine(&[Group { pages: 12, ..ALL }], Config { prefix_cache: false, ..Config::default() });
    let small = |id| submit(id, request(3, 6));
    for id in 1..6 {
        step(&mut engine, vec![small(id)]);
    }
    step(&mut engine, vec![submit(0, request(40, 3))]);
    let done = (6..40).find(|id| {
        let told = step(&mut engine, vec![small(*id)]);
        told.iter().any(|output| matches!(output, Output::Done { request: 0, .. }))
    });
    assert!(done.is_some_and(|id| id < 20), "{done:?}");
    // One that ran beside it gave way when both grew; nobody was let in while it waited, to be thrown out again.
    assert_eq!(engine.stats().preemptions, 1);
}

#[test]
fn a_request_that_stands_still_gives_its_pages_to_others() {
    let mut engine = engine(&[Group { pages: 6, ..ALL }], Config::default());
    step(&mut engine, vec![submit(1, request(18, 6))]);
    step(&mut engine, vec![Event::Pause(1), submit(2, request(18, 3))]);
    let told: Vec<Output> = (0..4).flat_map(|_| step(&mut engine, Vec::new())).collect();
    assert!(told.iter().any(|output| matches!(output, Output::Done { request: 2, .. })), "{told:?}");
    assert_eq!(engine.stats().preemptions, 1);
    assert_eq!(run(&mut engine, vec![Event::Resume(1)]), [1]);
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let config = Config { token_budget: 8, max_sequences: 4, max_waiting: 1, ..Config::default() };
    let mut engine = engine(&[ALL], config);
    let beams = |width, n| Decoding::Beam { width, n, length_penalty: 1.0 };
    let cases: [(Request, &str); 10] = [
        (request(0, 1), "the prompt is empty and must have at least one token"),
        (Request { prompt: vec![9], ..request(1, 1) }, "token 9 of the prompt is outside the vocabulary of 9 tokens"),
        (Request { stop_tokens: vec![70], ..request(1, 1) }, "token 70 of the stop tokens is outside the vocabulary of 9 tokens"),
        (request(5, 196), "a prompt of 5 tokens and max_tokens of 196 exceed the context of 200 tokens"),
        (request(5, 190), "the request may need 49 pages of group 0, and the pool has 40: ask for fewer tokens or choices"),
        (Request { decoding: beams(5, 1), ..request(1, 1) }, "the request needs 5 sequences at once, and 4 may run"),
        (Request { decoding: beams(1, 2), ..request(1, 1) }, "width is 1 and must be at least n, which is 2"),
        (Request { decoding: beams(2, 2), stop: vec!["x".into()], ..request(1, 1) }, "stop is not supported with beam search"),
        (Request { stop: vec![String::new()], ..request(1, 1) }, "a stop string is empty: it would stop before the first token"),
        (Request { source: vec![1], ..request(1, 1) }, "the source has 1 tokens and must have none: the model has no encoder"),
    ];
    for (request, text) in cases {
        assert_eq!(refusal(&mut engine, request), text);
    }
    step(&mut engine, vec![submit(1, request(30, 4))]);
    let twice = step(&mut engine, vec![submit(1, request(2, 1))]);
    assert_eq!(twice[0], Output::Done { request: 1, outcome: Outcome::Refused(Refusal::Id { id: 1 }) });
    step(&mut engine, vec![submit(2, request(30, 4))]);
    assert_eq!(refusal(&mut engine, request(2, 1)), "1 requests wait already, and no more may: try again later");
    step(&mut engine, vec![Event::Shutdown(Duration::from_secs(1))]);
    assert_eq!(refusal(&mut engine, request(2, 1)), "the server is shutting down");
    assert_eq!(run(&mut engine, Vec::new()), [1, 2]);
}

#[test]
fn settings_outside_their_domain_are_refused_by_name() {
    let refused = |group: Group, config: Config| {
        let model = Model::new(Rule { salt: 1, vocab_size: 9 }, 200, &[group], Faults::default());
        Engine::new(model, config).unwrap_err().to_string()
    };
    let config = Config::default();
    assert_eq!(refused(ALL, Config { token_budget: 0, ..config }), "token_budget is 0 and must be at least 1");
    assert_eq!(refused(ALL, Config { reserve: 100, ..config }), "reserve is 100 of a hundred pages and must be at most 99");
    assert_eq!(refused(Group { page_size: 0, ..ALL }, config), "page_size of a group is 0 and must be at least 1");
    assert_eq!(refused(Group { keep: Keep::Window(0), ..ALL }, config), "window of a group is 0 and must be at least 1");
}

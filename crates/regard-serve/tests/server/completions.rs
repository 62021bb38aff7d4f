//! Completions: the texts of `Model::generate`, whole and in pieces, and what else is asked of them.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use regard_nn::{Generate, Sampling};
use serde_json::{Value, json};

use crate::{Running, story};

pub(crate) const PROMPT: &str = "Once upon a time there was a king";

/// The continuation, as one process alone gets it.
fn plain(prompt: &str, max_tokens: usize, sampling: Sampling) -> String {
    let options = Generate { max_tokens, sampling, ..Generate::default() };
    story().generate(prompt, &options, &AtomicBool::new(false), &mut |_| ControlFlow::Continue(())).unwrap().text
}

fn complete(server: &Running, body: &Value) -> Value {
    let answer = server.post("/v1/completions", body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    answer.json()
}

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().unwrap().iter().enumerate();
    let text = |(i, choice): (usize, &Value)| {
        assert_eq!(choice["index"], i);
        choice["text"].as_str().unwrap().to_owned()
    };
    choices.map(text).collect()
}

#[test]
fn greedy_text_is_that_of_generate_whole_and_in_pieces() {
    let server = Running::story();
    let mut ask = json!({ "model": "story", "prompt": PROMPT, "max_tokens": 40, "temperature": 0 });
    let whole = complete(&server, &ask);
    let text = plain(PROMPT, 40, Sampling::default());
    assert_eq!(texts(&whole), [text.as_str()]);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 40);

    ask["stream"] = json!(true);
    ask["stream_options"] = json!({ "include_usage": true });
    let answer = server.post("/v1/completions", &ask);
    assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
    let mut events = answer.events();
    let usage = events.pop().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(40)));
    assert!(events.len() > 20, "the text comes in pieces");
    let joined: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(events.iter().all(|event| event["usage"].is_null()));

    ask["stream_options"] = json!({ "include_usage": true, "continuous_usage_stats": true });
    let events = server.post("/v1/completions", &ask).events();
    let told: Vec<u64> = events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(told.is_sorted() && told[0] <= 2 && told.ends_with(&[40, 40]), "{told:?}");
    ask["stream_options"] = json!({ "continuous_usage_stats": true });
    let refused = server.post("/v1/completions", &ask);
    assert!(refused.status == 400 && refused.body.contains("needs stream_options.include_usage"), "{}", refused.body);
    server.end().unwrap();
}

#[test]
fn what_is_not_said_is_as_the_model_recommends() {
    let server = Running::story();
    let told = complete(&server, &json!({ "prompt": PROMPT, "max_tokens": 30, "seed": 7 }));
    let sampling = Sampling { seed: 7, ..story().sampling() };
    assert_eq!(texts(&told), [plain(PROMPT, 30, sampling)]);
    assert_ne!(texts(&told), [plain(PROMPT, 30, Sampling::default())]);
}

#[test]
fn tokens_and_lists_of_prompts_are_continued_each() {
    let server = Running::story();
    let tokens: Vec<Vec<u32>> = [PROMPT, "The fox said"].map(|text| story().tokenizer().encode(text).unwrap()).to_vec();
    let ask = |prompt: Value| texts(&complete(&server, &json!({ "prompt": prompt, "max_tokens": 12, "temperature": 0 })));
    let expected = [PROMPT, "The fox said"].map(|prompt| plain(prompt, 12, Sampling::default()));
    assert_eq!(ask(json!([PROMPT, "The fox said"])), expected);
    assert_eq!(ask(json!(tokens)), expected);
    assert_eq!(ask(json!(tokens[1])), expected[1..]);
}

#[test]
fn choices_differ_by_number_and_the_first_is_the_only_one_of_one() {
    let server = Running::story();
    let ask = |n: usize, best_of: usize, stream: bool| json!({ "prompt": PROMPT, "max_tokens": 20, "temperature": 1, "seed": 3, "n": n, "best_of": best_of, "stream": stream });
    let (one, three) = (texts(&complete(&server, &ask(1, 1, false))), texts(&complete(&server, &ask(3, 3, false))));
    assert_eq!(one[0], three[0]);
    assert!(three[0] != three[1] && three[1] != three[2]);
    let best = texts(&complete(&server, &ask(1, 3, false)));
    assert!(three.contains(&best[0]), "{best:?} is one of {three:?}");

    let mut pieces = vec![String::new(); 3];
    for event in server.post("/v1/completions", &ask(3, 3, true)).events() {
        let choice = &event["choices"][0];
        pieces[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
    }
    assert_eq!(pieces, three);
}

#[test]
fn beams_find_a_likelier_text_than_the_greedy_one() {
    let server = Running::story();
    let sum = |answer: &Value| -> f64 {
        answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum()
    };
    let beams = json!({ "prompt": PROMPT, "max_tokens": 10, "beam_width": 4, "n": 2, "logprobs": 0 });
    let beams = complete(&server, &beams);
    let greedy = complete(&server, &json!({ "prompt": PROMPT, "max_tokens": 10, "temperature": 0, "logprobs": 0 }));
    assert_eq!(texts(&beams).len(), 2);
    assert!(sum(&beams) > sum(&greedy), "{} {}", sum(&beams), sum(&greedy));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let server = Running::story();
    let text = plain(PROMPT, 40, Sampling::default());
    let word = text.split(' ').nth(6).unwrap();
    let before = &text[..text.find(word).unwrap()];
    for stream in [false, true] {
        let ask = json!({ "prompt": PROMPT, "max_tokens": 40, "temperature": 0, "stop": [word, "never"], "stream": stream });
        let answer = server.post("/v1/completions", &ask);
        let events = if stream { answer.events() } else { vec![answer.json()] };
        let joined: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(joined, before);
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
}

#[test]
fn an_echo_scores_the_prompt_and_its_tokens_join_to_the_text() {
    let server = Running::story();
    let ask = json!({ "prompt": PROMPT, "max_tokens": 5, "temperature": 0, "echo": true, "logprobs": 2 });
    let answer = complete(&server, &ask);
    let (choice, logprobs) = (&answer["choices"][0], &answer["choices"][0]["logprobs"]);
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    let tokens = list("tokens");
    let joined: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(joined, choice["text"].as_str().unwrap());
    assert!(joined.starts_with(PROMPT));
    let text: Vec<char> = joined.chars().collect();
    for (token, at) in tokens.iter().zip(list("text_offset")) {
        let token: Vec<char> = token.as_str().unwrap().chars().collect();
        assert_eq!(text[at.as_u64().unwrap() as usize..][..token.len()], token);
    }
    let (scores, top) = (list("token_logprobs"), list("top_logprobs"));
    assert!(scores[0].is_null() && top[0].is_null());
    assert_eq!(scores.len(), story().tokenizer().encode(PROMPT).unwrap().len() + 5);
    // What was generated is the likeliest; the mass of the best does not exceed one.
    for (token, (score, top)) in tokens.iter().zip(scores.iter().zip(&top)).rev().take(5) {
        assert_eq!(top[token.as_str().unwrap()], *score);
        let mass: f64 = top.as_object().unwrap().values().map(|x| x.as_f64().unwrap().exp()).sum();
        assert!(top.as_object().unwrap().len() == 2 && mass <= 1.0 + 1e-6, "{top}");
    }
    let scored = complete(&server, &json!({ "prompt": PROMPT, "max_tokens": 0, "echo": true, "logprobs": 2 }));
    assert_eq!(scored["choices"][0]["text"], PROMPT);
    assert_eq!(scored["choices"][0]["logprobs"]["token_logprobs"], json!(scores[..scores.len() - 5]));
}

#[test]
fn a_bias_forbids_a_token_and_a_penalty_changes_the_text() {
    let server = Running::story();
    let ask = json!({ "prompt": PROMPT, "max_tokens": 1, "temperature": 0 });
    let first = texts(&complete(&server, &ask))[0].clone();
    let token = *story().tokenizer().encode(&format!("{PROMPT}{first}")).unwrap().last().unwrap();
    let mut forbidden = ask.clone();
    forbidden["logit_bias"] = json!({ token.to_string(): -100 });
    assert_ne!(texts(&complete(&server, &forbidden))[0], first);
    let long = json!({ "prompt": PROMPT, "max_tokens": 60, "temperature": 0 });
    for penalty in ["presence_penalty", "frequency_penalty"] {
        let mut with = long.clone();
        with[penalty] = json!(2);
        assert_ne!(texts(&complete(&server, &with)), texts(&complete(&server, &long)), "{penalty}");
    }
}

#[test]
fn requests_side_by_side_get_what_each_gets_alone() {
    let server = Running::story();
    let asks: Vec<Value> = (0..6)
        .map(|i| json!({ "prompt": format!("{PROMPT} and {i} daughters"), "max_tokens": 60, "temperature": 0.8, "seed": i, "logprobs": 1 }))
        .collect();
    let alone: Vec<Value> = asks.iter().map(|ask| complete(&server, ask)["choices"].clone()).collect();
    let begun: Vec<_> = asks.iter().map(|ask| server.begin("/v1/completions", &ask.to_string())).collect();
    let together: Vec<Value> = begun.into_iter().map(|one| crate::client::read(one).json()["choices"].clone()).collect();
    assert_eq!(together, alone);
}

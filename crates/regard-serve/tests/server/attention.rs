//! Attention beside a text: what `inspect` tells of its tokens, to whoever may ask, whatever else the server does.

use std::collections::BTreeMap;

use regard_lens::ablate::{HeadId, Replace, loss};
use regard_lens::{Options, Text, inspect};
use regard_nn::{ChatTemplate, Model};
use regard_serve::{Limits, Served, Settings};
use serde_json::{Value, json};

use crate::client::{Answer, read};
use crate::completions::PROMPT;
use crate::{Running, quiet, story};

fn allowing(tokens: usize) -> Settings {
    Settings { limits: Limits { attention: tokens, ..Limits::default() }, ..quiet() }
}

fn telling(tokens: usize) -> Running {
    Running::new(Served::text("story", story()), allowing(tokens))
}

fn ask() -> Value {
    json!({ "prompt": PROMPT.repeat(3), "max_tokens": 20, "temperature": 0, "attention": {} })
}

/// What is told, but for the time that it took.
fn told(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    timeless(answer.json()["attention"].clone())
}

fn timeless(mut report: Value) -> Value {
    assert!(report["run"]["seconds"].as_f64().unwrap() > 0.0, "{report:.300}");
    report["run"]["seconds"] = json!(0);
    report
}

/// The tokens of a text that was told of.
fn ids(report: &Value) -> Vec<u32> {
    report["texts"][0]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// What the lens tells of these tokens, in a process of its own.
fn inspected(model: &Model, tokens: Vec<u32>, without: Vec<HeadId>) -> Value {
    let text = Text::of_tokens(model, "prompt and answer", tokens).unwrap();
    let options = Options { scores: false, leaks: false, without, ..Options::default() };
    let report = inspect(model, "story", &[text], &options, &mut |_| {}).unwrap();
    timeless(serde_json::from_str(&report.json().unwrap()).unwrap())
}

/// A number of the metrics.
fn counted(server: &Running, name: &str) -> f64 {
    let text = server.get("/metrics").body;
    let line = text.lines().find(|line| line.starts_with(&format!("regard:{name}{{")));
    line.unwrap_or_else(|| panic!("{name}: {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn it_is_refused_where_it_is_not_allowed() {
    let server = Running::story();
    for path in ["/v1/completions", "/v1/chat/completions"] {
        let answer = server.post(path, &ask());
        let (message, param) = answer.error();
        assert_eq!((answer.status, param.as_str()), (403, "attention"), "{message}");
        assert!(message.contains("--attention TOKENS"), "{message}");
    }
    assert_eq!(server.get("/v1/models/story").json()["max_attention_len"], 0);
    assert_eq!(telling(100).get("/v1/models").json()["data"][0]["max_attention_len"], 100);
    assert_eq!(telling(9999).get("/v1/models").json()["data"][0]["max_attention_len"], 512);
}

#[test]
fn facts_are_those_of_the_lens_and_losses_those_of_the_engine() {
    let server = telling(512);
    let mut ask = ask();
    (ask["echo"], ask["logprobs"]) = (json!(true), json!(0));
    let answer = server.post("/v1/completions", &ask);
    let report = told(&answer);
    let prompt = story().tokenizer().encode(&PROMPT.repeat(3)).unwrap();
    let tokens = ids(&report);
    assert_eq!((&tokens[..prompt.len()], tokens.len()), (&prompt[..], prompt.len() + 20));
    assert_eq!(report["texts"][0]["tokens"].as_array().unwrap().len(), tokens.len());
    assert_eq!(report, inspected(&story(), tokens, vec![]));
    // The engine read the prompt in its pages, and told what it made of every token.
    let logprobs = answer.json()["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    let losses = report["texts"][0]["loss"].as_array().unwrap();
    assert_eq!(losses.len(), logprobs.len());
    for (loss, logprob) in losses.iter().zip(&logprobs).skip(1) {
        let (loss, logprob) = (loss.as_f64().unwrap(), logprob.as_f64().unwrap());
        assert!((loss + logprob).abs() <= 1e-5 * loss.max(1.0), "{loss} and {logprob}");
    }
    assert_eq!(counted(&server, "attention_readings_total"), 1.0);
}

#[test]
fn it_is_the_same_alone_among_others_from_the_cache_and_in_a_stream() {
    let server = telling(512);
    let alone = told(&server.post("/v1/completions", &ask()));
    let other =
        |i: usize| json!({ "prompt": format!("{}{i}", PROMPT.repeat(3)), "max_tokens": 60, "temperature": 1, "attention": {} });
    let others: Vec<_> = (0..4).map(|i| server.begin("/v1/completions", &other(i).to_string())).collect();
    let among = server.post("/v1/completions", &ask());
    assert_eq!(among.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().filter(|n| *n >= 16), Some(16));
    assert_eq!(told(&among), alone);
    for other in others {
        assert_ne!(told(&read(other)), alone);
    }
    let salted = |salt: &str| {
        let mut ask = ask();
        ask["cache_salt"] = json!(salt);
        told(&server.post("/v1/completions", &ask))
    };
    assert_eq!(salted("ann"), alone);

    let mut ask = ask();
    ask["stream"] = json!(true);
    for usage in [json!(null), json!({ "include_usage": true }), json!({ "include_usage": true, "continuous_usage_stats": true })] {
        ask["stream_options"] = usage.clone();
        let mut events = server.post("/v1/completions", &ask).events();
        let last = events.pop().unwrap();
        assert_eq!((&last["choices"], &last["object"]), (&json!([]), &json!("text_completion")));
        assert_eq!(timeless(last["attention"].clone()), alone);
        assert!(events.iter().all(|event| event["attention"].is_null()));
        assert_eq!(last["usage"].is_object(), usage["continuous_usage_stats"] == true, "{usage}");
        assert_eq!(events.last().unwrap()["usage"].is_object(), usage["include_usage"] == true, "{usage}");
    }
}

#[test]
fn a_conversation_is_told_of_as_the_template_wrote_it() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let served = Served::text("story", story()).with_template(ChatTemplate::new(template, BTreeMap::new()).unwrap());
    let server = Running::new(served, allowing(512));
    let mut ask =
        json!({ "messages": [{ "role": "user", "content": PROMPT }], "max_tokens": 6, "temperature": 0, "attention": {} });
    let whole = told(&server.post("/v1/chat/completions", &ask));
    let prompt = story().tokenizer().encode_rendered(PROMPT).unwrap();
    let tokens = ids(&whole);
    assert_eq!((&tokens[..prompt.len()], tokens.len()), (&prompt[..], prompt.len() + 6));
    assert_eq!(whole, inspected(&story(), tokens, vec![]));
    ask["stream"] = json!(true);
    let last = server.post("/v1/chat/completions", &ask).events().pop().unwrap();
    assert_eq!(timeless(last["attention"].clone()), whole);
}

#[test]
fn no_more_than_the_allowed_tokens_are_read() {
    let server = telling(16);
    let report = told(&server.post("/v1/completions", &ask()));
    let tokens = story().tokenizer().encode(&PROMPT.repeat(3)).unwrap();
    assert_eq!(ids(&report), tokens[..16]);
    let label = format!("Of {} tokens the first 16 were read: this server tells of no more at once.", tokens.len() + 20);
    assert_eq!(report["run"]["labels"].as_array().unwrap().last().unwrap(), &json!(label));
    let expected = inspected(&story(), tokens[..16].to_vec(), vec![]);
    assert_eq!((&report["heads"], &report["texts"]), (&expected["heads"], &expected["texts"]));
}

#[test]
fn heads_that_are_left_out_change_the_losses_as_their_ablation_does() {
    let (server, model) = (telling(512), story());
    let tokens = model.tokenizer().encode(&PROMPT.repeat(3)).unwrap();
    let ask = |attention: Value| json!({ "prompt": tokens, "max_tokens": 0, "attention": attention });
    let mean = |report: &Value| {
        let losses: Vec<f64> = report["texts"][0]["loss"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let whole = told(&server.post("/v1/completions", &ask(json!({}))));
    for without in [vec![(0, 0)], vec![(2, 5), (1, 3), (2, 5)]] {
        let report = told(&server.post("/v1/completions", &ask(json!({ "without": without }))));
        let text = Text::of_tokens(&model, "any", tokens.clone()).unwrap();
        let expected = loss(model.decoder().unwrap(), &[text], &without, Replace::Zero).unwrap();
        assert!((mean(&report) - expected).abs() < 1e-5 * expected, "{} and {expected}", mean(&report));
        assert_ne!(mean(&report), mean(&whole));
        assert!(report["run"]["labels"].to_string().contains("without these heads"), "{}", report["run"]["labels"]);
    }
}

#[test]
fn what_cannot_be_told_is_refused_by_name() {
    let server = telling(512);
    let cases = [
        (json!({ "attention": true }), "attention"),
        (json!({ "attention": { "layers": [1] } }), "attention.layers"),
        (json!({ "attention": { "without": 3 } }), "attention.without"),
        (json!({ "attention": { "without": [[1]] } }), "attention.without"),
        (json!({ "attention": { "without": [[1, -2]] } }), "attention.without"),
        (json!({ "attention": { "without": [[6, 0]] } }), "attention.without"),
        (json!({ "attention": { "without": [[0, 8]] } }), "attention.without"),
        (json!({ "attention": {}, "n": 2 }), "attention"),
        (json!({ "attention": {}, "best_of": 2 }), "attention"),
        (json!({ "attention": {}, "beam_width": 2, "temperature": null }), "attention"),
        (json!({ "attention": {}, "prompt": [PROMPT, PROMPT] }), "attention"),
        (json!({ "attention": {}, "prompt": [7], "max_tokens": 0 }), "attention"),
    ];
    for (change, param) in cases {
        let mut ask = ask();
        change.as_object().unwrap().iter().for_each(|(name, value)| ask[name] = value.clone());
        let answer = server.post("/v1/completions", &ask);
        assert_eq!((answer.status, answer.error().1.as_str()), (400, param), "{ask}: {}", answer.body);
    }
    let missing = server.post("/v1/completions", &json!({ "prompt": "a", "attention": { "without": [[0, 8]] } })).error().0;
    assert_eq!(missing, "attention.without: there is no head 8 in layer 0: each layer has heads 0 to 7");
    assert_eq!(counted(&server, "attention_readings_total"), 0.0);
}

#[test]
fn clients_that_leave_are_not_read_for_and_give_up_their_seats() {
    let server = telling(512);
    let long =
        json!({ "prompt": PROMPT, "max_tokens": 480, "temperature": 0, "ignore_eos": true, "stream": true, "attention": {} });
    let seated: Vec<_> = (0..8).map(|_| server.begin("/v1/completions", &long.to_string())).collect();
    server.until(|stats| stats.running + stats.waiting == 8);
    let ninth = server.post("/v1/completions", &ask());
    assert_eq!(ninth.status, 429, "{}", ninth.body);
    assert!(ninth.head.contains("retry-after: 1") && ninth.body.contains("8 requests with attention"), "{}", ninth.body);
    let plain = json!({ "prompt": PROMPT, "max_tokens": 1 });
    assert_eq!(server.post("/v1/completions", &plain).status, 200);
    drop(seated);
    server.until(|stats| stats.running + stats.waiting == 0);
    assert_eq!(counted(&server, "attention_readings_total"), 0.0);
    assert_eq!(server.post("/v1/completions", &ask()).status, 200);
    assert_eq!(counted(&server, "attention_readings_total"), 1.0);
}

#[test]
fn settings_that_tell_nothing_are_refused() {
    let error = |served: Served, tokens| regard_serve::Server::bind(served, allowing(tokens)).err().unwrap().to_string();
    assert_eq!(error(Served::text("story", story()), 1), "limits.attention is 1 and must be 0, or at least 2 tokens");
    let dir = tempfile::tempdir().unwrap();
    regard_testing::tiny::bert(dir.path()).unwrap();
    let encoder = error(Served::open("tiny", dir.path(), None).unwrap(), 100);
    assert!(encoder.starts_with("limits.attention is 100 and must be 0: an encoder"), "{encoder}");
}

//! What keeps a server serving: refusals, keys, bounds, clients that leave, and an end in order.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use regard_serve::{Config, Limits, Room, Served, Settings};
use serde_json::{Value, json};

use crate::client::{head, read};
use crate::completions::PROMPT;
use crate::{Running, quiet, story};

fn with(settings: Settings) -> Running {
    Running::new(Served::text("story", story()), settings)
}

/// A text that takes as long as the context allows.
fn long(stream: bool) -> String {
    json!({ "prompt": PROMPT, "max_tokens": 480, "temperature": 0, "ignore_eos": true, "stream": stream }).to_string()
}

#[test]
fn bad_requests_name_the_field_and_leave_it_serving() {
    let server = Running::story();
    let good = json!({ "prompt": PROMPT, "max_tokens": 8, "temperature": 0 });
    let before = server.post("/v1/completions", &good).json()["choices"].clone();
    let cases: Vec<(&str, Value, u16)> = vec![
        ("prompt", json!(""), 400),
        ("prompt", json!([]), 400),
        ("prompt", json!(["a", ""]), 400),
        ("prompt", json!(["a", 1]), 400),
        ("prompt", json!([-1]), 400),
        ("prompt", json!([4096]), 400),
        ("prompt", json!([1e20]), 400),
        ("prompt", json!({}), 400),
        ("prompt", json!("word ".repeat(1_000)), 400),
        ("prompt", json!("x".repeat(1_000_000)), 400),
        ("prompt", json!(vec!["a"; 65]), 400),
        ("max_tokens", json!(-1), 400),
        ("max_tokens", json!(1e300), 400),
        ("max_tokens", json!(100_000), 400),
        ("max_tokens", json!("many"), 400),
        ("temperature", json!(-0.1), 400),
        ("temperature", json!(1e39), 400),
        ("temperature", json!([]), 400),
        ("top_p", json!(0), 400),
        ("top_p", json!(1.1), 400),
        ("top_k", json!(-1), 400),
        ("min_p", json!(2), 400),
        ("repetition_penalty", json!(0), 400),
        ("presence_penalty", json!(3), 400),
        ("frequency_penalty", json!(-3), 400),
        ("n", json!(0), 400),
        ("n", json!(1_000_000_000), 400),
        ("best_of", json!(17), 400),
        ("beam_width", json!(0), 400),
        ("logprobs", json!(21), 400),
        ("logprobs", json!(true), 400),
        ("seed", json!(1.5), 400),
        ("stop", json!(""), 400),
        ("stop", json!(vec!["a"; 17]), 400),
        ("stop", json!([1]), 400),
        ("logit_bias", json!({ "x": 1 }), 400),
        ("logit_bias", json!({ "4096": 1 }), 400),
        ("logit_bias", json!({ "1": 101 }), 400),
        ("suffix", json!("x"), 400),
        ("stream", json!("yes"), 400),
        ("stream_options", json!({}), 400),
        ("priority", json!(5000), 400),
        ("user", json!("x".repeat(300)), 400),
        ("cache_salt", json!(1), 400),
        ("unheard_of", json!(1), 400),
        ("model", json!("other"), 404),
    ];
    for (field, value, status) in cases {
        let mut ask = good.clone();
        ask[field] = value;
        let answer = server.post("/v1/completions", &ask);
        let (message, param) = answer.error();
        assert_eq!((answer.status, answer.error().1.split('.').next()), (status, Some(field)), "{ask:.200}: {message} ({param})");
        assert!(message.contains(field.split('_').next().unwrap()) && message.len() < 400, "{field}: {message}");
    }
    for body in ["", "{", "[]", "null", "{\"prompt\": NaN}", "{\"n\": 1e999}", &"[".repeat(10_000)] {
        let answer = server.post_text("/v1/completions", body);
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
    assert_eq!(server.post("/v1/completions", &good).json()["choices"], before);
    server.until(|stats| stats.running + stats.waiting == 0);
}

#[test]
fn together_fields_can_be_wrong_that_are_right_alone() {
    let server = Running::story();
    let cases = [
        (json!({ "n": 3, "best_of": 2 }), "best_of"),
        (json!({ "n": 3, "beam_width": 2 }), "beam_width"),
        (json!({ "temperature": 1, "beam_width": 2 }), "temperature"),
        (json!({ "best_of": 2, "beam_width": 2 }), "best_of"),
        (json!({ "stop": "x", "beam_width": 2 }), "stop"),
        (json!({ "best_of": 2, "stream": true }), "stream"),
        (json!({ "beam_width": 2, "stream": true }), "stream"),
        (json!({ "echo": true, "logprobs": 1, "stream": true }), "stream"),
        (json!({ "length_penalty": 1 }), "length_penalty"),
        (json!({ "stream": true, "stream_options": { "include": 1 } }), "stream_options.include"),
    ];
    for (mut ask, param) in cases {
        ask["prompt"] = json!(PROMPT);
        let answer = server.post("/v1/completions", &ask);
        assert_eq!((answer.status, answer.error().1.as_str()), (400, param), "{ask}: {}", answer.body);
    }
}

#[test]
fn routes_methods_types_and_sizes_are_checked() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let server = with(Settings { limits, ..quiet() });
    assert_eq!(server.get("/nowhere").status, 404);
    let answer = server.get("/v1/completions");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: post"));
    assert_eq!(read(server.send(&head("POST", "/metrics", "Content-Length: 0\r\n"))).status, 405);
    assert_eq!(read(server.send(&head("POST", "/tokenize", "Content-Length: 0\r\n"))).status, 415);
    assert_eq!(server.post("/tokenize", &json!({ "prompt": "x".repeat(1000) })).status, 413);
    let many: String = (0..100).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(read(server.send(&head("GET", "/health", &many))).status, 431);
    assert_eq!(read(server.send(&head("GET", "/health", &format!("X: {}\r\n", "y".repeat(100_000))))).status, 431);
    let from = |line: &str| read(server.send(&format!("GET /metrics HTTP/1.1\r\nConnection: close\r\n{line}\r\n"))).status;
    assert_eq!(from("Host: evil.example\r\n"), 403);
    assert_eq!(from("Host: localhost:8080\r\nOrigin: http://evil.example\r\n"), 403);
    assert_eq!(from("Host: 127.0.0.1:8080\r\nOrigin: http://127.0.0.1:8080\r\n"), 200);
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "story");
    assert_eq!(server.get("/v1/models/story").json()["max_model_len"], 512);
    assert_eq!(server.get("/v1/models/other").status, 404);
    assert!(server.get("/").body.contains("<title>regard</title>"));
    let (message, param) = server.post("/v1/embeddings", &json!({ "input": "x" })).error();
    assert!(message.contains("embeds no texts") && param == "model", "{message}");
}

#[test]
fn the_key_opens_every_route_but_two() {
    let server = with(Settings { api_key: Some("open-sesame".to_owned()), ..quiet() });
    let routes = [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/story"),
        ("GET", "/nowhere"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
    ];
    let ask = |method, path, key: &str| read(server.send(&head(method, path, &format!("{key}Content-Length: 0\r\n")))).status;
    for (method, path) in routes {
        for wrong in ["", "Authorization: Bearer open-sesam\r\n", "Authorization: Bearer \r\n", "Authorization: Basic OnB3\r\n"] {
            assert_eq!(ask(method, path, wrong), 401, "{path} {wrong}");
        }
        for right in ["Authorization: Bearer open-sesame\r\n", "Authorization: Basic dTpvcGVuLXNlc2FtZQ==\r\n"] {
            assert_ne!(ask(method, path, right), 401, "{path}");
        }
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn a_client_that_leaves_frees_its_pages() {
    let server = Running::story();
    for stream in [false, true] {
        let client = server.begin("/v1/completions", &long(stream));
        let held = server.until(|stats| stats.running == 1);
        assert!(held.free_pages + held.cached_pages < held.pages);
        drop(client);
        let left = server.until(|stats| stats.running == 0);
        assert_eq!(left.free_pages + left.cached_pages, left.pages);
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("regard:request_success_total{model_name=\"story\",finished_reason=\"abort\"} 2"), "{metrics}");
}

#[test]
fn a_reader_that_falls_behind_stands_still_and_others_go_on() {
    let server = Running::story();
    let mut ask: Value = serde_json::from_str(&long(true)).unwrap();
    ask["n"] = json!(16);
    ask["logprobs"] = json!(20);
    let slow = server.begin("/v1/completions", &ask.to_string());
    server.until(|stats| stats.tokens > 100);
    let good = json!({ "prompt": "The fox said", "max_tokens": 8, "temperature": 0 });
    assert_eq!(server.post("/v1/completions", &good).status, 200);
    let events = read(slow).events();
    assert_eq!(events.iter().filter(|event| event["choices"][0]["finish_reason"] == "length").count(), 16);
}

#[test]
fn too_many_at_once_are_turned_away_and_may_come_again() {
    let limits = Limits { requests: 1, ..Limits::default() };
    let server = with(Settings { limits, ..quiet() });
    let first = server.begin("/v1/completions", &long(false));
    server.until(|stats| stats.running == 1);
    let answer = server.post("/v1/completions", &json!({ "prompt": "x" }));
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("retry-after: 1"));
    assert_eq!(server.get("/metrics").status, 200);
    drop(first);
    server.until(|stats| stats.running == 0);
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": "x" })).status, 200);
}

#[test]
fn a_full_queue_is_said_with_503() {
    let engine = Config { max_sequences: 1, max_waiting: 1, ..Config::default() };
    let server = with(Settings { engine, ..quiet() });
    let _first = server.begin("/v1/completions", &long(true));
    server.until(|stats| stats.running == 1);
    let _second = server.begin("/v1/completions", &long(true));
    server.until(|stats| stats.waiting == 1);
    let answer = server.post("/v1/completions", &json!({ "prompt": "x" }));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.head.contains("retry-after: 1"));
}

#[test]
fn a_slow_head_or_body_is_cut_off() {
    let server = with(Settings { read_timeout: Duration::from_millis(200), ..quiet() });
    let began = Instant::now();
    let mut head_only = server.send("GET /health HTTP/1.1\r\nHost: loc");
    let mut rest = Vec::new();
    head_only.read_to_end(&mut rest).unwrap();
    let more = "Content-Type: application/json\r\nContent-Length: 100\r\n";
    let mut slow = server.send(&head("POST", "/tokenize", more));
    slow.write_all(b"{").unwrap();
    assert_eq!(read(slow).status, 408);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_request_beyond_its_time_ends() {
    let server = with(Settings { request_timeout: Duration::from_millis(20), ..quiet() });
    let answer = read(server.begin("/v1/completions", &long(false)));
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (504, Some("timeout")), "{}", answer.body);
}

#[test]
fn asked_to_stop_it_finishes_what_it_has() {
    let server = Running::story();
    let last = server.begin("/v1/completions", &long(true));
    last.peek(&mut [0]).unwrap();
    server.stop.stop();
    let answer = read(last);
    assert!(answer.body.contains("\"finish_reason\":\"length\"") && answer.body.ends_with("data: [DONE]\n\n"));
    let addr = server.addr;
    server.end().unwrap();
    assert!(std::net::TcpStream::connect(addr).is_err(), "it listens no more");
}

#[test]
fn what_does_not_finish_in_the_grace_is_told_so() {
    let server = with(Settings { grace: Duration::ZERO, room: Room { tokens: 16 * 512, ..Room::default() }, ..quiet() });
    let waiting = server.begin("/v1/completions", &long(false));
    server.until(|stats| stats.running == 1);
    let stats = server.stats.clone();
    server.end().unwrap();
    let answer = read(waiting);
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("shutting_down")), "{}", answer.body);
    assert_eq!(stats().running, 0);
}

#[test]
fn metrics_count_what_was_done() {
    let server = Running::story();
    let ask = json!({ "prompt": PROMPT.repeat(5), "max_tokens": 10, "temperature": 0, "ignore_eos": true });
    for _ in 0..2 {
        server.post("/v1/completions", &ask);
    }
    let tokens = story().tokenizer().encode(&PROMPT.repeat(5)).unwrap().len();
    let text = server.get("/metrics").body;
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("regard:{name}{{")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!(value("prompt_tokens_total"), 2.0 * tokens as f64);
    assert_eq!(value("generation_tokens_total"), 20.0);
    assert_eq!(value("prefix_cache_hits_total"), ((tokens - 1) / 16 * 16) as f64);
    assert_eq!(value("time_to_first_token_seconds_count"), 2.0);
    assert_eq!(value("inter_token_latency_seconds_count"), 18.0);
    assert_eq!((value("num_requests_running"), value("kv_cache_usage_perc")), (0.0, 0.0));
    assert!(text.contains("regard:request_success_total{model_name=\"story\",finished_reason=\"length\"} 2"));
    assert!(text.contains("regard:e2e_request_latency_seconds_bucket{model_name=\"story\",le=\"+Inf\"} 2"));
}

#[test]
fn settings_that_cannot_be_are_named() {
    let refused = |settings: Settings| match regard_serve::Server::bind(Served::text("story", story()), settings) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        refused(Settings { host: "203.0.113.1".to_owned(), ..quiet() }).split(": ").next(),
        Some("cannot listen on 203.0.113.1:0")
    );
    let limits = Limits { requests: 0, ..Limits::default() };
    assert_eq!(refused(Settings { limits, ..quiet() }), "limits.requests is 0 and must be at least 1");
    let engine = Config { token_budget: 0, ..Config::default() };
    assert_eq!(refused(Settings { engine, ..quiet() }), "token_budget is 0 and must be at least 1");
    assert!(refused(Settings { api_key: Some(String::new()), ..quiet() }).contains("API key"));
}

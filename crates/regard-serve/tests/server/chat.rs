//! Chats through a template, and tokens to text and back.

use std::collections::BTreeMap;

use regard_nn::ChatTemplate;
use regard_serve::Served;
use serde_json::{Value, json};

use crate::{Running, quiet, story};

const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Once upon a time{% endif %}";

fn server() -> Running {
    let template = ChatTemplate::new(TEMPLATE, BTreeMap::new()).unwrap();
    Running::new(Served::text("story", story()).with_template(template), quiet())
}

/// What the template makes of the conversation below.
const RENDERED: &str = "system: Tell.\nuser: Who?\nOnce upon a time";

fn ask() -> Value {
    let parts = json!([{ "type": "text", "text": "Wh" }, { "type": "text", "text": "o?" }]);
    let messages = json!([{ "role": "system", "content": "Tell." }, { "role": "user", "content": parts }]);
    json!({ "model": "story", "messages": messages, "max_completion_tokens": 16, "temperature": 0 })
}

#[test]
fn an_answer_continues_what_the_template_writes() {
    let server = server();
    let whole = server.post("/v1/chat/completions", &ask()).json();
    let tokens = story().tokenizer().encode_rendered(RENDERED).unwrap();
    let plain = json!({ "prompt": tokens, "max_tokens": 16, "temperature": 0 });
    let plain = server.post("/v1/completions", &plain).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"], json!({ "role": "assistant", "content": plain["choices"][0]["text"], "refusal": null }));
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(whole["usage"]["prompt_tokens"], tokens.len());

    let mut ask = ask();
    ask["stream"] = json!(true);
    ask["n"] = json!(2);
    ask["stream_options"] = json!({ "include_usage": true });
    let mut events = server.post("/v1/chat/completions", &ask).events();
    assert_eq!(events.pop().unwrap()["usage"]["completion_tokens"], 32);
    let mut texts = [String::new(), String::new()];
    for event in &events {
        let choice = &event["choices"][0];
        texts[choice["index"].as_u64().unwrap() as usize] += choice["delta"]["content"].as_str().unwrap_or_default();
    }
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(texts[0], plain["choices"][0]["text"].as_str().unwrap());
    assert_eq!(texts[0], texts[1], "greedy choices are the same");
    assert_eq!(events.iter().filter(|event| event["choices"][0]["finish_reason"] == "length").count(), 2);
}

#[test]
fn log_probabilities_are_records_whole_and_in_pieces() {
    let server = server();
    let mut ask = ask();
    ask["logprobs"] = json!(true);
    ask["top_logprobs"] = json!(3);
    let whole = server.post("/v1/chat/completions", &ask).json();
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(content.len(), 16);
    let joined: String = content.iter().map(|record| record["token"].as_str().unwrap()).collect();
    assert_eq!(joined, whole["choices"][0]["message"]["content"].as_str().unwrap());
    for record in &content {
        assert_eq!(record["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(record["top_logprobs"][0]["logprob"], record["logprob"], "the greedy token is the likeliest");
        let bytes: Vec<u8> = record["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
        assert_eq!(bytes, record["token"].as_str().unwrap().as_bytes());
    }
    ask["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &ask).events();
    let records = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array()).flatten();
    assert_eq!(records.cloned().collect::<Vec<_>>(), content);
}

#[test]
fn tokens_come_of_texts_and_of_conversations_and_go_back() {
    let server = server();
    let tokens = story().tokenizer().encode(RENDERED).unwrap();
    let told = server.post("/tokenize", &json!({ "prompt": RENDERED })).json();
    assert_eq!((&told["tokens"], &told["count"]), (&json!(tokens), &json!(tokens.len())));
    let told = server.post("/tokenize", &json!({ "messages": ask()["messages"] })).json();
    assert_eq!(told["tokens"], json!(story().tokenizer().encode_rendered(RENDERED).unwrap()));
    let text = server.post("/detokenize", &json!({ "tokens": tokens })).json();
    assert_eq!(text["prompt"], RENDERED);
}

#[test]
fn what_a_chat_cannot_have_is_refused_by_name() {
    let server = server();
    let image = json!([{ "type": "image_url", "image_url": { "url": "http://localhost/" } }]);
    let cases = [
        ("tools", json!([{ "type": "function" }]), "tools"),
        ("response_format", json!({ "type": "json_object" }), "response_format"),
        ("messages", json!([]), "messages"),
        ("messages", json!([{ "role": "user", "content": image }]), "messages[0].content[0].type"),
        ("messages", json!([{ "role": "king", "content": "" }]), "messages[0].role"),
        ("messages", json!([{ "role": "user", "content": "x", "name": "y" }]), "messages[0].name"),
        ("messages", json!([{ "role": "user", "content": "x ".repeat(2000) }]), "messages"),
        ("top_logprobs", json!(2), "top_logprobs"),
        ("max_tokens", json!(17), "max_tokens"),
        ("best_of", json!(-1), "best_of"),
    ];
    for (field, value, param) in cases {
        let mut ask = ask();
        ask[field] = value;
        let answer = server.post("/v1/chat/completions", &ask);
        assert_eq!((answer.status, answer.error().1.as_str()), (400, param), "{field}: {}", answer.body);
    }
    let plain = Running::story();
    let (message, param) = plain.post("/v1/chat/completions", &ask()).error();
    assert_eq!((message.as_str(), param.as_str()), ("the model has no chat template: ask /v1/completions", "messages"));
}

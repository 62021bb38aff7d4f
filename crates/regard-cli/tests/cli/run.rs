//! `regard run`: stories, their JSON, their end.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{regard, stderr};

fn run(arguments: &[&str]) -> Output {
    regard().arg("run").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&run(&[arguments, &["--json"]].concat()))).unwrap()
}

/// Runs with this on standard input.
fn piped(input: &[u8], arguments: &[&str]) -> Output {
    let mut child =
        regard().arg("run").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_story_begins_with_its_prompt_and_is_a_function_of_its_seed() {
    let story = |seed: &str| text(&run(&["Once upon a time", "--max-tokens", "30", "--seed", seed]));
    assert!(story("1").starts_with("Once upon a time") && story("1").ends_with('\n'));
    assert_eq!(story("1"), story("1"));
    assert_ne!(story("1"), story("2"));
}

#[test]
fn greedy_text_is_the_same_with_the_cache_and_without_it() {
    let greedy = ["The king said", "--temperature", "0", "--max-tokens", "80"];
    assert_eq!(json(&greedy)["text"], json(&[&greedy[..], &["--no-cache"]].concat())["text"]);
}

#[test]
fn json_tells_text_and_numbers() {
    let object = json(&["There was once", "--max-tokens", "12", "--seed", "3"]);
    assert_eq!((&object["tokens"], &object["finish_reason"]), (&12.into(), &"length".into()));
    assert!(!object["text"].as_str().unwrap().is_empty());
    assert!(object["prompt_tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(object["generation_tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(object["kv_bytes"].as_u64().unwrap() > 0);
    let kernels = ["amx", "avx512bf16", "avx512", "avx2", "scalar"];
    assert!(kernels.contains(&object["kernel"].as_str().unwrap()));
    let forced = regard().args(["run", "x", "--max-tokens", "2", "--json"]).env("REGARD_KERNEL", "scalar").output().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text(&forced)).unwrap()["kernel"], "scalar");
    let unknown = regard().args(["run", "x"]).env("REGARD_KERNEL", "abacus").output().unwrap();
    assert!(!unknown.status.success() && stderr(&unknown).contains("kernel \"abacus\" is not available here"));
}

#[test]
fn statistics_go_to_stderr() {
    let output = run(&["Once", "--max-tokens", "5", "--seed", "9", "--stats"]);
    let said = stderr(&output);
    for part in ["prompt ", "generation  5 tokens, ", "tokens/s", "seed        9", "KV cache ", "bytes", "kernel ", "thread"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert!(!text(&output).contains("tokens/s"));
}

#[test]
fn a_prompt_may_be_piped_in() {
    let arguments = ["--max-tokens", "10", "--seed", "4"];
    let argument = text(&run(&[&["The old witch"][..], &arguments].concat()));
    assert_eq!(text(&piped(b"The old witch\n", &arguments)), argument);
    let wrong = piped(b"caf\xE9", &arguments);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("standard input is not UTF-8: the byte at offset 3"), "{}", stderr(&wrong));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let greedy = ["Once upon a time", "--temperature", "0", "--max-tokens", "60"];
    let whole = json(&greedy)["text"].as_str().unwrap().to_owned();
    let word = whole.split_whitespace().nth(6).unwrap();
    let stopped = json(&[&greedy[..], &["--stop", word]].concat());
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"], whole.split(word).next().unwrap());
}

/// The built-in model as a directory of one's own.
fn story() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../regard-story/model");
    for entry in fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

#[test]
fn a_directory_tells_the_same_story_as_the_built_in_model() {
    let dir = story();
    let arguments = ["A fox met", "--max-tokens", "20", "--seed", "5"];
    let at = dir.path().to_str().unwrap();
    assert_eq!(text(&run(&[&arguments[..], &["--model", at]].concat())), text(&run(&arguments)));
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 3]).unwrap();
    let damaged = run(&["x", "--model", at]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stderr(&damaged).contains("model.safetensors: weights are not a whole safetensors file"), "{}", stderr(&damaged));
}

#[test]
fn requests_that_cannot_be_exit_with_1_and_say_why() {
    let refuse = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", stderr(&output));
        stderr(&output)
    };
    let long = refuse(&[&"a long, long way ".repeat(400)]);
    assert!(long.contains("tokens and the model's context is 512 tokens: shorten the prompt"), "{long}");
    assert!(refuse(&["x", "--model", "/nowhere"]).contains("cannot read /nowhere/config.json"));
    if cfg!(not(feature = "hub")) {
        let named = refuse(&["x", "--model", "tales/story"]);
        assert!(named.contains("there is no file or directory tales/story") && named.contains("--features hub"), "{named}");
    }
    assert!(refuse(&["x", "--temperature", "NaN"]).contains("temperature is NaN"));
    assert!(refuse(&["x", "--top-p", "1.5"]).contains("top_p is 1.5 and must be above 0 and at most 1"));
    assert!(refuse(&["x", "--min-p=-1"]).contains("min_p is -1"));
    assert!(refuse(&["x", "--repetition-penalty", "0"]).contains("repetition_penalty is 0"));
    assert!(refuse(&["x", "--stop", ""]).contains("a stop string is empty"));
}

#[test]
fn a_chat_is_what_its_template_writes() {
    let dir = story();
    let at = dir.path().to_str().unwrap();
    let template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}";
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let greedy = ["--model", at, "--temperature", "0", "--max-tokens", "12"];
    let plain = json(&[&["<|begin|>system: Be kind.\nuser: Who?\nA:"][..], &greedy].concat());
    let asked = [&["Who?", "--chat", "--system", "Be kind."][..], &greedy].concat();
    let chat = json(&asked);
    assert_eq!((&chat["text"], &chat["prompt_tokens"]), (&plain["text"], &plain["prompt_tokens"]));
    let answer = chat["text"].as_str().unwrap();
    assert_eq!(text(&run(&asked)).trim_end_matches('\n'), answer.trim_end_matches('\n'));
    fs::write(dir.path().join("chat_template.jinja"), "{{ raise_exception('no systems') }}").unwrap();
    let refused = run(&asked);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("chat_template.jinja: the chat template refuses these messages: no systems"), "{said}");
}

#[test]
fn a_model_without_a_template_cannot_chat() {
    let refused = run(&["Who?", "--chat"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the model has no chat template"), "{}", stderr(&refused));
    assert_eq!(run(&["Who?", "--system", "Be kind."]).status.code(), Some(2));
}

/// A fixture of regard-nn's tests.
fn fixture(name: &str) -> String {
    format!("{}/../regard-nn/tests/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_gguf_file_runs_and_chats() {
    let model = fixture("gguf/models/qwen2.gguf");
    let greedy = ["--model", &model, "--temperature", "0", "--max-tokens", "6"];
    let ask = |prompt: &str, more: &[&str]| json(&[&[prompt], &greedy[..], more].concat());
    let (chat, plain) = (ask("who is there", &["--chat"]), ask("user who is there</s>bot ", &[]));
    assert_eq!((&chat["text"], &chat["prompt_tokens"]), (&plain["text"], &plain["prompt_tokens"]));
    let cut = tempfile::NamedTempFile::new().unwrap();
    fs::write(cut.path(), &fs::read(&model).unwrap()[..9000]).unwrap();
    let damaged = run(&["x", "--model", cut.path().to_str().unwrap()]);
    assert_eq!(damaged.status.code(), Some(1));
    let said = stderr(&damaged);
    assert!(said.contains(cut.path().to_str().unwrap()) && said.contains("copy or download it again"), "{said}");
}

#[test]
fn weights_are_used_in_the_precision_that_is_asked_for() {
    let model = fixture("gguf/models/qwen2.gguf");
    let bytes =
        |more: &[&str]| json(&[&["the king", "--model", &model, "--max-tokens", "2"][..], more].concat())["kv_bytes"].as_u64();
    let (own, wide, narrow) = (bytes(&[]), bytes(&["--precision", "f32"]), bytes(&["--precision", "bf16"]));
    assert_eq!((own, wide), (narrow, narrow.map(|bytes| 2 * bytes)));
    assert_eq!(run(&["x", "--precision", "f16"]).status.code(), Some(2));
    assert_eq!(run(&["x", "--precision", "bf16"]).status.code(), Some(2), "the built-in model is in one type");
}

/// A T5 with the words w0 … w63.
#[test]
fn a_t5_replies_and_its_prompt_is_not_a_part_of_the_reply() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("families/t5/") + name, dir.path().join(name)).unwrap();
    }
    let words: serde_json::Map<String, Value> = (0..64).map(|i| (format!("w{i}"), i.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "w2" },
    });
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let asked = ["w40 w41 w42", "--model", dir.path().to_str().unwrap(), "--max-tokens", "5"];
    let reply = json(&asked);
    assert_eq!((&reply["prompt_tokens"], &reply["tokens"]), (&3.into(), &5.into()));
    assert_eq!(text(&run(&asked)).trim_end(), reply["text"].as_str().unwrap());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_the_text_so_far() {
    let mut child = regard().args(["run", "Once upon a time", "--max-tokens", "500"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 17];
    out.read_exact(&mut first).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(first.starts_with(b"Once upon a time") && rest.ends_with('\n'), "{rest}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_enough_is_no_error() {
    let command = format!("{} run 'Once upon a time' --max-tokens 300 | head -c 30", env!("CARGO_BIN_EXE_regard"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &command]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    assert_eq!(output.stdout.len(), 30);
}

//! `regard embed`: vectors of texts, from the command line and from standard input.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use super::{regard, stderr};

fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    regard_testing::tiny::bert(dir.path()).unwrap();
    dir
}

/// Runs with this on standard input.
fn embed(model: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = regard();
    command.arg("embed").arg("--model").arg(model).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // who has arguments does not read it
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn length(vector: &Value) -> f64 {
    vector.as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum::<f64>().sqrt()
}

#[test]
fn every_text_becomes_a_vector_from_arguments_as_from_lines() {
    let model = model();
    let given = lines(&embed(model.path(), &["w5 w6", "w7"], b"unread"));
    assert_eq!((given.len(), given[0].as_array().unwrap().len()), (2, 32));
    assert!((length(&given[0]) - 1.0).abs() < 1e-5);
    assert_eq!(lines(&embed(model.path(), &[], b"w5 w6\r\nw7\n")), given);
    let objects = lines(&embed(model.path(), &["--json", "w5 w6"], b""));
    assert_eq!(objects, [json!({ "text": "w5 w6", "tokens": 4, "embedding": given[0] })]);
}

#[test]
fn pooling_and_length_are_as_asked_for() {
    let model = model();
    let vector = |arguments: &[&str]| lines(&embed(model.path(), arguments, b"w5 w6")).remove(0);
    assert_eq!(vector(&[]), vector(&["--pooling", "mean"]));
    assert_ne!(vector(&[]), vector(&["--pooling", "cls"]));
    assert!((length(&vector(&["--no-normalize"])) - 1.0).abs() > 1e-3);
}

#[test]
fn what_cannot_be_embedded_is_said() {
    let model = model();
    let output = embed(model.path(), &[], b"w5\nw\xff\n");
    assert!(!output.status.success() && stderr(&output).contains("line 2 of standard input is not UTF-8"), "{}", stderr(&output));
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let output = embed(model.path(), &["w5"], b"");
    assert!(!output.status.success() && stderr(&output).contains("tokenizer.json"), "{}", stderr(&output));
}

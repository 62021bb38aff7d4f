//! `regard serve` as its user meets it: where it listens, how it ends, what it writes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::{regard, stderr};

fn start(arguments: &[&str]) -> (Child, String) {
    let mut command = regard();
    command.args(["serve", "--port", "0"]).args(arguments).env_remove("REGARD_API_KEY");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("serving at http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (child, addr)
}

fn ask(addr: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}X-Request-Id: tale-1\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[cfg(unix)]
#[test]
fn it_answers_logs_no_text_and_ends_in_order() {
    for signal in ["-TERM", "-INT"] {
        let (child, addr) = start(&["--name", "tales"]);
        let body = r#"{"model": "tales", "prompt": "Once upon a secret", "max_tokens": 3, "user": "ann"}"#;
        let answer = ask(&addr, "POST", "/v1/completions", body);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-request-id: tale-1"), "{answer}");
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let log = stderr(&output);
        let line: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
        assert_eq!((&line["request"], &line["user"], &line["status"]), (&"tale-1".into(), &"ann".into(), &200.into()));
        assert_eq!((&line["completion_tokens"], &line["whole"]), (&3.into(), &true.into()));
        assert!(!log.contains("secret"));
    }
}

#[test]
fn what_it_cannot_serve_is_said_at_once() {
    let run = |arguments: &[&str]| {
        let output = regard().arg("serve").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        stderr(&output)
    };
    assert!(run(&["--model", "nowhere"]).contains("nowhere"));
    assert!(run(&["--attention", "1", "--port", "0"]).contains("attention is 1 and must be 0, or at least 2 tokens"));
    assert!(run(&["--page-size", "0", "--port", "0"]).contains("page"), "{}", run(&["--page-size", "0", "--port", "0"]));
    let (mut child, addr) = start(&[]);
    let port = addr.rsplit_once(':').unwrap().1;
    let taken = run(&["--port", port]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(taken.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{taken}");
}

#[test]
fn attention_is_told_where_it_is_allowed() {
    for (arguments, status) in [(&["--no-log"][..], "403"), (&["--no-log", "--attention", "64"], "200")] {
        let (mut child, addr) = start(arguments);
        let body = r#"{"prompt": "Once upon a time", "max_tokens": 3, "attention": {}}"#;
        let answer = ask(&addr, "POST", "/v1/completions", body);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer:.300}");
        assert_eq!(answer.contains(r#""attention":{"format":"regard-lens/1""#), status == "200", "{answer:.300}");
    }
}

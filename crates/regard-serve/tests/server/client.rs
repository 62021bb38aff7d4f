//! HTTP/1.1 by hand: one request on one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Running;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The events of a stream, which must end as it should.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut events: Vec<&str> = self.body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{}", self.body);
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The message and the field of an error.
    pub(crate) fn error(&self) -> (String, String) {
        let error = &self.json()["error"];
        (error["message"].as_str().unwrap().to_owned(), error["param"].as_str().unwrap_or_default().to_owned())
    }
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream
}

/// Reads an answer to its end.
pub(crate) fn read(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        head += &std::mem::take(&mut line).to_lowercase();
    }
    let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {head:?}")).parse().unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    let body = if head.contains("transfer-encoding: chunked") { unchunk(&rest) } else { rest };
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[end + 2..][..size]);
        if size == 0 {
            return body;
        }
        rest = &rest[end + 2 + size + 2..];
    }
}

pub(crate) fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
}

impl Running {
    pub(crate) fn send(&self, text: &str) -> TcpStream {
        let mut stream = connect(self.addr);
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        read(self.send(&head("GET", path, "")))
    }

    /// Sends a body, and leaves the answer to be read.
    pub(crate) fn begin(&self, path: &str, body: &str) -> TcpStream {
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.send(&(head("POST", path, &more) + body))
    }

    pub(crate) fn post_text(&self, path: &str, body: &str) -> Answer {
        read(self.begin(path, body))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }
}

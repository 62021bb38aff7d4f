//! A peer: another program that runs the same cases, told what to do line by line in JSON.
//!
//! ```text
//!   → {"hello": {"threads": 2}}        ← {"name": "PyTorch 2.15"}
//!   → {"case": {…}}                    ← {"ready": true}         or {"error": "…"}
//!   → {"run": 3}                       ← {"seconds": 0.21}       of three calls
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::case::Case;

pub(super) struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    name: String,
}

impl Peer {
    /// Starts the command, whose words are separated by spaces.
    pub(super) fn start(command: &str, threads: usize) -> Result<Self, Box<dyn Error>> {
        let mut words = command.split_whitespace();
        let program = words.next().ok_or("the peer's command is empty")?;
        let spawned = Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("cannot start the peer {command:?}: {error}"))?;
        let (to, from) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let mut peer = Self { child, to, from: BufReader::new(from), name: String::new() };
        let hello = peer.ask(&json!({ "hello": { "threads": threads } }))?;
        peer.name = hello["name"].as_str().unwrap_or(command).to_owned();
        Ok(peer)
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// Makes the inputs of a case.
    pub(super) fn prepare(&mut self, case: &Case) -> Result<(), Box<dyn Error>> {
        self.ask(&json!({ "case": case })).map(drop)
    }

    /// The time of some calls of the case.
    pub(super) fn seconds(&mut self, calls: u32) -> Result<f64, Box<dyn Error>> {
        let answer = self.ask(&json!({ "run": calls }))?;
        answer["seconds"].as_f64().ok_or_else(|| format!("the peer answered {answer} and not its seconds").into())
    }

    fn ask(&mut self, question: &Value) -> Result<Value, Box<dyn Error>> {
        // Not passed on as it is: a broken pipe to the peer is an error, one of our own output is not.
        writeln!(self.to, "{question}").map_err(|error| format!("the peer does not listen: {error}"))?;
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(format!("the peer ended without an answer to {question}").into());
        }
        let answer: Value = serde_json::from_str(&line).map_err(|_| format!("the peer answered {line:?}, which is not JSON"))?;
        match answer["error"].as_str() {
            Some(error) => Err(format!("the peer: {error}").into()),
            None => Ok(answer),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

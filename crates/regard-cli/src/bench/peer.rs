//! A peer: another program that runs the same cases, told what to do line by line in JSON.
//!
//! ```text
//!   → {"hello": {"threads": 2}}        ← {"name": "PyTorch 2.15"}
//!   → {"case": {…}}                    ← {"ready": true, "note": "dense mask"}
//!   → {"run": 3}                       ← {"seconds": 0.21}       of three calls
//!   → {"memory": {}}                   ← {"bytes": 4096}         peak growth of one call, beyond inputs and outputs
//!   → {"outputs": {"case": {…}, "dir": "…"}}   ← {"outputs": ["fused"]}   from dir/inputs.f32 to dir/fused.f32
//! ```
//!
//! A note, where there is one, says how the case is expressed. A peer that cannot express it answers `{"unsupported": "why"}`, and the
//! run goes on without it; `{"error": "…"}` ends the run.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::case::Case;

/// An answer, or why the peer has none.
pub(super) type Supported<T> = Result<T, String>;

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

    /// Makes the inputs of a case; the peer's note, if any.
    pub(super) fn prepare(&mut self, case: &Case) -> Result<Supported<Option<String>>, Box<dyn Error>> {
        let answer = self.ask(&json!({ "case": case }))?;
        Ok(supported(&answer).map(|()| answer["note"].as_str().map(str::to_owned)))
    }

    /// The time of some calls of the case.
    pub(super) fn seconds(&mut self, calls: u32) -> Result<f64, Box<dyn Error>> {
        let answer = self.ask(&json!({ "run": calls }))?;
        answer["seconds"].as_f64().ok_or_else(|| format!("the peer answered {answer} and not its seconds").into())
    }

    /// Bytes that one call of the case adds to resident memory at its peak, beyond its inputs and outputs.
    pub(super) fn memory(&mut self) -> Result<Supported<u64>, Box<dyn Error>> {
        let answer = self.ask(&json!({ "memory": {} }))?;
        match (supported(&answer), answer["bytes"].as_u64()) {
            (Err(reason), _) => Ok(Err(reason)),
            (Ok(()), Some(bytes)) => Ok(Ok(bytes)),
            (Ok(()), None) => Err(format!("the peer answered {answer} and not its bytes").into()),
        }
    }

    /// Has the peer compute a case, by each of its ways, from `inputs.f32` (queries, keys, values) in `dir`; their names, under which
    /// it leaves the outputs there.
    pub(super) fn outputs(&mut self, case: &Case, dir: &Path) -> Result<Supported<Vec<String>>, Box<dyn Error>> {
        let answer = self.ask(&json!({ "outputs": { "case": case, "dir": dir } }))?;
        let names =
            answer["outputs"].as_array().map(|all| all.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect());
        match (supported(&answer), names) {
            (Err(reason), _) => Ok(Err(reason)),
            (Ok(()), Some(names)) => Ok(Ok(names)),
            (Ok(()), None) => Err(format!("the peer answered {answer} and not its outputs").into()),
        }
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

fn supported(answer: &Value) -> Supported<()> {
    answer["unsupported"].as_str().map_or(Ok(()), |reason| Err(reason.to_owned()))
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

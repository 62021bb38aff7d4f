//! One line of JSON on standard error for each request, when it is over. No prompts, no texts, no keys.

use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
    pub(super) cached: usize,
}

impl Usage {
    pub(super) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": { "cached_tokens": self.cached },
        })
    }
}

/// What is known of a request; written when it goes.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) path: String,
    /// None when the client left before there was one.
    pub(super) status: Option<u16>,
    pub(super) usage: Usage,
    pub(super) user: Option<String>,
    /// What broke.
    pub(super) cause: Option<String>,
    /// Whether the whole answer was sent.
    pub(super) whole: bool,
    pub(super) began: Instant,
    pub(super) wanted: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.wanted {
            return;
        }
        let mut line = json!({
            "time": seconds(),
            "request": self.id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "whole": self.whole,
            "ms": self.began.elapsed().as_millis() as u64,
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.completion,
            "cached_tokens": self.usage.cached,
        });
        for (name, value) in [("user", &self.user), ("cause", &self.cause)] {
            if let Some(value) = value {
                line[name] = json!(value);
            }
        }
        write(&line);
    }
}

/// Writes a line; where there is no standard error, nobody wants it.
pub(super) fn write(line: &Value) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The time of day, as seconds since 1970.
pub(super) fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_millis() as f64 / 1e3)
}

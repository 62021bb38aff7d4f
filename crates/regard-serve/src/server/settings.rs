//! The settings of a server, and the bounds of what a request may ask.

use std::time::Duration;

use super::ServeError;
use crate::{Config, Room};

/// Where a server listens, whom it lets in and how much it does at once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name or number of the interface to listen on.
    pub host: String,
    /// The port; 0 for any that is free.
    pub port: u16,
    /// What clients must show on every route but `/health` and `/ready`; none lets everybody in.
    pub api_key: Option<String>,
    /// How requests share the model. The secret of its prefix cache is drawn by the server.
    pub engine: Config,
    /// The memory for keys and values.
    pub room: Room,
    /// Bounds of single requests.
    pub limits: Limits,
    /// How long a client may take to send the head of a request, and again to send its body.
    pub read_timeout: Duration,
    /// How long a request may take, from its submission on.
    pub request_timeout: Duration,
    /// How long requests may go on after the server was asked to stop.
    pub grace: Duration,
    /// Whether a line is written to standard error for each request.
    pub log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            api_key: None,
            engine: Config::default(),
            room: Room::default(),
            limits: Limits::default(),
            read_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(600),
            grace: Duration::from_secs(30),
            log: true,
        }
    }
}

/// The smallest bound of a head, which the HTTP library needs.
const HEAD: usize = 8 << 10;

impl Settings {
    pub(super) fn validate(&self) -> Result<(), ServeError> {
        let Limits { body, head, headers, connections, requests, prompts, prompt_tokens, max_tokens, n, best_of, .. } = self.limits;
        let at_least_one = [
            ("limits.body", body),
            ("limits.headers", headers),
            ("limits.connections", connections),
            ("limits.requests", requests),
            ("limits.prompts", prompts),
            ("limits.prompt_tokens", prompt_tokens),
            ("limits.max_tokens", max_tokens),
            ("limits.n", n),
            ("limits.best_of", best_of),
        ];
        let wrong = |what, given: String, needed| Err(ServeError::Setting { what, given, needed });
        if let Some((what, given)) = at_least_one.into_iter().find(|(_, given)| *given == 0) {
            return wrong(what, given.to_string(), "at least 1");
        }
        if self.limits.attention == 1 {
            return wrong("limits.attention", "1".to_owned(), "0, or at least 2 tokens");
        }
        if head < HEAD {
            return wrong("limits.head", head.to_string(), "at least 8192 bytes");
        }
        for (what, given) in [("limits.connections", connections), ("limits.requests", requests)] {
            if given > MOST_AT_ONCE {
                return wrong(what, given.to_string(), "at most 1000000");
            }
        }
        if self.api_key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return wrong("the API key", "empty or has characters that no header can hold".to_owned(), "visible ASCII characters");
        }
        Ok(())
    }
}

/// More connections than any machine has ports for.
const MOST_AT_ONCE: usize = 1_000_000;

/// The most that one request may ask for, and that many may ask for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Open connections; more wait.
    pub connections: usize,
    /// Requests that are answered at once; more are turned away.
    pub requests: usize,
    /// Prompts, or texts to embed, of one request.
    pub prompts: usize,
    /// Tokens of a prompt; the model's context is a bound too.
    pub prompt_tokens: usize,
    /// Tokens to generate for a choice; the model's context is a bound too.
    pub max_tokens: usize,
    /// Choices to return.
    pub n: usize,
    /// Choices to draw, or beams.
    pub best_of: usize,
    /// Stop strings.
    pub stop: usize,
    /// Likely tokens beside the chosen one.
    pub logprobs: usize,
    /// Tokens of a text whose attention is told, of its first ones; 0 refuses to tell any.
    pub attention: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            head: 32 << 10,
            headers: 64,
            connections: 1024,
            requests: 256,
            prompts: 64,
            prompt_tokens: usize::MAX,
            max_tokens: usize::MAX,
            n: 16,
            best_of: 16,
            stop: 16,
            logprobs: 20,
            attention: 0,
        }
    }
}

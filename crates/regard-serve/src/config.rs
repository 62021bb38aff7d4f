//! The settings of an engine.

use crate::{Error, Keep, Result, Runner};

/// How an engine shares a model among requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tokens that one step reads at most, decoding and prefill together.
    pub token_budget: usize,
    /// Sequences that run at once at most; a request has as many as it is to return, or chooses from.
    pub max_sequences: usize,
    /// Requests that may wait; more are refused.
    pub max_waiting: usize,
    /// How a request gives up its pages for one that goes before it. Both give the same tokens.
    pub preemption: Preemption,
    /// Whether whole pages stay for requests that begin alike.
    pub prefix_cache: bool,
    /// How many requests that came before it a request overtakes for each level of priority. What is finite starves nobody.
    pub head_start: u32,
    /// Pages, of a hundred, that stay free for running requests when another is let in.
    pub reserve: usize,
    /// What the hashes of the prefix cache are keyed by. Draw it at random, and tell nobody.
    pub secret: [u8; 16],
}

/// How a request gives up its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// They are computed again.
    Recompute,
    /// They are written to the swap space and read back; computed again when that fails or is full.
    Swap,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token_budget: 512,
            max_sequences: 64,
            max_waiting: 1024,
            preemption: Preemption::Recompute,
            prefix_cache: true,
            head_start: 64,
            reserve: 1,
            secret: [0; 16],
        }
    }
}

impl Config {
    /// Checks the settings, and the runner's groups.
    pub(crate) fn validate(&self, runner: &impl Runner) -> Result<()> {
        let at_least_one = |what, given: usize| if given == 0 { Err(Error::Zero { what }) } else { Ok(()) };
        at_least_one("token_budget", self.token_budget)?;
        at_least_one("max_sequences", self.max_sequences)?;
        at_least_one("max_waiting", self.max_waiting)?;
        at_least_one("groups of the runner", runner.groups().len())?;
        at_least_one("vocab_size of the runner", runner.vocab_size())?;
        if self.reserve > 99 {
            return Err(Error::Reserve { given: self.reserve });
        }
        for group in runner.groups() {
            at_least_one("page_size of a group", group.page_size)?;
            at_least_one("pages of a group", group.pages as usize)?;
            if let Keep::Window(window) = group.keep {
                at_least_one("window of a group", window)?;
            }
        }
        Ok(())
    }
}

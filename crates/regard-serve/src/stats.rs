//! What an engine holds and what it did, in numbers.

/// Counts of an engine, from [`Engine::stats`](crate::Engine::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests whose keys and values are in pages.
    pub running: usize,
    /// Requests that have none.
    pub waiting: usize,
    /// Requests that have them in the swap space.
    pub swapped: usize,
    /// Pages of all groups.
    pub pages: usize,
    /// Pages that hold nothing.
    pub free_pages: usize,
    /// Pages that only the prefix cache holds.
    pub cached_pages: usize,
    /// Steps that read tokens.
    pub steps: u64,
    /// Tokens that were read.
    pub tokens: u64,
    /// Tokens that the prefix cache held, of requests when they were taken up.
    pub cached_tokens: u64,
    /// How often a request gave up its pages.
    pub preemptions: u64,
    /// Cached pages given up for others.
    pub evictions: u64,
}

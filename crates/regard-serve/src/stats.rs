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
    /// Pages in the block tables of all sequences, a shared page once for each: what would be held if none were shared.
    pub table_pages: usize,
    /// Tokens whose keys and values lie in pages, those of a shared page once for each sequence.
    pub held_tokens: usize,
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

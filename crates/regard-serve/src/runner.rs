//! What the engine drives: a model whose keys and values lie in pages that the engine hands out.

use crate::Table;

/// What can go wrong in a runner. The engine passes the text on and takes no part in it.
pub type RunnerError = Box<dyn std::error::Error + Send + Sync>;

/// A model, its pages and its swap space.
///
/// Pages are numbers below [`Group::pages`], slots of the swap space below [`Group::swap_pages`]. The runner keeps no books of them:
/// who holds which page, and which is written when, is the engine's.
pub trait Runner: Detokenizer {
    /// The groups of layers that have block tables of their own.
    fn groups(&self) -> &[Group];

    /// Logits in a row.
    fn vocab_size(&self) -> usize;

    /// The most tokens that a prompt and its continuation may have together.
    fn context(&self) -> usize;

    /// Reads the new tokens of each sequence of a batch into its pages, and returns logits `[rows, vocab_size]`: for each sequence in
    /// turn those after its last [`Work::logits`] tokens. A row's bits are a function of its sequence's tokens alone.
    ///
    /// # Errors
    /// When the batch could not be computed; its requests then fail.
    fn run(&mut self, batch: &[Work<'_>]) -> Result<Vec<f32>, RunnerError>;

    /// Copies a page of a group onto another.
    ///
    /// # Errors
    /// When it could not; the request that needs the copy fails.
    fn copy_page(&mut self, group: usize, from: u32, to: u32) -> Result<(), RunnerError>;

    /// Writes a page to a slot of the swap space.
    ///
    /// # Errors
    /// When it could not; the engine computes the page again later.
    fn swap_out(&mut self, group: usize, page: u32, slot: u32) -> Result<(), RunnerError>;

    /// Reads a slot of the swap space back into a page.
    ///
    /// # Errors
    /// When it could not; the engine computes the page again.
    fn swap_in(&mut self, group: usize, slot: u32, page: u32) -> Result<(), RunnerError>;
}

/// Tokens to text, one after another, never a part of a character.
pub trait Detokenizer {
    /// Where a text is.
    type Text: Clone;

    /// The end of a prompt.
    fn text(&self, prompt: &[u32]) -> Self::Text;

    /// The text that one more token completes; empty while a character is incomplete.
    ///
    /// # Errors
    /// When the tokenizer refuses; the request then fails.
    fn push(&self, text: &mut Self::Text, token: u32) -> Result<String, RunnerError>;

    /// What remains at the end: an incomplete character, as replacement characters.
    ///
    /// # Errors
    /// When the tokenizer refuses; the request then fails.
    fn finish(&self, text: &mut Self::Text) -> Result<String, RunnerError>;
}

/// The new tokens of one sequence in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The tokens to read.
    pub tokens: &'a [u32],
    /// The position of the first of them; those before it are in the pages.
    pub first: usize,
    /// After how many of the last tokens logits are wanted.
    pub logits: usize,
    /// The block table of each group, with pages for all tokens that the new ones see, and for themselves.
    pub tables: &'a [Table],
    /// The tokens that an encoder reads; none for a decoder-only model.
    pub source: &'a [u32],
    /// Whether the source is to be encoded into its pages before the tokens are read.
    pub encode: bool,
}

/// Layers that share block tables: what a page holds of them is the runner's, how many there are and when they go is said here.
///
/// Latent attention is a group whose pages are smaller. A recurrent state is one page for each sequence, written in every step; it would
/// enter as a fourth [`Keep`], whose page is copied where a prefix is to be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Pages in the pool.
    pub pages: u32,
    /// Tokens in a page.
    pub page_size: usize,
    /// Slots for pages in the swap space.
    pub swap_pages: u32,
    /// What the layers see, and so which pages stay.
    pub keep: Keep,
}

/// What the layers of a group see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All tokens of the text.
    All,
    /// The last tokens of the text, as many as are given, the query's own among them. Pages behind it are freed.
    Window(usize),
    /// The source that an encoder has read: cross-attention.
    Source,
}

impl Group {
    /// Pages that `tokens` tokens fill, the last perhaps in part.
    pub(crate) fn pages_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_size)
    }

    /// The first page that a query at `position` sees.
    pub(crate) fn first_page(&self, position: usize) -> usize {
        match self.keep {
            Keep::Window(window) => (position + 1).saturating_sub(window) / self.page_size,
            Keep::All | Keep::Source => 0,
        }
    }
}

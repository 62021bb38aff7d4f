//! The runner of a real model: a decoder's batched step, its pages and its tokenizer.

use regard_nn::{Decoder, DecoderPages, Model, Reading, TextStream};

use crate::{Detokenizer, Group, Keep, Runner, RunnerError, Table, Work};

/// How much memory a model's keys and values may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tokens in a page.
    pub page_size: usize,
    /// Tokens that the pool of each group has pages for.
    pub tokens: usize,
    /// Tokens that the swap space of each group has slots for.
    pub swap_tokens: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { page_size: 16, tokens: 16 * 1024, swap_tokens: 16 * 1024 }
    }
}

/// A decoder-only model as a [`Runner`]. Layers with windows of their own are groups of their own.
#[derive(Debug)]
pub struct ModelRunner<'m> {
    model: &'m Model,
    decoder: &'m Decoder,
    pages: DecoderPages,
    groups: Vec<Group>,
}

impl<'m> ModelRunner<'m> {
    /// A model with pools of free pages.
    ///
    /// # Errors
    /// When the model is not a decoder alone, a page has no tokens, or there is no memory for the pools.
    pub fn new(model: &'m Model, room: Room) -> Result<Self, RunnerError> {
        let pages_of = |tokens: usize| u32::try_from(tokens / room.page_size.max(1));
        let (pages, swap_pages) = (pages_of(room.tokens)?, pages_of(room.swap_tokens)?);
        let decoder = model.decoder().ok_or("this model has an encoder, and only decoders can be served")?;
        let windows = decoder.windows();
        let group = |window: &Option<usize>| Group {
            pages,
            page_size: room.page_size,
            swap_pages,
            keep: window.map_or(Keep::All, Keep::Window),
        };
        let groups: Vec<Group> = windows.iter().map(group).collect();
        let pages = decoder.pages(&vec![pages as usize; groups.len()], room.page_size)?;
        Ok(Self { model, decoder, pages, groups })
    }

    /// Bytes of all pools.
    pub fn bytes(&self) -> usize {
        self.pages.bytes()
    }
}

/// The pages in order of position; those that have gone are read by nobody, and may be any.
fn pages_of(table: &Table) -> Vec<u32> {
    table.pages().iter().map(|page| page.unwrap_or(0)).collect()
}

impl Runner for ModelRunner<'_> {
    fn groups(&self) -> &[Group] {
        &self.groups
    }

    fn vocab_size(&self) -> usize {
        self.decoder.config().vocab_size
    }

    fn context(&self) -> usize {
        self.model.context()
    }

    fn run(&mut self, batch: &[Work<'_>]) -> Result<Vec<f32>, RunnerError> {
        let tables: Vec<Vec<Vec<u32>>> = batch.iter().map(|work| work.tables.iter().map(pages_of).collect()).collect();
        let mut reading = Vec::with_capacity(batch.len());
        for (work, tables) in batch.iter().zip(&tables) {
            reading.push(Reading { tokens: work.tokens, first: work.first, logits: work.logits, tables });
        }
        Ok(self.decoder.read_batch(&reading, &mut self.pages)?)
    }

    fn copy_page(&mut self, group: usize, from: u32, to: u32) -> Result<(), RunnerError> {
        Ok(self.pages.copy(group, from, to)?)
    }

    fn swap_out(&mut self, group: usize, page: u32, slot: u32) -> Result<(), RunnerError> {
        Ok(self.pages.swap_out(group, page, slot)?)
    }

    fn swap_in(&mut self, group: usize, slot: u32, page: u32) -> Result<(), RunnerError> {
        Ok(self.pages.swap_in(group, slot, page)?)
    }
}

impl<'m> Detokenizer for ModelRunner<'m> {
    type Text = TextStream<'m>;

    fn text(&self, prompt: &[u32]) -> TextStream<'m> {
        self.model.tokenizer().stream(prompt)
    }

    fn push(&self, text: &mut TextStream<'m>, token: u32) -> Result<String, RunnerError> {
        Ok(text.push(token)?)
    }

    fn finish(&self, text: &mut TextStream<'m>) -> Result<String, RunnerError> {
        Ok(text.clone().finish()?)
    }
}

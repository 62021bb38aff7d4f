//! Text to tokens and back, by a Hugging Face `tokenizer.json`.

use std::path::Path;

use tokenizers::{PostProcessor, TruncationParams};

use crate::config::impossible;
use crate::weights::read_file;
use crate::{Error, Result, merges};

/// A tokenizer in the format of Hugging Face.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads the contents of a `tokenizer.json`. Truncation and padding that it asks for are turned off: they are for batches.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        merges::check(json)?;
        // The library panics where it did not expect a file to be wrong, when it reads it or at the first text.
        let gave_up = |_| failed("the library gave up on a file that it takes for impossible");
        let inner = std::panic::catch_unwind(|| -> tokenizers::Result<_> {
            let mut inner = tokenizers::Tokenizer::from_bytes(json)?;
            inner.with_truncation(None)?.with_padding(None);
            drop(inner.encode_fast("a", true)); // whether a text can be encoded is told where one is
            Ok(inner)
        });
        Ok(Self { inner: inner.map_err(gave_up)?.map_err(failed)? })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When it cannot be read or is not one.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_bytes(&read_file(path)?).map_err(|e| e.within(path))
    }

    /// The tokens of a text, with the marks that the tokenizer puts around one.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    /// The tokens of a text that already holds the marks it needs, as a chat template writes them.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, marks: bool) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, marks).map_err(failed)?.get_ids().to_vec())
    }

    /// The same tokenizer, whose texts end after `most` tokens; the marks around them are among these and stay.
    ///
    /// # Errors
    /// When no token of a text would be left.
    pub(crate) fn cut_at(mut self, most: usize) -> Result<Self> {
        let marks = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        if most <= marks {
            let needed = format!("more than {marks}, the marks that the tokenizer puts around a text");
            return impossible("max_seq_length", most, needed);
        }
        let cut = TruncationParams { max_length: most, ..TruncationParams::default() };
        self.inner.with_truncation(Some(cut)).map_err(failed)?;
        Ok(self)
    }

    /// The text of tokens, without special marks.
    ///
    /// # Errors
    /// When the tokenizer refuses.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, true).map_err(failed)
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether an id is that of a special mark: an added token that the tokenizer declares `special`, such as those that begin or end a text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The number of tokens, special marks included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Checks that every token has a row in an embedding of `vocab_size` rows.
    ///
    /// # Errors
    /// [`Error::TokenizerMismatch`] with the token of the largest id.
    pub fn check_fits(&self, vocab_size: usize) -> Result<()> {
        let vocabulary = self.inner.get_vocab(true);
        match vocabulary.into_iter().max_by_key(|(_, id)| *id) {
            Some((token, id)) if id as usize >= vocab_size => Err(Error::TokenizerMismatch { token, id, vocab_size }),
            _ => Ok(()),
        }
    }

    /// A stream that turns the tokens after `prompt` into text.
    pub fn stream(&self, prompt: &[u32]) -> TextStream<'_> {
        let context = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
        TextStream { tokenizer: self, read: context.len(), tokens: context }
    }
}

/// Tokens before the first new one that may change how it reads: a leading space, a half character.
const CONTEXT: usize = 6;

/// Text token by token, never a part of a character.
///
/// A token alone does not tell its text: it may hold half of a UTF-8 character, and some tokenizers drop the space before the first
/// word. So the text of a token is what the text of all pending tokens adds to the text of those already told.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// How many of `tokens` are told.
    read: usize,
}

impl TextStream<'_> {
    /// The text that one more token completes; empty while a character is incomplete.
    ///
    /// # Errors
    /// When the tokenizer refuses.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let all = self.tokenizer.decode(&self.tokens)?;
        if all.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.tell(&all)
    }

    /// What remains at the end: an incomplete character, as replacement characters.
    ///
    /// # Errors
    /// When the tokenizer refuses.
    pub fn finish(mut self) -> Result<String> {
        let all = self.tokenizer.decode(&self.tokens)?;
        self.tell(&all)
    }

    fn tell(&mut self, all: &str) -> Result<String> {
        let told = self.tokenizer.decode(&self.tokens[..self.read])?;
        let shared = told.bytes().zip(all.bytes()).take_while(|(a, b)| a == b).count();
        let new = all.get(shared..).unwrap_or_default().to_owned();
        let keep = self.tokens.len().saturating_sub(CONTEXT);
        self.tokens.drain(..keep);
        self.read = self.tokens.len();
        Ok(new)
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer { message: error.to_string() }
}

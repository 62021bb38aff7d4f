//! What a generation continues: a text, or one that a chat template wrote.

use crate::{Result, Tokenizer};

/// A text to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// Plain text, which gets the marks that the tokenizer puts around one.
    Text(&'a str),
    /// What a [`ChatTemplate`](crate::ChatTemplate) wrote, which has its marks.
    Rendered(&'a str),
}

impl Prompt<'_> {
    pub(crate) fn tokens(self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        match self {
            Self::Text(text) => tokenizer.encode(text),
            Self::Rendered(text) => tokenizer.encode_rendered(text),
        }
    }
}

impl<'a> From<&'a str> for Prompt<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Prompt<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

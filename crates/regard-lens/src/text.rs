//! A text as a model reads it.

use regard_nn::{Decoder, Model};

use crate::{Error, Result};

/// A text with its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What the report calls it.
    pub name: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The tokens as one reads them.
    pub pieces: Vec<String>,
}

impl Text {
    /// A text in the tokens of a model, with the marks that its tokenizer puts around one.
    ///
    /// # Errors
    /// When the tokenizer refuses it, it has fewer than two tokens, or more than the model's context.
    pub fn new(model: &Model, name: &str, text: &str) -> Result<Self> {
        Self::of_tokens(model, name, model.tokenizer().encode(text)?)
    }

    /// A text that is in tokens already, such as a prompt and its continuation.
    ///
    /// # Errors
    /// When it has fewer than two tokens, or more than the model's context, or the tokenizer does not know one of them.
    pub fn of_tokens(model: &Model, name: &str, tokens: Vec<u32>) -> Result<Self> {
        let (tokenizer, context) = (model.tokenizer(), model.context());
        match tokens.len() {
            n if n < 2 => return Err(Error::Short { name: name.to_owned(), tokens: n }),
            n if n > context => return Err(Error::Long { name: name.to_owned(), tokens: n, context }),
            _ => (),
        }
        let mut stream = tokenizer.stream(&[]);
        let piece = |token: &u32| {
            let piece = stream.push(*token)?;
            // A mark, or a part of a character.
            Ok(if piece.is_empty() { tokenizer.token(*token).unwrap_or_default() } else { piece })
        };
        let pieces = tokens.iter().map(piece).collect::<Result<_>>()?;
        Ok(Text { name: name.to_owned(), tokens, pieces })
    }
}

/// The decoder of a model.
pub(crate) fn decoder(model: &Model) -> Result<&Decoder> {
    model.decoder().ok_or(Error::NoDecoder { given: "T5" })
}

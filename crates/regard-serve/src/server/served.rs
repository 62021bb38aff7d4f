//! What a server serves: a language model, or an encoder that embeds texts.

use std::path::Path;

use regard_nn::{ChatTemplate, Embedder, Model, Precision, Result};

/// A model, by the name that requests call it.
#[derive(Debug)]
pub struct Served {
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text(Box<Text>),
    Embedder(Box<Embedder>),
}

/// A language model.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) model: Model,
    pub(super) template: Option<ChatTemplate>,
}

impl Served {
    /// A language model without a chat template.
    pub fn text(name: impl Into<String>, model: Model) -> Self {
        Self { name: name.into(), kind: Kind::Text(Box::new(Text { model, template: None })) }
    }

    /// An encoder.
    pub fn embedder(name: impl Into<String>, embedder: Embedder) -> Self {
        Self { name: name.into(), kind: Kind::Embedder(Box::new(embedder)) }
    }

    /// What is at `path`: a Hugging Face directory of a decoder or of an encoder, or a GGUF file.
    ///
    /// # Errors
    /// As [`Model::open_in`], [`Model::chat_template`] and [`Embedder::open_in`].
    pub fn open(name: impl Into<String>, path: &Path, precision: Option<Precision>) -> Result<Self> {
        if Embedder::is_at(path) {
            return Ok(Self::embedder(name, Embedder::open_in(path, precision)?));
        }
        let model = Model::open_in(path, precision)?;
        let template = model.chat_template()?;
        Ok(Self { name: name.into(), kind: Kind::Text(Box::new(Text { model, template })) })
    }

    /// The same language model with this chat template instead of its own; an encoder has none.
    #[must_use]
    pub fn with_template(mut self, template: ChatTemplate) -> Self {
        if let Kind::Text(text) = &mut self.kind {
            text.template = Some(template);
        }
        self
    }
}

impl Text {
    /// The tokens of a text, or of what a chat template wrote, which has its marks.
    pub(super) fn tokens(&self, text: &str, marks: bool) -> Result<Vec<u32>> {
        let tokenizer = self.model.tokenizer();
        if marks { tokenizer.encode(text) } else { tokenizer.encode_rendered(text) }
    }
}

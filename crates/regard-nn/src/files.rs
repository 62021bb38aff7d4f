//! The files of a model: a Hugging Face directory, or one GGUF file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::weights::read_file;
use crate::{ChatTemplate, Gguf, Precision, Result, Tokenizer};

/// Where a model is read from. Every error names the file.
pub(crate) enum Files {
    Directory(PathBuf),
    Gguf(Gguf),
}

impl Files {
    /// A path that is no file is a directory, whether it is there or not.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(if path.is_file() { Self::Gguf(Gguf::open(path)?) } else { Self::Directory(path.to_owned()) })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Directory(dir) => dir,
            Self::Gguf(gguf) => gguf.path(),
        }
    }

    /// What `read` makes of `config.json`.
    pub(crate) fn config<C>(&self, read: impl FnOnce(&str) -> Result<C>) -> Result<C> {
        let (path, text) = match self {
            Self::Directory(dir) => {
                let path = dir.join("config.json");
                let text = String::from_utf8_lossy(&read_file(&path)?).into_owned();
                (path, text)
            }
            Self::Gguf(gguf) => (gguf.path().to_owned(), gguf.config_json()?.to_string()),
        };
        read(&text).map_err(|e| e.within(path))
    }

    /// `generation_config.json`, if there.
    pub(crate) fn generation_config(&self) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join("generation_config.json");
                path.exists().then(|| read_file(&path)).transpose()
            }
            Self::Gguf(gguf) => Ok(Some(Value::Object(gguf.generation_config()?).to_string().into_bytes())),
        }
    }

    /// The tokenizer of a model whose embedding has so many rows.
    pub(crate) fn tokenizer(&self, vocab_size: usize) -> Result<Tokenizer> {
        let tokenizer = match self {
            Self::Directory(dir) => Tokenizer::open(&dir.join("tokenizer.json"))?,
            Self::Gguf(gguf) => gguf.tokenizer()?,
        };
        tokenizer.check_fits(vocab_size).map_err(|e| e.within(self.path()))?;
        Ok(tokenizer)
    }

    pub(crate) fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        match self {
            Self::Directory(dir) => ChatTemplate::from_dir(dir),
            Self::Gguf(gguf) => gguf.chat_template(),
        }
    }

    /// What `load` makes of the weights, in `precision` or as they are; the files are let go then.
    pub(crate) fn weights<M>(self, precision: Option<Precision>, load: impl FnOnce(&Checkpoint<'_>) -> Result<M>) -> Result<M> {
        let path = self.path().to_owned();
        let checkpoint = match self {
            Self::Directory(dir) => Checkpoint::open(&dir)?,
            Self::Gguf(gguf) => Checkpoint::of(gguf),
        };
        load(&checkpoint.in_precision(precision)).map_err(|e| e.within(path))
    }
}

/// Whether a text may be the name of a model on the Hugging Face hub, `org/name`.
pub fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    text.split_once('/').is_some_and(|(org, name)| part(org) && part(name))
}

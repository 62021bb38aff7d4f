//! The files in which sentence-transformers says how texts become vectors.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Pooling;
use crate::config::{impossible, unsupported};
use crate::fields::Fields;
use crate::weights::read_file;
use crate::{Error, Result};

/// What the files of a directory say.
pub(super) struct Layout {
    /// Where the transformer and its tokenizer are.
    pub(super) root: PathBuf,
    pub(super) pooling: Pooling,
    pub(super) normalized: bool,
    /// Where longer texts are cut, marks included.
    pub(super) max_tokens: Option<usize>,
    pub(super) lowercase: bool,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    /// The class, such as `sentence_transformers.models.Pooling`.
    #[serde(rename = "type")]
    class: String,
    /// A folder of the directory, or the directory itself.
    path: String,
}

impl Layout {
    /// Reads `modules.json` and what it lists; normalised means where it is not there.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let (pooling, max_tokens, lowercase) = (Pooling::Mean, None, false);
        let mut layout = Self { root: dir.to_owned(), pooling, normalized: true, max_tokens, lowercase };
        let path = dir.join("modules.json");
        match json::<Vec<Module>>(&path)? {
            Some(modules) => layout.follow(dir, &modules).map_err(|e| e.within(path))?,
            None => layout.read_pooling(&dir.join("1_Pooling"))?,
        }
        layout.read_limits()?;
        Ok(layout)
    }

    fn follow(&mut self, dir: &Path, modules: &[Module]) -> Result<()> {
        self.normalized = false;
        for module in modules {
            let path = Path::new(&module.path);
            if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                return impossible("path", &module.path, "a folder in the model's directory");
            }
            match module.class.rsplit('.').next().unwrap_or_default() {
                "Transformer" => self.root = dir.join(path),
                "Pooling" => self.read_pooling(&dir.join(path))?,
                "Normalize" => self.normalized = true,
                _ => return Err(unsupported("type", &module.class, "Transformer, Pooling and Normalize")),
            }
        }
        Ok(())
    }

    fn read_pooling(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join("config.json");
        if let Some(fields) = json(&path)? {
            self.pooling = pooling(&Fields(fields)).map_err(|e| e.within(path))?;
        }
        Ok(())
    }

    fn read_limits(&mut self) -> Result<()> {
        let path = self.root.join("sentence_bert_config.json");
        if let Some(fields) = json(&path)?.map(Fields) {
            let limits = || Ok((fields.size(&["max_seq_length"])?, fields.flag("do_lower_case", false)?));
            (self.max_tokens, self.lowercase) = limits().map_err(|e: Error| e.within(path))?;
        }
        Ok(())
    }
}

/// `pooling_mode`, or the one `pooling_mode_…` that is true.
fn pooling(fields: &Fields) -> Result<Pooling> {
    let mut modes = Vec::from_iter(fields.text(&["pooling_mode"])?);
    for field in fields.0.keys().filter(|field| field.starts_with("pooling_mode_")) {
        if fields.flag(field, false)? {
            modes.push(field.clone());
        }
    }
    match modes.join(" with ").as_str() {
        "mean" | "pooling_mode_mean_tokens" => Ok(Pooling::Mean),
        "cls" | "pooling_mode_cls_token" => Ok(Pooling::Cls),
        given => Err(unsupported("pooling", given, "pooling_mode_mean_tokens or pooling_mode_cls_token")),
    }
}

/// A JSON file, if it is there.
fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| Error::Json { what: "the file".to_owned(), source }.within(path);
    serde_json::from_slice(&read_file(path)?).map(Some).map_err(failed)
}

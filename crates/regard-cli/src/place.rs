//! `--model`: a path, or a name on the Hugging Face hub; without it, the built-in story model.

use std::error::Error;
use std::path::{Path, PathBuf};

use regard_nn::Model;

use crate::precision::Precision;

/// The model that is given, or the built-in one.
pub(crate) fn model(given: Option<&Path>, precision: &Precision) -> Result<Model, Box<dyn Error>> {
    match given {
        Some(given) => Ok(Model::open_in(&path(given)?, precision.get())?),
        None => Ok(story()?),
    }
}

/// The built-in model.
pub(crate) fn story() -> regard_nn::Result<Model> {
    let [config, tokenizer, defaults] = [regard_story::CONFIG, regard_story::TOKENIZER, regard_story::GENERATION_CONFIG];
    Model::from_bytes(config.as_bytes(), regard_story::WEIGHTS, tokenizer.as_bytes(), Some(defaults.as_bytes()))
}

/// The path of a model: the one that is given, where there is something or it cannot be a name.
pub(crate) fn path(given: &Path) -> Result<PathBuf, Box<dyn Error>> {
    match given.to_str().filter(|id| !given.exists() && regard_nn::is_hub_id(id)) {
        Some(id) => fetched(id),
        None => Ok(given.to_owned()),
    }
}

#[cfg(feature = "hub")]
fn fetched(id: &str) -> Result<PathBuf, Box<dyn Error>> {
    Ok(regard_nn::Hub::from_env()?.fetch(id, &mut |name| eprintln!("downloading {id}: {name}"))?)
}

#[cfg(not(feature = "hub"))]
fn fetched(id: &str) -> Result<PathBuf, Box<dyn Error>> {
    let hub = "to download a model of this name from the Hugging Face hub, build regard with --features hub";
    Err(format!("there is no file or directory {id}: {hub}").into())
}

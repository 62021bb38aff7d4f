//! Models by name.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, Result, Shape};

/// A row of presets.json: a model's `config.json`, of which the sizes, and where it is from.
#[derive(Deserialize)]
struct Preset {
    name: String,
    source: String,
    config: Map<String, Value>,
}

fn table() -> Result<Vec<Preset>> {
    let json = |source| Error::Json { what: "presets.json".into(), source };
    serde_json::from_str(include_str!("presets.json")).map_err(json)
}

impl Shape {
    /// The shape of a well-known model: see [`Shape::presets`].
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn preset(name: &str) -> Result<Shape> {
        let unknown = || Error::UnknownPreset { given: name.to_owned() };
        let preset = table()?.into_iter().find(|preset| preset.name == name).ok_or_else(unknown)?;
        Ok(Shape { name: preset.name, ..Shape::from_object(&preset.config)? })
    }

    /// The names of all presets.
    pub fn presets() -> Vec<String> {
        table().unwrap_or_default().into_iter().map(|preset| preset.name).collect()
    }

    /// Where the sizes of a preset are published.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn source(name: &str) -> Result<String> {
        let unknown = || Error::UnknownPreset { given: name.to_owned() };
        table()?.into_iter().find(|preset| preset.name == name).map(|preset| preset.source).ok_or_else(unknown)
    }
}

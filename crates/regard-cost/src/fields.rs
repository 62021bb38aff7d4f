//! The fields of a `config.json`, by any of their names.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A JSON object of a model of some type; a field that is `null` is not there.
pub(crate) struct Fields<'a> {
    pub(crate) object: &'a Map<String, Value>,
    pub(crate) model_type: &'a str,
}

impl Fields<'_> {
    /// A field, if it is there.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let value = self.object.get(name).filter(|value| !value.is_null());
        let read = |value: &Value| serde_json::from_value(value.clone());
        value.map(read).transpose().map_err(|source| Error::Json { what: format!("the field {name:?}"), source })
    }

    /// Whether a field is there, perhaps null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// A size, if it is there: from 1 to 2³⁰ − 1.
    pub(crate) fn size(&self, names: &[&'static str]) -> Result<Option<u64>> {
        for name in names {
            match self.get::<u64>(name)? {
                Some(size) if !(1..1 << 30).contains(&size) => return impossible(name, size, "from 1 to 2^30 - 1"),
                Some(size) => return Ok(Some(size)),
                None => {}
            }
        }
        Ok(None)
    }

    /// A size that must be there.
    pub(crate) fn need(&self, names: &[&'static str]) -> Result<u64> {
        let missing = || Error::MissingField { field: names[0], model_type: self.model_type.to_owned() };
        self.size(names)?.ok_or_else(missing)
    }

    /// A number of things of which there may be none.
    pub(crate) fn few(&self, name: &'static str) -> Result<u64> {
        if self.get::<u64>(name)? == Some(0) { Ok(0) } else { Ok(self.size(&[name])?.unwrap_or(0)) }
    }

    /// A yes or no.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// Refuses a field that says anything but the one thing that is counted.
    pub(crate) fn only(&self, name: &'static str, usual: &Value, supported: &'static str) -> Result<()> {
        match self.get::<Value>(name)? {
            Some(value) if value != *usual => Err(Error::Unsupported { field: name, given: value.to_string(), supported }),
            _ => Ok(()),
        }
    }
}

pub(crate) fn impossible<T>(field: &'static str, given: impl ToString, needed: impl Into<String>) -> Result<T> {
    Err(Error::Impossible { field, given: given.to_string(), needed: needed.into() })
}

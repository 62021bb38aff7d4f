//! The fields of a `config.json`, by any of their names.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::{Ids, impossible};
use crate::{Error, Result};

/// A JSON object; a field that is `null` is not there.
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Fields {
    /// A field, if it is there.
    ///
    /// # Errors
    /// When it is of another kind.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        let read = |value: &Value| serde_json::from_value(value.clone());
        value.map(read).transpose().map_err(|source| Error::Json { what: format!("the field {name:?}"), source })
    }

    /// Whether a field is there, perhaps null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a field is there and true.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// The first of some names that is there.
    fn first<T: DeserializeOwned>(&self, names: &[&str]) -> Result<Option<T>> {
        names.iter().map(|name| self.get(name)).find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None))
    }

    /// A size, if it is there: from 1 to 2³⁰ − 1, so that no product of two overflows.
    pub(crate) fn size(&self, names: &[&'static str]) -> Result<Option<usize>> {
        match self.first::<u64>(names)? {
            Some(size) if !(1..1 << 30).contains(&size) => impossible(names[0], size, "from 1 to 2^30 - 1"),
            size => Ok(size.map(|size| size as usize)),
        }
    }

    /// A size that must be there.
    pub(crate) fn need(&self, names: &[&'static str]) -> Result<usize> {
        self.size(names)?.ok_or(Error::MissingField { field: names[0] })
    }

    /// A positive number, if it is there.
    pub(crate) fn positive(&self, names: &[&'static str]) -> Result<Option<f64>> {
        match self.first::<f64>(names)? {
            Some(x) if !(x.is_finite() && x > 0.0) => impossible(names[0], x, "a positive number"),
            x => Ok(x),
        }
    }

    /// A yes or no.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// One token, several, or none.
    pub(crate) fn tokens(&self, name: &str) -> Result<Vec<u32>> {
        Ok(self.get::<Ids>(name)?.unwrap_or_default().into_vec())
    }

    /// Text, by any of some names.
    pub(crate) fn text(&self, names: &[&str]) -> Result<Option<String>> {
        self.first(names)
    }
}

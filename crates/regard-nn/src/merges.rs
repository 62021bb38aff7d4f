//! Merges of byte pair encoding, checked: the tokenizer library indexes by them before it looks whether they are of tokens.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{Error, Result};

/// The part of a merge that is no token: the left side, the right side, or what both make, where the right side loses the `prefix` that
/// continues words. None where all are.
pub(crate) fn unknown(left: &str, right: &str, prefix: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    let Some(rest) = right.get(prefix.len()..) else { return Some(right.to_owned()) };
    [Cow::from(left), right.into(), format!("{left}{rest}").into()].into_iter().find(|part| !known(part)).map(Cow::into_owned)
}

/// What a `tokenizer.json` says of merges.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Option<Model<'a>>,
    /// Read as the library reads it, which panics where it is not JSON.
    #[serde(rename = "decoder")]
    _decoder: Option<Value>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    vocab: Option<Vocabulary<'a>>,
    #[serde(borrow)]
    merges: Option<Vec<Merge<'a>>>,
    continuing_subword_prefix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocabulary<'a> {
    Ids(#[serde(borrow)] HashMap<Cow<'a, str>, IgnoredAny>),
    /// Another model's.
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'a> {
    Pair(Cow<'a, str>, Cow<'a, str>),
    /// Both sides with a space between.
    Line(Cow<'a, str>),
    Other(IgnoredAny),
}

/// Refuses a `tokenizer.json` with a merge that is not of tokens. What else may be wrong with it is left to the
/// library, but for fields that are there twice, of which it takes the last.
pub(crate) fn check(json: &[u8]) -> Result<()> {
    let failed = |source| Error::Json { what: "the tokenizer".to_owned(), source };
    let text =
        std::str::from_utf8(json).map_err(|wrong| Error::Tokenizer { message: format!("the file is not UTF-8: {wrong}") })?;
    let File { model: Some(model), .. } = serde_json::from_str(text).map_err(failed)? else { return Ok(()) };
    let Model { vocab: Some(Vocabulary::Ids(ids)), merges: Some(merges), continuing_subword_prefix } = model else { return Ok(()) };
    let prefix = continuing_subword_prefix.unwrap_or_default();
    for (index, merge) in merges.iter().enumerate() {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (&**left, &**right),
            Merge::Line(line) if line.starts_with("#version") => continue,
            Merge::Line(line) => line.split_once(' ').unwrap_or((line, "")),
            Merge::Other(_) => continue,
        };
        if let Some(part) = unknown(left, right, &prefix, |part| ids.contains_key(part)) {
            return Err(Error::Merge { index, merge: format!("{left} {right}"), part });
        }
    }
    Ok(())
}

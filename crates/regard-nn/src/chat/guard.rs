//! What keeps a foreign template within bounds: its size, the weight and the depth of its values, its output.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ObjectRepr;
use minijinja::{ErrorKind, Output, State, Value};

use crate::{Error, Result};

/// Bytes of a template. The largest of well-known models has some 20 kB.
const SOURCE: usize = 128 << 10;
/// Names, numbers, operators in one tag; the compiler takes quadratic time and linear stack in it.
const TOKENS: usize = 1000;
/// Bytes that a template writes, captured text included.
pub(super) const OUTPUT: usize = 4 << 20;
/// Instructions, or 64 bytes of strings each, or elements visited by fours: a second of work, 128 MB of strings.
pub(super) const FUEL: u64 = 2 << 20;
/// Lists within lists.
const DEPTH: usize = 64;

/// The name of [`weighed`] in a rewritten template; no template can spell it.
pub(super) const WEIGHED: &str = "=weighed";

/// Why a rendering was stopped; the source of minijinja's error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Bound(&'static str, usize),
}

impl From<Stop> for minijinja::Error {
    fn from(stop: Stop) -> Self {
        Self::new(ErrorKind::InvalidOperation, "stopped").with_source(stop)
    }
}

/// Checks the size of a template and of each of its tags.
pub(super) fn check_size(source: &str, syntax: SyntaxConfig) -> Result<()> {
    if source.len() > SOURCE {
        return Err(Error::TemplateBound { what: "has more bytes than allowed", line: 1, limit: SOURCE });
    }
    let mut tokens = 0;
    for token in tokenize(source, false, syntax) {
        let Ok((token, span)) = token else { break }; // the parser tells it better
        tokens = if matches!(token, Token::VariableStart | Token::BlockStart) { 0 } else { tokens + 1 };
        if tokens > TOKENS {
            return Err(Error::TemplateBound {
                what: "has more tokens in one tag than allowed",
                line: span.start_line as usize,
                limit: TOKENS,
            });
        }
    }
    Ok(())
}

/// `{% generation %}`, which marks the assistant's words for training, as `{% with %}`, which like it is a scope of its own
/// and writes nothing. Every other character keeps its place, so that errors name the right line.
pub(super) fn with_generation(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(tag) = rest.find("{%") {
        text.push_str(&rest[..tag + 2]);
        rest = &rest[tag + 2..];
        let name = rest.trim_start_matches(['-', '+']).trim_start();
        text.push_str(&rest[..rest.len() - name.len()]);
        rest = name;
        for (word, instead) in [("generation", "with      "), ("endgeneration", "endwith      ")] {
            let after = name.strip_prefix(word);
            if let Some(after) = after.filter(|after| after.trim_start().trim_start_matches(['-', '+']).starts_with("%}")) {
                text.push_str(instead);
                rest = after;
            }
        }
    }
    text + rest
}

/// The value itself, once it is known to be of a weight that the template can pay and not too deep.
pub(super) fn weighed(state: &State, value: &Value) -> std::result::Result<Value, minijinja::Error> {
    let mut weight = 0;
    weigh(state, value, 0, &mut weight)?;
    Ok(value.clone())
}

fn weigh(state: &State, value: &Value, depth: usize, weight: &mut usize) -> std::result::Result<(), minijinja::Error> {
    let Some(object) = value.as_object() else {
        return pay(state, weight, 1 + value.as_str().map_or(0, str::len) / 16);
    };
    if depth > DEPTH {
        return Err(Stop::Bound("makes lists too deep", DEPTH).into());
    }
    pay(state, weight, 1)?;
    match object.repr() {
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            object.try_iter().into_iter().flatten().try_for_each(|item| weigh(state, &item, depth + 1, weight))
        }
        ObjectRepr::Map => object.try_iter_pairs().into_iter().flatten().try_for_each(|(key, item)| {
            weigh(state, &key, depth + 1, weight)?;
            weigh(state, &item, depth + 1, weight)
        }),
        _ => Ok(()),
    }
}

/// Elements are paid for by fours.
fn pay(state: &State, weight: &mut usize, elements: usize) -> std::result::Result<(), minijinja::Error> {
    let before = *weight / 4;
    *weight += elements;
    state.consume_fuel((*weight / 4 - before) as u64)
}

/// Bytes written so far.
struct Written(usize);

/// Writes a value as Python's `str` does, as long as there is room.
pub(super) fn write(out: &mut Output, state: &mut State, value: &Value) -> std::result::Result<(), minijinja::Error> {
    let made = if value.as_str().is_none() { value.to_string() } else { String::new() };
    let text = value.as_str().unwrap_or(&made);
    let written = state.get_or_insert_extension(Written(0));
    written.0 = written.0.saturating_add(text.len());
    if written.0 > OUTPUT {
        return Err(Stop::Bound("writes more bytes than allowed", OUTPUT).into());
    }
    out.write_str(text).map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure))
}

//! `tojson` as Hugging Face defines it: Python's `json.dumps`, keys in their order, nothing escaped for HTML.

use minijinja::value::{Kwargs, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::guard::{OUTPUT, Stop};

/// The filter. `weighed` has seen the value: it is neither deep nor large.
pub(super) fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let mut json = Json::new(&options)?;
    options.assert_all_used()?;
    json.value(state, value, 0)?;
    Ok(json.text)
}

struct Json {
    text: String,
    ascii: bool,
    sorted: bool,
    indent: Option<usize>,
    comma: String,
    colon: String,
}

/// Spaces of one level of indentation.
const INDENT: usize = 64;

impl Json {
    fn new(options: &Kwargs) -> Result<Self, Error> {
        let indent = options.get::<Option<usize>>("indent")?;
        if let Some(indent) = indent.filter(|&indent| indent > INDENT) {
            return Err(refused(format!("tojson got indent={indent} and needs at most {INDENT}")));
        }
        let separators = options.get::<Option<Vec<String>>>("separators")?;
        let [comma, colon] = match separators {
            None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
            Some(pair) => <[String; 2]>::try_from(pair)
                .map_err(|pair| refused(format!("tojson got {} separators and needs 2", pair.len())))?,
        };
        let flag = |name| Ok::<_, Error>(options.get::<Option<bool>>(name)?.unwrap_or(false));
        Ok(Self { text: String::new(), ascii: flag("ensure_ascii")?, sorted: flag("sort_keys")?, indent, comma, colon })
    }

    fn value(&mut self, state: &State, value: &Value, level: usize) -> Result<(), Error> {
        let before = self.text.len();
        match (value.kind(), value.as_object()) {
            (ValueKind::None, _) => self.text.push_str("null"),
            (ValueKind::Bool, _) => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            (ValueKind::Number, _) => self.text.push_str(&value.to_string()),
            (ValueKind::String, _) => self.string(value.as_str().unwrap_or_default()),
            (_, Some(object)) if object.repr() == ObjectRepr::Map => {
                let mut pairs: Vec<_> = object.try_iter_pairs().into_iter().flatten().collect();
                if self.sorted {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.items(['{', '}'], level, pairs, |json, (key, item)| {
                    json.key(state, &key, level)?;
                    let colon = json.colon.clone();
                    json.text.push_str(&colon);
                    json.value(state, &item, level + 1)
                })?;
            }
            (ValueKind::Seq | ValueKind::Iterable, Some(object)) => {
                let items: Vec<_> = object.try_iter().into_iter().flatten().collect();
                self.items(['[', ']'], level, items, |json, item| json.value(state, &item, level + 1))?;
            }
            (kind, _) => return Err(refused(format!("tojson got a value of kind {kind}, which JSON cannot hold"))),
        }
        if self.text.len() > OUTPUT {
            return Err(Stop::Bound("writes more bytes than allowed", OUTPUT).into());
        }
        state.consume_fuel((self.text.len() - before) as u64 / 64)
    }

    fn items<T>(
        &mut self,
        [open, close]: [char; 2],
        level: usize,
        items: Vec<T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        let some = !items.is_empty();
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.text.push_str(&self.comma);
            }
            self.line(level + 1);
            write(self, item)?;
        }
        if some {
            self.line(level);
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, level: usize) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent * level));
        }
    }

    /// A key is a string; numbers, booleans and none become one.
    fn key(&mut self, state: &State, key: &Value, level: usize) -> Result<(), Error> {
        if key.as_str().is_some() || key.as_object().is_some() {
            return self.value(state, key, level);
        }
        self.text.push('"');
        self.value(state, key, level)?;
        self.text.push('"');
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                letter if letter < ' ' || (self.ascii && letter > '~') => {
                    let units = letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
                    self.text.push_str(&units);
                }
                letter => self.text.push(letter),
            }
        }
        self.text.push('"');
    }
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

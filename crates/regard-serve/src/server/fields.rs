//! The fields of a JSON object, each taken once by its name; what nobody took is refused.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::problem::Problem;

/// What is left of an object.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Where the object is, such as `stream_options.`; empty for the body itself.
    place: String,
}

/// The most characters of a value that an error repeats.
const SHOWN: usize = 60;

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

impl Fields {
    /// The object that a body holds.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let wrong = |message| Problem::new(hyper::StatusCode::BAD_REQUEST, message);
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self { map, place: String::new() }),
            Ok(other) => Err(wrong(format!("the body is {} and must be a JSON object", shown(&other)))),
            Err(error) => Err(wrong(format!("the body is not JSON: {error}"))),
        }
    }

    /// The fields of an object within.
    pub(super) fn within(value: Value, place: &str) -> Result<Self, Problem> {
        match value {
            Value::Object(map) => Ok(Self { map, place: format!("{place}.") }),
            other => Err(mismatch(place, &other, "an object")),
        }
    }

    /// A field's value; one that is `null` is absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    fn read<T>(&mut self, name: &str, needed: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| mismatch(&self.path(name), &value, needed))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.read(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// False unless it is said to be true.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        self.choice(name, false)
    }

    pub(super) fn choice(&mut self, name: &str, default: bool) -> Result<bool, Problem> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A whole number.
    pub(super) fn count(&mut self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Problem> {
        let needed = bounds("a whole number", range.start(), range.end(), *range.end() == usize::MAX);
        self.read(name, &needed, |value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n)))
    }

    /// A whole number that may be negative.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let needed = bounds("a whole number", range.start(), range.end(), false);
        self.read(name, &needed, |value| value.as_i64().filter(|n| range.contains(n)))
    }

    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, Problem> {
        let needed = bounds("a number", range.start(), range.end(), false);
        self.read(name, &needed, |value| value.as_f64().map(|x| x as f32).filter(|x| range.contains(x)))
    }

    /// Refuses fields that are known and not supported, unless they say no more than would be done without them.
    pub(super) fn refuse(&mut self, names: &[(&str, &[&str])]) -> Result<(), Problem> {
        for (name, harmless) in names {
            let Some(value) = self.take(name) else { continue };
            if !harmless.iter().any(|same| serde_json::from_str(same).is_ok_and(|same: Value| same == value)) {
                let given = shown(&value);
                return Err(Problem::unsupported(*name, format!("{name} is {given}, which this server does not support")));
            }
        }
        Ok(())
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some(name) = self.map.keys().next() else { return Ok(()) };
        let mut path = self.path(name);
        path.truncate(path.char_indices().nth(SHOWN).map_or(path.len(), |(at, _)| at));
        let message = format!("{path} is not a field that this server knows");
        Err(Problem { code: Some("unknown_field"), ..Problem::field(path, message) })
    }
}

/// A value of the wrong type or outside its bounds.
pub(super) fn mismatch(name: &str, given: &Value, needed: impl Display) -> Problem {
    Problem::field(name, format!("{name} is {} and must be {needed}", shown(given)))
}

fn bounds(kind: &str, low: impl Display, high: impl Display, open: bool) -> String {
    if open { format!("{kind} of at least {low}") } else { format!("{kind} from {low} to {high}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    fn message<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn a_value_outside_its_bounds_is_named() {
        assert_eq!(message(fields(r#"{"n": -1}"#).count("n", 1..=16)), "n is -1 and must be a whole number from 1 to 16");
        assert_eq!(
            message(fields(r#"{"n": 1.5}"#).count("n", 0..=usize::MAX)),
            "n is 1.5 and must be a whole number of at least 0"
        );
        assert_eq!(message(fields(r#"{"t": 1e300}"#).number("t", 0.0..=2.0)), "t is 1e+300 and must be a number from 0 to 2");
        assert_eq!(message(fields(r#"{"t": "x"}"#).number("t", 0.0..=2.0)), "t is \"x\" and must be a number from 0 to 2");
    }

    #[test]
    fn what_is_left_is_refused_and_null_is_nothing() {
        let mut given = fields(r#"{"n": null, "m": 1}"#);
        assert_eq!(given.count("n", 1..=2).unwrap(), None);
        assert_eq!(message(given.finish()), "m is not a field that this server knows");
    }

    #[test]
    fn unsupported_fields_may_say_what_is_done_anyway() {
        let refused = [("tools", &["[]"][..])];
        fields(r#"{"tools": []}"#).refuse(&refused).unwrap();
        assert_eq!(message(fields(r#"{"tools": [1]}"#).refuse(&refused)), "tools is [1], which this server does not support");
    }
}

//! What is asked about a model.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::{Error, Result};

/// What is asked about a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Tokens of each sequence.
    pub length: u64,
    /// Sequences.
    pub batch: u64,
    /// The type of weights, activations, keys and values.
    pub dtype: Dtype,
    /// Whether the model is trained, too.
    pub train: bool,
    /// Bytes that there are; those of the chip where nothing is said.
    pub memory: Option<u64>,
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, of which 10 of the fraction.
    F16,
    /// 16 bits, of which 7 of the fraction.
    Bf16,
}

impl Dtype {
    /// Bytes of a number.
    pub const fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Dtype> {
        match name {
            "f32" | "float32" => Ok(Dtype::F32),
            "f16" | "float16" => Ok(Dtype::F16),
            "bf16" | "bfloat16" => Ok(Dtype::Bf16),
            given => Err(Error::UnknownDtype { given: given.to_owned() }),
        }
    }
}

impl Serialize for Dtype {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// A number of bytes as people write it: `80GB` is 80·10⁹ and `24GiB` is 24·2³⁰.
///
/// # Errors
/// When it is none, or 2⁶⁴ or more.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || Error::Bytes { given: text.to_owned() };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let power = |letter: &str| "KMGT".find(letter).map(|i| i as u32 + 1);
    let unit = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        unit => match unit.strip_suffix('i') {
            Some(letter) if letter.len() == 1 => 1024u64.pow(power(letter).ok_or_else(wrong)?),
            None if unit.len() == 1 => 1000u64.pow(power(unit).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        },
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    // Digits after the point, of which more than nine say nothing about bytes.
    let digits: u64 = format!("{:0<9}", &part[..part.len().min(9)]).parse().map_err(|_| wrong())?;
    let part = u128::from(digits) * u128::from(unit) / 1_000_000_000;
    let all = u128::from(whole) * u128::from(unit) + part;
    u64::try_from(all).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        let all = [
            ("0", 0),
            ("1000000", 1_000_000),
            ("80GB", 80_000_000_000),
            ("24 GiB", 24 << 30),
            ("1.5K", 1500),
            ("0.5MiB", 1 << 19),
            ("7B", 7),
        ];
        for (text, bytes) in all {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GB", "80 gigabytes", "1iB", "-1", "1.2.3", "1e9", "18446744073709551616", "99999999TB", "5€"] {
            let error = parse_bytes(text).unwrap_err().to_string();
            assert!(error.ends_with("is no number of bytes: for example 80GB, 24GiB or 1000000"), "{error}");
        }
    }
}

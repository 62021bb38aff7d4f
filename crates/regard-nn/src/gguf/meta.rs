//! Metadata: names with typed values, which stay in the file until they are asked for.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use super::reader::Reader;
use super::{Gguf, wrong};
use crate::{Error, Result};

/// A value of a file's metadata. Integers and floats of every width are widened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue<'a> {
    /// 8, 16, 32 or 64 bits without a sign.
    Unsigned(u64),
    /// 8, 16, 32 or 64 bits with a sign.
    Signed(i64),
    /// 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(&'a str),
    /// Values of one type; never arrays again.
    Array(GgufArray<'a>),
}

/// An array of a file's metadata.
#[derive(Clone, Copy, PartialEq)]
pub struct GgufArray<'a> {
    kind: u32,
    count: usize,
    bytes: &'a [u8],
}

/// Where a value lies in the file, after its bytes are checked.
#[derive(Debug)]
pub(super) struct Stored {
    kind: u32,
    /// The number of values of an array.
    count: Option<usize>,
    bytes: Range<usize>,
}

const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// The bytes of a value of type `kind`, and of a text the least.
fn size(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | BOOL => 1,
        2 | 3 => 2,
        4..=6 => 4,
        TEXT | 10..=12 => 8,
        _ => return None,
    })
}

/// The entries of a file, none of them twice.
pub(super) fn parse(reader: &mut Reader<'_>, count: u64) -> Result<HashMap<String, Stored>> {
    // The least entry is an empty name, a type and one byte.
    reader.holds(count, 8 + 4 + 1, "the number of metadata entries")?;
    let mut meta = HashMap::new();
    for entry in 0..count {
        let name = reader.text(&format!("the name of metadata entry {entry}"))?;
        let stored = skip(reader, name)?;
        if meta.insert(name.to_owned(), stored).is_some() {
            return wrong(format!("metadata {name:?}"), "there twice", "there once");
        }
    }
    Ok(meta)
}

/// Checks one value and passes over it.
fn skip(reader: &mut Reader<'_>, name: &str) -> Result<Stored> {
    let kind = reader.u32(name)?;
    if kind != ARRAY {
        let start = reader.at();
        one(reader, kind, name)?;
        return Ok(Stored { kind, count: None, bytes: start..reader.at() });
    }
    let kind = reader.u32(name)?;
    let count = reader.u64(name)?;
    let Some(size) = size(kind) else {
        let given = if kind == ARRAY { "an array of arrays".to_owned() } else { format!("an array of type {kind}") };
        return wrong(name, given, "an array of numbers, booleans or texts");
    };
    reader.holds(count, size, &format!("the length of {name}"))?;
    let start = reader.at();
    if matches!(kind, TEXT | BOOL) {
        (0..count).try_for_each(|_| one(reader, kind, name).map(drop))?;
    } else {
        reader.take(count * size, name)?;
    }
    Ok(Stored { kind, count: Some(count as usize), bytes: start..reader.at() })
}

/// One value that is not an array.
fn one<'a>(reader: &mut Reader<'a>, kind: u32, name: &str) -> Result<GgufValue<'a>> {
    if kind == TEXT {
        return reader.text(name).map(GgufValue::Text);
    }
    let Some(size) = size(kind) else { return wrong(name, format!("of type {kind}"), "of a type from 0 to 12") };
    let mut wide = [0; 8];
    wide[..size as usize].copy_from_slice(reader.take(size, name)?);
    let bits = u64::from_le_bytes(wide);
    Ok(match kind {
        1 => GgufValue::Signed((bits as i8).into()),
        3 => GgufValue::Signed((bits as i16).into()),
        5 => GgufValue::Signed((bits as i32).into()),
        11 => GgufValue::Signed(bits as i64),
        6 => GgufValue::Float(f32::from_bits(bits as u32).into()),
        12 => GgufValue::Float(f64::from_bits(bits)),
        BOOL if bits > 1 => return wrong(name, format!("a boolean of {bits}"), "0 or 1"),
        BOOL => GgufValue::Bool(bits == 1),
        _ => GgufValue::Unsigned(bits),
    })
}

impl Stored {
    pub(super) fn value<'a>(&self, file: &'a [u8]) -> GgufValue<'a> {
        let bytes = &file[self.bytes.clone()];
        let array = GgufArray { kind: self.kind, count: self.count.unwrap_or(1), bytes };
        match self.count {
            Some(_) => GgufValue::Array(array),
            None => array.iter().next().unwrap_or(GgufValue::Array(array)),
        }
    }
}

impl<'a> GgufArray<'a> {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = GgufValue<'a>> + use<'a> {
        let (kind, mut reader) = (self.kind, Reader::new(self.bytes));
        (0..self.count).map_while(move |_| one(&mut reader, kind, "").ok())
    }
}

impl fmt::Debug for GgufArray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for GgufValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(value) => fmt::Debug::fmt(value, f),
            Self::Array(array) => write!(f, "an array of {}", array.len()),
        }
    }
}

/// What a value can be read as.
pub(super) trait Read<'a>: Sized {
    const NEEDED: &'static str;
    fn read(value: GgufValue<'a>) -> Option<Self>;
}

impl Read<'_> for u32 {
    const NEEDED: &'static str = "an integer from 0 to 4294967295";
    fn read(value: GgufValue<'_>) -> Option<Self> {
        match value {
            GgufValue::Unsigned(value) => value.try_into().ok(),
            GgufValue::Signed(value) => value.try_into().ok(),
            _ => None,
        }
    }
}

impl Read<'_> for f64 {
    const NEEDED: &'static str = "a finite number";
    fn read(value: GgufValue<'_>) -> Option<Self> {
        match value {
            GgufValue::Unsigned(value) => Some(value as f64),
            GgufValue::Signed(value) => Some(value as f64),
            GgufValue::Float(value) => Some(value).filter(|value| value.is_finite()),
            _ => None,
        }
    }
}

impl Read<'_> for bool {
    const NEEDED: &'static str = "a boolean";
    fn read(value: GgufValue<'_>) -> Option<Self> {
        if let GgufValue::Bool(value) = value { Some(value) } else { None }
    }
}

impl<'a> Read<'a> for &'a str {
    const NEEDED: &'static str = "a text";
    fn read(value: GgufValue<'a>) -> Option<Self> {
        if let GgufValue::Text(value) = value { Some(value) } else { None }
    }
}

impl<'a> Read<'a> for GgufArray<'a> {
    const NEEDED: &'static str = "an array";
    fn read(value: GgufValue<'a>) -> Option<Self> {
        if let GgufValue::Array(value) = value { Some(value) } else { None }
    }
}

impl Gguf {
    /// The names of the metadata, in no order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.meta.keys().map(String::as_str)
    }

    /// The metadata of this name.
    pub fn value(&self, key: &str) -> Option<GgufValue<'_>> {
        self.meta.get(key).map(|stored| stored.value(&self.file))
    }

    /// An integer of the metadata.
    ///
    /// # Errors
    /// When it is not there, or is not an integer of 32 bits without a sign.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.need(key)
    }

    /// A number of the metadata.
    ///
    /// # Errors
    /// When it is not there, or is not a finite number.
    pub fn f64(&self, key: &str) -> Result<f64> {
        self.need(key)
    }

    /// A truth value of the metadata.
    ///
    /// # Errors
    /// When it is not there, or is not a boolean.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.need(key)
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// When it is not there, or is not a text.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.need(key)
    }

    /// An array of the metadata.
    ///
    /// # Errors
    /// When it is not there, or is not an array.
    pub fn array(&self, key: &str) -> Result<GgufArray<'_>> {
        self.need(key)
    }

    pub(super) fn need<'a, T: Read<'a>>(&'a self, key: &str) -> Result<T> {
        let missing = || Error::GgufMissing { field: key.to_owned(), needed: T::NEEDED.to_owned() };
        self.find(key)?.ok_or_else(|| self.here(missing()))
    }

    /// As `need`, but it need not be there.
    pub(super) fn find<'a, T: Read<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let read = |value| match T::read(value) {
            Some(read) => Ok(read),
            None => wrong(key, value, T::NEEDED).map_err(|e| self.here(e)),
        };
        self.value(key).map(read).transpose()
    }

    /// An array of things of one type.
    pub(super) fn list<'a, T: Read<'a>>(&'a self, key: &str) -> Result<Option<Vec<T>>> {
        let Some(array) = self.find::<GgufArray<'a>>(key)? else { return Ok(None) };
        let read = |(i, value)| match T::read(value) {
            Some(read) => Ok(read),
            None => wrong(format!("{key}[{i}]"), value, T::NEEDED).map_err(|e| self.here(e)),
        };
        array.iter().enumerate().map(read).collect::<Result<_>>().map(Some)
    }
}

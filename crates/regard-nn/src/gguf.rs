//! GGUF: one file that holds a model's configuration, weights and tokenizer. Every claim of the file is checked against its bytes.

mod blocks;
mod chat;
mod config;
mod factors;
mod kind;
mod merges;
mod meta;
mod names;
mod reader;
mod tensor;
mod tokenizer;
mod weights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::mapped::Mapped;
use crate::{Error, Result};

pub use kind::GgufKind;
pub use meta::{GgufArray, GgufValue};
pub use tensor::{GgufTensor, GgufValues};

use meta::Stored;
use reader::Reader;
use tensor::Info;

/// A GGUF file of a Llama-type model, versions 2 and 3, little-endian. Tensors are read from the disk when they are asked for.
///
/// ```no_run
/// let gguf = regard_nn::Gguf::open("model.gguf".as_ref())?;
/// let layers = gguf.u32("llama.block_count")?;
/// let query = gguf.tensor("model.layers.0.self_attn.q_proj.weight")?;
/// println!("{layers} layers, queries {:?} in {}", query.shape(), query.kind());
/// # Ok::<(), regard_nn::Error>(())
/// ```
///
/// Source: the ggml project, "GGUF", docs/gguf.md.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: Mapped,
    meta: HashMap<String, Stored>,
    tensors: HashMap<String, Info>,
}

impl Gguf {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// With the file and the field: one that cannot be read, another format or version, a length or offset outside the file, a name
    /// given twice, a type that is not known.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Mapped::open(path)?;
        let (meta, tensors) = parse(&file).map_err(|e| e.within(path))?;
        Ok(Self { path: path.to_owned(), file, meta, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about this file.
    fn here(&self, error: Error) -> Error {
        error.within(&self.path)
    }
}

type Parts = (HashMap<String, Stored>, HashMap<String, Info>);

/// Magic, version, counts, metadata, tensor descriptions; the tensors' data begin at the next multiple of the alignment.
fn parse(file: &[u8]) -> Result<Parts> {
    let mut reader = Reader::new(file);
    magic(&mut reader)?;
    let tensors = reader.u64("the number of tensors")?;
    let entries = reader.u64("the number of metadata entries")?;
    let meta = meta::parse(&mut reader, entries)?;
    one_file(file, &meta)?;
    let alignment = alignment(file, &meta)?;
    let tensors = tensor::parse(&mut reader, tensors, alignment)?;
    Ok((meta, tensors))
}

fn magic(reader: &mut Reader<'_>) -> Result<()> {
    let magic = reader.take(4, "the magic number")?;
    if magic != b"GGUF" {
        return wrong(
            "the magic number",
            format!("{:?}", String::from_utf8_lossy(magic)),
            "\"GGUF\": this is another kind of file",
        );
    }
    match reader.u32("the version")? {
        2 | 3 => Ok(()),
        given if matches!(given.swap_bytes(), 1..=3) => {
            wrong("the byte order", "big-endian", "little-endian: convert the file with gguf_convert_endian")
        }
        given => wrong("the version", given, "2 or 3: convert the model again with a newer converter"),
    }
}

fn one_file(file: &[u8], meta: &HashMap<String, Stored>) -> Result<()> {
    match meta.get("split.count").map(|stored| stored.value(file)) {
        None | Some(GgufValue::Unsigned(0 | 1)) => Ok(()),
        Some(given) => wrong("split.count", given, "1: join the parts with llama-gguf-split --merge"),
    }
}

fn alignment(file: &[u8], meta: &HashMap<String, Stored>) -> Result<usize> {
    match meta.get("general.alignment").map(|stored| stored.value(file)) {
        None => Ok(32),
        Some(GgufValue::Unsigned(given)) if given.is_power_of_two() && given <= 1 << 30 => Ok(given as usize),
        Some(given) => wrong("general.alignment", given, "a power of two, at most 2^30"),
    }
}

/// The error that a field has a value it must not have.
fn wrong<T>(field: impl Into<String>, given: impl ToString, needed: impl Into<String>) -> Result<T> {
    Err(Error::Gguf { field: clip(field.into()), given: clip(given.to_string()), needed: clip(needed.into()) })
}

/// The beginning of a text that a damaged file may have made long.
fn clip(text: String) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

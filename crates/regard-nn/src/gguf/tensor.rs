//! Tensors: where they lie, what shape they have, and their numbers in Hugging Face's order.

use std::collections::HashMap;
use std::ops::Range;

use half::{bf16, f16};
use regard::Element;

use super::kind::{GgufKind, SUPPORTED};
use super::reader::Reader;
use super::{Gguf, blocks, names, wrong};
use crate::{Error, Result};

/// Where a tensor lies in the file, after its bytes are checked.
#[derive(Debug)]
pub(super) struct Info {
    kind: GgufKind,
    /// Rows first, as Hugging Face has it: the reverse of the file's order.
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A tensor as its file describes it, before it is placed.
struct Described<'a> {
    name: &'a str,
    kind: GgufKind,
    shape: Vec<usize>,
    /// Bytes of the numbers.
    size: usize,
    /// Where they begin after the beginning of all data.
    offset: u64,
}

/// A tensor of a file.
#[derive(Debug)]
pub struct GgufTensor<'a> {
    kind: GgufKind,
    shape: &'a [usize],
    bytes: &'a [u8],
    /// Heads whose rows are interleaved in the file.
    interleaved: Option<usize>,
    /// What the file adds to every number.
    added: f32,
}

/// The numbers of a tensor: halves as they are stored, everything else in f32.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValues {
    /// From F32 and every quantised type.
    F32(Vec<f32>),
    /// From F16.
    F16(Vec<f16>),
    /// From BF16.
    Bf16(Vec<bf16>),
}

/// The tensors of a file, none of them twice, all of them within it.
pub(super) fn parse(reader: &mut Reader<'_>, count: u64, alignment: usize) -> Result<HashMap<String, Info>> {
    // The least description is an empty name, one dimension, a type and an offset.
    reader.holds(count, 8 + 4 + 8 + 4 + 8, "the number of tensors")?;
    let described: Vec<Described<'_>> = (0..count).map(|i| describe(reader, i)).collect::<Result<_>>()?;
    let start = reader.at().next_multiple_of(alignment);
    let mut tensors = HashMap::with_capacity(described.len());
    for tensor in described {
        let name = tensor.name;
        let info = place(tensor, start, alignment, reader.len())?;
        if tensors.insert(name.to_owned(), info).is_some() {
            return wrong(format!("tensor {name:?}"), "there twice", "there once");
        }
    }
    Ok(tensors)
}

fn describe<'a>(reader: &mut Reader<'a>, index: u64) -> Result<Described<'a>> {
    let name = reader.text(&format!("the name of tensor {index}"))?;
    let field = format!("tensor {name:?}");
    let dims = reader.u32(&field)?;
    if !(1..=4).contains(&dims) {
        return wrong(field, format!("of {dims} dimensions"), "of 1 to 4 dimensions");
    }
    let mut sizes: Vec<u64> = (0..dims).map(|_| reader.u64(&field)).collect::<Result<_>>()?;
    let kind = match GgufKind::of(reader.u32(&field)?) {
        Ok(kind) => kind,
        Err(given) => return wrong(field, format!("of {given}"), format!("of {SUPPORTED}")),
    };
    let offset = reader.u64(&field)?;
    let (numbers, bytes) = kind.block();
    if !sizes[0].is_multiple_of(numbers as u64) {
        return wrong(field, format!("{} numbers to a row", sizes[0]), format!("whole blocks of {numbers}, as {kind} needs"));
    }
    sizes.reverse();
    match size(&sizes, numbers, bytes) {
        Some((shape, size)) => Ok(Described { name, kind, shape, size, offset }),
        None => wrong(field, format!("of shape {sizes:?}"), "of dimensions from 1 on whose product memory can hold"),
    }
}

/// A shape of numbers in blocks, and its bytes.
fn size(sizes: &[u64], numbers: usize, bytes: usize) -> Option<(Vec<usize>, usize)> {
    let shape: Vec<usize> = sizes.iter().map(|&size| size.try_into().ok().filter(|&size| size > 0)).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    Some((shape, (count / numbers).checked_mul(bytes)?))
}

fn place(tensor: Described<'_>, start: usize, alignment: usize, file: usize) -> Result<Info> {
    let Described { name, kind, shape, size, offset } = tensor;
    if !offset.is_multiple_of(alignment as u64) {
        return wrong(format!("the offset of tensor {name:?}"), offset, format!("a multiple of the alignment, {alignment}"));
    }
    let begin = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
    let bytes = begin.and_then(|begin| Some(begin..begin.checked_add(size)?)).filter(|bytes| bytes.end <= file);
    match bytes {
        Some(bytes) => Ok(Info { kind, shape, bytes }),
        None => wrong(
            format!("tensor {name:?}"),
            format!("{size} bytes long at byte {start} + {offset}"),
            format!("within the {file} bytes of the file: copy or download it again"),
        ),
    }
}

impl Gguf {
    /// The names of the tensors as Hugging Face has them, ggml's own where it has none, in no order.
    pub fn tensor_names(&self) -> impl Iterator<Item = String> {
        let fused = self.tensors.contains_key("blk.0.attn_qkv.weight");
        self.tensors.keys().map(move |name| names::to_hf(name, fused))
    }

    /// The tensor of this name, Hugging Face's or ggml's. Its numbers come in Hugging Face's order and size: see
    /// [`GgufTensor::values`].
    ///
    /// # Errors
    /// When it is not there, or the file's architecture is not supported or does not fit the tensor.
    pub fn tensor(&self, name: &str) -> Result<GgufTensor<'_>> {
        let ggml = names::to_ggml(name);
        let missing = || Error::GgufMissing { field: format!("tensor {ggml:?}"), needed: format!("it holds {name}") };
        let Info { kind, shape, bytes } = self.tensors.get(&ggml).ok_or_else(|| self.here(missing()))?;
        let architecture = self.architecture()?;
        let interleaved = if architecture == "llama" { self.interleaved(&ggml, shape[0])? } else { None };
        let added = if architecture == "gemma" && ggml.ends_with("norm.weight") { 1.0 } else { 0.0 };
        Ok(GgufTensor { kind: *kind, shape, bytes: &self.file[bytes.clone()], interleaved, added })
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(&names::to_ggml(name))?.shape)
    }

    pub(super) fn has_tensor(&self, ggml: &str) -> bool {
        self.tensors.contains_key(ggml)
    }

    /// The heads of a query or key projection, whose rows files of architecture llama interleave.
    fn interleaved(&self, ggml: &str, rows: usize) -> Result<Option<usize>> {
        let part = ggml.strip_suffix(".weight").or_else(|| ggml.strip_suffix(".bias")).unwrap_or_default();
        let heads = match part.rsplit_once('.') {
            Some((_, "attn_q")) => self.u32("llama.attention.head_count")?,
            Some((_, "attn_k")) => self.kv_heads("llama")?,
            _ => return Ok(None),
        } as usize;
        if heads == 0 || !rows.is_multiple_of(2 * heads) {
            let needed = format!("of an even number of rows for each of {heads} heads");
            return wrong(format!("tensor {ggml:?}"), format!("of {rows} rows"), needed).map_err(|e| self.here(e));
        }
        Ok(Some(heads))
    }
}

impl GgufTensor<'_> {
    /// Rows first: `[out, in]` for a projection.
    pub fn shape(&self) -> &[usize] {
        self.shape
    }

    /// How the file stores the numbers.
    pub fn kind(&self) -> GgufKind {
        self.kind
    }

    /// The numbers, row by row, as Hugging Face has them. Of the queries and keys of architecture llama that takes two steps back:
    /// the file has row `2j + s` of a head where Hugging Face has row `s · dim/2 + j`, for rotary pairs that are neighbours. Of the norms
    /// of architecture gemma, the file's numbers are 1 larger.
    pub fn values(&self) -> GgufValues {
        match self.kind {
            GgufKind::F16 if self.added == 0.0 => GgufValues::F16(self.ordered(self.halves(f16::from_le_bytes))),
            GgufKind::Bf16 if self.added == 0.0 => GgufValues::Bf16(self.ordered(self.halves(bf16::from_le_bytes))),
            _ => GgufValues::F32(self.to_f32()),
        }
    }

    /// As [`GgufTensor::values`], all in f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.to()
    }

    /// As [`GgufTensor::values`], rounded where the type has fewer bits.
    pub(super) fn to<T: Element>(&self) -> Vec<T> {
        self.ordered(blocks::numbers(self.kind, self.bytes, self.added))
    }

    fn halves<T>(&self, half: fn([u8; 2]) -> T) -> Vec<T> {
        self.bytes.as_chunks().0.iter().map(|&bytes| half(bytes)).collect()
    }

    fn ordered<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let Some(heads) = self.interleaved else { return values };
        let (dim, row) = (self.shape[0] / heads, values.len() / self.shape[0]);
        let source = |r: usize| r / dim * dim + 2 * (r % dim % (dim / 2)) + r % dim / (dim / 2);
        (0..self.shape[0]).flat_map(|r| &values[source(r) * row..][..row]).copied().collect()
    }
}

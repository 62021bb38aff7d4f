//! The tensors of a model's files by name: safetensors, whole or in shards.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, Range};
use std::path::Path;

use half::{bf16, f16};
use regard::{Element, PackedMatrix};
use safetensors::{Dtype, SafeTensors};

use crate::mapped::Mapped;
use crate::weights::{read_file, shard_names};
use crate::{Error, Precision, Result};

/// The tensors of some files, each taken when a model asks for it.
pub(crate) struct Checkpoint<'a> {
    files: Vec<Bytes<'a>>,
    entries: HashMap<String, Entry>,
    taken: RefCell<HashSet<String>>,
    /// The type that all tensors are given in, whatever they are in.
    precision: Option<Precision>,
}

/// A file as bytes: borrowed or mapped.
pub(crate) type Bytes<'a> = Box<dyn Deref<Target = [u8]> + Send + Sync + 'a>;

/// Where a tensor is.
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// The elements of a tensor, row-major: 16-bit ones stay so where they are bf16; f16 is widened, for bf16 would round it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl<'a> Checkpoint<'a> {
    /// The tensors of these files together.
    ///
    /// # Errors
    /// When one is not a whole safetensors file, or two hold the same tensor.
    pub(crate) fn new(files: Vec<Bytes<'a>>) -> Result<Self> {
        let mut entries = HashMap::new();
        for (file, bytes) in files.iter().enumerate() {
            let bytes: &[u8] = bytes;
            let all = SafeTensors::deserialize(bytes).map_err(|e| Error::Safetensors { reason: e.to_string() })?;
            for (name, view) in all.tensors() {
                let start = view.data().as_ptr().addr() - bytes.as_ptr().addr();
                let (dtype, shape) = (view.dtype(), view.shape().to_vec());
                let entry = Entry { file, dtype, shape, bytes: start..start + view.data().len() };
                if entries.insert(name.clone(), entry).is_some() {
                    return Err(Error::RepeatedWeight { name });
                }
            }
        }
        Ok(Self { files, entries, taken: RefCell::default(), precision: None })
    }

    /// The same tensors, all in that type.
    pub(crate) fn in_precision(self, precision: Option<Precision>) -> Self {
        Self { precision, ..self }
    }

    /// The tensors of `model.safetensors` in a directory, or of the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// As [`Checkpoint::new`], with the file; or when a file cannot be read.
    pub(crate) fn open(dir: &Path) -> Result<Checkpoint<'static>> {
        let (whole, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
        if whole.exists() || !index.exists() {
            return Checkpoint::new(vec![Box::new(Mapped::open(&whole)?)]).map_err(|e| e.within(whole));
        }
        let names = shard_names(&String::from_utf8_lossy(&read_file(&index)?)).map_err(|e| e.within(&index))?;
        let file = |name: &String| Ok(Box::new(Mapped::open(&dir.join(name))?) as Bytes<'static>);
        Checkpoint::new(names.iter().map(file).collect::<Result<_>>()?).map_err(|e| e.within(dir))
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The elements of a tensor.
    ///
    /// # Errors
    /// When it is missing, misshapen or not of floats.
    pub(crate) fn values(&self, name: &str, needed: &[usize]) -> Result<Values> {
        let owned = || (name.to_owned(), needed.to_vec());
        let Some(entry) = self.entries.get(name) else {
            let (name, needed) = owned();
            return Err(Error::MissingWeight { name, needed });
        };
        if entry.shape != needed {
            let (name, needed) = owned();
            return Err(Error::WeightShape { name, given: entry.shape.clone(), needed });
        }
        self.taken.borrow_mut().insert(name.to_owned());
        let bytes = &self.files[entry.file][entry.bytes.clone()];
        let halves = || bytes.as_chunks().0.iter();
        let values = match entry.dtype {
            Dtype::F32 => Values::F32(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()),
            Dtype::F16 => Values::F32(halves().map(|x| f16::from_le_bytes(*x).to_f32()).collect()),
            Dtype::BF16 => Values::Bf16(halves().map(|x| bf16::from_le_bytes(*x)).collect()),
            other => return Err(Error::WeightType { name: name.to_owned(), given: format!("{other:?}") }),
        };
        Ok(match (self.precision, values) {
            (Some(Precision::F32), values) => Values::F32(values.wide()),
            (Some(Precision::Bf16), Values::F32(values)) => Values::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            (_, values) => values,
        })
    }

    /// A tensor that no one asked for, but those that follow from the others.
    pub(crate) fn left_over(&self, redundant: impl Fn(&str) -> bool) -> Option<String> {
        let taken = self.taken.borrow();
        self.entries.keys().filter(|name| !taken.contains(*name) && !redundant(name)).min().cloned()
    }
}

impl Values {
    /// In f32.
    pub(crate) fn wide(self) -> Vec<f32> {
        match self {
            Values::F32(values) => values,
            Values::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
        }
    }

    /// Whether they are bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self, Values::Bf16(_))
    }

    /// Some rows of `width` elements, in any order.
    pub(crate) fn rows(self, width: usize, order: impl Iterator<Item = usize>) -> Values {
        fn pick<T: Copy>(from: &[T], width: usize, order: impl Iterator<Item = usize>) -> Vec<T> {
            order.flat_map(|row| &from[row * width..][..width]).copied().collect()
        }
        match self {
            Values::F32(values) => Values::F32(pick(&values, width, order)),
            Values::Bf16(values) => Values::Bf16(pick(&values, width, order)),
        }
    }

    /// One row of `width` elements.
    pub(crate) fn clone_rows(&self, width: usize, row: usize) -> Values {
        match self {
            Values::F32(values) => Values::F32(values[row * width..][..width].to_vec()),
            Values::Bf16(values) => Values::Bf16(values[row * width..][..width].to_vec()),
        }
    }

    /// The transpose of `[rows, columns]`.
    pub(crate) fn transposed(self, columns: usize) -> Values {
        fn turn<T: Copy>(from: &[T], columns: usize) -> Vec<T> {
            (0..columns).flat_map(|column| from[column..].iter().step_by(columns)).copied().collect()
        }
        match self {
            Values::F32(values) => Values::F32(turn(&values, columns)),
            Values::Bf16(values) => Values::Bf16(turn(&values, columns)),
        }
    }

    /// These and the rows of another: in f32 where either is.
    pub(crate) fn and(self, other: Values) -> Values {
        match (self, other) {
            (Values::Bf16(mut a), Values::Bf16(b)) => {
                a.extend(b);
                Values::Bf16(a)
            }
            (a, b) => {
                let mut a = a.wide();
                a.extend(b.wide());
                Values::F32(a)
            }
        }
    }

    /// `[outputs, inputs]`, packed for matrix products.
    pub(crate) fn pack(&self, outputs: usize, inputs: usize) -> Result<PackedMatrix> {
        fn packed<T: Element>(values: &[T], outputs: usize, inputs: usize) -> Result<PackedMatrix> {
            Ok(PackedMatrix::new(values, outputs, inputs)?)
        }
        match self {
            Values::F32(values) => packed(values, outputs, inputs),
            Values::Bf16(values) => packed(values, outputs, inputs),
        }
    }
}

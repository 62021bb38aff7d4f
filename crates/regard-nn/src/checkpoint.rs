//! The tensors of a model's files by name, each taken once: safetensors, whole or in shards, or GGUF.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, Range};
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use crate::mapped::Mapped;
use crate::values::Values;
use crate::weights::{read_file, shard_names};
use crate::{Error, Precision, Result};

/// The tensors of some files, each taken when a model asks for it.
pub(crate) struct Checkpoint<'a> {
    tensors: Box<dyn Tensors + 'a>,
    taken: RefCell<HashSet<String>>,
    /// The type that all tensors are given in, whatever they are in.
    precision: Option<Precision>,
}

/// The tensors of a file format, by the names of Hugging Face.
pub(crate) trait Tensors {
    /// All that a model may ask for.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, rows first, and what reads it; none where there is no such tensor.
    fn tensor<'a>(&'a self, name: &'a str) -> Option<(&'a [usize], Read<'a>)>;
}

/// Reads the elements of a tensor in a type, or as it suits the file.
pub(crate) type Read<'a> = Box<dyn FnOnce(Option<Precision>) -> Result<Values> + 'a>;

/// Safetensors files.
struct Files<'a> {
    files: Vec<Bytes<'a>>,
    entries: HashMap<String, Entry>,
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

impl<'a> Checkpoint<'a> {
    /// The tensors of these safetensors files together.
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
        Ok(Self::of(Files { files, entries }))
    }

    /// The tensors of a file of any format.
    pub(crate) fn of(tensors: impl Tensors + 'a) -> Self {
        Self { tensors: Box::new(tensors), taken: RefCell::default(), precision: None }
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
        self.tensors.tensor(name).is_some()
    }

    /// The elements of a tensor.
    ///
    /// # Errors
    /// When it is missing, misshapen or not of floats.
    pub(crate) fn values(&self, name: &str, needed: &[usize]) -> Result<Values> {
        let owned = || (name.to_owned(), needed.to_vec());
        let Some((shape, read)) = self.tensors.tensor(name) else {
            let (name, needed) = owned();
            return Err(Error::MissingWeight { name, needed });
        };
        if shape != needed {
            let (name, needed) = owned();
            return Err(Error::WeightShape { name, given: shape.to_vec(), needed });
        }
        self.taken.borrow_mut().insert(name.to_owned());
        read(self.precision)
    }

    /// A tensor that no one asked for, but those that follow from the others.
    pub(crate) fn left_over(&self, redundant: impl Fn(&str) -> bool) -> Option<String> {
        let taken = self.taken.borrow();
        self.tensors.names().into_iter().filter(|name| !taken.contains(name) && !redundant(name)).min()
    }
}

impl Tensors for Files<'_> {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn tensor<'a>(&'a self, name: &'a str) -> Option<(&'a [usize], Read<'a>)> {
        let Entry { file, dtype, shape, bytes } = self.entries.get(name)?;
        let bytes = &self.files[*file][bytes.clone()];
        Some((shape, Box::new(move |precision| Ok(numbers(name, *dtype, bytes)?.in_precision(precision)))))
    }
}

/// f16 is widened, for bf16 would round it.
fn numbers(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Values> {
    let halves = || bytes.as_chunks().0.iter();
    Ok(match dtype {
        Dtype::F32 => Values::F32(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()),
        Dtype::F16 => Values::F32(halves().map(|x| f16::from_le_bytes(*x).to_f32()).collect()),
        Dtype::BF16 => Values::Bf16(halves().map(|x| bf16::from_le_bytes(*x)).collect()),
        other => return Err(Error::WeightType { name: name.to_owned(), given: format!("{other:?}") }),
    })
}

//! Parameters in and out of safetensors files, with every claim of the file checked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::array::slice;
use crate::params::{Params, Spec, specs};
use crate::{Error, LlamaConfig, Result};

/// The number type of saved weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits: exactly as they are.
    F32,
    /// 16 bits, rounded to nearest: half the size, 8 bits of precision.
    Bf16,
}

impl Params {
    /// The parameters in one safetensors file, given as bytes; f16 and bf16 are widened.
    ///
    /// # Errors
    /// When the bytes are not a whole safetensors file, or a tensor is missing, unknown, misshapen or not of floats.
    pub fn load(config: &LlamaConfig, bytes: &[u8]) -> Result<Self> {
        Self::load_shards(config, &[bytes])
    }

    /// As [`Params::load`], from several files that hold the tensors between them.
    ///
    /// # Errors
    /// As [`Params::load`], or when two files hold the same tensor.
    pub fn load_shards<B: AsRef<[u8]>>(config: &LlamaConfig, files: &[B]) -> Result<Self> {
        let mut found: HashMap<String, TensorView<'_>> = HashMap::new();
        for bytes in files {
            let file = SafeTensors::deserialize(bytes.as_ref()).map_err(|e| Error::Safetensors { reason: e.to_string() })?;
            for (name, view) in file.tensors() {
                if found.insert(name.clone(), view).is_some() {
                    return Err(Error::RepeatedWeight { name });
                }
            }
        }
        let specs = specs(config)?;
        let params = Params::collect(specs.into_iter().map(|spec| {
            let view = found.remove(&spec.name);
            let values = read(&spec, view)?;
            Ok((spec.name, spec.shape, values))
        }))?;
        // Older files keep the rotary frequencies, and some keep a copy of tied weights: both follow from the rest.
        let redundant =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
        match found.into_keys().filter(|name| !redundant(name)).min() {
            Some(name) => Err(Error::UnknownWeight { name }),
            None => Ok(params),
        }
    }

    /// The parameters in `model.safetensors` of a directory, or in the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// As [`Params::load`], with the file; or when a file cannot be read.
    pub fn open(config: &LlamaConfig, dir: &Path) -> Result<Self> {
        let whole = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if whole.exists() || !index.exists() {
            return Self::load(config, &read_file(&whole)?).map_err(|e| e.within(whole));
        }
        let names = shard_names(&String::from_utf8_lossy(&read_file(&index)?)).map_err(|e| e.within(&index))?;
        let files: Vec<Vec<u8>> = names.iter().map(|name| read_file(&dir.join(name))).collect::<Result<_>>()?;
        Self::load_shards(config, &files).map_err(|e| e.within(dir))
    }

    /// A safetensors file of the parameters, as bytes.
    ///
    /// # Errors
    /// When a parameter is not a contiguous f32 tensor.
    pub fn save(&self, precision: Precision) -> Result<Vec<u8>> {
        let mut rows = Vec::new();
        for (name, var) in self.iter() {
            let values = slice(var)?;
            let (dtype, bytes): (_, Vec<u8>) = match precision {
                Precision::F32 => (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
                Precision::Bf16 => (Dtype::BF16, values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
            };
            rows.push((name, dtype, var.dims().to_vec(), bytes));
        }
        let failed = |e: safetensors::SafeTensorError| Error::Safetensors { reason: e.to_string() };
        let view = |(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes).map_err(failed)?));
        let views = rows.iter().map(|(name, dtype, shape, bytes)| view((*name, *dtype, shape.clone(), bytes.as_slice())));
        let views: Vec<(&str, TensorView<'_>)> = views.collect::<Result<_>>()?;
        safetensors::serialize(views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())]))).map_err(failed)
    }
}

/// One tensor widened to f32, after its shape and type are checked.
fn read(spec: &Spec, view: Option<TensorView<'_>>) -> Result<Vec<f32>> {
    let (name, needed) = (spec.name.clone(), spec.shape.clone());
    let Some(view) = view else { return Err(Error::MissingWeight { name, needed }) };
    if view.shape() != needed {
        return Err(Error::WeightShape { name, given: view.shape().to_vec(), needed });
    }
    let halves = |widen: fn([u8; 2]) -> f32| view.data().as_chunks().0.iter().map(|&bytes| widen(bytes)).collect();
    match view.dtype() {
        Dtype::F32 => Ok(view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::F16 => Ok(halves(|bytes| f16::from_le_bytes(bytes).to_f32())),
        Dtype::BF16 => Ok(halves(|bytes| bf16::from_le_bytes(bytes).to_f32())),
        other => Err(Error::WeightType { name, given: format!("{other:?}") }),
    }
}

/// The distinct file names of an index, none of which leaves the directory.
pub(crate) fn shard_names(index: &str) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index =
        serde_json::from_str(index).map_err(|source| Error::Json { what: "the index of the weights".to_owned(), source })?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    match names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(file) => Err(Error::ShardName { file: file.clone() }),
        None => Ok(names),
    }
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Read { path: PathBuf::from(path), source })
}

//! Parameters in and out of safetensors files, with every claim of the file checked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::array::slice;
use crate::checkpoint::{Bytes, Checkpoint};
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
        let borrowed = files.iter().map(|bytes| Box::new(bytes.as_ref()) as Bytes<'_>);
        Self::take_from(config, &Checkpoint::new(borrowed.collect())?)
    }

    /// All of a checkpoint, widened.
    fn take_from(config: &LlamaConfig, checkpoint: &Checkpoint<'_>) -> Result<Self> {
        let values = |spec: Spec| Ok((spec.name.clone(), spec.shape.clone(), checkpoint.values(&spec.name, &spec.shape)?.wide()));
        let params = Params::collect(specs(config)?.into_iter().map(values))?;
        // Older files keep the rotary frequencies, and some keep a copy of tied weights: both follow from the rest.
        let redundant =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
        match checkpoint.left_over(redundant) {
            Some(name) => Err(Error::UnknownWeight { name }),
            None => Ok(params),
        }
    }

    /// The parameters in `model.safetensors` of a directory, or in the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// As [`Params::load`], with the file; or when a file cannot be read.
    pub fn open(config: &LlamaConfig, dir: &Path) -> Result<Self> {
        Self::take_from(config, &Checkpoint::open(dir)?).map_err(|e| e.within(dir))
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

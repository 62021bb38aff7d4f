//! PyTorch's `nn.MultiheadAttention`: a layer from its state dict.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor};

use super::MultiHeadAttention;
use crate::{Error, Linear, Result};

/// What PyTorch's constructor is told and the state dict does not hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchOptions {
    /// `num_heads`; divides the embedding.
    pub heads: usize,
    /// Chance that a weight is dropped in training.
    pub dropout: f32,
    /// One more key and value of zeros, which every query sees.
    pub add_zero_attn: bool,
    /// Tensors are `[batch, length, n]`, and not `[length, batch, n]` as PyTorch's default is.
    pub batch_first: bool,
}

impl Default for TorchOptions {
    fn default() -> Self {
        Self { heads: 1, dropout: 0.0, add_zero_attn: false, batch_first: false }
    }
}

impl MultiHeadAttention {
    /// The layer in the state dict of an `nn.MultiheadAttention`, whose names begin with `prefix` (empty, or
    /// `"decoder.layers.0.multihead_attn."`). With `kdim` and `vdim`, `bias` and `add_bias_kv` as the dict says. [`Self::attend`]
    /// then computes what PyTorch's `forward` does. Gradients flow to tensors that are candle variables.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use candle_core::{Device, Tensor};
    /// use regard_nn::{AttendOptions, MultiHeadAttention, NeedWeights, TorchOptions};
    ///
    /// // candle_core::safetensors::load("attention.safetensors", &Device::Cpu)? in earnest
    /// let random = |shape: &[usize]| Tensor::randn(0f32, 0.1, shape, &Device::Cpu);
    /// let state = HashMap::from([
    ///     ("in_proj_weight".to_owned(), random(&[24, 8])?),
    ///     ("in_proj_bias".to_owned(), random(&[24])?),
    ///     ("out_proj.weight".to_owned(), random(&[8, 8])?),
    ///     ("out_proj.bias".to_owned(), random(&[8])?),
    /// ]);
    /// let layer = MultiHeadAttention::from_torch(&state, "", TorchOptions { heads: 2, batch_first: true, ..Default::default() })?;
    /// let (query, text) = (random(&[1, 3, 8])?, random(&[1, 5, 8])?);
    /// let padding = Tensor::new(&[[0u8, 0, 0, 1, 1]], &Device::Cpu)?; // PyTorch's sense: 1 hides
    /// let options = AttendOptions { key_padding_mask: Some(&padding), need_weights: NeedWeights::PerHead, ..Default::default() };
    /// let (out, weights) = layer.attend(&query, &text, &text, &options)?;
    /// assert_eq!((out.dims(), weights.unwrap().dims()), (&[1, 3, 8][..], &[1, 2, 3, 5][..]));
    /// # Ok::<(), regard_nn::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a tensor is missing, unknown, misshapen or not of floats, or the heads do not divide the embedding.
    pub fn from_torch(state: &HashMap<String, Tensor>, prefix: &str, options: TorchOptions) -> Result<Self> {
        let mut state = StateDict::new(state, prefix);
        let width = state.sizes("out_proj.weight")?[0];
        if options.heads == 0 || !width.is_multiple_of(options.heads) {
            let needed = format!("a multiple of the number of heads, which is {}", options.heads);
            return Err(Error::Config { field: "the embedding (embed_dim)", given: width.to_string(), needed });
        }
        let biases = state.take("in_proj_bias", &[3 * width])?;
        let bias = |part: usize| biases.as_ref().map(|b| b.narrow(0, part * width, width)).transpose();
        let [q, k, v] = match state.take("in_proj_weight", &[3 * width, width])? {
            Some(all) => [0, 1, 2].map(|part| Ok(all.narrow(0, part * width, width)?)),
            None => ["q_proj_weight", "k_proj_weight", "v_proj_weight"].map(|name| {
                let inner = if name == "q_proj_weight" { width } else { state.sizes(name)?[1] };
                state.need(name, &[width, inner])
            }),
        };
        let (q, k, v) = (Linear::new(q?, bias(0)?)?, Linear::new(k?, bias(1)?)?, Linear::new(v?, bias(2)?)?);
        let out = Linear::new(state.need("out_proj.weight", &[width, width])?, state.take("out_proj.bias", &[width])?)?;
        let bias_kv = match state.take("bias_k", &[1, 1, width])? {
            Some(k) => Some([k.flatten_all()?, state.need("bias_v", &[1, 1, width])?.flatten_all()?]),
            None => None,
        };
        state.finish()?;
        let layer = Self::new(q, k, v, out, options.heads, options.heads)?;
        let TorchOptions { dropout, add_zero_attn: zero_attn, batch_first, .. } = options;
        Ok(Self { bias_kv, zero_attn, batch_first, dropout, ..layer })
    }
}

/// The tensors under a prefix that nobody took yet.
struct StateDict<'a> {
    prefix: &'a str,
    rest: BTreeMap<&'a str, &'a Tensor>,
}

impl<'a> StateDict<'a> {
    fn new(state: &'a HashMap<String, Tensor>, prefix: &'a str) -> Self {
        let rest = state.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor))).collect();
        Self { prefix, rest }
    }

    /// Both sizes of a matrix that must be there.
    fn sizes(&self, name: &str) -> Result<[usize; 2]> {
        let full = format!("{}{name}", self.prefix);
        match self.rest.get(name).map(|tensor| tensor.dims()) {
            Some(&[out, inner]) => Ok([out, inner]),
            Some(given) => {
                let needed = "[embedding, inputs]".to_owned();
                Err(Error::Shape { what: "a projection of the state dict", given: given.to_vec(), needed })
            }
            None => Err(Error::MissingWeight { name: full, needed: Vec::new() }),
        }
    }

    /// A tensor if it is there, as f32.
    fn take(&mut self, name: &str, needed: &[usize]) -> Result<Option<Tensor>> {
        let Some(tensor) = self.rest.remove(name) else { return Ok(None) };
        let name = format!("{}{name}", self.prefix);
        if tensor.dims() != needed {
            return Err(Error::WeightShape { name, given: tensor.dims().to_vec(), needed: needed.to_vec() });
        }
        match tensor.dtype() {
            DType::F32 => Ok(Some(tensor.clone())),
            DType::F16 | DType::BF16 | DType::F64 => Ok(Some(tensor.to_dtype(DType::F32)?)),
            other => Err(Error::WeightType { name, given: format!("{other:?}") }),
        }
    }

    fn need(&mut self, name: &str, needed: &[usize]) -> Result<Tensor> {
        let found = self.take(name, needed)?;
        found.ok_or_else(|| Error::MissingWeight { name: format!("{}{name}", self.prefix), needed: needed.to_vec() })
    }

    fn finish(self) -> Result<()> {
        match self.rest.into_keys().next() {
            Some(name) => Err(Error::UnknownWeight { name: format!("{}{name}", self.prefix) }),
            None => Ok(()),
        }
    }
}

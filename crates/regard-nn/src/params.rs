//! The parameters of a model by name: made, looked up, counted. Files of them are in `weights.rs`.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use crate::rng::Rng;
use crate::{Error, LlamaConfig, Result};

/// The trainable parameters of a Llama-type model, under their Hugging Face names, in the order of the forward pass.
///
/// A parameter is a candle [`Var`] in f32: a model made from these parameters sees every change to them.
#[derive(Debug)]
pub struct Params {
    entries: Vec<(String, Var)>,
    index: HashMap<String, usize>,
}

/// One parameter that a configuration needs.
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: Start,
}

/// How a parameter begins.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    Normal(f64),
    Constant(f32),
}

impl Params {
    /// Fresh parameters: normal with deviation `initializer_range`, the two projections that write to the residual stream
    /// scaled by 1/√(2·layers), norms 1, biases 0. A function of the configuration and the seed alone.
    ///
    /// Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", §2.3.
    ///
    /// # Errors
    /// When the configuration is impossible.
    pub fn init(config: &LlamaConfig, seed: u64) -> Result<Self> {
        let make = |(stream, spec): (usize, Spec)| {
            let elements = spec.shape.iter().product();
            let mut rng = Rng::new(seed, stream as u64);
            let values = match spec.start {
                Start::Constant(value) => vec![value; elements],
                Start::Normal(deviation) => (0..elements).map(|_| (deviation * rng.normal()) as f32).collect(),
            };
            Ok((spec.name, spec.shape, values))
        };
        Self::collect(specs(config)?.into_iter().enumerate().map(make))
    }

    /// Parameters from name, shape and row-major values.
    pub(crate) fn collect(entries: impl Iterator<Item = Result<(String, Vec<usize>, Vec<f32>)>>) -> Result<Self> {
        let var = |entry: Result<(String, Vec<usize>, Vec<f32>)>| {
            let (name, shape, values) = entry?;
            Ok((name, Var::from_vec(values, shape, &Device::Cpu)?))
        };
        let entries: Vec<(String, Var)> = entries.map(var).collect::<Result<_>>()?;
        let index = entries.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        Ok(Self { entries, index })
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.index.get(name).map(|&i| &self.entries[i].1)
    }

    /// All parameters, in the order of the forward pass.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Var)> {
        self.entries.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The number of trainable numbers; tied weights count once.
    pub fn count(&self) -> usize {
        self.entries.iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// A parameter as a model uses it, with the shape it needs.
    pub(crate) fn take(&self, name: &str, needed: &[usize]) -> Result<Tensor> {
        let var = self.get(name).ok_or_else(|| Error::MissingWeight { name: name.to_owned(), needed: needed.to_vec() })?;
        if var.dims() != needed {
            return Err(Error::WeightShape { name: name.to_owned(), given: var.dims().to_vec(), needed: needed.to_vec() });
        }
        Ok(var.as_tensor().clone())
    }
}

/// The names of the parameters of decoder block `layer`, each with its shape `[out, in]`, and whether it has a bias.
pub(crate) fn projections(config: &LlamaConfig, layer: usize) -> [(String, [usize; 2], bool); 7] {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let name = |part: &str| format!("model.layers.{layer}.{part}_proj");
    [
        (name("self_attn.q"), [q, hidden], config.attention_bias),
        (name("self_attn.k"), [kv, hidden], config.attention_bias),
        (name("self_attn.v"), [kv, hidden], config.attention_bias),
        (name("self_attn.o"), [hidden, q], config.attention_bias),
        (name("mlp.gate"), [inner, hidden], config.mlp_bias),
        (name("mlp.up"), [inner, hidden], config.mlp_bias),
        (name("mlp.down"), [hidden, inner], config.mlp_bias),
    ]
}

/// Every parameter that a configuration needs, in the order of the forward pass.
pub(crate) fn specs(config: &LlamaConfig) -> Result<Vec<Spec>> {
    config.validate()?;
    let deviation = config.initializer_range;
    let residual = deviation / (2.0 * config.num_hidden_layers as f64).sqrt();
    let norm = |name: String| Spec { name, shape: vec![config.hidden_size], start: Start::Constant(1.0) };
    let table = |name: &str| {
        let shape = vec![config.vocab_size, config.hidden_size];
        Spec { name: name.to_owned(), shape, start: Start::Normal(deviation) }
    };
    let mut specs = vec![table("model.embed_tokens.weight")];
    for layer in 0..config.num_hidden_layers {
        specs.push(norm(format!("model.layers.{layer}.input_layernorm.weight")));
        for (name, shape, biased) in projections(config, layer) {
            if name.ends_with("gate_proj") {
                specs.push(norm(format!("model.layers.{layer}.post_attention_layernorm.weight")));
            }
            let writes_residual = name.ends_with("o_proj") || name.ends_with("down_proj");
            let start = Start::Normal(if writes_residual { residual } else { deviation });
            specs.push(Spec { name: format!("{name}.weight"), shape: shape.to_vec(), start });
            if biased {
                specs.push(Spec { name: format!("{name}.bias"), shape: vec![shape[0]], start: Start::Constant(0.0) });
            }
        }
    }
    specs.push(norm("model.norm.weight".to_owned()));
    if !config.tie_word_embeddings {
        specs.push(table("lm_head.weight"));
    }
    check_total(&specs)?;
    Ok(specs)
}

/// Refuses a model whose bytes no machine can address.
fn check_total(specs: &[Spec]) -> Result<()> {
    let elements = |spec: &Spec| spec.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    let total = specs.iter().try_fold(0usize, |sum, spec| sum.checked_add(elements(spec)?));
    match total.filter(|&n| n < 1 << 44) {
        Some(_) => Ok(()),
        None => Err(Error::Config {
            field: "the number of parameters",
            given: "2^44 or more".to_owned(),
            needed: "what memory can hold: lower the sizes".to_owned(),
        }),
    }
}

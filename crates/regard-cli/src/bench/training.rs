//! A training step of a case.

use std::error::Error;

use candle_core::{Device, Tensor as Candle};
use regard_nn::train::{AdamW, TrainConfig};
use regard_nn::{Llama, LlamaConfig, Params};

use super::case::Case;

/// A model, its optimiser and a batch.
pub(super) struct Training {
    params: Params,
    model: Llama,
    optimizer: AdamW,
    tokens: Candle,
    targets: Candle,
}

impl Training {
    pub(super) fn new(case: &Case) -> Result<Self, Box<dyn Error>> {
        let [windows, heads, kv_heads, layers, context, dim] = case.sizes;
        let hidden = heads * dim;
        let config = TrainConfig {
            ema: 0.0,
            hidden,
            layers,
            heads,
            kv_heads,
            intermediate: INTERMEDIATE,
            context,
            ..TrainConfig::default()
        };
        let vocab = config.vocab_size;
        let json = format!(
            r#"{{"model_type": "llama", "vocab_size": {vocab}, "hidden_size": {hidden}, "intermediate_size": {INTERMEDIATE},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
            "max_position_embeddings": {context}, "tie_word_embeddings": true}}"#
        );
        let shape = LlamaConfig::from_json(&json)?;
        let params = Params::init(&shape, 1)?;
        let (model, optimizer) = (Llama::new(&shape, &params)?, AdamW::new(&params, &config)?);
        let text: Vec<u32> =
            (0..(windows * context + 1) as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 7 & (vocab as u32 - 1)).collect();
        let batch = |from: usize| Candle::from_slice(&text[from..from + windows * context], (windows, context), &Device::Cpu);
        Ok(Self { tokens: batch(0)?, targets: batch(1)?, params, model, optimizer })
    }

    /// Tokens that a step learns from.
    pub(super) fn tokens(&self) -> usize {
        self.tokens.elem_count()
    }

    /// Forward, backward and update.
    pub(super) fn step(&mut self) -> Result<(), Box<dyn Error>> {
        let gradients = self.model.loss(&self.tokens, &self.targets, None)?.backward()?;
        self.optimizer.step(&self.params, &gradients, 1e-4)?;
        Ok(())
    }
}

/// Width of the feed-forward layer of the story model.
const INTERMEDIATE: usize = 640;

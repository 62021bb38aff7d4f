//! The stacks of blocks: the encoder's, and the decoder's with its cache.

use regard::{Attention, Causal, RelativeBias, Threads, View};

use super::T5Cache;
use super::attention::{CrossAttention, SelfAttention};
use super::config::T5Config;
use crate::Result;
use crate::decoder::feed_forward::Dense;
use crate::parts::Norm;
use crate::parts::add;

/// An encoder, where `C` is `()`, or a decoder.
#[derive(Debug)]
pub(super) struct Stack<C> {
    pub(super) blocks: Vec<Block<C>>,
    /// `[num_heads, buckets]`, what keys of each bucket of distances are liked more.
    pub(super) bias: Vec<f32>,
    pub(super) norm: Norm,
}

#[derive(Debug)]
pub(super) struct Block<C> {
    pub(super) attention_norm: Norm,
    pub(super) attention: SelfAttention,
    pub(super) cross: C,
    pub(super) feed_forward_norm: Norm,
    pub(super) feed_forward: Dense,
}

/// The attention to the text, with its norm.
#[derive(Debug)]
pub(super) struct Cross {
    pub(super) norm: Norm,
    pub(super) attention: CrossAttention,
}

impl<C> Stack<C> {
    fn table(&self, config: &T5Config) -> Result<View<'_, f32>> {
        Ok(View::new(&self.bias, [1, config.num_heads, 1, config.relative_attention_num_buckets])?)
    }
}

impl Stack<()> {
    /// The residual stream `[n, d_model]` through all blocks.
    pub(super) fn encode(&self, config: &T5Config, x: &mut [f32]) -> Result<()> {
        let bias = RelativeBias::bidirectional(self.table(config)?, config.relative_attention_max_distance as u32)?;
        for block in &self.blocks {
            add(x, &block.attention.whole(config, &block.attention_norm.apply(x), &bias)?);
            block.feed_forward(x)?;
        }
        Ok(())
    }
}

impl Stack<Cross> {
    /// How a reply looks at itself.
    pub(super) fn rule(&self, config: &T5Config) -> Result<Attention<Causal, RelativeBias<'_>>> {
        let bias = RelativeBias::causal(self.table(config)?, config.relative_attention_max_distance as u32)?;
        Ok(Attention::new().mask(Causal::LowerRight).score(bias).scale(1.0))
    }

    /// The residual stream `[n, d_model]` of a reply, at the positions from `first` on, through all blocks.
    pub(super) fn decode(&self, config: &T5Config, x: &mut [f32], cache: &mut T5Cache, first: usize) -> Result<()> {
        let (rule, text) = (self.rule(config)?, cache.beside.cross.clone());
        for (layer, (block, text)) in self.blocks.iter().zip(&*text).enumerate() {
            let rows = block.attention.qkv.apply(&block.attention_norm.apply(x))?;
            add(x, &block.attention.out.apply(&cache.attend(&rule, &rows, config.heads(), (layer, first))?)?);
            add(x, &block.cross.attention.apply(config, &block.cross.norm.apply(x), text)?);
            block.feed_forward(x)?;
        }
        Ok(())
    }
}

impl<C> Block<C> {
    fn feed_forward(&self, x: &mut [f32]) -> Result<()> {
        let fed = self.feed_forward.apply(&self.feed_forward_norm.apply(x), Threads::All)?;
        add(x, &fed);
        Ok(())
    }
}

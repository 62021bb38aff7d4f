//! How many numbers a decoder has learned.

use super::feed_forward::{Dense, FeedForward};
use super::{Block, Decoder};
use crate::parts::{Matrix, Norm};

impl Decoder {
    /// The learned numbers: every weight and bias, an embedding that is the output projection too counted once.
    pub fn parameters(&self) -> usize {
        let matrices = self.embed.parameters() + self.head.as_ref().map_or(0, Matrix::parameters);
        matrices + self.positions.len() + self.norm.parameters() + self.blocks.iter().map(Block::parameters).sum::<usize>()
    }
}

impl Block {
    fn parameters(&self) -> usize {
        let attention = &self.attention;
        let norms = [&self.after_attention, &self.after_feed_forward, &attention.q_norm, &attention.k_norm];
        let norms = norms.into_iter().flatten().chain([&self.attention_norm, &self.feed_forward_norm]).map(Norm::parameters);
        let projections = attention.qkv.parameters() + attention.out.parameters() + attention.sinks.as_ref().map_or(0, Vec::len);
        norms.sum::<usize>() + projections + self.feed_forward.parameters()
    }
}

impl FeedForward {
    fn parameters(&self) -> usize {
        let dense = |dense: &Dense| dense.gate.iter().chain([&dense.up, &dense.down]).map(Matrix::parameters).sum::<usize>();
        match self {
            FeedForward::Dense(one) => dense(one),
            FeedForward::Mixture { router, experts, .. } => router.parameters() + experts.iter().map(dense).sum::<usize>(),
        }
    }
}

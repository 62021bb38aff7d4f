//! What a reply has read: its keys and values, and the text's.

use regard::{KvCache, Sequence};

use super::Encoded;
use crate::Result;

/// The keys and values of one reply, for all blocks, and the text that it replies to.
#[derive(Debug)]
pub struct T5Cache {
    pub(super) store: KvCache<f32>,
    pub(super) seq: Sequence,
    pub(super) capacity: usize,
    pub(super) encoded: Encoded,
}

impl T5Cache {
    /// Tokens of the reply read so far.
    pub fn len(&self) -> usize {
        self.seq.len()
    }

    /// Whether no token was read.
    pub fn is_empty(&self) -> bool {
        self.seq.is_empty()
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the pages that hold the reply, and of the keys and values of the text.
    pub fn used_bytes(&self) -> usize {
        let cross: usize = self.encoded.cross.iter().map(Vec::len).sum();
        self.store.used_bytes() + cross * size_of::<f32>()
    }

    /// Forgets the tokens of the reply from position `len` on.
    ///
    /// # Errors
    /// When there are fewer tokens.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        Ok(self.store.truncate(&mut self.seq, len)?)
    }
}

//! Buffers that begin at a cache line, as tiles are read: a row of 64 bytes that lies across two lines takes twice as long.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Numbers of 4 bytes, the first of them at the beginning of a cache line.
#[derive(Debug)]
pub struct Lines<N> {
    data: Vec<N>,
    start: usize,
    len: usize,
}

impl<N> Default for Lines<N> {
    fn default() -> Self {
        Lines { data: Vec::new(), start: 0, len: 0 }
    }
}

impl<N: Copy + Default> Lines<N> {
    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        let data = vec![N::default(); len + LINE / size_of::<N>()];
        let start = data.as_ptr().align_offset(LINE);
        Lines { data, start, len }
    }

    /// The first `len` numbers, whatever they hold: zeros where the buffer had to grow.
    #[inline(always)]
    pub fn room(&mut self, len: usize) -> &mut [N] {
        if self.len < len {
            *self = Lines::zeros(len);
        }
        &mut self[..len]
    }
}

impl<N: Copy + Default> Clone for Lines<N> {
    fn clone(&self) -> Self {
        let mut copy = Lines::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<N> Deref for Lines<N> {
    type Target = [N];

    #[inline(always)]
    fn deref(&self) -> &[N] {
        &self.data[self.start..][..self.len]
    }
}

impl<N> DerefMut for Lines<N> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [N] {
        &mut self.data[self.start..][..self.len]
    }
}

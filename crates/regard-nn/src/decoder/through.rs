//! The residual stream through all blocks.
//!
//! Rows meet in attention only: up to there, and from there on, each thread takes some of them by itself.

use rayon::prelude::*;
use regard::{Angles, Element, Lines, Threads};

use super::{Block, Decoder, DecoderConfig};
use crate::Result;
use crate::ops::simd::vectorised;
use crate::parts::add;

/// Turns the queries, keys and values of a layer, `[n, width]`, into what is attended to, `[n, heads·dim]`.
pub(super) type Attend<'a, T> = dyn FnMut(usize, &[T], &mut [T]) -> Result<()> + 'a;

impl Decoder {
    /// Rows `[n, hidden_size]` through all blocks, at positions that the angles tell.
    pub(super) fn through<T: Element>(
        &self,
        x: &mut [f32],
        angles: &[Angles],
        watch: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
        attend: &mut Attend<'_, T>,
    ) -> Result<()> {
        let (config, hidden, heads) = (&self.config, self.config.hidden_size, self.config.heads());
        let n = x.len() / hidden;
        let rows = rows_of_a_part(n);
        let mut buffers: Vec<Buffers> = (0..n.div_ceil(rows)).map(|_| Buffers::default()).collect();
        let (mut qkv, mut mixed) = (vec![T::default(); n * heads.width()], vec![T::default(); n * heads.mixed()]);
        for (layer, block) in self.blocks.iter().enumerate() {
            watch(layer, x)?;
            let parts = x.chunks(rows * hidden).zip(qkv.chunks_mut(rows * heads.width())).zip(&mut buffers).enumerate();
            share(parts, |(i, ((x, qkv), buffers)), threads| block.begin(config, x, (angles, i * rows), qkv, buffers, threads))?;
            attend(layer, &qkv, &mut mixed)?;
            let parts = x.chunks_mut(rows * hidden).zip(mixed.chunks(rows * heads.mixed())).zip(&mut buffers);
            share(parts, |((x, mixed), buffers), threads| block.end(config, x, mixed, buffers, threads))?;
        }
        watch(self.blocks.len(), x)
    }
}

impl Block {
    /// Rows of the residual stream to queries, keys and values at their positions, which the angles tell from `first` on.
    fn begin<T: Element>(
        &self,
        config: &DecoderConfig,
        x: &[f32],
        (angles, first): (&[Angles], usize),
        qkv: &mut [T],
        buffers: &mut Buffers,
        threads: Threads,
    ) -> Result<()> {
        let x = self.attention_norm.of(x, &mut buffers.normed);
        let rows = buffers.inner.room(qkv.len());
        self.attention.qkv.write(x, rows, threads)?;
        self.attention.prepare(config, rows, angles, first);
        vectorised(|| T::narrow(rows, qkv));
        Ok(())
    }

    /// What rows attended to joins them, and the feed-forward layer follows.
    fn end<T: Element>(
        &self,
        config: &DecoderConfig,
        x: &mut [f32],
        mixed: &[T],
        buffers: &mut Buffers,
        threads: Threads,
    ) -> Result<()> {
        let Buffers { normed, inner, branch } = buffers;
        let (branch, heads) = (branch.room(x.len()), inner.room(mixed.len()));
        vectorised(|| T::widen(mixed, heads));
        self.attention.out.write(heads, branch, threads)?;
        self.after_attention.iter().for_each(|norm| norm.rows(branch));
        if config.parallel_residual {
            let mut fed = Lines::zeros(x.len());
            self.feed_forward.write(self.feed_forward_norm.of(x, normed), inner, &mut fed, threads)?;
            add(branch, &fed);
            add(x, branch);
            return Ok(());
        }
        add(x, branch);
        self.feed_forward.write(self.feed_forward_norm.of(x, normed), inner, branch, threads)?;
        self.after_feed_forward.iter().for_each(|norm| norm.rows(branch));
        add(x, branch);
        Ok(())
    }
}

/// What some rows become on their way through a block.
#[derive(Default)]
struct Buffers {
    normed: Lines<f32>,
    /// Queries, keys and values; heads; the inner rows of the feed-forward layer.
    inner: Lines<f32>,
    /// What is added to the residual stream.
    branch: Lines<f32>,
}

/// Rows that one thread takes through a block: all, where they are few; else so many that they stay in the second-level cache while the
/// weights stream past.
fn rows_of_a_part(n: usize) -> usize {
    const MOST: usize = 128;
    let threads = rayon::current_num_threads();
    if n < threads * MOST / 2 {
        return n;
    }
    n.div_ceil(n.div_ceil(MOST).next_multiple_of(threads)).next_multiple_of(16)
}

/// Does something with each part: a thread takes one by itself, or all threads the only one.
fn share<P: Send>(parts: impl Iterator<Item = P>, f: impl Fn(P, Threads) -> Result<()> + Sync) -> Result<()> {
    let parts: Vec<P> = parts.collect();
    match parts.len() {
        1 => parts.into_iter().try_for_each(|part| f(part, Threads::All)),
        _ => parts.into_par_iter().try_for_each(|part| f(part, Threads::This)),
    }
}

//! The forward pass: KV heads side by side, chunk after chunk; where heads are few, several chunks at a time.

use rayon::prelude::*;
use regard_core::{Element, ViewMut};

use super::chunk::{Advance, Chunk, Load};
use super::output::Outputs;
use super::recurrent::Recur;
use super::{Linear, RECURRENT};
use crate::block::ranges;
use crate::once::per_element;
use crate::scatter::{RowWriter, split};

/// Below this many multiply-adds, waking a second thread takes longer than it saves (some 10 µs).
const ALONE: usize = 1 << 18;

/// A writer for each query head of a group.
type Writers<'o, T> = Vec<RowWriter<'o, T>>;

per_element! {
    /// Writes `out`, `[batch, q_heads, length, value_dim]`, and the state after the last token, `[batch, kv_heads, head_dim, state_dim]`.
    pub fn forward<T>(p: &'a Linear<'a, T>, out: ViewMut<'a, T>, state: ViewMut<'a, f32>) = all_tokens;
}

fn all_tokens<T: Element>(p: &Linear<'_, T>, out: ViewMut<'_, T>, state: ViewMut<'_, f32>) {
    let s = &p.shape;
    let (heads, threads) = (s.batch * s.kv_heads, rayon::current_num_threads());
    let alone = threads == 1 || s.batch * s.q_heads * s.len * s.head_dim * s.state_dim <= ALONE;
    let wave = if alone || heads >= threads || p.chunk < RECURRENT { 1 } else { 4 * threads.div_ceil(heads.max(1)) };
    let states = split(state, (0..heads).map(|i| i * s.head_dim..(i + 1) * s.head_dim));
    let tasks = writers(p, out).into_iter().zip(states).enumerate().collect();
    share(tasks, !alone, |(i, (mut out, mut last))| {
        let head = (i / s.kv_heads, i % s.kv_heads);
        let mut state = p.state_before(head);
        let mut chunks: Vec<_> = (0..wave).map(|_| Chunk::default()).collect();
        for (tokens, out) in ranges(0..s.len, wave * p.chunk).zip(out.chunks_mut(wave)) {
            let chunks = &mut chunks[..out.len()];
            let tasks = chunks.iter_mut().zip(ranges(tokens, p.chunk)).collect();
            share(tasks, wave > 1, |(chunk, tokens)| {
                p.kernel.run(Load { p, chunk, head, recurrent: tokens.len() < RECURRENT, tokens })
            });
            chunks.iter_mut().for_each(|chunk| p.advance(chunk, head, &mut state));
            let tasks = chunks.iter_mut().zip(out).collect();
            share(tasks, wave > 1, |(chunk, to)| p.kernel.run(Outputs { p, chunk, head, to }));
        }
        p.write_state(&state, &mut last);
    });
}

/// Does each task, on all threads or on this one.
pub(super) fn share<I: Send>(tasks: Vec<I>, together: bool, each: impl Fn(I) + Sync + Send) {
    if together { tasks.into_par_iter().for_each(each) } else { tasks.into_iter().for_each(each) }
}

/// For each KV head and chunk, a writer for each query head.
fn writers<'o, T: Element>(p: &Linear<'_, T>, out: ViewMut<'o, T>) -> Vec<Vec<Writers<'o, T>>> {
    let s = &p.shape;
    let chunks = s.len.div_ceil(p.chunk);
    let rows = (0..s.batch * s.q_heads).flat_map(|h| ranges(h * s.len..(h + 1) * s.len, p.chunk));
    let mut all: Vec<Vec<_>> = Vec::new();
    all.resize_with(s.batch * s.kv_heads, || (0..chunks).map(|_| Vec::with_capacity(s.group())).collect());
    for (i, writer) in split(out, rows).into_iter().enumerate() {
        all[i / chunks / s.group()][i % chunks].push(writer);
    }
    all
}

impl<T: Element> Linear<'_, T> {
    /// Takes the state of a head over a chunk.
    pub(super) fn advance(&self, chunk: &mut Chunk, head: (usize, usize), state: &mut [f32]) {
        if chunk.recurrent {
            self.kernel.run(Recur { p: self, chunk, head, state });
        } else {
            let (size, corrects) = (self.sizes(self.kernel.lanes()), self.rule.corrects());
            self.kernel.run(Advance { chunk, state, size, corrects });
        }
    }

    /// The state of a head before the first token, `[d, wp]`.
    pub(super) fn state_before(&self, (b, h): (usize, usize)) -> Vec<f32> {
        let size = self.sizes(self.kernel.lanes());
        let mut state = vec![0.0; size.d * size.wp];
        if let Some(past) = &self.inputs.past {
            state.chunks_exact_mut(size.wp.max(1)).enumerate().for_each(|(d, row)| past.row_into(b, h, d, row));
        }
        state
    }

    /// Writes the rows of a state `[d, wp]`.
    pub(super) fn write_state(&self, state: &[f32], to: &mut RowWriter<'_, f32>) {
        let wp = self.shape.state_dim.next_multiple_of(self.kernel.lanes());
        to.rows().zip(state.chunks_exact(wp.max(1))).for_each(|(row, from)| to.write(row, from));
    }
}

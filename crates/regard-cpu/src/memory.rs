//! The working memory of the forward pass, predicted.

use regard_core::{Element, Kv};

use crate::block::{RowBlock, Run};
use crate::forward::band_size;
use crate::products::FEW;
use crate::scatter::RowWriter;
use crate::share::forward_threads;
use crate::tiled::amx;
use crate::walk::{row_blocks, splits_keys};
use crate::{Problem, ROWS, SPAN, TILE};

/// Bytes that the forward pass works in beside its arguments and results, where all threads are at work and everything visible is
/// finite.
///
/// Numbers of 4 bytes for each thread, with `b` blocks in a band and `w` lanes in a block:
///
/// ```text
///   b·w·(D + Dv + 2)      queries and partial softmaxes of a band
///   2·w·(Dv + 2)          those of a span, before and after it is turned
///   w·Dv                  finished rows
///   w·(TILE + 1)          scores of a tile, and what they scale the output by
///   n·(D + Dv)            n keys and values that are prepared: a tile, or a span for several blocks; no keys that are read in place
///   TILE·Dv               values on their way, where they are not read in place
///   TILE·w                scores of few rows, keys in the lanes
/// ```
/// A few rows in f32 prepare keys or values at a time, none that are read in place, and in pairs of bf16 they turn a tile of keys.
///
/// In pairs of bf16 queries, keys and values take half, and `TILE/2·(w + Dv)` is for weights and rows on their way; in the tiles of AMX
/// there is a second tile of scores, and `SPAN/2·(w + Dv)` for the weights and values of a span. Besides, a partial softmax for each span
/// of a block whose keys are shared out, and what says which block is whose.
pub fn memory<T: Element>(p: &Problem<'_, T>) -> u64 {
    let (s, threads, blocks) = (&p.shape, forward_threads(&p.shape), row_blocks(&p.shape));
    let rows = s.group() * s.q_len;
    let b = band_size(s, blocks, threads).min(rows.div_ceil(ROWS));
    let w = rows.min(ROWS).next_multiple_of(p.kernel.lanes());
    let paired = T::as_bf16(&[]).is_some() && p.kernel.pairs().is_some();
    let at_once = if b <= 1 { TILE } else { SPAN }.min(s.kv_len.next_multiple_of(TILE));
    let prepared = if in_place(p) { 0 } else { at_once };
    let softmax = w * (s.value_dim + 2);
    let few = rows <= FEW;
    let queries = b * w * s.head_dim;
    let inputs = if amx(p).is_some() {
        (queries + prepared * s.head_dim + TILE * s.value_dim + SPAN * (w + s.value_dim)) / 2 + w * TILE
    } else {
        let sides = match few && !paired {
            true => prepared * s.head_dim.max(s.value_dim),
            false => prepared * s.head_dim + at_once * s.value_dim,
        };
        let turned = if few && paired { TILE * s.head_dim } else { 0 } + if few { TILE * rows } else { 0 };
        let wide = queries + sides + turned;
        match paired {
            true => (wide + TILE * (w + s.value_dim)) / 2,
            false if few || in_place(p) => wide,
            false => wide + TILE * s.value_dim,
        }
    };
    let own = inputs + b * softmax + 2 * softmax + w * (s.value_dim + TILE + 1);
    let splits = splits_keys(s);
    let spans = (0..s.batch).filter(|&batch| splits(batch)).map(|batch| s.keys(batch).div_ceil(SPAN)).max().unwrap_or(0);
    let at_work = threads.min(blocks.div_ceil(b.max(1)).max(spans));
    let block = size_of::<RowBlock>() + 4 * size_of::<Run>() + 4 * size_of::<RowWriter<'_, T>>();
    (4 * (at_work * own + spans * softmax) + blocks * block) as u64
}

/// Whether keys, and values of few rows, are multiplied where they lie.
fn in_place<T: Element>(p: &Problem<'_, T>) -> bool {
    T::as_f32(&[]).is_some()
        && match p.kv {
            Kv::Dense { k, v } => [k, v].iter().all(|x| x.strides()[3] == 1 && x.strides()[2] >= 0),
            Kv::Paged { cache, .. } => cache.shape().page_size.is_multiple_of(TILE),
        }
}

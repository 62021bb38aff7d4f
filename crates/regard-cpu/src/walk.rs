//! The walk of the forward pass over its tiles, counted and not computed.

use regard_core::{Element, Shape, Tile};

use crate::block::{RowBlock, tiles};
use crate::rule::TileRule;
use crate::share::forward_threads;
use crate::{Problem, ROWS};

/// Tiles by what the mask does to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiles {
    /// Skipped.
    pub hidden: u64,
    /// Computed without asking the mask.
    pub clear: u64,
    /// Computed, with the mask asked for every pair.
    pub mixed: u64,
}

/// What the forward pass will meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Tiles of up to [`ROWS`] rows by [`TILE`](crate::TILE) keys.
    pub tiles: Tiles,
    /// Pairs in tiles that are not hidden.
    pub pairs: u64,
    /// Keys in tiles that some row block of their group computes.
    pub keys: u64,
}

/// Asks the mask about every tile.
pub fn walk<T: Element>(p: &Problem<'_, T>, rule: &dyn TileRule) -> Walk {
    let mut walk = Walk::default();
    let blocks = RowBlock::all(&p.shape, p.kernel.lanes());
    for group in blocks.chunk_by(|a, b| (a.batch, a.kv_head) == (b.batch, b.kv_head)) {
        for keys in tiles(0..p.shape.keys(group[0].batch)) {
            let mut read = false;
            for block in group {
                let Some(kinds) = block.tile(&p.shape, rule, &keys) else {
                    walk.tiles.hidden += 1;
                    continue;
                };
                let clear = kinds.iter().all(|(tile, _)| *tile == Tile::Clear);
                *(if clear { &mut walk.tiles.clear } else { &mut walk.tiles.mixed }) += 1;
                walk.pairs += (block.rows.len() * keys.len()) as u64;
                read = true;
            }
            walk.keys += if read { keys.len() as u64 } else { 0 };
        }
    }
    walk
}

/// Row blocks of a problem: what is shared out over threads first.
pub fn row_blocks(shape: &Shape) -> usize {
    shape.batch * shape.kv_heads * (shape.group() * shape.q_len).div_ceil(ROWS)
}

/// Whether the keys of the row blocks of a sequence are shared out too: where one block has more than half of a thread's share of the
/// work, which is rows by keys. The spans of keys are folded in order either way, so the bits are the same.
pub fn splits_keys(shape: &Shape) -> impl Fn(usize) -> bool + Sync {
    let (rows, threads) = (shape.group() * shape.q_len, forward_threads(shape));
    let share = shape.pairs() / (2 * threads);
    move |batch| threads > 1 && rows.min(ROWS).saturating_mul(shape.keys(batch)) > share
}

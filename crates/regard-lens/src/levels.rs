//! A map at several zooms.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regard::Facts;

use crate::clusters::{ALIKE, similarities};
use crate::report::{Map, Top};

/// Tokens of a text whose largest weights are kept.
const MOST_WITH_TOP: usize = 2048;

/// Rows of the finest map, at most, and the fewest of a coarser one.
pub(crate) const MOST: usize = 256;
const FEWEST: usize = 16;

/// Tokens on the edge of a cell of the finest map of `n` tokens: 1, or the smallest power of two that gives at most 256 rows.
pub(crate) fn block(n: usize) -> usize {
    n.div_ceil(MOST).next_power_of_two()
}

/// A square map of pooled weights: each cell is the mean over its rows of the mass of its keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) block: usize,
    /// Rows and columns of cells.
    pub(crate) edge: usize,
    /// Tokens.
    n: usize,
    pub(crate) cells: Vec<f32>,
}

impl Level {
    pub(crate) fn new(n: usize, block: usize, cells: Vec<f32>) -> Self {
        Level { block, edge: n.div_ceil(block), n, cells }
    }

    /// Rows of a row of cells.
    fn rows(&self, row: usize) -> usize {
        self.block.min(self.n - row * self.block)
    }

    /// The same with cells twice as large.
    fn halved(&self) -> Level {
        let edge = self.edge.div_ceil(2);
        let mut cells = vec![0.0; edge * edge];
        for (row, from) in self.cells.chunks(self.edge).enumerate() {
            let all: usize = (row / 2 * 2..(row / 2 * 2 + 2).min(self.edge)).map(|row| self.rows(row)).sum();
            let share = self.rows(row) as f32 / all as f32;
            from.iter().enumerate().for_each(|(column, x)| cells[row / 2 * edge + column / 2] += share * x);
        }
        Level { block: 2 * self.block, edge, n: self.n, cells }
    }

    /// This one, and coarser ones down to 16 rows.
    pub(crate) fn pyramid(self) -> Vec<Level> {
        let mut all = vec![self];
        loop {
            let last = &all[all.len() - 1];
            if last.edge.div_ceil(2) < FEWEST {
                return all;
            }
            let coarser = last.halved();
            all.push(coarser);
        }
    }

    /// The mean mass that a key of each column receives in all.
    pub(crate) fn received(&self) -> impl Iterator<Item = f32> + '_ {
        let mass = |row: usize, column: usize| self.rows(row) as f32 * self.cells[row * self.edge + column];
        (0..self.edge).map(move |column| (0..self.edge).map(|row| mass(row, column)).sum::<f32>() / self.rows(column) as f32)
    }

    pub(crate) fn map(&self) -> Map {
        Map { block: self.block, rows: self.edge, columns: self.edge, data: encoded(&self.cells) }
    }
}

/// The cells of a map as [`Map::data`].
pub(crate) fn encoded(cells: &[f32]) -> String {
    let bytes: Vec<u8> = cells.iter().map(|mass| (255.0 * mass.clamp(0.0, 1.0).sqrt()).round() as u8).collect();
    STANDARD.encode(bytes)
}

/// The largest weights of a head in a text of `n` tokens, where it is short enough.
pub(crate) fn top(facts: &Facts, (head, n): (usize, usize)) -> Option<Top> {
    let rows = n * facts.top_weights.shape()[3];
    let (keys, weights) = (&facts.top_keys[head * rows..][..rows], &facts.top_weights.data()[head * rows..][..rows]);
    let top =
        || Top { keys: words(keys.iter().map(|key| key.to_le_bytes())), weights: words(weights.iter().map(|p| p.to_le_bytes())) };
    (n <= MOST_WITH_TOP).then(top)
}

/// How alike any two heads are, by the finest of their maps of at most 32 rows, or the coarsest.
pub(crate) fn alike(heads: &[&[Level]]) -> Vec<Vec<f64>> {
    let level = |levels: &[Level]| levels.iter().position(|level| level.edge <= 32).unwrap_or(levels.len() - 1);
    let maps: Vec<_> = heads.iter().map(|levels| &levels[level(levels)]).collect();
    let edge = maps.first().map_or(1, |map| map.edge);
    let cells: Vec<&[f32]> = maps.iter().map(|map| &map.cells[..]).collect();
    similarities(&cells, edge)
}

/// What holds for every report: a sentence for what is pooled.
pub(crate) fn labels(tokens: usize) -> Vec<String> {
    let mut labels = vec![
        "Attention weights show where a head reads; they do not explain what the model does with it.".to_owned(),
        format!("Heads of one cluster are alike on pooled maps of the first text (Jensen-Shannon similarity of at least {ALIKE})."),
    ];
    let block = block(tokens);
    if block > 1 {
        labels.push(format!("Maps of the first text are pooled: the finest has {block} by {block} tokens in a cell."));
    }
    labels
}

/// Base64 of little-endian words.
fn words(words: impl Iterator<Item = [u8; 4]>) -> String {
    STANDARD.encode(words.flatten().collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finest_map_has_at_most_256_rows() {
        assert_eq!([2, 256, 257, 512, 513, 100_000].map(block), [1, 1, 2, 2, 4, 512]);
    }

    /// Rows of weights that sum to 1 do so at every zoom, and a cell is the mean of its rows.
    #[test]
    fn coarser_cells_are_means_of_rows_and_sums_of_keys() {
        let n = 37;
        let weight = |q: usize, k: usize| if k <= q { 1.0 / (q + 1) as f32 } else { 0.0 };
        let cells = (0..n * n).map(|i| weight(i / n, i % n)).collect();
        let levels = Level::new(n, 1, cells).pyramid();
        assert_eq!(levels.iter().map(|level| (level.block, level.edge)).collect::<Vec<_>>(), [(1, 37), (2, 19)]);
        for level in &levels {
            for (i, cell) in level.cells.iter().enumerate() {
                let block = |i: usize| i * level.block..((i + 1) * level.block).min(n);
                let (rows, keys) = (block(i / level.edge), block(i % level.edge));
                let sum: f32 = rows.clone().flat_map(|q| keys.clone().map(move |k| weight(q, k))).sum();
                assert!((cell - sum / rows.len() as f32).abs() < 1e-6, "cell {i} of blocks of {}", level.block);
            }
        }
    }

    /// In 3 tokens pooled by 2, key 0 receives 1 + ½ + ⅓, key 1 ½ + ⅓, key 2 ⅓.
    #[test]
    fn a_key_receives_from_all_rows() {
        let weights = [1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0];
        let fine = Level::new(3, 1, weights.to_vec());
        let coarse = fine.halved();
        let close = |level: &Level, needed: &[f32]| level.received().zip(needed).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&fine, &[11.0 / 6.0, 5.0 / 6.0, 1.0 / 3.0]) && close(&coarse, &[8.0 / 6.0, 1.0 / 3.0]));
    }

    #[test]
    fn a_byte_is_the_root_of_the_mass() {
        let map = Level::new(2, 1, vec![1.0, 0.0, 0.25, 0.75]).map();
        assert_eq!(STANDARD.decode(map.data).unwrap(), [255, 0, 128, 221]);
    }
}

//! A product of whole tiles, sixteen by sixteen: what AMX computes.

use super::Pair;

/// Rows, columns and pairs of a tile register.
pub(crate) const SIDE: usize = 16;

/// A factor in tiles of sixteen rows of sixteen pairs that follow each other: of `A` rows are rows and pairs are steps of `k`, of `B`
/// rows are steps and pairs are columns.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    pub(crate) data: &'a [Pair],
    /// From one row of a tile to the next.
    pub(crate) row: usize,
    /// From the tile of sixteen rows of `A`, or columns of `B`, to that of the next sixteen.
    pub(crate) block: usize,
    /// From the tile of sixteen steps of `k` to that of the next sixteen.
    pub(crate) step: usize,
    /// How far ahead of a tile is what will be read soon, where that is worth asking for; else 0.
    pub(crate) ahead: usize,
}

impl Factor<'_> {
    /// Checks that every index stays inside the slice.
    #[inline(always)]
    pub(super) fn check(&self, blocks: usize, steps: usize) {
        let last = (blocks - 1) * self.block + (steps - 1) * self.step + (SIDE - 1) * self.row + SIDE;
        assert!(self.data.len() >= last);
    }
}

/// `C = A·B`, or `C += A·B`, where rows of `C` are dense. Sizes count tiles.
pub(crate) struct TileProduct<'a> {
    pub(crate) a: Factor<'a>,
    pub(crate) b: Factor<'a>,
    pub(crate) c: &'a mut [f32],
    /// From one row of `C` to the next.
    pub(crate) c_row: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) steps: usize,
    /// Whether to add to what `C` holds.
    pub(crate) add: bool,
    /// Whether a factor of zero hides the other factor, even NaN: exact, and slow.
    pub(crate) careful: bool,
}

impl TileProduct<'_> {
    /// Checks that every index stays inside its slice; there are rows and columns.
    #[inline(always)]
    pub(super) fn check(&self) {
        assert!(self.c.len() >= (self.rows * SIDE - 1) * self.c_row + self.columns * SIDE);
        if self.steps > 0 {
            self.a.check(self.rows, self.steps);
            self.b.check(self.columns, self.steps);
        }
    }
}

/// What other units of the machine may do while tiles are multiplied.
pub(crate) trait Meanwhile {
    /// Some of it: about as much as takes as long as a product of two tiles. `#[inline(always)]`.
    fn a_little(&mut self);
}

/// Nothing else.
impl Meanwhile for () {
    #[inline(always)]
    fn a_little(&mut self) {}
}

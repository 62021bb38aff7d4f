//! What a kernel may ask of a vector of f32, and the instruction sets that answer. Unsafe room 1.
#![allow(unsafe_code)]

use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod few;
pub(crate) mod pairs;
mod product;
pub(crate) mod scalar;
mod tile;
mod transpose;
mod weigh;

pub(crate) use few::FewScores;
pub(crate) use pairs::{Amx, Pair, Pairs, Session, Tiles, pair_neighbours};
pub(crate) use product::{InPanels, Product, RowProduct};
pub(crate) use tile::{Factor, Meanwhile, SIDE, TileProduct};
pub(crate) use transpose::Transpose;
pub(crate) use weigh::Weigh;

/// A piece of work that is compiled once for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Task {
    /// What the work returns.
    type Out;

    /// Does the work with the vectors of `v`.
    fn run<V: Vector>(self, v: V) -> Self::Out;
}

/// Vectors of one instruction set. Holding a value is the proof that the machine has it.
pub(crate) trait Vector: Copy + Send + Sync {
    /// `LANES` numbers.
    type F: Copy;

    /// Numbers in a vector; divides [`crate::ROWS`].
    const LANES: usize;

    /// Vectors side by side in a block of a matrix product, so that its accumulators fill the registers.
    const PANEL: usize;

    /// Runs a task as a function of its own, compiled for this instruction set.
    fn call<T: Task>(self, task: T) -> T::Out;

    /// Every lane is `x`.
    fn splat(self, x: f32) -> Self::F;

    /// # Safety
    /// `from` is valid for reading `LANES` numbers.
    unsafe fn load_raw(self, from: *const f32) -> Self::F;

    /// Numbers in bf16, which is the upper half of an f32.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` numbers.
    unsafe fn widen_raw(self, from: *const bf16) -> Self::F;

    /// # Safety
    /// `to` is valid for writing `LANES` numbers.
    unsafe fn store_raw(self, x: Self::F, to: *mut f32);

    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a − b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a · b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;

    /// `a · b + c`
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;

    /// The larger of the two; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    /// `x < limit ? a : b`, lane by lane; `b` where `x` is NaN.
    fn select_below(self, x: Self::F, limit: Self::F, a: Self::F, b: Self::F) -> Self::F;

    /// `x = 0 ? a : b`, lane by lane.
    fn select_zero(self, x: Self::F, a: Self::F, b: Self::F) -> Self::F;

    /// `y · 2ⁿ`, and 0 where `x < low`, lane by lane, for an integral `n`, −126 ≤ n ≤ 127, given as `n + `[`ROUND`](crate::exp::ROUND): its
    /// lowest bits are those of `n`.
    fn scale_above(self, x: Self::F, low: Self::F, y: Self::F, n: Self::F) -> Self::F;

    /// `y − ⌊y⌋`; of −∞ something that [`Vector::scale_by_floor`] makes 0.
    #[inline(always)]
    fn above_floor(self, y: Self::F) -> Self::F {
        self.sub(y, floor(self, y))
    }

    /// `x · 2^⌊y⌋` for y ≤ 127; 0 for −∞, and perhaps for y < −126.
    #[inline(always)]
    fn scale_by_floor(self, x: Self::F, y: Self::F) -> Self::F {
        self.scale_above(y, self.splat(-126.0), x, self.add(floor(self, y), self.splat(crate::exp::ROUND)))
    }

    /// The bits of pairs of bf16, of which `a` gives the first and `b` the second: rounded to nearest, ties away from zero. NaN stays NaN,
    /// where it comes of arithmetic.
    fn pair(self, a: Self::F, b: Self::F) -> Self::F;

    /// Writes the transpose of a block of `LANES` by `LANES` numbers; rows are `from_row` and `to_row` apart.
    ///
    /// # Safety
    /// Every row of `from` is valid for reading, every row of `to` for writing, `LANES` numbers, and the two do not overlap.
    #[inline(always)]
    unsafe fn transpose_raw(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: rows and columns are below `LANES`; the rest is the caller's promise.
                unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) };
            }
        }
    }

    /// Asks for the memory of a slice, which will be read soon.
    #[inline(always)]
    fn prefetch<T>(self, _soon: &[T]) {}

    /// The first `LANES` numbers of a slice.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice holds `LANES` numbers.
        unsafe { self.load_raw(from.as_ptr()) }
    }

    /// Writes the first `LANES` numbers of a slice.
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice holds `LANES` numbers.
        unsafe { self.store_raw(x, to.as_mut_ptr()) }
    }
}

/// `⌊y⌋`, or `y − 1` where `y` is a whole number.
#[inline(always)]
fn floor<V: Vector>(v: V, y: V::F) -> V::F {
    let round = v.splat(crate::exp::ROUND);
    v.sub(v.add(v.sub(y, v.splat(0.5)), round), round)
}

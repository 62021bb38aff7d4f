//! The one matrix product that attention is made of.
#![allow(unsafe_code)]

use half::bf16;

use super::{Task, Vector};

/// A factor of a [`Product`]: an f32, or a pair of numbers whose two products are added at once.
pub(crate) trait Number<V: Vector>: Copy {
    /// As many factors as a vector has lanes.
    type Lanes: Copy;

    /// Every lane is `self`.
    fn splat(self, v: V) -> Self::Lanes;

    /// # Safety
    /// `from` is valid for reading `V::LANES` factors.
    unsafe fn load_raw(v: V, from: *const Self) -> Self::Lanes;

    /// `c + a·b`
    fn mul_add(v: V, a: Self::Lanes, b: Self::Lanes, c: V::F) -> V::F;

    /// The same, where a factor of zero hides the other one, even NaN.
    fn mul_add_hiding(v: V, a: Self::Lanes, b: Self::Lanes, c: V::F) -> V::F;
}

impl<V: Vector> Number<V> for f32 {
    type Lanes = V::F;

    #[inline(always)]
    fn splat(self, v: V) -> V::F {
        v.splat(self)
    }

    #[inline(always)]
    unsafe fn load_raw(v: V, from: *const f32) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { v.load_raw(from) }
    }

    #[inline(always)]
    fn mul_add(v: V, a: V::F, b: V::F, c: V::F) -> V::F {
        v.mul_add(a, b, c)
    }

    #[inline(always)]
    fn mul_add_hiding(v: V, a: V::F, b: V::F, c: V::F) -> V::F {
        v.select_zero(a, c, v.select_zero(b, c, v.mul_add(a, b, c)))
    }
}

/// How the factors of `B` lie in memory: as they are multiplied, or in bf16, widened as they are read.
pub(crate) trait Stored<V: Vector, N: Number<V>>: Copy {
    /// # Safety
    /// `from` is valid for reading `V::LANES` of them.
    unsafe fn lanes(v: V, from: *const Self) -> N::Lanes;
}

impl<V: Vector, N: Number<V>> Stored<V, N> for N {
    #[inline(always)]
    unsafe fn lanes(v: V, from: *const N) -> N::Lanes {
        // SAFETY: the caller's promise.
        unsafe { N::load_raw(v, from) }
    }
}

impl<V: Vector> Stored<V, f32> for bf16 {
    #[inline(always)]
    unsafe fn lanes(v: V, from: *const bf16) -> V::F {
        // SAFETY: the caller's promise.
        unsafe { v.widen_raw(from) }
    }
}

/// `C = A·B`, or `C += A·B`, where `C` is `[m, n]`, `A` is `[m, k]` with any strides and `B` is `[k, n]`, rows of both dense.
///
/// Every element of `C` is one chain of multiply-adds in order of `k`, whatever the block it falls in: the same bits for any
/// `m` and `n`. `A` is read one number at a time, so keys and values need no packing.
pub(crate) struct Product<'a, N = f32, B = N> {
    /// `[m, k]`: element `(i, j)` is `a[i · a_row + j · a_column]`.
    pub(crate) a: &'a [N],
    pub(crate) a_row: usize,
    pub(crate) a_column: usize,
    /// `[k, n]`: rows `b_row` apart.
    pub(crate) b: &'a [B],
    pub(crate) b_row: usize,
    /// `[m, n]`: rows `c_row` apart.
    pub(crate) c: &'a mut [f32],
    pub(crate) c_row: usize,
    pub(crate) m: usize,
    /// A multiple of the lanes.
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Whether to add to what `C` holds.
    pub(crate) add: bool,
    /// Whether a factor of zero hides the other factor, even NaN: exact, and slow.
    pub(crate) careful: bool,
}

impl<N, B> Product<'_, N, B> {
    /// Checks that every index stays inside its slice.
    #[inline(always)]
    pub(super) fn check(&self, lanes: usize) {
        let Product { m, n, k, .. } = *self;
        assert!(n.is_multiple_of(lanes) && self.c.len() >= (m - 1) * self.c_row + n);
        if k > 0 {
            assert!(self.a.len() > (m - 1) * self.a_row + (k - 1) * self.a_column);
            assert!(self.b.len() >= (k - 1) * self.b_row + n);
        }
    }

    /// Columns `j..j + P·LANES`, all rows, in blocks as tall as the registers allow.
    #[inline(always)]
    fn panel<V: Vector, const P: usize>(&mut self, v: V, j: usize)
    where
        N: Number<V>,
        B: Stored<V, N>,
    {
        let mut i = 0;
        while i < self.m {
            i += match self.m - i {
                12.. if P == 1 => self.block::<V, P, 12>(v, i, j),
                6.. => self.block::<V, P, 6>(v, i, j),
                4.. => self.block::<V, P, 4>(v, i, j),
                2.. => self.block::<V, P, 2>(v, i, j),
                _ => self.block::<V, P, 1>(v, i, j),
            }
        }
    }

    /// Rows `i..i + R` of columns `j..j + P·LANES`, in registers. Returns `R`.
    #[inline(always)]
    fn block<V: Vector, const P: usize, const R: usize>(&mut self, v: V, i: usize, j: usize) -> usize
    where
        N: Number<V>,
        B: Stored<V, N>,
    {
        debug_assert!(i + R <= self.m && j + P * V::LANES <= self.n);
        let mut sum = [[v.splat(0.0); P]; R];
        // SAFETY: `i + R <= m` and `j + P·LANES <= n`, and `check` found every such index inside its slice.
        unsafe {
            let c = self.c.as_mut_ptr().add(i * self.c_row + j);
            if self.add {
                for (r, row) in sum.iter_mut().enumerate() {
                    for (p, x) in row.iter_mut().enumerate() {
                        *x = v.load_raw(c.add(r * self.c_row + p * V::LANES));
                    }
                }
            }
            let mut a = self.a.as_ptr().wrapping_add(i * self.a_row);
            let mut b = self.b.as_ptr().wrapping_add(j);
            for _ in 0..self.k {
                let mut row = [B::lanes(v, b); P];
                for (p, x) in row.iter_mut().enumerate().skip(1) {
                    *x = B::lanes(v, b.add(p * V::LANES));
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = (*a.add(r * self.a_row)).splat(v);
                    for (s, &y) in sum.iter_mut().zip(&row) {
                        *s = N::mul_add(v, x, y, *s); // C += a ⊗ b
                    }
                }
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.b_row);
            }
            for (r, row) in sum.iter().enumerate() {
                for (p, &x) in row.iter().enumerate() {
                    v.store_raw(x, c.add(r * self.c_row + p * V::LANES));
                }
            }
        }
        R
    }

    /// The same chains, skipping every step with a factor of zero.
    #[inline(always)]
    fn careful<V: Vector>(&mut self, v: V)
    where
        N: Number<V>,
        B: Stored<V, N>,
    {
        for i in 0..self.m {
            for j in (0..self.n).step_by(V::LANES) {
                let c = &mut self.c[i * self.c_row + j..];
                let mut sum = if self.add { v.load(c) } else { v.splat(0.0) };
                for k in 0..self.k {
                    let x = self.a[i * self.a_row + k * self.a_column].splat(v);
                    let b = &self.b[k * self.b_row + j..][..V::LANES];
                    // SAFETY: the slice holds `LANES` factors.
                    let y = unsafe { B::lanes(v, b.as_ptr()) };
                    sum = N::mul_add_hiding(v, x, y, sum);
                }
                v.store(sum, c);
            }
        }
    }

    /// Computes it.
    #[inline(always)]
    pub(crate) fn multiply<V: Vector>(mut self, v: V)
    where
        N: Number<V>,
        B: Stored<V, N>,
    {
        if self.m == 0 || self.n == 0 {
            return;
        }
        self.check(V::LANES);
        if self.careful {
            return self.careful(v);
        }
        let mut j = 0;
        while self.m == 1 && self.n - j >= 8 * V::LANES && V::PANEL == 4 {
            self.panel::<V, 8>(v, j); // one row has registers for more columns
            j += 8 * V::LANES;
        }
        while j < self.n {
            match ((self.n - j) / V::LANES).min(V::PANEL) {
                4 => self.panel::<V, 4>(v, j),
                3 => self.panel::<V, 3>(v, j),
                2 => self.panel::<V, 2>(v, j),
                _ => self.panel::<V, 1>(v, j),
            }
            j += ((self.n - j) / V::LANES).min(V::PANEL) * V::LANES;
        }
    }
}

impl Task for Product<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.multiply(v);
    }
}

/// A [`Product`] whose `B` lies in panels of as many columns as a block takes, `[panels, k, PANEL·LANES]`, the last one as narrow as it is;
/// `b_row` is of no account. The rows of a panel are neighbours: those of a matrix whose width is a power of two lie where the first-level
/// cache has few places for them.
pub(crate) struct InPanels<'a>(pub(crate) Product<'a>);

impl Task for InPanels<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let InPanels(Product { a, a_row, a_column, b, c, c_row, m, n, k, add, careful, .. }) = self;
        for j in (0..n).step_by(V::PANEL * V::LANES) {
            let (n, c) = ((n - j).min(V::PANEL * V::LANES), &mut c[j..]);
            Product { a, a_row, a_column, b: &b[j * k..], b_row: n, c, c_row, m, n, k, add, careful }.multiply(v);
        }
    }
}

impl Task for Product<'_, f32, bf16> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.multiply(v);
    }
}

/// `c = x·B` of one row and the panels of `B` that follow each other, each `[k, PANEL·LANES]`: the chains of a [`Product`], eight vectors
/// of them at a time. With one panel's, each step would wait for the one before, and not for the memory.
pub(crate) struct RowProduct<'a, B> {
    /// `[k]`
    pub(crate) x: &'a [f32],
    /// `8 / PANEL` panels.
    pub(crate) b: &'a [B],
    /// `[8·LANES]`
    pub(crate) c: &'a mut [f32],
}

impl<B> RowProduct<'_, B> {
    #[inline(always)]
    fn multiply<V: Vector, const PANELS: usize, const P: usize>(self, v: V)
    where
        B: Stored<V, f32>,
    {
        let RowProduct { x, b, c } = self;
        let (k, width) = (x.len(), P * V::LANES);
        assert!(b.len() >= PANELS * k * width && c.len() >= PANELS * width);
        let mut sum = [[v.splat(0.0); P]; PANELS];
        for (i, &x) in x.iter().enumerate() {
            let x = v.splat(x);
            for (panel, sum) in sum.iter_mut().enumerate() {
                for (p, s) in sum.iter_mut().enumerate() {
                    // SAFETY: `i < k`, and the slice holds `PANELS · k · width` factors.
                    let y = unsafe { B::lanes(v, b.as_ptr().add((panel * k + i) * width + p * V::LANES)) };
                    *s = v.mul_add(x, y, *s);
                }
            }
        }
        for (sum, c) in sum.into_iter().zip(c.chunks_exact_mut(width)) {
            sum.into_iter().zip(c.chunks_exact_mut(V::LANES)).for_each(|(s, c)| v.store(s, c));
        }
    }

    #[inline(always)]
    fn panels<V: Vector>(self, v: V)
    where
        B: Stored<V, f32>,
    {
        const { assert!(V::PANEL == 2 || V::PANEL == 4) };
        if V::PANEL == 4 { self.multiply::<V, 2, 4>(v) } else { self.multiply::<V, 4, 2>(v) }
    }
}

impl Task for RowProduct<'_, f32> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.panels(v);
    }
}

impl Task for RowProduct<'_, bf16> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        self.panels(v);
    }
}

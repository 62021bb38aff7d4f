//! Weights in panels of neighbouring outputs, in the order in which a kernel multiplies with them.

use std::cell::Cell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;
use regard_core::Element;

use crate::Kernel;
use crate::lines::Lines;
use crate::simd::{
    Factor, Meanwhile, Pair, Pairs, Product, RowProduct, SIDE, Session, Task, TileProduct, Tiles, Vector, pair_neighbours,
};

/// Weights `[outputs, inputs]` in panels of `width` outputs; the last one is filled up with zeros.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    weights: Weights,
    inputs: usize,
    width: usize,
    /// Outputs of a part of a panel.
    part: usize,
    kernel: Kernel,
}

/// Panels one after another, each of parts, each `[depth, part]`: a row alone is multiplied with all parts side by side.
#[derive(Clone, Debug)]
enum Weights {
    F32(Lines<f32>),
    Bf16(Lines<bf16>),
    /// Pairs of inputs, a panel being one part; for AMX in tiles of 1 KiB, `[depth / 16, 2, 16, 16]`: a panel is two tiles wide.
    Paired(Pairs, Lines<Pair>),
}

/// Rows of `X` as panels are multiplied with.
pub(super) struct Rows<'a> {
    n: usize,
    /// Tiles of inputs.
    steps: usize,
    wide: &'a [f32],
    /// `[n, depth]`, and for AMX in tiles `[⌈n / 16⌉, depth / 16, 16, 16]`, where the weights are pairs.
    pairs: Lines<Pair>,
}

thread_local! {
    /// Memory for pairs, which one product after another takes: new memory would be zeroed each time.
    static PAIRS: Cell<Lines<Pair>> = Cell::default();
    /// Memory for a widened panel, likewise.
    static WIDE: Cell<Lines<f32>> = Cell::default();
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        let (mine, other) = (std::mem::take(&mut self.pairs), PAIRS.take());
        PAIRS.set(if mine.len() > other.len() { mine } else { other });
    }
}

/// Pairs of a tile.
const TILE: usize = SIDE * SIDE;

/// Rows that [`Product`] keeps in registers: a panel in bf16 is widened as it is read, once for so many. For more it is widened before.
const FEW: usize = 6;

/// Tiles of inputs that a panel multiplies all rows with before the next ones: so many stay in the first-level cache.
const STEPS: usize = 8;

impl Rows<'_> {
    /// How many there are.
    pub(super) fn n(&self) -> usize {
        self.n
    }
}

impl Panels {
    /// Packs row-major weights for a kernel.
    pub(super) fn new<T: Element>(weight: &[T], outputs: usize, inputs: usize, kernel: Kernel) -> Self {
        let pairs = kernel.pairs().filter(|_| T::as_bf16(&[]).is_some());
        let tiled = pairs.is_some_and(|pairs| pairs.amx().is_some());
        let (part, parts) = (kernel.panel(), 8 * kernel.lanes() / kernel.panel()); // as many as a `RowProduct` reads
        let (width, part) = match (tiled, pairs) {
            (true, _) => (2 * SIDE, 2 * SIDE),
            (_, Some(_)) => (part, part),
            (_, None) => (parts * part, part),
        };
        let size = (outputs, inputs, width);
        let plain = |d: usize, column: usize| (column / part * inputs + d) * part + column % part;
        let weights = match (T::as_bf16(weight), pairs) {
            (Some(weight), Some(pairs)) => {
                let pair = |two: &[bf16]| Pair::new(two[0], two.get(1).copied().unwrap_or_default());
                Weights::Paired(
                    pairs,
                    pack(weight, size, pairs.depth(inputs), (2, pair), |d, column| place(tiled, width, d, column)),
                )
            }
            (Some(weight), None) => Weights::Bf16(pack(weight, size, inputs, (1, |x| x[0]), plain)),
            (None, _) => Weights::F32(pack(weight, size, inputs, (1, |x| x[0].to_f32()), plain)),
        };
        Panels { weights, inputs, width, part, kernel }
    }

    /// Whether rows for these are rows for `other`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.inputs, self.width, self.kernel.name()) == (other.inputs, other.width, other.kernel.name())
    }

    pub(super) fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Elements of a row of `X`.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Rows that are multiplied together.
    pub(super) fn rows_in_a_block(&self) -> usize {
        if self.tiled() { SIDE } else { FEW }
    }

    /// Rows of `n` whose sums are put away together: with AMX, while the first-level cache holds them; else all, as a panel is widened for
    /// each time.
    pub(super) fn rows_at_end(&self, n: usize) -> usize {
        if self.tiled() { 2 * SIDE } else { n.max(1) }
    }

    /// Row `output` of the weights, widened.
    pub(super) fn row(&self, output: usize, to: &mut [f32]) {
        let (panel, column) = (self.range(output / self.width), output % self.width);
        match &self.weights {
            Weights::F32(data) => self.column(&data[panel], column).zip(to).for_each(|(x, to)| *to = *x),
            Weights::Bf16(data) => self.column(&data[panel], column).zip(to).for_each(|(x, to)| *to = x.to_f32()),
            Weights::Paired(_, data) => to.chunks_mut(2).enumerate().for_each(|(d, to)| {
                let pair = data[panel.clone()][place(self.tiled(), self.width, d, column)];
                to.iter_mut().zip(pair.both()).for_each(|(to, x)| *to = x.to_f32());
            }),
        }
    }

    /// The weights of an output in a panel.
    fn column<'a, N>(&self, panel: &'a [N], column: usize) -> impl Iterator<Item = &'a N> {
        let part = self.part;
        panel.iter().skip(column / part * self.inputs * part + column % part).step_by(part).take(self.inputs)
    }

    /// Whether the weights are tiles of AMX.
    fn tiled(&self) -> bool {
        matches!(self.weights, Weights::Paired(pairs, _) if pairs.amx().is_some())
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(data) => size_of_val(&data[..]),
            Weights::Bf16(data) => size_of_val(&data[..]),
            Weights::Paired(_, data) => size_of_val(&data[..]),
        }
    }

    /// Where a panel lies.
    fn range(&self, panel: usize) -> Range<usize> {
        let depth = match self.weights {
            Weights::F32(_) | Weights::Bf16(_) => self.inputs,
            Weights::Paired(pairs, _) => pairs.depth(self.inputs),
        };
        let size = depth * self.width;
        panel * size..(panel + 1) * size
    }

    /// `n` rows of `X`, which lie `[n, inputs]`.
    pub(super) fn rows<'a>(&self, wide: &'a [f32], n: usize) -> Rows<'a> {
        let steps = self.inputs.div_ceil(2 * SIDE);
        let Weights::Paired(kind, _) = self.weights else { return Rows { n, steps, wide, pairs: Lines::default() } };
        let (depth, tiled) = (kind.depth(self.inputs), self.tiled());
        let mut pairs = PAIRS.take();
        pairs.room(if tiled { n.next_multiple_of(SIDE) } else { n } * depth);
        let rows = wide.chunks_exact(self.inputs.max(1)).take(n);
        self.kernel.run(Narrow { rows, pairs: &mut pairs, depth, tiled });
        Rows { n, steps, wide, pairs }
    }

    /// Begins to multiply, in this thread.
    pub(super) fn open(&self) -> Option<Session> {
        match &self.weights {
            Weights::F32(_) | Weights::Bf16(_) => None,
            Weights::Paired(pairs, _) => Some(pairs.open()),
        }
    }

    /// The first part of the sums of a panel, `[n, width]`; [`Panels::end`] adds the rest.
    pub(super) fn begin(&self, session: Option<&Session>, panel: usize, x: &Rows<'_>, c: &mut [f32]) {
        if let (Weights::Paired(_, data), Some(tiles)) = (&self.weights, session.and_then(Session::tiles)) {
            let (panel, last, rows) = (&data[self.range(panel)], self.last_steps(), 0..x.n);
            for first in (0..last.start).step_by(STEPS) {
                let steps = first..first + STEPS;
                self.kernel.run(Tiled { tiles, x, panel, c, steps, rows: rows.clone(), to: Soon::default() });
            }
        }
    }

    /// Some rows of `X·Wᵀ` of a panel; the block has room for whole tiles of rows. `to` is where they will go.
    pub(super) fn end(
        &self,
        session: Option<&Session>,
        panel: usize,
        x: &Rows<'_>,
        rows: Range<usize>,
        c: &mut [f32],
        to: Soon<'_>,
    ) {
        let (range, width, m) = (self.range(panel), self.width, rows.len());
        let wide = &x.wide[rows.start * self.inputs..];
        match (&self.weights, session) {
            (Weights::Paired(pairs, data), Some(session)) => match session.tiles() {
                Some(tiles) => self.kernel.run(Tiled { tiles, x, panel: &data[range], c, steps: self.last_steps(), rows, to }),
                None => session.multiply(product(&x.pairs[rows.start * pairs.depth(self.inputs)..], &data[range], c, m, width)),
            },
            (Weights::F32(data), _) => self.plain(wide, &data[range], c, m),
            (Weights::Bf16(data), _) if m <= FEW => self.plain(wide, &data[range], c, m),
            (Weights::Bf16(data), _) => self.parts(&data[range], |part, at| {
                let mut held = WIDE.take();
                let to = held.room(part.len());
                self.kernel.run(Widen { from: part, to });
                self.kernel.run(Product { c_row: width, ..product(wide, to, &mut c[at..], m, self.part) });
                WIDE.set(held);
            }),
            (Weights::Paired(..), None) => {}
        }
    }

    /// `C = X·W` of a panel as it lies in memory.
    fn plain<B>(&self, x: &[f32], panel: &[B], c: &mut [f32], m: usize)
    where
        for<'a> Product<'a, f32, B>: Task<Out = ()>,
        for<'a> RowProduct<'a, B>: Task<Out = ()>,
    {
        if m == 1 {
            return self.kernel.run(RowProduct { x: &x[..self.inputs], b: panel, c });
        }
        self.parts(panel, |part, at| {
            self.kernel.run(Product { c_row: self.width, ..product(x, part, &mut c[at..], m, self.part) });
        });
    }

    /// The parts of a panel, and the column of each.
    fn parts<N>(&self, panel: &[N], mut f: impl FnMut(&[N], usize)) {
        let size = self.inputs * self.part;
        (0..self.width / self.part).for_each(|i| f(&panel[i * size..(i + 1) * size], i * self.part));
    }

    /// The tiles of inputs that [`Panels::end`] multiplies with.
    fn last_steps(&self) -> Range<usize> {
        let all = self.inputs.div_ceil(2 * SIDE);
        all.saturating_sub(1) / STEPS * STEPS..all
    }
}

/// Rows of `X` to pairs, rounded to nearest even; what is beyond a row is zero.
struct Narrow<'a, R> {
    rows: R,
    pairs: &'a mut [Pair],
    depth: usize,
    tiled: bool,
}

impl<'a, R: Iterator<Item = &'a [f32]>> Task for Narrow<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Narrow { rows, pairs, depth, tiled } = self;
        for (i, row) in rows.enumerate() {
            let (first, step) = if tiled { (i / SIDE * SIDE * depth + i % SIDE * SIDE, TILE) } else { (i * depth, SIDE) };
            for (part, numbers) in row.chunks(2 * SIDE).enumerate() {
                let to = &mut pairs[first + part * step..][..SIDE.min(depth - part * SIDE)];
                pair_neighbours(numbers, to);
                if numbers.len() < 2 * SIDE {
                    to[numbers.len() / 2..].fill(Pair::default());
                    if let [.., last] = numbers
                        && numbers.len() % 2 == 1
                    {
                        to[numbers.len() / 2] = Pair::new(bf16::from_f32(*last), bf16::ZERO);
                    }
                }
            }
        }
    }
}

/// A panel in f32.
struct Widen<'a> {
    from: &'a [bf16],
    to: &'a mut [f32],
}

impl Task for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        bf16::widen(self.from, self.to);
    }
}

/// Rows that will be written soon: the first-level cache gets them in the meantime.
#[derive(Clone, Copy, Default)]
pub(super) struct Soon<'a> {
    pub(super) rows: &'a [f32],
    pub(super) stride: usize,
    pub(super) columns: usize,
}

/// [`Soon`], row by row.
struct Asking<'a, V> {
    v: V,
    soon: Soon<'a>,
}

impl<V: Vector> Meanwhile for Asking<'_, V> {
    #[inline(always)]
    fn a_little(&mut self) {
        let Soon { rows, stride, columns } = &mut self.soon;
        if *columns > 0 && rows.len() >= *columns {
            self.v.prefetch(&rows[..*columns]);
            *rows = rows.get(*stride..).unwrap_or_default();
        }
    }
}

/// `C += X·W` of some rows and steps, in the tiles of AMX.
struct Tiled<'a> {
    tiles: &'a Tiles,
    x: &'a Rows<'a>,
    panel: &'a [Pair],
    c: &'a mut [f32],
    steps: Range<usize>,
    rows: Range<usize>,
    to: Soon<'a>,
}

impl Task for Tiled<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Tiled { tiles, x, panel, c, steps, rows, to } = self;
        let block = x.steps * TILE;
        let first = rows.start / SIDE * block + steps.start * TILE;
        let a = Factor { data: &x.pairs[first..], row: SIDE, block, step: TILE, ahead: 0 };
        let b = Factor { data: &panel[steps.start * 2 * TILE..], row: SIDE, block: TILE, step: 2 * TILE, ahead: 0 };
        let (rows, columns, add, steps) = (rows.len().div_ceil(SIDE), 2, steps.start > 0, steps.len());
        let product = TileProduct { a, b, c, c_row: 2 * SIDE, rows, columns, steps, add, careful: false };
        tiles.product(product, &mut Asking { v, soon: to });
    }
}

/// Where the factor of a depth and a column lies in a panel.
fn place(tiled: bool, width: usize, d: usize, column: usize) -> usize {
    if tiled { (d / SIDE * 2 + column / SIDE) * TILE + d % SIDE * SIDE + column % SIDE } else { d * width + column }
}

/// Panels of weights `[outputs, inputs]`: `factor` is made of `group` neighbours and lies at `place(depth, column)`.
fn pack<T: Element, N: Copy + Default + Send>(
    weight: &[T],
    (outputs, inputs, width): (usize, usize, usize),
    depth: usize,
    (group, factor): (usize, impl Fn(&[T]) -> N + Sync),
    place: impl Fn(usize, usize) -> usize + Sync,
) -> Lines<N> {
    let mut data = Lines::zeros(outputs.div_ceil(width) * width * depth);
    data.par_chunks_mut((depth * width).max(1)).enumerate().for_each(|(panel, to)| {
        let rows = weight.chunks_exact(inputs.max(1)).skip(panel * width).take(width);
        for (column, row) in rows.enumerate() {
            row.chunks(group).enumerate().for_each(|(d, x)| to[place(d, column)] = factor(x));
        }
    });
    data
}

/// `C = A·B`, `[m, n]`: `a` is `[m, k]`, and `b` is `[k, n]`.
fn product<'a, N, B>(a: &'a [N], b: &'a [B], c: &'a mut [f32], m: usize, n: usize) -> Product<'a, N, B> {
    let k = b.len() / n;
    Product { a, a_row: k, a_column: 1, b, b_row: n, c, c_row: n, m, n, k, add: false, careful: false }
}

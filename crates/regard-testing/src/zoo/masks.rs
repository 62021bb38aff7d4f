//! Every mask, with its own type, made for given sizes.

use regard_core::{
    Around, Blocks, Blockwise, Bools, Causal, Dilated, Documents, Either, Fixed, Global, Mask, Padding, Pair, PrefixLm, RandomKeys,
    Shape, Spans, Strided, View, Window,
};

use crate::rng::Rng;

/// What is done with each mask.
pub trait VisitMask {
    /// One mask and its name.
    fn mask<M: Mask>(&mut self, name: &str, mask: &M);
}

/// A closure sees every mask behind a `dyn`.
impl<F: FnMut(&str, &dyn Mask)> VisitMask for F {
    fn mask<M: Mask>(&mut self, name: &str, mask: &M) {
        self(name, mask);
    }
}

/// Visits every kind of mask, closures and intersections among them, with random contents that belong to `seed`.
pub fn masks(shape: &Shape, seed: u64, visitor: &mut impl VisitMask) {
    let mut rng = Rng::new(seed);
    visitor.mask("everything", &());
    positional(shape, &mut rng, visitor);
    sparse(shape, &mut rng, visitor);
    listed(shape, &mut rng, visitor);
    dense(shape, &mut rng, visitor);
    closures(visitor);
    intersections(shape, &mut rng, visitor);
}

/// Masks that are formulas of the positions.
fn positional(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitMask) {
    visitor.mask("causal upper-left", &Causal::UpperLeft);
    visitor.mask("causal lower-right", &Causal::LowerRight);
    let below = |n: usize, rng: &mut Rng| rng.below(n + 2) as u32;
    let window = Window { left: below(shape.kv_len / 2, rng), right: below(shape.kv_len / 4, rng) };
    visitor.mask("window", &window);
    visitor.mask("window of one key", &Window { left: 0, right: 0 });
    visitor.mask("window without a left end", &Window { left: u32::MAX, right: 1 });
    let prefix = (0..shape.batch).map(|_| below(shape.kv_len, rng)).collect();
    visitor.mask("prefix", &PrefixLm { prefix });
    visitor.mask("one prefix for all", &PrefixLm::new(3));
}

/// The sparse patterns of the literature, and their parts.
fn sparse(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitMask) {
    let size = 1 + rng.below(20) as u32;
    let near = Window { left: size, right: size / 2 };
    let some = Global::new((0..shape.kv_len as u32).filter(|_| rng.chance(0.05)).collect::<Vec<_>>());
    visitor.mask("dilated window", &Dilated::new(size, size / 2, 1 + size / 3).expect("a dilation"));
    visitor.mask("strided", &Strided::new(size).expect("a stride"));
    visitor.mask("causal, fixed", &(Causal::LowerRight, Fixed::new(size, 1 + size / 4).expect("a block")));
    visitor.mask("global", &some);
    visitor.mask("window and global", &Either(near, some.clone()));
    visitor.mask("causal, sinks and window", &(Causal::LowerRight, Either(near, Global::first(4))));
    let [b, h, q, _] = shape.scores();
    for sizes in [[b, h, q, 1], [1, 1, q, 1]] {
        let data: Vec<f32> = (0..sizes.iter().product()).map(|_| (rng.normal() + 1.0) as f32 * shape.kv_len as f32 / 2.0).collect();
        let centres = View::new(&data, sizes).expect("a slice of its shape");
        visitor.mask(&format!("around centres {sizes:?}"), &Around { centres, radius: size as f32 });
    }
    let random = |len: usize, heads, seed| RandomKeys::new(2.min(len as u32), [heads, len], seed).expect("positions to draw from");
    visitor.mask("random keys", &random(shape.kv_len, shape.q_heads, rng.below(9) as u64));
    for size in [size, 64] {
        let random = random(shape.kv_len.div_ceil(size as usize), 1, u64::from(size));
        let blocks = Either(Either(Window { left: 1, right: 1 }, Global::first(1)), random);
        visitor.mask(&format!("window, global and random in blocks of {size}"), &Blockwise::new(size, blocks).expect("a block"));
    }
}

/// Masks made from lists of lengths, boundaries or blocks.
fn listed(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitMask) {
    visitor.mask("padding", &padding(shape, rng));
    spans(shape, rng, visitor);
    visitor.mask("documents", &documents(shape, rng, ()));
    visitor.mask("causal documents", &documents(shape, rng, Causal::LowerRight));
    visitor.mask("windowed documents", &documents(shape, rng, Window { left: 5, right: 2 }));
    for (rows, columns, heads) in [(64, 64, 1), (16, 48, shape.q_heads), (3, 5, 1)] {
        let counts = [shape.batch, heads, shape.q_len.div_ceil(rows), shape.kv_len.div_ceil(columns)];
        let map = (0..counts.iter().product()).map(|_| rng.chance(0.6)).collect();
        let blocks = Blocks::new(rows as u32, columns as u32, map, counts).expect("a map of its shape");
        visitor.mask(&format!("blocks of {rows}x{columns}"), &blocks);
    }
}

/// Spans of every query, or of each sequence and head, some of them empty or beyond the last key; neighbours in memory, or not.
fn spans(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitMask) {
    let [b, h, q, kv] = shape.scores();
    for (firsts, ends, step) in
        [([b, h, q, 1], [b, h, q, 1], 1), ([1, 1, q, 1], [b, 1, 1, 1], 3), ([1, 1, 1, 1], [1, h, q, 1], 1), ([1; 4], [1; 4], 1)]
    {
        let mut some = |sizes: [usize; 4], from: usize| -> Vec<u32> {
            (0..sizes.iter().product::<usize>() * step).map(|_| (from + rng.below(kv / 2 + 2)) as u32).collect()
        };
        let (first, end) = (some(firsts, 0), some(ends, kv / 2));
        let [first, end] = [(&first, firsts), (&end, ends)].map(|(of, [b, h, q, one])| {
            let strides = [h * q * step, q * step, step, 1].map(|n| n as isize);
            View::strided(of, 0, [b, h, q, one], strides).expect("a slice of its shape")
        });
        visitor.mask(&format!("spans from {firsts:?} to {ends:?}"), &Spans::new(first, end));
    }
}

/// Dense booleans, repeated along different axes.
fn dense(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitMask) {
    let [b, h, q, kv] = shape.scores();
    for sizes in [[b, h, q, kv], [1, 1, q, kv], [b, 1, 1, kv], [1, h, q, 1], [1, 1, 1, 1]] {
        let density = rng.pick(&[0.02, 0.5, 0.98]);
        let bools = bools(sizes, density, rng);
        visitor.mask(&format!("bools {sizes:?}"), &Bools(view(&bools, sizes)));
    }
}

fn closures(visitor: &mut impl VisitMask) {
    visitor.mask("closure: nothing", &|_: Pair| false);
    visitor.mask("closure: stripes", &|p: Pair| !(p.q + 3 * p.kv).is_multiple_of(5));
    visitor.mask("closure: by head and batch", &|p: Pair| (p.kv + p.head + 2 * p.batch).is_multiple_of(2));
    visitor.mask("closure: one key", &|p: Pair| p.kv == p.len.kv / 2);
}

fn intersections(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitMask) {
    let [_, _, q, kv] = shape.scores();
    let data = bools([1, 1, q, kv], 0.7, rng);
    let some = Bools(view(&data, [1, 1, q, kv]));
    visitor.mask("causal and padding", &(Causal::UpperLeft, padding(shape, rng)));
    visitor.mask("causal, window and bools", &((Causal::LowerRight, Window { left: 20, right: 0 }), some));
    visitor.mask("documents and closure", &(documents(shape, rng, ()), |p: Pair| !p.kv.is_multiple_of(3)));
    visitor.mask("perhaps a window", &(Some(Window { left: 7, right: 7 }), None::<Causal>));
}

fn padding(shape: &Shape, rng: &mut Rng) -> Padding {
    Padding::new((0..shape.batch).map(|_| rng.below(shape.kv_len + 1) as u32).collect::<Vec<_>>())
}

/// Documents with random boundaries, some of them empty.
fn documents<M: Mask>(shape: &Shape, rng: &mut Rng, inner: M) -> Documents<M> {
    let number = rng.below(4);
    let mut cuts = |len: usize| {
        let mut bounds: Vec<u32> = (0..number).map(|_| rng.below(len + 1) as u32).chain([0, len as u32]).collect();
        bounds.sort_unstable();
        bounds
    };
    Documents::with_keys(&cuts(shape.q_len), &cuts(shape.kv_len), inner).expect("increasing boundaries")
}

fn bools(sizes: [usize; 4], density: f64, rng: &mut Rng) -> Vec<bool> {
    (0..sizes.iter().product()).map(|_| rng.chance(density)).collect()
}

fn view(data: &[bool], sizes: [usize; 4]) -> View<'_, bool> {
    View::new(data, sizes).expect("a slice of its shape")
}

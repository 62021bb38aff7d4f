//! What is summed over the keys of each row with their weights.

use std::ops::Range;

use regard_core::Element;

use super::{Inspect, Looked, RowFacts};
use crate::Problem;
use crate::block::RowBlock;
use crate::exp::exp;
use crate::forward::{Partial, finite};
use crate::lines::Lines;
use crate::simd::{Task, Vector};

/// `Σ p·(s − m)`, `Σ p·|q − k|`, and the `Σ p` of some keys each; a row of lanes for each of them, weights relative to a stabiliser.
#[derive(Default)]
pub(crate) struct Sums {
    width: usize,
    data: Lines<f32>,
    /// Intervals of keys that are summed, from row 2 on.
    intervals: Vec<Interval>,
    /// The row of the first class of distances.
    classes: usize,
    /// Lanes of each head, and the position of the first query among the keys.
    runs: Vec<(Range<usize>, i64)>,
    /// The position of every lane.
    positions: Vec<f32>,
    /// `Σ p` of a tile, and its largest scores.
    tile: [Vec<f32>; 2],
}

/// The keys from `start` to `end`, counted from the query's own where it is `moving`.
#[derive(Clone, Copy)]
struct Interval {
    moving: bool,
    start: i64,
    end: i64,
}

/// The class of a distance: 0, 1, 2–3, 4–7, …
pub(super) fn class(distance: i64) -> usize {
    (i64::BITS - distance.leading_zeros()) as usize
}

impl Sums {
    pub(crate) fn new<T: Element>(p: &Problem<'_, T>, what: &Inspect, block: &RowBlock) -> Self {
        let (shape, width) = (&p.shape, block.width);
        let fixed = |keys: &Range<usize>| Interval { moving: false, start: keys.start as i64, end: keys.end as i64 };
        let recent = Interval { moving: true, start: 1 - what.recent as i64, end: 1 };
        let mut intervals = vec![fixed(&(0..what.first)), recent];
        intervals.extend(what.ranges.iter().map(fixed));
        let classes = 2 + intervals.len();
        let position = |head, q| i64::from(shape.pair(block.batch, head, q, 0).q_abs());
        let runs: Vec<_> = block.runs.iter().map(|run| (run.lanes.clone(), position(run.head, run.q))).collect();
        let mut positions = vec![0.0; width];
        for (lanes, first) in &runs {
            positions[lanes.clone()].iter_mut().zip(*first..).for_each(|(to, q)| *to = q as f32);
        }
        let rows = classes + Inspect::distances(shape.kv_len, shape.q_len);
        let tile = [vec![0.0; width], vec![0.0; width]];
        Sums { width, data: Lines::zeros(rows * width), intervals, classes, runs, positions, tile }
    }

    /// The largest scores of the last tile.
    pub(crate) fn largest(&self) -> &[f32] {
        &self.tile[1]
    }

    /// What was gathered, relative to a stabiliser that has moved: `Σ p·(s − m′) = decay · (Σ p·(s − m) + (m − m′)·ℓ)`.
    #[inline(always)]
    pub(crate) fn rescale<V: Vector>(&mut self, v: V, decay: &[f32], [before, after]: [&[f32]; 2], sum: &[f32]) {
        if decay.iter().fold(true, |still, decay| still & (*decay == 1.0)) {
            return;
        }
        let shifted = &mut self.data[..self.width];
        for lane in (0..shifted.len()).step_by(V::LANES) {
            let (before, after) = (v.load(&before[lane..]), finite(v, v.load(&after[lane..])));
            let shift = v.select_below(before, v.splat(f32::MIN), v.splat(0.0), v.sub(before, after)); // nothing was gathered at −∞
            v.store(v.mul_add(shift, v.load(&sum[lane..]), v.load(&shifted[lane..])), &mut shifted[lane..]);
        }
        for row in self.data.chunks_exact_mut(self.width) {
            for lane in (0..row.len()).step_by(V::LANES) {
                v.store(v.mul(v.load(&row[lane..]), v.load(&decay[lane..])), &mut row[lane..]);
            }
        }
    }

    /// A tile of weights `p` and their scores `s`, `[keys, width]`, relative to `max`.
    #[inline(always)]
    pub(crate) fn gather<V: Vector>(&mut self, v: V, keys: &Range<usize>, p: &[f32], s: &[f32], max: &[f32]) {
        let (width, [sum, largest]) = (self.width, &mut self.tile);
        let (shifted, distance) = self.data[..2 * width].split_at_mut(width);
        v.call(Gather { first: keys.start, p, s, max, positions: &self.positions, to: [shifted, distance, sum, largest] });
        v.call(Masses { sums: self, keys, p });
    }
}

/// `Σ p·(s − m)` and `Σ p·|q − k|` go on; `Σ p` and the largest scores are those of the tile.
struct Gather<'a> {
    first: usize,
    p: &'a [f32],
    s: &'a [f32],
    max: &'a [f32],
    positions: &'a [f32],
    to: [&'a mut [f32]; 4],
}

impl Task for Gather<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Gather { first, p, s, max, positions, to: [shifted, distance, sum, largest] } = self;
        let width = max.len();
        for lane in (0..width).step_by(V::LANES) {
            let (m, q) = (finite(v, v.load(&max[lane..])), v.load(&positions[lane..]));
            let (mut t, mut far) = (v.load(&shifted[lane..]), v.load(&distance[lane..]));
            let (mut mass, mut top) = (v.splat(0.0), v.splat(f32::NEG_INFINITY));
            let mut key = v.splat(first as f32);
            for (p, s) in p.chunks_exact(width).zip(s.chunks_exact(width)) {
                let (p, s) = (v.load(&p[lane..]), v.load(&s[lane..]));
                t = v.mul_add(p, v.max(v.sub(s, m), v.splat(-100.0)), t); // finite where the weight is 0
                let d = v.sub(q, key);
                far = v.mul_add(p, v.max(d, v.sub(key, q)), far);
                mass = v.add(mass, p);
                top = v.max(s, top);
                key = v.add(key, v.splat(1.0));
            }
            v.store(t, &mut shifted[lane..]);
            v.store(far, &mut distance[lane..]);
            v.store(mass, &mut sum[lane..]);
            v.store(top, &mut largest[lane..]);
        }
    }
}

/// The masses of all intervals, and of all classes of distances, in a tile.
struct Masses<'a> {
    sums: &'a mut Sums,
    keys: &'a Range<usize>,
    p: &'a [f32],
}

impl Task for Masses<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Masses { sums: Sums { width, data, intervals, classes, runs, tile: [sum, _], .. }, keys, p } = self;
        let (start, end) = (keys.start as i64, keys.end as i64);
        for (lanes, q) in runs.iter() {
            let (q, last) = (*q, *q + lanes.len() as i64 - 1);
            let mut add = |row: usize, interval: Interval| {
                interval.add(&mut data[row * *width..][..*width], (lanes, q), (start, end), (p, sum));
            };
            intervals.iter().enumerate().for_each(|(i, interval)| add(2 + i, *interval));
            for class in classes_between(q - (end - 1), last - start) {
                let (near, far) = bounds(class);
                add(*classes + class, Interval { moving: true, start: 1 - far, end: 1 - near });
            }
            for class in classes_between(start - last, end - 1 - q).filter(|class| *class > 0) {
                let (near, far) = bounds(class);
                add(*classes + class, Interval { moving: true, start: near, end: far });
            }
        }
    }
}

/// The classes of the distances from `least` to `most`, as far as there are any.
fn classes_between(least: i64, most: i64) -> Range<usize> {
    if most < 0 { 0..0 } else { class(least.max(0))..class(most) + 1 }
}

/// The distances of a class.
fn bounds(class: usize) -> (i64, i64) {
    if class == 0 { (0, 1) } else { (1 << (class - 1), 1 << class) }
}

impl Interval {
    /// Adds what the lanes of a run, whose first query is at `q`, have of it in a tile of keys.
    #[inline(always)]
    fn add(self, to: &mut [f32], (lanes, q): (&Range<usize>, i64), (first, end): (i64, i64), (p, sum): (&[f32], &[f32])) {
        let (n, width) = (lanes.len() as i64, sum.len());
        let (q, step) = if self.moving { (q, n - 1) } else { (0, 0) };
        let [low, high] = [self.start + q, self.end + q]; // of the first lane
        if high + step <= first || low >= end || low >= high {
            return;
        }
        if low + step <= first && high >= end {
            to[lanes.clone()].iter_mut().zip(&sum[lanes.clone()]).for_each(|(to, sum)| *to += sum);
            return;
        }
        for key in low.max(first)..(high + step).min(end) {
            // Lanes i with low + i ≤ key < high + i, or all.
            let (from, upto) = if self.moving { ((key - high + 1).max(0), (key - low + 1).min(n)) } else { (0, n) };
            let seen = lanes.start + from as usize..lanes.start + upto.max(from) as usize;
            let row = &p[(key - first) as usize * width..][..width];
            to[seen.clone()].iter_mut().zip(&row[seen]).for_each(|(to, p)| *to += p);
        }
    }
}

/// Joins what a span gathered to what those before it did; their states are not joined yet.
pub(super) struct FoldSums<'a> {
    pub(super) all: &'a mut Sums,
    pub(super) part: &'a Sums,
    pub(super) states: [&'a Partial; 2],
}

impl Task for FoldSums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let FoldSums { all, part, states: [a, b] } = self;
        let width = all.width;
        let shift = |max: V::F, m: V::F| v.select_below(max, v.splat(f32::MIN), v.splat(0.0), v.sub(max, m));
        for lane in (0..width).step_by(V::LANES) {
            let (max_a, max_b) = (v.load(&a.max[lane..]), v.load(&b.max[lane..]));
            let m = finite(v, v.max(max_a, max_b));
            let (scale_a, scale_b) = (exp(v, v.sub(max_a, m)), exp(v, v.sub(max_b, m)));
            let mut from = v.mul_add(shift(max_b, m), v.load(&b.sum[lane..]), v.load(&part.data[lane..]));
            let mut to = v.mul_add(shift(max_a, m), v.load(&a.sum[lane..]), v.load(&all.data[lane..]));
            for row in (0..all.data.len()).step_by(width) {
                if row > 0 {
                    (from, to) = (v.load(&part.data[row + lane..]), v.load(&all.data[row + lane..]));
                }
                v.store(v.mul_add(from, scale_b, v.mul(to, scale_a)), &mut all.data[row + lane..]);
            }
        }
    }
}

impl Looked {
    /// The facts of a finished block.
    pub(super) fn facts<T: Element>(&self, p: &Problem<'_, T>, block: &RowBlock) -> RowFacts {
        let mut facts = RowFacts::default();
        for run in &block.runs {
            let sink = p.sinks.get(run.head).copied().unwrap_or(f32::NEG_INFINITY);
            run.lanes.clone().for_each(|lane| self.row(lane, sink, &mut facts));
        }
        facts
    }

    /// `H = Σ p·(lse − s) + p_sink·(lse − sink)`, where `Σ p·(lse − s) = ((lse − m)·ℓ − Σ e^(s−m)·(s − m)) · e^(m − lse)`.
    fn row(&self, lane: usize, sink: f32, facts: &mut RowFacts) {
        let Looked { state, sums, top } = self;
        let (scores, keys) = top.row(lane);
        let column = |row: usize| sums.data[row * sums.width + lane];
        let (max, sum) = (state.max[lane], state.sum[lane]);
        let highest = max.max(sink);
        let rows = 2..sums.data.len() / sums.width;
        facts.keys.extend_from_slice(keys);
        if sum == 0.0 {
            facts.numbers.extend([0.0, f32::NEG_INFINITY, 0.0]);
            facts.numbers.extend(rows.map(|_| 0.0).chain(keys.iter().map(|_| 0.0)));
            return;
        }
        let (own, other) = ((max - highest).exp(), (sink - highest).exp());
        let total = sum * own + other;
        let (share, above) = (own / total, highest - max + total.ln()); // e^(m − lse), lse − m
        let of_sink = if other > 0.0 { other / total * (max - sink + above) } else { 0.0 };
        let entropy = share * (above * sum - column(0)) + of_sink;
        facts.numbers.extend([if entropy < 0.0 { 0.0 } else { entropy }, scores[0], column(1) / sum]);
        facts.numbers.extend(rows.map(|row| share * column(row)));
        facts.numbers.extend(scores.iter().map(|s| share * (s - max).exp()));
    }
}

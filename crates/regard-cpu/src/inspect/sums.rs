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
    /// The least and the greatest position of the queries of each vector, among the keys.
    vectors: Vec<(i64, i64)>,
    /// The position of every lane, and how far it is from the least of its vector.
    positions: Vec<f32>,
    offsets: Vec<f32>,
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
        let all: Vec<i64> = block.runs.iter().flat_map(|run| (position(run.head, run.q)..).take(run.lanes.len())).collect();
        let (mut vectors, mut positions, mut offsets) = (Vec::new(), vec![0.0; width], vec![0.0; width]);
        let lanes = p.kernel.lanes();
        for ((all, positions), offsets) in all.chunks(lanes).zip(positions.chunks_mut(lanes)).zip(offsets.chunks_mut(lanes)) {
            let least = all.iter().copied().min().unwrap_or(0);
            vectors.push((least, all.iter().copied().max().unwrap_or(0)));
            for ((q, position), offset) in all.iter().zip(positions).zip(offsets) {
                (*position, *offset) = (*q as f32, (q - least) as f32);
            }
        }
        let rows = classes + Inspect::distances(shape.kv_len, shape.q_len);
        let tile = [vec![0.0; width], vec![0.0; width]];
        Sums { width, data: Lines::zeros(rows * width), intervals, classes, vectors, positions, offsets, tile }
    }

    /// As new.
    pub(crate) fn clear(&mut self) {
        self.data.fill(0.0);
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
    fn run<V: Vector>(mut self, v: V) {
        let width = self.max.len();
        let mut lane = 0;
        while lane < width {
            lane += match (width - lane) / V::LANES {
                2.. => self.columns::<V, 2>(v, lane),
                _ => self.columns::<V, 1>(v, lane),
            };
        }
    }
}

impl Gather<'_> {
    /// The lanes `lane..lane + P·LANES`, side by side: each sum of one vector waits for its last step. Returns how many.
    #[inline(always)]
    fn columns<V: Vector, const P: usize>(&mut self, v: V, lane: usize) -> usize {
        let Gather { first, p, s, max, positions, to: [shifted, distance, sum, largest] } = self;
        let width = max.len();
        let lanes = |column: usize| lane + column * V::LANES..lane + (column + 1) * V::LANES;
        let zeros = [v.splat(0.0); P];
        let (mut m, mut q, mut t, mut far) = (zeros, zeros, zeros, zeros);
        for i in 0..P {
            (m[i], q[i]) = (finite(v, v.load(&max[lanes(i)])), v.load(&positions[lanes(i)]));
            (t[i], far[i]) = (v.load(&shifted[lanes(i)]), v.load(&distance[lanes(i)]));
        }
        let (mut mass, mut top, mut key) = (zeros, [v.splat(f32::NEG_INFINITY); P], v.splat(*first as f32));
        for (p, s) in p.chunks_exact(width).zip(s.chunks_exact(width)) {
            for i in 0..P {
                let (p, s) = (v.load(&p[lanes(i)]), v.load(&s[lanes(i)]));
                t[i] = v.mul_add(p, v.max(v.sub(s, m[i]), v.splat(-100.0)), t[i]); // finite where the weight is 0
                far[i] = v.mul_add(p, v.max(v.sub(q[i], key), v.sub(key, q[i])), far[i]);
                mass[i] = v.add(mass[i], p);
                top[i] = v.max(s, top[i]);
            }
            key = v.add(key, v.splat(1.0));
        }
        for i in 0..P {
            v.store(t[i], &mut shifted[lanes(i)]);
            v.store(far[i], &mut distance[lanes(i)]);
            v.store(mass[i], &mut sum[lanes(i)]);
            v.store(top[i], &mut largest[lanes(i)]);
        }
        P * V::LANES
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
    fn run<V: Vector>(mut self, v: V) {
        let (start, end) = (self.keys.start as i64, self.keys.end as i64);
        for vector in 0..self.sums.vectors.len() {
            let (least, most) = self.sums.vectors[vector];
            for i in 0..self.sums.intervals.len() {
                self.add(v, vector, 2 + i, self.sums.intervals[i]);
            }
            for class in classes_between(least - (end - 1), most - start) {
                let (near, far) = bounds(class);
                self.add(v, vector, self.sums.classes + class, Interval { moving: true, start: 1 - far, end: 1 - near });
            }
            for class in classes_between(start - most, end - 1 - least).filter(|class| *class > 0) {
                let (near, far) = bounds(class);
                self.add(v, vector, self.sums.classes + class, Interval { moving: true, start: near, end: far });
            }
        }
    }
}

impl Masses<'_> {
    /// Adds to a row of sums what the queries of a vector have of an interval in this tile.
    #[inline(always)]
    fn add<V: Vector>(&mut self, v: V, vector: usize, row: usize, interval: Interval) {
        let Sums { width, vectors, offsets, data, tile: [sum, _], .. } = &mut *self.sums;
        let ((first, end), lane) = ((self.keys.start as i64, self.keys.end as i64), vector * V::LANES);
        let (least, spread) = if interval.moving { (vectors[vector].0, vectors[vector].1 - vectors[vector].0) } else { (0, 0) };
        let [low, high] = [interval.start + least, interval.end + least]; // of the least query; of others, up to `spread` more
        if high + spread <= first || low >= end || low >= high {
            return;
        }
        let to = &mut data[row * *width + lane..][..V::LANES];
        let mut mass = v.load(to);
        if low + spread <= first && high >= end {
            mass = v.add(mass, v.load(&sum[lane..]));
        } else {
            let (low, high) = (low.max(first - spread), high.min(end)); // the same keys of the tile, in small numbers
            let (zero, length) = (v.splat(0.0), v.splat((high - low) as f32));
            let (from, upto) = (low.max(first), (high + spread).min(end));
            let mut place = v.splat((from - low) as f32); // of the key in the interval of each query
            if interval.moving {
                place = v.sub(place, v.load(&offsets[lane..]));
            }
            let rows = self.p[(from - first) as usize * *width..].chunks_exact(*width);
            for row in rows.take((upto - from) as usize) {
                let p = v.select_below(place, length, v.load(&row[lane..]), zero);
                mass = v.add(mass, v.select_below(place, zero, zero, p));
                place = v.add(place, v.splat(1.0));
            }
        }
        v.store(mass, to);
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

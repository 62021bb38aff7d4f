//! Scores become pairs of weights, a little at a time.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::{Meanwhile, Pair, SIDE, Vector};
use crate::TILE;
use crate::exp::exp2_of_weight;

/// `P = 2^(scale · S + m)` of a tile of keys in `W` vectors of lanes, as pairs of bf16, and the sums of `P`.
pub(crate) struct Weigh<'a, V: Vector, const W: usize> {
    v: V,
    /// The next two keys, rows of `width` numbers.
    s: *const f32,
    width: usize,
    /// Their pairs: vectors are `block` apart, the next two keys are a vector further.
    to: *mut f32,
    block: usize,
    scale: V::F,
    m: [V::F; W],
    sum: [V::F; W],
    /// Pairs of keys that are still to do, and how many at a time.
    left: usize,
    at_a_time: usize,
    slices: PhantomData<(&'a [f32], &'a mut [Pair])>,
}

impl<'a, V: Vector, const W: usize> Weigh<'a, V, W> {
    /// `s` is `[TILE, width]` from the first lane on; `to` is `[W, TILE / 2, SIDE]`, vectors `block` pairs apart.
    #[inline(always)]
    pub(crate) fn new(
        v: V,
        (s, width): (&'a [f32], usize),
        (to, block): (&'a mut [Pair], usize),
        (scale, m): (f32, [V::F; W]),
        at_a_time: usize,
    ) -> Self {
        assert!(V::LANES == SIDE && s.len() >= (TILE - 1) * width + W * SIDE && to.len() >= (W - 1) * block + TILE / 2 * SIDE);
        let (s, to, scale, sum) = (s.as_ptr(), Pair::bits_mut(to).as_mut_ptr(), v.splat(scale), [v.splat(0.0); W]);
        Weigh { v, s, width, to, block, scale, m, sum, left: TILE / 2, at_a_time, slices: PhantomData }
    }

    #[inline(always)]
    fn two_keys(&mut self) {
        let v = self.v;
        for w in 0..W {
            // SAFETY: `left` of `TILE / 2` pairs of keys are still to do, so these are inside the slices, as `new` found.
            let [one, two] = unsafe { [v.load_raw(self.s.add(w * SIDE)), v.load_raw(self.s.add(w * SIDE + self.width))] };
            let one = exp2_of_weight(v, v.mul_add(one, self.scale, self.m[w]));
            let two = exp2_of_weight(v, v.mul_add(two, self.scale, self.m[w]));
            self.sum[w] = v.add(v.add(self.sum[w], one), two);
            // SAFETY: as above.
            unsafe { v.store_raw(v.pair(one, two), self.to.add(w * self.block)) };
        }
        (self.s, self.to) = (self.s.wrapping_add(2 * self.width), self.to.wrapping_add(SIDE));
        self.left -= 1;
    }

    /// Does the rest; the sums.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> [V::F; W] {
        while self.left > 0 {
            self.two_keys();
        }
        self.sum
    }
}

impl<V: Vector, const W: usize> Meanwhile for Weigh<'_, V, W> {
    #[inline(always)]
    fn a_little(&mut self) {
        for _ in 0..self.at_a_time.min(self.left) {
            self.two_keys();
        }
    }
}

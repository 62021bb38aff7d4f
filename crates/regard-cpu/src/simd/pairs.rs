//! Pairs of bf16: two products and their sum in one instruction, of AVX-512 BF16 or AMX. A pair is one lane of 32 bits.
#![allow(unsafe_code)]

use half::bf16;

use super::Product;

/// Two bf16 that are multiplied together with another two: the first in the low half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Pair(u32);

impl Pair {
    #[inline(always)]
    pub(crate) fn new(first: bf16, second: bf16) -> Self {
        Pair(u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16)
    }

    /// The two, first and second.
    #[inline(always)]
    pub(crate) fn both(self) -> [bf16; 2] {
        [self.0 as u16, (self.0 >> 16) as u16].map(bf16::from_bits)
    }

    /// Neighbours as pairs, where they lie; none where they are not aligned so, or an odd number.
    #[inline(always)]
    pub(crate) fn of(numbers: &[bf16]) -> Option<&[Pair]> {
        // SAFETY: two bf16 are the four bytes of a `Pair`, the first in the low half; every pattern of bits is a `Pair`.
        let (before, pairs, after) = unsafe { numbers.align_to::<Pair>() };
        (before.is_empty() && after.is_empty()).then_some(pairs)
    }

    /// The bits of pairs, to be moved as if they were numbers.
    #[inline(always)]
    pub(crate) fn bits(pairs: &[Pair]) -> &[f32] {
        // SAFETY: a `Pair` is a u32, which has the size and the alignment of an f32; every pattern of bits is an f32.
        unsafe { std::slice::from_raw_parts(pairs.as_ptr().cast(), pairs.len()) }
    }

    /// [`Pair::bits`], to be written.
    #[inline(always)]
    pub(crate) fn bits_mut(pairs: &mut [Pair]) -> &mut [f32] {
        // SAFETY: as for `bits`; every pattern of bits is a `Pair`.
        unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), pairs.len()) }
    }
}

/// The weights of a tile: `from` is `[keys, width]`, `to` is `[⌈keys / 2⌉, width]`, rounded to nearest even. A last key without a
/// partner gets a weight of 0.
#[inline(always)]
pub(crate) fn pair_weights(from: &[f32], width: usize, to: &mut [Pair]) {
    for (to, rows) in to.chunks_exact_mut(width).zip(from.chunks(2 * width)) {
        match rows.split_at_checked(width) {
            Some((first, second)) if second.len() == width => {
                to.iter_mut().zip(first).zip(second).for_each(|((to, a), b)| *to = Pair(round(*a) | round(*b) << 16));
            }
            _ => to.iter_mut().zip(rows).for_each(|(to, a)| *to = Pair(round(*a))),
        }
    }
}

/// Neighbours become pairs, rounded to nearest even.
#[inline(always)]
pub(crate) fn pair_neighbours(from: &[f32], to: &mut [Pair]) {
    let (two, _) = from.as_chunks::<2>();
    to.iter_mut().zip(two).for_each(|(to, [a, b])| *to = Pair(round(*a) | round(*b) << 16));
}

/// The bits of the nearest bf16, in the low half; NaN stays NaN. Written so that the loop vectorises.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7FC0 } else { nearest }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::TileProduct;
    use super::super::amx::{self, Amx, Tiles};
    use super::super::avx512::Avx512;
    use super::super::product::Number;
    use super::super::{Transpose, Vector};
    use super::{Pair, Product, pair_neighbours, pair_weights};

    /// An instruction that multiplies pairs.
    #[derive(Clone, Copy)]
    pub(crate) enum Pairs {
        Dot(Dot),
        Amx(Amx),
    }

    /// [`Pairs`] in use by one thread.
    pub(crate) enum Session {
        Dot(Dot),
        Amx(Tiles),
    }

    impl Pairs {
        /// Those that this machine has and that are worth it, best first. AMD runs as many `vdpbf16ps` as multiply-adds of f32, each
        /// doing twice the work; Intel runs a quarter as many.
        pub(crate) fn detect() -> impl Iterator<Item = Pairs> {
            let dot = Dot::detect().filter(|_| {
                let vendor = __cpuid(0);
                [vendor.ebx, vendor.edx, vendor.ecx] == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes)
            });
            Amx::detect().map(Pairs::Amx).into_iter().chain(dot.map(Pairs::Dot))
        }

        /// The name of the kernel that uses it.
        pub(crate) fn name(self) -> &'static str {
            match self {
                Pairs::Dot(_) => "avx512bf16",
                Pairs::Amx(_) => "amx",
            }
        }

        /// Pairs that a row of so many numbers becomes, as products like them: what is beyond the row is zero.
        pub(crate) fn depth(self, dim: usize) -> usize {
            match self {
                Pairs::Dot(_) => dim.div_ceil(2),
                Pairs::Amx(_) => dim.div_ceil(2).next_multiple_of(16),
            }
        }

        /// AMX, where that is the instruction.
        pub(crate) fn amx(self) -> Option<Amx> {
            match self {
                Pairs::Dot(_) => None,
                Pairs::Amx(amx) => Some(amx),
            }
        }

        /// Begins to multiply, in this thread.
        pub(crate) fn open(self) -> Session {
            match self {
                Pairs::Dot(dot) => Session::Dot(dot),
                Pairs::Amx(amx) => Session::Amx(amx.open()),
            }
        }

        /// [`pair_weights`], compiled for this instruction set.
        pub(crate) fn pair_weights(self, from: &[f32], width: usize, to: &mut [Pair]) {
            // SAFETY: either token proves that the machine has the instructions.
            unsafe { weights(from, width, to) }
        }

        /// [`pair_neighbours`], compiled for this instruction set.
        pub(crate) fn pair_neighbours(self, from: &[f32], to: &mut [Pair]) {
            // SAFETY: as above.
            unsafe { neighbours(from, to) }
        }
    }

    impl std::fmt::Debug for Pairs {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.name())
        }
    }

    impl Session {
        /// The tiles of AMX, where it is that.
        pub(crate) fn tiles(&self) -> Option<&Tiles> {
            match self {
                Session::Dot(_) => None,
                Session::Amx(tiles) => Some(tiles),
            }
        }

        /// Computes a product of pairs.
        pub(crate) fn multiply(&self, product: Product<'_, Pair>) {
            match self {
                // SAFETY: the token proves that the machine has the instructions.
                Session::Dot(dot) => unsafe { multiply(dot.0, product) },
                Session::Amx(tiles) => tiles.multiply(product),
            }
        }
    }

    /// Made by [`Dot::detect`] only: holding one is the proof that the machine has AVX-512 BF16.
    #[derive(Clone, Copy)]
    pub(crate) struct Dot(Avx512);

    impl Dot {
        pub(crate) fn detect() -> Option<Dot> {
            Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Dot)
        }

        pub(crate) fn transpose(self, of: Transpose<'_>) {
            self.0.call(of);
        }

        /// The products of AMX, carefully.
        pub(crate) fn careful(self, product: TileProduct<'_>) {
            // SAFETY: the token proves that the machine has the instructions.
            unsafe { amx::careful(self.0, product) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn multiply(v: Avx512, product: Product<'_, Pair>) {
        product.multiply(v);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn weights(from: &[f32], width: usize, to: &mut [Pair]) {
        if !width.is_multiple_of(LANES) {
            return pair_weights(from, width, to);
        }
        const { assert!(LANES == 16) };
        let turn = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
        );
        for (to, rows) in to.chunks_exact_mut(width).zip(from.chunks(2 * width)) {
            let (first, second) = rows.split_at(width);
            let (first, _) = first.as_chunks();
            let (second, _) = second.as_chunks();
            let (to, _) = to.as_chunks_mut();
            for (i, (to, first)) in to.iter_mut().zip(first).enumerate() {
                // In pairs: the first half of 32 numbers beside the second one.
                store(_mm512_permutexvar_epi16(turn, rounded(first, second.get(i).unwrap_or(&[0.0; LANES]))), to);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn neighbours(from: &[f32], to: &mut [Pair]) {
        let (lanes, rest) = to.as_chunks_mut::<LANES>();
        let (numbers, _) = from.as_chunks::<LANES>();
        let (two, _) = numbers.as_chunks::<2>();
        for (to, [first, second]) in lanes.iter_mut().zip(two) {
            store(rounded(first, second), to);
        }
        pair_neighbours(&from[2 * LANES * two.len().min(lanes.len())..], rest);
    }

    /// Numbers in a vector.
    const LANES: usize = 16;

    /// Sixteen numbers and sixteen more, rounded to nearest even; what is too small to be normal becomes 0, as it does in products.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn rounded(first: &[f32; LANES], second: &[f32; LANES]) -> __m512i {
        // SAFETY: each is sixteen numbers; the cast keeps all bits.
        unsafe {
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(
                _mm512_loadu_ps(second.as_ptr()),
                _mm512_loadu_ps(first.as_ptr()),
            ))
        }
    }

    #[target_feature(enable = "avx512f")]
    fn store(pairs: __m512i, to: &mut [Pair; LANES]) {
        // SAFETY: there is room for sixteen pairs of 32 bits.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs) }
    }

    // Products of pairs are computed by `Session::multiply` and `Dot::careful` only, which hold the proof that the machine has AVX-512 BF16.
    impl Number<Avx512> for Pair {
        type Lanes = __m512i;

        #[inline(always)]
        fn splat(self, _: Avx512) -> __m512i {
            // SAFETY: proven by the token.
            unsafe { _mm512_set1_epi32(self.0.cast_signed()) }
        }

        #[inline(always)]
        unsafe fn load_raw(_: Avx512, from: *const Pair) -> __m512i {
            // SAFETY: proven by the token; the caller promises 16 pairs, at any alignment.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        fn mul_add(_: Avx512, a: __m512i, b: __m512i, c: __m512) -> __m512 {
            // SAFETY: proven as above; the casts keep all bits.
            unsafe { _mm512_dpbf16_ps(c, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b)) }
        }

        #[inline(always)]
        fn mul_add_hiding(v: Avx512, a: __m512i, b: __m512i, c: __m512) -> __m512 {
            // SAFETY: proven by the token.
            unsafe {
                // A half that is ±0 in one factor becomes 0 in the other.
                let magnitude = _mm512_set1_epi16(0x7FFF);
                let (seen_a, seen_b) = (_mm512_test_epi16_mask(a, magnitude), _mm512_test_epi16_mask(b, magnitude));
                let (a, b) = (_mm512_maskz_mov_epi16(seen_b, a), _mm512_maskz_mov_epi16(seen_a, b));
                <Pair as Number<Avx512>>::mul_add(v, a, b, c)
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use super::amx::{Amx, Tiles};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Dot, Pairs, Session};

/// No other machine has such an instruction.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pairs {}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) enum Session {}

#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy)]
pub(crate) enum Amx {}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) enum Tiles {}

#[cfg(not(target_arch = "x86_64"))]
impl Amx {
    pub(crate) fn open(self) -> Tiles {
        match self {}
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Tiles {
    pub(crate) fn product(&self, _: super::TileProduct<'_>, _: &mut impl super::Meanwhile) {
        match *self {}
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Pairs {
    pub(crate) fn detect() -> impl Iterator<Item = Pairs> {
        std::iter::empty()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {}
    }

    pub(crate) fn depth(self, _: usize) -> usize {
        match self {}
    }

    pub(crate) fn amx(self) -> Option<Amx> {
        match self {}
    }

    pub(crate) fn open(self) -> Session {
        match self {}
    }

    pub(crate) fn pair_weights(self, _: &[f32], _: usize, _: &mut [Pair]) {
        match self {}
    }

    pub(crate) fn pair_neighbours(self, _: &[f32], _: &mut [Pair]) {
        match self {}
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Session {
    pub(crate) fn tiles(&self) -> Option<&Tiles> {
        match *self {}
    }

    pub(crate) fn multiply(&self, _: Product<'_, Pair>) {
        match *self {}
    }
}

//! AMX: products of bf16 pairs, sixteen rows by sixteen columns by sixteen pairs in one instruction.
//!
//! ```text
//!   C[16, 16] += A[16, 16 pairs] · B[16 pairs, 16]
//! ```
//! The first and the second halves of the pairs are two sums from zero, in order of `k`; then `C += (first + second)`. Subnormal numbers
//! are 0 throughout. Source: Intel, "Architecture Instruction Set Extensions Programming Reference", TDPBF16PS.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use super::avx512::Avx512;
use super::pairs::{Dot, Pair};
use super::product::{Number, Product};
use super::tile::{Factor, Meanwhile, SIDE, TileProduct};
use super::transpose::Transpose;
use crate::lines::Lines;

/// Made by [`Amx::detect`] only: holding one is the proof that the machine has AMX for bf16 and that the system lets us use it.
#[derive(Clone, Copy)]
pub(crate) struct Amx(Dot);

static ASSUMED: AtomicBool = AtomicBool::new(false);

/// Takes AMX for present, as a test does that emulates it.
///
/// # Safety
/// AMX instructions must work in every thread of this process from now on.
pub unsafe fn assume_amx() {
    ASSUMED.store(true, Ordering::Relaxed);
}

impl Amx {
    pub(crate) fn detect() -> Option<Amx> {
        let dot = Dot::detect()?; // the careful products need it; every machine with AMX has it
        (ASSUMED.load(Ordering::Relaxed) || (has_instructions() && is_permitted())).then_some(Amx(dot))
    }

    /// The right to multiply, in this thread, until it is dropped.
    pub(crate) fn open(self) -> Tiles {
        if OPEN.replace(OPEN.get() + 1) == 0 {
            let mut shape = [0u8; 64];
            shape[0] = 1; // the palette: eight tiles of up to 16 rows of 64 bytes
            shape[16..32].copy_from_slice(&[64, 0].repeat(8));
            shape[48..56].fill(SIDE as u8);
            // SAFETY: the token proves that the machine has the instruction; it reads the 64 bytes of `shape`, a valid configuration.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &shape, options(nostack, readonly)) };
        }
        Tiles { amx: self, thread: PhantomData }
    }
}

/// CPUID, leaf 7: AMX-BF16 and AMX-TILE.
fn has_instructions() -> bool {
    let features = __cpuid_count(7, 0).edx;
    features >> 22 & 1 == 1 && features >> 24 & 1 == 1
}

/// Asks the system for the state of the tiles, 8 KiB for each thread.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023; // ARCH_REQ_XCOMP_PERM
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: the system call reads its three registers and no memory; the kernel overwrites rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

thread_local! {
    /// How many [`Tiles`] this thread has: work between two products may be a product too.
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// The tile registers of this thread, in the shape that products need. They hold nothing between two products.
pub(crate) struct Tiles {
    amx: Amx,
    /// The registers are a thread's own.
    thread: PhantomData<*const ()>,
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if OPEN.replace(OPEN.get() - 1) == 1 {
            // SAFETY: the machine has the instruction; it forgets the tiles, which nothing else in this thread multiplies with.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

impl Tiles {
    /// Computes a product of pairs of any size. Best where `a_column` is 1, and `m` and `k` are multiples of 16: other factors are copied
    /// into such.
    pub(crate) fn multiply(&self, product: Product<'_, Pair>) {
        let Product { m, n, k, a_row, a_column, b_row, c_row, add, careful, .. } = product;
        if m == 0 || n == 0 {
            return;
        }
        product.check(SIDE);
        let (rows, depth) = (m.next_multiple_of(SIDE), k.next_multiple_of(SIDE));
        let Product { a, b, c, .. } = product;
        let (a_copy, b_copy);
        let (a, a_row) = if (rows, depth, 1) == (m, k, a_column) {
            (a, a_row)
        } else {
            a_copy = self.rows_of(a, (a_row, a_column), (m, k), (rows, depth));
            (&a_copy[..], depth)
        };
        let (b, b_row) = if depth == k {
            (b, b_row)
        } else {
            b_copy = filled(depth, n, k, |j, to| to.copy_from_slice(&b[j * b_row..][..n]));
            (&b_copy[..], n)
        };
        let whole = |c: &mut [f32], c_row| {
            let a = Factor { data: a, row: a_row, block: SIDE * a_row, step: SIDE, ahead: 0 };
            let b = Factor { data: b, row: b_row, block: SIDE, step: SIDE * b_row, ahead: 0 };
            let (rows, columns, steps) = (rows / SIDE, n / SIDE, depth / SIDE);
            self.product(TileProduct { a, b, c, c_row, rows, columns, steps, add, careful }, &mut ());
        };
        if rows == m {
            return whole(c, c_row);
        }
        let mut c_copy = filled(rows, n, if add { m } else { 0 }, |i, to| to.copy_from_slice(&c[i * c_row..][..n]));
        whole(&mut c_copy, n);
        c_copy.chunks_exact(n).take(m).enumerate().for_each(|(i, from)| c[i * c_row..][..n].copy_from_slice(from));
    }

    /// `[m, k]` with any strides, row by row in `[rows, depth]`; the rest is zero.
    fn rows_of(
        &self,
        a: &[Pair],
        (a_row, a_column): (usize, usize),
        (m, k): (usize, usize),
        (rows, depth): (usize, usize),
    ) -> Lines<Pair> {
        if a_row != 1 {
            return filled(rows, depth, m, |i, to| (0..k).for_each(|j| to[j] = a[i * a_row + j * a_column]));
        }
        let mut copy = Lines::zeros(rows * depth);
        let (from, to) = (Pair::bits(a), Pair::bits_mut(&mut copy));
        self.amx.0.transpose(Transpose { from, from_row: a_column, to, to_row: depth, rows: k, columns: m });
        copy
    }

    /// Computes a product of tiles, and something else between its steps.
    #[inline(always)]
    pub(crate) fn product(&self, mut product: TileProduct<'_>, meanwhile: &mut impl Meanwhile) {
        let TileProduct { rows, columns, careful, .. } = product;
        if rows == 0 || columns == 0 {
            return;
        }
        product.check();
        if careful {
            return self.amx.0.careful(product);
        }
        for j in (0..columns).step_by(2) {
            for i in (0..rows).step_by(2) {
                match (rows - i > 1, columns - j > 1) {
                    (true, true) => block::<2, 2>(&mut product, i, j, meanwhile),
                    (true, false) => block::<2, 1>(&mut product, i, j, meanwhile),
                    (false, true) => block::<1, 2>(&mut product, i, j, meanwhile),
                    (false, false) => block::<1, 1>(&mut product, i, j, meanwhile),
                }
            }
        }
    }
}

/// `[rows, columns]`, of which the first `given` rows are filled in; the rest is zero.
fn filled<N: Copy + Default>(rows: usize, columns: usize, given: usize, mut fill: impl FnMut(usize, &mut [N])) -> Lines<N> {
    let mut all = Lines::zeros(rows * columns);
    all.chunks_exact_mut(columns.max(1)).take(given).enumerate().for_each(|(i, row)| fill(i, row));
    all
}

/// `R` by `Q` tiles of `C`, from tile row `i` and tile column `j` on, in registers 0 to 3; those of `A` in 4 and 5, of `B` in 6 and 7.
#[inline(always)]
fn block<const R: usize, const Q: usize>(product: &mut TileProduct<'_>, i: usize, j: usize, meanwhile: &mut impl Meanwhile) {
    let TileProduct { a, b, c_row, steps, add, .. } = *product;
    debug_assert!(i + R <= product.rows && j + Q <= product.columns);
    let c = product.c.as_mut_ptr().wrapping_add(i * SIDE * c_row + j * SIDE);
    let c_1 = c.wrapping_add(SIDE * c_row);
    let (mut a_0, mut b_0) = (a.data.as_ptr().wrapping_add(i * a.block), b.data.as_ptr().wrapping_add(j * b.block));
    // SAFETY: only `Tiles::product` calls this, which has the registers, shaped as 16 rows of 64 bytes. These tiles are among `rows`,
    // `columns` and `steps`, and `check` found every such tile inside its slice; `c` is written through its own pointer. Between two
    // instructions nothing changes the registers: only this module knows of them, and it opens no second product on the way.
    unsafe {
        if add {
            load::<0, _>(c, c_row);
            if Q > 1 {
                load::<1, _>(c.wrapping_add(SIDE), c_row);
            }
            if R > 1 {
                load::<2, _>(c_1, c_row);
            }
            if R * Q > 2 {
                load::<3, _>(c_1.wrapping_add(SIDE), c_row);
            }
        } else {
            zero::<0>();
            zero::<1>();
            zero::<2>();
            zero::<3>();
        }
        for _ in 0..steps {
            load::<4, _>(a_0, a.row);
            if a.ahead > 0 {
                prefetch(a_0.wrapping_add(a.ahead), a.row);
            }
            load::<6, _>(b_0, b.row);
            dot::<0, 4, 6>(); // C += A·B
            meanwhile.a_little();
            if Q > 1 {
                load::<7, _>(b_0.wrapping_add(b.block), b.row);
                dot::<1, 4, 7>();
                meanwhile.a_little();
            }
            if R > 1 {
                load::<5, _>(a_0.wrapping_add(a.block), a.row);
                if a.ahead > 0 {
                    prefetch(a_0.wrapping_add(a.block + a.ahead), a.row);
                }
                dot::<2, 5, 6>();
                meanwhile.a_little();
            }
            if R * Q > 2 {
                dot::<3, 5, 7>();
                meanwhile.a_little();
            }
            (a_0, b_0) = (a_0.wrapping_add(a.step), b_0.wrapping_add(b.step));
        }
        store::<0>(c, c_row);
        if Q > 1 {
            store::<1>(c.wrapping_add(SIDE), c_row);
        }
        if R > 1 {
            store::<2>(c_1, c_row);
        }
        if R * Q > 2 {
            store::<3>(c_1.wrapping_add(SIDE), c_row);
        }
    }
}

/// Register `N` from sixteen rows of sixteen numbers of 4 bytes, `row` numbers apart.
///
/// # Safety
/// This thread has the registers, and all rows are valid for reading.
#[inline(always)]
unsafe fn load<const N: usize, T>(from: *const T, row: usize) {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tileloadd tmm{n}, [{from} + {row}]", n = const N, from = in(reg) from, row = in(reg) 4 * row,
            options(nostack, readonly, preserves_flags));
    }
}

/// Asks for sixteen rows of sixteen pairs, `row` pairs apart, if they are there.
#[inline(always)]
fn prefetch(from: *const Pair, row: usize) {
    for i in 0..SIDE {
        // SAFETY: every machine with AMX has the instruction; it reads nothing that the program can see, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(i * row).cast()) };
    }
}

/// Sixteen rows of sixteen numbers from register `N`.
///
/// # Safety
/// This thread has the registers, and all rows are valid for writing.
#[inline(always)]
unsafe fn store<const N: usize>(to: *mut f32, row: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tilestored [{to} + {row}], tmm{n}", n = const N, to = in(reg) to, row = in(reg) 4 * row,
            options(nostack, preserves_flags));
    }
}

/// Register `N` becomes zero.
///
/// # Safety
/// This thread has the registers.
#[inline(always)]
unsafe fn zero<const N: usize>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilezero tmm{n}", n = const N, options(nostack, nomem, preserves_flags)) };
}

/// `C += A·B` in the registers of those numbers.
///
/// # Safety
/// This thread has the registers.
#[inline(always)]
unsafe fn dot<const C: usize, const A: usize, const B: usize>() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack, nomem, preserves_flags));
    }
}

/// The same sums in AVX-512, where a factor of zero hides the other one, even NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) fn careful(v: Avx512, product: TileProduct<'_>) {
    let TileProduct { a, b, c, c_row, rows, columns, steps, add, .. } = product;
    let first = _mm512_set1_epi32(0xFFFF);
    let dot = |a, b, c| <Pair as Number<Avx512>>::mul_add_hiding(v, a, b, c);
    for i in 0..rows * SIDE {
        for j in 0..columns {
            let c = &mut c[i * c_row + j * SIDE..][..SIDE];
            let zero = _mm512_setzero_ps();
            // SAFETY: the slice holds sixteen numbers.
            let mut sum = if add { unsafe { _mm512_loadu_ps(c.as_ptr()) } } else { zero };
            for step in 0..steps {
                let (mut one, mut two) = (zero, zero);
                let row = &a.data[i / SIDE * a.block + i % SIDE * a.row + step * a.step..][..SIDE];
                let tile = &b.data[j * b.block + step * b.step..];
                for (l, x) in row.iter().enumerate() {
                    let x = <Pair as Number<Avx512>>::splat(*x, v);
                    // SAFETY: the slice holds sixteen pairs.
                    let y = unsafe { <Pair as Number<Avx512>>::load_raw(v, tile[l * b.row..][..SIDE].as_ptr()) };
                    one = dot(_mm512_and_si512(x, first), y, one);
                    two = dot(_mm512_andnot_si512(first, x), y, two);
                }
                // A product of zeros more makes a subnormal sum 0.
                sum = dot(_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_add_ps(sum, _mm512_add_ps(one, two)));
            }
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(c.as_mut_ptr(), sum) };
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use regard_testing::rng::Rng;

    use super::*;

    /// A row must keep its bits beside one that is not finite, which makes its block go the careful way.
    #[test]
    fn careful_products_are_the_same_sums() {
        let Some(pairs) = crate::gemm::tests::kernels().into_iter().find(|k| k.name() == "amx").and_then(|k| k.pairs()) else {
            return; // a machine without AVX-512 BF16
        };
        let mut rng = Rng::new(9);
        let mut random = |n: usize| -> Vec<Pair> {
            let mut number = || bf16::from_f64(rng.normal());
            (0..n).map(|_| Pair::new(number(), number())).collect()
        };
        for (m, n, k, add) in [(16, 16, 16, false), (64, 64, 32, true), (33, 48, 41, true), (5, 16, 100, false)] {
            let (a, b) = (random(m * k), random(k * n));
            let product = |careful| {
                let mut c = vec![if add { 0.1 } else { f32::NAN }; m * n];
                let (a, b) = (&a[..], &b[..]);
                let all = Product { a, a_row: k, a_column: 1, b, b_row: n, c: &mut c, c_row: n, m, n, k, add, careful };
                pairs.open().multiply(all);
                c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(product(false), product(true), "{m}x{n}x{k}");
        }
    }
}

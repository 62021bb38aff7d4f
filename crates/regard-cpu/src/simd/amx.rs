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
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use super::avx512::Avx512;
use super::pairs::{Dot, Pair};
use super::product::{Number, Product};
use super::transpose::Transpose;

/// Rows, columns and pairs of a tile register.
const SIDE: usize = 16;

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
        let mut shape = [0u8; 64];
        shape[0] = 1; // the palette: eight tiles of up to 16 rows of 64 bytes
        shape[16..32].copy_from_slice(&[64, 0].repeat(8));
        shape[48..56].fill(SIDE as u8);
        // SAFETY: the token proves that the machine has the instruction; it reads the 64 bytes of `shape`, a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shape, options(nostack, readonly)) };
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

/// The tile registers of this thread, in the shape that products need. One at a time in a thread.
pub(crate) struct Tiles {
    amx: Amx,
    /// The registers are a thread's own.
    thread: PhantomData<*const ()>,
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the machine has the instruction; it forgets the tiles, which hold nothing between two products.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Tiles {
    /// Computes a product. Best where `a_column` is 1, and `m` and `k` are multiples of 16: other factors are copied into such.
    pub(crate) fn multiply(&self, product: Product<'_, Pair>) {
        let Product { m, n, k, a_row, a_column, b_row, c_row, add, careful, .. } = product;
        if m == 0 || n == 0 {
            return;
        }
        product.check(SIDE);
        if careful {
            return self.amx.0.careful(product);
        }
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
            whole(Product { a, a_row, a_column: 1, b, b_row, c, c_row, m: rows, n, k: depth, add, careful });
        };
        if rows == m {
            return whole(c, c_row);
        }
        let mut c_copy = filled(rows, n, if add { m } else { 0 }, |i, to| to.copy_from_slice(&c[i * c_row..][..n]));
        whole(&mut c_copy, n);
        c_copy.chunks_exact(n).take(m).enumerate().for_each(|(i, from)| c[i * c_row..][..n].copy_from_slice(from));
    }
}

impl Tiles {
    /// `[m, k]` with any strides, row by row in `[rows, depth]`; the rest is zero.
    fn rows_of(
        &self,
        a: &[Pair],
        (a_row, a_column): (usize, usize),
        (m, k): (usize, usize),
        (rows, depth): (usize, usize),
    ) -> Vec<Pair> {
        if a_row != 1 {
            return filled(rows, depth, m, |i, to| (0..k).for_each(|j| to[j] = a[i * a_row + j * a_column]));
        }
        let mut copy = vec![Pair::default(); rows * depth];
        let (from, to) = (Pair::bits(a), Pair::bits_mut(&mut copy));
        self.amx.0.transpose(Transpose { from, from_row: a_column, to, to_row: depth, rows: k, columns: m });
        copy
    }
}

/// `[rows, columns]`, of which the first `given` rows are filled in; the rest is zero.
fn filled<N: Clone + Default>(rows: usize, columns: usize, given: usize, mut fill: impl FnMut(usize, &mut [N])) -> Vec<N> {
    let mut all = vec![N::default(); rows * columns];
    all.chunks_exact_mut(columns.max(1)).take(given).enumerate().for_each(|(i, row)| fill(i, row));
    all
}

/// A product of whole tiles, four at a time. Only [`Tiles::multiply`] calls it, which has the registers.
fn whole(mut product: Product<'_, Pair>) {
    product.check(SIDE);
    assert!(product.a_column == 1 && product.m.is_multiple_of(SIDE) && product.k.is_multiple_of(SIDE));
    for i in (0..product.m).step_by(2 * SIDE) {
        for j in (0..product.n).step_by(2 * SIDE) {
            match (product.m - i > SIDE, product.n - j > SIDE) {
                (true, true) => block::<2, 2>(&mut product, i, j),
                (true, false) => block::<2, 1>(&mut product, i, j),
                (false, true) => block::<1, 2>(&mut product, i, j),
                (false, false) => block::<1, 1>(&mut product, i, j),
            }
        }
    }
}

/// `R` by `Q` tiles of `C`, from row `i` and column `j` on, in registers 0 to 3; those of `A` in 4 and 5, of `B` in 6 and 7.
fn block<const R: usize, const Q: usize>(product: &mut Product<'_, Pair>, i: usize, j: usize) {
    let Product { a_row, b_row, c_row, k, add, .. } = *product;
    debug_assert!(i + R * SIDE <= product.m && j + Q * SIDE <= product.n);
    let a = product.a.as_ptr().wrapping_add(i * a_row);
    let c = product.c.as_mut_ptr().wrapping_add(i * c_row + j);
    // SAFETY: the caller has the registers, shaped as 16 rows of 64 bytes. All rows and columns of these tiles are inside `m`, `n` and
    // `k`, and `check` found every such index inside its slice; `c` is written through its own pointer.
    unsafe {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            "tileloadd tmm0, [{c0} + {c_row}]",
            ".if {q} > 1", "tileloadd tmm1, [{c0} + {c_row} + 64]", ".endif",
            ".if {r} > 1", "tileloadd tmm2, [{c1} + {c_row}]", ".endif",
            ".if {r} * {q} > 2", "tileloadd tmm3, [{c1} + {c_row} + 64]", ".endif",
            "jmp 3f",
            "2:",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "3:",
            "test {k}, {k}",
            "jz 5f",
            "4:",
            "tileloadd tmm4, [{a0} + {a_row}]",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            ".if {q} > 1", "tileloadd tmm7, [{b} + {b_row} + 64]", "tdpbf16ps tmm1, tmm4, tmm7", ".endif",
            ".if {r} > 1", "tileloadd tmm5, [{a1} + {a_row}]", "tdpbf16ps tmm2, tmm5, tmm6", ".endif",
            ".if {r} * {q} > 2", "tdpbf16ps tmm3, tmm5, tmm7", ".endif",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b}, {b_step}",
            "dec {k}",
            "jnz 4b",
            "5:",
            "tilestored [{c0} + {c_row}], tmm0",
            ".if {q} > 1", "tilestored [{c0} + {c_row} + 64], tmm1", ".endif",
            ".if {r} > 1", "tilestored [{c1} + {c_row}], tmm2", ".endif",
            ".if {r} * {q} > 2", "tilestored [{c1} + {c_row} + 64], tmm3", ".endif",
            r = const R,
            q = const Q,
            add = in(reg) u32::from(add),
            k = inout(reg) k / SIDE => _,
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.wrapping_add(SIDE * a_row) => _,
            a_row = in(reg) 4 * a_row,
            b = inout(reg) product.b.as_ptr().wrapping_add(j) => _,
            b_row = in(reg) 4 * b_row,
            b_step = in(reg) 4 * SIDE * b_row,
            c0 = in(reg) c,
            c1 = in(reg) c.wrapping_add(SIDE * c_row),
            c_row = in(reg) 4 * c_row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The same sums in AVX-512, where a factor of zero hides the other one, even NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) fn careful(v: Avx512, product: Product<'_, Pair>) {
    let Product { a, a_row, a_column, b, b_row, c, c_row, m, n, k, add, .. } = product;
    let first = _mm512_set1_epi32(0xFFFF);
    let dot = |a, b, c| <Pair as Number<Avx512>>::mul_add_hiding(v, a, b, c);
    for i in 0..m {
        for j in (0..n).step_by(SIDE) {
            let c = &mut c[i * c_row + j..][..SIDE];
            let zero = _mm512_setzero_ps();
            // SAFETY: the slice holds sixteen numbers.
            let mut sum = if add { unsafe { _mm512_loadu_ps(c.as_ptr()) } } else { zero };
            for step in (0..k).step_by(SIDE) {
                let (mut one, mut two) = (zero, zero);
                for l in step..k.min(step + SIDE) {
                    let x = <Pair as Number<Avx512>>::splat(a[i * a_row + l * a_column], v);
                    // SAFETY: the slice holds sixteen pairs.
                    let y = unsafe { <Pair as Number<Avx512>>::load_raw(v, b[l * b_row + j..][..SIDE].as_ptr()) };
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

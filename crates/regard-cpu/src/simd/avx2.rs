//! AVX2 with FMA: eight lanes, sixteen registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::bf16;

use super::{Task, Vector};

/// Made by [`Avx2::detect`] only: holding one is the proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token, on machines that have the instructions.
    pub(crate) fn detect() -> Option<Avx2> {
        let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        present.then_some(Avx2(()))
    }
}

/// Compiles a task, and all that is inlined into it, for this instruction set.
#[target_feature(enable = "avx2,fma,f16c")]
fn compiled<T: Task>(v: Avx2, task: T) -> T::Out {
    task.run(v)
}

// Every block below calls instructions of AVX2, FMA and F16C, which the token proves that the machine has.
impl Vector for Avx2 {
    type F = __m256;
    const LANES: usize = 8;
    const PANEL: usize = 2;

    #[inline(always)]
    fn call<T: Task>(self, task: T) -> T::Out {
        // SAFETY: the token proves that the machine has the instructions.
        unsafe { compiled(self, task) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_raw(self, from: *const f32) -> __m256 {
        // SAFETY: proven by the token; the caller promises 8 numbers, at any alignment.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn widen_raw(self, from: *const bf16) -> __m256 {
        // SAFETY: proven by the token; the caller promises 8 numbers, at any alignment.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn store_raw(self, x: __m256, to: *mut f32) {
        // SAFETY: proven by the token; the caller promises room for 8 numbers, at any alignment.
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn select_below(self, x: __m256, limit: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_LT_OQ>(x, limit)) }
    }

    #[inline(always)]
    fn select_zero(self, x: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe { _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_EQ_OQ>(x, _mm256_setzero_ps())) }
    }

    #[inline(always)]
    fn scale_above(self, x: __m256, low: __m256, y: __m256, n: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe {
            let bits = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
            let power = _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3F80_0000)));
            _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, low), _mm256_mul_ps(y, power))
        }
    }

    #[inline(always)]
    fn pair(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: proven by the token.
        unsafe {
            let half = _mm256_set1_epi32(0x8000);
            let (a, b) = (_mm256_add_epi32(_mm256_castps_si256(a), half), _mm256_add_epi32(_mm256_castps_si256(b), half));
            _mm256_castsi256_ps(_mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<16>(a), b))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, soon: &[T]) {
        for line in (0..size_of_val(soon)).step_by(64) {
            // SAFETY: proven by the token; a prefetch reads nothing that the program can see, at any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(soon.as_ptr().cast::<i8>().wrapping_add(line)) }
        }
    }
    #[inline(always)]
    unsafe fn transpose_raw(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: proven by the token; the caller promises eight rows of eight numbers on both sides.
        unsafe {
            let mut r = [_mm256_setzero_ps(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm256_loadu_ps(from.add(i * from_row));
            }
            for c in 0..4 {
                // Half L of `u[i]` is column 4·L + c of rows 4·i..4·i + 4.
                let mut u = [_mm256_setzero_ps(); 2];
                for (i, u) in u.iter_mut().enumerate() {
                    let [r0, r1, r2, r3] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
                    let (a, b) = match c < 2 {
                        true => (_mm256_unpacklo_ps(r0, r1), _mm256_unpacklo_ps(r2, r3)),
                        false => (_mm256_unpackhi_ps(r0, r1), _mm256_unpackhi_ps(r2, r3)),
                    };
                    let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
                    *u = _mm256_castpd_ps(if c % 2 == 0 { _mm256_unpacklo_pd(a, b) } else { _mm256_unpackhi_pd(a, b) });
                }
                _mm256_storeu_ps(to.add(c * to_row), _mm256_permute2f128_ps::<0x20>(u[0], u[1]));
                _mm256_storeu_ps(to.add((4 + c) * to_row), _mm256_permute2f128_ps::<0x31>(u[0], u[1]));
            }
        }
    }
}

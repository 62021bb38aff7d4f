//! AVX-512: sixteen lanes, thirty-two registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::bf16;

use super::{Task, Vector};

/// Made by [`Avx512::detect`] only: holding one is the proof that the machine has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The token, on machines that have the instructions.
    pub(crate) fn detect() -> Option<Avx512> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && super::avx2::Avx2::detect().is_some();
        present.then_some(Avx512(()))
    }
}

/// Compiles a task, and all that is inlined into it, for this instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn compiled<T: Task>(v: Avx512, task: T) -> T::Out {
    task.run(v)
}

// Every block below calls instructions of AVX-512 F, BW, DQ and VL, which the token proves that the machine has.
impl Vector for Avx512 {
    type F = __m512;
    const LANES: usize = 16;
    const PANEL: usize = 4;

    #[inline(always)]
    fn call<T: Task>(self, task: T) -> T::Out {
        // SAFETY: the token proves that the machine has the instructions.
        unsafe { compiled(self, task) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_raw(self, from: *const f32) -> __m512 {
        // SAFETY: proven by the token; the caller promises 16 numbers, at any alignment.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn widen_raw(self, from: *const bf16) -> __m512 {
        // SAFETY: proven by the token; the caller promises 16 numbers, at any alignment.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn store_raw(self, x: __m512, to: *mut f32) {
        // SAFETY: proven by the token; the caller promises room for 16 numbers, at any alignment.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn select_below(self, x: __m512, limit: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, limit), b, a) }
    }

    #[inline(always)]
    fn select_zero(self, x: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, _mm512_setzero_ps()), b, a) }
    }

    #[inline(always)]
    fn scale_above(self, x: __m512, low: __m512, y: __m512, n: __m512) -> __m512 {
        let n = self.sub(n, self.splat(crate::exp::ROUND));
        // SAFETY: proven by the token.
        unsafe { _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, low), y, n) }
    }

    #[inline(always)]
    fn above_floor(self, y: __m512) -> __m512 {
        // SAFETY: proven by the token. (VREDUCEPS: 0 for −∞.)
        unsafe { _mm512_reduce_ps::<1>(y) }
    }

    #[inline(always)]
    fn scale_by_floor(self, x: __m512, y: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe { _mm512_scalef_ps(x, y) }
    }

    #[inline(always)]
    fn pair(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: proven by the token.
        unsafe {
            let half = _mm512_set1_epi32(0x8000);
            let (a, b) = (_mm512_add_epi32(_mm512_castps_si512(a), half), _mm512_add_epi32(_mm512_castps_si512(b), half));
            _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xAAAA_AAAA, _mm512_srli_epi32::<16>(a), b))
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
        // SAFETY: proven by the token; the caller promises sixteen rows of sixteen numbers on both sides.
        unsafe {
            for c in (0..16).step_by(4) {
                // Quarter L of `r[i]` is columns c..c + 4 of row 4·L + i: loads bring them there at less than a shuffle costs.
                let mut r = [_mm512_setzero_ps(); 4];
                for (i, r) in r.iter_mut().enumerate() {
                    let from = from.add(i * from_row + c);
                    *r = _mm512_castps128_ps512(_mm_loadu_ps(from));
                    *r = _mm512_insertf32x4::<1>(*r, _mm_loadu_ps(from.add(4 * from_row)));
                    *r = _mm512_insertf32x4::<2>(*r, _mm_loadu_ps(from.add(8 * from_row)));
                    *r = _mm512_insertf32x4::<3>(*r, _mm_loadu_ps(from.add(12 * from_row)));
                }
                let (low, low_2) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpacklo_ps(r[2], r[3]));
                let (high, high_2) = (_mm512_unpackhi_ps(r[0], r[1]), _mm512_unpackhi_ps(r[2], r[3]));
                let (low, low_2) = (_mm512_castps_pd(low), _mm512_castps_pd(low_2));
                let (high, high_2) = (_mm512_castps_pd(high), _mm512_castps_pd(high_2));
                let to = to.add(c * to_row);
                _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(low, low_2)));
                _mm512_storeu_ps(to.add(to_row), _mm512_castpd_ps(_mm512_unpackhi_pd(low, low_2)));
                _mm512_storeu_ps(to.add(2 * to_row), _mm512_castpd_ps(_mm512_unpacklo_pd(high, high_2)));
                _mm512_storeu_ps(to.add(3 * to_row), _mm512_castpd_ps(_mm512_unpackhi_pd(high, high_2)));
            }
        }
    }
}

//! AVX-512: sixteen lanes, thirty-two registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

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
            let mut r = [_mm512_setzero_ps(); 16];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm512_loadu_ps(from.add(i * from_row));
            }
            for c in 0..4 {
                // Quarter L of `u[i]` is column 4·L + c of rows 4·i..4·i + 4.
                let mut u = [_mm512_setzero_ps(); 4];
                for (i, u) in u.iter_mut().enumerate() {
                    let [r0, r1, r2, r3] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
                    let (a, b) = match c < 2 {
                        true => (_mm512_unpacklo_ps(r0, r1), _mm512_unpacklo_ps(r2, r3)),
                        false => (_mm512_unpackhi_ps(r0, r1), _mm512_unpackhi_ps(r2, r3)),
                    };
                    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                    *u = _mm512_castpd_ps(if c % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) });
                }
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(u[0], u[1]), _mm512_shuffle_f32x4::<0xDD>(u[0], u[1]));
                let (even_2, odd_2) = (_mm512_shuffle_f32x4::<0x88>(u[2], u[3]), _mm512_shuffle_f32x4::<0xDD>(u[2], u[3]));
                _mm512_storeu_ps(to.add(c * to_row), _mm512_shuffle_f32x4::<0x88>(even, even_2));
                _mm512_storeu_ps(to.add((4 + c) * to_row), _mm512_shuffle_f32x4::<0x88>(odd, odd_2));
                _mm512_storeu_ps(to.add((8 + c) * to_row), _mm512_shuffle_f32x4::<0xDD>(even, even_2));
                _mm512_storeu_ps(to.add((12 + c) * to_row), _mm512_shuffle_f32x4::<0xDD>(odd, odd_2));
            }
        }
    }
}

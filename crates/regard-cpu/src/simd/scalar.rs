//! No instruction set: four lanes as an array, which compilers turn into what the target has.
#![allow(unsafe_code)]

use half::bf16;

use super::{Task, Vector};

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Vector for Scalar {
    type F = [f32; 4];
    const LANES: usize = 4;
    const PANEL: usize = 2;

    fn call<T: Task>(self, task: T) -> T::Out {
        task.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load_raw(self, from: *const f32) -> [f32; 4] {
        // SAFETY: the caller promises four numbers; an array has their alignment.
        unsafe { from.cast::<[f32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn widen_raw(self, from: *const bf16) -> [f32; 4] {
        // SAFETY: the caller promises four numbers; an array has their alignment.
        unsafe { from.cast::<[bf16; 4]>().read() }.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }

    #[inline(always)]
    unsafe fn store_raw(self, x: [f32; 4], to: *mut f32) {
        // SAFETY: the caller promises room for four numbers; an array has their alignment.
        unsafe { to.cast::<[f32; 4]>().write(x) }
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a * b)
    }

    /// Two roundings: a fused one would be a library call on machines without the instruction.
    #[inline(always)]
    fn mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn select_below(self, x: [f32; 4], limit: [f32; 4], a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if x[i] < limit[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn select_zero(self, x: [f32; 4], a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if x[i] == 0.0 { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn pair(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let round = |x: f32| x.to_bits().wrapping_add(0x8000) >> 16;
        zip(a, b, |a, b| f32::from_bits(round(a) | round(b) << 16))
    }

    #[inline(always)]
    fn scale_above(self, x: [f32; 4], low: [f32; 4], y: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        let power = |n: f32| f32::from_bits((n.to_bits() << 23).wrapping_add(0x3F80_0000));
        std::array::from_fn(|i| if x[i] < low[i] { 0.0 } else { y[i] * power(n[i]) })
    }
}

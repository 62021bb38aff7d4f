//! The number types of queries, keys and values. Accumulation is always in f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A number that attention reads and writes: `f32`, [`half::f16`] or [`half::bf16`].
///
/// Kernels compute in f32: they widen tile by tile and narrow the output once, to nearest even.
pub trait Element: Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The name users see: `"f32"`, `"f16"`, `"bf16"`.
    const NAME: &'static str;

    /// Exact.
    fn to_f32(self) -> f32;

    /// Rounds to nearest, ties to even.
    fn from_f32(x: f32) -> Self;

    /// Widens `from` into the equally long `to`.
    fn widen(from: &[Self], to: &mut [f32]);

    /// Narrows `from` into the equally long `to`.
    fn narrow(from: &[f32], to: &mut [Self]);

    /// Runs the computation of this type.
    fn run<J: PerElement>(input: J::In<Self>) -> J::Out;

    /// The slice itself where the type is f32 already: such rows are read in place.
    fn as_f32(_row: &[Self]) -> Option<&[f32]> {
        None
    }

    /// The slice itself where the type is bf16, which some machines multiply as it is.
    fn as_bf16(_row: &[Self]) -> Option<&[bf16]> {
        None
    }
}

/// A computation written once for all types, and compiled for each where it is defined: what calls it for a type it is generic over
/// does not compile it again. Reached by [`Element::run`].
pub trait PerElement {
    /// What it takes.
    type In<T: Element>;

    /// What it gives.
    type Out;

    /// On f32.
    fn f32(input: Self::In<f32>) -> Self::Out;

    /// On bf16.
    fn bf16(input: Self::In<bf16>) -> Self::Out;

    /// On f16.
    fn f16(input: Self::In<f16>) -> Self::Out;
}

impl Element for f32 {
    const NAME: &'static str = "f32";

    fn run<J: PerElement>(input: J::In<f32>) -> J::Out {
        J::f32(input)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn widen(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn as_f32(row: &[f32]) -> Option<&[f32]> {
        Some(row)
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";

    fn run<J: PerElement>(input: J::In<bf16>) -> J::Out {
        J::bf16(input)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        bf16::from_f32(x)
    }

    #[inline(always)]
    fn widen(from: &[bf16], to: &mut [f32]) {
        // bf16 is the upper half of an f32; written so, the loop vectorises for any instruction set.
        for (y, x) in to.iter_mut().zip(from) {
            *y = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }

    #[inline(always)]
    fn narrow(from: &[f32], to: &mut [bf16]) {
        // To nearest, ties to even; written so that the loop vectorises too.
        for (y, x) in to.iter_mut().zip(from) {
            let bits = x.to_bits();
            let nearest = (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16;
            *y = bf16::from_bits(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { nearest });
        }
    }

    #[inline(always)]
    fn as_bf16(row: &[bf16]) -> Option<&[bf16]> {
        Some(row)
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";

    fn run<J: PerElement>(input: J::In<f16>) -> J::Out {
        J::f16(input)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn from_f32(x: f32) -> f16 {
        f16::from_f32(x)
    }

    #[inline(always)]
    fn widen(from: &[f16], to: &mut [f32]) {
        from.convert_to_f32_slice(to); // F16C where the machine has it
    }

    #[inline(always)]
    fn narrow(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

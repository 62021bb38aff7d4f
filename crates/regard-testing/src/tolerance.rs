//! How far a kernel may be from the oracle: units of rounding, and the comparison.
//!
//! A fixed tolerance is too loose for easy inputs and too tight for hard ones, so every case has its own, element by
//! element: the roundings of an f32 computation, followed through the formulas
//! ([`Bounds`](crate::oracle::Bounds), [`GradientBounds`](crate::oracle::GradientBounds)).
//!
//! - One f32 operation is off by at most a factor `1 ± u`, `u = 2⁻²⁴`.
//! - A sum of `n` products is off by at most `γ(n) · Σ|aᵢbᵢ|`, with `γ(n) = min(n, 6√n) · u`. The factor `n` is the worst case
//!   in any order of summation; `6√n` is exceeded with a probability below 10⁻⁶ when roundings are independent.
//!   Source: Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4.
//! - The inputs are exact: an f16 or bf16 input is widened, not rounded.
//! - The result is rounded once to the output type, at most `unit · |x| + tiny`:
//!
//! | type | significand | unit | tiny (half the least subnormal; in f32, flushed subnormals) |
//! |---|---|---|---|
//! | f32 | 24 bits | 2⁻²⁴ | 2⁻¹²⁶ |
//! | f16 | 11 bits | 2⁻¹¹ | 2⁻²⁵ |
//! | bf16 | 8 bits | 2⁻⁸ | 2⁻¹²⁶ |

use std::fmt;

use regard_core::{Element, Tensor};

use crate::array::Array;

/// Unit roundoff of f32, in which every kernel accumulates.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// The relative error of a sum of `n` rounded products; see the module.
pub fn gamma(n: usize) -> f64 {
    let n = n as f64;
    n.min(6.0 * n.sqrt()) * U
}

/// How a number type rounds.
#[derive(Clone, Copy, Debug)]
pub struct Rounding {
    /// Largest relative error of one rounding.
    pub unit: f64,
    /// Largest absolute error of one rounding near zero.
    pub tiny: f64,
}

impl Rounding {
    /// The rounding of `T`.
    pub fn of<T: Element>() -> Self {
        match T::NAME {
            "f16" => Self { unit: 2f64.powi(-11), tiny: 2f64.powi(-25) },
            "bf16" => Self { unit: 2f64.powi(-8), tiny: 2f64.powi(-126) },
            _ => Self { unit: U, tiny: 2f64.powi(-126) },
        }
    }

    /// The largest error of rounding `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.unit * x.abs() + self.tiny
    }
}

/// The element that is furthest from what it should be, measured in its own tolerance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// `[batch, head, position, dim]`.
    pub at: [usize; 4],
    /// What the oracle says.
    pub expected: f64,
    /// What the kernel says.
    pub got: f64,
    /// How far apart they may be.
    pub tolerance: f64,
    /// `|got − expected| / tolerance`; infinite where one is NaN or infinite and the other is not the same.
    pub ratio: f64,
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, expected, got, tolerance, ratio } = self;
        write!(f, "at {at:?}: expected {expected:e}, got {got:e}, tolerance {tolerance:e}, error {ratio:.3} tolerances")
    }
}

/// The worst element of `got` against `expected`; `None` when there are no elements.
///
/// # Panics
/// When the shapes differ.
pub fn worst(got: &Array, expected: &Array, tolerance: &Array) -> Option<Worst> {
    assert_eq!(got.shape(), expected.shape(), "shapes of a result and of the oracle's");
    let each = expected.coordinates().map(|at| {
        let (expected, got, tolerance) = (expected[at], got[at], tolerance[at]);
        Worst { at, expected, got, tolerance, ratio: ratio(got, expected, tolerance) }
    });
    each.max_by(|a, b| a.ratio.total_cmp(&b.ratio))
}

/// Asserts that a kernel's tensor agrees with the oracle, and returns the worst ratio of error to tolerance.
///
/// # Panics
/// When some element is further away than its tolerance; `context` goes into the message.
#[track_caller]
pub fn assert_close<T: Element>(got: &Tensor<T>, expected: &Array, tolerance: &Array, context: &dyn fmt::Display) -> f64 {
    match worst(&Array::from_tensor(got), expected, tolerance) {
        Some(worst) if worst.ratio > 1.0 => panic!("{context}: {worst}"),
        worst => worst.map_or(0.0, |worst| worst.ratio),
    }
}

/// The error in tolerances. NaN agrees with nothing, not even with NaN; an infinity only with itself.
fn ratio(got: f64, expected: f64, tolerance: f64) -> f64 {
    let error = (got - expected).abs();
    if got == expected {
        0.0
    } else if error.is_finite() && tolerance.is_finite() {
        error / tolerance
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_element_is_found_and_named() {
        let expected = Array::from_fn([1, 1, 2, 2], |[_, _, l, d]| (2 * l + d) as f64);
        let tolerance = Array::from_fn([1, 1, 2, 2], |_| 0.5);
        let mut got = expected.clone();
        got[[0, 0, 1, 0]] += 0.25;
        got[[0, 0, 0, 1]] -= 1.0;
        let found = worst(&got, &expected, &tolerance).expect("four elements");
        assert_eq!((found.at, found.ratio), ([0, 0, 0, 1], 2.0));
    }

    #[test]
    fn nan_and_infinity_never_pass_for_numbers() {
        for (got, expected) in [(f64::NAN, 0.0), (0.0, f64::NAN), (f64::NAN, f64::NAN), (f64::INFINITY, 1.0)] {
            assert_eq!(ratio(got, expected, 1.0), f64::INFINITY, "{got} {expected}");
        }
        assert_eq!(ratio(f64::NEG_INFINITY, f64::NEG_INFINITY, 1.0), 0.0);
        assert_eq!(ratio(1.0, 2.0, f64::INFINITY), f64::INFINITY, "an infinite tolerance allows nothing");
    }

    #[test]
    fn units_are_the_gaps_of_the_types() {
        fn gap<T: Element>() -> f64 {
            let one = Rounding::of::<T>().unit * 2.0 + 1.0;
            f64::from(T::from_f32(one as f32).to_f32()) - 1.0
        }
        assert_eq!(gap::<f32>(), 2f64.powi(-23));
        assert_eq!(gap::<half::f16>(), 2f64.powi(-10));
        assert_eq!(gap::<half::bf16>(), 2f64.powi(-7));
    }
}

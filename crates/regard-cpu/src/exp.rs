//! The exponential function, in vectors.

use crate::simd::Vector;

/// 1.5·2²³: adding it, and taking it away, leaves the nearest integer.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `eˣ` to within `4 + 0.23·|x|` roundings for −87.3 ≤ x ≤ 88.3; exactly 0 below, exactly 1 at 0, NaN for NaN. Without fused
/// multiply-adds it is `4 + 1.23·|x|`. (Rounding the argument, a difference of scores, already costs `|x|` roundings.)
///
/// ```text
///   x·log₂e = n + r, |r| ≤ 1/2      eˣ = 2ⁿ · (1 + r·p(r))
/// ```
/// `p` of degree 4 has the least largest relative error, 1.8·2⁻²⁴, of those with 2⁰ = 1 and that slope there.
#[inline(always)]
pub(crate) fn exp<V: Vector>(v: V, x: V::F) -> V::F {
    const P: [f32; 6] = [1.330_060_8e-3, 9.669_692e-3, 5.550_558_5e-2, 2.402_228_3e-1, std::f32::consts::LN_2, 1.0];
    let log2e = v.splat(std::f32::consts::LOG2_E);
    let n = v.mul_add(x, log2e, v.splat(ROUND)); // n + ROUND
    let r = v.mul_add(x, log2e, v.sub(v.splat(ROUND), n));
    let mut p = v.splat(P[0]);
    for c in &P[1..] {
        p = v.mul_add(p, r, v.splat(*c));
    }
    v.scale_above(x, v.splat(-87.3), p, n)
}

/// `2ʸ` to within 2⁻²², for weights that are rounded to bf16 and their sums: 0 for −∞, NaN for NaN; `y` is at most 127.
///
/// ```text
///   2ʸ = 2^⌊y⌋ · p(y − ⌊y⌋)
/// ```
/// `p` of degree 5 has the least largest relative error, 7.5·10⁻⁸.
#[inline(always)]
pub(crate) fn exp2_of_weight<V: Vector>(v: V, y: V::F) -> V::F {
    const P: [f32; 6] = [1.877_576_7e-3, 8.989_34e-3, 5.582_632e-2, 2.401_536e-1, 6.931_531e-1, 0.999_999_94];
    let r = v.above_floor(y);
    let mut p = v.splat(P[0]);
    for c in &P[1..] {
        p = v.mul_add(p, r, v.splat(*c));
    }
    v.scale_by_floor(p, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Kernel;
    use crate::simd::Task;

    struct Each<'a>(&'a mut [f32]);

    impl Task for Each<'_> {
        type Out = ();

        #[inline(always)]
        fn run<V: Vector>(self, v: V) {
            for x in self.0.chunks_exact_mut(V::LANES) {
                v.store(exp(v, v.load(x)), x);
            }
        }
    }

    fn exps(kernel: Kernel, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        y.resize(x.len().next_multiple_of(16), 0.0);
        kernel.run(Each(&mut y));
        y.truncate(x.len());
        y
    }

    #[test]
    fn it_is_within_four_roundings_and_that_of_its_argument_of_f64() {
        let u = f64::from(f32::EPSILON) / 2.0;
        // log₂e in f32 is off by 0.23 roundings, which count as often as the argument is large.
        let off = (std::f64::consts::LOG2_E / f64::from(std::f32::consts::LOG2_E) - 1.0).abs();
        assert!(off < 0.23 * u);
        let x: Vec<f32> = (0..200_000).map(|i| -87.2 + i as f32 * (175.0 / 200_000.0)).collect();
        for kernel in Kernel::available() {
            for (x, y) in x.iter().zip(exps(kernel, &x)) {
                let exact = f64::from(*x).exp();
                let argument = if kernel.name() == "scalar" { 1.23 } else { 0.23 }; // it does not fuse, and rounds the product
                let bound = (4.0 + argument * f64::from(x.abs())) * u * exact;
                assert!((f64::from(y) - exact).abs() <= bound, "{}: exp({x}) = {y}, not {exact}", kernel.name());
            }
        }
    }

    /// `2ʸ` of each number, and the pairs of it and its negative.
    struct Weights<'a>(&'a mut [f32], &'a mut [f32]);

    impl Task for Weights<'_> {
        type Out = ();

        #[inline(always)]
        fn run<V: Vector>(self, v: V) {
            for (x, pair) in self.0.chunks_exact_mut(V::LANES).zip(self.1.chunks_exact_mut(V::LANES)) {
                let weight = exp2_of_weight(v, v.load(x));
                v.store(weight, x);
                v.store(v.pair(weight, v.sub(v.splat(0.0), weight)), pair);
            }
        }
    }

    #[test]
    fn weights_are_powers_of_two_and_pairs_of_the_nearest_bf16() {
        let mut y: Vec<f32> = (0..100_000).map(|i| -125.9 + i as f32 * (240.0 / 100_000.0)).collect();
        y.extend([
            f32::NEG_INFINITY,
            -1e30,
            f32::NAN,
            0.0,
            1.0,
            -1.0,
            -126.0,
            16.0,
            17.0,
            18.0,
            19.0,
            20.0,
            21.0,
            22.0,
            23.0,
            24.0,
        ]);
        let given = y.len();
        y.resize(given.next_multiple_of(16), 0.0);
        for kernel in Kernel::available() {
            let (mut weights, mut pairs) = (y.clone(), vec![0.0; y.len()]);
            kernel.run(Weights(&mut weights, &mut pairs));
            for ((y, weight), pair) in y.iter().zip(&weights).zip(&pairs) {
                let context = format!("{kernel:?}: 2^{y} = {weight}");
                let exact = f64::from(*y).exp2();
                let tiny = exact < f64::from(f32::MIN_POSITIVE);
                assert!(y.is_nan() == weight.is_nan(), "{context}");
                assert!(
                    y.is_nan() || tiny && *weight <= 1e-38 || (f64::from(*weight) / exact - 1.0).abs() < 2f64.powi(-22),
                    "{context}"
                );
                let halves =
                    [pair.to_bits() & 0xFFFF, pair.to_bits() >> 16].map(|bits| half::bf16::from_bits(bits as u16).to_f32());
                for (half, x) in halves.into_iter().zip([*weight, -weight]) {
                    assert!(
                        half.is_nan() && x.is_nan() || tiny || (half - x).abs() <= x.abs() * (1.0 / 256.0),
                        "{context}: {half}"
                    );
                }
            }
        }
    }

    #[test]
    fn its_ends_are_exact() {
        for kernel in Kernel::available() {
            let y = exps(kernel, &[0.0, f32::NEG_INFINITY, -1e30, f32::NAN, -0.0]);
            assert_eq!((y[0], y[1], y[2], y[4]), (1.0, 0.0, 0.0, 1.0), "{}", kernel.name());
            assert!(y[3].is_nan(), "{}", kernel.name());
        }
    }
}

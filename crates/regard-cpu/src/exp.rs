//! The exponential function, in vectors.

use crate::simd::Vector;

/// `eˣ` to within 2 units in the last place for −87.3 ≤ x ≤ 88.3; exactly 0 below, exactly 1 at 0, NaN for NaN.
///
/// ```text
///   x = n·ln 2 + r, |r| ≤ ln 2 / 2      eˣ = 2ⁿ · (1 + r + r²·p(r))
/// ```
/// `p` of degree 5 and `ln 2` in two parts: Moshier, Cephes Mathematical Library, `expf` (single precision).
#[inline(always)]
pub(crate) fn exp<V: Vector>(v: V, x: V::F) -> V::F {
    const P: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1];
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it leaves the nearest integer in the low bits
    let shifted = v.mul_add(x, v.splat(std::f32::consts::LOG2_E), v.splat(ROUND));
    let n = v.sub(shifted, v.splat(ROUND));
    let r = v.mul_add(n, v.splat(-0.693_359_4), x);
    let r = v.mul_add(n, v.splat(2.121_944_4e-4), r);
    let mut p = v.splat(P[0]);
    for c in &P[1..] {
        p = v.mul_add(p, r, v.splat(*c));
    }
    let y = v.add(v.mul_add(v.mul(r, r), p, r), v.splat(1.0));
    let y = v.mul(y, v.exponent(shifted));
    v.select_below(x, v.splat(-87.3), v.splat(0.0), y)
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
    fn it_is_within_two_units_of_f64() {
        let x: Vec<f32> = (0..200_000).map(|i| -87.2 + i as f32 * (175.0 / 200_000.0)).collect();
        for kernel in Kernel::available() {
            for (x, y) in x.iter().zip(exps(kernel, &x)) {
                let exact = f64::from(*x).exp();
                let unit = f64::from(f32::EPSILON) * exact;
                assert!((f64::from(y) - exact).abs() <= 2.0 * unit, "{}: exp({x}) = {y}, not {exact}", kernel.name());
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

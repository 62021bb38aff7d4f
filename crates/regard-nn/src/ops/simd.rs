//! Plain loops at the full width of the machine: run-time choice of instructions, a vectorisable `exp`, sums in fixed lanes.

/// Runs `f` compiled for the best instruction set that the machine has. Loops inside must be inlined to profit.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// eˣ to 2 units in the last place for x in [−87, 88]; outside, the value at the nearer end.
///
/// x = n·ln 2 + r with |r| ≤ ½ ln 2, eʳ by its Taylor polynomial of degree 7 (the next term is below 6·10⁻⁹), 2ⁿ by exponent bits.
/// Written with separate multiplications and additions, so that every instruction set gives the same bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4; // 9 bits: its products with n are exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest integer in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) << 23;
    f32::from_bits(p.to_bits().wrapping_add(exponent))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Independent partial sums, so that a sum is not one chain of additions.
const LANES: usize = 16;

/// Σ f(i) for i in 0..n, in lanes: the order of additions is a function of n alone.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(start + lane);
        }
    }
    for (total, i) in lanes.iter_mut().zip(whole..n) {
        *total += f(i);
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// The largest element; −∞ of none.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, x) in lanes.iter_mut().zip(chunk) {
            *max = if *x > *max { *x } else { *max };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in 0..=175_000 {
            let x = (-87.0 + i as f32 * 1e-3).min(88.0);
            let (ours, exact) = (vectorised(|| exp(x)), f64::from(x).exp());
            assert!(
                ((f64::from(ours) - exact) / exact).abs() <= 2.0 * f64::from(f32::EPSILON),
                "exp({x}) = {ours}, exactly {exact}"
            );
        }
        assert_eq!(exp(-1e9), exp(-87.0));
    }

    #[test]
    fn sums_take_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            assert_eq!(sum(n, |i| i as f32), (0..n).sum::<usize>() as f32);
            let x: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
            assert_eq!(largest(&x), if n == 0 { f32::NEG_INFINITY } else { 0.0 });
        }
    }
}

//! Tensors of fixed pseudo-random numbers, and gradients against finite differences: for the tests of layers and operations.

use candle_core::{Device, Tensor, Var};
use regard_nn::Result;

/// A different pseudo-random number in [−1, 1) for every `i` and `seed`.
fn noise(seed: usize, i: usize) -> f32 {
    let x = ((seed * 7919 + i) as f64 * 12.9898 + 78.233).sin() * 43_758.545_3;
    (2.0 * (x - x.floor()) - 1.0) as f32
}

pub(crate) fn random(seed: usize, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| noise(seed, i)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(crate) fn var(seed: usize, shape: &[usize]) -> Var {
    Var::from_tensor(&random(seed, shape)).unwrap()
}

pub(crate) fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The function that is differentiated, Σ r·y with fixed random r: once as a candle scalar, once in f64 so that only the rounding of
/// y itself enters the finite differences.
fn weighed(y: &Tensor) -> (Tensor, f64) {
    let r = random(99, y.dims());
    let exact = values(y).iter().zip(values(&r)).map(|(y, r)| f64::from(*y) * f64::from(r)).sum();
    ((y * r).unwrap().sum_all().unwrap(), exact)
}

/// Checks the gradient of `f` in every variable: along a random direction, and along some single coordinates.
///
/// Central differences at h and h/2 combine to (4·D(h/2) − D(h))/3, whose error of truncation is O(h⁴): below 1e-5 at h = 2⁻⁵ for
/// smooth functions whose derivatives are of order 1, more where an RMSNorm meets a row of nearly nothing. Rounding of an output is at
/// most 2⁻²³·|y| times the few dozen roundings behind it, some 3e-6 in a sum of a few dozen outputs, and is divided by h: 1e-4 at 2⁻⁵,
/// 8e-4 at 2⁻⁸. Of the steps from 2⁻⁵ to 2⁻⁸ the one counts at which halving changes least. The test allows 1e-3, and 2e-3 of the
/// derivative, which is far below what a missing or doubled term makes.
pub(crate) fn check_gradients(what: &str, vars: &[(&str, &Var)], f: impl Fn() -> Result<Tensor>) {
    let gradients = weighed(&f().unwrap()).0.backward().unwrap();
    for (index, (name, var)) in vars.iter().enumerate() {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
        assert_eq!(gradient.dims(), var.dims(), "{what}: {name}");
        let (start, gradient) = (values(var), values(gradient));
        let n = start.len();
        let random: Vec<f32> = (0..n).map(|i| noise(index + 31, i) / (n as f32).sqrt()).collect();
        let single = |at: usize| (0..n).map(|i| f32::from(i == at)).collect();
        let directions = std::iter::once(random).chain([0, n / 3, n / 2, n - 1].map(single));
        for (d, direction) in directions.enumerate() {
            let at = |h: f32| {
                let moved: Vec<f32> = start.iter().zip(&direction).map(|(x, d)| x + h * d).collect();
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap()).unwrap();
                weighed(&f().unwrap()).1
            };
            let central = |h: f32| (at(h) - at(-h)) / (2.0 * f64::from(h));
            let differences = [32.0, 64.0, 128.0, 256.0, 512.0].map(|n: f32| central(1.0 / n));
            let combined: Vec<f64> = differences.windows(2).map(|d| (4.0 * d[1] - d[0]) / 3.0).collect();
            let change = |pair: &&[f64]| (pair[1] - pair[0]).abs();
            let steadiest = combined.windows(2).min_by(|a, b| change(a).total_cmp(&change(b))).unwrap();
            let numeric = steadiest[0];
            let analytic: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let allowed = 1e-3 + 2e-3 * numeric.abs().max(analytic.abs());
            assert!((numeric - analytic).abs() < allowed, "{what}: {name}, direction {d}: {analytic}, by differences {numeric}");
        }
        var.set(&Tensor::from_vec(start, var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

//! LinearAttention and CausalConvWithState against ONNX's reference implementation; `tests/onnx/linear.py` wrote its answers.

use regard::{CausalConv, LinearAttention, LinearInputs, Tensor, UpdateRule, View};
use regard_testing::array::Array;
use regard_testing::oracle::linear::Linear;
use regard_testing::tolerance::{gamma, worst};

/// Cases: words, outputs, states.
fn cases(kind: &str) -> Vec<(Vec<&'static str>, Vec<f64>, Vec<f64>)> {
    let lines: Vec<&str> = include_str!("../onnx/linear.txt").lines().collect();
    let numbers = |line: &str| line.split_whitespace().map(|x| x.parse().unwrap()).collect();
    let case = |three: &[&'static str]| (three[0].split(' ').collect(), numbers(three[1]), numbers(three[2]));
    lines.chunks(3).map(case).filter(|(words, ..): &(Vec<&str>, _, _)| words[0] == kind).collect()
}

/// The numbers that `linear.py` makes.
fn numbers(seed: u64, shape: [usize; 4], low: f32, high: f32) -> Tensor<f32> {
    let bits = |i: u64| ((1000 * seed + 1 + i) * 2_654_435_761 % (1 << 32)) >> 21;
    let number = |i: u64| low + bits(i) as f32 * ((high - low) / 2048.0);
    Tensor::from_vec((0..shape.iter().product::<usize>() as u64).map(number).collect(), shape).unwrap()
}

/// `[batch, length, heads, dim]` as `[batch, heads, length, dim]`.
fn turned(x: &Tensor<f32>) -> View<'_, f32> {
    x.view().permute([0, 2, 1, 3]).unwrap()
}

/// An answer in ONNX's order, `[batch, length, heads, dim]`.
fn expected(from: &[f64], [batch, heads, len, dim]: [usize; 4]) -> Array {
    assert_eq!(from.len(), batch * heads * len * dim);
    Array::from_fn([batch, heads, len, dim], |[b, h, l, d]| from[((b * len + l) * heads + h) * dim + d])
}

fn twice(x: &Array) -> Array {
    Array::from_fn(x.shape(), |at| 2.0 * x[at])
}

#[test]
fn linear_attention() {
    let all = cases("linear");
    assert_eq!(all.len(), 9);
    for (words, out, state) in all {
        let rule = match words[1] {
            "linear" => UpdateRule::Linear,
            "gated" => UpdateRule::Gated,
            "delta" => UpdateRule::Delta,
            _ => UpdateRule::GatedDelta,
        };
        let n: Vec<usize> = words[2..11].iter().map(|x| x.parse().unwrap()).collect();
        let &[b, hq, hkv, t, d, dv, width, beta_heads, past] = &n[..] else { unreachable!() };
        let scale: f32 = words[11].parse().unwrap();
        let (q, k) = (numbers(1, [b, t, hq, d], -1.0, 1.0), numbers(2, [b, t, hkv, d], -0.5, 0.5));
        let (v, state_before) = (numbers(3, [b, t, hkv, dv], -1.0, 1.0), numbers(4, [b, hkv, d, dv], -1.0, 1.0));
        let (decay, beta) = (numbers(5, [b, t, hkv, width], -1.0, 0.0), numbers(6, [b, t, beta_heads, 1], 0.0, 1.0));
        let mut inputs = LinearInputs::new(turned(&q), turned(&k), turned(&v));
        inputs = if width > 0 { inputs.decay(turned(&decay)) } else { inputs };
        inputs = if beta_heads > 0 { inputs.beta(turned(&beta)) } else { inputs };
        inputs = if past > 0 { inputs.past(state_before.view()) } else { inputs };
        let mut oracle = Linear::new(&inputs, rule, false);
        let mut attention = LinearAttention::new(rule);
        if scale != 0.0 {
            attention = attention.scale(scale);
            oracle.scale = f64::from(scale);
        }
        let truth = oracle.forward();
        let (d_out, d_state) = (Array::zeros(truth.out.shape()), Array::zeros(truth.state.shape()));
        let bounds = oracle.bounds::<f32>(&truth, &oracle.backward(&d_out, &d_state), &d_out, &d_state);
        let out = expected(&out, truth.out.shape());
        let state = Array::from_fn(truth.state.shape(), |[b, h, i, j]| state[((b * hkv + h) * d + i) * dv + j]);
        for kernel in regard::kernels() {
            let got = attention.clone().kernel(kernel).forward(inputs).unwrap();
            let ratio = worst(&Array::from_tensor(&got.out), &out, &twice(&bounds.out)).unwrap();
            assert!(ratio.ratio <= 1.0, "{kernel} {words:?}: {ratio}");
            let ratio = worst(&Array::from_tensor(&got.state), &state, &twice(&bounds.state)).unwrap();
            assert!(ratio.ratio <= 1.0, "{kernel} {words:?}: {ratio}");
        }
    }
}

#[test]
fn causal_conv_with_state() {
    let all = cases("conv");
    assert_eq!(all.len(), 4);
    for (words, out, state) in all {
        let n: Vec<usize> = words[1..].iter().map(|x| x.parse().unwrap()).collect();
        let &[b, c, len, taps, bias, past, silu] = &n[..] else { unreachable!() };
        let (x, weight) = (numbers(1, [b, c, len, 1], -1.0, 1.0), numbers(2, [1, c, taps, 1], -1.0, 1.0));
        let (added, before) = (numbers(3, [1, c, 1, 1], -1.0, 1.0), numbers(4, [b, c, taps - 1, 1], -1.0, 1.0));
        let mut conv = CausalConv::new(weight.view());
        conv = if bias > 0 { conv.bias(added.view()) } else { conv };
        conv = if silu > 0 { conv.silu() } else { conv };
        let got = conv.forward(x.view(), (past > 0).then_some(before.view())).unwrap();
        // Sums of `taps + 1` numbers of at most 1, on both sides; silu is no steeper than 1.1 and its exponential good to a few units.
        let tolerance = 2.0 * (1.1 * gamma(taps + 1) + 4.0 * gamma(1)) * (taps + 1) as f64;
        for (got, expected) in got.out.data().iter().zip(&out) {
            assert!((f64::from(*got) - expected).abs() <= tolerance, "{words:?}: {got} {expected}");
        }
        assert_eq!(got.state.data().iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), rounded(&state), "{words:?}");
        assert_eq!(got.out.data().len(), out.len());
    }
}

/// Numbers that were f32 before they were written in nine digits.
fn rounded(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x as f32)).collect()
}

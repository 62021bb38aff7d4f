//! The oracle against hand calculation, finite differences and published vectors.

use regard_core::{Causal, Dropout, Pair, Tensor};

use super::*;
use crate::case::{Case, Inputs};
use crate::tolerance::worst;

fn problem<'a>(inputs: &Inputs<f32>) -> Problem<'a> {
    Problem::new(inputs.q.view(), inputs.k.view(), inputs.v.view())
}

#[test]
fn two_keys_by_hand() {
    // scores ln 3 and 0 give weights 3/4 and 1/4; with a sink of ln 4, 3/8 and 1/8.
    let of = |data: Vec<f32>, shape| Tensor::from_vec(data, shape).unwrap();
    let (q, k) = (of(vec![1.0], [1, 1, 1, 1]), of(vec![3f32.ln(), 0.0], [1, 1, 2, 1]));
    let v = of(vec![8.0, 0.0, 0.0, 16.0], [1, 1, 2, 2]);
    let mut problem = Problem::new(q.view(), k.view(), v.view());
    let close = |got: &[f64], expected: [f64; 2]| {
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6), "{got:?} {expected:?}");
    };
    let truth = problem.forward();
    close(truth.out.row([0, 0, 0]), [6.0, 4.0]);
    close(&[truth.lse[[0, 0, 0, 0]], 0.0], [4f64.ln(), 0.0]);
    problem.sinks = Some(vec![4f64.ln()]);
    let truth = problem.forward();
    close(truth.out.row([0, 0, 0]), [3.0, 2.0]);
    close(&[truth.lse[[0, 0, 0, 0]], 0.0], [8f64.ln(), 0.0]);
}

#[test]
fn a_query_head_reads_the_kv_head_of_its_group() {
    let case = Case::new(3, [1, 6, 2, 2, 4, 3, 2]);
    let inputs = case.inputs::<f32>();
    let grouped = problem(&inputs).forward();
    for head in 0..6 {
        let (q, kv) = (head..head + 1, head / 3..head / 3 + 1);
        let one = |view: View<'_, f32>, range| Array::from_view(view.slice(1, range).unwrap());
        let mut alone = problem(&inputs);
        alone.q = one(inputs.q.view(), q);
        alone.k = one(inputs.k.view(), kv.clone());
        alone.v = one(inputs.v.view(), kv);
        let alone = alone.forward();
        (0..2).for_each(|i| assert_eq!(alone.out.row([0, 0, i]), grouped.out.row([0, head, i])));
    }
}

#[test]
fn hidden_keys_are_not_observed_and_empty_rows_are_zero() {
    let case = Case::new(5, [1, 1, 1, 4, 3, 2, 2]);
    let mut inputs = case.inputs::<f32>();
    inputs.k.fill_row([0, 0, 2], f32::NAN);
    inputs.v.fill_row([0, 0, 2], f32::NAN);
    inputs.v.fill_row([0, 0, 1], f32::INFINITY);
    let mut problem = problem(&inputs);
    let keep = |p: Pair| p.kv < 2 && p.q > 0;
    let hide = |s: f64, p: Pair| if p.kv == 1 { f64::NEG_INFINITY } else { s };
    (problem.mask, problem.score) = (&keep, &hide);
    let truth = problem.forward();
    let first = Array::from_view(inputs.v.view());
    assert_eq!(truth.out.row([0, 0, 0]), [0.0, 0.0]);
    assert_eq!(truth.lse[[0, 0, 0, 0]], f64::NEG_INFINITY);
    (1..4).for_each(|i| assert_eq!(truth.out.row([0, 0, i]), first.row([0, 0, 0])));
    let gradients = problem.backward(&truth, &Array::from_view(inputs.d_out.view()), &|_, _| 1.0);
    assert_eq!(gradients.dq.row([0, 0, 0]), [0.0, 0.0]);
    assert!((1..3).all(|j| gradients.dk.row([0, 0, j]) == [0.0, 0.0]));
    assert!((1..3).all(|j| gradients.dv.row([0, 0, j]) == [0.0, 0.0]));
    problem.sinks = Some(vec![0.5]);
    let truth = problem.forward();
    assert_eq!((truth.out.row([0, 0, 0]), truth.lse[[0, 0, 0, 0]]), ([0.0, 0.0].as_slice(), 0.5));
}

/// Central differences of `Σ dO·out` by every element of the array that `pick` chooses.
fn assert_gradient<'p>(
    problem: &mut Problem<'p>,
    d_out: &Array,
    gradient: &Array,
    pick: for<'a> fn(&'a mut Problem<'p>) -> &'a mut Array,
) {
    const STEP: f64 = 1e-5;
    for at in gradient.coordinates() {
        let mut loss = |step: f64| {
            pick(problem)[at] += step;
            let loss = problem.forward().out.dot(d_out);
            pick(problem)[at] -= step;
            loss
        };
        let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        assert!((slope - gradient[at]).abs() < 1e-8, "{at:?}: {slope} {}", gradient[at]);
    }
}

#[test]
fn gradients_are_finite_differences() {
    let case = Case { dropout: 0.3, ..Case::new(11, [2, 4, 2, 3, 5, 3, 2]) };
    let inputs = case.inputs::<f32>();
    let d_out = Array::from_view(inputs.d_out.view());
    let score = |s: f64, p: Pair| 2.0 * (s / 2.0).tanh() - 0.1 * f64::from(p.kv);
    let slope = |s: f64, _: Pair| 1.0 - (s / 2.0).tanh().powi(2);
    let mut problem = problem(&inputs);
    (problem.mask, problem.score) = (&Causal::LowerRight, &score);
    (problem.dropout, problem.sinks) = (case.dropout(), Some(vec![0.3, -1.0, 1.0, 0.0]));
    let gradients = problem.backward(&problem.forward(), &d_out, &slope);
    assert_gradient(&mut problem, &d_out, &gradients.dq, |p| &mut p.q);
    assert_gradient(&mut problem, &d_out, &gradients.dk, |p| &mut p.k);
    assert_gradient(&mut problem, &d_out, &gradients.dv, |p| &mut p.v);
    for (head, gradient) in gradients.dsinks.iter().enumerate() {
        let mut loss = |step: f64| {
            problem.sinks.as_mut().unwrap()[head] += step;
            let loss = problem.forward().out.dot(&d_out);
            problem.sinks.as_mut().unwrap()[head] -= step;
            loss
        };
        let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        assert!((slope - gradient).abs() < 1e-8, "sink {head}: {slope} {gradient}");
    }
}

#[test]
fn the_gradient_of_a_bias_is_that_of_its_scores_summed_where_it_repeats() {
    let case = Case::new(13, [2, 2, 1, 3, 4, 3, 2]);
    let inputs = case.inputs::<f32>();
    let d_out = Array::from_view(inputs.d_out.view());
    let loss = |bias: &Array| {
        let score = |s: f64, p: Pair| s + bias[[0, p.head as usize, 0, p.kv as usize]];
        let mut problem = problem(&inputs);
        problem.score = &score;
        let truth = problem.forward();
        (truth.out.dot(&d_out), problem.backward(&truth, &d_out, &|_, _| 1.0).dscores)
    };
    let mut bias = Array::from_fn([1, 2, 1, 4], |[_, h, _, j]| (h as f64 - j as f64) / 3.0);
    let gradient = loss(&bias).1.reduce(bias.shape());
    for at in gradient.coordinates() {
        let mut moved = |step: f64| {
            bias[at] += step;
            let loss = loss(&bias).0;
            bias[at] -= step;
            loss
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((slope - gradient[at]).abs() < 1e-8, "{at:?}: {slope} {}", gradient[at]);
    }
}

/// The formulas in f32, in order: what the tolerances must allow.
fn plain_f32(inputs: &Inputs<f32>, scale: f32) -> Array {
    let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
    let [_, _, keys, dim] = k.shape();
    let mut out = Array::zeros([1, 1, q.shape()[2], v.shape()[3]]);
    for i in 0..q.shape()[2] {
        let scores: Vec<f32> =
            (0..keys).map(|j| scale * (0..dim).map(|d| q.at([0, 0, i, d]) * k.at([0, 0, j, d])).sum::<f32>()).collect();
        let max = scores.iter().copied().fold(f32::MIN, f32::max);
        let exps: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum = exps.iter().sum::<f32>();
        for d in 0..v.shape()[3] {
            let weighted = (0..keys).map(|j| exps[j] * v.at([0, 0, j, d])).sum::<f32>();
            out[[0, 0, i, d]] = f64::from(weighted / sum);
        }
    }
    out
}

#[test]
fn tolerances_pass_roundings_and_stop_mistakes() {
    for (seed, dim, keys) in [(1, 4, 3), (2, 64, 200), (3, 256, 40), (4, 64, 1000)] {
        let case = Case::new(seed, [1, 1, 1, 5, keys, dim, 16]);
        let inputs = case.inputs::<f32>();
        let problem = problem(&inputs);
        let truth = problem.forward();
        let bounds = problem.bounds::<f32>(&truth);
        let scale = 1.0 / (dim as f32).sqrt();
        let right = worst(&plain_f32(&inputs, scale), &truth.out, &bounds.out).unwrap();
        assert!(right.ratio < 1.0, "{case}: {right}");
        let wrong = worst(&plain_f32(&inputs, scale * 1.0005), &truth.out, &bounds.out).unwrap();
        assert!(wrong.ratio > 1.0, "{case}: a scale wrong by 1/2000 goes unseen: {wrong}");
    }
}

/// Known answers of Random123's `kat_vectors`, philox4x32 10, through the decisions they make: the word `w` drops its
/// pair exactly when `p` exceeds `(w >> 8) / 2²⁴`.
#[test]
fn dropout_decides_as_the_published_philox_vectors_do() {
    let vectors = [
        ([0; 4], 0, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8u32]),
        ([u32::MAX; 4], u64::MAX, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            0x299f_31d0_a409_3822,
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for ([q, n, head, batch], seed, words) in vectors {
        let at = Pair { q, head, batch, ..Pair::default() };
        for (lane, word) in words.into_iter().enumerate() {
            let uniform = (word >> 8) as f32 / (1 << 24) as f32;
            let factor = |p: f32| Dropout::new(p, seed).unwrap().factors(at, n)[lane];
            assert_eq!(factor(uniform), 1.0 / (1.0 - uniform), "kept at its own number");
            assert_eq!(factor(uniform + 1.0 / (1 << 24) as f32), 0.0, "dropped just above it");
        }
    }
}

#[test]
fn dropout_drops_the_asked_share_and_keeps_the_mean() {
    for p in [0.1f32, 0.5, 0.9] {
        let dropout = Dropout::new(p, 42).unwrap();
        let n = 40_000;
        let at = |i: u32| Pair { batch: i % 3, head: i % 5, q: i / 200, kv: i % 200, ..Pair::default() };
        let factors: Vec<f32> = (0..n).map(|i| dropout.factor(at(i))).collect();
        let dropped = factors.iter().filter(|&&f| f == 0.0).count() as f32 / n as f32;
        let deviation = (p * (1.0 - p) / n as f32).sqrt();
        assert!((dropped - p).abs() < 5.0 * deviation, "{p}: {dropped}");
        let mean = factors.iter().sum::<f32>() / n as f32;
        assert!((mean - 1.0).abs() < 5.0 * deviation / (1.0 - p), "{p}: {mean}");
    }
}

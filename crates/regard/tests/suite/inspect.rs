//! Facts and maps against materialised weights: every kernel, type, layout, mask and score; threads; rows that see nothing.

use half::{bf16, f16};
use regard::{Attention, Causal, Element, Error, Facts, Grid, Inspect, Mask, Pair, Region, Slope, Tensor, View};
use regard_testing::array::Array;
use regard_testing::by_ref::ByRef;
use regard_testing::case::{Case, Values};
use regard_testing::oracle::{Fact, Looked, Problem, lift};
use regard_testing::tolerance::assert_close;
use regard_testing::zoo::drawn;

use crate::run::{attention, bits, kernels, output_bits};

/// Compares all that is asked for with what the oracle's weights say.
fn agree<T: Element, M: Mask + ?Sized, S: Slope + ?Sized>(case: &Case, name: &str, mask: &M, score: &S) {
    let inputs = case.inputs::<T>();
    let mut problem = Problem::new(inputs.q.view(), inputs.k.view(), inputs.v.view());
    let (mask_ref, score_fn) = (ByRef(mask), lift(score));
    (problem.mask, problem.score) = (&mask_ref, &score_fn);
    problem.sinks = case.sinks().map(|sinks| sinks.into_iter().map(f64::from).collect());
    let truth = problem.forward();
    let bounds = problem.bounds::<T>(&truth);
    let looked = Looked { problem: &problem, truth: &truth, bounds: &bounds };
    let (q_len, kv_len) = (case.shape.q_len, case.shape.kv_len);
    let what = Inspect { first: 3, recent: 9, top: 4, ranges: vec![0..kv_len, kv_len / 3..kv_len / 2, 0..0] };
    let rows =
        Region { batch: 0..case.shape.batch, heads: 0..case.shape.q_heads, rows: q_len / 4..q_len, keys: kv_len / 5..kv_len };
    let whole = Grid { rows: q_len.max(1), keys: 1 };
    let grids = [Grid { rows: 1, keys: 1 }, Grid { rows: 3, keys: 7 }, Grid { rows: 128, keys: 64 }, whole];
    for kernel in kernels() {
        let context = |fact: &str| format!("{kernel} {} {name} {fact} {case}", T::NAME);
        let attention = attention(case, kernel, mask, score);
        let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        let seen = plan.inspect(&what).unwrap();
        assert_eq!(output_bits(&seen.output), output_bits(&plan.forward().unwrap()), "{}", context("output"));
        facts(&looked, &what, &seen.facts, &context);
        let maps = plan.maps(seen.output.lse.view(), &rows, &grids).unwrap();
        for (map, grid) in maps.iter().zip(grids) {
            check(map, &looked.map(rows.rows.clone(), rows.keys.clone(), [grid.rows, grid.keys]), &context(&format!("{grid:?}")));
        }
    }
}

fn check(got: &Tensor<f32>, fact: &Fact, context: &str) {
    assert_close(got, &fact.value, &fact.tolerance, &context);
}

fn facts(looked: &Looked<'_>, what: &Inspect, got: &Facts, context: &dyn Fn(&str) -> String) {
    let (first, recent) = (what.first, what.recent as i64);
    check(&got.entropy, &looked.entropy(), &context("entropy"));
    check(&got.max_logit, &looked.max_logit(), &context("largest logit"));
    check(&got.distance, &looked.distance(), &context("distance"));
    check(&got.first, &looked.masses(1, |_, key, _| key < first), &context("first"));
    check(&got.recent, &looked.masses(1, |d, _, _| (0..recent).contains(&d)), &context("recent"));
    let ranges = looked.masses(what.ranges.len(), |_, key, c| what.ranges[c].contains(&key));
    check(&got.ranges, &ranges, &context("ranges"));
    // Class 0 is distance 0; class c is 2^(c−1) ≤ d < 2^c, on either side.
    let class = |d: i64| if d == 0 { 0 } else { 1 + d.unsigned_abs().ilog2() as usize };
    let distances = looked.masses(got.distances.shape()[3], |d, _, c| class(d) == c);
    check(&got.distances, &distances, &context("distances"));
    let [batch, heads, q_len, top] = got.top_weights.shape();
    for row in (0..batch * heads * q_len).map(|i| [i / q_len / heads, i / q_len % heads, i % q_len]) {
        let at = (row[0] * heads + row[1]) * q_len + row[2];
        let (weights, keys) = (&got.top_weights.data()[at * top..][..top], &got.top_keys[at * top..][..top]);
        ranked(looked.ranked(row), weights, keys, &format!("{} of row {row:?}", context("top")));
    }
}

/// The weights are the largest ones, their keys have them, and none is named twice.
fn ranked((expected, tolerance): (Vec<(f64, usize)>, f64), weights: &[f32], keys: &[u32], context: &str) {
    for (rank, (weight, key)) in weights.iter().zip(keys).enumerate() {
        let Some((p, _)) = expected.get(rank) else {
            // A weight that is 0 in f64 may still have a score, and so a key.
            assert!(*weight <= 1e-37, "{context}: rank {rank} is {weight} and there are {} keys", expected.len());
            continue;
        };
        assert!((f64::from(*weight) - p).abs() <= tolerance, "{context}: rank {rank} is {weight}, not {p}");
        let of_key = expected.iter().find(|(_, j)| *j == *key as usize).map_or(0.0, |(p, _)| *p);
        assert!((of_key - p).abs() <= 2.0 * tolerance, "{context}: key {key} has {of_key}, and rank {rank} is {p}");
        assert!(!keys[..rank].contains(key), "{context}: key {key} twice");
    }
}

fn agree_in<M: Mask + ?Sized, S: Slope + ?Sized>(dtype: u64, case: &Case, name: &str, mask: &M, score: &S) {
    match dtype % 3 {
        0 => agree::<f32, M, S>(case, name, mask, score),
        1 => agree::<bf16, M, S>(case, name, mask, score),
        _ => agree::<f16, M, S>(case, name, mask, score),
    }
}

#[test]
fn facts_and_maps_are_those_of_materialised_weights() {
    for (case, dtype) in Case::corners().into_iter().zip(0..) {
        agree_in(dtype, &case, "causal", &Causal::LowerRight, &());
        agree_in(dtype + 1, &Case { sinks: true, dropout: 0.2, ..case.clone() }, "everything", &(), &());
        drawn(&case.shape, case.seed, |name, mask, score, _| agree_in(dtype + 2, &case, name, mask, score));
    }
}

#[test]
fn facts_and_maps_of_random_cases() {
    for seed in 5000..5040 {
        let case = Case::random(seed, 300_000);
        drawn(&case.shape, case.seed, |name, mask, score, _| agree_in(seed, &case, name, mask, score));
    }
}

#[test]
fn facts_and_maps_of_every_kind_of_value() {
    for values in Values::ALL {
        for (seed, sizes) in [(61, [1, 2, 1, 30, 600, 16, 8]), (62, [1, 1, 1, 150, 150, 8, 8])] {
            agree_in(seed, &Case { values, ..Case::new(seed, sizes) }, "causal", &Causal::LowerRight, &());
        }
    }
}

#[test]
fn nothing_in_some_dimension() {
    Case::empty().iter().for_each(|case| agree_in(0, case, "everything", &(), &()));
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = Case::new(71, [2, 4, 2, 300, 1500, 16, 16]);
    let inputs = case.inputs::<f32>();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let attention = Attention::new().mask(Causal::LowerRight);
            let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
            let seen = plan.inspect(&Inspect { top: 3, ..Inspect::default() }).unwrap();
            let maps = plan.maps(seen.output.lse.view(), &plan.whole(), &[Grid { rows: 300, keys: 1 }, Grid { rows: 8, keys: 8 }]);
            (output_bits(&seen.output), format!("{:?}", seen.facts), maps.unwrap().iter().map(bits).collect::<Vec<_>>())
        })
    };
    let alone = run(1);
    (2..5).for_each(|threads| assert!(run(threads) == alone, "{threads} threads"));
}

/// Zeros, −∞ and no key; and hidden NaN is not seen.
#[test]
fn a_row_that_sees_nothing_has_defined_facts() {
    let mut data: Vec<f32> = (0..70 * 8).map(|i| (i as f32).sin()).collect();
    data[69 * 8..].fill(f32::NAN); // the last key, which nobody sees; its query sees nothing
    let x = View::new(&data, [1, 1, 70, 8]).unwrap();
    let mask = |p: Pair| p.q != 69 && p.kv <= p.q && p.q > 2;
    for kernel in kernels() {
        let attention = Attention::new().mask(mask).kernel(kernel);
        let plan = attention.plan(x, (x, x)).unwrap();
        let Facts { entropy, max_logit, distance, first, recent, distances, top_weights, top_keys, .. } =
            plan.inspect(&Inspect::default()).unwrap().facts;
        for row in [0, 2, 69] {
            assert_eq!([&entropy, &distance, &first, &recent, &top_weights].map(|fact| fact.data()[row]), [0.0; 5], "{kernel}");
            assert_eq!((max_logit.data()[row], top_keys[row]), (f32::NEG_INFINITY, u32::MAX), "{kernel}");
        }
        assert!([&entropy, &distance, &distances].iter().all(|fact| fact.data().iter().all(|x| x.is_finite())), "{kernel}");
        let lse = plan.forward().unwrap().lse;
        assert_eq!(plan.weights(lse.view(), [0, 0, 69]).unwrap(), [0.0; 70], "{kernel}");
        let row = plan.weights(lse.view(), [0, 0, 5]).unwrap();
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row[6..].iter().all(|p| *p == 0.0), "{kernel}: {row:?}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let x = [0.5f32; 40];
    let x = View::new(&x, [1, 2, 5, 4]).unwrap();
    let attention = Attention::new();
    let plan = attention.plan(x, (x, x)).unwrap();
    let lse = plan.forward().unwrap().lse;
    let error = |what: Inspect| plan.inspect(&what).unwrap_err().to_string();
    assert_eq!(error(Inspect { ranges: vec![0..1, 3..9], ..Inspect::default() }), "range 3..9 leaves axis 3, which has 5 elements");
    assert_eq!(error(Inspect { top: 0, ..Inspect::default() }), "the number of largest weights is 0 and must be at least 1");
    let cell = Grid { rows: 1, keys: 1 };
    let heads = Region { heads: 1..3, ..plan.whole() };
    assert_eq!(plan.maps(lse.view(), &heads, &[cell]).unwrap_err(), Error::Range { axis: 1, start: 1, end: 3, size: 2 });
    let nothing = plan.maps(lse.view(), &plan.whole(), &[Grid { rows: 0, keys: 1 }]);
    assert_eq!(nothing.unwrap_err().to_string(), "the size of a cell is 0 and must be at least 1");
    let short = Tensor::<f32>::zeros([1, 2, 4, 1]).unwrap();
    assert!(plan.maps(short.view(), &plan.whole(), &[cell]).is_err());
    assert!(Array::from_tensor(&lse).shape() == [1, 2, 5, 1] && plan.weights(lse.view(), [0, 0, 5]).is_err());
}

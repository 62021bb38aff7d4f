//! Rows in f64 against the oracle, and the errors of types against what is known by hand.

use half::{bf16, f16};
use regard::{Attention, CacheShape, Causal, Element, Error, Errors, Kv, KvCache, Mask, Pair, Slope, Tensor, View};
use regard_testing::array::Array;
use regard_testing::by_ref::ByRef;
use regard_testing::case::Case;
use regard_testing::oracle::{Problem, lift};
use regard_testing::zoo::drawn;

use crate::run::attention;

fn agree<T: Element, M: Mask + ?Sized, S: Slope + ?Sized>(case: &Case, name: &str, mask: &M, score: &S) {
    let inputs = case.inputs::<T>();
    let mut problem = Problem::new(inputs.q.view(), inputs.k.view(), inputs.v.view());
    let (mask_ref, score_fn) = (ByRef(mask), lift(score));
    problem.mask = &mask_ref;
    problem.scale = f64::from(1.0 / (case.shape.head_dim.max(1) as f32).sqrt()); // a plan's is an f32
    if !score.is_identity() {
        problem.score = &score_fn; // which rounds s to f32
    }
    problem.sinks = case.sinks().map(|sinks| sinks.into_iter().map(f64::from).collect());
    problem.dropout = case.dropout();
    let truth = problem.forward();
    let bounds = problem.bounds::<f32>(&truth);
    let attention = attention(case, "scalar", mask, score);
    let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
    let [batch, heads, q_len, dim] = case.shape.out();
    let rows: Vec<usize> = (0..q_len).rev().step_by(2).collect();
    let exact = plan.exact(&rows).unwrap();
    assert_eq!(exact.len(), batch * heads * rows.len() * dim);
    for (at, got) in Array::zeros([batch, heads, rows.len(), dim]).coordinates().zip(exact) {
        let at = [at[0], at[1], rows[at[2]], at[3]];
        // Where a score rounds s to f32, the sum of another order may round the other way.
        let tolerance = if score.is_identity() { 1e-11 * (1.0 + truth.out[at].abs()) } else { bounds.out[at] };
        let same = (got - truth.out[at]).abs() <= tolerance || got.is_nan() && truth.out[at].is_nan();
        assert!(same, "{} {name} {case} at {at:?}: {got}, not {}", T::NAME, truth.out[at]);
    }
}

#[test]
fn rows_are_those_of_the_oracle() {
    for seed in 4000..4060 {
        let case = Case::random(seed, 300_000);
        drawn(&case.shape, case.seed, |name, mask, score, _| match seed % 3 {
            0 => agree::<f32, _, _>(&case, name, mask, score),
            1 => agree::<bf16, _, _>(&case, name, mask, score),
            _ => agree::<f16, _, _>(&case, name, mask, score),
        });
    }
    for case in Case::corners().iter().chain(&Case::empty()) {
        agree::<f32, _, _>(case, "causal", &Causal::UpperLeft, &());
    }
}

/// Numbers of no pattern.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
}

#[test]
fn sequences_of_a_cache_are_as_alone() {
    let shape = CacheShape { pages: 8, page_size: 4, layers: 1, kv_heads: 1, head_dim: 8, value_dim: 8 };
    let mut cache = KvCache::new(shape).unwrap();
    let lengths = [5, 9];
    let kv = lengths.map(|n| Tensor::from_vec(numbers(n * 8, n), [1, 1, n, 8]).unwrap());
    let mut seqs = lengths.map(|_| cache.sequence());
    seqs.iter_mut().zip(&kv).for_each(|(seq, kv)| cache.append(seq, kv.view(), kv.view()).unwrap());
    let q = Tensor::from_vec(numbers(2 * 2 * 3 * 8, 1), [2, 2, 3, 8]).unwrap();
    let attention = Attention::new().mask(Causal::LowerRight);
    let seqs = [&seqs[0], &seqs[1]];
    let plan = attention.plan(q.view(), Kv::Paged { cache: &cache, layer: 0, seqs: &seqs }).unwrap();
    let (exact, errors) = (plan.exact(&[2, 0]).unwrap(), plan.errors(&[2, 0]).unwrap().bf16);
    for (b, kv) in kv.iter().enumerate() {
        let alone = attention.plan(q.view().slice(0, b..b + 1).unwrap(), (kv.view(), kv.view())).unwrap();
        assert_eq!(exact[b * 32..][..32], alone.exact(&[2, 0]).unwrap());
        assert_eq!(errors[b * 2..][..2], alone.errors(&[2, 0]).unwrap().bf16);
    }
}

/// One key, so that the output is its value.
fn of_value(value: f32) -> [f64; 3] {
    let [q, v] = [[1.0f32; 4], [value; 4]];
    let (q, v) = (View::new(&q, [1, 1, 1, 4]).unwrap(), View::new(&v, [1, 1, 1, 4]).unwrap());
    let attention = Attention::new();
    let plan = attention.plan(q, (q, v)).unwrap();
    let Errors { f32, bf16, f16 } = plan.errors(&[0]).unwrap();
    [f32[0], bf16[0], f16[0]]
}

#[test]
fn errors_are_those_of_the_type() {
    assert_eq!(of_value(1.5), [0.0; 3]);
    let ninth = 2f64.powi(-9); // f16 has ten bits after the point, bf16 seven
    assert_eq!(of_value(1.0 + ninth as f32), [0.0, ninth / (1.0 + ninth), 0.0]);
    let [of_f32, of_bf16, of_f16] = of_value(1e6);
    assert_eq!(of_f32, 0.0);
    assert!(of_bf16 < 4e-3);
    assert!(!of_f16.is_finite(), "{of_f16}: 1e6 is beyond f16");
}

/// In f16 the query, or a key, would be −∞ in its first element, and scores of −∞ hide keys.
#[test]
fn what_a_type_cannot_hold_is_no_small_error() {
    let (small, values) = ([[0.01, 0.3]; 4], numbers(8, 5));
    let large = |at: usize, mut rows: [[f32; 2]; 4]| {
        rows[at][0] = -1e5;
        rows
    };
    let error = |q: [[f32; 2]; 4], k: [[f32; 2]; 4], mask: fn(Pair) -> bool| {
        let [q, k, v] = [q.as_flattened(), k.as_flattened(), &values].map(|x| View::new(x, [1, 1, 4, 2]).unwrap());
        Attention::new().mask(mask).plan(q, (k, v)).unwrap().errors(&[0, 3]).unwrap().f16[0]
    };
    assert!(!error(large(3, small), small, |_| true).is_finite());
    assert!(!error(small, large(1, small), |_| true).is_finite());
    assert!(error(small, large(1, small), |p| p.kv != 1) < 1e-3, "a key that is hidden is not seen");
}

#[test]
fn errors_grow_as_bits_go() {
    let x = Tensor::from_vec(numbers(2 * 100 * 32, 3), [1, 2, 100, 32]).unwrap();
    let attention = Attention::new().mask(Causal::UpperLeft).dropout(0.5, 1).sinks([0.5, f32::NEG_INFINITY]);
    let plan = attention.plan(x.view(), (x.view(), x.view())).unwrap();
    let spread = plan.spread_rows(64);
    assert!(
        spread.len() == 64 && spread[63] == 99 && spread.windows(2).all(|two| (1..=2).contains(&(two[1] - two[0]))),
        "{spread:?}"
    );
    let rows: Vec<usize> = (0..100).collect();
    let Errors { f32, bf16, f16 } = plan.errors(&rows).unwrap();
    for ((of_f32, of_bf16), of_f16) in f32.iter().zip(bf16).zip(f16) {
        assert!(*of_f32 < 1e-6, "{of_f32}");
        assert!((1e-5..1e-3).contains(&of_f16), "{of_f16}");
        assert!((4.0..16.0).contains(&(of_bf16 / of_f16)), "{of_bf16} and {of_f16}: three bits less");
    }
}

#[test]
fn what_is_hidden_is_not_read_and_a_row_of_nothing_is_zero() {
    let mut x = numbers(4 * 8, 2);
    x[3 * 8..].fill(f32::NAN);
    let x = View::new(&x, [1, 1, 4, 8]).unwrap();
    let attention = Attention::new().mask(|p: Pair| p.kv < 3 && p.q != 1);
    let plan = attention.plan(x, (x, x)).unwrap();
    let exact = plan.exact(&[0, 1, 2]).unwrap();
    assert!(exact.iter().all(|x| x.is_finite()));
    assert_eq!(exact[8..16], [0.0; 8]);
    assert_eq!(plan.errors(&[1]).unwrap().f32, [0.0]);
    assert_eq!(plan.exact(&[]).unwrap(), [0.0; 0]);
    assert_eq!(
        [0, 1, 3, 4, 9].map(|most| plan.spread_rows(most)),
        [vec![], vec![3], vec![0, 1, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3]]
    );
    let by_score = Attention::new().score(|s: f32, p: Pair| if p.kv == 3 { f32::NEG_INFINITY } else { s });
    assert!(by_score.plan(x, (x, x)).unwrap().exact(&[0, 1, 2]).unwrap().iter().all(|x| x.is_finite()));
    let (start, end, size) = (4, 5, 4);
    assert_eq!(plan.exact(&[0, 4]).unwrap_err(), Error::Range { axis: 2, start, end, size });
}

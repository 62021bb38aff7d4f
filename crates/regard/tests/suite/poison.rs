//! What is hidden is never observed: NaN and ∞ there change no bit of a row that does not see it.

use regard::{Causal, Mask, Padding, Pair, Shape, Slope, Tile, View, Window};
use regard_testing::case::{Case, Inputs};
use regard_testing::oracle::BiasTruth;
use regard_testing::rng::Rng;
use regard_testing::zoo::{masks, scores};

use crate::run::{bits, grad_bits, output_bits, run};

const POISONS: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Whether query row `[batch, head, i]` sees key `j`.
fn sees(mask: &dyn Mask, shape: &Shape, [b, h, i]: [usize; 3], j: usize) -> bool {
    mask.keep(shape.pair(b, h, i, j))
}

/// Every `[batch, kv_head, key]`.
fn keys(shape: &Shape) -> impl Iterator<Item = [usize; 3]> + use<> {
    let (heads, len) = (shape.kv_heads, shape.kv_len);
    (0..shape.batch * heads * len).map(move |i| [i / len / heads, i / len % heads, i % len])
}

/// Every query row `[batch, head, position]`.
fn rows(shape: &Shape) -> impl Iterator<Item = [usize; 3]> + use<> {
    let (heads, len) = (shape.q_heads, shape.q_len);
    (0..shape.batch * heads * len).map(move |i| [i / len / heads, i / len % heads, i % len])
}

/// Keys that no query of their group sees.
fn unseen(mask: &dyn Mask, shape: &Shape) -> Vec<[usize; 3]> {
    let group = shape.group();
    let seen =
        |[b, kv, j]: [usize; 3]| (kv * group..(kv + 1) * group).any(|h| (0..shape.q_len).any(|i| sees(mask, shape, [b, h, i], j)));
    keys(shape).filter(|&key| !seen(key)).collect()
}

fn poison(inputs: &Inputs<f32>, keys: &[[usize; 3]], x: f32) -> Inputs<f32> {
    let mut poisoned = inputs.clone();
    for &key in keys {
        poisoned.k.fill_row(key, x);
        poisoned.v.fill_row(key, x);
    }
    poisoned
}

fn cases() -> [Case; 3] {
    let small = Case { sinks: true, dropout: 0.3, ..Case::new(41, [2, 4, 2, 7, 90, 5, 6]) };
    [small, Case::new(42, [2, 2, 1, 70, 70, 16, 16]), Case::new(43, [1, 3, 1, 30, 600, 8, 4])]
}

#[test]
fn keys_and_values_that_nobody_sees_change_nothing() {
    let mut poisoned_keys = 0;
    for case in cases() {
        masks(&case.shape, case.seed, &mut |name: &str, mask: &dyn Mask| {
            let inputs = case.inputs::<f32>();
            let hidden = unseen(mask, &case.shape);
            poisoned_keys += hidden.len();
            for kernel in crate::run::kernels() {
                let clean = run(&case, kernel, &inputs, mask, &());
                for x in POISONS {
                    let dirty = run(&case, kernel, &poison(&inputs, &hidden, x), mask, &());
                    assert_eq!(output_bits(&clean.0), output_bits(&dirty.0), "{kernel} {name} {x} {case}");
                    assert_eq!(grad_bits(&clean.1), grad_bits(&dirty.1), "{kernel} {name} {x} {case}");
                }
            }
        });
    }
    assert!(poisoned_keys > 1000, "the masks hid almost nothing");
}

#[test]
fn a_poisoned_key_reaches_only_the_rows_that_see_it() {
    for case in cases() {
        let mut rng = Rng::new(case.seed);
        masks(&case.shape, case.seed, &mut |name: &str, mask: &dyn Mask| {
            let inputs = case.inputs::<f32>();
            let some: Vec<_> = keys(&case.shape).filter(|_| rng.chance(0.02)).collect();
            let touched = |row @ [b, h, _]: [usize; 3]| {
                some.iter().any(|&[kb, kv, j]| [kb, kv] == [b, h / case.shape.group()] && sees(mask, &case.shape, row, j))
            };
            for kernel in crate::run::kernels() {
                let clean = run(&case, kernel, &inputs, mask, &()).0;
                let dirty = run(&case, kernel, &poison(&inputs, &some, f32::NAN), mask, &()).0;
                let (clean, clean_lse) = (bits(&clean.out), bits(&clean.lse));
                let (out, lse) = (bits(&dirty.out), bits(&dirty.lse));
                for (r, row) in rows(&case.shape).enumerate() {
                    let at = r * case.shape.value_dim..(r + 1) * case.shape.value_dim;
                    if touched(row) {
                        let all_nan = dirty.out.data()[at].iter().all(|x| x.is_nan());
                        assert!(all_nan, "{kernel} {name} {row:?} hides the NaN that it saw: {case}");
                    } else {
                        assert_eq!(clean[at.clone()], out[at], "{kernel} {name} {row:?} {case}");
                        assert_eq!(clean_lse[r], lse[r], "{kernel} {name} {row:?} {case}");
                    }
                }
            }
        });
    }
}

/// A bias of −∞ hides a value as a mask does.
#[test]
fn values_under_a_bias_of_minus_infinity_change_nothing() {
    let case = Case::new(44, [1, 2, 1, 9, 140, 8, 8]);
    let hides = |j: usize| j.is_multiple_of(3) || (64..128).contains(&j);
    let data: Vec<f32> = (0..140).map(|j| if hides(j) { f32::NEG_INFINITY } else { 0.25 }).collect();
    let bias = regard::Bias::new(View::new(&data, [1, 1, 1, 140]).unwrap());
    let inputs = case.inputs::<f32>();
    let mut poisoned = inputs.clone();
    (0..140).filter(|&j| hides(j)).for_each(|j| poisoned.v.fill_row([0, 0, j], f32::NAN));
    for kernel in crate::run::kernels() {
        let clean = run(&case, kernel, &inputs, &(), &bias);
        let dirty = run(&case, kernel, &poisoned, &(), &bias);
        assert_eq!(output_bits(&clean.0), output_bits(&dirty.0), "{kernel}");
        assert_eq!(grad_bits(&clean.1), grad_bits(&dirty.1), "{kernel}");
    }
}

/// Rows that see nothing: output 0, log-sum-exp −∞, gradients 0, whatever their query and the gradient of their output hold.
#[test]
fn rows_that_see_nothing_are_zero() {
    let case = Case::new(45, [2, 2, 1, 70, 66, 8, 6]);
    let blind = |p: Pair| p.q % 3 == 1 || p.batch == 1;
    let masks: [(&str, &dyn Mask); 2] =
        [("mixed", &move |p: Pair| !blind(p)), ("empty windows", &(move |p: Pair| !blind(p), Window { left: 3, right: 3 }))];
    let clean = case.inputs::<f32>();
    let mut dirty = clean.clone();
    for row in rows(&case.shape).filter(|&[b, _, i]| b == 1 || i % 3 == 1) {
        dirty.q.fill_row(row, f32::NAN);
        dirty.d_out.fill_row(row, f32::INFINITY);
    }
    for (name, mask) in masks {
        for kernel in crate::run::kernels() {
            let results = [run(&case, kernel, &clean, mask, &()), run(&case, kernel, &dirty, mask, &())];
            assert_eq!(output_bits(&results[0].0), output_bits(&results[1].0), "{kernel} {name}");
            assert_eq!(grad_bits(&results[0].1), grad_bits(&results[1].1), "{kernel} {name}");
            let (output, grads) = &results[1];
            for [b, h, i] in rows(&case.shape).filter(|&[b, _, i]| b == 1 || i % 3 == 1) {
                assert_eq!(output.lse.view().at([b, h, i, 0]), f32::NEG_INFINITY, "{kernel} {name}");
                assert!((0..6).all(|d| output.out.view().at([b, h, i, d]) == 0.0), "{kernel} {name}");
                assert!((0..8).all(|d| grads.dq.view().at([b, h, i, d]) == 0.0), "{kernel} {name}");
            }
            assert!(keys(&case.shape).filter(|key| key[0] == 1).all(|[b, h, j]| {
                (0..8).all(|d| grads.dk.view().at([b, h, j, d]) == 0.0) && (0..6).all(|d| grads.dv.view().at([b, h, j, d]) == 0.0)
            }));
        }
    }
}

/// Without keys every row sees nothing; with a sink its denominator is the sink.
#[test]
fn no_keys_at_all_give_zeros() {
    for sinks in [false, true] {
        let case = Case { sinks, ..Case::new(46, [2, 4, 2, 3, 0, 8, 6]) };
        for kernel in crate::run::kernels() {
            let (output, grads) = run(&case, kernel, &case.inputs::<f32>(), &Causal::LowerRight, &());
            assert_eq!(output.out.shape(), [2, 4, 3, 6]);
            assert!(output.out.data().iter().chain(grads.dq.data()).all(|&x| x == 0.0), "{kernel}");
            for (r, [_, h, _]) in rows(&case.shape).enumerate() {
                let expected = case.sinks().map_or(f32::NEG_INFINITY, |sinks| sinks[h]);
                assert_eq!(output.lse.data()[r], expected, "{kernel}");
            }
        }
    }
}

/// A mask that claims `Hidden` or `Clear` is believed: hidden tiles are not computed, clear ones not asked.
#[test]
fn hidden_tiles_are_skipped_and_clear_tiles_not_asked() {
    struct Strict;
    impl Mask for Strict {
        fn keep(&self, p: Pair) -> bool {
            panic!("asked for {p:?}, in a tile that is hidden or clear")
        }
        fn tile(&self, _: std::ops::Range<u32>, kv: std::ops::Range<u32>, _: Pair) -> Tile {
            if kv.start >= 64 { Tile::Hidden } else { Tile::Clear }
        }
    }
    let case = Case::new(47, [1, 2, 1, 40, 256, 8, 8]);
    let inputs = case.inputs::<f32>();
    for kernel in crate::run::kernels() {
        let strict = run(&case, kernel, &inputs, &Strict, &());
        let padded = run(&case, kernel, &inputs, &Padding::new([64]), &());
        assert_eq!(output_bits(&strict.0), output_bits(&padded.0), "{kernel}");
        assert_eq!(grad_bits(&strict.1), grad_bits(&padded.1), "{kernel}");
    }
}

/// Scores of hidden pairs may be anything.
#[test]
fn scores_of_hidden_keys_change_nothing() {
    let case = Case::new(48, [1, 2, 1, 33, 80, 8, 8]);
    scores(&case.shape, 0, &mut |name: &str, score: &dyn Slope, _: Option<BiasTruth<'_>>| {
        let inputs = case.inputs::<f32>();
        let mask = (Causal::LowerRight, |p: Pair| p.kv % 7 != 2);
        let hidden = unseen(&mask, &case.shape);
        for kernel in crate::run::kernels() {
            let clean = run(&case, kernel, &inputs, &mask, score);
            let dirty = run(&case, kernel, &poison(&inputs, &hidden, f32::NAN), &mask, score);
            assert_eq!(output_bits(&clean.0), output_bits(&dirty.0), "{kernel} {name}");
            assert_eq!(grad_bits(&clean.1), grad_bits(&dirty.1), "{kernel} {name}");
        }
    });
}

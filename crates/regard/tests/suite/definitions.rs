//! Each mask and score by hand: the oracle asks the same `keep` and `score` as the kernels, so here they are written out.

use regard::{
    Alibi, Attention, Bias, Blocks, Bools, Causal, Documents, Mask, Padding, Pair, PrefixLm, Score, Slope, Softcap, View, Window,
};
use regard_testing::case::shape;

/// A mask over 3 queries and 5 keys (unless said otherwise) as rows of 0 and 1, for batch entry and head `[b, h]`.
fn rows_of(mask: &dyn Mask, [b, h]: [usize; 2], [q_len, kv_len]: [usize; 2]) -> Vec<String> {
    let shape = shape([2, 2, 1, q_len, kv_len, 1, 1]);
    mask.check(&shape).unwrap();
    let bit = |i, j| if mask.keep(shape.pair(b, h, i, j)) { '1' } else { '0' };
    (0..q_len).map(|i| (0..kv_len).map(|j| bit(i, j)).collect()).collect()
}

fn rows(mask: &dyn Mask) -> Vec<String> {
    rows_of(mask, [0, 0], [3, 5])
}

#[test]
fn causal_masks_align_where_their_names_say() {
    assert_eq!(rows(&Causal::UpperLeft), ["10000", "11000", "11100"]); // torch.tril(ones(3, 5))
    assert_eq!(rows(&Causal::LowerRight), ["11100", "11110", "11111"]); // torch.tril(ones(3, 5), diagonal=2)
    assert_eq!(rows_of(&Causal::LowerRight, [0, 0], [4, 2]), ["00", "00", "10", "11"]);
    assert_eq!(rows_of(&Causal::UpperLeft, [0, 0], [4, 2]), ["10", "11", "11", "11"]);
}

#[test]
fn windows_count_keys_on_both_sides_of_the_absolute_position() {
    assert_eq!(rows(&Window { left: 1, right: 0 }), ["01100", "00110", "00011"]);
    assert_eq!(rows(&Window { left: 0, right: 1 }), ["00110", "00011", "00001"]);
    assert_eq!(rows(&Window { left: u32::MAX, right: 0 }), rows(&Causal::LowerRight));
    assert_eq!(rows(&Window { left: 0, right: u32::MAX }), ["00111", "00011", "00001"]);
}

#[test]
fn prefixes_are_seen_by_everyone() {
    assert_eq!(rows(&PrefixLm::new(0)), rows(&Causal::LowerRight));
    assert_eq!(rows(&PrefixLm::new(4)), ["11110", "11110", "11111"]);
    let each = PrefixLm { prefix: vec![4, 5] };
    assert_eq!(rows_of(&each, [1, 0], [3, 5]), ["11111", "11111", "11111"]);
}

#[test]
fn documents_see_themselves_with_positions_of_their_own() {
    let documents = Documents::with_keys(&[0, 2, 3], &[0, 1, 5], ()).unwrap();
    assert_eq!(rows(&documents), ["10000", "10000", "01111"]);
    let packed = Documents::new(&[0, 2, 2, 5], Causal::UpperLeft).unwrap();
    assert_eq!(rows_of(&packed, [0, 0], [5, 5]), ["10000", "11000", "00100", "00110", "00111"]);
    let level = Documents::with_keys(&[0, 2, 3], &[0, 3, 5], Causal::LowerRight).unwrap();
    assert_eq!(rows(&level), ["11000", "11100", "00011"]);
}

#[test]
fn blocks_bools_and_padding_read_their_arrays() {
    let map = vec![true, false, false, /**/ false, true, true];
    assert_eq!(rows(&Blocks::new(2, 2, map, [1, 1, 2, 3]).unwrap()), ["11000", "11000", "00111"]);
    let heads = Blocks::new(3, 5, vec![true, false], [1, 2, 1, 1]).unwrap();
    assert_eq!(rows_of(&heads, [1, 1], [3, 5]), ["00000", "00000", "00000"]);
    let keys = [true, true, false, true, false];
    assert_eq!(rows(&Bools(View::new(&keys, [1, 1, 1, 5]).unwrap())), ["11010", "11010", "11010"]);
    let batch = [true, false];
    let by_batch = Bools(View::new(&batch, [2, 1, 1, 1]).unwrap());
    assert_eq!((rows_of(&by_batch, [0, 1], [1, 2]), rows_of(&by_batch, [1, 0], [1, 2])), (vec!["11".into()], vec!["00".into()]));
    assert_eq!(rows(&Padding::new([3])), ["11100", "11100", "11100"]);
    assert_eq!(rows_of(&Padding::new([3, 1]), [1, 0], [2, 3]), ["100", "100"]);
}

#[test]
fn tuples_intersect_and_closures_are_masks() {
    assert_eq!(rows(&(Causal::LowerRight, Window { left: 1, right: 9 })), ["01100", "00110", "00011"]);
    assert_eq!(rows(&|p: Pair| (p.q + p.kv).is_multiple_of(2)), ["10101", "01010", "10101"]);
    assert_eq!(rows(&(Some(Padding::new([1])), None::<Causal>)), ["10000", "10000", "10000"]);
}

#[test]
fn scores_are_their_formulas() {
    let shape = shape([1, 8, 8, 3, 5, 1, 1]);
    let at = |h, i, j| shape.pair(0, h, i, j);
    assert!((Softcap(30.0).score(45.0, at(0, 0, 0)) - 30.0 * 1.5f32.tanh()).abs() < 1e-5);
    assert_eq!(Softcap(30.0).score(f32::NEG_INFINITY, at(0, 0, 0)), -30.0);
    // Press et al. 2022: for 8 heads the slopes are 1/2, 1/4, …, 1/256; query 1 of 3 is level with key 3 of 5.
    let alibi = Alibi::new(8);
    assert_eq!(alibi.slopes, (1..=8).map(|i| 0.5f32.powi(i)).collect::<Vec<_>>());
    assert_eq!(alibi.score(1.0, at(1, 1, 0)), 1.0 - 0.25 * 3.0);
    assert_eq!(alibi.score(1.0, at(1, 1, 4)), 1.0 - 0.25);
    // The authors' code for 12 heads: those of 8, then every other one of 16.
    let twelve = Alibi::new(12).slopes;
    assert!(twelve[8..].iter().zip([0.5f32, 1.5, 2.5, 3.5]).all(|(s, e)| (s - (-e).exp2()).abs() < 1e-7), "{twelve:?}");
    let data = [1.0f32, 2.0, 3.0];
    let bias = Bias::new(View::new(&data, [1, 1, 3, 1]).unwrap());
    assert_eq!(bias.score(0.5, at(7, 2, 4)), 3.5);
    let composed = (Softcap(2.0), bias);
    assert!((composed.score(8.0, at(0, 0, 0)) - (2.0 * 4.0f32.tanh() + 1.0)).abs() < 1e-6, "first the softcap, then the bias");
    assert!((composed.slope(0.5, at(0, 0, 0)) - (1.0 - 0.25f32.tanh().powi(2))).abs() < 1e-6);
}

/// Dao's definition: query head `h` reads KV head `h / (q_heads / kv_heads)`; the default scale is `1/√head_dim`.
#[test]
fn grouped_heads_and_the_default_scale() {
    let q: Vec<f32> = (0..4).flat_map(|_| [2.0, 0.0, 0.0, 0.0]).collect(); // four heads, head_dim 4
    let k = [[0.0; 4], [3.0, 0.0, 0.0, 0.0], [0.0; 4], [3.0, 0.0, 0.0, 0.0]].concat(); // two heads of two keys
    let v = [0.0, 1.0, 0.0, 100.0];
    let [q, k, v] = [View::new(&q, [1, 4, 1, 4]), View::new(&k, [1, 2, 2, 4]), View::new(&v, [1, 2, 2, 1])].map(Result::unwrap);
    let output = Attention::new().forward(q, (k, v)).unwrap();
    let weight = 1.0 / (1.0 + (-3.0f32).exp()); // scores 0 and 2·3/√4
    let expected = [weight, weight, 100.0 * weight, 100.0 * weight];
    assert!(output.out.data().iter().zip(expected).all(|(o, e)| (o - e).abs() < 1e-4), "{:?}", output.out.data());
    let doubled = Attention::new().scale(1.0).forward(q, (k, v)).unwrap();
    assert!((doubled.out.data()[0] - 1.0 / (1.0 + (-6.0f32).exp())).abs() < 1e-6);
}

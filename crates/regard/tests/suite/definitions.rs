//! Each mask and score by hand: the oracle asks the same `keep` and `score` as the kernels, so here they are written out.

use regard::{
    Alibi, Around, Attention, Bias, Blocks, Blockwise, Bools, Causal, Dilated, Documents, Either, Fixed, Gaussian, Global, Mask,
    Padding, Pair, PrefixLm, RandomKeys, RelativeBias, Score, Slope, Softcap, Strided, View, Window,
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
fn dilated_windows_count_keys_with_gaps_between() {
    let pictures = ["101000", "010100", "101010", "010101", "001010", "000101"];
    assert_eq!(rows_of(&Dilated::new(1, 1, 2).unwrap(), [0, 0], [6, 6]), pictures);
    assert_eq!(rows_of(&Dilated::new(1, 1, 2).unwrap(), [0, 0], [1, 6]), ["000101"], "decoding sees the last row");
    assert_eq!(rows(&Dilated::new(1, 0, 1).unwrap()), rows(&Window { left: 1, right: 0 }));
    assert_eq!(rows(&Dilated::new(u32::MAX, 0, 3).unwrap()), ["00100", "10010", "01001"]);
}

/// Child et al. 2019, §4.3, with l = 3 and, for the fixed pattern, l = 4 and c = 1.
#[test]
fn sparse_transformers_are_strided_or_fixed() {
    let strided = (Causal::LowerRight, Strided::new(3).unwrap());
    let pictures = ["10000000", "11000000", "11100000", "11110000", "01111000", "00111100", "10011110", "01001111"];
    assert_eq!(rows_of(&strided, [0, 0], [8, 8]), pictures);
    assert_eq!(rows_of(&Strided::new(3).unwrap(), [0, 0], [1, 8]), ["01001111"]);
    let fixed = (Causal::LowerRight, Fixed::new(4, 1).unwrap());
    let pictures = ["10000000", "11000000", "11100000", "11110000", "00011000", "00011100", "00011110", "00011111"];
    assert_eq!(rows_of(&fixed, [0, 0], [8, 8]), pictures);
    assert_eq!(rows_of(&Fixed::new(2, 1).unwrap(), [0, 0], [4, 2]), ["01", "01", "11", "11"], "queries before the first key");
}

/// Beltagy et al. 2020, figure 2d, and Xiao et al. 2023, figure 1d.
#[test]
fn windows_unite_with_global_tokens_and_sinks() {
    let longformer = Either(Window { left: 1, right: 1 }, Global::new([2]));
    assert_eq!(rows_of(&longformer, [0, 0], [6, 6]), ["111000", "111000", "111111", "001110", "001111", "001011"]);
    let streaming = (Causal::LowerRight, Either(Window { left: 1, right: 0 }, Global::first(2)));
    assert_eq!(rows_of(&streaming, [0, 0], [6, 6]), ["100000", "110000", "111000", "111100", "110110", "110011"]);
    assert_eq!(rows_of(&streaming, [0, 0], [1, 6]), ["110011"]);
    assert_eq!(rows_of(&Global::new([1]), [0, 0], [4, 2]), ["01", "01", "01", "11"], "queries before the first key");
}

#[test]
fn blockwise_masks_see_blocks() {
    let blocks = Blockwise::new(2, Window { left: 1, right: 0 }).unwrap();
    assert_eq!(rows_of(&blocks, [0, 0], [4, 6]), ["111100", "111100", "001111", "001111"]);
    let before = Blockwise::new(2, Window { left: 0, right: 1 }).unwrap();
    assert_eq!(rows_of(&before, [0, 0], [5, 2]), ["00", "11", "11", "11", "11"], "blocks −2, −1, −1, 0, 0");
}

#[test]
fn random_keys_are_distinct_reproducible_and_evenly_spread() {
    const LEN: usize = 200;
    let random = RandomKeys::new(3, [2, LEN], 7).unwrap();
    let picture = |random: &RandomKeys, head, q_len| rows_of(random, [0, head], [q_len, LEN]);
    let drawn = picture(&random, 0, LEN);
    assert!(drawn.iter().all(|row| row.matches('1').count() == 3));
    assert_eq!(drawn, picture(&RandomKeys::new(3, [2, LEN], 7).unwrap(), 0, LEN));
    assert_eq!(drawn[LEN - 5..], picture(&random, 0, 5), "a query's keys do not depend on how many queries there are");
    assert_ne!(drawn, picture(&random, 1, LEN), "each head draws its own");
    assert_ne!(drawn, picture(&RandomKeys::new(3, [1, LEN], 8).unwrap(), 0, LEN));
    // Each key is drawn 3 times in the mean, by a binomial law whose deviation is √(3 · 197/200): 6 of them above are 14.
    let times = |kv: usize| drawn.iter().filter(|row| row.as_bytes()[kv] == b'1').count();
    assert!((0..LEN).all(|kv| times(kv) < 14));
    let means = [0..LEN / 2, LEN / 2..LEN].map(|half| half.map(times).sum::<usize>());
    assert!(means.iter().all(|n| n.abs_diff(300) < 75), "{means:?}: 600 draws, a deviation of 12");
    assert_eq!(rows_of(&RandomKeys::new(5, [1, 5], 0).unwrap(), [0, 1], [2, 5]), ["11111", "11111"]);
}

/// Luong et al. 2015, §3.2: local-m is a window around the target's own position.
#[test]
fn local_attention_sees_keys_around_centres() {
    let steps = [0.0f32, 1.0, 2.0];
    let monotonic = Around { centres: View::new(&steps, [1, 1, 3, 1]).unwrap(), radius: 1.0 };
    assert_eq!(rows(&monotonic), ["11000", "11100", "01110"]);
    let predicted = [2.5f32, -9.0, 4.4];
    let predicted = Around { centres: View::new(&predicted, [1, 1, 3, 1]).unwrap(), radius: 1.5 };
    assert_eq!(rows(&predicted), ["01111", "00000", "00011"]);
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
    let centres = [1.5f32, 3.0, -2.0];
    let gaussian = Gaussian::new(View::new(&centres, [1, 1, 3, 1]).unwrap(), 2.0);
    assert_eq!([4, 3].map(|j| gaussian.score(0.5, at(7, 0, j))), [0.5 - 2.5 * 2.5 / 8.0, 0.5 - 1.5 * 1.5 / 8.0]);
    let table: Vec<f32> = (0..8).map(|bucket| bucket as f32).collect();
    let table = View::new(&table, [1, 1, 1, 8]).unwrap();
    let relative = RelativeBias::causal(table, 16).unwrap(); // buckets 0, 1, 2, 3, then from 4, 5.7, 8 and 11.3 on
    assert_eq!([0, -3, -4, -6, -8, -15, -99, 2].map(|d| relative.bucket(d)), [0, 3, 4, 5, 6, 7, 7, 0]);
    assert_eq!(relative.score(0.5, at(0, 2, 0)), 0.5 + 4.0, "query 2 of 3 is level with key 4 of 5");
    let both = RelativeBias::bidirectional(table, 16).unwrap(); // on each side 0, 1, then from 2 and 5.7 on
    assert_eq!([0, -1, -5, -6, 1, 5, 6, 99].map(|d| both.bucket(d)), [0, 1, 2, 3, 5, 6, 7, 7]);
    assert_eq!((None::<Softcap>, Some(bias)).score(0.5, at(7, 2, 4)), 3.5);
    let composed = (Softcap(2.0), bias);
    assert!((composed.score(8.0, at(0, 0, 0)) - (2.0 * 4.0f32.tanh() + 1.0)).abs() < 1e-6, "first the softcap, then the bias");
    assert!((composed.slope(0.5, at(0, 0, 0)) - (1.0 - 0.25f32.tanh().powi(2))).abs() < 1e-6);
}

/// Luong et al. 2015, equation 10: `a_t(s) = softmax_window(score)(s) · exp(−(s − p_t)² / (2σ²))`, `σ = D/2`, not normalised again.
#[test]
fn local_p_of_the_paper_is_a_factor_for_each_row_away() {
    let data: Vec<f32> = (0..32).map(|i| (i as f32 * 1.7).sin()).collect();
    let (q, k) = (View::new(&data, [1, 1, 3, 4]).unwrap(), View::new(&data[12..], [1, 1, 5, 4]).unwrap());
    let centres = [0.5f32, 2.0, 3.25];
    let centres = View::new(&centres, [1, 1, 3, 1]).unwrap();
    let window = Around { centres, radius: 2.0 };
    let plain = Attention::new().mask(window).forward(q, (k, k)).unwrap();
    let gaussian = Attention::new().mask(window).score(Gaussian::new(centres, 1.0)).forward(q, (k, k)).unwrap();
    for i in 0..3 {
        let centre = centres.at([0, 0, i, 0]);
        let offset = |j: usize| f64::from(j as f32 - centre);
        let seen: Vec<usize> = (0..5).filter(|&j| offset(j).abs() <= 2.0).collect();
        let score = |j: usize| (0..4).map(|d| f64::from(q.at([0, 0, i, d]) * k.at([0, 0, j, d]))).sum::<f64>() / 2.0;
        let total: f64 = seen.iter().map(|&j| score(j).exp()).sum();
        let factor = (gaussian.lse.data()[i] - plain.lse.data()[i]).exp();
        for d in 0..4 {
            let weight = |j: usize| score(j).exp() / total * (-offset(j).powi(2) / 2.0).exp();
            let expected: f64 = seen.iter().map(|&j| weight(j) * f64::from(k.at([0, 0, j, d]))).sum();
            let given = factor * gaussian.out.view().at([0, 0, i, d]);
            assert!((f64::from(given) - expected).abs() < 1e-5, "{i} {d}: {given} {expected}");
        }
    }
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

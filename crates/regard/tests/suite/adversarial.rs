//! Scores that break a careless softmax, against the oracle.

use regard::{Bias, Padding, Pair, Softcap, View, with_slope};
use regard_testing::case::{Case, Values};

use crate::run::{agree, agree_on, attention};

/// Sizes that cross tiles of 64 and the span of 512 keys.
const SIZES: [[usize; 7]; 2] = [[1, 2, 1, 5, 600, 8, 4], [1, 2, 2, 67, 130, 16, 8]];

/// Runs a bias that is a function of the key, of the query and of neither's neighbours.
fn agree_with_bias(name: &str, bias: impl Fn(usize, usize) -> f32) {
    for sizes in SIZES {
        for sinks in [false, true] {
            let case = Case { sinks, ..Case::new(61, sizes) };
            let [_, _, _, q_len, kv_len, _, _] = sizes;
            let data: Vec<f32> = (0..q_len * kv_len).map(|i| bias(i / kv_len, i % kv_len)).collect();
            let bias = Bias::new(View::new(&data, [1, 1, q_len, kv_len]).unwrap());
            agree::<f32, _, _>(&case, name, &(), &bias, None);
        }
    }
}

#[test]
fn scores_that_rise_along_the_row() {
    agree_with_bias("rises by 10", |_, j| 10.0 * j as f32);
    agree_with_bias("rises by 1e4", |_, j| 1e4 * j as f32);
    agree_with_bias("falls by 1e4", |_, j| -1e4 * j as f32);
    agree_with_bias("one large key in every tile", |i, j| if j % 64 == i % 64 { 200.0 } else { 0.0 });
    agree_with_bias("rises by a tile", |_, j| 100.0 * (j / 64) as f32);
}

#[test]
fn scores_of_minus_infinity() {
    let hide = |yes: bool| if yes { f32::NEG_INFINITY } else { 0.0 };
    agree_with_bias("all but the last key", |_, j| hide(j != 129));
    agree_with_bias("all but one key", |i, j| hide(j != (7 * i) % 130));
    agree_with_bias("the first tile", |_, j| hide(j < 64));
    agree_with_bias("the first tile and a half", |_, j| hide(j < 96));
    agree_with_bias("the second tile", |_, j| hide((64..128).contains(&j)));
    agree_with_bias("all of some rows", |i, _| hide(i % 2 == 0));
    agree_with_bias("everything", |_, _| f32::NEG_INFINITY);
    agree_with_bias("all but very low scores", |_, j| if j % 5 == 0 { -3e4 } else { f32::NEG_INFINITY });
}

#[test]
fn large_biases_of_both_signs() {
    agree_with_bias("±1e4", |i, j| if (i + j) % 2 == 0 { 1e4 } else { -1e4 });
    agree_with_bias("all −1e4", |_, _| -1e4);
    agree_with_bias("all 1e4", |_, _| 1e4);
    agree_with_bias("ties at the top", |_, j| if j % 50 == 3 { 5e3 } else { 0.0 });
    agree_with_bias("at the end of exp's range", |_, j| if j == 0 { 0.0 } else { -86.0 - j as f32 / 100.0 });
}

#[test]
fn large_and_uneven_keys() {
    for values in Values::ALL {
        for sizes in SIZES {
            let case = Case { values, sinks: true, ..Case::new(62, sizes) };
            agree::<f32, _, _>(&case, "as they are", &(), &(), None);
            agree::<f32, _, _>(&case, "softcap", &(), &Softcap(10.0), None);
        }
    }
    let case = Case::new(63, [1, 1, 1, 3, 300, 4, 4]);
    let mut inputs = case.inputs::<f32>();
    (0..4).for_each(|d| inputs.k.set([0, 0, 0, d], 1e3));
    agree_on(&case, &inputs, "huge first key", &(), &(), None);
}

#[test]
fn sinks_that_take_everything_or_nothing() {
    let case = Case::new(64, [1, 3, 1, 5, 70, 8, 4]);
    let inputs = case.inputs::<f32>();
    let everything = regard::Attention::new();
    let plain = everything.forward(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
    for kernel in regard::kernels() {
        let with = attention(&case, kernel, &(), &()).sinks(vec![-200.0, 0.0, 200.0]);
        let output = with.forward(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        let row = |output: &regard::Output<f32>, h| output.out.view().slice(1, h..h + 1).unwrap().at([0, 0, 2, 1]);
        assert!((row(&output, 0) - row(&plain, 0)).abs() < 1e-6, "{kernel}");
        assert!(row(&output, 2).abs() < 1e-30, "{kernel}");
        assert_eq!(output.lse.view().at([0, 2, 0, 0]), 200.0, "{kernel}");
    }
}

/// Scores of 10³⁰ have no digits left after the point, but still a largest one: the output is that key's value.
#[test]
fn scores_near_the_end_of_f32_stay_finite() {
    let case = Case::new(65, [1, 1, 1, 4, 200, 2, 3]);
    let inputs = case.inputs::<f32>();
    let winner = |p: Pair| (p.kv + 3 * p.q).is_multiple_of(199);
    let steep = with_slope(move |s: f32, p: Pair| if winner(p) { 1e38 } else { s * 1e36 }, |_: f32, _: Pair| 0.0);
    let padding = Padding::new([198]);
    for kernel in regard::kernels() {
        let attention = attention(&case, kernel, &padding, &steep);
        let output = attention.forward(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        let value = |d| inputs.v.view().at([0, 0, 0, d]);
        (0..3).for_each(|d| assert_eq!(output.out.view().at([0, 0, 0, d]), value(d), "{kernel}"));
        assert!(output.out.data().iter().all(|x| x.is_finite()), "{kernel}");
        assert_eq!(output.lse.data()[0], 1e38, "{kernel}");
    }
}

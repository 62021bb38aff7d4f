//! Scores that break a careless softmax, against the oracle.

use half::{bf16, f16};
use regard::{Bias, Causal, Element, Padding, Pair, Softcap, View, with_slope};
use regard_testing::case::{Case, Inputs, Values};
use regard_testing::oracle::BiasTruth;

use crate::run::{agree, agree_on, attention};

/// Sizes that cross tiles of 64 and the span of 512 keys.
const SIZES: [[usize; 7]; 2] = [[1, 2, 1, 5, 600, 8, 4], [1, 2, 2, 67, 130, 16, 8]];

/// Runs a bias that is a function of query and key, in every type.
fn agree_with_bias(name: &str, bias: impl Fn(usize, usize) -> f32) {
    for sizes in SIZES {
        for sinks in [false, true] {
            let case = Case { sinks, ..Case::new(61, sizes) };
            let [_, _, _, q_len, kv_len, _, _] = sizes;
            let data: Vec<f32> = (0..q_len * kv_len).map(|i| bias(i / kv_len, i % kv_len)).collect();
            let shape = [1, 1, q_len, kv_len];
            let bias = Bias::new(View::new(&data, shape).unwrap()).with_gradient();
            let truth = BiasTruth::added(shape);
            agree::<f32, _, _>(&case, name, &(), &bias, Some(&truth));
            agree::<bf16, _, _>(&case, name, &(), &bias, Some(&truth));
            agree::<f16, _, _>(&case, name, &(), &bias, Some(&truth));
        }
    }
}

/// Runs inputs that `change` has spoilt, in every type, causal and not.
fn agree_when(name: &str, change: &impl Change) {
    fn in_type<T: Element>(name: &str, change: &impl Change) {
        for sizes in SIZES {
            for sinks in [false, true] {
                let case = Case { sinks, ..Case::new(66, sizes) };
                let mut inputs = case.inputs::<T>();
                change.change(&case, &mut inputs);
                agree_on(&case, &inputs, name, &(), &(), None);
                agree_on(&case, &inputs, name, &Causal::LowerRight, &(), None);
            }
        }
    }
    in_type::<f32>(name, change);
    in_type::<bf16>(name, change);
    in_type::<f16>(name, change);
}

/// What is done to the inputs of a case.
trait Change {
    fn change<T: Element>(&self, case: &Case, inputs: &mut Inputs<T>);
}

#[test]
fn scores_that_rise_along_the_row() {
    agree_with_bias("rises by 10", |_, j| 10.0 * j as f32);
    agree_with_bias("rises by 1e4", |_, j| 1e4 * j as f32);
    agree_with_bias("falls by 1e4", |_, j| -1e4 * j as f32);
    agree_with_bias("one large key in every tile", |i, j| if j % 64 == i % 64 { 200.0 } else { 0.0 });
    agree_with_bias("rises by a tile", |_, j| 100.0 * (j / 64) as f32);
}

/// A stabiliser that is chosen from the first keys meets what it did not expect: sums that overflow, or vanish.
#[test]
fn the_first_keys_tell_nothing_of_the_others() {
    for first in [1, 32, 33] {
        for later in [44.0, 88.0, 89.0, 1e4] {
            agree_with_bias(&format!("{later} from key {first} on"), |_, j| if j < first { 0.0 } else { later });
            agree_with_bias(&format!("−{later} from key {first} on"), |_, j| if j < first { 0.0 } else { -later });
        }
        agree_with_bias(&format!("−∞ before key {first}"), |_, j| if j < first { f32::NEG_INFINITY } else { 0.0 });
        agree_with_bias(&format!("−∞ from key {first} on"), |_, j| if j < first { 0.0 } else { f32::NEG_INFINITY });
    }
    agree_with_bias("only the last key counts", |_, j| if j % 130 == 129 { 1e4 } else { -1e4 });
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
    fn in_type<T: Element>() {
        for values in Values::ALL {
            for sizes in SIZES {
                let case = Case { values, sinks: true, ..Case::new(62, sizes) };
                agree::<T, _, _>(&case, "as they are", &(), &(), None);
                agree::<T, _, _>(&case, "softcap", &(), &Softcap(10.0), None);
            }
        }
    }
    in_type::<f32>();
    in_type::<bf16>();
    in_type::<f16>();
    agree_when("huge first key", &Keys(|j| if j == 0 { 1e3 } else { 1.0 }));
    agree_when("huge first keys", &Keys(|j| if j < 40 { 1e3 } else { 1e-3 }));
    agree_when("keys that grow", &Keys(|j| 10.0 * j as f32));
}

/// Keys of one number each, by position.
struct Keys<F>(F);

impl<F: Fn(usize) -> f32> Change for Keys<F> {
    fn change<T: Element>(&self, case: &Case, inputs: &mut Inputs<T>) {
        let heads = 0..case.shape.kv_heads;
        heads.for_each(|h| (0..case.shape.kv_len).for_each(|j| inputs.k.fill_row([0, h, j], (self.0)(j))));
    }
}

/// Every query and key is this one number: scores may be subnormal, or vanish.
struct Tiny(f32);

impl Change for Tiny {
    fn change<T: Element>(&self, case: &Case, inputs: &mut Inputs<T>) {
        Keys(|_| self.0).change(case, inputs);
        let heads = 0..case.shape.q_heads;
        heads.for_each(|h| (0..case.shape.q_len).for_each(|i| inputs.q.fill_row([0, h, i], self.0)));
    }
}

#[test]
fn subnormal_scores_and_inputs() {
    for x in [1e-19, 1e-20, 1e-22, 1e-30, 1e-40] {
        agree_when(&format!("queries and keys of {x:e}"), &Tiny(x));
    }
}

/// One element of the queries, keys, values or output gradients is this number.
struct One(char, f32);

impl Change for One {
    fn change<T: Element>(&self, case: &Case, inputs: &mut Inputs<T>) {
        let (row, key) = (case.shape.q_len / 2, case.shape.kv_len - 3);
        match self.0 {
            'q' => inputs.q.set([0, 1, row, 2], self.1),
            'k' => inputs.k.set([0, 0, key, 2], self.1),
            'v' => inputs.v.set([0, 0, key, 2], self.1),
            _ => inputs.d_out.set([0, 1, row, 2], self.1),
        }
    }
}

/// NaN is where the oracle has it: in every row that sees it, and in no other.
#[test]
fn visible_nan_and_infinity_stay_where_they_are_seen() {
    for tensor in ['q', 'k', 'v', 'd'] {
        agree_when(&format!("one NaN in {tensor}"), &One(tensor, f32::NAN));
    }
    // Scores of +∞ are NaN after the softmax, those of −∞ are hidden.
    agree_when("+∞ in a key", &One('k', f32::INFINITY));
    agree_when("−∞ in a key", &One('k', f32::NEG_INFINITY));
}

/// Large and small queries of both signs, and one huge key among small ones: its product with the large is ±∞. (f16 ends at 65,504:
/// there the key itself is +∞, and so are all products.)
struct Overflow;

impl Change for Overflow {
    fn change<T: Element>(&self, case: &Case, inputs: &mut Inputs<T>) {
        let (large, small) = if T::NAME == "f16" { (2.0, 1e-3) } else { (1e20, 1e-20) };
        Keys(|j| if j == 70 { 1e20 } else { small }).change(case, inputs);
        for h in 0..case.shape.q_heads {
            for i in 0..case.shape.q_len {
                inputs.q.fill_row([0, h, i], [large, small, -large, -small][(i + h) % 4]);
            }
        }
    }
}

#[test]
fn products_that_overflow() {
    agree_when("products of ±1e40", &Overflow);
}

#[test]
fn softcaps_of_large_biases() {
    for sizes in SIZES {
        let kv_len = sizes[4];
        let case = Case { sinks: true, ..Case::new(67, sizes) };
        let data: Vec<f32> = (0..kv_len).map(|j| if j % 3 == 0 { 1e4 } else { -1e4 * (j % 2) as f32 }).collect();
        let bias = Bias::new(View::new(&data, [1, 1, 1, kv_len]).unwrap());
        agree::<f32, _, _>(&case, "±1e4, softcap", &(), &(bias, Softcap(30.0)), None);
        agree::<bf16, _, _>(&case, "softcap, ±1e4", &(), &(Softcap(30.0), bias), None);
        agree::<f16, _, _>(&case, "±1e4, softcap", &Causal::LowerRight, &(bias, Softcap(1e-3)), None);
    }
}

#[test]
fn sinks_that_take_everything_or_nothing() {
    let case = Case::new(64, [1, 3, 1, 5, 70, 8, 4]);
    let inputs = case.inputs::<f32>();
    let everything = regard::Attention::new();
    let plain = everything.forward(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
    for kernel in crate::run::kernels() {
        let with = attention(&case, kernel, &(), &()).sinks(vec![-200.0, 0.0, 200.0]);
        let output = with.forward(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        let row = |output: &regard::Output<f32>, h| output.out.view().slice(1, h..h + 1).unwrap().at([0, 0, 2, 1]);
        assert!((row(&output, 0) - row(&plain, 0)).abs() < 1e-6, "{kernel}");
        assert!(row(&output, 2).abs() < 1e-30, "{kernel}");
        assert_eq!(output.lse.view().at([0, 2, 0, 0]), 200.0, "{kernel}");
    }
}

/// Sinks at the ends of f32, forward and backward: what they take is exactly all or nothing.
#[test]
fn sinks_at_the_ends_of_f32() {
    let case = Case::new(68, [1, 4, 2, 5, 70, 8, 4]);
    let inputs = case.inputs::<f32>();
    let kv = (inputs.k.view(), inputs.v.view());
    for kernel in crate::run::kernels() {
        let (plain, plain_grads) = crate::run::run(&case, kernel, &inputs, &(), &());
        let with = attention(&case, kernel, &(), &()).sinks(vec![f32::MIN, f32::NEG_INFINITY, f32::MAX, 1e4]);
        let plan = with.plan(inputs.q.view(), kv).unwrap();
        let output = plan.forward().unwrap();
        let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
        let half = 2 * 5 * 4;
        assert_eq!(output.out.data()[..half], plain.out.data()[..half], "{kernel}: nothing");
        assert_eq!(grads.dq.data()[..2 * half], plain_grads.dq.data()[..2 * half], "{kernel}: nothing");
        assert!(output.out.data()[half..].iter().chain(&grads.dq.data()[2 * half..]).all(|&x| x == 0.0), "{kernel}: all");
        let lse = output.lse.data();
        assert!(lse[10..15].iter().all(|&x| x == f32::MAX) && lse[15..].iter().all(|&x| x == 1e4), "{kernel}: all");
        assert_eq!(grads.dsinks, Some(vec![0.0; 4]), "{kernel}");
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
    for kernel in crate::run::kernels() {
        let attention = attention(&case, kernel, &padding, &steep);
        let output = attention.forward(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        let value = |d| inputs.v.view().at([0, 0, 0, d]);
        (0..3).for_each(|d| assert_eq!(output.out.view().at([0, 0, 0, d]), value(d), "{kernel}"));
        assert!(output.out.data().iter().all(|x| x.is_finite()), "{kernel}");
        assert_eq!(output.lse.data()[0], 1e38, "{kernel}");
    }
}

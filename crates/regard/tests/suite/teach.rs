//! The teaching-sized calls: against the oracle, and their errors word by word.

use regard::Bools;
use regard::teach::{Array, Error, check_weights, merge_heads, scaled_dot_product_attention, split_heads, weighted_mean};
use regard_testing::oracle::Problem;
use regard_testing::rng::Rng;
use regard_testing::tolerance::{assert_close, worst};

fn random(rng: &mut Rng, shape: &[usize]) -> Array {
    Array::new((0..shape.iter().product()).map(|_| rng.normal() as f32).collect::<Vec<_>>(), shape).unwrap()
}

fn four(shape: &[usize]) -> [usize; 4] {
    std::array::from_fn(|axis| shape.iter().rev().nth(3 - axis).copied().unwrap_or(1))
}

fn view(array: &Array) -> regard::View<'_, f32> {
    regard::View::new(array.data(), four(array.shape())).unwrap()
}

/// Output and weights of two, three and four dimensions, with and without masks, against the oracle.
#[test]
fn output_and_weights_are_those_of_the_oracle() {
    let mut rng = Rng::new(5);
    let lead: [&[usize]; 3] = [&[], &[4], &[2, 4]];
    for (case, lead) in lead.iter().cycle().take(12).enumerate() {
        let shape = |heads: usize, length: usize, dim: usize| {
            let mut shape = lead.to_vec();
            if let Some(last) = shape.last_mut() {
                *last = heads;
            }
            [shape, vec![length, dim]].concat()
        };
        let (q, k, v) = (random(&mut rng, &shape(4, 3, 8)), random(&mut rng, &shape(2, 5, 8)), random(&mut rng, &shape(2, 5, 3)));
        let mask_shape = if case % 2 == 0 { vec![3, 5] } else { shape(4, 3, 5) };
        let mut bits: Vec<f32> = (0..mask_shape.iter().product()).map(|_| f32::from(rng.chance(0.6))).collect();
        bits[5..10].fill(0.0); // query 1 of the first head sees nothing
        let mask = Array::new(bits.clone(), &mask_shape).unwrap();
        let bools: Vec<bool> = bits.iter().map(|b| *b == 1.0).collect();
        let bools = Bools(regard::View::new(&bools, four(&mask_shape)).unwrap());
        for masked in [false, true] {
            let (output, weights) = scaled_dot_product_attention(&q, &k, &v, masked.then_some(&mask)).unwrap();
            let mut problem = Problem::new(view(&q), view(&k), view(&v));
            if masked {
                problem.mask = &bools;
            }
            let truth = problem.forward();
            let bounds = problem.bounds::<f32>(&truth);
            assert_eq!(output.shape().len(), q.shape().len());
            let tensor = |array: &Array| regard::Tensor::from_vec(array.data().to_vec(), four(array.shape())).unwrap();
            assert_close(&tensor(&output), &truth.out, &bounds.out, &"output");
            // With a unit matrix for values, a bound of the output is one of the weights.
            let unit = Array::new((0..25).map(|i| f32::from(i % 6 == 0)).collect::<Vec<_>>(), &[5, 5]).unwrap();
            let mut of_weights = Problem { v: truth_values(&unit, &problem), ..problem };
            of_weights.weight_unit = 0.0;
            let truth = of_weights.forward();
            let bounds = of_weights.bounds::<f32>(&truth);
            // exp(s − lse) makes the error of the log-sum-exp once more.
            let twice = regard_testing::array::Array::from_fn(bounds.out.shape(), |at| 2.0 * bounds.out[at]);
            let got = regard_testing::array::Array::from_tensor(&tensor(&weights));
            let found = worst(&got, &truth.out, &twice).unwrap();
            assert!(found.ratio <= 1.0, "weights {found}");
            check_weights(&weights).unwrap();
            let again = weighted_mean(&weights, &v);
            if q.shape().len() == 2 {
                let again = again.unwrap();
                assert!(again.data().iter().zip(output.data()).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}

/// One unit matrix for every KV head.
fn truth_values(unit: &Array, problem: &Problem<'_>) -> regard_testing::array::Array {
    let [batch, heads, kv_len, _] = problem.k.shape();
    regard_testing::array::Array::from_fn([batch, heads, kv_len, kv_len], |[_, _, i, j]| f64::from(unit.data()[i * kv_len + j]))
}

#[test]
fn heads_split_and_merge() {
    let x = Array::from([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]);
    let heads = split_heads(&x, 2).unwrap();
    assert_eq!(heads, Array::from([[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]]));
    assert_eq!(merge_heads(&heads).unwrap(), x);
    let batch = random(&mut Rng::new(1), &[3, 5, 6]);
    let split = split_heads(&batch, 3).unwrap();
    assert_eq!(split.shape(), [3, 3, 5, 2]);
    assert_eq!(split.data()[((2 * 3 + 1) * 5 + 4) * 2], batch.data()[(2 * 5 + 4) * 6 + 2]);
    assert_eq!(merge_heads(&split).unwrap(), batch);
    let text = |e: Error| e.to_string();
    assert_eq!(
        text(split_heads(&random(&mut Rng::new(1), &[5, 10]), 3).unwrap_err()),
        "width 10 cannot be split into 3 heads: the number of heads must divide it, as 1, 2, 5, 10 do"
    );
    assert!(split_heads(&x, 0).is_err() && split_heads(&split, 2).is_err() && merge_heads(&x).is_err());
}

/// The text of the refusal of random arrays of these shapes.
fn refuse(q: &[usize], k: &[usize], v: &[usize], mask: Option<Array>) -> String {
    let mut rng = Rng::new(3);
    let (q, k, v) = (random(&mut rng, q), random(&mut rng, k), random(&mut rng, v));
    scaled_dot_product_attention(&q, &k, &v, mask.as_ref()).unwrap_err().to_string()
}

#[test]
fn errors_say_how_to_repair_the_call() {
    let ones = |shape: &[usize]| Some(Array::new(vec![1.0; shape.iter().product()], shape).unwrap());
    assert_eq!(
        refuse(&[3, 4], &[4, 6], &[6, 2], None),
        "keys have shape [4, 6] and queries [3, 4]: the last sizes must agree, and these keys look transposed: \
         pass [kv_len, dim], for example keys.transpose()"
    );
    assert!(refuse(&[3, 4], &[6, 5], &[6, 2], None).contains("keys has 5 elements in each head and needs 4"));
    assert_eq!(
        refuse(&[6, 3, 4], &[4, 5, 4], &[4, 5, 4], None),
        "query has 6 heads and keys have 4: the number of query heads must be a multiple of the number of KV heads"
    );
    assert_eq!(
        refuse(&[2, 8, 4, 4], &[2, 8, 4, 4], &[2, 8, 4, 4], ones(&[2, 4, 4])),
        "mask has shape [2, 4, 4] and scores have shape [2, 8, 4, 4]: add a head dimension, for example mask.reshape(&[2, 1, 4, 4])"
    );
    assert!(refuse(&[2, 8, 4, 4], &[2, 8, 4, 4], &[2, 8, 4, 4], ones(&[8, 4, 4])).ends_with("mask.reshape(&[1, 8, 4, 4])"));
    assert!(refuse(&[3, 4], &[3, 4], &[3, 4], ones(&[1, 3, 3])).ends_with("give the mask those dimensions, or the last two"));
    assert!(refuse(&[3, 4], &[5, 4], &[5, 4], ones(&[5, 3])).contains("boolean mask has shape [1, 1, 5, 3]"));
    assert!(refuse(&[3, 4], &[1, 5, 4], &[5, 4], None).contains("give both as many dimensions"));
    let bias = Array::from([[0.0, f32::NEG_INFINITY], [1.0, 0.0]]);
    let text = refuse(&[2, 4], &[2, 4], &[2, 4], Some(bias));
    assert!(text.contains("holds -inf (element 1)") && text.contains("regard::Bias"), "{text}");
    let text = |e: Error| e.to_string();
    assert_eq!(text(Array::new([1.0; 5], &[2, 3]).unwrap_err()), "array has 5 numbers and shape [2, 3] needs 6");
    assert!(text(Array::new([1.0; 5], &[5]).unwrap_err()).contains("array has shape [5] and needs [length, dim]"));
}

#[test]
fn weights_that_are_none_are_told_what_they_are() {
    let refuse = |weights: &Array| check_weights(weights).unwrap_err().to_string();
    check_weights(&Array::from([[0.25, 0.75], [0.0, 0.0], [0.333, 0.667]])).unwrap();
    assert_eq!(
        refuse(&Array::from([[0.25, 0.75], [0.5, 0.7]])),
        "row [1] of the weights sums to 1.2000 and must sum to 1 (or be all 0, for a query that sees nothing): \
         take the softmax along the last axis (keys), or divide the row by its sum"
    );
    assert!(
        refuse(&Array::from([[0.5, 1.0], [0.5, 0.0]]))
            .contains("row [0] of the weights sums to 1.5000 and must sum to 1, and the columns do")
    );
    assert!(
        refuse(&Array::from([[[0.5, 0.5]], [[1.5, -0.5]]]))
            .starts_with("weight [1, 0, 1] is -0.5 and cannot be negative: these look like scores")
    );
    assert!(refuse(&Array::from([[f32::NAN, 0.5]])).contains("sums to NaN"));
    let values = Array::from([[1.0], [2.0], [3.0]]);
    let wrong = weighted_mean(&Array::from([[0.5, 0.5]]), &values).unwrap_err().to_string();
    assert_eq!(wrong, "weights have shape [1, 2] and values [3, 1]: weights need one column for each row of the values");
    assert_eq!(weighted_mean(&Array::from([[0.5, 0.25, 0.25]]), &values).unwrap(), Array::from([[1.75]]));
}

//! Alignment functions: weights and contexts against their formulas in f64, gradients against finite differences.

mod gradients;

use candle_core::{Device, Tensor, Var};
use gradients::{check_gradients, random, values, var};
use regard::{Mask, Padding, Pair};
use regard_nn::align::{Additive, Alignment, Cosine, Dot, General, Location};
use regard_nn::{Error, Linear};

const BATCH: usize = 2;
const Q_LEN: usize = 3;
const KV_LEN: usize = 5;
/// Elements of a query, of a key, and of a value.
const N: usize = 4;
const M: usize = 6;
const VALUE: usize = 3;
const HIDDEN: usize = 7;

/// The second text has three keys; query 1 of the first sees nothing.
fn mask() -> (Padding, fn(Pair) -> bool) {
    (Padding::new([5, 3]), |p| (p.batch, p.q) != (0, 1))
}

fn doubles(x: &Tensor) -> Vec<f64> {
    values(x).into_iter().map(f64::from).collect()
}

/// Row `i` of an array with rows of `n`.
fn row(x: &[f64], i: usize, n: usize) -> &[f64] {
    &x[i * n..][..n]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A score of a query and a key in f64; the last is the index of the key.
type Score<'a> = &'a dyn Fn(&[f64], &[f64], usize) -> f64;

/// Weights and context against `softmax(score)` and its mean, and every gradient.
///
/// A score is behind at most 3 sums of 10 products of magnitude up to 10, each rounded to 2⁻²⁴: 40 · 10 · 6e-8 = 2.4e-5 in the
/// exponent, which is the relative error of a weight; values are below 1.
fn agrees<A: Alignment>(name: &str, function: &A, [queries, keys]: [&Var; 2], own: &[(&str, &Var)], score: Score<'_>) {
    let v = var(3, &[BATCH, KV_LEN, VALUE]);
    let (q, k, values_of) = (doubles(queries), doubles(keys), doubles(&v));
    let (n, m) = (queries.dims()[2], keys.dims()[2]);
    let weights = function.weights(queries, keys, &mask()).unwrap().to_vec3::<f32>().unwrap();
    let context = function.context(queries, keys, &v, mask()).unwrap().to_vec3::<f32>().unwrap();
    for (b, i) in (0..BATCH).flat_map(|b| (0..Q_LEN).map(move |i| (b, i))) {
        let seen = |j: &usize| mask().keep(Pair { batch: b as u32, q: i as u32, kv: *j as u32, ..Pair::default() });
        let e = |j: usize| score(row(&q, b * Q_LEN + i, n), row(&k, b * KV_LEN + j, m), j);
        let total: f64 = (0..KV_LEN).filter(seen).map(|j| e(j).exp()).sum();
        let weight = |j: usize| if seen(&j) { e(j).exp() / total } else { 0.0 };
        for (j, given) in weights[b][i].iter().enumerate() {
            assert!((f64::from(*given) - weight(j)).abs() < 2.4e-5, "{name}: weight {b} {i} {j}: {given}, exactly {}", weight(j));
        }
        for (d, given) in context[b][i].iter().enumerate() {
            let exact: f64 = (0..KV_LEN).map(|j| weight(j) * row(&values_of, b * KV_LEN + j, VALUE)[d]).sum();
            assert!((f64::from(*given) - exact).abs() < 2.4e-5, "{name}: context {b} {i} {d}: {given}, exactly {exact}");
        }
    }
    let mut vars = vec![("queries", queries), ("keys", keys)];
    vars.extend(own);
    check_gradients(&format!("{name}: scores"), &vars, || function.scores(queries, keys));
    check_gradients(&format!("{name}: weights"), &vars, || function.weights(queries, keys, &mask()));
    vars.push(("values", &v));
    check_gradients(&format!("{name}: context"), &vars, || function.context(queries, keys, &v, mask()));
    hidden_is_never_observed(name, function, queries, [keys, &v]);
}

/// NaN in the keys and values that padding hides changes no bit, nor of the gradient of the queries.
fn hidden_is_never_observed<A: Alignment>(name: &str, function: &A, queries: &Var, [keys, v]: [&Tensor; 2]) {
    let poison: Vec<f32> = (0..BATCH * KV_LEN).map(|i| if i >= KV_LEN + 3 { f32::NAN } else { 0.0 }).collect();
    let poison = Tensor::from_vec(poison, (BATCH, KV_LEN, 1), &Device::Cpu).unwrap();
    let poisoned = |x: &Tensor| x.broadcast_add(&poison).unwrap();
    let of = |keys: &Tensor, v: &Tensor| {
        let context = function.context(queries, keys, v, mask()).unwrap();
        let gradients = context.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        (values(&context), values(gradients.get(queries).unwrap()), values(&function.weights(queries, keys, &mask()).unwrap()))
    };
    assert_eq!(of(&poisoned(keys), &poisoned(v)), of(keys, v), "{name}");
}

fn linear(weight: &Var) -> Linear {
    Linear::new(weight.as_tensor().clone(), None).unwrap()
}

#[test]
fn additive_is_bahdanaus_formula() {
    let (q, k) = (var(1, &[BATCH, Q_LEN, N]), var(2, &[BATCH, KV_LEN, M]));
    let (w, u, v) = (var(4, &[HIDDEN, N]), var(5, &[HIDDEN, M]), var(6, &[HIDDEN]));
    let function = Additive::new(linear(&w), linear(&u), v.as_tensor().clone()).unwrap();
    let (dw, du, dv) = (doubles(&w), doubles(&u), doubles(&v));
    let score = |s: &[f64], h: &[f64], _: usize| -> f64 {
        (0..HIDDEN).map(|d| dv[d] * (dot(row(&dw, d, N), s) + dot(row(&du, d, M), h)).tanh()).sum()
    };
    agrees("additive", &function, [&q, &k], &[("W", &w), ("U", &u), ("v", &v)], &score);
}

#[test]
fn concat_is_luongs_formula() {
    let (q, k) = (var(1, &[BATCH, Q_LEN, N]), var(2, &[BATCH, KV_LEN, M]));
    let (w, v) = (var(4, &[HIDDEN, N + M]), var(6, &[HIDDEN]));
    let function = Additive::concat(&w, v.as_tensor().clone(), N).unwrap();
    let (dw, dv) = (doubles(&w), doubles(&v));
    let score = |s: &[f64], h: &[f64], _: usize| -> f64 {
        (0..HIDDEN).map(|d| dv[d] * dot(row(&dw, d, N + M), &[s, h].concat()).tanh()).sum()
    };
    // W is read through two views of it, which see its changes: the finite differences move W itself.
    agrees("concat", &function, [&q, &k], &[("W", &w), ("v", &v)], &score);
}

#[test]
fn dot_is_luongs_formula_and_vaswanis_with_a_scale() {
    let (q, k) = (var(1, &[BATCH, Q_LEN, N]), var(2, &[BATCH, KV_LEN, N]));
    for scale in [1.0, 0.5] {
        let score = |s: &[f64], h: &[f64], _: usize| f64::from(scale) * dot(s, h);
        agrees("dot", &Dot { scale }, [&q, &k], &[], &score);
    }
}

#[test]
fn general_is_luongs_formula() {
    let (q, k, w) = (var(1, &[BATCH, Q_LEN, N]), var(2, &[BATCH, KV_LEN, M]), var(4, &[N, M]));
    let dw = doubles(&w);
    let score = |s: &[f64], h: &[f64], _: usize| -> f64 { (0..N).map(|d| s[d] * dot(row(&dw, d, M), h)).sum() };
    agrees("general", &General::new(w.as_tensor().clone()).unwrap(), [&q, &k], &[("W", &w)], &score);
}

#[test]
fn location_is_luongs_formula() {
    let (q, w) = (var(1, &[BATCH, Q_LEN, N]), var(4, &[KV_LEN + 2, N]));
    let (function, dw) = (Location::new(w.as_tensor().clone()).unwrap(), doubles(&w));
    let score = |s: &[f64], _: &[f64], j: usize| dot(row(&dw, j, N), s);
    // Keys only say how many there are, so they have no gradient: one row of them stands in for a variable.
    let k = random(2, &[BATCH, KV_LEN, M]);
    let values_of = var(3, &[BATCH, KV_LEN, VALUE]);
    let weights = function.weights(&q, &k, &mask()).unwrap().to_vec3::<f32>().unwrap();
    let s = doubles(&q);
    let total: f64 = (0..3).map(|j| score(row(&s, Q_LEN, N), &[], j).exp()).sum();
    for (j, given) in weights[1][0].iter().enumerate() {
        let exact = if j < 3 { score(row(&s, Q_LEN, N), &[], j).exp() / total } else { 0.0 };
        assert!((f64::from(*given) - exact).abs() < 2.4e-5, "{j}: {given}, exactly {exact}");
    }
    assert_eq!(weights[0][1], [0.0; KV_LEN]);
    let context = function.context(&q, &k, &values_of, mask()).unwrap();
    let mean = function.weights(&q, &k, &mask()).unwrap().matmul(&values_of).unwrap();
    assert!(values(&context).iter().zip(values(&mean)).all(|(c, m)| (c - m).abs() < 1e-6));
    check_gradients("location", &[("queries", &q), ("W", &w), ("values", &values_of)], || {
        function.context(&q, &k, &values_of, mask())
    });
    let long = function.scores(&q, &random(2, &[BATCH, KV_LEN + 3, M])).unwrap_err().to_string();
    assert!(long.contains("needs at most 7 keys"), "{long}");
}

#[test]
fn cosine_is_the_addressing_of_neural_turing_machines() {
    let (q, k) = (var(1, &[BATCH, Q_LEN, N]), var(2, &[BATCH, KV_LEN, N]));
    for shape in [[1, 1], [BATCH, Q_LEN]] {
        let strength = Var::from_tensor(&((random(8, &shape) + 2.0).unwrap())).unwrap();
        let function = Cosine::new(strength.as_tensor().clone()).unwrap();
        if shape == [1, 1] {
            let beta = doubles(&strength)[0];
            let score = |s: &[f64], h: &[f64], _: usize| beta * dot(s, h) / (dot(s, s) * dot(h, h)).sqrt();
            agrees("cosine", &function, [&q, &k], &[("strength", &strength)], &score);
        }
        check_gradients("cosine", &[("queries", &q), ("strength", &strength)], || function.scores(&q, &k));
    }
    // A vector of zeros has no direction: it matches nothing, and is no NaN.
    let nothing = Tensor::zeros((1, 1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let one = Tensor::ones((1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&Cosine::new(one).unwrap().scores(&nothing, &nothing).unwrap()), [0.0]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let text = |e: Error| e.to_string();
    let matrix = |shape: &[usize]| Linear::new(random(1, shape), None).unwrap();
    let wrong = Additive::new(matrix(&[7, 4]), matrix(&[6, 5]), random(1, &[7])).unwrap_err();
    assert_eq!(text(wrong), "outputs of the projection of keys has shape [6] and needs 7, as that of the queries has");
    let wrong = Additive::new(matrix(&[7, 4]), matrix(&[7, 5]), random(1, &[6])).unwrap_err();
    assert_eq!(text(wrong), "weight of additive scores has shape [6] and needs [7]");
    let wrong = Additive::concat(&random(1, &[7, 4]), random(1, &[7]), 4).unwrap_err();
    assert_eq!(text(wrong), "weight of concat scores has shape [7, 4] and needs [hidden, 4 + elements of a key]");
    let (q, k) = (random(1, &[2, 3, 4]), random(1, &[2, 5, 6]));
    let dot = Dot { scale: 1.0 };
    assert_eq!(text(dot.scores(&q, &k).unwrap_err()), "keys of alignment has shape [2, 5, 6] and needs [2, 5, 4]");
    assert!(dot.context(&q, &k, &k, ()).is_err() && General::new(random(1, &[4])).is_err());
    let k = random(1, &[2, 5, 4]);
    let wrong = text(dot.context(&q, &k, &random(1, &[2, 4, 6]), ()).unwrap_err());
    assert_eq!(wrong, "values of alignment has shape [2, 4, 6] and needs [2, 5, 6]");
    let wrong = text(dot.weights(&q, &k, &Padding::new([1, 2, 3])).unwrap_err());
    assert!(wrong.starts_with("padding mask has 3 lengths and needs 2"), "{wrong}");
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let strength = Tensor::new(&[[bad]], &Device::Cpu).unwrap();
        assert!(text(Cosine::new(strength).unwrap_err()).contains("must be at least 0 and finite"));
    }
}

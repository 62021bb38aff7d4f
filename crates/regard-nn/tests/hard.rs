//! Hard attention: what is chosen, how often, and whether the estimators of the gradient are right.

use candle_core::{D, Device, Tensor, Var};
use regard_nn::hard::{Reinforce, argmax, sample, straight_through};

const WEIGHTS: [f64; 4] = [0.1, 0.0, 0.6, 0.3];

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The same weights for `n` queries, `[1, n, 4]`.
fn repeated(n: usize) -> Tensor {
    Tensor::new(&WEIGHTS.map(|w| w as f32), &Device::Cpu).unwrap().broadcast_as((1, n, 4)).unwrap().contiguous().unwrap()
}

fn table() -> Tensor {
    Tensor::new(&[[[1f32, -1.0], [f32::NAN, f32::NAN], [2.0, -2.0], [3.0, -3.0]]], &Device::Cpu).unwrap()
}

#[test]
fn argmax_takes_the_first_of_the_largest_and_nothing_of_nothing() {
    let weights = Tensor::new(&[[[0.2f32, 0.0, 0.4, 0.4], [0.0; 4], [1.0, 0.0, 0.0, 0.0]]], &Device::Cpu).unwrap();
    let choice = argmax(&weights, &table()).unwrap();
    assert_eq!(choice.keys, [Some(2), None, Some(0)]);
    assert_eq!(values(&choice.context), [2.0, -2.0, 0.0, 0.0, 1.0, -1.0], "NaN that was not chosen is not read");
    assert_eq!(values(&choice.log_weight), [0.4f32.ln(), 0.0, 0.0]);
}

#[test]
fn keys_are_drawn_as_often_as_their_weights_say() {
    let n = 40_000;
    let drawn = sample(&repeated(n), &table(), 3).unwrap();
    for (key, p) in WEIGHTS.into_iter().enumerate() {
        let count = drawn.keys.iter().filter(|k| **k == Some(key)).count() as f64;
        // A count of n draws deviates by √(n·p·(1 − p)): five deviations, and none at all where p = 0.
        let five = 5.0 * (n as f64 * p * (1.0 - p)).sqrt();
        assert!((count - n as f64 * p).abs() <= five, "key {key}: {count} of {n}");
    }
    let context = values(&drawn.context);
    assert!(drawn.keys.iter().zip(context.chunks(2)).all(|(k, c)| c == [k.unwrap().max(1) as f32, -(k.unwrap().max(1) as f32)]));
    let same = |seed, n| sample(&repeated(n), &table(), seed).unwrap().keys;
    assert_eq!(drawn.keys, same(3, n));
    assert_eq!(drawn.keys[..100], same(3, 100), "a query's draw does not depend on those after it");
    assert_ne!(drawn.keys, same(4, n));
    let nothing = Tensor::zeros((1, 1, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(sample(&nothing, &table(), 1).unwrap().keys, [None]);
}

/// softmax(θ) for `n` queries, differentiable in θ.
fn softmax(theta: &Var, n: usize) -> Tensor {
    let e = theta.exp().unwrap();
    let weights = e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap();
    weights.broadcast_as((1, n, 3)).unwrap().contiguous().unwrap()
}

const REWARDS: [f64; 3] = [2.0, -1.0, 0.5];

fn alpha(theta: &Var) -> Vec<f64> {
    let e: Vec<f64> = values(theta).into_iter().map(|t| f64::from(t).exp()).collect();
    e.iter().map(|x| x / e.iter().sum::<f64>()).collect()
}

/// E[R] = Σ_s α_s R_s, so ∂E[R]/∂θ_k = α_k·(R_k − E[R]), by enumeration of all choices. The estimate from one draw s is
/// g_k(s) = (R_s − b)·(1[s = k] − α_k): its variance, by enumeration too, gives the deviation of a mean over n draws.
#[test]
fn the_mean_of_reinforce_is_the_gradient_of_the_expected_reward() {
    let theta = Var::new(&[0.3f32, -0.5, 0.9], &Device::Cpu).unwrap();
    let a = alpha(&theta);
    let mean: f64 = a.iter().zip(REWARDS).map(|(a, r)| a * r).sum();
    let mut spreads = Vec::new();
    for (baseline, scale) in [(0.0, 1.0), (mean, 1.0), (-3.0, 2.0)] {
        let g = |k: usize, s: usize| (REWARDS[s] - baseline) * (f64::from(u8::from(s == k)) - a[k]);
        let (keys, one) = estimate(&theta, 1, baseline, scale);
        let n = 40_000;
        let (_, many) = estimate(&theta, n, baseline, scale);
        let mut spread = 0.0;
        for k in 0..3 {
            let formula = g(k, keys[0]);
            assert!(
                (one[k] - formula).abs() < 1e-5,
                "baseline {baseline}, θ{k}: {} from one draw, by its formula {formula}",
                one[k]
            );
            let exact = a[k] * (REWARDS[k] - mean);
            let variance = (0..3).map(|s| a[s] * g(k, s) * g(k, s)).sum::<f64>() - exact * exact;
            spread += variance;
            let five = 5.0 * (variance / n as f64).sqrt();
            assert!((many[k] - exact).abs() < five, "baseline {baseline}, θ{k}: {}, exactly {exact} ± {five}", many[k]);
        }
        spreads.push(spread);
    }
    assert!(spreads[1] < spreads[0] && spreads[0] < spreads[2], "a baseline near the mean is the quietest: {spreads:?}");
}

/// The keys that were drawn for `n` queries, and the estimate of ∂E[R]/∂θ by λ_r = `scale`, averaged over them and divided by it.
fn estimate(theta: &Var, n: usize, baseline: f64, scale: f64) -> (Vec<usize>, Vec<f64>) {
    let weights = softmax(theta, n);
    let unread = Tensor::zeros((1, 3, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    let drawn = sample(&weights, &unread, 11).unwrap();
    let keys: Vec<usize> = drawn.keys.iter().map(|key| key.unwrap()).collect();
    let rewards: Vec<f32> = keys.iter().map(|key| REWARDS[*key] as f32).collect();
    let average = rewards.iter().map(|r| f64::from(*r)).sum::<f64>() / n as f64;
    let mut estimator = Reinforce { baseline, reward: scale, ..Reinforce::default() };
    let loss = estimator.loss(&drawn, &weights, &Tensor::from_vec(rewards, (1, n), &Device::Cpu).unwrap()).unwrap();
    assert!((estimator.baseline - (0.9 * baseline + 0.1 * average)).abs() < 1e-5);
    let gradients = loss.backward().unwrap();
    let mean = |g: f32| -f64::from(g) / (n as f64 * scale);
    (keys, values(gradients.get(theta).unwrap()).into_iter().map(mean).collect())
}

/// With a reward of 0 and no baseline, what is left is −λ_e·H(α), whose gradient is λ_e·α_k·(log α_k + H).
#[test]
fn the_entropy_term_is_the_entropy() {
    let theta = Var::new(&[0.3f32, -0.5, 0.9], &Device::Cpu).unwrap();
    let a = alpha(&theta);
    let entropy = -a.iter().map(|a| a * a.ln()).sum::<f64>();
    let weights = softmax(&theta, 1);
    let drawn = sample(&weights, &Tensor::zeros((1, 3, 1), candle_core::DType::F32, &Device::Cpu).unwrap(), 1).unwrap();
    let nothing = Tensor::new(&[[0f32]], &Device::Cpu).unwrap();
    let loss = Reinforce { entropy: 0.5, ..Reinforce::default() }.loss(&drawn, &weights, &nothing).unwrap();
    assert!((f64::from(loss.to_scalar::<f32>().unwrap()) + 0.5 * entropy).abs() < 1e-6);
    let gradient = values(loss.backward().unwrap().get(&theta).unwrap());
    for k in 0..3 {
        assert!((f64::from(gradient[k]) - 0.5 * a[k] * (a[k].ln() + entropy)).abs() < 1e-6);
    }
    // Weights of 0 have entropy 0, and a gradient that is a number.
    let zero = Var::from_tensor(&repeated(1)).unwrap();
    let drawn = sample(&zero, &table(), 1).unwrap();
    let loss = Reinforce { entropy: 1.0, ..Reinforce::default() }.loss(&drawn, &zero, &nothing).unwrap();
    assert!(values(loss.backward().unwrap().get(&zero).unwrap()).iter().all(|g| g.is_finite()));
}

#[test]
fn straight_through_is_hard_forward_and_soft_backward() {
    let weights = Var::new(&[[[0.2f32, 0.5, 0.3], [0.6, 0.1, 0.3]]], &Device::Cpu).unwrap();
    let table = Var::new(&[[[1f32, -1.0], [2.0, 5.0], [3.0, 0.5]]], &Device::Cpu).unwrap();
    let drawn = sample(&weights, &table, 5).unwrap();
    let context = straight_through(&weights, &table, 5).unwrap();
    assert_eq!(values(&context), values(&drawn.context));
    let r = Tensor::new(&[[[1f32, 2.0], [-1.0, 0.5]]], &Device::Cpu).unwrap();
    let weighed = |y: &Tensor| (y * &r).unwrap().sum_all().unwrap().backward().unwrap();
    let (hard, chosen) = (weighed(&context), weighed(&drawn.context));
    let soft = weighed(&weights.matmul(&table).unwrap());
    assert_eq!(values(hard.get(&weights).unwrap()), values(soft.get(&weights).unwrap()));
    assert_eq!(values(hard.get(&table).unwrap()), values(chosen.get(&table).unwrap()), "values learn from the choice");
}

#[test]
fn weights_that_are_none_are_refused() {
    for bad in [-0.5f32, f32::NAN, f32::INFINITY] {
        let weights = Tensor::new(&[[[bad, 0.5]]], &Device::Cpu).unwrap();
        let two = Tensor::zeros((1, 2, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(sample(&weights, &two, 1).unwrap_err().to_string().starts_with("a weight of hard attention is"));
        assert!(argmax(&weights, &two).is_err());
    }
    let wrong = argmax(&repeated(2), &Tensor::zeros((1, 3, 2), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap_err();
    assert_eq!(wrong.to_string(), "values of hard attention has shape [1, 3, 2] and needs [1, 4, 2]");
    let drawn = sample(&repeated(2), &table(), 1).unwrap();
    let nan = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
    assert!(Reinforce::default().loss(&drawn, &repeated(2), &nan).unwrap_err().to_string().contains("mean reward is NaN"));
}

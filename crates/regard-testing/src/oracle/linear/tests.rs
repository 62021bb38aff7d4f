//! The recurrence against hand calculation, the sum over pairs, and finite differences.

use regard_core::Tensor;

use super::*;
use crate::rng::Rng;

fn random(rng: &mut Rng, shape: [usize; 4], f: impl Fn(f64) -> f64) -> Array {
    Array::from_fn(shape, |_| f(rng.normal()))
}

/// Sizes `[batch, q_heads, kv_heads, length, head_dim, value_dim]`; `width` of the decay.
fn problem(seed: u64, rule: UpdateRule, sizes: [usize; 6], width: usize) -> Linear {
    let [batch, q_heads, kv_heads, len, d, w] = sizes;
    let mut rng = Rng::new(seed);
    let gates = [batch, kv_heads, len, width];
    Linear {
        rule,
        feature: Feature::Identity,
        normalised: false,
        scale: 0.7,
        q: random(&mut rng, [batch, q_heads, len, d], |x| x),
        k: random(&mut rng, [batch, kv_heads, len, d], |x| x / (d as f64).sqrt()),
        v: random(&mut rng, [batch, kv_heads, len, w], |x| x),
        decay: rule.decays().then(|| random(&mut rng, gates, |x| -x.abs())),
        beta: rule.corrects().then(|| random(&mut rng, [batch, kv_heads, len, 1], |x| x.abs().min(2.0))),
        past: random(&mut rng, [batch, kv_heads, d, w], |x| x),
        window: 64,
    }
}

/// Every rule, with both widths of decay, with a normaliser and features where they go together.
fn problems(sizes: [usize; 6]) -> Vec<Linear> {
    let mut all = Vec::new();
    for (seed, rule) in (1..).zip(UpdateRule::ALL) {
        for width in if rule.decays() { vec![1, sizes[4]] } else { vec![1] } {
            let plain = problem(seed, rule, sizes, width);
            if !rule.corrects() {
                let past = random(&mut Rng::new(9), [sizes[0], sizes[2], sizes[4], sizes[5] + 1], f64::abs);
                all.push(Linear { feature: Feature::EluPlusOne, normalised: true, past, ..plain.clone() });
            }
            all.push(plain);
        }
    }
    all
}

#[test]
fn two_tokens_by_hand() {
    // Decay 1/2, correction 1/2, one element: S = 8/2 + 1/2 (6 − 4) = 5; then S = 5/2 + 2·1/2 (2 − 2·5/2) = −1/2.
    let of = |data: &[f32]| Tensor::from_vec(data.to_vec(), [1, 1, data.len(), 1]).unwrap();
    let (q, k, v) = (of(&[1.0, 3.0]), of(&[1.0, 2.0]), of(&[6.0, 2.0]));
    let (decay, beta, past) = (of(&[0.5f32.ln(), 0.5f32.ln()]), of(&[0.5, 0.5]), of(&[8.0]));
    let inputs = LinearInputs::new(q.view(), k.view(), v.view());
    let close = |rule, inputs: LinearInputs<'_, f32>, expected: [f64; 2], state: f64| {
        let truth = Linear::new(&inputs.past(past.view()), rule, false).forward();
        let got = [truth.out[[0, 0, 0, 0]], truth.out[[0, 0, 1, 0]], truth.state[[0, 0, 0, 0]]];
        assert!(got.iter().zip([expected[0], expected[1], state]).all(|(g, e)| (g - e).abs() < 1e-6), "{rule:?} {got:?}");
    };
    close(UpdateRule::GatedDelta, inputs.decay(decay.view()).beta(beta.view()), [5.0, -1.5], -0.5);
    close(UpdateRule::Linear, inputs, [14.0, 54.0], 18.0); // 8 + 6, + 2·2
    close(UpdateRule::Gated, inputs.decay(decay.view()), [10.0, 27.0], 9.0); // 4 + 6, 5 + 4
    close(UpdateRule::Delta, inputs.beta(beta.view()), [7.0, -15.0], -5.0); // 8 − 1, 7 + 2·(2 − 14)/2
    let truth = Linear::new(&inputs, UpdateRule::Linear, true).forward();
    assert!((truth.out[[0, 0, 1, 0]] - 10.0 / 3.0).abs() < 1e-12); // (1·6 + 2·2) / (1 + 2)
    assert_eq!(truth.state.row([0, 0, 0]), [10.0, 3.0]);
}

#[test]
fn the_recurrence_is_the_sum_over_pairs() {
    for p in problems([2, 4, 2, 40, 5, 3]) {
        let truth = p.forward();
        for b in 0..2 {
            for (head, t) in (0..4).flat_map(|head| (0..40).map(move |t| (head, t))) {
                for (a, b) in truth.out.row([b, head, t]).iter().zip(p.quadratic([b, head, t])) {
                    assert!((a - b).abs() <= 1e-11 * (1.0 + a.abs()), "{:?} {head} {t}: {a} {b}", p.rule);
                }
            }
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    const STEP: f64 = 1e-5;
    for mut p in problems([1, 4, 2, 5, 3, 2]) {
        let mut rng = Rng::new(77);
        let (d_out, d_state) = (random(&mut rng, [1, 4, 5, 2], |x| x), random(&mut rng, p.past.shape(), |x| x));
        let gradients = p.backward(&d_out, &d_state);
        let mut check = |what: &str, gradient: &Array, pick: fn(&mut Linear) -> Option<&mut Array>| {
            if pick(&mut p).is_none() {
                return;
            }
            for at in gradient.coordinates() {
                let mut loss = |step: f64| {
                    pick(&mut p).unwrap()[at] += step;
                    let truth = p.forward();
                    pick(&mut p).unwrap()[at] -= step;
                    truth.out.dot(&d_out) + truth.state.dot(&d_state)
                };
                let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
                let off = (slope - gradient[at]).abs();
                assert!(off < 1e-7 * (1.0 + slope.abs()), "{:?} {what} {at:?}: {slope} {}", p.rule, gradient[at]);
            }
        };
        check("q", &gradients.dq, |p| Some(&mut p.q));
        check("k", &gradients.dk, |p| Some(&mut p.k));
        check("v", &gradients.dv, |p| Some(&mut p.v));
        check("decay", &gradients.ddecay, |p| p.decay.as_mut());
        check("beta", &gradients.dbeta, |p| p.beta.as_mut());
        check("past", &gradients.dpast, |p| Some(&mut p.past));
    }
}

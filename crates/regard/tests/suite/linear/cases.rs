//! Cases of linear attention, and their tensors.

use regard::{Element, Feature, LinearAttention, LinearInputs, UpdateRule};
use regard_testing::array::Array;
use regard_testing::layout::{Layout, Stored};
use regard_testing::oracle::linear::Linear;
use regard_testing::rng::Rng;

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) rule: UpdateRule,
    /// `[batch, q_heads, kv_heads, length, head_dim, value_dim]`.
    pub(super) sizes: [usize; 6],
    /// Whether each element of a key has a decay of its own.
    pub(super) per_key: bool,
    /// How strong the decays are: `g = −strength · |normal|`.
    pub(super) strength: f64,
    /// Whether only every fifth decay is strong.
    pub(super) mixed: bool,
    /// Whether all heads share their rates of correction.
    pub(super) shared: bool,
    /// Normalised, with positive features.
    pub(super) normalised: bool,
    pub(super) layout: Layout,
}

pub(super) struct Inputs<T> {
    pub(super) q: Stored<T>,
    pub(super) k: Stored<T>,
    pub(super) v: Stored<T>,
    pub(super) decay: Stored<f32>,
    pub(super) beta: Stored<T>,
    pub(super) past: Stored<f32>,
    pub(super) d_out: Stored<T>,
    pub(super) d_state: Stored<f32>,
}

impl Case {
    /// Every rule with every gate it has, and normalised where it can be.
    pub(super) fn every_rule(seed: u64, sizes: [usize; 6]) -> Vec<Case> {
        let mut all = Vec::new();
        for rule in UpdateRule::ALL {
            for per_key in if rule.decays() { vec![false, true] } else { vec![false] } {
                let (layout, strength) = (Layout::Contiguous, 0.2);
                let case = Case { seed, rule, sizes, per_key, strength, mixed: false, shared: per_key, normalised: false, layout };
                if !rule.corrects() {
                    all.push(Case { normalised: true, ..case.clone() });
                }
                all.push(case);
            }
        }
        all
    }

    /// Sizes at the corners: single tokens and elements, odd sizes, grouped heads, one beside a chunk.
    pub(super) fn corners() -> [[usize; 6]; 9] {
        [
            [1, 1, 1, 1, 1, 1],
            [2, 2, 1, 7, 3, 5],
            [1, 4, 2, 8, 17, 4],
            [1, 6, 2, 33, 8, 33],
            [1, 2, 2, 63, 16, 16],
            [1, 1, 1, 64, 31, 9],
            [1, 3, 1, 65, 5, 20],
            [2, 1, 1, 130, 64, 64],
            [1, 2, 1, 257, 9, 2],
        ]
    }

    pub(super) fn random(seed: u64) -> Case {
        let mut rng = Rng::new(seed);
        let kv_heads = 1 + rng.below(3);
        let len = if rng.chance(0.5) { rng.pick(&[1, 2, 9, 63, 64, 65, 128, 129]) } else { 1 + rng.below(300) };
        let sizes = [1 + rng.below(2), kv_heads * (1 + rng.below(3)), kv_heads, len, 1 + rng.below(70), 1 + rng.below(70)];
        let rule = rng.pick(&UpdateRule::ALL);
        let strength = rng.pick(&[0.01, 0.1, 1.0, 30.0]);
        let (per_key, mixed, shared) = (rng.chance(0.5), rng.chance(0.5), rng.chance(0.3));
        let normalised = !rule.corrects() && rng.chance(0.4);
        Case { seed, rule, sizes, per_key, strength, mixed, shared, normalised, layout: rng.pick(&Layout::ALL) }
    }

    pub(super) fn attention(&self, kernel: &str) -> LinearAttention {
        let attention = LinearAttention::new(self.rule).kernel(kernel);
        if self.normalised { attention.feature(Feature::EluPlusOne).normalised() } else { attention }
    }

    pub(super) fn inputs<T: Element>(&self) -> Inputs<T> {
        let [batch, q_heads, kv_heads, len, d, w] = self.sizes;
        let mut rng = Rng::new(self.seed);
        let mut normal = |shape| Array::from_fn(shape, |_| rng.normal());
        let (q, v) = (normal([batch, q_heads, len, d]), normal([batch, kv_heads, len, w]));
        let mut k = normal([batch, kv_heads, len, d]);
        if self.rule.corrects() {
            // The delta rules want keys of length 1.
            for at in (0..batch * kv_heads * len).map(|i| [i / len / kv_heads, i / len % kv_heads, i % len]) {
                let size = k.row(at).iter().map(|x| x * x).sum::<f64>().sqrt();
                k.row_mut(at).iter_mut().for_each(|x| *x /= size);
            }
        }
        let state = [batch, kv_heads, d, w + usize::from(self.normalised)];
        let past = normal(state);
        let past = if self.normalised { past.abs() } else { past };
        let (d_out, d_state) = (normal([batch, q_heads, len, w]), normal(state));
        let decay = normal([batch, kv_heads, len, if self.per_key { d } else { 1 }]);
        let decay = Array::from_fn(decay.shape(), |at @ [_, _, l, i]| match self.strength {
            _ if self.mixed && (l + i) % 5 != 0 => -0.01 * decay[at].abs(),
            f64::INFINITY if l % 7 == 3 => f64::NEG_INFINITY,
            f64::INFINITY => -0.1 * decay[at].abs(),
            strength => -strength * decay[at].abs(),
        });
        let beta = normal([batch, if self.shared { 1 } else { kv_heads }, len, 1]);
        let beta = Array::from_fn(beta.shape(), |at| beta[at].abs().min(2.0));
        Inputs {
            q: Stored::new(&q, self.layout),
            k: Stored::new(&k, self.layout),
            v: Stored::new(&v, self.layout),
            decay: Stored::new(&decay, self.layout),
            beta: Stored::new(&beta, self.layout),
            past: Stored::new(&past, self.layout),
            d_out: Stored::new(&d_out, self.layout),
            d_state: Stored::new(&d_state, self.layout),
        }
    }

    pub(super) fn oracle<T: Element>(&self, inputs: &Inputs<T>) -> Linear
    where
        for<'a> regard::Gate<'a>: From<regard::View<'a, T>>,
    {
        let mut oracle = Linear::new(&inputs.given(self), self.rule, self.normalised);
        if self.normalised {
            oracle.feature = Feature::EluPlusOne;
        }
        oracle
    }
}

impl<T: Element> Inputs<T>
where
    for<'a> regard::Gate<'a>: From<regard::View<'a, T>>,
{
    /// What the rule of a case takes.
    pub(super) fn given(&self, case: &Case) -> LinearInputs<'_, T> {
        let mut inputs = LinearInputs::new(self.q.view(), self.k.view(), self.v.view()).past(self.past.view());
        if case.rule.decays() {
            inputs = inputs.decay(self.decay.view());
        }
        if case.rule.corrects() {
            inputs = inputs.beta(self.beta.view());
        }
        inputs
    }
}

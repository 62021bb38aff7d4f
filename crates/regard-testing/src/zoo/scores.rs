//! Every score, with its own type, made for given sizes.

use half::{bf16, f16};
use regard_core::{Alibi, Bias, Element, Gaussian, Pair, RelativeBias, Shape, Slope, Softcap, View, with_slope};

use crate::array::Array;
use crate::layout::{Layout, Stored};
use crate::oracle::BiasTruth;
use crate::rng::Rng;

/// What is done with each score.
pub trait VisitScore {
    /// One score, its name, and what the oracle knows about the gradient of its bias, if it has one.
    fn score<S: Slope>(&mut self, name: &str, score: &S, bias: Option<BiasTruth<'_>>);
}

/// A closure sees every score behind a `dyn`.
impl<F: FnMut(&str, &dyn Slope, Option<BiasTruth<'_>>)> VisitScore for F {
    fn score<S: Slope>(&mut self, name: &str, score: &S, bias: Option<BiasTruth<'_>>) {
        self(name, score, bias);
    }
}

/// Visits every kind of score, closures and compositions among them, with random contents that belong to `seed`.
pub fn scores(shape: &Shape, seed: u64, visitor: &mut impl VisitScore) {
    let mut rng = Rng::new(seed ^ 0xb1a5);
    let slopes = Alibi::new(shape.q_heads);
    visitor.score("as it is", &(), None);
    visitor.score("softcap 5", &Softcap(5.0), None);
    visitor.score("softcap 50", &Softcap(50.0), None);
    visitor.score("alibi", &slopes, None);
    visitor.score("softcap, alibi", &(Softcap(8.0), slopes.clone()), None);
    closures(&slopes, visitor);
    biases(shape, &mut rng, visitor);
    relative(shape, &mut rng, visitor);
    gaussians(shape, &mut rng, visitor);
    compositions(shape, &slopes, &mut rng, visitor);
}

fn closures(slopes: &Alibi, visitor: &mut impl VisitScore) {
    let bend = with_slope(|s: f32, _: Pair| s + 0.5 * s.sin(), |s: f32, _: Pair| 1.0 + 0.5 * s.cos());
    let relative =
        with_slope(|s: f32, p: Pair| 0.75 * s - 0.03 * (p.q_abs() - p.kv as i32).abs().min(16) as f32, |_: f32, _: Pair| 0.75);
    visitor.score("closure: bend", &bend, None);
    visitor.score("closure: relative position", &relative, None);
    visitor.score("closure, softcap, alibi", &((relative, Softcap(6.0)), slopes.clone()), None);
}

/// A bias alone, repeated along different axes, in different layouts and types, and with −∞ in it.
fn biases(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitScore) {
    let [b, h, q, kv] = shape.scores();
    for sizes in [[b, h, q, kv], [1, h, q, kv], [b, 1, 1, kv], [1, 1, q, 1], [1, h, 1, 1], [1, 1, 1, 1]] {
        let layout = rng.pick(&Layout::ALL);
        bias::<f32>("bias", &Array::from_fn(sizes, |_| rng.normal()), layout, visitor);
    }
    bias::<bf16>("bias", &Array::from_fn([b, h, q, kv], |_| rng.normal()), Layout::Gaps, visitor);
    bias::<f16>("bias", &Array::from_fn([1, h, q, kv], |_| rng.normal()), Layout::Transposed, visitor);
    let holes = Array::from_fn([1, 1, q, kv], |_| if rng.chance(0.3) { f64::NEG_INFINITY } else { rng.normal() });
    bias::<f32>("bias that hides", &holes, Layout::Contiguous, visitor);
    bias::<f16>("bias that hides", &holes, Layout::Contiguous, visitor);
    let blocks = Array::from_fn([1, 1, q, kv], |[_, _, q, kv]| if (q / 64 + kv / 64) % 3 == 1 { f64::NEG_INFINITY } else { 0.0 });
    bias::<bf16>("bias that hides blocks", &blocks, Layout::Contiguous, visitor);
}

fn bias<T: Element>(name: &str, values: &Array, layout: Layout, visitor: &mut impl VisitScore) {
    let stored = Stored::<T>::new(values, layout);
    let name = format!("{name} {:?} {layout:?} {}", values.shape(), T::NAME);
    visitor.score(&name, &Bias::new(stored.view()).with_gradient(), Some(BiasTruth::added(values.shape())));
}

/// Tables by distance, one row for each head or one for all.
fn relative(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitScore) {
    for (heads, buckets) in [(shape.q_heads, 8), (1, 12)] {
        let sizes = [1, heads, 1, buckets];
        let data: Vec<f32> = (0..heads * buckets).map(|_| rng.normal() as f32).collect();
        let table = View::new(&data, sizes).expect("a slice of its shape");
        let made = if buckets == 8 { RelativeBias::bidirectional(table, 20) } else { RelativeBias::causal(table, 40) };
        let bias = made.expect("even buckets").with_gradient();
        let element = |p: Pair| [0, (p.head as usize).min(heads - 1), 0, bias.bucket(p.kv as i32 - p.q_abs()) as usize];
        let truth = BiasTruth { element: Some(&element), ..BiasTruth::added(sizes) };
        visitor.score(&format!("relative bias {sizes:?}"), &bias, Some(truth));
    }
}

/// Gaussians around centres of every query, or of each head.
fn gaussians(shape: &Shape, rng: &mut Rng, visitor: &mut impl VisitScore) {
    let [b, h, q, kv] = shape.scores();
    let deviation = 2.0 + kv as f32 / 8.0;
    for sizes in [[b, h, q, 1], [1, h, 1, 1], [b, 1, q, 1]] {
        let data: Vec<f32> = (0..sizes.iter().product()).map(|_| (rng.normal() + 1.0) as f32 * kv as f32 / 2.0).collect();
        let centres = View::new(&data, sizes).expect("a slice of its shape");
        let centre = |p: Pair| {
            let at = [p.batch, p.head, p.q].map(|i| i as usize);
            f64::from(centres.at([at[0].min(sizes[0] - 1), at[1].min(sizes[1] - 1), at[2].min(sizes[2] - 1), 0]))
        };
        let through = |_: f64, p: Pair| (f64::from(p.kv) - centre(p)) / f64::from(deviation).powi(2);
        let truth = BiasTruth { through: &through, ..BiasTruth::added(sizes) };
        visitor.score(&format!("gaussian around {sizes:?}"), &Gaussian::new(centres, deviation).with_gradient(), Some(truth));
    }
}

/// A bias before and after others, and without a gradient.
fn compositions(shape: &Shape, slopes: &Alibi, rng: &mut Rng, visitor: &mut impl VisitScore) {
    let [_, h, q, kv] = shape.scores();
    let sizes = [1, h, q, kv];
    let data: Vec<f32> = (0..h * q * kv).map(|_| (3.0 * rng.normal()) as f32).collect();
    let array = View::new(&data, sizes).expect("a slice of its shape");
    let bias = Bias::new(array);
    let cap = 4.0;
    // d/db cap·tanh((s + b)/cap) = 1 − tanh²((s + b)/cap)
    let through_cap = |s: f64, p: Pair| {
        let b = array.at([0, p.head as usize, p.q as usize, p.kv as usize]);
        1.0 - ((s + f64::from(b)) / f64::from(cap)).tanh().powi(2)
    };
    visitor.score("bias without gradient", &bias, None);
    let truth = || BiasTruth::added(sizes);
    visitor.score("softcap, bias", &(Softcap(cap), bias.with_gradient()), Some(truth()));
    let last = BiasTruth { through: &through_cap, ..truth() };
    visitor.score("bias, softcap", &(bias.with_gradient(), Softcap(cap)), Some(last));
    visitor.score("alibi, bias", &(slopes.clone(), bias.with_gradient()), Some(truth()));
}

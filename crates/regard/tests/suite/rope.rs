//! Rotary and sinusoidal positions on slices, by their formulas.

use half::{bf16, f16};
use regard::{Angles, Element, Error, Rope, RopeScaling, RopeStyle, View, sinusoidal};
use regard_testing::array::Array;
use regard_testing::layout::{Layout, Stored};
use regard_testing::rng::Rng;
use regard_testing::tolerance::{Rounding, U, assert_close};

const STYLES: [RopeStyle; 2] = [RopeStyle::HalfSplit, RopeStyle::Interleaved];

fn random(shape: [usize; 4], seed: u64) -> Array {
    let mut rng = Rng::new(seed);
    Array::from_fn(shape, |_| rng.normal())
}

/// Pair `i` of the first six of eight elements turned by `position · 100^(−2i/6)`, in f64.
fn turned(x: &Array, style: RopeStyle, first: usize) -> Array {
    Array::from_fn(x.shape(), |[b, h, l, d]| {
        if d >= 6 {
            return x[[b, h, l, d]];
        }
        let (i, other, sign) = match style {
            RopeStyle::HalfSplit => (d % 3, (d + 3) % 6, if d < 3 { -1.0 } else { 1.0 }),
            RopeStyle::Interleaved => (d / 2, d ^ 1, if d % 2 == 0 { -1.0 } else { 1.0 }),
        };
        let angle = (first + l) as f64 * 100f64.powf(-2.0 * i as f64 / 6.0);
        x[[b, h, l, d]] * angle.cos() + sign * x[[b, h, l, other]] * angle.sin()
    })
}

fn agrees<T: Element>() {
    for (layout, seed) in Layout::ALL.into_iter().zip(0..) {
        for style in STYLES {
            let stored = Stored::<T>::new(&random([2, 3, 4, 8], seed), layout);
            let rope = Rope::new(6, 100.0, style).unwrap();
            let x = Array::from_view(stored.view());
            let expected = turned(&x, style, 1000);
            // Two products, a cosine and a sine in f32: 4 roundings of numbers below 4 each. Then that of the result.
            let tolerance = Array::from_fn(x.shape(), |at| 32.0 * U + Rounding::of::<T>().at(expected[at]));
            let context = format!("{} {layout:?} {style:?}", T::NAME);
            assert_close(&rope.turn(stored.view(), 1000).unwrap(), &expected, &tolerance, &context);
        }
    }
}

#[test]
fn heads_are_turned_by_the_formula_in_every_type_and_layout() {
    agrees::<f32>();
    agrees::<f16>();
    agrees::<bf16>();
}

/// `⟨turn(x), y⟩ = ⟨x, turn_back(y)⟩`, with an attention factor too: the definition of the gradient.
#[test]
fn turning_back_is_the_adjoint_of_turning() {
    for style in STYLES {
        let rope = Rope::scaled(6, 100.0, style, &RopeScaling::yarn(4.0, 16), 64).unwrap();
        let (x, y) = (random([2, 2, 5, 8], 1), random([2, 2, 5, 8], 2));
        let [x, y] = [x, y].map(|array| Stored::<f32>::new(&array, Layout::Contiguous));
        let dot = |a: View<'_, f32>, b: View<'_, f32>| Array::from_view(a).dot(&Array::from_view(b));
        let (turned, back) = (rope.turn(x.view(), 9).unwrap(), rope.turn_back(y.view(), 9).unwrap());
        let (one, other) = (dot(turned.view(), y.view()), dot(x.view(), back.view()));
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
}

#[test]
fn scores_depend_on_distances_only() {
    for style in STYLES {
        let rope = Rope::new(8, 1e4, style).unwrap();
        let [q, k] = [3, 4].map(|seed| Stored::<f32>::new(&random([1, 1, 1, 8], seed), Layout::Contiguous));
        let score = |at: usize, distance: usize| {
            let (q, k) = (rope.turn(q.view(), at + distance).unwrap(), rope.turn(k.view(), at).unwrap());
            q.data().iter().zip(k.data()).map(|(q, k)| q * k).sum::<f32>()
        };
        assert!((score(0, 7) - score(5000, 7)).abs() < 1e-4 && (score(0, 7) - score(0, 8)).abs() > 1e-2);
    }
}

#[test]
fn positions_that_cannot_be() {
    let text = |e: Error| e.to_string();
    let rope = |dim| Rope::new(dim, 1e4, RopeStyle::HalfSplit);
    for dim in [0, 7, (1 << 20) + 2] {
        let text = text(rope(dim).unwrap_err());
        assert_eq!(text, format!("head dimension of a rotary embedding is {dim} and must be even, positive and at most 2^20"));
    }
    for theta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Rope::new(8, theta, RopeStyle::HalfSplit).is_err(), "{theta}");
    }
    let zeros = [0f32; 24];
    let x = View::new(&zeros, [1, 1, 3, 8]).unwrap();
    let wide = rope(12).unwrap();
    let needed = "rotary embedding has 12 elements and needs 8, the size of a head, or fewer";
    assert_eq!(text(wide.turn(x, 0).unwrap_err()), needed);
    assert_eq!(text(wide.turn_back(x, 0).unwrap_err()), needed);
    assert!(text(rope(8).unwrap().turn(x, usize::MAX).unwrap_err()).contains("must be below 2^53"));
    assert!(sinusoidal(0..3, 5, RopeStyle::HalfSplit).is_err() && sinusoidal(0..usize::MAX, 4, RopeStyle::HalfSplit).is_err());
    let angles = |cos: usize, sin: usize| Angles::new(vec![1.0; cos], vec![0.0; sin], 4, RopeStyle::HalfSplit);
    assert!(text(angles(8, 4).unwrap_err()).starts_with("sines of a rotary embedding has 4 elements and needs 8"));
    assert!(angles(6, 6).is_err() && angles(8, 8).unwrap().positions() == 2);
    let scaled = |scaling| Rope::scaled(8, 1e4, RopeStyle::HalfSplit, &scaling, 100).map(|_| ()).unwrap_err().to_string();
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(scaled(RopeScaling::Linear { factor }).starts_with("factor of a rotary scaling is "), "{factor}");
    }
    assert!(scaled(RopeScaling::Linear { factor: 1e-310 }).starts_with("a scaled rotary frequency is inf"));
}

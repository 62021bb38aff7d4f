//! Taking heads away.

use regard_lens::Text;
use regard_lens::ablate::{Part, Replace, curve, loss};
use regard_lens::resample::Samples;
use regard_nn::Decoder;

use crate::built::{Weights, family, twice};

/// A head that gives zeros is one whose columns of the output projection are zero.
#[test]
fn a_zeroed_head_is_a_head_without_output_projection() {
    let mut weights = Weights::new();
    let whole = weights.model();
    let text = [twice(&whole, 15)];
    let decoder = whole.decoder().unwrap();
    let ablated = loss(decoder, &text, &[(1, 0)], Replace::Zero).unwrap();
    let clean = loss(decoder, &text, &[], Replace::Zero).unwrap();
    // GPT-2's matrices are [inputs, outputs]: head 0 has the first half of the inputs.
    let projection = weights.of("transformer.h.1.attn.c_proj.weight");
    let half = projection.len() / 2;
    projection[..half].fill(0.0);
    let without = weights.model();
    let expected = loss(without.decoder().unwrap(), &text, &[], Replace::Zero).unwrap();
    assert_eq!(ablated, expected);
    assert!((ablated - clean).abs() > 0.1, "{ablated} and {clean}");
}

/// Head 0.1 of a model that is random and grouped: the mean in its place is what its mean adds, whatever the position.
#[test]
fn a_mean_is_put_in_every_position() {
    let decoder = Decoder::open(&family("llama"), None).unwrap();
    let text = [random(38)];
    let dim = decoder.config().head_dim;
    let means = |x: f32| vec![vec![x; dim]; 8];
    let zero = loss(&decoder, &text, &[(0, 1)], Replace::Zero).unwrap();
    assert_eq!(loss(&decoder, &text, &[(0, 1)], Replace::Mean(&means(0.0))).unwrap(), zero);
    assert_ne!(loss(&decoder, &text, &[(0, 1)], Replace::Mean(&means(1.0))).unwrap(), zero);
}

fn random(n: u32) -> Text {
    let tokens: Vec<u32> = (2..n + 2).map(|i| i * 7 % 61 + 2).collect();
    Text { name: "random".into(), pieces: vec![String::new(); tokens.len()], tokens }
}

/// Positions that give the same take each other's place without a change; the mean of what a head gives in all of them does not.
#[test]
fn what_a_head_gives_elsewhere_takes_its_place() {
    let decoder = Decoder::open(&family("llama"), None).unwrap();
    let same = Text { name: "same".into(), tokens: vec![7; 30], pieces: vec![String::new(); 30] };
    let (texts, all) = ([random(38), same.clone()], Part::all(&decoder));
    let clean = loss(&decoder, &texts, &[], Replace::Zero).unwrap();
    let resampled = |texts: &[Text], seed: u64, part: Part| {
        let samples = Samples::of(&decoder, texts, seed).unwrap();
        loss(&decoder, texts, &part.heads(&decoder).unwrap(), Replace::Resample(&samples)).unwrap()
    };
    for &part in &all {
        let [once, again, other] = [3, 3, 4].map(|seed| resampled(&texts, seed, part));
        assert!(once == again && once != other && once != clean, "{part:?}: {once}, {again}, {other}, {clean}");
    }
    // One token again and again: each row of attention is a mean of equal values, up to the rounding of its sum.
    let (one, clean) = (std::slice::from_ref(&same), loss(&decoder, std::slice::from_ref(&same), &[], Replace::Zero).unwrap());
    assert!((resampled(one, 0, Part::Head((0, 1))) - clean).abs() < 1e-5);
    let zero = loss(&decoder, one, &[(0, 1)], Replace::Zero).unwrap();
    assert!((zero - clean).abs() > 1e-4, "{zero} and {clean}");
}
#[test]
fn the_curve_of_pruning_goes_from_the_whole_model_to_none_of_the_heads() {
    let model = Weights::new().model();
    let (text, decoder) = ([twice(&model, 15)], model.decoder().unwrap());
    let order = [(0, 1), (1, 1), (1, 0), (0, 0)];
    let curve = curve(decoder, &text, &order, 99).unwrap();
    assert_eq!(curve.iter().map(|(heads, _)| *heads).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let at = |heads: &[(usize, usize)]| loss(decoder, &text, heads, Replace::Zero).unwrap();
    assert_eq!([curve[0].1, curve[2].1, curve[4].1], [at(&[]), at(&order[..2]), at(&order)]);
    assert!(curve[2].1 == curve[0].1 && curve[3].1 > curve[2].1 + 0.5, "{curve:?}");
}

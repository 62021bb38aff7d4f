//! Facts of the story model against the weights of transformers' eager attention, which make.py wrote down.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regard_lens::rollout::Mixed;
use regard_lens::{Options, Text, inspect};
use regard_nn::{Model, Precision};
use safetensors::SafeTensors;

const BOUND: f64 = 2e-4;

#[track_caller]
fn near(given: f64, expected: f64, what: &str) {
    assert!((given - expected).abs() < BOUND * expected.abs().max(1.0), "{what} is {given}, transformers {expected}");
}

#[test]
fn facts_are_those_of_eager_attention() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lens");
    let bytes = std::fs::read(here.join("story.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> { file.tensor(name).unwrap().data().as_chunks().0.to_vec() };
    let numbers = |name: &str| words(name).into_iter().map(|word| f64::from(f32::from_le_bytes(word))).collect::<Vec<_>>();
    let (weights, losses) = (numbers("weights"), numbers("losses"));
    let tokens: Vec<u32> = words("tokens").into_iter().map(u32::from_le_bytes).collect();

    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-story/model");
    let model = Model::open_in(&story, Some(Precision::F32)).unwrap();
    let text = Text::new(&model, "a tale", &std::fs::read_to_string(here.join("text.txt")).unwrap()).unwrap();
    assert_eq!(text.tokens, tokens);
    assert_eq!(text.pieces.concat(), std::fs::read_to_string(here.join("text.txt")).unwrap());
    let options = Options { recent_tokens: 8, ..Options::default() };
    let report = inspect(&model, "story", std::slice::from_ref(&text), &options, &mut |_| {}).unwrap();
    let n = tokens.len();
    for (loss, expected) in report.texts[0].loss[1..].iter().zip(&losses) {
        near(loss.unwrap(), *expected, "loss");
    }
    assert_eq!(report.heads.len() * n * n, weights.len());
    for (head, weights) in report.heads.iter().zip(weights.chunks(n * n)) {
        let name = |what: &str| format!("{}.{} {what}", head.layer, head.head);
        let rows =
            |f: &dyn Fn(usize, &[f64]) -> f64| weights.chunks(n).enumerate().map(|(q, row)| f(q, row)).sum::<f64>() / n as f64;
        let m = &head.means;
        let entropy = |row: &[f64]| row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum::<f64>();
        near(m.entropy, rows(&|_, row| entropy(row)), &name("entropy"));
        near(m.max_weight, rows(&|_, row| row.iter().copied().fold(0.0, f64::max)), &name("largest weight"));
        near(m.sink, rows(&|_, row| row[..4].iter().sum()), &name("sink"));
        near(m.own, rows(&|q, row| row[q]), &name("self"));
        near(m.recent, rows(&|q, row| row[(q + 1).saturating_sub(8)..=q].iter().sum()), &name("recent"));
        near(m.distance, rows(&|q, row| (0..=q).map(|k| row[k] * (q - k) as f64).sum()), &name("distance"));
        let previous = (1..n).map(|q| weights[q * n + q - 1]).sum::<f64>() / (n - 1) as f64;
        near(head.scores.previous.unwrap(), previous, &name("previous"));
        let first = (1..n).map(|q| weights[q * n]).sum::<f64>() / (n - 1) as f64;
        near(head.scores.first.unwrap(), first, &name("first"));
        let local = (8..n).map(|q| weights[q * n + q - 7..=q * n + q].iter().sum::<f64>()).sum::<f64>() / (n - 8) as f64;
        near(head.scores.local.unwrap(), local, &name("local"));
        for key in 0..n {
            near(head.received[key], (0..n).map(|q| weights[q * n + key]).sum(), &name(&format!("received by {key}")));
        }
        for (i, (byte, p)) in STANDARD.decode(&head.maps[0].data).unwrap().iter().zip(weights).enumerate() {
            assert!((f64::from(*byte) - 255.0 * p.sqrt()).abs() < 1.0, "{}", name(&format!("map at {i} is {byte} of {p}")));
        }
        let top = STANDARD.decode(&head.top.as_ref().unwrap().weights).unwrap();
        for (q, row) in top.as_chunks::<4>().0.chunks(8).enumerate() {
            let mut expected = weights[q * n..][..n].to_vec();
            expected.sort_by(|a, b| b.total_cmp(a));
            for (p, expected) in row.iter().zip(expected) {
                near(f64::from(f32::from_le_bytes(*p)), expected, &name(&format!("largest weights of row {q}")));
            }
        }
    }
    rolled(&Mixed::of(model.decoder().unwrap(), &tokens).unwrap(), &weights, n);
}

/// The rollout is the product of the mean weights of layers with half of the identity.
fn rolled(given: &Mixed, weights: &[f64], n: usize) {
    let heads = 8;
    let mut all: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    for layer in weights.chunks(heads * n * n) {
        let mean = |q: usize, k: usize| (0..heads).map(|h| layer[(h * n + q) * n + k]).sum::<f64>() / heads as f64;
        let mixed = |q: usize, k: usize| 0.5 * mean(q, k) + if q == k { 0.5 } else { 0.0 };
        all = (0..n * n).map(|i| (0..n).map(|k| mixed(i / n, k) * all[k * n + i % n]).sum()).collect();
    }
    given.rollout().iter().zip(&all).for_each(|(x, expected)| near(*x, *expected, "rollout"));
}

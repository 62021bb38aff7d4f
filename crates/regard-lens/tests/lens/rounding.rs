//! The errors of number types.

use regard::{Attention, Causal, Grid, View};
use regard_lens::record::{self, Layer};
use regard_lens::report::{ModelFacts, Rounding, Run, TextFacts};
use regard_lens::{Options, Report, Text, inspect};
use regard_nn::{Model, Precision};

use crate::built::{Weights, twice};

/// What costs nothing but the text.
fn plain() -> Options {
    Options { scores: false, leaks: false, ..Options::default() }
}

fn errors(report: &Report) -> Vec<Rounding> {
    report.heads.iter().map(|head| head.numerics.error.unwrap()).collect()
}

/// Half of the last bit is 2⁻²⁴ of f32, 2⁻¹¹ of f16 and 2⁻⁸ of bf16, whose numbers are rounded before and after.
#[test]
fn types_of_more_bits_are_nearer_to_f64() {
    let story = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-story/model");
    let model = Model::open_in(&story, Some(Precision::F32)).unwrap();
    let text = Text::new(&model, "a tale", "Once upon a time there was a king, who had a daughter and no son.").unwrap();
    for (i, error) in errors(&inspect(&model, "story", &[text], &plain(), &mut |_| {}).unwrap()).into_iter().enumerate() {
        let [f32, f16, bf16] = [error.f32, error.f16, error.bf16].map(Option::unwrap);
        assert!(0.0 < f32 && f32 < 1e-5 && f32 < f16 && f16 < bf16, "head {i}: {error:?}");
        assert!((1e-5..2e-3).contains(&f16) && (1e-4..2e-2).contains(&bf16), "head {i}: {error:?}");
    }
}

#[test]
fn what_a_type_cannot_hold_has_no_error() {
    let mut weights = Weights::new();
    let small = inspect(&weights.model(), "built", &[twice(&weights.model(), 20)], &plain(), &mut |_| {}).unwrap();
    assert!(errors(&small)[0].f16.is_some_and(|error| error > 0.0));
    assert_eq!(errors(&small)[1], Rounding { f32: Some(0.0), bf16: Some(0.0), f16: Some(0.0) }, "0.1 gives zeros");
    assert!(!small.run.labels.iter().any(|label| label.starts_with("Errors")), "{:?}", small.run.labels);
    // Values of layer 0, which are about 1, are beyond 65,504 then.
    weights.of("transformer.h.0.attn.c_attn.weight").chunks_mut(768).for_each(|row| row[512..].iter_mut().for_each(|x| *x *= 1e6));
    let model = weights.model();
    let large = inspect(&model, "built", &[twice(&model, 36)], &plain(), &mut |_| {}).unwrap();
    let Rounding { f32, bf16, f16 } = errors(&large)[0];
    assert!(f32.is_some() && bf16.is_some_and(|error| error > 1e-4) && f16.is_none(), "{:?}", errors(&large)[0]);
    assert!(large.json().unwrap().contains(r#","f16":null}"#));
    let csv = large.csv();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = lines[0].iter().position(|name| *name == "error_f32").unwrap();
    assert_eq!(lines[0][column..][..3], ["error_f32", "error_bf16", "error_f16"]);
    assert_eq!(lines[1][column + 1..][..2], [&bf16.unwrap().to_string(), ""]);
    // Of 72 tokens, 64 are measured.
    assert!(
        large.run.labels.iter().any(|label| label == "Errors of number types are of 64 rows of the first text, evenly spread.")
    );
}

/// Attention that was computed elsewhere comes without its queries, and without the text's special tokens.
#[test]
fn a_record_has_none() {
    let data: Vec<f32> = (0..2 * 12 * 4).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = View::new(&data, [1, 2, 12, 4]).unwrap();
    let attention = Attention::new().mask(Causal::UpperLeft);
    let plan = attention.plan(x, (x, x)).unwrap();
    let what = regard::Inspect { ranges: std::iter::once(0..1).collect(), ..regard::Inspect::default() };
    let seen = plan.inspect(&what).unwrap();
    let cell = record::cell(12);
    let cells = plan.maps(seen.output.lse.view(), &plan.whole(), &[Grid { rows: cell, keys: cell }]).unwrap();
    let layer = Layer { facts: seen.facts, lse: seen.output.lse.data().to_vec(), cells: cells[0].data().to_vec() };
    let text = TextFacts { name: "a".into(), tokens: vec!["a".into(); 12], ids: Vec::new(), loss: vec![None; 12] };
    let run = Run { top: what.top, recent_tokens: what.recent, ..Run::default() };
    let report = record::report(ModelFacts::default(), run, text, &[layer]).unwrap();
    assert!(report.heads.iter().all(|head| head.numerics.error.is_none() && head.means.special.is_none()));
    assert!(report.json().unwrap().contains(r#""error":null"#));
}

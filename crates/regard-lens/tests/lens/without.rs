//! Texts read by a model without some heads.

use regard_lens::ablate::{Replace, loss};
use regard_lens::{Ablate, Options, Report, Text, inspect};
use regard_nn::Model;
use serde_json::{Value, json};

use crate::built::{Weights, twice};

/// What costs nothing but the texts.
fn plain() -> Options {
    Options { scores: false, leaks: false, ..Options::default() }
}

fn report(model: &Model, options: &Options) -> Report {
    inspect(model, "built", &[twice(model, 15)], options, &mut |_| {}).unwrap()
}

/// A head that is left out is one whose rows of the output projection are zero, in every fact of every head and in every loss.
#[test]
fn all_facts_are_those_of_the_model_without_the_heads() {
    let mut weights = Weights::new();
    let given = report(&weights.model(), &Options { without: vec![(0, 0)], ..plain() });
    let whole = report(&weights.model(), &plain());
    // GPT-2's matrices are [inputs, outputs]: head 0 has the first half of the inputs.
    let projection = weights.of("transformer.h.0.attn.c_proj.weight");
    let half = projection.len() / 2;
    projection[..half].fill(0.0);
    let expected = report(&weights.model(), &plain());
    let heads = |report: &Report| -> Vec<Value> { report.heads.iter().map(|head| json!(head)).collect() };
    assert_eq!(heads(&given), heads(&expected));
    assert_eq!(given.texts[0].loss, expected.texts[0].loss);
    // The induction head of layer 1 has lost what it reads by; heads of layer 0 read as before.
    let maps = |report: &Report| -> Vec<Value> { report.heads.iter().map(|head| json!(head.maps)).collect() };
    assert_eq!(maps(&given)[..2], maps(&whole)[..2]);
    assert_ne!(maps(&given)[2], maps(&whole)[2]);
    assert!(given.run.labels.last().unwrap().ends_with("which give zeros: 0.0."), "{:?}", given.run.labels);
}

/// And its losses are those of the ablation.
#[test]
fn losses_are_those_of_the_ablation() {
    let model = Weights::new().model();
    let without = vec![(0, 0), (1, 0)];
    let losses: Vec<f64> =
        report(&model, &Options { without: without.clone(), ..plain() }).texts[0].loss.iter().flatten().copied().collect();
    let expected = loss(model.decoder().unwrap(), &[twice(&model, 15)], &without, Replace::Zero).unwrap();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!((mean - expected).abs() < 1e-5 * expected, "{mean} and {expected}"); // a report has six digits
}

#[test]
fn what_is_of_the_whole_model_is_refused_beside() {
    let model = Weights::new().model();
    let error = |options: Options| inspect(&model, "built", &[twice(&model, 5)], &options, &mut |_| {}).unwrap_err().to_string();
    let without = vec![(1, 1)];
    for (what, options) in [
        ("scores", Options { scores: true, without: without.clone(), ..plain() }),
        ("leaks", Options { leaks: true, without: without.clone(), ..plain() }),
        ("ablations", Options { ablate: Ablate::All, without: without.clone(), ..plain() }),
        ("rollout and flow", Options { through: true, without: without.clone(), ..plain() }),
        ("ablations", Options { prune: Some(8), without: without.clone(), ..plain() }),
    ] {
        let expected =
            format!("heads are left out, and {what} are measured on the whole model: leave out no heads, or measure no {what}");
        assert_eq!(error(options), expected);
    }
    let missing = error(Options { without: vec![(0, 2)], ..plain() });
    assert_eq!(missing, "there is no head 2 in layer 0: each layer has heads 0 to 1");
}

#[test]
fn a_text_in_tokens_is_the_text() {
    let model = Weights::new().model();
    let text = twice(&model, 15);
    assert_eq!(Text::of_tokens(&model, &text.name, text.tokens.clone()).unwrap(), text);
    let error = Text::of_tokens(&model, "one", vec![3]).unwrap_err().to_string();
    assert_eq!(error, "text \"one\" has 1 tokens and needs at least 2");
    let foreign =
        Text::of_tokens(&model, "foreign", vec![3, 4000]).and_then(|text| inspect(&model, "built", &[text], &plain(), &mut |_| {}));
    assert!(foreign.is_err());
}

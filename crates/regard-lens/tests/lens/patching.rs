//! Activation patching of the model built by hand, in which one head carries the answer.

use regard_lens::patch::{Patches, Prompts, patch};
use regard_nn::Model;

use crate::built::Weights;

fn patched(model: &Model, clean: &str, corrupt: &str, answer: Option<&str>) -> Patches {
    let prompts = Prompts::new(model, clean, corrupt, answer).unwrap();
    let mut last = None;
    let patches = patch(model, "built", &prompts, &mut |progress| last = Some(progress)).unwrap();
    assert!(last.is_some_and(|last| last.done == last.steps), "{last:?}");
    patches
}

#[track_caller]
fn near(share: f64, expected: f64, what: &str) {
    assert!((share - expected).abs() < 1e-3, "{what} gives back {share}, not {expected}");
}

/// After "w5 … w5" comes what followed w5. The induction head, 1.0, reads it from the position whose token before is w5; at the end the prompts
/// have the same token and the same one before it. So its output is all of the difference, and the stream at w6 before either layer is.
#[test]
fn the_induction_head_and_what_it_reads_carry_the_answer() {
    let model = Weights::new().model();
    let patches = patched(&model, "w2 w5 w6 w7 w8 w5", "w2 w5 w9 w7 w8 w5", None);
    assert_eq!((patches.answer.concat().trim(), patches.clean.tokens.len()), ("w6", 6));
    assert!(patches.clean.log_prob > patches.corrupt.log_prob + 1.0, "{} and {}", patches.clean.log_prob, patches.corrupt.log_prob);
    near(patches.heads[1][0], 1.0, "1.0");
    near(patches.heads[0][0], 0.0, "0.0");
    assert_eq!([patches.heads[0][1], patches.heads[1][1]], [0.0; 2], "heads that give zeros");
    assert_eq!(patches.layers, [patches.heads[0][0], patches.heads[1][0]]);
    for (layer, shares) in patches.residual.iter().enumerate() {
        for (at, share) in shares.iter().enumerate() {
            near(*share, if at == 2 { 1.0 } else { 0.0 }, &format!("the stream before {layer} at {at}"));
        }
    }
    // Before the first block it is the token itself: the clean reading, bit for bit. Before the first difference nothing can come back.
    assert_eq!((patches.residual[0][2], &patches.residual[0][..2], &patches.residual[1][..2]), (1.0, &[0.0; 2][..], &[0.0; 2][..]));
}

/// Prompts that differ in which token stands before the answer: 0.0 writes it, and 1.0 looks for it.
#[test]
fn the_head_that_writes_what_another_looks_for_carries_it_too() {
    let model = Weights::new().model();
    let patches = patched(&model, "w2 w5 w6 w7 w8 w5", "w2 w4 w6 w7 w8 w5", Some(" w6"));
    near(patches.heads[0][0], 1.0, "0.0, which writes w5 beside w6");
    near(patches.heads[1][0], 1.0, "1.0, which finds it");
    assert_eq!([patches.heads[0][1], patches.heads[1][1]], [0.0; 2], "heads that give zeros");
    near(patches.residual[0][1], 1.0, "the token w5");
    near(patches.residual[1][2], 1.0, "the stream at w6, after 0.0 wrote to it");
    // After 0.0 read it, the token w5 speaks for itself alone: 1.0 finds nothing, and reads all alike.
    assert!(patches.residual[1][1] < 0.0, "{}", patches.residual[1][1]);
}

#[test]
fn an_answer_of_two_tokens_has_the_sum_of_their_log_probabilities() {
    let model = Weights::new().model();
    let log_prob = |clean: &str, answer: &str| patched(&model, clean, "w5 w9 w7 w8 w5", Some(answer)).clean.log_prob;
    let [both, first] = ["w6 w7", "w6"].map(|answer| log_prob("w5 w6 w7 w8 w5", &format!(" {answer}")));
    let tokens: Vec<u32> = [5, 6, 7, 8, 5, 6, 7].to_vec();
    let losses = model.decoder().unwrap().observe(&tokens, &mut ()).unwrap();
    let expected = [-f64::from(losses[4] + losses[5]), -f64::from(losses[4])];
    assert!((both - expected[0]).abs() < 1e-4 && (first - expected[1]).abs() < 1e-4, "{both}, {first}, {expected:?}");
}

#[test]
fn prompts_that_cannot_be_compared() {
    let model = Weights::new().model();
    let error = |clean: &str, corrupt: &str, answer: Option<&str>| match Prompts::new(&model, clean, corrupt, answer) {
        Ok(prompts) => patch(&model, "built", &prompts, &mut |_| {}).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error("w5 w6 w7", "w5 w6", None).starts_with("the clean prompt has 3 tokens and the corrupt one 2: "));
    assert!(error("w5 w6", "w5 w6", None).starts_with("the clean and the corrupt prompt are the same tokens"));
    assert!(error("w5 w6", "w5 w7", Some("w8")).starts_with("the answer \"w8\" adds no tokens to both prompts"));
    assert!(error("w5 w6", "w5 w7", Some("")).starts_with("the answer \"\" adds no tokens"));
    // The whole context is full: there is no room for the answer.
    let long = ["w5"; crate::built::CONTEXT].join(" ");
    let other = format!("w6{}", &long[2..]);
    assert_eq!(
        error(&long, &other, None),
        "text \"clean prompt and answer\" has 97 tokens and the model's context is 96 tokens: shorten the text"
    );
    // Nothing in this model tells the prompts apart in what follows: a layer without heads that give anything.
    let mut weights = Weights::new();
    weights.of("transformer.h.1.attn.c_proj.weight").fill(0.0);
    let model = weights.model();
    let prompts = Prompts::new(&model, "w5 w6 w7 w8", "w5 w9 w7 w8", Some(" w3")).unwrap();
    let error = patch(&model, "built", &prompts, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("there is nothing that patching could bring back"), "{error}");
}

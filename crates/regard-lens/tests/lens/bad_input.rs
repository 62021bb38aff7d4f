//! What cannot be inspected is refused, by name.

use regard_lens::ablate::{Part, Replace, loss};
use regard_lens::{Ablate, Error, Options, Text, inspect};
use regard_nn::Model;

use crate::built::{CONTEXT, Weights, twice};

#[test]
fn heads_and_layers_that_are_not_there() {
    let model = Weights::new().model();
    let texts = [twice(&model, 5)];
    let ablating = |part| Options { ablate: Ablate::Parts(vec![part]), ..Options::default() };
    let pruning = |part| Options { prune: Some(1), ..ablating(part) };
    let refused = |part| inspect(&model, "built", &texts, &ablating(part), &mut |_| {}).unwrap_err().to_string();
    let error = |id| refused(Part::Head(id));
    assert_eq!(error((2, 0)), "there is no layer 2: the model has layers 0 to 1");
    assert_eq!(error((1, 5)), "there is no head 5 in layer 1: each layer has heads 0 to 1");
    assert_eq!(refused(Part::Layer(2)), "there is no layer 2: the model has layers 0 to 1");
    let error = inspect(&model, "built", &texts, &pruning(Part::Head((2, 0))), &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "there is no layer 2: the model has layers 0 to 1");
    assert!(loss(model.decoder().unwrap(), &texts, &[(9, 0)], Replace::Zero).is_err());
}

#[test]
fn texts_that_do_not_fit() {
    let model = Weights::new().model();
    let long = vec!["w3"; CONTEXT + 1].join(" ");
    let error = |text: &str| Text::new(&model, "letter", text).unwrap_err().to_string();
    assert_eq!(error(&long), "text \"letter\" has 97 tokens and the model's context is 96 tokens: shorten the text");
    assert_eq!(error("w3"), "text \"letter\" has 1 tokens and needs at least 2");
    let none = inspect(&model, "built", &[], &Options::default(), &mut |_| {});
    assert!(matches!(none, Err(Error::NoText)));
    // The whole context is read.
    assert!(Text::new(&model, "letter", &long[3..]).is_ok());
}

#[test]
fn weights_that_are_not_numbers() {
    let mut weights = Weights::new();
    weights.of("transformer.h.1.attn.c_attn.weight")[3] = f32::NAN;
    let model = weights.model();
    let error = inspect(&model, "built", &[twice(&model, 5)], &Options::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("not finite"), "{error}");
}

#[test]
fn nothing_is_named_as_the_largest_weights() {
    let model = Weights::new().model();
    let options = Options { top: 0, ..Options::default() };
    let error = inspect(&model, "built", &[twice(&model, 5)], &options, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "the number of largest weights is 0 and must be at least 1");
}

/// A model that reads the first text and writes another has no heads of one kind.
#[test]
fn a_model_of_another_kind() {
    let dir = Weights::new().write();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(crate::built::family("t5").join(name), dir.path().join(name)).unwrap();
    }
    let model = Model::open(dir.path()).unwrap();
    let text = Text { name: "any".into(), tokens: vec![3, 4], pieces: vec![String::new(); 2] };
    let error = inspect(&model, "t5", &[text], &Options::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("the model is a T5"), "{error}");
}

//! What the last row draws on through all layers, in a report.

use regard_lens::rollout::Mixed;
use regard_lens::{Options, Progress, Text, inspect};
use regard_nn::{Model, Precision};

use crate::built::{Weights, twice};

/// What costs nothing but the texts, and what is measured here.
fn plain() -> Options {
    Options { through: true, scores: false, leaks: false, ..Options::default() }
}

#[track_caller]
fn near(given: &[f64], expected: &[f64]) {
    assert_eq!(given.len(), expected.len());
    for (i, (given, expected)) in given.iter().zip(expected).enumerate() {
        assert!((given - expected).abs() < 1e-5 * expected + 1e-12, "token {i} has {given}, not {expected}"); // a report has six digits
    }
}

fn story(n: usize) -> (Model, Text) {
    let story = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-story/model");
    let model = Model::open_in(&story, Some(Precision::F32)).unwrap();
    let tale = "Once upon a time there was a king, who had a daughter and no son. ".repeat(n / 15 + 1);
    let mut text = Text::new(&model, "a tale", &tale).unwrap();
    text.tokens.truncate(n);
    text.pieces.truncate(n);
    (model, text)
}

#[test]
fn the_last_row_is_followed_as_the_library_does() {
    let (model, text) = story(40);
    let mut last = None;
    let report = inspect(&model, "story", &[text.clone(), twice(&Weights::new().model(), 3)], &plain(), &mut |progress| {
        last = Some(progress)
    });
    let through = report.unwrap().through.unwrap();
    let Some(Progress { doing, done, steps }) = last else { panic!("no progress") };
    assert_eq!((doing, done), ("following the last row", steps));
    let mixed = Mixed::of(model.decoder().unwrap(), &text.tokens).unwrap();
    assert_eq!((through.row, mixed.block), (39, 1));
    near(&through.rollout, &mixed.rollout()[39 * 40..]);
    near(&through.flow, &mixed.flow(39));
    let sum: f64 = through.rollout.iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    // No path gives more than all paths together have room for.
    assert!(through.rollout.iter().zip(&through.flow).all(|(path, most)| *path <= most + 1e-9 && *most <= 1.0 + 1e-9));
}

/// The library pools a text of more than 256 tokens; the report does not.
#[test]
fn every_token_has_a_number() {
    let (model, text) = story(258);
    let report = inspect(&model, "story", std::slice::from_ref(&text), &plain(), &mut |_| {}).unwrap();
    let through = report.through.as_ref().unwrap();
    assert_eq!((through.row, through.rollout.len(), through.flow.len()), (257, 258, 258));
    let mixed = Mixed::exact(model.decoder().unwrap(), &text.tokens).unwrap();
    near(&through.rollout, &mixed.rollout_of(257));
    assert!((through.rollout.iter().sum::<f64>() - 1.0).abs() < 1e-4);
    // Pooled by two, rows are means of two: near enough to tell one from the other.
    let pooled = Mixed::of(model.decoder().unwrap(), &text.tokens).unwrap();
    assert_eq!((pooled.block, pooled.edge), (2, 129));
    let first = through.rollout[0] + through.rollout[1];
    assert!((pooled.rollout()[128 * 129] - first).abs() < 0.1 * first, "{first}");
    let json = report.json().unwrap();
    assert!(json.contains(r#""through":{"row":257,"rollout":["#));
    assert!(report.run.labels.iter().any(|label| label.starts_with("Rollout and flow") && label.contains("are approximations")));
}

/// By hand: the last row, w16 again, is ½ itself; 1.0 reads token 15, which follows w16, and 1.1 the two w16, 14 and 29. Below, a row is ½
/// itself, ¼ the token before (0.0), and ¼ all alike (0.1).
#[test]
fn what_built_heads_read_is_drawn_on() {
    let model = Weights::new().model();
    let report = inspect(&model, "built", &[twice(&model, 15)], &plain(), &mut |_| {}).unwrap();
    let mut expected = vec![0.0; 30];
    for (share, row) in [(0.5 + 0.125, 29usize), (0.25, 15), (0.125, 14)] {
        expected[row] += share / 2.0;
        expected[row - 1] += share / 4.0;
        expected[..=row].iter_mut().for_each(|x| *x += share / 4.0 / (row + 1) as f64);
    }
    for (token, (given, expected)) in report.through.unwrap().rollout.iter().zip(expected).enumerate() {
        assert!((given - expected).abs() < 1e-3, "token {token} has {given}, not {expected}");
    }
}

#[test]
fn texts_that_are_too_long_are_refused_before_the_work() {
    let (model, text) = (Weights::new().model(), "w3 ".repeat(90));
    let mut text = Text::new(&model, "scroll", &text).unwrap();
    text.tokens = vec![3; 5000];
    text.pieces = vec![String::new(); 5000];
    let mut steps = 0;
    let error = inspect(&model, "built", &[text.clone()], &plain(), &mut |_| steps += 1).unwrap_err().to_string();
    let expected = "text \"scroll\" has 5000 tokens, and rollout and flow through 2 layers are of at most 812: shorten the text, or leave them out";
    assert_eq!((error.as_str(), steps), (expected, 0));
    // The first text alone is followed.
    let short = twice(&model, 5);
    let second = inspect(&model, "built", &[short, text], &plain(), &mut |_| {}).unwrap_err().to_string();
    assert!(!second.contains("rollout"), "{second}");
}

#[test]
fn there_is_none_where_it_is_not_asked_for() {
    let model = Weights::new().model();
    let report = inspect(&model, "built", &[twice(&model, 5)], &Options { through: false, ..plain() }, &mut |_| {}).unwrap();
    assert!(report.json().unwrap().contains(r#""through":null"#));
}

//! The mass on special tokens, against that on the first token and against all weights of every row.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regard_lens::report::Head;
use regard_lens::{Options, Report, Text, inspect};
use regard_nn::Model;

use crate::built::Weights;

/// Of these words `w39` is a mark; `w38` is added too, and none.
const ADDED: &str = r#"
    { "id": 38, "content": "w38", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false },
    { "id": 39, "content": "w39", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }"#;

const PLAIN: &str = "w5 w6 w7 w8 w5 w6";

/// Of texts whose rows name all of their weights.
fn report(texts: &[&str]) -> Report {
    let model = Model::open(Weights::new().write_with(ADDED).path()).unwrap();
    let texts: Vec<Text> = texts.iter().map(|text| Text::new(&model, "text", text).unwrap()).collect();
    let options = Options { first_tokens: 1, top: 40, scores: false, leaks: false, ..Options::default() };
    inspect(&model, "built", &texts, &options, &mut |_| {}).unwrap()
}

/// The sum of all weights of the first text on tokens of this id.
fn on(head: &Head, id: u32, ids: &[u32]) -> f64 {
    let top = head.top.as_ref().unwrap();
    let words = |text: &String| -> Vec<[u8; 4]> { STANDARD.decode(text).unwrap().as_chunks().0.to_vec() };
    let keys = words(&top.keys).into_iter().map(|key| u32::from_le_bytes(key) as usize);
    let weights = words(&top.weights).into_iter().map(|weight| f64::from(f32::from_le_bytes(weight)));
    keys.zip(weights).filter(|(key, _)| ids.get(*key) == Some(&id)).map(|(_, weight)| weight).sum()
}

#[track_caller]
fn near(given: Option<f64>, expected: f64) {
    assert!((given.unwrap() - expected).abs() < 2e-5, "{given:?}, not {expected}");
}

#[test]
fn a_mark_at_the_beginning_has_the_mass_of_the_first_token() {
    let report = report(&["w39 w5 w38 w6 w5 w38 w6 w7"]);
    assert_eq!(report.texts[0].ids[0], 39);
    report.heads.iter().for_each(|head| near(head.means.special, head.means.sink));
    near(report.heads[1].means.special, (1..=8).map(|n| 1.0 / f64::from(n)).sum::<f64>() / 8.0); // it reads all alike
}

#[test]
fn marks_within_have_the_sum_of_their_weights() {
    let report = report(&["w5 w6 w39 w7 w5 w38 w39 w6 w7 w8"]);
    let ids = &report.texts[0].ids;
    assert_eq!(ids[..], [5, 6, 39, 7, 5, 38, 39, 6, 7, 8]);
    report.heads.iter().for_each(|head| near(head.means.special, on(head, 39, ids) / 10.0));
    near(report.heads[0].means.special, 0.2); // it reads the token before
    let csv = report.csv();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = lines[0].iter().position(|name| *name == "special").unwrap();
    near(lines[1][column].parse().ok(), 0.2);
}

/// In any text: rows of one without count as well.
#[test]
fn texts_without_marks_have_no_mass_on_them() {
    let (alone, marked) = (report(&["w5 w39 w6 w7"]), report(&[PLAIN, "w5 w39 w6 w7"]));
    for (alone, marked) in alone.heads.iter().zip(&marked.heads) {
        near(marked.means.special, alone.means.special.unwrap() * 4.0 / 10.0);
    }
}

#[test]
fn no_text_with_marks_is_not_zero() {
    let report = report(&[PLAIN, "w38 w5 w6"]);
    assert!(report.heads.iter().all(|head| head.means.special.is_none()));
    assert!(report.json().unwrap().contains(r#""special":null"#) && report.csv().contains(",,"));
}

//! The curve of pruning in a report.

use regard_lens::ablate::{HeadId, Replace, curve, loss};
use regard_lens::{Options, Progress, Report, Text, inspect};
use regard_nn::Model;

use crate::built::{Weights, twice};

fn texts(model: &Model) -> [Text; 2] {
    [twice(model, 15), Text::new(model, "other", "w3 w4 w5 w3 w4 w5 w3 w4").unwrap()]
}

fn report(model: &Model, points: usize) -> Report {
    let options = Options { prune: Some(points), scores: false, leaks: false, ..Options::default() };
    let mut last = None;
    let report = inspect(model, "built", &texts(model), &options, &mut |progress| last = Some(progress)).unwrap();
    let Some(Progress { doing, done, steps }) = last else { panic!("no progress") };
    assert_eq!((doing, done), ("pruning", steps));
    report
}

#[track_caller]
fn near(given: f64, expected: f64) {
    assert!((given - expected).abs() < 1e-5 * expected, "{given}, not {expected}"); // a report has six digits
}

#[test]
fn heads_go_by_what_each_alone_changes() {
    let model = Weights::new().model();
    let report = report(&model, 99);
    let mut order: Vec<(f64, HeadId)> =
        report.heads.iter().map(|head| (head.ablation.as_ref().unwrap().zero, (head.layer, head.head))).collect();
    order.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let order: Vec<HeadId> = order.into_iter().map(|(_, head)| head).collect();
    assert_eq!(order[..2], [(0, 1), (1, 1)], "these give zeros as they are");
    assert_eq!(report.pruning.iter().map(|at| at.heads).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    for at in &report.pruning {
        near(at.loss, loss(model.decoder().unwrap(), &texts(&model), &order[..at.heads], Replace::Zero).unwrap());
    }
    assert!(report.pruning[3].loss > report.pruning[2].loss + 0.1, "{:?}", report.pruning);
    // Of every head and every layer, as where all are ablated.
    assert!(report.layers.len() == 2 && report.run.labels.iter().any(|label| label.starts_with("Resampled ablation")));
    assert!(report.json().unwrap().contains(r#""pruning":[{"heads":0,"loss":"#));
}

#[test]
fn the_curve_begins_with_the_loss_of_the_whole_model() {
    let model = Weights::new().model();
    let report = report(&model, 2);
    let losses: Vec<f64> = report.texts.iter().flat_map(|text| &text.loss).copied().flatten().collect();
    near(report.pruning[0].loss, losses.iter().sum::<f64>() / losses.len() as f64);
    assert_eq!(report.pruning.iter().map(|at| at.heads).collect::<Vec<_>>(), [0, 2, 4]);
}

/// The fewest and the most points that can be named; no head at all.
#[test]
fn any_number_of_points() {
    let model = Weights::new().model();
    let heads = |points| report(&model, points).pruning.iter().map(|at| at.heads).collect::<Vec<_>>();
    assert_eq!([heads(0), heads(1)], [[0, 4], [0, 4]]);
    assert_eq!(heads(usize::MAX), [0, 1, 2, 3, 4]);
    let (decoder, texts) = (model.decoder().unwrap(), texts(&model));
    assert_eq!(curve(decoder, &texts, &[], 5).unwrap(), [(0, loss(decoder, &texts, &[], Replace::Zero).unwrap())]);
}

#[test]
fn there_is_none_where_it_is_not_asked_for() {
    let model = Weights::new().model();
    let report = inspect(&model, "built", &texts(&model), &Options::default(), &mut |_| {}).unwrap();
    assert!(report.pruning.is_empty() && report.json().unwrap().contains(r#""pruning":[]"#));
}

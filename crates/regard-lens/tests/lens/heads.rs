//! Facts and scores of heads that were built to do one thing each.

use regard_lens::ablate::Part;
use regard_lens::{Ablate, NamedRange, Options, Report, inspect};

use crate::built::{Weights, twice};

fn report(options: &Options) -> Report {
    let model = Weights::new().model();
    let text = twice(&model, 20);
    inspect(&model, "built", &[text], options, &mut |_| {}).unwrap()
}

#[track_caller]
fn near(given: f64, expected: f64, what: &str) {
    assert!((given - expected).abs() < 1e-3, "{what} is {given}, not {expected}");
}

#[test]
fn each_head_scores_in_what_it_was_built_for() {
    let heads = report(&Options::default()).heads;
    let scores = |i: usize| {
        let s = &heads[i].scores;
        [s.previous, s.first, s.duplicate, s.induction, s.retrieval].map(Option::unwrap)
    };
    // 0.0 reads the token before: 1, and in rows 2 and on not the first. The token before is neither the same nor what followed it.
    let [previous, first, duplicate, induction, retrieval] = scores(0);
    near(previous, 1.0, "0.0 previous");
    near(first, 1.0 / 39.0, "0.0 first"); // of 39 rows with a token before, it is the first of one
    assert!([duplicate, induction, retrieval].iter().all(|score| *score < 0.01), "{:?}", heads[0].scores);
    // 0.1 reads all alike: 1 / (q + 1) on the token before and on the first.
    let mean = (2..=40).map(|n| 1.0 / f64::from(n)).sum::<f64>() / 39.0;
    let [previous, first, duplicate, induction, _] = scores(1);
    [previous, first].iter().for_each(|score| near(*score, mean, "0.1"));
    // A text of a mark and 32 tokens twice: the rows of the second half see 34 to 65 keys.
    let mean = (34..=65).map(|n| 1.0 / f64::from(n)).sum::<f64>() / 32.0;
    [duplicate, induction].iter().for_each(|score| near(*score, mean, "0.1"));
    // 1.0 is an induction head, and finds needles.
    let [previous, _, duplicate, induction, retrieval] = scores(2);
    near(induction, 1.0, "1.0 induction");
    near(retrieval, 1.0, "1.0 retrieval");
    assert!(duplicate < 0.01 && previous < 0.1, "{:?}", heads[2].scores);
    // 1.1 shares its weight among the same token and itself.
    let [_, _, duplicate, induction, _] = scores(3);
    near(duplicate, 0.5, "1.1 duplicate");
    assert!(induction < 0.01, "{:?}", heads[3].scores);
}

#[test]
fn facts_of_a_head_that_reads_all_alike() {
    let report = report(&Options { scores: false, ..Options::default() });
    let (head, n) = (&report.heads[1], 40);
    let mean = |f: &dyn Fn(f64) -> f64| (0..n).map(|q| f(f64::from(q))).sum::<f64>() / f64::from(n);
    near(head.means.entropy, mean(&|q| (q + 1.0).ln()), "entropy");
    near(head.means.max_weight, mean(&|q| 1.0 / (q + 1.0)), "largest weight");
    near(head.means.own, mean(&|q| 1.0 / (q + 1.0)), "self");
    near(head.means.sink, mean(&|q| 4f64.min(q + 1.0) / (q + 1.0)), "sink");
    near(head.means.recent, mean(&|q| 32f64.min(q + 1.0) / (q + 1.0)), "recent");
    near(head.means.distance, mean(&|q| q / 2.0), "distance");
    near(head.means.lse, mean(&|q| (q + 1.0).ln()), "log-sum-exp");
    near(head.means.max_logit, 0.0, "largest logit");
    // Distances 4 to 7 are class 3: min(q + 1, 8) − 4 keys of q + 1, where there are any.
    near(head.distances[3], mean(&|q| (8f64.min(q + 1.0) - 4.0).max(0.0) / (q + 1.0)), "distances 4 to 7");
    near(head.distances.iter().sum(), 1.0, "all distances");
    near(head.by_position.entropy[19], 20f64.ln(), "entropy of row 19");
    near(head.received[30], (31..=40).map(|n| 1.0 / f64::from(n)).sum(), "what key 30 receives");
    assert_eq!((report.bins.count, report.bins.width, head.maps[0].block, head.maps[0].rows), (40, 1, 1, 40));
    // 0.0 reads one key, so its rows are all but certain; the heads differ.
    assert!(report.heads[0].means.entropy < 1e-3 && report.heads[0].means.max_weight > 0.999);
    assert_ne!(report.heads[0].cluster, head.cluster);
    assert_eq!(report.heads[0].scores.induction, None);
}

/// Of the head that reads all alike, a range of three has `3 / (q + 1)` of row q; of the one that reads the token before, all or nothing.
#[test]
fn masses_of_named_ranges() {
    let named = |name: &str, tokens| NamedRange { name: name.to_owned(), tokens };
    let ranges = vec![named("few", 5..8), named("end", 37..40), named("before the last", 38..39)];
    let report = report(&Options { scores: false, ranges, ..Options::default() });
    assert_eq!(report.run.ranges[1].name, "end");
    let masses = |i: usize, range: usize| [report.heads[i].ranges[range].mass, report.heads[i].ranges[range].last];
    let [mass, last] = masses(1, 0);
    near(mass, (7..40).map(|q| 3.0 / f64::from(q + 1)).sum::<f64>() / 33.0, "0.1 few");
    near(last, 3.0 / 40.0, "0.1 few from the end");
    let [mass, last] = masses(0, 0);
    near(mass, 2.0 / 33.0, "0.0 few"); // rows 7 and 8 read tokens 6 and 7
    near(last, 0.0, "0.0 few from the end");
    assert!(masses(0, 1).iter().all(|mass| (mass - 1.0).abs() < 1e-3), "one row sees all of the end: {:?}", masses(0, 1));
    near(masses(0, 2)[0], 0.5, "0.0 before the last"); // row 39 reads it, row 38 token 37
    near(masses(0, 2)[1], 1.0, "0.0 before the last, from the end");
    // The score of the first token is as without ranges.
    near(report.heads[0].scores.first.unwrap(), 1.0 / 39.0, "0.0 first");
    near(report.heads[1].scores.first.unwrap(), (2..=40).map(|n| 1.0 / f64::from(n)).sum::<f64>() / 39.0, "0.1 first");
}

/// Without the induction head the second half of the text is as surprising as the first; the head that gives zeros is not missed.
#[test]
fn ablation_finds_the_head_that_predicts() {
    let report = report(&Options { scores: false, ablate: Ablate::All, ..Options::default() });
    let change = |i: usize| report.heads[i].ablation.clone().unwrap();
    assert!(change(2).zero > 0.5 && change(2).mean > 0.5, "{:?}", change(2));
    assert!(change(0).zero > 0.5, "the induction head reads what 0.0 writes: {:?}", change(0));
    assert!(change(0).resample > 0.5 && change(2).resample > 0.5, "{:?} {:?}", change(0), change(2));
    assert_eq!([change(1).zero, change(3).zero, change(1).mean, change(1).resample, change(3).resample], [0.0; 5]);
    // Each layer has one head that gives anything.
    let layers: Vec<_> =
        report.layers.iter().map(|layer| [layer.ablation.zero, layer.ablation.mean, layer.ablation.resample]).collect();
    let heads: Vec<_> = [0, 2].map(change).iter().map(|head| [head.zero, head.mean, head.resample]).collect();
    assert_eq!(layers, heads);
}

#[test]
fn parts_are_ablated_where_they_are_named() {
    let parts = vec![Part::Head((1, 0)), Part::Layer(1)];
    let some = report(&Options { scores: false, ablate: Ablate::Parts(parts), ..Options::default() });
    assert!(some.heads[2].ablation.is_some() && some.heads.iter().filter(|head| head.ablation.is_some()).count() == 1);
    assert!(some.layers.len() == 1 && some.layers[0].layer == 1);
}

//! A report in a few lines, for a terminal.

use std::fmt::Write;

use regard_lens::Report;
use regard_lens::report::{Ablation, Head, HeadScores, Pruned, Through, Zoomed};

/// Heads that are named for each score.
const NAMED: usize = 5;
/// Tokens that are named of those that the last row draws on.
const TOKENS: usize = 3;
/// The least score of a head that is named.
const LEAST: f64 = 0.1;

/// What a score is called, and where it is.
type Score = (&'static str, fn(&HeadScores) -> Option<f64>);

const SCORES: [Score; 6] = [
    ("previous token", |s| s.previous),
    ("first token", |s| s.first),
    ("most local", |s| s.local),
    ("duplicate token", |s| s.duplicate),
    ("induction", |s| s.induction),
    ("retrieval", |s| s.retrieval),
];

/// What takes the place of what a head or a layer gives, and the change of the loss.
type Change = (&'static str, fn(&Ablation) -> f64);

const ABLATIONS: [Change; 3] = [("loss if zero", |a| a.zero), ("loss if mean", |a| a.mean), ("loss resampled", |a| a.resample)];

pub(super) fn of(report: &Report) -> String {
    let (model, run) = (&report.model, &report.run);
    let mut text = String::new();
    let mut line = |line: String| _ = writeln!(text, "{line}");
    line(format!("model       {}: {}, {:.2} M parameters", model.name, model.kind, model.parameters as f64 / 1e6));
    line(format!("heads       {} layers of {} heads, {} of keys and values", model.layers, model.heads, model.kv_heads));
    let losses: Vec<f64> = report.texts.iter().flat_map(|text| &text.loss).copied().flatten().collect();
    let loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    line(format!(
        "read        {} tokens of {} texts, {loss:.3} nats per token; {:.1} s, {}",
        run.tokens, run.texts, run.seconds, run.kernel
    ));
    line(String::new());
    line("entropy, nats; a layer a line, a head a column".to_owned());
    for layer in report.heads.chunks(model.heads.max(1)) {
        let entropies: Vec<String> = layer.iter().map(|head| format!("{:6.2}", head.means.entropy)).collect();
        line(format!("{:>4}  {}", layer[0].layer, entropies.join("")));
    }
    line(String::new());
    for (name, score) in SCORES {
        line(format!("{name:<16}{}", best(&report.heads, |head| score(&head.scores), LEAST)));
    }
    line(format!("{:<16}{}", "sinks", best(&report.heads, |head| Some(head.means.sink), LEAST)));
    for (i, range) in run.ranges.iter().enumerate() {
        let on = format!("on {:?}, tokens {}..{}", range.name, range.start, range.end);
        line(format!("{:<16}{}", on, best(&report.heads, |head| Some(head.ranges[i].mass), 0.0)));
        line(format!("{:<16}{}", "  from the end", best(&report.heads, |head| Some(head.ranges[i].last), 0.0)));
    }
    for head in &report.heads {
        for Zoomed { rows: [row, rows], keys: [key, keys], map } in &head.zooms {
            let zoomed = format!("{}.{} rows {row}..{rows}, keys {key}..{keys}", head.layer, head.head);
            line(format!("{:<16}{zoomed}: {} by {} cells, in --json and --out", "zoom", map.rows, map.columns));
        }
    }
    let clusters = report.heads.iter().filter_map(|head| head.cluster).max().map_or(0, |last| last + 1);
    line(format!("{:<16}{} heads attend in {clusters} ways", "alike", report.heads.len()));
    for (name, change) in ABLATIONS {
        if report.heads.iter().any(|head| head.ablation.is_some()) {
            let heads = best(&report.heads, |head| head.ablation.as_ref().map(change), f64::MIN);
            line(format!("{name:<16}{heads}"));
        }
        if !report.layers.is_empty() {
            let layers: Vec<String> =
                report.layers.iter().map(|layer| format!("{} {:.3}", layer.layer, change(&layer.ablation))).collect();
            line(format!("{:<16}{}", "  of a layer", layers.join("   ")));
        }
    }
    if let Some(Through { rollout, flow, .. }) = &report.through {
        line(format!("{:<16}{}", "through rollout", largest(rollout, &report.texts[0].tokens)));
        line(format!("{:<16}{}", "through flow", largest(flow, &report.texts[0].tokens)));
    }
    if let Some(sentence) = pruned(&report.pruning) {
        line(String::new());
        line(sentence);
    }
    line(String::new());
    run.labels.iter().for_each(|label| line(label.clone()));
    text.trim_end().to_owned()
}

/// The loss halfway along the curve of pruning.
fn pruned(curve: &[Pruned]) -> Option<String> {
    let (whole, half) = (curve.first()?, curve.get(curve.len() / 2)?);
    let heads = if half.heads == 1 { "head that matters".to_owned() } else { format!("{} heads that matter", half.heads) };
    Some(format!("Pruning: without the {heads} least the loss is {:.3} nats a token, not {:.3}.", half.loss, whole.loss))
}

/// The tokens from which most comes, each with its place and its share.
fn largest(shares: &[f64], tokens: &[String]) -> String {
    let mut all: Vec<_> = shares.iter().zip(tokens).enumerate().collect();
    all.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    all.iter().take(TOKENS).map(|(at, (share, token))| format!("{at} {token:?} {share:.3}")).collect::<Vec<_>>().join("   ")
}

/// The heads of the largest numbers, `layer.head`, each with its number.
fn best(heads: &[Head], of: impl Fn(&Head) -> Option<f64>, least: f64) -> String {
    let mut all: Vec<(f64, &Head)> = heads.iter().filter_map(|head| Some((of(head)?, head))).collect();
    if all.is_empty() {
        return "not measured".to_owned();
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let named = all.iter().filter(|(x, _)| *x >= least).take(NAMED);
    let named: Vec<String> = named.map(|(x, head)| format!("{}.{} {x:.3}", head.layer, head.head)).collect();
    if named.is_empty() { format!("none above {least}") } else { named.join("   ") }
}

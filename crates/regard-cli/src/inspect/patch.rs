//! `regard inspect --patch`: which heads and positions carry the answer from one prompt to another.

use std::error::Error;
use std::fmt::Write as _;

use regard_lens::patch::{Patches, Prompts, patch};

use super::{Bar, Inspect};

/// Heads and places that are named.
const NAMED: usize = 5;

pub(super) fn execute(inspect: &Inspect, [clean, corrupt]: [&String; 2]) -> Result<(), Box<dyn Error>> {
    let tables = inspect.tables()?;
    let (name, model) = inspect.model()?;
    let prompts = Prompts::new(&model, clean, corrupt, inspect.answer.as_deref())?;
    let bar = Bar::new();
    let patches = patch(&model, &name, &prompts, &mut |progress| bar.show(progress))?;
    bar.0.finish_and_clear();
    tables.write(|| patches.json(), || patches.csv(), || summary(&patches))
}

fn summary(patches: &Patches) -> String {
    let mut text = String::new();
    let mut line = |line: String| _ = writeln!(text, "{line}");
    line(format!("answer      {:?}", patches.answer.concat()));
    for (name, prompt) in [("clean", &patches.clean), ("corrupt", &patches.corrupt)] {
        line(format!("{name:<12}ln p {:.3}   {:?}", prompt.log_prob, prompt.tokens.concat()));
    }
    line(String::new());
    line("share of the difference that comes back with a head; a layer a line, a head a column, then all heads".to_owned());
    for (layer, (heads, all)) in patches.heads.iter().zip(&patches.layers).enumerate() {
        let shares: String = heads.iter().map(|share| format!("{share:7.2}")).collect();
        line(format!("{layer:>4}  {shares}  {all:7.2}"));
    }
    line(String::new());
    let heads = patches
        .heads
        .iter()
        .enumerate()
        .flat_map(|(layer, row)| row.iter().enumerate().map(move |(head, share)| (*share, format!("{layer}.{head}"))));
    line(format!("{:<12}{}", "heads", most(heads.collect())));
    let stream = patches.residual.iter().enumerate().flat_map(|(layer, row)| {
        let tokens = patches.clean.tokens.iter().enumerate();
        tokens.zip(row).map(move |((at, token), share)| (*share, format!("before {layer} at {at} {token:?}")))
    });
    line(format!("{:<12}{}", "stream", most(stream.collect())));
    line(String::new());
    line("A share of 1 restores the answer of the clean prompt; shares do not add up: heads work through each other.".to_owned());
    text.trim_end().to_owned()
}

/// What has the largest shares.
fn most(mut all: Vec<(f64, String)>) -> String {
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.iter().take(NAMED).map(|(share, name)| format!("{name} {share:.2}")).collect::<Vec<_>>().join("   ")
}

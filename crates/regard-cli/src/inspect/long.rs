//! `regard inspect --long-context`: what a model still finds in long texts.

use std::error::Error;
use std::fmt::Write as _;

use regard_lens::long_context::{LongContext, Options, Phrases, TASKS, Trial, long_context};

use super::{Bar, Inspect};

/// Texts that were not answered which are named.
const NAMED: usize = 8;

pub(super) fn execute(inspect: &Inspect) -> Result<(), Box<dyn Error>> {
    let tables = inspect.tables()?;
    let (name, model) = inspect.model()?;
    let options = Options {
        lengths: inspect.long_context.clone(),
        draws: inspect.draws as usize,
        seed: inspect.seed,
        phrases: Phrases::english(),
    };
    let bar = Bar::new();
    let found = long_context(&model, &name, &options, &mut |progress| bar.show(progress))?;
    bar.0.finish_and_clear();
    tables.write(|| found.json(), || found.csv(), || summary(&found))
}

fn summary(found: &LongContext) -> String {
    let mut text = String::new();
    let mut line = |line: String| _ = writeln!(text, "{line}");
    line("answered of asked, and nats per token of the answer; a length a line, a depth of the fact a column (% of the text before it)".to_owned());
    for task in TASKS {
        let of_task: Vec<&Trial> = found.trials.iter().filter(|trial| trial.task == task).collect();
        let mut depths: Vec<Option<f64>> = of_task.iter().map(|trial| trial.depth).collect();
        depths.dedup();
        depths.truncate(depths.iter().skip(1).position(|depth| *depth == depths[0]).map_or(depths.len(), |i| i + 1));
        line(String::new());
        let heading =
            |depth: &Option<f64>| depth.map_or_else(|| format!("{:>14}", "all"), |depth| format!("{:>14.0}", 100.0 * depth));
        line(format!("{:<10}{}", task.name(), depths.iter().map(heading).collect::<String>()));
        for lengths in of_task.chunk_by(|a, b| a.length == b.length) {
            let cells = lengths.chunk_by(|a, b| a.depth == b.depth).map(|cell| {
                let (right, all) = (cell.iter().filter(|trial| trial.exact).count(), cell.len());
                let loss = cell.iter().map(|trial| trial.loss).sum::<f64>() / all as f64;
                format!("{:>14}", format!("{right}/{all} {loss:.2}"))
            });
            line(format!("{:>10}{}", lengths[0].length, cells.collect::<String>()));
        }
    }
    let missed: Vec<&Trial> = found.trials.iter().filter(|trial| !trial.exact).collect();
    line(String::new());
    line(format!("{} of {} were not answered", missed.len(), found.trials.len()));
    for trial in missed.iter().take(NAMED) {
        let (layer, head, mass) = trial.most();
        let depth = trial.depth.map_or_else(String::new, |depth| format!(" at {:.0} %", 100.0 * depth));
        let (task, length, answer) = (trial.task.name(), trial.length, trial.answer.concat());
        line(format!("  {task} in {length}{depth}: {answer:?}; most mass on its facts has {layer}.{head}, {mass:.2}"));
    }
    if missed.len() > NAMED {
        line("  … all of them, with every head's mass, are in --json".to_owned());
    }
    text.trim_end().to_owned()
}

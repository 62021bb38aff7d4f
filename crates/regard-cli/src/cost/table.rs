//! The figures as a table to read.

use std::fmt::{self, Write};

use regard_cost::{Chip, Cost, Count, Pass, PassTime, Shape};

use super::units::{bytes, flops, many, time, whole};

/// Lines of a name, a figure and a remark.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn title(&mut self, text: &str, remark: &str) {
        let line = format!("{text:<34}{remark:>14}");
        let _ = writeln!(self.0, "\n{}", line.trim_end());
    }

    fn line(&mut self, name: &str, figure: impl fmt::Display, remark: &str) {
        let line = format!("  {name:<32}{figure:>14}   {remark}");
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    /// A line, unless it is of nothing.
    fn some(&mut self, name: &str, n: Count, show: fn(Count) -> String, remark: &str) {
        if n > Count::ZERO {
            self.line(name, show(n), remark);
        }
    }
}

pub(super) fn table(cost: &Cost) -> String {
    let mut lines = Lines::default();
    let (model, length, batch) = (&cost.model, whole(cost.length), whole(cost.batch));
    let texts = if cost.batch == 1 { "text" } else { "texts" };
    lines.0 = format!("{}: {batch} {texts} of {length} tokens in {}\n", model.name, cost.dtype.name());
    if cost.length > model.max_position_embeddings {
        let made_for = whole(model.max_position_embeddings);
        let _ = writeln!(lines.0, "note: the model was made for {made_for} tokens at most");
    }
    parameters(&mut lines, cost);
    memory(&mut lines, cost);
    scores(&mut lines, cost);
    let times = cost.time.as_ref();
    pass(&mut lines, &format!("Prefill of {length} tokens"), &cost.prefill, times.map(|time| &time.prefill));
    if let Some(decode) = &cost.decode {
        pass(
            &mut lines,
            &format!("A token of each text, which sees {length}"),
            decode,
            times.and_then(|time| time.decode.as_ref()),
        );
    }
    training(&mut lines, cost);
    lines.title("Length at which attention overtakes", "");
    let overtakes = cost.crossover.feed_forward.map_or("never".to_owned(), whole);
    lines.line("the feed-forward layers", overtakes, "where its operations become more than theirs");
    lines.line("a projection", whole(cost.crossover.width), "n > d: one product of scores, n²d, against nd²");
    if let Some(time) = times {
        let _ = writeln!(lines.0, "\nTimes are the least that {} allows ({}).", time.chip.name, time.chip.source);
    }
    lines.0
}

fn parameters(lines: &mut Lines, cost: &Cost) {
    let p = &cost.parameters;
    lines.title("Parameters", &many(p.total));
    for (name, n) in [
        ("embedding", p.embedding),
        ("positions", p.positions),
        ("attention", p.attention),
        ("feed-forward", p.feed_forward),
        ("router", p.router),
        ("normalisations", p.norms),
        ("output", p.head),
    ] {
        lines.some(name, n, many, "");
    }
    if p.active < p.total {
        lines.line("active", many(p.active), "those that a token uses");
    }
}

fn memory(lines: &mut Lines, cost: &Cost) {
    let memory = &cost.memory;
    lines.title("Memory to run", &bytes(memory.total));
    lines.line("weights", bytes(memory.weights), "");
    if let Some(cache) = &cost.kv_cache {
        let shrunk = cache.per_token_of_all_heads.get() as f64 / cache.per_token.get() as f64;
        let shrunk = if shrunk > 1.0 { format!(", {shrunk:.3} times less than with all heads") } else { String::new() };
        lines.line("keys and values", bytes(cache.total), &format!("{} a token{shrunk}", bytes(cache.per_token)));
        if cache.without_windows > cache.total {
            lines.line("  without windows", bytes(cache.without_windows), "if every layer keeps every token");
        }
    }
    lines.line("activations", bytes(memory.activations), "of a prefill of all tokens at once");
    lines.line("without a fused kernel", bytes(memory.materialised), "with the scores of a layer");
    if let (Some(fits), None) = (&cost.fits, &cost.training) {
        lines.line("largest batch that fits", whole(fits.batch), &format!("in {}", bytes(Count::from(fits.memory))));
    }
}

fn scores(lines: &mut Lines, cost: &Cost) {
    let scores = &cost.scores;
    lines.title("Scores that a fused kernel never writes", "");
    lines.line("one matrix", bytes(scores.matrix), "n² numbers");
    lines.line("one for each layer", bytes(scores.matrix_of_each_layer), "as if a layer had one head");
    lines.line("of a layer", bytes(scores.layer), "all heads and texts: what running needs");
    lines.line("of all layers", bytes(scores.all_layers), "what training keeps");
    lines.line("moved for them", bytes(scores.traffic), "scores and probabilities, written and read");
    lines.line("a fused kernel", bytes(scores.fused), "of a layer: a log-sum-exp for each row");
}

fn pass(lines: &mut Lines, name: &str, pass: &Pass, times: Option<&PassTime>) {
    lines.title(name, &times.map_or(String::new(), |times| time(times.total_ns)));
    let of = |part: fn(&PassTime) -> Count| times.map(part);
    for (name, work, ns) in [
        ("projections", pass.projections, of(|times| times.projections_ns)),
        ("attention", pass.attention, of(|times| times.attention_ns)),
        ("feed-forward", pass.feed_forward, of(|times| times.feed_forward_ns)),
        ("embedding and output", pass.output, of(|times| times.output_ns)),
        ("all", pass.total, None),
    ] {
        let ns = ns.map_or(String::new(), time);
        lines.line(name, flops(work.flops), format!("{:>14}{ns:>16}", bytes(work.bytes)).trim_end());
    }
}

fn training(lines: &mut Lines, cost: &Cost) {
    let Some(training) = &cost.training else { return };
    lines.title("Memory to train with AdamW", &bytes(training.total));
    lines.line("weights", bytes(training.weights), "");
    lines.line("gradients", bytes(training.gradients), "");
    lines.some("weights in f32", training.master_weights, bytes, "");
    lines.line("moments", bytes(training.moments), "two for each parameter, in f32; activations have none");
    lines.line("activations", bytes(training.activations), "");
    lines.line(
        "without a fused kernel",
        bytes(training.materialised),
        &format!("{} more of probabilities", bytes(training.attention_matrices)),
    );
    if let Some(fits) = &cost.fits {
        lines.line("largest batch that fits", whole(fits.batch), &format!("in {}", bytes(Count::from(fits.memory))));
    }
    let step = cost.time.as_ref().and_then(|time| time.training.as_ref());
    pass(lines, "Forward, for training", &training.forward, step.map(|step| &step.forward));
    pass(lines, "Backward", &training.backward, step.map(|step| &step.backward));
    lines.title("Update", &step.map_or(String::new(), |step| time(step.update_ns)));
    lines.line("moved", bytes(training.update.bytes), "gradients, moments and weights");
    if let Some(step) = step {
        lines.title("A step", &time(step.total_ns));
    }
}

/// Presets and chips, with their sources.
pub(super) fn list() -> regard_cost::Result<String> {
    let mut text = "Presets\n".to_owned();
    for name in Shape::presets() {
        let parameters = many(Shape::preset(&name)?.parameters().total);
        let _ = writeln!(text, "  {name:<14}{parameters:>16}   {}", Shape::source(&name)?);
    }
    text.push_str("\nChips\n");
    for name in Chip::names() {
        let _ = writeln!(text, "  {name:<14}{}", Chip::named(&name)?.source);
    }
    Ok(text + "  here          this machine, measured\n")
}

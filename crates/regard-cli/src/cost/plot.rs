//! Memory and time against length as an SVG.

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use regard_cost::{Chip, Cost, Count, Question, Shape};

use super::units::{bytes, time, whole};

/// Width of the picture and height of each of its panels, in pixels.
const SIZE: (u32, u32) = (880, 420);
/// Colours that those who confuse red and green can tell apart (Okabe and Ito 2008).
const COLORS: [RGBColor; 5] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167), RGBColor(86, 86, 86)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A figure at each length.
struct Curve {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// The figures of a question at powers of two around its length, on logarithmic axes; times only on a chip.
pub(super) fn draw(shape: &Shape, ask: &Question, chip: Option<&Chip>) -> Result<String, Box<dyn Error>> {
    let costs = costs(shape, ask, chip);
    let panels = 1 + u32::from(chip.is_some());
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (SIZE.0, SIZE.1 * panels)).into_drawing_area();
    area.fill(&WHITE)?;
    let texts = if ask.batch == 1 { "1 text".to_owned() } else { format!("{} texts", whole(ask.batch)) };
    let what = format!("{}, {texts}, {}", shape.name, ask.dtype.name());
    let rows = area.split_evenly((panels as usize, 1));
    panel(&rows[0], &format!("Memory of {what}"), &memory(&costs, ask.train), ask.length, bytes)?;
    if let (Some(chip), Some(row)) = (chip, rows.get(1)) {
        panel(row, &format!("Least time of {what}, on {}", chip.name), &times(&costs), ask.length, time)?;
    }
    area.present()?;
    drop((rows, area));
    Ok(svg)
}

/// From a 64th of the length to 64 times it.
fn costs(shape: &Shape, ask: &Question, chip: Option<&Chip>) -> Vec<Cost> {
    let at = |length| Cost::of(shape, &Question { length, ..*ask }, chip).ok();
    let low = (ask.length / 64).max(1);
    (0..=12).filter_map(|power| low.checked_shl(power).filter(|length| length >> power == low)).filter_map(at).collect()
}

fn curve(costs: &[Cost], name: &'static str, figure: impl Fn(&Cost) -> Option<Count>) -> Option<Curve> {
    let point = |cost: &Cost| Some((cost.length as f64, figure(cost)?.get() as f64)).filter(|(_, y)| *y > 0.0);
    let points: Vec<_> = costs.iter().filter_map(point).collect();
    (!points.is_empty()).then_some(Curve { name, points })
}

fn memory(costs: &[Cost], train: bool) -> Vec<Curve> {
    let all = match train {
        true => [
            curve(costs, "training, fused", |cost| Some(cost.training?.total)),
            curve(costs, "training, materialised", |cost| Some(cost.training?.materialised)),
            curve(costs, "activations", |cost| Some(cost.training?.activations)),
            curve(costs, "probabilities of all layers", |cost| Some(cost.training?.attention_matrices)),
            curve(costs, "weights, gradients, moments", |cost| {
                let training = cost.training?;
                Some(training.weights + training.gradients + training.master_weights + training.moments)
            }),
        ],
        false => [
            curve(costs, "running, fused", |cost| Some(cost.memory.total)),
            curve(costs, "running, materialised", |cost| Some(cost.memory.materialised)),
            curve(costs, "keys and values", |cost| Some(cost.kv_cache?.total)),
            curve(costs, "scores of a layer", |cost| Some(cost.scores.layer)),
            curve(costs, "weights", |cost| Some(cost.memory.weights)),
        ],
    };
    all.into_iter().flatten().collect()
}

fn times(costs: &[Cost]) -> Vec<Curve> {
    let all = [
        curve(costs, "prefill", |cost| Some(cost.time.as_ref()?.prefill.total_ns)),
        curve(costs, "attention of it", |cost| Some(cost.time.as_ref()?.prefill.attention_ns)),
        curve(costs, "a token of each text", |cost| Some(cost.time.as_ref()?.decode?.total_ns)),
        curve(costs, "a training step", |cost| Some(cost.time.as_ref()?.training?.total_ns)),
    ];
    all.into_iter().flatten().collect()
}

fn panel(area: &Area<'_>, title: &str, curves: &[Curve], length: u64, unit: fn(Count) -> String) -> Result<(), Box<dyn Error>> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (xs, ys) = (span(points().map(|point| point.0)), span(points().map(|point| point.1)));
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption(title, ("sans-serif", 17))
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(xs.log_scale(), ys.clone().log_scale())?;
    let count = |x: &f64| Count::new(*x as u128);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("tokens")
        .x_label_formatter(&|x| whole(x.round() as u64))
        .y_label_formatter(&|y| unit(count(y)))
        .draw()?;
    let here = length as f64;
    chart.draw_series([PathElement::new([(here, ys.start), (here, ys.end)], BLACK.mix(0.3))])?;
    for (curve, color) in curves.iter().zip(COLORS) {
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)).point_size(2))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The span of positive numbers, never empty.
fn span(all: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = all.fold((f64::INFINITY, 1.0), |(low, high), x| (x.min(low), x.max(high)));
    let low = low.min(high).max(0.5);
    low..if high > low { 1.5 * high } else { 2.0 * low }
}

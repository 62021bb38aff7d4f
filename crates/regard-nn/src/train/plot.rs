//! The loss curves of a run as an SVG.

use std::path::Path;

use plotters::prelude::*;

use super::history::History;
use super::{TrainError, atomic};

/// Width and height of the picture in pixels.
const SIZE: (u32, u32) = (880, 480);
/// How much of the smoothed loss is kept from one step to the next.
const SMOOTHING: f64 = 0.95;
const TRAIN: RGBColor = RGBColor(0x2F, 0x6D, 0xB5);
const VALIDATION: RGBColor = RGBColor(0xC8, 0x4B, 0x31);

/// Draws the smoothed training loss and the validation loss over the steps, and replaces `path` atomically.
///
/// # Errors
/// The drawing fails or the file cannot be written.
pub fn draw(history: &History, path: &Path) -> Result<(), TrainError> {
    let mut svg = String::new();
    curves(history, &mut svg).map_err(|error| TrainError::Plot { path: path.into(), message: error.to_string() })?;
    atomic::replace_with(path, svg.as_bytes())
}

fn curves(history: &History, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let train: Vec<(f64, f64)> = (1..).map(f64::from).zip(history.smoothed(SMOOTHING)).collect();
    let validation: Vec<(f64, f64)> = history.validations.iter().map(|v| (v.step as f64, v.nats_per_token)).collect();
    let (low, high) = range(train.iter().chain(&validation).map(|point| point.1));
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..train.len().max(1) as f64, low..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .y_desc("nats per token")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.1}"))
        .draw()?;
    chart
        .draw_series(LineSeries::new(train, TRAIN.stroke_width(2)))?
        .label("training (smoothed)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], TRAIN.stroke_width(2)));
    let label = match history.best() {
        Some(best) => format!("validation, best {:.3} ({:.3} bits per byte)", best.nats_per_token, best.bits_per_byte),
        None => "validation".into(),
    };
    chart
        .draw_series(LineSeries::new(validation, VALIDATION.stroke_width(2)).point_size(2))?
        .label(label)
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], VALIDATION.stroke_width(2)));
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    area.present()?;
    Ok(())
}

/// The span of the finite values with a little room, or 0 to 1 when there are none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let span = |(low, high): (f64, f64), x: f64| (low.min(x), high.max(x));
    let (low, high) = values.filter(|x| x.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), span);
    let room = 0.05 * (high - low) + 0.05;
    if low <= high { (low - room, high + room) } else { (0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Validation;

    #[test]
    fn names_both_curves_and_their_axes() {
        let validations = vec![Validation { step: 2, nats_per_token: 2.5, bits_per_byte: 1.25 }];
        let mut svg = String::new();
        curves(&History { losses: vec![3.0, 2.0], validations }, &mut svg).unwrap();
        for text in ["<svg", "step", "nats per token", "training", "best 2.500 (1.250 bits per byte)", "</svg>"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }

    #[test]
    fn an_empty_history_draws_empty_axes() {
        let mut svg = String::new();
        curves(&History::default(), &mut svg).unwrap();
        assert!(svg.contains("</svg>"));
    }
}

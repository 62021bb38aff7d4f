//! What a picture of a report shows: the entropy of every head, and how alike the heads are.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::Report;

/// Units of a cell of the entropies, and around them all.
const CELL: u32 = 40;
const BESIDE: u32 = 64;
const ABOVE: u32 = 48;
/// Units of the matrix of similarities, and of its smallest and largest cell.
const MATRIX: u32 = 640;
const LEAST: u32 = 4;
const MOST: u32 = 16;
/// Heads that have a row of their own there; of more, each layer has one.
const HEADS: usize = 128;

/// What is drawn on, and why it cannot be.
type Area<B> = DrawingArea<B, Shift>;
type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Width and height, units.
pub(crate) fn size(report: &Report) -> (u32, u32) {
    let (layers, heads) = (report.model.layers as u32, report.model.heads as u32);
    let rows = Alike::of(report).names.len() as u32;
    let matrix = if rows > 0 { ABOVE + rows * edge(rows) } else { 0 };
    ((heads * CELL + BESIDE + 16).max(BESIDE + rows * edge(rows) + 16).max(480), layers * CELL + ABOVE + 40 + matrix)
}

/// Entropies, layers from top to bottom: light where a head reads few tokens, dark where many. Below, the similarity of any two heads, in order of
/// clusters: light where they share no key, dark where they attend alike.
pub(crate) fn draw<B: DrawingBackend>(report: &Report, area: &Area<B>) -> Drawn<B> {
    area.fill(&WHITE)?;
    entropies(report, area)?;
    similarities(report, area, ABOVE + report.model.layers as u32 * CELL + 40)?;
    area.present()
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().into()
}

/// From light to dark.
fn shade(share: f64) -> RGBColor {
    let mix = |light: f64, dark: f64| (light + share.clamp(0.0, 1.0) * (dark - light)).round() as u8;
    RGBColor(mix(247.0, 8.0), mix(251.0, 48.0), mix(255.0, 107.0))
}

fn entropies<B: DrawingBackend>(report: &Report, area: &Area<B>) -> Drawn<B> {
    let (layers, heads) = (report.model.layers as u32, report.model.heads as u32);
    area.draw(&Text::new(format!("{}: mean entropy of each head, nats", report.model.name), (12, 12), text(16)))?;
    let most = report.heads.iter().map(|head| head.means.entropy).fold(f64::MIN_POSITIVE, f64::max);
    for head in &report.heads {
        let (x, y) = ((BESIDE + head.head as u32 * CELL) as i32, (ABOVE + head.layer as u32 * CELL) as i32);
        let share = head.means.entropy / most;
        let corner = (x + CELL as i32 - 2, y + CELL as i32 - 2);
        area.draw(&Rectangle::new([(x, y), corner], shade(share).filled()))?;
        let ink = if share > 0.5 { WHITE } else { BLACK };
        area.draw(&Text::new(format!("{:.2}", head.means.entropy), (x + 6, y + 13), text(13).color(&ink)))?;
    }
    for layer in 0..layers {
        area.draw(&Text::new(format!("layer {layer}"), (10, (ABOVE + layer * CELL + 13) as i32), text(13)))?;
    }
    for head in 0..heads {
        let at = ((BESIDE + head * CELL + 14) as i32, (ABOVE + layers * CELL + 6) as i32);
        area.draw(&Text::new(head.to_string(), at, text(13)))?;
    }
    Ok(())
}

fn similarities<B: DrawingBackend>(report: &Report, area: &Area<B>, top: u32) -> Drawn<B> {
    let alike = Alike::of(report);
    let rows = alike.names.len() as u32;
    if rows == 0 {
        return Ok(());
    }
    let edge = edge(rows);
    area.draw(&Text::new(alike.title, (12, top as i32 + 12), text(16)))?;
    let at = |i: usize| i as u32 * edge;
    for (row, similarities) in alike.rows.iter().enumerate() {
        for (column, similarity) in similarities.iter().enumerate() {
            let (x, y) = ((BESIDE + at(column)) as i32, (top + ABOVE + at(row)) as i32);
            let corner = (x + edge as i32 - 1, y + edge as i32 - 1);
            area.draw(&Rectangle::new([(x, y), corner], shade(*similarity).filled()))?;
        }
    }
    // As many names as there is room for.
    for (row, name) in alike.names.iter().enumerate().step_by(12u32.div_ceil(edge) as usize) {
        area.draw(&Text::new(name.clone(), (10, (top + ABOVE + at(row)) as i32 + (edge as i32 - 12) / 2), text(12)))?;
    }
    Ok(())
}

/// Units of a cell of a matrix of so many rows.
fn edge(rows: u32) -> u32 {
    (MATRIX / rows.max(1)).clamp(LEAST, MOST)
}

/// The similarities that are shown.
struct Alike {
    title: &'static str,
    names: Vec<String>,
    rows: Vec<Vec<f64>>,
}

impl Alike {
    fn of(report: &Report) -> Self {
        if report.heads.len() > HEADS {
            return Self::layers(report);
        }
        let mut order: Vec<usize> = (0..report.similarities.len()).collect();
        order.sort_by_key(|i| (report.heads[*i].cluster, *i));
        let row = |i: &usize| order.iter().map(|j| report.similarities[*i][*j]).collect();
        Alike {
            title: "How alike heads attend, 0 to 1, by cluster",
            names: order.iter().map(|i| format!("{}.{}", report.heads[*i].layer, report.heads[*i].head)).collect(),
            rows: order.iter().map(row).collect(),
        }
    }

    /// The mean over all pairs of a head of one layer and one of the other.
    fn layers(report: &Report) -> Self {
        let heads = report.model.heads;
        let mean = |a: usize, b: usize| {
            let pairs = (0..heads * heads).map(|i| report.similarities[a * heads + i / heads][b * heads + i % heads]);
            pairs.sum::<f64>() / (heads * heads) as f64
        };
        let layers = report.similarities.len() / heads.max(1);
        Alike {
            title: "How alike the heads of layers attend in the mean, 0 to 1",
            names: (0..layers).map(|layer| layer.to_string()).collect(),
            rows: (0..layers).map(|a| (0..layers).map(|b| mean(a, b)).collect()).collect(),
        }
    }
}

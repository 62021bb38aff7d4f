//! The tables as one picture: memory, rates and sharing side by side.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::lengths::DATASETS;
use super::share::WIDTHS;
use super::{Row, Saving};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (1080, 380);
/// Of the parts of memory, and of data sets.
const COLORS: [RGBColor; 4] =
    [RGBColor(0x2F, 0x6D, 0xB5), RGBColor(0x8F, 0xB8, 0xDE), RGBColor(0xE0, 0x9F, 0x3E), RGBColor(0xC9, 0xC9, 0xC9)];
const TOP: i32 = 70;
const FLOOR: i32 = 320;

/// One bar: its name, and its parts from the floor up, each with a colour.
struct Bar {
    name: String,
    parts: Vec<(f64, RGBColor)>,
}

pub(super) fn draw(rows: &[Row], savings: &[Saving]) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (memory, rest) = area.split_horizontally(380);
    let (rates, sharing) = rest.split_horizontally(300);

    let parts = |row: &Row| [row.slots.tokens, row.slots.later, row.slots.never, row.slots.between];
    let bars = rows.iter().map(|row| Bar { name: row.scheme.name().into(), parts: parts(row).into_iter().zip(COLORS).collect() });
    panel(&memory, "share of the cache", &["tokens", "for later", "never used", "between"], &bars.collect::<Vec<_>>(), 1.0)?;

    let per_set = |row: &Row| {
        row.rates.clone().into_iter().zip(COLORS).enumerate().map(|(i, part)| (i, row.scheme.name(), part)).collect::<Vec<_>>()
    };
    let bars = rows
        .iter()
        .flat_map(per_set)
        .map(|(i, name, part)| Bar { name: if i == 0 { name.into() } else { String::new() }, parts: vec![part] });
    let bars: Vec<Bar> = bars.collect();
    let most = rows.iter().flat_map(|row| &row.rates).fold(0.0f64, |most, rate| most.max(*rate));
    panel(&rates, "requests a second at equal latency", &DATASETS.map(|set| set.name), &bars, most)?;

    let mut bars = Vec::new();
    for saving in savings {
        for (width, share) in WIDTHS.iter().zip(&saving.shares) {
            let color = if saving.set.name == DATASETS[0].name { COLORS[0] } else { COLORS[1] };
            let name = if *width == WIDTHS[1] { format!("{}, 2 4 6", saving.what) } else { String::new() };
            bars.push(Bar { name, parts: vec![(*share, color)] });
        }
    }
    panel(&sharing, "share of pages saved", &DATASETS.map(|set| set.name), &bars, 1.0)?;
    area.present()?;
    drop((memory, rates, sharing, rest, area));
    Ok(svg)
}

/// Bars of heights up to `most`, with a legend of the colours' names.
fn panel(area: &Area<'_>, title: &str, legend: &[&str], bars: &[Bar], most: f64) -> Result<(), Box<dyn Error>> {
    let text = |size: i32, h| ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(h, VPos::Center));
    let width = area.dim_in_pixel().0 as i32 - 40;
    area.draw(&Text::new(title.to_owned(), (20, 20), text(16, HPos::Left)))?;
    let mut x = 20;
    for (name, color) in legend.iter().zip(COLORS) {
        area.draw(&Rectangle::new([(x, 40), (x + 10, 50)], color.filled()))?;
        area.draw(&Text::new((*name).to_owned(), (x + 15, 46), text(12, HPos::Left)))?;
        x += 30 + 7 * name.len() as i32;
    }
    let step = width / bars.len().max(1) as i32;
    for (bar, left) in bars.iter().zip((20..).step_by(step as usize)) {
        let mut below = 0.0;
        let y = |share: f64| FLOOR - (share / most * f64::from(FLOOR - TOP)).round() as i32;
        for (share, color) in &bar.parts {
            area.draw(&Rectangle::new([(left + 3, y(below + share)), (left + step - 3, y(below))], color.filled()))?;
            below += share;
        }
        let told = bar.parts[0].0;
        let told = if most > 1.0 { format!("{told:.1}") } else { format!("{:.0} %", 100.0 * told) };
        area.draw(&Text::new(told, (left + step / 2, y(bar.parts[0].0) - 8), text(11, HPos::Center)))?;
        for (line, y) in bar.name.split(", ").zip((FLOOR + 14..).step_by(14)) {
            area.draw(&Text::new(line.to_owned(), (left + step / 2, y), text(11, HPos::Center)))?;
        }
    }
    area.draw(&PathElement::new([(20, FLOOR), (20 + step * bars.len() as i32, FLOOR)], BLACK.stroke_width(1)))?;
    Ok(())
}

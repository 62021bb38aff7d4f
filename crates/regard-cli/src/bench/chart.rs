//! The ratios of a benchmark as an SVG.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// One case: the peer's time over regard's.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) low: f64,
    pub(super) median: f64,
    pub(super) high: f64,
}

const WIDTH: i32 = 880;
/// Where the axis begins and ends.
const AXIS: (i32, i32) = (230, 840);
const TOP: i32 = 64;
const ROW: i32 = 20;
const FASTER: RGBColor = RGBColor(0x2F, 0x6D, 0xB5);
const SLOWER: RGBColor = RGBColor(0xC8, 0x4B, 0x31);

/// Bars from 1, on a logarithmic axis, with the range of each: to the right where regard is faster.
pub(super) fn draw(title: &str, bars: &[Bar]) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let bottom = TOP + ROW * bars.len() as i32;
    let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, (bottom + 36) as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32, h, color: &RGBColor| ("sans-serif", size).into_font().color(color).pos(Pos::new(h, VPos::Center));
    area.draw(&Text::new(title.to_owned(), (16, 22), text(17, HPos::Left, &BLACK)))?;
    let ends = bars.iter().fold((0.5f64, 4f64), |(low, high), bar| (low.min(bar.low), high.max(bar.high)));
    let (first, last) = (ends.0.log2().floor() as i32, ends.1.log2().ceil() as i32);
    let x = |ratio: f64| {
        let part = (ratio.log2() - f64::from(first)) / f64::from(last - first);
        AXIS.0 + (part * f64::from(AXIS.1 - AXIS.0)).round() as i32
    };
    for power in first..=last {
        let (ratio, ink) = (f64::from(power).exp2(), if power == 0 { BLACK.mix(0.8) } else { BLACK.mix(0.15) });
        area.draw(&PathElement::new([(x(ratio), TOP - 4), (x(ratio), bottom + 4)], ink))?;
        for y in [TOP - 14, bottom + 16] {
            area.draw(&Text::new(format!("{ratio}×"), (x(ratio), y), text(13, HPos::Center, &BLACK)))?;
        }
    }
    for (bar, y) in bars.iter().zip((TOP..).step_by(ROW as usize)) {
        let middle = y + ROW / 2;
        let color = if bar.median < 1.0 { SLOWER } else { FASTER };
        let (from, to) = (x(bar.median.min(1.0)), x(bar.median.max(1.0)));
        area.draw(&Text::new(bar.name.clone(), (AXIS.0 - 26, middle), text(13, HPos::Right, &BLACK)))?;
        area.draw(&Rectangle::new([(from, y + 4), (to, y + ROW - 4)], color.mix(0.75).filled()))?;
        let range = [(x(bar.low), middle), (x(bar.high), middle)];
        area.draw(&PathElement::new(range, BLACK.stroke_width(1)))?;
        for (end, _) in range {
            area.draw(&PathElement::new([(end, middle - 4), (end, middle + 4)], BLACK.stroke_width(1)))?;
        }
        let label = (x(bar.high.max(1.0)) + 6, middle);
        area.draw(&Text::new(format!("{:.2}", bar.median), label, text(12, HPos::Left, &BLACK)))?;
    }
    area.present()?;
    drop(area);
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_bar_is_a_larger_ratio() {
        let bar = |name: &str, median: f64| Bar { name: name.into(), low: 0.9 * median, median, high: 1.1 * median };
        let svg = draw("title", &[bar("half", 0.5), bar("double", 2.0), bar("fourfold", 4.0)]).unwrap();
        let widths: Vec<i32> = (svg.split("<rect").skip(2))
            .map(|rect| rect.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 3);
        assert!(widths[1].abs_diff(widths[0]) <= 2 && widths[2].abs_diff(2 * widths[1]) <= 2, "{widths:?}");
    }
}

//! Entropy by layer and head as an SVG.

use plotters::prelude::*;

use crate::{Error, Report, Result};

/// Pixels of a cell, and around them all.
const CELL: u32 = 40;
const BESIDE: u32 = 64;
const ABOVE: u32 = 48;

impl Report {
    /// A picture of the mean entropy of every head, layers from top to bottom: light where a head reads few tokens, dark where many.
    ///
    /// # Errors
    /// When the chart library fails.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| Error::Chart { reason: error.to_string() })?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let (layers, heads) = (self.model.layers as u32, self.model.heads as u32);
        let size = ((heads * CELL + BESIDE + 16).max(420), layers * CELL + ABOVE + 40);
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        let text = |size: u32| ("sans-serif", size).into_font();
        area.draw(&Text::new(format!("{}: mean entropy of each head, nats", self.model.name), (12, 12), text(16)))?;
        let most = self.heads.iter().map(|head| head.means.entropy).fold(f64::MIN_POSITIVE, f64::max);
        for head in &self.heads {
            let (x, y) = ((BESIDE + head.head as u32 * CELL) as i32, (ABOVE + head.layer as u32 * CELL) as i32);
            let share = (head.means.entropy / most).clamp(0.0, 1.0);
            let mix = |light: f64, dark: f64| (light + share * (dark - light)).round() as u8;
            let colour = RGBColor(mix(247.0, 8.0), mix(251.0, 48.0), mix(255.0, 107.0));
            let corner = (x + CELL as i32 - 2, y + CELL as i32 - 2);
            area.draw(&Rectangle::new([(x, y), corner], colour.filled()))?;
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
        area.present()?;
        Ok(())
    }
}

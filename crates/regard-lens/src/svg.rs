//! The picture of a report as an SVG.

use plotters::prelude::*;

use crate::picture::{draw, size};
use crate::{Error, Report, Result};

impl Report {
    /// A picture of the mean entropy of every head, layers from top to bottom: light where a head reads few tokens, dark where many; and of the
    /// similarity of any two heads, or, of more than 128, of layers.
    ///
    /// # Errors
    /// When the chart library fails.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, size(self)).into_drawing_area();
        draw(self, &area).map_err(|error| Error::Chart { reason: error.to_string() })?;
        drop(area);
        Ok(svg)
    }
}

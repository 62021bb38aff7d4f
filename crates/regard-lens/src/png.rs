//! The picture of a report as a PNG, drawn without a font or anything else of the system.

use std::convert::Infallible;

use plotters::prelude::*;
use plotters_backend::text_anchor::HPos;
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingErrorKind};

use crate::glyphs::{ACROSS, DOWN, glyph};
use crate::picture::{draw, size};
use crate::{Error, Report, Result};

/// Units of a picture that still has two pixels to a unit.
const MOST: u32 = 4 << 20;

impl Report {
    /// The picture of [`Report::svg`] as the bytes of a PNG, with two pixels to a unit, or one in a very large picture.
    ///
    /// # Errors
    /// When the library that writes it fails.
    pub fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = size(self);
        let scale = if width * height <= MOST { 2 } else { 1 };
        let mut pixels = vec![0; (3 * width * scale * height * scale) as usize];
        let canvas = Canvas { size: (width, height), scale, pixels: &mut pixels };
        draw(self, &canvas.into_drawing_area()).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width * scale, height * scale);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }
}

fn failed(error: impl std::error::Error) -> Error {
    Error::Chart { reason: error.to_string() }
}

/// Pixels of red, green and blue, row-major, as plotters draws on them.
struct Canvas<'a> {
    /// Units.
    size: (u32, u32),
    /// Pixels on the edge of a unit.
    scale: u32,
    pixels: &'a mut [u8],
}

type Drawn = std::result::Result<(), DrawingErrorKind<Infallible>>;

impl Canvas<'_> {
    /// Fills a square of pixels, what is of it in the picture.
    fn square(&mut self, (left, top): (i32, i32), edge: u32, colour: BackendColor) {
        let [width, height] = [self.size.0, self.size.1].map(|units| (units * self.scale) as i32);
        let within = |from: i32, size: i32| from.max(0)..(from + edge as i32).min(size);
        for y in within(top, height) {
            for x in within(left, width) {
                let at = 3 * (y * width + x) as usize;
                let (r, g, b) = colour.rgb;
                for (to, from) in self.pixels[at..at + 3].iter_mut().zip([r, g, b]) {
                    *to = (f64::from(*to) + colour.alpha * (f64::from(from) - f64::from(*to))).round() as u8;
                }
            }
        }
    }

    /// Pixels on the edge of a dot of a letter: capitals are 7 dots high.
    fn dot(&self, size: f64) -> u32 {
        ((size * f64::from(self.scale) / 9.0) as u32).max(1)
    }
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, colour: BackendColor) -> Drawn {
        let scale = self.scale as i32;
        self.square((x * scale, y * scale), self.scale, colour);
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Drawn {
        let (dot, scale) = (self.dot(style.size()) as i32, self.scale as i32);
        let width = text.chars().count() as i32 * ACROSS as i32 * dot;
        let left = x * scale
            - match style.anchor().h_pos {
                HPos::Left => 0,
                HPos::Center => width / 2,
                HPos::Right => width,
            };
        for (i, letter) in text.chars().enumerate() {
            for (column, dots) in glyph(letter).into_iter().enumerate() {
                for row in (0..8).filter(|row| dots >> row & 1 == 1) {
                    let at = (left + (i * ACROSS + column) as i32 * dot, (y + 1) * scale + row * dot);
                    self.square(at, dot as u32, style.color());
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> std::result::Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let dot = self.dot(style.size());
        Ok((text.chars().count() as u32 * ACROSS as u32 * dot / self.scale, DOWN as u32 * dot / self.scale))
    }
}

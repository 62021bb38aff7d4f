//! Angles of positions, and turning a head by them.

use regard_core::{Error, Result};

use super::RopeStyle;

/// Cosines and sines of the angles of consecutive positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Angles {
    /// `[positions, pairs]`, each.
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
    style: RopeStyle,
}

impl Angles {
    /// Angles whose cosines and sines `[positions, pairs]` were made elsewhere.
    ///
    /// # Errors
    /// When they differ in number, or are not a multiple of `pairs`.
    pub fn new(cos: Vec<f32>, sin: Vec<f32>, pairs: usize, style: RopeStyle) -> Result<Self> {
        let whole = cos.len().checked_next_multiple_of(pairs.max(1)).unwrap_or(usize::MAX);
        for (what, given) in [("cosines of a rotary embedding", cos.len()), ("sines of a rotary embedding", sin.len())] {
            if given != whole {
                return Err(Error::Size { what, dim: "elements", given, needed: whole, why: "one for each position and pair" });
            }
        }
        Ok(Self { cos, sin, pairs, style })
    }

    /// Positions that have angles.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.pairs).unwrap_or(0)
    }

    /// Turns one head, `x` to `y`, by the angles of the `position`-th position.
    ///
    /// # Panics
    /// When there is no such position, or a head has fewer elements than turn.
    #[inline(always)]
    pub fn turn(&self, position: usize, x: &[f32], y: &mut [f32]) {
        self.turn_by(1.0, position, x, y);
    }

    /// Turns one head by the opposite angles.
    ///
    /// # Panics
    /// As [`Angles::turn`].
    #[inline(always)]
    pub fn turn_back(&self, position: usize, x: &[f32], y: &mut [f32]) {
        self.turn_by(-1.0, position, x, y);
    }

    #[inline(always)]
    fn turn_by(&self, sign: f32, position: usize, x: &[f32], y: &mut [f32]) {
        let half = self.pairs;
        let (cos, sin) = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        let ((x, rest), (y, rest_of_y)) = (x.split_at(2 * half), y.split_at_mut(2 * half));
        rest_of_y.copy_from_slice(rest);
        match self.style {
            RopeStyle::HalfSplit => {
                let ((a, b), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
                for i in 0..half {
                    let s = sign * sin[i];
                    (ya[i], yb[i]) = (a[i] * cos[i] - b[i] * s, b[i] * cos[i] + a[i] * s);
                }
            }
            RopeStyle::Interleaved => {
                for i in 0..half {
                    let (a, b, s) = (x[2 * i], x[2 * i + 1], sign * sin[i]);
                    (y[2 * i], y[2 * i + 1]) = (a * cos[i] - b * s, b * cos[i] + a * s);
                }
            }
        }
    }
}

//! Rotary positions: pairs of elements of queries and keys, turned by angles that grow with the position.

mod scaling;

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{Element, Error, Result, Tensor, View};

pub use scaling::RopeScaling;

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `i` with element `i + dim/2`: Llama as Hugging Face stores it, GPT-NeoX.
    HalfSplit,
    /// Element `2i` with element `2i + 1`: the original formulation, GPT-J.
    Interleaved,
}

/// Rotary position embedding: pair `i` of a head turns by `position · frequency_i`.
///
/// ```text
///   frequency_i = θ^(−2i/dim)                                   i < dim/2, in radians per position
///   (a, b) ↦ f · (a·cos − b·sin, b·cos + a·sin)                 f = 1, but for YaRN and LongRoPE
/// ```
/// `dim` may be less than the head (partial rotary): the elements after it stay as they are. A score of turned queries and keys
/// depends on the distance of their positions only. Use it before attention, on queries and keys alike, and on keys before they
/// enter a cache.
///
/// ```
/// use regard::{Rope, RopeStyle, View};
///
/// let data: Vec<f32> = (0..2 * 5 * 8).map(|i| (i as f32).sin()).collect();
/// let q = View::new(&data, [1, 2, 5, 8])?; // two heads, five positions
/// let rope = Rope::new(8, 10_000.0, RopeStyle::HalfSplit)?;
/// let turned = rope.turn(q, 100)?; // the first position is 100
/// let back = rope.turn_back(turned.view(), 100)?; // also the gradient of q from that of `turned`
/// assert!(back.data().iter().zip(&data).all(|(a, b)| (a - b).abs() < 1e-6));
/// # Ok::<(), regard::Error>(())
/// ```
///
/// Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", §3.2 and §3.4.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    frequencies: Vec<f64>,
    attention_factor: f64,
    style: RopeStyle,
}

impl Rope {
    /// An embedding that turns the first `dim` elements of each head, with base `theta`.
    ///
    /// # Errors
    /// When `dim` is zero or odd, or `theta` is not a positive number.
    pub fn new(dim: usize, theta: f64, style: RopeStyle) -> Result<Self> {
        if dim == 0 || !dim.is_multiple_of(2) {
            let what = "head dimension of a rotary embedding";
            return Err(Error::Value { what, given: dim as f64, needed: "even and positive" });
        }
        positive("base of a rotary embedding", theta)?;
        Ok(Self { frequencies: powers(dim, theta), attention_factor: 1.0, style })
    }

    /// As [`Rope::new`], with frequencies that reach further than the model was trained for. `length` is that of the longest text
    /// to come, which decides for [`RopeScaling::Dynamic`] and [`RopeScaling::LongRope`]: keys in a cache must all be turned alike.
    ///
    /// # Errors
    /// As [`Rope::new`], and when a number of the scaling is outside its domain.
    pub fn scaled(dim: usize, theta: f64, style: RopeStyle, scaling: &RopeScaling, length: usize) -> Result<Self> {
        let plain = Self::new(dim, theta, style)?;
        let (frequencies, attention_factor) = scaling.apply(&plain.frequencies, theta, length)?;
        if let Some(&given) = frequencies.iter().find(|x| !x.is_finite()) {
            return Err(Error::Value { what: "a scaled rotary frequency", given, needed: "finite" });
        }
        Ok(Self { frequencies, attention_factor, style })
    }

    /// Elements of a head that turn.
    pub fn dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Radians per position, `[dim/2]`.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// What cosines and sines are multiplied by, so that scores are by its square.
    pub fn attention_factor(&self) -> f64 {
        self.attention_factor
    }

    /// The angles of some positions, reduced in f64: exact to an ulp of f32 at any position.
    ///
    /// # Errors
    /// When a position is 2⁵³ or more, where f64 no longer counts.
    pub fn angles(&self, positions: Range<usize>) -> Result<Angles> {
        if positions.end >= 1 << 53 {
            return Err(Error::Value { what: "a position", given: positions.end as f64, needed: "below 2^53" });
        }
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push((self.attention_factor * c) as f32);
                sin.push((self.attention_factor * s) as f32);
            }
        }
        Ok(Angles { cos, sin, pairs: self.frequencies.len(), style: self.style })
    }

    /// Turns `x [batch, heads, length, head_dim]`, whose first position is `first`.
    ///
    /// # Errors
    /// When a head has fewer elements than turn, or a position is 2⁵³ or more.
    pub fn turn<T: Element>(&self, x: View<'_, T>, first: usize) -> Result<Tensor<T>> {
        self.each(x, first, Angles::turn)
    }

    /// The gradient of `x` from that of [`Rope::turn`]: turned by the opposite angles.
    ///
    /// # Errors
    /// As [`Rope::turn`].
    pub fn turn_back<T: Element>(&self, dx: View<'_, T>, first: usize) -> Result<Tensor<T>> {
        self.each(dx, first, Angles::turn_back)
    }

    fn each<T: Element>(&self, x: View<'_, T>, first: usize, turn: fn(&Angles, usize, &[f32], &mut [f32])) -> Result<Tensor<T>> {
        let [_, heads, length, head_dim] = x.shape();
        if self.dim() > head_dim {
            let (given, why) = (self.dim(), "the size of a head, or fewer");
            return Err(Error::Size { what: "rotary embedding", dim: "elements", given, needed: head_dim, why });
        }
        let angles = self.angles(first..first.saturating_add(length))?;
        let mut turned = Tensor::zeros(x.shape())?;
        turned.data_mut().par_chunks_mut((length * head_dim).max(1)).enumerate().for_each(|(i, to)| {
            let (mut from, mut row) = (vec![0.0; head_dim], vec![0.0; head_dim]);
            for (l, to) in to.chunks_exact_mut(head_dim).enumerate() {
                x.row_into(i / heads, i % heads, l, &mut from);
                turn(&angles, l, &from, &mut row);
                T::narrow(&row, to);
            }
        });
        Ok(turned)
    }
}

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

/// Sinusoidal positions, `[1, 1, positions, dim]`, to be added to embeddings of `dim` elements: no parameters, any length.
///
/// ```text
///   y[position, 2i] = sin(position / 10000^(2i/dim))        y[position, 2i + 1] = cos(position / 10000^(2i/dim))
/// ```
/// That is [`RopeStyle::Interleaved`]; with [`RopeStyle::HalfSplit`] the sines come first, then the cosines, as in Marian.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", §3.5.
///
/// # Errors
/// When `dim` is zero or odd, or a position is 2⁵³ or more.
pub fn sinusoidal(positions: Range<usize>, dim: usize, style: RopeStyle) -> Result<Tensor<f32>> {
    let angles = Rope::new(dim, 10_000.0, style)?.angles(positions.clone())?;
    let mut table = Tensor::zeros([1, 1, positions.len(), dim])?;
    // The pair (0, 1) turned by an angle is (−sin, cos).
    let pair: Vec<f32> =
        (0..dim).map(|i| f32::from(if style == RopeStyle::HalfSplit { i >= dim / 2 } else { i % 2 == 1 })).collect();
    table.data_mut().chunks_exact_mut(dim).enumerate().for_each(|(l, row)| angles.turn_back(l, &pair, row));
    Ok(table)
}

/// `θ^(−2i/dim)` for `i < dim/2`.
fn powers(dim: usize, theta: f64) -> Vec<f64> {
    (0..dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim as f64)).collect()
}

fn positive(what: &'static str, given: f64) -> Result<()> {
    if given.is_finite() && given > 0.0 { Ok(()) } else { Err(Error::Value { what, given, needed: "a positive number" }) }
}

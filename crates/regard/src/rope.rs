//! Rotary positions: pairs of elements of queries and keys, turned by angles that grow with the position.

mod angles;
mod scaling;

use rayon::prelude::*;
use regard_core::{Element, Error, Result, Tensor, View};

pub use angles::Angles;
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
    /// When `dim` is zero, odd or above 2²⁰, or `theta` is not a positive number.
    pub fn new(dim: usize, theta: f64, style: RopeStyle) -> Result<Self> {
        if dim == 0 || !dim.is_multiple_of(2) || dim > 1 << 20 {
            let what = "head dimension of a rotary embedding";
            return Err(Error::Value { what, given: dim as f64, needed: "even, positive and at most 2^20" });
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
    /// When a position is 2⁵³ or more, where f64 no longer counts, or there is no memory for so many.
    pub fn angles(&self, positions: impl IntoIterator<Item = usize, IntoIter: ExactSizeIterator>) -> Result<Angles> {
        let (mut cos, mut sin, pairs) = (Vec::new(), Vec::new(), self.frequencies.len());
        let positions = positions.into_iter();
        let all = positions.len().saturating_mul(pairs);
        if cos.try_reserve_exact(all).and_then(|()| sin.try_reserve_exact(all)).is_err() {
            let what = "angles of a rotary embedding";
            return Err(Error::TooLarge { what, shape: vec![positions.len(), pairs] });
        }
        for position in positions {
            if position >= 1 << 53 {
                return Err(Error::Value { what: "a position", given: position as f64, needed: "below 2^53" });
            }
            for frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push((self.attention_factor * c) as f32);
                sin.push((self.attention_factor * s) as f32);
            }
        }
        Angles::new(cos, sin, pairs, self.style)
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
        let angles = self.angles((0..length).map(|i| first.saturating_add(i)))?;
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

/// `θ^(−2i/dim)` for `i < dim/2`.
fn powers(dim: usize, theta: f64) -> Vec<f64> {
    (0..dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim as f64)).collect()
}

fn positive(what: &'static str, given: f64) -> Result<()> {
    if given.is_finite() && given > 0.0 { Ok(()) } else { Err(Error::Value { what, given, needed: "a positive number" }) }
}

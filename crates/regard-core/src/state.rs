//! A partial softmax: what one query knows after seeing some of its keys.

use crate::{Error, Result};

/// The softmax of one query over a part of its keys: `max`, `sum = Σ exp(s − max)` and `out = Σ exp(s − max)·v / sum`.
///
/// [`State::merge`] joins two parts as if they had been one, so a long row can be split over threads, prefixes or machines.
/// It is associative and commutative up to rounding; merged in the same order it gives the same bits.
///
/// Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax", §3.1; Dao et al. 2022, "FlashAttention", §3.1.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The largest score seen, or −∞.
    pub max: f32,
    /// `Σ exp(s − max)`; 0 before the first key.
    pub sum: f32,
    /// The mean of the values seen, weighted by `exp(s)`; zeros before the first key.
    pub out: Vec<f32>,
}

impl State {
    /// Nothing seen yet.
    pub fn empty(value_dim: usize) -> Self {
        State { max: f32::NEG_INFINITY, sum: 0.0, out: vec![0.0; value_dim] }
    }

    /// The state of a finished row: its output and its log-sum-exp.
    pub fn of_row(out: Vec<f32>, lse: f32) -> Self {
        State { max: lse, sum: if lse == f32::NEG_INFINITY { 0.0 } else { 1.0 }, out }
    }

    /// The natural log of the softmax denominator, −∞ when nothing was seen.
    pub fn lse(&self) -> f32 {
        if self.sum == 0.0 { f32::NEG_INFINITY } else { self.max + self.sum.ln() }
    }

    /// Adds what another state saw.
    ///
    /// # Errors
    /// When the two have values of different dimension.
    pub fn merge(&mut self, other: &State) -> Result<()> {
        let (given, needed) = (other.out.len(), self.out.len());
        crate::shape::same("state", "elements in its output", given, needed, "as the state it joins has")?;
        if other.sum == 0.0 {
            return Ok(());
        }
        let max = self.max.max(other.max);
        let (mine, theirs) = (weight(self, max), weight(other, max));
        let sum = mine + theirs;
        for (o, p) in self.out.iter_mut().zip(&other.out) {
            *o = (*o * mine + p * theirs) / sum;
        }
        (self.max, self.sum) = (max, sum);
        Ok(())
    }

    /// Merges states from first to last.
    ///
    /// # Errors
    /// When there are none, or they have values of different dimension.
    pub fn merge_all<'a>(states: impl IntoIterator<Item = &'a State>) -> Result<State> {
        let mut states = states.into_iter();
        let none = Error::Size { what: "states", dim: "entries", given: 0, needed: 1, why: "or more" };
        let mut all = states.next().ok_or(none)?.clone();
        for state in states {
            all.merge(state)?;
        }
        Ok(all)
    }
}

/// `Σ exp(s − max)` of a state under another maximum.
fn weight(state: &State, max: f32) -> f32 {
    if state.sum == 0.0 { 0.0 } else { state.sum * (state.max - max).exp() }
}

//! Alignments that are products of vectors, after what brings them together: nothing, a matrix, or their directions.

use candle_core::{D, Tensor};

use super::{Alignment, Match};
use crate::array::slice;
use crate::{Error, Linear, Result};

/// `scale·(s·h)`.
///
/// Source: Luong et al. 2015, §3.1 (scale 1).
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// What the products are multiplied by: 1 in Luong's, 1/√n in Vaswani's.
    pub scale: f32,
}

impl Alignment for Dot {
    fn compare(&self, queries: &Tensor, keys: &Tensor) -> Result<Match> {
        Ok(Match::Products { queries: queries.clone(), keys: keys.clone(), scale: self.scale })
    }
}

/// `s·W h`.
///
/// Source: Luong et al. 2015, §3.1.
#[derive(Clone, Debug)]
pub struct General {
    key: Linear,
}

impl General {
    /// From `W [n, m]`, for queries of `n` and keys of `m` elements.
    ///
    /// # Errors
    /// When the weight is no matrix.
    pub fn new(weight: Tensor) -> Result<Self> {
        Ok(Self { key: Linear::new(weight, None)? })
    }
}

impl Alignment for General {
    fn compare(&self, queries: &Tensor, keys: &Tensor) -> Result<Match> {
        Ok(Match::Products { queries: queries.clone(), keys: self.key.forward(keys)?, scale: 1.0 })
    }
}

/// `β·cos(s, h)`, the cosine of a vector of zeros being 0.
///
/// Source: Graves et al. 2014, "Neural Turing Machines", §3.3.1, equations 5 and 6.
#[derive(Clone, Debug)]
pub struct Cosine {
    /// β: `[batch, q_len]`, or sizes of 1 that repeat.
    strength: Tensor,
}

impl Cosine {
    /// From the key strength β, `[batch, q_len]` or sizes of 1 that repeat: how sharply the best match stands out.
    ///
    /// # Errors
    /// When it is not a matrix of numbers of at least 0.
    pub fn new(strength: Tensor) -> Result<Self> {
        let needed = "at least 0 and finite";
        strength.dims2()?;
        match slice(&strength.contiguous()?)?.iter().find(|b| !(b.is_finite() && **b >= 0.0)) {
            Some(&given) => Err(Error::Value { what: "strength of cosine alignment", given: given.into(), needed }),
            None => Ok(Self { strength }),
        }
    }
}

/// x/|x| of each row; the least number keeps a row of zeros as it is.
fn directions(x: &Tensor) -> Result<Tensor> {
    let lengths = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&lengths)?)
}

impl Alignment for Cosine {
    fn compare(&self, queries: &Tensor, keys: &Tensor) -> Result<Match> {
        let queries = directions(queries)?.broadcast_mul(&self.strength.unsqueeze(2)?)?;
        Ok(Match::Products { queries, keys: directions(keys)?, scale: 1.0 })
    }
}

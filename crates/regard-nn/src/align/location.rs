//! Location-based alignment: the query alone says where to look.

use candle_core::Tensor;

use super::{Alignment, Match};
use crate::array::expect;
use crate::{Error, Linear, Result};

/// `(W s)_j`: the query says where to look, and the key does not matter.
///
/// Source: Luong et al. 2015, §3.1, equation 8.
#[derive(Clone, Debug)]
pub struct Location {
    place: Linear,
}

impl Location {
    /// From `W [greatest kv_len, n]`.
    ///
    /// # Errors
    /// When the weight is no matrix.
    pub fn new(weight: Tensor) -> Result<Self> {
        Ok(Self { place: Linear::new(weight, None)? })
    }
}

impl Alignment for Location {
    /// For texts shorter than the greatest length, the first scores.
    fn compare(&self, queries: &Tensor, keys: &Tensor) -> Result<Match> {
        let (batch, kv_len, width) = keys.dims3()?;
        expect("keys of alignment", keys, &[queries.dims3()?.0, kv_len, width])?;
        if kv_len > self.place.out_dim() {
            let needed = format!("at most {} keys, for which it has scores", self.place.out_dim());
            return Err(Error::Shape { what: "keys of location-based alignment", given: vec![batch, kv_len, width], needed });
        }
        Ok(Match::Scores(self.place.forward(queries)?.narrow(2, 0, kv_len)?))
    }
}

//! Additive alignment: a network of one hidden layer looks at every pair.

use candle_core::Tensor;

use super::{Alignment, Match};
use crate::array::expect;
use crate::ops::additive;
use crate::tape::lift;
use crate::{Error, Linear, Result};

/// `v·tanh(W s + U h)`.
///
/// Source: Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix A.1.2.
#[derive(Clone, Debug)]
pub struct Additive {
    query: Linear,
    key: Linear,
    v: Tensor,
}

impl Additive {
    /// From `W [hidden, n]`, `U [hidden, m]` and `v [hidden]`.
    ///
    /// # Errors
    /// When the sizes do not fit together.
    pub fn new(query: Linear, key: Linear, v: Tensor) -> Result<Self> {
        if key.out_dim() != query.out_dim() {
            let needed = format!("{}, as that of the queries has", query.out_dim());
            return Err(Error::Shape { what: "outputs of the projection of keys", given: vec![key.out_dim()], needed });
        }
        expect("weight of additive scores", &v, &[query.out_dim()])?;
        Ok(Self { query, key, v })
    }

    /// `v·tanh(W [s; h])` from `W [hidden, n + m]` for queries of `n` elements, and `v [hidden]`: W falls into two parts.
    ///
    /// Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", §3.1.
    ///
    /// # Errors
    /// When the sizes do not fit together.
    pub fn concat(weight: &Tensor, v: Tensor, n: usize) -> Result<Self> {
        match *weight.dims() {
            [_, both] if n < both => {
                let part = |start, length| Linear::new(weight.narrow(1, start, length)?, None);
                Self::new(part(0, n)?, part(n, both - n)?, v)
            }
            _ => {
                let needed = format!("[hidden, {n} + elements of a key]");
                Err(Error::Shape { what: "weight of concat scores", given: weight.dims().to_vec(), needed })
            }
        }
    }
}

impl Alignment for Additive {
    fn compare(&self, queries: &Tensor, keys: &Tensor) -> Result<Match> {
        let (a, b) = (self.query.forward(queries)?, self.key.forward(keys)?);
        Ok(Match::Scores(lift(&[&a, &b, &self.v], |tape, x| additive(tape, &x[0], &x[1], &x[2]))?))
    }
}

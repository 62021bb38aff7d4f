//! Alignment functions: how well a query and a key match, and the context that follows.
//!
//! ```text
//!   e_ij = score(s_i, h_j)      α_i = softmax(e_i) over the keys seen      c_i = Σ_j α_ij·v_j
//! ```
//!
//! | function | score(s, h) | source | when |
//! |---|---|---|---|
//! | [`Additive`] | v·tanh(W s + U h) | Bahdanau et al. 2015, appendix A.1.2 | small models, queries and keys of different widths |
//! | [`Additive::concat`] | v·tanh(W [s; h]) | Luong et al. 2015, §3.1 | the same function, with one matrix |
//! | [`Dot`] | s·h, or s·h/√n | Luong et al. 2015, §3.1; Vaswani et al. 2017, §3.2.1 | queries and keys already live in one space |
//! | [`General`] | s·W h | Luong et al. 2015, §3.1 | they do not, and one matrix can bring them together |
//! | [`Location`] | (W s)_j | Luong et al. 2015, §3.1, equation 8 | the place alone decides, up to a greatest length |
//! | [`Cosine`] | β·cos(s, h) | Graves et al. 2014, "Neural Turing Machines", §3.3.1 | looking up by content, whatever the lengths of vectors |
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use regard::Padding;
//! use regard_nn::Linear;
//! use regard_nn::align::{Additive, Alignment};
//!
//! let random = |shape: &[usize]| Tensor::randn(0f32, 0.3, shape, &Device::Cpu);
//! let bahdanau = Additive::new(Linear::new(random(&[16, 8])?, None)?, Linear::new(random(&[16, 12])?, None)?, random(&[16])?)?;
//! let (states, annotations) = (random(&[2, 3, 8])?, random(&[2, 7, 12])?);
//! let lengths = Padding::new([7, 4]); // the second text has 4 tokens
//! let context = bahdanau.context(&states, &annotations, &annotations, lengths.clone())?;
//! let weights = bahdanau.weights(&states, &annotations, &lengths)?;
//! assert_eq!((context.dims(), weights.dims()), (&[2, 3, 12][..], &[2, 3, 7][..]));
//! # Ok::<(), regard_nn::Error>(())
//! ```

mod additive;
mod location;
mod products;

pub use additive::Additive;
pub use location::Location;
pub use products::{Cosine, Dot, General};

use candle_core::{DType, Tensor};
use regard::Mask;

use crate::Result;
use crate::array::expect;
use crate::ops::{AttentionSpec, Rule, attend_biased, softmax};
use crate::tape::{Value, lift};

/// What a function makes of queries `[batch, q_len, n]` and keys `[batch, kv_len, m]`.
#[derive(Clone, Debug)]
pub enum Match {
    /// Scores are `scale·q·k` of these rows, `[batch, q_len, d]` and `[batch, kv_len, d]`: never in memory, unless asked for.
    Products {
        /// The queries, after any projection.
        queries: Tensor,
        /// The keys, after any projection.
        keys: Tensor,
        /// What the products are multiplied by.
        scale: f32,
    },
    /// Scores of their own, `[batch, q_len, kv_len]`.
    Scores(Tensor),
}

/// A function that scores queries against keys. Everything is differentiable, in the inputs and in the function's own weights.
pub trait Alignment {
    /// `queries [batch, q_len, n]` against `keys [batch, kv_len, m]`: the definition; the rest follows.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    fn compare(&self, queries: &Tensor, keys: &Tensor) -> Result<Match>;

    /// The scores `[batch, q_len, kv_len]`, without a mask.
    ///
    /// # Errors
    /// As [`Alignment::compare`].
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        match self.compare(queries, keys)? {
            Match::Products { queries, keys, scale } => {
                let ((batch, _, dim), (_, kv_len, _)) = (queries.dims3()?, keys.dims3()?);
                expect("keys of alignment", &keys, &[batch, kv_len, dim])?;
                Ok((queries.matmul(&keys.t()?)? * f64::from(scale))?)
            }
            Match::Scores(scores) => Ok(scores),
        }
    }

    /// The weights `[batch, q_len, kv_len]`: rows sum to 1; a row that sees nothing is 0. The mask is asked for head 0.
    ///
    /// # Errors
    /// As [`Alignment::compare`], or when the mask is for another shape.
    fn weights<M: Mask>(&self, queries: &Tensor, keys: &Tensor, mask: &M) -> Result<Tensor> {
        let scores = self.scores(queries, keys)?.unsqueeze(1)?;
        Ok(lift(&[&scores], |tape, x| softmax(tape, &x[0], mask))?.squeeze(1)?)
    }

    /// The context `[batch, q_len, value_dim]` of `values [batch, kv_len, value_dim]`: the mean under the weights. What the mask
    /// hides is never observed.
    ///
    /// # Errors
    /// As [`Alignment::weights`], or when the values do not fit the keys.
    fn context<M>(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, mask: M) -> Result<Tensor>
    where
        M: Mask + Clone + Send + 'static,
    {
        match self.compare(queries, keys)? {
            Match::Products { queries, keys, scale } => fused([&queries, &keys, values], None, scale, mask),
            Match::Scores(scores) => {
                // Fused attention in which q·k is 0 and the scores are the bias.
                let (batch, q_len, kv_len) = scores.dims3()?;
                let zeros = |length: usize| Tensor::zeros((batch, length, 1), DType::F32, scores.device());
                fused([&zeros(q_len)?, &zeros(kv_len)?, values], Some(&scores.unsqueeze(1)?), 1.0, mask)
            }
        }
    }
}

/// Fused attention with one head: queries and keys `[batch, length, n]`, values `[batch, kv_len, value_dim]`, bias
/// `[batch, 1, q_len, kv_len]`.
fn fused<M>([queries, keys, values]: [&Tensor; 3], bias: Option<&Tensor>, scale: f32, mask: M) -> Result<Tensor>
where
    M: Mask + Clone + Send + 'static,
{
    let ((batch, q_len, dim), (_, kv_len, _), (_, _, value_dim)) = (queries.dims3()?, keys.dims3()?, values.dims3()?);
    expect("keys of alignment", keys, &[batch, kv_len, dim])?;
    expect("values of alignment", values, &[batch, kv_len, value_dim])?;
    let rule = Rule { mask, dropout: None, scale: Some(scale) };
    let spec = AttentionSpec { batch, heads: 1, kv_heads: 1, dim, rule, angles: None };
    let inputs: Vec<&Tensor> = [queries, keys, values].into_iter().chain(bias).collect();
    lift(&inputs, |tape, x| {
        let rows = |x: &Value, length: usize, n: usize| x.reshape(&[batch * length, n]);
        let (q, k, v) = (rows(&x[0], q_len, dim)?, rows(&x[1], kv_len, dim)?, rows(&x[2], kv_len, value_dim)?);
        attend_biased(tape, [&q, &k, &v], x.get(3), spec)?.reshape(&[batch, q_len, value_dim])
    })
}

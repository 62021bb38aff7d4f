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

use candle_core::{D, DType, Tensor};
use regard::Mask;

use crate::array::{expect, slice};
use crate::ops::{AttentionSpec, Rule, additive, attend_biased, softmax};
use crate::tape::{Value, lift};
use crate::{Error, Linear, Result};

/// A function that scores queries against keys. Everything is differentiable, in the inputs and in the function's own weights.
pub trait Alignment {
    /// `queries [batch, q_len, n]`, `keys [batch, kv_len, m]` → `[batch, q_len, kv_len]`, without a mask.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor>;

    /// The weights `[batch, q_len, kv_len]`: rows sum to 1; a row that sees nothing is 0. Of a mask's heads there is one, head 0.
    ///
    /// # Errors
    /// As [`Alignment::scores`], or when the mask is for another shape.
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
        // Fused attention in which q·k is 0 and the scores are the bias.
        let scores = self.scores(queries, keys)?.unsqueeze(1)?;
        let ((batch, q_len, _), kv_len) = (queries.dims3()?, keys.dim(1)?);
        let zeros = |length: usize| Tensor::zeros((batch, length, 1), DType::F32, queries.device());
        fused([&zeros(q_len)?, &zeros(kv_len)?, values], Some(&scores), 1.0, mask)
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

/// scale·Q·Kᵀ of each sequence.
fn products(queries: &Tensor, keys: &Tensor, scale: f32) -> Result<Tensor> {
    let ((batch, _, dim), (_, kv_len, _)) = (queries.dims3()?, keys.dims3()?);
    expect("keys of alignment", keys, &[batch, kv_len, dim])?;
    Ok((queries.matmul(&keys.t()?)? * f64::from(scale))?)
}

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
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.query.forward(queries)?, self.key.forward(keys)?);
        lift(&[&a, &b, &self.v], |tape, x| additive(tape, &x[0], &x[1], &x[2]))
    }
}

/// `scale·(s·h)`.
///
/// Source: Luong et al. 2015, §3.1 (scale 1).
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// What the products are multiplied by: 1 in Luong's, 1/√n in Vaswani's.
    pub scale: f32,
}

impl Alignment for Dot {
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        products(queries, keys, self.scale)
    }

    fn context<M>(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, mask: M) -> Result<Tensor>
    where
        M: Mask + Clone + Send + 'static,
    {
        fused([queries, keys, values], None, self.scale, mask)
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
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        products(queries, &self.key.forward(keys)?, 1.0)
    }

    fn context<M>(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, mask: M) -> Result<Tensor>
    where
        M: Mask + Clone + Send + 'static,
    {
        fused([queries, &self.key.forward(keys)?, values], None, 1.0, mask)
    }
}

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
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        let (batch, kv_len, width) = keys.dims3()?;
        expect("keys of alignment", keys, &[queries.dims3()?.0, kv_len, width])?;
        if kv_len > self.place.out_dim() {
            let needed = format!("at most {} keys, for which it has scores", self.place.out_dim());
            return Err(Error::Shape { what: "keys of location-based alignment", given: vec![batch, kv_len, width], needed });
        }
        Ok(self.place.forward(queries)?.narrow(2, 0, kv_len)?)
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

    /// β·s/|s|, so that the rest is a product.
    fn sharpened(&self, queries: &Tensor) -> Result<Tensor> {
        Ok(directions(queries)?.broadcast_mul(&self.strength.unsqueeze(2)?)?)
    }
}

/// x/|x| of each row; the least number keeps a row of zeros as it is.
fn directions(x: &Tensor) -> Result<Tensor> {
    let lengths = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&lengths)?)
}

impl Alignment for Cosine {
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        products(&self.sharpened(queries)?, &directions(keys)?, 1.0)
    }

    fn context<M>(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, mask: M) -> Result<Tensor>
    where
        M: Mask + Clone + Send + 'static,
    {
        fused([&self.sharpened(queries)?, &directions(keys)?, values], None, 1.0, mask)
    }
}

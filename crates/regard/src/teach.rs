//! Attention to learn from: arrays you can write down, masks of 0 and 1, the weights beside the output, errors that say what to do.
//!
//! ```
//! use regard::teach::{Array, scaled_dot_product_attention};
//!
//! let queries = Array::from([[1.0, 0.0], [0.0, 1.0]]); // [q_len, dim]
//! let keys = Array::from([[4.0, 0.0], [0.0, 4.0], [4.0, 4.0]]); // [kv_len, dim]
//! let values = Array::from([[10.0], [20.0], [30.0]]); // [kv_len, value_dim]
//! let mask = Array::from([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]); // 1: the query of this row sees the key of this column
//! let (output, weights) = scaled_dot_product_attention(&queries, &keys, &values, Some(&mask))?;
//!
//! assert_eq!((output.shape(), weights.shape()), (&[2, 1][..], &[2, 3][..]));
//! assert_eq!(weights.data()[2], 0.0); // hidden
//! let likes = 4.0 / 2f32.sqrt(); // q·k/√dim of the first query and the first key; 0 with the second
//! assert!((weights.data()[0] - likes.exp() / (likes.exp() + 1.0)).abs() < 1e-6);
//!
//! let wrong = scaled_dot_product_attention(&queries, &keys.transpose(), &values, None).unwrap_err();
//! assert_eq!(
//!     wrong.to_string(),
//!     "keys have shape [2, 3] and queries [2, 2]: the last sizes must agree, and these keys look transposed: \
//!      pass [kv_len, dim], for example keys.transpose()"
//! );
//! # Ok::<(), regard::teach::Error>(())
//! ```
//!
//! The weights take memory in the product of the lengths; [`sdpa`](crate::sdpa) and [`Attention`] never make them.

mod array;
mod error;

pub use array::Array;
pub use error::{Error, Result};

use crate::{Attention, Bools, Mask, View};

/// Output and weights of attention: queries `[q_len, dim]`, keys `[kv_len, dim]`, values `[kv_len, value_dim]` → output
/// `[q_len, value_dim]` and weights `[q_len, kv_len]`; all may begin with `[heads, ..]` or `[batch, heads, ..]`.
///
/// ```text
///   scores = queries · keysᵀ / √dim      weights = softmax(scores where mask is 1), 0 elsewhere      output = weights · values
/// ```
///
/// The mask holds 1 where a query sees a key and 0 where not: `[q_len, kv_len]`, or with the dimensions of the scores, each of which
/// may be 1 to repeat. A query that sees nothing has weights and an output of 0. Query head `h` reads key head
/// `h / (query heads / key heads)`.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1.
///
/// # Errors
/// When the arguments do not fit together; the text says how to repair the call.
pub fn scaled_dot_product_attention(queries: &Array, keys: &Array, values: &Array, mask: Option<&Array>) -> Result<(Array, Array)> {
    let rank = queries.shape().len();
    check_ranks(rank, keys, queries)?;
    let ([.., q_len, dim], [.., k_len, k_dim]) = (queries.four(), keys.four());
    if k_dim != dim && k_len == dim {
        return Err(Error::TransposedKeys { keys: keys.shape().to_vec(), queries: queries.shape().to_vec() });
    }
    check_ranks(rank, values, queries)?;
    let (q, k, v) = (queries.view()?, keys.view()?, values.view()?);
    let [batch, heads, ..] = q.shape();
    let scores = [batch, heads, q_len, k_len];
    let seen = mask.map(|mask| zeros_and_ones(mask, &scores[4 - rank..])).transpose()?;
    let bools = seen.as_ref().map(|(seen, shape)| Ok::<_, Error>(Bools(View::new(seen, *shape)?))).transpose()?;
    let output = Attention::new().mask(bools).forward(q, (k, v))?;

    // weight = exp(score − lse), lse = ln Σ exp(score)
    let group = heads / k.shape()[1].max(1);
    let shape = crate::Shape::of(&q, &(k, v).into())?;
    let weight = |i: usize| {
        let [b, h, i, j] = [i / k_len / q_len / heads, i / k_len / q_len % heads, i / k_len % q_len, i % k_len];
        if !bools.keep(shape.pair(b, h, i, j)) {
            return 0.0;
        }
        let product: f32 = (0..dim).map(|d| q.at([b, h, i, d]) * k.at([b, h / group, j, d])).sum();
        (product / (dim as f32).sqrt() - output.lse.view().at([b, h, i, 0])).exp()
    };
    let weights = Array::new((0..scores.iter().product()).map(weight).collect::<Vec<_>>(), &scores[4 - rank..])?;
    let out = output.out.shape();
    Ok((Array::new(output.out.into_vec(), &out[4 - rank..])?, weights))
}

/// `[.., length, heads·dim]` → `[.., heads, length, dim]`: head `h` gets elements `h·dim..(h + 1)·dim` of every row.
///
/// # Errors
/// When the heads do not divide the width, or there is no dimension left for them.
pub fn split_heads(x: &Array, heads: usize) -> Result<Array> {
    let (&[.., length, width], 2..=3) = (x.shape(), x.shape().len()) else {
        return Err(Error::Rank {
            what: "array to split",
            given: x.shape().to_vec(),
            needed: "[length, width] or [batch, length, width]",
        });
    };
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(Error::IndivisibleHeads { width, heads });
    }
    let dim = width / heads;
    let mut shape = x.shape().to_vec();
    shape.splice(shape.len() - 2.., [heads, length, dim]);
    let from =
        |i: usize| ((i / dim / length / heads * length + i / dim % length) * heads + i / dim / length % heads) * dim + i % dim;
    Array::new((0..x.data().len()).map(|i| x.data()[from(i)]).collect::<Vec<_>>(), &shape)
}

/// `[.., heads, length, dim]` → `[.., length, heads·dim]`: undoes [`split_heads`].
///
/// # Errors
/// When there is no dimension of heads.
pub fn merge_heads(x: &Array) -> Result<Array> {
    let (&[.., heads, length, dim], 3..=4) = (x.shape(), x.shape().len()) else {
        let needed = "[heads, length, dim] or [batch, heads, length, dim]";
        return Err(Error::Rank { what: "array to merge", given: x.shape().to_vec(), needed });
    };
    let mut shape = x.shape().to_vec();
    shape.splice(shape.len() - 3.., [length, heads * dim]);
    let from =
        |i: usize| ((i / dim / heads / length * heads + i / dim % heads) * length + i / dim / heads % length) * dim + i % dim;
    Array::new((0..x.data().len()).map(|i| x.data()[from(i)]).collect::<Vec<_>>(), &shape)
}

/// How far the sum of a row of weights may be from 1: room for weights that were rounded to three digits, or to bf16.
const SUM_TOLERANCE: f64 = 4e-3;

/// Output of weights of your own: weights `[.., q_len, kv_len]`, values `[.., kv_len, value_dim]` → `[.., q_len, value_dim]`.
///
/// # Errors
/// As [`check_weights`], or when the shapes do not fit together.
pub fn weighted_mean(weights: &Array, values: &Array) -> Result<Array> {
    check_weights(weights)?;
    check_ranks(weights.shape().len(), values, weights)?;
    let (w, v) = (weights.four(), values.four());
    if w[..2] != v[..2] || w[3] != v[2] {
        return Err(Error::WeightsAndValues { weights: weights.shape().to_vec(), values: values.shape().to_vec() });
    }
    let ([.., q_len, kv_len], dim) = (w, v[3]);
    let element = |i: usize| -> f32 {
        let (head, row, d) = (i / dim / q_len, i / dim, i % dim);
        (0..kv_len).map(|j| weights.data()[row * kv_len + j] * values.data()[(head * kv_len + j) * dim + d]).sum()
    };
    let shape = [w[0], w[1], q_len, dim];
    let data: Vec<f32> = (0..shape.iter().product()).map(element).collect();
    Array::new(data, &shape[4 - weights.shape().len()..])
}

/// Whether these can be weights of attention, `[.., q_len, kv_len]`: none is negative, and every row sums to 1 (to 4·10⁻³), or is
/// all 0 for a query that sees nothing.
///
/// # Errors
/// When not: with the row, its sum, and what probably went wrong.
pub fn check_weights(weights: &Array) -> Result<()> {
    let [.., q_len, kv_len] = check_ranks(weights.shape().len(), weights, weights)?;
    let rank = weights.shape().len();
    let index = |row: usize| {
        [row / q_len.max(1) / weights.four()[1].max(1), row / q_len.max(1) % weights.four()[1].max(1), row % q_len.max(1)]
    };
    for (row, values) in weights.data().chunks(kv_len.max(1)).enumerate() {
        let at = || index(row)[4 - rank..].to_vec();
        if let Some((key, &given)) = values.iter().enumerate().find(|(_, w)| **w < 0.0) {
            return Err(Error::NegativeWeight { at: [at(), vec![key]].concat(), given });
        }
        let sum: f64 = values.iter().map(|w| f64::from(*w)).sum();
        if sum != 0.0 && (sum.is_nan() || (sum - 1.0).abs() > SUM_TOLERANCE) {
            let columns = weights.transpose();
            let along_queries =
                columns.data().chunks(q_len.max(1)).all(|column| (column.iter().sum::<f32>() - 1.0).abs() <= SUM_TOLERANCE as f32);
            return Err(if along_queries { Error::WrongAxis { at: at(), sum } } else { Error::Sum { at: at(), sum } });
        }
    }
    Ok(())
}

/// The shape in four dimensions of an array that has as many as it should.
fn check_ranks(rank: usize, array: &Array, first: &Array) -> Result<[usize; 4]> {
    if !(2..=4).contains(&rank) {
        let needed = "[length, dim], [heads, length, dim] or [batch, heads, length, dim]";
        return Err(Error::Rank { what: "array", given: first.shape().to_vec(), needed });
    }
    if array.shape().len() != rank {
        return Err(Error::Ranks { given: array.shape().to_vec(), first: first.shape().to_vec() });
    }
    Ok(array.four())
}

/// The mask as booleans, in four dimensions.
fn zeros_and_ones(mask: &Array, scores: &[usize]) -> Result<(Vec<bool>, [usize; 4])> {
    let rank = mask.shape().len();
    if rank == 3 && scores.len() == 4 {
        return Err(Error::MaskWithoutHeads { mask: mask.shape().to_vec(), scores: scores.to_vec() });
    }
    if rank != 2 && rank != scores.len() {
        return Err(Error::MaskRank { mask: mask.shape().to_vec(), scores: scores.to_vec() });
    }
    if let Some(at) = mask.data().iter().position(|m| *m != 0.0 && *m != 1.0) {
        return Err(Error::NotZeroOrOne { given: mask.data()[at], at, shape: mask.shape().to_vec() });
    }
    Ok((mask.data().iter().map(|m| *m == 1.0).collect(), mask.four()))
}

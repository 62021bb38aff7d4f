//! What can be wrong with a call, and how to repair it.

/// The result of every fallible call of [`teach`](crate::teach).
pub type Result<T> = std::result::Result<T, Error>;

/// What was wrong with a call. Each text says what was given, what is needed, and what to write instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum Error {
    /// The attention engine refused.
    #[error(transparent)]
    Attention(#[from] crate::Error),
    /// Not as many numbers as the shape says.
    #[error("array has {given} numbers and shape {shape:?} needs {}", shape.iter().product::<usize>())]
    Elements { given: usize, shape: Vec<usize> },
    /// The wrong number of dimensions.
    #[error("{what} has shape {given:?} and needs {needed}")]
    Rank { what: &'static str, given: Vec<usize>, needed: &'static str },
    /// Two arrays of one call differ in their number of dimensions.
    #[error(
        "one array has shape {given:?} and another {first:?}: give both as many dimensions, for example with reshape and sizes of 1"
    )]
    Ranks { given: Vec<usize>, first: Vec<usize> },
    /// Keys `[dim, kv_len]`.
    #[error(
        "keys have shape {keys:?} and queries {queries:?}: the last sizes must agree, and these keys look transposed: \
         pass [kv_len, dim], for example keys.transpose()"
    )]
    TransposedKeys { keys: Vec<usize>, queries: Vec<usize> },
    /// Heads that do not divide the width.
    #[error("width {width} cannot be split into {heads} heads: the number of heads must divide it, as {} do", divisors(*width))]
    IndivisibleHeads { width: usize, heads: usize },
    /// A mask of three dimensions beside scores of four.
    #[error(
        "mask has shape {mask:?} and scores have shape {scores:?}: add a head dimension, for example mask.reshape(&{:?})",
        with_heads(mask, scores)
    )]
    MaskWithoutHeads { mask: Vec<usize>, scores: Vec<usize> },
    /// A mask with another number of dimensions.
    #[error("mask has shape {mask:?} and scores have shape {scores:?}: give the mask those dimensions, or the last two")]
    MaskRank { mask: Vec<usize>, scores: Vec<usize> },
    /// A number in a mask that is neither 0 nor 1.
    #[error(
        "mask of shape {shape:?} holds {given} (element {at}): 1 lets a query see a key and 0 hides it; \
         numbers to add to the scores are no mask but a regard::Bias"
    )]
    NotZeroOrOne { given: f32, at: usize, shape: Vec<usize> },
    /// Weights that look like scores.
    #[error(
        "weight {at:?} is {given} and cannot be negative: these look like scores; take the softmax along the last axis (keys) first"
    )]
    NegativeWeight { at: Vec<usize>, given: f32 },
    /// A row of weights that does not sum to one.
    #[error(
        "row {at:?} of the weights sums to {sum:.4} and must sum to 1 (or be all 0, for a query that sees nothing): \
         take the softmax along the last axis (keys), or divide the row by its sum"
    )]
    Sum { at: Vec<usize>, sum: f64 },
    /// Weights whose columns sum to one.
    #[error(
        "row {at:?} of the weights sums to {sum:.4} and must sum to 1, and the columns do: the softmax went along the queries; \
         take it along the last axis (keys)"
    )]
    WrongAxis { at: Vec<usize>, sum: f64 },
    /// Weights for other values.
    #[error("weights have shape {weights:?} and values {values:?}: weights need one column for each row of the values")]
    WeightsAndValues { weights: Vec<usize>, values: Vec<usize> },
}

/// The numbers of heads that would do.
fn divisors(width: usize) -> String {
    let all: Vec<String> = (1..=width).filter(|n| width.is_multiple_of(*n)).map(|n| n.to_string()).collect();
    all.join(", ")
}

/// The shape of a mask for every head of a sequence, or for one head of every sequence if only that fits.
fn with_heads(mask: &[usize], scores: &[usize]) -> [usize; 4] {
    if mask[0] != scores[0] && mask[0] == scores[1] {
        return [1, mask[0], mask[1], mask[2]];
    }
    [mask[0], 1, mask[1], mask[2]]
}

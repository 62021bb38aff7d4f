//! Embedding: rows of a table by token, and the scattered sum of gradients back into it.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::rows_per_task;
use crate::array::{slice, tensor};
use crate::tape::{Tape, Value, lift};
use crate::{Error, Result};

/// Rows of `table [tokens, n]` at `tokens [..]` (u32), as candle tensors: `[.., n]`. Differentiable in the table.
///
/// # Errors
/// When a token is outside the table.
pub fn embedding(table: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let ids: Vec<u32> = tokens.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
    lift(&[table], |tape, v| {
        let rows = lookup(tape, &v[0], &ids)?;
        let width = rows.tensor().dims2()?.1;
        rows.reshape(&[tokens.dims(), &[width]].concat())
    })
}

/// ```text
///   y_i = table[token_i]        ∂table[t] = Σ_{i: token_i = t} ∂y_i
/// ```
pub(crate) fn lookup(tape: &Tape, table: &Value, tokens: &[u32]) -> Result<Value> {
    let (vocab_size, n) = table.tensor().dims2()?;
    if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
        return Err(Error::Token { token, vocab_size });
    }
    let mut y = vec![0.0; tokens.len() * n];
    {
        let table = slice(table.tensor())?;
        let step = rows_per_task(n);
        y.par_chunks_mut(step * n).zip(tokens.par_chunks(step)).for_each(|(y, tokens)| {
            for (y, &token) in y.chunks_mut(n).zip(tokens) {
                y.copy_from_slice(&table[token as usize * n..][..n]);
            }
        });
    }
    let tokens = tokens.to_vec();
    Ok(tape.push(tensor(y, (tokens.len(), n))?, &[table], move |dy| Ok(vec![Some(scatter(dy, &tokens, vocab_size)?)])))
}

/// Each task owns some rows of the table and reads the positions of its tokens, sorted by token: order and sums are fixed.
fn scatter(dy: &Tensor, tokens: &[u32], vocab_size: usize) -> Result<Tensor> {
    let n = dy.dims2()?.1;
    let dy = slice(dy)?;
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|&i| tokens[i as usize]); // stable: equal tokens stay in order of position
    let mut table = vec![0.0; vocab_size * n];
    let step = rows_per_task(n);
    table.par_chunks_mut(step * n).enumerate().for_each(|(part, rows)| {
        let first = part * step;
        let begin = order.partition_point(|&i| (tokens[i as usize] as usize) < first);
        for &i in &order[begin..] {
            let row = tokens[i as usize] as usize - first;
            let Some(row) = rows.get_mut(row * n..(row + 1) * n) else { break };
            row.iter_mut().zip(&dy[i as usize * n..][..n]).for_each(|(sum, x)| *sum += x);
        }
    });
    tensor(table, (vocab_size, n))
}

//! How far what heads give lies from f64, in each type of numbers.

use regard::{Element, Errors, Mask, Plan, Score};

use crate::report::{Rounding, short};

/// The most rows that are measured.
const ROWS: usize = 64;

/// A sentence where the rows of a text of `n` tokens are sampled.
pub(crate) fn label(n: usize) -> Option<String> {
    (n > ROWS).then(|| format!("Errors of number types are of {ROWS} rows of the first text, evenly spread."))
}

/// The errors of all heads of a batch of one.
pub(crate) fn errors<T: Element, M: Mask, S: Score>(plan: &Plan<'_, T, M, S>) -> regard::Result<Vec<Rounding>> {
    let rows = plan.spread_rows(ROWS);
    let Errors { f32, bf16, f16 } = plan.errors(&rows)?;
    let finite = |error: f64| error.is_finite().then(|| short(error));
    let of_head = |((f32, bf16), f16)| Rounding { f32: finite(f32), bf16: finite(bf16), f16: finite(f16) };
    Ok(f32.into_iter().zip(bf16).zip(f16).map(of_head).collect())
}

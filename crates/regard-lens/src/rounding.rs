//! How far what heads give lies from f64, in each type of numbers.

use half::{bf16, f16};
use regard::{Element, Mask, Plan, Score};

use crate::report::{Rounding, short};

/// The most rows that are measured.
const ROWS: usize = 64;

/// The rows of `n` that are measured: all, or [`ROWS`] evenly spread, the last among them.
fn rows(n: usize) -> Vec<usize> {
    let count = n.min(ROWS);
    (1..=count).map(|i| i * n / count - 1).collect()
}

/// A sentence where the rows of a text of `n` tokens are sampled.
pub(crate) fn label(n: usize) -> Option<String> {
    (n > ROWS).then(|| format!("Errors of number types are of {ROWS} rows of the first text, evenly spread."))
}

/// The errors of all heads of a batch of one.
pub(crate) fn errors<T: Element, M: Mask, S: Score>(plan: &Plan<'_, T, M, S>) -> regard::Result<Vec<Rounding>> {
    let rows = rows(plan.shape().q_len);
    let (of_f32, of_bf16, of_f16) = (plan.error_in::<f32>(&rows)?, plan.error_in::<bf16>(&rows)?, plan.error_in::<f16>(&rows)?);
    let finite = |error: f64| error.is_finite().then(|| short(error));
    let of_head = |((f32, bf16), f16)| Rounding { f32: finite(f32), bf16: finite(bf16), f16: finite(f16) };
    Ok(of_f32.into_iter().zip(of_bf16).zip(of_f16).map(of_head).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_to_the_last() {
        assert_eq!([rows(0), rows(1), rows(3)], [vec![], vec![0], vec![0, 1, 2]]);
        assert_eq!(rows(64), (0..64).collect::<Vec<_>>());
        for n in [65, 100, 100_000] {
            let rows = rows(n);
            let steps = rows.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(
                rows.len() == 64 && rows[63] == n - 1 && steps.clone().max() <= steps.min().map(|least| least + 1),
                "{n}: {rows:?}"
            );
        }
    }
}

//! What attention does, as facts: rows, and maps.

use std::ops::Range;

use regard_core::{Element, Error, Mask, Result, Score, Tensor, View, ViewMut};
use regard_cpu::{Grid, Inspect, Region, RowFacts};

use crate::plan::{expect, lse_shape};
use crate::{Output, Plan};

/// Facts about every row of attention, `[batch, q_heads, q_len, …]`. Weights are those before dropout, and with a learned sink they sum to
/// less than 1. Distances are counted from the query's own position among the keys, `q + kv_len − q_len`. A row that sees nothing has
/// zeros, a largest logit of −∞ and no keys; one that sees NaN has NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// `−Σ p ln p` in nats, over the keys and the learned sink, if there is one; `[…, 1]`.
    pub entropy: Tensor<f32>,
    /// The largest score, after scores and masks; `[…, 1]`.
    pub max_logit: Tensor<f32>,
    /// The mean distance of what the weights are on, `Σ p·|q − k| / Σ p`; `[…, 1]`.
    pub distance: Tensor<f32>,
    /// The mass of the first keys; `[…, 1]`.
    pub first: Tensor<f32>,
    /// The mass of the most recent keys, the query's own among them; `[…, 1]`.
    pub recent: Tensor<f32>,
    /// The mass of each range of keys; `[…, ranges]`.
    pub ranges: Tensor<f32>,
    /// The mass at distance 0 (the query's own key), 1, 2–3, 4–7, …; `[…, classes]`.
    pub distances: Tensor<f32>,
    /// The largest weights, in descending order; `[…, top]`, zeros where a row sees fewer keys.
    pub top_weights: Tensor<f32>,
    /// Their keys, row-major `[…, top]`; `u32::MAX` where a row sees fewer. Of equal weights the earlier key comes first.
    pub top_keys: Vec<u32>,
}

/// The result of [`Plan::inspect`].
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection<T> {
    /// What [`Plan::forward`] gives, bit for bit.
    pub output: Output<T>,
    /// Facts about every row.
    pub facts: Facts,
}

impl<T: Element, M: Mask, S: Score> Plan<'_, T, M, S> {
    /// Computes the output and, in the same pass, facts about every row: exact, in memory linear in the length.
    ///
    /// ```
    /// use regard::{Attention, Causal, Inspect, View};
    ///
    /// let x: Vec<f32> = (0..2 * 100 * 16).map(|i| (i as f32).sin()).collect();
    /// let x = View::new(&x, [1, 2, 100, 16])?;
    /// let attention = Attention::new().mask(Causal::UpperLeft);
    /// let seen = attention.plan(x, (x, x))?.inspect(&Inspect { top: 3, ranges: vec![10..20], ..Default::default() })?;
    /// let row = seen.facts.entropy.data()[42]; // head 0, query 42: it sees 43 keys
    /// assert!(0.0 < row && row < 43f32.ln());
    /// assert_eq!(seen.facts.top_keys[..3], [0, u32::MAX, u32::MAX]); // the first query sees one key
    /// # Ok::<(), regard::Error>(())
    /// ```
    ///
    /// # Errors
    /// When no largest weight is asked for, a range leaves the keys, or the facts are larger than the machine can address.
    pub fn inspect(&self, what: &Inspect) -> Result<Inspection<T>> {
        let shape = self.shape();
        let mut output = Output { out: Tensor::zeros(shape.out())?, lse: Tensor::zeros(lse_shape(shape))? };
        let facts = self.inspect_into(what, output.out.view_mut(), output.lse.view_mut())?;
        Ok(Inspection { output, facts })
    }

    /// As [`Plan::inspect`], with the output in memory of yours, as in [`Plan::forward_into`].
    ///
    /// # Errors
    /// As [`Plan::inspect`] and [`Plan::forward_into`].
    pub fn inspect_into(&self, what: &Inspect, out: ViewMut<'_, T>, lse: ViewMut<'_, f32>) -> Result<Facts> {
        let shape = self.shape();
        expect("output", out.shape(), shape.out())?;
        expect("log-sum-exp", lse.shape(), lse_shape(shape))?;
        if what.top == 0 {
            return Err(Error::Value { what: "the number of largest weights", given: 0.0, needed: "at least 1" });
        }
        what.ranges.iter().try_for_each(|range| within(3, range, shape.kv_len))?;
        let rows = regard_cpu::inspect(&self.problem, &self.rule, what, out, lse);
        columns(rows, what, lse_shape(shape), what.columns(shape.kv_len, shape.q_len))
    }

    /// Maps of the attention weights in a region, one for each grid, `[batch, heads, rows of cells, columns of cells]`: each cell is the mean
    /// over its rows of the summed weight of its keys. `lse` is that of [`Plan::forward`]. Cells of one row and one key are the weights
    /// themselves; a cell of all rows and one key tells what that key receives. Nothing but the region is computed.
    ///
    /// ```
    /// # use regard::{Attention, Causal, Grid, Region, View};
    /// # let x: Vec<f32> = (0..2 * 100 * 16).map(|i| (i as f32).sin()).collect();
    /// # let x = View::new(&x, [1, 2, 100, 16])?;
    /// # let attention = Attention::new().mask(Causal::UpperLeft);
    /// let plan = attention.plan(x, (x, x))?;
    /// let lse = plan.forward()?.lse;
    /// let coarse = plan.maps(lse.view(), &plan.whole(), &[Grid { rows: 25, keys: 25 }])?;
    /// assert_eq!(coarse[0].shape(), [1, 2, 4, 4]);
    /// let zoom = Region { rows: 40..60, keys: 0..32, ..plan.whole() };
    /// let fine = plan.maps(lse.view(), &zoom, &[Grid { rows: 1, keys: 1 }])?;
    /// assert_eq!(fine[0].shape(), [1, 2, 20, 32]);
    /// # Ok::<(), regard::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `lse` has another shape, the region leaves the problem, or a grid has cells of nothing.
    pub fn maps(&self, lse: View<'_, f32>, region: &Region, grids: &[Grid]) -> Result<Vec<Tensor<f32>>> {
        let shape = self.shape();
        expect("log-sum-exp", lse.shape(), lse_shape(shape))?;
        let sizes = [shape.batch, shape.q_heads, shape.q_len, shape.kv_len];
        let ranges = [&region.batch, &region.heads, &region.rows, &region.keys];
        ranges.into_iter().zip(sizes).enumerate().try_for_each(|(axis, (range, size))| within(axis, range, size))?;
        if grids.iter().any(|grid| grid.rows == 0 || grid.keys == 0) {
            return Err(Error::Value { what: "the size of a cell", given: 0.0, needed: "at least 1" });
        }
        let maps = regard_cpu::pool(&self.problem, &self.rule, lse, region, grids);
        maps.into_iter().zip(grids).map(|(map, grid)| Tensor::from_vec(map, region.cells(*grid))).collect()
    }

    /// The weights of one row, `[kv_len]`, from the log-sum-exp of [`Plan::forward`]: zeros where it does not see.
    ///
    /// # Errors
    /// As [`Plan::maps`].
    pub fn weights(&self, lse: View<'_, f32>, [batch, head, q]: [usize; 3]) -> Result<Vec<f32>> {
        let one = |i: usize| i..i + 1;
        let region = Region { batch: one(batch), heads: one(head), rows: one(q), ..self.whole() };
        let mut maps = self.maps(lse, &region, &[Grid { rows: 1, keys: 1 }])?;
        Ok(maps.pop().map(Tensor::into_vec).unwrap_or_default())
    }

    /// The region of everything.
    pub fn whole(&self) -> Region {
        let shape = self.shape();
        Region { batch: 0..shape.batch, heads: 0..shape.q_heads, rows: 0..shape.q_len, keys: 0..shape.kv_len }
    }
}

/// Checks a range of an axis of `[batch, heads, queries, keys]`.
pub(crate) fn within(axis: usize, range: &Range<usize>, size: usize) -> Result<()> {
    if range.start <= range.end && range.end <= size {
        return Ok(());
    }
    Err(Error::Range { axis, start: range.start, end: range.end, size })
}

/// The rows of facts as one array for each fact.
fn columns(rows: RowFacts, what: &Inspect, [batch, heads, q_len, _]: [usize; 4], width: usize) -> Result<Facts> {
    let mut first = 0;
    let mut next = |n: usize| {
        let numbers = rows.numbers.chunks_exact(width).flat_map(|row| row[first..first + n].iter().copied()).collect();
        first += n;
        Tensor::from_vec(numbers, [batch, heads, q_len, n])
    };
    Ok(Facts {
        entropy: next(1)?,
        max_logit: next(1)?,
        distance: next(1)?,
        first: next(1)?,
        recent: next(1)?,
        ranges: next(what.ranges.len())?,
        distances: next(width - 5 - what.ranges.len() - what.top)?,
        top_weights: next(what.top)?,
        top_keys: rows.keys,
    })
}

//! Every mask and every score, made for given sizes: what the generic tests walk through.
//!
//! A new mask or score is covered by every kernel, dtype and layout once it has a line here.

mod masks;
mod scores;

pub use masks::{VisitMask, masks};
pub use scores::{VisitScore, scores};

use regard_core::{Mask, Shape, Slope};

use crate::oracle::BiasTruth;
use crate::rng::Rng;

/// Calls `f` with one mask and one score out of all, and both their names: the choice belongs to `seed`, as their contents do.
pub fn drawn(shape: &Shape, seed: u64, mut f: impl FnMut(&str, &dyn Mask, &dyn Slope, Option<&BiasTruth<'_>>)) {
    let (mut mask_count, mut score_count) = (0, 0);
    masks(shape, seed, &mut |_: &str, _: &dyn Mask| mask_count += 1);
    scores(shape, seed, &mut |_: &str, _: &dyn Slope, _: Option<BiasTruth<'_>>| score_count += 1);
    let mut rng = Rng::new(!seed);
    let mut mask_is_it = nth(rng.below(mask_count));
    let score = rng.below(score_count);
    masks(shape, seed, &mut |mask_name: &str, mask: &dyn Mask| {
        if mask_is_it() {
            let mut score_is_it = nth(score);
            scores(shape, seed, &mut |name: &str, score: &dyn Slope, bias: Option<BiasTruth<'_>>| {
                if score_is_it() {
                    f(&format!("{mask_name}, {name}"), mask, score, bias.as_ref());
                }
            });
        }
    });
}

/// True in the call number `n` only, counted from 0.
fn nth(n: usize) -> impl FnMut() -> bool {
    let mut calls = 0..;
    move || calls.next() == Some(n)
}

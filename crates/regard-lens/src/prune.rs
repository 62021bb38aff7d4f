//! The curve of pruning: the loss without the heads that matter least, more and more of them.
//!
//! Heads go in the order of the change of the loss when each alone gives zeros, least first: below zero where a head is in the way. Heads that
//! stand in for each other look as if neither mattered; the curve shows what becomes of the loss without both.
//!
//! Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", §4.

use regard_nn::Decoder;

use crate::ablate::{self, HeadId, Part};
use crate::report::{Ablation, Pruned, short};
use crate::{Result, Text};

/// The heads among what was ablated, that which matters least first.
pub(crate) fn order(ablations: &[(Part, Ablation)]) -> Vec<HeadId> {
    let of_head = |(part, ablation): &(Part, Ablation)| match part {
        Part::Head(head) => Some((ablation.zero, *head)),
        Part::Layer(_) => None,
    };
    let mut heads: Vec<(f64, HeadId)> = ablations.iter().filter_map(of_head).collect();
    heads.sort_by(|a, b| a.0.total_cmp(&b.0));
    heads.into_iter().map(|(_, head)| head).collect()
}

/// [`ablate::losses`], as a report has them.
pub(crate) fn curve(
    decoder: &Decoder,
    texts: &[Text],
    order: &[HeadId],
    numbers: &[usize],
    step: &mut dyn FnMut(),
) -> Result<Vec<Pruned>> {
    let losses = ablate::losses(decoder, texts, order, numbers.iter().copied(), step)?;
    Ok(losses.into_iter().map(|(heads, loss)| Pruned { heads, loss: short(loss) }).collect())
}

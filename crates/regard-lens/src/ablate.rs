//! The loss without some heads.
//!
//! What a head gives is replaced, before the output projection, in every position, and the texts are read again: the change of the mean loss
//! tells how much the model relies on it *here*. Zeros take a head away altogether; its mean over all positions keeps what it always adds
//! and takes away what depends on the text, which is the milder and more telling cut. Sources: Michel et al. 2019, "Are Sixteen Heads Really
//! Better than One?"; Wang et al. 2022, "Interpretability in the Wild", §2.2 (mean ablation). Caveat: other heads may stand in for a missing
//! one (McGrath et al. 2023, "The Hydra Effect"), so a small change does not prove that a head does nothing, and changes do not add up.

use regard::Element;
use regard_nn::{Attending, Decoder, Observer};

use crate::{Error, Result, Text};

/// A head: its layer and its number there.
pub type HeadId = (usize, usize);

/// What takes the place of what a head gives.
#[derive(Clone, Copy, Debug)]
pub enum Replace<'a> {
    /// Zeros.
    Zero,
    /// Its mean, of all heads, layer-major: `[layers · heads]` vectors.
    Mean(&'a [Vec<f32>]),
}

/// Checks that a decoder has a head.
///
/// # Errors
/// When it does not, with the numbers that it has.
pub fn check(decoder: &Decoder, (layer, head): HeadId) -> Result<()> {
    let (layers, heads) = (decoder.config().layers.len(), decoder.config().num_attention_heads);
    if layer >= layers {
        return Err(Error::Layer { given: layer, last: layers.saturating_sub(1) });
    }
    if head >= heads {
        return Err(Error::Head { layer, given: head, last: heads.saturating_sub(1) });
    }
    Ok(())
}

/// The mean loss of all tokens of the texts, nats, with some heads replaced.
///
/// # Errors
/// When there is no such head, or the decoder cannot read a text.
pub fn loss(decoder: &Decoder, texts: &[Text], heads: &[HeadId], replace: Replace<'_>) -> Result<f64> {
    heads.iter().try_for_each(|head| check(decoder, *head))?;
    let mut losses = Vec::new();
    for text in texts {
        losses.extend(decoder.observe(&text.tokens, &mut Cut { heads, replace })?);
    }
    Ok(mean(losses.iter().copied()))
}

pub(crate) fn mean(losses: impl Iterator<Item = f32>) -> f64 {
    let (n, sum) = losses.fold((0usize, 0.0), |(n, sum), loss| (n + 1, sum + f64::from(loss)));
    sum / n.max(1) as f64
}

/// The curve of pruning: heads are zeroed one after another, in the order that is given, and the loss after each of `points` numbers of them
/// is measured: pairs of that number and the loss, from 0 heads to all that are given.
///
/// # Errors
/// As [`loss`].
pub fn curve(decoder: &Decoder, texts: &[Text], order: &[HeadId], points: usize) -> Result<Vec<(usize, f64)>> {
    let points = points.clamp(2, order.len() + 1);
    let at = |i: usize| i * order.len() / (points - 1);
    (0..points).map(|i| Ok((at(i), loss(decoder, texts, &order[..at(i)], Replace::Zero)?))).collect()
}

struct Cut<'a> {
    heads: &'a [HeadId],
    replace: Replace<'a>,
}

impl Observer for Cut<'_> {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let (layer, heads) = (attending.layer, attending.plan.shape().q_heads);
        for (_, head) in self.heads.iter().filter(|(of, _)| *of == layer) {
            for row in attending.head_rows(*head) {
                match self.replace {
                    Replace::Zero => row.fill(T::default()),
                    Replace::Mean(means) => T::narrow(&means[layer * heads + head], row),
                }
            }
        }
        Ok(())
    }
}

//! The loss without some heads, or without the attention of a layer, which is all of its heads.
//!
//! What a head gives is replaced, before the output projection, in every position, and the texts are read again: the change of the mean loss
//! tells how much the model relies on it *here*. Zeros take a head away altogether; its mean over all positions keeps what it always adds
//! and takes away what depends on the text, which is the milder and more telling cut; what it gives in other positions ([`resample`]) takes away
//! the same and leads the model nowhere that it never is. Sources: Michel et al. 2019, "Are Sixteen Heads Really Better than One?"; Wang et al.
//! 2022, "Interpretability in the Wild", §2.2 (mean ablation); Chan et al. 2022, "Causal Scrubbing" (resample ablation). Caveat: other heads may
//! stand in for a missing one (McGrath et al. 2023, "The Hydra Effect"), so a small change does not prove that a head does nothing, and changes
//! do not add up.
//!
//! [`resample`]: crate::resample

use regard::Element;
use regard_nn::{Attending, Decoder, Observer};

use crate::resample::Samples;
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
    /// What it gives in other positions.
    Resample(&'a Samples),
}

/// What is ablated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A head.
    Head(HeadId),
    /// All heads of a layer.
    Layer(usize),
}

impl Part {
    /// Its heads, each checked.
    ///
    /// # Errors
    /// As [`check`].
    pub fn heads(self, decoder: &Decoder) -> Result<Vec<HeadId>> {
        match self {
            Part::Head(head) => check(decoder, head).map(|()| vec![head]),
            Part::Layer(layer) => {
                check(decoder, (layer, 0))?;
                Ok((0..decoder.config().num_attention_heads).map(|head| (layer, head)).collect())
            }
        }
    }

    /// Every head of a decoder, layer-major, and then every layer.
    pub fn all(decoder: &Decoder) -> Vec<Part> {
        let (layers, heads) = (decoder.config().layers.len(), decoder.config().num_attention_heads);
        let all = (0..layers * heads).map(|i| Part::Head((i / heads, i % heads)));
        all.chain((0..layers).map(Part::Layer)).collect()
    }
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
    let sources = match replace {
        Replace::Resample(samples) => samples.sources(texts),
        Replace::Zero | Replace::Mean(_) => vec![Vec::new(); texts.len()],
    };
    let mut losses = Vec::new();
    for (text, sources) in texts.iter().zip(&sources) {
        losses.extend(decoder.observe(&text.tokens, &mut Cut { heads, replace, sources })?);
    }
    Ok(mean(losses.iter().copied()))
}

pub(crate) fn mean(losses: impl Iterator<Item = f32>) -> f64 {
    let (n, sum) = losses.fold((0usize, 0.0), |(n, sum), loss| (n + 1, sum + f64::from(loss)));
    sum / n.max(1) as f64
}

/// The curve of pruning: heads are zeroed one after another, in the order that is given, and the loss after each of `points` numbers of them
/// is measured: pairs of that number and the loss, nats per token, from 0 heads to all that are given.
///
/// # Errors
/// As [`loss`].
pub fn curve(decoder: &Decoder, texts: &[Text], order: &[HeadId], points: usize) -> Result<Vec<(usize, f64)>> {
    losses(decoder, texts, order, numbers(order.len(), points), &mut || ())
}

/// The losses without the first heads of an order, of each number of them; `step` is called after each.
pub(crate) fn losses(
    decoder: &Decoder,
    texts: &[Text],
    order: &[HeadId],
    numbers: impl Iterator<Item = usize>,
    step: &mut dyn FnMut(),
) -> Result<Vec<(usize, f64)>> {
    let without = |n: usize| {
        let loss = loss(decoder, texts, &order[..n], Replace::Zero)?;
        step();
        Ok((n, loss))
    };
    numbers.map(without).collect()
}

/// Evenly spread numbers of heads from none to all: as many as `points`, but at least those two, and each once.
pub(crate) fn numbers(all: usize, points: usize) -> impl ExactSizeIterator<Item = usize> {
    let steps = points.saturating_sub(1).clamp(1, all.max(1));
    let n = if all == 0 { 1 } else { steps + 1 };
    (0..n).map(move |i| i * all / steps)
}

struct Cut<'a> {
    heads: &'a [HeadId],
    replace: Replace<'a>,
    /// The sample that each position takes, where it takes one.
    sources: &'a [usize],
}

impl Observer for Cut<'_> {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let (layer, heads, dim) = (attending.layer, attending.plan.shape().q_heads, attending.plan.shape().value_dim);
        for &(_, head) in self.heads.iter().filter(|(of, _)| *of == layer) {
            let rows = attending.head_rows(head);
            match self.replace {
                Replace::Zero => rows.for_each(|row| row.fill(T::default())),
                Replace::Mean(means) => rows.for_each(|row| T::narrow(&means[layer * heads + head], row)),
                Replace::Resample(samples) => {
                    rows.zip(self.sources).for_each(|(row, source)| T::narrow(samples.head((layer, head), dim, *source), row));
                }
            }
        }
        Ok(())
    }
}

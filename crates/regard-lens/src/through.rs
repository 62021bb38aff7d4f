//! What the last row of the first text draws on through all layers, by rollout and by flow: two approximations, as [`rollout`] says.
//!
//! [`rollout`]: crate::rollout

use regard_nn::Decoder;

use crate::report::{Through, short};
use crate::rollout::Mixed;
use crate::{Error, Result, Text};

/// The most that `layers · tokens³` may be, with which the time of the flow grows: the story model's 6 layers take 2 s for 256 tokens, 15 s for
/// 512, 19 s for the 563 that this allows, and 214 s for 1,024. Memory, of 24 · layers · tokens² bytes, stays far below a gigabyte.
const MOST: f64 = 1_073_741_824.0;

/// What holds for both.
pub(crate) const LABEL: &str = "Rollout and flow, from the first text's last token through all layers, are approximations: they take the \
    residual stream and attention to matter alike, and know nothing of values, projections and feed-forward layers.";

/// Checks that a text is short enough.
pub(crate) fn check(decoder: &Decoder, text: &Text) -> Result<()> {
    let (layers, tokens) = (decoder.config().layers.len(), text.tokens.len());
    let most = most(layers);
    if tokens <= most { Ok(()) } else { Err(Error::Through { name: text.name.clone(), tokens, layers, most }) }
}

/// The most tokens that are followed through so many layers.
fn most(layers: usize) -> usize {
    (MOST / layers.max(1) as f64).cbrt() as usize
}

/// Follows the last row; `step` is called after the reading and after each token.
pub(crate) fn through(decoder: &Decoder, text: &Text, step: &mut dyn FnMut()) -> Result<Through> {
    let mixed = Mixed::exact(decoder, &text.tokens)?;
    step();
    let row = text.tokens.len().saturating_sub(1);
    let shares = |all: Vec<f64>| all.into_iter().map(short).collect();
    Ok(Through { row, rollout: shares(mixed.rollout_of(row)), flow: shares(mixed.flow_and(row, step)) })
}

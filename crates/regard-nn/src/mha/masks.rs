//! The masks of one call in PyTorch's sense, read into regard's.

use candle_core::{D, DType, Tensor};
use regard::Causal;

use super::mask::{Beside, Seen};
use super::{AttendOptions, MultiHeadAttention};
use crate::array::expect;
use crate::{Error, Result};

/// Who is seen: causality, padding, and the array of the call.
pub(super) type Masks = (Option<Beside>, (Option<Seen>, Option<Seen>));

impl MultiHeadAttention {
    /// What hides, and what is added to the scores, `[batch, heads, q_len, kv_len]` or sizes of 1 that repeat.
    pub(super) fn masks(
        &self,
        [batch, heads, q_len, kv_len]: [usize; 4],
        options: &AttendOptions<'_>,
        single: bool,
    ) -> Result<(Masks, Option<Tensor>)> {
        let extra = self.extra();
        let (mut seen, mut bias) = ([None, None], None::<Tensor>);
        if let Some(mask) = options.key_padding_mask {
            let needed = if single { vec![kv_len] } else { vec![batch, kv_len] };
            expect("key_padding_mask", mask, &needed)?;
            read("key_padding_mask", mask, [batch, 1, 1, kv_len], extra, &mut seen[0], &mut bias)?;
        }
        if let Some(mask) = options.attn_mask {
            let shape = match *mask.dims() {
                [q, kv] if (q, kv) == (q_len, kv_len) => [1, 1, q_len, kv_len],
                [n, q, kv] if (n, q, kv) == (batch * heads, q_len, kv_len) => [batch, heads, q_len, kv_len],
                _ => {
                    let all = batch * heads;
                    let needed = format!(
                        "[{q_len}, {kv_len}], or [{all}, {q_len}, {kv_len}] with the {heads} heads of each sequence one after the other: \
                         repeat a mask of sequences for every head, for example unsqueeze(1), expand to [{batch}, {heads}, {q_len}, \
                         {kv_len}], flatten(0, 1)"
                    );
                    return Err(Error::Shape { what: "attn_mask", given: mask.dims().to_vec(), needed });
                }
            };
            read("attn_mask", mask, shape, extra, &mut seen[1], &mut bias)?;
        }
        let causal = (options.is_causal || self.causal).then_some(Beside { causal: Causal::UpperLeft, extra: extra as u32 });
        Ok(((causal, seen.into()), bias))
    }
}

/// A mask of one kind or the other: who is seen, or a number to add; the keys that the layer adds are seen as they are.
fn read(
    what: &'static str,
    mask: &Tensor,
    shape: [usize; 4],
    extra: usize,
    seen: &mut Option<Seen>,
    bias: &mut Option<Tensor>,
) -> Result<()> {
    match mask.dtype() {
        DType::U8 => *seen = Some(Seen::unless(mask, shape, extra)?),
        DType::F32 => {
            let more = mask.reshape(&shape)?.pad_with_zeros(D::Minus1, 0, extra)?;
            *bias = Some(match bias.take() {
                Some(bias) => bias.broadcast_add(&more)?,
                None => more,
            });
        }
        other => {
            let needed = format!("type u8 (1 hides) or f32 (added to the scores), and it has {other:?}");
            return Err(Error::Shape { what, given: mask.dims().to_vec(), needed });
        }
    }
    Ok(())
}

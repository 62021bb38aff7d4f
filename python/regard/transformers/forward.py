"""The attention of one layer, as transformers calls it: `[batch, heads, length, dim]` in, `[batch, length, heads, dim]` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.utils import output_capturing

from regard.torch import attention

from .masks import VisibleKeys

# Say nothing about the scores that the tensors and the mask do not say: positions are in the keys, and the window is in the mask.
WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "deterministic",
        "layer_idx",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "num_items_in_batch",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "sliding_window",
        "use_cache",
    }
)
REFUSED = {
    "output_attentions": "regard never forms the attention weights: load the model with attn_implementation='eager' to look at them",
    "head_mask": "regard has no weight for a head: multiply the head's part of the output projection by it instead",
    "sinks": "regard has one sink logit for each head (s_aux), and these are one for each query: use attn_implementation='eager'",
    "indices": "the model selects keys and hands over no mask of them: use attn_implementation='eager'",
    "block_indices": "the model selects blocks of keys and hands over no mask of them: use attn_implementation='eager'",
    **dict.fromkeys(
        ("block_table", "read_index", "write_index", "cache"),
        "continuous batching keeps keys in pages of transformers' own: use attn_implementation='paged|eager', or regard.KVCache",
    ),
}


class Call(NamedTuple):
    """The attention of one layer: `query` `[batch, heads, query length, dim]`, `key` and `value` `[batch, kv heads, kv length, dim]`;
    the rest as `attention_forward` has it."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    bias: Tensor | None
    causal: bool
    documents: Tensor | None
    softcap: float | None
    sinks: Tensor | None
    scale: float | None

    def options(self) -> dict[str, Any]:
        """What `regard.attention` is told."""
        q_len, kv_len = self.query.shape[2], self.key.shape[2]
        mask, bias = _mask_and_bias(self.mask, self.bias, q_len, kv_len)
        return {
            "mask": mask,
            "causal": "upper_left" if self.causal and self.mask is None and q_len > 1 else None,
            "documents": self.documents,
            "softcap": self.softcap,
            "bias": bias,
            "sinks": self.sinks,
            "scale": self.scale,
        }

    def part(self, text: int, start: int, end: int) -> Call:
        """The same for one text of the batch and its keys `start..end`, which are all that it sees; without gradients."""
        whole = self.key.shape[2]

        def of(tensor: Tensor | None) -> Any:
            if tensor is None or isinstance(tensor, VisibleKeys):
                return None if tensor is None else tensor.keys.part(text, start, end)
            one = tensor.detach()[min(text, tensor.shape[0] - 1)][None] if tensor.ndim == 4 else tensor.detach()
            return one[..., start:end] if one.shape[-1] == whole else one

        query, key, value = (tensor.detach()[text : text + 1] for tensor in (self.query, self.key, self.value))
        return self._replace(
            query=query,
            key=key[:, :, start:end],
            value=value[:, :, start:end],
            mask=of(self.mask),
            bias=of(self.bias),
            sinks=None if self.sinks is None else self.sinks.detach(),
        )


# Called with the layer and its call, before it is computed: `regard.lens.watch` looks on here.
observers: list[Callable[[torch.nn.Module, Call], None]] = []


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `AttentionInterface` calls: softmax(softcap(scaling · Q Kᵀ) + position_bias + mask, sinks) V, differentiable.

    Args:
        module: the layer; its `is_causal` counts where the argument is None, as in transformers' SDPA.
        query: `[batch, heads, query length, dim]`; `key` and `value` `[batch, kv heads, kv length, dim]`.
        attention_mask: what `attention_mask` of this package returned; or bools, True is seen; or numbers to be added, which hide where
            they are the type's lowest. Broadcasts to `[batch, heads, query length, kv length]`. None: causal from the upper left if
            `is_causal` and there are several queries, else everything is seen.
        dropout: the share of probabilities to drop, drawn from torch's generator.
        scaling: of the scores; default 1/√dim.
        s_aux: one sink logit for each query head.
        position_bias: added to the scores; has a gradient.
        cu_seq_lens_q: ends of documents packed into a batch of one, the same in `cu_seq_lens_k`.

    Returns:
        The output `[batch, query length, heads, value dim]`, and None for the weights.

    Raises:
        NotImplementedError: a keyword that would change the result in a way that regard has not, or a device other than the CPU.
        ValueError: a shape that does not fit.
    """
    _refuse(query, kwargs)
    query, key, value = _one_batch(query, key, value)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    documents = _documents(cu_seq_lens_q, cu_seq_lens_k, query, key)
    call = Call(query, key, value, attention_mask, position_bias, causal, documents, softcap, s_aux, scaling)
    for observe in observers:
        observe(module, call)
    in_place = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = attention(*in_place, **call.options(), dropout=dropout or None, layout="blhd")
    return out, None


def _refuse(query: Tensor, kwargs: dict[str, Any]) -> None:
    """Raises for what would otherwise be left out of the result without a word."""
    if query.device.type != "cpu":
        raise NotImplementedError(f"query is on {query.device}: attn_implementation='regard' computes on the CPU, use 'sdpa' there")
    if query.ndim != 4:
        raise ValueError(f"query has shape {list(query.shape)} and must be [batch, heads, length, dim]")
    if _collects_weights():
        kwargs = {**kwargs, "output_attentions": True}
    for name, given in kwargs.items():
        if name in WITHOUT_EFFECT or given is None or given is False:
            continue
        why = REFUSED.get(name, "regard does not know what it means for attention: use attn_implementation='eager'")
        raise NotImplementedError(f"{name} is given and not supported by attn_implementation='regard': {why}")


def _collects_weights() -> bool:
    """Whether the model was called with `output_attentions=True` and takes the weights out of its layers by hooks."""
    collected = output_capturing._active_collector.get()  # type: ignore[no-untyped-call]
    return collected is not None and any(name.endswith("attentions") for name in collected)


def _one_batch(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the largest batch among them, as queries that are learned have a batch of one; with the last dimension in one piece."""
    batch = max(tensor.shape[0] for tensor in tensors)
    expanded = (tensor.expand(batch, -1, -1, -1) if tensor.shape[0] != batch else tensor for tensor in tensors)
    return tuple(tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in expanded)


def _mask_and_bias(mask: Tensor | None, bias: Tensor | None, q_len: int, kv_len: int) -> tuple[Any, Tensor | None]:
    """The mask as regard takes it, and what else is to be added to the scores."""
    if mask is None or mask.dtype == torch.bool:
        return _bools(mask, q_len, kv_len), bias
    if not mask.is_floating_point():
        raise TypeError(f"attention_mask is {mask.dtype} and must be bools, True is seen, or numbers to be added to the scores")
    hidden = mask.detach() <= torch.finfo(mask.dtype).min / 2
    added = mask.masked_fill(hidden, 0)
    if not torch.compiler.is_compiling() and not added.requires_grad and not added.any():
        return hidden.logical_not(), bias
    return hidden.logical_not(), added if bias is None else bias + added


def _bools(mask: Tensor | None, q_len: int, kv_len: int) -> Any:
    """Runs of keys, if the mask is of these lengths; a mask of length 1 broadcasts, and then only as bools."""
    if not isinstance(mask, VisibleKeys):
        return mask
    return mask.keys.mask() if mask.shape[2:] == (q_len, kv_len) else mask.keys.write()


def _documents(q_ends: Tensor | None, kv_ends: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """The bounds of documents, where flash-attention's arguments say that queries and keys have the same."""
    if q_ends is None and kv_ends is None:
        return None
    whole = query.shape[0] == 1 and query.shape[2] == key.shape[2]
    if q_ends is None or kv_ends is None or not whole or not torch.equal(q_ends, kv_ends) or int(q_ends[-1]) != key.shape[2]:
        raise NotImplementedError(
            "cu_seq_lens_q and cu_seq_lens_k must be the same bounds of documents packed into a batch of one, without a cache:"
            " leave them out, and give position_ids that start again at each document"
        )
    return q_ends

"""What transformers passes from a model to its attention as the mask: runs of keys, which look like bools to whoever looks."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers import masking_utils
from transformers.utils.import_utils import is_tracing
from typing_extensions import Self

from regard import Bools, Causal, Mask, Spans, Window

from .runs import MaskFunction, runs

_Padded: TypeAlias = tuple[Tensor, Tensor, Tensor | None]


class Keys:
    """Which keys each query sees: those of a run, less holes. Written out as bools only when something asks, and from then on bools.

    `first` and `end`, int64 `[batch or 1, 1, query length]`, lie in 0..=`shape[3]`; `holes`, bool `[batch, 1, 1, kv length]` or None, is
    False at keys that nobody sees; `shape` is `[batch, 1, query length, kv length]`.
    """

    def __init__(self, first: Tensor, end: Tensor, holes: Tensor | None, shape: tuple[int, int, int, int]) -> None:
        self.first, self.end, self.holes, self.shape = first, end, holes, shape
        self._written: Tensor | None = None
        self._mask: Mask | None = None

    def write(self) -> Tensor:
        """The bools of `shape`, True is seen. Whoever has them may change them, so they are the mask from now on."""
        if self._written is None:
            kv = torch.arange(self.shape[3])
            seen = (kv >= self.first[..., None]) & (kv < self.end[..., None])
            if self.holes is not None:
                seen = seen & self.holes
            self._written = seen.expand(self.shape)
        return self._written

    def part(self, text: int, start: int, end: int) -> Tensor:
        """The mask of one text of the batch, over the keys `start..end`."""

        def text_of(tensor: Tensor) -> Tensor:
            return tensor[min(text, tensor.shape[0] - 1)][None]

        if self._written is not None:
            return text_of(self._written)[..., start:end]
        first, last = ((text_of(bound) - start).clamp(0, end - start) for bound in (self.first, self.end))
        holes = None if self.holes is None else text_of(self.holes)[..., start:end]
        return VisibleKeys(Keys(first, last, holes, (1, 1, self.shape[2], end - start)))

    def mask(self) -> Mask:
        """The mask for `regard.attention`, made once for all the layers that share this object."""
        if self._written is not None:
            return Bools(self._written)
        if self._mask is None:
            mask = self._run()
            self._mask = mask if self.holes is None else mask & Bools(self.holes)
        return self._mask

    def _run(self) -> Mask:
        """`Causal.LOWER_RIGHT`, within a window if need be, where the runs are that; else the runs themselves."""
        q_len, kv_len = self.shape[2:]
        width = int((self.end - self.first).amax()) if self.end.numel() else 0
        if torch.equal(self.end, (torch.arange(q_len) + (kv_len - q_len + 1)).expand_as(self.end)):
            if not self.first.any():
                return Causal.LOWER_RIGHT
            if torch.equal(self.first, (self.end - width).clamp_min(0)):
                return Causal.LOWER_RIGHT & Window(width - 1, 0)
        return Spans(self.first, self.end)


class VisibleKeys(Tensor):
    """A bool tensor `[batch, 1, query length, kv length]`, True is seen, that has no storage: `keys` says what it holds.

    regard's attention reads `keys`. Any other operation on it sees, and returns, an ordinary tensor of the same bools.
    """

    keys: Keys

    @staticmethod
    def __new__(cls, keys: Keys) -> Self:
        """`keys`, as a tensor."""
        tensor = Tensor._make_wrapper_subclass(cls, keys.shape, dtype=torch.bool)
        tensor.keys = keys
        return tensor

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """The shape, and not the bools."""
        return f"VisibleKeys(shape={tuple(self.shape)})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """The operation on the bools; a mere alias stays what it is."""
        if func in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            return VisibleKeys(args[0].keys)
        written = tree_map(lambda arg: arg.keys.write() if isinstance(arg, VisibleKeys) else arg, (args, kwargs or {}))
        return func(*written[0], **written[1])


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """The mask of one forward pass, for `AttentionMaskInterface`; arguments as of `transformers.masking_utils.sdpa_mask`.

    Returns a `VisibleKeys` where every query sees one run of keys, but for holes that padding makes; the same None as `sdpa_mask` does
    where `is_causal`, or nothing, says it all; else, and while a graph is traced, the bools of `sdpa_mask`.
    """
    traced = is_tracing(attention_mask) or torch.device(device).type != "cpu"
    may_skip = allow_is_causal_skip and not traced and (local_size is None or kv_length < local_size)
    if may_skip and _is_causal_alone(q_length, kv_length, int(q_offset), kv_offset, attention_mask):
        return None
    run = None if use_vmap or traced else runs(mask_function, torch.arange(q_length) + int(q_offset))
    if run is None:
        return masking_utils.sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,  # type: ignore[arg-type]
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            local_size=local_size,
            allow_is_causal_skip=allow_is_causal_skip,
            allow_is_bidirectional_skip=allow_is_bidirectional_skip,
            use_vmap=use_vmap,
            device=device,
            **kwargs,
        )
    first, end = ((bound - kv_offset).clamp(0, kv_length).reshape(-1, 1, q_length) for bound in run)
    first, end, holes = _without_padding(first, end, attention_mask, kv_offset, kv_length)
    end = torch.maximum(first, end)
    if holes is None and _needs_no_mask(first, end, kv_length, allow_is_causal_skip, allow_is_bidirectional_skip):
        return None
    return VisibleKeys(Keys(first, end, holes, (batch_size, 1, q_length, kv_length)))


def _is_causal_alone(q_length: int, kv_length: int, q_offset: int, kv_offset: int, attention_mask: Tensor | None) -> bool:
    """Whether what a causal mask shows is no padding, and all there is or the upper-left triangle: the usual case, without arrays."""
    if q_offset + q_length == kv_offset + kv_length and q_length in (1, kv_length):
        end = kv_offset + kv_length
    elif q_offset == kv_offset and q_length > 1:
        end = kv_offset + q_length
    else:
        return False
    return attention_mask is None or (attention_mask.shape[1] >= end and bool(attention_mask[:, kv_offset:end].all()))


def _without_padding(first: Tensor, end: Tensor, attention_mask: Tensor | None, kv_offset: int, kv_length: int) -> _Padded:
    """The runs within the keys that are no padding, and the holes where those keys are no run themselves.

    `attention_mask` is bool `[batch, keys]`, True at a key that is no padding; keys after its end are padding.
    """
    if attention_mask is None:
        return first, end, None
    own = attention_mask[:, kv_offset : kv_offset + kv_length].bool()
    own = torch.nn.functional.pad(own, (0, kv_length - own.shape[1]))
    if own.all():
        return first, end, None
    number = own.sum(-1)
    start = own.to(torch.uint8).argmax(-1)  # the first of the largest
    last = kv_length - own.flip(-1).to(torch.uint8).argmax(-1)
    first = torch.maximum(first, start[:, None, None])
    end = torch.minimum(end, torch.where(number > 0, last, 0)[:, None, None])
    run = torch.equal(torch.where(number > 0, last - start, 0), number)
    return first, end, None if run else own[:, None, None, :]


def _needs_no_mask(first: Tensor, end: Tensor, kv_length: int, causal_skip: bool, bidirectional_skip: bool) -> bool:
    """Whether None says the same: all is seen, or it is the causal mask that `is_causal` stands for, from the upper left."""
    q_length = first.shape[-1]
    if first.any():
        return False
    if bool((end == kv_length).all()) and (bidirectional_skip or (causal_skip and q_length == 1)):
        return True
    return causal_skip and q_length > 1 and torch.equal(end, torch.arange(1, q_length + 1).expand_as(end))

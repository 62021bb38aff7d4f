"""`MultiHeadAttention`: PyTorch's `nn.MultiheadAttention` over regard, for numpy arrays and tensors of PyTorch.

Source: Vaswani et al. 2017, "Attention Is All You Need", §3.2.2; `torch.nn.MultiheadAttention`, 2.15.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from regard import _torch_masks
from regard._attention import attention
from regard._projections import Projection, StateDict, as_numpy, as_tensor, broadcast, is_tensor, joined, of_state, zeros


class MultiHeadAttention:
    """Projections, attention in heads, and the projection of the output.

    Made by `MultiHeadAttention.from_torch`. Called with numpy arrays, float32, its weights are packed on the first call and stay as they
    were then; called with tensors of PyTorch, gradients flow to the inputs, to float masks and to the parameters that it was made from.

    Unlike PyTorch's, a query that sees no key has weights of zero, also where `need_weights`, and never NaN.
    """

    def __init__(self, state: Mapping[str, Any], num_heads: int, *, add_zero_attn: bool = False, batch_first: bool = False) -> None:
        """`state` is the state dict of an `nn.MultiheadAttention`, of numpy arrays or of tensors; see `from_torch`."""
        if not isinstance(num_heads, int) or isinstance(num_heads, bool):
            raise TypeError(f"num_heads is of type {type(num_heads).__name__} and must be an integer")
        entries = StateDict(state)
        out_weight = entries.take("out_proj.weight", None, None)
        self.embed_dim = int(out_weight.shape[0])
        if num_heads < 1 or self.embed_dim % num_heads:
            raise ValueError(f"num_heads is {num_heads} and must divide the embedding, which has {self.embed_dim} elements")
        self.num_heads = num_heads
        self.add_zero_attn = add_zero_attn
        self.batch_first = batch_first
        self._in = dict(zip(("query", "key", "value"), of_state(entries, self.embed_dim)))
        self._out = Projection(out_weight, entries.take_if_there("out_proj.bias", self.embed_dim))
        bias_k = entries.take_if_there("bias_k", 1, 1, self.embed_dim)
        self._bias_kv = None if bias_k is None else (bias_k, entries.take("bias_v", 1, 1, self.embed_dim))
        entries.finish()

    @classmethod
    def from_torch(
        cls, module: Any, num_heads: int | None = None, *, add_zero_attn: bool | None = None, batch_first: bool | None = None
    ) -> MultiHeadAttention:
        """The layer of an `nn.MultiheadAttention`, or of its state dict (of tensors or numpy arrays).

        A state dict does not hold `num_heads`, `add_zero_attn` and `batch_first`; of a module, they are its own where none is given. The
        module's dropout is not taken over: a call names its own.

        Raises `ValueError` for entries that are missing, unknown or misshapen, or heads that do not divide the embedding.
        """
        if isinstance(module, Mapping):
            if num_heads is None:
                raise TypeError("num_heads is missing, and a state dict does not hold it")
            return cls(module, num_heads, add_zero_attn=bool(add_zero_attn), batch_first=bool(batch_first))
        if not hasattr(module, "named_parameters"):
            raise TypeError(f"module is of type {type(module).__name__} and must be an nn.MultiheadAttention or its state dict")
        return cls(
            dict(module.named_parameters()),
            module.num_heads if num_heads is None else num_heads,
            add_zero_attn=module.add_zero_attn if add_zero_attn is None else add_zero_attn,
            batch_first=module.batch_first if batch_first is None else batch_first,
        )

    def __call__(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        dropout: tuple[float, int] | None = None,
    ) -> tuple[Any, Any | None]:
        """The output, and the weights of the keys where `need_weights` (else None): the arguments of `nn.MultiheadAttention.forward`.

        query `[q_len, batch, embed_dim]`, key and value `[kv_len, batch, dim]`; batch first if the layer is, and without the batch for one
        text. Both masks have PyTorch's sense here, True hides; as floats they are added. `key_padding_mask` is `[batch, kv_len]`;
        `attn_mask` `[q_len, kv_len]` or `[batch · num_heads, q_len, kv_len]`. `is_causal` hides later keys (upper left), with an
        `attn_mask` beside it or without. `dropout=(p, seed)` drops weights.

        The output is shaped as the query; the weights are `[batch, q_len, kv_len]`, averaged over heads, or
        `[batch, num_heads, q_len, kv_len]` where not `average_attn_weights`. Keys that `add_bias_kv` and `add_zero_attn` add come last.

        Raises `ValueError` or `TypeError` that names the argument.
        """
        inputs = self._batched({"query": query, "key": key, "value": value})
        q, k, v = (self._split(self._in[name](x)) for name, x in inputs.items())
        added = (self._bias_kv is not None) + self.add_zero_attn
        k, v = self._extended(k, v)
        rules = _torch_masks.options(key_padding_mask, attn_mask, is_causal, self.num_heads, q, k, added, batched=query.ndim == 3)
        rules |= {"layout": "blhd", "dropout": dropout}
        out = _attend(q, k, v, rules)
        out = self._out(out.reshape((*out.shape[:2], self.embed_dim)))
        weights = self._weights(q, k, rules, average_attn_weights) if need_weights else None
        if query.ndim == 2:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.swapaxes(0, 1), weights

    def _batched(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs, checked, as `[batch, length, dim]`."""
        query = inputs["query"]
        for name, x in inputs.items():
            self._check(name, x, query)
        if query.ndim == 2:
            inputs = {name: x[None] for name, x in inputs.items()}
        elif not self.batch_first:
            inputs = {name: x.swapaxes(0, 1) for name, x in inputs.items()}
        (batch, _, _), k, v = (tuple(x.shape) for x in inputs.values())
        if k[0] != batch or k[:2] != v[:2]:
            raise ValueError(
                f"key has [batch, length] {list(k[:2])} and value {list(v[:2])}: both must be equal, with query's batch {batch}"
            )
        return inputs

    def _check(self, name: str, x: Any, query: Any) -> None:
        if not isinstance(x, np.ndarray) and not is_tensor(x):
            raise TypeError(f"{name} is of type {type(x).__name__} and must be a numpy array or a tensor of PyTorch")
        if is_tensor(x) != is_tensor(query):
            raise TypeError(
                f"{name} is of type {type(x).__name__} and query of type {type(query).__name__}: give arrays of one library"
            )
        if isinstance(x, np.ndarray) and x.dtype != np.float32:
            raise TypeError(f"{name} is {x.dtype} and must be float32 as a numpy array")
        if query.ndim not in (2, 3) or x.ndim != query.ndim:
            raise ValueError(f"{name} has {x.ndim} dimensions and needs 3 with a batch, 2 without, and as many as query")
        if x.shape[-1] != self._in[name].inputs:
            raise ValueError(f"{name} has {x.shape[-1]} elements at each position and needs {self._in[name].inputs}")

    def _split(self, x: Any) -> Any:
        """`[batch, length, embed_dim]` as `[batch, length, heads, dim]`."""
        return x.reshape((*x.shape[:2], self.num_heads, self.embed_dim // self.num_heads))

    def _extended(self, k: Any, v: Any) -> tuple[Any, Any]:
        """Keys and values with those that every query sees: of `add_bias_kv`, then zeros of `add_zero_attn`."""
        more_k, more_v = [k], [v]
        one = (k.shape[0], 1, *k.shape[2:])
        if self._bias_kv is not None:
            bias_k, bias_v = (as_tensor(b, k) if is_tensor(k) else as_numpy(b) for b in self._bias_kv)
            more_k.append(broadcast(self._split(bias_k), one))
            more_v.append(broadcast(self._split(bias_v), one))
        if self.add_zero_attn:
            nothing = zeros(one, k)
            more_k.append(nothing)
            more_v.append(nothing)
        return (joined(more_k, 1), joined(more_v, 1)) if len(more_k) > 1 else (k, v)

    def _weights(self, q: Any, k: Any, rules: dict[str, Any], average: bool) -> Any:
        """The weights are the output for values that are the rows of the identity: those that the output has, dropped ones too."""
        size = k.shape[1]
        if is_tensor(k):
            eye = k.new_zeros((size, size)).fill_diagonal_(1)
        else:
            eye = np.eye(size, dtype=k.dtype)
        values = broadcast(eye[None, :, None, :], (*k.shape[:3], size))
        weights = _attend(q, k, values, rules).swapaxes(1, 2)
        return weights.mean(1) if average else weights


def _attend(q: Any, k: Any, v: Any, rules: dict[str, Any]) -> Any:
    if not is_tensor(q):
        return attention(q, k, v, **rules)
    from regard.torch import attention as of_tensors

    return of_tensors(q, k, v, **rules)

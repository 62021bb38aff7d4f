"""Hooks: `with watch(model) as seen:` looks on at every attention of a Hugging Face model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from regard._regard import Report

from .facts import Facts, Range, wanted
from .reading import Reading

if TYPE_CHECKING:
    from regard.transformers.forward import Call


@contextmanager
def watch(
    model: Any,
    *,
    first: int = 4,
    recent: int = 32,
    top: int = 8,
    ranges: Mapping[str, Range] | None = None,
    layers: Iterable[str] | None = None,
    maps: bool = True,
) -> Iterator[Watch]:
    """Looks on while a Hugging Face model with `attn_implementation="regard"` is called inside the block; its results do not change.

    `first`, `recent`, `top` and `ranges` are those of `inspect`, counted in tokens of each text: padding on the left does not count. `layers`
    names modules of the model: only attention inside of them is watched. `maps=False` saves the passes that only a report needs.

    Calls add up to readings. A forward pass without a cache, or with an empty one, begins a reading; a pass that goes on from the cache of
    the last reading adds its tokens as rows, so `model.generate(...)` is one reading: of the prompt, and of every token that was fed back (the
    last one drawn is not). Keys count from the beginning of the text, also where a sliding window's cache has dropped the first ones.

    Raises `TypeError` when the model is none of transformers', `ValueError` when it computes attention otherwise or has no such layers.
    """
    from regard.transformers.forward import observers

    what = wanted(first, recent, top, ranges)
    what["ranges"] = [("first token", (0, 1)), *what["ranges"]]  # for the report
    watching = Watch(model, what, layers, maps)
    observers.append(watching._observe)
    hooks = [hook for module in watching._entries() for hook in watching._hooks(module)]
    try:
        yield watching
    finally:
        for hook in hooks:
            hook.remove()
        observers.remove(watching._observe)


class Watch:
    """What `watch` sees: `readings`, and those of the only one at hand."""

    def __init__(self, model: Any, what: dict[str, Any], layers: Iterable[str] | None, maps: bool) -> None:
        _check(model)
        self._model, self._wanted, self._maps = model, what, maps
        self._names = _names(model, layers)
        self._depth, self._before, self._began = 0, 0, 0.0
        self._calls: Counter[str] = Counter()
        self._encoding = False
        self.readings: list[Reading] = []
        """One for each batch of texts, in the order in which the model read them."""

    @property
    def reading(self) -> Reading:
        """The only reading.

        Raises `ValueError` where there is none, or more than one.
        """
        if len(self.readings) != 1:
            raise ValueError(f"the model read {len(self.readings)} batches of texts: readings[i] has those of each")
        return self.readings[0]

    @property
    def facts(self) -> Facts:
        """`Reading.facts` of the only reading: `[layers, batch, heads, rows]`."""
        return self.reading.facts

    @property
    def layers(self) -> list[str]:
        """`Reading.layers` of the only reading."""
        return self.reading.layers

    def layer(self, name: str) -> Facts:
        """`Reading.layer` of the only reading: `[batch, heads, rows]`."""
        return self.reading.layer(name)

    def report(self, *, text: int = 0, tokens: Sequence[str] | None = None, title: str | None = None) -> Report:
        """`Reading.report` of the only reading."""
        return self.reading.report(text=text, tokens=tokens, title=title)

    def _entries(self) -> list[Any]:
        """The modules whose calls are forward passes: generation calls an encoder by itself."""
        encoder = self._model.get_encoder() if self._model.config.is_encoder_decoder else None
        return [self._model] if encoder is None or encoder is self._model else [self._model, encoder]

    def _hooks(self, module: Any) -> list[Any]:
        return [
            module.register_forward_pre_hook(self._begin, with_kwargs=True),
            module.register_forward_hook(self._end, always_call=True),
        ]

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pass begins."""
        self._depth += 1
        if self._depth > 1:
            return
        cache = kwargs.get("past_key_values") if kwargs.get("cache") is None else kwargs["cache"]
        self._before, self._began = 0 if cache is None else int(cache.get_seq_length()), time.perf_counter()
        self._calls.clear()
        ids = None if self._model.config.is_encoder_decoder else _ids(args, kwargs)
        if not self._goes_on(ids):
            padding = [] if self._model.config.is_encoder_decoder else _padding(kwargs.get("attention_mask"))
            reading = Reading(_told(self._model), self._wanted, begin=self._before, padding=padding, maps=self._maps)
            self.readings.append(reading)
        self._encoding = module is not self._model
        if ids is not None:
            self.readings[-1]._ids.append(ids)

    def _goes_on(self, ids: Any) -> bool:
        """Whether the last reading does."""
        if not self.readings:
            return False
        last = self.readings[-1]
        if self._encoding:
            return self._before == 0  # the decoder begins to read what the encoder has read
        same = ids is None or not last._ids or last._ids[-1].shape[0] == ids.shape[0]
        return same and 0 < self._before == last.length

    def _end(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """A forward pass ends, well or not."""
        self._depth -= 1
        if self._depth == 0:
            self.readings[-1].seconds += time.perf_counter() - self._began

    def _observe(self, module: Any, call: Call) -> None:
        """A layer computes attention."""
        import torch

        name = self._names.get(id(module))
        if name is None:
            return
        if torch.compiler.is_compiling():
            raise NotImplementedError("the model is compiled, and a graph cannot be watched: watch it before torch.compile")
        if self._depth == 0:
            raise ValueError(f"layer {name} is called, and the model that is watched is not: watch the one that is called")
        self._calls[name] += 1
        if self._calls[name] > 1:  # a layer that the model calls several times in a pass
            name = f"{name} ({self._calls[name]})"
        with torch.no_grad():
            self.readings[-1]._add(name, call, self._before)


def _check(model: Any) -> None:
    """Refuses what cannot be watched."""
    from transformers import AttentionInterface, PreTrainedModel

    from regard.transformers import attention_forward

    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model is of type {type(model).__name__} and must be a model of transformers (PreTrainedModel)")
    used = sorted({part.config._attn_implementation or "eager" for part in model.modules() if isinstance(part, PreTrainedModel)})
    if not any(AttentionInterface._global_mapping.get(name) is attention_forward for name in used):
        raise ValueError(
            f"model has attn_implementation={', '.join(map(repr, used))}, and what regard computes can be watched: call"
            ' regard.transformers.register() and model.set_attn_implementation("regard")'
        )


def _names(model: Any, layers: Iterable[str] | None) -> dict[int, str]:
    """The name of every module that is watched, by identity."""
    names = {id(module): name for name, module in model.named_modules()}
    if layers is None:
        return names
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r} and must be a list of names of modules")
    wanted_names = list(layers)
    for name in wanted_names:
        if name not in names.values():
            raise ValueError(f"layers has {name!r}, and the model has no module of this name: model.named_modules() has them all")
    inside = tuple(f"{name}." for name in wanted_names)
    return {key: name for key, name in names.items() if f"{name}.".startswith(inside)}


def _ids(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The ids of the tokens of a pass, int64 `[batch, length]`, if there are any."""
    ids: Any = args[0] if args and kwargs.get("input_ids") is None else kwargs.get("input_ids")
    is_ids = getattr(ids, "ndim", 0) == 2 and not ids.is_floating_point()
    return np.asarray(ids.detach().cpu()).astype(np.int64) if is_ids else None


def _padding(mask: Any) -> list[int]:
    """How many positions precede each text: a mask `[batch, positions]` is 0 there. Masks that a model was given whole say nothing of it."""
    if getattr(mask, "ndim", 0) != 2:
        return []
    own = np.asarray(mask.detach().cpu()) != 0
    return [int(row.argmax()) if row.any() else row.size for row in own]


def _told(model: Any) -> dict[str, Any]:
    """What a report says of the model."""
    config = model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    return {
        "title": str(model.config.name_or_path or model.config.model_type),
        "model_type": str(model.config.model_type),
        "context": int(context) if isinstance(context, int) else 0,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }

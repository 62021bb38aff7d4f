"""What the layers of a model did with a batch of texts, in one forward pass and in those that went on from its cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from regard._regard import Report, _inspect, _map, _report, explain

from .facts import Facts
from .pooled import Pooled

if TYPE_CHECKING:
    from regard.transformers.forward import Call


@dataclass(frozen=True)
class Place:
    """Where the keys of one call lie in a text: `start..end` are its own, the first of them is token `first_key`, and the first query
    token `first_row`, below 0 where it is padding."""

    start: int
    end: int
    first_key: int
    first_row: int

    @classmethod
    def of(cls, call: Call, before: int, padding: int) -> Place:
        """After `before` positions in the cache, in a text that `padding` positions precede."""
        q_len, kv_len = call.query.shape[2], call.key.shape[2]
        if not call.causal:
            return cls(0, kv_len, 0, 0)
        seen = before + q_len
        gone = max(0, seen - kv_len)  # a full cache of a window holds the last keys; one of fixed size has room for later ones
        start, end = max(0, padding - gone), min(kv_len, seen - gone)
        return cls(min(start, end), end, max(0, gone - padding), before - padding)


@dataclass
class Text:
    """One text in one layer: its facts by call, and the map of its weights."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    pooled: Pooled | None = None

    def add(self, call: Call, place: Place, wanted: dict[str, Any], maps: bool) -> None:
        """One call: `call` has this text alone, and the keys that `place` says."""
        options, (q_len, kv_len) = call.options(), (call.query.shape[2], call.key.shape[2])
        facts, _ = _inspect(call.query, call.key, call.value, _moved(wanted, place.first_key, kv_len), **options)
        facts = {name: array[0] for name, array in facts.items()}
        facts["top_keys"][facts["top_keys"] >= 0] += place.first_key
        self.calls.append(facts)
        if not maps:
            return
        if self.pooled is None:
            self.pooled = Pooled(call.query.shape[1])
        self.pooled.grow(max(place.first_row + q_len, place.first_key + kv_len))
        skipped = max(0, -place.first_row)
        row = place.first_row + skipped
        rows, keys = self.pooled.cell(row, place.first_key)
        part = {"batch": None, "heads": None, "rows": (min(skipped, q_len), q_len), "keys": None, "block": (rows, keys)}
        means = _map(call.query, call.key, part, facts["lse"][None], **options)[0]
        self.pooled.add(means, range(row, place.first_row + q_len, rows), range(place.first_key, place.first_key + kv_len, keys))

    def facts(self) -> dict[str, Any]:
        """`[heads, rows]`, the rows of all calls."""
        return _with_classes(self.calls, lambda arrays: np.concatenate(arrays, axis=1))


@dataclass
class Layer:
    """One layer, which has texts of one shape."""

    texts: list[Text]
    kv_heads: int
    head_dim: int


class Reading:
    """A batch of texts as the layers of a model read it: in one forward pass, and in the passes that went on from its cache.

    Rows are positions of the batch, padding among them; what is said of keys — the first ones, ranges, largest weights, distances — counts
    the tokens of each text, without the padding on its left.
    """

    def __init__(self, model: dict[str, Any], wanted: dict[str, Any], *, begin: int, padding: list[int], maps: bool) -> None:
        self._model, self._wanted, self._maps = model, wanted, maps
        self._begin, self._padding = begin, padding
        self._layers: dict[str, Layer] = {}
        self._ids: list[Any] = []
        self.length = begin
        """Positions of the batch that the model has read."""
        self.seconds = 0.0
        """How long the model's forward passes took, this package's looking on included."""
        self.kernel = ""
        """The kernel that computes."""

    @property
    def layers(self) -> list[str]:
        """The names of the layers that were seen, in the order in which the model calls them."""
        return list(self._layers)

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """The ids of the tokens that the model read, `[batch, length]`; None where it was given none, or has an encoder and a decoder."""
        return np.concatenate(self._ids, axis=1) if self._ids else None

    @property
    def facts(self) -> Facts:
        """Facts of all layers, `[layers, batch, heads, rows]`.

        Raises `ValueError` where layers have different shapes, as an encoder and a decoder may: `layer` has those of each.
        """
        return self._named(_with_classes(self._same(), np.stack))

    def layer(self, name: str) -> Facts:
        """Facts of one layer, `[batch, heads, rows]`."""
        if name not in self._layers:
            raise ValueError(f"name is {name!r} and must be one of the layers that were seen: {', '.join(self._layers)}")
        return self._named(self._of(name))

    def report(self, *, text: int = 0, tokens: Sequence[str] | None = None, title: str | None = None) -> Report:
        """A report of one text of the batch: the page, JSON and table of `regard inspect`.

        `tokens` are the text's, as one reads them, with or without the padding on its left; without, those are shown by number. `title` is
        by default the model's name. What needs more than looking on — scores of heads on texts of their own, losses, ablation — is not measured.

        Raises `ValueError` where layers have different shapes or do not attend to the text itself (a decoder to an encoder's), the text has
        fewer than two tokens, or its beginning was read before.
        """
        if not self._maps:
            raise ValueError("maps is False in watch(), and a report needs them")
        if self._begin:
            raise ValueError(f"the model had read {self._begin} positions before it was watched, and a report needs all of a text")
        layers = self._same()
        batch, heads, rows = layers[0]["lse"].shape
        if isinstance(text, bool) or not isinstance(text, int) or not 0 <= text < batch:
            raise ValueError(f"text is {text!r} and must be a number from 0 to {batch - 1}: which of the batch")
        padding = self._padding[text] if self._padding else 0
        first = next(iter(self._layers.values()))
        told = {
            **self._model,
            "title": self._model["title"] if title is None else title,
            "kv_heads": first.kv_heads,
            "head_dim": first.head_dim,
            "kernel": self.kernel,
            "seconds": self.seconds,
            **{name: min(self._wanted[name], rows) for name in ("first", "recent")},
            "top": self._wanted["top"],
            "tokens": self._tokens(text, tokens, rows, padding),
        }
        widest = _with_classes(layers, lambda arrays: arrays)
        each = [{name: widest[name][i][text][:, padding:] for name in widest} for i in range(len(layers))]
        for facts, (name, layer) in zip(each, self._layers.items(), strict=True):
            pooled = layer.texts[text].pooled
            if pooled is None or pooled.tokens != rows - padding:
                raise ValueError(f"layer {name} has other keys than the text's own tokens: watch the others with layers=[...]")
            facts["cells"] = pooled.means()
        return _report(told, each)

    def _tokens(self, text: int, given: Sequence[str] | None, rows: int, padding: int) -> list[str]:
        """The tokens of a text, without its padding."""
        if given is None:
            ids = self.ids
            return [str(i) for i in (range(rows) if ids is None or ids.shape[1] != rows else ids[text])][padding:]
        if isinstance(given, str) or not all(isinstance(token, str) for token in given):
            raise TypeError("tokens must be a list of strings, one for each token")
        if len(given) not in (rows, rows - padding):
            raise ValueError(f"tokens has {len(given)} strings and needs {rows - padding}, one for each token of the text")
        return list(given)[len(given) - (rows - padding) :]

    def _of(self, name: str) -> dict[str, Any]:
        """Arrays of one layer, `[batch, heads, rows]`."""
        return _with_classes([text.facts() for text in self._layers[name].texts], np.stack)

    def _same(self) -> list[dict[str, Any]]:
        """Arrays of all layers, where these have one shape."""
        if not self._layers:
            raise ValueError("no layer was seen: the model that is watched must be called inside the block")
        all_layers = {name: self._of(name) for name in self._layers}
        shapes = {arrays["lse"].shape for arrays in all_layers.values()}
        if len(shapes) > 1:
            each = ", ".join(f"{name} {list(arrays['lse'].shape)}" for name, arrays in all_layers.items())
            raise ValueError(f"layers have different shapes: {each}; ask for one with layer(name), or watch some with layers=[...]")
        return list(all_layers.values())

    def _named(self, arrays: dict[str, Any]) -> Facts:
        masses = arrays.pop("ranges")
        names = [name for name, _ in self._wanted["ranges"]][1:]
        return Facts(**arrays, ranges={name: masses[..., 1 + i] for i, name in enumerate(names)})

    def _add(self, name: str, call: Call, before: int) -> None:
        """One call of one layer, after `before` positions."""
        batch, heads, q_len, head_dim = call.query.shape
        layer = self._layers.setdefault(name, Layer([Text() for _ in range(batch)], call.key.shape[1], head_dim))
        if len(layer.texts) != batch:
            raise ValueError(
                f"layer {name} is called with a batch of {batch}, and was with one of {len(layer.texts)}: watch one at a time"
            )
        for i, text in enumerate(layer.texts):
            place = Place.of(call, before, self._padding[i] if call.causal and i < len(self._padding) else 0)
            text.add(call.part(i, place.start, place.end), place, self._wanted, self._maps)
        if call.causal:
            self.length = before + q_len
        if not self.kernel:
            self.kernel = explain(*(tensor.detach() for tensor in call[:3])).kernel


def _moved(wanted: dict[str, Any], first_key: int, kv_len: int) -> dict[str, Any]:
    """The same keys, counted from token `first_key`, as far as they are among so many."""

    def near(key: int) -> int:
        return min(max(key - first_key, 0), kv_len)

    ranges = [(name, (near(start), near(end))) for name, (start, end) in wanted["ranges"]]
    return {**wanted, "first": max(0, wanted["first"] - first_key), "ranges": ranges}


def _with_classes(parts: list[dict[str, Any]], join: Any) -> dict[str, Any]:
    """Arrays of several parts, joined by name; as many classes of distances in each as the widest has."""
    classes = max(part["distances"].shape[-1] for part in parts)

    def wide(array: Any) -> Any:
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, classes - array.shape[-1])])

    return {name: join([wide(part[name]) if name == "distances" else part[name] for part in parts]) for name in parts[0]}

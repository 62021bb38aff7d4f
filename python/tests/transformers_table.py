"""Hugging Face models with `attn_implementation="regard"` against `"eager"`: logits, every parameter's gradient, and generation.

    python python/tests/transformers_table.py [part of a family's name ...]

prints a table of families and checks, each cell the largest error as a share of its tolerance, or "-" where the family has no such
input, then passed/total; the exit status is 1 if one fails. Families that transformers does not route through its `AttentionInterface`
are printed as such and not counted.

The tolerance is measured, for each tensor of each check. An inner product of n terms, rounded in any order, is off by at most n·u of its
terms, u = 2⁻²⁴ (Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1). Attention is inner products, of head_dim terms in
its scores and kv_len in its output, and so is its gradient. So eager runs again, a few times, with every q, k, v and output of every
layer, and their gradients, and those of the scores, moved at random by as much. How far that moves a tensor of the whole model is how
far two right answers may lie apart.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers_families import FAMILIES, VOCABULARY, Family

import regard.transformers
from regard.transformers import forward

UNIT_ROUNDOFF = 2.0**-24
BATCH, LENGTH, NEW_TOKENS = 2, 19, 9
DRAWS = 3
NOISE = torch.Generator()  # its own: the checks seed torch's
Results = dict[str, Tensor]
Check = Callable[[PreTrainedModel, Family], Results]


# --- the tolerance


class Moved(torch.autograd.Function):
    """x and, on the way back, its gradient, moved at random by at most `terms`·u of the largest number of each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, terms: int) -> Tensor:
        """x, moved."""
        ctx.terms = terms
        return x + _noise(x.abs().amax(-1, keepdim=True).expand_as(x), terms)

    @staticmethod
    def backward(ctx: Any, d_x: Tensor) -> tuple[Tensor, None]:
        """The gradient, moved."""
        return d_x + _noise(d_x.abs().amax(-1, keepdim=True).expand_as(d_x), ctx.terms), None


class ScoresMoved(torch.autograd.Function):
    """out; on the way back the gradient of the scores, P ∘ (dO·Vᵀ − dO·out), is moved by at most `terms`·u of P ∘ |dO||V|.

    The two inner products nearly cancel, so their rounding is not small beside what is left.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, terms: int, scale: float) -> Tensor:
        """out `[batch, length, heads, dim]`, unchanged; q, k, v `[batch, heads, length, dim]`."""
        ctx.save_for_backward(q, k, v, p)
        ctx.terms, ctx.scale = terms, scale
        return out.clone()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """d_out, and what the scores' rounding adds to the gradients of q and k."""
        q, k, v, p = ctx.saved_tensors
        group = q.shape[1] // k.shape[1]
        largest = v.norm(dim=-1).amax(-1).repeat_interleave(group, 1)[..., None, None]
        d_s = _noise(p * d_out.norm(dim=-1).transpose(1, 2)[..., None] * largest, ctx.terms) * ctx.scale
        d_k = (d_s.transpose(2, 3) @ q).unflatten(1, (k.shape[1], group)).sum(2)
        return d_out, d_s @ k.repeat_interleave(group, 1), d_k, None, None, None, None


def _noise(size: Tensor, terms: int) -> Tensor:
    return size * terms * UNIT_ROUNDOFF * (1 - 2 * torch.randint(2, size.shape, generator=NOISE))


def moved_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The model's own eager attention, with everything moved that it rounds."""
    eager = sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
    terms, scale = max(query.shape[-1], key.shape[2]), kwargs.get("scaling") or query.shape[-1] ** -0.5
    query, key, value = (Moved.apply(tensor, terms) for tensor in (query, key, value))
    out, weights = eager(module, query, key, value, attention_mask, **kwargs)
    return ScoresMoved.apply(Moved.apply(out, terms), query, key, value, weights.detach(), terms, scale), None


# --- the checks: what a model computes, by name


def inputs_of(family: Family, padding: str | None = None) -> dict[str, Tensor]:
    """What the model reads; with `padding` "left" or "right" the second of the batch is shorter than the first by a third."""
    torch.manual_seed(1)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    if padding is not None:
        mask[1, slice(6) if padding == "left" else slice(-6, None)] = 0
    given = {} if padding is None else {"attention_mask": mask}
    ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH))
    if family.kind == "vision":
        return {"pixel_values": torch.randn(BATCH, 3, 16, 16)}
    if family.kind == "wave":
        return {"input_values": torch.randn(BATCH, 8 * LENGTH), **{name: m.repeat_interleave(8, 1) for name, m in given.items()}}
    if family.kind == "whisper":
        return {
            "input_features": torch.randn(BATCH, 8, 40),
            "decoder_input_ids": ids,
            **{f"decoder_{name}": m for name, m in given.items()},
        }
    if family.kind == "seq2seq":
        target = {"decoder_input_ids": ids[:, :14], **({"decoder_attention_mask": mask[:, -14:]} if padding == "right" else {})}
        return {"input_ids": ids, **given, **target}
    return {"input_ids": ids, **given}


def defined_rows(model: PreTrainedModel, inputs: dict[str, Any], rows: int) -> Tensor:
    """Which rows `[batch, rows]` of the result belong to no padding."""
    mask = inputs.get("decoder_attention_mask", None if "decoder_input_ids" in inputs else inputs.get("attention_mask"))
    if mask is None:
        return torch.ones(BATCH, rows, dtype=torch.bool)
    if "input_values" in inputs:
        mask = model._get_feature_vector_attention_mask(rows, mask)
    return mask.bool()


def result(outputs: Any) -> Tensor:
    """The logits, or the last hidden states of a model that has none."""
    tensor: Tensor = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    return tensor.flatten(2).transpose(1, 2) if tensor.ndim == 4 else tensor


def train(model: PreTrainedModel, inputs: dict[str, Any]) -> Results:
    """The result, and every parameter's gradient of its product with a random tensor."""
    model.zero_grad()
    out = result(model(**inputs))
    out = out[defined_rows(model, inputs, out.shape[1])]
    torch.manual_seed(2)
    (out * torch.randn(out.shape)).sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"result": out.detach(), **grads}


def plain(model: PreTrainedModel, family: Family) -> Results:
    """Without padding."""
    return train(model, inputs_of(family))


def left(model: PreTrainedModel, family: Family) -> Results:
    """Padding on the left, of the encoder's text where there is one."""
    return train(model, inputs_of(family, "left"))


def right(model: PreTrainedModel, family: Family) -> Results:
    """Padding on the right."""
    return train(model, inputs_of(family, "right"))


def packed(model: PreTrainedModel, family: Family) -> Results:
    """Three texts in one row, told apart by positions that start again; with a cache transformers would take them for one."""
    positions = torch.cat([torch.arange(8), torch.arange(1), torch.arange(10)])
    return train(model, {**inputs_of(family), "position_ids": positions.expand(BATCH, -1), "use_cache": False})


@torch.no_grad()
def continued(model: PreTrainedModel, family: Family) -> Results:
    """The end of a text whose beginning, with padding on the left, is in a cache."""
    ids, mask = inputs_of(family, "left").values()
    begun = model(input_ids=ids[:, :12], attention_mask=mask[:, :12], use_cache=True)
    return {"result": result(model(input_ids=ids[:, 12:], attention_mask=mask, cache=begun.past_key_values, use_cache=True))}


def generate(model: PreTrainedModel, family: Family, **options: Any) -> Results:
    """Greedy tokens, and the logits that chose them, from texts with padding on the left."""
    inputs = {name: tensor for name, tensor in inputs_of(family, "left").items() if not name.startswith("decoder")}
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    wanted = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    out = model.generate(**inputs, **wanted, **options)
    return {"tokens": out.sequences, "logits": torch.stack(out.logits)}


def static(model: PreTrainedModel, family: Family) -> Results:
    """The same with a cache of fixed length."""
    return generate(model, family, cache_implementation="static")


COLUMNS = ("plain", "right", "left", "packed", "continued", "generate", "static", "refuses")
CHECKS: dict[str, dict[str, Check]] = {
    "decoder": {
        "plain": plain,
        "right": right,
        "left": left,
        "packed": packed,
        "continued": continued,
        "generate": generate,
        "static": static,
    },
    "encoder": {"plain": plain, "right": right, "left": left},
    "seq2seq": {"plain": plain, "right": right, "left": left, "generate": generate, "static": static},
    "whisper": {"plain": plain, "right": right, "generate": generate, "static": static},
    "vision": {"plain": plain},
    "wave": {"plain": plain, "right": right},
}


# --- the comparison


@dataclass(frozen=True)
class Cell:
    """One check: the largest error as a share of its tolerance, in which tensor, or why there is none."""

    share: float
    where: str

    @property
    def passed(self) -> bool:
        """Whether everything is within its tolerance; not so with NaN."""
        return self.share <= 1


def compare(eager: Results, moved: list[Results], ours: Results) -> Cell:
    """The worst of all tensors; integers must be equal."""
    if eager.keys() != ours.keys():
        return Cell(float("inf"), f"only one has {sorted(eager.keys() ^ ours.keys())}")
    shares = {name: share(eager[name], [each[name] for each in moved], ours[name]) for name in eager}
    worst = max(shares, key=lambda name: (shares[name] != shares[name], shares[name]))
    return Cell(shares[worst], worst)


def share(eager: Tensor, moved: list[Tensor], ours: Tensor) -> float:
    """|ours − eager| of |moved − eager|, in the largest entry of each; and of u, for what the rest of the model rounds by itself."""
    if torch.equal(eager, ours):
        return 0.0
    if not eager.is_floating_point():
        return float("inf")
    allowed = max(float((each - eager).abs().max()) for each in moved) + UNIT_ROUNDOFF * float(eager.abs().max())
    return float((ours - eager).abs().max()) / allowed


def run(check: Check, family: Family, model: PreTrainedModel) -> Cell:
    """The check under eager, eager moved, and regard."""
    try:
        model.set_attn_implementation("eager")
        eager = check(model, family)
        model.set_attn_implementation("moved")
        moved = [check(model, family) for _ in range(DRAWS)]
        model.set_attn_implementation("regard")
        return compare(eager, moved, check(model, family))
    except Exception as error:  # noqa: BLE001 a check that raises has failed, and the others go on
        return Cell(float("inf"), f"{type(error).__name__} under {model.config._attn_implementation}: {error}")


def refuses(model: PreTrainedModel, family: Family) -> Cell:
    """Attention weights are refused, not left out."""
    model.set_attn_implementation("regard")
    try:
        model(**inputs_of(family), output_attentions=True)
    except (NotImplementedError, ValueError) as error:
        return Cell(0.0 if "output_attentions" in str(error) else float("inf"), str(error))
    return Cell(float("inf"), "output_attentions=True raised nothing")


def is_routed(model: PreTrainedModel, family: Family) -> bool:
    """Whether transformers calls a registered attention in this family."""
    calls = []
    original = forward.attention
    forward.attention = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    try:
        model.set_attn_implementation("regard")
        model(**inputs_of(family))
    finally:
        forward.attention = original
    return bool(calls)


def row(family: Family) -> dict[str, Cell] | None:
    """The family's cells; None if it is not routed."""
    model = family.build()
    if not is_routed(model, family):
        return None
    return {**{name: run(check, family, model) for name, check in CHECKS[family.kind].items()}, "refuses": refuses(model, family)}


def show(name: str, cells: dict[str, Cell]) -> None:
    """One line of the table, and one for each failure."""
    shown = [f"{cell.share:.2f}" if cell is not None else "-" for cell in (cells.get(column) for column in COLUMNS)]
    print(f"{name:24}" + "".join(f"{text:>10}" for text in shown), flush=True)
    for column, cell in cells.items():
        if not cell.passed:
            print(f"    FAILED {column}: {cell.share:.3g} of the tolerance, {cell.where}", flush=True)


def main(wanted: list[str]) -> int:
    """Prints the table; 0 if all passed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    regard.transformers.register()
    AttentionInterface.register("moved", moved_attention)
    AttentionMaskInterface.register("moved", eager_mask)
    print(f"{'error / tolerance':24}" + "".join(f"{column:>10}" for column in COLUMNS))
    counted, routed = [], 0
    for family in FAMILIES:
        if wanted and not any(part.lower() in family.name.lower() for part in wanted):
            continue
        cells = row(family)
        if cells is None:
            print(f"{family.name:24}  not routed by transformers", flush=True)
            continue
        show(family.name, cells)
        routed += 1
        counted += cells.values()
    passed = sum(cell.passed for cell in counted)
    print(f"{routed} families: {passed}/{len(counted)} checks passed")
    return 0 if counted and passed == len(counted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`regard.transformers`: the masks it builds against transformers' own, what it refuses, and models end to end where the table is silent."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM, masking_utils
from transformers.masking_utils import sdpa_mask
from transformers_families import FAMILIES, VOCABULARY, WINDOW

import regard.transformers
from regard.transformers import VisibleKeys, attention_forward, attention_mask, forward, runs

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def registered():
    regard.transformers.register()
    yield
    regard.transformers.register()


def family(name: str, **changes: Any):
    """The model of the table, with changes to its configuration."""
    found = next(each for each in FAMILIES if each.name == name)
    return dataclasses.replace(found, options={**found.options, **changes}).build()


def layer(**attributes: Any):
    """A module as attention sees it."""
    module = torch.nn.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def tensors(q_len: int = 5, kv_len: int = 5, dtype=torch.float32, batch: int = 2):
    torch.manual_seed(0)
    shapes = [(batch, 4, q_len, 8), (batch, 2, kv_len, 8), (batch, 2, kv_len, 8)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def reference(q, k, v, seen=None, scale=None, cap=None, bias=None, sinks=None):
    """softmax(softcap(scale · Q Kᵀ) + bias, sinks) V in float64, `[batch, length, heads, dim]`; a row that sees nothing is 0."""
    q, k, v = (each.double().repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (q, k, v))
    s = q @ k.transpose(2, 3) * (scale or q.shape[-1] ** -0.5)
    s = s if cap is None else cap * (s / cap).tanh()
    s = s if bias is None else s + bias
    s = s if seen is None else s.masked_fill(~seen, -torch.inf)
    sink = s.new_full((1,), -torch.inf) if sinks is None else sinks.double()
    s = torch.cat([s, sink.view(1, -1, 1, 1).expand(*s.shape[:1], s.shape[1], s.shape[2], 1)], -1)
    return (s.softmax(-1).nan_to_num()[..., :-1] @ v).transpose(1, 2)


def close(ours, truth, tolerance=1e-5):
    """`tolerance` covers f32: 32 · 2⁻²⁴ for sums of at most 32 terms near 1, with room for values up to 4."""
    assert ours.shape == truth.shape
    assert (ours.double() - truth).abs().max() <= tolerance


# --- registration


def test_registering_twice_is_as_good_as_once():
    regard.transformers.register()
    regard.transformers.register()
    assert AttentionInterface._global_mapping["regard"] is attention_forward
    assert AttentionMaskInterface._global_mapping["regard"] is attention_mask


def test_a_name_of_transformers_is_refused():
    for name in ("eager", "sdpa", "flex_attention"):
        with pytest.raises(ValueError, match=f"name is '{name}'"):
            regard.transformers.register(name)


def test_unregister_takes_it_out():
    regard.transformers.register("regard_again")
    regard.transformers.unregister("regard_again")
    assert "regard_again" not in AttentionInterface._global_mapping
    assert "regard_again" not in AttentionMaskInterface._global_mapping
    for name in ("regard_again", "sdpa"):
        with pytest.raises(ValueError, match="name"):
            regard.transformers.unregister(name)


# --- masks: always those of sdpa_mask, whether as runs of keys or as bools


def test_the_installed_transformers_means_what_runs_expects():
    assert runs.trusted()


def test_nothing_is_recognised_once_a_meaning_changes(monkeypatch):
    monkeypatch.setitem(runs.RULES, "causal_mask_function", lambda q: (q * 0, q))  # as if causal had come to exclude the diagonal
    runs.trusted.cache_clear()
    try:
        assert not runs.trusted()
        mask = attention_mask(1, 4, 4, allow_is_causal_skip=False)
        assert type(mask) is torch.Tensor
        assert torch.equal(mask, sdpa_mask(1, 4, 4, allow_is_causal_skip=False))
    finally:
        monkeypatch.undo()
        runs.trusted.cache_clear()


def padding(kind: str, length: int):
    """Bools `[2, length]`, True is no padding."""
    mask = torch.ones(2, length, dtype=torch.bool)
    if kind == "left":
        mask[1, :3] = False
    elif kind == "right":
        mask[1, -3:] = False
    elif kind == "holes":
        mask[0, 2], mask[1, 4:6] = False, False
    elif kind == "all":
        mask[1] = False
    elif kind == "short":
        mask = mask[:, :-2]
    return mask


FUNCTIONS = {
    "causal": masking_utils.causal_mask_function,
    "bidirectional": masking_utils.bidirectional_mask_function,
    "window": masking_utils.sliding_window_causal_mask_function(4),
    "window on both sides": masking_utils.sliding_window_bidirectional_mask_function(2),
    "chunks": masking_utils.chunked_causal_mask_function(4, torch.tensor([0, 3])),
}
SIZES = [(9, 9, 0, 0), (1, 9, 8, 0), (4, 9, 5, 0), (4, 16, 5, 0), (3, 6, 9, 6), (1, 12, 3, 0), (9, 12, 0, 0)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("pad", ["none", "whole", "left", "right", "holes", "all", "short"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_masks_are_those_of_sdpa(name, pad, sizes):
    q_len, kv_len, q_offset, kv_offset = sizes
    own = None if pad == "none" else padding(pad, kv_len + kv_offset)
    given = {"mask_function": FUNCTIONS[name], "attention_mask": own, "allow_is_causal_skip": False}
    mask = attention_mask(2, q_len, kv_len, q_offset, kv_offset, **given)
    truth = sdpa_mask(2, q_len, kv_len, q_offset, kv_offset, **given)
    assert isinstance(mask, VisibleKeys)
    native = mask.keys.mask().visible((2, 1, q_len, kv_len))
    assert torch.equal(torch.from_numpy(native), truth)
    assert torch.equal(mask & True, truth)
    assert torch.equal(torch.from_numpy(mask.keys.mask().visible((2, 1, q_len, kv_len))), truth)  # as bools, from now on


@pytest.mark.parametrize("name", FUNCTIONS)
def test_packed_positions_are_those_of_sdpa(name):
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 0, 0, 1, 2, 3]])
    documents = masking_utils.find_packed_sequence_indices(positions)
    moved = masking_utils.remap_positions_for_packed_sequence(FUNCTIONS[name], positions)
    function = masking_utils.and_masks(moved, masking_utils.packed_sequence_mask_function(documents))
    given = {"mask_function": function, "allow_is_causal_skip": False}
    mask = attention_mask(2, 9, 9, **given)
    assert isinstance(mask, VisibleKeys)
    assert torch.equal(mask & True, sdpa_mask(2, 9, 9, **given))


@pytest.mark.parametrize("use_vmap", [False, True])
def test_other_functions_are_written_out(use_vmap):
    function = masking_utils.or_masks(masking_utils.causal_mask_function, lambda b, h, q, kv: (q < 3) & (kv < 3))
    given = {"mask_function": function, "attention_mask": padding("left", 9), "allow_is_causal_skip": False, "use_vmap": use_vmap}
    mask = attention_mask(2, 9, 9, **given)
    assert type(mask) is torch.Tensor
    assert torch.equal(mask, sdpa_mask(2, 9, 9, **given))


def test_no_mask_where_is_causal_or_nothing_says_it_all():
    causal, both = FUNCTIONS["causal"], FUNCTIONS["bidirectional"]
    assert attention_mask(2, 9, 9) is None
    assert attention_mask(2, 9, 9, attention_mask=padding("whole", 9)) is None
    assert attention_mask(2, 9, 16, attention_mask=padding("whole", 9)) is None  # a prompt in a static cache
    assert attention_mask(2, 1, 9, torch.tensor(8)) is None
    assert attention_mask(2, 1, 4, 20, 17, mask_function=FUNCTIONS["window"], local_size=4) is None  # all that a full cache holds
    assert attention_mask(2, 9, 9, mask_function=both, allow_is_causal_skip=False, allow_is_bidirectional_skip=True) is None
    for given in (
        {"allow_is_causal_skip": False},
        {"attention_mask": padding("left", 9)},
        {"mask_function": FUNCTIONS["window"], "local_size": 4},
        {"q_offset": 2},
        {"mask_function": both, "allow_is_causal_skip": False},
    ):
        assert attention_mask(2, 9, 9, **{"mask_function": causal, **given}) is not None, given


def test_plain_causal_masks_stay_formulas():
    """What the kernels know best: no arrays where the upper-right corner, and perhaps a window, says it all."""
    for sizes, function, kind in [
        ((4, 9, 5, 0), "causal", "Causal"),
        ((4, 9, 5, 0), "window", "Window"),
        ((4, 6, 9, 7), "window", "Window"),
    ]:
        assert kind in repr(attention_mask(2, *sizes, mask_function=FUNCTIONS[function], allow_is_causal_skip=False).keys.mask())


def test_a_mask_is_made_once_for_all_layers(monkeypatch):
    made = []
    keys = regard.transformers.masks.Keys
    original = keys._run
    monkeypatch.setattr(keys, "_run", lambda self: made.append(self) or original(self))
    model = family("Llama", num_hidden_layers=3)
    model.set_attn_implementation("regard")
    model(torch.ones(2, 9, dtype=torch.int64), attention_mask=padding("left", 9).long())
    assert len(made) == 1


def test_a_mask_looks_like_bools():
    mask = attention_mask(2, 9, 9, attention_mask=padding("left", 9))
    truth = sdpa_mask(2, 9, 9, attention_mask=padding("left", 9))
    assert (mask.shape, mask.dtype, mask.ndim, mask.device.type) == (truth.shape, torch.bool, 4, "cpu")
    assert isinstance(mask.detach(), VisibleKeys)
    assert isinstance(mask[:, :, :, :9], VisibleKeys)
    assert "2, 1, 9, 9" in repr(mask)
    for look in (
        lambda m: m[:, :, 2:, :5],
        lambda m: ~m,
        lambda m: m.float().sum(-1),
        lambda m: torch.where(m, 0.0, -1.0),
        lambda m: m.expand(2, 4, 9, 9),
    ):
        assert torch.equal(look(mask), look(truth))
        assert not isinstance(look(mask), VisibleKeys)


def test_a_mask_that_was_written_to_is_what_was_written():
    q, k, v = tensors(9, 9)
    mask = attention_mask(2, 9, 9, attention_mask=padding("left", 9)).clone()
    mask[:, :, 4] = True
    out, _ = attention_forward(layer(), q, k, v, mask)
    close(out, reference(q, k, v, mask))


# --- attention


def test_options_are_those_of_eager():
    q, k, v = tensors(5, 7)
    sinks, bias = torch.randn(4), torch.randn(1, 4, 5, 7)
    seen = torch.rand(2, 1, 5, 7) < 0.7
    out, weights = attention_forward(layer(), q, k, v, seen, scaling=0.3, softcap=1.5, s_aux=sinks, position_bias=bias)
    assert weights is None
    close(out, reference(q, k, v, seen, 0.3, 1.5, bias, sinks))


@pytest.mark.parametrize(
    ("argument", "attribute", "causal"),
    [(None, None, True), (None, False, False), (None, True, True), (False, True, False), (True, False, True)],
)
def test_is_causal_counts_without_a_mask(argument, attribute, causal):
    q, k, v = tensors(5, 7)
    module = layer() if attribute is None else layer(is_causal=attribute)
    out, _ = attention_forward(module, q, k, v, None, is_causal=argument)
    close(out, reference(q, k, v, torch.ones(5, 7, dtype=torch.bool).tril() if causal else None))
    one, _ = attention_forward(module, q[:, :, :1], k, v, None, is_causal=argument)
    close(one, reference(q[:, :, :1], k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_additive_masks_hide_where_they_are_lowest(dtype):
    q, k, v = tensors(5, 7)
    seen = torch.rand(2, 1, 5, 7) < 0.7
    lowest = torch.finfo(dtype).min
    for bias in (torch.zeros(2, 1, 5, 7), torch.randn(2, 1, 5, 7)):
        bias = bias.to(dtype)
        out, _ = attention_forward(layer(), q, k, v, bias.masked_fill(~seen, lowest))
        close(out, reference(q, k, v, seen, bias=bias.double()))
        out, _ = attention_forward(layer(), q, k, v, bias.masked_fill(~seen, -torch.inf), position_bias=torch.ones(1, 4, 5, 7))
        close(out, reference(q, k, v, seen, bias=bias.double() + 1))


def test_additive_masks_have_gradients():
    q, k, v = tensors()
    bias = torch.randn(1, 4, 5, 5).tril().masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf)
    ours, truth = bias.clone().requires_grad_(), bias.double().requires_grad_()
    attention_forward(layer(), q, k, v, ours)[0].square().sum().backward()
    reference(q, k, v, bias=truth).square().sum().backward()
    close(ours.grad, truth.grad.nan_to_num())


def test_rows_that_see_nothing_are_zero():
    q, k, v = tensors(9, 9)
    mask = attention_mask(2, 9, 9, attention_mask=padding("left", 9))
    out, _ = attention_forward(layer(), q, k, v, mask)
    assert not out[1, :3].any()
    close(out, reference(q, k, v, sdpa_mask(2, 9, 9, attention_mask=padding("left", 9))))


def test_learned_queries_broadcast():
    q, k, v = tensors()
    out, _ = attention_forward(layer(is_causal=False), q[:1], k, v, None)
    close(out, reference(q[:1].expand(2, -1, -1, -1), k, v))


def test_a_mask_of_one_key_broadcasts():
    q, k, v = tensors(1, 9)
    mask = attention_mask(2, 1, 1, 8, 0, allow_is_causal_skip=False)
    assert mask.shape == (2, 1, 1, 1)
    close(attention_forward(layer(), q, k, v, mask)[0], reference(q, k, v))


def test_documents_of_flash_attention():
    q, k, v = tensors(9, 9, batch=1)
    ends = torch.tensor([0, 4, 5, 9], dtype=torch.int32)
    owner = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    same = owner[:, None] == owner
    out, _ = attention_forward(layer(), q, k, v, None, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=4, max_length_k=4)
    close(out, reference(q, k, v, same.tril()))
    for q_ends, k_ends in ((ends, ends[:-1]), (ends, None), (ends[:-1], ends[:-1])):
        with pytest.raises(NotImplementedError, match="cu_seq_lens_q"):
            attention_forward(layer(), q, k, v, None, cu_seq_lens_q=q_ends, cu_seq_lens_k=k_ends)


def test_dropout_is_drawn_from_torch():
    q, k, v = tensors(64, 64)
    v = torch.ones_like(v)

    def drop(seed: int):
        torch.manual_seed(seed)
        return attention_forward(layer(is_causal=False), q, k, v, None, dropout=0.25)[0]

    assert torch.equal(drop(1), drop(1))
    assert not torch.equal(drop(1), drop(2))
    # A row is Σ p·keep/0.75 of 64 probabilities; the mean of 512 rows is 1 within 5 standard deviations, each below √(1/3)·√(Σp²) < 0.5.
    assert abs(float(drop(3)[..., 0].mean()) - 1) < 5 * 0.5 / 512**0.5


# --- what is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_attentions", True),
        ("head_mask", torch.ones(4)),
        ("sinks", torch.zeros(2, 4, 5, 1)),
        ("indices", torch.zeros(2, 5, 3)),
        ("block_indices", torch.zeros(2, 5, 3)),
        ("block_table", torch.zeros(2, 3)),
        ("read_index", [torch.zeros(3)]),
        ("write_index", [torch.zeros(3)]),
        ("cache", object()),
        ("slopes", torch.zeros(4)),
    ],
)
def test_refused_by_name(name, value):
    with pytest.raises(NotImplementedError, match=f"{name} is given"):
        attention_forward(layer(), *tensors(), None, **{name: value})
    attention_forward(layer(), *tensors(), None, **{name: None})


def test_other_devices_ranks_and_types_are_refused():
    with pytest.raises(NotImplementedError, match="query is on meta"):
        attention_forward(layer(), *(each.to("meta") for each in tensors()), None)
    with pytest.raises(ValueError, match=r"query has shape \[4, 5, 8\]"):
        attention_forward(layer(), *(each[0] for each in tensors()), None)
    with pytest.raises(TypeError, match="attention_mask is torch.int64"):
        attention_forward(layer(), *tensors(), torch.ones(2, 1, 5, 5, dtype=torch.int64))
    with pytest.raises((TypeError, ValueError), match="float64"):
        attention_forward(layer(), *tensors(dtype=torch.float64), None)


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "BERT", "T5", "OPT", "ViT"])
def test_models_refuse_to_return_weights(name):
    from transformers_table import inputs_of

    found = next(each for each in FAMILIES if each.name == name)
    model = found.build()
    model.set_attn_implementation("regard")
    with pytest.raises((NotImplementedError, ValueError), match="output_attentions"):
        model(**inputs_of(found), output_attentions=True)
    model(**inputs_of(found), output_attentions=False, output_hidden_states=True)


# --- models


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "gpt-oss"])
def test_half_precision_is_as_close_to_float32_as_sdpa_or_eager(name, dtype):
    """Both round alike; 2 leaves room for where they round differently, as neither is the other's bound."""
    model = family(name)
    ids = torch.randint(3, VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(1))
    model.set_attn_implementation("eager")
    model.to(dtype)
    own = model(ids).logits.float()
    model.set_attn_implementation("regard")
    ours = model(ids).logits
    assert ours.dtype == dtype
    model.float().set_attn_implementation("eager")
    truth = model(ids).logits
    assert (ours.float() - truth).norm() <= 2 * (own - truth).norm()


def test_training_with_checkpoints_and_dropout_repeats():
    model = family("Llama", attention_dropout=0.2).train()
    model.set_attn_implementation("regard")
    ids = torch.randint(3, VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(1))
    grads = []
    for enable in (
        lambda: None,
        lambda: model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False}),
    ):
        enable()
        model.zero_grad()
        torch.manual_seed(3)
        model(ids, attention_mask=padding("left", 19).long(), labels=ids, use_cache=False).loss.backward()
        grads.append([each.grad.clone() for each in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_texts_packed_by_position_ids_do_not_see_each_other():
    model = family("Mistral")
    model.set_attn_implementation("regard")
    ids = torch.randint(3, VOCABULARY, (1, 17), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(9), torch.arange(8)])[None]
    together = model(ids, position_ids=positions, use_cache=False).logits  # with a cache transformers takes them for one text
    apart = torch.cat([model(ids[:, :9]).logits, model(ids[:, 9:]).logits], 1)
    close(together.detach(), apart.detach().double(), 1e-4)


def test_decoding_one_by_one_is_the_whole_text():
    model = family("Gemma 3")
    model.set_attn_implementation("regard")
    ids = torch.randint(3, VOCABULARY, (1, 3 * WINDOW), generator=torch.Generator().manual_seed(1))
    whole = model(ids).logits
    cache, rows = None, []
    for i in range(ids.shape[1]):
        out = model(ids[:, i : i + 1], cache=cache, use_cache=True)
        cache, rows = out.past_key_values, [*rows, out.logits]
    close(torch.cat(rows, 1).detach(), whole.detach().double(), 1e-4)


def test_beam_search_chooses_the_texts_of_eager():
    model = family("Llama")
    ids = torch.randint(3, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))
    texts = []
    for name in ("eager", "regard"):
        model.set_attn_implementation(name)
        texts.append(model.generate(ids, attention_mask=padding("left", 7).long(), num_beams=3, max_new_tokens=6, do_sample=False))
    assert torch.equal(*texts)


def test_inference_mode_takes_masks():
    model = family("Qwen2")
    ids = torch.randint(3, VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(1))
    mask = padding("left", 19)
    with torch.inference_mode():
        logits = [
            model(ids, attention_mask=mask).logits[mask]
            for name in ("eager", "regard")
            if model.set_attn_implementation(name) is None
        ]
    close(logits[1], logits[0].double(), 1e-4)


def test_compiled_models_compute_the_same():
    model = family("Llama")
    model.set_attn_implementation("regard")
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    for mask in (None, padding("left", 9).long()):
        eager = model(ids, attention_mask=mask).logits
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(ids, attention_mask=mask).logits
        seen = slice(None) if mask is None else mask.bool()
        close(compiled[seen].detach(), eager[seen].detach().double(), 1e-4)


def test_a_pretrained_model_takes_the_name(tmp_path):
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="regard")
    assert model.config._attn_implementation == "regard"
    assert forward.attention is not None
    model(torch.ones(1, 3, dtype=torch.int64))

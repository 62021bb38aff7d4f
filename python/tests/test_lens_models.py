"""`regard.lens.watch`: facts of every layer of Hugging Face models against the weights that transformers' eager attention returns."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers_families import FAMILIES, VOCABULARY, WINDOW

import regard.transformers
from regard import lens

torch.set_num_threads(1)
N = 24
# Sums of at most 40 weights in float32, from logits that may be off by some 1e-6 each.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(autouse=True)
def registered():
    regard.transformers.register()


def model_of(family: str, **changes: Any):
    """A model of the table, with weights large enough to have opinions."""
    found = next(each for each in FAMILIES if each.name == family)
    torch.manual_seed(0)
    model = dataclasses.replace(found, options={**found.options, **changes}).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.3)
    model.set_attn_implementation("regard")
    return model


def ids(n: int = N, batch: int = 2) -> Any:
    return torch.randint(3, VOCABULARY, (batch, n), generator=torch.Generator().manual_seed(1))


def eager(model, given, **kwargs) -> np.ndarray:
    """The weights of all layers, `[layers, batch, heads, rows, keys]`."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(given, output_attentions=True, use_cache=False, **kwargs).attentions
    model.set_attn_implementation("regard")
    return np.stack([each.double().numpy() for each in weights])


def expected(p: np.ndarray, first: int = 4, recent: int = 32) -> dict[str, np.ndarray]:
    """Facts from weights of which rows and keys are the same tokens."""
    n = p.shape[-1]
    before = np.arange(n)[:, None] - np.arange(n)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "entropy": -np.where(p > 0, p * np.log(p), 0).sum(-1),
            "first": p[..., :first].sum(-1),
            "recent": (p * ((before >= 0) & (before < recent))).sum(-1),
            "distance": (p * abs(before)).sum(-1) / p.sum(-1),
            "max_weight": p.max(-1),
            "own": p[..., np.arange(n), np.arange(n)],
        }


def agree(facts: lens.Facts, p: np.ndarray, *, names: Any = None, **options: Any) -> None:
    for name, truth in expected(p, **options).items():
        if names is None or name in names:
            np.testing.assert_allclose(getattr(facts, name), truth, **CLOSE, err_msg=name)


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "Gemma 2", "Gemma 3", "Mistral", "BERT"])
def test_facts_are_those_of_eager_weights(family: str) -> None:
    """Grouped heads, windows, softcaps, full attention."""
    model, given = model_of(family), ids()
    p = eager(model, given)
    with torch.no_grad(), lens.watch(model, recent=5, ranges={"middle": (7, 12)}) as seen:
        model(given)
    assert seen.facts.entropy.shape == p.shape[:-1] and len(seen.layers) == p.shape[0]
    agree(seen.facts, p, recent=5)
    np.testing.assert_allclose(seen.facts.ranges["middle"], p[..., 7:12].sum(-1), **CLOSE)
    at = np.take_along_axis(p, np.maximum(seen.facts.top_keys, 0), -1)
    np.testing.assert_allclose(np.where(seen.facts.top_keys >= 0, at, 0), seen.facts.top_weights, **CLOSE)
    for i, name in enumerate(seen.layers):
        np.testing.assert_array_equal(seen.layer(name).entropy, seen.facts.entropy[i])
    if family != "BERT":
        assert np.array_equal(seen.reading.ids, given.numpy())


def test_learned_sinks_are_a_key_of_the_entropy_alone() -> None:
    model, given = model_of("gpt-oss"), ids()
    p = eager(model, given)
    with torch.no_grad(), lens.watch(model) as seen:
        model(given)
    assert (p.sum(-1) < 0.999).any()
    agree(seen.facts, p, names={"first", "recent", "distance", "max_weight", "own"})
    rest = 1 - p.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(-1) - np.where(rest > 0, rest * np.log(rest), 0)
    np.testing.assert_allclose(seen.facts.entropy, entropy, **CLOSE)


@pytest.mark.parametrize("family", ["Llama", "Gemma 2"])
def test_padding_on_the_left_does_not_count(family: str) -> None:
    """A text that is padded has the facts that it has alone."""
    model, given, pad = model_of(family), ids(), 9
    mask = torch.ones_like(given)
    mask[1, :pad] = 0
    position_ids = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad(), lens.watch(model, ranges={"middle": (3, 9)}) as seen:
        model(given, attention_mask=mask, position_ids=position_ids)
    with torch.no_grad(), lens.watch(model, ranges={"middle": (3, 9)}) as alone:
        model(given[1:, pad:])
    p = eager(model, given[1:, pad:])
    agree(alone.facts, p)
    for name in ("entropy", "first", "recent", "distance", "max_weight", "own", "lse"):
        got, truth = getattr(seen.facts, name)[:, 1, :, pad:], getattr(alone.facts, name)[:, 0]
        np.testing.assert_allclose(got, truth, **CLOSE, err_msg=name)
    np.testing.assert_array_equal(seen.facts.top_keys[:, 1, :, pad:, 0], alone.facts.top_keys[:, 0, ..., 0])
    np.testing.assert_allclose(seen.facts.ranges["middle"][:, 1, :, pad:], alone.facts.ranges["middle"][:, 0], **CLOSE)
    assert np.isneginf(seen.facts.lse[:, 1, :, :pad]).all() and (seen.facts.top_keys[:, 1, :, :pad] == -1).all()
    padded, bare = (json.loads(each.json()) for each in (seen.report(text=1), alone.report()))
    assert padded["texts"][0]["tokens"] == bare["texts"][0]["tokens"] == [str(i) for i in given[1, pad:].tolist()]
    means, of_bare = padded["heads"][3]["means"], bare["heads"][3]["means"]
    assert means.pop("special") is of_bare.pop("special") is None  # which tokens are special only a tokenizer knows
    assert means == pytest.approx(of_bare, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("family", ["Llama", "Gemma 2", "Mistral"])
def test_generation_is_one_reading(family: str, cache: str | None) -> None:
    """Rows of the prompt, and of each token that is fed back, are those of the whole text read at once; also where the cache of a window has
    dropped keys, or one of fixed size has room for more."""
    model, given = model_of(family), ids()
    with lens.watch(model) as seen:
        text = model.generate(
            given, min_new_tokens=2 * WINDOW, max_new_tokens=2 * WINDOW, do_sample=False, pad_token_id=0, cache_implementation=cache
        )
    read = text[:, :-1]
    p = eager(model, read)
    facts = seen.facts
    assert facts.entropy.shape == p.shape[:-1]
    agree(facts, p)
    at = np.take_along_axis(p, np.maximum(facts.top_keys, 0), -1)
    np.testing.assert_allclose(np.where(facts.top_keys >= 0, at, 0), facts.top_weights, **CLOSE)
    assert np.array_equal(seen.reading.ids, read.numpy())
    report = json.loads(seen.report(text=1).json())
    map_of(report["heads"][2], p[0, 1, 2])


def test_generation_from_padded_prompts() -> None:
    model, given, pad = model_of("Mistral"), ids(), 5
    mask = torch.ones_like(given)
    mask[0, :pad] = 0
    with lens.watch(model) as seen:
        text = model.generate(given, attention_mask=mask, min_new_tokens=9, max_new_tokens=9, do_sample=False, pad_token_id=0)
    p = eager(model, text[:1, pad:-1])
    for name, truth in expected(p).items():
        np.testing.assert_allclose(getattr(seen.facts, name)[:, :1, :, pad:], truth, **CLOSE, err_msg=name)


def map_of(head: dict[str, Any], p: np.ndarray) -> None:
    """A report's finest map has the weights, pooled: `round(255·√mass)`."""
    finest = head["maps"][0]
    block, edge, n = finest["block"], finest["rows"], len(p)
    got = np.frombuffer(base64.b64decode(finest["data"]), np.uint8).reshape(edge, edge)
    at = np.arange(0, n, block)
    rows = np.minimum(block, n - at)
    truth = np.add.reduceat(np.add.reduceat(p, at, 0), at, 1) / rows[:, None]
    np.testing.assert_allclose(got, 255 * np.sqrt(truth), atol=0.51 + 255 * 2e-3)


def test_a_report_is_that_of_the_weights(tmp_path: Path) -> None:
    model, given = model_of("Llama"), ids()
    p = eager(model, given)
    with torch.no_grad(), lens.watch(model, top=3) as seen:
        model(given)
    report = seen.report(text=1, tokens=[f"<{i}>" for i in range(N)], title="tiny")
    assert "tiny" in repr(report) and f"{N} tokens" in repr(report)
    data = json.loads(report.json())
    assert data["format"] == "regard-lens/1"
    assert data["model"] == {
        "name": "tiny",
        "type": "llama",
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "context": model.config.max_position_embeddings,
        "parameters": sum(each.numel() for each in model.parameters()),
    }
    assert (
        data["texts"][0]["tokens"][3] == "<3>"
        and data["run"]["tokens"] == N
        and data["run"]["kernel"] in regard.available_kernels()
    )
    for head in data["heads"]:
        of_head = p[head["layer"], 1, head["head"]]
        for name, key in (("entropy", "entropy"), ("first", "sink"), ("own", "self"), ("distance", "distance")):
            assert head["means"][key] == pytest.approx(expected(of_head)[name].mean(), rel=1e-4, abs=1e-5)
        assert head["scores"]["previous"] == pytest.approx(of_head[np.arange(1, N), np.arange(N - 1)].mean(), rel=1e-4, abs=1e-5)
        assert head["scores"]["first"] == pytest.approx(of_head[1:, 0].mean(), rel=1e-4, abs=1e-5)
        np.testing.assert_allclose(head["received"], of_head.sum(0), rtol=1e-4, atol=1e-5)
        map_of(head, of_head)
        keys = np.frombuffer(base64.b64decode(head["top"]["keys"]), np.uint32).reshape(N, 3)
        assert (keys[1:, 0] == of_head.argmax(-1)[1:]).all() and (keys[0, 1:] == 2**32 - 1).all()
        assert head["scores"]["induction"] is None and head["ablation"] is None
    for ending, inside in (("html", '"regard-lens/1"'), ("json", '"regard-lens/1"'), ("csv", "layer,head,entropy")):
        report.save(tmp_path / f"report.{ending}")
        assert inside in (tmp_path / f"report.{ending}").read_text()
    page = report.html()
    assert page.startswith("<!doctype html>") and r"\u003c3>" in page
    with pytest.raises(ValueError, match="must end in .html, .json or .csv"):
        report.save("report.pdf")
    with pytest.raises(OSError, match="cannot write"):
        report.save(tmp_path / "nowhere" / "report.html")


def test_long_texts_are_pooled() -> None:
    """Over 256 tokens a cell has several: in one pass, and in passes that do not begin at a cell."""
    model, given = model_of("Llama", max_position_embeddings=1024), ids(600, 1)
    p = eager(model, given)
    with torch.no_grad(), lens.watch(model) as whole:
        model(given)
    with torch.no_grad(), lens.watch(model) as parts:
        cache = model(given[:, :101], use_cache=True).cache
        for start, end in ((101, 400), (400, 403), (403, 600)):
            model(given[:, start:end], cache=cache)
    agree(parts.facts, p)
    for seen in (whole, parts):
        report = json.loads(seen.report().json())
        assert report["heads"][5]["maps"][0]["block"] == 4 and report["bins"] == {"count": 150, "width": 4}
        map_of(report["heads"][5], p[1, 0, 1])
        keys = [of.sum(0).mean() for of in np.split(p[1, 0, 1], range(4, 600, 4), axis=1)]
        np.testing.assert_allclose(report["heads"][5]["received"], keys, rtol=1e-3, atol=1e-4)


def test_an_encoder_and_a_decoder_are_one_reading() -> None:
    model, given = model_of("T5"), ids()
    with lens.watch(model) as seen:
        model.generate(given, min_new_tokens=6, max_new_tokens=6, do_sample=False)
    with pytest.raises(ValueError, match=r"layers have different shapes: encoder.* \[2, 4, 24\], decoder.* \[2, 4, 6\]"):
        _ = seen.facts
    cross = next(name for name in seen.layers if "EncDecAttention" in name)
    assert seen.layer(cross).entropy.shape == (2, 4, 6)
    with torch.no_grad(), lens.watch(model, layers=["encoder"]) as seen:
        model(input_ids=given, decoder_input_ids=given[:, :5])
    assert seen.facts.entropy.shape == (2, 2, 4, N)
    with lens.watch(model, layers=["decoder"]) as seen:
        model(input_ids=given, decoder_input_ids=given[:, :5])
    with pytest.raises(ValueError, match="has other keys than the text's own tokens"):
        seen.report()


def test_watching_changes_nothing() -> None:
    model, given = model_of("Gemma 2"), ids()
    model.set_attn_implementation("regard")
    model.train()
    plain = model(given, labels=given)
    plain.loss.backward()
    gradient = model.model.embed_tokens.weight.grad.clone()
    model.zero_grad()
    with lens.watch(model) as seen:
        watched = model(given, labels=given)
    watched.loss.backward()
    assert torch.equal(watched.logits, plain.logits) and torch.equal(model.model.embed_tokens.weight.grad, gradient)
    before = seen.facts.entropy.copy()
    model(given[:, :3])  # outside of the block
    assert np.array_equal(seen.facts.entropy, before) and not regard.transformers.forward.observers


def test_texts_are_readings_of_their_own() -> None:
    model = model_of("Llama")
    with torch.no_grad(), lens.watch(model) as seen, lens.watch(model, layers=["model.layers.1"]) as second:
        model(ids(8))
        model(ids(5, 1), use_cache=False)
    assert [each.facts.entropy.shape for each in seen.readings] == [(2, 2, 4, 8), (2, 1, 4, 5)]
    assert second.readings[0].layers == ["model.layers.1.self_attn"]
    np.testing.assert_array_equal(second.readings[0].facts.entropy[0], seen.readings[0].facts.entropy[1])
    with pytest.raises(ValueError, match="the model read 2 batches of texts"):
        _ = seen.facts


def test_bfloat16_models() -> None:
    model, given = model_of("Llama").bfloat16(), ids()
    with torch.no_grad(), lens.watch(model) as seen:
        model(given)
    assert seen.facts.entropy.dtype == np.float32 and np.isfinite(seen.facts.lse).all()
    total = seen.facts.distances.sum(-1)
    np.testing.assert_allclose(total, np.ones_like(total), atol=1e-3)


# --- what cannot be


def test_what_cannot_be_watched_is_refused() -> None:
    model = model_of("Llama")
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"attn_implementation='sdpa'.*set_attn_implementation\(\"regard\"\)"), lens.watch(model):
        pass
    with (
        pytest.raises(TypeError, match="model is of type Linear and must be a model of transformers"),
        lens.watch(torch.nn.Linear(2, 2)),
    ):
        pass
    model.set_attn_implementation("regard")
    for options, exception, text in (
        ({"top": 0}, ValueError, "top is 0"),
        ({"first": -1}, ValueError, "first is -1"),
        ({"ranges": {"a": (3, 2)}}, ValueError, "must begin before it ends"),
        ({"layers": ["model.layers.7"]}, ValueError, "layers has 'model.layers.7', and the model has no module of this name"),
        ({"layers": "model"}, TypeError, "layers is the string 'model'"),
    ):
        with pytest.raises(exception, match=text), lens.watch(model, **options):
            pass
    with lens.watch(model) as seen, pytest.raises(ValueError, match="watch the one that is called"):
        model.model(ids())
    with pytest.raises(ValueError, match="the model read 0 batches"):
        _ = seen.facts


def test_reports_that_cannot_be_are_refused() -> None:
    model, given = model_of("Llama"), ids()
    with torch.no_grad():
        with lens.watch(model) as seen:
            cache = model(given, use_cache=True).cache
        with lens.watch(model) as later:
            model(given, cache=cache)
        with lens.watch(model, maps=False) as bare:
            model(given)
        with lens.watch(model) as single:
            model(given[:, :1])
    for call, exception, text in (
        (lambda: seen.report(text=2), ValueError, "text is 2 and must be a number from 0 to 1"),
        (lambda: seen.report(tokens=["a"]), ValueError, f"tokens has 1 strings and needs {N}"),
        (lambda: seen.report(tokens="a" * N), TypeError, "tokens must be a list of strings"),
        (
            lambda: seen.layer("model"),
            ValueError,
            "name is 'model' and must be one of the layers that were seen: model.layers.0.self_attn",
        ),
        (lambda: later.report(), ValueError, "had read 24 positions before it was watched"),
        (lambda: bare.report(), ValueError, "maps is False"),
        (lambda: single.report(), ValueError, "has 1 tokens and needs at least 2"),
    ):
        with pytest.raises(exception, match=text):
            call()
    assert later.facts.entropy.shape == (2, 2, 4, N)
    np.testing.assert_array_equal(bare.facts.lse, seen.facts.lse)

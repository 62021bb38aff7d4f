"""What a type checker must accept, and know: `mypy --strict` runs over this file, which uses the whole public interface.

It runs, too: `python python/tests/typing_check.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import regard

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, _: Any) -> Any:
        return value


F32 = npt.NDArray[np.float32]


def draw(*shape: int) -> F32:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def attention(q: F32, k: F32, v: F32) -> None:
    mask = (regard.Causal.LOWER_RIGHT & regard.Window(128, 0)) | regard.Global([0])
    assert_type(mask, regard.Mask)
    assert_type(mask.visible((1, 2, 3, 3)), "np.ndarray[Any, np.dtype[np.bool_]]")
    score = regard.Alibi(2) >> regard.Softcap(30.0)
    assert_type(score, regard.Score)
    regard.attention(q, k, v, mask=[mask], score=[score], causal="lower_right", window=(None, 0), scale=0.5, layout="bhld")
    out, lse = regard.attention(q, k, v, sinks=[0.0, 0.0], dropout=(0.1, 1), return_lse=True, out=None)
    regard.attention(q, k, v, dialect="jax", causal=True, window=3, layout="bhld")
    regard.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True, scale=None, enable_gqa=True)
    grads = regard.attention_backward(q, k, v, out, lse, out, bias=None)
    assert len(grads) == 5
    regard.merge_states([out, out], [lse, lse])
    plan = regard.explain(q, k, v, causal="upper_left", dialect="torch")
    assert_type(plan, regard.Explanation)
    assert_type(plan.kernel, str)
    assert_type(plan.hidden_share, float)


def masks_and_scores() -> list[regard.Mask | regard.Score]:
    return [
        regard.Causal.UPPER_LEFT,
        regard.PrefixLm(3),
        regard.Documents([0, 3], None, regard.Causal.UPPER_LEFT),
        regard.Blocks(np.ones((1, 1), bool), 2, 2),
        regard.Bools(np.ones((3, 3), bool)),
        regard.Padding([1, 2]),
        regard.Spans(np.array([0]), np.array([2])),
        regard.Dilated(1, 1, 2),
        regard.Strided(4),
        regard.Fixed(4, 1),
        regard.RandomKeys(1, 1, 4, 0),
        regard.Blockwise(2, regard.Strided(2)),
        regard.Around(draw(3), 1.0),
        regard.Bias(draw(3, 3)),
        regard.RelativeBias(draw(2, 8), 16, True),
        regard.Gaussian(draw(3), 1.0),
    ]


def cache() -> None:
    pool = regard.KVCache(pages=4, kv_heads=2, head_dim=8, value_dim=None, page_size=4, layers=1, dtype="float32")
    sequence = pool.sequence()
    assert_type(sequence, regard.Sequence)
    sequence.append(draw(2, 3, 8), draw(2, 3, 8))
    fork = sequence.fork()
    fork.truncate(2)
    adopted = pool.adopt(sequence.block_table[:0], 0)
    adopted.grow(1)
    adopted.write(0, 0, draw(2, 1, 8), draw(2, 1, 8))
    pool.attend(draw(2, 4, 1, 8), [sequence, fork], causal="lower_right", layer=0)
    sequence.attend(draw(1, 4, 1, 8), return_lse=True)
    assert_type(
        (len(sequence), pool.free_pages, pool.nbytes, pool.dtype, sequence.cache), tuple[int, int, int, str, regard.KVCache]
    )
    fork.free()


def linear(q: F32) -> None:
    out, state = regard.linear_attention(q, q, q, rule="gated", decay=-abs(q), feature="identity", return_state=True)
    regard.linear_attention_backward(q, q, q, out, d_state=state, rule="gated", decay=-abs(q))
    x, weight = draw(1, 4, 9), draw(4, 1, 3)
    y = regard.causal_conv(x, weight, draw(4), state=None, silu=True)
    regard.causal_conv_backward(x, weight, y, draw(4), silu=True)


def positions(q: F32) -> None:
    rope = regard.Rope(8, theta=1e4, style="half", scaling={"rope_type": "linear", "factor": 2.0}, length=0)
    rope.turn_back(rope.turn(q, first=3), 3)
    assert_type(rope.dim, int)
    assert_type(rope.frequencies, "np.ndarray[Any, np.dtype[np.float64]]")
    regard.rotate(q, draw(3, 4), draw(3, 4), style="interleaved")
    assert_type(regard.sinusoidal(3, 8, first=1), "np.ndarray[Any, np.dtype[np.float32]]")
    matrix = regard.PackedMatrix(draw(4, 8))
    assert_type((matrix.inputs, matrix.outputs), tuple[int, int])
    matrix(q, draw(4))


def settings() -> None:
    with regard.kernel(regard.available_kernels()[0]):
        assert_type(regard.get_num_threads(), int)
    regard.set_num_threads(1)
    assert_type(regard.__version__, str)
    assert_type(regard.dialects.get("mlx"), regard.dialects.Dialect)


def multi_head() -> None:
    state = {"in_proj_weight": draw(24, 8), "out_proj.weight": draw(8, 8)}
    layer = regard.MultiHeadAttention.from_torch(state, 2, batch_first=True)
    assert_type(layer, regard.MultiHeadAttention)
    out, weights = layer(draw(1, 3, 8), draw(1, 4, 8), draw(1, 4, 8), need_weights=True, is_causal=True)
    assert out.shape == (1, 3, 8) and weights is not None


def cost() -> None:
    assert_type(regard.cost("gpt2", length=9, dtype="f32", train=True, chip="h100", memory=10**9), "dict[str, Any]")
    regard.cost(
        {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 4, "vocab_size": 9}, length=4, batch=2
    )
    assert_type((regard.cost_presets(), regard.cost_chips()), tuple[list[str], list[str]])


def lens(q: F32, k: F32, v: F32) -> None:
    facts = regard.lens.inspect(q, k, v, first=2, recent=3, top=1, ranges={"all": (0, 3)}, return_output=True, causal="upper_left")
    assert_type(facts, regard.lens.Facts)
    assert_type(facts.entropy, F32)
    assert_type(facts.top_keys, npt.NDArray[np.int64])
    assert_type(facts.ranges["all"], F32)
    assert_type(regard.lens.weights(q, k, rows=[0, 2], lse=facts.lse, window=(1, 0)), F32)
    assert_type(regard.lens.map(q, k, heads=(0, 1), block=(1, 2), mask=[regard.Causal.UPPER_LEFT]), F32)
    assert_type(regard.lens.received(q, k, softcap=2.0), F32)


def watched(model: Any) -> None:
    with regard.lens.watch(model, layers=["model"], maps=True) as seen:
        assert_type(seen, regard.lens.Watch)
    assert_type(seen.reading, regard.lens.Reading)
    assert_type(seen.facts.lse, F32)
    report = seen.report(text=0, tokens=["a", "b"], title=None)
    assert_type(report, regard.lens.Report)
    assert_type(report.json() + report.html() + report.csv(), str)
    report.save(Path("report.html"))


if __name__ == "__main__":
    query = draw(1, 2, 3, 8)
    attention(query, query, query)
    print(*masks_and_scores(), sep="\n")
    cache()
    linear(query)
    positions(query)
    settings()
    multi_head()
    cost()
    lens(query, query, query)

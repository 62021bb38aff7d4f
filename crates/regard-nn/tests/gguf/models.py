"""Makes tests/gguf/models: a tiny random model of every architecture as GGUF, with what transformers computes from its numbers.

    pip install -r crates/regard-nn/tests/gguf/requirements.txt -r crates/regard-nn/tests/transformers/requirements.txt
    python3 crates/regard-nn/tests/gguf/models.py

The weights of the transformers model are what gguf dequantises. Names and order of rows are those of llama.cpp's converter. In
expected.safetensors, for each model: the tokens of TEXT and CHAT, f32 logits [n,V] of TEXT's, and the 8 tokens that greedily follow.
"""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH
from gguf.tensor_mapping import get_tensor_name_map
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent / "models"
TEXT, QUESTION = "the king and the queen were there then", "who is there"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}bot {% endif %}"
)
MERGES = ["t h", "th e", "Ġ the", "k i", "ki n", "n g", "Ġ w", "e r", "r e", "a n", "an d", "Ġ q", "u e"]
TOKENS = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", *(merge.replace(" ", "") for merge in MERGES)]
TOKENS += [f"<{i}>" for i in range(64 - len(TOKENS))]

SIZE = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=None, rms_norm_eps=1e-5,
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
LONG = dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.0, 1.25, 1.5], long_factor=[1.5, 2.75, 4.0])
MODELS = {  # architecture, configuration, kinds of tensors
    "llama": (
        "llama", dict(**SIZE, rope_parameters=LLAMA3),
        dict(token_embd=Kind.Q8_0, output=Kind.F16, attn_q=Kind.Q4_0, attn_k=Kind.BF16, attn_v=Kind.F16, ffn_gate=Kind.Q8_0, ffn_up=Kind.Q4_0, ffn_down=Kind.Q8_0),
    ),
    "k": (
        "llama", dict(**SIZE | dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1), head_dim=16, tie_word_embeddings=True),
        dict(token_embd=Kind.Q6_K, attn_q=Kind.Q4_K, attn_k=Kind.Q4_K, attn_v=Kind.Q6_K, attn_output=Kind.Q8_0, ffn_gate=Kind.Q4_K, ffn_up=Kind.Q4_K, ffn_down=Kind.Q6_K),
    ),
    "qwen2": ("qwen2", dict(**SIZE), Kind.Q8_0),
    "qwen3": ("qwen3", dict(**SIZE, head_dim=16), Kind.F16),
    "phi3": ("phi3", dict(**SIZE, partial_rotary_factor=0.75, original_max_position_embeddings=64, rope_parameters=LONG), Kind.BF16),
    "gemma": ("gemma", dict(**SIZE, head_dim=16), Kind.Q4_0),
}  # fmt: skip


def permute(weights, heads):
    """As llama.cpp's converter does it: `LlamaModel.permute`."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def unpermute(weights, heads):
    return weights.reshape(heads, weights.shape[0] // heads // 2, 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def llama3_factors(dim):
    """As llama.cpp's converter does it: `LlamaModel.generate_extra_tensors`."""
    old, low, high = LLAMA3["original_max_position_embeddings"], LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    for freq in 1.0 / LLAMA3["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim):
        wavelength = 2 * np.pi / freq
        smooth = min(max((old / wavelength - low) / (high - low), 0), 1)
        yield 1 / ((1 - smooth) / LLAMA3["factor"] + smooth)


def random_blocks(rng, kind, rows, columns):
    """Random blocks around zero: gguf cannot quantise to the K types."""
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // numbers, size), dtype=np.uint8)
    for at, scale in {Kind.Q4_K: {0: 6e-4, 2: 45e-4}, Kind.Q6_K: {208: 8e-5}}[kind].items():
        blocks[:, at : at + 2] = (scale * rng.uniform(0.5, 1.5, (len(blocks), 1))).astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def write(name, arch, config, kinds, model):
    """Writes a model, and gives it the numbers that were written."""
    writer, rng = GGUFWriter(HERE / f"{name}.gguf", arch), np.random.default_rng(1)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(int(dim * (getattr(config, "partial_rotary_factor", None) or config.rope_parameters.get("partial_rotary_factor", 1))))
    if arch == "phi3":
        original = config.original_max_position_embeddings
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(original))))
        for which in ("long", "short"):
            writer.add_tensor(f"rope_factors_{which}.weight", np.array(LONG[f"{which}_factor"], dtype=np.float32))
    if name == "llama":
        writer.add_tensor("rope_freqs.weight", np.array(list(llama3_factors(dim)), dtype=np.float32))
    names = get_tensor_name_map(next(a for a in MODEL_ARCH if a.name.lower() == arch), config.num_hidden_layers)
    for key, parameter in model.named_parameters():
        end = key.rsplit(".", 1)[1]
        stem = names.get_name(key, try_suffixes=(".weight", ".bias")).removesuffix(f".{end}")
        turned = heads if "attn_q" in stem else kv_heads if "attn_k" in stem else 0
        turned = turned * (arch == "llama")
        plus = float(arch == "gemma" and parameter.ndim == 1)
        weights = parameter.numpy() + np.float32(plus)
        weights = permute(weights, turned) if turned else weights
        kind = kinds if isinstance(kinds, Kind) else kinds.get(stem.split(".")[-1], Kind.F32)
        kind = Kind.F32 if parameter.ndim == 1 else kind
        data = random_blocks(rng, kind, *weights.shape) if kind in (Kind.Q4_K, Kind.Q6_K) else quants.quantize(weights, kind)
        writer.add_tensor(f"{stem}.{end}", data, raw_dtype=kind)
        stored = quants.dequantize(data, kind).reshape(weights.shape).astype(np.float32)
        stored = unpermute(stored, turned) if turned else stored
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(stored - np.float32(plus))))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * 62)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    if name == "gemma":
        writer.add_float32("general.sampling.temp", 0.5)
        writer.add_int32("general.sampling.top_k", 7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokenizer():
    merges = [tuple(merge.split()) for merge in MERGES]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE)


@torch.no_grad()
def fixture(name, seed, tokens):
    torch.manual_seed(seed)
    arch, config, kinds = MODELS[name]
    config = AutoConfig.for_model(arch, **config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    for parameter in model.parameters():  # vectors are numbers of bf16
        spread = 0.1 if config.hidden_size == 256 else 0.3
        parameter.copy_((spread * torch.randn(parameter.shape) + (parameter if parameter.ndim == 1 else 0)).to(torch.bfloat16))
    write(name, arch, config, kinds, model)
    logits = model(tokens).logits[0]
    chosen = []
    for _ in range(8):
        best = model(torch.cat([tokens, torch.tensor([chosen], dtype=torch.long)], 1)).logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < 2e-3 or best.indices[0] == 1:
            return None
        chosen.append(best.indices[0].item())
    print(name, seed, (HERE / f"{name}.gguf").stat().st_size, logits.abs().max().item(), chosen)
    return {f"{name}.logits": logits, f"{name}.greedy": torch.tensor(chosen)} if len(set(chosen)) > 2 and logits.abs().max() < 20 else None


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    words = tokenizer()
    ids = lambda text: torch.tensor([words.encode(text, add_special_tokens=False)])  # noqa: E731
    asked = words.apply_chat_template([dict(role="user", content=QUESTION)], add_generation_prompt=True, tokenize=False)
    expected = {"tokens": ids("<s>" + TEXT), "chat": ids(asked)}
    for name in MODELS:
        expected |= next(found for seed in range(100) if (found := fixture(name, seed, expected["tokens"])))
    expected = {key: value.to(torch.float32 if value.is_floating_point() else torch.uint32) for key, value in expected.items()}
    save_file({key: value.contiguous() for key, value in expected.items()}, HERE / "expected.safetensors")


main()

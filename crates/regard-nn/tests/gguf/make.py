"""Makes the fixtures of tests/gguf.rs with Python's gguf, and what sentencepiece, tokenizers and gguf say of them.

    python3 crates/regard-nn/tests/gguf/make.py
"""

import io
import json
from pathlib import Path

import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type
from gguf import GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent
TRANSFORMERS = HERE.parent / "transformers"
TEXTS = [
    "Once upon a time, there was a little girl who didn't like 1234567 apples.",
    "  two spaces, a tab\tand\n\n lines \n", "naïve café, 東京 and 🙂", "WE'LL SEE; they're <|end|> here", "", "e\u0301 = é",
]
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INNER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ggml(name):
    stem, end = name.rsplit(".", 1)
    if stem in OUTER:
        return f"{OUTER[stem]}.{end}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{INNER[inner]}.{end}"


def permute(weights, heads):
    """As llama.cpp's converter does it: `LlamaModel.permute`."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def llama3_factors(rope, dim):
    """As llama.cpp's converter does it: `LlamaModel.generate_extra_tensors`."""
    freqs = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
    old, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    for wavelength in 2 * np.pi / freqs:
        if wavelength < old / high:
            yield 1.0
        elif wavelength > old / low:
            yield rope["factor"]
        else:
            smooth = (old / wavelength - low) / (high - low)
            yield 1 / ((1 - smooth) / rope["factor"] + smooth)


def model(name, dtype):
    """A model of tests/transformers as a converter would write it."""
    config = json.loads((TRANSFORMERS / name / "config.json").read_text())
    writer = GGUFWriter(HERE / f"{name}.gguf", "llama")
    heads, kv_heads, dim, rope = (
        config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"], config["rope_parameters"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", np.array(list(llama3_factors(rope, dim)), dtype=np.float32))
    for key, weights in load_file(TRANSFORMERS / name / "model.safetensors").items():
        if "q_proj" in key or "k_proj" in key:
            weights = permute(weights, heads if "q_proj" in key else kv_heads)
        writer.add_tensor(ggml(key), np.ascontiguousarray(weights.astype(dtype if weights.ndim > 1 else np.float32)))
    close(writer)


def random_blocks(rng, kind, rows, columns):
    """Random blocks with scales that are finite: gguf cannot quantise to the K types."""
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // numbers, size), dtype=np.uint8)
    for at in {Kind.Q4_K: [0, 2], Kind.Q5_K: [0, 2], Kind.Q6_K: [208]}[kind]:
        blocks[:, at:at + 2] = rng.normal(0, 0.01, (len(blocks), 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def blocks():
    """A tensor of every type with its numbers, and metadata of every type."""
    rng, expected = np.random.default_rng(1), {}
    writer = GGUFWriter(HERE / "blocks.gguf", "qwen2")
    writer.add_custom_alignment(64)
    for kind, value in [
        (Type.UINT8, 200), (Type.INT8, -100), (Type.UINT16, 60000), (Type.INT16, -30000), (Type.UINT32, 4000000000),
        (Type.INT32, -2000000000), (Type.UINT64, 2**63), (Type.INT64, -(2**62)), (Type.FLOAT32, 0.1), (Type.FLOAT64, 0.1),
        (Type.BOOL, True), (Type.STRING, "naïve 🙂"),
    ]:
        writer.add_key_value(f"test.{kind.name.lower()}", value, kind)
        many = [value, value] if kind != Type.BOOL else [True, False]
        writer.add_key_value(f"test.many.{kind.name.lower()}", many, Type.ARRAY, sub_type=kind)
    for kind in [Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]:
        name = f"blk.0.ffn_up.{kind.name}"
        if kind in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
            data = random_blocks(rng, kind, 2, 256)
        else:
            data = quants.quantize(rng.normal(0, 1, (3, 64)).astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[f"model.layers.0.mlp.up_proj.{kind.name}"] = np.ascontiguousarray(quants.dequantize(data, kind).astype(np.float32))
    close(writer)
    save_file(expected, HERE / "blocks.safetensors")


def vocabulary(name, model, tokens, types, **fields):
    writer = GGUFWriter(HERE / f"{name}.gguf", "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for field, value in fields.items():
        getattr(writer, f"add_{field}")(value)
    close(writer)


def corpus():
    words = "once upon a time there was little girl who didn't like apples they're here we'll see and the lines spaces tab naïve café"
    return [f"{a} {b}, {a.upper()} {i * 37}." for i, a in enumerate(words.split()) for b in words.split()]


def byte_level(name, steps, normalizer=None):
    """A tokenizer trained by Hugging Face's library with this rule for words."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=390, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    state = json.loads(tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    for pair in [["6", "7"], ["1", "2"], ["12", "3"]]:  # so that the rules for digits show
        vocab["".join(pair)] = len(vocab)
        merges.append(pair)
    tokenizer, tokens = Tokenizer.from_str(json.dumps(state)), sorted(vocab, key=vocab.get)
    vocabulary(
        name, "gpt2", tokens, [3 if token == "<|end|>" else 1 for token in tokens], tokenizer_pre=name,
        token_merges=[" ".join(pair) for pair in merges], bos_token_id=0, eos_token_id=0, add_bos_token=False)
    return [[text, (ids := tokenizer.encode(text).ids), tokenizer.decode(ids)] for text in TEXTS]


def sentence_piece():
    """A tokenizer trained by SentencePiece itself, with its own encoding; text of special tokens is not its business."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=out, model_type="bpe", vocab_size=390, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    ids = range(sp.get_piece_size())
    types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in ids]
    vocabulary(
        "sentencepiece", "llama", [sp.id_to_piece(i) for i in ids], types, token_scores=[sp.get_score(i) for i in ids],
        unk_token_id=sp.unk_id(), bos_token_id=sp.bos_id(), eos_token_id=sp.eos_id(), add_bos_token=True)
    return [[text, sp.encode(text, add_bos=True), sp.decode(sp.encode(text))] for text in TEXTS]


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def main():
    blocks()
    model("scaled", np.float16)
    model("biased", np.float16)
    model("tied", np.float16)
    # As the tokenizer.json of Llama 3, Qwen 2, GPT-2 and SmolLM have it.
    start, end = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    encodings = {
        "sentencepiece": sentence_piece(),
        "llama-bpe": byte_level("llama-bpe", [split(start + r"\p{N}{1,3}" + end), bytes_only]),
        "qwen2": byte_level("qwen2", [split(start + r"\p{N}" + end), bytes_only], normalizers.NFC()),
        "gpt-2": byte_level("gpt-2", [words]),
        "smollm": byte_level("smollm", [pre_tokenizers.Digits(individual_digits=True), words]),
    }
    lines = [f" {json.dumps(name)}: [\n  " + ",\n  ".join(map(compact, rows)) + "\n ]" for name, rows in encodings.items()]
    (HERE / "encodings.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compact(row):
    return json.dumps(row, ensure_ascii=False)


main()

"""Makes the fixtures of tests/families: a tiny random checkpoint of every family, with what Python's transformers computes from it.

    pip install -r crates/regard-nn/tests/transformers/requirements.txt
    python3 crates/regard-nn/tests/families/make.py [NAME ...]

Made with transformers 5.24.0, torch 2.15.0, safetensors 0.8.0: attention and experts "eager", one thread, every tensor f32 or u32.
A directory is what `save_pretrained` writes; expected.safetensors is computed by the model loaded from it. At every ninth position:

    decoders  tokens [2,100]   logits [2,12,V]   hidden [layers+1,12,H]: text 0, after the embedding and after every layer, not normed
              short_logits [V]: last position of the first 37 tokens of text 1   greedy [12]: what follows the first 40 of text 0
    bert      tokens, token_types [2,100]   last [2,12,H]   hidden   mean, pooler [2,H]   short_mean [H]: the first 37 of text 1
    t5        tokens, decoder_tokens [2,60]   encoder [2,12,H]: normed   logits [2,7,V]   hidden, decoder_hidden [layers+1,7,H]
              short_logits: all decoder tokens of text 1 after its first 37   greedy: from the first 40 of text 0
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).parent
EVERY, SHORT, PROMPT, NEW, EOS = 9, 37, 40, 12, 1

EPSILON = 1e-3  # large enough to be seen
SIZE = dict(
    vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
)  # fmt: skip
IDS = dict(bos_token_id=0, eos_token_id=EOS, pad_token_id=None)
TEXT = dict(**SIZE, **IDS, num_key_value_heads=2, rms_norm_eps=EPSILON)
T5 = dict(
    vocab_size=64, d_model=32, d_kv=6, d_ff=40, num_layers=2, num_heads=4, layer_norm_epsilon=EPSILON,
    eos_token_id=EOS, decoder_start_token_id=0,
)  # fmt: skip


def rope(kind, theta=500.0, **options):
    return dict(rope_type=kind, rope_theta=theta, **options)


def longrope(pairs):  # the short text is shorter than the original length, all others are longer
    short, long = ([start + step * i for i in range(pairs)] for start, step in ((1.0, 0.25), (1.5, 1.25)))
    return dict(original_max_position_embeddings=38, rope_parameters=rope("longrope", short_factor=short, long_factor=long))


FAMILIES = {
    "llama": dict(**TEXT, rope_parameters=rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "llama_tied": dict(**TEXT | dict(num_key_value_heads=1), head_dim=12, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "mistral": dict(**TEXT, head_dim=12, sliding_window=11),
    "qwen2": dict(**TEXT | dict(num_hidden_layers=3), use_sliding_window=True, sliding_window=13, max_window_layers=1, rope_parameters=rope("default")),
    "qwen3": dict(**TEXT, head_dim=12, rope_parameters=rope("default")),
    "gemma2": dict(
        **TEXT | dict(num_hidden_layers=3), head_dim=12, sliding_window=9, query_pre_attn_scalar=20, attn_logit_softcapping=3.0, final_logit_softcapping=8.0,
    ),
    "gemma3_text": dict(
        **TEXT | dict(num_hidden_layers=3), head_dim=12, sliding_window=17, sliding_window_pattern=3, query_pre_attn_scalar=20,
        rope_parameters=dict(sliding_attention=rope("default", 100.0), full_attention=rope("linear", 2000.0, factor=4.0)),
    ),
    "phi3": dict(**TEXT, sliding_window=23),
    "phi3_longrope": dict(**TEXT, **longrope(4)),
    "phi4_mini": dict(**TEXT | dict(num_key_value_heads=1), **longrope(3), partial_rotary_factor=0.75, tie_word_embeddings=True),
    "smollm3": dict(**TEXT | dict(num_hidden_layers=4), no_rope_layer_interval=2, rope_parameters=rope("default")),
    "gpt2": dict(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, layer_norm_epsilon=EPSILON, **IDS),
    "gpt_neox": dict(**SIZE, **IDS, layer_norm_eps=EPSILON, rope_parameters=rope("default", partial_rotary_factor=0.5)),
    "gpt_neox_sequential": dict(**SIZE, **IDS, layer_norm_eps=EPSILON, use_parallel_residual=False),
    "gpt_oss": dict(
        **TEXT | dict(intermediate_size=24), head_dim=12, sliding_window=15, num_local_experts=4, num_experts_per_tok=2, swiglu_limit=2.5,
        rope_parameters=rope("yarn", factor=4.0, beta_fast=4.0, beta_slow=1.0, truncate=False, original_max_position_embeddings=32),
    ),
    "bert": dict(**SIZE, layer_norm_eps=EPSILON),
    "t5": dict(**T5 | dict(num_layers=3), num_decoder_layers=2, relative_attention_num_buckets=16, relative_attention_max_distance=48),
    "t5_gated": dict(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}  # fmt: skip
TYPES = {"llama_tied": "llama", "phi3_longrope": "phi3", "phi4_mini": "phi3", "gpt_neox_sequential": "gpt_neox", "t5_gated": "t5"}
AUTO = {"bert": AutoModel, "t5": AutoModelForSeq2SeqLM}
SPREAD = {  # of the parameters whose names end so; of all others 0.3
    "sinks": 1.0, "relative_attention_bias.weight": 1.0, "shared.weight": 0.6, "Attention.q.weight": 0.1,
    "post_feedforward_layernorm.weight": 2.0, "decoder.final_layer_norm.weight": 3.0,
}  # fmt: skip


class Unlucky(Exception):
    """This seed is not one to compare with: the next is tried."""


def random_model(auto, config):
    model = auto.from_config(config)
    if getattr(config, "scale_decoder_outputs", True) is False:
        # T5 1.1 has a head of its own, which a new model has not, though a loaded one has
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # nothing may hide behind a one or a zero
            spread = next((s for end, s in SPREAD.items() if name.endswith(end)), 0.3)
            parameter.copy_(spread * torch.randn(parameter.shape) + (parameter if parameter.ndim == 1 else 0))
    return model


class Watch:
    """Every state that enters the first of `layers` or leaves one; `states` has those of the text `row` at every ninth position."""

    def __init__(self, layers):
        layers[0].register_forward_pre_hook(self.enter)
        for layer in layers:
            layer.register_forward_hook(self.leave)

    def enter(self, layer, inputs):
        self.seen = [inputs[0]]

    def leave(self, layer, inputs, output):
        self.seen.append(output[0] if isinstance(output, tuple) else output)

    def states(self, row=0):
        return torch.stack([state[row, ::EVERY] for state in self.seen])


def routes_are_clear(model):
    """A router's last chosen expert is ahead of the next by more than rounding."""

    def look(router, inputs, output):
        best = output[0].topk(router.top_k + 1).values
        if (best[:, -2] - best[:, -1]).min() < 1e-4:
            raise Unlucky("two experts are as good")

    for module in model.modules():
        if hasattr(module, "top_k"):
            module.register_forward_hook(look)


def greedy(model, start, logits_of):
    """The likeliest continuation of `start`, in one pass a token, as `generate` gives it with its cache."""
    chosen = []
    for _ in range(NEW):
        best = logits_of(torch.cat([start, torch.tensor([chosen], dtype=torch.long)], 1))[0, -1].topk(2)
        if best.values[0] - best.values[1] < 2e-3:
            raise Unlucky("two tokens are as good")
        chosen.append(best.indices[0].item())
    if EOS in chosen or len(set(chosen)) < 4:
        raise Unlucky(f"a dull text: {chosen}")
    return torch.tensor(chosen)


def decoder(model, tokens):
    base = model.base_model
    watch = Watch(base.h if hasattr(base, "h") else base.layers)
    routes_are_clear(model)
    logits = model(tokens).logits
    hidden = watch.states()
    chosen = greedy(model, tokens[:1, :PROMPT], lambda ids: model(ids).logits)
    assert torch.equal(model.generate(tokens[:1, :PROMPT], max_new_tokens=NEW, do_sample=False)[0, PROMPT:], chosen)
    return dict(
        tokens=tokens, logits=logits[:, ::EVERY], hidden=hidden, short_logits=model(tokens[1:, :SHORT]).logits[0, -1], greedy=chosen
    )


def bert(model, tokens):
    watch = Watch(model.encoder.layer)
    types = (torch.arange(100) >= torch.tensor([[30], [61]])).long()
    out = model(tokens, token_type_ids=types)
    hidden = watch.states()
    short = model(tokens[1:, :SHORT], token_type_ids=types[1:, :SHORT]).last_hidden_state.mean(1)[0]
    kept = (torch.arange(100) < torch.tensor([[100], [SHORT]])).long()
    padded = model(tokens, attention_mask=kept, token_type_ids=types).last_hidden_state[1, :SHORT].mean(0)
    assert (padded - short).abs().max() < 1e-5, "padding is seen"
    return dict(
        tokens=tokens, token_types=types, last=out.last_hidden_state[:, ::EVERY], hidden=hidden,
        mean=out.last_hidden_state.mean(1), pooler=out.pooler_output, short_mean=short,
    )  # fmt: skip


def t5(model, tokens):
    encoder, decoder = Watch(model.encoder.block), Watch(model.decoder.block)
    replies = torch.randint(64, (2, 60))
    replies[:, 0] = model.config.decoder_start_token_id
    out = model(input_ids=tokens, decoder_input_ids=replies)
    hidden, decoder_hidden = encoder.states(), decoder.states()
    prompt = tokens[:1, :PROMPT]
    chosen = greedy(model, replies[:1, :1], lambda ids: model(input_ids=prompt, decoder_input_ids=ids).logits)
    assert torch.equal(model.generate(prompt, max_new_tokens=NEW, do_sample=False)[0, 1:], chosen)
    return dict(
        tokens=tokens, decoder_tokens=replies, encoder=out.encoder_last_hidden_state[:, ::EVERY], logits=out.logits[:, ::EVERY],
        hidden=hidden, decoder_hidden=decoder_hidden,
        short_logits=model(input_ids=tokens[1:, :SHORT], decoder_input_ids=replies[1:]).logits[0, -1], greedy=chosen,
    )  # fmt: skip


@torch.no_grad()
def fixture(name, seed):
    torch.manual_seed(seed)
    kind, target = TYPES.get(name, name), HERE / name
    auto = AUTO.get(kind, AutoModelForCausalLM)
    random_model(auto, AutoConfig.for_model(kind, **FAMILIES[name])).save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    eager = dict(attn_implementation="eager", experts_implementation="eager")
    model = auto.from_pretrained(target, **eager, dtype=torch.float32).eval()
    expected = {"bert": bert, "t5": t5}.get(kind, decoder)(model, torch.randint(64, (2, 100)))
    largest = expected.get("logits", expected.get("last")).abs().max()
    if not 2 < largest < 20:
        raise Unlucky(f"the largest logit is {largest}")
    expected = {key: value.to(torch.float32 if value.is_floating_point() else torch.uint32) for key, value in expected.items()}
    save_file({key: value.contiguous() for key, value in expected.items()}, target / "expected.safetensors")
    bytes_ = sum(file.stat().st_size for file in target.iterdir())
    print(f"{name}: seed {seed}, {bytes_} bytes, largest {largest:.1f}, greedy {expected.get('greedy', torch.empty(0)).tolist()}")


def main(names):
    torch.set_num_threads(1)
    disable_progress_bar()
    for name in names or FAMILIES:
        for seed in range(100):
            try:
                fixture(name, seed)
                break
            except Unlucky as why:
                print(f"{name}: not seed {seed}, {why}", file=sys.stderr)
        else:
            raise SystemExit(f"{name}: no seed will do")


if __name__ == "__main__":
    main(sys.argv[1:])

//! What each family calls its tensors.

/// The names of a family's tensors, without `.weight` and `.bias`; those of a block follow `block`, in which `{}` is its number.
pub(super) struct Names {
    pub(super) embed: &'static str,
    pub(super) positions: &'static str,
    pub(super) norm: &'static str,
    pub(super) head: &'static str,
    pub(super) block: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) after_attention: &'static str,
    pub(super) feed_forward_norm: &'static str,
    pub(super) after_feed_forward: &'static str,
    pub(super) qkv: Qkv,
    pub(super) out: &'static str,
    pub(super) q_norm: &'static str,
    pub(super) k_norm: &'static str,
    pub(super) sinks: &'static str,
    /// Gate and up, or one of both, or up alone.
    pub(super) up: &'static [&'static str],
    pub(super) down: &'static str,
    /// Whether matrices are `[inputs, outputs]`.
    pub(super) transposed: bool,
}

/// Where queries, keys and values are.
#[derive(Clone, Copy)]
pub(super) enum Qkv {
    Apart([&'static str; 3]),
    /// In one matrix, all queries first.
    Together(&'static str),
    /// In one matrix, head by head.
    HeadByHead(&'static str),
}

pub(super) const LLAMA: Names = Names {
    embed: "model.embed_tokens",
    positions: "",
    norm: "model.norm",
    head: "lm_head",
    block: "model.layers.{}.",
    attention_norm: "input_layernorm",
    after_attention: "",
    feed_forward_norm: "post_attention_layernorm",
    after_feed_forward: "",
    qkv: Qkv::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    out: "self_attn.o_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    sinks: "self_attn.sinks",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    transposed: false,
};

pub(super) const GEMMA: Names = Names {
    after_attention: "post_attention_layernorm",
    feed_forward_norm: "pre_feedforward_layernorm",
    after_feed_forward: "post_feedforward_layernorm",
    ..LLAMA
};

pub(super) const PHI3: Names = Names { qkv: Qkv::Together("self_attn.qkv_proj"), up: &["mlp.gate_up_proj"], ..LLAMA };

pub(super) const GPT2: Names = Names {
    embed: "transformer.wte",
    positions: "transformer.wpe",
    norm: "transformer.ln_f",
    head: "lm_head",
    block: "transformer.h.{}.",
    attention_norm: "ln_1",
    feed_forward_norm: "ln_2",
    qkv: Qkv::Together("attn.c_attn"),
    out: "attn.c_proj",
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    transposed: true,
    ..LLAMA
};

pub(super) const NEOX: Names = Names {
    embed: "gpt_neox.embed_in",
    norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    block: "gpt_neox.layers.{}.",
    qkv: Qkv::HeadByHead("attention.query_key_value"),
    out: "attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

pub(super) const GPT_OSS: Names = Names { up: &["mlp.experts.gate_up_proj"], down: "mlp.experts.down_proj", ..LLAMA };

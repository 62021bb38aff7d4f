//! The families: a row of facts for each `model_type`.

use super::config::NormKind;
use super::names::{self, Names};
use crate::{Error, Result};

/// What all models of a family have in common.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    pub(super) architecture: &'static str,
    pub(super) norm: NormKind,
    pub(super) norms_after: bool,
    pub(super) qk_norm: bool,
    pub(super) sinks: bool,
    pub(super) learned_positions: bool,
    pub(super) gated: bool,
    /// Where `config.json` names none.
    pub(super) activation: &'static str,
    /// Whether queries, keys and values have biases, their output and the feed-forward layer.
    pub(super) biases: [Has; 3],
    pub(super) windows: Windows,
    pub(super) tied: bool,
    /// Where `config.json` gives no other: of the normalisations' ε, the rotary base, the window, the elements of a head (else those of
    /// the stream, shared out) and the KV heads (else as many as query heads).
    pub(super) eps: f64,
    pub(super) theta: f64,
    pub(super) window: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) kv_heads: Option<usize>,
    /// Whether embeddings are multiplied by `√hidden_size`.
    pub(super) scaled_embedding: bool,
    pub(super) names: &'static Names,
}

/// Whether something is there.
#[derive(Clone, Copy)]
pub(super) enum Has {
    No,
    Yes,
    /// As a field says; no where it is not there.
    Field(&'static str),
}

/// Which blocks see a window only, where no field `layer_types` says so.
#[derive(Clone, Copy)]
pub(super) enum Windows {
    Never,
    /// All, where there is a `sliding_window`.
    All,
    /// From block `max_window_layers` on, where `use_sliding_window` says so.
    FromLayer,
    /// Those without rotary positions, where `use_sliding_window` says so.
    Unturned,
    /// All but every n-th, n being `sliding_window_pattern` or this.
    Pattern(usize),
}

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    norm: NormKind::Rms,
    norms_after: false,
    qk_norm: false,
    sinks: false,
    learned_positions: false,
    gated: true,
    activation: "silu",
    biases: [Has::Field("attention_bias"), Has::Field("attention_bias"), Has::Field("mlp_bias")],
    windows: Windows::Never,
    tied: false,
    eps: 1e-6,
    theta: 10_000.0,
    window: None,
    head_dim: None,
    kv_heads: None,
    scaled_embedding: false,
    names: &names::LLAMA,
};

const GEMMA2: Family = Family {
    model_type: "gemma2",
    architecture: "Gemma2ForCausalLM",
    norm: NormKind::RmsPlusOne,
    norms_after: true,
    activation: "gelu_pytorch_tanh",
    biases: [Has::Field("attention_bias"), Has::Field("attention_bias"), Has::No],
    windows: Windows::Pattern(2),
    tied: true,
    window: Some(4096),
    head_dim: Some(256),
    kv_heads: Some(4),
    scaled_embedding: true,
    names: &names::GEMMA,
    ..LLAMA
};

/// The second model of the family has what the first one has not.
const GEMMA: Family = Family {
    model_type: "gemma",
    architecture: "GemmaForCausalLM",
    norms_after: false,
    windows: Windows::Never,
    window: None,
    kv_heads: Some(16),
    names: &names::LLAMA,
    ..GEMMA2
};

const GPT2: Family = Family {
    model_type: "gpt2",
    architecture: "GPT2LMHeadModel",
    norm: NormKind::Layer,
    learned_positions: true,
    gated: false,
    activation: "gelu_new",
    biases: [Has::Yes; 3],
    tied: true,
    eps: 1e-5,
    names: &names::GPT2,
    ..LLAMA
};

pub(super) static FAMILIES: [Family; 12] = [
    LLAMA,
    Family {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        windows: Windows::All,
        biases: [Has::No; 3],
        window: Some(4096),
        kv_heads: Some(8),
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        architecture: "Qwen2ForCausalLM",
        biases: [Has::Yes, Has::No, Has::No],
        windows: Windows::FromLayer,
        kv_heads: Some(32),
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        qk_norm: true,
        biases: [Has::Field("attention_bias"), Has::Field("attention_bias"), Has::No],
        windows: Windows::FromLayer,
        head_dim: Some(128),
        kv_heads: Some(32),
        ..LLAMA
    },
    GEMMA,
    GEMMA2,
    Family {
        model_type: "gemma3_text",
        architecture: "Gemma3ForCausalLM",
        qk_norm: true,
        windows: Windows::Pattern(6),
        theta: 1_000_000.0,
        ..GEMMA2
    },
    Family {
        model_type: "phi3",
        architecture: "Phi3ForCausalLM",
        biases: [Has::No; 3],
        windows: Windows::All,
        eps: 1e-5,
        names: &names::PHI3,
        ..LLAMA
    },
    Family {
        model_type: "smollm3",
        architecture: "SmolLM3ForCausalLM",
        windows: Windows::Unturned,
        tied: true,
        theta: 2_000_000.0,
        kv_heads: Some(4),
        ..LLAMA
    },
    GPT2,
    Family {
        model_type: "gpt_neox",
        architecture: "GPTNeoXForCausalLM",
        learned_positions: false,
        activation: "gelu",
        biases: [Has::Field("attention_bias"), Has::Field("attention_bias"), Has::Yes],
        tied: false,
        names: &names::NEOX,
        ..GPT2
    },
    Family {
        model_type: "gpt_oss",
        architecture: "GptOssForCausalLM",
        sinks: true,
        biases: [Has::Yes; 3],
        windows: Windows::Pattern(2),
        eps: 1e-5,
        theta: 150_000.0,
        window: Some(128),
        head_dim: Some(64),
        kv_heads: Some(8),
        names: &names::GPT_OSS,
        ..LLAMA
    },
];

macro_rules! named {
    ($others:literal) => {
        concat!("llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi3, smollm3, gpt2, gpt_neox", $others)
    };
}
/// All supported, for error messages.
pub(crate) const SUPPORTED: &str = named!(" and gpt_oss");
/// The same where an encoder–decoder may be instead.
pub(crate) const OR_T5: &str = named!(", gpt_oss and t5");

/// The family of a `model_type`.
pub(super) fn family(model_type: &str) -> Result<&'static Family> {
    let unsupported = || Error::Unsupported { what: "model_type", given: model_type.to_owned(), supported: SUPPORTED };
    FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(unsupported)
}

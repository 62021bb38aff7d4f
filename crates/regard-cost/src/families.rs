//! The families: a row of facts for each `model_type`.

use crate::{Error, Result};

/// What all models of a family have in common, as far as it costs something.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    pub(crate) model_type: &'static str,
    /// Whether a normalisation has a bias beside its weight.
    pub(crate) layer_norm: bool,
    pub(crate) norms_after: bool,
    pub(crate) qk_norm: bool,
    pub(crate) sinks: bool,
    /// Rows of the table of learned positions beyond `max_position_embeddings`, where there is a table.
    pub(crate) learned_positions: Option<u64>,
    pub(crate) gated: bool,
    /// Whether queries, keys and values have biases, their output and the feed-forward layer.
    pub(crate) biases: [Has; 3],
    pub(crate) windows: Windows,
    pub(crate) tied: bool,
    /// Where `config.json` gives no other: the window, the elements of a head (else those of the stream, shared out) and the KV heads
    /// (else as many as query heads).
    pub(crate) window: Option<u64>,
    pub(crate) head_dim: Option<u64>,
    pub(crate) kv_heads: Option<u64>,
    pub(crate) kind: Kind,
}

/// What sets a family apart from a decoder of dense layers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dense,
    /// Reads in both directions, normalises its embedding, and writes nothing.
    Encoder,
    /// Every layer has experts; whether they and their router have biases.
    Experts {
        biased: bool,
    },
    /// Latent attention, and experts but in the first layers; whether the router has a bias.
    Latent {
        biased: bool,
    },
}

/// Whether something is there.
#[derive(Clone, Copy)]
pub(crate) enum Has {
    No,
    Yes,
    /// As a field says; else so.
    Field(&'static str, bool),
}

/// Which layers see a window only, where no field `layer_types` says so.
#[derive(Clone, Copy)]
pub(crate) enum Windows {
    Never,
    /// All, where there is a `sliding_window`.
    All,
    /// From layer `max_window_layers` on, where `use_sliding_window` says so.
    FromLayer,
    /// Those without rotary positions, where `use_sliding_window` says so.
    Unturned,
    /// All but every n-th, n being `sliding_window_pattern` or this.
    Pattern(u64),
}

const LLAMA: Family = Family {
    model_type: "llama",
    layer_norm: false,
    norms_after: false,
    qk_norm: false,
    sinks: false,
    learned_positions: None,
    gated: true,
    biases: [Has::Field("attention_bias", false), Has::Field("attention_bias", false), Has::Field("mlp_bias", false)],
    windows: Windows::Never,
    tied: false,
    window: None,
    head_dim: None,
    kv_heads: None,
    kind: Kind::Dense,
};

const MISTRAL: Family =
    Family { model_type: "mistral", biases: [Has::No; 3], windows: Windows::All, window: Some(4096), kv_heads: Some(8), ..LLAMA };

const QWEN3: Family = Family {
    model_type: "qwen3",
    qk_norm: true,
    biases: [Has::Field("attention_bias", false), Has::Field("attention_bias", false), Has::No],
    windows: Windows::FromLayer,
    head_dim: Some(128),
    kv_heads: Some(32),
    ..LLAMA
};

const GEMMA2: Family = Family {
    model_type: "gemma2",
    norms_after: true,
    biases: [Has::Field("attention_bias", false), Has::Field("attention_bias", false), Has::No],
    windows: Windows::Pattern(2),
    tied: true,
    window: Some(4096),
    head_dim: Some(256),
    kv_heads: Some(4),
    ..LLAMA
};

const GPT2: Family = Family {
    model_type: "gpt2",
    layer_norm: true,
    learned_positions: Some(0),
    gated: false,
    biases: [Has::Yes; 3],
    tied: true,
    ..LLAMA
};

const DEEPSEEK: Family = Family { model_type: "deepseek_v2", biases: [Has::No; 3], kind: Kind::Latent { biased: false }, ..LLAMA };

static FAMILIES: [Family; 17] = [
    LLAMA,
    MISTRAL,
    Family { model_type: "qwen2", biases: [Has::Yes, Has::No, Has::No], qk_norm: false, head_dim: None, ..QWEN3 },
    QWEN3,
    Family { model_type: "gemma", norms_after: false, windows: Windows::Never, window: None, kv_heads: Some(16), ..GEMMA2 },
    GEMMA2,
    Family { model_type: "gemma3_text", qk_norm: true, windows: Windows::Pattern(6), ..GEMMA2 },
    Family { model_type: "phi3", window: None, kv_heads: None, ..MISTRAL },
    Family { model_type: "smollm3", windows: Windows::Unturned, tied: true, kv_heads: Some(4), ..LLAMA },
    GPT2,
    Family { model_type: "opt", learned_positions: Some(2), ..GPT2 },
    Family {
        model_type: "gpt_neox",
        learned_positions: None,
        biases: [Has::Field("attention_bias", true), Has::Field("attention_bias", true), Has::Yes],
        tied: false,
        ..GPT2
    },
    Family {
        model_type: "gpt_oss",
        sinks: true,
        biases: [Has::Yes; 3],
        windows: Windows::Pattern(2),
        window: Some(128),
        head_dim: Some(64),
        kv_heads: Some(8),
        kind: Kind::Experts { biased: true },
        ..LLAMA
    },
    Family { model_type: "mixtral", window: None, kind: Kind::Experts { biased: false }, ..MISTRAL },
    DEEPSEEK,
    Family { model_type: "deepseek_v3", kind: Kind::Latent { biased: true }, ..DEEPSEEK },
    Family { model_type: "bert", kind: Kind::Encoder, ..GPT2 },
];

/// All supported, for error messages.
const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi3, smollm3, gpt2, opt, gpt_neox, gpt_oss, \
                         mixtral, deepseek_v2, deepseek_v3 and bert";

/// The family of a `model_type`.
pub(crate) fn family(model_type: &str) -> Result<&'static Family> {
    let unsupported = || Error::Unsupported { field: "model_type", given: model_type.to_owned(), supported: SUPPORTED };
    FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_there_are_told() {
        let told: Vec<&str> = SUPPORTED.split(", ").flat_map(|some| some.split(" and ")).collect();
        assert_eq!(told, FAMILIES.map(|family| family.model_type));
    }
}

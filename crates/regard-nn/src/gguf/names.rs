//! Hugging Face names of tensors and ggml's.

/// Names outside the layers.
const OUTER: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Parts of a layer, each with `.weight` or `.bias`.
const INNER: [(&str, &str); 13] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// `model.layers.3.self_attn.q_proj.weight` is `blk.3.attn_q.weight`; a name that is not Hugging Face's is ggml's own.
pub(super) fn to_ggml(name: &str) -> String {
    if let Some((_, ggml)) = OUTER.iter().find(|(hf, _)| *hf == name) {
        return (*ggml).to_owned();
    }
    translate(name, "model.layers.", "blk.", |part| INNER.iter().find(|(hf, _)| *hf == part).map(|(_, ggml)| *ggml))
        .unwrap_or_else(|| name.to_owned())
}

/// The reverse of `to_ggml`; `fused` says that a layer's `ffn_up` holds the gate too.
pub(super) fn to_hf(name: &str, fused: bool) -> String {
    if let Some((hf, _)) = OUTER.iter().find(|(_, ggml)| *ggml == name) {
        return (*hf).to_owned();
    }
    let skipped = if fused { "mlp.up_proj" } else { "mlp.gate_up_proj" };
    let part = |part: &str| INNER.iter().find(|(hf, ggml)| *ggml == part && *hf != skipped).map(|(hf, _)| *hf);
    translate(name, "blk.", "model.layers.", part).unwrap_or_else(|| name.to_owned())
}

fn translate(name: &str, from: &str, to: &str, part: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    let (layer, rest) = name.strip_prefix(from)?.split_once('.')?;
    let (inner, end) = rest.rsplit_once('.')?;
    Some(format!("{to}{layer}.{}.{end}", part(inner)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_there_and_back() {
        for (hf, ggml) in [
            ("model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight"),
            ("model.layers.11.self_attn.k_norm.weight", "blk.11.attn_k_norm.weight"),
            ("model.layers.0.mlp.up_proj.bias", "blk.0.ffn_up.bias"),
            ("lm_head.weight", "output.weight"),
            ("rope_freqs.weight", "rope_freqs.weight"),
        ] {
            assert_eq!((to_ggml(hf).as_str(), to_hf(ggml, false).as_str()), (ggml, hf));
        }
        assert_eq!(to_hf("blk.0.ffn_up.weight", true), "model.layers.0.mlp.gate_up_proj.weight");
    }
}

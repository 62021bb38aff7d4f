"""The families of models in `transformers_table.py`: each as small as it goes, with every kind of attention it has in two layers.

A window is shorter than the texts of the table; queries share keys where the family can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 61
WINDOW = 7
MIXED = ["sliding_attention", "full_attention"]

SIZE = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
SEEN = {"max_position_embeddings": 64}
TEXT = {**SIZE, **TOKENS, **SEEN}
GROUPED = {**TEXT, "num_key_value_heads": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY, **TOKENS}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BIDIRECTIONAL = {**TEXT, **NO_DROPOUT}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {"kv_lora_rank": 12, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    **TOKENS,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    "forced_bos_token_id": None,
}
T5 = {
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 1,
    **TOKENS,
}
IMAGE = {"image_size": 16, "patch_size": 4, "num_channels": 3}
VISION = {**{key: SIZE[key] for key in SIZE if key != "vocab_size"}, **IMAGE}
WAVE = {
    "conv_dim": (16, 16),
    "conv_stride": (4, 2),
    "conv_kernel": (8, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


@dataclass(frozen=True)
class Family:
    """`config` and `model` are names in `transformers`, less "Config"; `kind` says what the model reads."""

    name: str
    config: str
    model: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> PreTrainedModel:
        """The model with every parameter random: matrices keep the size of what passes, vectors (norms, biases, sinks) spread by 0.3."""
        torch.manual_seed(seed)
        config = getattr(transformers, f"{self.config}Config")(**self.options)
        model: PreTrainedModel = getattr(transformers, self.model)._from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape)
                if parameter.ndim < 2:
                    parameter += 0.3 * noise
                else:
                    parameter.copy_(noise * 1.2 / parameter.shape[-1] ** 0.5)
        return model.eval()


def decoder(name: str, config: str, model: str | None = None, **options: Any) -> Family:
    """A causal language model."""
    return Family(name, config, model or f"{config}ForCausalLM", "decoder", options)


def encoder(name: str, config: str, model: str | None = None, **options: Any) -> Family:
    """A bidirectional model of text."""
    return Family(name, config, model or f"{config}Model", "encoder", options)


def seq2seq(name: str, config: str, model: str | None = None, **options: Any) -> Family:
    """An encoder of text, and a decoder that attends to it."""
    return Family(name, config, model or f"{config}ForConditionalGeneration", "seq2seq", options)


def vision(name: str, config: str, model: str | None = None, **options: Any) -> Family:
    """An encoder of images."""
    return Family(name, config, model or f"{config}Model", "vision", options)


FAMILIES = [
    decoder("GPT-2", "GPT2", "GPT2LMHeadModel", **GPT, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    decoder(
        "GPT-2, scaled by layer", "GPT2", "GPT2LMHeadModel", **GPT, scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False
    ),
    decoder("Llama", "Llama", **GROUPED),
    decoder(
        "Llama, yarn, biases",
        "Llama",
        **GROUPED,
        attention_bias=True,
        rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4},
    ),
    decoder(
        "Qwen2", "Qwen2", **GROUPED, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1, layer_types=MIXED[::-1]
    ),
    decoder("Qwen3", "Qwen3", **GROUPED, head_dim=12),
    decoder("Mistral", "Mistral", **GROUPED, head_dim=8, sliding_window=WINDOW),
    decoder("Gemma", "Gemma", **GROUPED, head_dim=12),
    decoder(
        "Gemma 2",
        "Gemma2",
        **GROUPED,
        head_dim=12,
        sliding_window=WINDOW,
        layer_types=MIXED,
        attn_logit_softcapping=2.0,
        query_pre_attn_scalar=9,
    ),
    decoder("Gemma 3", "Gemma3Text", "Gemma3ForCausalLM", **GROUPED, head_dim=12, sliding_window=WINDOW, layer_types=MIXED),
    decoder(
        "gpt-oss",
        "GptOss",
        **GROUPED,
        head_dim=12,
        sliding_window=WINDOW,
        layer_types=MIXED,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    decoder("Phi-3", "Phi3", **GROUPED, sliding_window=WINDOW),
    encoder("BERT", "Bert", "BertForMaskedLM", **BIDIRECTIONAL),
    seq2seq("T5", "T5", **T5, dropout_rate=0.0),
    Family(
        "Whisper",
        "Whisper",
        "WhisperForConditionalGeneration",
        "whisper",
        {
            **BART,
            "num_mel_bins": 8,
            "max_source_positions": 20,
            "max_target_positions": 64,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
    ),
    decoder("GPT-NeoX", "GPTNeoX", **TEXT, rotary_pct=0.5),
    decoder("GPT-J", "GPTJ", **GPT, rotary_dim=4),
    decoder("CodeGen", "CodeGen", **GPT, rotary_dim=4),
    decoder("GPT-BigCode", "GPTBigCode", **GPT, multi_query=True),
    decoder("OPT", "OPT", **{key: TEXT[key] for key in TEXT if key != "intermediate_size"}, ffn_dim=40, word_embed_proj_dim=32),
    decoder("Phi", "Phi", **GROUPED, partial_rotary_factor=0.5),
    decoder("Phi-MoE", "Phimoe", **GROUPED, num_local_experts=4, num_experts_per_tok=2),
    decoder("Persimmon", "Persimmon", **TEXT),
    decoder("StableLM", "StableLm", **GROUPED, use_qkv_bias=True),
    decoder("StarCoder2", "Starcoder2", **GROUPED, sliding_window=WINDOW),
    decoder(
        "SmolLM3", "SmolLM3", **GROUPED, no_rope_layers=[1, 0], use_sliding_window=True, sliding_window=WINDOW, layer_types=MIXED
    ),
    decoder("OLMo", "Olmo", **GROUPED, clip_qkv=1.0),
    decoder("OLMo 2", "Olmo2", **GROUPED),
    decoder("OLMo 3", "Olmo3", **GROUPED, sliding_window=WINDOW, layer_types=MIXED),
    decoder("OLMoE", "Olmoe", **GROUPED, num_experts=4, num_experts_per_tok=2),
    decoder("Cohere", "Cohere", **GROUPED, use_qk_norm=True),
    decoder("Cohere 2", "Cohere2", **GROUPED, sliding_window=WINDOW, layer_types=MIXED),
    decoder("Granite", "Granite", **GROUPED, attention_multiplier=0.2),
    decoder("GraniteMoE", "GraniteMoe", **GROUPED, num_local_experts=4, num_experts_per_tok=2),
    decoder("Mixtral", "Mixtral", **GROUPED, sliding_window=WINDOW, num_local_experts=4),
    decoder("Qwen2-MoE", "Qwen2Moe", **GROUPED, **EXPERTS, shared_expert_intermediate_size=24),
    decoder("Qwen3-MoE", "Qwen3Moe", **GROUPED, **EXPERTS, head_dim=12),
    decoder(
        "Qwen3-Next",
        "Qwen3Next",
        **GROUPED,
        **EXPERTS,
        head_dim=12,
        shared_expert_intermediate_size=24,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    decoder(
        "Llama 4",
        "Llama4Text",
        "Llama4ForCausalLM",
        **GROUPED,
        head_dim=8,
        intermediate_size_mlp=40,
        num_local_experts=4,
        attention_chunk_size=6,
        layer_types=["chunked_attention", "full_attention"],
        no_rope_layers=[1, 0],
    ),
    decoder(
        "DeepSeek-V2",
        "DeepseekV2",
        **TEXT,
        **LATENT,
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
    ),
    decoder(
        "DeepSeek-V3",
        "DeepseekV3",
        **TEXT,
        **LATENT,
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
    ),
    decoder("GLM", "Glm", **GROUPED, head_dim=8),
    decoder("GLM-4", "Glm4", **GROUPED, head_dim=8),
    decoder("EXAONE 4", "Exaone4", **GROUPED, sliding_window=WINDOW, sliding_window_pattern=2, layer_types=MIXED),
    decoder("ERNIE 4.5", "Ernie4_5", **GROUPED, head_dim=8),
    decoder("Helium", "Helium", **GROUPED, head_dim=8),
    decoder("HunYuan", "HunYuanDenseV1", **GROUPED, head_dim=8),
    decoder("Ministral", "Ministral", **GROUPED, head_dim=8, sliding_window=WINDOW, layer_types=MIXED),
    decoder("Nemotron", "Nemotron", **GROUPED, head_dim=8),
    decoder("Seed-OSS", "SeedOss", **GROUPED, head_dim=8),
    decoder("Apertus", "Apertus", **GROUPED),
    decoder("Arcee", "Arcee", **GROUPED),
    decoder("BitNet", "BitNet", **GROUPED),
    decoder("LFM2", "Lfm2", **GROUPED, layer_types=["conv", "full_attention"]),
    decoder(
        "Jamba",
        "Jamba",
        **GROUPED,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        num_experts_per_tok=1,
        use_mamba_kernels=False,
        mamba_d_state=4,
    ),
    decoder("Doge", "Doge", **GROUPED),
    decoder("Diffllama", "DiffLlama", **GROUPED),
    decoder(
        "Dots 1",
        "Dots1",
        **GROUPED,
        n_shared_experts=1,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        sliding_window=WINDOW,
        layer_types=MIXED,
    ),
    decoder("MiniMax", "MiniMax", **GROUPED, num_local_experts=4, layer_types=["full_attention", "linear_attention"], block_size=8),
    decoder(
        "VaultGemma", "VaultGemma", **GROUPED, head_dim=12, sliding_window=WINDOW, layer_types=MIXED, attn_logit_softcapping=2.0
    ),
    decoder("ModernBERT decoder", "ModernBertDecoder", **TEXT, local_attention=WINDOW, layer_types=MIXED),
    decoder("BioGPT", "BioGpt", **TEXT),
    decoder("XGLM", "XGLM", d_model=32, ffn_dim=40, num_layers=2, attention_heads=4, vocab_size=VOCABULARY, **TOKENS),
    decoder("BLOOM", "Bloom", hidden_size=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, **TOKENS),
    decoder("Falcon", "Falcon", **TEXT, new_decoder_architecture=True, num_kv_heads=2),
    decoder("MPT", "Mpt", d_model=32, n_heads=4, n_layers=2, max_seq_len=64, vocab_size=VOCABULARY, **TOKENS),
    decoder(
        "GPT-Neo",
        "GPTNeo",
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=WINDOW,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        **TOKENS,
    ),
    encoder("RoBERTa", "Roberta", "RobertaForMaskedLM", **BIDIRECTIONAL),
    encoder("XLM-RoBERTa", "XLMRoberta", "XLMRobertaForMaskedLM", **BIDIRECTIONAL),
    encoder("CamemBERT", "Camembert", "CamembertForMaskedLM", **BIDIRECTIONAL),
    encoder(
        "DistilBERT",
        "DistilBert",
        "DistilBertForMaskedLM",
        dim=32,
        hidden_dim=40,
        n_layers=2,
        n_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
    ),
    encoder("ELECTRA", "Electra", **BIDIRECTIONAL, embedding_size=32),
    encoder("ALBERT", "Albert", "AlbertForMaskedLM", **BIDIRECTIONAL, embedding_size=24),
    encoder("ESM", "Esm", "EsmForMaskedLM", **BIDIRECTIONAL, position_embedding_type="rotary", mask_token_id=60),
    encoder(
        "ModernBERT",
        "ModernBert",
        "ModernBertForMaskedLM",
        **TEXT,
        local_attention=WINDOW,
        global_attn_every_n_layers=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    encoder("EuroBERT", "EuroBert", "EuroBertForMaskedLM", **GROUPED),
    encoder("MobileBERT", "MobileBert", **BIDIRECTIONAL, embedding_size=32, true_hidden_size=32, intra_bottleneck_size=32),
    encoder("LayoutLM", "LayoutLM", **BIDIRECTIONAL),
    encoder("NomicBERT", "NomicBert", **TEXT),
    encoder("MPNet", "MPNet", **BIDIRECTIONAL),
    encoder("DeBERTa v2", "DebertaV2", **BIDIRECTIONAL),
    seq2seq("BART", "Bart", **BART),
    seq2seq("mBART", "MBart", **BART),
    seq2seq("Marian", "Marian", "MarianMTModel", **BART),
    seq2seq("Pegasus", "Pegasus", **BART),
    seq2seq("BlenderBot", "Blenderbot", **BART),
    seq2seq("M2M-100", "M2M100", **BART),
    seq2seq("PLBart", "PLBart", **BART),
    seq2seq("UMT5", "UMT5", **T5, dropout_rate=0.0),
    seq2seq("mT5", "MT5", **T5, dropout_rate=0.0),
    seq2seq(
        "Switch",
        "SwitchTransformers",
        **T5,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        num_experts=2,
        expert_capacity=64,
        dropout_rate=0.0,
    ),
    seq2seq("LongT5", "LongT5", **T5, local_radius=5, dropout_rate=0.0),
    vision("ViT", "ViT", **VISION),
    vision("DeiT", "DeiT", **VISION),
    vision("DINOv2", "Dinov2", **VISION),
    vision("DINOv3", "DINOv3ViT", **VISION, num_register_tokens=2),
    vision("I-JEPA", "IJepa", **VISION),
    vision("SigLIP", "SiglipVision", **VISION),
    vision("CLIP", "CLIPVision", **VISION),
    vision("BEiT", "Beit", **VISION, use_relative_position_bias=True),
    vision("Swin", "Swin", image_size=16, patch_size=2, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4),
    vision("YOLOS", "Yolos", **{**VISION, "image_size": [16, 16]}, num_detection_tokens=3),
    Family("wav2vec 2", "Wav2Vec2", "Wav2Vec2ForCTC", "wave", {**SIZE, **WAVE, "pad_token_id": 0}),
    Family("HuBERT", "Hubert", "HubertForCTC", "wave", {**SIZE, **WAVE, "pad_token_id": 0}),
    Family("WavLM", "WavLM", "WavLMForCTC", "wave", {**SIZE, **WAVE, "pad_token_id": 0}),
]

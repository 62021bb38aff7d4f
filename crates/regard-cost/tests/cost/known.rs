//! Figures that are well known, each with its source.

use regard_cost::{Dtype, Shape};

use super::{ask, cost, gpt, llama, train};

/// A number as it is published, rounded to so many digits behind the point.
fn rounded(n: u128, unit: f64, digits: usize) -> String {
    format!("{:.digits$}", n as f64 / unit)
}

/// 1024² numbers of f32 are 4.2 MB, and 2048² are 16.8 MB.
#[test]
fn a_matrix_of_scores() {
    for (length, bytes, mb) in [(1024, 4_194_304, "4.2"), (2048, 16_777_216, "16.8")] {
        let matrix = cost("gpt3", &ask(length, 1, Dtype::F32)).scores.matrix;
        assert_eq!((matrix.get(), &rounded(matrix.get(), 1e6, 1)[..]), (bytes, mb));
    }
}

/// One matrix for each of GPT-3's layers is 1.6 GB at 2048 tokens: of one head, and GPT-3 has 96.
#[test]
fn a_matrix_for_each_layer_of_gpt3() {
    let scores = cost("gpt3", &ask(2048, 1, Dtype::F32)).scores;
    assert_eq!(rounded(scores.matrix_of_each_layer.get(), 1e9, 1), "1.6");
    assert_eq!(scores.all_layers, scores.matrix_of_each_layer.get() * 96);
    assert_eq!((scores.layer.get(), scores.traffic.get()), (scores.matrix.get() * 96, scores.all_layers.get() * 4));
    // A fused kernel keeps a number for each row and head.
    assert_eq!(scores.fused, 2048 * 96 * 4);
}

/// Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention", §3: 800 KB a token.
#[test]
fn the_cache_of_opt_13b() {
    let cache = cost("opt-13b", &ask(2048, 3, Dtype::F16)).kv_cache.unwrap();
    assert_eq!(cache.per_token, 2 * 5120 * 40 * 2);
    assert_eq!(cache.per_token, 800 << 10);
    assert_eq!(cache.total, (800 << 10) * 2048 * 3);
}

/// A model that is attention of one head and little else: 4n²d + 2n² where all see all, half of it and the diagonal where causal, and
/// 2.5 times as much backward (Dao 2023, "FlashAttention-2", §4.1).
#[test]
fn the_operations_of_attention() {
    let bert = r#"{"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 1,
        "max_position_embeddings": 512, "vocab_size": 1}"#;
    let (bert, causal) = (Shape::from_json(bert).unwrap(), gpt(1, 64, 1, 1));
    for n in [1, 2, 7, 512, 4096u128] {
        let of = |shape| {
            let training = regard_cost::Cost::of(shape, &train(n as u64, 1, Dtype::F32), None).unwrap().training.unwrap();
            (training.forward.attention.flops.get(), training.backward.attention.flops.get())
        };
        let whole = 4 * n * n * 64 + 2 * n * n;
        assert_eq!(of(&bert), (whole, whole * 5 / 2));
        let half = (whole + whole / n) / 2; // and half of the diagonal
        assert_eq!(of(&causal), (half, half * 5 / 2));
    }
}

/// Shazeer 2019, "Fast Transformer Decoding: One Write-Head is All You Need", §3: keys and values shrink by the number of heads.
#[test]
fn multi_query_attention_shrinks_the_cache_by_the_number_of_heads() {
    let per_token = |kv_heads: u64| {
        let fields = format!(r#""model_type": "llama", "num_key_value_heads": {kv_heads}"#);
        let cost = regard_cost::Cost::of(&llama(&fields), &ask(10, 1, Dtype::Bf16), None).unwrap();
        let cache = cost.kv_cache.unwrap();
        assert_eq!(cache.per_token_of_all_heads, 2 * 64 * 3 * 2);
        cache.per_token.get()
    };
    assert_eq!([1, 2, 4].map(|kv_heads| per_token(8) / per_token(kv_heads)), [8, 4, 2]);
    let gemma = cost("gemma-2b", &ask(1, 1, Dtype::Bf16)).kv_cache.unwrap();
    assert_eq!(gemma.per_token_of_all_heads, gemma.per_token.get() * 8);
}

/// DeepSeek-V2, Table 1: the cache of multi-head latent attention is that of grouped queries with 2.25 groups.
#[test]
fn latent_attention_caches_as_much_as_two_and_a_quarter_groups() {
    let cache = cost("deepseek-v2", &ask(1, 1, Dtype::Bf16)).kv_cache.unwrap();
    assert_eq!(cache.per_token.get() * 4, 9 * (2 * 128) * 60 * 2);
}

/// Vaswani et al. 2017, §4: an n²d product has more operations than an nd² product when n > d.
#[test]
fn n_beyond_d() {
    assert_eq!(cost("gpt2", &ask(1, 1, Dtype::F32)).crossover.width, 768 + 1);
    assert_eq!(cost("gpt3", &ask(1, 1, Dtype::F32)).crossover.width, 12288 + 1);
}

/// Attention takes n²·(4d + 2·heads) and a feed-forward layer 16nd²: where all see all they meet near n = 4d, where causal near 8d.
#[test]
fn attention_overtakes_the_feed_forward_layer() {
    let bert = cost("bert-base", &ask(1, 1, Dtype::F32)).crossover.feed_forward.unwrap();
    assert_eq!(bert, 16 * 768 * 768 / (4 * 768 + 2 * 12) + 1);
    let gpt3 = cost("gpt3", &ask(1, 1, Dtype::F32)).crossover.feed_forward.unwrap();
    assert_eq!(gpt3, 2 * 16 * 12288 * 12288 / (4 * 12288 + 2 * 96)); // n + 1 for n
    assert!(gpt3.abs_diff(8 * 12288) < 500);
    // In a window of 4096 keys a token sees 4096 at most: 4096 · 32 · (4·128 + 2) < 6 · 4096 · 14336.
    assert_eq!(cost("mistral-7b", &ask(1, 1, Dtype::F32)).crossover.feed_forward, None);
}

/// Rajbhandari et al. 2020, "ZeRO", §3.1: 16 bytes for each parameter, 120 GB for 7.5 billion; no byte of them for attention.
#[test]
fn the_states_of_training() {
    for (dtype, [weights, gradients, master, moments]) in [(Dtype::F16, [2, 2, 4, 8]), (Dtype::F32, [4, 4, 0, 8])] {
        let cost = cost("llama-2-7b", &train(4096, 1, dtype));
        let (t, parameters) = (cost.training.unwrap(), cost.parameters.total.get());
        let states = [t.weights, t.gradients, t.master_weights, t.moments].map(|bytes| bytes.get());
        assert_eq!(states, [weights, gradients, master, moments].map(|bytes: u128| bytes * parameters));
        assert_eq!(states.iter().sum::<u128>(), 16 * parameters);
        assert_eq!(t.total, states.iter().sum::<u128>() + t.activations.get());
        assert_eq!(t.materialised, t.total.get() + 32 * 32 * 4096 * 4096 * u128::from(dtype.bytes()));
    }
}

/// Korthikanti et al. 2022, §4.1: 34·s·b·h + 5·a·s²·b bytes a layer in 16 bits; 2·s·b·h + 3·a·s²·b of them are for dropout.
#[test]
fn the_activations_of_a_layer() {
    let (s, b, h, a) = (512, 3, 256, 4);
    let of = |layers| regard_cost::Cost::of(&gpt(layers, h, a, 100), &train(s, b, Dtype::F16), None).unwrap().training.unwrap();
    let (one, two) = (of(1), of(2));
    let lse = 4 * a * s * b; // which the paper, without a fused kernel, has not
    assert_eq!(two.activations.get() - one.activations.get(), u128::from(32 * s * b * h + lse));
    assert_eq!(one.attention_matrices, u128::from(2 * a * s * s * b));
    // Outside the layers: the last normalisation's input and output, and the logits in f32.
    assert_eq!(one.activations.get() * 2 - two.activations.get(), u128::from(s * b * (2 * 2 * h + 4 * 100)));
}

/// Brown et al. 2020, Table D.1: 3.14·10²³ operations for 300 billion tokens, from 6 a parameter and token, attention aside.
#[test]
fn the_training_of_gpt3() {
    let training = cost("gpt3", &train(2048, 1, Dtype::F16)).training.unwrap();
    let step = training.forward.total.flops.get() + training.backward.total.flops.get();
    let attention = training.forward.attention.flops.get() + training.backward.attention.flops.get();
    let all = (step - attention) as f64 * 300e9 / 2048.0;
    assert!((all / 3.14e23 - 1.0).abs() < 0.01, "{all}");
    assert!(attention * 50 < step, "at 2048 tokens attention is less than 2 %");
}

//! Layers and operations: every gradient against finite differences, and outputs against their formulas.

mod gradients;

use candle_core::{DType, Device, Tensor, Var};
use gradients::{check_gradients, random, values, var};
use regard::Causal;
use regard_nn::{
    Error, LearnedPositions, Linear, Llama, LlamaConfig, MultiHeadAttention, Noise, Params, Result, RmsNorm, Rope, RopeScaling,
    RopeStyle, Rotary, SinusoidalPositions, SwiGlu, attention, cross_entropy, dropout, embedding, rms_norm, rope, swiglu,
};

#[test]
fn operations_have_the_gradients_of_their_formulas() {
    let (x, y, w) = (var(1, &[2, 3, 20]), var(2, &[2, 3, 20]), var(3, &[20]));
    check_gradients("rms_norm", &[("x", &x), ("weight", &w)], || rms_norm(&x, &w, 1e-5));
    check_gradients("swiglu", &[("gate", &x), ("up", &y)], || swiglu(&x, &y));
    check_gradients("dropout", &[("x", &x)], || dropout(&x, 0.4, 3));
    let targets = Tensor::new(&[[0u32, 19, 4], [4, 7, 1]], &Device::Cpu).unwrap();
    check_gradients("cross_entropy", &[("logits", &x)], || cross_entropy(&x, &targets));
    let table = var(4, &[9, 5]);
    let tokens = Tensor::new(&[[0u32, 8, 4], [4, 4, 1]], &Device::Cpu).unwrap();
    check_gradients("embedding", &[("table", &table)], || embedding(&table, &tokens));
    let (x, cos, sin) = (var(5, &[2, 3, 4, 6]), random(6, &[4, 3]), random(7, &[4, 3]));
    for style in [RopeStyle::HalfSplit, RopeStyle::Interleaved] {
        check_gradients("rope", &[("x", &x)], || rope(&x, &cos, &sin, style));
        check_gradients("strided rope", &[("x", &x)], || {
            rope(&x.transpose(1, 2)?.contiguous()?.transpose(1, 2)?, &cos, &sin, style)
        });
        let part = Rotary::from(Rope::scaled(4, 100.0, style, &RopeScaling::yarn(8.0, 64), 9).unwrap());
        check_gradients("partial, scaled rotary", &[("x", &x)], || part.forward(&x, 5));
    }
    let (x, table) = (var(8, &[2, 3, 4]), var(9, &[7, 4]));
    let learned = LearnedPositions::new(table.as_tensor().clone()).unwrap();
    check_gradients("learned positions", &[("x", &x), ("table", &table)], || learned.forward(&x, 2));
    let sinusoidal = SinusoidalPositions::new(4, RopeStyle::HalfSplit).unwrap();
    check_gradients("sinusoidal positions", &[("x", &x)], || sinusoidal.forward(&x, 2));
}

#[test]
fn attention_has_the_gradients_of_its_formula_whatever_the_strides() {
    let (q, k, v) = (var(1, &[2, 5, 4, 6]), var(2, &[2, 7, 2, 6]), var(3, &[2, 7, 2, 3]));
    for (causal, p) in [(None, None), (Some(Causal::UpperLeft), None), (Some(Causal::LowerRight), Some((0.3, 5)))] {
        check_gradients("attention", &[("q", &q), ("k", &k), ("v", &v)], || {
            // [batch, length, heads, dim] as a projection leaves it: not contiguous once heads come first
            let heads_first = |x: &Var| x.transpose(1, 2);
            attention(&heads_first(&q)?, &heads_first(&k)?, &heads_first(&v)?, causal, p)
        });
    }
}

#[test]
fn layers_have_gradients_for_every_parameter() {
    let (x, w, b) = (var(1, &[2, 5, 8]), var(2, &[12, 8]), var(3, &[12]));
    let linear = Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone())).unwrap();
    check_gradients("Linear", &[("x", &x), ("weight", &w), ("bias", &b)], || linear.forward(&x));
    let scale = var(4, &[8]);
    let norm = RmsNorm::new(scale.as_tensor().clone(), 1e-5);
    check_gradients("RmsNorm", &[("x", &x), ("weight", &scale)], || norm.forward(&x));
    let parts: Vec<Var> =
        [&[12, 8][..], &[12], &[12, 8], &[12], &[8, 12], &[8]].iter().zip(5..).map(|(shape, seed)| var(seed, shape)).collect();
    let part = |i: usize| Linear::new(parts[i].as_tensor().clone(), Some(parts[i + 1].as_tensor().clone()));
    let mlp = SwiGlu::new(part(0).unwrap(), part(2).unwrap(), part(4).unwrap()).unwrap();
    let names = ["gate", "gate bias", "up", "up bias", "down", "down bias"];
    let mut all: Vec<(&str, &Var)> = names.into_iter().zip(&parts).collect();
    all.push(("x", &x));
    check_gradients("SwiGlu", &all, || mlp.forward(&x));
    // A layer inside a candle graph: gradients pass through it to what came before.
    check_gradients("RmsNorm after candle", &[("x", &x), ("weight", &scale)], || norm.forward(&x.affine(2.0, 0.1)?.tanh()?));
}

/// 4 query heads and 2 KV heads of 4 elements over a width of 8, with biases.
fn heads(context: usize) -> (Vec<Var>, MultiHeadAttention) {
    let shapes: [&[usize]; 8] = [&[16, 8], &[16], &[8, context], &[8], &[8, context], &[8], &[8, 16], &[8]];
    let parts: Vec<Var> = shapes.iter().zip(20..).map(|(shape, seed)| var(seed, shape)).collect();
    let part = |i: usize| Linear::new(parts[i].as_tensor().clone(), Some(parts[i + 1].as_tensor().clone())).unwrap();
    let layer = MultiHeadAttention::new(part(0), part(2), part(4), part(6), 4, 2).unwrap();
    (parts, layer)
}

const PARTS: [&str; 8] = ["q", "q bias", "k", "k bias", "v", "v bias", "out", "out bias"];

#[test]
fn multi_head_attention_has_gradients_for_every_parameter() {
    let x = var(1, &[2, 5, 8]);
    let (parts, plain) = heads(8);
    for style in [RopeStyle::HalfSplit, RopeStyle::Interleaved] {
        let layer = plain.clone().causal().rotary(Rotary::new(4, 100.0, style).unwrap()).unwrap();
        let mut all: Vec<(&str, &Var)> = PARTS.into_iter().zip(&parts).collect();
        all.push(("x", &x));
        check_gradients("self-attention", &all, || layer.forward(&x));
    }
    let (parts, layer) = heads(6);
    let context = var(2, &[2, 3, 6]);
    let mut all: Vec<(&str, &Var)> = PARTS.into_iter().zip(&parts).collect();
    all.extend([("x", &x), ("context", &context)]);
    check_gradients("cross-attention", &all, || layer.cross(&x, &context));
}

fn tiny(more: &str) -> LlamaConfig {
    let json = format!(
        r#"{{"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 16,
            "initializer_range": 0.4 {more}}}"#
    );
    LlamaConfig::from_json(&json).unwrap()
}

#[test]
fn the_whole_model_has_gradients_for_every_parameter() {
    let biased = tiny(r#", "attention_bias": true, "mlp_bias": true"#);
    let tied = tiny(r#", "tie_word_embeddings": true"#);
    let tokens = Tensor::new(&[[1u32, 4, 10, 4, 0], [2, 2, 7, 9, 3]], &Device::Cpu).unwrap();
    let targets = Tensor::new(&[[4u32, 10, 4, 0, 6], [2, 7, 9, 3, 1]], &Device::Cpu).unwrap();
    let noise = Some(Noise { dropout: 0.2, attention_dropout: 0.2, seed: 4 });
    for config in [biased, tied] {
        let params = Params::init(&config, 3).unwrap();
        let model = Llama::new(&config, &params).unwrap();
        let all: Vec<(&str, &Var)> = params.iter().collect();
        check_gradients("loss", &all, || model.loss(&tokens, &targets, None));
        check_gradients("loss under noise", &all, || model.loss(&tokens, &targets, noise));
        check_gradients("logits", &all, || model.forward(&tokens));
        let loss = model.loss(&tokens, &targets, None).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(loss, model.evaluate(&tokens, &targets).unwrap());
        let direct = cross_entropy(&model.forward(&tokens).unwrap(), &targets).unwrap().to_scalar::<f32>().unwrap();
        assert!((loss - direct).abs() < 1e-5, "{loss} and, from logits, {direct}");
    }
}

#[test]
fn gradients_are_the_same_bits_every_time() {
    let config = tiny(r#", "tie_word_embeddings": true"#);
    let params = Params::init(&config, 3).unwrap();
    let model = Llama::new(&config, &params).unwrap();
    let tokens = Tensor::from_vec((0..14u32).map(|i| i % 11).collect(), (1, 14), &Device::Cpu).unwrap();
    let once = || {
        let gradients = model
            .loss(&tokens, &tokens, Some(Noise { dropout: 0.1, attention_dropout: 0.1, seed: 1 }))
            .unwrap()
            .backward()
            .unwrap();
        params.iter().map(|(_, var)| values(gradients.get(var).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(once(), once());
}

#[test]
fn rotary_embedding_is_its_formula_in_both_styles_and_at_any_offset() {
    let x = random(1, &[1, 2, 3, 6]);
    for (style, first) in
        [(RopeStyle::HalfSplit, 0), (RopeStyle::Interleaved, 0), (RopeStyle::HalfSplit, 1000), (RopeStyle::Interleaved, 7)]
    {
        let y = Rotary::new(6, 10_000.0, style).unwrap().forward(&x, first).unwrap();
        let (x, y) = (x.to_dtype(DType::F64).unwrap().to_vec4::<f64>().unwrap(), y.to_vec4::<f32>().unwrap());
        for h in 0..2 {
            for l in 0..3 {
                for i in 0..3 {
                    let angle = (first + l) as f64 * 10_000f64.powf(-2.0 * i as f64 / 6.0);
                    let (a, b) = if style == RopeStyle::HalfSplit { (i, i + 3) } else { (2 * i, 2 * i + 1) };
                    let (xa, xb) = (x[0][h][l][a], x[0][h][l][b]);
                    assert!((f64::from(y[0][h][l][a]) - (xa * angle.cos() - xb * angle.sin())).abs() < 1e-6);
                    assert!((f64::from(y[0][h][l][b]) - (xb * angle.cos() + xa * angle.sin())).abs() < 1e-6);
                }
            }
        }
    }
}

/// Rank-4 tensors of any type as nested vectors; candle stops at three.
trait ToVec4 {
    fn to_vec4<T: candle_core::WithDType>(&self) -> candle_core::Result<Vec<Vec<Vec<Vec<T>>>>>;
}

impl ToVec4 for Tensor {
    fn to_vec4<T: candle_core::WithDType>(&self) -> candle_core::Result<Vec<Vec<Vec<Vec<T>>>>> {
        (0..self.dim(0)?).map(|i| self.get(i)?.to_vec3()).collect()
    }
}

#[test]
fn cross_attention_is_softmax_of_scaled_products() {
    let (x, context) = (random(1, &[1, 2, 8]), random(2, &[1, 3, 6]));
    let (parts, layer) = heads(6);
    let project = |x: &Tensor, i: usize| {
        let y = x.squeeze(0).unwrap().matmul(&parts[i].t().unwrap()).unwrap();
        y.broadcast_add(parts[i + 1].as_tensor()).unwrap().to_vec2::<f32>().unwrap()
    };
    let (q, k, v) = (project(&x, 0), project(&context, 2), project(&context, 4));
    let mut rows = vec![vec![0f32; 16]; 2];
    for (i, row) in rows.iter_mut().enumerate() {
        for h in 0..4 {
            let at = |d: usize| h / 2 * 4 + d; // two query heads to a KV head
            let s: Vec<f32> = (0..3).map(|j| (0..4).map(|d| q[i][h * 4 + d] * k[j][at(d)]).sum::<f32>() / 2.0).collect();
            let total: f32 = s.iter().map(|s| s.exp()).sum();
            for d in 0..4 {
                row[h * 4 + d] = (0..3).map(|j| s[j].exp() / total * v[j][at(d)]).sum();
            }
        }
    }
    let expected = project(&Tensor::new(rows, &Device::Cpu).unwrap().unsqueeze(0).unwrap(), 6);
    let given = layer.cross(&x, &context).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
    for (given, expected) in given.concat().iter().zip(expected.concat()) {
        assert!((given - expected).abs() < 1e-5, "{given} and {expected}");
    }
}

#[test]
fn a_cache_remembers_what_self_attention_sees() {
    let x = random(1, &[1, 5, 8]);
    let (_, layer) = heads(8);
    let layer = layer.causal().rotary(Rotary::new(4, 100.0, RopeStyle::HalfSplit).unwrap()).unwrap();
    let whole = values(&layer.forward(&x).unwrap());
    let shape = regard::CacheShape { layers: 1, pages: 3, page_size: 2, kv_heads: 2, head_dim: 4, value_dim: 4 };
    let mut cache = regard::KvCache::new(shape).unwrap();
    let mut seq = cache.sequence();
    let mut rows = Vec::new();
    for (first, n) in [(0, 2), (2, 1), (3, 2)] {
        let part = x.squeeze(0).unwrap().narrow(0, first, n).unwrap();
        cache.grow(&mut seq, n).unwrap();
        layer.remember(&part, &mut cache, 0, &seq, first).unwrap();
        rows.extend(values(&layer.recall(&part, &cache, 0, &seq).unwrap()));
    }
    assert!(rows.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5), "{rows:?} and {whole:?}");
    let too_many = random(1, &[6, 8]);
    assert!(matches!(layer.recall(&too_many, &cache, 0, &seq), Err(Error::Attention(regard::Error::Positions { .. }))));
}

#[test]
fn gradients_cannot_be_taken_twice_from_one_pass() {
    let x = var(1, &[2, 8]);
    let loss = rms_norm(&x, &random(2, &[8]), 1e-5).unwrap().sum_all().unwrap();
    loss.backward().unwrap();
    assert!(loss.backward().unwrap_err().to_string().contains("forward pass again"));
}

#[test]
fn shapes_that_do_not_fit_are_refused_by_name() {
    let text = |e: Error| e.to_string();
    let x = random(1, &[2, 3, 8]);
    let linear = Linear::new(random(2, &[4, 7]), None).unwrap();
    assert_eq!(
        text(linear.forward(&x).unwrap_err()),
        "weight of a linear layer has shape [4, 7] and needs [out, 8], for its input"
    );
    assert!(Linear::new(random(2, &[4]), None).is_err() && Linear::new(random(2, &[4, 7]), Some(random(3, &[7]))).is_err());
    assert!(text(rms_norm(&x, &random(2, &[7]), 1e-5).unwrap_err()).contains("weight of RMSNorm has shape [7] and needs [8]"));
    assert!(swiglu(&x, &random(2, &[2, 3, 7])).is_err() && dropout(&x, 1.0, 0).is_err() && dropout(&x, f32::NAN, 0).is_err());
    let f64s = x.to_dtype(DType::F64).unwrap();
    assert!(text(rms_norm(&f64s, &random(2, &[8]), 1e-5).unwrap_err()).contains("f32"));
    let tokens = Tensor::new(&[9u32], &Device::Cpu).unwrap();
    assert!(text(embedding(&random(1, &[9, 2]), &tokens).unwrap_err()).contains("token 9 is outside the vocabulary of 9 tokens"));
    assert!(cross_entropy(&random(1, &[2, 9]), &tokens).is_err() && cross_entropy(&random(1, &[1, 9]), &tokens).is_err());
    assert!(Rotary::new(5, 1e4, RopeStyle::HalfSplit).is_err() && Rotary::new(4, 0.0, RopeStyle::HalfSplit).is_err());
    assert!(
        attention(&x, &x, &x, None, None).is_err() && layer_of(3, 2).is_err() && layer_of(0, 0).is_err() && layer_of(5, 5).is_err()
    );
    let four = random(1, &[1, 3, 2, 4]);
    assert!(attention(&four, &random(1, &[1, 2, 2, 4]), &four, None, None).is_err());
}

fn layer_of(heads: usize, kv_heads: usize) -> Result<MultiHeadAttention> {
    let part = || Linear::new(random(1, &[8, 8]), None).unwrap();
    MultiHeadAttention::new(part(), part(), part(), part(), heads, kv_heads)
}

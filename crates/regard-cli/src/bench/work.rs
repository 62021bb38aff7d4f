//! What regard does in a case.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor as Candle};
use half::{bf16, f16};
use regard::{Attention, Causal, Element, LinearAttention, LinearInputs, Tensor, UpdateRule};
use regard_nn::train::{AdamW, TrainConfig};
use regard_nn::{Llama, LlamaConfig, Params};

use super::case::{Case, Dtype, Kind};

/// Random tensors of a case: never zeros, on which some machines run faster.
pub(super) struct Inputs<T> {
    pub(super) q: Tensor<T>,
    pub(super) k: Tensor<T>,
    pub(super) v: Tensor<T>,
    pub(super) d_out: Tensor<T>,
}

impl<T: Element> Inputs<T> {
    pub(super) fn new(case: &Case) -> Result<Self, regard::Error> {
        let [batch, q_heads, kv_heads, q_len, kv_len, dim] = case.sizes;
        let (rows, keys) = ([batch, q_heads, q_len, dim], [batch, kv_heads, kv_len, dim]);
        Ok(Self { q: random(1, rows)?, k: random(2, keys)?, v: random(3, keys)?, d_out: random(4, rows)? })
    }
}

/// Sums of four uniform numbers, near enough to normal for arithmetic.
fn random<T: Element>(seed: u64, shape: [usize; 4]) -> Result<Tensor<T>, regard::Error> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407); // Knuth's MMIX
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut normal = || T::from_f32(1.7 * (uniform() + uniform() + uniform() + uniform()));
    Tensor::from_vec((0..shape.iter().product()).map(|_| normal()).collect(), shape)
}

/// One case, ready to run again and again.
pub(super) struct Work {
    run: Box<dyn FnMut() -> Result<(), Box<dyn Error>>>,
    /// Floating-point operations of one call.
    pub(super) flops: Option<u64>,
    /// Bytes that one call moves, where that is what bounds it: one query, many keys.
    pub(super) bytes: Option<u64>,
    /// Tokens that one call learns from.
    pub(super) tokens: Option<usize>,
}

impl Work {
    pub(super) fn new(case: &Case) -> Result<Self, Box<dyn Error>> {
        match (case.kind, case.dtype) {
            (Kind::Train, _) => Self::training(case),
            (Kind::Linear | Kind::LinearDelta, Dtype::F32) => Self::linear::<f32>(case),
            (Kind::Linear | Kind::LinearDelta, Dtype::Bf16) => Self::linear::<bf16>(case),
            (Kind::Linear | Kind::LinearDelta, Dtype::F16) => Self::linear::<f16>(case),
            (_, Dtype::F32) => Self::attention::<f32>(case),
            (_, Dtype::Bf16) => Self::attention::<bf16>(case),
            (_, Dtype::F16) => Self::attention::<f16>(case),
        }
    }

    fn attention<T: Element>(case: &Case) -> Result<Self, Box<dyn Error>> {
        let inputs = Inputs::<T>::new(case)?;
        let attention = Attention::new().mask(case.causal.then_some(Causal::LowerRight));
        let backward = case.kind == Kind::Backward;
        let cost = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view()))?.cost();
        let run = move || {
            let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view()))?;
            let output = black_box(plan.forward()?);
            if backward {
                black_box(plan.backward(&output, inputs.d_out.view())?);
            }
            Ok(())
        };
        let flops = Some(cost.forward_flops + if backward { cost.backward_flops } else { 0 });
        let bytes = (case.sizes[3] == 1 && !backward).then_some(cost.bytes);
        Ok(Self { run: Box::new(run), flops, bytes, tokens: None })
    }

    fn linear<T: Element>(case: &Case) -> Result<Self, Box<dyn Error>> {
        let Inputs { q, k, v, .. } = Inputs::<T>::new(case)?;
        let [batch, _, heads, _, len, dim] = case.sizes;
        // Keys of about length 1, as a delta rule needs; decays of e^−0.1 or so.
        let shorter = |x: &T| T::from_f32(x.to_f32() / (dim as f32).sqrt());
        let k = Tensor::from_vec(k.data().iter().map(shorter).collect(), k.shape())?;
        let (mut decay, mut beta) = (random::<f32>(5, [batch, heads, len, 1])?, random::<f32>(6, [batch, heads, len, 1])?);
        decay.data_mut().iter_mut().for_each(|x| *x = -0.1 * x.abs());
        beta.data_mut().iter_mut().for_each(|x| *x = x.abs().min(1.0));
        let rule = if case.kind == Kind::Linear { UpdateRule::Gated } else { UpdateRule::GatedDelta };
        let attention = LinearAttention::new(rule);
        let flops = Some(attention.plan(gated(rule, [&q, &k, &v], [&decay, &beta]))?.flops());
        let run = move || {
            black_box(attention.forward(gated(rule, [&q, &k, &v], [&decay, &beta]))?);
            Ok(())
        };
        Ok(Self { run: Box::new(run), flops, bytes: None, tokens: None })
    }

    fn training(case: &Case) -> Result<Self, Box<dyn Error>> {
        let mut training = Training::new(case)?;
        let tokens = Some(training.tokens.elem_count());
        Ok(Self { run: Box::new(move || training.step()), flops: None, bytes: None, tokens })
    }

    /// The time of some calls.
    pub(super) fn seconds(&mut self, calls: u32) -> Result<f64, Box<dyn Error>> {
        let began = Instant::now();
        (0..calls).try_for_each(|_| (self.run)())?;
        Ok(began.elapsed().as_secs_f64())
    }
}

/// Queries, keys and values with the gates that a rule has.
fn gated<'a, T: Element>(
    rule: UpdateRule,
    [q, k, v]: [&'a Tensor<T>; 3],
    [decay, beta]: [&'a Tensor<f32>; 2],
) -> LinearInputs<'a, T> {
    let inputs = LinearInputs::new(q.view(), k.view(), v.view()).decay(decay.view());
    if rule.corrects() { inputs.beta(beta.view()) } else { inputs }
}

/// A model, its optimiser and a batch.
struct Training {
    params: Params,
    model: Llama,
    optimizer: AdamW,
    tokens: Candle,
    targets: Candle,
}

impl Training {
    fn new(case: &Case) -> Result<Self, Box<dyn Error>> {
        let [windows, heads, kv_heads, layers, context, dim] = case.sizes;
        let hidden = heads * dim;
        let config = TrainConfig {
            ema: 0.0,
            hidden,
            layers,
            heads,
            kv_heads,
            intermediate: INTERMEDIATE,
            context,
            ..TrainConfig::default()
        };
        let vocab = config.vocab_size;
        let json = format!(
            r#"{{"model_type": "llama", "vocab_size": {vocab}, "hidden_size": {hidden}, "intermediate_size": {INTERMEDIATE},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
            "max_position_embeddings": {context}, "tie_word_embeddings": true}}"#
        );
        let shape = LlamaConfig::from_json(&json)?;
        let params = Params::init(&shape, 1)?;
        let (model, optimizer) = (Llama::new(&shape, &params)?, AdamW::new(&params, &config)?);
        let text: Vec<u32> =
            (0..(windows * context + 1) as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 7 & (vocab as u32 - 1)).collect();
        let batch = |from: usize| Candle::from_slice(&text[from..from + windows * context], (windows, context), &Device::Cpu);
        Ok(Self { tokens: batch(0)?, targets: batch(1)?, params, model, optimizer })
    }

    /// Forward, backward and update.
    fn step(&mut self) -> Result<(), Box<dyn Error>> {
        let gradients = self.model.loss(&self.tokens, &self.targets, None)?.backward()?;
        self.optimizer.step(&self.params, &gradients, 1e-4)?;
        Ok(())
    }
}

/// Width of the feed-forward layer of the story model.
const INTERMEDIATE: usize = 640;

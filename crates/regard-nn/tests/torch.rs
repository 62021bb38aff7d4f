//! Multi-head attention against PyTorch's `nn.MultiheadAttention`, whose numbers `torch/make.py` wrote down.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use regard::Dropout;
use regard_nn::{AttendOptions, Error, MultiHeadAttention, NeedWeights, RopeStyle, Rotary, TorchOptions};

fn load() -> HashMap<String, Tensor> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/attention.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Both sides begin with the same f32 numbers; PyTorch goes on in f64. A result here is behind four sums of at most 12 products
/// (two projections, scores, values; as many again backward) and a softmax, with terms of magnitude up to 10: some 100 roundings of
/// 2⁻²⁴ · 10 = 6e-5 at the very worst, and what PyTorch rounds when it writes.
fn close(what: &str, given: &Tensor, expected: &Tensor) {
    assert_eq!(given.dims(), expected.dims(), "{what}");
    for (i, (g, e)) in values(given).into_iter().zip(values(expected)).enumerate() {
        assert!((g - e).abs() <= 6e-5 * e.abs().max(0.3), "{what}, element {i}: {g}, PyTorch {e}");
    }
}

/// One case of the file: its tensors, those with a gradient as variables.
struct Case {
    tensors: HashMap<String, Tensor>,
    vars: HashMap<String, Var>,
}

impl Case {
    fn all() -> Vec<(String, Case)> {
        let file = load();
        let names: BTreeSet<String> = file.keys().map(|key| key.split('/').next().unwrap().to_owned()).collect();
        let of = |name: String| {
            let part =
                |(key, tensor): (&String, &Tensor)| Some((key.strip_prefix(&format!("{name}/"))?.to_owned(), tensor.clone()));
            let tensors: HashMap<String, Tensor> = file.iter().filter_map(part).collect();
            let var = |key: &String| Some((key.strip_prefix("grad.")?.to_owned(), Var::from_tensor(&tensors[&key[5..]]).unwrap()));
            let vars = tensors.keys().filter_map(var).collect();
            (name, Case { tensors, vars })
        };
        names.into_iter().map(of).collect()
    }

    fn get(&self, key: &str) -> Option<&Tensor> {
        self.vars.get(key).map(Var::as_tensor).or_else(|| self.tensors.get(key))
    }

    fn options(&self) -> AttendOptions<'_> {
        AttendOptions {
            key_padding_mask: self.get("key_padding_mask"),
            attn_mask: self.get("attn_mask"),
            is_causal: self.flags()[3] == 1,
            need_weights: [NeedWeights::No, NeedWeights::Averaged, NeedWeights::PerHead][self.flags()[4] as usize],
            training: None,
        }
    }

    fn flags(&self) -> Vec<u8> {
        self.tensors["flags"].to_vec1().unwrap()
    }

    fn layer(&self, dropout: f32) -> MultiHeadAttention {
        let [heads, batch_first, add_zero_attn, ..] = self.flags()[..] else { panic!("five flags") };
        let options =
            TorchOptions { heads: heads.into(), batch_first: batch_first == 1, add_zero_attn: add_zero_attn == 1, dropout };
        let state = self.tensors.keys().filter(|key| key.starts_with("state."));
        let state = state.map(|key| (key.clone(), self.get(key).unwrap().clone())).collect();
        MultiHeadAttention::from_torch(&state, "state.", options).unwrap()
    }

    fn inputs(&self) -> [&Tensor; 3] {
        let [_, key, value] = ["query", "key", "value"].map(|name| self.get(name).unwrap());
        let query = self.get("query").unwrap();
        if self.vars.contains_key("key") { [query, key, value] } else { [query; 3] }
    }
}

#[test]
fn every_case_of_pytorch_agrees_forward_and_backward() {
    let cases = Case::all();
    assert_eq!(cases.len(), 13);
    for (name, case) in &cases {
        let [query, key, value] = case.inputs();
        let (out, weights) = case.layer(0.0).attend(query, key, value, &case.options()).unwrap();
        let weights = weights.unwrap();
        close(&format!("{name}: output"), &out, &case.tensors["out"]);
        close(&format!("{name}: weights"), &weights, &case.tensors["weights"]);
        let mut loss = (&out * &case.tensors["r"]).unwrap().sum_all().unwrap();
        if let Some(s) = case.tensors.get("s") {
            loss = (loss + (&weights * s).unwrap().sum_all().unwrap()).unwrap();
        }
        let gradients = loss.backward().unwrap();
        for (key, var) in &case.vars {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name}: {key} has no gradient"));
            close(&format!("{name}: gradient of {key}"), gradient, &case.tensors[&format!("grad.{key}")]);
        }
    }
}

/// `attend` gives the fused output when no weights are asked for, and the same one when they are.
#[test]
fn asking_for_weights_changes_nothing_else() {
    for (name, case) in Case::all() {
        let [query, key, value] = case.inputs();
        let quiet = AttendOptions { need_weights: NeedWeights::No, ..case.options() };
        let (out, none) = case.layer(0.0).attend(query, key, value, &quiet).unwrap();
        assert!(none.is_none());
        let (with_weights, _) = case.layer(0.0).attend(query, key, value, &case.options()).unwrap();
        assert_eq!(values(&out), values(&with_weights), "{name}");
    }
}

#[test]
fn a_row_that_sees_nothing_is_the_bias_of_the_output_and_has_no_weights() {
    for (name, case) in Case::all().into_iter().filter(|(name, _)| name.ends_with("sees_nothing")) {
        let [query, key, value] = case.inputs();
        let (out, weights) = case.layer(0.0).attend(query, key, value, &case.options()).unwrap();
        // [batch, q_len, ..]: of query 1 of every sequence, or of all of sequence 1
        let out = if case.flags()[1] == 1 { out } else { out.transpose(0, 1).unwrap() };
        let (axis, weights) = if name.starts_with("row") { (1, weights.unwrap().mean(1).unwrap()) } else { (0, weights.unwrap()) };
        let bias = values(&case.tensors["state.out_proj.bias"]);
        for row in values(&out.narrow(axis, 1, 1).unwrap()).chunks(bias.len()) {
            assert_eq!(row, bias, "{name}");
        }
        assert!(values(&weights.narrow(axis, 1, 1).unwrap()).iter().all(|w| *w == 0.0), "{name}");
        // Gradients are numbers, also through the weights.
        let loss = (out.sqr().unwrap().sum_all().unwrap() + weights.sqr().unwrap().sum_all().unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        for (key, var) in &case.vars {
            assert!(values(gradients.get(var).unwrap()).iter().all(|g| g.is_finite()), "{name}: {key}");
        }
    }
}

/// NaN in a padded key or value is never observed.
#[test]
fn padding_is_never_observed() {
    for (name, case) in Case::all() {
        let Some(padding) = case.get("key_padding_mask").filter(|mask| mask.dtype() == candle_core::DType::U8 && mask.rank() == 2)
        else {
            continue;
        };
        let poison = |x: &Tensor| {
            let hidden: Vec<u8> = padding.flatten_all().unwrap().to_vec1().unwrap();
            let (batch, length) = padding.dims2().unwrap();
            let column: Vec<f32> = hidden.iter().map(|&h| if h == 1 { f32::NAN } else { 0.0 }).collect();
            let column = Tensor::from_vec(column, (batch, length, 1), &Device::Cpu).unwrap();
            let column = if case.flags()[1] == 1 { column } else { column.transpose(0, 1).unwrap() };
            x.broadcast_add(&column).unwrap()
        };
        let [query, key, value] = case.inputs();
        let (out, weights) = case.layer(0.0).attend(query, &poison(key), &poison(value), &case.options()).unwrap();
        close(&format!("{name}: output"), &out, &case.tensors["out"]);
        close(&format!("{name}: weights"), &weights.unwrap(), &case.tensors["weights"]);
    }
}

/// In training, weights fall as regard's dropout says, in the output and in the weights alike.
#[test]
fn dropout_falls_in_training_only() {
    let (_, case) = Case::all().into_iter().find(|(name, _)| name == "mask_per_head").unwrap();
    let [query, key, value] = case.inputs();
    let layer = case.layer(0.5);
    let (still, kept) = layer.attend(query, key, value, &case.options()).unwrap();
    close("without a seed", &still, &case.tensors["out"]);
    let training = AttendOptions { training: Some(7), ..case.options() };
    let (out, weights) = layer.attend(query, key, value, &training).unwrap();
    let weights = weights.unwrap();
    let dropout = Dropout::new(0.5, 7).unwrap();
    let (kept, (batch, heads, q_len, kv_len)) = (values(&kept.unwrap()), weights.dims4().unwrap());
    let mut fallen = 0;
    for (i, w) in values(&weights).into_iter().enumerate() {
        let [b, h, q, kv] =
            [i / kv_len / q_len / heads, i / kv_len / q_len % heads, i / kv_len % q_len, i % kv_len].map(|n| n as u32);
        let factor = dropout.factor(regard::Pair { batch: b, head: h, q, kv, ..Default::default() });
        assert_eq!(w, kept[i] * factor);
        fallen += usize::from(factor == 0.0);
    }
    assert!(fallen > 0 && fallen < batch * heads * q_len * kv_len);
    // The output is that of the weights that fell: out_proj(Σ w·v), with v from the projection of values.
    let width = 6;
    let in_proj = (&case.tensors["state.in_proj_weight"], &case.tensors["state.in_proj_bias"]);
    let project = |x: &Tensor, w: &Tensor, b: &Tensor| x.broadcast_matmul(&w.t().unwrap()).unwrap().broadcast_add(b).unwrap();
    let v = project(value, &in_proj.0.narrow(0, 2 * width, width).unwrap(), &in_proj.1.narrow(0, 2 * width, width).unwrap());
    let v = v.reshape((batch, kv_len, heads, width / heads)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    let mixed = weights.matmul(&v).unwrap().transpose(1, 2).unwrap().reshape((batch, q_len, width)).unwrap();
    let expected = project(&mixed, &case.tensors["state.out_proj.weight"], &case.tensors["state.out_proj.bias"]);
    close("with a seed", &out, &expected);
    let (again, _) = layer.attend(query, key, value, &training).unwrap();
    assert_eq!(values(&out), values(&again));
}

/// `forward`, `cross` and `attend` are one layer, also with keys that the layer adds.
#[test]
fn extra_keys_are_seen_by_forward_and_cross_too() {
    let cases: HashMap<String, Case> = Case::all().into_iter().collect();
    let zero = &cases["zero_key"];
    close("forward", &zero.layer(0.0).forward(zero.inputs()[0]).unwrap(), &zero.tensors["out"]);
    let extra = &cases["extra_keys"];
    let layer = extra.layer(0.0);
    let [query, key, _] = extra.inputs().map(|x| x.transpose(0, 1).unwrap());
    let (out, _) = layer
        .attend(
            &query.transpose(0, 1).unwrap(),
            &key.transpose(0, 1).unwrap(),
            &key.transpose(0, 1).unwrap(),
            &AttendOptions::default(),
        )
        .unwrap();
    close("cross", &layer.cross(&query, &key).unwrap(), &out.transpose(0, 1).unwrap());
    let causal = AttendOptions { is_causal: true, ..Default::default() };
    let x = query.transpose(0, 1).unwrap();
    let (out, _) = layer.attend(&x, &x, &x, &causal).unwrap();
    close("causal forward", &layer.clone().causal().forward(&query).unwrap(), &out.transpose(0, 1).unwrap());
}

/// Without masks, `attend` of a layer that turns by position is its self-attention; its weights turn too.
#[test]
fn rotary_positions_count_from_zero() {
    let linear = |seed: u32| {
        let values = (0..64).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 23.0 - 0.5).collect::<Vec<_>>();
        regard_nn::Linear::new(Tensor::from_vec(values, (8, 8), &Device::Cpu).unwrap(), None).unwrap()
    };
    let layer = MultiHeadAttention::new(linear(1), linear(2), linear(3), linear(4), 2, 2).unwrap();
    let layer = layer.rotary(Rotary::new(4, 100.0, RopeStyle::HalfSplit).unwrap()).unwrap().causal();
    let x = Tensor::from_vec((0..80).map(|i| (i as f32).sin()).collect::<Vec<_>>(), (2, 5, 8), &Device::Cpu).unwrap();
    let options = AttendOptions { need_weights: NeedWeights::PerHead, ..Default::default() };
    let (out, weights) = layer.attend(&x, &x, &x, &options).unwrap();
    close("attend", &out, &layer.forward(&x).unwrap());
    let v = linear(3).forward(&x).unwrap().reshape((2, 5, 2, 4)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    let mixed = weights.unwrap().matmul(&v).unwrap().transpose(1, 2).unwrap().reshape((2, 5, 8)).unwrap();
    close("weights", &linear(4).forward(&mixed).unwrap(), &out);
    let x = Var::from_tensor(&x).unwrap();
    let of = |y: Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
    close("gradient", &of(layer.attend(&x, &x, &x, &options).unwrap().0), &of(layer.forward(&x).unwrap()));
}

#[test]
fn bad_calls_and_bad_state_dicts_are_refused_by_name() {
    let text = |e: Error| e.to_string();
    let cases: HashMap<String, Case> = Case::all().into_iter().collect();
    let case = &cases["boolean_masks"];
    let [query, key, value] = case.inputs();
    let layer = case.layer(0.0);
    let call = |options: AttendOptions<'_>| text(layer.attend(query, key, value, &options).unwrap_err());
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::U8, &Device::Cpu).unwrap();
    let wrong = call(AttendOptions { attn_mask: Some(&zeros(&[2, 3, 5])), ..Default::default() });
    assert!(
        wrong.contains("attn_mask has shape [2, 3, 5] and needs [3, 5], or [4, 3, 5]") && wrong.contains("unsqueeze(1)"),
        "{wrong}"
    );
    let wrong = call(AttendOptions { key_padding_mask: Some(&zeros(&[5, 2])), ..Default::default() });
    assert_eq!(wrong, "key_padding_mask has shape [5, 2] and needs [2, 5]");
    let wide = zeros(&[3, 5]).to_dtype(candle_core::DType::I64).unwrap();
    assert!(call(AttendOptions { attn_mask: Some(&wide), ..Default::default() }).contains("needs type u8 (1 hides) or f32"));
    let wrong = text(layer.attend(query, &key.narrow(1, 0, 4).unwrap(), value, &AttendOptions::default()).unwrap_err());
    assert_eq!(wrong, "value of attention has shape [2, 5, 6] and needs [2, 4, 6]");
    let wrong = text(layer.attend(&query.get(0).unwrap(), key, value, &AttendOptions::default()).unwrap_err());
    assert!(wrong.starts_with("key has shape [2, 5, 6] and needs three dimensions (or two"), "{wrong}");
    let rotary = Rotary::new(2, 100.0, RopeStyle::HalfSplit).unwrap();
    assert!(text(cases["zero_key"].layer(0.0).rotary(rotary).unwrap_err()).contains("not supported by a layer with extra keys"));
    let heavy = AttendOptions { training: Some(1), ..Default::default() };
    assert!(text(case.layer(1.5).attend(query, key, value, &heavy).unwrap_err()).starts_with("dropout is 1.5"));

    let state = || -> HashMap<String, Tensor> {
        case.tensors.iter().filter_map(|(key, t)| Some((key.strip_prefix("state.")?.to_owned(), t.clone()))).collect()
    };
    let open = |state: &HashMap<String, Tensor>, heads: usize| {
        text(MultiHeadAttention::from_torch(state, "", TorchOptions { heads, ..Default::default() }).unwrap_err())
    };
    assert_eq!(open(&state(), 4), "the embedding (embed_dim) is 6 and must be a multiple of the number of heads, which is 4");
    assert!(open(&state(), 0).contains("number of heads"));
    let with = |name: &str, tensor: Option<Tensor>| {
        let mut state = state();
        state.remove(name);
        state.extend(tensor.map(|tensor| (name.to_owned(), tensor)));
        open(&state, 2)
    };
    assert!(with("out_proj.weight", None).contains("no tensor \"out_proj.weight\""));
    assert!(with("in_proj_weight", None).contains("no tensor \"q_proj_weight\""));
    assert!(with("in_proj_bias", Some(zeros(&[17]))).contains("\"in_proj_bias\" has shape [17] and the configuration needs [18]"));
    assert!(with("in_proj_bias", Some(zeros(&[18]))).contains("holds U8"));
    assert!(with("gamma", Some(zeros(&[6]))).contains("a tensor \"gamma\", which a model with this configuration does not have"));
    assert!(with("bias_k", Some(query.narrow(0, 0, 1).unwrap().narrow(1, 0, 1).unwrap())).contains("no tensor \"bias_v\""));
}

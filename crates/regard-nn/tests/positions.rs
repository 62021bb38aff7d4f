//! Positions against Python's transformers, whose numbers `transformers/positions.py` wrote down, and against their formulas.

use candle_core::{Device, Tensor};
use regard::{Alibi, RelativeBias, RopeStyle, View, sinusoidal};
use regard_nn::{Error, LearnedPositions, RopeParameters, RopeScaling, Rotary, SinusoidalPositions};
use serde_json::{Value, json};

fn fixture() -> Value {
    serde_json::from_str(include_str!("transformers/positions.json")).unwrap()
}

fn numbers(json: &Value) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

/// Heads of 16 elements, as in the fixture.
fn rotary(parameters: &Value, style: RopeStyle, length: usize) -> Rotary {
    RopeParameters::from_json(parameters, 4096).unwrap().rope(16, style, length).unwrap().into()
}

/// Transformers computes `base^(−2i/dim)` in f32: off by `u · ln(base) · 2i/dim`, 6e-7 at most, and a few roundings.
#[test]
fn frequencies_of_every_type_agree_with_transformers() {
    let mut wrong = Vec::new();
    for case in fixture()["ropes"].as_array().unwrap() {
        let parameters = RopeParameters::from_json(&case["parameters"], 4096).unwrap();
        let rope = parameters.rope(16, RopeStyle::HalfSplit, case["length"].as_u64().unwrap() as usize).unwrap();
        let expected = numbers(&case["frequencies"]);
        assert_eq!(rope.frequencies().len(), expected.len(), "{case}");
        let close = |(given, expected): (&f64, f64)| (given / expected - 1.0).abs() < 2e-6;
        let factor = (rope.attention_factor() - case["attention_factor"].as_f64().unwrap()).abs() < 1e-9;
        if !(factor && rope.frequencies().iter().zip(expected).all(close)) {
            wrong.push(format!("{:?} {} instead of {case}", rope.frequencies(), rope.attention_factor()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Transformers computes angles in f32: at position 702 off by 702 times the error of a frequency, 4e-4 at most, and of two numbers
/// of order 1 to 2.
#[test]
fn turned_heads_agree_with_transformers() {
    let (turned, shape) = (&fixture()["turned"], [1, 2, 3, 16]);
    let x = tensor(&numbers(&turned["x"]), &shape);
    let yarn = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512});
    let part = json!({"rope_theta": 500.0, "partial_rotary_factor": 0.5});
    let cases = [
        ("yarn", yarn, RopeStyle::HalfSplit),
        ("interleaved", json!({}), RopeStyle::Interleaved),
        ("part", part, RopeStyle::HalfSplit),
    ];
    for (name, parameters, style) in cases {
        let given = rotary(&parameters, style, 4096).forward(&x, 700).unwrap();
        let given: Vec<f32> = given.flatten_all().unwrap().to_vec1().unwrap();
        for (i, (given, expected)) in given.into_iter().zip(numbers(&turned[name])).enumerate() {
            assert!((f64::from(given) - expected).abs() < 1e-3, "{name} {i}: {given}, transformers {expected}");
        }
    }
}

#[test]
fn buckets_agree_with_transformers() {
    for case in fixture()["buckets"].as_array().unwrap() {
        let (buckets, max) = (case["buckets"].as_u64().unwrap() as usize, case["max_distance"].as_u64().unwrap() as u32);
        let zeros = vec![0.0; buckets];
        let table = View::new(&zeros, [1, 1, 1, buckets]).unwrap();
        let bidirectional = case["bidirectional"].as_bool().unwrap();
        let bias = if bidirectional { RelativeBias::bidirectional(table, max) } else { RelativeBias::causal(table, max) };
        let bias = bias.unwrap();
        let first = case["first"].as_i64().unwrap() as i32;
        for (relative, expected) in (first..).zip(numbers(&case["expected"])) {
            assert_eq!(f64::from(bias.bucket(relative)), expected, "{relative} of {buckets} buckets up to {max}, {bidirectional}");
        }
    }
}

/// Transformers raises a base to powers up to the number of heads in f32.
#[test]
fn slopes_agree_with_transformers() {
    for (heads, expected) in fixture()["slopes"].as_object().unwrap() {
        let alibi = Alibi::new(heads.parse().unwrap());
        assert_eq!(alibi.slopes.len(), numbers(expected).len());
        for (given, expected) in alibi.slopes.iter().zip(numbers(expected)) {
            assert!((f64::from(*given) / expected - 1.0).abs() < 1e-5, "{heads} heads: {given}, transformers {expected}");
        }
    }
}

#[test]
fn sinusoids_agree_with_transformers_and_with_the_paper() {
    let marian = numbers(&fixture()["marian"]);
    let given = sinusoidal(0..40, 6, RopeStyle::HalfSplit).unwrap();
    assert!(given.data().iter().zip(marian).all(|(g, e)| (f64::from(*g) - e).abs() < 1e-6));
    let table = sinusoidal(1000..1003, 8, RopeStyle::Interleaved).unwrap();
    for l in 0..3 {
        for i in 0..4 {
            let angle = (1000 + l) as f64 / 10_000f64.powf(2.0 * i as f64 / 8.0);
            let at = |d| f64::from(table.view().at([0, 0, l, d]));
            assert!((at(2 * i) - angle.sin()).abs() < 1e-6 && (at(2 * i + 1) - angle.cos()).abs() < 1e-6, "{l} {i}");
        }
    }
}

#[test]
fn absolute_positions_are_added_from_the_first_on() {
    let x = tensor(&(0..12).map(f64::from).collect::<Vec<_>>(), &[2, 2, 3]);
    let table = tensor(&(0..15).map(|i| 100.0 * f64::from(i)).collect::<Vec<_>>(), &[5, 3]);
    let y = LearnedPositions::new(table).unwrap().forward(&x, 3).unwrap().to_vec3::<f32>().unwrap();
    assert_eq!(y[1], [[906.0, 1007.0, 1108.0], [1209.0, 1310.0, 1411.0]]);
    let zeros = Tensor::zeros((2, 3, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let y = SinusoidalPositions::new(4, RopeStyle::Interleaved).unwrap().forward(&zeros, 7).unwrap();
    let expected = sinusoidal(7..10, 4, RopeStyle::Interleaved).unwrap();
    for text in y.to_vec3::<f32>().unwrap() {
        assert_eq!(text.concat(), expected.data());
    }
}

#[test]
fn positions_that_cannot_be_are_refused_by_name() {
    let text = |e: Error| e.to_string();
    let read = |json: Value| RopeParameters::from_json(&json, 4096);
    let refused = |json: Value| read(json).and_then(|p| p.rope(16, RopeStyle::HalfSplit, 100)).map(|_| ()).unwrap_err().to_string();
    assert!(
        refused(json!({"rope_type": "su"})).starts_with("rope_type is \"su\", and this version runs default, linear, dynamic,")
    );
    assert!(refused(json!({"type": "proportional", "factor": 2.0})).starts_with("rope_type is \"proportional\""));
    assert!(refused(json!({"factor": 2.0})).starts_with("rope scaling factor without a rope_type is \"2\""));
    assert!(refused(json!({"rope_type": "linear", "factor": 2.0, "betafast": 3})).contains("unknown field `betafast`"));
    assert!(refused(json!({"rope_type": "linear"})).contains("missing field `factor`"));
    for factor in [0.0, -2.0] {
        for kind in ["linear", "dynamic", "yarn"] {
            let text = refused(json!({"rope_type": kind, "factor": factor}));
            assert_eq!(text, format!("factor of a rotary scaling is {factor} and must be a positive number"), "{kind}");
        }
    }
    let llama3 =
        |low: f64, high: f64| json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": low, "high_freq_factor": high});
    assert!(refused(llama3(0.0, 4.0)).starts_with("low_freq_factor of Llama 3 is 0"));
    assert!(refused(llama3(4.0, 4.0)).starts_with("high_freq_factor of Llama 3 is 4 and must be finite and more than"));
    assert!(
        refused(json!({"rope_type": "yarn", "factor": 8.0, "beta_fast": 1.0, "beta_slow": 2.0})).starts_with("beta_fast of YaRN")
    );
    assert!(
        refused(json!({"rope_type": "yarn", "factor": 8.0, "attention_factor": 0.0})).starts_with("attention factor of YaRN is 0")
    );
    let zero = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 0});
    assert!(refused(zero).starts_with("original length of a rotary scaling is 0"));
    let long = |short: &[f64], long: &[f64]| json!({"rope_type": "longrope", "short_factor": short, "long_factor": long});
    assert!(refused(long(&[1.0; 8], &[1.0; 7])).starts_with("long_factor of LongRoPE has 7 factors and needs 8"));
    assert!(refused(long(&[1.0; 8], &[-1.0; 8])).starts_with("long_factor of LongRoPE is -1"));
    assert!(refused(json!({"partial_rotary_factor": 1.5})).starts_with("partial_rotary_factor is 1.5"));
    assert!(
        refused(json!({"partial_rotary_factor": 0.2})).contains("is 3 and must be even, positive and at most 2^20"),
        "3 of 16 elements"
    );
    assert!(refused(json!({"rope_theta": -1.0})).starts_with("base of a rotary embedding is -1"));

    let x = tensor(&[0.0; 2 * 8 * 3], &[1, 2, 3, 8]);
    assert!(text(rotary(&json!({}), RopeStyle::Interleaved, 9).forward(&x, 0).unwrap_err()).contains("a last size of at least 16"));
    assert!(
        text(rotary(&json!({}), RopeStyle::Interleaved, 9).forward(&tensor(&[0.0; 16], &[1, 1, 1, 16]), usize::MAX).unwrap_err())
            .contains("2^53")
    );
    let (positions, x) = (LearnedPositions::new(tensor(&[0.0; 20], &[5, 4])).unwrap(), tensor(&[0.0; 24], &[2, 3, 4]));
    assert!(positions.forward(&x, 2).is_ok());
    assert!(text(positions.forward(&x, 3).unwrap_err()).starts_with("6 tokens do not fit the model's context of 5 tokens"));
    assert!(positions.forward(&x, usize::MAX).is_err());
    assert!(text(positions.forward(&tensor(&[0.0; 6], &[1, 2, 3]), 0).unwrap_err()).contains("needs 4 elements at each position"));
    assert!(LearnedPositions::new(tensor(&[0.0; 6], &[6])).is_err());
    assert!(SinusoidalPositions::new(4, RopeStyle::HalfSplit).unwrap().forward(&x, usize::MAX).is_err());
    assert!(
        SinusoidalPositions::new(5, RopeStyle::HalfSplit).is_err() && SinusoidalPositions::new(0, RopeStyle::HalfSplit).is_err()
    );
}

#[test]
fn the_numbers_of_papers_need_not_be_given() {
    let yarn = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512});
    assert_eq!(RopeParameters::from_json(&yarn, 4096).unwrap().scaling, Some(RopeScaling::yarn(8.0, 512)));
}

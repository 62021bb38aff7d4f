//! `regard cost`: figures to read, in JSON and in pictures, and shapes that are those of the models that regard runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use regard_cost::Shape;
use regard_nn::DecoderConfig;
use serde_json::{Map, Value};

use super::{regard, stderr};

fn cost(arguments: &[&str]) -> Output {
    regard().arg("cost").args(arguments).output().unwrap()
}

/// What it prints, on no chip.
fn told(arguments: &[&str]) -> String {
    let output = cost(&[arguments, &["--chip", "none"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&told(&[arguments, &["--json"]].concat())).unwrap()
}

/// An error that ends it with 1.
fn refused(arguments: &[&str]) -> String {
    let output = cost(arguments);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}");
    stderr(&output)
}

/// One space where there are some.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn known_figures_are_told() {
    let gpt3 = told(&["--preset", "gpt3", "--length", "2048", "--dtype", "f32", "--train"]);
    for line in [
        "gpt3: 1 text of 2,048 tokens in f32",
        "one matrix 16.78 MB",
        "one for each layer 1.611 GB",
        "of all layers 154.6 GB",
        "a projection 12,289",
        "moments 1.397 TB",
    ] {
        assert!(spaced(&gpt3).contains(line), "{line} is not in\n{gpt3}");
    }
    let opt = json(&["--preset", "opt-13b", "--length", "2048", "--dtype", "f16"]);
    assert_eq!(opt["kv_cache"]["per_token"], 2 * 5120 * 40 * 2);
    assert_eq!((&opt["time"], &opt["fits"], &opt["training"]), (&Value::Null, &Value::Null, &Value::Null));
}

#[test]
fn every_figure_is_an_integer() {
    fn check(value: &Value, path: &str) {
        match value {
            Value::Number(n) => assert!(n.is_u64(), "{path} is {n}"),
            Value::Object(fields) => fields.iter().for_each(|(name, value)| check(value, &format!("{path}.{name}"))),
            Value::Array(all) => all.iter().for_each(|value| check(value, path)),
            _ => {}
        }
    }
    for preset in ["deepseek-v2", "bert-base"] {
        let output = cost(&["--preset", preset, "--length", "1000", "--batch", "7", "--train", "--chip", "h100", "--json"]);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        check(&json, preset);
        assert!(json["time"]["training"]["total_ns"].as_u64() > Some(0) && json["fits"]["memory"] == 80_000_000_000u64, "{json}");
    }
}

#[test]
fn this_machine_is_measured() {
    let output = cost(&["--length", "100", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let story: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&story["model"]["name"], &story["time"]["chip"]["name"]), (&"story".into(), &"here".into()));
    let (prefill, decode) = (&story["time"]["prefill"]["total_ns"], &story["time"]["decode"]["total_ns"]);
    assert!(prefill.as_u64() > decode.as_u64() && decode.as_u64() > Some(1000), "{prefill} and {decode}");
}

#[test]
fn memory_is_what_is_said() {
    let of = |memory: &str| json(&["--preset", "gpt2", "--length", "1024", "--memory", memory])["fits"].clone();
    assert_eq!(of("24GiB")["memory"], 24u64 << 30);
    assert!(of("24GiB")["batch"].as_u64() > of("1.5GB")["batch"].as_u64());
    assert_eq!(of("100MB")["batch"], 0);
}

#[test]
fn memory_and_time_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cost.svg");
    let draw = |chip: &str, more: &[&str]| {
        let preset = ["--preset", "mistral-7b", "--length", "8192", "--chip", chip, "--plot", path.to_str().unwrap()];
        let output = cost(&[&preset, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let svg = fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        svg
    };
    let svg = draw("a100", &[]);
    for text in
        ["Memory of mistral-7b, 1 text, bf16", "keys and values", "scores of a layer", "on a100", "prefill", "a token of each"]
    {
        assert!(svg.contains(text), "{text} is missing");
    }
    let svg = draw("none", &["--train", "--batch", "4"]);
    assert!(svg.contains("training, materialised") && svg.contains("4 texts") && !svg.contains("Least time"), "{svg}");
    // Lengths at which nothing can be counted are left out.
    let far =
        [&["--preset", "gpt3", "--length", "1125899906842624"][..], &["--chip", "none", "--plot", path.to_str().unwrap()]].concat();
    assert!(cost(&far).status.success());
}

#[test]
fn presets_and_chips_are_listed() {
    let list = String::from_utf8(cost(&["--list"]).stdout).unwrap();
    for text in ["llama-3-8b 8.030 billion Llama Team 2024", " l4 NVIDIA L4", " here this machine, measured"] {
        assert!(spaced(&list).contains(text), "{text} is not in\n{list}");
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = |text: &str| {
        fs::write(dir.path().join("config.json"), text).unwrap();
        refused(&["--model", dir.path().to_str().unwrap(), "--length", "1"])
    };
    assert!(config("{}").contains("config.json has no field \"model_type\""));
    assert!(
        config(r#"{"model_type": "llama"}"#)
            .contains("config.json has no field \"hidden_size\", which a model of type llama needs")
    );
    assert!(config("no").contains("config.json is not as it must be"));
    let cases = [
        (&["--preset", "gpt5", "--length", "1"][..], "there is no preset \"gpt5\"; the presets are gpt2, gpt3, "),
        (&["--length", "1", "--chip", "abacus"], "there is no chip \"abacus\"; the chips are h100, "),
        (&["--length", "0"], "length is 0 and must be at least 1"),
        (&["--length", "1", "--batch", "0"], "batch is 0 and must be at least 1"),
        (&["--length", "18446744073709551615", "--batch", "18446744073709551615"], "would be 2^128 or more"),
        (
            &["--length", "1", "--model", "/no/such"],
            "there is no file or directory /no/such: --model needs a directory with a config.json",
        ),
        (&["--length", "1", "--chip", "none", "--plot", "/no/such/cost.svg"], "cannot write /no/such/cost.svg: "),
    ];
    for (arguments, expected) in cases {
        let error = refused(arguments);
        assert!(error.starts_with("error: ") && error.contains(expected), "{arguments:?}: {error}");
    }
    for usage in [
        &["--preset", "gpt2"][..],
        &["--length", "many"],
        &["--length", "1", "--dtype", "int7"],
        &["--length", "1", "--memory", "much"],
        &["--length", "1", "--preset", "gpt2", "--model", "."],
    ] {
        assert_eq!(cost(usage).status.code(), Some(2), "{usage:?}");
    }
}

/// The configurations of the tiny models of regard-nn, and the same without what newer versions of transformers write into them.
fn configurations() -> Vec<(PathBuf, String)> {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-nn/tests/families");
    let mut all = Vec::new();
    for entry in fs::read_dir(families).unwrap() {
        let path = entry.unwrap().path().join("config.json");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let mut bare: Map<String, Value> = serde_json::from_str(&text).unwrap();
        for field in ["layer_types", "no_rope_layers", "head_dim", "num_key_value_heads", "tie_word_embeddings", "attention_bias"] {
            let mut without = bare.clone();
            without.remove(field);
            all.push((path.clone(), Value::Object(without).to_string()));
        }
        bare.remove("layer_types");
        bare.insert("sliding_window".into(), 7.into());
        bare.insert("use_sliding_window".into(), true.into());
        all.extend([(path.clone(), text), (path, Value::Object(bare).to_string())]);
    }
    all
}

/// What a model costs is told of the shape that it runs in.
#[test]
fn shapes_are_those_that_run() {
    let mut compared = 0;
    for (path, text) in configurations() {
        let Ok(runs) = DecoderConfig::from_json(&text) else { continue };
        let shape = Shape::from_json(&text).unwrap();
        let is = |name: &str| path.parent().unwrap().ends_with(name);
        let sizes = [runs.vocab_size, runs.hidden_size, runs.num_attention_heads, runs.num_key_value_heads, runs.head_dim];
        let a = shape.attention;
        assert_eq!(sizes.map(|n| n as u64), [shape.vocab_size, shape.hidden_size, a.query_heads, a.kv_heads, a.head_dim], "{text}");
        let windows: Vec<_> = runs.layers.iter().map(|layer| layer.window.map(|window| window as u64)).collect();
        assert_eq!(windows, shape.layers.iter().map(|layer| layer.window).collect::<Vec<_>>(), "{text}");
        let ff = shape.layers[0].feed_forward;
        assert_eq!([runs.biases.qkv, runs.biases.out, runs.biases.feed_forward], [a.qkv_bias, a.out_bias, ff.bias], "{text}");
        assert_eq!(
            (runs.feed_forward.intermediate_size as u64, runs.feed_forward.gated),
            (ff.intermediate_size, ff.gated),
            "{text}"
        );
        assert_eq!(
            runs.feed_forward.experts.map(|e| (e.count as u64, e.per_token as u64)),
            ff.experts.map(|e| (e.count, e.per_token))
        );
        assert_eq!(runs.tie_word_embeddings, shape.output == regard_cost::Output::Tied, "{text}");
        assert_eq!((runs.qk_norm, runs.sinks, runs.norms_after), (a.qk_norm, a.sinks, shape.norms.per_layer == 4), "{text}");
        assert_eq!(runs.learned_positions, shape.learned_positions > 0, "{text}");
        assert_eq!(shape.learned_positions, if is("gpt2") { runs.max_position_embeddings as u64 } else { 0 });
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
}

/// Attention is counted as the plan of one is, but for softmax, which a plan leaves out.
#[test]
fn attention_costs_what_its_plan_says() {
    let data = vec![0f32; 2 * 8 * 100 * 16];
    let x = regard::View::new(&data, [2, 8, 100, 16]).unwrap();
    let plan = regard::Attention::new().plan(x, (x, x)).unwrap().cost();
    let config = r#"{"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 8, "intermediate_size": 9,
        "max_position_embeddings": 100, "vocab_size": 9}"#;
    let ask = regard_cost::Question { length: 100, batch: 2, dtype: regard_cost::Dtype::F32, train: true, memory: None };
    let cost = regard_cost::Cost::of(&Shape::from_json(config).unwrap(), &ask, None).unwrap();
    let (forward, backward) = (cost.prefill.attention, cost.training.unwrap().backward.attention);
    assert_eq!((forward.exps.get(), forward.bytes.get()), (plan.pairs.into(), plan.bytes.into()));
    assert_eq!(forward.flops, u128::from(plan.forward_flops + 2 * plan.pairs));
    assert_eq!(backward.flops, u128::from(plan.backward_flops + 5 * plan.pairs));
}

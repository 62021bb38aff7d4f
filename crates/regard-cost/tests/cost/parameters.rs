//! Parameters, against the tensors of files, against transformers, and against what is published.

use std::fs;
use std::path::Path;

use regard_cost::{Parameters, Shape};
use serde_json::{Map, Value};

/// The elements of all tensors of a safetensors file but those that nothing reads, by its header.
fn elements(file: &Path) -> u128 {
    let bytes = fs::read(file).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&rest[..length]).unwrap();
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    tensors
        .map(|(_, tensor)| tensor["shape"].as_array().unwrap().iter().map(|n| u128::from(n.as_u64().unwrap())).product::<u128>())
        .sum()
}

fn sum(p: &Parameters) -> u128 {
    [p.embedding, p.positions, p.attention, p.feed_forward, p.router, p.norms, p.head].iter().map(|part| part.get()).sum()
}

/// Small checkpoints of every family that regard-nn runs, made by transformers.
#[test]
fn every_element_of_every_family_is_counted() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-nn/tests");
    let mut counted = 0;
    for kind in ["families", "transformers"] {
        for entry in fs::read_dir(tests.join(kind)).unwrap() {
            let dir = entry.unwrap().path();
            if !dir.is_dir() || dir.ends_with("t5") || dir.ends_with("t5_gated") {
                continue;
            }
            let parameters = Shape::open(&dir).unwrap().parameters();
            assert_eq!(parameters.total, elements(&dir.join("model.safetensors")), "{}", dir.display());
            assert_eq!(parameters.total, sum(&parameters), "{}", dir.display());
            counted += 1;
        }
    }
    assert_eq!(counted, 19);
}

#[test]
fn the_story_model_is_a_preset() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-story/model");
    let (read, preset) = (Shape::open(&model).unwrap(), Shape::preset("story").unwrap());
    assert_eq!(preset, {
        let mut named = read;
        named.name = "story".into();
        named
    });
    assert_eq!(preset.parameters().total, elements(&model.join("model.safetensors")));
}

/// By transformers: tests/count.py.
const COUNTED: [(&str, u128); 17] = [
    ("gpt2", 124_439_808),
    ("gpt3", 174_604_259_328),
    ("bert-base", 109_482_240),
    ("opt-13b", 12_853_473_280),
    ("llama-2-7b", 6_738_415_616),
    ("llama-3-8b", 8_030_261_248),
    ("llama-3-70b", 70_553_706_496),
    ("mistral-7b", 7_241_732_096),
    ("mixtral-8x7b", 46_702_792_704),
    ("gemma-2b", 2_506_172_416),
    ("gemma-2-9b", 9_241_705_984),
    ("qwen3-8b", 8_190_735_360),
    ("gpt-oss-20b", 20_914_757_184),
    ("gpt-oss-120b", 116_829_156_672),
    ("deepseek-v2", 235_741_434_880),
    ("deepseek-v3", 671_026_419_200),
    ("story", 5_180_672),
];

#[test]
fn presets_have_as_many_as_transformers_counts() {
    assert_eq!(Shape::presets(), COUNTED.map(|(name, _)| name));
    for (name, counted) in COUNTED {
        let parameters = Shape::preset(name).unwrap().parameters();
        assert_eq!((parameters.total.get(), sum(&parameters)), (counted, counted), "{name}");
        assert!(Shape::source(name).unwrap().len() > 20);
    }
}

/// All and active, in billions, as their authors round them.
#[test]
fn presets_have_as_many_as_is_published() {
    let of = |name: &str| Shape::preset(name).unwrap().parameters();
    let published = [
        ("gpt3", 175.0, 175.0),       // Brown et al. 2020, Table 2.1
        ("llama-3-8b", 8.0, 8.0),     // its model card
        ("mixtral-8x7b", 47.0, 13.0), // Jiang et al. 2024, §1
        ("deepseek-v2", 236.0, 21.0), // its abstract
        ("deepseek-v3", 671.0, 37.0), // its abstract
    ];
    for (name, total, active) in published {
        let parameters = of(name);
        for (ours, published) in [(parameters.total, total), (parameters.active, active)] {
            assert!((ours.get() as f64 / 1e9 - published).abs() < 0.65, "{name}: {ours}");
        }
    }
    // OpenAI 2025, Table 1: the embedding is not active.
    for (name, active) in [("gpt-oss-20b", "3.61"), ("gpt-oss-120b", "5.13")] {
        let parameters = of(name);
        let without = parameters.active.get() - parameters.embedding.get();
        assert_eq!(format!("{:.2}", without as f64 / 1e9), active, "{name}");
    }
}

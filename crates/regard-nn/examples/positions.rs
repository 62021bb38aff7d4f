//! Positions, drawn: how much a query likes a key by their distance, and how far each rotary scaling reaches.
//!
//! ```sh
//! cargo run --release -p regard-nn --example positions
//! ```

use std::error::Error;

use candle_core::{Device, Tensor, Var};
use regard::{Alibi, Pair, RelativeBias, Rope, RopeStyle, Score, View, sinusoidal};
use regard_nn::{LearnedPositions, RopeParameters};
use serde_json::json;

/// Distances from a query to a key that are drawn.
const DISTANCES: [usize; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 1024, 4096, 16384];

fn main() -> Result<(), Box<dyn Error>> {
    println!("what a query's score with itself, 1, becomes with a key of the same content at a distance\n");
    println!("{:>34} {}", "distance", DISTANCES.map(|d| format!("{d:>7}")).concat());
    rotary()?;
    scores()?;
    let table = sinusoidal(0..16385, 64, RopeStyle::Interleaved)?;
    let row = |l: usize| &table.data()[l * 64..][..64];
    line("sinusoidal rows, in common", DISTANCES.map(|d| dot(row(0), row(d)) / dot(row(0), row(0))));
    learned()
}

/// Rotary positions and every way to scale them. A query and a key of ones: each pair contributes the cosine of its angle.
fn rotary() -> Result<(), Box<dyn Error>> {
    let yarn = json!({"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 1024});
    let llama3 = json!({"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024});
    let longrope = json!({"rope_type": "longrope", "short_factor": vec![1.0; 32], "original_max_position_embeddings": 1024,
        "long_factor": (0..32).map(|i| 16f64.powf(f64::from(i) / 31.0)).collect::<Vec<_>>()});
    let all = [
        ("rotary", json!({})),
        ("rotary, half of the head", json!({"partial_rotary_factor": 0.5})),
        ("rotary, linear by 16", json!({"rope_type": "linear", "factor": 16.0})),
        ("rotary, dynamic NTK", json!({"rope_type": "dynamic", "factor": 1.0})),
        ("rotary, YaRN by 16", yarn),
        ("rotary, Llama 3 by 16", llama3),
        ("rotary, LongRoPE", longrope),
    ];
    for (name, parameters) in all {
        // The dynamic base depends on the length for which the model was trained, the others name it themselves.
        let trained = if parameters["rope_type"] == "dynamic" { 1024 } else { 16384 };
        let rope = RopeParameters::from_json(&parameters, trained)?.rope(64, RopeStyle::HalfSplit, 16384)?;
        line(name, turned(&rope)?);
    }
    Ok(())
}

/// The scores of a key of ones at position 0 with queries of ones at each distance, over 64.
fn turned(rope: &Rope) -> Result<[f32; 16], regard::Error> {
    let ones = [1.0f32; 64];
    let ones = View::new(&ones, [1, 1, 1, 64])?;
    let key = rope.turn(ones, 0)?;
    let mut scores = [0.0; 16];
    for (score, distance) in scores.iter_mut().zip(DISTANCES) {
        *score = dot(rope.turn(ones, distance)?.data(), key.data()) / 64.0;
    }
    Ok(scores)
}

/// Positions that are scores: ALiBi, and T5's buckets, here with a table that falls from bucket to bucket.
fn scores() -> Result<(), Box<dyn Error>> {
    let at = |d: usize| {
        let len = regard::Lens { q: 1 << 15, kv: 1 << 15 };
        Pair { q: 20_000, kv: 20_000 - d as u32, len, ..Pair::default() }
    };
    let alibi = Alibi::new(8);
    for head in [0, 7] {
        line(&format!("ALiBi, head {head} of 8"), DISTANCES.map(|d| alibi.score(1.0, Pair { head, ..at(d) })));
    }
    let table: Vec<f32> = (0..32).map(|bucket| -0.1 * bucket as f32).collect();
    let relative = RelativeBias::causal(View::new(&table, [1, 1, 1, 32])?, 128)?;
    line("T5, 32 buckets up to 128", DISTANCES.map(|d| relative.score(1.0, at(d))));
    Ok(())
}

/// A learned table: after one backward pass, the gradient is in the rows of the positions that were used.
fn learned() -> Result<(), Box<dyn Error>> {
    let table = Var::zeros((8, 4), candle_core::DType::F32, &Device::Cpu)?;
    let positions = LearnedPositions::new(table.as_tensor().clone())?;
    let x = Tensor::ones((2, 3, 4), candle_core::DType::F32, &Device::Cpu)?;
    let gradients = positions.forward(&x, 2)?.sum_all()?.backward()?;
    let rows: Vec<Vec<f32>> = gradients.get(&table).ok_or("a table has a gradient")?.to_vec2()?;
    println!(
        "\nlearned positions 2 to 4 of two texts: gradient of each row of the table {:?}",
        rows.iter().map(|r| r[0]).collect::<Vec<_>>()
    );
    println!("one position too many: {}", positions.forward(&x, 6).unwrap_err());
    Ok(())
}

fn line(name: &str, scores: [f32; 16]) {
    let number = |s: f32| if s.abs() < 10.0 { format!("{s:>7.2}") } else { format!("{s:>7.0}") };
    println!("{name:>34} {}", scores.map(number).concat());
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

//! What models cost, against what is published, counted by others, or added up one by one.

mod bad_input;
mod known;
mod parameters;
mod passes;
mod time;

use regard_cost::{Cost, Dtype, Question, Shape};

/// A question about inference.
fn ask(length: u64, batch: u64, dtype: Dtype) -> Question {
    Question { length, batch, dtype, train: false, memory: None }
}

fn train(length: u64, batch: u64, dtype: Dtype) -> Question {
    Question { train: true, ..ask(length, batch, dtype) }
}

/// What a preset costs, in time on no chip.
fn cost(preset: &str, ask: &Question) -> Cost {
    Cost::of(&Shape::preset(preset).unwrap(), ask, None).unwrap()
}

/// A GPT-2 of some sizes.
fn gpt(layers: u64, hidden: u64, heads: u64, vocab: u64) -> Shape {
    let config = format!(
        r#"{{"model_type": "gpt2", "n_embd": {hidden}, "n_layer": {layers}, "n_head": {heads}, "n_positions": 1024, "vocab_size": {vocab}}}"#
    );
    Shape::from_json(&config).unwrap()
}

/// A Llama-like model of a family, with other fields.
fn llama(fields: &str) -> Shape {
    let config = format!(
        r#"{{"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 96, "vocab_size": 50, {fields}}}"#
    );
    Shape::from_json(&config).unwrap()
}

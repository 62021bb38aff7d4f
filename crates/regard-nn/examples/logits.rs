//! Logits of a model for a text, as one JSON object `{"tokens": […], "logits": [[…]]}`: what other implementations are compared with.
//!
//! ```sh
//! cargo run --release -p regard-nn --example logits DIR TEXT
//! ```

use std::error::Error;

use candle_core::{Device, Tensor};
use regard_nn::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(text)) = (arguments.next(), arguments.next()) else { return Err("usage: logits DIR TEXT".into()) };
    let model = Model::open(dir.as_ref())?;
    let tokens = model.tokenizer().encode(&text)?;
    let row = Tensor::from_slice(&tokens, (1, tokens.len()), &Device::Cpu)?;
    let logits: Vec<Vec<f32>> = model.llama().forward(&row)?.squeeze(0)?.to_vec2()?;
    println!("{}", serde_json::json!({ "tokens": tokens, "logits": logits }));
    Ok(())
}

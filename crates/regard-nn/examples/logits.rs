//! Logits of a model for a text, as one JSON object `{"tokens": […], "logits": [[…]]}`: what other implementations are compared with.
//!
//! ```sh
//! cargo run --release -p regard-nn --example logits DIR TEXT
//! ```

use std::error::Error;

use regard_nn::{Model, Precision};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(text)) = (arguments.next(), arguments.next()) else { return Err("usage: logits DIR TEXT".into()) };
    let model = Model::open_in(dir.as_ref(), Some(Precision::F32))?;
    let tokens = model.tokenizer().encode(&text)?;
    let decoder = model.decoder().ok_or("the model is no decoder")?;
    let logits = decoder.trace(&tokens, &mut decoder.cache(tokens.len())?, &mut |_, _| {})?;
    let logits: Vec<&[f32]> = logits.chunks(decoder.config().vocab_size).collect();
    println!("{}", serde_json::json!({ "tokens": tokens, "logits": logits }));
    Ok(())
}

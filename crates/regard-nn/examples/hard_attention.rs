//! Hard attention that learns: five keys, of which one pays, and only the key that was drawn is ever read.
//!
//! ```sh
//! cargo run --release -p regard-nn --example hard_attention
//! ```

use candle_core::{Device, Tensor, Var};
use regard_nn::Result;
use regard_nn::align::{Alignment, Dot};
use regard_nn::hard::{Reinforce, argmax, sample, straight_through};

const BATCH: usize = 32;

fn main() -> Result<()> {
    let keys = Tensor::eye(5, candle_core::DType::F32, &Device::Cpu)?.unsqueeze(0)?; // [1, kv_len, n]
    let pays = Tensor::new(&[[[0.1f32], [0.2], [1.0], [0.3], [0.0]]], &Device::Cpu)?; // [1, kv_len, 1]
    for estimator in ["REINFORCE", "straight-through"] {
        let query = Var::zeros((1, 1, 5), candle_core::DType::F32, &Device::Cpu)?;
        let mut reinforce = Reinforce { entropy: 0.01, ..Reinforce::default() };
        println!("{estimator}: weights of the five keys, which pay 0.1, 0.2, 1, 0.3 and 0");
        for step in 0..=200 {
            let weights = Dot { scale: 1.0 }.weights(&query, &keys, &())?;
            if step % 50 == 0 {
                let now: Vec<String> = weights.flatten_all()?.to_vec1::<f32>()?.iter().map(|w| format!("{w:.3}")).collect();
                println!("  step {step:>3}: {}   the best: {:?}", now.join("  "), argmax(&weights, &pays)?.keys[0]);
            }
            // Draws of one step: the same weights, a batch of queries.
            let weights = weights.broadcast_as((1, BATCH, 5))?.contiguous()?;
            let loss = if estimator == "REINFORCE" {
                let drawn = sample(&weights, &pays, step)?;
                reinforce.loss(&drawn, &weights, &drawn.context.squeeze(2)?)?
            } else {
                straight_through(&weights, &pays, step)?.sum_all()?.neg()?
            };
            let gradients = loss.backward()?;
            if let Some(gradient) = gradients.get(&query) {
                query.set(&(query.as_tensor() - gradient.affine(0.3 / BATCH as f64, 0.0)?)?)?;
            }
        }
    }
    Ok(())
}

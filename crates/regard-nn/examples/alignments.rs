//! The alignment functions side by side: what each of them reads for the same question.
//!
//! ```sh
//! cargo run --release -p regard-nn --example alignments
//! ```

use candle_core::{Device, Tensor};
use regard::Padding;
use regard_nn::align::{Additive, Alignment, Cosine, Dot, General, Location};
use regard_nn::{Linear, Result};

/// The weights of one function for the question, as bars.
fn show(name: &str, function: &impl Alignment, query: &Tensor, keys: &Tensor) -> Result<()> {
    println!("{name}");
    let weights = function.weights(query, keys, &Padding::new([4]))?.flatten_all()?.to_vec1::<f32>()?;
    for (key, weight) in ["the same", "twice as long", "a right angle", "the opposite", "padding"].into_iter().zip(weights) {
        println!("  {key:<14} {weight:.3} {}", "█".repeat((40.0 * weight) as usize));
    }
    Ok(())
}

fn main() -> Result<()> {
    let matrix = |rows: &[[f32; 2]]| Tensor::from_slice(&rows.concat(), (rows.len(), 2), &Device::Cpu);
    let query = matrix(&[[1.0, 0.0]])?.unsqueeze(0)?; // [batch, q_len, n]
    let keys = matrix(&[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [9.0, 9.0]])?.unsqueeze(0)?; // [batch, kv_len, n]

    show("dot: s·h likes what is long", &Dot { scale: 1.0 }, &query, &keys)?;
    let turn = matrix(&[[0.0, 1.0], [-1.0, 0.0]])?;
    show("general: s·W h, W a quarter turn", &General::new(turn.clone())?, &query, &keys)?;
    let strength = matrix(&[[3.0, 0.0]])?.narrow(1, 0, 1)?;
    show("cosine: 3·cos(s, h) does not mind lengths", &Cosine::new(strength)?, &query, &keys)?;
    let unit = || Linear::new(matrix(&[[1.0, 0.0], [0.0, 1.0]])?, None);
    let v = Tensor::new(&[1f32, 1.0], &Device::Cpu)?;
    show("additive: v·tanh(W s + U h) saturates", &Additive::new(unit()?, unit()?, v.clone())?, &query, &keys)?;
    let both = Tensor::cat(&[&turn, &turn], 1)?;
    show("concat: v·tanh(W [s; h])", &Additive::concat(&both, v, 2)?, &query, &keys)?;
    let places = matrix(&[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])?;
    show("location: (W s)_j looks at places only", &Location::new(places)?, &query, &keys)
}

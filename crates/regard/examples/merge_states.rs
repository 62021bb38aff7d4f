//! Merging two partial states: attention over keys that lie in two places, computed where they lie.
//!
//! ```sh
//! cargo run --release -p regard --example merge_states
//! ```

use regard::{Attention, State, View, sdpa};

fn main() -> Result<(), regard::Error> {
    let (n, dim) = (1000, 16);
    let data: Vec<f32> = (0..3 * n * dim).map(|i| (i as f32 * 0.37).sin()).collect();
    let part = |i: usize| View::new(&data[i * n * dim..][..n * dim], [1, 1, n, dim]);
    let (q, k, v) = (part(0)?.slice(2, 0..1)?, part(1)?, part(2)?);

    // Two machines hold 700 and 300 of the keys. Each sends an output row and one number, its log-sum-exp.
    let attention = Attention::new();
    let here = attention.forward(q, (k.slice(2, 0..700)?, v.slice(2, 0..700)?))?;
    let there = attention.forward(q, (k.slice(2, 700..n)?, v.slice(2, 700..n)?))?;
    let mut state = State::of_row(here.out.into_vec(), here.lse.data()[0]);
    state.merge(&State::of_row(there.out.into_vec(), there.lse.data()[0]))?;

    let whole = sdpa(q, k, v, ())?;
    let furthest = state.out.iter().zip(whole.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("log-sum-exp {}, furthest element {furthest:e} from one pass over all keys", state.lse());
    assert!(furthest < 1e-6);
    Ok(())
}

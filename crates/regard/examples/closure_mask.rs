//! A mask of one's own: a closure that says who sees whom, combined with one of the library's.
//!
//! ```sh
//! cargo run --release -p regard --example closure_mask
//! ```

use regard::{Attention, Causal, Pair, View};

fn main() -> Result<(), regard::Error> {
    // One sequence, one head, twelve positions of two elements; the value of position j is j.
    let (n, dim) = (12, 2);
    let q = vec![0.0; n * dim];
    let v: Vec<f32> = (0..n).flat_map(|j| [j as f32; 2]).collect();
    let (q, v) = (View::new(&q, [1, 1, n, dim])?, View::new(&v, [1, 1, n, dim])?);

    // A query sees every third key, counted back from itself: a dilated window.
    let dilated = |p: Pair| (p.q as i32 - p.kv as i32) % 3 == 0;
    let attention = Attention::new().mask((Causal::UpperLeft, dilated));
    let output = attention.forward(q, (q, v))?;

    // All scores are 0, so a row is the plain mean of the values that it sees.
    for i in 0..n {
        let seen: Vec<usize> = (0..=i).filter(|j| (i - j) % 3 == 0).collect();
        let mean = seen.iter().sum::<usize>() as f32 / seen.len() as f32;
        println!("query {i:>2} sees {seen:?}: {}", output.out.view().at([0, 0, i, 0]));
        assert!((output.out.view().at([0, 0, i, 0]) - mean).abs() < 1e-5);
    }
    println!("{:?}", attention.plan(q, (q, v))?.cost());
    Ok(())
}

//! Linear attention: a prompt by the chunk, then tokens one by one from its state, which does not grow.
//!
//! Use it with models that were trained for it (RetNet, GLA, Mamba-2, DeltaNet, Gated DeltaNet and their hybrids): a token costs the
//! same at every position, in time and in memory. It recalls less exactly from far away than softmax attention, and is no stand-in for it.
//!
//! ```sh
//! cargo run --release -p regard --example linear_attention
//! ```

use std::ops::Range;

use regard::{CausalConv, Error, LinearAttention, LinearInputs, Tensor, UpdateRule, View};

const HEADS: usize = 4;
const DIM: usize = 32;

/// Numbers between −1 and 1.
fn numbers(length: usize, dim: usize, speed: f32) -> Result<Tensor<f32>, Error> {
    let data = (0..HEADS * length * dim).map(|i| (i as f32 * speed).sin()).collect();
    Tensor::from_vec(data, [1, HEADS, length, dim])
}

/// Each row divided by its length, as the delta rules need their keys.
fn unit_rows(rows: &Tensor<f32>) -> Result<Tensor<f32>, Error> {
    let unit = |row: &[f32]| {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / length).collect::<Vec<_>>()
    };
    Tensor::from_vec(rows.data().chunks(DIM).flat_map(unit).collect(), rows.shape())
}

/// Some positions of an array.
fn part<'a>(x: &'a Tensor<f32>, positions: &Range<usize>) -> Result<View<'a, f32>, Error> {
    x.view().slice(2, positions.clone())
}

fn main() -> Result<(), Error> {
    let (prompt, length) = (1000, 1032);
    let q = numbers(length, DIM, 0.37)?;
    let v = numbers(length, DIM, 0.73)?;
    // Models run a short causal convolution first; here, over the keys.
    let taps = numbers(4, DIM, 0.11)?;
    let k = unit_rows(&CausalConv::new(taps.view()).silu().forward(numbers(length, DIM, 0.59)?.view(), None)?.out)?;
    let decay = Tensor::from_vec(vec![-0.02; HEADS * length], [1, HEADS, length, 1])?; // e^−0.02 = 0.98 stays, token by token
    let beta = Tensor::from_vec(vec![0.7; HEADS * length], [1, HEADS, length, 1])?;

    let attention = LinearAttention::new(UpdateRule::GatedDelta);
    let cut = |r: Range<usize>| -> Result<LinearInputs<'_, f32>, Error> {
        let inputs = LinearInputs::new(part(&q, &r)?, part(&k, &r)?, part(&v, &r)?);
        Ok(inputs.decay(part(&decay, &r)?).beta(part(&beta, &r)?))
    };

    // Prefill: matrix products, 64 tokens at once. Decode: one token at a time.
    let prefill = attention.forward(cut(0..prompt)?)?;
    let mut state = prefill.state;
    let mut furthest = 0.0f32;
    let whole = attention.forward(cut(0..length)?)?;
    for t in prompt..length {
        let token = attention.forward(cut(t..t + 1)?.past(state.view()))?;
        for head in 0..HEADS {
            let expected = &whole.out.data()[(head * length + t) * DIM..][..DIM];
            let got = &token.out.data()[head * DIM..][..DIM];
            furthest = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(furthest, f32::max);
        }
        state = token.state;
    }
    println!("{} tokens by the chunk, then {} one by one, from a state of {} numbers", prompt, length - prompt, state.data().len());
    println!("furthest output from one call over all of them: {furthest:e}");
    println!("keys and values of as many tokens would be {} numbers, and grow", 2 * HEADS * length * DIM);
    assert!(furthest < 1e-5);
    Ok(())
}

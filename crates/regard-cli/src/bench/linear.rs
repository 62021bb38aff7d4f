//! What regard does in a case of linear attention.

use std::error::Error;
use std::hint::black_box;

use regard::{Element, LinearAttention, LinearInputs, Tensor, UpdateRule};

use super::case::{Case, Kind};
use super::random::Random;
use super::work::{Call, Load};

/// The case as a call, with one decay for each head and position, and for the delta rule what it corrects by.
pub(super) fn call<T: Element>(case: &Case) -> Result<(Call, Load), Box<dyn Error>> {
    let [batch, q_heads, heads, _, len, dim] = case.sizes;
    let q: Tensor<T> = Random::new(1).tensor([batch, q_heads, len, dim])?;
    let [k, v]: [Tensor<T>; 2] =
        [Random::new(2).tensor([batch, heads, len, dim])?, Random::new(3).tensor([batch, heads, len, dim])?];
    // Keys of about length 1, as a delta rule needs; decays of e^−0.1 or so.
    let shorter = |x: &T| T::from_f32(x.to_f32() / (dim as f32).sqrt());
    let k = Tensor::from_vec(k.data().iter().map(shorter).collect(), k.shape())?;
    let gates = |seed| Random::new(seed).tensor::<f32>([batch, heads, len, 1]);
    let (mut decay, mut beta) = (gates(5)?, gates(6)?);
    decay.data_mut().iter_mut().for_each(|x| *x = -0.1 * x.abs());
    beta.data_mut().iter_mut().for_each(|x| *x = x.abs().min(1.0));
    let rule = if case.kind == Kind::Linear { UpdateRule::Gated } else { UpdateRule::GatedDelta };
    let attention = LinearAttention::new(rule);
    let flops = attention.plan(gated(rule, [&q, &k, &v], [&decay, &beta]))?.flops();
    let run = move || {
        black_box(attention.forward(gated(rule, [&q, &k, &v], [&decay, &beta]))?);
        Ok(())
    };
    Ok((Box::new(run), Load { flops, exps: 0, bytes: 0 }))
}

/// Queries, keys and values with the gates that a rule has.
fn gated<'a, T: Element>(
    rule: UpdateRule,
    [q, k, v]: [&'a Tensor<T>; 3],
    [decay, beta]: [&'a Tensor<f32>; 2],
) -> LinearInputs<'a, T> {
    let inputs = LinearInputs::new(q.view(), k.view(), v.view()).decay(decay.view());
    if rule.corrects() { inputs.beta(beta.view()) } else { inputs }
}

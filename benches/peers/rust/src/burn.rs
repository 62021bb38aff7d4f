//! burn's flex backend, `[batch, heads, length, dim]`; it picks naive or flash attention by size.

use std::error::Error;
use std::hint::black_box;

use burn_backend::TensorData;
use burn_backend::ops::AttentionModuleOptions;
use burn_flex::FlexTensor;
use burn_flex::ops::attention::attention;
use half::{bf16, f16};

use crate::Call;
use crate::case::{Case, Refusal};

pub fn prepare(case: &Case) -> Result<Call, Box<dyn Error>> {
    let [batch, q_heads, kv_heads, q_len, kv_len, dim] = case.sizes;
    if case.causal && q_len != kv_len {
        return Err(Refusal("its causal mask aligns the first positions").into());
    }
    let tensor = |seed, heads, len| {
        let shape = [batch, heads, len, dim];
        let x = case.numbers(seed, shape.iter().product());
        FlexTensor::from_data(match case.dtype.as_str() {
            "f32" => TensorData::new(x, shape),
            "f16" => TensorData::new(x.into_iter().map(f16::from_f32).collect::<Vec<_>>(), shape),
            _ => TensorData::new(x.into_iter().map(bf16::from_f32).collect::<Vec<_>>(), shape),
        })
    };
    let (q, k, v) = (tensor(1, q_heads, q_len), tensor(2, kv_heads, kv_len), tensor(3, kv_heads, kv_len));
    let options = AttentionModuleOptions { is_causal: case.causal, ..Default::default() };
    Ok(Box::new(move || {
        black_box(attention(q.clone(), k.clone(), v.clone(), None, None, options.clone()));
        Ok(())
    }))
}

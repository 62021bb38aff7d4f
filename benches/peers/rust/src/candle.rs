//! candle's flash attention for CPUs, `[batch, length, heads, dim]`.

use std::error::Error;
use std::hint::black_box;

use candle_core::{DType, Device, Tensor, WithDType};
use candle_nn::attention::{AttnMask, flash_attn};
use half::{bf16, f16};
use num_traits::Float;

use crate::Call;
use crate::case::{Case, Refusal};

pub fn prepare(case: &Case) -> Result<Call, Box<dyn Error>> {
    match case.dtype.as_str() {
        "f32" => call::<f32>(case, DType::F32),
        "f16" => call::<f16>(case, DType::F16),
        _ => call::<bf16>(case, DType::BF16),
    }
}

fn call<T: WithDType + Float + 'static>(case: &Case, dtype: DType) -> Result<Call, Box<dyn Error>> {
    let [batch, q_heads, kv_heads, q_len, kv_len, dim] = case.sizes;
    if batch > 1 && dtype == DType::BF16 {
        return Err(Refusal("no batch of bf16").into());
    }
    let tensor = |seed, heads, len| {
        Tensor::from_vec(case.numbers(seed, batch * len * heads * dim), (batch, len, heads, dim), &Device::Cpu)?.to_dtype(dtype)
    };
    let (q, k, v) = (tensor(1, q_heads, q_len)?, tensor(2, kv_heads, kv_len)?, tensor(3, kv_heads, kv_len)?);
    let (scale, causal) = (1.0 / (dim as f32).sqrt(), case.causal);
    Ok(Box::new(move || {
        let mask = if causal { AttnMask::causal_with_offset(kv_len - q_len) } else { AttnMask::None };
        black_box(flash_attn::<T>(&q, &k, &v, scale, mask, None, None)?);
        Ok(())
    }))
}

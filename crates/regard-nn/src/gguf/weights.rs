//! A file's tensors as a model takes them.

use super::{Gguf, GgufKind, GgufTensor};
use crate::Precision;
use crate::checkpoint::{Read, Tensors};
use crate::values::Values;

/// Tensors that are a part of the configuration.
const OF_CONFIG: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

impl Tensors for Gguf {
    fn names(&self) -> Vec<String> {
        self.tensor_names().filter(|name| !OF_CONFIG.contains(&name.as_str())).collect()
    }

    fn tensor<'a>(&'a self, name: &'a str) -> Option<(&'a [usize], Read<'a>)> {
        let read = move |precision| Ok(Gguf::tensor(self, name)?.packable(precision));
        Some((self.shape(name)?, Box::new(read)))
    }
}

impl GgufTensor<'_> {
    /// Where nothing is asked for, f32 and f16 are kept exactly, in f32. A quantised number is `scale · q`, and the scale was chosen so that
    /// a step of q is at least 2⁻⁷ of the largest number of its block: bf16, which rounds a number by 2⁻⁹ of itself, adds less
    /// than half of the error that is there, at half the memory and several times the speed of f32.
    fn packable(&self, precision: Option<Precision>) -> Values {
        let own = if matches!(self.kind(), GgufKind::F32 | GgufKind::F16) { Precision::F32 } else { Precision::Bf16 };
        match precision.unwrap_or(own) {
            Precision::F32 => Values::F32(self.to_f32()),
            Precision::Bf16 => Values::Bf16(self.to()),
        }
    }
}

//! Numbers on their way into a safetensors file.

use std::borrow::Cow;

use half::bf16;
use safetensors::{Dtype, View};

/// One tensor, little-endian.
pub(crate) struct Row {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Row {
    pub(crate) fn f32(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: vec![values.len()], bytes }
    }

    pub(crate) fn f64(values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { dtype: Dtype::F64, shape: vec![values.len()], bytes }
    }

    /// Rounds to the nearest bf16.
    pub(crate) fn bf16(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
        Self { dtype: Dtype::BF16, shape: vec![values.len()], bytes }
    }

    /// The same numbers, seen with more axes.
    pub(crate) fn with_shape(self, shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), ..self }
    }
}

impl View for Row {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

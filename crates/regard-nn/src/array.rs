//! Tensors as slices: the one place where this crate looks inside candle's storage.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Device, Shape, Storage, StorageRef, Tensor};

use crate::{Error, Result};

/// The elements of a contiguous f32 tensor, row-major.
pub(crate) struct Slice<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

/// Reads a tensor in place.
///
/// # Errors
/// When it is not contiguous f32 in main memory.
pub(crate) fn slice(tensor: &Tensor) -> Result<Slice<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) => Ok(Slice { storage, range: start..end }),
        _ => Err(Error::Shape {
            what: "a tensor",
            given: tensor.dims().to_vec(),
            needed: format!("contiguous f32 in main memory, and it is {:?} on {:?}", tensor.dtype(), tensor.device()),
        }),
    }
}

impl Deref for Slice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => &[], // `slice` made sure that this is not so
        }
    }
}

/// A tensor over `values`, without a copy.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// The last size of a tensor, and the product of the others.
pub(crate) fn rows_and_width(what: &'static str, tensor: &Tensor) -> Result<(usize, usize)> {
    match tensor.dims() {
        [.., width] if *width > 0 => Ok((tensor.elem_count() / width, *width)),
        given => Err(Error::Shape { what, given: given.to_vec(), needed: "a last size of at least 1".to_owned() }),
    }
}

/// Checks the shape of a tensor against what a layer needs.
pub(crate) fn expect(what: &'static str, tensor: &Tensor, needed: &[usize]) -> Result<()> {
    if tensor.dims() == needed {
        return Ok(());
    }
    Err(Error::Shape { what, given: tensor.dims().to_vec(), needed: format!("{needed:?}") })
}

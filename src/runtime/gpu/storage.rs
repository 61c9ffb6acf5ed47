//! Tensors in the types that devices store.

use crate::codegen::wgsl::storage_type;
use crate::ops::Fact;
use crate::runtime::RuntimeError;
use crate::tensor::{DType, Tensor};
use bytes::Bytes;

/// The type a device stores elements of `dtype` in; their own where it has none, and then no kernel reads them.
fn stored(dtype: DType) -> DType {
    storage_type(dtype).unwrap_or(dtype)
}

/// Bytes that a device keeps for a tensor of `elements` elements: a multiple of 4, and positive even where there are no
/// elements, as a binding must be.
pub(super) fn stored_bytes(elements: usize, dtype: DType) -> usize {
    (elements * stored(dtype).size_bytes()).max(1).next_multiple_of(4)
}

/// The bytes a device gets for a tensor, as many as [`stored_bytes`] says. Integers wrap to 32 bits.
pub(super) fn to_device(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = tensor.cast(stored(tensor.dtype())).bytes().to_vec();
    bytes.resize(stored_bytes(tensor.len(), tensor.dtype()), 0);
    bytes
}

/// The tensor that a device gives back; more bytes than it needs may follow.
pub(super) fn from_device(bytes: &Bytes, fact: &Fact) -> Result<Tensor, RuntimeError> {
    let needed = fact.len() * stored(fact.dtype).size_bytes();
    let exact = bytes.slice(..needed.min(bytes.len()));
    let tensor = Tensor::new(stored(fact.dtype), fact.shape.clone(), exact).map_err(RuntimeError::defect)?;
    Ok(tensor.cast(fact.dtype))
}

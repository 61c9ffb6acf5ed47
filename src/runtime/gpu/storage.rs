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

/// Bytes of a tensor on a device.
pub(super) fn stored_bytes(fact: &Fact) -> usize {
    fact.len() * stored(fact.dtype).size_bytes()
}

/// The bytes a device gets for a tensor. Integers wrap to 32 bits.
pub(super) fn to_device(tensor: &Tensor) -> Vec<u8> {
    tensor.cast(stored(tensor.dtype())).bytes().to_vec()
}

/// The tensor that a device gives back; more bytes than it needs may follow.
pub(super) fn from_device(bytes: &Bytes, fact: &Fact) -> Result<Tensor, RuntimeError> {
    let needed = stored_bytes(fact);
    let exact = bytes.slice(..needed.min(bytes.len()));
    let tensor = Tensor::new(stored(fact.dtype), fact.shape.clone(), exact).map_err(RuntimeError::defect)?;
    Ok(tensor.cast(fact.dtype))
}

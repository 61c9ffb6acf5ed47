//! Layer 1: element types, shapes and host tensors, and how two tensors are compared.

mod compare;
mod dtype;
mod element;
mod memory_layout;

pub use compare::{Comparison, Tolerance, compare};
pub use dtype::DType;
pub use element::Element;
pub use memory_layout::MemoryLayout;

use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use std::borrow::Cow;
use std::fmt;

/// A dense tensor in host memory, row-major, little-endian. Cloning shares the bytes.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// The bytes given for a tensor do not fit its type and shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tensor of {dtype} {shape:?} needs {needed} bytes, but {given} were given")]
pub struct SizeError {
    /// The element type asked for.
    pub dtype: DType,
    /// The shape asked for.
    pub shape: Vec<usize>,
    /// What type and shape need; saturated where it exceeds the address space.
    pub needed: usize,
    /// What was given.
    pub given: usize,
}

impl Tensor {
    /// A tensor over `bytes`, which are shared, not copied, and need no alignment.
    ///
    /// # Errors
    /// When the length of `bytes` is not what `dtype` and `shape` need.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Tensor, SizeError> {
        let needed = elements(&shape).and_then(|n| n.checked_mul(dtype.size_bytes())).unwrap_or(usize::MAX);
        if needed != bytes.len() {
            return Err(SizeError { dtype, shape, needed, given: bytes.len() });
        }
        Ok(Tensor { dtype, shape, bytes })
    }

    /// A tensor of the elements of `values`; their number must be the product of `shape`.
    ///
    /// # Panics
    /// When it is not.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Tensor {
        let bytes = Bytes::copy_from_slice(bytemuck::cast_slice(values));
        Tensor::new(T::DTYPE, shape.to_vec(), bytes).expect("the values should fill the shape")
    }

    /// A tensor that takes over the elements of `values`; their number must be the product of `shape`.
    ///
    /// # Panics
    /// When it is not.
    pub fn from_vec<T: Element>(shape: &[usize], values: Vec<T>) -> Tensor {
        struct Owner<T>(Vec<T>);
        impl<T: Element> AsRef<[u8]> for Owner<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        let bytes = if values.is_empty() { Bytes::new() } else { Bytes::from_owner(Owner(values)) };
        Tensor::new(T::DTYPE, shape.to_vec(), bytes).expect("the values should fill the shape")
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::from_slice(&[], &[value])
    }

    /// A tensor of `dtype` whose elements are `value(i)`, rounded as [`DType`] says; `i` counts row-major.
    pub fn from_fn(dtype: DType, shape: &[usize], mut value: impl FnMut(usize) -> f64) -> Tensor {
        let count = shape.iter().product();
        let mut bytes = Vec::with_capacity(count * dtype.size_bytes());
        for i in 0..count {
            dtype.write_f64(value(i), &mut bytes);
        }
        Tensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
        let bytes = vec![0u8; shape.iter().product::<usize>() * dtype.size_bytes()];
        Tensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw bytes, possibly unaligned.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The elements as `T`, borrowed where the bytes are aligned; `None` when `T` is not the element type.
    pub fn view<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        (T::DTYPE == self.dtype).then(|| match bytemuck::try_cast_slice(&self.bytes) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.bytes)),
        })
    }

    /// Element `i` (row-major) as f64; integers beyond 2^53 lose their low bits.
    pub fn get_f64(&self, i: usize) -> f64 {
        self.dtype.read_f64(&self.bytes, i)
    }

    /// All elements as f64, row-major.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.get_f64(i)).collect()
    }

    /// All elements as i64 when the type is an integer or bool, exactly; `None` for floats.
    pub fn to_i64_vec(&self) -> Option<Vec<i64>> {
        (0..self.len()).map(|i| self.dtype.read_i64(&self.bytes, i)).collect()
    }

    /// The same bytes under another shape of the same number of elements; `None` when that differs.
    pub fn reshaped(&self, shape: &[usize]) -> Option<Tensor> {
        (elements(shape) == Some(self.len())).then(|| Tensor { shape: shape.to_vec(), ..self.clone() })
    }

    /// The elements converted to `dtype`: floats to integers truncate and saturate, NaN becomes 0, non-zero becomes true.
    pub fn cast(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype {
            return self.clone();
        }
        if dtype == DType::F32
            && let Some(values) = self.widened()
        {
            return Tensor::from_vec(&self.shape, values);
        }
        let mut bytes = Vec::with_capacity(self.len() * dtype.size_bytes());
        for i in 0..self.len() {
            match self.dtype.read_i64(&self.bytes, i) {
                Some(value) => dtype.write_i64(value, &mut bytes),
                None => dtype.write_f64(self.get_f64(i), &mut bytes),
            }
        }
        Tensor { dtype, shape: self.shape.clone(), bytes: bytes.into() }
    }

    /// The elements as f32, all at once; `None` where they are no floats of half its size.
    fn widened(&self) -> Option<Vec<f32>> {
        let mut values = vec![0.0; self.len()];
        if let Some(halves) = self.view::<half::f16>() {
            halves.convert_to_f32_slice(&mut values);
        } else {
            self.view::<half::bf16>()?.convert_to_f32_slice(&mut values);
        }
        Some(values)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        let values: Vec<f64> = (0..self.len().min(SHOWN)).map(|i| self.get_f64(i)).collect();
        write!(f, " {values:?}{}", if self.len() > SHOWN { ".." } else { "" })
    }
}

/// The number of elements of `shape`; `None` where it overflows.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))
}

/// Row-major strides of `shape`, in elements.
pub fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The shape both broadcast to by the rule of NumPy, or `None` when they do not fit.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_fit_the_shape() {
        assert!(Tensor::new(DType::F32, vec![2, 2], Bytes::from_static(&[0; 16])).is_ok());
        let error = Tensor::new(DType::F32, vec![usize::MAX, 2], Bytes::new()).unwrap_err();
        assert_eq!(error.needed, usize::MAX);
    }

    #[test]
    fn casts_saturate_and_truncate() {
        let t = Tensor::from_slice(&[4], &[-1.9f32, 300.0, f32::NAN, 0.4]);
        assert_eq!(t.cast(DType::U8).to_i64_vec().unwrap(), [0, 255, 0, 0]);
        assert_eq!(t.cast(DType::Bool).to_i64_vec().unwrap(), [1, 1, 1, 1]);
        assert_eq!(Tensor::from_slice(&[2], &[-1i64, 300]).cast(DType::U8).to_i64_vec().unwrap(), [255, 44]);
    }

    #[test]
    fn shapes_broadcast() {
        assert_eq!(broadcast_shapes(&[3, 1], &[2, 1, 4]), Some(vec![2, 3, 4]));
        assert_eq!(broadcast_shapes(&[3], &[2]), None);
        assert_eq!(row_major_strides(&[2, 3, 4]), [12, 4, 1]);
    }
}

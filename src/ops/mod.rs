//! Layer 5: the operators, one file a family: what their attributes are, which shapes they take and give, what they cost.
//!
//! The set is small and closed: whatever can be said with these operators is not an operator of its own. Layout
//! operators ([`View`], [`Transpose`], [`Slice`], [`Pad`], [`Broadcast`]) and [`Map`] make most of a model's breadth;
//! a new ONNX operator is usually a composition of them and touches nothing here.
//!
//! Every shape is concrete. An operator's meaning is stated in its documentation, elementwise over output indices.

mod blocks;
pub mod collapse;
mod conv;
pub mod define;
mod definer;
mod evaluate;
mod gather;
mod layout;
mod map;
mod matmul;
mod nests;
mod normalize;
mod pool;
mod reduce;
mod scatter;
mod softmax;
mod top_k;

pub use conv::{Conv, ConvAlgorithm, NoAlgorithm};
pub use define::{
    AnchorForm, Define, DefineError, ElementForm, External, Follow, Form, Group, GroupNode, Source,
    can_follow, define_group,
};
pub use definer::Definer;
pub use evaluate::{EvaluateError, evaluate, evaluate_group};
pub use gather::{Gather, GatherElements, GatherNd};
pub use layout::{Broadcast, Concat, Pad, PadMode, Slice, SliceAxis, Transpose, View};
pub use map::{Literal, Map, Scalar};
pub use matmul::MatMul;
pub use normalize::Normalize;
pub use pool::{Pool, PoolKind};
pub use reduce::{ArgReduce, CumSum, Extreme, Reduce, ReduceKind};
pub use scatter::{ScatterElements, ScatterNd, ScatterReduction};
pub use softmax::Softmax;
pub use top_k::TopK;

use crate::tensor::{DType, Tensor, elements};
use std::fmt;

/// The largest rank an operator takes.
pub const MAX_RANK: usize = 16;

/// What is known of a value when it is compiled: element type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// The element type.
    pub dtype: DType,
    /// The extents; empty for a scalar.
    pub shape: Vec<usize>,
}

impl Fact {
    /// The fact of that type and shape.
    pub fn new(dtype: DType, shape: &[usize]) -> Fact {
        Fact { dtype, shape: shape.to_vec() }
    }

    /// The fact of a host tensor.
    pub fn of(tensor: &Tensor) -> Fact {
        Fact::new(tensor.dtype(), tensor.shape())
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Bytes the elements take.
    pub fn size_bytes(&self) -> usize {
        self.len() * self.dtype.size_bytes()
    }

    /// The fact itself when a tensor of it can exist.
    ///
    /// # Errors
    /// When the rank exceeds [`MAX_RANK`] or the size in bytes exceeds the address space.
    pub fn checked(self) -> Result<Fact, OpError> {
        if self.rank() > MAX_RANK {
            return Err(OpError::shape(format!("the rank {} exceeds {MAX_RANK}", self.rank())));
        }
        // Zero extents must not hide the overflow of the others: strides are products of any subset.
        let nonzero: Vec<usize> = self.shape.iter().map(|&dim| dim.max(1)).collect();
        let bytes = elements(&nonzero).and_then(|n| n.checked_mul(self.dtype.size_bytes()));
        match bytes {
            Some(bytes) if isize::try_from(bytes).is_ok() => Ok(self),
            Some(_) | None => Err(OpError::shape(format!("{self} exceeds the address space"))),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Why an operator does not take the given inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The number of inputs is wrong.
    #[error("takes {wanted} inputs, but {given} are given")]
    Arity {
        /// What would be right.
        wanted: &'static str,
        /// What is given.
        given: usize,
    },
    /// An input has the wrong element type.
    #[error("input {input} is {dtype}, but {wanted} is needed")]
    DType {
        /// The input's position.
        input: usize,
        /// Its element type.
        dtype: DType,
        /// What would be right.
        wanted: String,
    },
    /// Shapes or attributes do not fit each other.
    #[error("{0}")]
    Shape(String),
}

impl OpError {
    /// The error that `what` says.
    pub fn shape(what: impl Into<String>) -> OpError {
        OpError::Shape(what.into())
    }
}

/// What every operator says of itself. A method has no default, so that none is forgotten.
pub trait OpDef: Define {
    /// The operator's name in text forms.
    fn name(&self) -> &'static str;

    /// Attributes in text forms, `name value` separated by commas; those that change nothing are left out.
    fn attributes(&self) -> String;

    /// The facts of the outputs, or why the inputs do not fit. Not yet checked by [`Fact::checked`].
    ///
    /// # Errors
    /// When number, types or shapes of the inputs do not fit the attributes.
    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError>;

    /// Floating-point (or integer) operations of one evaluation: a multiplication, an addition, a comparison or a
    /// function counts one each; moving data counts nothing. Saturates.
    fn flop(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64;
}

/// `N` inputs, or the error that says so.
fn exactly<'a, const N: usize>(inputs: &[&'a Fact], wanted: &'static str) -> Result<[&'a Fact; N], OpError> {
    inputs.try_into().map_err(|_| OpError::Arity { wanted, given: inputs.len() })
}

/// `axis` itself when it is one of `fact`.
fn checked_axis(axis: usize, fact: &Fact) -> Result<usize, OpError> {
    if axis < fact.rank() {
        Ok(axis)
    } else {
        Err(OpError::shape(format!("there is no axis {axis} in {fact}")))
    }
}

/// Refuses what is not a number.
fn numeric(input: usize, fact: &Fact) -> Result<(), OpError> {
    if fact.dtype == DType::Bool {
        return Err(OpError::DType { input, dtype: fact.dtype, wanted: "a number".into() });
    }
    Ok(())
}

/// Refuses what is not a floating-point number.
fn float(input: usize, fact: &Fact) -> Result<(), OpError> {
    if fact.dtype.is_float() {
        return Ok(());
    }
    Err(OpError::DType { input, dtype: fact.dtype, wanted: "a float".into() })
}

/// Refuses an input whose type is not `dtype`.
fn same_dtype(input: usize, fact: &Fact, dtype: DType) -> Result<(), OpError> {
    if fact.dtype == dtype {
        return Ok(());
    }
    Err(OpError::DType { input, dtype: fact.dtype, wanted: dtype.to_string() })
}

/// The type of sums of products of the elements of two inputs: that of both, i32 where both are bytes, signed or not, and f32 where the
/// second are f16 or bf16 beside f32, which they are converted to.
fn dtype_of_products(a: &Fact, b: &Fact) -> Result<DType, OpError> {
    let bytes = |fact: &Fact| matches!(fact.dtype, DType::U8 | DType::I8);
    if bytes(a) && bytes(b) {
        return Ok(DType::I32);
    }
    numeric(0, a)?;
    if a.dtype == DType::F32 && matches!(b.dtype, DType::F16 | DType::BF16) {
        return Ok(DType::F32);
    }
    same_dtype(1, b, a.dtype)?;
    Ok(a.dtype)
}

/// Refuses indices that are not i32 or i64.
fn index(input: usize, fact: &Fact) -> Result<(), OpError> {
    match fact.dtype {
        DType::I32 | DType::I64 => Ok(()),
        DType::F16
        | DType::BF16
        | DType::F32
        | DType::F64
        | DType::I8
        | DType::I16
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool => Err(OpError::DType { input, dtype: fact.dtype, wanted: "i32 or i64".into() }),
    }
}

/// The product of counts as an operation count.
fn product(counts: &[usize]) -> u64 {
    counts.iter().fold(1u64, |product, &count| product.saturating_mul(count as u64))
}

/// The extent of a window's output along one axis: windows of `kernel` elements `dilation` apart, every `stride`
/// elements of `extent` elements padded by `pads`.
fn window_extent(
    extent: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: (usize, usize),
) -> Result<usize, OpError> {
    if kernel == 0 || stride == 0 || dilation == 0 {
        return Err(OpError::shape("kernel extents, strides and dilations must be positive"));
    }
    let padded = extent.checked_add(pads.0).and_then(|sum| sum.checked_add(pads.1));
    let window = (kernel - 1).checked_mul(dilation).and_then(|last| last.checked_add(1));
    match (padded, window) {
        (Some(padded), Some(window)) if window <= padded => Ok((padded - window) / stride + 1),
        (padded, window) => Err(OpError::shape(format!(
            "a window of {} elements does not fit {} padded elements",
            window.unwrap_or(usize::MAX),
            padded.unwrap_or(usize::MAX)
        ))),
    }
}

/// Collects the attributes that differ from their default.
#[derive(Default)]
struct Attributes(Vec<String>);

impl Attributes {
    fn always(mut self, name: &str, value: impl fmt::Debug) -> Self {
        self.0.push(format!("{name} {value:?}"));
        self
    }

    fn unless<T: fmt::Debug + PartialEq>(self, default: T, name: &str, value: T) -> Self {
        if value == default { self } else { self.always(name, value) }
    }

    fn flag(mut self, name: &str, value: bool) -> Self {
        if value {
            self.0.push(name.to_owned());
        }
        self
    }

    fn finish(self) -> String {
        self.0.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_facts_are_refused() {
        assert!(Fact::new(DType::F32, &[1 << 40, 1 << 40]).checked().is_err());
        assert!(Fact::new(DType::F32, &[0, 1 << 40, 1 << 40]).checked().is_err());
        assert!(Fact::new(DType::F32, &[1; MAX_RANK + 1]).checked().is_err());
        assert!(Fact::new(DType::F32, &[2, 3]).checked().is_ok());
    }

    #[test]
    fn windows_must_fit() {
        assert_eq!(window_extent(224, 7, 2, 1, (3, 3)), Ok(112));
        assert_eq!(window_extent(5, 3, 1, 2, (0, 0)), Ok(1));
        assert!(window_extent(4, 3, 1, 2, (0, 0)).is_err());
        assert!(window_extent(4, usize::MAX, 1, usize::MAX, (0, 0)).is_err());
    }
}

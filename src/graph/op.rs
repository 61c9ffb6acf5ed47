//! The closed set of operators.

use crate::ops::{
    ArgReduce, Broadcast, Concat, Conv, CumSum, Gather, GatherElements, GatherNd, Map, MatMul, Normalize,
    OpDef, Pad, Pool, Reduce, ScatterElements, ScatterNd, Slice, Softmax, TopK, Transpose, View,
};

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One operator with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($(#[$doc])* $name($name),)*
        }

        impl Op {
            /// What the operator says of itself.
            pub fn def(&self) -> &dyn OpDef {
                match self {
                    $(Op::$name(op) => op,)*
                }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op {
                Op::$name(op)
            }
        })*
    };
}

operators! {
    /// Elementwise.
    Map,
    /// Matrix product.
    MatMul,
    /// Convolution.
    Conv,
    /// Pooling.
    Pool,
    /// Reduction over axes.
    Reduce,
    /// Position of the extreme element.
    ArgReduce,
    /// Running sum.
    CumSum,
    /// Softmax.
    Softmax,
    /// Normalisation to unit variance.
    Normalize,
    /// The largest elements.
    TopK,
    /// Another shape of the same elements.
    View,
    /// Permuted axes.
    Transpose,
    /// A regular part.
    Slice,
    /// Repetition along axes of extent 1.
    Broadcast,
    /// Elements around.
    Pad,
    /// Joined along an axis.
    Concat,
    /// Parts selected by indices.
    Gather,
    /// Elements selected by indices along an axis.
    GatherElements,
    /// Parts selected by tuples of indices.
    GatherNd,
    /// Elements written by indices along an axis.
    ScatterElements,
    /// Parts written by tuples of indices.
    ScatterNd,
}

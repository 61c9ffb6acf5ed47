//! How each operator becomes a nest: one file a family.

mod conv;
mod gather;
mod layout;
mod map;
mod matmul;
mod normalize;
mod pool;
mod reduce;
mod scatter;
mod softmax;
mod top_k;
pub(super) mod window;

#[cfg(test)]
mod tests;

use super::define::{Define, Form};
use super::{
    ArgReduce, Broadcast, Concat, CumSum, Gather, GatherElements, GatherNd, MatMul, Normalize, OpDef, Pad,
    Pool, Reduce, ScatterElements, ScatterNd, Slice, Softmax, TopK, Transpose, View,
};

/// The form of operators whose nests are named after them.
macro_rules! forms {
    ($($op:ty => $form:ident),* $(,)?) => {
        $(impl Define for $op {
            fn label(&self) -> String {
                OpDef::name(self).to_string()
            }

            fn form(&self) -> Form<'_> {
                Form::$form(self)
            }
        })*
    };
}

forms! {
    ArgReduce => Anchor,
    Broadcast => Element,
    CumSum => Anchor,
    Gather => Element,
    GatherElements => Element,
    GatherNd => Element,
    MatMul => Anchor,
    Normalize => Anchor,
    Pad => Element,
    Pool => Anchor,
    Reduce => Anchor,
    ScatterElements => Anchor,
    ScatterNd => Anchor,
    Slice => Element,
    Softmax => Anchor,
    TopK => Anchor,
    Transpose => Element,
    View => Element,
}

impl Define for Concat {
    fn label(&self) -> String {
        OpDef::name(self).to_string()
    }

    fn form(&self) -> Form<'_> {
        Form::Either(self, self)
    }
}

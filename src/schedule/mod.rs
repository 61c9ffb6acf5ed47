//! Layer 4: schedules. A [`Step`] rewrites a nest into another of the same meaning or refuses; a [`Trace`] is a list of steps.
//!
//! One file a step: purpose, before and after, when it refuses. Loops are addressed by name and a step acts on *every* loop of
//! that name, because a step that distributes a loop over several statements leaves copies of it under one name.

pub mod analytic;
mod bind;
mod compute_at;
mod fuse;
mod inline;
mod instruction;
mod keep;
mod prepare;
mod relayout;
mod reorder;
mod replace;
mod rewrite;
mod split;
mod split_reduction;
mod stage_in;
mod stage_out;
mod swizzle;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

pub use instruction::{
    Emission, INSTRUCTIONS, Instruction, Match, Operand, Shape, Stride, instruction_named, unify,
};
pub use trace::{Trace, TraceError};

use crate::loopir::{LoopKind, Nest, Scope, VerifyError};
use crate::tensor::DType;

/// What happens to the iterations that a split's factors leave over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tail {
    /// The last, incomplete iteration of the outer loop runs under a condition on every block.
    Guard,
    /// A smaller copy of the loop follows and does the rest.
    Peel,
}

/// One rewrite of a nest. See the file of each for its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// One loop into several: `split i = [_, 16, 8]`.
    Split {
        /// The loop's name.
        of: String,
        /// The extents of all but the outermost new loop, outer first.
        factors: Vec<usize>,
        /// What happens to the rest.
        tail: Tail,
    },
    /// Two loops, one directly in the other, into one: `fuse p q as pq`.
    Fuse {
        /// The outer loop's name.
        outer: String,
        /// The inner loop's name.
        inner: String,
        /// The new loop's name.
        name: String,
    },
    /// Two loops, one directly in the other, into one that goes through bands of the outer one: `swizzle i j in 4 as ij`.
    Swizzle {
        /// The outer loop's name.
        outer: String,
        /// The inner loop's name.
        inner: String,
        /// Iterations of the outer loop in a band.
        height: usize,
        /// The new loop's name.
        name: String,
    },
    /// Another order of directly nested loops: `reorder j i`.
    Reorder {
        /// The loops' names, outermost first.
        order: Vec<String>,
    },
    /// Says how a loop's iterations run: `bind i workgroup.x`, `parallel i`, `vectorise i`, `unroll i`.
    Bind {
        /// The loop's name.
        of: String,
        /// How they run.
        kind: LoopKind,
    },
    /// Puts the value a block writes in the place of each read of it: `inline shift`.
    Inline {
        /// The block's name.
        block: String,
    },
    /// Computes what a block writes where it is needed: `compute_at pad in p`.
    ComputeAt {
        /// The block's name.
        block: String,
        /// The loop in which it shall be computed.
        at: String,
    },
    /// Copies what is read of a buffer nearer: `stage_in a at k.0 in workgroup by k.1 i.1 i.2`.
    StageIn {
        /// The buffer's name.
        buffer: String,
        /// The loop at whose start the copy is made; `None` for the start of the nest.
        at: Option<String>,
        /// Where the copy lives.
        scope: Scope,
        /// The loops that index the copy, slowest first; empty for the region of the buffer that is read.
        by: Vec<String>,
        /// Elements added to each row of the copy.
        pad: usize,
        /// Elements one invocation copies at once.
        vector: usize,
    },
    /// Keeps a tile of a local buffer over several loops: `stage_out acc at j.1 in register`.
    StageOut {
        /// The buffer's name.
        buffer: String,
        /// The loop in whose body the tile lives; `None` for the nest.
        at: Option<String>,
        /// Where it lives.
        scope: Scope,
    },
    /// Computes the value of a block once, where later blocks compute it again: `keep sum`.
    Keep {
        /// The block's name.
        block: String,
    },
    /// Makes the iterations of a reduction's loop independent: `split_reduction acc over k.0`.
    SplitReduction {
        /// The accumulator's name.
        buffer: String,
        /// The loop's name.
        over: String,
    },
    /// Stores a constant in the order of the loops that read it, once: `relayout w by k.0 c r s k.1`, perhaps of another type: `as f32`.
    Relayout {
        /// The constant's name.
        buffer: String,
        /// The loops that index it, slowest first.
        by: Vec<String>,
        /// The type it is stored in, where all reads convert to that.
        dtype: Option<DType>,
    },
    /// Computes a local buffer once, when the nest is compiled: `prepare u`.
    Prepare {
        /// The buffer's name.
        buffer: String,
    },
    /// Lets an instruction stand for a loop and all in it: `replace k.1 by gemm_tile`.
    Replace {
        /// The outermost loop's name.
        of: String,
        /// The instruction's name.
        instruction: String,
    },
}

/// Why a step does not apply. Each names what it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such loop.
    #[error("there is no loop '{0}'")]
    NoLoop(String),
    /// There is no such block.
    #[error("there is no block '{0}'")]
    NoBlock(String),
    /// There is no such buffer.
    #[error("there is no buffer '{0}'")]
    NoBuffer(String),
    /// A factor is 0 or there is none.
    #[error("the factors {factors:?} cannot split loop '{of}' of extent {extent}")]
    Factors {
        /// The loop's name.
        of: String,
        /// Its extent.
        extent: usize,
        /// The factors.
        factors: Vec<usize>,
    },
    /// Loops must be directly nested.
    #[error("loop '{inner}' is not directly inside loop '{outer}'")]
    NotNested {
        /// The outer loop's name.
        outer: String,
        /// The inner loop's name.
        inner: String,
    },
    /// Iterations depend on one another.
    #[error("the iterations of loop '{of}' depend on one another through '{buffer}'")]
    Carried {
        /// The loop's name.
        of: String,
        /// The buffer's name.
        buffer: String,
    },
    /// The loop has another kind already.
    #[error("loop '{of}' is {kind} already")]
    Kind {
        /// The loop's name.
        of: String,
        /// The kind's word.
        kind: &'static str,
    },
    /// The loop belongs to an instruction.
    #[error("loop '{of}' is part of instruction '{instruction}'")]
    Replaced {
        /// The loop's name.
        of: String,
        /// The instruction's name.
        instruction: String,
    },
    /// A name is in use.
    #[error("the name '{0}' is taken")]
    NameTaken(String),
    /// The step does not fit this buffer.
    #[error("buffer '{buffer}': {reason}")]
    Buffer {
        /// The buffer's name.
        buffer: String,
        /// What does not fit.
        reason: String,
    },
    /// The step does not fit this block.
    #[error("block '{block}': {reason}")]
    Block {
        /// The block's name.
        block: String,
        /// What does not fit.
        reason: String,
    },
    /// The loops that result have kinds that do not fit together.
    #[error("{0}")]
    Nesting(VerifyError),
    /// The loop does not unify with the instruction.
    #[error("loop '{of}' is not instruction '{instruction}': {reason}")]
    Instruction {
        /// The loop's name.
        of: String,
        /// The instruction's name.
        instruction: String,
        /// Which part does not fit.
        reason: String,
    },
}

impl Step {
    /// Rewrites `nest`.
    ///
    /// # Errors
    /// When the step does not apply; `nest` is as before.
    pub fn apply(&self, nest: &mut Nest) -> Result<(), Refusal> {
        let before = nest.snapshot();
        let applied = self.change(nest).and_then(|()| nest.verify_kinds().map_err(Refusal::Nesting));
        if applied.is_err() {
            nest.restore(before);
        }
        applied
    }

    /// Applies the step; where it refuses, `nest` may be changed in part.
    fn change(&self, nest: &mut Nest) -> Result<(), Refusal> {
        match self {
            Step::Split { of, factors, tail } => split::apply(nest, of, factors, *tail),
            Step::Fuse { outer, inner, name } => fuse::apply(nest, outer, inner, name),
            Step::Swizzle { outer, inner, height, name } => swizzle::apply(nest, outer, inner, *height, name),
            Step::Reorder { order } => reorder::apply(nest, order),
            Step::Bind { of, kind } => bind::apply(nest, of, *kind),
            Step::Inline { block } => inline::apply(nest, block),
            Step::ComputeAt { block, at } => compute_at::apply(nest, block, at),
            Step::StageIn { buffer, at, scope, by, pad, vector } => stage_in::apply(
                nest,
                &stage_in::Staging {
                    buffer,
                    at: at.as_deref(),
                    scope: *scope,
                    by,
                    pad: *pad,
                    vector: *vector,
                },
            ),
            Step::StageOut { buffer, at, scope } => stage_out::apply(nest, buffer, at.as_deref(), *scope),
            Step::Keep { block } => keep::apply(nest, block),
            Step::SplitReduction { buffer, over } => split_reduction::apply(nest, buffer, over),
            Step::Relayout { buffer, by, dtype } => relayout::apply(nest, buffer, by, *dtype),
            Step::Prepare { buffer } => prepare::apply(nest, buffer),
            Step::Replace { of, instruction } => replace::apply(nest, of, instruction),
        }
    }
}

//! The CPU program: what a scheduled loop nest becomes on a CPU.
//!
//! A program is data: [`Code`] holds buffers, loop counters, accesses and a tree of counted loops whose leaves are
//! calls. It is built by code generation, proved safe by [`verify`](Code::verify), printed by its `Display`, and run
//! by the threads of a [`Pool`](crate::pool::Pool) as a step of a [`Sequence`].
//!
//! **Accesses.** An [`Access`] is a running offset into one buffer: `start + sum(stride * counter)`, in elements. A loop
//! adds the strides of its counter to the accesses below it on every iteration and takes them back at its end, so that
//! a call finds its pointers ready.
//!
//! **Phases.** Each item of the top level is a phase; all threads finish a phase before one begins the next. A phase that
//! is a `parallel` loop is divided over the threads; loops directly and only inside it that are parallel too, with a
//! constant trip, are divided together with it. Any other phase runs on one thread. Below that, `parallel` is refused.
//!
//! **Calls.** A [`Tile`] is a matrix product or a pooling on a register tile, a [`Window`] a depthwise convolution or pooling, a [`Transform`] a
//! small matrix applied to tiles of a plane from both sides. A [`Block`] is a straight-line program over up to
//! three innermost dimensions: its registers hold a value for every element of the block.
//!
//! **Memory.** A buffer is external (bound per step to a range of the arena, a constant, an input or an output), shared
//! (one per program run, undefined at its start) or scratch (one per thread, undefined at the start of each iteration
//! of a parallel loop).
//!
//! **Contract.** What a program does is defined when, within one phase, no element of an external or shared buffer that
//! one iteration of the parallel loops writes is touched by another iteration, and when no lane of a block loads an
//! element that another lane of the same run of the block stores. The verifier checks everything else; see
//! [`Program::new`] for the one place where the first half of this is promised.

mod affine;
mod apart;
mod arithmetic;
mod block;
mod code;
mod convert;
mod lanes;
mod layout;
mod lower;
mod machine;
mod memory;
mod print;
mod range;
mod sequence;
mod tile;
mod timeline;
mod transform;
mod verify;

#[cfg(test)]
mod tests;

use crate::table::KernelTable;

pub use affine::{Affine, Bound, Condition};
pub use code::{
    Access, AccessId, Accumulate, Block, BlockOp, Buffer, BufferId, Call, Code, Combine, CounterId, Depth,
    ElementType, Finish, Literal, Loop, Node, Place, Register, Scaled, Terms, Tile, Transform, Trip, Window,
    WindowKind,
};
pub use layout::{Binding, BindingProblem, Extents, Region, SequenceError, Step};
pub use memory::{ALIGNMENT, AlignedBytes};
pub use sequence::{Memory, RunError, Sequence};
pub use timeline::{Span, StepTime, Timeline};
pub use verify::{Problem, VerifyError};

/// A verified program, ready to be a [`Step`] of a [`Sequence`].
#[derive(Debug)]
pub struct Program {
    code: Code,
    table: &'static KernelTable,
    lowered: lower::Lowered,
    /// What a step binds to each external buffer, by its index.
    bindings: Vec<BindingNeed>,
    /// Bytes of the scratch buffers of a thread, and where each begins.
    scratch: (usize, Vec<usize>),
    /// The same of the shared buffers.
    shared: (usize, Vec<usize>),
}

/// What an external buffer needs of its binding.
#[derive(Clone, Copy, Debug)]
struct BindingNeed {
    buffer: BufferId,
    bytes: usize,
    alignment: usize,
    writable: bool,
}

impl Program {
    /// Verifies code and makes it ready to run with the kernels of `table`.
    ///
    /// # Errors
    /// What [`Code::verify`] finds.
    ///
    /// # Safety
    /// Of any two iterations of the parallel loops of one phase, neither writes an element of an external or shared buffer
    /// that the other reads or writes. That is what the scheduled nest's dependence check proves before it marks a
    /// loop parallel; the verifier does not repeat it. A program without parallel loops keeps the contract by itself.
    pub unsafe fn new(code: Code, table: &'static KernelTable) -> Result<Program, VerifyError> {
        code.verify(table)?;
        let lowered = lower::lower(&code, table);
        let mut bindings: Vec<(usize, BindingNeed)> = Vec::new();
        for (at, buffer) in code.buffers.iter().enumerate() {
            if let Place::External { index, writable } = buffer.place {
                let size = buffer.dtype.size_bytes();
                let alignment = if lowered.anywhere[at] { 1 } else { size };
                let bytes = buffer.length * size;
                bindings
                    .push((index, BindingNeed { buffer: BufferId(at as u32), bytes, alignment, writable }));
            }
        }
        bindings.sort_unstable_by_key(|(index, _)| *index);
        Ok(Program {
            lowered,
            bindings: bindings.into_iter().map(|(_, need)| need).collect(),
            scratch: lower::layout(&code, Place::Scratch),
            shared: lower::layout(&code, Place::Shared),
            code,
            table,
        })
    }

    /// As [`new`](Program::new), for code without parallel loops, which needs no promise.
    ///
    /// # Errors
    /// What [`Code::verify`] finds, and [`Problem::NestedParallel`] for a parallel loop.
    pub fn serial(code: Code, table: &'static KernelTable) -> Result<Program, VerifyError> {
        let parallel = code.body.iter().find_map(|node| match node {
            Node::Loop(Loop { counter, parallel: true, .. }) => Some(*counter),
            Node::Loop(_) | Node::Call(_) => None,
        });
        if let Some(counter) = parallel {
            let (program, place) = (code.name, "a serial program".into());
            return Err(VerifyError { program, place, problem: Problem::NestedParallel(counter) });
        }
        // SAFETY: without a parallel loop at the top of a phase, and the verifier refuses all others, each phase is run
        // by one thread.
        unsafe { Program::new(code, table) }
    }

    /// What it was made from.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// What the address of the memory bound to its external buffer `index` must be a multiple of: the size of an element, or 1
    /// where all it does with the buffer is to copy planes or gather from it. 1 where there is no such buffer.
    pub fn alignment(&self, index: usize) -> usize {
        self.bindings.get(index).map_or(1, |need| need.alignment)
    }

    /// Bytes of memory all threads share while it runs.
    pub fn shared_bytes(&self) -> usize {
        self.shared.0
    }

    /// Bytes of memory it needs for each thread, registers included.
    pub fn thread_bytes(&self) -> usize {
        self.scratch.0 + self.lowered.register_bytes
    }
}

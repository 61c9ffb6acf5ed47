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
//! **Calls.** A [`Tile`] is a matrix product on a register tile. A [`Block`] is a straight-line program over up to
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
mod code;
mod range;
mod verify;

pub use affine::{Affine, Bound, Condition};
pub use code::{
    Access, AccessId, Accumulate, Block, BlockOp, Buffer, BufferId, Call, Code, Combine, CounterId,
    ElementType, Literal, Loop, Node, Place, Register, Tile, Trip,
};
pub use verify::{Problem, VerifyError};
